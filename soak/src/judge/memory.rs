//! I7 to I10: heap, blocks, resident memory and the peak, judged at drained barriers. `[pure]`

use super::{
    Check, Outcome,
    case::{Case, Told, fail, not_judged, pass, told, unknown},
    flatness::{ALPHA, Flatness, flatness, sentence},
};
use crate::run_format::Barrier;

/// A node's heap without what its connections to peers explain, over events. Connections beyond its peers explain
/// nothing: their heap is the leak.
pub(crate) fn heap_points(case: &Case<'_>, rows: &[&Barrier]) -> Vec<(f64, f64)> {
    let each = case.record.info.thresholds.heap_bytes_per_connection as f64;
    let point = |row: &&Barrier| {
        let explained = row.connections.unwrap_or(0).min(row.peers.unwrap_or_else(|| case.remotes()));
        Some((row.events as f64, row.heap_bytes? as f64 - each * explained as f64))
    };
    rows.iter().filter_map(point).collect()
}

/// I7: the heap of the observer is flat, and no other node that lived throughout has provably grown.
pub(crate) fn heap_is_flat(case: &Case<'_>) -> Check {
    const ID: &str = "I7";
    if let Err(answer) = case.told(ID, 2, case.observer(), "heap", |row| row.heap_bytes) {
        return answer;
    }
    let budget = case.record.info.thresholds.heap_bytes_per_event;
    let observer = flatness(&heap_points(case, case.observer()), budget, ALPHA);
    let others = case.by_node.iter().filter(|(node, _)| **node != case.record.info.observer && case.lived(**node));
    let others: Vec<_> = others.collect();
    if observer.outcome != Outcome::Fail {
        // Many nodes are many chances to be wrong, so each gets its share of them.
        let alpha = ALPHA / others.len().max(1) as f64;
        for (node, rows) in others {
            let other = flatness(&heap_points(case, rows), budget, alpha);
            if other.outcome == Outcome::Fail {
                return fail(ID, format!("{} at node {node}", sentence("heap", &other, budget)));
            }
        }
    }
    answer(ID, &observer, sentence("heap", &observer, budget))
}

/// I8: no bucket of live blocks is larger at every barrier than at the one before.
pub(crate) fn no_bucket_climbs(case: &Case<'_>) -> Check {
    const ID: &str = "I8";
    /// Fewer barriers climb by chance: one in 720 runs with six of them.
    const BARRIERS_MIN: usize = 6;
    let rows = case.observer();
    let mut names: Vec<&str> = rows.iter().flat_map(|row| row.buckets.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    let blocks = |row: &Barrier| row.heap_blocks;
    let mut judged = Vec::new();
    for name in names.iter().copied().map(Some).chain([None]) {
        let what = name.unwrap_or("all blocks");
        let figures = match told(rows, |row| name.map_or_else(|| blocks(row), |name| row.buckets.get(name).copied())) {
            Told::Always(figures) => figures,
            Told::Stopped { epoch } => return unknown(ID, format!("bucket {what} is missing at epoch {epoch}")),
            Told::Never => continue,
        };
        if figures.len() < BARRIERS_MIN {
            return unknown(ID, format!("{} barriers are too few to tell a climb from chance", figures.len()));
        }
        if figures.windows(2).all(|pair| pair[0].1 < pair[1].1) {
            let (first, last) = (figures[0].1, figures[figures.len() - 1].1);
            return fail(ID, format!("bucket {what} grew at every barrier: {first} -> {last} blocks"));
        }
        judged.push(what);
    }
    if judged.is_empty() {
        return not_judged(ID, "the node does not tell its live blocks".into());
    }
    pass(ID, format!("none of {} grew at every barrier", judged.join(", ")))
}

/// I9: resident memory. Reported; it fails a run only where heap is not told at all, because an allocator keeps what it
/// once had.
pub(crate) fn resident_is_flat(case: &Case<'_>) -> Check {
    const ID: &str = "I9";
    let rows = case.observer();
    if let Err(answer) = case.told(ID, 0, rows, "resident memory", |row| row.rss_bytes) {
        return answer;
    }
    let budget = case.record.info.thresholds.rss_bytes_per_event;
    let points: Vec<(f64, f64)> =
        rows.iter().filter_map(|row| Some((row.events as f64, row.rss_bytes? as f64))).collect();
    let flat = flatness(&points, budget, ALPHA);
    let words = sentence("rss", &flat, budget);
    let heap_decides = rows.iter().any(|row| row.heap_bytes.is_some());
    match flat.outcome {
        Outcome::Pass => pass(ID, words),
        Outcome::Fail if !heap_decides => fail(ID, words),
        Outcome::Fail | Outcome::Unknown | Outcome::NotJudged if heap_decides => {
            not_judged(ID, format!("{words}; heap decides"))
        }
        Outcome::Fail | Outcome::Unknown | Outcome::NotJudged => unknown(ID, words),
    }
}

/// I10: no look and no barrier shows more heap than the configuration can explain.
pub(crate) fn peak_is_explained(case: &Case<'_>) -> Check {
    const ID: &str = "I10";
    let Some(limit) = case.record.info.thresholds.heap_peak_bytes else {
        return not_judged(ID, "the run could not derive what a node's heap may reach".into());
    };
    let looks = case.record.looks.iter().flatten().filter_map(|look| look.heap_bytes);
    let barriers = case.rows().filter_map(|row| row.heap_bytes);
    let Some(peak) = looks.chain(barriers).max() else { return unknown(ID, "no node tells its heap".into()) };
    let words = format!("at most {:.1} MB of heap, {:.1} MB explained", peak as f64 / 1e6, limit as f64 / 1e6);
    if peak > limit { fail(ID, words) } else { pass(ID, words) }
}

fn answer(id: &'static str, flat: &Flatness, words: String) -> Check {
    match flat.outcome {
        Outcome::Pass => pass(id, words),
        Outcome::Fail => fail(id, words),
        Outcome::Unknown | Outcome::NotJudged => unknown(id, words),
    }
}
