//! Whom a topic waits for: neighbours whose outboxes hardly have room, and subscribers whose queues hardly have.
//!
//! Until there is room again, or patience ends (`pace.rs`), nothing more is brought that would have to be dropped for them: the
//! application publishes nothing, and each link whose message crowded somebody gets no credit back, so that it brings only so much
//! more (`connection/receive.rs`) and slows its sender down by QUIC's flow control. Links that bring nothing new are never held,
//! and a message is passed on along a tree, so nodes wait for each other in a circle only while the tree has one.

use std::collections::BTreeMap;

use iroh::EndpointId;
use n0_future::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    lease::Lease,
    pace::{PAUSE, Waiting},
    subscribers::Subscribers,
};

/// Those who were crowded by what was last sent to them.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Neighbours, so a handful.
    peers: Vec<EndpointId>,
    has_readers: bool,
    /// Somebody was noted since the last message was settled.
    is_news: bool,
    /// Of the links that crowded them.
    credits: Vec<OwnedSemaphorePermit>,
    resume_at: Instant,
}

impl Crowd {
    pub(super) fn new(now: Instant) -> Self {
        Self { peers: Vec::new(), has_readers: false, is_news: false, credits: Vec::new(), resume_at: now }
    }

    /// The outbox of `peer` hardly has room.
    pub(super) fn note(&mut self, peer: EndpointId) {
        self.is_news = true;
        if !self.peers.contains(&peer) {
            self.peers.push(peer);
        }
    }

    /// The queue of some subscriber hardly has room.
    pub(super) fn note_readers(&mut self) {
        self.is_news = true;
        self.has_readers = true;
    }

    /// A message has been passed on. Its link gets the credit back, at once or when those it crowded have room.
    pub(super) fn settle(&mut self, credit: Option<OwnedSemaphorePermit>) {
        if std::mem::take(&mut self.is_news) {
            self.credits.extend(credit);
        }
    }

    /// Whether somebody is waited for. Asked again at [`Crowd::resume_at`]; each answer of yes after it has cost patience.
    pub(super) fn holds_back(
        &mut self,
        leases: &BTreeMap<EndpointId, Lease>,
        subscribers: &Subscribers,
        now: Instant,
    ) -> bool {
        if self.is_empty() || self.resume_at > now {
            return !self.is_empty();
        }
        self.resume_at = now + PAUSE;
        let for_readers = if self.has_readers { subscribers.wait() } else { Waiting::Nobody };
        self.has_readers = for_readers > Waiting::Nobody;
        let mut all = for_readers;
        self.peers.retain(|peer| {
            let for_peer = leases.get(peer).map_or(Waiting::Nobody, Lease::wait);
            all = all.max(for_peer);
            for_peer > Waiting::Nobody
        });
        if all < Waiting::Everyone {
            self.credits.clear();
        }
        !self.is_empty()
    }

    /// Whether there may be messages that were not let in.
    pub(super) fn holds_links(&self) -> bool {
        !self.credits.is_empty()
    }

    /// When to look again.
    pub(super) fn resume_at(&self) -> Instant {
        self.resume_at
    }

    fn is_empty(&self) -> bool {
        self.peers.is_empty() && !self.has_readers
    }
}
