//! The redials of one mesh as its loops share them: lock, clock and dice around `backoff/redials.rs`. Decides nothing.
//!
//! [`Redials`] is the whole table, [`Redial`] one remote's line in it, held by the remote's supervisor (`peer.rs`), which
//! asks before it dials and tells how it went; a topic's [`Wish`] tells it whether anybody still waits. What an end of a connection or of an attempt says of the remote is read
//! here.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use iroh::{
    EndpointId,
    endpoint::{ConnectWithOptsError, ConnectingError, ConnectionError, TransportErrorCode},
};
use n0_future::time::Instant;
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    access::Standing,
    backoff::redials::{Dial, Failure, Life, RedialTable, Standstill},
    census::{RedialCensus, Side},
    close::{Close, CloseCode},
    connection::{Closed, ConnectionEnd},
    context::Context,
    counters::Reason,
    limits::Limits,
    supervisor::Exit,
};

/// The redials of one mesh. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Redials {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    table: RedialTable,
    rng: StdRng,
}

impl Redials {
    pub(crate) fn new(limits: &Limits) -> Self {
        let shared = Shared { table: RedialTable::new(limits), rng: StdRng::from_rng(&mut rand::rng()) };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Whether what others say of this remote is not worth keeping: it has not answered for too long.
    pub(crate) fn is_ghost(&self, peer: &EndpointId, now: Instant) -> bool {
        self.lock().table.is_ghost(peer, now)
    }

    /// Takes up a remote from an earlier life: its first dial is not made at once, and it is not given up like others.
    pub(crate) fn recall(&self, peer: EndpointId, standing: Standing) {
        let Shared { table, rng } = &mut *self.lock();
        // Beyond the bound it is like any other.
        let _room = table.recall(peer, standing == Standing::Known, Instant::now(), rng);
    }

    /// Somebody wants to deal with `peer` again, whatever it did.
    pub(crate) fn forgive(&self, peer: &EndpointId) {
        self.lock().table.forgive(peer, Instant::now());
    }

    pub(crate) fn failures(&self, peer: &EndpointId) -> u32 {
        self.lock().table.standstill(peer, Instant::now()).failures
    }

    pub(crate) fn sweep(&self, now: Instant) {
        self.lock().table.sweep(now);
    }

    pub(crate) fn census(&self) -> RedialCensus {
        let (entries, outage) = self.lock().table.census();
        RedialCensus { entries, outage }
    }

    /// A panic between two lines of the table leaves at worst one pause too long: not worth a poisoned node.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A topic's wish to reach a remote, held as long as it has something to say to it.
#[derive(Debug, Default)]
pub(crate) struct Wish(Arc<()>);

/// Whether a wish is still held.
#[derive(Debug, Clone)]
pub(crate) struct WishWatch(Weak<()>);

impl Wish {
    pub(crate) fn watch(&self) -> WishWatch {
        WishWatch(Arc::downgrade(&self.0))
    }
}

impl WishWatch {
    pub(crate) fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(crate) fn is_same(&self, other: &WishWatch) -> bool {
        Weak::ptr_eq(&self.0, &other.0)
    }
}

/// One remote's line. Dropping it says that nobody looks after the remote any more.
#[derive(Debug)]
pub(crate) struct Redial {
    peer: EndpointId,
    context: Context,
}

impl Redial {
    pub(crate) fn new(peer: EndpointId, context: &Context) -> Self {
        Self { peer, context: context.clone() }
    }

    /// Whether the remote may be dialed now, or when.
    pub(crate) fn may_dial(&self) -> Dial {
        let is_known = match self.context.lists.standing(&self.peer) {
            Standing::Denied => return Dial::No,
            Standing::Known => true,
            Standing::Unknown => false,
        };
        let Shared { table, rng } = &mut *self.context.redials.lock();
        table.may_dial(self.peer, is_known, Instant::now(), rng)
    }

    pub(crate) fn on_dial(&self) {
        self.context.redials.lock().table.on_dial(&self.peer, Instant::now());
    }

    pub(crate) fn on_failed(&self, failure: Failure) {
        let (is_known, live) = (self.is_known(), self.context.routes.remotes());
        let Shared { table, rng } = &mut *self.context.redials.lock();
        table.on_failed(self.peer, is_known, failure, live, Instant::now(), rng);
    }

    pub(crate) fn on_connected(&self, side: Side) {
        let is_inbound = side == Side::Accepted;
        self.context.redials.lock().table.on_connected(&self.peer, is_inbound, Instant::now());
    }

    /// A connection that lived for so long has ended, and the routes know it.
    pub(crate) fn on_ended(&self, exit: &Exit<Closed>, lived: Duration, was_last: bool) {
        let end = match exit {
            Exit::Finished(closed) => failure_of(&closed.end),
            Exit::Panicked(_) | Exit::Killed => Some(Failure::Ours),
        };
        let (is_known, live) = (self.is_known(), self.context.routes.remotes());
        let Shared { table, rng } = &mut *self.context.redials.lock();
        table.on_ended(self.peer, is_known, Life { end, lived, was_last }, live, Instant::now(), rng);
    }

    pub(crate) fn standstill(&self) -> Standstill {
        self.context.redials.lock().table.standstill(&self.peer, Instant::now())
    }

    /// The embedder is not asked: what went wrong is told once per attempt, who is welcome before each.
    fn is_known(&self) -> bool {
        self.context.lists.listed(&self.peer) == Standing::Known
    }
}

impl Drop for Redial {
    fn drop(&mut self) {
        self.context.redials.lock().table.on_idle(&self.peer);
    }
}

/// What the end of a connection says of its remote; `None`: it was in order.
fn failure_of(end: &ConnectionEnd) -> Option<Failure> {
    match end {
        ConnectionEnd::Retired | ConnectionEnd::RemoteRetired(_) => None,
        // The lists keep us from dialing whom we denied; once they change, nothing else should.
        ConnectionEnd::Ordered(Close { code: CloseCode::Denied | CloseCode::Revoked, .. }) => Some(Failure::Ours),
        ConnectionEnd::Ordered(close) | ConnectionEnd::RemoteClosed(close) => Some(Failure::Closed(*close)),
        // A slow link is no malice.
        ConnectionEnd::Broken(Reason::FrameUnfinished) | ConnectionEnd::Lost(_) | ConnectionEnd::SlowPeer => {
            Some(Failure::Lost)
        }
        ConnectionEnd::Broken(_) => Some(Failure::Violation),
        // A stranger that came and said nothing is not worth an entry: nobody here wanted it.
        ConnectionEnd::Injected | ConnectionEnd::HelloTimeout => Some(Failure::Ours),
    }
}

/// What an attempt that did not begin says of the remote.
pub(crate) fn failure_to_begin(error: &ConnectWithOptsError) -> Failure {
    match error {
        ConnectWithOptsError::NoAddress { .. } => Failure::NoAddress,
        _ => Failure::Ours,
    }
}

/// What an attempt that did not become a connection says of the remote.
pub(crate) fn failure_to_connect(error: &ConnectingError) -> Failure {
    match error {
        ConnectingError::ConnectionError { source, .. } => failure_in_handshake(source),
        ConnectingError::HandshakeFailure { .. } => Failure::Refused,
        _ => Failure::Ours,
    }
}

fn failure_in_handshake(error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            Close::read(close.error_code.into_inner(), &close.reason).map_or(Failure::Refused, Failure::Closed)
        }
        ConnectionError::ConnectionClosed(close) if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
            Failure::Refused
        }
        // Another protocol, another version, or a restart in between: somebody answered.
        ConnectionError::ConnectionClosed(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::Reset => Failure::Refused,
        ConnectionError::TimedOut => Failure::Silent,
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => Failure::Ours,
    }
}
