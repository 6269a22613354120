//! I11 to I17: what arrived, whether the mesh is one, how the processes and the harness behaved, and whether the storm
//! happened at all. `[pure]`

use std::collections::BTreeMap;

use super::{
    Check,
    case::{Case, fail, not_judged, pass, unknown},
};
use crate::run_format::{Barrier, Edges, Happened};

/// I11: every message published into a calm mesh arrives everywhere, in time; and in a storm every one between two nodes
/// that no fault touched.
pub(crate) fn everything_arrives(case: &Case<'_>) -> Check {
    const ID: &str = "I11";
    let rows = case.observer();
    let figures = case.told(ID, 1, rows, "deliveries", |row| row.missed.zip(row.deliveries));
    let figures = match figures {
        Ok(figures) => figures,
        Err(answer) => return answer,
    };
    let missed: u64 = figures.iter().map(|(_, (missed, _))| missed).sum();
    let expected: u64 = figures.iter().map(|(_, (_, expected))| expected).sum();
    let slowest_ms = rows.iter().filter_map(|row| row.latency_max_ms).fold(0.0, f64::max);
    let words = format!("{} of {expected} deliveries, the slowest {slowest_ms:.0} ms", expected - missed.min(expected));
    if missed > 0 {
        let first = rows.iter().find(|row| row.missed.is_some_and(|missed| missed > 0));
        return fail(ID, format!("{words}; {missed} missed, first in epoch {}", first.map_or(0, |row| row.epoch)));
    }
    if expected == 0 {
        return unknown(ID, "no message was published".into());
    }
    if slowest_ms > case.record.info.thresholds.delivery_ms {
        return fail(ID, format!("{words}, at most {:.0} ms", case.record.info.thresholds.delivery_ms));
    }
    match storms_are_heard(rows) {
        Ok(None) => pass(ID, words),
        Ok(Some(in_storms)) => pass(ID, format!("{words}; {in_storms}")),
        Err(why) => fail(ID, format!("{why}; {words}")),
    }
}

/// What was heard in the storms, in words; `None` where nobody spoke. `Err` when something was lost between untouched nodes.
fn storms_are_heard(rows: &[&Barrier]) -> Result<Option<String>, String> {
    let sum = |figure: fn(&Barrier) -> Option<u64>| rows.iter().filter_map(|row| figure(row)).sum::<u64>();
    let (untouched, missed) = (sum(|row| row.storm_untouched), sum(|row| row.storm_missed));
    let (pairs, unheard) = (sum(|row| row.storm_pairs), sum(|row| row.storm_unheard));
    let words = format!(
        "in storms {} of {untouched} between nodes that no fault touched, {} of {pairs} between all",
        untouched - missed.min(untouched),
        pairs - unheard.min(pairs)
    );
    match rows.iter().find(|row| row.storm_missed.is_some_and(|missed| missed > 0)) {
        Some(row) => Err(format!("{words}: {missed} missed, first in epoch {}", row.epoch)),
        None => Ok((pairs > 0).then_some(words)),
    }
}

/// I12: nothing arrives twice.
pub(crate) fn nothing_arrives_twice(case: &Case<'_>) -> Check {
    const ID: &str = "I12";
    let twice = |row: &Barrier| Some(row.duplicates? + row.storm_twice.unwrap_or(0));
    match case.told(ID, 1, case.observer(), "duplicates", twice) {
        Ok(figures) => match figures.iter().map(|(_, duplicates)| duplicates).sum::<u64>() {
            0 => pass(ID, "no message arrived twice".into()),
            duplicates => fail(ID, format!("{duplicates} messages reached an application twice")),
        },
        Err(answer) => answer,
    }
}

/// I13: after the calm the overlay is one, no view is empty or too large, and no edge stays one-sided.
pub(crate) fn the_mesh_is_one(case: &Case<'_>) -> Check {
    const ID: &str = "I13";
    let split = case.observer().iter().find(|row| row.components.is_some_and(|components| components != 1));
    if let Some(row) = split {
        return fail(ID, format!("the mesh was in {} parts at epoch {}", row.components.unwrap_or(0), row.epoch));
    }
    let lonely = case.rows().find(|row| row.neighbors == Some(0) && case.record.info.nodes > 1);
    if let Some(row) = lonely {
        return fail(ID, format!("node {} had no neighbour at epoch {}", row.node, row.epoch));
    }
    for row in case.rows() {
        let view_max = row.stores.get("neighbors").and_then(|store| store.cap);
        if let (Some(Edges(edges)), Some(view_max)) = (&row.edges, view_max)
            && edges.len() as u64 > view_max
        {
            let (node, degree, epoch) = (row.node, edges.len(), row.epoch);
            return fail(ID, format!("node {node} had {degree} neighbours at epoch {epoch}, at most {view_max}"));
        }
    }
    let one_sided = match one_sided_edges(case) {
        Ok(one_sided) => one_sided,
        Err(why) => return fail(ID, why),
    };
    if case.observer().iter().all(|row| row.components.is_none()) {
        return not_judged(ID, "nobody looked at the overlay".into());
    }
    let edges = one_sided.map(|passing| format!("; {passing} edges one-sided at one barrier, none for long"));
    pass(ID, format!("one mesh, no lonely node, at every barrier{}", edges.unwrap_or_default()))
}

