//! The topics this program has joined: one printer task each, and the publisher the pipe uses.
//!
//! Joining and leaving at run time goes through here, so that a topic left and joined again finds its pipe attached.

use std::{collections::BTreeMap, sync::Arc};

use iroh::EndpointAddr;
use perennial::{Event, Events, JoinError, Kind, Mesh, Publisher, TopicId};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    lines::Line,
    names::TopicName,
    output::Output,
    state_dir::StateDir,
    tasks::{TaskEnd, Tasks},
};

/// The joined topics. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Memberships {
    mesh: Mesh,
    tasks: Tasks,
    output: Output,
    state: Option<StateDir>,
    table: Arc<Mutex<Table>>,
    pipe: watch::Sender<Option<PipeTarget>>,
    /// The topic the pipe publishes to, joined at this moment or not.
    pipe_topic: Option<TopicId>,
    printing: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    joined: BTreeMap<TopicId, Membership>,
    joins: u64,
}

#[derive(Debug)]
struct Membership {
    topic: TopicName,
    /// For whoever publishes other than by the pipe.
    publisher: Publisher,
    leave: CancellationToken,
    printer: TaskEnd,
}

/// Where the pipe publishes to.
#[derive(Debug, Clone)]
pub(crate) struct PipeTarget {
    pub(crate) publisher: Publisher,
    /// Counts the joins, so that the pipe knows an old target from a new one.
    pub(crate) generation: u64,
    /// Whether anybody was named to meet. Without, waiting for a neighbour may take forever.
    pub(crate) expects_neighbors: bool,
}

/// One more listener of a joined topic.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) topic: TopicName,
    /// Keeps the topic joined: to be dropped at once when it is left.
    pub(crate) events: Events,
    pub(crate) left: CancellationToken,
}

/// What became of a request to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    Now,
    /// It was joined before; the peers named were met in addition.
    Already,
}

impl Memberships {
    pub(crate) fn new(
        mesh: Mesh,
        tasks: Tasks,
        output: Output,
        pipe_topic: Option<TopicId>,
        state: Option<StateDir>,
    ) -> Self {
        let (pipe, _) = watch::channel(None);
        Self { mesh, tasks, output, state, table: Arc::default(), pipe, pipe_topic, printing: CancellationToken::new() }
    }

    /// Lets the printers begin. Until then events wait, so that `ready` is the first line of every node.
    pub(crate) fn start_printing(&self) {
        self.printing.cancel();
    }

    /// The pipe's target, as it changes.
    pub(crate) fn pipe_target(&self) -> watch::Receiver<Option<PipeTarget>> {
        self.pipe.subscribe()
    }

    /// Joins `topic` by way of `peers`, and of those an earlier life had for neighbours on it.
    pub(crate) async fn join(&self, topic: TopicName, peers: Vec<EndpointAddr>) -> Result<Joined, JoinError> {
        let mut table = self.table.lock().await;
        let expects_neighbors = !peers.is_empty();
        let remembered = self.state.as_ref().map(|state| state.neighbors(topic.id)).unwrap_or_default();
        if table.joined.contains_key(&topic.id) {
            if expects_neighbors {
                // A second membership brings the new peers in; the first one keeps the topic joined.
                drop(self.mesh.join(topic.id, peers).await?);
            }
            return Ok(Joined::Already);
        }
        let expects_neighbors = expects_neighbors || !remembered.is_empty();
        let (publisher, events) = self.mesh.join(topic.id, peers).await?.split();
        if !remembered.is_empty() {
            // A second membership brings them in; the first one keeps the topic joined.
            drop(self.mesh.rejoin(topic.id, remembered).await?);
        }
        table.joins += 1;
        if self.pipe_topic == Some(topic.id) {
            let generation = table.joins;
            let publisher = publisher.clone();
            self.pipe.send_replace(Some(PipeTarget { publisher, generation, expects_neighbors }));
        }
        let leave = CancellationToken::new();
        let printer = Printer { memberships: self.clone(), topic: topic.clone(), events, leave: leave.clone() };
        let printer = self.tasks.spawn(Kind::Service, "printer", printer.run());
        table.joined.insert(topic.id, Membership { topic, publisher, leave, printer });
        Ok(Joined::Now)
    }

