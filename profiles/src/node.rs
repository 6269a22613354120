//! The node whose heap is looked at, in this process: one of this project, or what it is held against.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use iroh::{
    Endpoint, EndpointAddr, SecretKey,
    endpoint::{Connection, PortmapperConfig, presets},
    protocol::Router,
};
use iroh_gossip::{
    api::GossipSender,
    net::{GOSSIP_ALPN, Gossip},
};
use n0_future::StreamExt;
use perennial::{Event, Kind, Limits, Mesh, Publisher, TopicId};

use crate::course::Subject;

/// The topic of every course.
pub(crate) fn topic() -> TopicId {
    TopicId::from_bytes([7; 32])
}

/// Limits that differ from the defaults so that a heap can be looked at: silent strangers are let be for as long as a
/// course may take, and so is a peer that waits for a processor of a busy machine; the table of closed connections is full
/// after the first few; and nobody is introduced to anybody, as that would open a connection at a moment of its own.
pub(crate) fn limits() -> Limits {
    const LONG: Duration = Duration::from_secs(3600);
    Limits {
        first_frame_timeout: LONG,
        unclaimed_timeout: LONG,
        idle_timeout: Duration::from_secs(30),
        shuffle_interval: LONG,
        history_max: 16,
        redials_max: 128,
        prefix_admissions_per_minute: 300,
        prefix_admissions_burst: 100,
        ..Limits::default()
    }
}

/// A node at one moment. Neither stock nor iroh keeps books of its tasks and dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Census {
    /// Open at this moment.
    pub(crate) connections: u64,
    /// Outgoing attempts since the start.
    pub(crate) dials: u64,
    /// Tasks without an owner.
    pub(crate) orphans: u64,
}

/// A running node.
#[derive(Debug)]
pub(crate) enum Node {
    Perennial { mesh: Mesh, publisher: Publisher, heard: Arc<AtomicUsize> },
    Stock { router: Router, sender: GossipSender, heard: Arc<AtomicUsize> },
    Iroh { endpoint: Endpoint, held: Arc<Mutex<Vec<Connection>>> },
}

impl Node {
    pub(crate) async fn spawn(subject: Subject) -> Result<Self> {
        let heard = Arc::<AtomicUsize>::default();
        Ok(match subject {
            Subject::Perennial => {
                let mesh = Mesh::builder().limits(limits()).spawn().await.context("cannot spawn a mesh")?;
                let handle = mesh.join(topic(), None::<EndpointAddr>).await.context("cannot join the topic")?;
                let (publisher, mut events) = handle.split();
                let counter = heard.clone();
                tokio::spawn(async move {
                    while let Some(event) = events.next().await {
                        counter.fetch_add(usize::from(matches!(event, Event::Received(_))), Ordering::Relaxed);
                    }
                });
                Node::Perennial { mesh, publisher, heard }
            }
            Subject::Stock => {
                let endpoint = bind(SecretKey::generate()).await?;
                let gossip = Gossip::builder().spawn(endpoint.clone());
                let router = Router::builder(endpoint).accept(GOSSIP_ALPN, gossip.clone()).spawn();
                let (sender, mut receiver) = gossip.subscribe(topic(), Vec::new()).await?.split();
                let counter = heard.clone();
                tokio::spawn(async move {
                    while let Some(Ok(event)) = receiver.next().await {
                        let is_message = matches!(event, iroh_gossip::api::Event::Received(_));
                        counter.fetch_add(usize::from(is_message), Ordering::Relaxed);
                    }
                });
                Node::Stock { router, sender, heard }
            }
            Subject::Iroh => {
                let endpoint = bind(SecretKey::generate()).await?;
                let held = Arc::<Mutex<Vec<Connection>>>::default();
                tokio::spawn(accept(endpoint.clone(), held.clone()));
                Node::Iroh { endpoint, held }
            }
        })
    }

    /// Where it can be dialed.
    pub(crate) fn addr(&self) -> EndpointAddr {
        match self {
            Node::Perennial { mesh, .. } => mesh.addr(),
            Node::Stock { router, .. } => addr_of(router.endpoint()),
            Node::Iroh { endpoint, .. } => addr_of(endpoint),
        }
    }

    /// What it does at this moment.
    pub(crate) async fn census(&self) -> Result<Census> {
        Ok(match self {
            Node::Perennial { mesh, .. } => {
                let ledger = mesh.ledger().await?;
                let line = |kind| ledger.kinds.iter().find(|line| line.kind == kind).copied();
                let connections = line(Kind::Connection).map_or(0, |line| line.spawned - line.finished);
                let dials = line(Kind::Dial).map_or(0, |line| line.spawned);
                Census { connections, dials, orphans: ledger.orphans() }
            }
            Node::Stock { router, .. } => Census { connections: open(router.endpoint()), ..Census::default() },
            Node::Iroh { endpoint, held } => {
                held.lock().expect("no holder panics").retain(|connection| connection.close_reason().is_none());
                Census { connections: open(endpoint), ..Census::default() }
            }
        })
    }

    /// Messages received.
    pub(crate) fn heard(&self) -> usize {
        match self {
            Node::Perennial { heard, .. } | Node::Stock { heard, .. } => heard.load(Ordering::Relaxed),
            Node::Iroh { .. } => 0,
        }
    }

    pub(crate) async fn publish(&self, content: Vec<u8>) -> Result<()> {
        match self {
            Node::Perennial { publisher, .. } => drop(publisher.publish(content).await?),
            Node::Stock { sender, .. } => sender.broadcast(content.into()).await?,
            Node::Iroh { .. } => bail!("a bare endpoint publishes nothing"),
        }
        Ok(())
    }

    /// Dials `silent` for as long as `patience`, then wants it no more.
    pub(crate) async fn dial_in_vain(&self, silent: EndpointAddr, patience: Duration) -> Result<()> {
        let Node::Perennial { mesh, .. } = self else { bail!("only a node of this project dials in vain") };
        let remote = silent.id;
        // A topic of its own: leaving it is how an application stops wanting a remote.
        let wanted = mesh.join(TopicId::from_bytes([8; 32]), [silent]).await?;
        tokio::time::sleep(patience).await;
        drop(wanted);
        // It is known no longer, and may be dialed again at once.
        mesh.forget(&remote);
        Ok(())
    }
}

/// An endpoint that never leaves this machine: no relay, no port mapping.
pub(crate) async fn bind(key: SecretKey) -> Result<Endpoint> {
    let builder = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .portmapper_config(PortmapperConfig::Disabled)
        .alpns(vec![GOSSIP_ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    builder.bind().await.context("cannot bind an endpoint on 127.0.0.1")
}

/// Holds on to every connection. Ends with the endpoint.
async fn accept(endpoint: Endpoint, held: Arc<Mutex<Vec<Connection>>>) {
    while let Some(incoming) = endpoint.accept().await {
        if let Ok(connection) = incoming.await {
            held.lock().expect("no holder panics").push(connection);
        }
    }
}

fn addr_of(endpoint: &Endpoint) -> EndpointAddr {
    endpoint.bound_sockets().into_iter().fold(EndpointAddr::new(endpoint.id()), EndpointAddr::with_ip_addr)
}

/// By the endpoint's own metrics. Closed is read first, so that a connection that ends in between is counted as open.
fn open(endpoint: &Endpoint) -> u64 {
    let metrics = endpoint.metrics();
    let closed = metrics.socket.num_conns_closed.get();
    metrics.socket.num_conns_opened.get().saturating_sub(closed)
}
