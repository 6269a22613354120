//! What one flood has to show: from raw samples and probes to the figures that are judged and printed. `[pure]`

use std::collections::BTreeMap;

use perennial_soak::{
    attack::{Kind, Tally},
    stats::percentile,
};
use serde::Serialize;

use super::{
    probes::{Answers, Probe, answers},
    samples::{Cap, Sample, between, last_at, peak, settled},
    victim::Software,
};

/// A victim rests for this long after the last packet before its heap and tasks are judged.
pub(crate) const REST_S: f64 = 10.0;

/// Work that a flood left in queues is done within this long after it; processor time is counted until then.
const WORK_OFF_S: f64 = 3.0;

/// When what happened, in seconds since the run began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Times {
    /// The undisturbed phase begins.
    pub before_s: f64,
    /// The first attempt.
    pub attack_s: f64,
    /// Every attempt is made.
    pub made_s: f64,
    /// The last packet: everyone left, or nobody stayed.
    pub end_s: f64,
    /// The end of the phase in which the flood is still felt.
    pub hold_end_s: f64,
    /// The end of the run.
    pub last_s: f64,
}

/// The attacker's side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Attacker {
    pub tally: Tally,
    pub took_ms: f64,
    /// Processor time to build what can be built beforehand.
    pub build_cpu_ms: f64,
    /// Processor time of the attack itself, keeping connections open included.
    pub cpu_ms: f64,
    pub held_to_the_end: u64,
}

/// Everything recorded in one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub times: Times,
    pub attacker: Attacker,
    pub probes: Vec<Probe>,
    pub samples: Vec<Sample>,
    pub caps: Vec<Cap>,
    pub counts: BTreeMap<String, u64>,
    /// From knocking while strangers were inside to the first neighbour, of another peer the victim knows.
    pub known_ms: Option<f64>,
    /// From the end of the flood to the newcomer's first neighbour.
    pub newcomer_ms: Option<f64>,
    /// How the victim ended, if it did.
    pub ended: Option<String>,
    /// What could not be measured.
    pub gaps: Vec<String>,
}

/// A figure before, at its extreme from the first packet to the end of the hold, after the rest, and at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Course {
    pub before: Option<f64>,
    pub peak: Option<f64>,
    pub rest: Option<f64>,
    pub last: Option<f64>,
}

impl Course {
    pub(crate) fn growth(&self) -> Option<f64> {
        Some(self.peak? - self.before?)
    }

    pub(crate) fn left(&self) -> Option<f64> {
        Some(self.rest? - self.before?)
    }

    pub(crate) fn left_at_last(&self) -> Option<f64> {
        Some(self.last? - self.before?)
    }
}

/// The figures of one flood.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Evidence {
    /// `None` is the quiet run: the same course without an attack.
    pub kind: Option<Kind>,
    pub count: usize,
    pub subject: Software,
    pub times: Times,
    pub attacker: Attacker,
    pub before: Answers,
    pub during: Answers,
    pub hold: Answers,
    /// During and hold together: where the flood is felt.
    pub flood: Answers,
    pub after: Answers,
    pub heap: Course,
    /// What the heap of the quiet run grew by over the same stretch, until the rest and until the end: probes alone
    /// cost that.
    pub heap_drift: Option<f64>,
    pub heap_drift_at_last: Option<f64>,
    pub rss: Course,
    pub tasks: Course,
    /// Of the tasks, those in the victim's own ledger.
    pub own_tasks: Course,
    /// The most own tasks a rested victim of the quiet run had beyond those before: it asks for the newcomer who left.
    pub own_tasks_quiet: Option<f64>,
    pub connections: Course,
    pub connections_high_water: Option<f64>,
    pub connection_cap: Option<f64>,
    pub half_open_peak: Option<f64>,
    pub caps: Vec<Cap>,
    /// The most before the flood, and the most from then on.
    pub fds: Option<(f64, f64)>,
    pub threads: Option<(f64, f64)>,
    /// The most threads in the quiet run: the runtime's pool for blocking calls breathes.
    pub threads_quiet: Option<f64>,
    pub status_p99_ms: Option<f64>,
    /// Processor time the flood cost the victim, beyond what it uses undisturbed.
    pub victim_cpu_ms: Option<f64>,
    pub dropped_datagrams: Option<f64>,
    pub newcomer_ms: Option<f64>,
    pub known_ms: Option<f64>,
    /// What the victim says it refused, dropped and closed, by reason.
    pub counts: BTreeMap<String, u64>,
    pub ended: Option<String>,
    pub gaps: Vec<String>,
}

