//! The supervisor of one remote: owns its connection loops and its dial. Redials when a topic asks, never by itself.
//!
//! A ractor actor, one per remote, started by `peers.rs` when a remote is first wanted or first knocks, and stopped by
//! it once there is nothing left to supervise. It never awaits the network: its children do. What to do is decided in
//! `peer/state.rs`.

use std::time::Duration;

use iroh::{Endpoint, EndpointId};
use n0_future::time::Instant;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::{
    access::Standing,
    admission::Door,
    backoff::redials::{Dial, Failure},
    census::{CensusCollector, PeerCensus, Side},
    close::{Close, CloseCode},
    connection::{self, Closed, ConnectionEnd, ConnectionNumbers, Established, Order},
    context::Context,
    counters::Reason,
    dialer,
    handshake::HandshakeError,
    lease::outbox,
    ledger::{Entry, Kind},
    mishaps,
    redial::WishWatch,
    retirement::Departure,
    routes::Gone,
    supervisor::{Child, Exit, Heartbeat, Pulse},
};

mod loops;
mod passage;
mod redial;
pub(crate) mod state;

use loops::{Loop, Loops};
use passage::Passage;
use redial::Redial;
use state::{Effect, State};

/// What the supervisor of a remote is told.
#[derive(Debug)]
pub(crate) enum PeerMsg {
    /// A topic wants to reach the remote, as long as its wish is held.
    Want(WishWatch),
    /// An incoming handshake with the remote has finished.
    Accepted(Box<Established>),
    /// The outgoing attempt has ended.
    DialEnded(Box<Exit<Result<Established, HandshakeError>>>),
    /// A connection loop has ended.
    ConnectionEnded(u64, Exit<Closed>),
    /// Close one connection, by its place at the door; without one, all, and give up the dial.
    Close { seat: Option<u64>, order: Order },
    /// Look after the children.
    Tick,
    /// Answer for this remote.
    Census(CensusCollector),
    /// Let go of everything that no topic holds; dial no more.
    Drain,
}

/// What it is started with.
#[derive(Debug)]
pub(crate) struct PeerArguments {
    pub(crate) peer: EndpointId,
    pub(crate) on_idle: OnIdle,
    pub(crate) shared: PeerShared,
}

/// Tells whoever started the supervisor that it has nothing left to supervise, having handled this many messages that
/// can start work. Must not wait.
pub(crate) struct OnIdle(pub(crate) Box<dyn Fn(u64) + Send + Sync>);

impl std::fmt::Debug for OnIdle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnIdle")
    }
}

/// What the supervisors of all remotes share.
#[derive(Debug, Clone)]
pub(crate) struct PeerShared {
    pub(crate) endpoint: Endpoint,
    pub(crate) door: Door,
    pub(crate) numbers: ConnectionNumbers,
    pub(crate) connections: Context,
}

pub(crate) struct Peer;

pub(crate) struct PeerState {
    _entry: Entry,
    peer: EndpointId,
    on_idle: OnIdle,
    shared: PeerShared,
    redial: Redial,
    /// Of topics that wait for an attempt; at most one of each is held.
    wishes: Vec<WishWatch>,
    state: State,
    loops: Loops,
    dial: Option<(Child, Passage)>,
    /// At the last tick no topic waited for the dial.
    is_dial_unwanted: bool,
    /// Messages that can start work, handled so far: `peers.rs` compares before it believes that we are idle.
    handled: u64,
    draining: bool,
}

impl Actor for Peer {
    type Msg = PeerMsg;
    type State = PeerState;
    type Arguments = PeerArguments;

