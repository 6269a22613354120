//! Messages that were to be pushed to a neighbour and found no room: it is told of them (IHave) when there is, and can ask.
//!
//! Plumtree announces a message only to those it is not pushed to. Who is pushed to and has no room would hear of it from others, if
//! there are any; in a tree there need not be.

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
    lease::Urgency,
    limits::IHAVE_IDS_MAX,
    wire::{Class, tree},
};

/// Messages remembered for one neighbour, the latest; eight times what its outbox holds, and what it asks for in a third of a second.
pub(super) const OWED_MAX: usize = 4096;

/// How often it is looked whether there is room. Guess; a fifth of the time after which the other side asks.
const PAUSE: Duration = Duration::from_millis(20);

/// For each neighbour the id and the round of each message, the oldest first.
#[derive(Debug)]
pub(super) struct Owed {
    look_at: Instant,
    all: BTreeMap<EndpointId, VecDeque<([u8; 32], u16)>>,
}

impl Owed {
    pub(super) fn new(now: Instant) -> Self {
        Self { look_at: now, all: BTreeMap::new() }
    }

    /// An encoded message for `peer` found no room.
    pub(super) fn note(&mut self, peer: EndpointId, frame: &[u8]) {
        let Some(announced) = tree::announced_of(frame) else { return };
        let owed = self.all.entry(peer).or_default();
        if owed.len() == OWED_MAX {
            owed.pop_front();
        }
        owed.push_back(announced);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Messages of the one who is owed most.
    pub(super) fn most(&self) -> usize {
        self.all.values().map(VecDeque::len).max().unwrap_or(0)
    }

    /// When to look for room.
    pub(super) fn look_at(&self) -> Instant {
        self.look_at
    }

    /// Takes one frame's worth for each neighbour that has room, encoded. `has_room`: `None` for whoever is told nothing any more.
    fn take(&mut self, has_room: impl Fn(&EndpointId) -> Option<bool>) -> Vec<(EndpointId, Bytes)> {
        let mut taken = Vec::new();
        self.all.retain(|peer, owed| {
            let Some(has_room) = has_room(peer) else { return false };
            if has_room {
                let some: Vec<_> = owed.drain(..owed.len().min(IHAVE_IDS_MAX)).collect();
                taken.push((*peer, tree::announcement(&some)));
            }
            !owed.is_empty()
        });
        taken
    }
}

impl Topic {
    /// A message found no room in the outbox of `peer`.
    pub(super) fn on_full(&mut self, peer: EndpointId, class: Class, frame: &[u8]) {
        self.context.common.counters.count(Reason::OutboxFull);
        if class == Class::Payload {
            self.payloads_dropped += 1;
            self.owed.note(peer, frame);
        }
    }

    /// Tells neighbours that have room again what was not pushed to them.
    pub(super) fn tell_owed(&mut self, now: Instant) {
        if self.owed.is_empty() || now < self.owed.look_at {
            return;
        }
        self.owed.look_at = now + PAUSE;
        let (leases, state) = (&self.leases, &self.state);
        let has_room = |peer: &EndpointId| {
            let lease = leases.get(peer).filter(|_| state.is_neighbor(peer))?;
            Some(!lease.is_crowded())
        };
        for (peer, frame) in self.owed.take(has_room) {
            if let Some(lease) = self.leases.get(&peer)
                && let Some(frame) = self.state.trim_announcement(&peer, frame)
            {
                // There was room a moment ago; if the connection has ended since, the neighbour will be one no more.
                let _untold = lease.send(self.outgoing(frame, false), Urgency::Payload, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Class, ProtoMessage, classify, encode, tree::graft};

    fn key(seed: u8) -> EndpointId {
        iroh::SecretKey::from_bytes(&[seed; 32]).public()
    }

    fn frame(number: u64, round: u16) -> (Bytes, [u8; 32]) {
        let content = number.to_be_bytes();
        let id = *blake3::hash(&content).as_bytes();
        let body = postcard::to_stdvec(&(1u8, 0u8, id, &content[..], 0u8, round)).unwrap();
        let message: ProtoMessage = postcard::from_bytes(&body).unwrap();
        assert_eq!(classify(&message), Class::Payload);
        (encode(&message).unwrap(), id)
    }

    #[test]
    fn what_found_no_room_is_announced_in_order_where_there_is_room() {
        let mut owed = Owed::new(Instant::now());
        for number in 0..150 {
            owed.note(key(2), &frame(number, 300).0);
        }
        owed.note(key(3), &frame(7, 0).0);
        owed.note(key(3), &encode(&graft()).unwrap());
        assert_eq!(owed.take(|_| Some(false)), []);
        let first = owed.take(|peer| Some(*peer == key(2)));
        assert_eq!(first.len(), 1);
        let expected: Vec<_> = (0..IHAVE_IDS_MAX as u64).map(|number| (frame(number, 0).1, 300u16)).collect();
        let body: (u8, u8, Vec<([u8; 32], u16)>) = postcard::from_bytes(&first[0].1[4..]).unwrap();
        assert_eq!(body, (1, 3, expected));
        assert_eq!(owed.most(), 150 - IHAVE_IDS_MAX);
        assert_eq!(owed.take(|_| Some(true)).len(), 2);
        assert!(owed.is_empty());
    }

    #[test]
    fn the_latest_are_remembered_and_whoever_is_gone_is_not() {
        let mut owed = Owed::new(Instant::now());
        for number in 0..OWED_MAX as u64 + 10 {
            owed.note(key(2), &frame(number, 0).0);
        }
        assert_eq!(owed.most(), OWED_MAX);
        let taken = owed.take(|_| Some(true));
        let body: (u8, u8, Vec<([u8; 32], u16)>) = postcard::from_bytes(&taken[0].1[4..]).unwrap();
        assert_eq!(body.2[0].0, frame(10, 0).1);
        assert_eq!(owed.take(|_| None), []);
        assert!(owed.is_empty());
    }
}
