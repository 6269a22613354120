//! One look at one node: its own figures over the control socket, and what the kernel says of its process.
//!
//! Whatever cannot be read is left out of the row; a node that knows fewer requests simply tells less.

use std::{fs, path::Path, time::Duration};

use perennial_soak::proc_figures;
use serde_json::{Value, json};

use crate::{
    books,
    cluster::Cluster,
    run_format::{Barrier, Edges, Lingering, Retired, Store},
    socket,
};

/// After free memory was given back, the node gets this long to be as it was.
const TRIM_WAIT: Duration = Duration::from_millis(200);

/// As many characters of an id as tell nodes of one run apart. The node's own short form.
const ID_CHARS: usize = 10;

/// As [`at`], of a node that has given free memory back before, if it can: then what is resident is what is used.
pub(crate) async fn at_rest(cluster: &Cluster, node: usize, timeout: Duration) -> Barrier {
    let mut trimmed = None;
    if let Ok(process) = cluster.process(node) {
        // Whoever answers everything with its status has not trimmed.
        let answer = tokio::time::timeout(timeout, socket::ask(&process.control, json!({"request": "trim"}))).await;
        trimmed = Some(matches!(answer, Ok(Ok(answer)) if answer["released"].is_boolean()));
        if trimmed == Some(true) {
            tokio::time::sleep(TRIM_WAIT).await;
        }
    }
    Barrier { trimmed, ..at(cluster, node, timeout).await }
}

/// The row of `node`, without its place in the run. What it does not answer within `timeout` is left out.
pub(crate) async fn at(cluster: &Cluster, node: usize, timeout: Duration) -> Barrier {
    let mut row = Barrier { node: node as u32, ..Barrier::default() };
    let Ok(process) = cluster.process(node) else { return row };
    row.fds = proc_figures::open_fds(process.pid);
    row.threads = proc_figures::threads(process.pid);
    row.rss_bytes = proc_figures::resident(process.pid).map(|(now, _)| now);
    row.anon_bytes = anonymous(process.pid);
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
    if let Ok(connections) = socket::ask(control, json!({"request": "connections"})).await {
        row.lingering = connections["lingering"].get(0).and_then(lingering);
    }
    if let Ok(peers) = socket::ask(control, json!({"request": "peers"})).await {
        on_peers(row, &peers);
    }
    if let Ok(status) = socket::ask(control, json!({"request": "status"})).await {
        on_status(row, &status);
    }
}

/// Every cap on a node's page of limits, with the node's own high-water mark.
pub(crate) async fn caps(cluster: &Cluster, node: usize, row: &mut Barrier) {
    let Ok(page) = cluster.ask(node, json!({"request": "limits"})).await else { return };
    let store = |line: &Value| {
        let figure = |name: &str| line[name].as_u64();
        // Without a mark nobody knows what it was between two looks.
        let high_water = figure("high_water")?;
        Some(Store { size: figure("in_use"), cap: figure("max"), high_water: Some(high_water) })
    };
    let limits = page["limits"].as_array().into_iter().flatten();
    let limits = limits.filter_map(|line| Some((line["name"].as_str()?.to_owned(), store(line)?)));
    let listeners = page["listeners"].as_array().into_iter().flatten().enumerate();
    let listeners = listeners.filter_map(|(number, line)| Some((format!("listener {number}"), store(line)?)));
    row.stores.extend(limits.chain(listeners));
}

fn on_peers(row: &mut Barrier, peers: &Value) {
    let Some(peers) = peers["peers"].as_array() else { return };
    let connections = |peer: &Value| peer["connections"].as_array().cloned().unwrap_or_default();
    row.peers = Some(peers.iter().filter(|peer| !connections(peer).is_empty()).count() as u64);
    let doubles = peers.iter().map(|peer| {
        let held = connections(peer);
        held.iter().filter(|connection| connection["protocol"] == "iroh-gossip").count().saturating_sub(1) as u64
    });
    row.foreign_doubles = Some(doubles.sum());
    let unleased = |connection: &Value| connection["leases"] == 0;
    row.unleased = Some(peers.iter().flat_map(connections).filter(unleased).count() as u64);
}

