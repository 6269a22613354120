//! Known remotes at a full node: they are always let in, at the cost of one unknown remote at most, which is told so.

use std::time::Duration;

use perennial::{Limits, Reason};
use perennial_tests::{
    Guest, Ours, PATIENCE, Raw, World, door::slots, eventually, frames, guest::connected, ours::fast_limits,
    raw::RawOptions, topic::spread, topic_id, wait::must,
};

/// What a known remote waits at most for somebody else's place.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_node_of_ours_takes_the_place_of_one_stranger() {
    let topic_id = topic_id("ours takes a place");
    let mut world = World::alone().await;
    let full = world.ours_with(None, slots(12)).await;
    let at_full = full.join(topic_id, &[]).await;
    let guests = fill(&full, 12).await;
    let known = world.ours().await;
    full.mesh().allow(known.id()).expect("the list has room");
    let at_known = known.join(topic_id, &[full.addr()]).await;
    eventually(AT_ONCE, "the known node is a neighbor", async || {
        must(at_full.neighbors() == [known.id()] && at_known.neighbors() == [full.id()], || "not yet".into())
    })
    .await;
    let evicted = only_evicted(&full, &guests).await;
    assert_eq!(guests[evicted].told().await, (0x14, "evicted retry_after_ms=30000".into()));
    spread(&at_known, &[&at_full], "let in", PATIENCE).await;
    assert_eq!(full.census().await.counts.get(Reason::Evicted), 1);
    Guest::leave_all(guests).await;
    world.finish().await;
}

/// The youngest goes when all are young: here the stock node, which hears a farewell and can come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_stock_node_takes_the_place_of_a_stock_stranger_who_can_come_again() {
    let topic_id = topic_id("stock takes a place");
    let mut world = World::alone().await;
    let full = world.ours_with(None, slots(6)).await;
    let at_full = full.join(topic_id, &[]).await;
    let guests = fill(&full, 5).await;
    let (victim, known) = (world.stock().await, world.stock().await);
    let at_victim = victim.join(topic_id, &[full.addr()]).await;
    at_full.sees(victim.id()).await;
    at_victim.sees(full.id()).await;
    full.mesh().allow(known.id()).expect("the list has room");
    let at_known = known.join(topic_id, &[full.addr()]).await;
    eventually(AT_ONCE, "the known stock node is a neighbor", async || {
        must(at_full.neighbors().contains(&known.id()), || format!("{:?}", at_full.neighbors()))
    })
    .await;
    at_known.sees(full.id()).await;
    at_victim.misses(full.id()).await;
    assert_eq!((full.census().await.counts.get(Reason::Evicted), full.served_of(&guests).await), (1, 5));
    let (closed, _) = full.mesh().closed_connections();
    assert!(closed.iter().any(|closed| closed.peer == victim.id() && closed.cause == "evicted"), "{closed:#?}");

    Guest::leave_all(guests).await;
    drop(at_victim);
    let at_victim = victim.join(topic_id, &[full.addr()]).await;
    at_full.sees(victim.id()).await;
    spread(&at_victim, &[&at_full, &at_known], "here again", PATIENCE).await;
    world.finish().await;
}

/// A remote that reads nothing cannot make its eviction wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_does_not_read_makes_room_as_fast() {
    let topic_id = topic_id("a deaf victim");
    let mut world = World::alone().await;
    let full = world.ours_with(None, slots(1)).await;
    let at_full = full.join(topic_id, &[]).await;
    let deaf = world.raw(RawOptions { receive_window: Some(1000), ..RawOptions::default() }).await;
    let connection = deaf.dial(full.addr()).await;
    let _joins = connection.open(topic_id, &[frames::join()]).await;
    at_full.sees(deaf.id()).await;
    let mut said = 0_u32;
    eventually(PATIENCE, "frames wait behind one that the deaf one does not take", async || {
        said += 1;
        at_full.publish([said.to_be_bytes().as_slice(), &[0; 1000]].concat()).await;
        let census = full.census().await;
        let connections = census.peers.iter().flat_map(|peer| &peer.connections);
        let queued: usize = connections.map(|one| one.queued_frames).sum();
        must(queued >= 4, || format!("{queued} of {said} frames queued"))
    })
    .await;
    let known = world.raw(RawOptions::default()).await;
    full.mesh().allow(known.id()).expect("the list has room");
    let at_known = known.dial(full.addr()).await;
    let _joins = at_known.open(topic_id, &[frames::join()]).await;
    eventually(AT_ONCE, "the known one is a neighbor", async || {
        must(at_full.neighbors() == [known.id()], || format!("{:?}", at_full.neighbors()))
    })
    .await;
    assert_eq!(connection.closed_with().await.0, 0x14);
    world.finish().await;
}

