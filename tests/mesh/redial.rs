//! When a node dials again: as its remote asked, later each time, and never all nodes at once.

use std::time::Duration;

use iroh::{EndpointAddr, SecretKey, endpoint::SendStream};
use iroh_gossip::proto::TopicId;
use perennial::{Close, CloseCode, Limits};
use perennial_tests::{
    Raw, Topic, World, eventually, frames,
    ours::fast_limits,
    raw::{RawConnection, RawOptions, RawStream},
    topic_id,
    wait::{PATIENCE, must},
};
use tokio::{net::UdpSocket, time::Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_remote_is_not_dialed_before_it_said() {
    let topic_id = topic_id("full for three seconds");
    let hint = Duration::from_secs(3);
    let mut world = World::new().await;
    let (remote, ours) = (world.raw(RawOptions::default()).await, world.ours().await);
    let at_ours = ours.join(topic_id, &[remote.addr()]).await;
    for _ in 0..2 {
        let connection = remote.accept().await;
        let closed_at = Instant::now();
        connection.close_with(Close { code: CloseCode::FullGlobal, retry_after: Some(hint) });
        let refused = remote.refuse_until(closed_at + hint).await;
        assert_eq!(refused, 0, "dialed before the pause that was asked for was over");
    }
    let _neighbor = be_neighbor(&remote, topic_id).await;
    at_ours.sees(remote.id()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pauses_of_a_flapping_remote_grow() {
    let topic_id = topic_id("flapping");
    let mut world = World::new().await;
    let remote = world.raw(RawOptions::default()).await;
    // Whoever has nobody else tries the remotes it was given once more before their pauses are over (`breaker.rs`).
    let ours = world.ours_with(None, Limits { breaker_failures: 0, ..fast_limits() }).await;
    let at_ours = ours.join(topic_id, &[remote.addr()]).await;
    let mut closed_at: Option<Instant> = None;
    for least in [0, 500, 1000, 2000].map(Duration::from_millis) {
        let connection = remote.accept().await;
        let pause = closed_at.map_or(Duration::ZERO, |closed_at| closed_at.elapsed());
        assert!(pause >= least, "dialed again after {pause:?}, before {least:?}");
        closed_at = Some(Instant::now());
        connection.close_with(Close { code: CloseCode::Internal, retry_after: None });
    }
    eventually(PATIENCE, "the census tells of the pause", async || {
        let census = ours.census().await;
        let peer = census.peers.iter().find(|peer| peer.id == remote.id());
        must(peer.is_some_and(|peer| peer.failures == 4 && peer.waiting_until.is_some()), || format!("{peer:?}"))?;
        must(census.redials.entries == 1 && !census.redials.outage, || format!("{:?}", census.redials))
    })
    .await;
    let _neighbor = be_neighbor(&remote, topic_id).await;
    at_ours.sees(remote.id()).await;
    world.finish().await;
}

/// A topic that is left while its remotes do not answer: their dials would hold their slots until the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_that_nobody_waits_for_any_more_is_given_up() {
    let mut world = World::new().await;
    let ours = world.ours_with(None, Limits::default()).await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a free port on loopback");
    let socket = silent.local_addr().expect("a bound socket has an address");
    let nobody = || EndpointAddr::new(SecretKey::generate().public()).with_ip_addr(socket);
    let at_ours = ours.join(topic_id("nobody answers"), &[nobody(), nobody(), nobody()]).await;
    eventually(PATIENCE, "three dials are under way", async || {
        let half_open = ours.census().await.half_open;
        must(half_open == 3, || format!("{half_open} are"))
    })
    .await;
    at_ours.leave().await;
    let deadline = Limits::default().dial_timeout / 2;
    eventually(deadline, "no slot is held for them", async || {
        let half_open = ours.census().await.half_open;
        must(half_open == 0, || format!("{half_open} dials go on"))
    })
    .await;
    world.finish().await;
}

/// Ten nodes lose the one they all know, which is away for a while and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_mass_loss_the_redials_are_spread_and_everybody_is_back() {
    const NODES: usize = 10;
    let topic_id = topic_id("mass restart");
    let mut world = World::alone().await;
    let hub = world.raw(RawOptions::default()).await;
    let mut nodes: Vec<Topic> = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..NODES {
        let ours = world.ours().await;
        nodes.push(ours.join(topic_id, &[hub.addr()]).await);
        connections.push(be_neighbor(&hub, topic_id).await);
    }
    for node in &nodes {
        node.sees(hub.id()).await;
    }
    for lost in connections.drain(..) {
        lost.connection.close_with(Close { code: CloseCode::Internal, retry_after: None });
    }
    let refused = hub.refuse_until(Instant::now() + Duration::from_secs(3)).await;
    assert!((NODES..=3 * NODES).contains(&refused), "{refused} dials in three seconds, of {NODES} nodes");
    let mut dialed_at = Vec::new();
    while connections.len() < NODES {
        connections.push(be_neighbor(&hub, topic_id).await);
        dialed_at.push(Instant::now());
    }
    for node in &nodes {
        node.sees(hub.id()).await;
    }
    let most_at_once = dialed_at.iter().map(|at| within(&dialed_at, *at, Duration::from_millis(100))).max();
    let spread = dialed_at[NODES - 1] - dialed_at[0];
    println!("{refused} refused; then {NODES} dials over {spread:?}, at most {most_at_once:?} within 100 ms");
    assert!(spread >= Duration::from_millis(500), "all {NODES} came back within {spread:?}");
    assert!(most_at_once <= Some(NODES / 2), "{most_at_once:?} of {NODES} came back within 100 ms");
    world.finish().await;
}

/// How many are within `window` from `start`.
fn within(times: &[Instant], start: Instant, window: Duration) -> usize {
    times.iter().filter(|at| (start..start + window).contains(at)).count()
}

/// A raw neighbour for as long as it is held.
struct Neighbor {
    connection: RawConnection,
    _streams: (RawStream, SendStream),
}

/// Accepts whoever dials next and becomes its neighbour.
async fn be_neighbor(raw: &Raw, topic: TopicId) -> Neighbor {
    let connection = raw.accept().await;
    let mut from_ours = connection.accept_stream().await;
    // Join, or Neighbor.
    from_ours.next_where(|body| matches!(body, [0, 0 | 4, ..])).await;
    let to_ours = connection.open(topic, &[frames::neighbor(frames::HIGH)]).await;
    Neighbor { connection, _streams: (from_ours, to_ours) }
}
