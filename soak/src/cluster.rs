//! The processes of one run: the mesh is formed, nodes leave, rejoin, die and return, and probes cross it.
//!
//! Each method does one step of a plan and says what the nodes did wrong, as a sentence. Order and pace are `storm.rs`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Result;
use perennial_soak::place::Place;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    control::Control,
    judge::Probe,
    plan::{Identity, OBSERVER},
    process::{Launch, Process},
    samples::{Ledger, Status},
    view::{is_whole, probe_text},
};

/// A started node is ready within this long. Guess; 50 ms on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// After a disturbance the mesh is whole again within this long: the 30 s after which QUIC gives a dead side up, and
/// as much again for the overlay to be rewired.
const HEAL_TIMEOUT: Duration = Duration::from_secs(60);

/// A probe published in a whole mesh is everywhere within this long. A lost frame is repaired in well under a second.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a probe's late copies are waited for before they are counted.
const DUPLICATES_WAIT: Duration = Duration::from_millis(300);

/// Something a node did wrong, in words.
pub(crate) type Fault = String;

/// All nodes of a run. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Where they run, and what can be done to it.
    pub place: Place,
    bin: PathBuf,
    directory: PathBuf,
    logs: PathBuf,
    run: String,
    control: Control,
    nodes: Vec<Option<Process>>,
    changed: Arc<Notify>,
    lagged: u64,
}

impl Cluster {
    /// A cluster without processes; sockets and keys go to `directory`, what the nodes log to `logs`.
    pub(crate) fn new(
        place: Place,
        bin: PathBuf,
        directory: PathBuf,
        logs: PathBuf,
        run: String,
        nodes: usize,
    ) -> Self {
        let control = Control::new(bin.clone());
        let nodes = (0..nodes).map(|_| None).collect();
        Self { place, bin, directory, logs, run, control, nodes, changed: Arc::default(), lagged: 0 }
    }

    /// Starts every node, the observer first, and waits until they form one mesh.
    pub(crate) async fn form(&mut self) -> Result<(), Fault> {
        for node in 0..self.nodes.len() {
            let via = if node == OBSERVER { &[][..] } else { &[OBSERVER] };
            self.start(node, via).await?;
        }
        if self.heal().await { Ok(()) } else { Err(format!("no whole mesh within {} s", HEAL_TIMEOUT.as_secs())) }
    }

    /// A node leaves the topic, stays away, and rejoins through another.
    pub(crate) async fn rotate(&mut self, node: usize, via: usize, away: Duration) -> Result<(), Fault> {
        let peer = self.address(via)?;
        let process = self.process(node)?;
        let socket = process.control.clone();
        self.control.leave(&socket).await.map_err(|error| format!("node {node}: {error}"))?;
        // Neighbours it does not take back one by one are gone with the topic.
        self.process(node)?.view().neighbors.clear();
        tokio::time::sleep(away).await;
        self.control.join(&socket, &peer).await.map_err(|error| format!("node {node}: {error}"))?;
        self.connected(node).await
    }

    /// A node is killed, stays away, and comes back through `via` and one more.
    pub(crate) async fn kill(
        &mut self,
        node: usize,
        via: usize,
        away: Duration,
        identity: Identity,
    ) -> Result<(), Fault> {
        let Some(process) = self.nodes[node].take() else { return Err(format!("node {node} is not running")) };
        self.lagged += process.view().lagged;
        process.kill().await.map_err(|error| format!("node {node}: {error:#}"))?;
        tokio::time::sleep(away).await;
        if identity == Identity::Fresh {
            // Without its file the node draws a new key and stores it for a later return.
            let _ = std::fs::remove_file(self.key_file(node));
        }
        // Through two, as an operator would: nodes that live half a minute and know one other each fall into islands that
        // no protocol can join again, since nobody in one knows anybody alive in the other.
        let count = self.nodes.len();
        let second = (1..count).map(|step| (via + step) % count).find(|other| *other != node && *other != via);
        let through: Vec<_> = [Some(via), second].into_iter().flatten().collect();
        self.start(node, &through).await?;
        self.connected(node).await
    }

    /// Publishes a numbered message into a mesh that is whole, and waits for it everywhere.
    pub(crate) async fn probe(&mut self, number: u32, from: usize) -> Result<Probe, Fault> {
        self.heal().await;
        self.publish_probe(number, from).await
    }

    /// Publishes a numbered message now, and waits for it everywhere.
    pub(crate) async fn publish_probe(&mut self, number: u32, from: usize) -> Result<Probe, Fault> {
        let whole = self.is_whole();
        let text = probe_text(number, &self.run);
        let Some(publisher) = self.nodes[from].as_mut() else { return Err(format!("node {from} is not running")) };
        let published = Instant::now();
        publisher.publish(&text).await.map_err(|error| format!("node {from} takes no input: {error:#}"))?;
        self.wait(published + PROBE_TIMEOUT, |cluster| cluster.missing(number, from).is_empty()).await;
        let took_ms = published.elapsed().as_millis() as u64;
        let missed = self.missing(number, from);
        tokio::time::sleep(DUPLICATES_WAIT).await;
        let copies = |process: &Process| process.view().probes.get(&number).copied().unwrap_or(0);
        let duplicates = self.others(from).map(|(_, process)| copies(process).saturating_sub(1)).sum();
        let expected = self.others(from).count();
        Ok(Probe { number, from, expected, missed, duplicates, whole, took_ms })
    }

    /// Waits until all live nodes form one mesh without dead neighbours; false when they do not in time.
    pub(crate) async fn heal(&self) -> bool {
        self.heal_within(HEAL_TIMEOUT).await
    }

