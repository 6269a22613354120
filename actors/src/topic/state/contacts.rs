//! The remotes a topic has to do with, neighbours or not, and how far it is with parting from each. `[pure]`

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use iroh::EndpointId;
use n0_future::time::Instant;

/// Connections remembered per remote. Two live ones, and two that are ending.
const HEARD_OVER_MAX: usize = 4;

/// One remote this topic has exchanged messages with.
#[derive(Debug)]
pub(super) struct Contact {
    last_active: Instant,
    /// When it last brought a message nobody else had brought.
    news_at: Option<Instant>,
    /// Since when it has been no neighbour.
    stranger_since: Instant,
    /// Connections it was heard over whose streams have not ended. Each side numbers its own, so their order says
    /// nothing about which one the other side uses.
    heard_over: Vec<u64>,
    last_join: Option<(u64, Instant)>,
    /// A frame for it waits for a connection; then silence says nothing.
    waiting: bool,
    said_goodbye: bool,
    parting_until: Option<Instant>,
    /// Its stream has ended; only a word from it takes that back.
    mute_until: Option<Instant>,
}

impl Contact {
    fn new(now: Instant) -> Self {
        Self {
            last_active: now,
            news_at: None,
            stranger_since: now,
            heard_over: Vec::new(),
            last_join: None,
            waiting: false,
            said_goodbye: false,
            parting_until: None,
            mute_until: None,
        }
    }

    /// Whether it has open streams, as far as it was heard.
    pub(super) fn is_speaking(&self) -> bool {
        !self.heard_over.is_empty()
    }

    pub(super) fn is_parting(&self) -> bool {
        self.parting_until.is_some()
    }

    /// Whether the last word between us was a Disconnect, in either direction.
    pub(super) fn has_said_goodbye(&self) -> bool {
        self.said_goodbye
    }
}

/// All contacts of one topic: a few, looked up several times for each frame. Ids are compared in constant time where they are
/// tested for equality, as a hash table does, and bytewise where they are ordered.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    all: BTreeMap<EndpointId, Contact>,
}

impl Contacts {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, peer: &EndpointId) -> Option<&Contact> {
        self.all.get(peer)
    }

    /// It was the first to bring a message.
    pub(super) fn on_news(&mut self, peer: &EndpointId, now: Instant) {
        if let Some(contact) = self.all.get_mut(peer) {
            contact.news_at = Some(now);
        }
    }

    pub(super) fn brought_news_after(&self, peer: &EndpointId, time: Instant) -> bool {
        self.all.get(peer).is_some_and(|contact| contact.news_at > Some(time))
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = EndpointId> + '_ {
        self.all.keys().copied()
    }

    pub(super) fn remove(&mut self, peer: &EndpointId) {
        self.all.remove(peer);
    }

    /// It spoke. Anything but a Disconnect opens the contact again.
    pub(super) fn on_heard(&mut self, peer: EndpointId, connection: u64, is_goodbye: bool, now: Instant) {
        let contact = self.all.entry(peer).or_insert_with(|| Contact::new(now));
        contact.last_active = now;
        if !contact.heard_over.contains(&connection) {
            let excess = (contact.heard_over.len() + 1).saturating_sub(HEARD_OVER_MAX);
            contact.heard_over.drain(..excess);
            contact.heard_over.push(connection);
        }
        contact.waiting = false;
        contact.said_goodbye = is_goodbye;
        contact.mute_until = None;
        if !is_goodbye {
            contact.parting_until = None;
        }
    }

    /// Its stream on `connection` has ended.
    pub(super) fn on_stream_ended(&mut self, peer: &EndpointId, connection: u64) {
        if let Some(contact) = self.all.get_mut(peer) {
            contact.heard_over.retain(|open| *open != connection);
        }
    }

    /// It has no stream left; a word before `until` takes that back.
    pub(super) fn mute(&mut self, peer: &EndpointId, until: Instant) {
        if let Some(contact) = self.all.get_mut(peer) {
            contact.mute_until.get_or_insert(until);
        }
    }

    /// Whether a Join says something new: the first one, one over another connection, or one after a while.
    pub(super) fn on_join(&mut self, peer: &EndpointId, connection: u64, pause: Duration, now: Instant) -> bool {
        let Some(contact) = self.all.get_mut(peer) else { return true };
        let is_repeated =
            contact.last_join.is_some_and(|(over, at)| over == connection && now.duration_since(at) < pause);
        if !is_repeated {
            contact.last_join = Some((connection, now));
        }
        !is_repeated
    }

    /// We spoke.
    pub(super) fn on_sent(&mut self, peer: EndpointId, is_goodbye: bool, now: Instant) {
        let contact = self.all.entry(peer).or_insert_with(|| Contact::new(now));
        contact.last_active = now;
        contact.said_goodbye = is_goodbye;
        if !is_goodbye {
            contact.parting_until = None;
        }
    }

    pub(super) fn on_neighbor(&mut self, peer: EndpointId, now: Instant) {
        self.all.entry(peer).or_insert_with(|| Contact::new(now)).parting_until = None;
    }

    pub(super) fn on_stranger(&mut self, peer: &EndpointId, now: Instant) {
        if let Some(contact) = self.all.get_mut(peer) {
            contact.stranger_since = now;
            contact.last_active = now;
        }
    }

    pub(super) fn set_waiting(&mut self, peer: &EndpointId, waiting: bool) {
        if let Some(contact) = self.all.get_mut(peer) {
            contact.waiting = waiting;
        }
    }

    pub(super) fn part(&mut self, peer: EndpointId, until: Instant) {
        if let Some(contact) = self.all.get_mut(&peer) {
            contact.parting_until.get_or_insert(until);
            contact.waiting = false;
        }
    }

    /// Contacts whose time to finish on their side, or to open another stream, has run out.
    pub(super) fn parted_by(&self, now: Instant) -> Vec<EndpointId> {
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        self.select(|_, contact| is_over(contact.parting_until) || is_over(contact.mute_until))
    }

    /// Strangers that nobody has talked with for `linger`.
    pub(super) fn idle_since(
        &self,
        now: Instant,
        linger: Duration,
        neighbors: &BTreeSet<EndpointId>,
    ) -> Vec<EndpointId> {
        self.select(|peer, contact| {
            contact.is_open_stranger(peer, neighbors)
                && !contact.waiting
                && now.duration_since(contact.last_active) >= linger
        })
    }

    /// Strangers that have been talking for `patience` and still do.
    pub(super) fn stranger_since(
        &self,
        now: Instant,
        patience: Duration,
        neighbors: &BTreeSet<EndpointId>,
    ) -> Vec<EndpointId> {
        self.select(|peer, contact| {
            contact.is_open_stranger(peer, neighbors)
                && !contact.waiting
                && now.duration_since(contact.stranger_since) >= patience
        })
    }

    fn select(&self, wanted: impl Fn(&EndpointId, &Contact) -> bool) -> Vec<EndpointId> {
        let mut found: Vec<_> =
            self.all.iter().filter(|(peer, contact)| wanted(peer, contact)).map(|(peer, _)| *peer).collect();
        // The order of a hash map must not decide the order of effects: a seed is to replay.
        found.sort_unstable();
        found
    }
}

impl Contact {
    fn is_open_stranger(&self, peer: &EndpointId, neighbors: &BTreeSet<EndpointId>) -> bool {
        !self.is_parting() && !neighbors.contains(peer)
    }
}
