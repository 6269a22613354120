//! One look at one node: its own figures over the control socket, and what the kernel says of its process.
//!
//! Whatever cannot be read is left out of the row; a node that knows fewer requests simply tells less.

use std::{path::Path, time::Duration};

use perennial_soak::proc_figures;
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    run_format::{Barrier, Kind, Store},
    socket,
};

/// The row of `node`, without its place in the run. What it does not answer within `timeout` is left out.
pub(crate) async fn at(cluster: &Cluster, node: usize, timeout: Duration) -> Barrier {
    let mut row = Barrier { node: node as u32, ..Barrier::default() };
    let Ok(process) = cluster.process(node) else { return row };
    row.fds = proc_figures::open_fds(process.pid);
    row.threads = proc_figures::threads(process.pid);
    row.rss_bytes = proc_figures::resident(process.pid).map(|(now, _)| now);
    if let Some((lines, errors)) = logged(&cluster.log(node)) {
        (row.log_lines, row.error_lines) = (Some(lines), Some(errors));
    }
    // Whatever was told before the time is up counts.
    let _ = tokio::time::timeout(timeout, ask(&process.control, &mut row)).await;
    row
}

async fn ask(control: &Path, row: &mut Barrier) {
    // The ledger first: a connection that opens in between is then in the table and not yet in the ledger, and the next
    // look settles it.
    if let Ok(ledger) = socket::ask(control, json!({"request": "ledger"})).await {
        on_ledger(row, &ledger);
    }
    if let Ok(peers) = socket::ask(control, json!({"request": "peers"})).await {
        on_peers(row, &peers);
    }
    if let Ok(status) = socket::ask(control, json!({"request": "status"})).await {
        on_status(row, &status);
    }
}

fn on_peers(row: &mut Barrier, peers: &Value) {
    let Some(peers) = peers["peers"].as_array() else { return };
    let connections = |peer: &Value| peer["connections"].as_array().cloned().unwrap_or_default();
    row.peers = Some(peers.iter().filter(|peer| !connections(peer).is_empty()).count() as u64);
    let unleased = |connection: &Value| connection["leases"] == 0;
    row.unleased = Some(peers.iter().flat_map(connections).filter(unleased).count() as u64);
}

fn on_ledger(row: &mut Barrier, ledger: &Value) {
    for line in ledger["kinds"].as_array().into_iter().flatten() {
        let (Some(kind), Some(spawned), Some(finished)) =
            (line["kind"].as_str(), line["spawned"].as_u64(), line["finished"].as_u64())
        else {
            continue;
        };
        // Who asks is counted too, so these two move with every look.
        if matches!(kind, "control-client" | "service") {
            continue;
        }
        let (owned, orphans) = (line["owned"].as_u64(), line["orphans"].as_i64());
        row.kinds.insert(kind.to_owned(), Kind { spawned, finished, owned, orphans });
    }
}

fn on_status(row: &mut Barrier, status: &Value) {
    let figure = |name: &str| status[name].as_u64();
    row.half_open = figure("half_open");
    // Ours counts half-open ones against the cap, and so among its connections.
    row.connections = figure("connections").map(|held| held.saturating_sub(row.half_open.unwrap_or(0)));
    row.neighbors = figure("neighbors");
    row.tasks = figure("alive_tasks");
    row.heap_bytes = figure("heap_bytes");
    let cap = figure("connection_cap");
    row.stores.insert(
        "connections".into(),
        Store { size: figure("connections"), cap, high_water: figure("connections_high_water") },
    );
    if let Some(size) = figure("addresses") {
        row.stores.insert("addresses".into(), Store { size: Some(size), cap: None, high_water: None });
    }
    if let Some(topics) = status["topics"].as_array() {
        row.restarts = Some(topics.iter().filter_map(|topic| topic["restarts"].as_u64()).sum());
    }
}

/// Lines of a node's log, and those of them that are errors.
fn logged(path: &Path) -> Option<(u64, u64)> {
    let text = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    let errors = text.lines().filter(|line| line.contains(" ERROR ") || line.contains("panicked at"));
    Some((text.lines().count() as u64, errors.count() as u64))
}