/// How many edges only one end announced, summed over the barriers; `None` where the nodes name no neighbours. `Err` when
/// one stayed so for longer than it may.
///
/// A view of HyParView is meant to be symmetric, but nothing in the protocol repairs one that is not: a Neighbor is under
/// way for a round trip, a Disconnect may cross it, and the nodes are not looked at in one moment. So a single look proves
/// nothing. Repaired it is by the node: it parts from a stranger that is silent after 4 s, and tells one that goes on
/// talking after 16 s that it is none of its neighbours; the other end needs a second to believe it. What is one-sided at
/// two barriers in a row that lie further apart than this was forgotten.
fn one_sided_edges(case: &Case<'_>) -> Result<Option<usize>, String> {
    const REPAIRED_MS: u64 = 20_000;
    let mut by_epoch: BTreeMap<u32, Vec<&Barrier>> = BTreeMap::new();
    for row in case.rows().filter(|row| row.id.is_some() && row.edges.is_some()) {
        by_epoch.entry(row.epoch).or_default().push(row);
    }
    if by_epoch.is_empty() {
        return Ok(None);
    }
    let mut seen = 0;
    let mut standing: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (epoch, rows) in by_epoch {
        let views: BTreeMap<&str, (&Barrier, &Edges)> =
            rows.iter().filter_map(|row| Some((row.id.as_deref()?, (*row, row.edges.as_ref()?)))).collect();
        let mut still = BTreeMap::new();
        for (from, (row, Edges(edges))) in &views {
            for to in edges {
                // A neighbour that is gone makes the mesh less than whole, which is judged above.
                let Some((to, (other, Edges(back)))) = views.get_key_value(to.as_str()) else { continue };
                if back.contains(*from) {
                    continue;
                }
                seen += 1;
                let since = standing.get(&(*from, *to)).copied().unwrap_or(row.at_ms);
                let stood_ms = row.at_ms.saturating_sub(since);
                if stood_ms >= REPAIRED_MS {
                    let seconds = stood_ms / 1000;
                    let (one, other) = (row.node, other.node);
                    return Err(format!(
                        "node {one} has node {other} in its view for {seconds} s at least and not the other way round, at epoch {epoch}"
                    ));
                }
                still.insert((*from, *to), since);
            }
        }
        standing = still;
    }
    Ok(Some(seen))
}

/// I14: counters only grow, and nothing ends, panics or restarts that was not told to.
pub(crate) fn nothing_ends_by_itself(case: &Case<'_>) -> Check {
    const ID: &str = "I14";
    let faults = case.record.events.iter().flatten().filter_map(|event| match &event.happened {
        Happened::Fault { sentence } => Some(sentence.clone()),
        Happened::Exited { .. } | Happened::Injected { .. } | Happened::Observed { .. } => None,
    });
    let exits = case.exits().filter(|(_, _, by_machine)| !by_machine);
    let exits = exits.map(|(node, how, _)| format!("node {node} ended by itself: {how}"));
    let bad: Vec<String> = exits.chain(faults).collect();
    if let Some(first) = bad.first() {
        return fail(ID, format!("{first} ({} in all)", bad.len()));
    }
    if let Some((node, how, _)) = case.exits().next() {
        return unknown(ID, format!("the machine ended node {node}: {how}"));
    }
    for (node, rows) in case.by_node.iter().filter(|(node, _)| case.lived(**node)) {
        for pair in rows.windows(2) {
            if let Some(what) = shrunk(pair[0], pair[1]) {
                return fail(
                    ID,
                    format!("{what} of node {node} went down between epochs {} and {}", pair[0].epoch, pair[1].epoch),
                );
            }
        }
    }
    // Of a node that is killed now and then, every life counts from zero.
    for (node, rows) in &case.by_node {
        let counted =
            |figure: fn(&Barrier) -> Option<u64>| rows.iter().filter_map(|row| figure(row)).max().unwrap_or(0);
        let (panics, restarts) = (counted(|row| row.panics), counted(|row| row.restarts));
        if panics + restarts > 0 {
            return fail(ID, format!("node {node} counts {panics} panics and {restarts} restarts nobody ordered"));
        }
    }
    if case.record.events.is_none() && !case.record.info.allow.contains_key("I14") {
        return unknown(ID, "no events.jsonl: nobody knows who ended".into());
    }
    pass(ID, "no exit, panic or restart that was not ordered; counters only grow".into())
}

