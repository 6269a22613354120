//! What travels about topics: joining, publishing, listening. Plain values only. `[pure]`

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `topics`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Topics {
    pub(crate) v: u8,
    pub(crate) topics: Vec<TopicView>,
}

/// One joined topic.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicView {
    pub(crate) topic: String,
    pub(crate) name: Option<String>,
    pub(crate) neighbors: Vec<String>,
    pub(crate) contacts: usize,
    pub(crate) queued_frames: usize,
    pub(crate) restarts: u32,
}

/// To join a topic.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinOrder {
    /// Nodes to meet: tickets, or ID@IP:PORT[,IP:PORT].
    #[serde(default)]
    pub(crate) peers: Vec<String>,
}

/// `join` and `leave`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct TopicChanged {
    pub(crate) v: u8,
    pub(crate) topic: String,
    pub(crate) name: Option<String>,
    /// `joined`, `already-joined` or `left`.
    pub(crate) outcome: String,
}

/// What became of a published message.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Published {
    pub(crate) v: u8,
    pub(crate) topic: String,
    pub(crate) name: Option<String>,
    /// Bytes of content.
    pub(crate) bytes: usize,
    /// Neighbours at that moment. With 0 nobody heard it.
    pub(crate) neighbors: usize,
    /// Neighbours that had no room for it; they may still learn of it from others.
    pub(crate) no_room: usize,
    /// Whether the same content was published here within the last 90 s: nodes that remember it drop it.
    pub(crate) repeated: bool,
}
