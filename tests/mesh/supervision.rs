//! Every kind of loop, ended in every way a loop can end: panic, error, kill, freeze. The node comes back by itself each
//! time, the application's topic keeps working, and the ledger shows that nothing was left behind.

use std::time::Duration;

use iroh::{EndpointAddr, SecretKey};
use perennial::{
    Limits, Loop,
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
        survives(Fault::new(Loop::Connection, how), async |_, _| {}).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_loop_that_ends_in_any_way_is_respawned_and_the_application_hears_of_it() {
    for how in HOWS {
        let restarts = survives(Fault::new(Loop::Topic, how), async |_, _| {}).await;
        assert!(restarts > 0, "after {how:?} the application heard nothing of a restart");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accept_loop_that_ends_in_any_way_is_respawned() {
    for how in HOWS {
        survives(Fault::new(Loop::Acceptor, how), knock).await;
    }
}

/// A dial or a handshake that ends costs one attempt; the next one gets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_ends_in_any_way_costs_one_attempt() {
    for how in HOWS {
        survives(Fault::new(Loop::Handshake, how), knock).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dial_that_ends_in_any_way_costs_one_attempt() {
    for how in HOWS {
        survives(Fault::new(Loop::Dial, how), async |ours: &Ours, world: &mut World| {
            let (stock, topic_id) = (world.stock().await, topic_id("dial"));
            let at_stock = stock.join(topic_id, &[]).await;
            let at_ours = ours.join(topic_id, &[stock.addr()]).await;
            at_ours.sees(stock.id()).await;
            spread(&at_stock, &[&at_ours], "dialed", PATIENCE).await;
        })
        .await;
    }
}

/// The supervisor of a remote takes its connections with it, the one of all remotes takes everybody's; who is still wanted
/// is dialed again. The clock only ticks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_of_remotes_or_a_clock_that_ends_is_replaced() {
    for how in [How::Panic, How::Error] {
        for at in [Loop::Peer, Loop::Peers, Loop::Clock] {
            survives(Fault::new(at, how), async |_, _| {}).await;
        }
    }
}

/// Topics end with their supervisor. The application hears it and joins again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_supervisor_of_topics_ended_the_application_joins_again() {
    for how in [How::Panic, How::Error] {
        let mut world = World::new().await;
        let ours = world.ours_with(None, fast_limits()).await;
        let friend = world.stock().await;
        let topic_id = topic_id(&format!("topics {how:?}"));
        let at_friend = friend.join(topic_id, &[]).await;
        let at_ours = ours.join(topic_id, &[friend.addr()]).await;
        talk(&at_ours, &at_friend, "before").await;
        assert!(
            ours.mesh().inject_now(Fault::new(Loop::Topics, how), PATIENCE).await,
            "the supervisor of topics turns"
        );
        eventually(PATIENCE, "the crash is counted", async || {
            let crashes = ours.census().await.crashes;
            must(crashes.contains(&(Loop::Topics, 1)), || format!("{crashes:?}"))
        })
        .await;
        drop(at_ours);
        let at_ours = ours.join(topic_id, &[friend.addr()]).await;
        recovers(&ours, &at_ours, &friend, &at_friend).await;
        world.finish().await;
    }
}

/// A fault with a remote's name strikes the loop that deals with that remote, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_finds_the_loop_of_its_remote_or_none() {
    let mut world = World::new().await;
    let ours = world.ours_with(None, fast_limits()).await;
    let (one, other) = (world.stock().await, world.stock().await);
    let topic_id = topic_id("by name");
    let at_one = one.join(topic_id, &[]).await;
    let at_other = other.join(topic_id, &[one.addr()]).await;
    let at_ours = ours.join(topic_id, &[one.addr(), other.addr()]).await;
    at_ours.sees(one.id()).await;
    at_ours.sees(other.id()).await;
    let number_of = async |peer| {
        let census = ours.census().await;
        let peer = census.peers.into_iter().find(|found| found.id == peer);
        peer.and_then(|peer| peer.connections.first().map(|connection| connection.number))
    };
    let before = number_of(other.id()).await;
    let nobody = Fault { peer: Some(SecretKey::generate().public()), ..Fault::new(Loop::Connection, How::Error) };
    assert!(!ours.mesh().inject_now(nobody, Duration::from_millis(300)).await, "nobody has this id");
    let named = Fault { peer: Some(one.id()), ..nobody };
    assert!(ours.mesh().inject_now(named, PATIENCE).await);
    eventually(PATIENCE, "the crash is counted", async || {
        let crashes = ours.census().await.crashes;
        must(crashes == [(Loop::Connection, 1)], || format!("{crashes:?}"))
    })
    .await;
    assert_eq!(number_of(other.id()).await, before, "the other's connection is untouched");
    recovers(&ours, &at_ours, &one, &at_one).await;
    drop(at_other);
    world.finish().await;
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

    let before = ours.census().await.ledger.kind(fault.at.kind());
    let bait = Bait::for_loop(fault.at, &ours, &mut world).await;
    // A kill needs a living loop and says whether there was one; the other three strike the next turn of a loop.
    eventually(PATIENCE, "the fault finds a loop", async || {
        must(ours.mesh().inject(fault), || "no living loop of its kind".into())
    })
    .await;
    then(&ours, &mut world).await;
    eventually(PATIENCE, "the fault has ended a loop", async || {
        let line = ours.census().await.ledger.kind(fault.at.kind());
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
    async fn for_loop(at: Loop, ours: &Ours, world: &mut World) -> Self {
        match at {
            Loop::Handshake => {
                let raw = world.raw(RawOptions::default()).await;
                Self { _half_open: Some(raw.half_open(ours.addr()).await), ..Self::default() }
            }
            Loop::Dial => {
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
