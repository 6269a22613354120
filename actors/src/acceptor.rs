//! The accept loop: it never stops polling, and decides every incoming attempt at once.
//!
//! iroh's queue before `accept` cannot be shrunk; when it fills, packets of known peers vanish with the rest. So nothing
//! in this loop waits for anything but the next arrival: an attempt is admitted and becomes a child, or is refused.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use iroh::{Endpoint, endpoint::Incoming};
use n0_future::time::interval;
use tokio::task::JoinSet;

use crate::{
    admission::{Door, Permit, Refusal},
    census::Side,
    connection::Established,
    counters::{Counters, Reason},
    handshake::{HalfOpen, HandshakeError},
    ledger::Kind,
    limits::Limits,
    supervisor::{Heartbeat, Nursery},
};

/// Takes a finished handshake to whoever supervises the remote. Must not wait.
pub(crate) type Deliver = Arc<dyn Fn(Established) + Send + Sync>;

pub(crate) struct Acceptor {
    pub(crate) endpoint: Endpoint,
    pub(crate) door: Door,
    pub(crate) limits: Arc<Limits>,
    pub(crate) counters: Counters,
    pub(crate) nursery: Nursery,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) deliver: Deliver,
    /// Handshakes in the table below, for the census.
    pub(crate) handshakes: Arc<AtomicUsize>,
}

/// How the accept loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptorEnd {
    /// The endpoint was closed.
    EndpointClosed,
    /// A test made it fail.
    Injected,
}

impl Acceptor {
    pub(crate) async fn run(self) -> AcceptorEnd {
        // Its drop aborts what is still half-open; each attempt's own drop then closes it.
        let mut handshakes = Handshakes { set: JoinSet::new(), gauge: self.handshakes.clone() };
        let mut turn = interval(self.limits.frozen_timeout / 4);
        loop {
            tokio::select! {
                // Bookkeeping first: it is cheap, and a flood of arrivals must not keep ended handshakes in the table.
                biased;
                strike = self.nursery.faults.strike(Kind::Acceptor) => {
                    strike.land().await;
                    return AcceptorEnd::Injected;
                }
                _ = turn.tick() => self.heartbeat.beat(),
                ended = handshakes.set.join_next(), if !handshakes.set.is_empty() => {
                    handshakes.note();
                    if let Some(Err(error)) = ended && error.is_panic() {
                        tracing::warn!(%error, "handshake panicked");
                        self.counters.count(Reason::HandshakeFailed);
                    }
                }
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.on_incoming(incoming, &mut handshakes),
                    None => return AcceptorEnd::EndpointClosed,
                },
            }
        }
    }

    fn on_incoming(&self, incoming: Incoming, handshakes: &mut Handshakes) {
        match self.door.admit_incoming() {
            Ok(permit) => {
                self.shake_hands(incoming, permit, handshakes);
                handshakes.note();
            }
            Err(refusal) => self.turn_away(incoming, refusal),
        }
    }

    /// An address that has not proved itself is asked to come again with a proof, which costs us nothing to remember;
    /// one that has is refused, so that an honest dialer learns it at once.
    fn turn_away(&self, incoming: Incoming, refusal: Refusal) {
        self.counters.count(match refusal {
            Refusal::AtCap => Reason::RefusedAtCap,
            Refusal::HalfOpen => Reason::RefusedHandshakes,
        });
        if incoming.remote_addr_validated() {
            incoming.refuse();
        } else if let Err(error) = incoming.retry() {
            error.into_incoming().refuse();
        }
    }

    fn shake_hands(&self, incoming: Incoming, permit: Permit, handshakes: &mut Handshakes) {
        let entry = self.nursery.ledger.enter(Kind::Handshake);
        let registration = self.nursery.faults.open(Kind::Handshake);
        let number = registration.number();
        let (limits, counters) = (self.limits.clone(), self.counters.clone());
        let (deliver, faults) = (self.deliver.clone(), self.nursery.faults.clone());
        let abort = handshakes.set.spawn(async move {
            let (_entry, _registration) = (entry, registration);
            let attempt = async move {
                incoming.accept().map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())
            };
            let outcome = tokio::select! {
                biased;
                strike = faults.strike(Kind::Handshake) => {
                    match n0_future::time::timeout(limits.handshake_timeout, strike.land()).await {
                        Ok(()) => Err(HandshakeError::Failed("injected".into())),
                        Err(_elapsed) => Err(HandshakeError::TimedOut),
                    }
                }
                outcome = HalfOpen::new(attempt, permit, Side::Accepted).finish(limits.handshake_timeout) => outcome,
            };
            match outcome {
                Ok(established) => deliver(established),
                Err(HandshakeError::TimedOut) => counters.count(Reason::HandshakeTimeout),
                Err(HandshakeError::Failed(error)) => {
                    tracing::debug!(%error, "incoming handshake failed");
                    counters.count(Reason::HandshakeFailed);
                }
            }
        });
        self.nursery.faults.fill(number, &abort);
    }
}

/// The table of half-open incoming attempts. Its length is what the ledger calls owned.
struct Handshakes {
    set: JoinSet<()>,
    gauge: Arc<AtomicUsize>,
}

impl Handshakes {
    fn note(&self) {
        self.gauge.store(self.set.len(), Ordering::Relaxed);
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.set.abort_all();
        self.gauge.store(0, Ordering::Relaxed);
    }
}
