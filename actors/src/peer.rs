//! The supervisor of one remote: owns its connection loops and its dial. Redials when a topic asks, never by itself.
//!
//! A ractor actor, one per remote, started by `peers.rs` when a remote is first wanted or first knocks, and stopped by
//! it once there is nothing left to supervise. It never awaits the network: its children do. What to do is decided in
//! `peer/state.rs`.

use std::{collections::BTreeMap, time::Duration};

use iroh::{Endpoint, EndpointId};
use n0_future::time::Instant;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::{
    admission::{Door, Refusal},
    backoff::redials::{Dial, Failure},
    census::{CensusCollector, ConnectionCensus, PeerCensus, Side},
    close::{Close, CloseCode},
    connection::{self, Closed, ConnectionNumbers, Established, Order, Orders},
    context::Context,
    counters::Reason,
    dialer,
    handshake::HandshakeError,
    lease::{Lease, LeaseSource, outbox},
    ledger::{Entry, Kind},
    redial::{Redial, WishWatch},
    routes::Gone,
    supervisor::{Child, Exit, Heartbeat, Pulse},
};

pub(crate) mod state;

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
    loops: BTreeMap<u64, Loop>,
    dial: Option<Child>,
    /// Messages that can start work, handled so far: `peers.rs` compares before it believes that we are idle.
    handled: u64,
    draining: bool,
}

