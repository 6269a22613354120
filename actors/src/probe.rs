//! The node's proof that it can be reached: what was found, and how its own door knows a probe from a stranger.
//!
//! iroh refuses to connect an endpoint to itself, so a probe comes from a second endpoint that lives as long as the probe
//! does. It offers the protocol of any other node: with one of its own the door would have to shake hands over something
//! nobody is served. The door recognises it by the socket it announced and, after the handshake, by its key. The endpoint is
//! made by `mesh/transport.rs`, the dial by `dialer.rs`, the question and its answer by `connection/echo.rs`.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::{EndpointId, SecretKey};

/// How far a probe had to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeStage {
    /// A socket for it, beside the listener.
    Bind,
    /// A first packet to the listener.
    Dial,
    /// The handshake: sockets, accept loop and keys work.
    Handshake,
    /// A stream each way.
    Echo,
}

impl ProbeStage {
    /// The stable name in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            ProbeStage::Bind => "bind",
            ProbeStage::Dial => "dial",
            ProbeStage::Handshake => "handshake",
            ProbeStage::Echo => "echo",
        }
    }
}

impl fmt::Display for ProbeStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A probe that came through at every listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeReport {
    /// Listeners that answered: all there are.
    pub listeners: usize,
    /// How long the slowest of them took, from the first packet to the echo.
    pub slowest: Duration,
}

/// A probe that did not come through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage} at {addr}: {reason}")]
pub struct ProbeError {
    /// Where it ended.
    pub stage: ProbeStage,
    /// The listener.
    pub addr: SocketAddr,
    /// What was said there.
    pub reason: String,
}

/// What both ends of the probes of one mesh share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Probing {
    /// One for all probes: iroh never quite forgets an id.
    pub(crate) key: SecretKey,
    /// The port that the last probe of each listener came from; the next one comes from there if it is free. iroh keeps some
    /// 400 B of every socket that a remote came from (measured), but a probe that keeps its socket remembers ways around the
    /// listener it is to try. Whoever holds the lock probes: one at a time, so that one reserved place is enough.
    pub(crate) turn: Arc<tokio::sync::Mutex<BTreeMap<SocketAddr, u16>>>,
    expected: Arc<Mutex<Option<SocketAddr>>>,
}

impl fmt::Debug for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probing").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl Default for Probing {
    fn default() -> Self {
        Self { key: SecretKey::generate(), turn: Arc::default(), expected: Arc::default() }
    }
}

impl Probing {
    /// Reserves the place at the door for an attempt from `source`, until the reservation is dropped.
    #[must_use = "the place is reserved as long as this lives"]
    pub(crate) fn expect(&self, source: SocketAddr) -> Reservation {
        *self.lock() = Some(source);
        Reservation(self.clone())
    }

    /// Whether an attempt from `source` is the probe, and whose key it must show then. The place is taken by that: a second
    /// attempt from there is anybody's.
    pub(crate) fn take(&self, source: Option<SocketAddr>) -> Option<EndpointId> {
        self.lock().take_if(|expected| Some(*expected) == source)?;
        Some(self.key.public())
    }

    fn lock(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place at the door while a probe is under way.
pub(crate) struct Reservation(Probing);

impl Drop for Reservation {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_for_one_attempt_from_one_socket() {
        let probing = Probing::default();
        let (source, other) = (SocketAddr::from(([127, 0, 0, 1], 7)), SocketAddr::from(([127, 0, 0, 1], 8)));
        assert_eq!(probing.take(Some(source)), None, "nobody is expected");
        let reservation = probing.expect(source);
        assert_eq!((probing.take(Some(other)), probing.take(None)), (None, None));
        assert_eq!(probing.take(Some(source)), Some(probing.key.public()));
        assert_eq!(probing.take(Some(source)), None, "it is taken");
        drop(reservation);
        let reservation = probing.expect(source);
        drop(reservation);
        assert_eq!(probing.take(Some(source)), None, "a probe that is over is expected no more");
    }
}
