//! What the supervisor of a remote holds of each connection loop: how to reach it, and what to tell of it.

use std::time::Duration;

use iroh::{EndpointId, TransportAddr};
use n0_future::time::Instant;

use crate::{
    census::{ConnectionCensus, Side},
    connection::{Closed, ConnectionEnd, Orders},
    history::{ClosedBy, ClosedConnection},
    lease::{Lease, LeaseSource},
    supervisor::{Child, Exit, Pulse},
};

/// The connection loops of one remote, by number. Two at most that live, and those that are ending; a tree has room for eleven
/// from the first on.
#[derive(Default)]
pub(super) struct Loops {
    all: Vec<(u64, Loop)>,
}

impl Loops {
    /// Adds the loop of a connection, which has a number of its own.
    pub(super) fn insert(&mut self, number: u64, one: Loop) {
        self.all.reserve_exact(1);
        self.all.push((number, one));
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Loop> {
        let at = self.all.iter().position(|(of, _)| *of == number)?;
        Some(self.all.remove(at).1)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Loop> {
        self.iter().find(|(of, _)| *of == number).map(|(_, one)| one)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Loop> {
        self.iter_mut().find(|(of, _)| *of == number).map(|(_, one)| one)
    }

    /// In the order in which they began.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Loop)> {
        self.all.iter().map(|(number, one)| (*number, one))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Loop)> {
        self.all.iter_mut().map(|(number, one)| (*number, one))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// One connection loop and what is known of it from outside.
pub(super) struct Loop {
    pub(super) seat: u64,
    pub(super) child: Child,
    pub(super) pulse: Pulse,
    pub(super) orders: Option<Orders>,
    pub(super) source: LeaseSource,
    pub(super) kept: Option<Lease>,
    pub(super) side: Side,
    pub(super) perennial: bool,
    pub(super) since: Instant,
    pub(super) connection: iroh::endpoint::WeakConnectionHandle,
}

impl Loop {
    pub(super) fn leases_of_topics(&self) -> usize {
        self.source.leases().saturating_sub(usize::from(self.kept.is_some()))
    }

    pub(super) fn path_and_rtt(&self) -> (Option<TransportAddr>, Option<Duration>) {
        let Some(connection) = self.connection.upgrade() else { return (None, None) };
        let paths = connection.paths();
        let selected = paths.iter().find(|path| path.is_selected());
        (selected.as_ref().map(|path| path.remote_addr().clone()), selected.as_ref().map(|path| path.rtt()))
    }

    /// Bytes sent and received so far.
    fn carried(&self) -> (u64, u64) {
        let stats = self.connection.upgrade().map(|connection| connection.stats());
        stats.map_or((0, 0), |stats| (stats.udp_tx.bytes, stats.udp_rx.bytes))
    }

    /// Its line in the history.
    pub(super) fn account(&self, number: u64, peer: EndpointId, exit: &Exit<Closed>, now: Instant) -> ClosedConnection {
        let (cause, closed_by, code, detail) = match exit {
            Exit::Finished(closed) => {
                let (cause, closed_by) = closed.end.cause();
                let detail = match &closed.end {
                    ConnectionEnd::Lost(error) | ConnectionEnd::RemoteRetired(error) => error.clone(),
                    _ if closed.close.reason() == cause => String::new(),
                    _ => closed.close.reason(),
                };
                let code = (closed_by != ClosedBy::Lost).then(|| u64::from(closed.close.code.number()));
                (cause, closed_by, code, detail)
            }
            Exit::Panicked(text) => ("panicked", ClosedBy::Us, None, text.clone()),
            Exit::Killed => ("killed", ClosedBy::Us, None, String::new()),
        };
        let carried = match exit {
            Exit::Finished(closed) => (closed.bytes_sent, closed.bytes_received),
            Exit::Panicked(_) | Exit::Killed => (0, 0),
        };
        ClosedConnection {
            number,
            peer,
            side: self.side,
            code,
            cause,
            detail,
            closed_by,
            age: now.duration_since(self.since),
            bytes_sent: carried.0,
            bytes_received: carried.1,
            at: now,
        }
    }

    pub(super) fn census(&self, number: u64, now: Instant) -> ConnectionCensus {
        let (path, rtt) = self.path_and_rtt();
        let (bytes_sent, bytes_received) = self.carried();
        ConnectionCensus {
            number,
            side: self.side,
            perennial: self.perennial,
            age: now.duration_since(self.since),
            leases: self.leases_of_topics(),
            phase: self.source.life().phase(),
            departed: self.source.life().departed(now),
            queued_frames: self.source.queued_frames(),
            bytes_sent,
            bytes_received,
            path,
            rtt,
        }
    }
}
