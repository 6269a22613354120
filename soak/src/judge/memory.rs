//! I7 to I10: heap, blocks, resident memory and the peak, judged at drained barriers. `[pure]`

use super::{
    Check, Outcome,
    case::{Case, Told, deep, fail, not_judged, ordinary, pass, told, unknown},
    flatness::{ALPHA, Flatness, few, flatness, sentence},
};
use crate::run_format::{Barrier, Store};

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

/// I7: the heap of the observer is flat, and no other node that lived throughout has provably grown. Deep barriers lie lower
/// than the others by what nodes keep for minutes, so they are a series of their own, which may fail and is too short to pass.
pub(crate) fn heap_is_flat(case: &Case<'_>) -> Check {
    const ID: &str = "I7";
    if let Err(answer) = case.told(ID, 2, case.observer(), "heap", |row| row.heap_bytes) {
        return answer;
    }
    let budget = case.record.info.thresholds.heap_bytes_per_event;
    let at_rest = few(&heap_points(case, &deep(case.observer())), budget, ALPHA);
    if at_rest.outcome == Outcome::Fail {
        return fail(ID, sentence("heap at deep barriers", &at_rest, budget));
    }
    let observer = flatness(&heap_points(case, &ordinary(case.observer())), budget, ALPHA);
    let others = case.by_node.iter().filter(|(node, _)| **node != case.record.info.observer && case.lived(**node));
    let others: Vec<_> = others.collect();
    if observer.outcome != Outcome::Fail {
        // Many nodes are many chances to be wrong, so each gets its share of them.
        let alpha = ALPHA / others.len().max(1) as f64;
        for (node, rows) in others {
            let other = flatness(&heap_points(case, &ordinary(rows)), budget, alpha);
            if other.outcome == Outcome::Fail {
                return fail(ID, format!("{} at node {node}", sentence("heap", &other, budget)));
            }
        }
    }
    answer(ID, &observer, sentence("heap", &observer, budget))
}

