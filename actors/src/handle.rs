//! The application's side of a topic: publish, events, leave on drop.

use bytes::Bytes;
use iroh::EndpointId;
use iroh_gossip::proto::TopicId;

use crate::error::PublishError;

/// One membership of one topic. The topic is left when its last handle, publisher and event stream are dropped.
#[derive(Debug)]
pub struct TopicHandle {
    topic: TopicId,
    publisher: Publisher,
    events: Events,
}

impl TopicHandle {
    pub fn topic(&self) -> TopicId {
        self.topic
    }
    pub async fn publish(&self, content: impl Into<Bytes>) -> Result<Receipt, PublishError> {
        self.publisher.publish(content).await
    }
    /// The remotes of the active view at this moment.
    pub fn neighbors(&self) -> Vec<EndpointId> {
        self.publisher.neighbors()
    }
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.next().await
    }
    /// Waits until the topic has at least one neighbour; false when the topic closed first.
    pub async fn joined(&self) -> bool {
        unimplemented!()
    }
    pub fn split(self) -> (Publisher, Events) {
        (self.publisher, self.events)
    }
}

/// Cloneable sending half.
#[derive(Debug, Clone)]
pub struct Publisher {}

impl Publisher {
    pub async fn publish(&self, _content: impl Into<Bytes>) -> Result<Receipt, PublishError> {
        unimplemented!()
    }
    pub fn neighbors(&self) -> Vec<EndpointId> {
        unimplemented!()
    }
    /// Resolves when the topic has at least one neighbour; false when the topic closed first.
    pub async fn joined(&self) -> bool {
        unimplemented!()
    }
}

#[derive(Debug)]
pub struct Events {}

impl Events {
    /// The next event; `None` once the topic is closed and everything waiting has been read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        unimplemented!()
    }
}

/// What happened on a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    NeighborUp(EndpointId),
    NeighborDown { peer: EndpointId, reason: DownReason },
    Received(Message),
    /// This subscriber was too slow and lost this many events.
    Lagged(u64),
    /// The topic's loop was restarted; neighbours are being found anew.
    Restarted,
}

/// Why a neighbour went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DownReason {
    /// The remote left or made room in its view.
    Left,
    /// This node made room in its view.
    Evicted,
    /// The connection was lost.
    ConnectionLost,
}

impl DownReason {
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
    pub content: Bytes,
    /// The neighbour it came from, not its author.
    pub delivered_from: EndpointId,
    /// Hops from its publisher; 0 when received directly from it.
    pub hops: u16,
}

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Neighbours at the moment of publishing. With 0 nobody heard it.
    pub neighbors: usize,
    /// Identical content was published here within 90 s: nodes that have it will drop this as a duplicate.
    pub repeated: bool,
}
