//! The eight criteria of a flood that nobody inside notices: evidence in, one sentence each out. `[pure]`
//!
//! Limits come from the victim's own caps. A figure that is missing makes a criterion unknown, never passed.

use perennial_soak::attack::Kind;

use super::evidence::Evidence;
use crate::judge::{Check, Outcome};

/// A handshake under way costs this much. 87 to 89 KB were measured on stock, which adds nothing of its own there.
const HANDSHAKE_BYTES: f64 = 96.0 * 1024.0;

/// A connection costs this much: 116 KB measured on stock, and the supervisor of a remote.
const CONNECTION_BYTES: f64 = 128.0 * 1024.0;

/// One place in a waiting room: a first packet of 1200 B and its bookkeeping.
const WAITING_BYTES: f64 = 4.0 * 1024.0;

/// Handshakes at one time, where the victim does not list its caps: the default of `Limits::handshakes_max`.
const HANDSHAKES_DEFAULT: f64 = 32.0;

/// The p99 to a known peer may grow to twice its value, or by this much where twice is less.
const P99_SLACK_MS: f64 = 3.0;

/// A page of figures that takes longer than this to appear is not asked for a second time.
const STATUS_P99_MS_MAX: f64 = 100.0;

/// A newcomer has a neighbour this soon after the flood.
const NEWCOMER_MS_MAX: f64 = 2000.0;

/// Heap an identity may leave behind.
const LEFT_PER_IDENTITY: f64 = 512.0;

/// Heap by which two looks at a settled node differ without meaning anything.
const HEAP_NOISE: f64 = 65_536.0;

/// iroh keeps the task of a remote for up to this long after its last connection.
const REMOTE_KEPT_S: f64 = 60.0;

/// A flood costs the victim at most as much processor time as the attacker.
const AMPLIFICATION_MAX: f64 = 1.0;

/// Judges one flood.
pub(crate) fn judge(evidence: &Evidence) -> Vec<Check> {
    vec![
        probes(evidence),
        latency(evidence),
        heap(evidence),
        descriptors(evidence),
        caps(evidence),
        status(evidence),
        afterwards(evidence),
        amplification(evidence),
    ]
}

/// (1) Every probe is answered, none twice.
fn probes(evidence: &Evidence) -> Check {
    const NAME: &str = "1 probes";
    if let Some(how) = &evidence.ended {
        return verdict(NAME, false, format!("the victim ended: {how}"));
    }
    let phases = [evidence.before, evidence.during, evidence.hold, evidence.after];
    let sum = |figure: fn(&super::probes::Answers) -> usize| phases.iter().map(figure).sum::<usize>();
    let (published, unanswered) = (sum(|phase| phase.published), sum(|phase| phase.unanswered));
    let duplicated = sum(|phase| phase.duplicated);
    let detail = format!("{published} published, {unanswered} unanswered, {duplicated} answered twice");
    // Without probes while the flood was felt nothing was shown.
    if evidence.flood.published == 0 || evidence.before.published == 0 {
        return unknown(NAME, detail);
    }
    verdict(NAME, unanswered == 0 && duplicated == 0, detail)
}

/// (2) The known peer hardly notices.
fn latency(evidence: &Evidence) -> Check {
    const NAME: &str = "2 latency";
    let (Some(before), Some(flood)) = (evidence.before.p99_ms, evidence.flood.p99_ms) else {
        return unknown(NAME, "no answered probe before or during the flood".into());
    };
    let limit = (2.0 * before).max(before + P99_SLACK_MS);
    let max = evidence.flood.max_ms.unwrap_or(flood);
    verdict(NAME, flood <= limit, format!("p99 {before:.1} → {flood:.1} ms, at most {limit:.1}; slowest {max:.1} ms"))
}

