//! Perennial: supervised gossip-mesh actors on iroh. It speaks the wire protocol of stock iroh-gossip and leaves nothing
//! behind.
//!
//! One sentence carries the crate: *a connection task lives exactly as long as somebody holds a lease on its peer, and
//! the node can prove it at any moment.*
//!
//! # Reading order
//!
//! [`limits`] (every bound and where its number comes from), [`ledger`] (who was started, who has ended), `lease` (what
//! keeps a connection alive), `connection` (one loop per QUIC connection), `topic` (one loop per topic, thinking in
//! `topic/state`), `peer` (one supervisor per remote, thinking in `peer/state`), `peers`, `topics`, [`mesh`].
//! Files marked `[pure]` touch no clock, no network and no global randomness.
//!
//! # What it tells
//!
//! By [`tracing`], under targets that begin with `perennial`: what happens as events, and one span for each operation
//! (`dial`, `handshake`, `join`, `publish`, `drain`) with its `outcome`. No span lives longer than its operation, so it is
//! safe to collect them; those of the libraries underneath do. Changes of state have the target `perennial::state`.

mod acceptor;
pub mod access;
mod address_book;
mod admission;
mod backends;
mod backoff;
mod breaker;
pub mod census;
pub mod close;
pub mod config;
mod connection;
mod context;
mod counters;
mod dialer;
pub mod error;
pub mod handle;
mod handshake;
pub mod histogram;
mod history;
mod lease;
pub mod ledger;
pub mod limits;
mod listeners;
pub mod lives;
pub mod mesh;
pub mod meters;
pub mod mishaps;
mod operation;
mod pace;
mod peer;
mod peers;
mod pressure;
mod probe;
mod redial;
pub mod retirement;
mod routes;
pub mod stores;
mod subscribers;
mod supervisor;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(not(feature = "testing"))]
mod testing;
mod topic;
mod topics;
pub mod traffic;
pub mod vitals;
mod wire;

pub use access::{Access, Admission, AdmitAll, Standing};
pub use admission::usage::{LimitUse, ListenerUse};
pub use backends::{Backend, BackendKind};
pub use census::{BackendCensus, BackendState, Census};
pub use close::{Close, CloseCode};
pub use counters::{Counts, Reason, Stage};
pub use error::{JoinError, MeshGone, PublishError, SetLimitsError, SpawnError};
pub use handle::{DownReason, Enqueued, Event, Events, Message, Publisher, Receipt, TopicHandle};
pub use histogram::{Bucket, Histogram};
pub use history::{ClosedBy, ClosedConnection};
pub use iroh_gossip::proto::TopicId;
pub use ledger::{Kind, Ledger, LedgerReport};
pub use limits::Limits;
pub use listeners::Listen;
pub use mesh::{
    BackendAttempt, BackendGate, DrainReport, Ended, LimitsReport, Mesh, MeshBuilder, MeshMemory, TopicMemory,
};
pub use meters::Measured;
pub use mishaps::Loop;
pub use probe::{ProbeError, ProbeReport, ProbeStage};
pub use retirement::{Departure, RetirementReport};
pub use stores::StoreUse;
pub use traffic::Traffic;
pub use vitals::Vitals;

/// The README's example, compiled and run as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
