//! Our nodes and stock nodes in one swarm, with stock as the oracle: joining, talking, leaving, parting, dialing at once.

use perennial::PublishError;
use perennial_tests::{PATIENCE, Topic, World, eventually, topic::spread, topic_id, wait::must};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_swarm_carries_messages_both_ways() {
    let topic_id = topic_id("mixed swarm");
    let mut world = World::new().await;
    let first = world.stock().await;
    let bootstrap = [first.addr()];
    let mut topics = vec![first.join(topic_id, &[]).await];
    for _ in 0..3 {
        topics.push(world.ours().await.join(topic_id, &bootstrap).await);
        topics.push(world.stock().await.join(topic_id, &bootstrap).await);
    }
    for topic in &topics {
        topic.joined().await;
    }
    for (index, publisher) in topics.iter().enumerate() {
        let listeners = all_but(&topics, index);
        spread(publisher, &listeners, &format!("from {}", publisher.name()), PATIENCE).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_joins_through_stock() {
    let topic_id = topic_id("ours joins through stock");
    let mut world = World::new().await;
    let (stock, ours) = (world.stock().await, world.ours().await);
    let at_stock = stock.join(topic_id, &[]).await;
    let at_ours = ours.join(topic_id, &[stock.addr()]).await;
    at_ours.sees(stock.id()).await;
    at_stock.sees(ours.id()).await;
    at_ours.publish("from ours").await;
    at_stock.hears("from ours").await;
    at_stock.publish("from stock").await;
    at_ours.hears("from stock").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_joins_through_ours() {
    let topic_id = topic_id("stock joins through ours");
    let mut world = World::new().await;
    let (stock, ours) = (world.stock().await, world.ours().await);
    let at_ours = ours.join(topic_id, &[]).await;
    let at_stock = stock.join(topic_id, &[ours.addr()]).await;
    at_stock.sees(ours.id()).await;
    at_ours.sees(stock.id()).await;
    at_stock.publish("from stock").await;
    at_ours.hears("from stock").await;
    at_ours.publish("from ours").await;
    at_stock.hears("from ours").await;
    world.finish().await;
}

/// A stock node that only knows ours learns of the other stock node through ours, addresses included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_nodes_meet_through_ours() {
    let topic_id = topic_id("stock nodes meet through ours");
    let mut world = World::new().await;
    let ours = world.ours().await;
    let at_ours = ours.join(topic_id, &[]).await;
    let (one, two) = (world.stock().await, world.stock().await);
    let at_one = one.join(topic_id, &[ours.addr()]).await;
    at_one.sees(ours.id()).await;
    let at_two = two.join(topic_id, &[ours.addr()]).await;
    at_one.sees(two.id()).await;
    at_two.sees(one.id()).await;
    at_ours.leave().await;
    at_one.misses(ours.id()).await;
    at_two.misses(ours.id()).await;
    spread(&at_one, &[&at_two], "without ours", PATIENCE).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_node_that_leaves_leaves_no_connection_behind() {
    let topic_id = topic_id("stock leaves");
    let mut world = World::new().await;
    let (stock, ours) = (world.stock().await, world.ours().await);
    let at_ours = ours.join(topic_id, &[]).await;
    let at_stock = stock.join(topic_id, &[ours.addr()]).await;
    at_ours.sees(stock.id()).await;
    at_stock.sees(ours.id()).await;
    at_stock.leave().await;
    at_ours.misses(stock.id()).await;
    ours.settles_on_neighbors(PATIENCE).await;
    assert_eq!(ours.connections(), 0, "stock never closes: closing is our job");
    eventually(PATIENCE, "stock sees its connection closed", async || {
        must(stock.connections() == 0, || format!("{} open", stock.connections()))
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_ours_that_leaves_is_forgotten_and_can_come_back() {
    let topic_id = topic_id("ours leaves");
    let mut world = World::new().await;
    let (stock, ours) = (world.stock().await, world.ours().await);
    let at_stock = stock.join(topic_id, &[]).await;
    let at_ours = ours.join(topic_id, &[stock.addr()]).await;
    at_stock.sees(ours.id()).await;
    at_ours.sees(stock.id()).await;
    at_ours.leave().await;
    at_stock.misses(ours.id()).await;
    ours.settles_on_neighbors(PATIENCE).await;

    let at_ours = ours.join(topic_id, &[stock.addr()]).await;
    at_ours.sees(stock.id()).await;
    spread(&at_stock, &[&at_ours], "welcome back", PATIENCE).await;
    spread(&at_ours, &[&at_stock], "here again", PATIENCE).await;
    world.finish().await;
}

/// The farewell must leave a stock node able to dial us again: closing without it leaves a dead sender in its table, and
/// everything it later sends to us is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_farewell_a_stock_node_dials_us_again() {
    let topic_id = topic_id("farewell");
    let mut world = World::new().await;
    let (stock, ours) = (world.stock().await, world.ours().await);
    let at_stock = stock.join(topic_id, &[]).await;
    let at_ours = ours.join(topic_id, &[stock.addr()]).await;
    at_stock.sees(ours.id()).await;
    at_ours.sees(stock.id()).await;
    at_ours.leave().await;
    at_stock.misses(ours.id()).await;
    ours.settles_on_neighbors(PATIENCE).await;
    assert_eq!(ours.connections(), 0);

    // Ours is back without knowing anybody: only the stock node can make the first move.
    let at_ours = ours.join(topic_id, &[]).await;
    at_stock.leave().await;
    let at_stock = stock.join(topic_id, &[ours.addr()]).await;
    at_stock.sees(ours.id()).await;
    spread(&at_stock, &[&at_ours], "dialed again", PATIENCE).await;
    spread(&at_ours, &[&at_stock], "and heard", PATIENCE).await;
    world.finish().await;
}

/// Both sides dial at once: whatever connection each side picks for sending, messages arrive both ways, and once both
/// have left, nothing is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_dial_each_other_at_once_end_up_neighbors() {
    let mut world = World::new().await;
    for round in 0..5 {
        let topic_id = topic_id(&format!("simultaneous dial {round}"));
        let (stock, ours, second) = (world.stock().await, world.ours().await, world.ours().await);
        let (stock_addr, ours_addr, second_addr) = ([stock.addr()], [ours.addr()], [second.addr()]);
        let (at_stock, at_ours) = tokio::join!(stock.join(topic_id, &ours_addr), ours.join(topic_id, &stock_addr));
        at_stock.sees(ours.id()).await;
        at_ours.sees(stock.id()).await;
        spread(&at_stock, &[&at_ours], "from stock", PATIENCE).await;
        spread(&at_ours, &[&at_stock], "from ours", PATIENCE).await;
        at_stock.leave().await;
        at_ours.leave().await;

        let (one, two) = tokio::join!(ours.join(topic_id, &second_addr), second.join(topic_id, &ours_addr));
        one.sees(second.id()).await;
        two.sees(ours.id()).await;
        spread(&one, &[&two], "from one", PATIENCE).await;
        spread(&two, &[&one], "from two", PATIENCE).await;
        // Between our own nodes one of the two stays alone: the larger id decides which.
        ours.settles_on_neighbors(PATIENCE).await;
        second.settles_on_neighbors(PATIENCE).await;
        eventually(PATIENCE, "one connection is left of two", async || {
            let open = (ours.connections(), second.connections());
            must(open == (1, 1), || format!("{open:?} open"))
        })
        .await;
        one.leave().await;
        two.leave().await;
        ours.settles_on_neighbors(PATIENCE).await;
        second.settles_on_neighbors(PATIENCE).await;
        assert_eq!((ours.connections(), second.connections()), (0, 0));
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversize_publish_is_refused_with_the_limit_and_the_largest_legal_one_arrives() {
    let topic_id = topic_id("oversize");
    let mut world = World::new().await;
    let (stock, ours) = (world.stock().await, world.ours().await);
    let at_stock = stock.join(topic_id, &[]).await;
    let at_ours = ours.join(topic_id, &[stock.addr()]).await;
    at_ours.sees(stock.id()).await;
    at_stock.sees(ours.id()).await;
    for size in [4056, 4057, 4096, 1 << 20] {
        let refused = at_ours.try_publish(vec![b'x'; size]).await;
        assert_eq!(refused, Err(PublishError::TooLarge { size, limit: 4055 }));
    }
    let largest = vec![b'y'; 4055];
    at_ours.publish(largest.clone()).await;
    at_stock.hears(&largest).await;
    at_ours.publish("still connected").await;
    at_stock.hears("still connected").await;
    world.finish().await;
}

fn all_but(topics: &[Topic], index: usize) -> Vec<&Topic> {
    topics.iter().enumerate().filter(|&(other, _)| other != index).map(|(_, topic)| topic).collect()
}
