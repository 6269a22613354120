//! The answers about topics.

use std::time::Duration;

use axum::{body::Bytes, http::StatusCode};
use perennial::{Census, PublishError, census::TopicCensus};
use tokio::time::timeout;

use super::{gone, join_failed, peer_name};
use crate::{
    control::{
        protocol::topics::{Published, TopicChanged, TopicView, Topics},
        refusal::Refusal,
    },
    exit::{Exit, Failure},
    lines::VERSION,
    memberships::{Joined, Subscription},
    names::{TopicName, topic_hex},
    node::Node,
};

pub(crate) async fn topics(node: &Node) -> Result<Topics, Failure> {
    let census = node.mesh.census().await.map_err(gone)?;
    Ok(Topics { v: VERSION, topics: views(node, &census).await })
}

pub(super) async fn views(node: &Node, census: &Census) -> Vec<TopicView> {
    let names = node.memberships.names().await;
    let view = |topic: &TopicCensus| TopicView {
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

/// A topic that has more to do than it can is not waited for longer; below the deadline of any answer.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(4);

pub(crate) async fn publish(node: &Node, topic: &str, content: Bytes) -> Result<Published, Refusal> {
    let topic = topic_name(topic)?;
    working(node)?;
    let bytes = content.len();
    let Some(publisher) = node.memberships.publisher(topic.id).await else { return Err(not_joined(&topic)) };
    match timeout(PUBLISH_TIMEOUT, publisher.publish(content)).await {
        Ok(Ok(receipt)) => Ok(Published {
            v: VERSION,
            topic: topic_hex(topic.id),
            name: topic.name,
            bytes,
            neighbors: receipt.neighbors,
            no_room: receipt.dropped,
            repeated: receipt.repeated,
        }),
        Ok(Err(error @ PublishError::TooLarge { .. })) => {
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Exit::Usage, error.to_string()))
        }
        Ok(Err(PublishError::Closed)) => match node.vigil.is_draining() {
            true => Err(draining()),
            false => Err(not_joined(&topic)),
        },
        Ok(Err(error)) => Err(Refusal::unavailable(error.to_string())),
        Err(_) => Err(Refusal::unavailable(format!(
            "{topic} did not take the message within {} s; it may still go out",
            PUBLISH_TIMEOUT.as_secs()
        ))),
    }
}

/// Listens to a joined topic.
pub(crate) async fn subscribe(node: &Node, topic: &str) -> Result<Subscription, Refusal> {
    let topic = topic_name(topic)?;
    working(node)?;
    let subscription = node.memberships.subscribe(topic.id).await.map_err(|error| join_failed(&error))?;
    subscription.ok_or_else(|| not_joined(&topic))
}

/// A node that drains begins nothing.
fn working(node: &Node) -> Result<(), Refusal> {
    match node.vigil.is_draining() {
        true => Err(draining()),
        false => Ok(()),
    }
}

fn draining() -> Refusal {
    Refusal::unavailable("the node is draining")
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
