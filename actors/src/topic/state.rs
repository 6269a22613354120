//! What a topic thinks: the gossip protocol's state behind `on_*` → [`Effect`]. `[pure]`
//!
//! One `iroh_gossip::proto::topic::State` (HyParView and Plumtree) lives here, with what it needs from outside to stay
//! bounded: timers, contacts, the watchdog that rejoins, the sweep. The contract in one sentence: the state hears
//! `PeerDisconnected` exactly once each time a remote is done with this topic. Nothing here waits, sends or knows a
//! connection; `topic.rs` does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use iroh::EndpointId;
use iroh_gossip::proto::{
    self, Scope,
    topic::{Command, InEvent, OutEvent},
};
use n0_future::time::Instant;
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    counters::Reason,
    error::PublishError,
    handle::{DownReason, Event, Message},
    limits::{CONTENT_MAX, FRAME_MAX, Limits},
    routes::Gone,
    wire::{self, Class, ProtoMessage, inspect::Inbound},
};

mod acquaintances;
mod announcements;
mod approvals;
mod bootstrap;
mod contacts;
mod entry;
mod housekeeping;
mod kept;
mod pruning;
mod recent;
mod sizes;
mod timers;

use acquaintances::Acquaintances;
pub(crate) use acquaintances::Memory;
use approvals::Approvals;
use bootstrap::Bootstrap;
use contacts::{Contact, Contacts};
use kept::Kept;
use recent::Recent;
pub(crate) use sizes::STORES;
use timers::Timers;

/// Timers fired in one go; the rest wait for the next turn, so that frames are not starved.
const TIMERS_PER_TURN: usize = 256;

/// A remote whose stream has ended is done with the topic unless it opens another one within this long. A few round
/// trips of a slow path.
const STREAM_END_GRACE: Duration = Duration::from_secs(1);

/// Room for so many effects is kept from one event to the next: more than one frame ever causes in a view of five.
const SPARE_MAX: usize = 64;

/// Messages of our own that are recognised when they are published again. Guess.
const PUBLISHED_MAX: usize = 8192;

/// What the topic's loop must do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send `message` to `to`.
    Send { to: EndpointId, message: ProtoMessage },
    /// Part from a remote that is no neighbour with the farewell, and let go of its connection.
    Farewell(EndpointId),
    /// Let go of the connection of a remote that was not approved. It is owed a farewell, but not before the connection
    /// retires: a stock node that hears one on any topic stops talking on all of them.
    Decline(EndpointId),
    /// Ask the embedder about this remote, and come back with the number and its word.
    Ask { peer: EndpointId, number: u64 },
    /// Nobody waits for the embedder's word on this remote any more. Goes without saying with [`Effect::Farewell`],
    /// [`Effect::Decline`] and [`Effect::Release`].
    Unask(EndpointId),
    /// Finish our stream to this remote and let go of its connection.
    Release(EndpointId),
    /// This remote may be dialed once although its pause is not over.
    Hasten(EndpointId),
    /// Tell the application.
    Emit(Event),
    /// Count something dropped.
    Count(Reason, u64),
}

/// The thinking half of one topic.
#[derive(Debug)]
pub(crate) struct State {
    me: EndpointId,
    limits: Limits,
    proto: proto::topic::State<EndpointId, StdRng>,
    timers: Timers,
    announced_since_sweep: usize,
    neighbors: BTreeSet<EndpointId>,
    view_changes: u64,
    contacts: Contacts,
    approvals: Approvals,
    /// When we last said Neighbor to whom, until it says it to us. The protocol takes each of these for a request under way:
    /// it does not fill a view whose places such requests seem to have taken, and does not answer a remote that has one.
    /// But an answer is not answered, so those it would wait for to the end of the neighbourhood.
    unanswered: BTreeMap<EndpointId, Instant>,
    ids_kept: Kept,
    messages_kept: Kept,
    announced: Recent,
    published: Recent,
    acquaintances: Acquaintances,
    bootstrap: Bootstrap,
    view_max: usize,
    housekeeping_at: Instant,
    sweep_at: Instant,
    rng: StdRng,
    /// Empty, with the room that the last events needed: one of each for every frame would be most of what it costs.
    outputs: Vec<OutEvent<EndpointId>>,
    spare: Vec<Effect>,
}

