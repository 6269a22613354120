//! Two real nodes in one process, end to end. The larger stories are in the `tests` crate.

use super::*;
use crate::handle::Event;
use crate::limits::Limits;

const TOPIC: TopicId = TopicId::from_bytes([1; 32]);
const DEADLINE: Duration = Duration::from_secs(30);

async fn next_message(handle: &mut TopicHandle) -> bytes::Bytes {
    let received = async {
        loop {
            match handle.next_event().await {
                Some(Event::Received(message)) => return message.content,
                Some(_) => {}
                None => panic!("the topic closed"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, received).await.expect("a message within the deadline")
}

#[tokio::test]
async fn two_nodes_exchange_messages_and_leave_nothing_behind() {
    let first = Mesh::builder().spawn().await.expect("first node");
    let second = Mesh::builder().spawn().await.expect("second node");
    let mut at_first = first.join(TOPIC, Vec::<EndpointAddr>::new()).await.expect("join");
    let mut at_second = second.join(TOPIC, [first.addr()]).await.expect("join");
    assert!(tokio::time::timeout(DEADLINE, at_second.joined()).await.expect("a neighbour"));
    assert!(tokio::time::timeout(DEADLINE, at_first.joined()).await.expect("a neighbour"));

    at_first.publish("from the first").await.expect("published");
    assert_eq!(next_message(&mut at_second).await, "from the first");
    at_second.publish("from the second").await.expect("published");
    assert_eq!(next_message(&mut at_first).await, "from the second");

    let census = first.census().await.expect("census");
    assert_eq!(census.neighbors(), 1);
    assert!(census.peers[0].connections.iter().all(|one| one.perennial));
    for mesh in [&first, &second] {
        let report = mesh.settle(DEADLINE).await.expect("ledger");
        assert_eq!(report.orphans(), 0, "{report}");
    }
    drop(at_second);
    for mesh in [first, second] {
        let report = mesh.drain(DEADLINE).await;
        assert!(report.clean, "{report:?}\n{}", mesh.ledger_counters().report(&Owned::none()));
        assert_eq!(mesh.ledger_counters().alive_total(), 0);
        assert_eq!(mesh.inner.parts.routes.sizes(), (0, 0));
        assert_eq!(mesh.inner.parts.door.occupancy().in_use, 0);
    }
}

#[tokio::test]
async fn contradicting_limits_and_taken_addresses_are_named() {
    let limits = Limits { connections_max: 0, ..Limits::default() };
    let error = Mesh::builder().limits(limits).spawn().await.expect_err("contradiction");
    assert_eq!(error.to_string(), "impossible limits: connections_max is 0; it must be at least 1");

    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let addr = taken.local_addr().expect("its address");
    let error = Mesh::builder().listen(addr).spawn().await.expect_err("taken");
    assert!(error.to_string().starts_with(&format!("cannot listen on {addr}: ")), "{error}");
}

#[tokio::test]
async fn a_full_node_proves_that_it_can_be_reached_and_nothing_is_left_of_the_proof() {
    let limits = Limits::default().with_connections(1);
    let listen = ["127.0.0.1:0", "127.0.0.2:0", "[::]:0"].map(|addr| addr.parse::<SocketAddr>().expect("an address"));
    let builder = listen.into_iter().fold(Mesh::builder().limits(limits), |builder, addr| builder.listen(addr));
    let full = builder.spawn().await.expect("a node");
    let _at_full = full.join(TOPIC, Vec::<EndpointAddr>::new()).await.expect("join");
    let friend = Mesh::builder().spawn().await.expect("a node");
    let at_friend = friend.join(TOPIC, [full.addr()]).await.expect("join");
    assert!(tokio::time::timeout(DEADLINE, at_friend.joined()).await.expect("a neighbour"));
    let before = full.census().await.expect("census");
    assert_eq!((before.connections, before.connection_cap), (1, 1), "it is full");

    for _ in 0..3 {
        let report = full.probe(DEADLINE).await.expect("it answers");
        assert_eq!(report.listeners, 3);
        assert!(report.slowest < Duration::from_secs(5), "{report:?}");
    }
    let (one, other) = (full.probe(DEADLINE), full.probe(DEADLINE));
    let (one, other) = n0_future::future::zip(one, other).await;
    assert!(one.is_ok() && other.is_ok(), "two at once wait for each other: {one:?} {other:?}");

    let after = full.census().await.expect("census");
    assert_eq!((after.connections, after.connections_high_water), (1, before.connections_high_water));
    assert_eq!((after.neighbors(), after.peers.len()), (1, 1), "nobody else was ever there");
    let counted = |census: &Census| census.counts.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(counted(&after), counted(&before), "nothing was refused or closed");
    let ledger = full.settle(DEADLINE).await.expect("ledger");
    assert_eq!((ledger.orphans(), ledger.kind(Kind::Handshake).owned), (0, 0), "{ledger}");
    for mesh in [&full, &friend] {
        assert!(mesh.drain(DEADLINE).await.clean);
    }
}

#[tokio::test]
async fn probes_come_from_the_same_socket_again_once_it_is_free() {
    let mesh = Mesh::builder().spawn().await.expect("a node");
    let ports = || async { mesh.inner.parts.probing.turn.lock().await.clone() };
    let deadline = Instant::now() + DEADLINE;
    assert!(mesh.probe(DEADLINE).await.is_ok());
    loop {
        let before = ports().await;
        sleep(Duration::from_millis(200)).await;
        assert!(mesh.probe(DEADLINE).await.is_ok());
        if ports().await == before {
            break;
        }
        assert!(Instant::now() < deadline, "each probe comes from somewhere else");
    }
    assert!(mesh.drain(DEADLINE).await.clean);
}

#[tokio::test]
async fn a_node_that_is_gone_cannot_be_reached() {
    let mesh = Mesh::builder().spawn().await.expect("a node");
    assert!(mesh.probe(DEADLINE).await.is_ok());
    assert!(mesh.drain(DEADLINE).await.clean);
    let begun = Instant::now();
    let error = mesh.probe(Duration::from_millis(500)).await.expect_err("nobody accepts any more");
    assert_eq!((error.stage, error.addr), (crate::probe::ProbeStage::Handshake, mesh.listen_addrs()[0]));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
