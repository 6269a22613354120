//! The application's side of a topic: publish, events, leave on drop.
//!
//! Nothing here does any work; a handle holds the sending end of its topic's command inbox, and when the last of those
//! is dropped the topic leaves. The thinking is in `topic/state.rs`.

use std::{pin::Pin, task::Poll};

use bytes::Bytes;
use iroh::EndpointId;
use iroh_gossip::proto::TopicId;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{error::PublishError, operation::Operation, subscribers::Subscription};

/// One membership of one topic. Whoever does not read its events should drop that side ([`TopicHandle::split`]): they are
/// kept, and the topic waits once for them to be read. The topic is left when its last handle, publisher and event stream are dropped.
#[derive(Debug)]
pub struct TopicHandle {
    publisher: Publisher,
    events: Events,
}

impl TopicHandle {
    pub(crate) fn new(
        topic: TopicId,
        commands: mpsc::Sender<Command>,
        neighbors: watch::Receiver<Vec<EndpointId>>,
        events: Subscription,
    ) -> Self {
        let hold = commands.clone();
        Self { publisher: Publisher { topic, commands, neighbors }, events: Events { events, _hold: hold } }
    }

    /// The topic.
    pub fn topic(&self) -> TopicId {
        self.publisher.topic
    }

    /// See [`Publisher::publish`].
    ///
    /// # Errors
    ///
    /// See [`Publisher::publish`].
    pub async fn publish(&self, content: impl Into<Bytes>) -> Result<Receipt, PublishError> {
        self.publisher.publish(content).await
    }

    /// See [`Publisher::neighbors`].
    pub fn neighbors(&self) -> Vec<EndpointId> {
        self.publisher.neighbors()
    }

    /// See [`Publisher::joined`].
    pub async fn joined(&self) -> bool {
        self.publisher.joined().await
    }

    /// See [`Events::next`].
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.next().await
    }

    /// Takes the two sides apart, for two tasks. The topic stays joined while either lives.
    pub fn split(self) -> (Publisher, Events) {
        (self.publisher, self.events)
    }
}

/// The publishing side of a topic. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    topic: TopicId,
    commands: mpsc::Sender<Command>,
    neighbors: watch::Receiver<Vec<EndpointId>>,
}

impl Publisher {
    /// Sends `content` to everyone on the topic. Waits while the topic has more to do than it can (see
    /// [`crate::Limits::topic_commands_max`]), so a publisher is never faster than its node.
    ///
    /// # Errors
    ///
    /// [`PublishError::TooLarge`] beyond [`crate::limits::CONTENT_MAX`] bytes; [`PublishError::Closed`] once the topic
    /// has been given up or the mesh has been drained.
    pub async fn publish(&self, content: impl Into<Bytes>) -> Result<Receipt, PublishError> {
        self.enqueue(content).await?.await
    }

    /// As [`Publisher::publish`], but waits only until the topic has room for one more message, not until it has been sent:
    /// for whoever has many at once. They are sent in the order in which they were queued, also if what is returned here is
    /// dropped, and together where they fit into one packet.
    ///
    /// # Errors
    ///
    /// See [`Publisher::publish`]; what becomes known only later is told by the future that is returned.
    pub async fn enqueue(&self, content: impl Into<Bytes>) -> Result<Enqueued, PublishError> {
        let content = content.into();
        let operation = Operation::publish(&self.topic, content.len());
        match self.hand_over(content).await {
            Ok(receipt) => Ok(Enqueued { receipt, operation: Some(operation) }),
            Err(error) => {
                operation.fail(error.name());
                Err(error)
            }
        }
    }

    async fn hand_over(
        &self,
        content: Bytes,
    ) -> Result<oneshot::Receiver<Result<Receipt, PublishError>>, PublishError> {
        let (reply, receipt) = oneshot::channel();
        self.commands.send(Command::Publish { content, reply }).await.map_err(|_| PublishError::Closed)?;
        Ok(receipt)
    }

    /// The active view (HyParView) at this moment: the remotes this node gossips with directly.
    pub fn neighbors(&self) -> Vec<EndpointId> {
        self.neighbors.borrow().clone()
    }

    /// Waits until the topic has at least one neighbour; false when it closed first.
    pub async fn joined(&self) -> bool {
        self.neighbors.clone().wait_for(|neighbors| !neighbors.is_empty()).await.is_ok()
    }
}

/// A message that waits for its turn, or has had it: a future of its [`Receipt`]. Cancel-safe; dropping it takes nothing back.
#[derive(Debug)]
pub struct Enqueued {
    receipt: oneshot::Receiver<Result<Receipt, PublishError>>,
    /// Until it is over.
    operation: Option<Operation>,
}

impl Future for Enqueued {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receipt).poll(context).map(|told| {
            let outcome = told.unwrap_or(Err(PublishError::Closed));
            match (self.operation.take(), &outcome) {
                (Some(operation), Ok(receipt)) => {
                    operation.note("neighbors", receipt.neighbors);
                    operation.note("dropped", receipt.dropped);
                    operation.succeed("published");
                }
                (Some(operation), Err(error)) => operation.fail(error.name()),
                (None, _) => {}
            }
            outcome
        })
    }
}

/// What happens on a topic, in order. Each stream of a topic hears everything from the moment it was made.
#[derive(Debug)]
pub struct Events {
    events: Subscription,
    /// Someone who only listens is a member too.
    _hold: mpsc::Sender<Command>,
}

impl Events {
    /// The next event; `None` once the topic is closed and everything waiting has been read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.next().await
    }
}

/// What the application asks of a topic.
#[derive(Debug)]
pub(crate) enum Command {
    Publish { content: Bytes, reply: oneshot::Sender<Result<Receipt, PublishError>> },
    Join(Vec<EndpointId>),
}

/// What happened on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A remote joined this node's active view.
    NeighborUp(EndpointId),
    /// A remote left this node's active view.
    NeighborDown {
        /// The remote.
        peer: EndpointId,
        /// Why it went.
        reason: DownReason,
    },
    /// A message arrived.
    Received(Message),
    /// This stream was read too slowly and lost this many events, after those that came before and before those that follow.
    Lagged(u64),
    /// The topic's loop crashed and was restarted; its neighbours are being found anew.
    Restarted,
}

/// Why a neighbour went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DownReason {
    /// It said so: it left, or made room in its view.
    Left,
    /// This node made room in its own view.
    Evicted,
    /// Its connection was lost.
    ConnectionLost,
}

impl DownReason {
    /// The stable name of this reason in JSON.
    pub fn name(self) -> &'static str {
        match self {
            DownReason::Left => "left",
            DownReason::Evicted => "evicted",
            DownReason::ConnectionLost => "connection-lost",
        }
    }
}

/// A message that crossed the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What was published.
    pub content: Bytes,
    /// The neighbour it came from, who need not be its author.
    pub delivered_from: EndpointId,
    /// Hops it took before the last one; 0 when it came from its publisher.
    pub hops: u16,
}

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Neighbours at the moment of publishing. With 0 nobody heard it.
    pub neighbors: usize,
    /// Neighbours that were to be pushed this message and had no room for it. They hear of it when they have, and from others.
    pub dropped: usize,
    /// Whether the same content was published here within the last 90 s: nodes that remember it drop it as a duplicate.
    pub repeated: bool,
}
