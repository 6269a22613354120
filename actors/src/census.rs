//! What a node is doing at this moment: the answer to a census, gathered by actor messages. Plain values, and the
//! collector that gathers them.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use iroh::{EndpointId, TransportAddr};
use iroh_gossip::proto::TopicId;
use tokio::sync::oneshot;

use crate::{
    backends::Backend,
    counters::Counts,
    ledger::{Kind, LedgerReport, Owned},
    lives::Phase,
    mishaps::Loop,
    retirement::Departure,
    stores::StoreUse,
    traffic::Traffic,
};

/// A node at one moment.
#[derive(Debug, Clone)]
pub struct Census {
    /// This node.
    pub id: EndpointId,
    /// The UDP sockets it listens on.
    pub listen: Vec<SocketAddr>,
    /// Time since the mesh was spawned.
    pub uptime: Duration,
    /// Every joined topic.
    pub topics: Vec<TopicCensus>,
    /// Every remote with a supervisor.
    pub peers: Vec<PeerCensus>,
    /// Connections held against the cap, half-open ones included.
    pub connections: usize,
    /// Handshakes and dials that have not finished.
    pub half_open: usize,
    /// The most connections held at one time since the start.
    pub connections_high_water: usize,
    /// The cap on connections in force.
    pub connection_cap: usize,
    /// Remotes in the address book.
    pub addresses: usize,
    /// Who waits to be dialed again, in numbers.
    pub redials: RedialCensus,
    /// What was refused, ignored, dropped and closed, by reason.
    pub counts: Counts,
    /// What its topics carried since the start.
    pub traffic: Traffic,
    /// The loops that ended other than in order, and how often. Those that did not are left out.
    pub crashes: Vec<(Loop, u64)>,
    /// The maps, queues and caches of the node, those of its topics not included.
    pub stores: Vec<StoreUse>,
    /// Spawned, finished, owned and orphans per kind of task.
    pub ledger: LedgerReport,
}

/// One joined topic.
#[derive(Debug, Clone)]
pub struct TopicCensus {
    /// The topic.
    pub topic: TopicId,
    /// The active view (HyParView): the remotes this topic gossips with.
    pub neighbors: Vec<EndpointId>,
    /// Remotes this topic has exchanged messages with and not parted from, neighbours included.
    pub contacts: usize,
    /// Frames waiting in the inbox.
    pub queued_frames: usize,
    /// Times this topic's loop was restarted.
    pub restarts: u32,
    /// Its maps, queues and caches, those of the protocol's state included.
    pub stores: Vec<StoreUse>,
}

/// One remote with a supervisor.
#[derive(Debug, Clone)]
pub struct PeerCensus {
    /// The remote.
    pub id: EndpointId,
    /// Its live connections, oldest first.
    pub connections: Vec<ConnectionCensus>,
    /// Whether an outgoing attempt is under way.
    pub dialing: bool,
    /// It is not dialed again before this long from now. `None`: it may be.
    pub waiting_until: Option<Duration>,
    /// Failed attempts in a row, and connections that did not live for [`crate::Limits::stable_after`].
    pub failures: u32,
}

/// The table of redials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RedialCensus {
    /// Remotes in it, at most [`crate::Limits::redials_max`].
    pub entries: usize,
    /// Whether this node's own network is taken to be out, because nobody answers any more.
    pub outage: bool,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendCensus {
    /// Which; its text is its stable name in reports.
    pub backend: Backend,
    /// Whether it is used.
    pub state: BackendState,
    /// How long it has been healthy, or has not been: a probe under way changes nothing here.
    pub since: Duration,
    /// Attempts in a row that failed, none of them more than [`crate::Limits::breaker_window`] after the last.
    pub failures: u32,
    /// Attempts that were not made because it was degraded, since the start.
    pub saved: u64,
    /// The one probe is made no sooner than this from now; `None` while there is nothing to probe, or a probe is under way.
    pub next_probe: Option<Duration>,
}

/// Whether a backend is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendState {
    /// As often as there is something to do.
    Healthy,
    /// Once, to learn whether it is back.
    Probing,
    /// Not until the next probe.
    Degraded,
}

impl BackendState {
    /// Every state.
    pub const ALL: [BackendState; 3] = [BackendState::Healthy, BackendState::Probing, BackendState::Degraded];

    /// The stable name in reports, metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            BackendState::Healthy => "healthy",
            BackendState::Probing => "probing",
            BackendState::Degraded => "degraded",
        }
    }
}

/// One live connection.
#[derive(Debug, Clone)]
pub struct ConnectionCensus {
    /// Number of this connection, unique within the mesh.
    pub number: u64,
    /// Which side dialed.
    pub side: Side,
    /// Whether the remote is a perennial node (`/perennial/1`) or speaks `/iroh-gossip/1` only.
    pub perennial: bool,
    /// Time since the handshake finished.
    pub age: Duration,
    /// Leases held on it.
    pub leases: usize,
    /// What its task is doing.
    pub phase: Phase,
    /// How it departed and how long ago, if it is to end.
    pub departed: Option<(Departure, Duration)>,
    /// Frames waiting to be written.
    pub queued_frames: usize,
    /// Bytes sent, over all paths; 0 once its task has let go of it.
    pub bytes_sent: u64,
    /// Bytes received, over all paths; 0 once its task has let go of it.
    pub bytes_received: u64,
    /// The address of the selected path.
    pub path: Option<TransportAddr>,
    /// The round-trip time of the selected path.
    pub rtt: Option<Duration>,
}

/// Which side dialed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// This node dialed.
    Dialed,
    /// The remote dialed.
    Accepted,
}

impl Census {
    /// Neighbours over all topics, each remote once.
    pub fn neighbors(&self) -> usize {
        let mut all: Vec<_> = self.topics.iter().flat_map(|topic| &topic.neighbors).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    }
}

/// One supervisor's part of a census.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) topics: Vec<TopicCensus>,
    pub(crate) peers: Vec<PeerCensus>,
    /// The most remotes that had a supervisor.
    pub(crate) peers_high_water: usize,
    pub(crate) owned: Owned,
}

/// Collects one answer from every remote's supervisor and replies when the last copy is dropped, so that one that dies
/// meanwhile cannot hold up the answer.
#[derive(Debug, Clone)]
pub(crate) struct CensusCollector {
    shared: Arc<Collected>,
}

#[derive(Debug)]
struct Collected {
    part: Mutex<Part>,
    reply: Mutex<Option<oneshot::Sender<Part>>>,
}

impl CensusCollector {
    pub(crate) fn new(part: Part, reply: oneshot::Sender<Part>) -> Self {
        Self { shared: Arc::new(Collected { part: Mutex::new(part), reply: Mutex::new(Some(reply)) }) }
    }

    pub(crate) fn add_peer(&self, census: PeerCensus, loops: usize, dials: usize) {
        let mut part = self.shared.part.lock().expect("no holder panics");
        part.owned.add(Kind::Connection, loops);
        part.owned.add(Kind::Dial, dials);
        part.peers.push(census);
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        let part = std::mem::take(self.part.get_mut().expect("no holder panics"));
        if let Some(reply) = self.reply.get_mut().expect("no holder panics").take() {
            // Whoever asked may have stopped waiting.
            let _asker_gone = reply.send(part);
        }
    }
}
