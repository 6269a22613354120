//! The routes about topics: joined ones, joining, leaving, publishing, listening.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::de::IgnoredAny;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Answer, Shared};
use crate::{
    control::{
        answers, events,
        extract::Posted,
        protocol::{
            ErrorAnswer,
            topics::{JoinOrder, Published, TopicChanged, Topics},
        },
        refusal::Refusal,
    },
    exit::Exit,
    node::Node,
};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(topics))
        .routes(routes!(join))
        .routes(routes!(leave))
        .routes(routes!(publish))
        .routes(routes!(listen))
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

/// Publish one message. The answer is its receipt.
#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/messages",
    tag = "topics",
    params(("topic" = String, Path, description = "a name, or 64 hex digits")),
    request_body(
        description = "The content: text, a JSON text as it is, or bytes",
        content((String = "text/plain"), (Object = "application/json"), (Vec<u8> = "application/octet-stream"))
    ),
    responses(
        (status = 200, body = Published),
        (status = 400, body = ErrorAnswer),
        (status = 404, body = ErrorAnswer),
        (status = 413, body = ErrorAnswer),
        (status = 415, body = ErrorAnswer),
        (status = 503, body = ErrorAnswer)
    )
)]
async fn publish(
    State(node): State<Node>,
    Path(topic): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Published> {
    Ok(Json(answers::topics::publish(&node, &topic, content(&headers, body)?).await?))
}

/// A body that is what it says it is.
fn content(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Refusal> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let kind = given.map(|given| given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match kind.as_deref() {
        Some("text/plain") => {
            let text = std::str::from_utf8(&body);
            text.map_err(|error| Refusal::usage(format!("the message is not UTF-8 text: {error}")))?;
        }
        Some("application/json") => {
            let json = serde_json::from_slice::<IgnoredAny>(&body);
            json.map_err(|error| Refusal::usage(format!("the message is not JSON: {error}")))?;
        }
        Some("application/octet-stream") | None => {}
        Some(other) => {
            let sentence = format!(
                "`{other}` is not published; send text/plain, application/json or application/octet-stream as the \
                 content-type"
            );
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Exit::Usage, sentence));
        }
    }
    Ok(body)
}

/// What happens on a topic from here on, as server-sent events: `message`, `neighbor_up`, `neighbor_down`, `lagged`,
/// `restarted`, and `closed` as the last one. Each carries the JSON object that standard output would.
#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/events",
    tag = "topics",
    params(("topic" = String, Path, description = "a name, or 64 hex digits")),
    responses(
        (status = 200, content_type = "text/event-stream", body = String),
        (status = 404, body = ErrorAnswer),
        (status = 503, body = ErrorAnswer)
    )
)]
async fn listen(State(node): State<Node>, Path(topic): Path<String>) -> Result<Response, Refusal> {
    let subscription = answers::topics::subscribe(&node, &topic).await?;
    Ok(events::stream(&node, subscription).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_its_type_says() {
        assert_eq!(check(Some("text/plain; charset=utf-8"), "h\u{e9}".as_bytes()), Ok(()));
        assert_eq!(check(Some("text/plain"), b"\xff"), Err(400));
        assert_eq!(check(Some("Application/JSON"), br#"{"any":["json", 1]}"#), Ok(()));
        assert_eq!(check(Some("application/json"), b"{"), Err(400));
        for kind in [Some("application/octet-stream"), None] {
            assert_eq!(check(kind, b"\xff\x00"), Ok(()), "{kind:?}");
        }
        assert_eq!(check(Some("application/x-www-form-urlencoded"), b"a=b"), Err(415));
    }

    fn check(kind: Option<&'static str>, body: &'static [u8]) -> Result<(), u16> {
        let value = kind.map(axum::http::HeaderValue::from_static);
        let headers = value.map(|value| (header::CONTENT_TYPE, value)).into_iter().collect();
        let content = content(&headers, Bytes::from_static(body));
        content.map(|content| assert_eq!(content, body)).map_err(|refusal| refusal.into_response().status().as_u16())
    }
}
