//! The root of the tree: starts the branches in order, restarts what crashes, gives up in time, drains in reverse.
//!
//! Start order: `Peers`, `Topics`, the clock, the acceptor last. Stop order is the reverse. Its handlers never await the
//! network; the drain, which does, is a child.

use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use n0_future::time::{Instant, interval};
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::{oneshot, watch},
    time::timeout_at,
};

use super::{Ended, Parts, relays::Relays};
use crate::{
    acceptor::{Acceptor, AcceptorEnd},
    connection::ConnectionNumbers,
    error::MeshGone,
    ledger::{Entry, Kind, Owned},
    mishaps::Loop,
    peer::PeerShared,
    peers::{Peers, PeersMsg},
    pressure::{Budget, PressureGauge, Resource, Sample},
    routes::{Gone, Signal},
    supervisor::{
        Child, Exit, Heartbeat, Pulse,
        restart::{Restarts, Verdict},
    },
    topic::TopicContext,
    topics::{Topics, TopicsMsg},
    vitals::Vitals,
};

/// How often this process looks at itself.
const VITALS_INTERVAL: Duration = Duration::from_secs(5);

/// What the root is told.
#[derive(Debug)]
pub(crate) enum MeshMsg {
    /// The clock ticked.
    Tick,
    /// The accept loop has ended.
    AcceptorEnded(Exit<AcceptorEnd>),
    /// The clock has ended.
    ClockEnded,
    /// Say goodbye and end. The reply tells whether everything ended by itself.
    Drain { deadline: Duration, reply: Option<oneshot::Sender<bool>> },
    /// The drain is over.
    Drained { clean: bool },
}

/// Where the branches are now. They may be restarted, so everyone who talks to them looks here each time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Branches {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    peers: RwLock<Option<ActorRef<PeersMsg>>>,
    topics: RwLock<Option<ActorRef<TopicsMsg>>>,
    handshakes: Arc<AtomicUsize>,
    root: AtomicBool,
    acceptor: AtomicBool,
    clock: AtomicBool,
    drain: AtomicBool,
}

impl Branches {
    pub(super) fn tell_peers(&self, message: PeersMsg) -> Result<(), MeshGone> {
        let peers = self.shared.peers.read().expect("no holder panics").clone();
        peers.ok_or(MeshGone)?.cast(message).map_err(|_| MeshGone)
    }

    pub(super) fn tell_topics(&self, message: TopicsMsg) -> Result<(), MeshGone> {
        let topics = self.shared.topics.read().expect("no holder panics").clone();
        topics.ok_or(MeshGone)?.cast(message).map_err(|_| MeshGone)
    }

    /// What the root's own table says should be alive.
    pub(super) fn add_owned(&self, owned: &mut Owned) {
        let one_if = |flag: &AtomicBool| usize::from(flag.load(Ordering::Relaxed));
        let peers = usize::from(self.shared.peers.read().expect("no holder panics").is_some());
        let topics = usize::from(self.shared.topics.read().expect("no holder panics").is_some());
        owned.add(Kind::Supervisor, one_if(&self.shared.root) + peers + topics);
        owned.add(Kind::Acceptor, one_if(&self.shared.acceptor));
        owned.add(Kind::Clock, one_if(&self.shared.clock));
        owned.add(Kind::Drain, one_if(&self.shared.drain));
        owned.add(Kind::Handshake, self.shared.handshakes.load(Ordering::Relaxed));
    }
}

pub(super) struct Root;

pub(super) struct RootArguments {
    pub(super) parts: Parts,
    pub(super) branches: Branches,
    pub(super) ended: watch::Sender<Option<Ended>>,
}

pub(super) struct RootState {
    parts: Parts,
    branches: Branches,
    acceptor: Option<(Child, Pulse)>,
    clock: Option<Child>,
    drain: Option<Child>,
    waiting: Vec<oneshot::Sender<bool>>,
    peers_restarts: Restarts,
    topics_restarts: Restarts,
    acceptor_restarts: Restarts,
    numbers: ConnectionNumbers,
    gave_up: Option<String>,
    pressure: Option<PressureGauge>,
    look_at: Instant,
    relays: Relays,
    rng: StdRng,
    _entry: Entry,
    /// Last, so that whoever hears of the end finds everything above already gone.
    ended: EndedGuard,
}

/// Announces the end however the root ends, a kill included.
struct EndedGuard {
    ended: watch::Sender<Option<Ended>>,
    how: Ended,
}

