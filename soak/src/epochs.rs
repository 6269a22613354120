//! The epoch runner: storm, calm, barrier, and again; every node is looked at, and what it tells is recorded.
//!
//! Nothing is judged here but whether a barrier is drained, and that rule is the judge's own.

mod look;
mod progress;
mod talk;
mod untouched;

use std::{cell::Cell, time::Duration};

use n0_future::join_all;
use perennial_soak::{proc_figures, stats::percentile};
use tokio::time::Instant;

use self::{
    progress::Progress,
    talk::{Heard, Talk},
};
use crate::{
    actions::{self, Done},
    cluster::{Cluster, Fault, Probe},
    judge::counts::undrained,
    plan::{OBSERVER, Step, groups},
    run_format::{Barrier, Event, Happened, Harness, Look, Record},
    scenario::Scenario,
};

/// Every node is looked at this often during a storm.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks at a barrier are this far apart, and two in a row must be calm.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// A node that does not answer a look in time is halted or busy, and the others are not waited for because of it.
const LOOK_TIMEOUT: Duration = Duration::from_millis(900);

/// A node at a barrier has more time.
const BARRIER_LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Heap by which two looks at a calm observer may differ.
const CALM_HEAP: u64 = 4 << 10;

/// After a storm the overlay is waited for so long before the probes cross it.
const HEAL_TIMEOUT: Duration = Duration::from_secs(15);

/// What bounds a run besides its plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The run ends with the epoch in which it gets this old.
    pub max_time: Duration,
    /// Events a second at most.
    pub rate: Option<f64>,
    /// No line that moves.
    pub plain: bool,
}

/// A run in progress.
struct Epochs<'a> {
    record: &'a mut Record,
    cluster: &'a Cluster,
    begun: Instant,
    pace: Pace,
    /// Events done.
    events: Cell<u64>,
    epoch: u32,
    looked: Looked,
    /// The harness' own memory after the first judged barrier.
    rss_first: Option<u64>,
    progress: Progress,
}

/// What is known of an epoch before its barrier.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    is_deep: bool,
    heard: Heard,
    probes: &'a [Probe],
}

/// Looks of the storms so far, and how regular they were.
#[derive(Debug, Default)]
struct Looked {
    rows: Vec<Look>,
    gap_max: Duration,
}

/// Carries the plan of `record` out and fills in the rest of it. What goes wrong with the nodes is in the record; what was
/// recorded stays there when this future is dropped.
pub(crate) async fn run(record: &mut Record, cluster: &Cluster, pace: Pace) {
    let begun = Instant::now();
    let cpu_before = proc_figures::cpu_time(std::process::id());
    let progress = Progress::new(record, pace.plain);
    record.events = Some(Vec::new());
    record.looks = Some(Vec::new());
    let mut run = Epochs {
        record,
        cluster,
        begun,
        pace,
        events: Cell::new(0),
        epoch: 0,
        looked: Looked::default(),
        rss_first: None,
        progress,
    };
    if let Err(sentence) = run.all().await {
        run.happened(OBSERVER, Happened::Fault { sentence });
    }
    run.note_ended();
    run.progress.finish();
    let cpu = proc_figures::cpu_time(std::process::id()).zip(cpu_before);
    let cpu_share = cpu.map(|(now, before)| (now - before).as_secs_f64() / begun.elapsed().as_secs_f64());
    let (gap_max, rss_first_bytes) = (run.looked.gap_max, run.rss_first);
    record.info.harness = cpu_share.map(|cpu_share| Harness {
        look_interval_ms: LOOK_INTERVAL.as_millis() as u64,
        look_gap_max_ms: gap_max.as_millis() as u64,
        cpu_share,
        rss_first_bytes,
        rss_last_bytes: own_resident(),
    });
}

