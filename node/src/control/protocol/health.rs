//! What travels about whether all is well. Plain values only. `[pure]`

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `/healthz`: whether the process still does what it is there for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Health {
    pub(crate) v: u8,
    pub(crate) healthy: bool,
    /// Seconds since its main loop last turned; it turns once a second.
    pub(crate) turned_s_ago: f64,
}

/// `/readyz`: whether the node should be sent work.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Readiness {
    pub(crate) v: u8,
    /// Whether every check is.
    pub(crate) ready: bool,
    pub(crate) checks: Vec<Check>,
    /// Backends that are not healthy, by name. A node is ready without them.
    #[serde(default)]
    pub(crate) degraded: Vec<String>,
}

/// One condition of being ready.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Check {
    /// `accepting`, `self-probe`, `orphans` or `draining`.
    pub(crate) name: String,
    pub(crate) ok: bool,
    /// A sentence, good or bad.
    pub(crate) reason: String,
}

/// `drain`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Draining {
    pub(crate) v: u8,
    pub(crate) draining: bool,
}

/// `backends`: what the node depends on beyond its peers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Backends {
    pub(crate) v: u8,
    pub(crate) backends: Vec<BackendView>,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct BackendView {
    pub(crate) name: String,
    /// `healthy`, `probing` or `degraded`.
    pub(crate) state: String,
    /// Seconds it has been so.
    pub(crate) since_s: f64,
    /// Failures in a row.
    pub(crate) failures: u64,
    /// Attempts that were not made, because they would have failed.
    pub(crate) attempts_saved: u64,
    /// Seconds until it is tried again; null while it is healthy.
    pub(crate) next_probe_s: Option<f64>,
}
