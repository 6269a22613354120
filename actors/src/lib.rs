//! Perennial: supervised gossip-mesh actors on iroh.

#[allow(dead_code)]
mod address_book;
pub mod census;
pub mod config;
mod counters;
pub mod error;
pub mod handle;
pub mod ledger;
pub mod limits;
pub mod mesh;
#[allow(dead_code)]
mod wire;

pub use census::Census;
pub use counters::{Counts, Reason};
pub use error::{JoinError, MeshGone, PublishError, SpawnError};
pub use handle::{DownReason, Event, Events, Message, Publisher, Receipt, TopicHandle};
pub use iroh_gossip::proto::TopicId;
pub use ledger::{Kind, Ledger, LedgerReport};
pub use limits::Limits;
pub use mesh::{DrainReport, Ended, Mesh, MeshBuilder};