/// (3) Memory stays within what the caps allow.
fn heap(evidence: &Evidence) -> Check {
    const NAME: &str = "3 heap";
    let (Some(growth), Some(cap)) = (evidence.heap.growth(), evidence.connection_cap) else {
        return unknown(NAME, "the victim tells no heap (build it with its feature `soak`) or no cap".into());
    };
    let listed = |part: &str| evidence.caps.iter().find(|cap| cap.name.contains(part)).map(|cap| cap.max);
    let waiting = listed("waiting").or(listed("lobby")).unwrap_or(0.0);
    let handshakes = listed("handshake").unwrap_or(HANDSHAKES_DEFAULT);
    let limit = waiting * WAITING_BYTES + handshakes * HANDSHAKE_BYTES + cap * CONNECTION_BYTES;
    let caps = format!("{waiting} waiting, {handshakes} handshakes, {cap} connections");
    verdict(NAME, growth <= limit, format!("{} at the peak, at most {} for {caps}", mega(growth), mega(limit)))
}

/// (4) One socket is all QUIC needs, and nobody blocks a thread.
fn descriptors(evidence: &Evidence) -> Check {
    const NAME: &str = "4 descriptors";
    let (Some(fds), Some(threads)) = (evidence.fds, evidence.threads) else {
        return unknown(NAME, "the kernel tells no descriptors or threads".into());
    };
    let threads_max = threads.0.max(evidence.threads_quiet.unwrap_or(0.0));
    let detail = format!("descriptors {} → {}, threads {} → {}", fds.0, fds.1, threads_max, threads.1);
    verdict(NAME, fds.1 <= fds.0 && threads.1 <= threads_max, detail)
}

/// (5) No cap is exceeded at any instant, by the victim's own marks.
fn caps(evidence: &Evidence) -> Check {
    const NAME: &str = "5 caps";
    if let Some(over) = evidence.caps.iter().find(|cap| cap.high_water > cap.max) {
        return verdict(NAME, false, format!("{} reached {} of {}", over.name, over.high_water, over.max));
    }
    let (Some(most), Some(cap)) = (evidence.connections_high_water, evidence.connection_cap) else {
        return unknown(NAME, "the victim tells no high-water mark or has no cap".into());
    };
    let listed = match evidence.caps.len() {
        0 => "it lists no other caps".into(),
        count => format!("all {count} caps it lists held"),
    };
    verdict(NAME, most <= cap, format!("{most} connections at most, cap {cap}; {listed}"))
}

/// (6) The operator gets an answer.
fn status(evidence: &Evidence) -> Check {
    const NAME: &str = "6 status";
    match evidence.status_p99_ms {
        Some(p99_ms) => {
            let detail = format!("answers in {p99_ms:.1} ms (p99), at most {STATUS_P99_MS_MAX}");
            verdict(NAME, p99_ms <= STATUS_P99_MS_MAX, detail)
        }
        None => unknown(NAME, "status was never asked for during the flood".into()),
    }
}

/// (7) Ten seconds later nothing is left, and whoever comes now gets in.
fn afterwards(evidence: &Evidence) -> Check {
    const NAME: &str = "7 afterwards";
    let mut details = Vec::new();
    let mut outcomes = Vec::new();
    let mut add = |outcome, detail| {
        outcomes.push(outcome);
        details.push(detail);
    };
    match evidence.newcomer_ms {
        Some(took_ms) => add(ok(took_ms <= NEWCOMER_MS_MAX), format!("a newcomer had a neighbour in {took_ms:.0} ms")),
        None => add(Outcome::Fail, "a newcomer got no neighbour".into()),
    }
    match (evidence.kind, evidence.known_ms) {
        (Some(kind), Some(took_ms)) if kind.stays() => {
            let outcome = ok(took_ms <= NEWCOMER_MS_MAX);
            add(outcome, format!("a known peer had one in {took_ms:.0} ms among the strangers"));
        }
        (Some(kind), None) if kind.stays() => add(Outcome::Fail, "a known peer got none among the strangers".into()),
        (Some(_) | None, _) => {}
    }
    let (outcome, detail) = left_heap(evidence);
    add(outcome, detail);
    match (evidence.own_tasks.left(), evidence.tasks.left()) {
        (Some(own), Some(all)) => {
            let allowed = evidence.own_tasks_quiet.unwrap_or(0.0);
            let last = evidence.tasks.left_at_last().map_or("unknown".into(), |last| format!("{last:+}"));
            let iroh = all - own;
            let detail = format!("own tasks {own:+}, at most {allowed:+}; iroh's {iroh:+}; all at the end {last}");
            add(ok(own <= allowed), detail);
        }
        (None, Some(all)) => add(ok(all <= 0.0), format!("tasks {all:+}")),
        (_, None) => add(Outcome::Unknown, "tasks unknown".into()),
    }
    let worst = |wanted| outcomes.contains(&wanted);
    let outcome = if worst(Outcome::Fail) {
        Outcome::Fail
    } else if worst(Outcome::Unknown) {
        Outcome::Unknown
    } else {
        Outcome::Pass
    };
    Check { name: NAME, outcome, detail: details.join("; ") }
}