impl Drop for EndedGuard {
    fn drop(&mut self) {
        self.ended.send_replace(Some(self.how.clone()));
    }
}

impl Actor for Root {
    type Msg = MeshMsg;
    type State = RootState;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<MeshMsg>,
        arguments: RootArguments,
    ) -> Result<RootState, ActorProcessingErr> {
        let RootArguments { parts, branches, ended } = arguments;
        let restarts = || Restarts::new(parts.limits.restarts_max, parts.limits.restart_period);
        let mut state = RootState {
            _entry: parts.nursery.ledger.enter(Kind::Supervisor),
            peers_restarts: restarts(),
            topics_restarts: restarts(),
            acceptor_restarts: restarts(),
            acceptor: None,
            clock: None,
            drain: None,
            waiting: Vec::new(),
            numbers: ConnectionNumbers::default(),
            gave_up: None,
            pressure: None,
            look_at: Instant::now(),
            relays: Relays::default(),
            rng: StdRng::from_rng(&mut rand::rng()),
            ended: EndedGuard { ended, how: Ended::GaveUp("the root supervisor was killed".into()) },
            parts,
            branches,
        };
        state.branches.shared.root.store(true, Ordering::Relaxed);
        state.start_peers(&myself).await?;
        state.start_topics(&myself).await?;
        state.start_clock(&myself);
        state.start_acceptor(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<MeshMsg>,
        message: MeshMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            MeshMsg::Tick => state.on_tick(),
            MeshMsg::AcceptorEnded(exit) => state.on_acceptor_ended(&myself, exit),
            MeshMsg::ClockEnded => state.on_clock_ended(&myself),
            MeshMsg::Drain { deadline, reply } => state.on_drain(&myself, deadline, reply),
            MeshMsg::Drained { clean } => state.on_drained(&myself, clean),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<MeshMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, last_state, reason) => {
                drop(last_state);
                state.on_branch_gone(&myself, &cell, &reason.unwrap_or_default()).await
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                state.on_branch_gone(&myself, &cell, &error.to_string()).await
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }
}

impl RootState {
    async fn start_peers(&mut self, myself: &ActorRef<MeshMsg>) -> Result<(), ActorProcessingErr> {
        let parts = &self.parts;
        let shared = PeerShared {
            endpoint: parts.endpoint.clone(),
            door: parts.door.clone(),
            numbers: self.numbers.clone(),
            connections: parts.context(),
        };
        let (peers, _task) = Actor::spawn_linked(None, Peers, shared, myself.get_cell()).await?;
        *self.branches.shared.peers.write().expect("no holder panics") = Some(peers);
        Ok(())
    }

    async fn start_topics(&mut self, myself: &ActorRef<MeshMsg>) -> Result<(), ActorProcessingErr> {
        let parts = self.parts.clone();
        let (branches, routes) = (self.branches.clone(), parts.routes.clone());
        let context = TopicContext {
            common: parts.context(),
            my_addresses: Arc::new(move || parts.my_addresses()),
            want: Arc::new(move |peer, wish| {
                if branches.tell_peers(PeersMsg::Want(peer, wish)).is_err() {
                    // Between two supervisors nobody can be reached.
                    routes.signal(peer, Signal::Gone(Gone::NotDialed));
                }
            }),
        };
        let rng = StdRng::from_rng(&mut self.rng);
        let (topics, _task) = Actor::spawn_linked(None, Topics, (context, rng), myself.get_cell()).await?;
        *self.branches.shared.topics.write().expect("no holder panics") = Some(topics);
        Ok(())
    }

    fn start_clock(&mut self, myself: &ActorRef<MeshMsg>) {
        let tick = self.parts.limits.tick;
        let (root, faults) = (myself.clone(), self.parts.nursery.faults.clone());
        let ticking = async move {
            let mut turn = interval(tick);
            loop {
                tokio::select! {
                    strike = faults.strike(Loop::Clock, None) => return strike.land().await,
                    _ = turn.tick() => {}
                }
                if root.cast(MeshMsg::Tick).is_err() {
                    return;
                }
            }
        };
        let owner = myself.clone();
        let report = move |_exit| drop(owner.cast(MeshMsg::ClockEnded));
        self.clock = Some(self.parts.nursery.spawn(Kind::Clock, ticking, report));
        self.branches.shared.clock.store(true, Ordering::Relaxed);
    }

