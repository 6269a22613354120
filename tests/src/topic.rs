//! One membership of one topic, stock or ours, behind the same verbs: publish, hears, neighbors, leave.
//!
//! A pump task reads the events as fast as they come, so that no scenario loses messages to its own slowness by
//! accident. It ends with the topic: when the node shuts down, or when this handle is dropped.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use iroh::EndpointId;
use iroh_gossip::api::{Event as StockEvent, GossipReceiver, GossipSender, GossipTopic};
use n0_future::StreamExt;
use perennial::{DownReason, Event, Events, PublishError, Publisher, TopicHandle};
use tokio::{sync::Notify, task::JoinHandle};

use crate::wait::{PATIENCE, eventually, must};

/// A joined topic.
#[derive(Debug)]
pub struct Topic {
    name: String,
    sender: Sender,
    log: Arc<Mutex<Log>>,
    news: Arc<Notify>,
    pump: JoinHandle<()>,
}

/// Received messages kept as text, for an observer that prints them.
const TEXTS_MAX: usize = 1000;

#[derive(Debug)]
enum Sender {
    Stock(GossipSender),
    Ours(Publisher),
}

/// What the application saw so far.
#[derive(Debug, Default)]
pub struct Log {
    heard: HashSet<Heard>,
    texts: Vec<String>,
    /// Messages received, duplicates of content included.
    pub messages: u64,
    /// Times the subscriber was told that it lost something.
    pub lagged: u64,
    /// Times the topic's loop was restarted. Always 0 for stock.
    pub restarts: u64,
    /// The last neighbours lost, at most 32, with our reason; stock gives none. Bounded, for an observer measures heap.
    pub downs: VecDeque<(EndpointId, Option<DownReason>)>,
    /// Whether the events ended.
    pub closed: bool,
    neighbors: BTreeSet<EndpointId>,
}

/// The length and the first bytes of a message: enough to tell messages apart, small enough to keep in a flood.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Heard {
    len: usize,
    head: Box<[u8]>,
}

impl Heard {
    fn of(content: &[u8]) -> Self {
        Self { len: content.len(), head: content[..content.len().min(48)].into() }
    }
}

impl Log {
    fn lose(&mut self, peer: EndpointId, reason: Option<DownReason>) {
        self.neighbors.remove(&peer);
        if self.downs.len() == 32 {
            self.downs.pop_front();
        }
        self.downs.push_back((peer, reason));
    }

    fn hear(&mut self, content: &[u8]) {
        self.messages += 1;
        self.heard.insert(Heard::of(content));
        if self.texts.len() < TEXTS_MAX {
            self.texts.push(String::from_utf8_lossy(&content[..content.len().min(48)]).into_owned());
        }
    }
}

impl Topic {
    pub(crate) fn stock(name: String, topic: GossipTopic) -> Self {
        let (sender, receiver) = topic.split();
        let log = Arc::<Mutex<Log>>::default();
        let news = Arc::<Notify>::default();
        let pump = tokio::spawn(pump_stock(receiver, log.clone(), news.clone()));
        Self { name, sender: Sender::Stock(sender), log, news, pump }
    }

    pub(crate) fn ours(name: String, handle: TopicHandle) -> Self {
        let (publisher, events) = handle.split();
        let log = Arc::<Mutex<Log>>::default();
        let news = Arc::<Notify>::default();
        let pump = tokio::spawn(pump_ours(events, log.clone(), news.clone()));
        Self { name, sender: Sender::Ours(publisher), log, news, pump }
    }

    /// The node this membership belongs to, for messages of failing tests.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Publishes, and fails the scenario when the node does not take the message.
    pub async fn publish(&self, content: impl Into<Bytes>) {
        if let Err(error) = self.try_publish(content).await {
            panic!("{} does not publish: {error}", self.name);
        }
    }

    /// Publishes. A stock node has no errors worth telling apart: all of them are reported as closed.
    ///
    /// # Errors
    ///
    /// What the node said.
    pub async fn try_publish(&self, content: impl Into<Bytes>) -> Result<(), PublishError> {
        match &self.sender {
            Sender::Stock(sender) => sender.broadcast(content.into()).await.map_err(|_| PublishError::Closed),
            Sender::Ours(publisher) => publisher.publish(content).await.map(|_receipt| ()),
        }
    }

    /// Waits until this message has been received.
    pub async fn hears(&self, content: impl AsRef<[u8]>) {
        self.hears_within(PATIENCE, content).await;
    }

    /// As [`Topic::hears`] with a deadline of the caller's.
    pub async fn hears_within(&self, deadline: Duration, content: impl AsRef<[u8]>) {
        let content = content.as_ref();
        let what = format!("{} hears {}", self.name, String::from_utf8_lossy(&content[..content.len().min(48)]));
        eventually(deadline, &what, async || {
            must(self.has_heard(content), || {
                let neighbors = self.neighbors();
                let log = self.log();
                format!("{} messages so far, {} lags, neighbors {neighbors:?}", log.messages, log.lagged)
            })
        })
        .await;
    }

