//! Handshakes under way: one task each, and what is left of those that fail. Nothing is decided here.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use iroh::{EndpointId, endpoint::Incoming};
use n0_future::time::{Instant, sleep, sleep_until, timeout};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::{
    access::Standing,
    admission::{Permit, seats::Shortage},
    census::Side,
    close::{Close, CloseCode},
    connection::{self, Established, close_with},
    context::Context,
    counters::Reason,
    handshake::{HalfOpen, HandshakeError},
    ledger::Kind,
    listeners::ListenerId,
    mishaps::Loop,
    operation::Operation,
};

/// The QUIC state of a failed attempt lives on for three probe timeouts, of one second each where no round trip was ever
/// measured (RFC 9000 §10.2, RFC 9002 §6.2.2): 60 KB that nobody may forget about.
const QUIC_DRAIN: Duration = Duration::from_secs(3);

/// How an attempt's task ended.
pub(super) enum AttemptEnd {
    /// The handshake is finished.
    Shaken(Box<Shaken>),
    /// It failed, and is counted.
    Failed,
    /// The remote was sent away.
    SentAway,
    /// It was this node's own probe.
    Probed,
}

/// A remote that has shown who it is.
pub(super) struct Shaken {
    pub(super) established: Established,
    pub(super) listener: ListenerId,
    pub(super) addr: Option<SocketAddr>,
    pub(super) standing: Standing,
    /// Why it has no slot, where it waits for one.
    pub(super) shortage: Option<Shortage>,
}

/// An attempt that is let in.
pub(super) struct Guest {
    pub(super) incoming: Incoming,
    pub(super) permit: Permit,
    pub(super) listener: ListenerId,
    pub(super) addr: Option<SocketAddr>,
}

/// The table of half-open incoming attempts. Its length is what the ledger calls owned.
pub(super) struct Attempts {
    set: JoinSet<AttemptEnd>,
    sources: HashMap<Id, (SocketAddr, AbortHandle)>,
    gauge: Arc<AtomicUsize>,
}

impl Attempts {
    pub(super) fn new(gauge: Arc<AtomicUsize>) -> Self {
        Self { set: JoinSet::new(), sources: HashMap::new(), gauge }
    }

    /// The next that ends; waits for ever while there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<AttemptEnd, JoinError> {
        let Some(ended) = self.set.join_next_with_id().await else { return std::future::pending().await };
        self.sources.remove(&ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id));
        self.note();
        ended.map(|(_, end)| end)
    }

    /// Begins a handshake.
    pub(super) fn shake_hands(&mut self, guest: Guest, context: Context) {
        let entry = context.nursery.ledger.enter(Kind::Handshake);
        let registration = context.nursery.faults.open(Kind::Handshake);
        let (number, faults, addr) = (registration.number(), context.nursery.faults.clone(), guest.addr);
        let abort = self.set.spawn(async move {
            let (_entry, _registration) = (entry, registration);
            shake_hands(guest, &context).await
        });
        faults.fill(number, &abort);
        if let Some(addr) = addr {
            self.sources.insert(abort.id(), (addr, abort));
        }
        self.note();
    }

    /// Runs a goodbye beside them.
    pub(super) fn say_goodbye(&mut self, goodbye: impl Future<Output = ()> + Send + 'static, context: &Context) {
        let entry = context.nursery.ledger.enter(Kind::Handshake);
        self.set.spawn(async move {
            let _entry = entry;
            goodbye.await;
            AttemptEnd::SentAway
        });
        self.note();
    }

    /// Shakes hands with what should be this node's own probe, and answers it.
    pub(super) fn answer_probe(&mut self, incoming: Incoming, prober: EndpointId, context: Context) {
        let entry = context.nursery.ledger.enter(Kind::Handshake);
        self.set.spawn(async move {
            let _entry = entry;
            match timeout(context.limits.handshake_timeout, answer_probe(incoming, prober)).await {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => tracing::debug!(%reason, "a probe was not answered"),
                Err(_elapsed) => tracing::debug!("a probe did not end in time"),
            }
            AttemptEnd::Probed
        });
        self.note();
    }

    /// A remote that knows several of our addresses knocks at all of them at once, and goes on with one. The others would
    /// hold their slots until their deadline.
    pub(super) fn give_up_others_from(&mut self, addr: SocketAddr) {
        for (source, abort) in self.sources.values() {
            if *source == addr {
                abort.abort();
            }
        }
    }

    fn note(&self) {
        self.gauge.store(self.set.len(), Ordering::Relaxed);
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        self.set.abort_all();
        self.gauge.store(0, Ordering::Relaxed);
    }
}