/// What the quiet run of the same software says about the others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quiet {
    attack_s: f64,
    samples: Vec<Sample>,
    cpu_ms: Option<f64>,
    own_tasks: Option<f64>,
    threads: Option<f64>,
}

impl Quiet {
    pub(crate) fn of(record: &Record) -> Self {
        let own_tasks = |sample: &Sample| sample.own_tasks.map(|tasks| tasks as f64);
        let Times { attack_s, end_s, last_s, .. } = record.times;
        let rested = peak(between(&record.samples, end_s + REST_S - 1.0, last_s), own_tasks);
        let before = settled(&record.samples, attack_s - 1.0, own_tasks);
        Self {
            attack_s,
            samples: record.samples.clone(),
            cpu_ms: extra_cpu_ms(record),
            own_tasks: rested.zip(before).map(|(rested, before)| (rested - before).max(0.0)),
            threads: peak(&record.samples, |sample| sample.look.threads.map(|threads| threads as f64)),
        }
    }

    /// What the heap grew by from just before the attack until `offset_s` after it. A longer run than the quiet one is
    /// held against its end: what probes leave behind is bounded by the time messages are kept.
    fn heap_drift(&self, offset_s: f64) -> Option<f64> {
        let last_s = self.samples.last()?.at_s - 1.0;
        let heap = |at_s| settled(&self.samples, at_s, |sample| sample.heap_bytes);
        Some(heap((self.attack_s + offset_s).min(last_s))? - heap(self.attack_s - 1.0)?)
    }
}

/// Draws the figures out of a record.
pub(crate) fn evidence(
    (kind, count, subject): (Option<Kind>, usize, Software),
    record: Record,
    quiet: Option<&Quiet>,
) -> Evidence {
    let Times { before_s, attack_s, made_s, end_s, hold_end_s, last_s } = record.times;
    let course = |figure: fn(&Sample) -> Option<f64>| course(&record, figure);
    let probes = |from_s, until_s| answers(&record.probes, from_s, until_s);
    let samples = &record.samples;
    let felt = between(samples, attack_s, hold_end_s);
    let most = |from_s, until_s, figure: fn(&Sample) -> Option<f64>| peak(between(samples, from_s, until_s), figure);
    let mosts =
        |figure: fn(&Sample) -> Option<f64>| most(before_s, attack_s, figure).zip(most(attack_s, last_s, figure));
    let answered_ms: Vec<f64> = felt.iter().map(|sample| sample.answered_ms).collect();
    let drops = |sample: &Sample| sample.look.dropped_datagrams.map(|drops| drops as f64);
    let dropped_datagrams = last_at(samples, last_s, drops).zip(last_at(samples, attack_s, drops));
    Evidence {
        kind,
        count,
        subject,
        times: record.times,
        attacker: record.attacker,
        before: probes(before_s, attack_s),
        during: probes(attack_s, made_s),
        hold: probes(made_s, hold_end_s),
        flood: probes(attack_s, hold_end_s),
        after: probes(hold_end_s, last_s),
        heap: course(|sample| sample.heap_bytes),
        heap_drift: quiet.and_then(|quiet| quiet.heap_drift(end_s + REST_S - attack_s)),
        heap_drift_at_last: quiet.and_then(|quiet| quiet.heap_drift(last_s - 1.0 - attack_s)),
        rss: course(|sample| sample.look.rss_bytes.map(|bytes| bytes as f64)),
        tasks: course(|sample| sample.tasks),
        own_tasks: course(|sample| sample.own_tasks.map(|tasks| tasks as f64)),
        own_tasks_quiet: quiet.and_then(|quiet| quiet.own_tasks),
        connections: course(|sample| sample.connections),
        connections_high_water: peak(samples, |sample| sample.connections_high_water),
        connection_cap: peak(samples, |sample| sample.connection_cap),
        half_open_peak: peak(samples, |sample| sample.half_open),
        caps: record.caps.clone(),
        fds: mosts(|sample| sample.look.fds.map(|fds| fds as f64)),
        threads: mosts(|sample| sample.look.threads.map(|threads| threads as f64)),
        threads_quiet: quiet.and_then(|quiet| quiet.threads),
        status_p99_ms: percentile(&answered_ms, 99.0),
        victim_cpu_ms: extra_cpu_ms(&record).map(|cpu_ms| cpu_ms - quiet.and_then(|quiet| quiet.cpu_ms).unwrap_or(0.0)),
        dropped_datagrams: dropped_datagrams.map(|(last, before)| last - before),
        newcomer_ms: record.newcomer_ms,
        known_ms: record.known_ms,
        counts: record.counts.clone(),
        ended: record.ended.clone(),
        gaps: record.gaps.clone(),
    }
}

