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
const HEAP_NOISE: f64 = crate::judge::HEAP_NOISE as f64;

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
        return unknown(NAME, "the victim tells no heap (build it with `count-heap`) or no cap".into());
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