async fn shake_hands(guest: Guest, context: &Context) -> AttemptEnd {
    let operation = Operation::handshake(context.meters.clone());
    let Guest { incoming, permit, listener, addr } = guest;
    let remains = remains_of(&incoming, context);
    let is_validated = incoming.remote_addr_validated();
    let attempt =
        async move { incoming.accept().map_err(|error| error.to_string())?.await.map_err(|error| error.to_string()) };
    let outcome = tokio::select! {
        biased;
        strike = context.nursery.faults.strike(Loop::Handshake, None) => {
            match timeout(context.limits.handshake_timeout, strike.land()).await {
                Ok(()) => Err((HandshakeError::Failed("injected".into()), None)),
                Err(_elapsed) => Err((HandshakeError::TimedOut, None)),
            }
        }
        outcome = HalfOpen::new(attempt, permit, Side::Accepted).finish_before(impatience(is_validated, context)) => {
            outcome.map_err(|(error, permit)| (error, Some(permit)))
        }
    };
    let (error, permit) = match outcome {
        Ok(established) => {
            operation.note("peer", tracing::field::display(established.peer().fmt_short()));
            operation.succeed("connected");
            let standing = Standing::Unknown;
            return AttemptEnd::Shaken(Box::new(Shaken { established, listener, addr, standing, shortage: None }));
        }
        Err(failed) => failed,
    };
    operation.fail(error.name());
    match error {
        HandshakeError::TimedOut => context.counters.count(Reason::HandshakeTimeout),
        HandshakeError::Failed(error) => {
            tracing::debug!(error = %error.text, "incoming handshake failed");
            context.counters.count(Reason::HandshakeFailed);
        }
    }
    if let Some(mut permit) = permit {
        // Its slot is free; its place among the handshakes is not before its remains are gone.
        permit.linger();
        sleep(remains).await;
    }
    AttemptEnd::Failed
}

/// Returns once the probe has closed, and the connection is gone with it.
async fn answer_probe(incoming: Incoming, prober: EndpointId) -> Result<(), String> {
    let connecting = incoming.accept().map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    if connection.remote_id() != prober {
        close_with(&connection, Close::new(CloseCode::Denied));
        return Err("somebody else came from the socket of the probe".into());
    }
    connection::echo::answer(&connection).await?;
    connection.closed().await;
    Ok(())
}

/// Ends when a handshake has had its time. A source that has not proved its address is most likely a forgery when it does
/// not answer, and gets half of it; everybody gets a fifth while others wait at the door, which is still several round trips
/// of the slowest path.
async fn impatience(is_validated: bool, context: &Context) {
    let handshake_timeout = context.limits.handshake_timeout;
    let until = Instant::now() + if is_validated { handshake_timeout } else { handshake_timeout / 2 };
    loop {
        sleep_until(until.min(Instant::now() + handshake_timeout / 5)).await;
        if context.is_scarce() || Instant::now() >= until {
            return;
        }
    }
}

/// How long QUIC keeps the state of this attempt if it fails. A first packet that closes before it has said hello leaves a
/// state that only the idle timeout ends: noq 1.4 sets no close timer for it (`connection/mod.rs`, `handle_first_packet`).
fn remains_of(incoming: &Incoming, context: &Context) -> Duration {
    let says_hello = incoming.decrypt().and_then(|initial| initial.alpns()).is_some();
    if says_hello { QUIC_DRAIN } else { context.limits.idle_timeout }
}
