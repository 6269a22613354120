//! One loop per topic: frames and commands in, effects applied, timers kept. It never waits for a remote.
//!
//! Thinking is in `topic/state.rs`. What outlives this loop ([`TopicInboxes`]) is kept by `topics.rs`, so that a
//! respawned topic has the same address. Leases are taken here when the protocol talks to a remote, and dropped here
//! when it is done with it: that is what keeps connections alive, and nothing else does.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use iroh::EndpointId;
use iroh_gossip::proto::TopicId;
use n0_future::time::{Instant, sleep_until};
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};

use crate::{
    backends::Backend,
    context::Context,
    counters::Reason,
    handle::{Command, Event, Receipt},
    lease::{Lease, Outgoing, SendRefused, Urgency},
    mishaps::Loop,
    redial::WishWatch,
    routes::{Delivered, Delivery, Signals},
    subscribers::Subscribers,
    supervisor::Heartbeat,
    wire::{self, Class, ProtoMessage, addr::AddrInfo},
};

mod asking;
mod crowd;
pub(crate) mod gauges;
mod owed;
mod parting;
mod pending;
pub(crate) mod state;

use asking::Asking;
use crowd::Crowd;
use gauges::{Gauges, LoopSizes};
use owed::Owed;
use pending::Pending;
use state::{Effect, Memory, State};

/// Frames handled in one turn. Large enough to coalesce writes, small enough that commands and clocks get their turn.
const FRAMES_PER_TURN: usize = 64;

/// Clocks that are due wait this long for the frames that are here. Guess; a tenth of the shortest time anybody waits for a
/// node.
const CLOCK_PATIENCE: Duration = Duration::from_millis(200);

/// Commands handled in one turn.
const COMMANDS_PER_TURN: usize = 16;

/// The receiving ends of a topic, and what the application watches. They outlive the loop.
#[derive(Debug)]
pub(crate) struct TopicInboxes {
    pub(crate) frames: tokio::sync::Mutex<mpsc::Receiver<Delivery>>,
    pub(crate) commands: tokio::sync::Mutex<mpsc::Receiver<Command>>,
    pub(crate) signals: Signals,
    pub(crate) events: Subscribers,
    pub(crate) neighbors: watch::Sender<Vec<EndpointId>>,
    /// What a respawned loop starts from.
    pub(crate) memory: Mutex<Memory>,
    pub(crate) contacts: AtomicUsize,
    /// How large the stores of the topic are.
    pub(crate) gauges: Gauges,
    /// Questions to the embedder that are open.
    pub(crate) approvals: Arc<AtomicUsize>,
}

/// What every topic loop of a mesh shares.
#[derive(Clone)]
pub(crate) struct TopicContext {
    pub(crate) common: Context,
    /// Our own addresses, as the endpoint knows them.
    pub(crate) my_addresses: Arc<dyn Fn() -> AddrInfo + Send + Sync>,
    /// Asks for a connection to a remote, for as long as the wish is held. Must not wait.
    pub(crate) want: Arc<dyn Fn(EndpointId, WishWatch) + Send + Sync>,
}

/// How a topic ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicEnd {
    /// The last handle was dropped, or the mesh drained: the topic has been left.
    Left,
    /// A test made it fail.
    Injected,
}

/// The loop of one topic.
pub(crate) struct Topic {
    topic: TopicId,
    context: TopicContext,
    inboxes: Arc<TopicInboxes>,
    state: State,
    leases: BTreeMap<EndpointId, Lease>,
    pending: Pending,
    asking: Asking,
    /// The last frame encoded: a broadcast sends the same one to every eager neighbour.
    encoded: Option<(ProtoMessage, Bytes)>,
    crowd: Crowd,
    owed: Owed,
    payloads_dropped: usize,
    /// The state's count of changes of the view when it was last shown.
    shown: Option<u64>,
}

impl Topic {
    pub(crate) fn new(topic: TopicId, context: TopicContext, inboxes: Arc<TopicInboxes>, rng: StdRng) -> Self {
        let now = Instant::now();
        let mut state = State::new(context.common.me, (*context.common.limits).clone(), rng, now);
        if context.common.lists.decides_joins() {
            state.require_approval();
        }
        state.share_gate(context.common.backends.gate(&Backend::Bootstrap(topic), now));
        let asking = Asking::new(topic, context.common.clone(), &inboxes);
        let pending = Pending::new(context.common.limits.pending_frames_max, context.common.limits.dial_timeout * 2);
        Self {
            topic,
            context,
            inboxes,
            state,
            leases: BTreeMap::new(),
            pending,
            asking,
            encoded: None,
            crowd: Crowd::new(now),
            owed: Owed::new(now),
            payloads_dropped: 0,
            shown: None,
        }
    }