    /// Leaves `topic`; false where it is not joined. On return its events are no longer printed.
    pub(crate) async fn leave(&self, topic: TopicId) -> bool {
        let mut table = self.table.lock().await;
        let Some(membership) = table.joined.remove(&topic) else { return false };
        self.detach_pipe(topic);
        membership.leave.cancel();
        membership.printer.wait().await;
        true
    }

    /// The publisher of `topic`, if it is joined. It keeps the topic joined, and is not to be kept.
    pub(crate) async fn publisher(&self, topic: TopicId) -> Option<Publisher> {
        self.table.lock().await.joined.get(&topic).map(|membership| membership.publisher.clone())
    }

    /// Listens to `topic` from here on; `None` where it is not joined.
    pub(crate) async fn subscribe(&self, topic: TopicId) -> Result<Option<Subscription>, JoinError> {
        let table = self.table.lock().await;
        let Some(membership) = table.joined.get(&topic) else { return Ok(None) };
        let (_, events) = self.mesh.join(topic, None::<EndpointAddr>).await?.split();
        Ok(Some(Subscription { topic: membership.topic.clone(), events, left: membership.leave.clone() }))
    }

    /// The names of the joined topics that were given by name.
    pub(crate) async fn names(&self) -> BTreeMap<TopicId, TopicName> {
        let table = self.table.lock().await;
        table.joined.iter().map(|(id, membership)| (*id, membership.topic.clone())).collect()
    }

    /// Waits until every printer has printed its last event. The mesh must have been drained before.
    pub(crate) async fn printed(&self) {
        let printers: Vec<TaskEnd> = {
            let table = self.table.lock().await;
            table.joined.values().map(|membership| membership.printer.clone()).collect()
        };
        for printer in printers {
            printer.wait().await;
        }
    }

    /// Neighbours are worth remembering as soon as they come.
    fn note(&self, event: &Event) {
        if let (Event::NeighborUp(_) | Event::NeighborDown { .. }, Some(state)) = (event, &self.state) {
            state.on_neighbors_changed();
        }
    }

    fn detach_pipe(&self, topic: TopicId) {
        if self.pipe_topic == Some(topic) {
            self.pipe.send_replace(None);
        }
    }
}

/// Prints one topic's events until it is left or closed.
struct Printer {
    memberships: Memberships,
    topic: TopicName,
    /// Keeps the topic joined, too.
    events: Events,
    leave: CancellationToken,
}

impl Printer {
    async fn run(mut self) {
        tokio::select! {
            () = self.leave.cancelled() => return self.on_left().await,
            () = self.memberships.printing.cancelled() => {}
        }
        loop {
            tokio::select! {
                biased; // Leaving first: a busy topic must not put it off.
                () = self.leave.cancelled() => return self.on_left().await,
                event = self.events.next() => match event {
                    // Output may be blocked for good; leaving must still work then.
                    Some(event) => {
                        self.memberships.note(&event);
                        tokio::select! {
                        () = self.leave.cancelled() => return self.on_left().await,
                        () = self.memberships.output.event(&self.topic, &event) => {}
                        }
                    }
                    None => return self.on_ended().await,
                },
            }
        }
    }

    /// The events go before the last line, so that whoever reads `closed` may join again.
    async fn on_left(self) {
        let Self { memberships, topic, events, .. } = self;
        drop(events);
        let line = Line::Closed { topic: (&topic).into(), reason: "left" };
        // Bounded, because `leave` waits for this task and output may be blocked.
        let _ = tokio::time::timeout(crate::output::FLUSH_TIMEOUT, memberships.output.line(&line)).await;
    }

    async fn on_ended(self) {
        let Self { memberships, topic, leave, .. } = self;
        memberships.output.line(&Line::Closed { topic: (&topic).into(), reason: "ended" }).await;
        tokio::select! {
            // Somebody is leaving the topic at this moment, holds the table and waits for us.
            () = leave.cancelled() => {}
            mut table = memberships.table.lock() => {
                table.joined.remove(&topic.id);
                memberships.detach_pipe(topic.id);
            }
        }
    }
}
