//! What a dead bootstrap costs: ten nodes that know nobody else, with the breaker and without, side by side.
//!
//! `outage [MINUTES [BOOTSTRAP]]`: for so many minutes (11) nobody answers at so many addresses (5), where everything that arrives
//! is counted; then nodes live there, and the time until everybody has a neighbor is taken. Default limits, real time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use iroh::{EndpointAddr, SecretKey};
use perennial::{BackendState, Kind, Limits, Mesh};
use perennial_tests::{Ours, Topic, topic_id, wait::must, wait::within};
use tokio::{net::UdpSocket, task::JoinHandle, time::Instant};

const NODES: usize = 10;

/// No node waits longer for a neighbor than the longest open time and its fifth, and some.
const RECOVERY_MAX: Duration = Duration::from_secs(400);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let minutes: f64 = args.next().map_or(Ok(11.0), |text| text.parse()).context("the minutes are a number")?;
    let bootstrap: usize =
        args.next().map_or(Ok(5), |text| text.parse()).context("the bootstrap peers are a number")?;
    ensure!((0.1..=60.0).contains(&minutes), "{minutes} minutes are not within 0.1 and 60");
    ensure!((1..=20).contains(&bootstrap), "{bootstrap} bootstrap peers are not within 1 and 20");
    println!("{NODES} nodes, {bootstrap} bootstrap peers that do not answer for {minutes} minutes");
    let outage = Duration::from_secs_f64(minutes * 60.0);
    let without = Limits { breaker_failures: 0, ..Limits::default() };
    let (with, without) = tokio::try_join!(run(Limits::default(), outage, bootstrap), run(without, outage, bootstrap))?;
    with.print("with the breaker", minutes);
    without.print("without", minutes);
    let percent = |ours: u64, theirs: u64| 100.0 * ours as f64 / theirs.max(1) as f64;
    println!(
        "with / without: {:.0} % of the attempts, {:.0} % of the bytes",
        percent(with.attempts, without.attempts),
        percent(with.bytes, without.bytes)
    );
    Ok(())
}

/// What one side has spent, and how soon it was back.
struct Cost {
    attempts: u64,
    datagrams: u64,
    bytes: u64,
    /// Of the attempts, those made to learn whether anybody answers again.
    probes: u64,
    saved: u64,
    /// Of each node, from the moment somebody answered; the soonest first.
    recovered: Vec<Duration>,
}

impl Cost {
    fn print(&self, side: &str, minutes: f64) {
        let per_node = |count: u64| count as f64 / minutes / NODES as f64;
        println!(
            "{side}: {} attempts, {} of them probes, {} datagrams, {} bytes; a node and minute: {:.2} attempts, {:.0} bytes; {} \
             attempts saved; back after {:.1?} (median), {:.1?} (last)",
            self.attempts,
            self.probes,
            self.datagrams,
            self.bytes,
            per_node(self.attempts),
            per_node(self.bytes),
            self.saved,
            self.recovered[NODES / 2],
            self.recovered[NODES - 1]
        );
    }
}

async fn run(limits: Limits, outage: Duration, bootstrap: usize) -> Result<Cost> {
    let topic = topic_id("outage");
    let mut silent = Vec::new();
    for _ in 0..bootstrap {
        silent.push(Silent::bind().await?);
    }
    let named: Vec<_> = silent.iter().map(Silent::addr).collect();
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let node = Ours::spawn(format!("node {number}"), None, limits.clone()).await?;
        let topic = node.join(topic, &named).await;
        nodes.push((node, topic));
    }
    tokio::time::sleep(outage).await;
    let mut attempts = 0;
    for (node, _) in &nodes {
        attempts += node.census().await.ledger.kind(Kind::Dial).spawned;
    }
    let backends: Vec<_> = nodes.iter().flat_map(|(node, _)| node.mesh().backends()).collect();
    let saved = backends.iter().map(|backend| backend.saved).sum();
    // Without a breaker nothing is degraded, and every failure is one of an attempt like any other.
    let degraded = backends.iter().filter(|backend| backend.state != BackendState::Healthy);
    let probes = degraded.map(|backend| u64::from(backend.failures.saturating_sub(limits.breaker_failures))).sum();
    let (mut datagrams, mut bytes, mut back) = (0, 0, Vec::new());
    let mut first = Vec::new();
    for silent in silent {
        let (key, addr) = (silent.key.clone(), silent.socket);
        let heard = silent.end().await;
        datagrams += heard.0;
        bytes += heard.1;
        let builder = Mesh::builder().secret_key(key).listen(addr).limits(limits.clone());
        let node = Ours::spawn_from(format!("bootstrap {addr}"), builder).await?;
        let topic = node.join(topic, &first).await;
        first.push(node.addr());
        back.push((node, topic));
    }
    let recovered = recovery(&nodes).await?;
    for (node, topic) in nodes.into_iter().chain(back) {
        drop(topic);
        node.mesh().drain(Duration::from_secs(10)).await;
    }
    Ok(Cost { attempts, datagrams, bytes, probes, saved, recovered })
}

async fn recovery(nodes: &[(Ours, Topic)]) -> Result<Vec<Duration>> {
    let start = Instant::now();
    let mut recovered = vec![None; nodes.len()];
    let all = within(RECOVERY_MAX, async || {
        for ((_, topic), at) in nodes.iter().zip(&mut recovered) {
            if at.is_none() && !topic.neighbors().is_empty() {
                *at = Some(start.elapsed());
            }
        }
        let alone = recovered.iter().filter(|at| at.is_none()).count();
        must(alone == 0, || format!("{alone} nodes have no neighbor"))
    });
    all.await.map_err(anyhow::Error::msg)?;
    let mut recovered: Vec<_> = recovered.into_iter().flatten().collect();
    recovered.sort_unstable();
    Ok(recovered)
}

/// An address where nobody answers and everything is counted.
struct Silent {
    key: SecretKey,
    socket: SocketAddr,
    heard: Arc<(AtomicU64, AtomicU64)>,
    task: JoinHandle<()>,
}

impl Silent {
    async fn bind() -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let addr = socket.local_addr()?;
        let heard = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let counted = heard.clone();
        let task = tokio::spawn(async move {
            let mut datagram = vec![0; 1 << 16];
            while let Ok(length) = socket.recv(&mut datagram).await {
                counted.0.fetch_add(1, Ordering::Relaxed);
                counted.1.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        Ok(Self { key: SecretKey::generate(), socket: addr, heard, task })
    }

    fn addr(&self) -> EndpointAddr {
        EndpointAddr::new(self.key.public()).with_ip_addr(self.socket)
    }

    /// Frees the address, and tells how many datagrams and bytes have arrived.
    async fn end(self) -> (u64, u64) {
        self.task.abort();
        let _aborted = self.task.await;
        (self.heard.0.load(Ordering::Relaxed), self.heard.1.load(Ordering::Relaxed))
    }
}
