//! What was measured of the observer: one [`Sample`] per look, read from the node's own JSON, written as CSV. `[pure]`
//!
//! A figure that the node does not tell is `None` and stays an empty cell; it is never taken for zero.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

/// The observer at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Seconds since the run began.
    pub at_s: f64,
    /// Part of the run this was taken in.
    pub phase: Phase,
    /// Judged events done so far.
    pub events: usize,
    /// From `perennial status`.
    pub status: Status,
    /// From `perennial ledger`.
    pub ledger: Ledger,
}

/// Part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// Settling before the judged storm.
    Before,
    /// During the storm.
    Storm,
    /// Settling after it.
    After,
}

/// The figures of `perennial status --json` that are judged or reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    /// Live connections, half-open ones included where the node counts them so.
    pub connections: u64,
    /// The cap on them.
    pub connection_cap: u64,
    /// Handshakes and dials under way.
    pub half_open: u64,
    /// Remotes of the active view.
    pub neighbors: u64,
    /// Tasks alive in the runtime.
    pub alive_tasks: u64,
    /// Live heap, where the allocator tells.
    pub heap_bytes: Option<u64>,
    /// Resident memory.
    pub rss_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
}

/// The figures of `perennial ledger --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Ledger {
    /// Tasks without an owner, over all kinds.
    pub orphans: i64,
    /// The kinds that have any, with their number, in words: `topic 1, dial 2`.
    pub orphan_kinds: String,
    /// Connection loops ever started.
    pub connections_spawned: u64,
    /// Connection loops that have ended.
    pub connections_finished: u64,
}

impl Ledger {
    /// Connection loops alive: `spawned − finished`.
    pub(crate) fn connections_alive(&self) -> u64 {
        self.connections_spawned.saturating_sub(self.connections_finished)
    }
}

/// Reads `status --json`. A missing required figure is an error that names it.
pub(crate) fn status(json: &Value) -> Result<Status, String> {
    Ok(Status {
        connections: required(json, "connections")?,
        connection_cap: required(json, "connection_cap")?,
        half_open: required(json, "half_open")?,
        neighbors: required(json, "neighbors")?,
        alive_tasks: required(json, "alive_tasks")?,
        heap_bytes: count(json, "heap_bytes"),
        rss_bytes: count(json, "rss_bytes"),
        open_fds: count(json, "open_fds"),
    })
}

/// Reads `ledger --json`. A missing figure is an error that names it.
pub(crate) fn ledger(json: &Value) -> Result<Ledger, String> {
    let orphans = json["orphans"].as_i64().ok_or("the ledger tells no orphans")?;
    let kinds = json["kinds"].as_array().ok_or("the ledger tells no kinds")?;
    let connection = kinds
        .iter()
        .find(|kind| kind["kind"] == "connection")
        .ok_or("the ledger has no line for the kind connection")?;
    let orphan_kinds: Vec<String> = kinds
        .iter()
        .filter(|kind| kind["orphans"] != 0)
        .map(|kind| format!("{} {}", kind["kind"].as_str().unwrap_or("unnamed"), kind["orphans"]))
        .collect();
    Ok(Ledger {
        orphans,
        orphan_kinds: orphan_kinds.join(", "),
        connections_spawned: required(connection, "spawned")?,
        connections_finished: required(connection, "finished")?,
    })
}

fn required(json: &Value, name: &str) -> Result<u64, String> {
    count(json, name).ok_or_else(|| format!("the node tells no {name}"))
}

/// A number, or the length of a list: `neighbors` may be told either way.
fn count(json: &Value, name: &str) -> Option<u64> {
    let value = &json[name];
    value.as_u64().or_else(|| value.as_array().map(|list| list.len() as u64))
}

/// The samples as CSV with a header line.
pub(crate) fn csv(samples: &[Sample]) -> String {
    let mut out = String::from(
        "at_s,phase,events,connections,half_open,neighbors,alive_tasks,heap_bytes,rss_bytes,open_fds,orphans,\
         connections_spawned,connections_finished\n",
    );
    for Sample { at_s, phase, events, status, ledger } in samples {
        let cell = |figure: Option<u64>| figure.map(|figure| figure.to_string()).unwrap_or_default();
        let phase = match phase {
            Phase::Before => "before",
            Phase::Storm => "storm",
            Phase::After => "after",
        };
        writeln!(
            out,
            "{at_s:.1},{phase},{events},{},{},{},{},{},{},{},{},{},{}",
            status.connections,
            status.half_open,
            status.neighbors,
            status.alive_tasks,
            cell(status.heap_bytes),
            cell(status.rss_bytes),
            cell(status.open_fds),
            ledger.orphans,
            ledger.connections_spawned,
            ledger.connections_finished,
        )
        .expect("writing to a string succeeds");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status_json() -> Value {
        json!({
            "v": 1, "connections": 6, "connection_cap": 128, "half_open": 1, "neighbors": ["a", "b"],
            "alive_tasks": 40, "heap_bytes": null, "rss_bytes": 1000, "open_fds": 14
        })
    }

    #[test]
    fn an_unknown_heap_is_not_zero() {
        let status = status(&status_json()).unwrap();
        assert_eq!((status.heap_bytes, status.rss_bytes, status.neighbors), (None, Some(1000), 2));
    }

    #[test]
    fn a_missing_figure_is_named() {
        let mut json = status_json();
        json.as_object_mut().unwrap().remove("alive_tasks");
        assert_eq!(status(&json).unwrap_err(), "the node tells no alive_tasks");
        let json = json!({"orphans": 0, "kinds": []});
        assert_eq!(ledger(&json).unwrap_err(), "the ledger has no line for the kind connection");
    }

    #[test]
    fn samples_become_csv_with_empty_cells_for_the_unknown() {
        let json = json!({"orphans": -1, "kinds": [
            {"kind": "peer", "spawned": 9, "finished": 9, "orphans": -1},
            {"kind": "connection", "spawned": 20, "finished": 15, "orphans": 0}
        ]});
        let ledger = ledger(&json).unwrap();
        assert_eq!((ledger.connections_alive(), ledger.orphan_kinds.as_str()), (5, "peer -1"));
        let sample =
            Sample { at_s: 1.25, phase: Phase::Storm, events: 3, status: status(&status_json()).unwrap(), ledger };
        let csv = csv(&[sample]);
        assert_eq!(csv.lines().nth(1), Some("1.2,storm,3,6,1,2,40,,1000,14,-1,20,15"));
        let cells: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(cells, [13, 13]);
    }
}
