//! The fixtures themselves: a world of stock nodes comes back to its baseline, and a forgotten `finish` is noticed.

use perennial_tests::{
    Child, World,
    child::Software,
    frames,
    raw::{RawOptions, write},
    topic::spread,
    topic_id,
};

use crate::OBSERVER;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_nodes_exchange_messages_and_leave_nothing_behind() {
    let topic_id = topic_id("stock nodes exchange messages");
    let mut world = World::new().await;
    let (one, two) = (world.stock().await, world.stock().await);
    let first = one.join(topic_id, &[]).await;
    let second = two.join(topic_id, &[one.addr()]).await;
    spread(&first, &[&second], "from the first", perennial_tests::PATIENCE).await;
    spread(&second, &[&first], "from the second", perennial_tests::PATIENCE).await;
    assert_eq!(one.connections(), 1);
    second.leave().await;
    first.misses(two.id()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_child_speaks_and_listens() {
    let topic_id = topic_id("a stock child");
    let mut world = World::new().await;
    let node = world.stock().await;
    let topic = node.join(topic_id, &[]).await;
    let mut child = Child::spawn(OBSERVER, Software::Stock, None, topic_id, &[node.addr()]).await;
    topic.sees(child.id()).await;
    child.joined().await;
    child.publish("from the child").await;
    topic.hears("from the child").await;
    topic.publish("to the child").await;
    child.hears("to the child").await;
    let census = child.census().await;
    assert!(census.heap_bytes > 1_000_000, "the heap is counted: {census:?}");
    assert_eq!((census.connections, census.neighbors, census.orphans), (1, 1, None), "{census:?}");
    child.quit().await;
    topic.misses(node.id()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raw_peer_joins_a_stock_node_by_the_book() {
    let topic_id = topic_id("raw joins stock");
    let mut world = World::new().await;
    let (raw, node) = (world.raw(RawOptions::default()).await, world.stock().await);
    let topic = node.join(topic_id, &[]).await;
    let connection = raw.dial(node.addr()).await;
    let mut to_node = connection.open(topic_id, &[frames::join()]).await;
    topic.sees(raw.id()).await;
    let mut from_node = connection.accept_stream().await;
    from_node.next_where(|body| body.starts_with(&[0, 4, frames::HIGH])).await;
    write(&mut to_node, &frames::frame(&frames::gossip(b"by the book", 0))).await;
    topic.hears("by the book").await;
    write(&mut to_node, &frames::frame(&frames::disconnect(false))).await;
    topic.misses(raw.id()).await;
    world.finish().await;
}

#[tokio::test]
#[should_panic(expected = "without `world.finish().await`")]
async fn a_world_that_is_never_finished_fails_its_scenario() {
    let world = World::new().await;
    drop(world);
}