fn on_ledger(row: &mut Barrier, ledger: &Value) {
    // Who asks is counted too, so these two move with every look.
    let kinds = books::kinds(ledger).filter(|(kind, _)| !matches!(*kind, "control-client" | "service"));
    row.kinds.extend(kinds.map(|(kind, counts)| (kind.to_owned(), counts)));
    on_retirements(row, &ledger["retirements"]);
}

fn on_retirements(row: &mut Barrier, retirements: &Value) {
    (row.retired, row.retired_late) = (retirements["retired"].as_u64(), retirements["retired_late"].as_u64());
    let ms = |name: &str| retirements[name].as_f64();
    (row.retire_p50_ms, row.retire_p99_ms, row.retire_max_ms) = (ms("p50_ms"), ms("p99_ms"), ms("max_ms"));
    for line in retirements["causes"].as_array().into_iter().flatten() {
        let figures = [&line["retired"], &line["retired_late"], &line["max_ms"]].map(Value::as_u64);
        if let (Some(cause), [Some(count), Some(late), Some(max_ms)]) = (line["cause"].as_str(), figures) {
            row.retirements.insert(cause.to_owned(), Retired { count, late, max_ms });
        }
    }
}

fn lingering(one: &Value) -> Option<Lingering> {
    let ms = |name: &str| one[name].as_f64().map(|seconds| (seconds * 1e3) as u64);
    let departure = one["departure"].as_str().map(str::to_owned);
    Some(Lingering {
        number: one["number"].as_u64()?,
        peer: short(one["peer"].as_str()?),
        departed: departure.zip(ms("departed_s")),
        outside_view_ms: ms("outside_view_s"),
        phase: one["phase"].as_str()?.to_owned(),
    })
}

fn short(id: &str) -> String {
    id.chars().take(ID_CHARS).collect()
}

fn on_status(row: &mut Barrier, status: &Value) {
    let figure = |name: &str| status[name].as_u64();
    row.half_open = figure("half_open");
    // Ours counts half-open ones against the cap, and so among its connections.
    row.connections = figure("connections").map(|held| held.saturating_sub(row.half_open.unwrap_or(0)));
    row.neighbors = figure("neighbors");
    row.tasks = figure("alive_tasks");
    row.id = status["id"].as_str().map(short);
    (row.heap_bytes, row.heap_blocks) = (figure("heap_bytes"), figure("heap_blocks"));
    row.panics = figure("panics");
    let cap = figure("connection_cap");
    row.stores.insert(
        "connections".into(),
        Store { size: figure("connections"), cap, high_water: figure("connections_high_water") },
    );
    on_stores(row, status);
    if let Some(topics) = status["topics"].as_array() {
        let restarts = topics.iter().filter_map(|topic| topic["restarts"].as_u64()).sum();
        // A node that counts every loop's crashes counts those of its topics among them.
        let crashes = status["crashes"].as_object().map(|crashes| crashes.values().filter_map(Value::as_u64).sum());
        row.restarts = Some(crashes.unwrap_or(restarts));
        let neighbors = topics.iter().flat_map(|topic| topic["neighbors"].as_array().into_iter().flatten());
        row.edges = Some(Edges(neighbors.filter_map(Value::as_str).map(short).collect()));
    }
}

/// The stores of all topics count as one: its size, bound and high water are their sums.
fn on_stores(row: &mut Barrier, status: &Value) {
    let Some(stores) = status["stores"].as_array() else {
        let size = status["addresses"].as_u64();
        row.stores.extend(size.map(|_| ("addresses".to_owned(), Store { size, cap: None, high_water: None })));
        return;
    };
    for store in stores {
        let Some(name) = store["name"].as_str() else { continue };
        let figure = |name: &str| store[name].as_u64();
        let told = Store { size: figure("size"), cap: figure("cap"), high_water: figure("high_water") };
        let sum = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
        let so_far = row.stores.entry(name.to_owned());
        so_far
            .and_modify(|all| {
                *all = Store {
                    size: sum(all.size, told.size),
                    cap: sum(all.cap, told.cap),
                    high_water: sum(all.high_water, told.high_water),
                };
            })
            .or_insert(told);
    }
}