/// Half of the handshakes that a full node makes are for addresses where it expects somebody it knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_node_at_its_address_gets_in_past_a_crowd_that_waits() {
    let topic_id = topic_id("past a crowd");
    let mut world = World::alone().await;
    let full = world.ours_with(None, slots(2)).await;
    let guests = fill(&full, 2).await;
    let crowd = Guest::knock_many(12, &full.addr()).await;
    full.uses("lobby", 4).await;
    full.uses("waiting_room", 8).await;
    let known = world.raw(RawOptions::default()).await;
    let _topic = full.join(topic_id, &[known.addr()]).await;
    let _connection = known.dial(full.addr()).await;
    eventually(AT_ONCE, "the known one is served", async || {
        must(full.served().await.contains(&known.id()), || "not yet".into())
    })
    .await;
    let _evicted = only_evicted(&full, &guests).await;
    assert_eq!(full.served_of(&crowd).await, 0, "the place was not for the crowd");
    Guest::leave_all(guests.into_iter().chain(crowd)).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_holds_eight_strangers_and_whoever_is_known() {
    let mut world = World::new().await;
    let ours = world.ours_with(None, Limits { exempt_loopback: false, ..slots(64) }).await;
    let before = ours.footprint().await;
    let mut guests = Vec::new();
    for _ in 0..8 {
        guests.push(Guest::knock_from([127, 0, 0, 5], &ours.addr()).await);
    }
    ours.serves(&guests, 8).await;
    let ninth = Guest::knock_from([127, 0, 0, 5], &ours.addr()).await;
    assert_eq!(ninth.told().await, (0x12, "full-prefix retry_after_ms=10000".into()));
    ours.counts(Reason::RefusedAtPrefixCap, 1).await;
    let elsewhere = Guest::knock_from([127, 0, 0, 6], &ours.addr()).await;
    guests.push(elsewhere);
    ours.serves(&guests, 9).await;

    let options = RawOptions { source: Some([127, 0, 0, 5].into()), ..RawOptions::default() };
    let known = world.raw(options).await;
    ours.mesh().allow(known.id()).expect("the list has room");
    let connection = known.dial(ours.addr()).await;
    serves_raw(&ours, &known).await;
    connection.close();
    Guest::leave_all(guests.into_iter().chain([ninth])).await;
    // The rates of the two addresses are remembered until their buckets are full again.
    ours.returns_but_for(&["prefixes_max", "known_list"], &before).await;
    world.finish().await;
}

/// 64 MiB is the least a budget may be, and this process holds that much for the moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_short_of_memory_admits_only_whom_it_knows() {
    let mut world = World::new().await;
    let ballast = vec![1_u8; 64 << 20];
    let ours = world.ours_with(None, Limits { memory_budget: Some(64 << 20), ..fast_limits() }).await;
    eventually(PATIENCE, "the node notices", async || {
        let pressure = ours.mesh().limits().await.expect("the mesh is up").pressure;
        must(pressure == "critical", || pressure.into())
    })
    .await;
    let before = ours.footprint().await;
    let stranger = Guest::knock(&ours.addr()).await;
    assert_eq!(stranger.told().await, (0x10, "full-global retry_after_ms=10000".into()));
    ours.counts(Reason::RefusedUnderPressure, 1).await;
    ours.returns_to(&before).await;
    let known = world.raw(RawOptions::default()).await;
    ours.mesh().allow(known.id()).expect("the list has room");
    let _connection = known.dial(ours.addr()).await;
    serves_raw(&ours, &known).await;
    assert!(ballast.iter().all(|byte| *byte == 1), "held all along");
    stranger.leave().await;
    world.finish().await;
}

/// Strangers in every slot.
async fn fill(ours: &Ours, count: usize) -> Vec<Guest> {
    let guests = Guest::knock_many(count, &ours.addr()).await;
    ours.serves(&guests, count).await;
    connected(&guests, count).await;
    guests
}

/// The place of the only one who had to go.
async fn only_evicted(ours: &Ours, guests: &[Guest]) -> usize {
    connected(guests, guests.len() - 1).await;
    ours.counts(Reason::Evicted, 1).await;
    guests.iter().position(|guest| !guest.is_connected()).expect("one has gone")
}

async fn serves_raw(ours: &Ours, raw: &Raw) {
    eventually(PATIENCE, "the known one is served", async || {
        must(ours.served().await.contains(&raw.id()), || "not yet".into())
    })
    .await;
}