/// Heap ten seconds after the last packet. What is beyond the allowance while iroh still keeps tasks for remotes that
/// left is iroh's if it is gone when they are; a run that ends before cannot tell.
fn left_heap(evidence: &Evidence) -> (Outcome, String) {
    let allowed = LEFT_PER_IDENTITY * evidence.attacker.tally.attempted as f64 + HEAP_NOISE;
    let Some((left, drift)) = evidence.heap.left().zip(evidence.heap_drift) else {
        return (Outcome::Unknown, "heap unknown, or no quiet run to hold it against".into());
    };
    let left = left - drift;
    let detail = format!("heap {} after 10 s, at most {}", mega(left), mega(allowed));
    if left <= allowed {
        return (Outcome::Pass, detail);
    }
    let iroh = evidence.tasks.left().zip(evidence.own_tasks.left()).map_or(0.0, |(all, own)| all - own);
    if iroh < 1.0 {
        return (Outcome::Fail, detail);
    }
    let watched_s = evidence.times.last_s - evidence.times.end_s;
    let later = evidence.heap.left_at_last().zip(evidence.heap_drift_at_last).map(|(left, drift)| left - drift);
    match later.filter(|_| watched_s > REMOTE_KEPT_S) {
        Some(later) => {
            let outcome = ok(later <= allowed);
            (outcome, format!("{detail}, while iroh keeps {iroh} tasks; {} after {watched_s:.0} s", mega(later)))
        }
        None => {
            (Outcome::Unknown, format!("{detail}, while iroh keeps {iroh} tasks; watched for {watched_s:.0} s only"))
        }
    }
}

/// (8) Refusing is cheaper than asking. Judged where the attacker invests nothing, told everywhere.
fn amplification(evidence: &Evidence) -> Check {
    const NAME: &str = "8 processor";
    let attacker = evidence.attacker;
    let Some(victim_ms) = evidence.victim_cpu_ms else {
        return unknown(NAME, "the kernel tells no processor time".into());
    };
    let ratio = victim_ms / attacker.cpu_ms;
    let detail = format!(
        "victim {victim_ms:.0} ms ÷ attacker {:.0} ms = {ratio:.2} ({:.0} ms more to build the packets)",
        attacker.cpu_ms, attacker.build_cpu_ms
    );
    match evidence.kind {
        Some(Kind::Spoofed) if attacker.cpu_ms > 0.0 => verdict(NAME, ratio <= AMPLIFICATION_MAX, detail),
        Some(_) => Check { name: NAME, outcome: Outcome::NotJudged, detail },
        None => Check { name: NAME, outcome: Outcome::NotJudged, detail: "there was no attacker".into() },
    }
}

fn mega(bytes: f64) -> String {
    format!("{:+.2} MB", bytes / 1e6)
}

fn ok(holds: bool) -> Outcome {
    if holds { Outcome::Pass } else { Outcome::Fail }
}

fn verdict(name: &'static str, holds: bool, detail: String) -> Check {
    Check { name, outcome: ok(holds), detail }
}

fn unknown(name: &'static str, detail: String) -> Check {
    Check { name, outcome: Outcome::Unknown, detail }
}

