//! The course of one flood: before, during, hold, a newcomer, rest, after. Records; judges nothing.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use iroh::{EndpointAddr, SecretKey};
use iroh_gossip::proto::TopicId;
use perennial_soak::attack::Kind;

use super::{
    attacker::Process,
    evidence::{REST_S, Record, Times},
    peer::{Peer, Prober},
    sampler::Sampler,
    victim::{Programs, Software, Victim},
};

/// The prober has a neighbour within this long, or the machine is too busy to measure anything.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between the prober's join and the undisturbed phase: views and trees settle.
const SETTLE: Duration = Duration::from_secs(1);

/// A quiet run has a pause where others have their attack.
const QUIET: Duration = Duration::from_secs(2);

/// A known peer knocks this long after the last attempt: strangers are inside by then.
const KNOCK_AFTER: Duration = Duration::from_secs(1);

/// A probe is answered within this long of the last one, or never.
const LAST_ECHO: Duration = Duration::from_secs(5);

/// How long each phase lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phases {
    pub before: Duration,
    pub hold: Duration,
    /// From the end of the flood to the end of the run.
    pub after: Duration,
}

/// What to do to whom; no kind is the quiet run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flood {
    pub kind: Option<Kind>,
    pub count: usize,
    pub per_second: Option<u32>,
    pub subject: Software,
}

/// The topic of the prober.
pub(crate) fn probe_topic() -> TopicId {
    TopicId::from_bytes(*blake3::hash(b"flood").as_bytes())
}

/// The topic of the newcomer: one of its own, so that no probe ever takes the way over it.
pub(crate) fn newcomer_topic() -> TopicId {
    TopicId::from_bytes(*blake3::hash(b"after the flood").as_bytes())
}

/// Runs one flood against a fresh victim.
pub(crate) async fn run(programs: &Programs, flood: Flood, phases: Phases, directory: &Path) -> Result<Record> {
    let (key, friend) = (SecretKey::generate(), SecretKey::generate());
    let known = [key.public(), friend.public()];
    let topics = [probe_topic(), newcomer_topic()];
    let mut victim = Victim::start(programs, flood.subject, directory, &topics, &known).await?;
    let attacker = match flood.kind {
        Some(kind) => {
            let what = (kind, flood.count, flood.per_second);
            Some(Process::start(&programs.soak, what, victim.addr, probe_topic()).await?)
        }
        None => None,
    };
    let epoch = Instant::now();
    let sampler = Sampler::begin(&victim, epoch).await?;
    let peer = Peer::bind(key).await?;
    let (joined, sender, events) = peer.join(probe_topic(), &victim.endpoint_addr(), JOIN_TIMEOUT).await?;
    joined.context("the prober got no neighbour before anything was attacked")?;
    let prober = Prober::begin(peer, sender, events, victim.id, epoch);

    let mut record = Record::default();
    let strain = strain(attacker, flood.kind, phases, (victim.endpoint_addr(), friend), epoch);
    match strain.await {
        Ok(strained) => record = strained,
        Err(error) => record.gaps.push(format!("{error:#}")),
    }
    record.probes = prober.finish(LAST_ECHO).await;
    let watched = sampler.watched().clone();
    record.samples = watched.samples;
    record.caps = watched.caps;
    record.counts = watched.counts;
    record.gaps.extend(watched.gaps);
    record.ended = victim.ended();
    Ok(record)
}

/// The phases one after the other; what they tell besides samples and probes.
async fn strain(
    mut attacker: Option<Process>,
    kind: Option<Kind>,
    phases: Phases,
    (victim, friend): (EndpointAddr, SecretKey),
    epoch: Instant,
) -> Result<Record> {
    let now_s = || epoch.elapsed().as_secs_f64();
    let until =
        |at_s: f64| tokio::time::sleep(Duration::from_secs_f64((at_s - epoch.elapsed().as_secs_f64()).max(0.0)));
    // Bound beforehand: their own start is not the victim's fault.
    let newcomer = Peer::bind(SecretKey::generate()).await?;
    let friend = Peer::bind(friend).await?;
    tokio::time::sleep(SETTLE).await;
    let mut times = Times { before_s: now_s(), ..Times::default() };
    tokio::time::sleep(phases.before).await;

    times.attack_s = now_s();
    match &mut attacker {
        Some(attacker) => attacker.go().await?,
        None => tokio::time::sleep(QUIET).await,
    }
    times.made_s = now_s();
    times.hold_end_s = times.made_s + phases.hold.as_secs_f64();
    let known_ms = if kind.is_some_and(Kind::stays) {
        tokio::time::sleep(KNOCK_AFTER).await;
        let known_ms = arrive(friend, &victim).await?;
        until(times.hold_end_s).await;
        known_ms
    } else {
        None
    };
    times.end_s = now_s();
    times.hold_end_s = times.hold_end_s.max(times.end_s);
    let ended = tokio::spawn(async move {
        match attacker {
            Some(attacker) => attacker.stop().await,
            None => Ok(super::evidence::Attacker::default()),
        }
    });
    let newcomer_ms = arrive(newcomer, &victim).await?;
    let attacker = ended.await??;
    let rest = Duration::from_secs_f64(REST_S + 2.0).max(phases.after);
    until((times.end_s + rest.as_secs_f64()).max(times.hold_end_s)).await;
    times.last_s = now_s();
    Ok(Record { times, attacker, known_ms, newcomer_ms, ..Record::default() })
}

/// A peer joins and leaves; milliseconds until it had a neighbour.
async fn arrive(newcomer: Peer, victim: &EndpointAddr) -> Result<Option<f64>> {
    let (took, sender, events) = newcomer.join(newcomer_topic(), victim, JOIN_TIMEOUT).await?;
    drop((sender, events));
    newcomer.leave().await;
    Ok(took.map(|took| took.as_secs_f64() * 1e3))
}
