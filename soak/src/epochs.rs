//! The epoch runner: storm, calm, barrier, and again; every node is looked at, and what it tells is recorded.
//!
//! Nothing is judged here but whether a barrier is drained, and that rule is the judge's own.

mod look;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use n0_future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, Fault},
    judge::{Probe, counts::undrained},
    plan::{LANES, OBSERVER, Step},
    process::TOPIC,
    run_format::{Barrier, Event, Fact, Happened, Harness, Look, Record},
    socket,
};

/// Every node is looked at this often during a storm.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks at a barrier are this far apart, and two in a row must be calm.
const CALM_INTERVAL: Duration = Duration::from_secs(1);

/// Heap by which two looks at a calm observer may differ.
const CALM_HEAP: u64 = 4 << 10;

/// After a storm the overlay is waited for so long before the probes cross it.
const HEAL_TIMEOUT: Duration = Duration::from_secs(15);

/// A node that rejoined has a neighbour within this long. A twentieth of a second is usual.
const REJOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A run in progress.
struct Epochs<'a> {
    record: &'a mut Record,
    cluster: Cluster,
    begun: Instant,
    stop_at: Instant,
    looked: Instant,
    gap_max: Duration,
    events: u64,
    touching: u64,
    probes: u32,
    epoch: u32,
    nodes: usize,
    progress: ProgressBar,
}

/// Carries the plan of `record` out and fills in the rest of it. Every process is gone when this returns or is dropped.
pub(crate) async fn run(record: &mut Record, cluster: Cluster, max_time: Duration) {
    let begun = Instant::now();
    let cpu_before = perennial_soak::proc_figures::cpu_time(std::process::id());
    let nodes = record.info.nodes as usize;
    let progress = bar(record);
    record.events = Some(Vec::new());
    record.looks = Some(Vec::new());
    let mut run = Epochs {
        record,
        cluster,
        begun,
        stop_at: begun + max_time,
        looked: begun,
        gap_max: Duration::ZERO,
        events: 0,
        touching: 0,
        probes: 0,
        epoch: 0,
        nodes,
        progress,
    };
    if let Err(sentence) = run.all().await {
        run.happened(OBSERVER, Happened::Fault { sentence });
    }
    run.note_ended();
    run.progress.finish_and_clear();
    let cpu = perennial_soak::proc_figures::cpu_time(std::process::id()).zip(cpu_before);
    let cpu_share = cpu.map(|(now, before)| (now - before).as_secs_f64() / begun.elapsed().as_secs_f64());
    let resident = perennial_soak::proc_figures::resident(std::process::id());
    let (gap_max, touching) = (run.gap_max, run.touching);
    let info = &mut record.info;
    info.harness = cpu_share.map(|cpu_share| Harness {
        look_interval_ms: LOOK_INTERVAL.as_millis() as u64,
        look_gap_max_ms: gap_max.as_millis() as u64,
        cpu_share,
        rss_first_bytes: None,
        rss_last_bytes: resident.map(|(now, _)| now),
    });
    let planned = u64::from(info.epochs * info.events_per_epoch);
    // With a view of five among ten, half of the events hit a neighbour; a fifth is what a storm elsewhere would not.
    info.facts = vec![Fact {
        name: "an event's victim was a neighbour of the observer".into(),
        minimum: planned / 5,
        reached: Some(touching),
    }];
}