#[cfg(test)]
mod tests {
    use perennial_soak::attack::Tally;

    use super::{
        super::{
            evidence::{Attacker, Quiet, Record, Times, evidence},
            probes::Probe,
            samples::{Cap, Look, Sample},
            victim::Software,
        },
        *,
    };

    /// A flood nobody noticed: ten seconds before, two during, fifteen of hold, seventy after.
    fn calm() -> Record {
        let times = Times { before_s: 2.0, attack_s: 12.0, made_s: 14.0, end_s: 14.0, hold_end_s: 29.0, last_s: 85.0 };
        let sample = |tick: usize| {
            let at_s = tick as f64 / 10.0;
            let look = Look { fds: Some(14), threads: Some(6), cpu_ms: Some(at_s), ..Look::default() };
            Sample {
                at_s,
                answered_ms: 1.0,
                heap_bytes: Some(4e6),
                tasks: Some(20.0),
                own_tasks: Some(15),
                connections: Some(1.0),
                connections_high_water: Some(40.0),
                connection_cap: Some(128.0),
                half_open: Some(0.0),
                look,
            }
        };
        let probe = |number: usize| Probe { at_s: number as f64 / 20.0, took_ms: Some(1.0), echoes: 1 };
        let tally = Tally { attempted: 2000, sent: 2000, ..Tally::default() };
        Record {
            times,
            attacker: Attacker { tally, took_ms: 2000.0, build_cpu_ms: 300.0, cpu_ms: 30.0, held_to_the_end: 0 },
            probes: (0..1700).map(probe).collect(),
            samples: (0..850).map(sample).collect(),
            newcomer_ms: Some(30.0),
            ..Record::default()
        }
    }

    /// The criteria that a record does not pass, with their outcome.
    fn not_passed(change: impl Fn(&mut Record)) -> Vec<(&'static str, Outcome)> {
        let mut record = calm();
        change(&mut record);
        let quiet = Quiet::of(&calm());
        let checks = judge(&evidence((Some(Kind::Spoofed), 2000, Software::Ours), record, Some(&quiet)));
        assert_eq!(checks.len(), 8);
        let left = checks.into_iter().filter(|check| check.outcome != Outcome::Pass);
        left.map(|check| (check.name, check.outcome)).collect()
    }

    fn from(record: &mut Record, at_s: f64) -> impl Iterator<Item = &mut Sample> {
        record.samples.iter_mut().filter(move |sample| sample.at_s >= at_s)
    }

    #[test]
    fn a_flood_nobody_noticed_passes() {
        assert_eq!(not_passed(|_| {}), []);
    }

    #[test]
    fn a_probe_lost_or_doubled_fails() {
        let fails = [("1 probes", Outcome::Fail)];
        assert_eq!(not_passed(|record| record.probes[300].echoes = 2), fails);
        assert_eq!(not_passed(|record| record.probes[300].echoes = 0), fails);
        assert_eq!(not_passed(|record| record.ended = Some("signal: 9".into())), fails);
        let silent = not_passed(|record| record.probes.clear());
        assert_eq!(silent, [("1 probes", Outcome::Unknown), ("2 latency", Outcome::Unknown)]);
    }

    #[test]
    fn slow_probes_in_the_hold_count() {
        let slow = |count: usize| {
            not_passed(move |record| {
                for probe in &mut record.probes[290..290 + count] {
                    probe.took_ms = Some(400.0);
                }
            })
        };
        assert_eq!(slow(3), [], "340 probes: the p99 forgives three");
        assert_eq!(slow(9), [("2 latency", Outcome::Fail)]);
    }

