//! A whole mesh in this process, ours or stock, behind one publisher and one tally per node.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use iroh::EndpointAddr;
use iroh_gossip::{api::GossipSender, proto::TopicId};
use n0_future::{StreamExt, future::now_or_never};
use perennial::{Enqueued, Event, Limits, Mesh};
use perennial_tests::{Stock, topic_id};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::raw::Bare;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Ours,
    Stock,
    /// One iroh connection with one stream: no mesh, one hop, one receiver. So are the rest.
    Iroh,
    /// The same without iroh around it.
    Noq,
    Udp,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Stock => "stock",
            Self::Iroh => "iroh",
            Self::Noq => "noq",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Subject {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "ours" => Ok(Self::Ours),
            "stock" => Ok(Self::Stock),
            "iroh" => Ok(Self::Iroh),
            "noq" => Ok(Self::Noq),
            "udp" => Ok(Self::Udp),
            other => bail!("{other:?} is none of ours, stock, iroh, noq, udp"),
        }
    }
}

/// How large a swarm is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    pub(crate) topics: usize,
    pub(crate) seed: u64,
}

/// A mesh forms within this long, or the machine is too busy to measure anything.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);

/// After everybody has a neighbour, views still change for a while.
const SETTLE: Duration = Duration::from_secs(3);

/// What one receiver has heard.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    received: AtomicU64,
    lagged: AtomicU64,
    neighbors: AtomicU64,
    /// Microseconds from publishing to hearing.
    delays: Mutex<Vec<u32>>,
}

/// When each message was published, as nanoseconds since `epoch`, by its number.
#[derive(Debug)]
pub(crate) struct Sent {
    epoch: Instant,
    at: Vec<AtomicU64>,
}

