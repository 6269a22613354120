//! I1 to I6, counts that need no statistics: what a drained node holds is exactly what its peers need. `[pure]`

use super::{
    Check,
    case::{Case, Told, fail, not_judged, pass, unknown},
};
use crate::run_format::{Barrier, Kind};

/// Why this node is not drained, if it is not: the exact invariants of a barrier, in words. `remotes` is the number of
/// other live nodes.
///
/// Neighbours are no measure: a connection belongs to both ends, and a view may be one-sided until the next shuffle. Nor
/// are leases: every shuffle meets a stranger and parts from it seconds later, at some node at any moment.
/// Figures the node does not tell are not missed here; the judge says what it could not judge.
pub(crate) fn undrained(row: &Barrier, remotes: u64) -> Option<String> {
    let orphans = |(kind, counts): (&String, &Kind)| Some((kind.clone(), counts.orphans?));
    if let Some((kind, orphans)) = row.kinds.iter().filter_map(orphans).find(|(_, orphans)| *orphans != 0) {
        return Some(format!("{orphans} orphans of kind {kind}"));
    }
    // A dial to somebody who died is half open again and again, but never without a task that will give it up.
    let served = |kind: &str| row.kinds.get(kind).map_or(0, |kind| kind.alive().max(0) as u64);
    let served = served("dial") + served("handshake");
    if let Some(forgotten) = row.half_open.and_then(|half_open| half_open.checked_sub(served)).filter(|more| *more > 0)
    {
        return Some(format!("{forgotten} handshakes half open that no task serves"));
    }
    let loops = row.kinds.get("connection");
    // Whoever should be gone the longest is most likely one of those that are too many.
    let oldest = || row.lingering.as_ref().map(|one| format!("; oldest: {}", one.sentence())).unwrap_or_default();
    // Of two dials at once between the same two, stock may use either, so both are kept.
    let doubles = row.foreign_doubles.unwrap_or(0);
    if let (Some(loops), Some(peers)) = (loops, row.peers)
        && loops.alive() != (peers + doubles) as i64
    {
        let (spawned, finished) = (loops.spawned, loops.finished);
        return Some(format!(
            "{} connection tasks have no peer (spawned {spawned}, finished {finished}, peers {peers}){}",
            loops.alive() - (peers + doubles) as i64,
            oldest()
        ));
    }
    let connections = row.connections?;
    if let Some(peers) = row.peers.filter(|peers| peers + doubles != connections) {
        return Some(format!("{connections} connections belong to {peers} peers in the table{}", oldest()));
    }
    if let Some(loops) = loops.filter(|loops| loops.alive() != connections as i64) {
        return Some(format!("{connections} open connections and {} tasks that serve them{}", loops.alive(), oldest()));
    }
    let more = connections.checked_sub(remotes + doubles).filter(|more| *more > 0)?;
    Some(format!("{more} connections have no peer ({connections} open, {remotes} other nodes alive){}", oldest()))
}

/// I1: in every look and at every barrier the ledger adds up.
pub(crate) fn ledger_adds_up(case: &Case<'_>) -> Check {
    const ID: &str = "I1";
    if let Err(answer) = case.told(ID, 2, case.observer(), "ledger", |row| row.kinds.get("connection").copied()) {
        return answer;
    }
    let looks = case.record.looks.iter().flatten();
    let in_looks = looks.filter_map(|look| Some((look.epoch, look.node, look.connection?)));
    let at_barriers = case.rows().flat_map(|row| row.kinds.values().map(|kind| (row.epoch, row.node, *kind)));
    let mut seen = 0;
    for (epoch, node, kind) in in_looks.chain(at_barriers) {
        seen += 1;
        let told = kind.owned.zip(kind.orphans);
        if kind.alive() < 0 || told.is_some_and(|(owned, orphans)| kind.alive() - owned as i64 != orphans) {
            return fail(ID, format!("the ledger of node {node} does not add up in epoch {epoch}: {kind}"));
        }
    }
    pass(ID, format!("spawned - finished = alive in {seen} snapshots"))
}

/// I2: a drained node holds what its peers need, exactly.
pub(crate) fn drained_exactly(case: &Case<'_>) -> Check {
    const ID: &str = "I2";
    if let Err(answer) = case.told(ID, 2, case.observer(), "connections", |row| row.connections) {
        return answer;
    }
    // The last epoch shows the most of a leak, and the observer is named before anybody else.
    let mut rows: Vec<_> = case.rows().collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.epoch), row.node != case.record.info.observer, row.node));
    let stuck: Vec<_> = rows.iter().filter_map(|row| Some((row, undrained(row, case.remotes())?))).collect();
    if let Some((row, why)) = stuck.first() {
        let waited = row.waited_ms.map_or(String::new(), |ms| format!(" after {:.0} s of calm", ms as f64 / 1e3));
        let also = stuck.len() - 1;
        return fail(ID, format!("{why}; node {} at epoch {}{waited}, and {also} more such rows", row.node, row.epoch));
    }
    pass(ID, format!("tasks = peers = open connections at {} barriers of {} nodes", rows.len(), case.by_node.len()))
}

