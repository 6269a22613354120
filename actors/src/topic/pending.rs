//! Frames that wait for a connection. Bounded in remotes, in frames for each, and in time.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use iroh::EndpointId;
use n0_future::time::Instant;

use super::Topic;
use crate::{
    counters::Reason,
    redial::{Wish, WishWatch},
    routes::{Gone, Signal},
};

/// Remotes frames may wait for. Each waits at most one dial; beyond this many a node is being played with.
pub(super) const PEERS_MAX: usize = 256;

/// All frames of one topic that wait.
#[derive(Debug)]
pub(super) struct Pending {
    frames_max: usize,
    patience: Duration,
    peers: BTreeMap<EndpointId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    frames: VecDeque<Bytes>,
    until: Instant,
    wish: Wish,
}

impl Pending {
    /// `frames_max` for one remote, the oldest dropped first; each waits for an answer for at most `patience`.
    pub(super) fn new(frames_max: usize, patience: Duration) -> Self {
        Self { frames_max, patience, peers: BTreeMap::new() }
    }

    /// Remotes that frames wait for.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn is_waiting(&self, peer: &EndpointId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Lets `frames` wait for `peer`, and tells whoever dials it for how long; `None` when frames already wait for too many
    /// others.
    #[must_use]
    pub(super) fn push(&mut self, peer: EndpointId, frames: VecDeque<Bytes>, now: Instant) -> Option<WishWatch> {
        if !self.is_waiting(&peer) && self.peers.len() >= PEERS_MAX {
            return None;
        }
        let until = now + self.patience;
        let fresh = || Waiting { frames: VecDeque::new(), until, wish: Wish::default() };
        let waiting = self.peers.entry(peer).or_insert_with(fresh);
        waiting.frames.extend(frames);
        let excess = waiting.frames.len().saturating_sub(self.frames_max);
        waiting.frames.drain(..excess);
        Some(waiting.wish.watch())
    }

    /// What waited for `peer`, oldest first; `None` when nothing did.
    pub(super) fn take(&mut self, peer: &EndpointId) -> Option<VecDeque<Bytes>> {
        self.peers.remove(peer).map(|waiting| waiting.frames)
    }

    /// Forgets and returns those whose answer never came: their supervisor crashed in between.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<EndpointId> {
        let is_overdue = |waiting: &Waiting| waiting.until <= now;
        let overdue: Vec<_> =
            self.peers.iter().filter(|(_, waiting)| is_overdue(waiting)).map(|(peer, _)| *peer).collect();
        overdue.iter().for_each(|peer| drop(self.peers.remove(peer)));
        overdue
    }
}

impl Topic {
    pub(super) fn wait_for(&mut self, peer: EndpointId, frames: VecDeque<Bytes>) {
        let Some(wish) = self.pending.push(peer, frames, Instant::now()) else {
            self.context.common.counters.count(Reason::DialRefused);
            // Heard like any other attempt that was not made.
            return self.inboxes.signals.post(peer, Signal::Gone(Gone::NotDialed));
        };
        self.state.on_waiting(peer);
        (self.context.want)(peer, wish);
    }

    /// An answer that never came must not keep contacts for ever.
    pub(super) fn give_up_pending(&mut self, now: Instant) {
        for peer in self.pending.take_overdue(now) {
            let effects = self.state.on_gone(peer, Gone::NotDialed, now);
            self.apply(effects, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u16) -> EndpointId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&seed.to_be_bytes());
        iroh::SecretKey::from_bytes(&bytes).public()
    }

    #[test]
    fn remotes_frames_and_time_are_bounded() {
        let now = Instant::now();
        let mut pending = Pending::new(2, Duration::from_secs(20));
        for number in 0..3u8 {
            assert!(pending.push(key(0), [Bytes::from(vec![number])].into(), now).is_some_and(|wish| wish.is_held()));
        }
        let wish = pending.push(key(0), VecDeque::new(), now).expect("it waits already");
        assert_eq!(pending.take(&key(0)), Some([Bytes::from(vec![1]), Bytes::from(vec![2])].into()));
        assert!(!wish.is_held(), "nothing waits any more");
        let accepted = (0..300).filter(|seed| pending.push(key(*seed), VecDeque::new(), now).is_some()).count();
        assert_eq!(accepted, PEERS_MAX);
        assert!(pending.take_overdue(now + Duration::from_secs(19)).is_empty());
        assert_eq!(pending.take_overdue(now + Duration::from_secs(20)).len(), PEERS_MAX);
        assert!(!pending.is_waiting(&key(1)));
    }
}
