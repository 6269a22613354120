//! What a node does while everybody it was told to join through is dead, and when they are back.

use std::time::Duration;

use iroh::{EndpointAddr, SecretKey};
use perennial::{BackendCensus, BackendState, Limits, Mesh};
use perennial_tests::{
    Ours, World, eventually,
    ours::fast_limits,
    topic_id,
    wait::{PATIENCE, must},
};
use tokio::{net::UdpSocket, time::Instant};

/// The longest a bootstrap is left alone: `breaker_open_max` of the fast limits, and a fifth more.
const OPEN_MAX: Duration = Duration::from_millis(3600);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(3);

/// Nobody answers at three addresses: after the first round of failures each node makes one probe at a time. Then nodes live
/// there, and everybody is back within one open time, a fifth more, and a dial.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lonely_node_probes_its_dead_bootstrap_and_is_back_once_it_is() {
    let topic_id = topic_id("dead bootstrap");
    let limits =
        Limits { dial_timeout: Duration::from_secs(1), waiting_timeout: Duration::from_secs(1), ..fast_limits() };
    let mut world = World::new().await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port on loopback");
        silent.push((SecretKey::generate(), socket));
    }
    let addr = |key: &SecretKey, socket: &UdpSocket| {
        EndpointAddr::new(key.public()).with_ip_addr(socket.local_addr().expect("a bound socket has an address"))
    };
    let named: Vec<_> = silent.iter().map(|(key, socket)| addr(key, socket)).collect();
    let ours = world.ours_with(None, limits.clone()).await;
    let at_ours = ours.join(topic_id, &named).await;
    let down = eventually(PATIENCE, "two probes have failed", async || {
        let bootstrap = bootstrap(&ours)?;
        must(bootstrap.failures >= 5 && bootstrap.state == BackendState::Degraded, || format!("{bootstrap:?}"))?;
        Ok(bootstrap)
    })
    .await;
    assert!(down.saved > 0 && down.next_probe.is_some_and(|wait| wait <= OPEN_MAX), "{down:?}");
    let (mut first, mut topics) = (Vec::new(), Vec::new());
    for (key, socket) in silent {
        let addr = socket.local_addr().expect("a bound socket has an address");
        drop(socket);
        let back = world.ours_from(Mesh::builder().secret_key(key).listen(addr).limits(limits.clone())).await;
        topics.push(back.join(topic_id, &first).await);
        first.push(back.addr());
    }
    let back_at = Instant::now();
    at_ours.joined().await;
    let took = back_at.elapsed();
    println!("back after {took:?}");
    assert!(took <= OPEN_MAX + limits.dial_timeout + SLACK, "back after {took:?}");
    eventually(PATIENCE, "the bootstrap is healthy", async || {
        let bootstrap = bootstrap(&ours)?;
        must(bootstrap.state == BackendState::Healthy && bootstrap.failures == 0, || format!("{bootstrap:?}"))
    })
    .await;
    world.finish().await;
}

fn bootstrap(node: &Ours) -> Result<BackendCensus, String> {
    node.mesh().backends().pop().ok_or_else(|| "no backend is known".into())
}