fn course(record: &Record, figure: impl Fn(&Sample) -> Option<f64>) -> Course {
    let Times { attack_s, end_s, hold_end_s, last_s, .. } = record.times;
    Course {
        before: settled(&record.samples, attack_s - 1.0, &figure),
        peak: peak(between(&record.samples, attack_s, hold_end_s), &figure),
        rest: settled(&record.samples, end_s + REST_S, &figure),
        last: settled(&record.samples, last_s - 1.0, &figure),
    }
}

/// Processor time from the first packet until the work is done, less what the undisturbed victim uses in as long.
fn extra_cpu_ms(record: &Record) -> Option<f64> {
    let Times { before_s, attack_s, end_s, .. } = record.times;
    let cpu_ms = |at_s| last_at(&record.samples, at_s, |sample| sample.look.cpu_ms);
    let until_s = end_s + WORK_OFF_S;
    let rate = (cpu_ms(attack_s)? - cpu_ms(before_s)?) / (attack_s - before_s);
    Some(cpu_ms(until_s)? - cpu_ms(attack_s)? - rate * (until_s - attack_s))
}

#[cfg(test)]
mod tests {
    use super::{super::samples::Look, *};

    /// A victim whose heap grows by 10 B a second and which uses 5 ms of processor a second.
    fn record(extra_heap: impl Fn(f64) -> f64, extra_cpu_ms: impl Fn(f64) -> f64) -> Record {
        let sample = |tick: usize| {
            let at_s = tick as f64 / 10.0;
            Sample {
                at_s,
                heap_bytes: Some(1000.0 + 10.0 * at_s + extra_heap(at_s)),
                look: Look { cpu_ms: Some(5.0 * at_s + extra_cpu_ms(at_s)), fds: Some(14), ..Look::default() },
                ..Sample::default()
            }
        };
        Record {
            times: Times { before_s: 2.0, attack_s: 12.0, made_s: 14.0, end_s: 14.0, hold_end_s: 29.0, last_s: 40.0 },
            samples: (0..400).map(sample).collect(),
            ..Record::default()
        }
    }

    #[test]
    fn what_probes_alone_cost_is_not_blamed_on_the_flood() {
        let quiet = Quiet::of(&record(|_| 0.0, |_| 0.0));
        let leaks = record(|at_s| if at_s > 13.0 { 700.0 } else { 0.0 }, |at_s| if at_s > 13.0 { 40.0 } else { 0.0 });
        let evidence = evidence((Some(Kind::Idle), 5, Software::Ours), leaks, Some(&quiet));
        let left = evidence.heap.left().unwrap() - evidence.heap_drift.unwrap();
        assert!((left - 700.0).abs() < 1.0, "{left}");
        assert!((evidence.victim_cpu_ms.unwrap() - 40.0).abs() < 1.0, "{:?}", evidence.victim_cpu_ms);
        assert_eq!(evidence.fds, Some((14.0, 14.0)));
        assert_eq!(evidence.tasks, Course::default());
    }

    #[test]
    fn without_a_quiet_run_the_drift_is_unknown() {
        let evidence = evidence((None, 0, Software::Stock), record(|_| 0.0, |_| 0.0), None);
        assert_eq!(evidence.heap_drift, None);
        assert!(evidence.victim_cpu_ms.unwrap().abs() < 1.0);
    }
}