/// Memory of a process that no file backs: shared pages by their share where the kernel tells, whole otherwise.
fn anonymous(pid: u32) -> Option<u64> {
    let kib = |file: &str, label: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(label))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    kib("smaps_rollup", "Pss_Anon:").or_else(|| kib("status", "RssAnon:")).map(|kib| kib * 1024)
}

/// Lines of a node's log, and those of them that are errors.
fn logged(path: &Path) -> Option<(u64, u64)> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    let errors = text.lines().filter(|line| line.contains(" ERROR ") || line.contains("panicked at"));
    Some((text.lines().count() as u64, errors.count() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_tells_becomes_figures_and_what_it_does_not_stays_absent() {
        let mut row = Barrier::default();
        let topic = |neighbor: &str| json!({"neighbors": [neighbor], "restarts": 1});
        on_status(
            &mut row,
            &json!({
                "id": "ae58ff8833241ac82d6f", "connections": 3, "connection_cap": 128, "half_open": 1, "heap_blocks": 9,
                "panics": 2, "crashes": {"topic": 2, "connection": 1},
                "topics": [topic("9f2c58ff88241ac8"), topic("0011223344241ac8")],
                "stores": [
                    {"name": "pending", "topic": "a", "size": 1, "cap": 256, "high_water": 2},
                    {"name": "pending", "topic": "b", "size": 4, "cap": 256, "high_water": 4},
                    {"name": "signals", "topic": "b", "size": 4, "cap": null, "high_water": null},
                ],
            }),
        );
        assert_eq!((row.id.as_deref(), row.restarts, row.panics), (Some("ae58ff8833"), Some(3), Some(2)));
        assert_eq!((row.connections, row.heap_blocks, row.heap_bytes), (Some(2), Some(9), None));
        assert_eq!(row.edges.unwrap().to_string(), "0011223344+9f2c58ff88");
        assert_eq!(row.stores["pending"], Store { size: Some(5), cap: Some(512), high_water: Some(6) });
        assert_eq!(row.stores["signals"], Store { size: Some(4), cap: None, high_water: None });

        let mut foreign = Barrier::default();
        on_status(&mut foreign, &json!({"connections": 3}));
        on_ledger(&mut foreign, &json!({}));
        assert_eq!((foreign.edges, foreign.panics, foreign.retired, foreign.restarts), (None, None, None, None));
    }

    #[test]
    fn retirements_and_the_one_that_lingers_are_read() {
        let mut row = Barrier::default();
        on_ledger(
            &mut row,
            &json!({"kinds": [], "retirements": {
                "retired": 8, "retired_late": 1, "p50_ms": 5, "p99_ms": 400, "max_ms": 31000,
                "causes": [{"cause": "retired", "retired": 8, "retired_late": 1, "max_ms": 31000}],
            }}),
        );
        assert_eq!((row.retired, row.retired_late, row.retire_p99_ms), (Some(8), Some(1), Some(400.0)));
        assert_eq!(row.retirements["retired"], Retired { count: 8, late: 1, max_ms: 31_000 });
        let one = json!({"number": 31, "peer": "9f2c58ff88241ac8", "phase": "open", "departure": null,
            "departed_s": null, "outside_view_s": 212.4});
        let said = lingering(&one).unwrap().sentence();
        assert_eq!(said, "conn 31 -> 9f2c58ff88, peer left the view 212 s ago, waiting in open");
    }

    #[test]
    fn a_process_has_anonymous_memory() {
        assert!(anonymous(std::process::id()) > Some(100_000));
    }
}
