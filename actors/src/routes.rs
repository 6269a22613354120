//! Where things go: topic → inbox, remote → lease. One table per mesh, never process-wide.
//!
//! `connection.rs` and `topic.rs` never import each other; they meet here. Nothing in these tables keeps a connection or
//! a topic alive, and no lookup waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use iroh::EndpointId;
use iroh_gossip::proto::TopicId;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};

use crate::{
    lease::{Lease, LeaseSource, Merits},
    wire::{Class, inspect::Inbound},
};

/// The routing table of one mesh. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes {
    table: Arc<RwLock<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    topics: HashMap<TopicId, TopicRoute>,
    /// A remote's connections, the one to use first. Never empty.
    peers: HashMap<EndpointId, Vec<LeaseSource>>,
}

/// A topic's entrances.
#[derive(Debug, Clone)]
pub(crate) struct TopicRoute {
    pub(crate) frames: mpsc::Sender<Delivery>,
    pub(crate) signals: Signals,
    /// The active view, as the topic last showed it.
    pub(crate) neighbors: watch::Receiver<Vec<EndpointId>>,
}

/// One thing a connection hands to a topic.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) from: EndpointId,
    /// The connection it came over; later connections have higher numbers.
    pub(crate) connection: u64,
    pub(crate) what: Delivered,
    /// Given back when everyone it was passed on to has room for more; until then its link may bring only so much more.
    pub(crate) credit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(crate) enum Delivered {
    /// A message that passed inspection.
    Message(Inbound),
    /// The remote finished or lost its last stream for this topic on this connection.
    StreamEnded,
}

impl Delivered {
    /// Whether it is a message of the application.
    pub(crate) fn is_payload(&self) -> bool {
        matches!(self, Self::Message(inbound) if inbound.class == Class::Payload)
    }
}

impl Routes {
    pub(crate) fn open_topic(&self, topic: TopicId, route: TopicRoute) {
        self.write().topics.insert(topic, route);
    }

    pub(crate) fn close_topic(&self, topic: &TopicId) {
        self.write().topics.remove(topic);
    }

    /// The inbox of `topic`, if it is joined.
    pub(crate) fn inbox(&self, topic: &TopicId) -> Option<mpsc::Sender<Delivery>> {
        self.read().topics.get(topic).map(|route| route.frames.clone())
    }

    /// Adds a connection that is about to start. It has to stand here before its first frame reaches a topic: an answer
    /// that does not find it would go over an older connection, which may be dead.
    pub(crate) fn add_connection(&self, peer: EndpointId, source: LeaseSource) {
        self.write().peers.entry(peer).or_default().push(source);
    }

    /// Names the connections that `peer` is reached over, the one to use first.
    pub(crate) fn set_connections(&self, peer: EndpointId, sources: Vec<LeaseSource>) {
        let mut table = self.write();
        match sources.is_empty() {
            true => table.peers.remove(&peer),
            false => table.peers.insert(peer, sources),
        };
    }

    /// A lease on the connection that `peer` is reached over, if it has one that is still held.
    pub(crate) fn lease(&self, peer: &EndpointId) -> Option<Lease> {
        self.read().peers.get(peer)?.first()?.upgrade()
    }

    /// A lease on this one of its connections, if it is still held and not replaced.
    pub(crate) fn lease_on(&self, peer: &EndpointId, connection: u64) -> Option<Lease> {
        let table = self.read();
        let source = table.peers.get(peer)?.iter().find(|source| source.connection() == connection)?;
        source.upgrade().filter(|lease| !lease.is_stale())
    }

    /// Remotes with a connection.
    pub(crate) fn remotes(&self) -> usize {
        self.read().peers.len()
    }

    /// Whether a topic gossips with `peer`.
    pub(crate) fn is_neighbor(&self, peer: &EndpointId) -> bool {
        self.read().topics.values().any(|route| route.neighbors.borrow().contains(peer))
    }

    /// The best of what its connections have to their credit.
    pub(crate) fn merits(&self, peer: &EndpointId) -> Merits {
        let table = self.read();
        let all = table.peers.get(peer).into_iter().flatten().map(LeaseSource::merits);
        all.fold(Merits::default(), |best, one| Merits {
            rtt: best.rtt.into_iter().chain(one.rtt).min(),
            novel_at: best.novel_at.max(one.novel_at),
        })
    }

    /// Tells every topic what became of `peer`.
    pub(crate) fn signal(&self, peer: EndpointId, signal: Signal) {
        for route in self.read().topics.values() {
            route.signals.post(peer, signal);
        }
    }

    /// The supervisor of all remotes crashed, and every connection with it.
    pub(crate) fn forget_peers(&self) {
        let peers: Vec<_> = self.write().peers.drain().map(|(peer, _)| peer).collect();
        for peer in peers {
            self.signal(peer, Signal::Gone(Gone::Lost));
        }
    }

    /// The supervisor of all topics crashed, and every topic with it.
    pub(crate) fn forget_topics(&self) {
        self.write().topics.clear();
    }

    /// Entries of both tables.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let table = self.read();
        (table.topics.len(), table.peers.len())
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().expect("no holder panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().expect("no holder panics")
    }
}

/// How a remote went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its connection was lost, or an attempt to reach it failed.
    Lost,
    /// Either side retired the connection in order.
    Retired,
    /// We did not dial it, for reasons of our own.
    NotDialed,
}

/// What became of a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// There is a connection to lease, or another one than before.
    Reachable,
    /// The last connection is gone, or there will be none.
    Gone(Gone),
}

/// News about remotes for one topic. Bounded by construction: at most one entry per remote, later news merge into it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    news: Arc<Mutex<HashMap<EndpointId, News>>>,
    notify: Arc<Notify>,
}

/// What happened to one remote since the topic last looked, in this order: first gone, then reachable again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) gone: Option<Gone>,
    pub(crate) reachable: bool,
}

impl Signals {
    pub(crate) fn post(&self, peer: EndpointId, signal: Signal) {
        let mut all = self.news.lock().expect("no holder panics");
        let news = all.entry(peer).or_default();
        match signal {
            Signal::Reachable => news.reachable = true,
            Signal::Gone(how) => *news = News { gone: Some(how), reachable: false },
        }
        drop(all);
        self.notify.notify_one();
    }

    /// Wakes the topic for another reason.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Remotes there is news about.
    pub(crate) fn len(&self) -> usize {
        self.news.lock().expect("no holder panics").len()
    }

    /// Waits until there is something to take. Cancel-safe.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }

    pub(crate) fn take(&self) -> HashMap<EndpointId, News> {
        std::mem::take(&mut *self.news.lock().expect("no holder panics"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_about_one_remote_merge_in_order() {
        let peer = iroh::SecretKey::from_bytes(&[1; 32]).public();
        let signals = Signals::default();
        let after = |posted: &[Signal]| {
            posted.iter().for_each(|signal| signals.post(peer, *signal));
            signals.take()[&peer]
        };
        let (reachable, gone) = (Signal::Reachable, Signal::Gone(Gone::Lost));
        assert_eq!(after(&[reachable, gone]), News { gone: Some(Gone::Lost), reachable: false });
        assert_eq!(after(&[gone, reachable]), News { gone: Some(Gone::Lost), reachable: true });
        assert!(signals.take().is_empty());
    }
}
