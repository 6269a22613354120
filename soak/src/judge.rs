//! The judgement: evidence in, verdict out. `[pure]`
//!
//! This file judges one storm between two settled samples, and owns [`Check`] and [`Verdict`]; runs in epochs are judged by
//! `judge/`. Nothing is measured here. A figure that is missing makes a check unknown, never passed; a planted leak must fail.

pub(crate) mod case;
mod conduct;
pub(crate) mod counts;
pub(crate) mod epochs;
pub(crate) mod flatness;
pub(crate) mod memory;

use serde::Serialize;

use crate::{
    plan::{Plan, Scenario},
    samples::{Ledger, Sample},
};

/// Connections the settled observer may hold beyond one per neighbour: remotes it has not parted from yet.
pub(crate) const SPARE_CONNECTIONS: u64 = 2;

/// Tasks by which the settled observer may exceed its start. Guess: one more remote with its supervisor, its loop and
/// the QUIC tasks underneath; a leak of one task per thirty events still shows in 300.
pub(crate) const SPARE_TASKS: u64 = 8;

/// Tasks granted for every connection the observer holds more than at its start. Stock costs three below the peer's
/// supervisor (measured), and the supervisor is one.
pub(crate) const TASKS_PER_CONNECTION: u64 = 4;

/// Heap the observer may keep per event. What s2n-quic allows itself per closed connection.
pub(crate) const HEAP_PER_EVENT_MAX: u64 = 512;

/// Heap by which two samples of a settled node differ without meaning anything. The figure of the calibration: 64 KiB.
pub(crate) const HEAP_NOISE: u64 = 64 << 10;

/// Heap discounted for every connection by which the two samples differ. A stock connection holds 110 to 120 KB
/// (measured).
pub(crate) const HEAP_PER_CONNECTION: u64 = 116 << 10;

/// The share of events, in percent, whose victim must have been a neighbour of the observer. With a view of five and
/// eleven others 45 % are expected; far less, and the storm passed the observer by.
pub(crate) const TOUCHED_PERCENT_MIN: usize = 10;

/// Everything a run has to show.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Evidence {
    /// The storm.
    pub scenario: Scenario,
    /// Its seed.
    pub seed: u64,
    /// Judged events in the plan.
    pub events_planned: usize,
    /// Judged events carried out.
    pub events_done: usize,
    /// Of these, how many had a neighbour of the observer as victim.
    pub events_touching: usize,
    /// Probes in the plan.
    pub probes_planned: usize,
    /// Every probe that was published.
    pub probes: Vec<Probe>,
    /// The settled observer before the storm.
    pub before: Option<Sample>,
    /// The settled observer after it.
    pub after: Option<Sample>,
    /// The most connections seen in any sample.
    pub connections_peak: u64,
    /// Seconds from the last event to the settled state.
    pub settle_s: Option<f64>,
    /// Milliseconds each judged event took, from the order to leave or die to the first neighbour after the return.
    pub event_ms: Vec<u64>,
    /// Events that subscribers said they lost, over all nodes.
    pub lagged: u64,
    /// What the nodes did wrong where anyone could see it: died uncommanded, never became ready, refused a command.
    pub faults: Vec<String>,
    /// What the harness could not measure.
    pub gaps: Vec<String>,
}

impl Evidence {
    /// The evidence of a run that has not begun.
    pub(crate) fn empty(plan: &Plan) -> Self {
        Self {
            scenario: plan.scenario,
            seed: plan.seed,
            events_planned: plan.events(),
            events_done: 0,
            events_touching: 0,
            probes_planned: plan.probes(),
            probes: Vec::new(),
            before: None,
            after: None,
            connections_peak: 0,
            settle_s: None,
            event_ms: Vec::new(),
            lagged: 0,
            faults: Vec::new(),
            gaps: Vec::new(),
        }
    }
}

/// One published message and where it arrived.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Probe {
    /// Its number.
    pub number: u32,
    /// The node that published it.
    pub from: usize,
    /// Live nodes that had to receive it.
    pub expected: usize,
    /// Those that did not, in time.
    pub missed: Vec<usize>,
    /// Deliveries beyond the first, over all nodes.
    pub duplicates: u32,
    /// Whether every live node was connected to every other through living neighbours when it was published.
    pub whole: bool,
    /// Milliseconds until the last node had it.
    pub took_ms: u64,
}

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Pass,
    Fail,
    Unknown,
    /// Cannot be told from this run and was not asked for; does not count.
    NotJudged,
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub name: &'static str,
    pub outcome: Outcome,
    /// The figures, in words.
    pub detail: String,
}

/// The answer to all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// `Fail` if any check failed, else `Unknown` if any is unknown, else `Pass`.
    pub outcome: Outcome,
    pub checks: Vec<Check>,
}

