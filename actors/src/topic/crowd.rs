//! Whom a topic waits for: remotes whose outboxes hardly have room. `[pure]`
//!
//! Until there is room again, or patience ends (`lease.rs`), the application publishes nothing more that would have to be dropped
//! for them. What remotes send is taken all the same: two nodes that forward to each other and wait for each other would stand
//! still until their patience ends.

use std::{collections::BTreeMap, time::Duration};

use iroh::EndpointId;
use n0_future::time::Instant;

use crate::lease::Lease;

/// How long a topic takes no command before it looks again. As short as a timer allows, and still longer than
/// a send half takes to write a batch.
const PAUSE: Duration = Duration::from_millis(2);

/// Those whose outboxes were crowded by what was last sent to them; neighbours, so a handful.
#[derive(Debug)]
pub(super) struct Crowd {
    peers: Vec<EndpointId>,
    resume_at: Instant,
}

impl Crowd {
    pub(super) fn new(now: Instant) -> Self {
        Self { peers: Vec::new(), resume_at: now }
    }

    /// The outbox of `peer` hardly has room.
    pub(super) fn note(&mut self, peer: EndpointId) {
        if !self.peers.contains(&peer) {
            self.peers.push(peer);
        }
    }

    /// Whether somebody is waited for. Asked again at [`Crowd::resume_at`]; each answer of yes after it has cost patience.
    pub(super) fn holds_back(&mut self, leases: &BTreeMap<EndpointId, Lease>, now: Instant) -> bool {
        if self.peers.is_empty() || self.resume_at > now {
            return !self.peers.is_empty();
        }
        self.peers.retain(|peer| leases.get(peer).is_some_and(|lease| lease.is_worth_waiting(PAUSE)));
        self.resume_at = now + PAUSE;
        !self.peers.is_empty()
    }

    /// When to look again.
    pub(super) fn resume_at(&self) -> Instant {
        self.resume_at
    }
}