/// I3: high-water marks stay below the caps. Samples would miss a spike of 50 ms.
pub(crate) fn caps_hold(case: &Case<'_>) -> Check {
    const ID: &str = "I3";
    let mut judged = 0;
    for row in case.rows() {
        for (name, store) in &row.stores {
            let Some(cap) = store.cap else { continue };
            let Some(most) = store.high_water.max(store.size) else { continue };
            judged += 1;
            if most > cap {
                return fail(ID, format!("{name} of node {} reached {most} with a cap of {cap}", row.node));
            }
        }
    }
    if judged == 0 {
        return not_judged(ID, "the node tells no cap".into());
    }
    pass(ID, format!("no high-water mark above its cap in {judged} readings"))
}

/// I4: whoever leaves is gone in time: by its node's own timeouts for the way it left, and by the run's deadline.
pub(crate) fn retired_in_time(case: &Case<'_>) -> Check {
    const ID: &str = "I4";
    let rows: Vec<_> = case.rows().collect();
    let limit_s = case.record.info.deadlines.retire_ms as f64 / 1e3;
    let told = super::case::told(&rows, |row| Some((row.retired?, row.retired_late?, row.retire_max_ms?)));
    let figures = match told {
        Told::Always(figures) => figures,
        Told::Stopped { epoch } => {
            return unknown(ID, format!("a node stopped telling when its connections retire at epoch {epoch}"));
        }
        Told::Never => return not_judged(ID, "the node does not tell when its connections retire".into()),
    };
    let late = figures.iter().map(|(_, (_, late, _))| *late).max().unwrap_or(0);
    let slowest_s = figures.iter().map(|(_, (_, _, ms))| ms / 1e3).fold(0.0, f64::max);
    let retired: u64 = figures.iter().map(|(_, (retired, _, _))| *retired).max().unwrap_or(0);
    let mut sentence =
        format!("{late} of {retired} retirements late, the slowest {slowest_s:.1} s (at most {limit_s:.0} s)");
    if let Some((p50, p99)) = case.observer().last().and_then(|row| row.retire_p50_ms.zip(row.retire_p99_ms)) {
        sentence += &format!(", p50 {:.2} s, p99 {:.2} s at the observer", p50 / 1e3, p99 / 1e3);
    }
    if late == 0 && slowest_s <= limit_s {
        return pass(ID, sentence);
    }
    let causes = rows.iter().flat_map(|row| row.retirements.iter().map(|(cause, of)| (row.node, cause, of)));
    if let Some((node, cause, of)) = causes.max_by_key(|(_, _, of)| (of.late > 0, of.max_ms)) {
        sentence += &format!("; {} of cause {cause} at node {node}, {} ms at most", of.late, of.max_ms);
    }
    fail(ID, sentence)
}

/// I5: `tasks = base + c · connections`, exactly. A task too many at one barrier may be a passer-by; one that stays is
/// a leak.
pub(crate) fn tasks_are_explained(case: &Case<'_>) -> Check {
    const ID: &str = "I5";
    if let Err(answer) = case.told(ID, 2, case.observer(), "tasks", |row| row.tasks.zip(row.connections)) {
        return answer;
    }
    let each = case.record.info.thresholds.tasks_per_connection.unwrap_or_else(|| tasks_per_connection(case));
    let mut sentence = String::new();
    for (node, rows) in case.by_node.iter().filter(|(node, _)| case.lived(**node)) {
        let rest = |row: &&Barrier| Some(row.tasks? as i64 - (each * row.connections?) as i64);
        let rests: Vec<i64> = rows.iter().filter_map(rest).collect();
        let Some((base, stayed)) = early_and_late(&rests) else {
            return unknown(ID, format!("node {node} has one judged barrier; growth takes two to see"));
        };
        if stayed > base + spare(rests.len()) {
            let tasks: Vec<u64> = rows.iter().filter_map(|row| row.tasks).collect();
            let (first, last) = (tasks[0], tasks[tasks.len() - 1]);
            return fail(
                ID,
                format!(
                    "{} tasks of node {node} belong to nothing ({first} -> {last}, {each} per connection)",
                    stayed - base
                ),
            );
        }
        if *node == case.record.info.observer {
            sentence = format!("tasks = {base} + {each} per connection at the observer");
        }
    }
    pass(ID, sentence)
}

/// The integer that explains the judged barriers best: the median slope between any two of one node that lived throughout
/// and had more connections at one than at the other. Three without such, as measured.
fn tasks_per_connection(case: &Case<'_>) -> u64 {
    let mut slopes = Vec::new();
    for (_, rows) in case.by_node.iter().filter(|(node, _)| case.lived(**node)) {
        let point = |row: &&Barrier| Some((row.connections? as f64, row.tasks? as f64));
        let points: Vec<(f64, f64)> = rows.iter().filter_map(point).collect();
        for (at, (x, y)) in points.iter().enumerate() {
            slopes.extend(points[at + 1..].iter().filter(|(other, _)| other != x).map(|(a, b)| (b - y) / (a - x)));
        }
    }
    perennial_soak::stats::median(&slopes).map_or(3, |slope| slope.round().clamp(0.0, 16.0) as u64)
}

