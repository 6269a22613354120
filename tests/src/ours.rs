//! One of our nodes with the verbs of `stock.rs`, and limits short enough for a scenario. The library as an embedder
//! uses it: nothing here reaches behind its public names.

use std::time::Duration;

use anyhow::Result;
use iroh::{EndpointAddr, EndpointId, SecretKey};
use iroh_gossip::proto::TopicId;
use perennial::{Census, Kind, Ledger, Limits, Mesh, MeshBuilder, Reason, census::PeerCensus};

use crate::{
    topic::Topic,
    wait::{PATIENCE, eventually, must},
};

/// A running node of ours. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ours {
    name: String,
    mesh: Mesh,
    ledger: Ledger,
}

/// The defaults with every wait shortened that a scenario would otherwise sit out.
pub fn fast_limits() -> Limits {
    Limits {
        dial_timeout: Duration::from_secs(5),
        handshake_timeout: Duration::from_secs(5),
        frame_timeout: Duration::from_secs(2),
        waiting_timeout: Duration::from_secs(3),
        first_frame_timeout: Duration::from_secs(3),
        unclaimed_timeout: Duration::from_secs(3),
        linger: Duration::from_secs(2),
        farewell_timeout: Duration::from_secs(3),
        rejoin_min: Duration::from_millis(300),
        rejoin_max: Duration::from_secs(3),
        breaker_open_min: Duration::from_secs(2),
        breaker_open_max: Duration::from_secs(3),
        sweep_interval: Duration::from_secs(2),
        tick: Duration::from_millis(100),
        ..Limits::default()
    }
}

impl Ours {
    /// Starts a node on 127.0.0.1 with a free port; without a key it has a fresh identity.
    ///
    /// # Errors
    ///
    /// What the library said.
    pub async fn spawn(name: impl Into<String>, key: Option<SecretKey>, limits: Limits) -> Result<Self> {
        let mut builder = Mesh::builder().limits(limits);
        if let Some(key) = key {
            builder = builder.secret_key(key);
        }
        Self::spawn_from(name, builder).await
    }

    /// Starts a node from settings of the caller's.
    ///
    /// # Errors
    ///
    /// What the library said.
    pub async fn spawn_from(name: impl Into<String>, builder: MeshBuilder) -> Result<Self> {
        let mesh = Box::pin(builder.spawn()).await?;
        let ledger = mesh.ledger_counters();
        Ok(Self { name: name.into(), mesh, ledger })
    }

    /// The library's handle.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The name in messages of failing tests.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identity.
    pub fn id(&self) -> EndpointId {
        self.mesh.id()
    }

    /// The identity with the loopback address.
    pub fn addr(&self) -> EndpointAddr {
        self.mesh.addr()
    }

    /// Joins a topic through `bootstrap`; does not wait for a neighbour.
    pub async fn join(&self, topic: TopicId, bootstrap: &[EndpointAddr]) -> Topic {
        let handle = self.mesh.join(topic, bootstrap.iter().cloned()).await;
        let handle = handle.unwrap_or_else(|error| panic!("{} does not join: {error}", self.name));
        Topic::ours(self.name.clone(), handle)
    }

    /// The census.
    pub async fn census(&self) -> Census {
        self.mesh.census().await.unwrap_or_else(|error| panic!("{} gives no census: {error}", self.name))
    }

    /// Connection loops alive at this moment: spawned − finished.
    pub fn connections(&self) -> u64 {
        self.ledger.alive(Kind::Connection)
    }

    /// Tasks of every kind alive at this moment: spawned − finished.
    pub fn alive(&self) -> u64 {
        self.ledger.alive_total()
    }

    /// Waits until `reason` has been counted at least `times`.
    pub async fn counts(&self, reason: Reason, times: u64) {
        let what = format!("{} counts {} {times} times", self.name, reason.name());
        eventually(PATIENCE, &what, async || {
            let counts = self.census().await.counts;
            must(counts.get(reason) >= times, || format!("counted so far: {}", summary(&counts)))
        })
        .await;
    }

    /// Waits until every connection loop alive belongs to a neighbour, and none is an orphan. A stock neighbour may have
    /// two: closing one of two live connections would cost it the other.
    pub async fn settles_on_neighbors(&self, deadline: Duration) {
        let what = format!("{} has only its neighbors' connections", self.name);
        eventually(deadline, &what, async || {
            let census = self.census().await;
            let (alive, expected) = (self.connections(), neighbor_connections(&census));
            must(alive == expected && census.ledger.orphans() == 0, || {
                format!("{alive} connections, {expected} of neighbors\n{}{:#?}", census.ledger, census.peers)
            })
        })
        .await;
    }

    /// Waits until no task is without an owner.
    pub async fn has_no_orphans(&self) {
        let report = self.mesh.settle(PATIENCE).await;
        let report = report.unwrap_or_else(|error| panic!("{} has no ledger: {error}", self.name));
        assert_eq!(report.orphans(), 0, "{} has orphans:\n{report}", self.name);
    }
}

/// Connections to remotes that are a neighbour on some topic.
pub fn neighbor_connections(census: &Census) -> u64 {
    let is_neighbor = |peer: &&PeerCensus| census.topics.iter().any(|topic| topic.neighbors.contains(&peer.id));
    census.peers.iter().filter(is_neighbor).map(|peer| peer.connections.len() as u64).sum()
}

/// The reasons that were counted at all, as `name=count`.
pub fn summary(counts: &perennial::Counts) -> String {
    let counted = counts.iter().filter(|&(_, count)| count > 0);
    counted.map(|(reason, count)| format!("{}={count}", reason.name())).collect::<Vec<_>>().join(" ")
}