fn shrunk(before: &Barrier, after: &Barrier) -> Option<String> {
    for (name, kind) in &before.kinds {
        let later = after.kinds.get(name)?;
        if later.spawned < kind.spawned || later.finished < kind.finished {
            return Some(format!("the counter of kind {name}"));
        }
    }
    let pairs = [(before.retired, after.retired), (before.log_lines, after.log_lines), (before.panics, after.panics)];
    pairs.into_iter().any(|(was, is)| was.zip(is).is_some_and(|(was, is)| is < was)).then(|| "a counter".into())
}

/// I15: a storm does not flood the log.
pub(crate) fn the_log_is_quiet(case: &Case<'_>) -> Check {
    const ID: &str = "I15";
    // It came, it went, and one to spare, per event or per connection, whichever there are more of: one event may touch
    // every connection of a node.
    const LINES_MAX: f64 = 3.0;
    let mut worst = (0.0, 0);
    for (node, rows) in &case.by_node {
        if let Some(row) = rows.iter().find(|row| row.error_lines.is_some_and(|lines| lines > 0)) {
            return fail(ID, format!("node {node} logged {} errors", row.error_lines.unwrap_or(0)));
        }
        // A node that was started anew says who it is.
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { continue };
        let (Some(lines), Some(more), true) = (first.log_lines, last.log_lines, case.lived(*node)) else { continue };
        let opened = |row: &Barrier| row.kinds.get("connection").map_or(0, |kind| kind.spawned);
        let events = last.events.saturating_sub(first.events);
        let cause = events.max(opened(last).saturating_sub(opened(first))).max(1);
        let rate = more.saturating_sub(lines) as f64 / cause as f64;
        if rate > worst.0 {
            worst = (rate, *node);
        }
    }
    if case.rows().all(|row| row.log_lines.is_none()) {
        return not_judged(ID, "nobody counted the lines of the logs".into());
    }
    let words = format!("at most {:.2} lines per event or connection, at node {}", worst.0, worst.1);
    if worst.0 > LINES_MAX { fail(ID, words) } else { pass(ID, words) }
}

/// I16: the harness looked often enough and did not measure itself.
pub(crate) fn the_harness_is_no_suspect(case: &Case<'_>) -> Check {
    const ID: &str = "I16";
    const CPU_SHARE_MAX: f64 = 0.15;
    const GAP_MAX: f64 = 2.0;
    let Some(harness) = case.record.info.harness else {
        return unknown(ID, "the harness did not say what it cost".into());
    };
    let gap = harness.look_gap_max_ms as f64 / harness.look_interval_ms.max(1) as f64;
    let words = format!("the longest gap {gap:.1} intervals, {:.0} % of one core", harness.cpu_share * 100.0);
    let late = gap > GAP_MAX || harness.cpu_share > CPU_SHARE_MAX;
    if late { unknown(ID, words) } else { pass(ID, words) }
}

/// I17: what the scenario is about did happen.
pub(crate) fn the_storm_happened(case: &Case<'_>) -> Check {
    const ID: &str = "I17";
    let facts = &case.record.info.facts;
    if facts.is_empty() {
        return unknown(ID, "the run names nothing that must have happened".into());
    }
    let unmet = facts.iter().find(|fact| fact.reached.is_none_or(|reached| reached < fact.minimum));
    let shown = |fact: &crate::run_format::Fact| {
        let reached = fact.reached.map_or("nobody counted".into(), |reached| reached.to_string());
        format!("{}: {reached} (at least {})", fact.name, fact.minimum)
    };
    match unmet {
        Some(fact) => unknown(ID, shown(fact)),
        None => pass(ID, facts.iter().map(shown).collect::<Vec<_>>().join("; ")),
    }
}

/// X: no figure is beyond what the scenario expects of it.
pub(crate) fn expectations_hold(case: &Case<'_>) -> Check {
    const ID: &str = "X";
    let info = &case.record.info;
    if info.limits.is_empty() {
        return not_judged(ID, "the scenario expects nothing beyond the invariants".into());
    }
    let mut words = Vec::new();
    for limit in &info.limits {
        let judged = case.record.events.iter().flatten().filter(|event| event.epoch > info.warm_up_epochs);
        let figures = judged.filter_map(|event| match &event.happened {
            Happened::Observed { figure, value } if *figure == limit.what => Some((event.epoch, *value)),
            Happened::Observed { .. }
            | Happened::Injected { .. }
            | Happened::Exited { .. }
            | Happened::Fault { .. } => None,
        });
        let Some((epoch, worst)) = figures.max_by(|one, other| one.1.total_cmp(&other.1)) else {
            return unknown(ID, format!("{}: never seen", limit.what));
        };
        let found = format!("{} {worst:.0} at most, {:.0} allowed", limit.what, limit.most);
        if worst > limit.most {
            return fail(ID, format!("{found}, in epoch {epoch}"));
        }
        words.push(found);
    }
    pass(ID, words.join("; "))
}
