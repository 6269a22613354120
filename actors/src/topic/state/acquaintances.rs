//! Whom a topic could get in touch with when its view is small, and when it is time to ask. `[pure]`
//!
//! The protocol repairs its view from its passive view alone, and that forgets whoever does not answer within half a
//! second. Here is remembered, within bounds, whom the application named, who was a neighbour and who was introduced, and
//! who has just refused. This module only chooses; `state.rs` asks.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use iroh::EndpointId;
use n0_future::time::Instant;
use rand::{rngs::StdRng, seq::SliceRandom};

use crate::{backoff::Backoff, limits::Limits};

/// Remotes asked in one attempt to rejoin.
pub(super) const REJOIN_PEERS: usize = 3;

/// Remotes remembered as places to rejoin through, beside those the application named.
const FORMER_NEIGHBORS_MAX: usize = 16;

/// Introduced remotes remembered. As many as the passive view (HyParView, p. 9).
pub(super) const INTRODUCED_MAX: usize = 30;

/// Remotes the application may name as bootstrap; later ones replace the oldest.
pub(super) const BOOTSTRAP_MAX: usize = 64;

/// A remote that refused to become a neighbour is not asked again for this long. Without a pause a node that cannot
/// fill its view asks for ever: each refusal comes with a ShuffleReply, and each ShuffleReply makes the protocol ask the
/// next one, as fast as the network carries it.
const REFUSAL_PAUSE: Duration = Duration::from_secs(30);

/// Refusals remembered; beyond this many the next request may be one too early.
pub(super) const REFUSALS_MAX: usize = 256;

/// Pauses between two attempts to fill the view from outside the protocol. A view that stays small while remotes are
/// known may be an island; guesses, bounded by what a node may dial while nothing answers.
const HEAL_MIN: Duration = Duration::from_secs(2);
const HEAL_MAX: Duration = Duration::from_secs(60);

/// What outlives a crash of the state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// What the application named.
    pub(crate) bootstrap: Vec<EndpointId>,
    /// Whom the topic was in touch with.
    pub(crate) former_neighbors: Vec<EndpointId>,
}

/// Everybody a topic knows of, and its patience with each.
#[derive(Debug)]
pub(super) struct Acquaintances {
    bootstrap: Vec<EndpointId>,
    /// Bootstrap peers that have not answered since they were named. Without asking them again, two nodes that found
    /// each other but not the mesh would stay an island.
    unheard: Vec<EndpointId>,
    /// Latest first.
    former_neighbors: Vec<EndpointId>,
    /// Others of this topic that remotes have introduced, latest first.
    introduced: Vec<EndpointId>,
    refusals: HashMap<EndpointId, Instant>,
    rejoin: Backoff,
    rejoin_min: Duration,
    rejoin_at: Instant,
    heal: Backoff,
    heal_at: Instant,
}

