//! Half-open attempts, in and out: a handshake that cannot be forgotten.
//!
//! [`HalfOpen`] owns the attempt and its permit. Whatever ends it (success, deadline, refusal, panic, kill, shutdown),
//! its parts are dropped: an unfinished QUIC attempt is closed by its own `Drop`, and the slot returns. The task it runs
//! in holds the ledger entry the same way. Decides nothing: `acceptor.rs` and `peer.rs` do.

use std::{future::Future, time::Duration};

use iroh::endpoint::Connection;
use n0_future::time::timeout;

use crate::{admission::Permit, census::Side, connection::Established};

/// One attempt with the slot it occupies.
pub(crate) struct HalfOpen<F> {
    attempt: F,
    permit: Permit,
    side: Side,
}

/// Why an attempt did not become a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// The deadline passed.
    TimedOut,
    /// QUIC, TLS or the remote ended it.
    Failed(String),
}

impl<F, E> HalfOpen<F>
where
    F: Future<Output = Result<Connection, E>>,
    E: std::fmt::Display,
{
    pub(crate) fn new(attempt: F, permit: Permit, side: Side) -> Self {
        Self { attempt, permit, side }
    }

    /// Finishes the attempt, at most `deadline` from now. QUIC's idle timer restarts with every packet of a handshake,
    /// so without this a remote could stretch it for ever.
    pub(crate) async fn finish(self, deadline: Duration) -> Result<Established, HandshakeError> {
        let HalfOpen { attempt, permit, side } = self;
        match timeout(deadline, attempt).await {
            Ok(Ok(connection)) => Ok(Established { connection, permit, side }),
            Ok(Err(error)) => Err(HandshakeError::Failed(error.to_string())),
            Err(_elapsed) => Err(HandshakeError::TimedOut),
        }
    }
}
