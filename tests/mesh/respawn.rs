//! Killed without a goodbye, and back under the same identity: for the others the dead one and the new one are one peer.

use iroh::{EndpointAddr, SecretKey};
use iroh_gossip::proto::TopicId;
use perennial_tests::{
    Child, PATIENCE, Topic, World, child::Software, eventually, frames, raw::RawOptions, topic::spread, topic_id,
    wait::must,
};

use crate::OBSERVER;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_node_killed_and_respawned_with_its_key_is_a_neighbor_again() {
    Box::pin(kill_and_respawn(Software::Stock)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_ours_killed_and_respawned_with_its_key_is_a_neighbor_again() {
    Box::pin(kill_and_respawn(Software::Perennial)).await;
}

async fn kill_and_respawn(software: Software) {
    let topic_id = topic_id(&format!("respawn {}", software.name()));
    let mut world = World::new().await;
    let (ours, stock) = (world.ours().await, world.stock().await);
    let at_ours = ours.join(topic_id, &[stock.addr()]).await;
    let at_stock = stock.join(topic_id, &[]).await;
    at_ours.sees(stock.id()).await;
    let key = SecretKey::generate();
    let bootstrap = [ours.addr(), stock.addr()];

    for life in 0..3 {
        let mut child = Child::spawn(OBSERVER, software, Some(&key), topic_id, &bootstrap).await;
        assert_eq!(child.id(), key.public());
        child.joined().await;
        say_until_heard(&mut child, &[&at_ours, &at_stock], &format!("life {life}")).await;
        child.kill().await;
    }
    at_ours.misses(key.public()).await;
    ours.settles_on_neighbors(PATIENCE).await;
    // The survivors still have each other.
    spread(&at_ours, &[&at_stock], "we go on", PATIENCE).await;
    spread(&at_stock, &[&at_ours], "so do we", PATIENCE).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_node_answers_a_second_join_on_the_newest_connection() {
    let topic_id = topic_id("second join at stock");
    let mut world = World::new().await;
    let node = world.stock().await;
    let topic = node.join(topic_id, &[]).await;
    join_twice(&mut world, node.addr(), topic_id, &topic).await;
    world.finish().await;
}

/// To a node that was killed and is back, the old connection is a hole: it will never read what is sent there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_ours_answers_a_second_join_on_the_newest_connection() {
    let topic_id = topic_id("second join at ours");
    let mut world = World::new().await;
    let node = world.ours().await;
    let topic = node.join(topic_id, &[]).await;
    join_twice(&mut world, node.addr(), topic_id, &topic).await;
    world.finish().await;
}

/// One identity joins, falls silent, and joins again over a new connection while the old one still looks alive.
async fn join_twice(world: &mut World, node: EndpointAddr, topic_id: TopicId, topic: &Topic) {
    let raw = world.raw(RawOptions::default()).await;
    let first = raw.dial(node.clone()).await;
    // Join, and the answer to the Neighbor that comes back.
    let _silent = first.open(topic_id, &[frames::join(), frames::neighbor(frames::HIGH)]).await;
    topic.sees(raw.id()).await;
    first.accept_stream().await.next_where(|body| body.starts_with(&[0, 4])).await;

    let second = raw.dial(node).await;
    let _stream = second.open(topic_id, &[frames::join()]).await;
    second.accept_stream().await.next_where(|body| body.starts_with(&[0, 4])).await;
}

/// The child publishes numbered messages until one has reached every listener.
async fn say_until_heard(child: &mut Child, listeners: &[&Topic], text: &str) {
    let mut sent = 0;
    eventually(PATIENCE, "everybody hears the child", async || {
        child.publish(&format!("{text} #{sent}")).await;
        sent += 1;
        let is_heard = |number| listeners.iter().all(|topic| topic.has_heard(format!("{text} #{number}")));
        must((0..sent).any(is_heard), || format!("{sent} messages sent"))
    })
    .await;
}
