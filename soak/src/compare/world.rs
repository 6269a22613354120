//! What a measurement has at hand: one subject, a directory of its own, the seed of the pair, and looks at a node.
//!
//! Only what ours and stock tell alike is asked for, over the control socket. What is not told is an error that names it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use perennial_soak::place::Place;
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::row::Reading;
use crate::{
    cluster::{Cluster, Fault},
    plan::OBSERVER,
    process::Seat,
    run_format::Thresholds,
};

/// A node that rejoined has a neighbour within this long, or tries another way; a twentieth of a second is usual.
const REJOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks at a node that is settling are this far apart.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Heap by which two looks at a settled node may differ.
const SETTLED_HEAP: f64 = 4096.0;

/// A program that is measured.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub name: String,
    pub bin: PathBuf,
    /// Whether it can be told whom it knows.
    pub has_known: bool,
}

/// One measurement: a subject, a seed, a place for sockets and logs.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub subject: &'a Subject,
    /// This program, which can be an attacker.
    pub soak: PathBuf,
    /// The same for both sides of a pair.
    pub seed: u64,
    pub quick: bool,
    directory: TempDir,
}

/// What a measurement found, by row.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(&'static str, Result<Reading, String>)>);

impl Figures {
    /// A figure of row `id`.
    pub(crate) fn is(&mut self, id: &'static str, value: f64) {
        self.0.push((id, Ok(Reading::Is(value))));
    }

    /// A figure, an open end, or the reason why there is none.
    pub(crate) fn add(&mut self, id: &'static str, reading: Result<Reading, String>) {
        self.0.push((id, reading));
    }

    /// What was found for row `id`.
    pub(crate) fn of(&self, id: &str) -> Result<Reading, String> {
        let found = self.0.iter().find(|(row, _)| *row == id).map(|(_, reading)| reading.clone());
        found.unwrap_or_else(|| Err("was not told".into()))
    }
}

impl<'a> World<'a> {
    pub(crate) fn new(subject: &'a Subject, soak: PathBuf, seed: u64, quick: bool) -> Result<Self, Fault> {
        let directory = tempfile::tempdir().map_err(|error| format!("cannot make a temporary directory: {error}"))?;
        Ok(Self { subject, soak, seed, quick, directory })
    }

    /// The size of something: as the goals were set for, or quick.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// As [`Self::pick`], in seconds.
    pub(crate) fn seconds(&self, full: u64, quick: u64) -> Duration {
        Duration::from_secs(self.pick(full, quick))
    }

    /// Where the measurement may keep files.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// What chance decides in this pair.
    pub(crate) fn rng(&self) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(self.seed)
    }

    /// A mesh of `nodes`, formed. `name` keeps several of one measurement apart.
    pub(crate) async fn mesh(&self, name: &str, nodes: usize) -> Result<Cluster, Fault> {
        let directory = self.directory.path().join(name);
        let logs = directory.join("logs");
        std::fs::create_dir_all(&logs).map_err(|error| format!("cannot make {}: {error}", logs.display()))?;
        let seat = Seat { bin: self.subject.bin.clone(), ..Seat::default() };
        let cluster = Cluster::new(Place::loopback(), vec![seat; nodes], directory, logs, self.run());
        cluster.form().await?;
        Ok(cluster)
    }

    /// What probes of this measurement are called.
    pub(crate) fn run(&self) -> String {
        format!("seed {}", self.seed)
    }
}

/// A subject that died by itself has no figures.
pub(crate) fn alive(cluster: &Cluster) -> Result<(), Fault> {
    match cluster.ended().first() {
        Some(node) => Err(format!("node {node} ended by itself; {}", cluster.last_words(*node))),
        None => Ok(()),
    }
}

/// The `status` of a node.
pub(crate) async fn status(cluster: &Cluster, node: usize) -> Result<Value, Fault> {
    cluster.ask(node, json!({"request": "status"})).await
}

/// Heap of a node without that of `explained` of its connections, or of all it has where it has fewer: one neighbour more
/// at the second look than at the first is nothing that was left behind. What they cost differs between subjects by a tenth of
/// this, which is noise only where many come and go between the looks.
pub(crate) fn heap_beyond(status: &Value, explained: f64) -> Result<f64, String> {
    let each = Thresholds::default().heap_bytes_per_connection as f64;
    Ok(figure(status, "heap_bytes")? - each * figure(status, "connections")?.min(explained))
}

/// A number out of a status, or the length of a list.
pub(crate) fn figure(status: &Value, name: &str) -> Result<f64, String> {
    let value = &status[name];
    let found = value.as_f64().or_else(|| value.as_array().map(|list| list.len() as f64));
    found.ok_or_else(|| match name {
        "heap_bytes" => "it tells no heap_bytes; build it with its counted heap".into(),
        _ => format!("it tells no {name}"),
    })
}

/// Looks until two looks in a row find the same connections and a heap at rest, or until `within` is over; the last one.
pub(crate) async fn settled(cluster: &Cluster, node: usize, within: Duration) -> Result<Value, Fault> {
    let deadline = Instant::now() + within;
    let mut before: Option<(f64, f64)> = None;
    loop {
        let status = status(cluster, node).await?;
        let now = (figure(&status, "connections")?, figure(&status, "heap_bytes").unwrap_or(0.0));
        let is_settled = before.is_some_and(|before| before.0 == now.0 && (before.1 - now.1).abs() < SETTLED_HEAP);
        if is_settled || Instant::now() > deadline {
            return Ok(status);
        }
        before = Some(now);
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until a node has no connection; how long that took from `since`, looked at every twentieth of a second.
pub(crate) async fn retired(cluster: &Cluster, node: usize, since: Instant, limit: Duration) -> Result<Reading, Fault> {
    loop {
        let connections = figure(&status(cluster, node).await?, "connections")?;
        let took = since.elapsed();
        if connections == 0.0 {
            return Ok(Reading::Is(took.as_secs_f64()));
        }
        if took > limit {
            return Ok(Reading::AtLeast(limit.as_secs_f64()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Resident memory after the subject gave back what it does not use.
pub(crate) async fn trimmed_rss(cluster: &Cluster, node: usize) -> Result<f64, Fault> {
    let answer = cluster.ask(node, json!({"request": "trim"})).await?;
    if !answer["released"].is_boolean() {
        return Err("it tells no trim".into());
    }
    let pid = cluster.process(node)?.pid;
    let resident = perennial_soak::proc_figures::resident(pid).map(|(now, _)| now as f64);
    resident.ok_or_else(|| "the kernel tells no resident memory".into())
}

/// A node leaves the topic, stays away, and rejoins through another; if that one is alone itself, through the observer.
/// Whether it found a neighbour.
pub(crate) async fn rotate(cluster: &Cluster, node: usize, via: usize, away: Duration) -> Result<bool, Fault> {
    cluster.leave(node).await?;
    tokio::time::sleep(away).await;
    cluster.join(node, via).await?;
    if cluster.connected_within(node, REJOIN_TIMEOUT).await {
        return Ok(true);
    }
    cluster.leave(node).await?;
    cluster.join(node, OBSERVER).await?;
    Ok(cluster.connected_within(node, REJOIN_TIMEOUT).await)
}

/// Publishes text through one node, which may be several lines at once.
pub(crate) async fn publish(cluster: &Cluster, node: usize, text: &str) -> Result<(), Fault> {
    let published = cluster.process(node)?.publish(text).await;
    published.map_err(|error| format!("node {node} takes no input: {error:#}"))
}
