//! The processes of one run: the mesh is formed, nodes leave, rejoin, die and return, and probes cross it.
//!
//! Each method does one thing to one node, or waits for one, and says what the nodes did wrong as a sentence. What makes a
//! fault of a scenario out of these is `actions/`; order and pace are `epochs.rs`. Every method takes `&self`, so that
//! several faults and the looks at the nodes go on side by side.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use perennial_soak::place::Place;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    books,
    plan::{Identity, OBSERVER},
    process::{Launch, Process, Seat, TOPIC},
    socket,
    view::{is_whole, probe_text},
};

/// A started node is ready within this long. Guess; 50 ms on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// After a disturbance the mesh is whole again within this long: the 30 s after which QUIC gives a dead side up, and
/// as much again for the overlay to be rewired.
pub(crate) const HEAL_TIMEOUT: Duration = Duration::from_secs(60);

/// A probe published in a whole mesh is everywhere within this long. A lost frame is repaired in well under a second.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a probe's late copies are waited for before they are counted.
const DUPLICATES_WAIT: Duration = Duration::from_millis(300);

/// A node that was told to stop has drained and ended within this long.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Something a node did wrong, in words.
pub(crate) type Fault = String;

/// One published message and where it arrived.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probe {
    /// Live nodes that had to receive it.
    pub expected: usize,
    /// Those that did not, in time.
    pub missed: Vec<usize>,
    /// Deliveries beyond the first, over all nodes.
    pub duplicates: u32,
    /// Milliseconds from its publication to each first delivery.
    pub latencies_ms: Vec<f64>,
}

/// All nodes of a run. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Where they run, and what can be done to it.
    pub place: Place,
    seats: Vec<Seat>,
    /// Sockets and keys.
    directory: PathBuf,
    logs: PathBuf,
    run: String,
    nodes: Mutex<Vec<Option<Arc<Process>>>>,
    changed: Arc<Notify>,
    probes: AtomicU64,
}

impl Cluster {
    /// A cluster without processes, one node per seat; sockets and keys go to `directory`, what the nodes log to `logs`.
    pub(crate) fn new(place: Place, seats: Vec<Seat>, directory: PathBuf, logs: PathBuf, run: String) -> Self {
        let nodes = Mutex::new(seats.iter().map(|_| None).collect());
        Self { place, seats, directory, logs, run, nodes, changed: Arc::default(), probes: AtomicU64::new(0) }
    }

    /// Nodes of the plan, whether they run or not.
    pub(crate) fn len(&self) -> usize {
        self.seats.len()
    }

    /// The name of the run, in every probe.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// What `node` is.
    pub(crate) fn seat(&self, node: usize) -> &Seat {
        &self.seats[node]
    }

    /// Whether a node is the program under test, as the observer is.
    pub(crate) fn is_ours(&self, node: usize) -> bool {
        self.seats[node].bin == self.seats[OBSERVER].bin
    }

    /// Starts every node, the observer first, and waits until they form one mesh.
    pub(crate) async fn form(&self) -> Result<(), Fault> {
        self.form_through(&[OBSERVER]).await
    }

    /// As [`Self::form`], and the others join through these, who are started first.
    pub(crate) async fn form_through(&self, first: &[usize]) -> Result<(), Fault> {
        for (started, node) in first.iter().enumerate() {
            self.start(*node, &first[..started], None).await?;
        }
        for node in (0..self.len()).filter(|node| !first.contains(node)) {
            self.start(node, first, None).await?;
        }
        if self.heal().await { Ok(()) } else { Err(format!("no whole mesh within {} s", HEAL_TIMEOUT.as_secs())) }
    }

    /// Asks a node over its control socket.
    pub(crate) async fn ask(&self, node: usize, request: Value) -> Result<Value, Fault> {
        let control = self.process(node)?.control.clone();
        socket::ask(&control, request).await.map_err(|error| format!("node {node}: {error}"))
    }

    /// One sample of a node's page of figures, labels included: `perennial_panic_total`.
    pub(crate) async fn figure(&self, node: usize, sample: &str) -> Result<f64, Fault> {
        let control = self.process(node)?.control.clone();
        let page = socket::figures(&control).await.map_err(|error| format!("node {node}: {error}"))?;
        books::figure(&page, sample).ok_or_else(|| format!("node {node} tells no `{sample}`"))
    }

    /// A node leaves the topic; its process lives on.
    pub(crate) async fn leave(&self, node: usize) -> Result<(), Fault> {
        self.ask(node, json!({"request": "leave", "topic": TOPIC})).await?;
        // Neighbours it does not take back one by one are gone with the topic.
        self.process(node)?.view().neighbors.clear();
        Ok(())
    }