    #[test]
    fn the_caps_bound_the_heap() {
        let peak = |bytes: f64| not_passed(move |record| record.samples[130].heap_bytes = Some(bytes));
        assert_eq!(peak(4e6 + 19e6), []);
        assert_eq!(peak(4e6 + 21e6), [("3 heap", Outcome::Fail)]);
        let cap = |name: &str, max| Cap { name: name.into(), max, high_water: 1.0 };
        let small = not_passed(|record| {
            record.caps = vec![cap("handshakes", 4.0), cap("waiting room", 10.0)];
            record.samples[130].heap_bytes = Some(4e6 + 19e6);
        });
        assert_eq!(small, [("3 heap", Outcome::Fail)]);
    }

    #[test]
    fn a_descriptor_or_a_thread_more_fails() {
        let fails = [("4 descriptors", Outcome::Fail)];
        assert_eq!(not_passed(|record| record.samples[130].look.fds = Some(15)), fails);
        assert_eq!(not_passed(|record| record.samples[130].look.threads = Some(7)), fails);
        assert_eq!(not_passed(|record| from(record, 20.0).for_each(|sample| sample.look.threads = Some(5))), []);
    }

    #[test]
    fn an_overshoot_of_any_cap_fails() {
        let fails = [("5 caps", Outcome::Fail)];
        assert_eq!(not_passed(|record| record.samples[130].connections_high_water = Some(129.0)), fails);
        let over = Cap { name: "lobby".into(), max: 64.0, high_water: 65.0 };
        assert_eq!(not_passed(|record| record.caps = vec![over.clone()]), fails);
    }

    #[test]
    fn a_late_status_fails() {
        let late = not_passed(|record| from(record, 14.0).take(20).for_each(|sample| sample.answered_ms = 300.0));
        assert_eq!(late, [("6 status", Outcome::Fail)]);
    }

    #[test]
    fn what_stays_fails_unless_it_is_iroh_s_and_goes() {
        let fails = [("7 afterwards", Outcome::Fail)];
        let heap = |from_s, until_s, tasks, own| {
            not_passed(move |record| {
                for sample in from(record, from_s).take_while(|sample| sample.at_s < until_s) {
                    sample.heap_bytes = Some(7e6);
                    (sample.tasks, sample.own_tasks) = (Some(20.0 + tasks + own), Some(15 + own as i64));
                }
            })
        };
        assert_eq!(heap(13.0, 99.0, 0.0, 0.0), fails, "heap that stays");
        assert_eq!(heap(13.0, 75.0, 80.0, 0.0), [], "heap of iroh's tasks, which ended with them");
        assert_eq!(heap(13.0, 99.0, 80.0, 0.0), fails, "heap that outlives iroh's patience");
        assert_eq!(heap(13.0, 75.0, 80.0, 3.0), fails, "own tasks");
        assert_eq!(not_passed(|record| record.newcomer_ms = Some(2001.0)), fails);
        assert_eq!(not_passed(|record| record.newcomer_ms = None), fails);
        let short = not_passed(|record| {
            record.times.last_s = 40.0;
            for sample in from(record, 13.0) {
                (sample.heap_bytes, sample.tasks) = (Some(7e6), Some(100.0));
            }
        });
        assert_eq!(short, [("7 afterwards", Outcome::Unknown)]);
    }

    #[test]
    fn a_victim_that_works_harder_than_its_attacker_fails() {
        let busy = not_passed(|record| {
            from(record, 13.0).for_each(|sample| sample.look.cpu_ms = sample.look.cpu_ms.map(|cpu_ms| cpu_ms + 45.0));
        });
        assert_eq!(busy, [("8 processor", Outcome::Fail)]);
    }

    #[test]
    fn a_victim_that_tells_nothing_passes_nothing() {
        let silent = not_passed(|record| {
            for sample in &mut record.samples {
                *sample = Sample { at_s: sample.at_s, answered_ms: 5000.0, ..Sample::default() };
            }
        });
        let outcome = |name| silent.iter().find(|(other, _)| *other == name).map(|(_, outcome)| *outcome);
        for name in ["3 heap", "4 descriptors", "5 caps", "7 afterwards", "8 processor"] {
            assert_eq!(outcome(name), Some(Outcome::Unknown), "{name}");
        }
        assert_eq!(outcome("6 status"), Some(Outcome::Fail));
    }
}
