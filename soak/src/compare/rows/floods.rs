//! P17 and P18: a flood of packets from nobody, and a flood of identities that only sit there. The course is that of the
//! verb `flood`; this file takes out what is compared. What identities leave behind shows a minute after the last of them,
//! and is a course of its own: that minute is no time in which others could not be measured.

use std::time::Duration;

use perennial_soak::attack::Kind as Attack;

use super::programs;
use crate::{
    cluster::Fault,
    compare::{
        row::{Goal, Kind, Reading, Row, Unit},
        world::{Figures, World},
    },
    flood::{
        course::{self, Flood, Phases},
        evidence::{Evidence, evidence},
        victim::Software,
    },
};

pub(crate) const SPOOFED: [Row; 3] = [
    Row {
        id: "P17-heap",
        title: "spoofed first packets: heap at the peak",
        unit: Unit::Bytes,
        kind: Kind::Size,
        goals: &[Goal::Ratio(0.02)],
        source: "limit waiting room × 1.2 KB; stock 0.101 +174 MB for 2,000",
    },
    Row {
        id: "P17-p99",
        title: "spoofed: p99 to a known peer ÷ allowed",
        unit: Unit::Times,
        kind: Kind::Time,
        goals: &[Goal::AtMost(1.0)],
        source: "allowed is the larger of 2 × before and before + 5 ms; stock 0.101 takes 437 to 478 ms",
    },
    Row {
        id: "P17-cpu",
        title: "spoofed: processor time ÷ attacker's",
        unit: Unit::Times,
        kind: Kind::Time,
        goals: &[Goal::AtMost(1.0)],
        source: "limit one table look-up per packet; stock 0.101 about 5",
    },
];

pub(crate) const IDLE: [Row; 2] = [
    Row {
        id: "P18-heap",
        title: "idle identities: heap at the peak",
        unit: Unit::Bytes,
        kind: Kind::Size,
        // The default cap of 128 connections, of 2,000 who come.
        goals: &[Goal::Ratio(128.0 / 2000.0)],
        source: "limit cap × P6; stock 0.101 +235 MB for 2,000",
    },
    Row {
        id: "P18-p50",
        title: "idle: p50 to a known peer ÷ before",
        unit: Unit::Times,
        kind: Kind::Time,
        goals: &[Goal::AtMost(2.0)],
        source: "limit 1; stock 0.101 takes 204 ms instead of 0.4",
    },
];

pub(crate) const REST: [Row; 1] = [Row {
    id: "P18-left",
    title: "idle: heap left per identity",
    unit: Unit::Bytes,
    kind: Kind::Size,
    goals: &[Goal::AtMost(512.0)],
    source: "limit 0; stock 0.101 keeps 7.9 KB",
}];

pub(crate) const QUICK: &str = "100 attempts instead of 2,000";

pub(crate) const REST_QUICK: &str = "100 attempts instead of 2,000, watched for 12 s after the last instead of 70 s";

/// What the known peer may notice at least, in milliseconds.
const SLACK_MS: f64 = 5.0;

pub(crate) async fn spoofed(world: &World<'_>) -> Result<Figures, Fault> {
    let evidence = flood(world, Attack::Spoofed, SOON).await?;
    let mut figures = Figures::default();
    figures.add("P17-heap", heap(evidence.heap.growth()));
    let p99 = evidence.before.p99_ms.zip(evidence.flood.p99_ms);
    let allowed = |before: f64| (2.0 * before).max(before + SLACK_MS);
    let noticed = p99.map(|(before, during)| Reading::Is(during / allowed(before)));
    figures.add("P17-p99", noticed.ok_or_else(|| "no probe was answered".into()));
    let cpu = evidence.victim_cpu_ms.filter(|_| evidence.attacker.cpu_ms > 0.0);
    let share = cpu.map(|victim| Reading::Is(victim / evidence.attacker.cpu_ms));
    figures.add("P17-cpu", share.ok_or_else(|| "the kernel tells no processor time".into()));
    Ok(figures)
}

pub(crate) async fn idle(world: &World<'_>) -> Result<Figures, Fault> {
    let evidence = flood(world, Attack::Idle, SOON).await?;
    let mut figures = Figures::default();
    figures.add("P18-heap", heap(evidence.heap.growth()));
    let p50 = evidence.before.p50_ms.zip(evidence.during.p50_ms).filter(|(before, _)| *before > 0.0);
    let slower = p50.map(|(before, during)| Reading::Is(during / before));
    figures.add("P18-p50", slower.ok_or_else(|| "no probe was answered while they arrived".into()));
    Ok(figures)
}

pub(crate) async fn rest(world: &World<'_>) -> Result<Figures, Fault> {
    // iroh keeps the state of a remote for 60 s.
    let after = world.pick(Duration::from_secs(70), SOON);
    let evidence = flood(world, Attack::Idle, after).await?;
    let mut figures = Figures::default();
    let attempts = evidence.attacker.tally.attempted.max(1) as f64;
    figures.add("P18-left", heap(evidence.heap.left_at_last().map(|left| left / attempts)));
    Ok(figures)
}

fn heap(bytes: Option<f64>) -> Result<Reading, String> {
    bytes.map(Reading::Is).ok_or_else(|| "it tells no heap_bytes; build it with its counted heap".into())
}

/// The peak and the delays are known by then: the least that a course of the verb `flood` watches.
const SOON: Duration = Duration::from_secs(12);

async fn flood(world: &World<'_>, kind: Attack, after: Duration) -> Result<Evidence, Fault> {
    let phases = Phases { before: world.seconds(8, 2), hold: world.seconds(12, 1), after };
    let count = world.pick(2000, 100);
    // Both subjects understand the arguments of `perennial up`, so both are started as ours is.
    let flood = Flood { kind: Some(kind), count, per_second: None, subject: Software::Ours };
    let record = course::run(&programs(world), flood, phases, world.directory()).await;
    let record = record.map_err(|error| format!("{error:#}"))?;
    if let Some(how) = &record.ended {
        return Err(format!("the flooded node ended: {how}"));
    }
    Ok(evidence((flood.kind, flood.count, flood.subject), record, None))
}