impl Verdict {
    /// The check that decided the outcome, for the headline: the first, but that a run which is unknown because a process
    /// ended names the process and not what it could no longer tell.
    pub(crate) fn reason(&self) -> Option<&Check> {
        let mut decided =
            self.checks.iter().filter(|check| check.outcome == self.outcome && self.outcome != Outcome::Pass);
        let first = decided.clone().next();
        match self.outcome {
            Outcome::Unknown => decided.find(|check| check.name == "I14").or(first),
            Outcome::Pass | Outcome::Fail | Outcome::NotJudged => first,
        }
    }
}

/// Judges a run.
pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    let checks = vec![
        faults(evidence),
        events(evidence),
        touched(evidence),
        delivery(evidence),
        orphans(evidence),
        connections(evidence),
        cap(evidence),
        tasks(evidence),
        heap(evidence),
    ];
    let any = |outcome| checks.iter().any(|check| check.outcome == outcome);
    let outcome = if any(Outcome::Fail) {
        Outcome::Fail
    } else if any(Outcome::Unknown) {
        Outcome::Unknown
    } else {
        Outcome::Pass
    };
    Verdict { outcome, checks }
}

fn faults(evidence: &Evidence) -> Check {
    match evidence.faults.first() {
        Some(first) => fail("faults", format!("{} in all; first: {first}", evidence.faults.len())),
        None => pass("faults", "no node died, stalled or refused a command".into()),
    }
}

fn events(evidence: &Evidence) -> Check {
    let Evidence { events_done, events_planned, .. } = evidence;
    let detail = format!("{events_done} of {events_planned} planned");
    if *events_planned > 0 && events_done >= events_planned {
        return pass("events", detail);
    }
    match evidence.gaps.first() {
        Some(gap) => unknown("events", format!("{detail}: {gap}")),
        None => unknown("events", detail),
    }
}

fn touched(evidence: &Evidence) -> Check {
    let Evidence { events_touching, events_done, .. } = evidence;
    let detail = format!("{events_touching} of {events_done} events hit a neighbour of the observer");
    let enough = *events_done > 0 && events_touching * 100 >= events_done * TOUCHED_PERCENT_MIN;
    if enough { pass("touched", detail) } else { unknown("touched", detail) }
}

fn delivery(evidence: &Evidence) -> Check {
    let probes = &evidence.probes;
    let lost: usize = probes.iter().map(|probe| probe.missed.len()).sum();
    let duplicates: u32 = probes.iter().map(|probe| probe.duplicates).sum();
    let expected: usize = probes.iter().map(|probe| probe.expected).sum();
    let slowest_ms = probes.iter().map(|probe| probe.took_ms).max().unwrap_or(0);
    let arrived = expected - lost;
    let detail = format!("{arrived} of {expected} deliveries of {} probes, slowest {slowest_ms} ms", probes.len());
    if let Some(probe) = probes.iter().find(|probe| !probe.missed.is_empty()) {
        let split = if probe.whole { "" } else { ", the mesh was split" };
        return fail("delivery", format!("{detail}; probe {} missed nodes {:?}{split}", probe.number, probe.missed));
    }
    if duplicates > 0 {
        return fail("delivery", format!("{detail}; {duplicates} delivered more than once"));
    }
    if probes.is_empty() || probes.len() < evidence.probes_planned || expected == 0 {
        return unknown("delivery", format!("{detail}; {} probes planned", evidence.probes_planned));
    }
    pass("delivery", detail)
}

fn orphans(evidence: &Evidence) -> Check {
    let Some(after) = &evidence.after else { return missing("orphans", evidence) };
    let Ledger { orphans, orphan_kinds, .. } = &after.ledger;
    if *orphans == 0 && orphan_kinds.is_empty() {
        return pass("orphans", "0 of every kind after settling".into());
    }
    fail("orphans", format!("{orphans} after settling: {orphan_kinds}"))
}

fn connections(evidence: &Evidence) -> Check {
    let Some(after) = &evidence.after else { return missing("connections", evidence) };
    let alive = after.ledger.connections_alive();
    let bound = after.status.neighbors + SPARE_CONNECTIONS;
    let detail = format!(
        "spawned {} - finished {} = {alive}, with {} neighbours (at most {bound})",
        after.ledger.connections_spawned, after.ledger.connections_finished, after.status.neighbors
    );
    if alive <= bound { pass("connections", detail) } else { fail("connections", detail) }
}

fn cap(evidence: &Evidence) -> Check {
    let Some(after) = &evidence.after else { return missing("cap", evidence) };
    let cap = after.status.connection_cap;
    let detail = format!("at most {} connections seen, the cap is {cap}", evidence.connections_peak);
    if evidence.connections_peak <= cap { pass("cap", detail) } else { fail("cap", detail) }
}

