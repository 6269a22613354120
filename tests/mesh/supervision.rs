//! Every kind of loop, ended in every way a loop can end: panic, error, kill, freeze. The node comes back by itself each
//! time, the application's topic keeps working, and the ledger shows that nothing was left behind.

use std::time::Duration;

use iroh::{EndpointAddr, SecretKey};
use perennial::{
    Kind, Limits,
    testing::{Fault, How},
};
use perennial_tests::{
    Ours, PATIENCE, Stock, Topic, World, eventually,
    ours::fast_limits,
    raw::{HalfOpen, RawOptions},
    topic::spread,
    topic_id,
    wait::must,
};
use tokio::net::UdpSocket;

const HOWS: [How; 4] = [How::Panic, How::Error, How::Kill, How::Freeze];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_loop_that_ends_in_any_way_is_replaced() {
    for how in HOWS {
        survives(Fault { kind: Kind::Connection, how }, async |_, _| {}).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_loop_that_ends_in_any_way_is_respawned_and_the_application_hears_of_it() {
    for how in HOWS {
        let restarts = survives(Fault { kind: Kind::Topic, how }, async |_, _| {}).await;
        assert!(restarts > 0, "after {how:?} the application heard nothing of a restart");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accept_loop_that_ends_in_any_way_is_respawned() {
    for how in HOWS {
        survives(Fault { kind: Kind::Acceptor, how }, knock).await;
    }
}

/// A dial or a handshake that ends costs one attempt; the next one gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_ends_in_any_way_costs_one_attempt() {
    for how in HOWS {
        survives(Fault { kind: Kind::Handshake, how }, knock).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_that_ends_in_any_way_costs_one_attempt() {
    for how in HOWS {
        survives(Fault { kind: Kind::Dial, how }, async |ours: &Ours, world: &mut World| {
            let (stock, topic_id) = (world.stock().await, topic_id("dial"));
            let at_stock = stock.join(topic_id, &[]).await;
            let at_ours = ours.join(topic_id, &[stock.addr()]).await;
            at_ours.sees(stock.id()).await;
            spread(&at_stock, &[&at_ours], "dialed", PATIENCE).await;
        })
        .await;
    }
}

/// Somebody new joins through our node, which makes it accept. A stock node never redials, so this one asks again.
async fn knock(ours: &Ours, world: &mut World) {
    let topic_id = topic_id("knock");
    let at_ours = ours.join(topic_id, &[]).await;
    let _at_guest = eventually(PATIENCE, "somebody new gets in", async || {
        let guest = world.stock().await;
        let at_guest = guest.join(topic_id, &[ours.addr()]).await;
        let is_in = perennial_tests::wait::within(Duration::from_secs(8), async || {
            must(at_guest.neighbors().contains(&ours.id()), || format!("{} knocks", at_guest.name()))
        });
        is_in.await.map(|()| at_guest)
    })
    .await;
    at_ours.joined().await;
}

/// A node with a stock friend takes the fault, does `then`, and is the same as before. Returns the restarts its
/// application was told of.
async fn survives(fault: Fault, then: impl AsyncFnOnce(&Ours, &mut World)) -> u64 {
    println!("{fault:?}");
    let topic_id = topic_id(&format!("{fault:?}"));
    let mut world = World::new().await;
    let limits = Limits {
        frozen_timeout: Duration::from_secs(3),
        inbox_wait: Duration::from_secs(1),
        dial_timeout: Duration::from_secs(3),
        handshake_timeout: Duration::from_secs(3),
        ..fast_limits()
    };
    let ours = world.ours_with(None, limits).await;
    let friend = world.stock().await;
    let at_friend = friend.join(topic_id, &[]).await;
    let at_ours = ours.join(topic_id, &[friend.addr()]).await;
    talk(&at_ours, &at_friend, "before").await;

    let before = ours.census().await.ledger.kind(fault.kind);
    let bait = Bait::for_kind(fault.kind, &ours, &mut world).await;
    // A kill needs a living loop and says whether there was one; the other three strike the next turn of a loop.
    eventually(PATIENCE, "the fault finds a loop", async || {
        must(ours.mesh().inject(fault), || "no living loop of its kind".into())
    })
    .await;
    then(&ours, &mut world).await;
    eventually(PATIENCE, "the fault has ended a loop", async || {
        let line = ours.census().await.ledger.kind(fault.kind);
        must(line.finished > before.finished, || format!("{line:?}"))
    })
    .await;
    drop(bait);
    recovers(&ours, &at_ours, &friend, &at_friend).await;
    let restarts = at_ours.log().restarts;
    world.finish().await;
    restarts
}

/// What keeps a loop of a short-lived kind alive long enough to be hit.
#[derive(Default)]
struct Bait {
    _half_open: Option<HalfOpen>,
    _silent: Option<(Topic, UdpSocket)>,
}

impl Bait {
    async fn for_kind(kind: Kind, ours: &Ours, world: &mut World) -> Self {
        match kind {
            Kind::Handshake => {
                let raw = world.raw(RawOptions::default()).await;
                Self { _half_open: Some(raw.half_open(ours.addr()).await), ..Self::default() }
            }
            Kind::Dial => {
                // A socket that never answers, under an id nobody has.
                let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a free port on loopback");
                let socket = silent.local_addr().expect("a bound socket has an address");
                let nobody = EndpointAddr::new(SecretKey::generate().public()).with_ip_addr(socket);
                let topic = ours.join(topic_id("nobody answers"), &[nobody]).await;
                Self { _silent: Some((topic, silent)), ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

async fn recovers(ours: &Ours, at_ours: &Topic, friend: &Stock, at_friend: &Topic) {
    at_ours.sees(friend.id()).await;
    talk(at_ours, at_friend, "after").await;
    ours.has_no_orphans().await;
}

async fn talk(at_ours: &Topic, at_friend: &Topic, when: &str) {
    spread(at_ours, &[at_friend], &format!("{when}, from ours"), PATIENCE).await;
    spread(at_friend, &[at_ours], &format!("{when}, from the friend"), PATIENCE).await;
}
