//! More than the mesh can carry, and peers that do not read: nobody wedges, nobody else waits.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use perennial::{Limits, Reason};
use perennial_tests::{
    Ours, PATIENCE, Topic, World, eventually, frames, ours::fast_limits, raw::RawOptions, topic::spread, topic_id,
    wait::must,
};

const NODES: usize = 10;
const PUBLISHERS: usize = 5;

/// A burst ends after this many messages of one publisher or this long, whichever is first.
const BURST_MESSAGES_MAX: u64 = 4000;
const BURST_TIME_MAX: Duration = Duration::from_secs(10);

/// The rest after a burst before anybody is asked to deliver. Part of the claim, so it is waited out.
const REST: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_1_kib_messages_wedges_nobody() {
    burst(1024).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_4000_byte_messages_wedges_nobody() {
    burst(4000).await;
}

/// Five of ten nodes publish as fast as `publish` lets them, most of which reaches every node, and ten seconds later every probe does. Stock is
/// dead for good after this in six of six runs.
async fn burst(size: usize) {
    let topic_id = topic_id(&format!("burst {size}"));
    let mut world = World::alone().await;
    let mut nodes: Vec<Ours> = Vec::new();
    let mut topics: Vec<Topic> = Vec::new();
    for _ in 0..NODES {
        let node = world.ours().await;
        let bootstrap: Vec<_> = nodes.last().into_iter().chain(nodes.first()).map(Ours::addr).collect();
        topics.push(node.join(topic_id, &bootstrap).await);
        nodes.push(node);
    }
    let all: Vec<&Topic> = topics.iter().collect();
    for publisher in &topics[..PUBLISHERS] {
        spread(publisher, &all_but(&all, publisher), &format!("before {}", publisher.name()), PATIENCE).await;
    }

    let before: Vec<_> = topics.iter().map(|topic| topic.log().messages).collect();
    let published: [AtomicU64; PUBLISHERS] = Default::default();
    let start = Instant::now();
    let [one, two, three, four, five] =
        std::array::from_fn(|index| flood(&topics[index], size, index, &published[index]));
    tokio::join!(one, two, three, four, five);
    let published = published.map(AtomicU64::into_inner);
    let all_published: u64 = published.iter().sum();
    println!("published {all_published} × {size} B in {:?}", start.elapsed());

    tokio::time::sleep(REST).await;
    for (index, (node, topic)) in nodes.iter().zip(&topics).enumerate() {
        let (heard, lagged) = {
            let log = topic.log();
            (log.messages - before[index], log.lagged)
        };
        let told = all_published - published.get(index).copied().unwrap_or(0);
        println!("{}: heard {heard} of {told}, lagged {lagged} times", node.name());
        assert!(heard * 3 >= told * 2, "{} heard {heard} of {told}: publishers go as fast as others take", node.name());
    }
    for publisher in &topics[..PUBLISHERS] {
        for probe in 0..4 {
            let text = format!("probe {probe} of {}", publisher.name());
            publisher.publish(text.clone()).await;
            for listener in all_but(&all, publisher) {
                listener.hears_within(Duration::from_secs(30), &text).await;
            }
        }
    }
    world.finish().await;
}

async fn flood(topic: &Topic, size: usize, publisher: usize, published: &AtomicU64) {
    let start = Instant::now();
    for number in 0..BURST_MESSAGES_MAX {
        if start.elapsed() > BURST_TIME_MAX {
            break;
        }
        let mut content = format!("burst {publisher} {number} ").into_bytes();
        content.resize(size, b'.');
        // Being told no is a legitimate answer to a flood; being left waiting for ever is not.
        let publish = tokio::time::timeout(PATIENCE, topic.try_publish(content));
        if publish.await.expect("publish answers within a minute").is_ok() {
            published.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A peer that finishes the handshake, joins, becomes a neighbour and then never reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_stalls_nobody_else_and_is_closed() {
    let topic_id = topic_id("slow peer");
    let mut world = World::new().await;
    let (slow_peer_timeout, inbox_wait) = (Duration::from_secs(2), Duration::from_millis(500));
    let limits = Limits { slow_peer_timeout, inbox_wait, ..fast_limits() };
    let ours = world.ours_with(None, limits).await;
    let at_ours = ours.join(topic_id, &[]).await;
    let friend = world.stock().await;
    let at_friend = friend.join(topic_id, &[ours.addr()]).await;
    at_ours.sees(friend.id()).await;
    at_friend.sees(ours.id()).await;
    let slow = world.raw(RawOptions { receive_window: Some(1024), ..RawOptions::default() }).await;
    let connection = slow.dial(ours.addr()).await;
    let _joined = connection.open(topic_id, &[frames::join()]).await;
    at_ours.sees(slow.id()).await;

    let mut sent = 0_u64;
    eventually(PATIENCE, "the peer that does not read is closed", async || {
        for _ in 0..20 {
            let mut content = format!("while he sleeps {sent} ").into_bytes();
            content.resize(1024, b'.');
            at_ours.publish(content.clone()).await;
            // Every single message has to get through to the friend, and soon.
            at_friend.hears_within(Duration::from_secs(20), &content).await;
            sent += 1;
        }
        let counts = ours.census().await.counts;
        must(counts.get(Reason::ClosedSlowPeer) > 0, || perennial_tests::ours::summary(&counts))
    })
    .await;
    connection.closed().await;
    at_ours.misses(slow.id()).await;
    assert!(at_ours.neighbors().contains(&friend.id()), "the friend was never lost");
    assert!(at_ours.log().downs.iter().all(|(peer, _)| *peer != friend.id()), "not even for a moment");
    ours.settles_on_neighbors(PATIENCE).await;
    world.finish().await;
}

fn all_but<'a>(topics: &[&'a Topic], but: &Topic) -> Vec<&'a Topic> {
    topics.iter().copied().filter(|topic| topic.name() != but.name()).collect()
}