fn tasks(evidence: &Evidence) -> Check {
    let (Some(before), Some(after)) = (&evidence.before, &evidence.after) else { return missing("tasks", evidence) };
    let more = after.status.connections.saturating_sub(before.status.connections);
    let bound = before.status.alive_tasks + SPARE_TASKS + TASKS_PER_CONNECTION * more;
    let detail = format!("{} -> {} (at most {bound})", before.status.alive_tasks, after.status.alive_tasks);
    if after.status.alive_tasks <= bound { pass("tasks", detail) } else { fail("tasks", detail) }
}

/// Fails when the growth exceeds the budget even after the noise is taken off, passes when it stays within the budget
/// even with the noise added. Between the two nobody can tell.
fn heap(evidence: &Evidence) -> Check {
    let (Some(before), Some(after)) = (&evidence.before, &evidence.after) else { return missing("heap", evidence) };
    let (Some(heap_before), Some(heap_after)) = (before.status.heap_bytes, after.status.heap_bytes) else {
        return not_judged("heap", "the node does not tell its live heap".into());
    };
    let budget = (HEAP_PER_EVENT_MAX * evidence.events_done as u64) as i64;
    let noise = HEAP_NOISE as i64;
    if budget < 2 * noise {
        let needed = 2 * HEAP_NOISE / HEAP_PER_EVENT_MAX;
        let events = evidence.events_done;
        return not_judged("heap", format!("{events} events are too few to tell it from noise; {needed} would do"));
    }
    let more = after.status.connections as i64 - before.status.connections as i64;
    let growth = heap_after as i64 - heap_before as i64 - more * HEAP_PER_CONNECTION as i64;
    let per_event = growth as f64 / evidence.events_done as f64;
    let detail = format!(
        "{heap_before} -> {heap_after} bytes, {more:+} connections discounted: {per_event:+.0} B per event (at most \
         {HEAP_PER_EVENT_MAX})"
    );
    if growth - noise > budget {
        fail("heap", detail)
    } else if growth + noise <= budget {
        pass("heap", detail)
    } else {
        unknown("heap", format!("{detail}, too close to tell from noise of {HEAP_NOISE} B"))
    }
}

fn missing(name: &'static str, evidence: &Evidence) -> Check {
    let when = if evidence.after.is_none() { "after" } else { "before" };
    let why = evidence.gaps.first().map(|gap| format!(": {gap}")).unwrap_or_default();
    unknown(name, format!("no sample from {when} the storm{why}"))
}

fn pass(name: &'static str, detail: String) -> Check {
    Check { name, outcome: Outcome::Pass, detail }
}

fn fail(name: &'static str, detail: String) -> Check {
    Check { name, outcome: Outcome::Fail, detail }
}

fn unknown(name: &'static str, detail: String) -> Check {
    Check { name, outcome: Outcome::Unknown, detail }
}