impl State {
    pub(crate) fn new(me: EndpointId, limits: Limits, mut rng: StdRng, now: Instant) -> Self {
        let mut config = proto::topic::Config { max_message_size: FRAME_MAX, ..Default::default() };
        config.broadcast.message_cache_retention = limits.message_retention;
        config.broadcast.dispatch_timeout = limits.announce_interval;
        config.broadcast.graft_timeout_1 = limits.graft_timeout;
        config.broadcast.graft_timeout_2 = limits.graft_timeout / 2;
        let id_retention = config.broadcast.message_id_retention;
        // Content that is dropped early takes with it the ids that would have been dropped until its own time was over.
        config.broadcast.message_id_retention += limits.message_retention;
        config.membership.shuffle_interval = limits.shuffle_interval;
        let view_max = config.membership.active_view_capacity;
        let ids_kept = Kept::new(config.broadcast.message_id_retention, now);
        let proto = proto::topic::State::with_rng(me, None, config, StdRng::from_rng(&mut rng));
        Self {
            me,
            proto,
            timers: Timers::new(&limits, now),
            announced_since_sweep: 0,
            neighbors: BTreeSet::new(),
            view_changes: 0,
            contacts: Contacts::default(),
            approvals: Approvals::new(&limits),
            unanswered: BTreeMap::new(),
            ids_kept,
            messages_kept: Kept::new(limits.message_retention, now),
            announced: Recent::new(&mut rng, limits.announced_max * 4, Duration::from_secs(5), now),
            published: Recent::new(&mut rng, PUBLISHED_MAX, id_retention, now),
            acquaintances: Acquaintances::new(&limits, now),
            bootstrap: Bootstrap::new(&limits, now),
            view_max,
            housekeeping_at: now + limits.tick,
            sweep_at: now + limits.sweep_interval,
            rng,
            limits,
            outputs: Vec::new(),
            spare: Vec::new(),
        }
    }

    pub(crate) fn is_neighbor(&self, peer: &EndpointId) -> bool {
        self.neighbors.contains(peer)
    }

