//! Strangers one at a time, each told apart: who calls, is let in or sent away with a code, and leaves when told to.
//!
//! A crowd (`crowd.rs`) shows what many cost; a caller shows what a door says to one.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use noq::{Connection, ConnectionError, Endpoint, SendStream};
use tokio::time::timeout;

use super::{ALPN, crowd::header, identity::Identities, sources::source};

/// A handshake on this machine takes milliseconds; a victim without a slot lets it wait for 5 s.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// Closing packets are on their way within this long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The socket callers share.
#[derive(Debug)]
pub struct Caller {
    endpoint: Endpoint,
    identities: Identities,
    target: SocketAddr,
    topic: [u8; 32],
}

/// One who was let in, or waits inside for a slot. Dropping it makes it leave.
#[derive(Debug)]
pub struct Guest {
    connection: Connection,
    _stream: Option<SendStream>,
}

/// How the victim sent a stranger away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The application's close code. `None`: QUIC's own refusal, before the victim knew who it was.
    pub code: Option<u64>,
    /// In words.
    pub words: String,
}

impl Caller {
    /// Binds the socket. `topic` is what strangers name.
    ///
    /// # Errors
    ///
    /// When `target` is not a loopback address, or no socket can be bound.
    pub fn bind(target: SocketAddr, topic: [u8; 32]) -> Result<Self> {
        anyhow::ensure!(target.ip().is_loopback(), "{target} is not a loopback address");
        let address = source(0);
        let endpoint = Endpoint::client(address).with_context(|| format!("cannot bind {address}"))?;
        Ok(Self { endpoint, identities: Identities::new(ALPN), target, topic })
    }

    /// A new identity finishes its handshake and names the topic.
    ///
    /// # Errors
    ///
    /// How it was refused before that.
    pub async fn call(&self) -> Result<Guest, Refusal> {
        let config = self.identities.fresh();
        let wrong = |words: String| Refusal { code: None, words };
        let connecting = self.endpoint.connect_with(config, self.target, "stranger.invalid");
        let connecting = connecting.map_err(|error| wrong(error.to_string()))?;
        let connection = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(refusal(&error)),
            Err(_elapsed) => return Err(wrong("no answer".into())),
        };
        let opened = timeout(HANDSHAKE_TIMEOUT, async {
            let mut stream = connection.open_uni().await.ok()?;
            stream.write_all(&header(self.topic)).await.ok()?;
            Some(stream)
        });
        // One that is closed meanwhile has been refused after its handshake, and says so when asked.
        let stream = opened.await.unwrap_or(None);
        Ok(Guest { connection, _stream: stream })
    }

    /// Waits until every goodbye is sent.
    pub async fn end(self) {
        self.endpoint.close(0_u32.into(), b"");
        // A victim that does not answer is not waited for.
        let _ = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

impl Guest {
    /// Waits until the victim closes; `None` if it does not within `patience`.
    pub async fn sent_away(&self, patience: Duration) -> Option<Refusal> {
        timeout(patience, self.connection.closed()).await.ok().map(|error| refusal(&error))
    }

    /// Leaves, and says so.
    pub fn leave(self) {
        self.connection.close(0_u32.into(), b"");
    }
}

fn refusal(error: &ConnectionError) -> Refusal {
    let code = match error {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    };
    Refusal { code, words: error.to_string() }
}
