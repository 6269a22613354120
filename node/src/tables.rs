//! Answers for people: aligned columns, nothing that a terminal of 80 columns cannot show. `[pure]`
//!
//! Those about limits and connections are in `tables/door.rs`, about topics and findings in `tables/talk.rs`.

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use crate::{
    control::protocol::{LedgerView, Peers, RetirementsView, Status},
    names::short,
};

pub(crate) mod door;
pub(crate) mod talk;

/// One screen: who, how long, how many.
pub(crate) fn status(status: &Status) -> String {
    let mut facts = table([]);
    let mut fact = |name: &str, value: String| {
        facts.add_row([name, value.as_str()]);
    };
    fact("id", status.id.clone());
    fact("version", status.version.clone());
    fact("up", uptime(status.uptime_s));
    fact("listening", status.listen.join(", "));
    fact("neighbors", status.neighbors.to_string());
    fact(
        "connections",
        format!(
            "{} of {} (high water {}, half-open {})",
            status.connections, status.connection_cap, status.connections_high_water, status.half_open
        ),
    );
    fact("peers", format!("{} ({} known)", status.peers, status.peers_known));
    fact("addresses", status.addresses.to_string());
    fact("tasks", format!("{} alive, {} orphans", status.alive_tasks, status.orphans));
    fact("memory", format!("{} resident, heap {}", bytes(status.rss_bytes), bytes(status.heap_bytes)));
    let crashes: Vec<String> = status.crashes.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if status.panics > 0 || !crashes.is_empty() {
        fact("crashes", format!("{} panics; {}", status.panics, crashes.join(", ")));
    }
    fact("descriptors", status.open_fds.map_or("unknown".into(), |fds| fds.to_string()));
    fact("pressure", status.pressure.clone());
    if !status.degraded.is_empty() {
        fact("degraded", status.degraded.join(", "));
    }
    let mut sections = vec![text(&facts)];
    sections.push(talk::topics(&status.topics));
    if !status.counts.is_empty() {
        let mut counts = table(["counted", "times"]);
        for (reason, count) in &status.counts {
            counts.add_row([reason.clone(), count.to_string()]);
        }
        align_right(&mut counts, 1..2);
        sections.push(text(&counts));
    }
    sections.join("\n\n")
}

/// One row per connection; a remote without one has a row of its own.
pub(crate) fn peers(peers: &Peers) -> String {
    if peers.peers.is_empty() {
        return " no peers".into();
    }
    let mut rows =
        table(["peer", "standing", "neighbor in", "connection", "protocol", "age", "leases", "queued", "rtt", "path"]);
    for peer in &peers.peers {
        let neighbor_in = format!("{} topics", peer.neighbor_in.len());
        if peer.connections.is_empty() {
            let state = if peer.dialing { "dialing" } else { "none" };
            rows.add_row([short(&peer.id), peer.standing.clone(), neighbor_in, state.into()]);
            continue;
        }
        for connection in &peer.connections {
            rows.add_row([
                short(&peer.id),
                peer.standing.clone(),
                neighbor_in.clone(),
                format!("{} {}", connection.number, connection.side),
                connection.protocol.clone(),
                uptime(connection.age_s),
                connection.leases.to_string(),
                connection.queued_frames.to_string(),
                connection.rtt_ms.map_or("-".into(), |rtt| format!("{rtt} ms")),
                connection.path.clone().unwrap_or_else(|| "-".into()),
            ]);
        }
    }
    align_right(&mut rows, 5..9);
    text(&rows)
}

/// One row per kind of task that ever ran, and the verdict.
pub(crate) fn ledger(ledger: &LedgerView) -> String {
    let mut rows = table(["kind", "spawned", "finished", "owned", "orphans"]);
    for kind in ledger.kinds.iter().filter(|kind| kind.spawned + kind.owned > 0) {
        rows.add_row([
            kind.kind.clone(),
            kind.spawned.to_string(),
            kind.finished.to_string(),
            kind.owned.to_string(),
            kind.orphans.to_string(),
        ]);
    }
    align_right(&mut rows, 1..5);
    let verdict = match ledger.orphans {
        0 => " every task is accounted for".to_owned(),
        orphans => format!(" {orphans} orphans"),
    };
    let retirements = ledger.retirements.as_ref().map(retirements).unwrap_or_default();
    format!("{}\n{verdict}{retirements}", text(&rows))
}

fn retirements(figures: &RetirementsView) -> String {
    let RetirementsView { retired, retired_late, p50_ms, p99_ms, max_ms, .. } = figures;
    format!(
        "\n {retired} connections retired in p50 {p50_ms} ms, p99 {p99_ms} ms, max {max_ms} ms; {retired_late} late"
    )
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    if N > 0 {
        table.set_header(header);
    }
    table
}

fn align_right(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The table without the blanks it pads its last column with.
fn text(table: &Table) -> String {
    table.trim_fmt()
}

/// A number and what it is of, which is an English word that takes an s.
pub(crate) fn counted(number: u64, of: &str) -> String {
    if number == 1 { format!("1 {of}") } else { format!("{number} {of}s") }
}

pub(crate) fn uptime(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

pub(crate) fn bytes(bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        None => "unknown".into(),
    }
}

/// Bytes in the unit that leaves at most four digits.
pub(crate) fn amount(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_240_000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::KindView;

    #[test]
    fn a_ledger_lists_what_ran_and_says_how_it_comes_out() {
        let kind = |kind: &str, spawned, finished, owned, orphans| KindView {
            kind: kind.into(),
            spawned,
            finished,
            owned,
            orphans,
        };
        let kinds = vec![kind("connection", 12, 8, 4, 0), kind("dial", 0, 0, 0, 0)];
        let shown = ledger(&LedgerView { v: 1, orphans: 0, kinds, retirements: None });
        assert_eq!(
            shown,
            " kind        spawned  finished  owned  orphans\n connection       12         8      4        0\n every task is accounted for"
        );
        let shown = ledger(&LedgerView { v: 1, orphans: 2, kinds: vec![kind("dial", 3, 0, 1, 2)], retirements: None });
        assert!(shown.ends_with(" 2 orphans"));
        let retirements = RetirementsView {
            retired: 7,
            retired_late: 1,
            p50_ms: 5,
            p99_ms: 400,
            max_ms: 31_000,
            causes: Vec::new(),
            slowest: None,
            deadlines_ms: std::collections::BTreeMap::new(),
        };
        let shown = ledger(&LedgerView { v: 1, orphans: 0, kinds: Vec::new(), retirements: Some(retirements) });
        assert!(shown.ends_with("\n 7 connections retired in p50 5 ms, p99 400 ms, max 31000 ms; 1 late"), "{shown}");
    }

    #[test]
    fn times_are_short_and_unknown_is_said() {
        assert_eq!([uptime(1.25), uptime(61.0), uptime(90_000.0)], ["1.2 s", "1 min 1 s", "1 d 1 h"]);
        assert_eq!([counted(0, "line"), counted(1, "line")], ["0 lines", "1 line"]);
        assert_eq!(bytes(None), "unknown");
        assert_eq!(bytes(Some(3 << 20)), "3.0 MiB");
    }
}
