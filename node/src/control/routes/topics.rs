//! The routes about topics: joined ones, joining, leaving.

use axum::{
    Json,
    extract::{Path, State},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, Shared};
use crate::{
    control::{
        answers,
        extract::Posted,
        protocol::{
            ErrorAnswer,
            topics::{JoinOrder, TopicChanged, Topics},
        },
    },
    node::Node,
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(topics)).routes(routes!(join)).routes(routes!(leave))
}

/// The joined topics and their neighbors.
#[utoipa::path(get, path = "/v1/topics", tag = "topics", responses((status = 200, body = Topics)))]
async fn topics(State(node): State<Node>) -> Answer<Topics> {
    Ok(Json(answers::topics::topics(&node).await?))
}

/// Join a topic, and meet nodes there. It stays joined until it is left.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/join",
    tag = "topics",
    params(("topic" = String, Path, description = "a name, or 64 hex digits")),
    request_body = JoinOrder,
    responses((status = 200, body = TopicChanged), (status = 400, body = ErrorAnswer), (status = 503, body = ErrorAnswer))
)]
async fn join(
    State(node): State<Node>,
    Path(topic): Path<String>,
    Posted(order): Posted<JoinOrder>,
) -> Answer<TopicChanged> {
    Ok(Json(answers::topics::join(&node, &topic, &order.peers).await?))
}

/// Leave a topic. Whoever listens to it hears `closed`.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/leave",
    tag = "topics",
    params(("topic" = String, Path, description = "a name, or 64 hex digits")),
    responses((status = 200, body = TopicChanged), (status = 404, body = ErrorAnswer))
)]
async fn leave(State(node): State<Node>, Path(topic): Path<String>) -> Answer<TopicChanged> {
    Ok(Json(answers::topics::leave(&node, &topic).await?))
}