fn not_judged(name: &'static str, detail: String) -> Check {
    Check { name, outcome: Outcome::NotJudged, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Shape;
    use crate::samples::{Phase, Status};

    #[test]
    fn a_run_that_never_began_is_unknown() {
        let plan = Plan::draw(Shape {
            scenario: Scenario::Kill,
            seed: 7,
            nodes: 12,
            warm_up: 12,
            events: 300,
            probe_every: 25,
        });
        assert_eq!(judge(&Evidence::empty(&plan)).outcome, Outcome::Unknown);
    }

    #[test]
    fn a_clean_run_passes() {
        check(clean(), Outcome::Pass, &[]);
    }

    #[test]
    fn a_leak_of_connections_as_stock_has_it_fails() {
        // Stock's observer: about two tasks, one connection and 139 KiB of heap per rotation.
        let mut evidence = clean();
        let after = evidence.after.as_mut().unwrap();
        after.ledger.connections_finished -= 320;
        after.status.connections += 320;
        after.status.alive_tasks += 640;
        after.status.heap_bytes = Some(4_000_000 + 300 * 139 * 1024);
        evidence.connections_peak = 325;
        check(evidence, Outcome::Fail, &["connections", "cap", "heap"]);
    }

    #[test]
    fn a_leak_of_tasks_alone_fails() {
        let mut evidence = clean();
        evidence.after.as_mut().unwrap().status.alive_tasks += 20;
        check(evidence, Outcome::Fail, &["tasks"]);
    }

    #[test]
    fn one_orphan_fails() {
        let mut evidence = clean();
        evidence.after.as_mut().unwrap().ledger.orphans = 1;
        check(evidence, Outcome::Fail, &["orphans"]);
    }

    #[test]
    fn a_lost_or_doubled_probe_fails() {
        let mut evidence = clean();
        evidence.probes[3].missed = vec![5];
        check(evidence, Outcome::Fail, &["delivery"]);
        let mut evidence = clean();
        evidence.probes[3].duplicates = 1;
        check(evidence, Outcome::Fail, &["delivery"]);
    }

    #[test]
    fn a_heap_leak_of_a_kilobyte_per_event_fails_and_one_near_the_budget_is_unknown() {
        let mut evidence = clean();
        let grown = |bytes_per_event: u64| Some(4_000_000 + 300 * bytes_per_event);
        evidence.after.as_mut().unwrap().status.heap_bytes = grown(1024);
        check(evidence.clone(), Outcome::Fail, &["heap"]);
        evidence.after.as_mut().unwrap().status.heap_bytes = grown(500);
        check(evidence.clone(), Outcome::Unknown, &["heap"]);
        evidence.after.as_mut().unwrap().status.heap_bytes = grown(182);
        check(evidence, Outcome::Pass, &[]);
    }

    #[test]
    fn one_neighbour_more_is_no_heap_leak() {
        let mut evidence = clean();
        let after = evidence.after.as_mut().unwrap();
        after.status.connections += 1;
        after.status.neighbors += 1;
        after.ledger.connections_finished -= 1;
        after.status.alive_tasks += 4;
        after.status.heap_bytes = Some(4_000_000 + 118_000);
        check(evidence, Outcome::Pass, &[]);
    }

    #[test]
    fn an_allocator_that_does_not_tell_is_not_judged() {
        let mut evidence = clean();
        evidence.after.as_mut().unwrap().status.heap_bytes = None;
        let verdict = judge(&evidence);
        assert_eq!(verdict.outcome, Outcome::Pass);
        assert_eq!(verdict.checks.iter().find(|check| check.name == "heap").unwrap().outcome, Outcome::NotJudged);
    }

    #[test]
    fn missing_samples_are_unknown_and_say_why() {
        let mut evidence = clean();
        evidence.after = None;
        evidence.gaps = vec!["the node tells no alive_tasks".into()];
        let verdict = judge(&evidence);
        assert_eq!(verdict.outcome, Outcome::Unknown);
        let reason = verdict.reason().unwrap();
        assert_eq!(reason.detail, "no sample from after the storm: the node tells no alive_tasks");
        let mut evidence = clean();
        evidence.before = None;
        check(evidence, Outcome::Unknown, &["tasks", "heap"]);
    }

    #[test]
    fn too_little_evidence_is_unknown() {
        let mut evidence = clean();
        evidence.events_done = 299;
        check(evidence, Outcome::Unknown, &["events"]);
        let mut evidence = clean();
        evidence.probes.pop();
        check(evidence, Outcome::Unknown, &["delivery"]);
        let mut evidence = clean();
        evidence.events_touching = 3;
        check(evidence, Outcome::Unknown, &["touched"]);
    }

    #[test]
    fn a_failure_outranks_missing_evidence() {
        let mut evidence = clean();
        evidence.events_done = 10;
        evidence.after = None;
        evidence.faults = vec!["node 3 ended by itself".into()];
        assert_eq!(judge(&evidence).outcome, Outcome::Fail);
        assert_eq!(judge(&evidence).reason().unwrap().name, "faults");
    }

    /// The outcome, and the checks that did not pass.
    fn check(evidence: Evidence, outcome: Outcome, names: &[&str]) {
        let verdict = judge(&evidence);
        let bad: Vec<&str> = verdict
            .checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Fail | Outcome::Unknown))
            .map(|check| check.name)
            .collect();
        assert_eq!((verdict.outcome, bad.as_slice()), (outcome, names), "{verdict:#?}");
    }

    fn clean() -> Evidence {
        let sample = |phase, spawned: u64| Sample {
            at_s: 0.0,
            phase,
            events: 0,
            status: Status {
                connections: 5,
                connection_cap: 128,
                half_open: 0,
                neighbors: 5,
                alive_tasks: 44,
                heap_bytes: Some(4_000_000),
                rss_bytes: Some(16_000_000),
                open_fds: Some(14),
            },
            ledger: Ledger {
                orphans: 0,
                orphan_kinds: String::new(),
                connections_spawned: spawned,
                connections_finished: spawned - 5,
            },
        };
        let probe = |number| Probe {
            number,
            from: 1,
            expected: 11,
            missed: Vec::new(),
            duplicates: 0,
            whole: true,
            took_ms: 2,
        };
        Evidence {
            scenario: Scenario::Rotate,
            seed: 7,
            events_planned: 300,
            events_done: 300,
            events_touching: 130,
            probes_planned: 12,
            probes: (1..=12).map(probe).collect(),
            before: Some(sample(Phase::Before, 20)),
            after: Some(sample(Phase::After, 400)),
            connections_peak: 9,
            settle_s: Some(6.0),
            event_ms: Vec::new(),
            lagged: 0,
            faults: Vec::new(),
            gaps: Vec::new(),
        }
    }
}
