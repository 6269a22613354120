//! What travels in builds for soaks: memory given back, one loop broken. Plain values only. `[pure]`

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `fault`: one loop, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct FaultPlan {
    /// `acceptor`, `clock`, `peers`, `peer`, `connection`, `dial`, `handshake`, `topics`, `topic` or `approval`.
    #[serde(rename = "loop")]
    pub(crate) at: String,
    /// `panic`, `error`, or `hang`: it stops turning, for a minute at most.
    pub(crate) kind: String,
    /// Only the loop that deals with this node.
    #[serde(default)]
    pub(crate) peer: Option<String>,
}

/// The loop has been struck.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Struck {
    pub(crate) v: u8,
    #[serde(rename = "loop")]
    pub(crate) at: String,
    pub(crate) kind: String,
    pub(crate) peer: Option<String>,
}

/// `trim`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Trimmed {
    pub(crate) v: u8,
    /// Whether there was anything to give back.
    pub(crate) released: bool,
    /// Resident memory afterwards.
    pub(crate) rss_bytes: Option<u64>,
}