    /// A node joins the topic through another.
    pub(crate) async fn join(&self, node: usize, via: usize) -> Result<(), Fault> {
        let peer = self.address(via)?;
        self.ask(node, json!({"request": "join", "topic": TOPIC, "peers": [peer]})).await.map(drop)
    }

    /// SIGKILL. Returns the address it listened on.
    pub(crate) async fn kill(&self, node: usize) -> Result<String, Fault> {
        let process = self.take(node)?;
        let listened = process.view().ready.as_ref().map(|ready| ready.listened.clone());
        process.kill().await.map_err(|error| format!("node {node}: {error:#}"))?;
        Ok(listened.unwrap_or_default())
    }

    /// A node is told to stop, drains and ends; an exit code other than 0 is its fault.
    pub(crate) async fn quit(&self, node: usize) -> Result<(), Fault> {
        self.ask(node, json!({"request": "stop"})).await?;
        let process = self.take(node)?;
        let status = process.ended_within(STOP_TIMEOUT).await.map_err(|error| format!("node {node}: {error:#}"))?;
        if status.success() { Ok(()) } else { Err(format!("node {node} was told to stop and ended with {status}")) }
    }

    /// Starts a node that does not run, as who it was or as somebody new, joining through `via` and the node after it.
    pub(crate) async fn respawn(
        &self,
        node: usize,
        via: usize,
        identity: Identity,
        listened: &str,
    ) -> Result<(), Fault> {
        if identity == Identity::Fresh {
            // Without its file the node draws a new key and stores it for a later return.
            let _ = std::fs::remove_file(self.key_file(node));
        }
        // Through two, as an operator would: nodes that live half a minute and know one other each fall into islands that
        // no protocol can join again, since nobody in one knows anybody alive in the other.
        let count = self.len();
        let is_there = |other: &usize| *other != node && *other != via && self.process(*other).is_ok();
        let second = (1..count).map(|step| (via + step) % count).find(is_there);
        let through: Vec<_> = [Some(via), second].into_iter().flatten().collect();
        let listen = (identity == Identity::SamePort).then_some(listened);
        self.start(node, &through, listen).await
    }

    /// Publishes a numbered message; the number, and when it was handed over.
    pub(crate) async fn publish_numbered(&self, from: usize) -> Result<(u32, Instant), Fault> {
        let number = self.probes.fetch_add(1, Ordering::Relaxed) as u32 + 1;
        let text = probe_text(number, &self.run);
        let publisher = self.process(from)?;
        let published = Instant::now();
        publisher.publish(&text).await.map_err(|error| format!("node {from} takes no input: {error:#}"))?;
        Ok((number, published))
    }

    /// Forgets that these messages ever arrived.
    pub(crate) fn forget_probes(&self, numbers: &[u32]) {
        for (_, process) in self.live() {
            let mut view = process.view();
            for number in numbers {
                view.probes.remove(number);
            }
        }
    }

    /// Publishes a numbered message now, and waits for it everywhere.
    pub(crate) async fn publish_probe(&self, from: usize) -> Result<Probe, Fault> {
        self.publish_probe_to(from, |_| true).await
    }

    /// As [`Self::publish_probe`], and only some nodes must hear it.
    pub(crate) async fn publish_probe_to(
        &self,
        from: usize,
        must_hear: impl Fn(usize) -> bool,
    ) -> Result<Probe, Fault> {
        // Who is away now need not hear it, and who comes later need not either.
        let others = self.live().into_iter().filter(|(node, _)| *node != from && must_hear(*node));
        let others: Vec<_> = others.collect();
        let (number, published) = self.publish_numbered(from).await?;
        let is_missing = |process: &Process| !process.view().probes.contains_key(&number);
        self.wait(published + PROBE_TIMEOUT, |_| others.iter().all(|(_, process)| !is_missing(process))).await;
        let missed = others.iter().filter(|(_, process)| is_missing(process)).map(|(node, _)| *node).collect();
        tokio::time::sleep(DUPLICATES_WAIT).await;
        let arrivals: Vec<_> =
            others.iter().filter_map(|(_, process)| process.view().probes.get(&number).copied()).collect();
        let latency_ms =
            |at: std::time::Instant| at.saturating_duration_since(published.into_std()).as_secs_f64() * 1e3;
        Ok(Probe {
            expected: others.len(),
            missed,
            duplicates: arrivals.iter().map(|arrival| arrival.copies - 1).sum(),
            latencies_ms: arrivals.iter().map(|arrival| latency_ms(arrival.first)).collect(),
        })
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
        self.live().into_iter().filter(|(_, process)| process.view().ended).map(|(node, _)| node).collect()
    }

