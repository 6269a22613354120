//! A node's ledger, its connections, its backends and its figures, as its control socket tells them: read here for everybody who asks. What a
//! node does not tell is absent. `[pure]`

use serde_json::Value;

use crate::run_format::Kind;

/// Every kind of task in a ledger, by name.
pub(crate) fn kinds(ledger: &Value) -> impl Iterator<Item = (&str, Kind)> {
    ledger["kinds"].as_array().into_iter().flatten().filter_map(|line| {
        let (spawned, finished) = (line["spawned"].as_u64()?, line["finished"].as_u64()?);
        let (owned, orphans) = (line["owned"].as_u64(), line["orphans"].as_i64());
        Some((line["kind"].as_str()?, Kind { spawned, finished, owned, orphans }))
    })
}

/// One kind of task.
pub(crate) fn kind(ledger: &Value, name: &str) -> Option<Kind> {
    kinds(ledger).find(|(kind, _)| *kind == name).map(|(_, counts)| counts)
}

/// One row of `connections` or `closed_connections`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Connection {
    /// The node counts its connections from its start.
    pub number: u64,
    pub peer: String,
    /// Whether the remote dialed.
    pub accepted: bool,
    /// Whether the remote speaks stock's protocol, as strangers do; the mesh has one of its own.
    pub stock: bool,
    /// Of one that ended: the close code, how long it lived, and how long ago it ended, in seconds.
    pub code: Option<u64>,
    pub age_s: Option<f64>,
    pub ended_s_ago: Option<f64>,
}

/// The rows of an answer.
pub(crate) fn connections(answer: &Value) -> impl Iterator<Item = Connection> {
    answer["connections"].as_array().into_iter().flatten().filter_map(|row| {
        Some(Connection {
            number: row["number"].as_u64()?,
            peer: row["peer"].as_str()?.to_owned(),
            accepted: row["side"] == "accepted",
            stock: row["protocol"] == "iroh-gossip",
            code: row["code"].as_u64(),
            age_s: row["age_s"].as_f64(),
            ended_s_ago: row["ended_s_ago"].as_f64(),
        })
    })
}

/// One row of `backends`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    pub name: String,
    pub is_healthy: bool,
    /// In a row.
    pub failures: u64,
    /// Since the start.
    pub saved: u64,
}

/// The rows of an answer.
pub(crate) fn backends(answer: &Value) -> impl Iterator<Item = Backend> {
    answer["backends"].as_array().into_iter().flatten().filter_map(|row| {
        Some(Backend {
            name: row["name"].as_str()?.to_owned(),
            is_healthy: row["state"] == "healthy",
            failures: row["failures"].as_u64()?,
            saved: row["attempts_saved"].as_u64()?,
        })
    })
}

/// One sample of a page of figures in the text format of Prometheus, its labels as they stand there.
pub(crate) fn figure(page: &str, sample: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(sample)?.strip_prefix(' ')?.trim().parse().ok();
    page.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_that_lacks_its_counts_is_no_line() {
        let dial = json!({"kind": "dial", "spawned": 9, "finished": 4, "owned": 5, "orphans": 0});
        let ledger = json!({"kinds": [{"kind": "topic", "spawned": 1}, dial]});
        assert_eq!(kinds(&ledger).count(), 1);
        assert_eq!(kind(&ledger, "dial").map(|kind| kind.alive()), Some(5));
        assert_eq!((kind(&ledger, "topic"), kind(&json!({}), "dial")), (None, None));
    }

    #[test]
    fn a_backend_tells_whether_it_is_used_and_what_that_saved() {
        let down = json!({"name": "bootstrap:aa", "state": "probing", "failures": 4, "attempts_saved": 9});
        let answer = json!({"backends": [down, {"name": "relay:bb", "state": "healthy", "failures": 0}]});
        let rows: Vec<Backend> = backends(&answer).collect();
        let expected = Backend { name: "bootstrap:aa".into(), is_healthy: false, failures: 4, saved: 9 };
        assert_eq!(rows, [expected]);
    }

    #[test]
    fn a_figure_is_found_by_its_whole_name() {
        let page =
            "# TYPE spans counter\nspans_total{outcome=\"dropped\"} 7\nspans_total{outcome=\"failed\"} 2.5\nspans 1\n";
        assert_eq!(figure(page, "spans_total{outcome=\"failed\"}"), Some(2.5));
        assert_eq!((figure(page, "spans"), figure(page, "spans_total")), (Some(1.0), None));
    }

    #[test]
    fn a_connection_tells_who_dialed_and_what_is_spoken() {
        let open = json!({"number": 3, "peer": "aa", "side": "accepted", "protocol": "iroh-gossip"});
        let ended =
            json!({"number": 2, "peer": "bb", "side": "dialed", "protocol": "perennial", "code": 21, "age_s": 0.5});
        let answer = json!({"connections": [open, ended, {"peer": "cc"}]});
        let rows: Vec<Connection> = connections(&answer).collect();
        assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), [3, 2]);
        assert!(rows[0].accepted && rows[0].stock && rows[0].code.is_none());
        assert_eq!((rows[1].accepted, rows[1].stock, rows[1].code, rows[1].age_s), (false, false, Some(21), Some(0.5)));
    }
}
