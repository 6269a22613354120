//! At the connection cap: who is refused, and that a refusal is not for ever.

use perennial::Reason;
use perennial_tests::{PATIENCE, World, frames, ours::fast_limits, raw::RawOptions, topic::spread, topic_id};

/// A stock node never redials a peer that refused it, so the recovery is ours to start or its application's to repeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_node_refused_at_the_cap_gets_in_once_the_cap_is_lifted() {
    let topic_id = topic_id("refused at the cap");
    let mut world = World::new().await;
    let limits = fast_limits().with_connections(1);
    let ours = world.ours_with(None, limits).await;
    let at_ours = ours.join(topic_id, &[]).await;
    let friend = world.stock().await;
    let at_friend = friend.join(topic_id, &[ours.addr()]).await;
    at_ours.sees(friend.id()).await;
    at_friend.sees(ours.id()).await;

    let late = world.stock().await;
    let at_late = late.join(topic_id, &[ours.addr()]).await;
    ours.counts(Reason::RefusedAtCap, 1).await;
    assert!(ours.census().await.connections <= 1, "the cap holds");
    assert!(at_late.neighbors().is_empty());

    ours.mesh().set_connection_cap(8).await.expect("the mesh is up");
    // We dial: that is what ends a stock node's grudge.
    let second = ours.join(topic_id, &[late.addr()]).await;
    at_late.sees(ours.id()).await;
    at_ours.sees(late.id()).await;
    spread(&at_late, &[&at_ours, &at_friend], "let in", PATIENCE).await;
    spread(&at_friend, &[&at_ours, &at_late], "welcome", PATIENCE).await;
    drop(second);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_ours_refused_at_the_cap_gets_in_by_itself_once_the_cap_is_lifted() {
    let topic_id = topic_id("ours refused at the cap");
    let mut world = World::new().await;
    let limits = fast_limits().with_connections(1);
    let full = world.ours_with(None, limits).await;
    let at_full = full.join(topic_id, &[]).await;
    let friend = world.stock().await;
    let at_friend = friend.join(topic_id, &[full.addr()]).await;
    at_full.sees(friend.id()).await;

    let late = world.ours().await;
    let at_late = late.join(topic_id, &[full.addr()]).await;
    full.counts(Reason::RefusedAtCap, 1).await;
    full.mesh().set_connection_cap(8).await.expect("the mesh is up");
    at_late.joined().await;
    spread(&at_late, &[&at_full, &at_friend], "let in", PATIENCE).await;
    world.finish().await;
}

/// Ours dials a peer that refuses; when it accepts at last, the node joins without being told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_dial_is_repeated_until_the_remote_accepts() {
    let topic_id = topic_id("refused dial");
    let mut world = World::new().await;
    let (remote, ours) = (world.raw(RawOptions::default()).await, world.ours().await);
    let at_ours = ours.join(topic_id, &[remote.addr()]).await;
    remote.refuse().await;
    remote.refuse().await;
    let connection = remote.accept().await;
    let mut stream = connection.accept_stream().await;
    stream.next_where(|body| body.starts_with(&[0, 0])).await;
    let _to_ours = connection.open(topic_id, &[frames::neighbor(frames::HIGH)]).await;
    at_ours.sees(remote.id()).await;
    connection.close();
    at_ours.misses(remote.id()).await;
    world.finish().await;
}