    /// Neighbourhoods that both ends announce, by node.
    pub(crate) fn edges(&self) -> Vec<Vec<usize>> {
        let mut ids = vec![None; self.len()];
        let mut views = vec![BTreeSet::new(); self.len()];
        for (node, process) in self.live() {
            let view = process.view();
            (ids[node], views[node]) = (view.ready.as_ref().map(|ready| ready.id.clone()), view.neighbors.clone());
        }
        let sees = |from: usize, node: usize| ids[node].as_ref().is_some_and(|id| views[from].contains(id));
        let both = |from: usize| (0..self.len()).filter(|node| sees(from, *node) && sees(*node, from)).collect();
        (0..self.len()).map(both).collect()
    }

    /// Whether one node counts another among its neighbours.
    pub(crate) fn sees(&self, from: usize, node: usize) -> bool {
        let (Ok(from), Ok(node)) = (self.process(from), self.process(node)) else { return false };
        let id = node.view().ready.as_ref().map(|ready| ready.id.clone());
        id.is_some_and(|id| from.view().neighbors.contains(&id))
    }

    /// Starts a node and waits until it is ready.
    async fn start(&self, node: usize, via: &[usize], listen: Option<&str>) -> Result<(), Fault> {
        let join = via.iter().map(|via| self.address(*via)).collect::<Result<Vec<_>, _>>()?;
        let process = Process::start(Launch {
            place: &self.place,
            node,
            seat: &self.seats[node],
            control: &self.directory.join(format!("n{node}.sock")),
            key_file: &self.key_file(node),
            log: &self.log(node),
            join: &join,
            listen,
            run: &self.run,
            changed: &self.changed,
        });
        let process = Arc::new(process.map_err(|error| format!("node {node}: {error:#}"))?);
        self.nodes()[node] = Some(process.clone());
        let is_up = |_: &Self| {
            let view = process.view();
            view.ready.is_some() || view.ended
        };
        self.wait(Instant::now() + READY_TIMEOUT, is_up).await;
        if process.view().ready.is_some() {
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
        let Ok(process) = self.process(node) else { return false };
        self.wait(Instant::now() + timeout, |_| !process.view().neighbors.is_empty()).await
    }

    /// Whether all live nodes form one mesh without dead neighbours.
    pub(crate) fn is_whole(&self) -> bool {
        let live = self.live();
        let views: Vec<_> = live.iter().map(|(_, process)| process.view()).collect();
        let known: Option<Vec<_>> =
            views.iter().map(|view| view.ready.as_ref().map(|ready| (ready.id.as_str(), &view.neighbors))).collect();
        known.is_some_and(|known| is_whole(&known))
    }

    /// Waits for a condition over the views; false when the deadline passes first.
    pub(crate) async fn wait(&self, deadline: Instant, mut holds: impl FnMut(&Self) -> bool) -> bool {
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
            .map(|ready| self.place.reached_at(node, &ready.address()))
            .ok_or_else(|| format!("node {node} is not ready"))
    }

    /// The id of a running node.
    pub(crate) fn id(&self, node: usize) -> Result<String, Fault> {
        let ready = self.process(node)?.view().ready.clone();
        ready.map(|ready| ready.id).ok_or_else(|| format!("node {node} is not ready"))
    }

    /// A running node.
    pub(crate) fn process(&self, node: usize) -> Result<Arc<Process>, Fault> {
        self.nodes()[node].clone().ok_or_else(|| format!("node {node} is not running"))
    }

    /// Every running node with its number.
    pub(crate) fn live(&self) -> Vec<(usize, Arc<Process>)> {
        let nodes = self.nodes();
        nodes.iter().enumerate().filter_map(|(node, process)| Some((node, process.clone()?))).collect()
    }

    /// The last line a node logged.
    pub(crate) fn last_words(&self, node: usize) -> String {
        let log = std::fs::read(self.log(node)).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        match text.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("its last words: {}", line.trim()),
            None => "it logged nothing".into(),
        }
    }

    fn take(&self, node: usize) -> Result<Arc<Process>, Fault> {
        self.nodes()[node].take().ok_or_else(|| format!("node {node} is not running"))
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Option<Arc<Process>>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key_file(&self, node: usize) -> PathBuf {
        self.directory.join(format!("n{node}.key"))
    }
}
