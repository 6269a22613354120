//! The routes about who gets in: limits, standings, connections.

use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, Shared};
use crate::{
    control::{
        answers::door as answers,
        extract::{Asked, Posted},
        protocol::{
            ErrorAnswer,
            door::{AnyConnections, ConnectionsQuery, LimitsView, SetLimits, StandingChanged, StandingOrder},
        },
    },
    node::Node,
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(connections))
        .routes(routes!(limits, set_limits))
        .routes(routes!(allow))
        .routes(routes!(deny))
        .routes(routes!(forget))
}

/// The connections that live, or with `closed=true` those that ended, and why.
#[utoipa::path(
    get,
    path = "/v1/connections",
    tag = "door",
    params(ConnectionsQuery),
    responses((status = 200, body = AnyConnections), (status = 400, body = ErrorAnswer))
)]
async fn connections(State(node): State<Node>, Asked(query): Asked<ConnectionsQuery>) -> Answer<AnyConnections> {
    Ok(Json(match query.closed {
        true => AnyConnections::Closed(answers::closed_connections(&node, &query)?),
        false => AnyConnections::Live(answers::connections(&node, &query).await?),
    }))
}

/// Every limit, its use, its high water, and what was refused.
#[utoipa::path(get, path = "/v1/limits", tag = "door", responses((status = 200, body = LimitsView)))]
async fn limits(State(node): State<Node>) -> Answer<LimitsView> {
    Ok(Json(answers::limits(&node).await?))
}

/// Change limits while the node runs: all of those named, or none. Answers with the page as it is afterwards.
#[utoipa::path(
    post,
    path = "/v1/limits",
    tag = "door",
    request_body = SetLimits,
    responses((status = 200, body = LimitsView), (status = 422, body = ErrorAnswer))
)]
async fn set_limits(State(node): State<Node>, Posted(order): Posted<SetLimits>) -> Answer<LimitsView> {
    Ok(Json(answers::set_limits(&node, order.changes, order.evict).await?))
}

/// Know a node from here on.
#[utoipa::path(
    post,
    path = "/v1/allow",
    tag = "door",
    request_body = StandingOrder,
    responses((status = 200, body = StandingChanged), (status = 422, body = ErrorAnswer))
)]
async fn allow(State(node): State<Node>, Posted(order): Posted<StandingOrder>) -> Answer<StandingChanged> {
    Ok(Json(answers::allow(&node, &order.peer)?))
}

/// Deal with a node no longer.
#[utoipa::path(
    post,
    path = "/v1/deny",
    tag = "door",
    request_body = StandingOrder,
    responses((status = 200, body = StandingChanged), (status = 422, body = ErrorAnswer))
)]
async fn deny(State(node): State<Node>, Posted(order): Posted<StandingOrder>) -> Answer<StandingChanged> {
    Ok(Json(answers::deny(&node, &order.peer)?))
}

/// Take a node off both lists.
#[utoipa::path(
    post,
    path = "/v1/forget",
    tag = "door",
    request_body = StandingOrder,
    responses((status = 200, body = StandingChanged), (status = 409, body = ErrorAnswer))
)]
async fn forget(State(node): State<Node>, Posted(order): Posted<StandingOrder>) -> Answer<StandingChanged> {
    Ok(Json(answers::forget(&node, &order.peer)?))
}
