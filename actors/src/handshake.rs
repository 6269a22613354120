//! Half-open attempts, in and out: a handshake that cannot be forgotten.
//!
//! [`HalfOpen`] owns the attempt and its permit. Whatever ends it (success, deadline, refusal, panic, kill, shutdown),
//! its parts are dropped: an unfinished QUIC attempt is closed by its own `Drop`, and the slot returns. The task it runs
//! in holds the ledger entry the same way. Decides nothing: `acceptor.rs` and `peer.rs` do.

use std::{
    fmt::{self, Display},
    future::Future,
    time::Duration,
};

use iroh::endpoint::Connection;
use n0_future::time::timeout;

use crate::{admission::Permit, backoff::redials::Failure, census::Side, connection::Established};

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
    Failed(Failed),
}

/// What ended an attempt, in words, and what it says of the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) text: String,
    pub(crate) failure: Failure,
}

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Words alone say nothing of the remote.
impl<T: Into<String>> From<T> for Failed {
    fn from(text: T) -> Self {
        Self { text: text.into(), failure: Failure::Ours }
    }
}

impl<F, E> HalfOpen<F>
where
    F: Future<Output = Result<Connection, E>>,
    E: Into<Failed>,
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
            Ok(Err(error)) => Err(HandshakeError::Failed(error.into())),
            Err(_elapsed) => Err(HandshakeError::TimedOut),
        }
    }
}
