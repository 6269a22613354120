//! Strangers who come and go, stall or say nothing: whatever they do, they leave a node as they found it, and it never
//! holds more of them than it says.
//!
//! What each of them costs in heap is for a process of its own to tell; here every table and every counter of what is in
//! use comes back.

use std::time::Duration;

use perennial::{Limits, Reason};
use perennial_tests::{
    Guest, Ours, PATIENCE, World,
    door::slots,
    eventually,
    guest::{Word, come_and_go},
    ours::{fast_limits, summary},
    raw::RawOptions,
    wait::must,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::net::UdpSocket;

/// Strangers of one round. The soak's flood sends thousands.
const ROUND: usize = 150;

/// Connections that ended, remembered: fewer than come in one round.
const HISTORY_MAX: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_says_nothing_after_the_handshake_is_told_so() {
    let mut world = World::new().await;
    let ours = world.ours().await;
    let before = ours.footprint().await;
    let silent = Guest::knock_as(&ours.addr(), RawOptions::default(), Word::Silent).await;
    assert_eq!(silent.told().await, (0x19, "hello-timeout".into()));
    ours.counts(Reason::ClosedHelloTimeout, 1).await;
    ours.returns_to(&before).await;
    silent.leave().await;
    world.finish().await;
}

/// The client's first flight, half of it, all of it but the last word, and a handshake that is finished for one side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_stalls_at_any_step_leaves_nothing() {
    let mut world = World::new().await;
    let second = Duration::from_secs(1);
    let ours =
        world.ours_with(None, Limits { handshake_timeout: second, first_frame_timeout: second, ..fast_limits() });
    let ours = ours.await;
    let before = ours.footprint().await;
    for passed in 1..=5 {
        let stalled_before = stalled(&ours).await;
        let raw = world.raw(RawOptions::default()).await;
        let half_open = raw.stalled(ours.addr(), passed).await;
        eventually(PATIENCE, &format!("a peer stalled after {passed} datagrams is given up"), async || {
            let counts = ours.census().await.counts;
            must(stalled(&ours).await > stalled_before, || summary(&counts))
        })
        .await;
        ours.returns_to(&before).await;
        drop(half_open);
    }
    let counts = ours.census().await.counts;
    let seen = [Reason::HandshakeTimeout, Reason::ClosedHelloTimeout].map(|reason| counts.get(reason));
    assert!(seen.iter().all(|count| *count > 0), "stalled both in the handshake and after it: {}", summary(&counts));
    world.finish().await;
}