/// The most of the first three barriers and the least of the last three, of fewer where there are fewer than six: a remote
/// that died keeps tasks for a minute, so what passes by comes and goes, and only what was never there at first and always
/// at last has grown.
fn early_and_late<T: Copy + Ord>(figures: &[T]) -> Option<(T, T)> {
    let part = (figures.len() / 2).min(3);
    let early = figures.iter().take(part).max()?;
    Some((*early, *figures.iter().rev().take(part).min()?))
}

/// Tasks by which the end of a short run may exceed its start: with fewer than three barriers on each side one remote that
/// died just then is in all of them.
fn spare(barriers: usize) -> i64 {
    if barriers < SETTLED_BARRIERS { 8 } else { 0 }
}

/// So many barriers give three on each side.
const SETTLED_BARRIERS: usize = 6;

/// I6: descriptors are those of the start, since QUIC has one socket. Threads may grow by two: a runtime's pool for
/// blocking work fills once, at its first use, and that may be late.
pub(crate) fn descriptors_stay(case: &Case<'_>) -> Check {
    const ID: &str = "I6";
    const PASSING: u64 = 2;
    type Figure = fn(&Barrier) -> Option<u64>;
    let figures: [(&str, u64, Figure); 2] =
        [("descriptors", 0, |row| row.fds), ("threads", PASSING, |row| row.threads)];
    if let Err(answer) = case.told(ID, 0, case.observer(), "descriptors", |row| row.fds) {
        return answer;
    }
    let mut sentence = Vec::new();
    for (node, rows) in case.by_node.iter().filter(|(node, _)| case.lived(**node)) {
        for (what, spare, figure) in figures {
            let told = match case.told(ID, 0, rows, what, figure) {
                Ok(told) => told,
                Err(answer) => return answer,
            };
            let told: Vec<u64> = told.into_iter().map(|(_, figure)| figure).collect();
            let most = told.iter().max().copied().unwrap_or(0);
            let Some((base, stayed)) = early_and_late(&told) else {
                return unknown(ID, format!("node {node} has one judged barrier; growth takes two to see"));
            };
            // A short run has one barrier on each side, and somebody may be reading a file just then.
            let spare = if told.len() < SETTLED_BARRIERS { PASSING } else { spare };
            if stayed > base + spare || most > base + PASSING {
                let last = told[told.len() - 1];
                return fail(ID, format!("{what} of node {node} grew from {base} to {last}, {most} at most"));
            }
            if *node == case.record.info.observer {
                sentence.push(format!("{base} to {most} {what}"));
            }
        }
    }
    pass(ID, format!("{} at the observer", sentence.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn row(spawned: u64, finished: u64, peers: u64) -> Barrier {
        let alive = spawned - finished;
        let kind = Kind { spawned, finished, owned: Some(alive), orphans: Some(0) };
        let kinds = BTreeMap::from([("connection".to_owned(), kind)]);
        Barrier { connections: Some(alive), peers: Some(peers), kinds, ..Barrier::default() }
    }

    #[test]
    fn the_sentence_names_the_leak_as_its_finder_did() {
        assert_eq!(
            undrained(&row(174, 52, 15), 30).unwrap(),
            "107 connection tasks have no peer (spawned 174, finished 52, peers 15)"
        );
    }

    #[test]
    fn the_oldest_that_should_be_gone_is_named() {
        let lingering = "31/9f2c58ff88///212400/open".parse().ok();
        assert_eq!(
            undrained(&Barrier { lingering, ..row(174, 52, 15) }, 30).unwrap(),
            "107 connection tasks have no peer (spawned 174, finished 52, peers 15); oldest: conn 31 -> 9f2c58ff88, \
             peer left the view 212 s ago, waiting in open"
        );
    }

    #[test]
    fn a_drained_node_has_nothing_to_say_and_each_remainder_has() {
        assert_eq!(undrained(&row(20, 15, 5), 9), None);
        assert!(undrained(&Barrier { half_open: Some(1), ..row(20, 15, 5) }, 9).unwrap().contains("half open"));
        assert!(undrained(&Barrier { connections: Some(6), ..row(20, 15, 5) }, 9).is_some());
        let mut orphaned = row(20, 15, 5);
        orphaned.kinds.get_mut("connection").unwrap().orphans = Some(2);
        assert_eq!(undrained(&orphaned, 9).unwrap(), "2 orphans of kind connection");
        // A subject without a ledger: more connections than there are others to connect to.
        let foreign = Barrier { connections: Some(98), ..Barrier::default() };
        assert_eq!(undrained(&foreign, 9).unwrap(), "89 connections have no peer (98 open, 9 other nodes alive)");
    }
}
