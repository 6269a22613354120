//! The routes about the node as a whole: what it does, what it is called, how it ends.

use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, Shared};
use crate::{
    control::{
        answers,
        protocol::{
            ErrorAnswer, LedgerView, Peers, Status, Stopping, TicketView,
            health::{Backends, Draining},
        },
    },
    lines::VERSION,
    node::{Ending, Node},
    reload::{self, ReloadReport},
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(peers))
        .routes(routes!(ledger))
        .routes(routes!(backends))
        .routes(routes!(ticket))
        .routes(routes!(reload))
        .routes(routes!(drain))
        .routes(routes!(stop))
}

/// Neighbors, connections, memory, tasks, what was refused and why.
#[utoipa::path(get, path = "/v1/status", tag = "node", responses((status = 200, body = Status)))]
async fn status(State(node): State<Node>) -> Answer<Status> {
    Ok(Json(answers::status(&node).await?))
}

/// Every remote, whether it is known, and its connections.
#[utoipa::path(get, path = "/v1/peers", tag = "node", responses((status = 200, body = Peers)))]
async fn peers(State(node): State<Node>) -> Answer<Peers> {
    Ok(Json(answers::peers(&node).await?))
}

/// Every task ever started against what should be alive.
#[utoipa::path(get, path = "/v1/ledger", tag = "node", responses((status = 200, body = LedgerView)))]
async fn ledger(State(node): State<Node>) -> Answer<LedgerView> {
    Ok(Json(answers::ledger(&node).await?))
}

/// What the node depends on beyond its peers.
#[utoipa::path(get, path = "/v1/backends", tag = "node", responses((status = 200, body = Backends)))]
async fn backends(State(node): State<Node>) -> Json<Backends> {
    Json(answers::backends(&node))
}

/// The node's id, and the word that others join with.
#[utoipa::path(get, path = "/v1/ticket", tag = "node", responses((status = 200, body = TicketView)))]
async fn ticket(State(node): State<Node>) -> Json<TicketView> {
    Json(answers::ticket(&node))
}

/// Reads the settings anew and takes over what a running node can; all of it or nothing.
#[utoipa::path(
    post,
    path = "/v1/reload",
    tag = "node",
    responses((status = 200, body = ReloadReport), (status = 422, body = ErrorAnswer))
)]
async fn reload(State(node): State<Node>) -> Answer<ReloadReport> {
    Ok(Json(reload::reload(&node).await?))
}

/// Drain and end, as the first SIGTERM does.
#[utoipa::path(post, path = "/v1/drain", tag = "node", responses((status = 200, body = Draining)))]
async fn drain(State(node): State<Node>) -> Json<Draining> {
    node.end(Ending::Asked);
    Json(Draining { v: VERSION, draining: true })
}

/// The same under its older name.
#[utoipa::path(post, path = "/v1/stop", tag = "node", responses((status = 200, body = Stopping)))]
async fn stop(State(node): State<Node>) -> Json<Stopping> {
    node.end(Ending::Asked);
    Json(Stopping { v: VERSION, stopping: true })
}
