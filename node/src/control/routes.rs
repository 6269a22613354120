//! Every route of the API. The document at `/v1/openapi.json` is made of the same declarations, so the two cannot differ.
//!
//! What surrounds every route is here as well: who may ask, how long a body and how long an answer may take.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{FromRef, Request, State},
    http::{Method, StatusCode, Uri, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use perennial::limits::CONTENT_MAX;
use tokio::time::timeout;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{guard::Guard, refusal::Refusal};
use crate::{exit::Exit, node::Node};

mod door;
mod health;
mod node;
#[cfg(feature = "soak")]
mod soak;
mod topics;

/// The longest body. A join with hundreds of tickets fits.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A body is there within this long. From this machine it is there at once.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// A request is answered within this long. Asking the supervisors takes milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer, or why there is none.
type Answer<T> = Result<Json<T>, Refusal>;

/// What the routes share.
#[derive(Debug, Clone)]
struct Shared {
    node: Node,
    document: Arc<str>,
}

impl FromRef<Shared> for Node {
    fn from_ref(shared: &Shared) -> Self {
        shared.node.clone()
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "perennial",
    description = "One running node: what it does, whom it deals with, its topics. Fields are only ever added. Whatever \
                   is refused has the body of `ErrorAnswer`."
))]
struct Document;

/// The routes of `node`, behind `guard` where there is one.
pub(super) fn router(node: Node, guard: Option<Guard>) -> Router {
    let (router, document) = declared().split_for_parts();
    let document = document.to_json().expect("strings, numbers and maps of them always serialise").into();
    let router = router
        .fallback(no_route)
        .layer(from_fn(within_time))
        .layer(from_fn(with_whole_body))
        .with_state(Shared { node, document });
    // Around the whole router: which methods a path takes is added to a response by the router itself, after its layers.
    let router = Router::new().fallback_service(router).layer(from_fn(with_method));
    match guard {
        Some(guard) => router.layer(from_fn_with_state(Arc::new(guard), guarded)),
        None => router,
    }
}

fn declared() -> OpenApiRouter<Shared> {
    let router = OpenApiRouter::with_openapi(Document::openapi())
        .merge(node::routes())
        .merge(topics::routes())
        .merge(door::routes())
        .merge(health::routes())
        .routes(routes!(openapi));
    #[cfg(feature = "soak")]
    let router = router.merge(soak::routes());
    router
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "node", responses((status = 200, body = Object)))]
async fn openapi(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], Body::from(shared.document.to_string())).into_response()
}

async fn no_route(method: Method, uri: Uri) -> Refusal {
    Refusal::not_found(format!("no route is called {method} {}; GET /v1/openapi.json lists them", uri.path()))
}

async fn guarded(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Says which methods would be right.
async fn with_method(request: Request, next: Next) -> Response {
    let asked = format!("{} {}", request.method(), request.uri().path());
    let response = next.run(request).await;
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let Some(allow) = response.headers().get(header::ALLOW).cloned() else { return response };
    let methods = allow.to_str().unwrap_or_default().replace("GET,HEAD", "GET");
    let sentence = format!("no route is called {asked}; this path takes {methods}");
    let mut refused = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Exit::Usage, sentence).into_response();
    refused.headers_mut().insert(header::ALLOW, allow);
    refused
}

/// Reads the body before anything is done, so that nothing is begun for a request that never comes to its end.
async fn with_whole_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Ok(Err(error)) if is_too_long(&error) => {
            let sentence = format!(
                "the body exceeds {BODY_BYTES_MAX} bytes, the most of any request; a message may have {CONTENT_MAX}"
            );
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Exit::Usage, sentence).into_response()
        }
        Ok(Err(error)) => Refusal::usage(format!("the body cannot be read: {error}")).into_response(),
        Err(_) => {
            let sentence = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
            Refusal::new(StatusCode::REQUEST_TIMEOUT, Exit::Usage, sentence).into_response()
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

async fn within_time(request: Request, next: Next) -> Response {
    timeout(ANSWER_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
        let sentence = format!("the node did not answer within {} s", ANSWER_TIMEOUT.as_secs());
        Refusal::unavailable(sentence).into_response()
    })
}