impl Epochs<'_> {
    async fn all(&mut self) -> Result<(), Fault> {
        self.cluster.form().await?;
        let mut plan = std::mem::take(&mut self.record.plan);
        let last = self.record.info.warm_up_epochs + self.record.info.epochs;
        let mut outcome = Ok(());
        for epoch in 1..=last {
            self.epoch = epoch;
            let steps: Vec<Step> =
                plan.iter().filter(|step| step.epoch == epoch).map(|step| step.step.clone()).collect();
            outcome = self.epoch(&steps).await;
            if outcome.is_err() || Instant::now() > self.stop_at {
                break;
            }
        }
        std::mem::swap(&mut self.record.plan, &mut plan);
        outcome
    }

    async fn epoch(&mut self, steps: &[Step]) -> Result<(), Fault> {
        self.looked = Instant::now();
        let turns: Vec<&Step> = steps.iter().filter(|step| !matches!(step, Step::Probe { .. })).collect();
        for lanes in turns.chunks(LANES) {
            self.storm(lanes).await?;
            self.progress.inc(lanes.len() as u64);
            self.look_if_due().await;
            if let Some(node) = self.cluster.ended().first() {
                return Err(format!("node {node} ended by itself; {}", self.cluster.last_words(*node)));
            }
        }
        let calm_since = Instant::now();
        self.cluster.heal_within(HEAL_TIMEOUT).await;
        let mut probes = Vec::new();
        for step in steps {
            if let Step::Probe { from, .. } = *step {
                self.probes += 1;
                probes.push(self.cluster.publish_probe(self.probes, from).await?);
            }
        }
        self.barrier(calm_since, &probes).await;
        Ok(())
    }

    /// The steps of one chunk at the same time. The plan sees to it that they do not need each other.
    async fn storm(&mut self, lanes: &[&Step]) -> Result<(), Fault> {
        let mut turns = Vec::new();
        for step in lanes {
            match **step {
                Step::Rotate { node, via, away_ms } => turns.push((node, via, Duration::from_millis(away_ms))),
                Step::Kill { node, via, away_ms, identity } => {
                    let (begun, touching) = (Instant::now(), self.cluster.observer_sees(node));
                    self.cluster.kill(node, via, Duration::from_millis(away_ms), identity).await?;
                    self.injected("kill", node, begun.elapsed(), touching);
                    self.look_if_due().await;
                }
                Step::Probe { .. } => {}
            }
        }
        let cluster = &self.cluster;
        let mut rotations = Box::pin(join_all(turns.iter().map(|(node, via, away)| async move {
            let (begun, touching) = (Instant::now(), cluster.observer_sees(*node));
            rotate(cluster, *node, *via, *away).await.map(|connected| (*node, begun.elapsed(), touching, connected))
        })));
        let (mut looked, mut gap_max, mut rows) = (self.looked, self.gap_max, Vec::new());
        let done = loop {
            tokio::select! {
                // What is done comes first, and the look that was due is taken with the next steps.
                biased;
                done = &mut rotations => break done,
                () = tokio::time::sleep_until(looked + LOOK_INTERVAL) => {
                    gap_max = gap_max.max(looked.elapsed());
                    looked = Instant::now();
                    rows.extend(self.rows().await);
                }
            }
        };
        drop(rotations);
        (self.looked, self.gap_max) = (looked, gap_max);
        self.record.looks.get_or_insert_default().extend(rows.into_iter().map(looked_at));
        let mut lonely = Vec::new();
        for done in done {
            let (node, took, touching, connected) = done?;
            self.injected("rotate", node, took, touching);
            lonely.extend((!connected).then_some(node));
        }
        for node in lonely {
            self.fetch_back(node).await?;
        }
        Ok(())
    }

    /// A node that found nobody is a fault, and the storm needs it all the same: it joins once more, through the observer.
    async fn fetch_back(&mut self, node: usize) -> Result<(), Fault> {
        let seconds = REJOIN_TIMEOUT.as_secs();
        let sentence = format!("node {node} had no neighbour {seconds} s after joining");
        self.happened(node, Happened::Fault { sentence });
        rotate(&self.cluster, node, OBSERVER, Duration::ZERO).await?;
        self.cluster.connected(node).await
    }

    fn injected(&mut self, action: &str, node: usize, took: Duration, touching: bool) {
        self.events += 1;
        if self.epoch > self.record.info.warm_up_epochs {
            self.touching += u64::from(touching);
        }
        let took_ms = took.as_millis() as u64;
        self.happened(node, Happened::Injected { action: action.into(), took_ms, touching });
    }

    /// Looks until two looks in a row find every node drained and the observer's heap at rest, or the deadline passes.
    async fn barrier(&mut self, calm_since: Instant, probes: &[Probe]) {
        let deadline = calm_since + Duration::from_millis(self.record.info.deadlines.barrier_ms);
        let mut calm_looks = 0;
        let mut heap_before = None;
        loop {
            let mut rows = self.rows().await;
            let heap = rows.get(OBSERVER).and_then(|row| row.heap_bytes);
            let at_rest = match (heap, heap_before) {
                (Some(heap), Some(before)) => u64::abs_diff(heap, before) < CALM_HEAP,
                (None, _) => true,
                (Some(_), None) => false,
            };
            heap_before = heap;
            let drained = rows.iter().all(|row| undrained(row, self.nodes as u64 - 1).is_none());
            calm_looks = if drained && at_rest { calm_looks + 1 } else { 0 };
            let late = Instant::now() >= deadline;
            if calm_looks >= 2 || late {
                let waited_ms = calm_since.elapsed().as_millis() as u64;
                for row in &mut rows {
                    row.drained = Some(drained);
                    row.waited_ms = Some(waited_ms);
                }
                if let Some(row) = rows.get_mut(OBSERVER) {
                    deliveries(row, probes);
                    row.components = Some(if self.cluster.heal_within(Duration::ZERO).await { 1 } else { 2 });
                }
                self.say(waited_ms, &rows);
                self.record.barriers.append(&mut rows);
                return;
            }
            tokio::time::sleep(CALM_INTERVAL).await;
        }
    }

    async fn rows(&self) -> Vec<Barrier> {
        let cluster = &self.cluster;
        let looks = join_all((0..self.nodes).map(|node| async move { look::at(cluster, node).await })).await;
        let at_ms = self.begun.elapsed().as_millis() as u64;
        let place = |row: Barrier| Barrier { epoch: self.epoch, events: self.events, at_ms, ..row };
        looks.into_iter().map(place).collect()
    }

    async fn look_if_due(&mut self) {
        if self.looked.elapsed() < LOOK_INTERVAL {
            return;
        }
        self.gap_max = self.gap_max.max(self.looked.elapsed());
        self.looked = Instant::now();
        let rows = self.rows().await;
        self.record.looks.get_or_insert_default().extend(rows.into_iter().map(looked_at));
    }

    fn happened(&mut self, node: usize, happened: Happened) {
        let at_ms = self.begun.elapsed().as_millis() as u64;
        let event = Event { at_ms, epoch: self.epoch, node: node as u32, happened };
        self.record.events.get_or_insert_default().push(event);
    }

    fn note_ended(&mut self) {
        for node in self.cluster.ended() {
            let how = self.cluster.last_words(node);
            self.happened(node, Happened::Exited { commanded: false, killed_by_machine: false, how });
        }
    }

    /// One line per barrier, on the terminal or in a log.
    fn say(&self, waited_ms: u64, rows: &[Barrier]) {
        let Some(row) = rows.get(OBSERVER) else { return };
        let cell = |figure: Option<u64>| figure.map_or("-".into(), |figure| figure.to_string());
        let heap = row.heap_bytes.map_or("-".into(), |bytes| format!("{:.2} MB", bytes as f64 / 1e6));
        let why = rows
            .iter()
            .find_map(|row| undrained(row, self.nodes as u64 - 1).map(|why| format!("; node {}: {why}", row.node)));
        self.progress.suspend(|| {
            eprintln!(
                "{:6.1} s  epoch {:2}  {:4} events  {} connections  {} neighbours  {} tasks  heap {heap}  calm after {:.1} s{}",
                self.begun.elapsed().as_secs_f64(),
                self.epoch,
                self.events,
                cell(row.connections),
                cell(row.neighbors),
                cell(row.tasks),
                waited_ms as f64 / 1e3,
                why.unwrap_or_default(),
            );
        });
    }
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