/// One connection loop and what is known of it from outside.
struct Loop {
    child: Child,
    pulse: Pulse,
    orders: Option<Orders>,
    source: LeaseSource,
    kept: Option<Lease>,
    side: Side,
    perennial: bool,
    since: Instant,
    connection: iroh::endpoint::WeakConnectionHandle,
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
            loops: BTreeMap::new(),
            dial: None,
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
        match message {
            PeerMsg::Want(wish) => state.on_want(&myself, wish),
            PeerMsg::Accepted(established) => {
                state.handled += 1;
                state.on_established(&myself, *established);
            }
            PeerMsg::DialEnded(exit) => state.on_dial_ended(&myself, *exit),
            PeerMsg::ConnectionEnded(number, exit) => state.on_connection_ended(&myself, number, exit),
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

    fn on_established(&mut self, myself: &ActorRef<PeerMsg>, established: Established) {
        if self.draining {
            // Topics have been left, nobody could use it. Dropping it closes it.
            if established.side == Side::Dialed {
                self.on_not_dialed(myself, Gone::NotDialed);
            }
            return;
        }
        let (side, perennial) = (established.side, established.is_perennial());
        let number = self.start_loop(myself, established);
        tracing::info!(peer = %self.peer.fmt_short(), number, ?side, perennial, "connected");
        self.redial.on_connected(side);
        let effects = self.state.on_connected(number, side, perennial, Instant::now());
        self.apply(myself, effects);
    }

    fn start_loop(&mut self, myself: &ActorRef<PeerMsg>, established: Established) -> u64 {
        let context = self.shared.connections.clone();
        let number = self.shared.numbers.next();
        let (side, perennial) = (established.side, established.is_perennial());
        let connection = established.connection.weak_handle();
        let (lease, outbox) = outbox(number, perennial, &context.limits);
        let heartbeat = Heartbeat::default();
        let now = Instant::now();
        let owner = myself.clone();
        let nursery = context.nursery.clone();
        context.routes.add_connection(self.peer, lease.source());
        let (orders, ordered) = oneshot::channel();
        let child = nursery.spawn(
            Kind::Connection,
            connection::run(established, number, outbox, ordered, heartbeat.clone(), context),
            // A dead owner needs no news: its drop has aborted this loop.
            move |exit| drop(owner.cast(PeerMsg::ConnectionEnded(number, exit))),
        );
        self.loops.insert(
            number,
            Loop {
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
        self.dial = None;
        let (error, failure) = match exit {
            Exit::Finished(Ok(established)) => return self.on_established(myself, established),
            Exit::Finished(Err(HandshakeError::TimedOut)) => ("timed out".to_owned(), Failure::Silent),
            Exit::Finished(Err(HandshakeError::Failed(failed))) => (failed.text, failed.failure),
            Exit::Panicked(text) => (format!("panicked: {text}"), Failure::Ours),
            Exit::Killed => ("killed".to_owned(), Failure::Ours),
        };
        tracing::debug!(peer = %self.peer.fmt_short(), %error, ?failure, "dial failed");
        if self.loops.is_empty() {
            self.redial.on_failed(failure);
        }
        self.shared.connections.counters.count(Reason::DialFailed);
        self.on_not_dialed(myself, Gone::Lost);
    }

    fn on_connection_ended(&mut self, myself: &ActorRef<PeerMsg>, number: u64, exit: Exit<Closed>) {
        let lived = self.loops.remove(&number).map_or_else(Duration::default, |one| one.since.elapsed());
        let how = match &exit {
            Exit::Finished(closed) => closed.end.gone(),
            Exit::Panicked(_) | Exit::Killed => Gone::Lost,
        };
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

    fn on_tick(&mut self, myself: &ActorRef<PeerMsg>) {
        let now = Instant::now();
        let frozen_timeout = self.shared.connections.limits.frozen_timeout;
        for (number, one) in &mut self.loops {
            if one.pulse.is_frozen(now, frozen_timeout) {
                tracing::warn!(peer = %self.peer.fmt_short(), number, "connection loop is frozen; killing it");
                self.shared.connections.counters.count(Reason::ClosedFrozen);
                one.child.kill();
            }
        }
        let loops = &self.loops;
        let leases = |number| loops.get(&number).map_or(0, |one: &Loop| one.leases_of_topics());
        let effects = self.state.on_tick(now, leases);
        self.apply(myself, effects);
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
                    let mut sources: Vec<_> = self.loops.iter().map(|(of, one)| (*of, one.source.clone())).collect();
                    // The routed one first; the rest only for whoever is spoken to over one of them.
                    sources.sort_by_key(|(of, _)| Some(*of) != number);
                    let sources = sources.into_iter().map(|(_, source)| source).collect();
                    self.shared.connections.routes.set_connections(self.peer, sources);
                }
                Effect::Signal(signal) => self.shared.connections.routes.signal(self.peer, signal),
                Effect::Keep(number) => {
                    if let Some(one) = self.loops.get_mut(&number) {
                        one.kept = one.source.upgrade();
                    }
                }
                Effect::LetGo(number) => {
                    if let Some(one) = self.loops.get_mut(&number) {
                        one.kept = None;
                    }
                }
                Effect::Supersede(number) => {
                    if let Some(one) = self.loops.get(&number) {
                        one.source.supersede();
                    }
                }
                Effect::CountUnclaimed => self.shared.connections.counters.count(Reason::ClosedUnclaimed),
                Effect::Close(number) => {
                    self.shared.connections.counters.count(Reason::ClosedPerPeer);
                    self.order(number, Order { close: Close::new(CloseCode::Superseded), is_polite: false });
                }
            }
        }
    }

    fn order(&mut self, number: u64, order: Order) {
        if let Some(orders) = self.loops.get_mut(&number).and_then(|one| one.orders.take()) {
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
        let permit = match self.shared.door.admit_dial() {
            Ok(permit) => permit,
            Err(Refusal::AtCap | Refusal::HalfOpen) => {
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
        );
        let report = move |exit| drop(owner.cast(PeerMsg::DialEnded(Box::new(exit))));
        self.dial = Some(context.nursery.spawn(Kind::Dial, task, report));
    }

    fn report_idle(&self) {
        if self.state.is_idle() && self.dial.is_none() && self.loops.is_empty() {
            (self.on_idle.0)(self.handled);
        }
    }

    fn on_census(&self, collector: &CensusCollector) {
        let now = Instant::now();
        let connections = self.loops.iter().map(|(number, one)| one.census(*number, now)).collect();
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

impl Loop {
    fn leases_of_topics(&self) -> usize {
        self.source.leases().saturating_sub(usize::from(self.kept.is_some()))
    }

    fn census(&self, number: u64, now: Instant) -> ConnectionCensus {
        let (path, rtt) = match self.connection.upgrade() {
            Some(connection) => {
                let paths = connection.paths();
                let selected = paths.iter().find(|path| path.is_selected());
                (selected.as_ref().map(|path| path.remote_addr().clone()), selected.as_ref().map(|path| path.rtt()))
            }
            None => (None, None),
        };
        ConnectionCensus {
            number,
            side: self.side,
            perennial: self.perennial,
            age: now.duration_since(self.since),
            leases: self.leases_of_topics(),
            queued_frames: self.source.queued_frames(),
            path,
            rtt,
        }
    }
}
