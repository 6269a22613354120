//! The supervisor of all topics: join, respawn, leave. Its handlers never wait.
//!
//! A topic's inboxes live here and outlive its loop: a respawned loop reads on where the crashed one stopped, and no
//! handle ever holds a dead address. A topic that crashes too often is given up; its handles then say so.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::Ordering},
};

use iroh::EndpointId;
use iroh_gossip::proto::TopicId;
use n0_future::time::Instant;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    census::{Part, TopicCensus},
    error::JoinError,
    handle::{Command, Event, TopicHandle},
    ledger::{Entry, Kind},
    limits::Limits,
    mishaps::Loop,
    routes::{Signals, TopicRoute},
    subscribers::Subscribers,
    supervisor::{
        Child, Exit, Heartbeat, Pulse,
        restart::{Restarts, Verdict},
    },
    topic::{Topic, TopicContext, TopicEnd, TopicInboxes},
};

/// What the supervisor of all topics is told.
#[derive(Debug)]
pub(crate) enum TopicsMsg {
    /// The application joins.
    Join(JoinRequest),
    /// A topic's loop has ended.
    Ended(TopicId, Exit<TopicEnd>),
    /// Look after the children.
    Tick,
    /// Answer for all topics.
    Census(oneshot::Sender<Part>),
    /// Leave every topic; answer when all have been left.
    Drain(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(crate) struct JoinRequest {
    pub(crate) topic: TopicId,
    pub(crate) bootstrap: Vec<EndpointId>,
    pub(crate) reply: oneshot::Sender<Result<Joined, JoinError>>,
}

/// The handle, and the command inbox through which the caller names its bootstrap.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) handle: TopicHandle,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) bootstrap: Vec<EndpointId>,
}

pub(crate) struct Topics;

pub(crate) struct TopicsState {
    _entry: Entry,
    context: TopicContext,
    rows: HashMap<TopicId, Row>,
    rng: StdRng,
    draining: Option<oneshot::Sender<()>>,
    is_draining: bool,
}

struct Row {
    child: Child,
    pulse: Pulse,
    leave: CancellationToken,
    inboxes: Arc<TopicInboxes>,
    /// Only handles keep a topic; this table must not.
    commands: mpsc::WeakSender<Command>,
    frames: mpsc::WeakSender<crate::routes::Delivery>,
    restarts: Restarts,
    /// Joins that arrived while the topic was being left.
    waiting: Vec<JoinRequest>,
}

impl Actor for Topics {
    type Msg = TopicsMsg;
    type State = TopicsState;
    type Arguments = (TopicContext, StdRng);

