//! Many nodes in one process: nothing in the library is process-wide, and draining gives everything back.

use std::time::Duration;

use perennial::{Kind, PublishError};
use perennial_tests::{Ours, PATIENCE, Topic, World, topic::spread, topic_id};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_nodes_in_one_process_all_hear_a_message() {
    let topic_id = topic_id("fifty nodes");
    let mut world = World::alone().await;
    let mut nodes: Vec<Ours> = Vec::new();
    let mut topics: Vec<Topic> = Vec::new();
    for number in 0..50 {
        let node = world.ours().await;
        // Through the last one and one half way back: a mesh without a node that everybody knows.
        let bootstrap: Vec<_> = nodes.last().into_iter().chain(nodes.get(number / 2)).map(Ours::addr).collect();
        topics.push(node.join(topic_id, &bootstrap).await);
        nodes.push(node);
    }
    for topic in &topics {
        topic.joined().await;
    }
    for publisher in [0, 25, 49] {
        let others: Vec<&Topic> =
            topics.iter().enumerate().filter(|&(i, _)| i != publisher).map(|(_, topic)| topic).collect();
        spread(&topics[publisher], &others, &format!("from {publisher}"), Duration::from_secs(120)).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_ends_every_task_and_tells_its_application() {
    let topic_id = topic_id("drain");
    let mut world = World::new().await;
    let (ours, other, stock) = (world.ours().await, world.ours().await, world.stock().await);
    let at_stock = stock.join(topic_id, &[]).await;
    let at_other = other.join(topic_id, &[stock.addr()]).await;
    let at_ours = ours.join(topic_id, &[stock.addr(), other.addr()]).await;
    at_stock.sees(ours.id()).await;
    spread(&at_ours, &[&at_stock, &at_other], "before the drain", PATIENCE).await;

    let report = ours.mesh().drain(Duration::from_secs(10)).await;
    assert!(report.clean && report.stragglers == 0, "{report:?}");
    assert_eq!(ours.alive(), 0);
    assert_eq!(ours.mesh().closed().await, perennial::Ended::Drained);
    assert_eq!(at_ours.try_publish("too late").await, Err(PublishError::Closed));
    at_ours.closes().await;
    at_stock.misses(ours.id()).await;
    at_other.misses(ours.id()).await;
    spread(&at_other, &[&at_stock], "after the drain", PATIENCE).await;
    let again = ours.mesh().drain(Duration::from_secs(1)).await;
    assert!(again.clean, "draining twice is no error: {again:?}");
    world.finish().await;
}

/// Every handle leaves on drop, and a node without topics keeps no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_leaves_the_topic_and_retires_its_connections() {
    let mut world = World::new().await;
    let (ours, stock) = (world.ours().await, world.stock().await);
    for round in 0..5 {
        let topic_id = topic_id(&format!("drop {round}"));
        let at_stock = stock.join(topic_id, &[]).await;
        let at_ours = ours.join(topic_id, &[stock.addr()]).await;
        at_stock.sees(ours.id()).await;
        drop(at_ours);
        at_stock.misses(ours.id()).await;
        ours.settles_on_neighbors(PATIENCE).await;
        let census = ours.census().await;
        assert!(census.topics.is_empty() && census.peers.is_empty(), "{census:#?}");
        assert_eq!(census.ledger.kind(Kind::Connection).orphans(), 0);
        at_stock.leave().await;
    }
    world.finish().await;
}