/// A node that asks everybody to prove his address keeps nothing of those who do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_asked_to_prove_his_address_and_does_not_leaves_nothing() {
    let mut world = World::new().await;
    let ours = world.ours_with(None, Limits { retry_above: 0, ..fast_limits() }).await;
    let before = ours.footprint().await;
    let raw = world.raw(RawOptions::default()).await;
    let unproved = raw.half_open(ours.addr()).await;
    ours.counts(Reason::AskedToRetry, 1).await;
    ours.returns_to(&before).await;
    assert_eq!(ours.limit("handshakes_max").await.high_water, Some(0), "not even a handshake");
    drop(unproved);
    let proved = Guest::knock(&ours.addr()).await;
    ours.serves(std::slice::from_ref(&proved), 1).await;
    proved.leave().await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_of_noise_leave_nothing() {
    const SEED: u64 = 3;
    println!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut world = World::new().await;
    let ours = world.ours().await;
    let before = ours.footprint().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port on loopback");
    for number in 0..300_usize {
        let mut datagram = vec![0; 1200];
        rng.fill_bytes(&mut datagram);
        match number % 3 {
            0 => {}
            // The first bytes of an Initial of QUIC version 1, with an id of eight bytes.
            1 => datagram[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]),
            _ => datagram.truncate(number % 40),
        }
        socket.send_to(&datagram, ours.mesh().listen_addrs()[0]).await.expect("loopback takes a datagram");
    }
    let guest = Guest::knock(&ours.addr()).await;
    ours.serves(std::slice::from_ref(&guest), 1).await;
    guest.leave().await;
    ours.returns_to(&before).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_rounds_of_strangers_leave_every_table_as_it_was() {
    let mut world = World::new().await;
    let ours = world.ours_with(None, Limits { history_max: HISTORY_MAX, ..unhurried(fast_limits()) }).await;
    let before = ours.footprint().await;
    for round in 1..=3 {
        assert_eq!(come_and_go(ROUND, 8, &ours.addr()).await, ROUND, "an open door refuses nobody");
        ours.returns_to(&before).await;
        eventually(PATIENCE, "all of them are accounted for", async || {
            let (closed, total) = ours.mesh().closed_connections();
            let counts = ours.census().await.counts;
            let accounted = total + counts.get(Reason::HandshakeFailed);
            must(closed.len() <= HISTORY_MAX && accounted == (round * ROUND) as u64, || {
                format!("{} remembered, {total} in all; {}", closed.len(), summary(&counts))
            })
        })
        .await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_a_full_node_leave_every_table_as_it_was() {
    let mut world = World::new().await;
    let limits = Limits { history_max: HISTORY_MAX, waiting_timeout: Duration::from_secs(1), ..unhurried(slots(2)) };
    let ours = world.ours_with(None, limits).await;
    let members = Guest::knock_many(2, &ours.addr()).await;
    ours.serves(&members, 2).await;
    let before = ours.footprint().await;
    for _ in 0..2 {
        let finished = come_and_go(ROUND / 2, 4, &ours.addr()).await;
        assert!(finished > 0, "some find a place in the lobby");
        ours.returns_to(&before).await;
        assert_eq!(ours.served_of(&members).await, 2);
    }
    assert_eq!(ours.mesh().closed_connections().1, 0, "none of them ever was a connection");
    Guest::leave_all(members).await;
    world.finish().await;
}

/// Taken inside at every change, not when somebody looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_at_one_time_is_noted_however_short_it_was() {
    let (cap, speculative_max) = (8, 4);
    let mut world = World::new().await;
    let ours = world.ours_with(None, Limits { speculative_max, ..unhurried(slots(cap)) }).await;
    let before = ours.footprint().await;
    for _ in 0..2 {
        let crowd = Guest::knock_many(20, &ours.addr()).await;
        // Half of the speculative places are for addresses of known remotes.
        let inside = cap + speculative_max / 2;
        eventually(PATIENCE, "all who can be inside are", async || {
            let connected = crowd.iter().filter(|guest| guest.is_connected()).count();
            must(connected >= inside, || format!("{connected} of {inside}"))
        })
        .await;
        Guest::leave_all(crowd).await;
        ours.returns_to(&before).await;
        // Long after they have gone.
        let high_water = ours.census().await.connections_high_water;
        assert!((inside..=cap + speculative_max).contains(&high_water), "{high_water} at one time");
        assert_eq!(ours.limit("connections_max").await.high_water, Some(cap as u64));
        assert_eq!(ours.limit("speculative_max").await.high_water, Some(speculative_max as u64 / 2));
        assert_eq!(ours.listener(0).await.high_water, cap as u64);
    }
    world.finish().await;
}

/// Many at once from one machine are a flood by default; rates are not what these scenarios are about.
fn unhurried(limits: Limits) -> Limits {
    Limits { admissions_per_second: 10_000, admissions_burst: 10_000, flood_per_minute: 100_000, ..limits }
}

/// How many attempts came to nothing for want of a word.
async fn stalled(ours: &Ours) -> u64 {
    let counts = ours.census().await.counts;
    let reasons = [Reason::HandshakeTimeout, Reason::HandshakeFailed, Reason::ClosedHelloTimeout];
    reasons.into_iter().map(|reason| counts.get(reason)).sum()
}
