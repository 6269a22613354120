//! Errors a caller can act on. What a remote does wrong is not here: it is counted, see [`crate::Census`].

use std::net::SocketAddr;

/// Why a mesh could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// Limits that contradict each other. They are never silently changed.
    #[error("impossible limits: {0}")]
    Limits(#[from] crate::limits::LimitsError),
    /// A listen address that the operating system refused.
    #[error("cannot listen on {addr}: {reason}")]
    Listen {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the operating system or iroh said.
        reason: String,
    },
    /// The QUIC endpoint could not be bound.
    #[error("cannot bind the QUIC endpoint: {0}")]
    Bind(String),
    /// A supervisor could not be started.
    #[error("cannot start the {0} supervisor: {1}")]
    Supervisor(&'static str, String),
}

/// Why a topic could not be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The mesh is draining or gone.
    #[error("the mesh is shutting down")]
    ShuttingDown,
    /// The node has joined as many topics as its limits allow.
    #[error("{limit} topics are joined, the limit; leave one or raise `topics_max`")]
    TooManyTopics {
        /// The limit in force.
        limit: usize,
    },
}

impl JoinError {
    /// In one word, of a closed set.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            JoinError::ShuttingDown => "shutting-down",
            JoinError::TooManyTopics { .. } => "too-many-topics",
        }
    }
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The content does not fit one frame on every hop.
    #[error("message of {size} bytes exceeds {limit}")]
    TooLarge {
        /// Bytes of content that were offered.
        size: usize,
        /// The most bytes of content that fit.
        limit: usize,
    },
    /// The topic has been left, or its loop was given up after too many restarts.
    #[error("the topic is closed")]
    Closed,
}

impl PublishError {
    /// In one word, of a closed set.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            PublishError::TooLarge { .. } => "too-large",
            PublishError::Closed => "closed",
        }
    }
}

/// Why limits were not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetLimitsError {
    /// A name that is not one, or limits that contradict each other.
    #[error(transparent)]
    Limits(#[from] crate::limits::LimitsError),
    /// The mesh has ended.
    #[error(transparent)]
    Gone(#[from] MeshGone),
}

/// The mesh has been drained or has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mesh is gone")]
pub struct MeshGone;