impl Acquaintances {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            bootstrap: Vec::new(),
            unheard: Vec::new(),
            former_neighbors: Vec::new(),
            introduced: Vec::new(),
            refusals: HashMap::new(),
            rejoin: Backoff::new(limits.rejoin_min, limits.rejoin_max),
            rejoin_min: limits.rejoin_min,
            rejoin_at: now,
            heal: Backoff::new(HEAL_MIN, HEAL_MAX),
            heal_at: now + HEAL_MIN,
        }
    }

    /// The application names `peers`, who are asked at once.
    pub(super) fn on_join(
        &mut self,
        peers: &[EndpointId],
        neighbors: &BTreeSet<EndpointId>,
        rng: &mut StdRng,
        now: Instant,
    ) {
        self.bootstrap.retain(|known| !peers.contains(known));
        self.bootstrap.extend(peers);
        let excess = self.bootstrap.len().saturating_sub(BOOTSTRAP_MAX);
        self.bootstrap.drain(..excess);
        self.unheard = self.bootstrap.iter().copied().filter(|peer| !neighbors.contains(peer)).collect();
        self.rejoin_at = now + self.rejoin.next(rng);
    }

    /// Takes up what a crashed state knew, and returns whom to ask at once.
    pub(super) fn on_restart(&mut self, memory: Memory, rng: &mut StdRng, now: Instant) -> Vec<EndpointId> {
        self.former_neighbors = memory.former_neighbors;
        self.bootstrap = memory.bootstrap;
        self.rejoin_at = now + self.rejoin.next(rng);
        self.bootstrap.iter().chain(&self.former_neighbors).copied().collect()
    }

    /// What a state that has to be built anew should start from.
    pub(super) fn memory(&self, neighbors: &BTreeSet<EndpointId>) -> Memory {
        let former = neighbors.iter().chain(&self.former_neighbors).take(FORMER_NEIGHBORS_MAX);
        Memory { bootstrap: self.bootstrap.clone(), former_neighbors: former.copied().collect() }
    }

    /// Bootstrap peers, introduced remotes, refusals.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.bootstrap.len(), self.introduced.len(), self.refusals.len()]
    }

    pub(super) fn on_heard(&mut self, peer: &EndpointId) {
        self.unheard.retain(|unheard| unheard != peer);
    }

    pub(super) fn on_introduced(&mut self, peer: EndpointId) {
        remember(&mut self.introduced, peer, INTRODUCED_MAX);
    }

    /// A remote that is no neighbour said goodbye.
    pub(super) fn on_refused(&mut self, peer: EndpointId, now: Instant) {
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.insert(peer, now);
        }
    }

    /// A remote takes the first step itself. What we say next answers it, and must not be held back.
    pub(super) fn on_approached(&mut self, peer: &EndpointId) {
        self.refusals.remove(peer);
    }

    pub(super) fn has_refused(&self, peer: &EndpointId) -> bool {
        self.refusals.contains_key(peer)
    }

    /// Whether the application has named this remote.
    pub(super) fn is_named(&self, peer: &EndpointId) -> bool {
        self.bootstrap.contains(peer)
    }

    /// Everybody the application has named.
    pub(super) fn named(&self) -> &[EndpointId] {
        &self.bootstrap
    }

    /// A remote that is no neighbour was lost or could not be reached.
    pub(super) fn on_lost(&mut self, peer: &EndpointId) {
        self.former_neighbors.retain(|former| former != peer);
        self.introduced.retain(|introduced| introduced != peer);
    }

    pub(super) fn on_first_neighbor(&mut self) {
        self.rejoin.reset();
    }

    pub(super) fn on_neighbor_down(&mut self, peer: EndpointId, rng: &mut StdRng, now: Instant) {
        remember(&mut self.former_neighbors, peer, FORMER_NEIGHBORS_MAX);
        self.rejoin_at = self.rejoin_at.max(now + self.rejoin_min / 2);
        self.heal.reset();
        self.heal_at = now + self.heal.next(rng);
    }

    /// Everybody worth asking, the application's word first.
    pub(super) fn candidates(&self, neighbors: &BTreeSet<EndpointId>) -> Vec<EndpointId> {
        let mut all = self.bootstrap.clone();
        for peer in neighbors.iter().chain(&self.former_neighbors).chain(&self.introduced) {
            if !all.contains(peer) {
                all.push(*peer);
            }
        }
        all
    }

    /// Whom to join through now: while there is no neighbour, or a bootstrap peer has not answered. `is_due`: there is reason
    /// not to wait for the pause to end.
    pub(super) fn next_join(
        &mut self,
        neighbors: &BTreeSet<EndpointId>,
        is_due: bool,
        rng: &mut StdRng,
        now: Instant,
    ) -> Vec<EndpointId> {
        self.refusals.retain(|_, refused_at| now.duration_since(*refused_at) < REFUSAL_PAUSE);
        let is_alone = neighbors.is_empty();
        if (!is_alone && self.unheard.is_empty()) || (now < self.rejoin_at && !is_due) {
            return Vec::new();
        }
        self.rejoin_at = now + self.rejoin.next(rng);
        let mut candidates = if is_alone { self.candidates(neighbors) } else { self.unheard.clone() };
        candidates.shuffle(rng);
        candidates.truncate(REJOIN_PEERS);
        candidates
    }

    /// Whom to ask politely now, to fill a view that has room. `is_busy`: those we are in touch with anyway.
    pub(super) fn next_request(
        &mut self,
        neighbors: &BTreeSet<EndpointId>,
        is_busy: impl Fn(&EndpointId) -> bool,
        rng: &mut StdRng,
        now: Instant,
    ) -> Option<EndpointId> {
        if now < self.heal_at {
            return None;
        }
        self.heal_at = now + self.heal.next(rng);
        let mut candidates = self.candidates(neighbors);
        candidates.retain(|peer| !is_busy(peer) && !self.has_refused(peer));
        candidates.shuffle(rng);
        candidates.pop()
    }
}

/// Puts `peer` first in a short list of the latest.
fn remember(latest: &mut Vec<EndpointId>, peer: EndpointId, max: usize) {
    latest.retain(|known| *known != peer);
    latest.insert(0, peer);
    latest.truncate(max);
}
