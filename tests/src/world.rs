//! The world of one scenario: starts its nodes, and at the end drains every one and fails while anything still lives.
//!
//! Alive means: a task without an owner before the drain, a task of any kind in a drained node's ledger, or a tokio
//! task that was not there when the world began. Every scenario has a runtime to itself, so the last one sees all.

use std::time::Duration;

use iroh::SecretKey;
use perennial::{Limits, MeshBuilder};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
};

use crate::{
    ours::{Ours, fast_limits},
    raw::{Raw, RawOptions},
    stock::Stock,
    wait::{eventually, must},
};

/// Scenarios of ordinary size that may run at once in one test process. A world of its own kind takes every place.
const ROOM: u32 = 2;
static ROOMS: Semaphore = Semaphore::const_new(ROOM as usize);

/// The nodes of one scenario.
#[derive(Debug)]
pub struct World {
    tasks_at_start: usize,
    stock: Vec<Stock>,
    ours: Vec<Ours>,
    raw: Vec<Raw>,
    finished: bool,
    _room: SemaphorePermit<'static>,
}

impl World {
    /// A world that shares the machine with another scenario.
    pub async fn new() -> Self {
        Self::begin(1).await
    }

    /// A world with the machine to itself: for scenarios that load it, or measure.
    pub async fn alone() -> Self {
        Self::begin(ROOM).await
    }

    async fn begin(places: u32) -> Self {
        let room = ROOMS.acquire_many(places).await.expect("the rooms are never closed");
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        Self {
            tasks_at_start: Handle::current().metrics().num_alive_tasks(),
            stock: Vec::new(),
            ours: Vec::new(),
            raw: Vec::new(),
            finished: false,
            _room: room,
        }
    }

    /// Adds a stock node.
    pub async fn stock(&mut self) -> Stock {
        self.stock_with(None).await
    }

    /// Adds a stock node with this identity.
    pub async fn stock_with(&mut self, key: Option<SecretKey>) -> Stock {
        let node = Stock::spawn(format!("stock {}", self.stock.len()), key).await.expect("a stock node starts");
        self.stock.push(node.clone());
        node
    }

    /// Adds a node of ours with limits short enough for a scenario.
    pub async fn ours(&mut self) -> Ours {
        self.ours_with(None, fast_limits()).await
    }

    /// Adds a node of ours with this identity and these limits.
    pub async fn ours_with(&mut self, key: Option<SecretKey>, limits: Limits) -> Ours {
        let name = format!("ours {}", self.ours.len());
        let node = Ours::spawn(name, key, limits).await.expect("a node of ours starts");
        self.ours.push(node.clone());
        node
    }

    /// Adds a node of ours with settings of the caller's.
    pub async fn ours_from(&mut self, builder: MeshBuilder) -> Ours {
        let name = format!("ours {}", self.ours.len());
        let node = Ours::spawn_from(name, builder).await.expect("a node of ours starts");
        self.ours.push(node.clone());
        node
    }

    /// Adds a peer that speaks bytes.
    pub async fn raw(&mut self, options: RawOptions) -> Raw {
        let peer = Raw::spawn(options).await.expect("a raw peer starts");
        self.raw.push(peer.clone());
        peer
    }

    /// Ends the scenario: no orphans, then every node drained, then nothing alive.
    pub async fn finish(mut self) {
        self.finished = true;
        for node in self.ours.iter().filter(|node| node.alive() > 0) {
            node.has_no_orphans().await;
        }
        for peer in &self.raw {
            peer.shutdown().await;
        }
        for node in &self.ours {
            let report = node.mesh().drain(Duration::from_secs(10)).await;
            assert!(report.clean, "{} did not drain by itself: {report:?}", node.name());
            assert_eq!(node.alive(), 0, "{} is drained and still has tasks", node.name());
        }
        for node in &self.stock {
            node.shutdown().await;
        }
        let tasks_at_start = self.tasks_at_start;
        // Handles go first: a stock node's actors live as long as somebody could still call them.
        self.stock.clear();
        self.ours.clear();
        self.raw.clear();
        // A QUIC driver outlives its closed connection by three probe timeouts, 3 s when nothing was ever measured.
        eventually(Duration::from_secs(10), "every task of the world has ended", async || {
            let alive = Handle::current().metrics().num_alive_tasks();
            must(alive <= tasks_at_start, || format!("{alive} tasks alive, {tasks_at_start} at the start"))
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.finished && !std::thread::panicking() {
            panic!("a scenario ended without `world.finish().await`: nobody looked at what still lives");
        }
    }
}