impl Epochs<'_> {
    async fn all(&mut self) -> Result<(), Fault> {
        self.progress.say("forming the mesh");
        let scenario = Scenario::named(&self.record.info.scenario);
        self.cluster.form_through(scenario.map_or(&[OBSERVER], |scenario| scenario.spec().through)).await?;
        let plan = self.record.plan.clone();
        for epoch in 1..=self.record.info.warm_up_epochs + self.record.info.epochs {
            self.epoch = epoch;
            let steps: Vec<Step> =
                plan.iter().filter(|step| step.epoch == epoch).map(|step| step.step.clone()).collect();
            self.epoch(&steps).await?;
            if self.begun.elapsed() > self.pace.max_time {
                let seconds = self.pace.max_time.as_secs();
                self.progress.print(&format!("stopped after epoch {epoch}: the run is older than {seconds} s"));
                break;
            }
        }
        Ok(())
    }

    async fn epoch(&mut self, steps: &[Step]) -> Result<(), Fault> {
        let foreign = self.record.info.foreign.clone();
        let talk = Talk::new(self.cluster, &foreign);
        let done = self.storm(steps, &talk).await;
        self.record.looks.get_or_insert_default().append(&mut self.looked.rows);
        done?;
        if let Some(node) = self.cluster.ended().first() {
            return Err(format!("node {node} ended by itself; {}", self.cluster.last_words(*node)));
        }
        let calm_since = Instant::now();
        self.progress.say("waiting for calm");
        self.cluster.heal_within(HEAL_TIMEOUT).await;
        let heard = talk.heard().await;
        let mut probes = Vec::new();
        for step in steps {
            if let Step::Probe { from, .. } = *step {
                probes.push(self.cluster.publish_probe(from).await?);
            }
        }
        let is_deep = steps.iter().any(Step::is_deep);
        self.barrier(calm_since, Found { is_deep, heard, probes: &probes }).await;
        Ok(())
    }

    /// The events of one epoch, group after group; meanwhile a look at every node each second, and talk.
    async fn storm(&mut self, steps: &[Step], talk: &Talk<'_>) -> Result<(), Fault> {
        let Self { record, cluster, begun, pace, events, epoch, looked, progress, .. } = self;
        let (begun, epoch, cluster) = (*begun, *epoch, *cluster);
        let looks = looks(cluster, Place { begun, epoch, events }, looked);
        let storm = async {
            let mut due = Instant::now();
            for group in groups(steps) {
                tokio::time::sleep_until(due).await;
                due += pace.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(group.len() as f64 / rate));
                progress.say(&group_name(group));
                let done = join_all(group.iter().map(|step| async move {
                    let since = Instant::now();
                    talk.begins(step);
                    let done = actions::carry_out(cluster, step).await;
                    talk.ends(step);
                    (done, since.elapsed())
                }));
                for ((done, took), step) in done.await.into_iter().zip(group) {
                    events.set(events.get() + step.weight());
                    progress.advance();
                    let at = Place { begun, epoch, events };
                    note(record.events.get_or_insert_default(), &at, done?, took);
                }
                if let Some(node) = cluster.ended().first() {
                    return Err(format!("node {node} ended by itself; {}", cluster.last_words(*node)));
                }
            }
            for step in steps {
                match step {
                    Step::Quiet { for_ms } => {
                        progress.say(&step.to_string());
                        tokio::time::sleep(Duration::from_millis(*for_ms)).await;
                    }
                    Step::Saturate { .. } => {
                        progress.say(&step.to_string());
                        let since = Instant::now();
                        let done = actions::carry_out(cluster, step).await?;
                        let at = Place { begun, epoch, events };
                        note(record.events.get_or_insert_default(), &at, done, since.elapsed());
                    }
                    // Events were carried out in their groups, and probes come after the calm.
                    _ => {}
                }
            }
            Ok(())
        };
        tokio::select! {
            // What is done comes first, and the look that was due is taken with the next storm.
            biased;
            outcome = storm => outcome,
            () = looks => Ok(()),
            () = talk.go_on() => Ok(()),
        }
    }

    /// Looks until two looks in a row find every node drained and the observer's heap at rest, and a third, with free memory
    /// given back, still does; or until the deadline passes.
    async fn barrier(&mut self, calm_since: Instant, found: Found<'_>) {
        let deadline = calm_since + Duration::from_millis(self.record.info.deadlines.barrier_ms);
        let mut calm_looks = 0;
        let mut heap_before = None;
        loop {
            let rows = self.rows().await;
            let heap = rows.get(OBSERVER).and_then(|row| row.heap_bytes);
            let at_rest = match (heap, heap_before) {
                (Some(heap), Some(before)) => u64::abs_diff(heap, before) < CALM_HEAP,
                (None, _) => true,
                (Some(_), None) => false,
            };
            heap_before = heap;
            calm_looks = if self.is_drained(&rows) && at_rest { calm_looks + 1 } else { 0 };
            if calm_looks >= 2 || Instant::now() >= deadline {
                let mut rows = self.rows_at_rest().await;
                let drained = self.is_drained(&rows);
                if let Some(row) = rows.get_mut(OBSERVER) {
                    look::caps(self.cluster, OBSERVER, row).await;
                }
                if drained || Instant::now() >= deadline {
                    return self.on_barrier(rows, drained, calm_since.elapsed(), found);
                }
                calm_looks = 0;
            }
            tokio::time::sleep(CALM_INTERVAL).await;
        }
    }

    fn on_barrier(&mut self, mut rows: Vec<Barrier>, drained: bool, waited: Duration, found: Found<'_>) {
        for row in &mut rows {
            row.drained = Some(drained);
            row.deep = found.is_deep.then_some(true);
            row.waited_ms = Some(waited.as_millis() as u64);
        }
        if let Some(row) = rows.get_mut(OBSERVER) {
            deliveries(row, found.probes);
            talked(row, found.heard);
            row.components = Some(if self.cluster.is_whole() { 1 } else { 2 });
        }
        if self.epoch == self.record.info.warm_up_epochs + 1 {
            self.rss_first = own_resident();
        }
        self.progress.barrier(self.begun.elapsed(), &rows, self.remotes());
        self.record.barriers.append(&mut rows);
    }

    fn is_drained(&self, rows: &[Barrier]) -> bool {
        let foreign = &self.record.info.foreign;
        let mut ours = rows.iter().filter(|row| !foreign.contains(&row.node));
        ours.all(|row| undrained(row, self.remotes()).is_none())
    }

    fn remotes(&self) -> u64 {
        self.cluster.len() as u64 - 1
    }

    /// What a barrier keeps: free memory has been given back.
    async fn rows_at_rest(&self) -> Vec<Barrier> {
        let at = Place { begun: self.begun, epoch: self.epoch, events: &self.events };
        let nodes = 0..self.cluster.len();
        placed(join_all(nodes.map(|node| look::at_rest(self.cluster, node, BARRIER_LOOK_TIMEOUT))).await, &at)
    }

    async fn rows(&self) -> Vec<Barrier> {
        let at = Place { begun: self.begun, epoch: self.epoch, events: &self.events };
        rows(self.cluster, &at, BARRIER_LOOK_TIMEOUT).await
    }

    fn happened(&mut self, node: usize, happened: Happened) {
        let at = Place { begun: self.begun, epoch: self.epoch, events: &self.events };
        self.record.events.get_or_insert_default().push(at.event(node, happened));
    }

    fn note_ended(&mut self) {
        for node in self.cluster.ended() {
            let how = self.cluster.last_words(node);
            self.happened(node, Happened::Exited { commanded: false, killed_by_machine: false, how });
        }
    }
}

