//! What an operator does to a running node's door: denies, allows, changes caps. It holds from that moment on, also for
//! whoever is in, waits, or is about to be dialed.

use std::time::Duration;

use perennial::{Limits, Reason};
use perennial_tests::{
    Guest, PATIENCE, World,
    door::{patient_limits, slots},
    eventually, frames,
    guest::connected,
    raw::RawOptions,
    topic_id,
    wait::must,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_remote_is_closed_on_kept_out_and_not_dialed_until_it_is_allowed() {
    let topic_id = topic_id("denied");
    let (mut world, raw) = (World::new().await, RawOptions::default());
    let ours = world.ours().await;
    let topic = ours.join(topic_id, &[]).await;
    let raw = world.raw(raw).await;
    let connection = raw.dial(ours.addr()).await;
    let _joins = connection.open(topic_id, &[frames::join()]).await;
    topic.sees(raw.id()).await;

    ours.mesh().deny(raw.id()).expect("the list has room");
    assert_eq!(connection.closed_with().await, (0x16, "denied".into()));
    topic.misses(raw.id()).await;
    assert_eq!(raw.dial(ours.addr()).await.closed_with().await, (0x16, "denied".into()), "it comes back in vain");
    ours.counts(Reason::Denied, 1).await;
    assert!(!ours.served().await.contains(&raw.id()));

    // The bootstrap peer of a topic that needs one is asked again and again; this one never is.
    let _again = ours.join(topic_id, &[raw.addr()]).await;
    ours.counts(Reason::DialTooEarly, 2).await;
    assert_eq!(ours.in_use("dials_max").await, 0);
    assert_eq!(ours.limit("dials_max").await.high_water, Some(0), "it was dialed");

    ours.mesh().allow(raw.id()).expect("the list has room");
    let connection = raw.accept().await;
    let _joins = connection.open(topic_id, &[frames::neighbor(frames::HIGH)]).await;
    topic.sees(raw.id()).await;
    ours.mesh().deny(raw.id()).expect("the list has room");
    assert_eq!(connection.closed_with().await, (0x17, "revoked".into()), "it was known");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lists_hold_for_those_who_wait() {
    let mut world = World::new().await;
    let ours = world.ours_with(None, slots(1)).await;
    let member = Guest::knock(&ours.addr()).await;
    ours.serves(std::slice::from_ref(&member), 1).await;
    let waiting = Guest::knock_many(3, &ours.addr()).await;
    connected(&waiting, 3).await;
    ours.uses("lobby", 3).await;
    ours.mesh().deny(waiting[0].id()).expect("the list has room");
    assert_eq!(waiting[0].told().await, (0x16, "denied".into()), "denied while it waits");
    // Known while it waits, it takes the place of the stranger who is in, and nobody is before it.
    ours.mesh().allow(waiting[2].id()).expect("the list has room");
    ours.serves(&waiting[2..], 1).await;
    assert_eq!(member.told().await, (0x14, "evicted retry_after_ms=30000".into()));
    assert_eq!((ours.served_of(&waiting).await, ours.in_use("lobby").await), (1, 1));
    Guest::leave_all(waiting.into_iter().chain([member])).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_cap_throws_nobody_out_and_lets_nobody_in() {
    let mut world = World::new().await;
    let limits = Limits { waiting_timeout: Duration::from_secs(1), ..slots(6) };
    let ours = world.ours_with(None, limits).await;
    let mut members = Guest::knock_many(6, &ours.addr()).await;
    ours.serves(&members, 6).await;
    let lower = [("connections_max", 3), ("inbound_max", 3)];
    ours.mesh().set_limits(lower, false).await.expect("the limits hold together");
    let late = Guest::knock(&ours.addr()).await;
    assert_eq!(late.told().await.0, 0x10, "full");
    assert_eq!(ours.served_of(&members).await, 6);
    // Above the new cap a departure frees nothing.
    let staying = members.split_off(2);
    Guest::leave_all(members).await;
    ours.uses("connections_max", 4).await;
    let later = Guest::knock(&ours.addr()).await;
    assert_eq!(later.told().await.0, 0x10, "still full");
    assert_eq!(ours.served_of(&staying).await, 4);
    Guest::leave_all(staying.into_iter().chain([late, later])).await;
    let last = Guest::knock(&ours.addr()).await;
    ours.serves(std::slice::from_ref(&last), 1).await;
    last.leave().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_cap_that_evicts_makes_strangers_leave_at_once_and_nobody_known() {
    let mut world = World::new().await;
    let ours = world.ours_with(None, slots(8)).await;
    let guests = Guest::knock_many(8, &ours.addr()).await;
    ours.serves(&guests, 8).await;
    // The two youngest, which would be the first to go.
    guests[6..].iter().for_each(|guest| ours.mesh().allow(guest.id()).expect("the list has room"));
    ours.mesh().set_limits([("connections_max", 3), ("inbound_max", 3)], true).await.expect("the limits hold together");
    ours.serves(&guests, 3).await;
    assert_eq!(ours.served_of(&guests[6..]).await, 2, "the known ones stay");
    ours.counts(Reason::Evicted, 5).await;
    let mut told = 0;
    for guest in guests.iter().filter(|guest| !guest.is_connected()) {
        assert_eq!(guest.told().await, (0x14, "evicted retry_after_ms=30000".into()));
        told += 1;
    }
    assert_eq!((told, ours.census().await.counts.get(Reason::Evicted)), (5, 5));
    Guest::leave_all(guests).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_higher_cap_serves_those_who_wait() {
    let mut world = World::new().await;
    let ours = world.ours_with(None, Limits { known_reserve: 0, ..patient_limits() }.with_connections(2)).await;
    ours.mesh().set_limits([("known_reserve", 0)], false).await.expect("the limits hold together");
    let guests = Guest::knock_many(5, &ours.addr()).await;
    ours.serves(&guests, 2).await;
    ours.uses("lobby", 3).await;
    ours.mesh().set_connection_cap(16).await.expect("the mesh is up");
    eventually(PATIENCE, "all are served", async || {
        let served = ours.served_of(&guests).await;
        must(served == 5, || format!("{served} are"))
    })
    .await;
    ours.uses("lobby", 0).await;
    Guest::leave_all(guests).await;
    world.finish().await;
}
