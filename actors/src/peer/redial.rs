//! One remote's line in the table of redials: its supervisor asks before it dials, and tells how it went. What an end of a
//! connection says of the remote is read here; what follows from it is decided in `backoff/redials.rs`.

use std::time::Duration;

use iroh::EndpointId;
use n0_future::time::Instant;
use rand::rngs::StdRng;

use crate::{
    access::Standing,
    backoff::redials::{Dial, Failure, Life, RedialTable, Standstill},
    census::Side,
    close::{Close, CloseCode},
    connection::{Closed, ConnectionEnd},
    context::Context,
    counters::Reason,
    supervisor::Exit,
};

/// One remote's line. Dropping it says that nobody looks after the remote any more.
#[derive(Debug)]
pub(super) struct Redial {
    peer: EndpointId,
    context: Context,
}

impl Redial {
    pub(super) fn new(peer: EndpointId, context: &Context) -> Self {
        Self { peer, context: context.clone() }
    }

    /// Whether the remote may be dialed now, or when.
    pub(super) fn may_dial(&self) -> Dial {
        let is_known = match self.context.lists.standing(&self.peer) {
            Standing::Denied => return Dial::No,
            Standing::Known => true,
            Standing::Unknown => false,
        };
        self.context.redials.with(|table, rng| table.may_dial(self.peer, is_known, Instant::now(), rng))
    }

    pub(super) fn on_dial(&self) {
        self.context.redials.with(|table, _| table.on_dial(&self.peer, Instant::now()));
    }

    pub(super) fn on_failed(&self, failure: Failure) {
        let (is_known, live) = (self.is_known(), self.context.routes.remotes());
        let failed = |table: &mut RedialTable, rng: &mut StdRng| {
            table.on_failed(self.peer, is_known, failure, live, Instant::now(), rng);
        };
        self.context.redials.with(failed);
    }

    pub(super) fn on_connected(&self, side: Side) {
        let is_inbound = side == Side::Accepted;
        self.context.redials.with(|table, _| table.on_connected(&self.peer, is_inbound, Instant::now()));
    }

    /// A connection that lived for so long has ended, and the routes know it.
    pub(super) fn on_ended(&self, exit: &Exit<Closed>, lived: Duration, was_last: bool) {
        let end = match exit {
            Exit::Finished(closed) => failure_of(&closed.end),
            Exit::Panicked(_) | Exit::Killed => Some(Failure::Ours),
        };
        let (is_known, live) = (self.is_known(), self.context.routes.remotes());
        let life = Life { end, lived, was_last };
        let ended = |table: &mut RedialTable, rng: &mut StdRng| {
            table.on_ended(self.peer, is_known, life, live, Instant::now(), rng);
        };
        self.context.redials.with(ended);
    }

    pub(super) fn standstill(&self) -> Standstill {
        self.context.redials.with(|table, _| table.standstill(&self.peer, Instant::now()))
    }

    /// The embedder is not asked: what went wrong is told once per attempt, who is welcome before each.
    fn is_known(&self) -> bool {
        self.context.lists.listed(&self.peer) == Standing::Known
    }
}

impl Drop for Redial {
    fn drop(&mut self) {
        self.context.redials.with(|table, _| table.on_idle(&self.peer));
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
