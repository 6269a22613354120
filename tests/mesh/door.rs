//! A listener with a cap: whoever comes first is served, the next waits connected and unserved, and each slot that comes
//! free goes to exactly one who waits, whichever side freed it.

use std::time::Duration;

use iroh::EndpointAddr;
use perennial::{
    Limits, Listen, Loop, Mesh, Reason,
    testing::{Fault, How},
};
use perennial_tests::{
    Guest, Ours, PATIENCE, Topic, World,
    door::patient_limits,
    eventually, frames,
    guest::connected,
    ours::{fast_limits, summary},
    raw::{RawOptions, write},
    topic_id,
    wait::must,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_at_a_listener_for_one_waits_until_the_first_leaves() {
    let topic_id = topic_id("a listener for one");
    let (mut world, ours) = listener_for(1).await;
    let topic = ours.join(topic_id, &[]).await;
    let (first, second) = (world.raw(RawOptions::default()).await, world.raw(RawOptions::default()).await);
    let at_first = first.dial(ours.addr()).await;
    let _joins = at_first.open(topic_id, &[frames::join()]).await;
    topic.sees(first.id()).await;

    let at_second = second.dial(ours.addr()).await;
    let mut joins = at_second.open(topic_id, &[frames::join()]).await;
    write(&mut joins, &frames::frame(&frames::gossip(b"while waiting", 0))).await;
    ours.uses("lobby", 1).await;
    turns(&ours, &topic).await;
    assert!(!topic.neighbors().contains(&second.id()) && !topic.has_heard("while waiting"), "connected, not served");
    assert!(!ours.served().await.contains(&second.id()) && at_second.is_open());
    let listener = ours.listener(0).await;
    assert_eq!((listener.in_use, listener.is_accepting, listener.resumed), (1, false, 0), "{listener:?}");

    at_first.close();
    topic.sees(second.id()).await;
    topic.hears("while waiting").await;
    let listener = ours.listener(0).await;
    assert_eq!((listener.in_use, listener.high_water, listener.resumed), (1, 1, 1), "{listener:?}");
    ours.uses("lobby", 0).await;
    at_second.close();
    topic.misses(second.id()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capped_listener_outlives_an_idle_gap() {
    let (world, ours) = listener_for(1).await;
    let before = ours.footprint().await;
    for _ in 0..3 {
        let guest = Guest::knock(&ours.addr()).await;
        ours.serves(std::slice::from_ref(&guest), 1).await;
        guest.leave().await;
        ours.returns_to(&before).await;
        // The gap itself: longer than several turns of the accept loop.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(ours.listener(0).await.resumed, 3, "each departure took it from full to below full");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_below_its_cap_stays_open_through_comings_and_goings() {
    let (world, ours) = listener_for(3).await;
    let resident = Guest::knock(&ours.addr()).await;
    for _ in 0..4 {
        let guest = Guest::knock(&ours.addr()).await;
        ours.serves(std::slice::from_ref(&guest), 1).await;
        guest.leave().await;
        ours.serves(std::slice::from_ref(&resident), 1).await;
        ours.uses("connections_max", 1).await;
    }
    let listener = ours.listener(0).await;
    assert_eq!((listener.resumed, listener.high_water, listener.is_accepting), (0, 2, true), "{listener:?}");
    resident.leave().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_leave_at_once_let_exactly_two_in() {
    let (world, ours) = listener_for(2).await;
    let before = ours.footprint().await;
    let members = Guest::knock_many(2, &ours.addr()).await;
    ours.serves(&members, 2).await;
    let waiting = Guest::knock_many(3, &ours.addr()).await;
    connected(&waiting, 3).await;
    ours.uses("lobby", 3).await;
    Guest::leave_all(members).await;
    ours.serves(&waiting, 2).await;
    let listener = ours.listener(0).await;
    assert_eq!((listener.in_use, listener.high_water), (2, 2), "{listener:?}");
    assert!((1..=2).contains(&listener.resumed), "{listener:?}");
    assert_eq!((ours.in_use("lobby").await, ours.served_of(&waiting).await), (1, 2), "the third still waits");
    Guest::leave_all(waiting).await;
    ours.returns_to(&before).await;
    assert!(ours.listener(0).await.is_accepting, "nothing is pending");
    world.finish().await;
}

/// By default twelve may wait at one listener, four in the lobby and eight in the room; here there is room for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_who_wait_thirty_two_take_the_places_of_thirty_two_who_leave() {
    let mut world = World::alone().await;
    let limits = Limits { speculative_max: 16, waiting_max: 56, ..patient_limits() };
    let ours = listen(&mut world, limits, &[("127.0.0.1:0", 32)]).await;
    let before = ours.footprint().await;
    let members = Guest::knock_many(32, &ours.addr()).await;
    ours.serves(&members, 32).await;
    let waiting = Guest::knock_many(64, &ours.addr()).await;
    ours.uses("lobby", 8).await;
    ours.uses("waiting_room", 56).await;
    assert_eq!(ours.served_of(&waiting).await, 0);

    Guest::leave_all(members).await;
    ours.serves(&waiting, 32).await;
    // Of those left, as many are in the lobby again as it has places.
    ours.uses("waiting_room", 24).await;
    ours.uses("lobby", 8).await;
    let listener = ours.listener(0).await;
    assert_eq!((listener.in_use, listener.high_water), (32, 32), "{listener:?}");
    assert!((1..=32).contains(&listener.resumed), "{listener:?}");
    assert_eq!(ours.served_of(&waiting).await, 32, "exactly as many as left");

    Guest::leave_all(waiting).await;
    ours.returns_to(&before).await;
    let last = Guest::knock(&ours.addr()).await;
    ours.serves(std::slice::from_ref(&last), 1).await;
    last.leave().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_comes_free_when_the_node_itself_closes() {
    let mut world = World::new().await;
    let unclaimed_timeout = Duration::from_secs(2);
    let first_frame_timeout = unclaimed_timeout;
    let limits =
        Limits { waiting_timeout: Duration::from_secs(5), first_frame_timeout, unclaimed_timeout, ..fast_limits() };
    let ours = listen(&mut world, limits, &[("127.0.0.1:0", 1)]).await;
    let first = Guest::knock(&ours.addr()).await;
    ours.serves(std::slice::from_ref(&first), 1).await;
    let second = Guest::knock(&ours.addr()).await;
    second.connected().await;
    ours.mesh().deny(first.id()).expect("the list has room");
    assert_eq!(first.told().await, (0x16, "denied".into()));
    ours.serves(std::slice::from_ref(&second), 1).await;

    // Nobody claims the second; its time is up before the third's patience is.
    let third = Guest::knock(&ours.addr()).await;
    third.connected().await;
    ours.serves(std::slice::from_ref(&third), 1).await;
    ours.counts(Reason::ClosedUnclaimed, 1).await;
    assert_eq!(second.told().await, (0x1e, "idle".into()));
    Guest::leave_all([first, second, third]).await;
    world.finish().await;
}

/// A kill and a panic run no farewell; the slot comes back all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_comes_free_when_the_loop_of_its_connection_dies() {
    for how in [How::Kill, How::Panic] {
        let (world, ours) = listener_for(1).await;
        let guests = Guest::knock_many(2, &ours.addr()).await;
        ours.serves(&guests, 1).await;
        ours.uses("lobby", 1).await;
        assert!(ours.mesh().inject(Fault::new(Loop::Connection, how)), "there is a connection");
        ours.uses("lobby", 0).await;
        ours.serves(&guests, 1).await;
        assert_eq!(ours.listener(0).await.high_water, 1, "never two at once");
        Guest::leave_all(guests).await;
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accept_loop_that_dies_loses_those_who_wait_and_nobody_else() {
    let (world, ours) = listener_for(1).await;
    let member = Guest::knock(&ours.addr()).await;
    ours.serves(std::slice::from_ref(&member), 1).await;
    let before = ours.footprint().await;
    let waiting = Guest::knock_many(6, &ours.addr()).await;
    ours.uses("lobby", 4).await;
    ours.uses("waiting_room", 2).await;
    assert!(ours.mesh().inject(Fault::new(Loop::Acceptor, How::Panic)), "there is an accept loop");
    ours.returns_to(&before).await;
    connected(&waiting, 0).await;
    assert!(member.is_connected(), "whoever is in stays in");
    let lobby = ours.limit("lobby").await;
    assert_eq!((lobby.in_use, lobby.high_water), (0, Some(4)), "what was is not forgotten");
    let next = Guest::knock(&ours.addr()).await;
    next.connected().await;
    member.leave().await;
    ours.serves(std::slice::from_ref(&next), 1).await;
    Guest::leave_all(waiting.into_iter().chain([next])).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gives_up_waiting_frees_his_place() {
    let (world, ours) = listener_for(1).await;
    let before = ours.footprint().await;
    let member = Guest::knock(&ours.addr()).await;
    ours.serves(std::slice::from_ref(&member), 1).await;
    let mut lobby = Guest::knock_many(4, &ours.addr()).await;
    ours.uses("lobby", 4).await;
    let room = Guest::knock_many(2, &ours.addr()).await;
    ours.uses("waiting_room", 2).await;
    lobby.remove(0).leave().await;
    // Whoever has waited outside comes in to wait.
    ours.uses("waiting_room", 1).await;
    // All but one give up; the slot goes to the one who did not, and at once.
    let steadfast = lobby.remove(2);
    Guest::leave_all(lobby.into_iter().chain(room)).await;
    member.leave().await;
    ours.serves_within(Duration::from_secs(5), std::slice::from_ref(&steadfast), 1).await;
    steadfast.leave().await;
    ours.returns_to(&before).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_in_vain_is_told_when_to_come_again() {
    let mut world = World::new().await;
    // Long enough for a handshake on a busy machine.
    let limits = Limits { waiting_timeout: Duration::from_secs(3), speculative_max: 2, ..patient_limits() };
    let ours = listen(&mut world, limits, &[("127.0.0.1:0", 1)]).await;
    let member = Guest::knock(&ours.addr()).await;
    ours.serves(std::slice::from_ref(&member), 1).await;
    let before = ours.footprint().await;
    let (shaken, unshaken) = (Guest::knock(&ours.addr()).await, Guest::knock(&ours.addr()).await);
    assert_eq!(shaken.told().await, (0x11, "full-listener retry_after_ms=10000".into()));
    unshaken.refused().await;
    ours.counts(Reason::WaitedInVain, 2).await;
    ours.returns_to(&before).await;
    Guest::leave_all([member, shaken, unshaken]).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_listeners_keep_their_own_caps() {
    let mut world = World::new().await;
    let ours = listen(&mut world, patient_limits(), &[("127.0.0.1:0", 1), ("127.0.0.2:0", 2)]).await;
    let [one, two] = ["127.0.0.1", "127.0.0.2"].map(|ip| at(&ours, ip));
    let at_one = Guest::knock_many(2, &one).await;
    ours.serves(&at_one, 1).await;
    ours.uses("lobby", 1).await;
    let at_two = Guest::knock_many(3, &two).await;
    ours.serves(&at_two, 2).await;
    ours.uses("lobby", 2).await;
    let uses = [ours.listener(0).await, ours.listener(1).await].map(|listener| (listener.in_use, listener.high_water));
    assert_eq!(uses, [(1, 1), (2, 2)]);
    Guest::leave_all(at_two).await;
    ours.uses("lobby", 1).await;
    assert_eq!(ours.served_of(&at_one).await, 1, "room at the one is no room at the other");
    Guest::leave_all(at_one).await;
    world.finish().await;
}

async fn listener_for(cap: usize) -> (World, Ours) {
    let mut world = World::new().await;
    let ours = listen(&mut world, patient_limits(), &[("127.0.0.1:0", cap)]).await;
    (world, ours)
}

async fn listen(world: &mut World, limits: Limits, listeners: &[(&str, usize)]) -> Ours {
    let builder = listeners.iter().fold(Mesh::builder().limits(limits), |builder, (addr, cap)| {
        builder.listen(Listen { addr: addr.parse().expect("an address"), connections_max: Some(*cap) })
    });
    world.ours_from(builder).await
}

/// The node at this one of its addresses only.
fn at(ours: &Ours, ip: &str) -> EndpointAddr {
    let addrs = ours.mesh().listen_addrs();
    let addr = addrs.iter().find(|addr| addr.ip().to_string() == ip).expect("the node listens there");
    EndpointAddr::new(ours.id()).with_ip_addr(*addr)
}

/// Waits until everything that could still be under way has had its turn: messages in both directions of an actor and
/// several turns of the clock.
async fn turns(ours: &Ours, topic: &Topic) {
    let start = ours.census().await.uptime;
    eventually(PATIENCE, "five ticks have passed", async || {
        let census = ours.census().await;
        must(census.uptime > start + fast_limits().tick * 5, || {
            format!("{} neighbors, {}", topic.neighbors().len(), summary(&census.counts))
        })
    })
    .await;
}