    /// As [`Self::heal`], with a deadline of the caller's.
    pub(crate) async fn heal_within(&self, timeout: Duration) -> bool {
        self.wait(Instant::now() + timeout, Self::is_whole).await
    }

    /// Where a node's stderr goes.
    pub(crate) fn log(&self, node: usize) -> PathBuf {
        self.logs.join(format!("n{node}.log"))
    }

    /// Nodes that should run and do not.
    pub(crate) fn ended(&self) -> Vec<usize> {
        let ended = |(node, process): (usize, &Option<Process>)| {
            process.as_ref().is_some_and(|process| process.view().ended).then_some(node)
        };
        self.nodes.iter().enumerate().filter_map(ended).collect()
    }

    /// Whether the observer counts `node` among its neighbours.
    pub(crate) fn observer_sees(&self, node: usize) -> bool {
        let (Some(observer), Some(node)) = (&self.nodes[OBSERVER], &self.nodes[node]) else { return false };
        let id = node.view().ready.as_ref().map(|ready| ready.id.clone());
        id.is_some_and(|id| observer.view().neighbors.contains(&id))
    }

    /// Events that subscribers said they lost, over all nodes that ever ran.
    pub(crate) fn lagged(&self) -> u64 {
        self.lagged + self.nodes.iter().flatten().map(|process| process.view().lagged).sum::<u64>()
    }

    /// The observer's figures, its ledger settled for at most `settle`.
    pub(crate) async fn observe(&self, settle: Duration) -> Result<(Status, Ledger), String> {
        let socket = &self.process(OBSERVER)?.control;
        let ledger = self.control.ledger(socket, settle).await?;
        Ok((self.control.status(socket).await?, ledger))
    }

    async fn start(&mut self, node: usize, via: &[usize]) -> Result<(), Fault> {
        let join = via.iter().map(|via| self.address(*via)).collect::<Result<Vec<_>, _>>()?;
        let process = Process::start(Launch {
            place: &self.place,
            node,
            bin: &self.bin,
            control: &self.directory.join(format!("n{node}.sock")),
            key_file: &self.key_file(node),
            log: &self.logs.join(format!("n{node}.log")),
            join: &join,
            run: &self.run,
            changed: &self.changed,
        });
        self.nodes[node] = Some(process.map_err(|error| format!("node {node}: {error:#}"))?);
        let is_up = |cluster: &Self| {
            cluster.nodes[node].as_ref().is_none_or(|process| {
                let view = process.view();
                view.ready.is_some() || view.ended
            })
        };
        self.wait(Instant::now() + READY_TIMEOUT, is_up).await;
        if self.process(node)?.view().ready.is_some() {
            return Ok(());
        }
        Err(format!("node {node} was not ready within {} s; {}", READY_TIMEOUT.as_secs(), self.last_words(node)))
    }

    /// Waits until a node that has just joined has a neighbour.
    pub(crate) async fn connected(&self, node: usize) -> Result<(), Fault> {
        if self.connected_within(node, HEAL_TIMEOUT).await {
            return Ok(());
        }
        Err(format!("node {node} had no neighbour {} s after joining", HEAL_TIMEOUT.as_secs()))
    }

    /// As [`Self::connected`], with a deadline of the caller's and an answer in place of a fault.
    pub(crate) async fn connected_within(&self, node: usize, timeout: Duration) -> bool {
        let has_neighbor =
            |cluster: &Self| cluster.nodes[node].as_ref().is_some_and(|process| !process.view().neighbors.is_empty());
        self.wait(Instant::now() + timeout, has_neighbor).await
    }

    fn is_whole(&self) -> bool {
        let views: Vec<_> = self.nodes.iter().flatten().map(Process::view).collect();
        let live: Option<Vec<_>> =
            views.iter().map(|view| view.ready.as_ref().map(|ready| (ready.id.as_str(), &view.neighbors))).collect();
        live.is_some_and(|live| is_whole(&live))
    }

    fn missing(&self, number: u32, from: usize) -> Vec<usize> {
        let without =
            |(node, process): (usize, &Process)| (!process.view().probes.contains_key(&number)).then_some(node);
        self.others(from).filter_map(without).collect()
    }

    fn others(&self, from: usize) -> impl Iterator<Item = (usize, &Process)> {
        let live = self.nodes.iter().enumerate().filter_map(|(node, process)| Some((node, process.as_ref()?)));
        live.filter(move |(node, _)| *node != from)
    }

    /// Waits for a condition over the views; false when the deadline passes first.
    async fn wait(&self, deadline: Instant, mut holds: impl FnMut(&Self) -> bool) -> bool {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Enabled before the look, so that a change right after it is not missed.
            changed.as_mut().enable();
            if holds(self) {
                return true;
            }
            if timeout_at(deadline, changed).await.is_err() {
                return holds(self);
            }
        }
    }

    /// `ID@IP:PORT` of a node, where it is at this moment.
    pub(crate) fn address(&self, node: usize) -> Result<String, Fault> {
        let ready = self.process(node)?.view().ready.clone();
        ready
            .map(|ready| self.place.reached_at(node, &ready.address))
            .ok_or_else(|| format!("node {node} is not ready"))
    }

    /// A running node.
    pub(crate) fn process(&self, node: usize) -> Result<&Process, Fault> {
        self.nodes[node].as_ref().ok_or_else(|| format!("node {node} is not running"))
    }

    fn key_file(&self, node: usize) -> PathBuf {
        self.directory.join(format!("n{node}.key"))
    }

    /// The last line a node logged.
    pub(crate) fn last_words(&self, node: usize) -> String {
        let log = std::fs::read(self.logs.join(format!("n{node}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        match text.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("its last words: {}", line.trim()),
            None => "it logged nothing".into(),
        }
    }
}
