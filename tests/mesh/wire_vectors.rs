//! The bytes on the wire: what a stock node says, frame by frame, against vectors written by hand from its source; and
//! what our node says in the same conversation, against the same vectors.

use iroh::EndpointAddr;
use iroh_gossip::proto::TopicId;
use perennial_tests::{
    PATIENCE, Raw, Topic, World, frames,
    raw::{RawConnection, RawOptions, RawStream, write},
    topic_id,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_node_says_what_the_vectors_say() {
    let topic_id = topic_id("stock vectors");
    let mut world = World::new().await;
    let peer = world.raw(RawOptions::default()).await;
    let node = world.stock().await;
    let topic = node.join(topic_id, &[peer.addr()]).await;
    converse(topic_id, &peer, node.addr(), topic).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_ours_says_what_the_vectors_say() {
    let topic_id = topic_id("our vectors");
    let mut world = World::new().await;
    let peer = world.raw(RawOptions::default()).await;
    let node = world.ours().await;
    let topic = node.join(topic_id, &[peer.addr()]).await;
    converse(topic_id, &peer, node.addr(), topic).await;
    world.finish().await;
}

/// Plays the other side of a whole membership: join, message, duplicate, announcement, leave.
async fn converse(topic_id: TopicId, peer: &Raw, node: EndpointAddr, topic: Topic) {
    let connection = peer.accept().await;
    let mut stream = connection.accept_stream().await;
    assert_eq!(stream.topic, topic_id, "the header is the topic");
    let join = stream.next().await.expect("the first message");
    expect_join(&join, &node);

    let mut to_node = connection.open(topic_id, &[frames::neighbor(frames::HIGH)]).await;
    topic.sees(peer.id()).await;
    topic.publish("hi").await;
    assert_eq!(next_gossip(&mut stream).await, frames::gossip(b"hi", 0));

    write(&mut to_node, &frames::frame(&frames::gossip(b"out of the raw", 3))).await;
    topic.hears("out of the raw").await;
    write(&mut to_node, &frames::frame(&frames::gossip(b"out of the raw", 3))).await;
    assert_eq!(next_gossip(&mut stream).await, frames::prune(), "a duplicate is answered with Prune");

    let announced = *blake3::hash(b"never delivered").as_bytes();
    write(&mut to_node, &frames::frame(&frames::i_have(&[announced], 1))).await;
    assert_eq!(next_gossip(&mut stream).await, frames::graft(announced, 1), "an announcement is answered with Graft");

    write(&mut to_node, &frames::frame(&frames::prune())).await;
    publish_until_announced(&topic, &mut stream).await;
    expect_leave(&connection, stream, topic).await;
}

fn expect_join(body: &[u8], node: &EndpointAddr) {
    let std::net::SocketAddr::V4(socket) = node.ip_addrs().next().expect("the node has an address") else {
        panic!("the node listens on IPv4");
    };
    let data = frames::addr_info(&[(socket.ip().octets(), socket.port())]);
    let with_address = frames::join_with(Some(&data));
    // Empty address data is what a node says before it has looked at its own sockets; none at all is legal as well.
    let legal =
        [with_address, frames::join_with(Some(&frames::addr_info(&[]))), frames::join_with(Some(&[])), frames::join()];
    assert!(legal.iter().any(|vector| vector == body), "an unknown Join: {body:02x?}");
}

/// The next message of the broadcast half; membership messages in between are skipped.
async fn next_gossip(stream: &mut RawStream) -> Vec<u8> {
    let next = stream.next_where(|body| body[0] == 1);
    tokio::time::timeout(PATIENCE, next).await.expect("the node has something to say")
}

/// Pruned, the node announces instead of sending. Until it has read the Prune, messages still come whole.
async fn publish_until_announced(topic: &Topic, stream: &mut RawStream) {
    for number in 0..20 {
        let text = format!("announced {number}");
        topic.publish(text.clone()).await;
        let body = next_gossip(stream).await;
        if body != frames::gossip(text.as_bytes(), 0) {
            return assert_eq!(body, frames::i_have(&[*blake3::hash(text.as_bytes()).as_bytes()], 0));
        }
    }
    panic!("a pruned node goes on sending whole messages");
}

/// Leaving says ShuffleReply, then Disconnect, then finishes the stream.
async fn expect_leave(connection: &RawConnection, mut stream: RawStream, topic: Topic) {
    topic.leave().await;
    let goodbye = stream.next_where(|body| body.starts_with(&[0, 5])).await;
    assert_eq!(goodbye, frames::disconnect(false), "whoever leaves the topic is not alive in it");
    assert_eq!(stream.next().await, None, "the stream is finished after Disconnect");
    connection.close();
}
