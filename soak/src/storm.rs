//! One run: form the mesh, warm up, settle, storm by the plan, settle again, and gather the evidence.
//!
//! Nothing is judged here. What goes wrong with the nodes is a fault, what cannot be measured is a gap, and both end up
//! in the [`Evidence`].

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::{
    cluster::Cluster,
    judge::{Evidence, SPARE_CONNECTIONS, SPARE_TASKS, TASKS_PER_CONNECTION},
    plan::{Plan, Step},
    samples::{Phase, Sample},
};

/// The observer is looked at this often during the storm.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// Looks at the observer while it settles are this far apart.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a run may take and rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Quiet time before a settled sample is taken.
    pub rest: Duration,
    /// Time after it within which the observer must have settled; then it is judged as it stands.
    pub settle: Duration,
    /// The storm stops when the run is this old.
    pub max: Duration,
}

/// A run in progress.
#[derive(Debug)]
struct Storm<'a> {
    plan: &'a Plan,
    times: Times,
    cluster: Cluster,
    begun: Instant,
    sampled: Instant,
    progress: ProgressBar,
    samples: Vec<Sample>,
    evidence: Evidence,
}

/// Carries the plan out. The cluster, and with it every process, is gone when this returns or is dropped.
pub(crate) async fn run(plan: &Plan, cluster: Cluster, times: Times) -> (Evidence, Vec<Sample>) {
    let now = Instant::now();
    let evidence = Evidence::empty(plan);
    let mut storm =
        Storm { plan, times, cluster, begun: now, sampled: now, progress: bar(plan), samples: Vec::new(), evidence };
    if let Err(fault) = storm.all().await {
        storm.evidence.faults.push(fault);
    }
    storm.note_ended();
    storm.evidence.lagged = storm.cluster.lagged();
    let peak = storm.samples.iter().map(|sample| sample.status.connections).max();
    storm.evidence.connections_peak = peak.unwrap_or(0);
    storm.progress.finish_and_clear();
    (storm.evidence, storm.samples)
}

impl Storm<'_> {
    /// Ends early at the first fault of a node: what follows one is no evidence of anything else.
    async fn all(&mut self) -> Result<(), String> {
        self.say("forming the mesh");
        self.cluster.form().await?;
        self.say("warming up");
        for step in &self.plan.warm_up {
            self.step(step).await?;
        }
        self.evidence.before = self.settle(Phase::Before).await;
        if self.evidence.before.is_none() {
            return Ok(()); // Without a start there is nothing to compare with, and a gap says why.
        }
        self.say("storm");
        for step in &self.plan.storm {
            if self.begun.elapsed() > self.times.max {
                let minutes = self.times.max.as_secs() / 60;
                self.evidence.gaps.push(format!("the storm was stopped after {minutes} min"));
                break;
            }
            self.step(step).await?;
            self.sample_if_due().await;
        }
        let last_event = Instant::now();
        self.evidence.after = self.settle(Phase::After).await;
        self.evidence.settle_s = Some(last_event.elapsed().as_secs_f64());
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        let begun = Instant::now();
        match *step {
            Step::Rotate { node, via, away_ms } => {
                let touching = self.cluster.observer_sees(node);
                self.cluster.rotate(node, via, Duration::from_millis(away_ms)).await?;
                self.on_event(touching, begun.elapsed());
            }
            Step::Kill { node, via, away_ms, identity } => {
                let touching = self.cluster.observer_sees(node);
                self.cluster.kill(node, via, Duration::from_millis(away_ms), identity).await?;
                self.on_event(touching, begun.elapsed());
            }
            Step::Probe { number, from } => {
                self.progress.set_message(format!("probe {number}: waiting for a whole mesh"));
                let probe = self.cluster.probe(number, from).await?;
                self.evidence.probes.push(probe);
            }
        }
        match self.cluster.ended().first() {
            Some(node) => Err(format!("node {node} ended by itself; {}", self.cluster.last_words(*node))),
            None => Ok(()),
        }
    }

    fn on_event(&mut self, touching: bool, took: Duration) {
        if self.evidence.before.is_none() {
            return; // The warm-up's events come before the first judged sample and are not counted.
        }
        self.evidence.events_done += 1;
        self.evidence.events_touching += usize::from(touching);
        self.evidence.event_ms.push(took.as_millis() as u64);
        self.progress.inc(1);
    }

    /// Rests, then looks until two looks in a row find the observer calm. The last look either way.
    async fn settle(&mut self, phase: Phase) -> Option<Sample> {
        self.say(&format!("settling, at least {} s", self.times.rest.as_secs()));
        self.cluster.heal().await;
        tokio::time::sleep(self.times.rest).await;
        let deadline = Instant::now() + self.times.settle;
        let mut last = None;
        let mut calm_looks = 0;
        while calm_looks < 2 && Instant::now() < deadline {
            last = self.sample(phase, self.times.settle).await;
            calm_looks = if last.as_ref().is_some_and(|sample| self.is_calm(sample)) { calm_looks + 1 } else { 0 };
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        last
    }

    fn is_calm(&self, sample: &Sample) -> bool {
        let status = &sample.status;
        let tasks_back = self.evidence.before.as_ref().is_none_or(|before| {
            let more = status.connections.saturating_sub(before.status.connections);
            status.alive_tasks <= before.status.alive_tasks + SPARE_TASKS + TASKS_PER_CONNECTION * more
        });
        let connections = sample.ledger.connections_alive();
        sample.ledger.orphans == 0 && connections <= status.neighbors + SPARE_CONNECTIONS && tasks_back
    }

    async fn sample_if_due(&mut self) {
        if self.sampled.elapsed() >= SAMPLE_INTERVAL {
            self.sample(Phase::Storm, Duration::ZERO).await;
            let message = self.samples.last().map(|Sample { status, .. }| {
                format!("{} connections, {} tasks at the observer", status.connections, status.alive_tasks)
            });
            self.progress.set_message(message.unwrap_or_default());
        }
    }

    async fn sample(&mut self, phase: Phase, settle: Duration) -> Option<Sample> {
        self.sampled = Instant::now();
        match self.cluster.observe(settle).await {
            Ok((status, ledger)) => {
                let at_s = self.begun.elapsed().as_secs_f64();
                let events = self.evidence.events_done;
                self.samples.push(Sample { at_s, phase, events, status, ledger });
                self.samples.last().cloned()
            }
            Err(gap) => {
                if !self.evidence.gaps.contains(&gap) {
                    self.evidence.gaps.push(gap);
                }
                None
            }
        }
    }

    /// One part of the run begins. Without a terminal the progress line is hidden, so this is its only trace.
    fn say(&self, what: &str) {
        self.progress.set_message(what.to_owned());
        if self.progress.is_hidden() {
            eprintln!("{:6.1} s  {what}", self.begun.elapsed().as_secs_f64());
        }
    }

    fn note_ended(&mut self) {
        for node in self.cluster.ended() {
            let fault = format!("node {node} ended by itself; {}", self.cluster.last_words(node));
            if !self.evidence.faults.contains(&fault) {
                self.evidence.faults.push(fault);
            }
        }
    }
}

fn bar(plan: &Plan) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} events  {elapsed}  {msg}");
    let style = style.expect("the template is valid").progress_chars("=> ");
    let bar = ProgressBar::new(plan.events() as u64).with_style(style).with_prefix(plan.scenario.name());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
