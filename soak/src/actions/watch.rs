//! What is watched while strangers besiege the observer: messages between it and a neighbour, twenty a second and in both
//! directions, and its status.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use perennial_soak::stats::percentile;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Done;
use crate::{
    cluster::{Cluster, Fault},
    plan::OBSERVER,
    scenario::strangers::{HEAP, LATENCY, STATUS, UNANSWERED},
};

const EVERY: Duration = Duration::from_millis(50);

/// A probe arrives within this long of the last one, or never.
const LAST_PROBE: Duration = Duration::from_secs(5);

/// The p99 may double, or grow by this much where twice is less.
const SLACK_MS: f64 = 5.0;

/// A message on its way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    number: u32,
    to: usize,
    at: Instant,
}

/// One answer to `status`.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    took_ms: f64,
    heap_bytes: Option<u64>,
}

/// Watches until dropped.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    cluster: &'a Cluster,
    neighbor: usize,
    sent: RefCell<Vec<Sent>>,
    looks: RefCell<Vec<Look>>,
    half_open: Cell<u64>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let is_neighbor = |node: &usize| cluster.sees(OBSERVER, *node) && cluster.sees(*node, OBSERVER);
        let neighbor = (1..cluster.len()).find(is_neighbor).unwrap_or(1);
        Self { cluster, neighbor, sent: RefCell::default(), looks: RefCell::default(), half_open: Cell::new(0) }
    }

    /// Goes on until it is dropped, or one of the two takes no input any more.
    pub(super) async fn run(&self) -> Fault {
        tokio::select! {
            fault = self.publish() => fault,
            fault = self.look() => fault,
        }
    }

    /// As of the last look.
    pub(super) fn half_open(&self) -> u64 {
        self.half_open.get()
    }

    /// Whether there was a look that began after this.
    pub(super) fn looked_since(&self, since: Instant) -> bool {
        self.looks.borrow().last().is_some_and(|look| look.at > since)
    }

    /// Waits for the last probes, and reports what was seen from `attack` to `end` against what was seen before.
    pub(super) async fn report(&self, done: &mut Done, attack: Instant, end: Instant) {
        let arrived = |sent: &Sent| {
            let process = self.cluster.process(sent.to).ok()?;
            process.view().probes.get(&sent.number).copied()
        };
        let sent = self.sent.take();
        self.cluster.wait(Instant::now() + LAST_PROBE, |_| sent.iter().all(|sent| arrived(sent).is_some())).await;
        let unanswered = sent.iter().filter(|sent| arrived(sent).is_none()).count();
        let twice = sent.iter().filter(|sent| arrived(sent).is_some_and(|arrival| arrival.copies > 1)).count();
        if twice > 0 {
            done.faults.push(format!("{twice} probes arrived twice in a siege"));
        }
        done.observed.push((UNANSWERED, unanswered as f64));
        let p99_ms = |from: Option<Instant>, until: Instant| {
            let phase = sent.iter().filter(|sent| from.is_none_or(|from| sent.at >= from) && sent.at < until);
            let took =
                phase.filter_map(|sent| Some(arrived(sent)?.first.saturating_duration_since(sent.at.into_std())));
            percentile(&took.map(|took| took.as_secs_f64() * 1e3).collect::<Vec<_>>(), 99.0)
        };
        if let Some((before, during)) = p99_ms(None, attack).zip(p99_ms(Some(attack), end)) {
            done.observed.push(("p99 to a neighbour before ms", before));
            done.observed.push(("p99 to a neighbour in the siege ms", during));
            done.observed.push((LATENCY, 100.0 * during / (2.0 * before).max(before + SLACK_MS)));
        }
        self.report_looks(done, attack, end);
        let numbers: Vec<u32> = sent.iter().map(|sent| sent.number).collect();
        self.cluster.forget_probes(&numbers);
    }

    fn report_looks(&self, done: &mut Done, attack: Instant, end: Instant) {
        let looks = self.looks.borrow();
        let in_siege = || looks.iter().filter(|look| look.at >= attack && look.at < end);
        if let Some(p99_ms) = percentile(&in_siege().map(|look| look.took_ms).collect::<Vec<_>>(), 99.0) {
            done.observed.push((STATUS, p99_ms));
        }
        let before = looks.iter().filter(|look| look.at < attack).filter_map(|look| look.heap_bytes).next_back();
        if let Some((before, peak)) = before.zip(in_siege().filter_map(|look| look.heap_bytes).max()) {
            done.observed.push((HEAP, peak.saturating_sub(before) as f64 / 1e6));
        }
    }

    async fn publish(&self) -> Fault {
        let mut ticks = interval(EVERY);
        // A harness that was held up does not make up for it with a burst.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for turn in 0_u64.. {
            ticks.tick().await;
            let (from, to) = if turn % 2 == 0 { (OBSERVER, self.neighbor) } else { (self.neighbor, OBSERVER) };
            match self.cluster.publish_numbered(from).await {
                Ok((number, at)) => self.sent.borrow_mut().push(Sent { number, to, at }),
                Err(fault) => return fault,
            }
        }
        unreachable!("a siege is over before numbers run out")
    }

    async fn look(&self) -> Fault {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let at = Instant::now();
            let status = match self.cluster.ask(OBSERVER, json!({"request": "status"})).await {
                Ok(status) => status,
                Err(fault) => return fault,
            };
            let took_ms = super::elapsed_ms(at);
            self.half_open.set(status["half_open"].as_u64().unwrap_or(0));
            let heap_bytes = status["heap_bytes"].as_u64();
            self.looks.borrow_mut().push(Look { at, took_ms, heap_bytes });
        }
    }
}