    async fn pre_start(
        &self,
        _myself: ActorRef<PeerMsg>,
        arguments: PeerArguments,
    ) -> Result<PeerState, ActorProcessingErr> {
        let PeerArguments { peer, on_idle, shared } = arguments;
        let context = &shared.connections;
        Ok(PeerState {
            _entry: context.nursery.ledger.enter(Kind::Peer),
            redial: Redial::new(peer, context),
            wishes: Vec::new(),
            state: State::new(context.me, peer, &context.limits),
            peer,
            on_idle,
            shared,
            loops: Loops::default(),
            dial: None,
            is_dial_unwanted: false,
            handled: 0,
            draining: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<PeerMsg>,
        message: PeerMsg,
        state: &mut PeerState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(strike) = state.shared.connections.nursery.faults.due(mishaps::Loop::Peer, Some(&state.peer)) {
            strike.land().await;
            return Err("injected".into());
        }
        match message {
            PeerMsg::Want(wish) => state.on_want(&myself, wish),
            PeerMsg::Accepted(established) => {
                state.handled += 1;
                state.on_established(&myself, *established);
            }
            PeerMsg::DialEnded(exit) => state.on_dial_ended(&myself, *exit),
            PeerMsg::ConnectionEnded(number, exit) => state.on_connection_ended(&myself, number, exit),
            PeerMsg::Close { seat, order } => state.on_close(&myself, seat, order),
            PeerMsg::Tick => state.on_tick(&myself),
            PeerMsg::Census(collector) => state.on_census(&collector),
            PeerMsg::Drain => state.on_drain(&myself),
        }
        state.report_idle();
        Ok(())
    }

    /// A remote's supervisor has no actor children; its loops report as messages.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<PeerMsg>,
        _event: SupervisionEvent,
        _state: &mut PeerState,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl PeerState {
    fn on_want(&mut self, myself: &ActorRef<PeerMsg>, wish: WishWatch) {
        self.handled += 1;
        self.wishes.retain(WishWatch::is_held);
        if !self.wishes.iter().any(|known| known.is_same(&wish)) {
            self.wishes.push(wish);
        }
        let leasable = self.shared.connections.routes.lease(&self.peer).is_some();
        if self.draining && !leasable {
            return self.on_not_dialed(myself, Gone::NotDialed);
        }
        let effects = self.state.on_wanted(leasable);
        self.apply(myself, effects);
    }

    fn on_not_dialed(&mut self, myself: &ActorRef<PeerMsg>, how: Gone) {
        let leasable = self.shared.connections.routes.lease(&self.peer).is_some();
        let effects = self.state.on_dial_failed(how, leasable);
        self.apply(myself, effects);
    }

    fn on_established(&mut self, myself: &ActorRef<PeerMsg>, mut established: Established) {
        if self.draining {
            // Topics have been left, nobody could use it. Dropping it closes it.
            if established.side == Side::Dialed {
                self.on_not_dialed(myself, Gone::NotDialed);
            }
            return;
        }
        let (side, perennial) = (established.side, established.is_perennial());
        let lists = &self.shared.connections.lists;
        let standing = match side {
            Side::Dialed => lists.standing(&self.peer),
            // The door has asked the embedder already.
            Side::Accepted => lists.listed(&self.peer),
        };
        if standing == Standing::Denied {
            return self.on_denied(myself, &established);
        }
        if side == Side::Dialed {
            established.permit.establish(self.peer, standing);
        }
        let number = self.start_loop(myself, established);
        tracing::info!(peer = %self.peer.fmt_short(), number, ?side, perennial, "connected");
        self.redial.on_connected(side);
        let effects = self.state.on_connected(number, side, perennial, Instant::now());
        self.apply(myself, effects);
    }

    /// It was put on the list while it was on its way to us, or we to it.
    fn on_denied(&mut self, myself: &ActorRef<PeerMsg>, established: &Established) {
        self.shared.connections.counters.count(Reason::Denied);
        established.close(Close::new(CloseCode::Denied));
        if established.side == Side::Dialed {
            self.on_not_dialed(myself, Gone::NotDialed);
        }
    }

    fn start_loop(&mut self, myself: &ActorRef<PeerMsg>, established: Established) -> u64 {
        let context = self.shared.connections.clone();
        let number = self.shared.numbers.next();
        let (side, perennial) = (established.side, established.is_perennial());
        let connection = established.connection.weak_handle();
        let seat = established.permit.seat();
        let heartbeat = Heartbeat::default();
        let now = Instant::now();
        let living = context.lives.begin(number, self.peer, now);
        let (lease, outbox) = outbox(living.life().clone(), perennial, &context.limits);
        let owner = myself.clone();
        let nursery = context.nursery.clone();
        context.routes.add_connection(self.peer, lease.source());
        let (orders, ordered) = oneshot::channel();
        let child = nursery.spawn(
            Kind::Connection,
            connection::run(established, living, outbox, ordered, heartbeat.clone(), context),
            // A dead owner needs no news: its drop has aborted this loop.
            move |exit| drop(owner.cast(PeerMsg::ConnectionEnded(number, exit))),
        );
        self.loops.insert(
            number,
            Loop {
                seat,
                child,
                pulse: Pulse::new(heartbeat, now),
                orders: Some(orders),
                source: lease.source(),
                kept: Some(lease),
                side,
                perennial,
                since: now,
                connection,
            },
        );
        number
    }

    fn on_dial_ended(&mut self, myself: &ActorRef<PeerMsg>, exit: Exit<Result<Established, HandshakeError>>) {
        let passage = self.dial.take().map(|(_child, passage)| passage);
        let (error, failure) = match exit {
            Exit::Finished(Ok(established)) => {
                passage.into_iter().for_each(|passage| passage.on_connected(Instant::now()));
                return self.on_established(myself, established);
            }
            Exit::Finished(Err(HandshakeError::TimedOut)) => ("timed out".to_owned(), Failure::Silent),
            Exit::Finished(Err(HandshakeError::Failed(failed))) => (failed.text, failed.failure),
            Exit::Panicked(text) => {
                self.shared.connections.nursery.mishaps.note_crash(mishaps::Loop::Dial);
                (format!("panicked: {text}"), Failure::Ours)
            }
            Exit::Killed => ("killed".to_owned(), Failure::Ours),
        };
        tracing::debug!(peer = %self.peer.fmt_short(), %error, ?failure, "dial failed");
        passage.into_iter().for_each(|passage| passage.on_failed(failure, Instant::now()));
        if self.loops.is_empty() {
            self.redial.on_failed(failure);
        }
        self.shared.connections.counters.count(Reason::DialFailed);
        self.on_not_dialed(myself, Gone::Lost);
    }

    fn on_connection_ended(&mut self, myself: &ActorRef<PeerMsg>, number: u64, exit: Exit<Closed>) {
        let ended = self.loops.remove(number);
        let lived = ended.as_ref().map_or_else(Duration::default, |one| one.since.elapsed());
        let how = match &exit {
            Exit::Finished(closed) => closed.end.gone(),
            Exit::Panicked(_) | Exit::Killed => Gone::Lost,
        };
        if let Some(ended) = ended {
            let closed = ended.account(number, self.peer, &exit, Instant::now());
            self.shared.connections.history.lock().expect("no holder panics").push(closed);
        }
        let is_crash = match &exit {
            Exit::Finished(closed) => closed.end == ConnectionEnd::Injected,
            Exit::Panicked(_) | Exit::Killed => true,
        };
        if is_crash {
            self.shared.connections.nursery.mishaps.note_crash(mishaps::Loop::Connection);
        }
        match &exit {
            Exit::Finished(Closed { end, .. }) => {
                tracing::info!(peer = %self.peer.fmt_short(), number, ?end, "connection ended");
            }
            Exit::Panicked(text) => {
                tracing::warn!(peer = %self.peer.fmt_short(), number, %text, "connection loop panicked");
            }
            Exit::Killed => tracing::warn!(peer = %self.peer.fmt_short(), number, "connection loop killed"),
        }
        let effects = self.state.on_ended(number, how);
        self.apply(myself, effects);
        self.redial.on_ended(&exit, lived, self.loops.is_empty());
    }

    fn on_close(&mut self, myself: &ActorRef<PeerMsg>, seat: Option<u64>, order: Order) {
        let is_meant = |one: &Loop| seat.is_none_or(|seat| one.seat == seat);
        let meant: Vec<_> = self.loops.iter().filter(|(_, one)| is_meant(one)).map(|(number, _)| number).collect();
        for number in meant {
            self.order(number, order);
        }
        if seat.is_none() && self.dial.take().is_some() {
            self.on_not_dialed(myself, Gone::NotDialed);
        }
    }

    fn on_tick(&mut self, myself: &ActorRef<PeerMsg>) {
        let now = Instant::now();
        let frozen_timeout = self.shared.connections.limits.frozen_timeout;
        for (number, one) in self.loops.iter_mut() {
            if one.pulse.is_frozen(now, frozen_timeout) {
                tracing::warn!(peer = %self.peer.fmt_short(), number, "connection loop is frozen; killing it");
                self.shared.connections.counters.count(Reason::ClosedFrozen);
                one.source.life().depart(Departure::Ended, now);
                one.child.kill();
            }
        }
        let is_neighbor = self.shared.connections.routes.is_neighbor(&self.peer);
        for (_, one) in self.loops.iter() {
            one.source.note_rtt(one.path_and_rtt().1);
            one.source.life().note_view(is_neighbor, now);
        }
        self.give_up_unwanted();
        let loops = &self.loops;
        let leases = |number| loops.get(number).map_or(0, |one: &Loop| one.leases_of_topics());
        let effects = self.state.on_tick(now, leases);
        self.apply(myself, effects);
    }

    /// A dial that no topic waits for any more would hold its slot until its deadline. Not at the first sight of it: a
    /// topic that wishes anew may just have taken its old wish back. Beside a connection it is left alone: the remote may
    /// be using the new one already, and a stock remote must not lose it before the other (`peer/state.rs`).
    fn give_up_unwanted(&mut self) {
        let Some((dial, _)) = self.dial.as_ref().filter(|_| self.loops.is_empty()) else {
            self.is_dial_unwanted = false;
            return;
        };
        let is_unwanted = !self.wishes.iter().any(WishWatch::is_held);
        if is_unwanted && self.is_dial_unwanted {
            dial.kill();
        }
        self.is_dial_unwanted = is_unwanted;
    }

    fn on_drain(&mut self, myself: &ActorRef<PeerMsg>) {
        self.draining = true;
        self.dial = None;
        let effects = self.state.on_drain();
        self.apply(myself, effects);
    }

    fn apply(&mut self, myself: &ActorRef<PeerMsg>, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Dial => self.dial(myself),
                Effect::Route(number) => {
                    let mut sources: Vec<_> = self.loops.iter().map(|(of, one)| (of, one.source.clone())).collect();
                    // The routed one first; the rest only for whoever is spoken to over one of them.
                    sources.sort_by_key(|(of, _)| Some(*of) != number);
                    let sources = sources.into_iter().map(|(_, source)| source).collect();
                    self.shared.connections.routes.set_connections(self.peer, sources);
                }
                Effect::Signal(signal) => self.shared.connections.routes.signal(self.peer, signal),
                Effect::Keep(number) => {
                    if let Some(one) = self.loops.get_mut(number) {
                        one.kept = one.source.upgrade();
                    }
                }
                Effect::LetGo(number) => {
                    if let Some(one) = self.loops.get_mut(number) {
                        one.kept = None;
                    }
                }
                Effect::Supersede(number) => {
                    if let Some(one) = self.loops.get(number) {
                        one.source.supersede();
                    }
                }
                Effect::Unclaimed(number) => {
                    self.shared.connections.counters.count(Reason::ClosedUnclaimed);
                    if let Some(one) = self.loops.get(number) {
                        one.source.mark_unclaimed();
                    }
                }
                Effect::Close(number) => {
                    self.shared.connections.counters.count(Reason::ClosedPerPeer);
                    self.order(number, Order { close: Close::new(CloseCode::Superseded), is_polite: false });
                }
            }
        }
    }

    fn order(&mut self, number: u64, order: Order) {
        if let Some(one) = self.loops.get_mut(number)
            && let Some(orders) = one.orders.take()
        {
            one.source.life().depart(Departure::Ordered, Instant::now());
            // A loop that has just ended needs no order.
            let _ending = orders.send(order);
        }
    }

    fn dial(&mut self, myself: &ActorRef<PeerMsg>) {
        let context = &self.shared.connections;
        if !self.wishes.iter().any(WishWatch::is_held) {
            return self.state.on_unwanted();
        }
        match self.redial.may_dial() {
            Dial::Now => {}
            // Not longer than an attempt may take: the topics count on an answer by then.
            Dial::At(due) if due.duration_since(Instant::now()) <= context.limits.dial_timeout => {
                return self.state.on_wait(due);
            }
            Dial::At(_) | Dial::No => {
                context.counters.count(Reason::DialTooEarly);
                return self.on_not_dialed(myself, Gone::NotDialed);
            }
        }
        let Ok(passage) = Passage::ask(context, &self.peer, Instant::now()) else {
            context.counters.count(Reason::DialGated);
            return self.on_not_dialed(myself, Gone::NotDialed);
        };
        let permit = match self.shared.door.admit_dial(context.lists.standing(&self.peer), Instant::now()) {
            Ok(permit) => permit,
            Err(_shortage) => {
                context.counters.count(Reason::DialRefused);
                return self.on_not_dialed(myself, Gone::NotDialed);
            }
        };
        self.redial.on_dial();
        let owner = myself.clone();
        let task = dialer::run(
            self.shared.endpoint.clone(),
            self.peer,
            permit,
            context.limits.clone(),
            context.nursery.clone(),
            context.meters.clone(),
        );
        let report = move |exit| drop(owner.cast(PeerMsg::DialEnded(Box::new(exit))));
        self.dial = Some((context.nursery.spawn(Kind::Dial, task, report), passage));
    }

    fn report_idle(&self) {
        if self.state.is_idle() && self.dial.is_none() && self.loops.is_empty() {
            (self.on_idle.0)(self.handled);
        }
    }

    fn on_census(&self, collector: &CensusCollector) {
        let now = Instant::now();
        let connections = self.loops.iter().map(|(number, one)| one.census(number, now)).collect();
        let standstill = self.redial.standstill();
        let census = PeerCensus {
            id: self.peer,
            connections,
            dialing: self.state.is_dialing(),
            waiting_until: standstill.until.map(|until| until.duration_since(now)),
            failures: standstill.failures,
        };
        collector.add_peer(census, self.loops.len(), usize::from(self.dial.is_some()));
    }
}