/// Where in a run something was seen.
struct Place<'a> {
    begun: Instant,
    epoch: u32,
    events: &'a Cell<u64>,
}

impl Place<'_> {
    fn event(&self, node: usize, happened: Happened) -> Event {
        let at_ms = self.begun.elapsed().as_millis() as u64;
        Event { at_ms, epoch: self.epoch, node: node as u32, happened }
    }
}

fn note(events: &mut Vec<Event>, at: &Place<'_>, done: Done, took: Duration) {
    let Done { action, node, touching, observed, faults } = done;
    let took_ms = took.as_millis() as u64;
    events.push(at.event(node, Happened::Injected { action: action.into(), took_ms, touching }));
    let observed = observed.into_iter().map(|(figure, value)| Happened::Observed { figure: figure.into(), value });
    events.extend(observed.map(|happened| at.event(node, happened)));
    events.extend(faults.into_iter().map(|sentence| at.event(node, Happened::Fault { sentence })));
}

/// A look at every node, again and again. Never ends by itself.
async fn looks(cluster: &Cluster, at: Place<'_>, looked: &mut Looked) {
    let mut last = Instant::now();
    loop {
        tokio::time::sleep_until(last + LOOK_INTERVAL).await;
        looked.gap_max = looked.gap_max.max(last.elapsed());
        last = Instant::now();
        looked.rows.extend(rows(cluster, &at, LOOK_TIMEOUT).await.into_iter().map(looked_at));
    }
}

async fn rows(cluster: &Cluster, at: &Place<'_>, timeout: Duration) -> Vec<Barrier> {
    placed(join_all((0..cluster.len()).map(|node| look::at(cluster, node, timeout))).await, at)
}

fn placed(looks: Vec<Barrier>, at: &Place<'_>) -> Vec<Barrier> {
    let at_ms = at.begun.elapsed().as_millis() as u64;
    looks.into_iter().map(|row| Barrier { epoch: at.epoch, events: at.events.get(), at_ms, ..row }).collect()
}

fn looked_at(row: Barrier) -> Look {
    Look {
        at_ms: row.at_ms,
        epoch: row.epoch,
        node: row.node,
        events: row.events,
        connections: row.connections,
        tasks: row.tasks,
        heap_bytes: row.heap_bytes,
        rss_bytes: row.rss_bytes,
        fds: row.fds,
        threads: row.threads,
        connection: row.kinds.get("connection").copied(),
    }
}

fn group_name(group: &[Step]) -> String {
    let names: Vec<String> = group.iter().map(Step::to_string).collect();
    names.join(", ")
}

fn deliveries(row: &mut Barrier, probes: &[Probe]) {
    let latencies_ms: Vec<f64> = probes.iter().flat_map(|probe| probe.latencies_ms.iter().copied()).collect();
    row.deliveries = Some(probes.iter().map(|probe| probe.expected as u64).sum());
    row.missed = Some(probes.iter().map(|probe| probe.missed.len() as u64).sum());
    row.duplicates = Some(probes.iter().map(|probe| u64::from(probe.duplicates)).sum());
    row.latency_p50_ms = percentile(&latencies_ms, 50.0);
    row.latency_p99_ms = percentile(&latencies_ms, 99.0);
    row.latency_max_ms = latencies_ms.iter().copied().reduce(f64::max);
}

fn talked(row: &mut Barrier, heard: Heard) {
    (row.storm_pairs, row.storm_unheard) = (Some(heard.pairs), Some(heard.unheard));
    (row.storm_untouched, row.storm_missed) = (Some(heard.untouched), Some(heard.missed));
    row.storm_twice = Some(heard.twice);
}

fn own_resident() -> Option<u64> {
    proc_figures::resident(std::process::id()).map(|(now, _)| now)
}
