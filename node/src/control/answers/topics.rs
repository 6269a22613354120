//! The answers about topics.

use perennial::Census;

use super::{gone, join_failed, peer_name};
use crate::{
    control::{
        protocol::topics::{TopicChanged, TopicView, Topics},
        refusal::Refusal,
    },
    exit::Failure,
    lines::VERSION,
    memberships::Joined,
    names::{TopicName, topic_hex},
    node::Node,
};

pub(crate) async fn topics(node: &Node) -> Result<Topics, Failure> {
    let census = node.mesh.census().await.map_err(gone)?;
    Ok(Topics { v: VERSION, topics: views(node, &census).await })
}

pub(super) async fn views(node: &Node, census: &Census) -> Vec<TopicView> {
    let names = node.memberships.names().await;
    let view = |topic: &perennial::census::TopicCensus| TopicView {
        topic: topic_hex(topic.topic),
        name: names.get(&topic.topic).and_then(|topic| topic.name.clone()),
        neighbors: topic.neighbors.iter().map(ToString::to_string).collect(),
        contacts: topic.contacts,
        queued_frames: topic.queued_frames,
        restarts: topic.restarts,
    };
    census.topics.iter().map(view).collect()
}

pub(crate) async fn join(node: &Node, topic: &str, peers: &[String]) -> Result<TopicChanged, Refusal> {
    let topic = topic_name(topic)?;
    working(node)?;
    let peers = peers.iter().map(|peer| peer_name(peer)).collect::<Result<Vec<_>, _>>()?;
    let joined = node.memberships.join(topic.clone(), peers).await.map_err(|error| join_failed(&error))?;
    let outcome = match joined {
        Joined::Now => "joined",
        Joined::Already => "already-joined",
    };
    Ok(changed(&topic, outcome))
}

pub(crate) async fn leave(node: &Node, topic: &str) -> Result<TopicChanged, Refusal> {
    let topic = topic_name(topic)?;
    if node.memberships.leave(topic.id).await { Ok(changed(&topic, "left")) } else { Err(not_joined(&topic)) }
}

/// A node that drains begins nothing.
fn working(node: &Node) -> Result<(), Refusal> {
    match node.vigil.is_draining() {
        true => Err(Refusal::unavailable("the node is draining")),
        false => Ok(()),
    }
}

fn not_joined(topic: &TopicName) -> Refusal {
    Refusal::not_found(format!("{topic} is not joined; POST /v1/topics/{topic}/join joins it"))
}

fn topic_name(text: &str) -> Result<TopicName, Refusal> {
    text.parse().map_err(|sentence: String| Refusal::usage(sentence))
}

fn changed(topic: &TopicName, outcome: &str) -> TopicChanged {
    TopicChanged { v: VERSION, topic: topic_hex(topic.id), name: topic.name.clone(), outcome: outcome.into() }
}
