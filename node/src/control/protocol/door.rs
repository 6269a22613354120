//! What travels about limits, standings and connections. Plain values only. `[pure]`

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ConnectionView;

/// `limits` and `limits set`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LimitsView {
    pub(crate) v: u8,
    /// `calm`, `tight` or `critical`.
    pub(crate) pressure: String,
    pub(crate) limits: Vec<LimitView>,
    /// The relays last.
    pub(crate) listeners: Vec<ListenerView>,
    /// What the door refused, put off or closed, by reason. Zeros included.
    pub(crate) refusals: BTreeMap<String, u64>,
    /// Who may ask the node at one time: its control socket, and its HTTP address if there is one.
    #[serde(default)]
    pub(crate) clients: Vec<ClientsView>,
}

/// To change limits: all that are named, or none.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetLimits {
    /// Limits by name, with their new values.
    pub(crate) changes: BTreeMap<String, u64>,
    /// Close connections of unknown nodes that are over a lowered cap.
    #[serde(default)]
    pub(crate) evict: bool,
}

/// One limit and its use.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LimitView {
    pub(crate) name: String,
    pub(crate) max: u64,
    pub(crate) in_use: u64,
    /// Null where nobody takes it.
    pub(crate) high_water: Option<u64>,
}

/// One listener.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ListenerView {
    /// The address as it was given, or `relays`.
    pub(crate) name: String,
    pub(crate) max: u64,
    pub(crate) in_use: u64,
    pub(crate) high_water: u64,
    /// Whether an unknown remote would find a slot.
    pub(crate) accepting: bool,
    /// How often it went from full to below full.
    pub(crate) resumed: u64,
}

/// One listener of the control API.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ClientsView {
    /// `control` or `http`.
    pub(crate) name: String,
    pub(crate) max: u64,
    pub(crate) in_use: u64,
    pub(crate) high_water: u64,
    /// Since the start.
    pub(crate) accepted: u64,
    /// How often it went from full to below full.
    pub(crate) resumed: u64,
    /// Whether the next client has to wait until one leaves.
    pub(crate) at_capacity: bool,
}

/// To `allow`, `deny` or `forget` a node.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StandingOrder {
    /// An id, a ticket, or ID@IP:PORT.
    pub(crate) peer: String,
}

/// `allow`, `deny` and `forget`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct StandingChanged {
    pub(crate) v: u8,
    pub(crate) id: String,
    /// `known`, `unknown` or `denied`.
    pub(crate) before: String,
    pub(crate) standing: String,
}

/// Which connections to tell, in which order.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConnectionsQuery {
    /// Those that ended instead of those that live.
    pub(crate) closed: bool,
    /// The most of this first: `age`, `bytes`, or of live ones `rtt` or `queue`.
    pub(crate) sort: Option<String>,
    /// At most so many.
    pub(crate) limit: Option<usize>,
}

/// `connections`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Connections {
    pub(crate) v: u8,
    pub(crate) connections: Vec<LiveView>,
    /// The connections that live although they are to end, the longest first, and after them those whose remote is in no
    /// active view; at most eight. The tasks themselves tell, so one that no supervisor knows of stands here too.
    #[serde(default)]
    pub(crate) lingering: Vec<LingeringView>,
}

/// Whichever was asked for.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum AnyConnections {
    /// Without `closed`.
    Live(Connections),
    /// With `closed=true`.
    Closed(ClosedConnections),
}

/// One connection that should not be there for long.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LingeringView {
    pub(crate) number: u64,
    pub(crate) peer: String,
    /// `open`, or the step towards its end that it is at.
    pub(crate) phase: String,
    /// How it came to be about to end: `let-go`, `ordered` or `ended`; null if it is not.
    pub(crate) departure: Option<String>,
    pub(crate) departed_s: Option<f64>,
    /// Seconds since its remote has been in no active view; null if it is in one.
    pub(crate) outside_view_s: Option<f64>,
}

/// One live connection and its remote.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct LiveView {
    pub(crate) peer: String,
    /// `known`, `unknown` or `denied`.
    pub(crate) standing: String,
    #[serde(flatten)]
    pub(crate) connection: ConnectionView,
}

/// `connections --closed`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ClosedConnections {
    pub(crate) v: u8,
    /// All that ended since the start; the list holds the last of them.
    pub(crate) total: u64,
    /// The newest first.
    pub(crate) connections: Vec<ClosedView>,
}

/// One connection that ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ClosedView {
    pub(crate) number: u64,
    pub(crate) peer: String,
    /// `dialed` or `accepted`.
    pub(crate) side: String,
    /// `us`, `remote` or `lost`.
    pub(crate) closed_by: String,
    pub(crate) cause: String,
    /// The close code on the wire; null if there was none.
    pub(crate) code: Option<u64>,
    pub(crate) detail: String,
    pub(crate) age_s: f64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) ended_s_ago: f64,
}
