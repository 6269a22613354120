//! The redials of one mesh as its loops share them: lock, clock and dice around `backoff/redials.rs`. Decides nothing.
//!
//! [`Redials`] is the whole table; one remote's line in it is held by the remote's supervisor (`peer/redial.rs`). A topic's
//! [`Wish`] tells whether anybody still waits for a dial. What an attempt that failed says of its remote is read here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use iroh::{
    EndpointId,
    endpoint::{ConnectWithOptsError, ConnectingError, ConnectionError, TransportErrorCode},
};
use n0_future::time::Instant;
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    access::Standing,
    backoff::redials::{Failure, RedialTable},
    census::RedialCensus,
    close::Close,
    limits::Limits,
    stores::StoreUse,
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

    /// Somebody has reason to try `peer` once before its pause is over, unless it asked for that pause.
    pub(crate) fn hasten(&self, peer: &EndpointId) {
        self.lock().table.hasten(peer, Instant::now());
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

    pub(crate) fn stores(&self) -> [StoreUse; 2] {
        self.lock().table.stores()
    }

    /// Asks or tells the table.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut RedialTable, &mut StdRng) -> T) -> T {
        let Shared { table, rng } = &mut *self.lock();
        act(table, rng)
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
