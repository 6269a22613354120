//! Nodes that reach each other through a relay and nothing else, while it is there, while it is not, and when it is back.

use std::time::Duration;

use iroh::{EndpointAddr, EndpointId, RelayMode, RelayUrl};
use perennial::{Backend, BackendCensus, BackendState, Kind, Limits, Listen, Mesh, MeshBuilder, Reason};
use perennial_tests::{
    Ours, Relay, Topic, World, eventually,
    ours::fast_limits,
    topic_id,
    wait::{PATIENCE, must},
};
use tokio::time::Instant;

/// iroh dials its home again after 16 to 32 s at the latest. One more for the connection, and what a busy machine may add.
const BACK_MAX: Duration = Duration::from_secs(36);

/// Nothing but a relay leads from the one, which has an IPv6 socket, to the other, which has an IPv4 one; a third node is a
/// neighbor without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_relay_holds_back_what_leads_through_it_and_nothing_else() {
    let topic_id = topic_id("lost relay");
    let mut relay = Relay::spawn().await.expect("a relay on loopback");
    let mut world = World::new().await;
    let far = world.ours_from(behind(&relay, "[::1]:0")).await;
    let near = world.ours_from(behind(&relay, "127.0.0.1:0")).await;
    let beside = world.ours_with(None, limits()).await;
    let far_addr = EndpointAddr::new(far.id()).with_relay_url(relay.url());
    for node in [&far, &near] {
        eventually(PATIENCE, "a node has found its home", async || {
            must(node.addr().relay_urls().next() == Some(&relay.url()), || format!("{:?}", node.addr()))
        })
        .await;
    }
    let at_far = far.join(topic_id, &[]).await;
    let at_beside = beside.join(topic_id, &[]).await;
    let at_near = near.join(topic_id, &[far_addr, beside.addr()]).await;
    meet((&at_near, near.id()), (&at_far, far.id())).await;
    meet((&at_near, near.id()), (&at_beside, beside.id())).await;
    at_far.publish("through the relay").await;
    at_near.hears("through the relay").await;
    let connection = connection(&near, &beside).await;

    relay.stop().await.expect("the relay ends");
    let down = in_state(&near, &relay.url(), BackendState::Degraded).await;
    assert!(down.failures >= limits().breaker_failures && down.next_probe.is_some(), "{down:?}");
    let since = Instant::now() - down.since;
    at_near.misses(far.id()).await;
    at_far.misses(near.id()).await;
    let (dials, gated) = dials(&near).await;
    near.counts(Reason::DialGated, gated + 1).await;
    let held = in_state(&near, &relay.url(), BackendState::Degraded).await;
    assert_eq!(dials, self::dials(&near).await.0, "a dial through the relay was begun");
    assert!(held.saved > down.saved, "{held:?}");
    assert!(Instant::now() - held.since < since + Duration::from_secs(1), "degraded once, and ever since: {held:?}");
    at_beside.publish("without a relay").await;
    at_near.hears("without a relay").await;
    assert_eq!(self::connection(&near, &beside).await, connection, "a direct neighbor is none of the relay's business");

    relay.restart().await.expect("the relay starts where it was");
    let back_at = Instant::now();
    for node in [&far, &near] {
        let back = in_state(node, &relay.url(), BackendState::Healthy).await;
        assert_eq!((back.failures, back.next_probe), (0, None), "{back:?}");
    }
    let took = back_at.elapsed();
    println!("healthy {took:?} after the relay was back");
    assert!(took <= BACK_MAX, "healthy {took:?} after the relay was back");
    meet((&at_near, near.id()), (&at_far, far.id())).await;
    at_far.publish("through the relay again").await;
    at_near.hears("through the relay again").await;
    assert_eq!(self::connection(&near, &beside).await, connection);
    world.finish().await;
    relay.stop().await.expect("the relay ends");
}

/// Each is a neighbor of the other, so that what is published now arrives.
async fn meet((one, one_id): (&Topic, EndpointId), (other, other_id): (&Topic, EndpointId)) {
    one.sees(other_id).await;
    other.sees(one_id).await;
}

fn behind(relay: &Relay, listen: &str) -> MeshBuilder {
    let listen: std::net::SocketAddr = listen.parse().expect("an address");
    Mesh::builder().listen(Listen::from(listen)).relay(RelayMode::custom([relay.url()])).limits(limits())
}

/// A lost connection is noticed soon, and no probe is due before the relay is back: what begins after it is degraded is no probe.
fn limits() -> Limits {
    Limits {
        idle_timeout: Duration::from_secs(3),
        keep_alive: Duration::from_secs(1),
        dial_timeout: Duration::from_secs(2),
        waiting_timeout: Duration::from_secs(2),
        breaker_open_min: Duration::from_secs(300),
        breaker_open_max: Duration::from_secs(300),
        ..fast_limits()
    }
}

async fn in_state(node: &Ours, relay: &RelayUrl, state: BackendState) -> BackendCensus {
    let is_meant = |backend: &BackendCensus| backend.backend == Backend::Relay(relay.clone());
    let what = format!("the relay of {} is {}", node.name(), state.name());
    eventually(PATIENCE, &what, async || {
        let found = node.mesh().backends().into_iter().find(is_meant).ok_or("it is not known")?;
        must(found.state == state, || format!("{found:?}"))?;
        Ok(found)
    })
    .await
}

/// Dials begun, and held back.
async fn dials(node: &Ours) -> (u64, u64) {
    let census = node.census().await;
    (census.ledger.kind(Kind::Dial).spawned, census.counts.get(Reason::DialGated))
}

async fn connection(node: &Ours, to: &Ours) -> Vec<u64> {
    let census = node.census().await;
    let peer = census.peers.into_iter().find(|peer| peer.id == to.id());
    peer.into_iter().flat_map(|peer| peer.connections).map(|connection| connection.number).collect()
}
