//! What a profile is taken of: meshes in this process on 127.0.0.1, an observer and its peers.
//!
//! The heap is the whole process's: every mesh, both ends of every connection. Reading the result is `buckets.rs`.

use std::{ops::Range, time::Duration};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use perennial::{Kind, Mesh, TopicHandle, TopicId};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use tokio::time::{Instant, sleep, timeout};

/// A node that has joined has a neighbour within this long. Guess; dhat makes every allocation slow.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// After the last event the meshes have settled within this long, or the profile is taken as it stands.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause between two looks at the meshes.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Looks without a change of any connection after which the meshes count as settled: longer than a remote that is no
/// neighbour is kept (4 s) and its retirement (5 s).
const CALM_LOOKS: u32 = 20;

/// What happens between the two checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Peers leave the topic and rejoin it
    Churn,
    /// Nothing, for 100 ms per event
    Idle,
}

/// What a scenario is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) scenario: Scenario,
    pub(crate) events: u32,
    /// Meshes, the observer included.
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
}

/// One node of the swarm; `topic` is `None` only between leaving and rejoining.
#[derive(Debug)]
struct Node {
    mesh: Mesh,
    topic: Option<TopicHandle>,
}

/// All nodes. Kept alive until the profile has been taken: a node that has shut down shows an empty heap.
#[derive(Debug)]
pub(crate) struct Swarm {
    nodes: Vec<Node>,
    topic: TopicId,
    rng: Xoshiro256PlusPlus,
}

impl Swarm {
    /// Spawns the meshes, joins them through the observer, and waits until they have settled.
    pub(crate) async fn form(shape: Shape) -> Result<Self> {
        let topic = TopicId::from_bytes([7; 32]);
        let mut nodes: Vec<Node> = Vec::new();
        for _ in 0..shape.nodes {
            let mesh = Mesh::builder().spawn().await.context("cannot spawn a mesh")?;
            let bootstrap = nodes.first().map(|observer| observer.mesh.addr());
            let handle = mesh.join(topic, bootstrap).await.context("cannot join")?;
            nodes.push(Node { mesh, topic: Some(handle) });
        }
        let mut swarm = Self { nodes, topic, rng: Xoshiro256PlusPlus::seed_from_u64(shape.seed) };
        for node in 0..swarm.nodes.len() {
            swarm.joined(node).await?;
        }
        // Tables that keep their high-water size get it before the first checkpoint.
        swarm.churn(0..shape.nodes as u32).await?;
        swarm.settle().await?;
        Ok(swarm)
    }

    /// What happens between the checkpoints, with the settling after it.
    pub(crate) async fn storm(&mut self, shape: Shape) -> Result<()> {
        match shape.scenario {
            Scenario::Churn => self.churn(0..shape.events).await?,
            Scenario::Idle => sleep(Duration::from_millis(100) * shape.events).await,
        }
        self.settle().await
    }

    /// Live connection loops over all meshes.
    pub(crate) async fn connections(&self) -> Result<u64> {
        let mut alive = 0;
        for node in &self.nodes {
            let report = node.mesh.ledger().await?;
            let line = report.kinds.iter().find(|line| line.kind == Kind::Connection);
            alive += line.map_or(0, |line| line.spawned - line.finished);
        }
        Ok(alive)
    }

    /// Drains every mesh.
    pub(crate) async fn drain(self) {
        for node in self.nodes {
            node.mesh.drain(Duration::from_secs(10)).await;
        }
    }

    async fn churn(&mut self, events: Range<u32>) -> Result<()> {
        for _ in events {
            let count = self.nodes.len();
            let victim = self.rng.random_range(1..count);
            let via = (victim + self.rng.random_range(1..count)) % count;
            let bootstrap = self.nodes[via].mesh.addr();
            let topic = self.topic;
            let node = &mut self.nodes[victim];
            node.topic = None;
            let away = Duration::from_millis(self.rng.random_range(20..=100));
            sleep(away).await;
            node.topic = Some(node.mesh.join(topic, [bootstrap]).await.context("cannot rejoin")?);
            self.joined(victim).await?;
        }
        Ok(())
    }

    async fn joined(&self, node: usize) -> Result<()> {
        let Some(topic) = &self.nodes[node].topic else { bail!("node {node} is in no topic") };
        match timeout(JOIN_TIMEOUT, topic.joined()).await {
            Ok(true) => Ok(()),
            Ok(false) => bail!("the topic of node {node} was closed"),
            Err(_) => bail!("node {node} had no neighbour within {} s", JOIN_TIMEOUT.as_secs()),
        }
    }

    /// Waits until no connection has come or gone for a while.
    async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let mut last = self.connections().await?;
        let mut calm_looks = 0;
        while calm_looks < CALM_LOOKS {
            if Instant::now() > deadline {
                eprintln!("warning: not settled within {} s", SETTLE_TIMEOUT.as_secs());
                return Ok(());
            }
            sleep(LOOK_INTERVAL).await;
            let now = self.connections().await?;
            calm_looks = if now == last { calm_looks + 1 } else { 0 };
            last = now;
        }
        Ok(())
    }
}
