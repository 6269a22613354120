//! What travels over the control socket: one JSON request per line, one JSON response per line. Plain values only. `[pure]`
//!
//! The answers about limits, standings and connections are in `protocol/door.rs`, those of builds for soaks in
//! `protocol/soak.rs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    exit::{Exit, Failure},
    lines::VERSION,
    probe::ProbeView,
};

pub(crate) mod door;
pub(crate) mod soak;

/// The longest request. A join with hundreds of tickets fits.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// A question or an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(crate) enum Request {
    Status,
    Peers,
    Ledger,
    Ticket,
    Join {
        topic: String,
        #[serde(default)]
        peers: Vec<String>,
    },
    Leave {
        topic: String,
    },
    Limits,
    SetLimits {
        changes: BTreeMap<String, u64>,
        #[serde(default)]
        evict: bool,
    },
    Allow {
        peer: String,
    },
    Deny {
        peer: String,
    },
    Forget {
        peer: String,
    },
    Connections,
    ClosedConnections,
    /// Give free memory back. Builds for soaks only.
    Trim,
    /// Break one loop. Builds for soaks only.
    Fault(soak::FaultPlan),
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
struct Versioned<T> {
    #[serde(default = "version")]
    v: u8,
    #[serde(flatten)]
    request: T,
}

fn version() -> u8 {
    VERSION
}

impl Request {
    pub(crate) fn to_line(&self) -> Vec<u8> {
        to_line(&Versioned { v: VERSION, request: self })
    }

    /// Reads a request. A version of the future is refused: half understood is worse than not at all.
    pub(crate) fn from_line(line: &[u8]) -> Result<Request, Failure> {
        let wrong = |sentence: String| Failure::new(Exit::Usage, sentence);
        let versioned: Versioned<Request> =
            serde_json::from_slice(line).map_err(|error| wrong(format!("not a request: {error}")))?;
        if versioned.v != VERSION {
            return Err(wrong(format!("request of version {}; this node speaks version {VERSION}", versioned.v)));
        }
        Ok(versioned.request)
    }
}

/// An answer, or why there is none.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Response<T> {
    v: u8,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    ok: Option<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ErrorView>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ErrorView {
    /// The exit code a command should end with.
    exit: u8,
    message: String,
}

impl<T> Response<T> {
    pub(crate) fn ok(answer: T) -> Self {
        Self { v: VERSION, ok: Some(answer), error: None }
    }

    pub(crate) fn error(failure: &Failure) -> Self {
        let error = ErrorView { exit: failure.exit as u8, message: failure.sentence.clone() };
        Self { v: VERSION, ok: None, error: Some(error) }
    }

    pub(crate) fn into_result(self) -> Result<T, Failure> {
        match (self.ok, self.error) {
            (Some(answer), _) => Ok(answer),
            (None, Some(error)) => Err(Failure::new(Exit::from_number(error.exit), error.message)),
            (None, None) => Err(Failure::new(Exit::Io, "the node answered with neither a result nor an error")),
        }
    }
}

impl<T: Serialize> Response<T> {
    pub(crate) fn to_line(&self) -> Vec<u8> {
        to_line(self)
    }
}

impl<T: DeserializeOwned> Response<T> {
    pub(crate) fn from_line(line: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(line)
            .map_err(|error| Failure::new(Exit::Io, format!("the node's answer cannot be read: {error}")))
    }
}

fn to_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("strings, numbers and maps of them always serialise");
    line.push(b'\n');
    line
}

/// `status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// What the node's probes of itself have come to.
    #[serde(default)]
    pub(crate) self_probe: Option<ProbeView>,
    /// Every map, queue and cache. Those of a topic have one line for each topic.
    #[serde(default)]
    pub(crate) stores: Vec<StoreView>,
    /// What was refused, ignored, dropped and closed, by reason. Zeros are left out.
    pub(crate) counts: BTreeMap<String, u64>,
}

/// One map, queue or cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
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

/// One joined topic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TopicView {
    pub(crate) topic: String,
    pub(crate) name: Option<String>,
    pub(crate) neighbors: Vec<String>,
    pub(crate) contacts: usize,
    pub(crate) queued_frames: usize,
    pub(crate) restarts: u32,
}

/// `peers`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Peers {
    pub(crate) v: u8,
    pub(crate) peers: Vec<PeerView>,
}

/// One remote with a supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    pub(crate) path: Option<String>,
    pub(crate) rtt_ms: Option<f64>,
}

/// `ledger`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LedgerView {
    pub(crate) v: u8,
    pub(crate) orphans: u64,
    pub(crate) kinds: Vec<KindView>,
    /// How long connections took to end once they were to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retirements: Option<RetirementsView>,
}

/// Connections that have ended: how long each took from its departure to the end of its task.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RetirementCauseView {
    /// As in `connections --closed`.
    pub(crate) cause: String,
    pub(crate) retired: u64,
    pub(crate) retired_late: u64,
    pub(crate) max_ms: u64,
}

/// One retirement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RetiredView {
    pub(crate) number: u64,
    pub(crate) peer: String,
    pub(crate) cause: String,
    pub(crate) departure: String,
    pub(crate) took_ms: u64,
}

/// One kind of task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KindView {
    pub(crate) kind: String,
    pub(crate) spawned: u64,
    pub(crate) finished: u64,
    pub(crate) owned: u64,
    pub(crate) orphans: i64,
}

/// `ticket`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TicketView {
    pub(crate) v: u8,
    pub(crate) id: String,
    pub(crate) ticket: String,
}

/// `join` and `leave`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TopicChanged {
    pub(crate) v: u8,
    pub(crate) topic: String,
    pub(crate) name: Option<String>,
    /// `joined`, `already-joined` or `left`.
    pub(crate) outcome: String,
}

/// `stop`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stopping {
    pub(crate) v: u8,
    pub(crate) stopping: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_line() {
        let join = Request::Join { topic: "chat".into(), peers: vec!["x".into()] };
        let set = Request::SetLimits { changes: BTreeMap::from([("inbound_max".into(), 7)]), evict: true };
        let fault = soak::FaultPlan { at: "peer".into(), kind: "hang".into(), peer: None };
        assert_eq!(
            Request::from_line(br#"{"request":"fault","loop":"peer","kind":"hang"}"#).unwrap(),
            Request::Fault(fault)
        );
        for request in [Request::Status, Request::Stop, join, Request::Leave { topic: "chat".into() }, set] {
            let line = request.to_line();
            assert!(line.ends_with(b"\n"));
            assert_eq!(Request::from_line(&line).unwrap(), request);
        }
        assert_eq!(Request::from_line(br#"{"request":"status"}"#).unwrap(), Request::Status);
    }

    #[test]
    fn what_is_no_request_is_a_usage_error() {
        for line in ["", "{}", "status", r#"{"request":"dance"}"#, r#"{"v":2,"request":"status"}"#] {
            assert_eq!(Request::from_line(line.as_bytes()).unwrap_err().exit, Exit::Usage, "{line}");
        }
    }

    #[test]
    fn an_error_keeps_its_exit_code() {
        let line = Response::<()>::error(&Failure::new(Exit::Unavailable, "full")).to_line();
        let failure = Response::<Status>::from_line(&line).unwrap().into_result().unwrap_err();
        assert_eq!((failure.exit, failure.sentence.as_str()), (Exit::Unavailable, "full"));
        let line = Response::ok(Stopping { v: VERSION, stopping: true }).to_line();
        assert!(Response::<Stopping>::from_line(&line).unwrap().into_result().unwrap().stopping);
    }
}