    /// Whether this message has been received.
    pub fn has_heard(&self, content: impl AsRef<[u8]>) -> bool {
        self.log().heard.contains(&Heard::of(content.as_ref()))
    }

    /// Waits for the message number `index`, counted from 0, as text. Only the first `TEXTS_MAX` are kept.
    pub async fn nth_text(&self, index: usize) -> String {
        loop {
            let news = self.news.notified();
            if let Some(text) = self.log().texts.get(index) {
                return text.clone();
            }
            news.await;
        }
    }

    /// The remotes of the active view.
    pub fn neighbors(&self) -> Vec<EndpointId> {
        match &self.sender {
            Sender::Stock(_) => self.log().neighbors.iter().copied().collect(),
            Sender::Ours(publisher) => publisher.neighbors(),
        }
    }

    /// Waits until the topic has a neighbour.
    pub async fn joined(&self) {
        let what = format!("{} has a neighbor", self.name);
        eventually(PATIENCE, &what, async || must(!self.neighbors().is_empty(), || "none".into())).await;
    }

    /// Waits until `peer` is a neighbour.
    pub async fn sees(&self, peer: EndpointId) {
        let what = format!("{} has {} as a neighbor", self.name, peer.fmt_short());
        eventually(PATIENCE, &what, async || {
            must(self.neighbors().contains(&peer), || format!("neighbors {:?}", self.neighbors()))
        })
        .await;
    }

    /// Waits until `peer` is no neighbour.
    pub async fn misses(&self, peer: EndpointId) {
        let what = format!("{} no longer has {} as a neighbor", self.name, peer.fmt_short());
        eventually(PATIENCE, &what, async || must(!self.neighbors().contains(&peer), || "still there".into())).await;
    }

    /// Waits until the events have ended.
    pub async fn closes(&self) {
        let what = format!("{} tells its application that the topic is closed", self.name);
        eventually(PATIENCE, &what, async || must(self.log().closed, || "events still open".into())).await;
    }

    /// What the application saw so far.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves: drops both halves and waits until the reading one is gone.
    pub async fn leave(mut self) {
        self.pump.abort();
        let _ = (&mut self.pump).await;
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// Publishes numbered messages, one each second, until all listeners have heard the same one; returns it.
///
/// Membership settles while the first ones travel: a node that joins a moment later has no claim to an earlier message.
pub async fn spread(publisher: &Topic, listeners: &[&Topic], text: &str, deadline: Duration) -> String {
    let what = format!("all {} listeners hear one message of {}", listeners.len(), publisher.name());
    let mut sent: Vec<String> = Vec::new();
    let mut last_sent = None;
    eventually(deadline, &what, async || {
        if last_sent.is_none_or(|at: std::time::Instant| at.elapsed() >= Duration::from_secs(1)) {
            let message = format!("{text} #{}", sent.len());
            publisher.publish(message.clone()).await;
            sent.push(message);
            last_sent = Some(std::time::Instant::now());
        }
        let deaf = |message: &str| listeners.iter().filter(|topic| !topic.has_heard(message)).count();
        match sent.iter().find(|message| deaf(message) == 0) {
            Some(message) => Ok(message.clone()),
            None => Err(missing(listeners, &sent)),
        }
    })
    .await
}

fn missing(listeners: &[&Topic], sent: &[String]) -> String {
    let deaf: Vec<_> = listeners
        .iter()
        .filter(|topic| !sent.iter().any(|message| topic.has_heard(message)))
        .map(|topic| format!("{} ({} neighbors)", topic.name(), topic.neighbors().len()))
        .collect();
    format!("{} messages sent; never heard any: {}", sent.len(), deaf.join(", "))
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pump_stock(mut receiver: GossipReceiver, log: Arc<Mutex<Log>>, news: Arc<Notify>) {
    while let Some(event) = receiver.next().await {
        let Ok(event) = event else { break };
        let mut log = lock(&log);
        match event {
            StockEvent::NeighborUp(peer) => _ = log.neighbors.insert(peer),
            StockEvent::NeighborDown(peer) => {
                log.lose(peer, None);
            }
            StockEvent::Received(message) => {
                log.hear(&message.content);
                news.notify_one();
            }
            StockEvent::Lagged => log.lagged += 1,
        }
    }
    lock(&log).closed = true;
}

async fn pump_ours(mut events: Events, log: Arc<Mutex<Log>>, news: Arc<Notify>) {
    while let Some(event) = events.next().await {
        let mut log = lock(&log);
        match event {
            Event::NeighborUp(peer) => _ = log.neighbors.insert(peer),
            Event::NeighborDown { peer, reason } => {
                log.lose(peer, Some(reason));
            }
            Event::Received(message) => {
                log.hear(&message.content);
                news.notify_one();
            }
            Event::Lagged(_) => log.lagged += 1,
            Event::Restarted => log.restarts += 1,
            _ => {}
        }
    }
    lock(&log).closed = true;
}
