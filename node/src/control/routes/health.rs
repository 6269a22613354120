//! The routes that tell machines whether all is well.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Refusal, Shared};
use crate::{
    control::protocol::health::{Health, Readiness},
    health,
    metrics::{self, Format},
    node::Node,
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// Whether the process still does what it is there for; if not, it should be restarted.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses((status = 200, body = Health), (status = 503, body = Health))
)]
async fn healthz(State(node): State<Node>) -> Response {
    let health = health::health(&node);
    (status(health.healthy), Json(health)).into_response()
}

/// Whether the node should be sent work, and if not, why not.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness))
)]
async fn readyz(State(node): State<Node>) -> Response {
    let readiness = health::readiness(&node).await;
    (status(readiness.ready), Json(readiness)).into_response()
}

/// Every figure of the node for Prometheus: as OpenMetrics if the client takes it, else in the older text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn metrics(State(node): State<Node>, headers: HeaderMap) -> Result<Response, Refusal> {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accepted);
    let page = metrics::render(&node, format).await?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], page).into_response())
}

fn status(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
