//! What a home relay that is gone costs a node that does nothing: with the breaker and without, side by side.
//!
//! `relay-away [MINUTES]`: for so many minutes (5) a listener is in the relay's place, which counts everybody who comes and hangs
//! up; then the relay is back, and the time until the node is connected to it is taken. Default limits, real time.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use iroh::{RelayConfig, RelayMap, RelayMode};
use iroh_relay::RelayQuicConfig;
use perennial::{Limits, Mesh};
use perennial_tests::{Ours, Relay, wait::must, wait::within};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, UdpSocket},
    time::{Instant, timeout},
};

/// The relay answers within milliseconds; a node looks for it at once.
const HOME_MAX: Duration = Duration::from_secs(30);

/// iroh's longest pause, and the connection.
const BACK_MAX: Duration = Duration::from_secs(45);

/// Whoever comes says at once what it wants.
const REQUEST_MAX: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let minutes = std::env::args().nth(1);
    let minutes: f64 = minutes.map_or(Ok(5.0), |text| text.parse()).context("the minutes are a number")?;
    ensure!((0.1..=60.0).contains(&minutes), "{minutes} minutes are not within 0.1 and 60");
    println!("a node whose home relay is gone for {minutes} minutes; a minute:");
    let away = Duration::from_secs_f64(minutes * 60.0);
    let without = Limits { breaker_failures: 0, ..Limits::default() };
    let (with, without) = tokio::try_join!(run(Limits::default(), away), run(without, away))?;
    with.print("with the breaker", minutes);
    without.print("without", minutes);
    Ok(())
}

/// Who came while the relay was gone, and how soon the node was back.
struct Cost {
    counts: Arc<Counts>,
    back: Duration,
}

#[derive(Default)]
struct Counts {
    /// To look at the relay, over TCP.
    looks: AtomicU64,
    /// To be relayed.
    redials: AtomicU64,
    /// To have their address told, over QUIC: datagrams and their bytes.
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl Cost {
    fn print(&self, side: &str, minutes: f64) {
        let per_minute = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64 / minutes;
        let Counts { looks, redials, datagrams, bytes } = &*self.counts;
        println!(
            "{side}: {:.1} redials, {:.1} looks over TCP, {:.1} datagrams of {:.0} bytes together; back after {:.1?}",
            per_minute(redials),
            per_minute(looks),
            per_minute(datagrams),
            per_minute(bytes),
            self.back
        );
    }
}

async fn run(limits: Limits, away: Duration) -> Result<Cost> {
    let mut relay = Relay::spawn().await?;
    let quic = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let config = RelayConfig::new(relay.url(), Some(RelayQuicConfig::new(quic.local_addr()?.port())));
    let builder = Mesh::builder().relay(RelayMode::Custom(RelayMap::from(config))).limits(limits);
    let node = Ours::spawn_from("the node", builder).await?;
    connected(&relay, HOME_MAX).await?;
    relay.stop().await?;
    let counts = Arc::<Counts>::default();
    let listener = TcpListener::bind(relay.addr()).await?;
    let _time_is_up = timeout(away, async { tokio::join!(hang_up(&listener, &counts), count(&quic, &counts)) }).await;
    drop(listener);
    relay.restart().await?;
    let back_at = Instant::now();
    connected(&relay, BACK_MAX).await?;
    let back = back_at.elapsed();
    node.mesh().drain(Duration::from_secs(10)).await;
    relay.stop().await?;
    Ok(Cost { counts, back })
}

async fn connected(relay: &Relay, deadline: Duration) -> Result<()> {
    let connected = within(deadline, async || must(relay.connected() > 0, || "nobody has connected".into()));
    connected.await.map_err(anyhow::Error::msg)
}

async fn hang_up(listener: &TcpListener, counts: &Counts) {
    while let Ok((mut socket, _from)) = listener.accept().await {
        let mut request = [0; 1024];
        let read = timeout(REQUEST_MAX, socket.read(&mut request)).await.unwrap_or(Ok(0)).unwrap_or(0);
        let is_redial = request[..read].starts_with(b"GET /relay");
        let count = if is_redial { &counts.redials } else { &counts.looks };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn count(socket: &UdpSocket, counts: &Counts) {
    let mut datagram = vec![0; 1 << 16];
    while let Ok(length) = socket.recv(&mut datagram).await {
        counts.datagrams.fetch_add(1, Ordering::Relaxed);
        counts.bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
}