    pub(crate) fn neighbors(&self) -> impl ExactSizeIterator<Item = EndpointId> + '_ {
        self.neighbors.iter().copied()
    }

    /// How often the neighbours have changed.
    pub(crate) fn view_changes(&self) -> u64 {
        self.view_changes
    }

    pub(crate) fn contacts(&self) -> usize {
        self.contacts.len()
    }

    /// What a state that has to be built anew should start from.
    pub(crate) fn memory(&self) -> Memory {
        self.acquaintances.memory(&self.neighbors)
    }

    /// Whether this remote is a contact the topic has not parted from, so that a lease on it may be held.
    pub(crate) fn is_open(&self, peer: &EndpointId) -> bool {
        self.neighbors.contains(peer) || self.contacts.get(peer).is_some_and(|contact| !contact.is_parting())
    }

    /// When [`State::on_deadlines`] wants to be called next.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.timers.next().map_or(self.housekeeping_at, |timer_at| timer_at.min(self.housekeeping_at))
    }

    /// Messages wait to be let in: nothing is asked for that may be among them, until the time that it usually takes has passed
    /// without one.
    pub(crate) fn on_held_back(&mut self, now: Instant) {
        self.timers.ask_from(now + self.limits.graft_timeout);
    }

    /// The application names places to join through.
    pub(crate) fn on_join(&mut self, peers: Vec<EndpointId>, now: Instant) -> Vec<Effect> {
        let peers: Vec<_> = peers.into_iter().filter(|peer| *peer != self.me).collect();
        self.acquaintances.on_join(&peers, &self.neighbors, &mut self.rng, now);
        let mut effects = self.on_named(&peers, now);
        effects.extend(self.feed(InEvent::Command(Command::Join(peers)), DownReason::Evicted, now));
        effects
    }

    /// Takes up what a crashed state knew.
    pub(crate) fn on_restart(&mut self, memory: Memory, now: Instant) -> Vec<Effect> {
        let peers = self.acquaintances.on_restart(memory, &mut self.rng, now);
        self.feed(InEvent::Command(Command::Join(peers)), DownReason::Evicted, now)
    }

    /// The application publishes. Returns whether the same content was published within the id retention (90 s).
    ///
    /// # Errors
    ///
    /// [`PublishError::TooLarge`] beyond [`CONTENT_MAX`].
    pub(crate) fn on_publish(&mut self, content: Bytes, now: Instant) -> Result<(bool, Vec<Effect>), PublishError> {
        if content.len() > CONTENT_MAX {
            return Err(PublishError::TooLarge { size: content.len(), limit: CONTENT_MAX });
        }
        let repeated = !self.published.insert(&content, now);
        if !repeated {
            self.note_kept(content.len(), now);
        }
        let command = Command::Broadcast(content.clone(), Scope::Swarm);
        let mut effects = self.feed(InEvent::Command(command), DownReason::Evicted, now);
        self.push_to_somebody(&content, &mut effects, now);
        Ok((repeated, effects))
    }

    /// The application leaves. Nothing may be fed afterwards.
    pub(crate) fn on_quit(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = self.feed(InEvent::Command(Command::Quit), DownReason::Evicted, now);
        // Those we only talked with hear nothing from the protocol. A stock node that is closed on without a word sends
        // into the dead connection for ever (`net.rs`, 0.101.0), so they get the farewell.
        let is_told = |peer: &EndpointId| {
            self.neighbors.contains(peer) || self.contacts.get(peer).is_some_and(Contact::has_said_goodbye)
        };
        let parting = |peer| if is_told(&peer) { Effect::Release(peer) } else { Effect::Farewell(peer) };
        effects.extend(self.contacts.peers().map(parting));
        effects
    }

    /// A message that passed inspection.
    pub(crate) fn on_message(
        &mut self,
        from: EndpointId,
        connection: u64,
        inbound: Inbound,
        now: Instant,
    ) -> Vec<Effect> {
        let mut inbound = match self.await_approval(from, connection, inbound, now) {
            Ok(inbound) => inbound,
            Err(effects) => return effects,
        };
        if let Some(refused) = self.refuse(&from, connection, &inbound, now) {
            return vec![refused];
        }
        let untaken = self.trim_announced(&from, &mut inbound, now);
        if untaken.is_some() && inbound.announced.is_empty() {
            return untaken.into_iter().collect();
        }
        let is_goodbye = inbound.class == Class::Disconnect;
        self.acquaintances.on_heard(&from);
        self.note_heard(&from, now);
        if is_goodbye && !self.neighbors.contains(&from) {
            self.acquaintances.on_refused(from, now);
        }
        self.contacts.on_heard(from, connection, is_goodbye, now);
        if inbound.class == Class::Membership {
            self.acquaintances.on_approached(&from);
        }
        if is_goodbye || wire::is_neighbor(&inbound.message) {
            self.unanswered.remove(&from);
        }
        for (peer, _address) in inbound.learned {
            self.acquaintances.on_introduced(peer);
        }
        let cause = if is_goodbye { DownReason::Left } else { DownReason::Evicted };
        let mut effects = Vec::new();
        if inbound.class == Class::Membership && self.neighbors.contains(&from) && inbound.message == wire::join() {
            // A neighbour that joins has lost its state: it was restarted, or it does not know of us. Without this the
            // protocol believes a request of ours to be pending, and answers none of its Joins.
            effects = self.feed(InEvent::PeerDisconnected(from), DownReason::ConnectionLost, now);
        }
        let of_message = self.feed_message(from, inbound.message, inbound.class, cause, now);
        match effects.is_empty() {
            true => effects = of_message,
            false => effects.extend(of_message),
        }
        effects.extend(untaken);
        if is_goodbye && !self.neighbors.contains(&from) {
            self.part(from, now);
            effects.push(Effect::Release(from));
        }
        effects
    }

    /// The remote ended its last stream for this topic on `connection`.
    ///
    /// After a Disconnect that is its last word. Otherwise it gets a moment: it may have parted while a request of ours
    /// was on its way, and is now opening a new stream to answer it. Two nodes that took each other's end of stream at
    /// its word would make up and part for ever.
    pub(crate) fn on_stream_ended(&mut self, from: EndpointId, connection: u64, now: Instant) -> Vec<Effect> {
        self.contacts.on_stream_ended(&from, connection);
        match self.contacts.get(&from) {
            // It speaks over another connection as well.
            Some(contact) if contact.is_speaking() => Vec::new(),
            Some(contact) if contact.has_said_goodbye() && !self.neighbors.contains(&from) => {
                self.on_peer_done(from, Ending::Polite, now)
            }
            Some(_) => {
                self.contacts.mute(&from, now + STREAM_END_GRACE);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// A frame waits for a connection to this remote.
    pub(crate) fn on_waiting(&mut self, peer: EndpointId) {
        self.contacts.set_waiting(&peer, true);
    }

    /// There is a connection to this remote.
    pub(crate) fn on_reachable(&mut self, peer: EndpointId) {
        self.contacts.set_waiting(&peer, false);
    }

    /// The last connection to this remote is gone, or there will be none.
    pub(crate) fn on_gone(&mut self, peer: EndpointId, how: Gone, now: Instant) -> Vec<Effect> {
        self.note_gone(&peer, how, now);
        let Some(contact) = self.contacts.get(&peer) else { return Vec::new() };
        let is_polite = match how {
            Gone::Lost => contact.is_parting(),
            Gone::Retired | Gone::NotDialed => true,
        };
        let ending = if is_polite && !self.neighbors.contains(&peer) { Ending::Polite } else { Ending::Lost };
        if ending == Ending::Lost && !self.neighbors.contains(&peer) {
            self.acquaintances.on_lost(&peer);
        }
        self.on_peer_done(peer, ending, now)
    }

    /// Fires the timers that are due and keeps house.
    pub(crate) fn on_deadlines(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..TIMERS_PER_TURN {
            let Some(timer) = self.timers.take_due(now) else { break };
            effects.extend(self.feed(InEvent::TimerExpired(timer), DownReason::Evicted, now));
        }
        if self.housekeeping_at <= now {
            self.housekeeping_at = now + self.limits.tick;
            self.keep_house(now, &mut effects);
        }
        effects
    }

    /// The one place where the state hears that a remote is done with this topic.
    fn on_peer_done(&mut self, peer: EndpointId, ending: Ending, now: Instant) -> Vec<Effect> {
        self.contacts.remove(&peer);
        self.approvals.on_parted(peer, now);
        self.unanswered.remove(&peer);
        let mut effects = Vec::new();
        if ending == Ending::Polite && !self.neighbors.contains(&peer) {
            // It was alive when we parted: without this the next line would also drop it from the passive view.
            let alive = InEvent::RecvMessage(peer, wire::disconnect(true));
            effects.extend(self.feed(alive, DownReason::Left, now));
        }
        effects.extend(self.feed(InEvent::PeerDisconnected(peer), DownReason::ConnectionLost, now));
        if !self.is_open(&peer) {
            effects.push(Effect::Release(peer));
        }
        effects
    }

    fn part(&mut self, peer: EndpointId, now: Instant) {
        self.contacts.part(peer, now + self.limits.farewell_timeout);
        self.approvals.on_parted(peer, now);
    }

    /// Takes back effects that have been applied, for their room.
    pub(crate) fn reuse(&mut self, mut effects: Vec<Effect>) {
        effects.clear();
        if effects.capacity() <= SPARE_MAX {
            self.spare = effects;
        }
    }

    /// Feeds one event and translates what comes out.
    fn feed(&mut self, event: InEvent<EndpointId>, cause: DownReason, now: Instant) -> Vec<Effect> {
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.extend(self.proto.handle(event, now));
        let mut effects = std::mem::take(&mut self.spare);
        let mut addressed_self = false;
        for output in outputs.drain(..) {
            match output {
                OutEvent::SendMessage(to, _) if to.as_bytes() == self.me.as_bytes() => addressed_self = true,
                // Plumtree speaks with neighbours only. What was queued for one that has left would make it a contact again,
                // and put us into its sets.
                OutEvent::SendMessage(to, ProtoMessage::Gossip(_)) if !self.neighbors.contains(&to) => {}
                OutEvent::SendMessage(to, message)
                    if self.acquaintances.has_refused(&to) && message == wire::neighbor_request() => {}
                OutEvent::SendMessage(to, message) if !self.may_be_told(&to, &message, now) => {
                    if wire::is_neighbor(&message) {
                        // The protocol takes it for a request under way.
                        self.unanswered.insert(to, now);
                    }
                }
                OutEvent::SendMessage(to, message) => {
                    if wire::is_neighbor(&message) {
                        self.unanswered.insert(to, now);
                    }
                    self.contacts.on_sent(to, message.is_disconnect(), now);
                    effects.push(Effect::Send { to, message });
                }
                OutEvent::EmitEvent(event) => effects.extend(self.on_event(event, cause, now).map(Effect::Emit)),
                OutEvent::ScheduleTimer(delay, timer) => self.timers.set(delay, timer, now),
                OutEvent::DisconnectPeer(peer) => {
                    if self.contacts.get(&peer).is_some_and(Contact::has_said_goodbye) {
                        self.part(peer, now);
                        effects.push(Effect::Release(peer));
                    }
                }
                // The inspector took all address data out before the state saw it.
                OutEvent::PeerData(_, _) => {}
            }
        }
        if outputs.capacity() <= SPARE_MAX {
            self.outputs = outputs;
        }
        if addressed_self {
            effects.push(Effect::Count(Reason::SelfAddressed, 1));
            // Otherwise a pending request to ourselves would hold a place in the view for ever.
            effects.extend(self.feed(InEvent::PeerDisconnected(self.me), cause, now));
        }
        effects
    }

    fn on_event(&mut self, event: proto::topic::Event<EndpointId>, cause: DownReason, now: Instant) -> Option<Event> {
        match event {
            proto::topic::Event::NeighborUp(peer) => {
                if self.neighbors.is_empty() {
                    self.acquaintances.on_first_neighbor();
                }
                self.contacts.on_neighbor(peer, now);
                self.view_changes += 1;
                self.neighbors.insert(peer).then_some(Event::NeighborUp(peer))
            }
            proto::topic::Event::NeighborDown(peer) => {
                self.acquaintances.on_neighbor_down(peer, &mut self.rng, now);
                self.contacts.on_stranger(&peer, now);
                self.view_changes += 1;
                self.neighbors.remove(&peer).then_some(Event::NeighborDown { peer, reason: cause })
            }
            proto::topic::Event::Received(received) => {
                self.note_kept(received.content.len(), now);
                let hops = wire::hops_of(&received.scope);
                Some(Event::Received(Message {
                    content: received.content,
                    delivered_from: received.delivered_from,
                    hops,
                }))
            }
        }
    }

    /// The protocol state's own description. Its fields are private; tests read their bounds from here.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> String {
        format!("{:?}", self.proto)
    }
}

/// How a remote came to be done with the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It parted, or was parted from, in order.
    Polite,
    /// Its connection was lost or could not be made.
    Lost,
}

#[cfg(test)]
mod tests;