    /// Runs until the topic is left. `leave` is the mesh's word; dropping every handle is the application's.
    pub(crate) async fn run(mut self, heartbeat: Heartbeat, leave: tokio_util::sync::CancellationToken) -> TopicEnd {
        let inboxes = self.inboxes.clone();
        let (mut frames, mut commands) = (inboxes.frames.lock().await, inboxes.commands.lock().await);
        let memory = inboxes.memory.lock().expect("no holder panics").clone();
        let now = Instant::now();
        let effects = self.state.on_restart(memory, now);
        self.apply(effects, now);
        let nursery = self.context.common.nursery.clone();
        // Registered once, not once for every frame.
        let (leaving, strike) = (leave.cancelled(), nursery.faults.strike(Loop::Topic, None));
        let (clock, news) = (sleep_until(self.state.next_deadline()), inboxes.signals.wait());
        tokio::pin!(leaving, strike, clock, news);
        loop {
            heartbeat.beat();
            let deadline = self.state.next_deadline();
            if clock.deadline() != deadline {
                clock.as_mut().reset(deadline);
            }
            let held_back = self.crowd.holds_back(&self.leases, &inboxes.events, Instant::now());
            let resume_at = self.crowd.resume_at();
            tokio::select! {
                // Leave first, then clocks, then news, then the application, then remotes. Waking takes one; the turn
                // below then takes a handful from every inbox, so no arm starves another.
                biased;
                _ = &mut leaving => break,
                strike = &mut strike => {
                    strike.land().await;
                    return TopicEnd::Injected;
                }
                _ = &mut clock => {}
                _ = sleep_until(resume_at), if held_back => {}
                _ = sleep_until(self.owed.look_at()), if !self.owed.is_empty() => {}
                _ = &mut news => news.set(inboxes.signals.wait()),
                command = commands.recv(), if !held_back => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                delivery = frames.recv() => match delivery {
                    Some(delivery) => self.on_delivery(delivery, Instant::now()),
                    // The route table holds a sender as long as the topic is joined.
                    None => break,
                },
            }
            if self.turn(&mut frames, &mut commands) == FRAMES_PER_TURN {
                // Frames already here cost no waiting: without this a burst would keep the writers from running.
                tokio::task::yield_now().await;
            }
        }
        self.leave();
        TopicEnd::Left
    }

    /// Takes a handful of everything that is waiting. Returns how many frames that was.
    fn turn(&mut self, frames: &mut mpsc::Receiver<Delivery>, commands: &mut mpsc::Receiver<Command>) -> usize {
        self.note_sizes(frames.len(), commands.len());
        let now = Instant::now();
        let mut taken = 0;
        while taken < FRAMES_PER_TURN
            && let Ok(delivery) = frames.try_recv()
        {
            self.on_delivery(delivery, now);
            taken += 1;
        }
        // What a clock is about to ask for again may be waiting in the inbox, or in front of it.
        if self.crowd.holds_links() || taken == FRAMES_PER_TURN {
            self.state.on_held_back(now);
        }
        if frames.is_empty() || self.state.next_deadline() + CLOCK_PATIENCE <= now {
            let effects = self.state.on_deadlines(now);
            self.apply(effects, now);
            self.give_up_pending(now);
        }
        self.on_signals(frames);
        for _ in 0..COMMANDS_PER_TURN {
            if self.crowd.holds_back(&self.leases, &self.inboxes.events, now) {
                break;
            }
            match commands.try_recv() {
                Ok(command) => self.on_command(command),
                // A closed channel is seen by the loop's own arm.
                Err(_) => break,
            }
        }
        self.tell_owed(now);
        self.publish_view();
        taken
    }

    /// Before the handful is taken: the queues are never longer than at this moment.
    fn note_sizes(&self, frames: usize, commands: usize) {
        let (leases, pending, owed) = (self.leases.len(), self.pending.len(), self.owed.most());
        self.inboxes.gauges.note(&LoopSizes { leases, pending, owed, frames, commands }, self.state.sizes());
    }

    fn on_delivery(&mut self, delivery: Delivery, now: Instant) {
        let Delivery { from, connection, what, credit } = delivery;
        // Before the answer: a remote that was restarted speaks over a new connection, and the old one is dead.
        let is_followed = self.follow(from, connection);
        let effects = match what {
            Delivered::Message(inbound) => self.state.on_message(from, connection, inbound, now),
            Delivered::StreamEnded => self.state.on_stream_ended(from, connection, now),
        };
        self.apply(effects, now);
        self.crowd.settle(credit);
        if !is_followed {
            // What it said may have made it a contact.
            self.follow(from, connection);
        }
    }

