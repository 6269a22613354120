//! What stays of each identity that came and went: rounds of strangers against ours, stock, and a bare endpoint that
//! only accepts and closes, all in one run. The bare endpoint is the floor: what iroh itself keeps.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use perennial_soak::attack::{Kind, Tally};
use serde::Serialize;

use super::{
    attacker::Process,
    course::{newcomer_topic, probe_topic},
    sampler::Sampler,
    samples::{Sample, settled},
    victim::{Programs, Software, Victim},
};
use crate::judge::{Check, Outcome};

/// What ours may keep of an identity beyond what bare iroh keeps, in bytes, in the last round.
const OVER_BARE_MAX: f64 = 64.0;

/// One round against one software.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Round {
    pub subject: Software,
    pub number: usize,
    pub tally: Tally,
    /// Heap left by each identity that finished its handshake in this round.
    pub left_per_identity: Option<f64>,
    /// Tasks after the rest, less those before the first round.
    pub tasks_left: Option<f64>,
}

/// Runs `rounds` rounds of `count` identities against each of `subjects`, with `rest` of quiet after each: iroh keeps the
/// state of a remote for 60 s.
pub(crate) async fn run(
    programs: &Programs,
    subjects: &[Software],
    (rounds, count): (usize, usize),
    rest: Duration,
    directory: &Path,
) -> Result<Vec<Round>> {
    let epoch = Instant::now();
    let topics = [probe_topic(), newcomer_topic()];
    let mut victims = Vec::new();
    for subject in subjects {
        let victim = Victim::start(programs, *subject, directory, &topics, &[]).await?;
        let sampler = Sampler::begin(&victim, epoch).await?;
        victims.push((victim, sampler));
    }
    // The first looks show a start in progress.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let look = |sampler: &Sampler, figure: fn(&Sample) -> Option<f64>| {
        settled(&sampler.watched().samples, epoch.elapsed().as_secs_f64() - 1.0, figure)
    };
    let tasks_at_start: Vec<_> = victims.iter().map(|(_, sampler)| look(sampler, |sample| sample.tasks)).collect();
    let mut done = Vec::new();
    for number in 1..=rounds {
        let heap_before: Vec<_> =
            victims.iter().map(|(_, sampler)| look(sampler, |sample| sample.heap_bytes)).collect();
        let mut tallies = Vec::new();
        for (victim, _) in &victims {
            let what = (Kind::ComeAndGo, count, None);
            let mut attacker = Process::start(&programs.soak, what, victim.addr, probe_topic()).await?;
            attacker.go().await?;
            tallies.push(attacker.stop().await?.tally);
        }
        tokio::time::sleep(rest).await;
        for (at, (victim, sampler)) in victims.iter().enumerate() {
            let left = look(sampler, |sample| sample.heap_bytes).zip(heap_before[at]);
            let tasks = look(sampler, |sample| sample.tasks).zip(tasks_at_start[at]);
            let finished = tallies[at].finished.max(1) as f64;
            done.push(Round {
                subject: victim.software,
                number,
                tally: tallies[at],
                left_per_identity: left.map(|(after, before)| (after - before) / finished),
                tasks_left: tasks.map(|(after, before)| after - before),
            });
        }
    }
    Ok(done)
}

/// Judges ours against bare iroh in the last round.
pub(crate) fn judge(rounds: &[Round]) -> Check {
    const NAME: &str = "stays per identity";
    let last = |subject| rounds.iter().rfind(|round| round.subject == subject);
    let (Some(ours), Some(bare)) = (last(Software::Ours), last(Software::Bare)) else {
        return Check { name: NAME, outcome: Outcome::Unknown, detail: "ours or bare iroh was not run".into() };
    };
    let (Some(left), Some(floor)) = (ours.left_per_identity, bare.left_per_identity) else {
        return Check { name: NAME, outcome: Outcome::Unknown, detail: "the victim tells no heap".into() };
    };
    let limit = floor.max(0.0) + OVER_BARE_MAX;
    let detail = format!(
        "{left:.0} B of each of {} in round {}; bare iroh keeps {floor:.0}, at most {limit:.0}",
        ours.tally.finished, ours.number
    );
    // A victim that let nobody in has shown nothing about those it lets in.
    let outcome = if ours.tally.finished * 2 < ours.tally.attempted {
        Outcome::Unknown
    } else if left <= limit {
        Outcome::Pass
    } else {
        Outcome::Fail
    };
    Check { name: NAME, outcome, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(subject: Software, left: f64, finished: u64) -> Round {
        let tally = Tally { attempted: 1000, finished, ..Tally::default() };
        Round { subject, number: 3, tally, left_per_identity: Some(left), tasks_left: Some(0.0) }
    }

    #[test]
    fn ours_is_held_against_the_bare_endpoint_of_the_same_run() {
        let outcome = |ours, finished, bare| {
            judge(&[round(Software::Ours, ours, finished), round(Software::Bare, bare, 1000)]).outcome
        };
        assert_eq!(outcome(80.0, 1000, 26.0), Outcome::Pass);
        assert_eq!(outcome(4000.0, 1000, 26.0), Outcome::Fail);
        assert_eq!(outcome(30.0, 1000, -100.0), Outcome::Pass, "a floor below zero is noise");
        assert_eq!(outcome(0.0, 10, 26.0), Outcome::Unknown, "nobody was let in");
        assert_eq!(judge(&[round(Software::Ours, 0.0, 1000)]).outcome, Outcome::Unknown);
    }
}