    fn start_acceptor(&mut self, myself: &ActorRef<MeshMsg>) {
        let heartbeat = Heartbeat::default();
        let branches = self.branches.clone();
        let room = branches.clone();
        let acceptor = Acceptor {
            endpoint: self.parts.endpoint.clone(),
            door: self.parts.door.clone(),
            listeners: self.parts.listeners.clone(),
            context: self.parts.context(),
            probing: self.parts.probing.clone(),
            heartbeat: heartbeat.clone(),
            // Between two supervisors the connection is dropped, which closes it; its dialer comes again.
            deliver: Arc::new(move |established| {
                let _between = branches.tell_peers(PeersMsg::Accepted(Box::new(established)));
            }),
            make_room: Arc::new(move |listener| {
                // Asked again at the next tick.
                let _between = room.tell_peers(PeersMsg::MakeRoom(listener));
            }),
            slot_free: self.parts.slot_free.clone(),
            handshakes: self.branches.shared.handshakes.clone(),
            rng: StdRng::from_rng(&mut self.rng),
        };
        let owner = myself.clone();
        let report = move |exit| drop(owner.cast(MeshMsg::AcceptorEnded(exit)));
        let child = self.parts.nursery.spawn(Kind::Acceptor, acceptor.run(), report);
        self.acceptor = Some((child, Pulse::new(heartbeat, Instant::now())));
        self.branches.shared.acceptor.store(true, Ordering::Relaxed);
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        if let Some((child, pulse)) = &mut self.acceptor
            && pulse.is_frozen(now, self.parts.limits.frozen_timeout)
        {
            tracing::warn!("accept loop is frozen; killing it");
            child.kill();
        }
        self.parts.addresses.sweep(now);
        self.look_at_resources(now);
        self.parts.redials.sweep(now);
        self.relays.on_tick(&self.parts, now, &mut self.rng);
        self.parts.backends.sweep(now);
        // A branch between two lives has nothing to look after.
        let _restarting = self.branches.tell_peers(PeersMsg::Tick);
        let _restarting = self.branches.tell_topics(TopicsMsg::Tick);
    }

    /// How short this process is of memory and descriptors. Reading three small files of the kernel takes some 100 µs.
    fn look_at_resources(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + VITALS_INTERVAL;
        self.parts.door.sweep(now);
        let Vitals { rss_bytes, open_fds, fds_max, .. } = Vitals::read();
        let budget = Budget { memory_budget: self.parts.limits.memory_budget, fds_max };
        let gauge = self.pressure.get_or_insert_with(|| PressureGauge::new(budget));
        let verdict = gauge.on_sample(Sample { rss_bytes, open_fds });
        let before = self.parts.door.pressure();
        if verdict.pressure != before {
            let resource = verdict.resource.map_or("none", Resource::name);
            let (now, before) = (verdict.pressure.name(), before.name());
            tracing::warn!(now, before, resource, "pressure on memory and descriptors changed");
            self.parts.door.set_pressure(verdict.pressure);
        }
    }

    fn on_acceptor_ended(&mut self, myself: &ActorRef<MeshMsg>, exit: Exit<AcceptorEnd>) {
        self.acceptor = None;
        self.branches.shared.acceptor.store(false, Ordering::Relaxed);
        if self.is_ending() {
            return;
        }
        tracing::warn!(?exit, "accept loop ended; restarting it");
        self.parts.nursery.mishaps.note_crash(Loop::Acceptor);
        match self.acceptor_restarts.on_crash(Instant::now()) {
            Verdict::Restart => self.start_acceptor(myself),
            Verdict::GiveUp => self.give_up(myself, "the accept loop crashed too often"),
        }
    }

    fn on_clock_ended(&mut self, myself: &ActorRef<MeshMsg>) {
        self.clock = None;
        self.branches.shared.clock.store(false, Ordering::Relaxed);
        if !self.is_ending() {
            self.parts.nursery.mishaps.note_crash(Loop::Clock);
            self.start_clock(myself);
        }
    }

