//! What travels between a node and those who ask it: bodies of requests and answers. Plain values only. `[pure]`
//!
//! Those about limits, standings and connections are in `protocol/door.rs`, about topics in `protocol/topics.rs`, about
//! whether all is well in `protocol/health.rs`, those of builds for soaks in `protocol/soak.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::topics::TopicView;
use crate::probe::ProbeView;

pub(crate) mod door;
pub(crate) mod health;
#[cfg(feature = "soak")]
pub(crate) mod soak;
pub(crate) mod topics;

/// Why there is no answer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ErrorAnswer {
    pub(crate) v: u8,
    pub(crate) error: ErrorView,
}

/// One error.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ErrorView {
    /// The exit code a command should end with.
    pub(crate) exit: u8,
    /// A sentence that says what is wrong, and where it can, what would be right.
    pub(crate) message: String,
}

/// `status`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Status {
    pub(crate) v: u8,
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) uptime_s: f64,
    pub(crate) listen: Vec<String>,
    pub(crate) topics: Vec<TopicView>,
    /// Neighbours over all topics, each remote once.
    pub(crate) neighbors: usize,
    pub(crate) connections: usize,
    pub(crate) connections_high_water: usize,
    pub(crate) half_open: usize,
    pub(crate) connection_cap: usize,
    /// Remotes with a supervisor, and how many of them are known.
    pub(crate) peers: usize,
    pub(crate) peers_known: usize,
    /// Remotes in the address book.
    pub(crate) addresses: usize,
    /// `calm`, `tight` or `critical`: how short the process is of memory and descriptors.
    pub(crate) pressure: String,
    pub(crate) orphans: u64,
    pub(crate) rss_bytes: Option<u64>,
    /// Null where the allocator does not tell.
    pub(crate) heap_bytes: Option<u64>,
    /// Live allocations. Null where the allocator does not tell.
    #[serde(default)]
    pub(crate) heap_blocks: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) alive_tasks: u64,
    /// Panics of this process, those that a supervisor caught included.
    #[serde(default)]
    pub(crate) panics: u64,
    /// Loops that ended other than in order, by name. Zeros are left out.
    #[serde(default)]
    pub(crate) crashes: BTreeMap<String, u64>,
    /// Backends that are not healthy, by name; `/v1/backends` has more.
    #[serde(default)]
    pub(crate) degraded: Vec<String>,
    /// What the node's probes of itself have come to.
    #[serde(default)]
    pub(crate) self_probe: Option<ProbeView>,
    /// Every map, queue and cache. Those of a topic have one line for each topic.
    #[serde(default)]
    pub(crate) stores: Vec<StoreView>,
    /// What was refused, ignored, dropped and closed, by reason. Zeros are left out.
    pub(crate) counts: BTreeMap<String, u64>,
    /// What its topics carried.
    #[serde(default)]
    pub(crate) traffic: TrafficView,
}

/// Messages, over all topics, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct TrafficView {
    /// By this node.
    pub(crate) published: u64,
    /// Of others, to this node.
    pub(crate) delivered: u64,
    /// Copies, own and forwarded ones, queued for neighbours.
    pub(crate) sent: u64,
}

/// One map, queue or cache.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct StoreView {
    pub(crate) name: String,
    /// Null where it belongs to the node.
    pub(crate) topic: Option<String>,
    /// Entries, or bytes where the name says so.
    pub(crate) size: u64,
    /// Null where only time, or the number of remotes, bounds it.
    pub(crate) cap: Option<u64>,
    /// Null where nobody notes it.
    pub(crate) high_water: Option<u64>,
}

/// `peers`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Peers {
    pub(crate) v: u8,
    pub(crate) peers: Vec<PeerView>,
}

/// One remote with a supervisor.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct PeerView {
    pub(crate) id: String,
    /// `known`, `unknown` or `denied`.
    pub(crate) standing: String,
    pub(crate) dialing: bool,
    /// Failed attempts in a row, and connections that did not last.
    #[serde(default)]
    pub(crate) failures: u32,
    /// It is not dialed before this many seconds from now.
    #[serde(default)]
    pub(crate) waiting_s: Option<f64>,
    /// The topics in whose active view it is.
    pub(crate) neighbor_in: Vec<String>,
    pub(crate) connections: Vec<ConnectionView>,
}

/// One live connection.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ConnectionView {
    pub(crate) number: u64,
    /// `dialed` or `accepted`.
    pub(crate) side: String,
    /// `perennial` or `iroh-gossip`.
    pub(crate) protocol: String,
    pub(crate) age_s: f64,
    pub(crate) leases: usize,
    pub(crate) queued_frames: usize,
    /// What its task is doing: `open`, or one of the steps towards its end.
    #[serde(default)]
    pub(crate) phase: String,
    /// Seconds since it has been to end; null while it is not.
    #[serde(default)]
    pub(crate) departed_s: Option<f64>,
    #[serde(default)]
    pub(crate) bytes_sent: u64,
    #[serde(default)]
    pub(crate) bytes_received: u64,
    pub(crate) path: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
}

/// `ledger`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LedgerView {
    pub(crate) v: u8,
    pub(crate) orphans: u64,
    pub(crate) kinds: Vec<KindView>,
    /// How long connections took to end once they were to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retirements: Option<RetirementsView>,
}

/// Connections that have ended: how long each took from its departure to the end of its task.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RetirementsView {
    pub(crate) retired: u64,
    /// Of these, how many took longer than the deadline of their departure.
    pub(crate) retired_late: u64,
    /// At most a quarter too long, as is p99.
    pub(crate) p50_ms: u64,
    pub(crate) p99_ms: u64,
    pub(crate) max_ms: u64,
    pub(crate) causes: Vec<RetirementCauseView>,
    pub(crate) slowest: Option<RetiredView>,
    /// The longest each departure may take, by the node's own timeouts: `let-go`, `ordered`, `ended`.
    pub(crate) deadlines_ms: BTreeMap<String, u64>,
}

/// The retirements of one cause.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RetirementCauseView {
    /// As in `connections --closed`.
    pub(crate) cause: String,
    pub(crate) retired: u64,
    pub(crate) retired_late: u64,
    pub(crate) max_ms: u64,
}

/// One retirement.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RetiredView {
    pub(crate) number: u64,
    pub(crate) peer: String,
    pub(crate) cause: String,
    pub(crate) departure: String,
    pub(crate) took_ms: u64,
}

/// One kind of task.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct KindView {
    pub(crate) kind: String,
    pub(crate) spawned: u64,
    pub(crate) finished: u64,
    pub(crate) owned: u64,
    pub(crate) orphans: i64,
}

/// `ticket`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct TicketView {
    pub(crate) v: u8,
    pub(crate) id: String,
    pub(crate) ticket: String,
}

/// `stop`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Stopping {
    pub(crate) v: u8,
    pub(crate) stopping: bool,
}
