//! The rooms that the scenarios in `mesh/` are played in: stock nodes, our nodes, raw peers, child processes and the
//! world that holds them and refuses to end while anything lives. No scenario and no assertion about the library is here.
//!
//! Read `world.rs` first. `stock.rs` and `ours.rs` offer the same verbs; what both hand out is a `topic.rs` handle.

pub mod child;
pub mod door;
pub mod frames;
pub mod guest;
pub mod ours;
pub mod raw;
pub mod relay;
pub mod stock;
pub mod topic;
pub mod wait;
pub mod world;

pub use child::Child;
pub use guest::Guest;
pub use ours::Ours;
pub use raw::Raw;
pub use relay::Relay;
pub use stock::Stock;
pub use topic::Topic;
pub use wait::{PATIENCE, eventually};
pub use world::World;

use iroh_gossip::proto::TopicId;

/// A topic of its own for every scenario, from a readable name.
pub fn topic_id(name: &str) -> TopicId {
    TopicId::from_bytes(*blake3::hash(name.as_bytes()).as_bytes())
}