impl Sent {
    fn new(most: usize) -> Self {
        Self { epoch: Instant::now(), at: (0..most).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The message with this number, published now.
    pub(crate) fn message(&self, number: u64, bytes: usize) -> Bytes {
        let mut content = vec![0; bytes.max(8)];
        content[..8].copy_from_slice(&number.to_be_bytes());
        let now = self.epoch.elapsed().as_nanos() as u64;
        self.at[number as usize % self.at.len()].store(now, Ordering::Relaxed);
        content.into()
    }
}

impl Tally {
    pub(crate) fn hear(&self, content: &[u8], sent: &Sent) {
        let now = sent.epoch.elapsed().as_nanos() as u64;
        let Some(number) = content.first_chunk::<8>() else { return };
        let number = u64::from_be_bytes(*number) as usize;
        let delay = now.saturating_sub(sent.at[number % sent.at.len()].load(Ordering::Relaxed)) / 1000;
        self.received.fetch_add(1, Ordering::Relaxed);
        self.delays.lock().expect("no holder panics").push(u32::try_from(delay).unwrap_or(u32::MAX));
    }
}

/// One of the ways to say something.
#[derive(Debug)]
pub(crate) enum Publisher {
    Ours(perennial::Publisher),
    Stock(GossipSender),
    Bare(Bare),
}

/// A mesh that has formed.
#[derive(Debug)]
pub(crate) struct Swarm {
    /// One for each topic, all of the first node.
    publishers: Vec<Publisher>,
    tallies: Vec<Arc<Tally>>,
    pub(crate) sent: Arc<Sent>,
    next: u64,
    /// Times that somebody had no room for a message that the publisher was told about.
    pub(crate) told: u64,
    enqueued: VecDeque<Enqueued>,
    _nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Ours(Mesh),
    Stock(Stock),
}

/// Messages that are told apart at one time.
const NUMBERS: usize = 1 << 20;

impl Swarm {
    pub(crate) async fn form(subject: Subject, shape: Shape) -> Result<Self> {
        let sent = Arc::new(Sent::new(NUMBERS));
        let mut swarm = Self {
            publishers: Vec::new(),
            tallies: Vec::new(),
            sent,
            next: 0,
            told: 0,
            enqueued: VecDeque::new(),
            _nodes: Vec::new(),
        };
        if matches!(subject, Subject::Iroh | Subject::Noq | Subject::Udp) {
            let tally = Arc::<Tally>::default();
            swarm.publishers.push(Publisher::Bare(Bare::connect(subject, tally.clone(), swarm.sent.clone()).await?));
            swarm.tallies.push(tally);
            return Ok(swarm);
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(shape.seed);
        let mut addrs: Vec<EndpointAddr> = Vec::new();
        for number in 0..shape.nodes {
            let via = (number > 0).then(|| addrs[rng.random_range(0..number)].clone());
            addrs.push(swarm.add(subject, shape.topics, number, via.into_iter().collect()).await?);
        }
        let formed = async {
            while swarm.tallies.iter().any(|tally| tally.neighbors.load(Ordering::Relaxed) < shape.topics as u64) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(FORM_TIMEOUT, formed).await.context("the mesh did not form")?;
        tokio::time::sleep(SETTLE).await;
        // The publisher does not hear itself.
        swarm.tallies.remove(0);
        Ok(swarm)
    }

    async fn add(
        &mut self,
        subject: Subject,
        topics: usize,
        number: usize,
        via: Vec<EndpointAddr>,
    ) -> Result<EndpointAddr> {
        let tally = Arc::<Tally>::default();
        self.tallies.push(tally.clone());
        let node = match subject {
            Subject::Ours => {
                let limits = Limits { topics_max: topics.max(Limits::default().topics_max), ..Limits::default() };
                Node::Ours(Box::pin(Mesh::builder().limits(limits).spawn()).await?)
            }
            Subject::Stock => Node::Stock(Stock::spawn(format!("node {number}"), None).await?),
            Subject::Iroh | Subject::Noq | Subject::Udp => bail!("{subject} has no nodes"),
        };
        for topic in (0..topics).map(|topic| topic_id(&format!("speed {topic}"))) {
            let publisher = join(&node, topic, &via, tally.clone(), self.sent.clone()).await?;
            if number == 0 {
                self.publishers.push(publisher);
            }
        }
        let addr = match &node {
            Node::Ours(mesh) => mesh.addr(),
            Node::Stock(stock) => stock.addr(),
        };
        self._nodes.push(node);
        Ok(addr)
    }

    /// Publishes one message of so many bytes, on one topic after the other.
    pub(crate) async fn publish(&mut self, bytes: usize) -> Result<()> {
        let message = self.sent.message(self.next, bytes);
        let topics = self.publishers.len();
        let publisher = &mut self.publishers[self.next as usize % topics];
        self.next += 1;
        match publisher {
            Publisher::Ours(publisher) => {
                self.enqueued.push_back(publisher.enqueue(message).await?);
                // What has been receipted by now; the rest is under way, as with the others.
                while let Some(first) = self.enqueued.front_mut()
                    && let Some(receipt) = now_or_never(first)
                {
                    self.told += receipt?.dropped as u64;
                    self.enqueued.pop_front();
                }
            }
            Publisher::Stock(sender) => sender.broadcast(message).await.map_err(|error| anyhow::anyhow!("{error}"))?,
            Publisher::Bare(stream) => stream.write(message).await?,
        }
        Ok(())
    }

    /// Receivers of each message.
    pub(crate) fn receivers(&self) -> usize {
        self.tallies.len()
    }

    /// Messages that everybody together has heard.
    pub(crate) fn received(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.received.load(Ordering::Relaxed)).sum()
    }

    /// Messages of which somebody was told that it lost them.
    pub(crate) fn lagged(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.lagged.load(Ordering::Relaxed)).sum()
    }

    /// All delays since the last call, in microseconds, the shortest first.
    pub(crate) fn take_delays(&self) -> Vec<u32> {
        let mut all: Vec<u32> = Vec::new();
        for tally in &self.tallies {
            all.append(&mut tally.delays.lock().expect("no holder panics"));
        }
        all.sort_unstable();
        all
    }
}

async fn join(
    node: &Node,
    topic: TopicId,
    via: &[EndpointAddr],
    tally: Arc<Tally>,
    sent: Arc<Sent>,
) -> Result<Publisher> {
    match node {
        Node::Ours(mesh) => {
            let (publisher, mut events) = mesh.join(topic, via.iter().cloned()).await?.split();
            tokio::spawn(async move {
                while let Some(event) = events.next().await {
                    match event {
                        Event::Received(message) => tally.hear(&message.content, &sent),
                        Event::NeighborUp(_) => _ = tally.neighbors.fetch_add(1, Ordering::Relaxed),
                        Event::Lagged(lost) => _ = tally.lagged.fetch_add(lost, Ordering::Relaxed),
                        _ => {}
                    }
                }
            });
            Ok(Publisher::Ours(publisher))
        }
        Node::Stock(stock) => {
            let (sender, mut events) = stock.subscribe(topic, via).await?.split();
            tokio::spawn(async move {
                while let Some(Ok(event)) = events.next().await {
                    match event {
                        iroh_gossip::api::Event::Received(message) => tally.hear(&message.content, &sent),
                        iroh_gossip::api::Event::NeighborUp(_) => _ = tally.neighbors.fetch_add(1, Ordering::Relaxed),
                        iroh_gossip::api::Event::Lagged => _ = tally.lagged.fetch_add(1, Ordering::Relaxed),
                        iroh_gossip::api::Event::NeighborDown(_) => {}
                    }
                }
            });
            Ok(Publisher::Stock(sender))
        }
    }
}
