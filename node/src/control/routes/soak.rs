//! The routes only a build for soaks has: give free memory back, break one loop.

use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, Shared};
use crate::{
    control::{
        answers::soak as answers,
        extract::Posted,
        protocol::{
            ErrorAnswer,
            soak::{FaultPlan, Struck, Trimmed},
        },
    },
    node::Node,
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(trim)).routes(routes!(fault))
}

/// Give free memory back.
#[utoipa::path(
    post,
    path = "/v1/trim",
    tag = "soak",
    responses((status = 200, body = Trimmed), (status = 409, body = ErrorAnswer))
)]
async fn trim() -> Answer<Trimmed> {
    Ok(Json(answers::trim()?))
}

/// Break one loop.
#[utoipa::path(
    post,
    path = "/v1/fault",
    tag = "soak",
    request_body = FaultPlan,
    responses((status = 200, body = Struck), (status = 400, body = ErrorAnswer), (status = 503, body = ErrorAnswer))
)]
async fn fault(State(node): State<Node>, Posted(plan): Posted<FaultPlan>) -> Answer<Struck> {
    Ok(Json(answers::fault(&node, &plan).await?))
}