    /// Holds a lease on whoever we are in touch with. A newer connection than the one we hold is always followed: its
    /// remote may have been restarted. An older one only where the other side decides (`peer/state.rs`). Returns whether
    /// we held one on this connection already.
    fn follow(&mut self, peer: EndpointId, connection: u64) -> bool {
        let follows = match self.leases.get(&peer) {
            Some(lease) if lease.connection() == connection => return true,
            Some(lease) => lease.connection() < connection || (lease.is_perennial() && self.context.common.me < peer),
            None => true,
        };
        if follows
            && self.state.is_open(&peer)
            && let Some(lease) = self.context.common.routes.lease_on(&peer, connection)
        {
            self.leases.insert(peer, lease);
        }
        false
    }

    fn on_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Join(peers) => {
                let effects = self.state.on_join(peers, now);
                self.apply(effects, now);
                self.remember();
            }
            Command::Publish { content, reply } => {
                let (neighbors, bytes) = (self.state.neighbors().len(), content.len());
                let outcome = self.state.on_publish(content, now).map(|(repeated, effects)| {
                    self.payloads_dropped = 0;
                    self.context.common.traffic.note_published();
                    self.context.common.meters.note_published(bytes);
                    self.apply(effects, now);
                    self.crowd.settle(None);
                    Receipt { neighbors, dropped: self.payloads_dropped, repeated }
                });
                // A publisher that stopped waiting has still published.
                let _publisher_gone = reply.send(outcome);
            }
        }
    }

    fn on_signals(&mut self, frames: &mut mpsc::Receiver<Delivery>) {
        let now = Instant::now();
        let all = self.inboxes.signals.take();
        if all.values().any(|news| news.gone.is_some()) {
            // What a lost connection delivered before it ended is already in the inbox and comes first.
            for _ in 0..frames.len() {
                match frames.try_recv() {
                    Ok(delivery) => self.on_delivery(delivery, now),
                    Err(_) => break,
                }
            }
        }
        for (peer, number, is_approved) in self.asking.take() {
            let effects = self.state.on_verdict(peer, number, is_approved, now);
            self.apply(effects, now);
        }
        for (peer, news) in all {
            if let Some(how) = news.gone {
                self.leases.remove(&peer);
                // The state forgets what it had asked of this remote, so nobody waits for an answer.
                self.pending.take(&peer);
                let effects = self.state.on_gone(peer, how, now);
                self.apply(effects, now);
            }
            if news.reachable {
                self.on_reachable(peer);
            }
        }
    }

    fn on_reachable(&mut self, peer: EndpointId) {
        let is_stale = self.leases.get(&peer).is_some_and(Lease::is_stale);
        let pending = self.pending.take(&peer);
        if !is_stale && pending.is_none() {
            return;
        }
        self.state.on_reachable(peer);
        match self.context.common.routes.lease(&peer) {
            Some(lease) => {
                let now = Instant::now();
                if pending.is_none() {
                    // A word on the new connection before the old one retires, or its end would be taken for ours. To a
                    // neighbour an empty ShuffleReply says nothing else.
                    self.greet(&lease, now);
                }
                for frame in pending.into_iter().flatten() {
                    // A fresh outbox has room for the few that waited; a closed one is reported as gone.
                    let _ended = lease.send(self.outgoing(frame, false), Urgency::Membership, now);
                }
                if self.state.is_open(&peer) {
                    self.leases.insert(peer, lease);
                }
            }
            // It retired in between. What waited asks again.
            None => {
                self.leases.remove(&peer);
                if let Some(pending) = pending {
                    self.wait_for(peer, pending);
                }
            }
        }
    }

    fn apply(&mut self, mut effects: Vec<Effect>, now: Instant) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => self.send(to, message, now),
                Effect::Farewell(peer) => self.farewell(peer),
                Effect::Release(peer) => self.release(peer),
                Effect::Decline(peer) => self.decline(peer),
                Effect::Ask { peer, number } => self.asking.ask(peer, number),
                Effect::Unask(peer) => self.asking.unask(&peer),
                Effect::Hasten(peer) => self.context.common.redials.hasten(&peer),
                Effect::Emit(event) => self.emit(event, now),
                Effect::Count(reason, count) => self.context.common.counters.add(reason, count),
            }
        }
        self.state.reuse(effects);
    }

    fn emit(&mut self, event: Event, now: Instant) {
        if let Event::Received(message) = &event {
            self.context.common.traffic.note_delivered();
            self.context.common.meters.note_delivered(message.content.len());
            if let Some(lease) = self.leases.get(&message.delivered_from) {
                lease.note_novel(now);
            }
        }
        if self.inboxes.events.send(&event) {
            self.crowd.note_readers();
        }
    }

    fn greet(&self, lease: &Lease, now: Instant) {
        let _unheard = lease.send(self.outgoing(wire::farewell_frame(), false), Urgency::Payload, now);
    }

    fn send(&mut self, to: EndpointId, message: ProtoMessage, now: Instant) {
        if self.pending.is_waiting(&to) && self.context.common.routes.lease(&to).is_some() {
            // What has been waiting goes first.
            self.on_reachable(to);
        }
        let class = wire::classify(&message);
        let last = class == Class::Disconnect;
        let Some(mut frame) = self.encode(message, class) else { return };
        if class == Class::Announce {
            let Some(news) = self.state.trim_announcement(&to, frame) else { return };
            frame = news;
        }
        let urgency = match class {
            // Walks and shuffles are repeated by the protocol. If they could claim the reserve, a remote that makes us
            // forward them could make us close our other neighbours as slow.
            Class::Membership if wire::is_expendable(&frame) => Urgency::Payload,
            Class::Announce if wire::tree::is_of_tree(&frame) => Urgency::Tree,
            Class::Payload | Class::Announce => Urgency::Payload,
            Class::Membership | Class::Disconnect => Urgency::Membership,
        };
        for _ in 0..2 {
            let outgoing = self.outgoing(frame.clone(), last);
            let Some(lease) = self.lease(to) else { break };
            match lease.send(outgoing, urgency, now) {
                Ok(()) if class == Class::Payload => {
                    if lease.is_worth_waiting() {
                        self.crowd.note(to);
                    }
                    return self.context.common.traffic.note_sent();
                }
                Ok(()) => return,
                Err(SendRefused::Full) => return self.on_full(to, class, &frame),
                // The connection ended under our hands; perhaps there is another.
                Err(SendRefused::Closed) => drop(self.leases.remove(&to)),
            }
        }
        match class {
            // Only membership is worth a dial: a stale announcement would open connections to whoever has left.
            Class::Membership => self.wait_for(to, [frame].into()),
            Class::Payload | Class::Announce | Class::Disconnect => {
                self.context.common.counters.count(Reason::NotConnected);
            }
        }
    }

    /// The lease we hold on `peer`, or one on a connection it already has.
    fn lease(&mut self, peer: EndpointId) -> Option<&Lease> {
        match self.leases.entry(peer) {
            Entry::Occupied(held) if !held.get().is_stale() => Some(held.into_mut()),
            entry => {
                let lease = self.context.common.routes.lease(&peer)?;
                Some(entry.insert_entry(lease).into_mut())
            }
        }
    }

    fn encode(&mut self, message: ProtoMessage, class: Class) -> Option<Bytes> {
        if let Some((last, frame)) = &self.encoded
            && *last == message
        {
            return Some(frame.clone());
        }
        let encoded = match class {
            Class::Membership => {
                let mine = (self.context.my_addresses)();
                wire::dress::encode_dressed(&message, &mine, |peer| self.context.common.addresses.get(peer))
            }
            Class::Payload | Class::Announce | Class::Disconnect => wire::encode(&message),
        };
        match encoded {
            Ok(frame) => {
                if class == Class::Payload {
                    self.encoded = Some((message, frame.clone()));
                }
                Some(frame)
            }
            Err(error) => {
                tracing::warn!(topic = %self.topic, %error, "message not sent");
                self.context.common.counters.count(Reason::OutgoingTooLarge);
                None
            }
        }
    }

    fn outgoing(&self, frame: Bytes, last: bool) -> Outgoing {
        Outgoing::Frame { topic: self.topic, frame, last }
    }

    /// Shows the application and a possible successor where we stand.
    fn publish_view(&mut self) {
        let current = self.state.view_changes();
        if self.shown.replace(current) != Some(current) {
            self.inboxes.neighbors.send_replace(self.state.neighbors().collect());
            self.remember();
        }
        self.inboxes.contacts.store(self.state.contacts(), Ordering::Relaxed);
        // A payload kept for comparison must not outlive the burst it served.
        self.encoded = None;
    }

    fn remember(&self) {
        *self.inboxes.memory.lock().expect("no holder panics") = self.state.memory();
    }
}