    /// One of the two supervisors below has ended although nobody told it to.
    async fn on_branch_gone(
        &mut self,
        myself: &ActorRef<MeshMsg>,
        cell: &ActorCell,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        let is = |id: Option<ractor::ActorId>| id == Some(cell.get_id());
        let peers = self.branches.shared.peers.read().expect("no holder panics").as_ref().map(|actor| actor.get_id());
        let topics = self.branches.shared.topics.read().expect("no holder panics").as_ref().map(|actor| actor.get_id());
        if is(peers) {
            *self.branches.shared.peers.write().expect("no holder panics") = None;
            // Its loops died with it; nobody else would tell the topics.
            self.parts.routes.forget_peers();
        } else if is(topics) {
            *self.branches.shared.topics.write().expect("no holder panics") = None;
            self.parts.routes.forget_topics();
        } else {
            return Ok(());
        }
        if self.is_ending() {
            return Ok(());
        }
        let (of, restarts) = match is(peers) {
            true => (Loop::Peers, &mut self.peers_restarts),
            false => (Loop::Topics, &mut self.topics_restarts),
        };
        let name = of.name();
        tracing::error!(%reason, "supervisor of {name} crashed");
        self.parts.nursery.mishaps.note_crash(of);
        match restarts.on_crash(Instant::now()) {
            Verdict::Restart if is(peers) => self.start_peers(myself).await,
            Verdict::Restart => self.start_topics(myself).await,
            Verdict::GiveUp => {
                self.give_up(myself, &format!("the supervisor of {name} crashed too often: {reason}"));
                Ok(())
            }
        }
    }

    fn give_up(&mut self, myself: &ActorRef<MeshMsg>, reason: &str) {
        tracing::error!(%reason, "giving up");
        self.gave_up = Some(reason.to_owned());
        self.on_drain(myself, Duration::from_secs(1), None);
    }

    fn is_ending(&self) -> bool {
        self.drain.is_some() || self.gave_up.is_some()
    }

    fn on_drain(&mut self, myself: &ActorRef<MeshMsg>, deadline: Duration, reply: Option<oneshot::Sender<bool>>) {
        self.waiting.extend(reply);
        if self.drain.is_some() {
            return;
        }
        self.parts.draining.store(true, Ordering::Relaxed);
        // First down: nobody new.
        if let Some((acceptor, _)) = &self.acceptor {
            acceptor.kill();
        }
        let goodbye = say_goodbye(self.parts.clone(), self.branches.clone(), Instant::now() + deadline);
        let owner = myself.clone();
        let report = move |exit| {
            let clean = matches!(exit, Exit::Finished(true));
            drop(owner.cast(MeshMsg::Drained { clean }));
        };
        self.branches.shared.drain.store(true, Ordering::Relaxed);
        self.drain = Some(self.parts.nursery.spawn(Kind::Drain, goodbye, report));
    }

    fn on_drained(&mut self, myself: &ActorRef<MeshMsg>, clean: bool) {
        self.ended.how = match self.gave_up.take() {
            Some(reason) => Ended::GaveUp(reason),
            None => Ended::Drained,
        };
        for waiting in self.waiting.drain(..) {
            let _asker_gone = waiting.send(clean);
        }
        tracing::info!(clean, "mesh ended");
        myself.stop(None);
    }
}

/// Topics first, so that goodbyes are queued; then remotes, so that they are written; then the endpoint.
async fn say_goodbye(parts: Parts, branches: Branches, deadline: Instant) -> bool {
    let (reply, topics_left) = oneshot::channel();
    let _gone = branches.tell_topics(TopicsMsg::Drain(reply));
    let topics_in_time = timeout_at(deadline, topics_left).await.is_ok();
    let (reply, peers_gone) = oneshot::channel();
    let _gone = branches.tell_peers(PeersMsg::Drain(reply));
    let peers_in_time = timeout_at(deadline, peers_gone).await.is_ok();
    let peers = branches.shared.peers.read().expect("no holder panics").clone();
    let topics = branches.shared.topics.read().expect("no holder panics").clone();
    // Killing is enough from here: what they still own is dropped, and its drop cleans up.
    if let Some(topics) = topics {
        let _ended = topics.kill_and_wait(Some(Duration::from_secs(1))).await;
    }
    if let Some(peers) = peers {
        let _ended = peers.kill_and_wait(Some(Duration::from_secs(1))).await;
    }
    // Even with no time left the endpoint gets a moment: without it iroh's own tasks stay.
    let close_by = deadline.max(Instant::now() + Duration::from_secs(2));
    let closed_in_time = timeout_at(close_by, parts.endpoint.close()).await.is_ok();
    topics_in_time && peers_in_time && closed_in_time
}
