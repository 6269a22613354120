//! What happens to a node before its heap is looked at: the stages of a course, and how far it goes. `[pure]`
//!
//! One process runs one course, up to one stage, because a profiler cannot be started twice. Walking it is `walk.rs`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One course, as the process that walks it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Course {
    pub(crate) subject: Subject,
    pub(crate) until: Stage,
    pub(crate) peers: Peers,
    pub(crate) load: Load,
    pub(crate) trips: Trips,
    /// How long nothing happens in [`Stage::Rested`], [`Stage::Churned`] and [`Stage::Closed`].
    pub(crate) rest: Duration,
    /// Bytes left behind on purpose with every round trip, to see that they are found.
    pub(crate) planted_bytes: usize,
}

impl Course {
    /// Nobody comes and nothing is said.
    pub(crate) const ALONE: Self = Self {
        subject: Subject::Perennial,
        until: Stage::Fresh,
        peers: Peers::None,
        load: Load { messages: 0, pause: Duration::ZERO },
        trips: Trips { kind: TripKind::Stranger, count: 0 },
        rest: Duration::ZERO,
        planted_bytes: 0,
    };

    /// Whether any two runs come to the same heap, so that each of its buckets can be held against an earlier one. Of messages
    /// some may still be under way; tables keep the size they had when most connections were on their way out; and a node of
    /// a large mesh finds its neighbors by lot, with more or fewer connections.
    pub(crate) fn is_steady(&self) -> bool {
        let is_crowded = matches!(self.peers, Peers::Members(count) if count > NEIGHBORS_MAX);
        self.load.messages == 0 && self.trips.count == 0 && !is_crowded
    }
}

/// The active view (HyParView).
pub(crate) const NEIGHBORS_MAX: usize = 5;

/// What is profiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Subject {
    /// A node of this project.
    Perennial,
    /// Unmodified iroh-gossip.
    Stock,
    /// An iroh endpoint that accepts, and nothing else.
    Iroh,
}

/// Where a course may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// The node runs and is alone.
    Fresh,
    /// Everybody is connected, and no connection comes or goes.
    Joined,
    /// Everything has been said and heard.
    Loaded,
    /// What is kept for a time of what was said has been forgotten.
    Rested,
    /// The round trips are over.
    Churned,
    /// Everybody has gone.
    Closed,
}

/// Who is connected. They are in a process of their own, so that one node's heap is looked at and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Peers {
    None,
    /// Strangers that shake hands and say nothing.
    Silent(usize),
    /// Nodes that join the topic.
    Members(usize),
}

/// What is said: so many messages of [`MESSAGE_BYTES`], by the node and as many again by the first of its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    /// Between two messages.
    pub(crate) pause: Duration,
}

impl Load {
    /// So many of a peer's messages are enough: delivery is best effort, and a busy machine loses some.
    pub(crate) fn heard_min(self) -> usize {
        self.messages - self.messages / 10
    }
}

/// Content of one message.
pub(crate) const MESSAGE_BYTES: usize = 4000;

/// Who comes and goes, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trips {
    pub(crate) kind: TripKind,
    pub(crate) count: usize,
}

/// One round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum TripKind {
    /// The same stranger connects and leaves
    Stranger,
    /// A stranger nobody has seen before connects and leaves
    Fresh,
    /// Thirty-two strangers connect, stay until all of them are there, and leave
    House,
    /// A member leaves the topic and joins it again
    Member,
    /// The node dials somebody who does not answer, and gives up in the middle of the handshake
    HalfOpen,
}

/// Strangers of one [`TripKind::House`].
pub(crate) const HOUSE: usize = 32;

impl TripKind {
    /// Round trips before those that are counted: tables that keep the size they once had get it, and what is bounded is
    /// full. TLS keeps the last 256 sessions of a server, two of each connection; `node.rs` has the limits of ours.
    pub(crate) fn warm_up(self) -> usize {
        const CONNECTIONS: usize = 160;
        match self {
            TripKind::Stranger | TripKind::Fresh | TripKind::HalfOpen => CONNECTIONS,
            TripKind::House => CONNECTIONS / HOUSE,
            // Each of them opens a connection or none.
            TripKind::Member => 16,
        }
    }
}

/// No round trip begins sooner after the one before: how many connections are still on their way out decides how large
/// tables get, and must not depend on how busy the machine is.
pub(crate) const TRIP_INTERVAL: Duration = Duration::from_millis(60);

/// Remotes that are dialed in vain, in turn: the dial before is over when it is one's turn again.
pub(crate) const SILENT_REMOTES: usize = 16;