    async fn pre_start(
        &self,
        _myself: ActorRef<TopicsMsg>,
        (context, rng): (TopicContext, StdRng),
    ) -> Result<TopicsState, ActorProcessingErr> {
        let entry = context.common.nursery.ledger.enter(Kind::Supervisor);
        Ok(TopicsState { _entry: entry, context, rows: HashMap::new(), rng, draining: None, is_draining: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<TopicsMsg>,
        message: TopicsMsg,
        state: &mut TopicsState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(strike) = state.context.common.nursery.faults.due(Loop::Topics, None) {
            strike.land().await;
            return Err("injected".into());
        }
        match message {
            TopicsMsg::Join(request) => state.on_join(&myself, request),
            TopicsMsg::Ended(topic, exit) => state.on_ended(&myself, topic, exit),
            TopicsMsg::Tick => state.on_tick(),
            TopicsMsg::Census(reply) => state.on_census(reply),
            TopicsMsg::Drain(reply) => state.on_drain(reply),
        }
        Ok(())
    }

    /// Topics are loops, not actors: their ends arrive as messages.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<TopicsMsg>,
        _event: SupervisionEvent,
        _state: &mut TopicsState,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl TopicsState {
    fn on_join(&mut self, myself: &ActorRef<TopicsMsg>, request: JoinRequest) {
        let limit = self.context.common.limits.topics_max;
        let joined = self.rows.len();
        if self.is_draining {
            return refuse(request, JoinError::ShuttingDown);
        }
        match self.rows.get_mut(&request.topic) {
            Some(row) => match row.commands.upgrade() {
                Some(commands) => answer(request, &row.inboxes, commands),
                None => row.waiting.push(request),
            },
            None if joined >= limit => refuse(request, JoinError::TooManyTopics { limit }),
            None => self.start(myself, request),
        }
    }

    fn start(&mut self, myself: &ActorRef<TopicsMsg>, request: JoinRequest) {
        let limits = &self.context.common.limits;
        let topic = request.topic;
        let (frames_in, frames) = mpsc::channel(limits.topic_frames_max);
        let (commands_in, commands) = mpsc::channel(limits.topic_commands_max);
        let inboxes = Arc::new(TopicInboxes {
            frames: tokio::sync::Mutex::new(frames),
            commands: tokio::sync::Mutex::new(commands),
            signals: Signals::default(),
            events: Subscribers::new(limits),
            neighbors: watch::channel(Vec::new()).0,
            memory: Mutex::default(),
            contacts: Default::default(),
            gauges: Default::default(),
            approvals: Default::default(),
        });
        let restarts = Restarts::new(limits.restarts_max, limits.restart_period);
        let weak_frames = frames_in.downgrade();
        self.context.common.routes.open_topic(
            topic,
            TopicRoute {
                frames: frames_in,
                signals: inboxes.signals.clone(),
                neighbors: inboxes.neighbors.subscribe(),
            },
        );
        let leave = CancellationToken::new();
        let weak_commands = commands_in.downgrade();
        let (child, pulse) = self.spawn(myself, topic, &inboxes, &leave);
        answer(request, &inboxes, commands_in);
        self.rows.insert(
            topic,
            Row {
                child,
                pulse,
                leave,
                inboxes,
                commands: weak_commands,
                frames: weak_frames,
                restarts,
                waiting: Vec::new(),
            },
        );
    }

    fn spawn(
        &mut self,
        myself: &ActorRef<TopicsMsg>,
        topic: TopicId,
        inboxes: &Arc<TopicInboxes>,
        leave: &CancellationToken,
    ) -> (Child, Pulse) {
        let heartbeat = Heartbeat::default();
        let one = Topic::new(topic, self.context.clone(), inboxes.clone(), StdRng::from_rng(&mut self.rng));
        let owner = myself.clone();
        let child =
            self.context.common.nursery.spawn(Kind::Topic, one.run(heartbeat.clone(), leave.clone()), move |exit| {
                drop(owner.cast(TopicsMsg::Ended(topic, exit)))
            });
        (child, Pulse::new(heartbeat, Instant::now()))
    }

    fn on_ended(&mut self, myself: &ActorRef<TopicsMsg>, topic: TopicId, exit: Exit<TopicEnd>) {
        let crash = match exit {
            Exit::Finished(TopicEnd::Left) => None,
            Exit::Finished(TopicEnd::Injected) => Some("injected".to_owned()),
            Exit::Panicked(text) => Some(format!("panicked: {text}")),
            Exit::Killed => Some("killed".to_owned()),
        };
        match crash {
            None => self.on_left(myself, topic),
            Some(reason) => self.on_crash(myself, topic, &reason),
        }
        self.answer_drain();
    }

    fn on_left(&mut self, myself: &ActorRef<TopicsMsg>, topic: TopicId) {
        self.context.common.routes.close_topic(&topic);
        if let Some(row) = self.rows.remove(&topic) {
            for request in row.waiting {
                self.on_join(myself, request);
            }
        }
    }

    fn on_crash(&mut self, myself: &ActorRef<TopicsMsg>, topic: TopicId, reason: &str) {
        let Some(mut row) = self.rows.remove(&topic) else { return };
        self.context.common.nursery.mishaps.note_crash(Loop::Topic);
        match row.restarts.on_crash(Instant::now()) {
            Verdict::Restart => {
                tracing::warn!(%topic, %reason, "topic crashed; restarting it");
                (row.child, row.pulse) = self.spawn(myself, topic, &row.inboxes, &row.leave);
                row.inboxes.neighbors.send_replace(Vec::new());
                row.inboxes.events.send(&Event::Restarted);
                self.rows.insert(topic, row);
            }
            Verdict::GiveUp => {
                tracing::error!(%topic, %reason, "topic crashed too often; giving it up");
                self.context.common.routes.close_topic(&topic);
                for request in row.waiting {
                    self.on_join(myself, request);
                }
            }
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        for (topic, row) in &mut self.rows {
            if row.pulse.is_frozen(now, self.context.common.limits.frozen_timeout) {
                tracing::warn!(%topic, "topic is frozen; killing it");
                row.child.kill();
            }
        }
    }

    fn on_census(&self, reply: oneshot::Sender<Part>) {
        let mut part = Part::default();
        part.owned.add(Kind::Topic, self.rows.len());
        let approvals = self.rows.values().map(|row| row.inboxes.approvals.load(Ordering::Relaxed));
        part.owned.add(Kind::Approval, approvals.sum());
        part.topics = self.rows.iter().map(|(topic, row)| row.census(*topic, &self.context.common.limits)).collect();
        part.topics.sort_by_key(|one| one.topic);
        let _asker_gone = reply.send(part);
    }

    fn on_drain(&mut self, reply: oneshot::Sender<()>) {
        self.is_draining = true;
        self.draining = Some(reply);
        for row in self.rows.values() {
            row.leave.cancel();
        }
        self.answer_drain();
    }

    fn answer_drain(&mut self) {
        if self.rows.is_empty()
            && let Some(reply) = self.draining.take()
        {
            let _asker_gone = reply.send(());
        }
    }
}

impl Row {
    fn census(&self, topic: TopicId, limits: &Limits) -> TopicCensus {
        let queued = self.frames.upgrade().map_or(0, |frames| frames.max_capacity() - frames.capacity());
        TopicCensus {
            topic,
            neighbors: self.inboxes.neighbors.borrow().clone(),
            contacts: self.inboxes.contacts.load(Ordering::Relaxed),
            queued_frames: queued,
            restarts: self.restarts.total(),
            stores: self.inboxes.stores(topic, limits),
        }
    }
}

fn answer(request: JoinRequest, inboxes: &TopicInboxes, commands: mpsc::Sender<Command>) {
    let handle =
        TopicHandle::new(request.topic, commands.clone(), inboxes.neighbors.subscribe(), inboxes.events.subscribe());
    // If the caller has gone the handle is dropped with the answer, and the topic is left again.
    let _caller_gone = request.reply.send(Ok(Joined { handle, commands, bootstrap: request.bootstrap }));
}

fn refuse(request: JoinRequest, error: JoinError) {
    let _caller_gone = request.reply.send(Err(error));
}
