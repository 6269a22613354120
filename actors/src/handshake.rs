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
use n0_future::time::sleep;

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

impl HandshakeError {
    /// In one word, of a closed set.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            HandshakeError::TimedOut => "timed-out",
            HandshakeError::Failed(_) => "failed",
        }
    }
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
        self.finish_before(sleep(deadline)).await.map_err(|(error, _permit)| error)
    }

    /// The same, before something happens. An attempt that failed gives its permit back to whoever has to account for what
    /// it left behind.
    pub(crate) async fn finish_before(
        self,
        over: impl Future<Output = ()>,
    ) -> Result<Established, (HandshakeError, Permit)> {
        let HalfOpen { attempt, permit, side } = self;
        tokio::select! {
            biased; // Finished in the last moment is finished.
            outcome = attempt => match outcome {
                Ok(connection) => Ok(Established { connection, permit, side }),
                Err(error) => Err((HandshakeError::Failed(error.into()), permit)),
            },
            () = over => Err((HandshakeError::TimedOut, permit)),
        }
    }
}