/// I8: no bucket of live blocks is larger at every barrier than at the one before, and no store that only time bounds is
/// larger at every deep one. All blocks of a heap are the one bucket
/// that a node without a profiler can tell; of these every node that lived throughout is judged, of buckets the observer.
pub(crate) fn no_bucket_climbs(case: &Case<'_>) -> Check {
    const ID: &str = "I8";
    if let Some(why) = kept_for_good(case) {
        return fail(ID, why);
    }
    let rows = &ordinary(case.observer());
    let mut names: Vec<&str> = rows.iter().flat_map(|row| row.buckets.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    let mut judged = Vec::new();
    for name in names {
        match climb(rows, BARRIERS_MIN, &format!("bucket {name}"), |row| row.buckets.get(name).copied()) {
            Ok(true) => judged.push(name.to_owned()),
            Ok(false) => {}
            Err((outcome, why)) => return Check { name: ID, outcome, detail: why },
        }
    }
    for (node, rows) in case.by_node.iter().filter(|(node, _)| case.lived(**node)) {
        let is_observer = *node == case.record.info.observer;
        // Many nodes are many chances to climb by chance.
        let least = if is_observer { BARRIERS_MIN } else { BARRIERS_MIN + 2 };
        let what = if is_observer { "all blocks".to_owned() } else { format!("all blocks of node {node}") };
        match climb(&ordinary(rows), least, &what, |row| row.heap_blocks) {
            Ok(true) => judged.push(what),
            Err((Outcome::Unknown, _)) if !is_observer => {}
            Ok(false) => {}
            Err((outcome, why)) => return Check { name: ID, outcome, detail: why },
        }
    }
    if judged.is_empty() {
        return not_judged(ID, "the node does not tell its live blocks".into());
    }
    pass(ID, format!("none of {} grew at every barrier", judged.join(", ")))
}

/// Fewer barriers climb by chance: one in 720 runs with six of them.
const BARRIERS_MIN: usize = 6;

/// A store that has no bound but time, and holds more at every deep barrier than at the one before: what is still there when
/// every timer has run out is there for good. It takes one entry for fifty events, and more than one for every remote, since
/// a view or a mesh may well be larger at the next one.
fn kept_for_good(case: &Case<'_>) -> Option<String> {
    const EVENTS_PER_ENTRY: u64 = 50;
    for (node, rows) in case.by_node.iter().filter(|(node, _)| case.lived(**node)) {
        let rows = deep(rows);
        let names = rows.first().into_iter().flat_map(|row| &row.stores).filter(|(_, store)| store.cap.is_none());
        for (name, _) in names {
            let sizes: Option<Vec<(u64, u64)>> =
                rows.iter().map(|row| Some((row.events, row.stores.get(name)?.size?))).collect();
            let grows = |pair: &[(u64, u64)]| {
                let events = pair[1].0.saturating_sub(pair[0].0);
                pair[1].1.saturating_sub(pair[0].1) > (events / EVENTS_PER_ENTRY).max(case.remotes())
            };
            if let Some(sizes) = sizes.filter(|sizes| sizes.len() > 1 && sizes.windows(2).all(grows)) {
                let sizes: Vec<String> = sizes.iter().map(|(_, size)| size.to_string()).collect();
                return Some(format!("{name} of node {node} grew at every deep barrier: {}", sizes.join(" -> ")));
            }
        }
    }
    None
}

/// Whether a figure was judged and did not climb at every barrier; `Err` when it did, or when nobody can tell.
fn climb(
    rows: &[&Barrier],
    least: usize,
    what: &str,
    figure: impl Fn(&Barrier) -> Option<u64>,
) -> Result<bool, (Outcome, String)> {
    let figures = match told(rows, figure) {
        Told::Always(figures) => figures,
        Told::Stopped { epoch } => return Err((Outcome::Unknown, format!("{what} are missing at epoch {epoch}"))),
        Told::Never => return Ok(false),
    };
    if figures.len() < least {
        let barriers = figures.len();
        return Err((Outcome::Unknown, format!("{barriers} barriers are too few to tell a climb from chance")));
    }
    if figures.windows(2).all(|pair| pair[0].1 < pair[1].1) {
        let (first, last) = (figures[0].1, figures[figures.len() - 1].1);
        return Err((Outcome::Fail, format!("{what} grew at every barrier: {first} -> {last} blocks")));
    }
    Ok(true)
}

/// I9: resident memory. Reported; it fails a run only where heap is not told at all, because an allocator keeps what it
/// once had.
pub(crate) fn resident_is_flat(case: &Case<'_>) -> Check {
    const ID: &str = "I9";
    let rows = &ordinary(case.observer());
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
    let (limit, because) = match (case.record.info.thresholds.heap_peak_bytes, explained(case)) {
        (Some(limit), _) => (limit, String::new()),
        (None, Some((limit, because))) => (limit, format!(" ({because})")),
        (None, None) => return not_judged(ID, "the run could not derive what a node's heap may reach".into()),
    };
    let looks = case.record.looks.iter().flatten().filter_map(|look| look.heap_bytes);
    let barriers = case.rows().filter_map(|row| row.heap_bytes);
    let Some(peak) = looks.chain(barriers).max() else { return unknown(ID, "no node tells its heap".into()) };
    let words = format!("at most {:.1} MB of heap, {:.1} MB explained{because}", mb(peak), mb(limit));
    if peak > limit { fail(ID, words) } else { pass(ID, words) }
}

/// What a heap may reach, and the sum it is: what is there without connections, a full house of them, those that are
/// ending while others come, and the messages kept to answer for. `None` where the node does not tell its parts.
fn explained(case: &Case<'_>) -> Option<(u64, String)> {
    /// A kept message costs this beside its content: an entry in each of three tables of the protocol, as measured.
    const MESSAGE_BYTES: u64 = 470;
    let each = case.record.info.thresholds.heap_bytes_per_connection;
    let first = case.by_node.values().filter_map(|rows| rows.first());
    // At the first barrier, so that what leaks later explains nothing.
    let base =
        first.filter_map(|row| Some(row.heap_bytes?.saturating_sub(each.saturating_mul(row.connections?)))).max()?;
    let most = |name: &str, figure: fn(&Store) -> Option<u64>| {
        case.rows().filter_map(|row| figure(row.stores.get(name)?)).max()
    };
    let cap = most("connections", |store| store.cap)?;
    let ending = (events_per_s(case)? * case.record.info.deadlines.retire_ms as f64 / 1e3).ceil() as u64;
    let cached = most("message_cache_bytes", |store| store.high_water).unwrap_or(0)
        + MESSAGE_BYTES * most("message_ids", |store| store.high_water).unwrap_or(0);
    let limit = cap.saturating_add(ending).saturating_mul(each).saturating_add(base).saturating_add(cached);
    let because = format!(
        "{:.1} MB + {cap} connections of {} KiB + {ending} that end + {:.1} MB of messages",
        mb(base),
        each >> 10,
        mb(cached)
    );
    Some((limit, because))
}

/// Events a second of storm, at the epoch in which they came fastest. An event at which no connection of the observer
/// ended, such as a stranger that was turned away, leaves none behind that ends.
fn events_per_s(case: &Case<'_>) -> Option<f64> {
    let ended = |row: &Barrier| row.kinds.get("connection").map(|kind| kind.finished);
    let rate = |pair: &[&Barrier]| {
        let events = pair[1].events.saturating_sub(pair[0].events);
        // Of a node that tells no ledger, every event may have ended one.
        let ended = ended(pair[0]).zip(ended(pair[1])).map(|(before, after)| after.saturating_sub(before));
        let events = events.min(ended.unwrap_or(events));
        let storm_ms = pair[1].at_ms.saturating_sub(pair[0].at_ms).saturating_sub(pair[1].waited_ms?).max(1000);
        Some(events as f64 * 1e3 / storm_ms as f64)
    };
    case.observer().windows(2).filter_map(rate).reduce(f64::max)
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn answer(id: &'static str, flat: &Flatness, words: String) -> Check {
    match flat.outcome {
        Outcome::Pass => pass(id, words),
        Outcome::Fail => fail(id, words),
        Outcome::Unknown | Outcome::NotJudged => unknown(id, words),
    }
}