/// A node leaves the topic, stays away, and rejoins through another. Whether it had a neighbour in time.
async fn rotate(cluster: &Cluster, node: usize, via: usize, away: Duration) -> Result<bool, Fault> {
    let control = cluster.process(node)?.control.clone();
    let peer = cluster.address(via)?;
    let wrong = |error| format!("node {node}: {error}");
    socket::ask(&control, json!({"request": "leave", "topic": TOPIC})).await.map_err(wrong)?;
    // Neighbours it does not take back one by one are gone with the topic.
    cluster.process(node)?.view().neighbors.clear();
    tokio::time::sleep(away).await;
    socket::ask(&control, json!({"request": "join", "topic": TOPIC, "peers": [peer]})).await.map_err(wrong)?;
    Ok(cluster.connected_within(node, REJOIN_TIMEOUT).await)
}

fn deliveries(row: &mut Barrier, probes: &[Probe]) {
    let mut took_ms: Vec<f64> = probes.iter().map(|probe| probe.took_ms as f64).collect();
    took_ms.sort_by(f64::total_cmp);
    row.deliveries = Some(probes.iter().map(|probe| probe.expected as u64).sum());
    row.missed = Some(probes.iter().map(|probe| probe.missed.len() as u64).sum());
    row.duplicates = Some(probes.iter().map(|probe| u64::from(probe.duplicates)).sum());
    row.latency_p50_ms = took_ms.get(took_ms.len() / 2).copied();
    row.latency_max_ms = took_ms.last().copied();
}

fn bar(record: &Record) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} events  {elapsed}, {eta} left");
    let style = style.expect("the template is valid").progress_chars("=> ");
    let info = &record.info;
    let events = u64::from((info.warm_up_epochs + info.epochs) * info.events_per_epoch);
    ProgressBar::new(events).with_style(style).with_prefix(info.scenario.clone())
}

/// The header of a run that is about to begin.
pub(crate) fn machine(bin: &std::path::Path, load: Option<String>) -> BTreeMap<String, String> {
    let name = bin.file_name().map(|name| PathBuf::from(name).display().to_string()).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map(|cpus| cpus.to_string()).unwrap_or_default();
    let mut machine = BTreeMap::from([("binary".to_owned(), name), ("cpus".to_owned(), cpus)]);
    if let Ok(bytes) = std::fs::read(bin) {
        machine.insert("binary blake3".into(), blake3::hash(&bytes).to_hex()[..16].to_owned());
    }
    if let Ok(kernel) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        machine.insert("kernel".into(), kernel.trim().to_owned());
    }
    if let Some(load) = load {
        machine.insert("load before".into(), load);
    }
    machine
}
