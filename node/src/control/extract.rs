//! What a request carries, read strictly: a field that is not known is refused with those that are. `[pure]`

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::refusal::Refusal;
use crate::lines::VERSION;

/// A JSON body. None at all counts as `{}`, so that what has only optional fields can be asked for without.
#[derive(Debug)]
pub(super) struct Posted<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Posted<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = Bytes::from_request(request, state).await;
        read(&body.map_err(|error| Refusal::usage(format!("the body cannot be read: {error}")))?).map(Self)
    }
}

/// A version of the future is refused: half understood is worse than not at all.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    let mut value: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::usage(format!("the body is not JSON: {error}")))?;
    let fields = value.as_object_mut().ok_or_else(|| Refusal::usage("the body is not a JSON object"))?;
    if let Some(version) = fields.remove("v")
        && version != VERSION
    {
        return Err(Refusal::usage(format!("request of version {version}; this node speaks version {VERSION}")));
    }
    serde_json::from_value(value).map_err(|error| Refusal::usage(format!("not a request: {error}")))
}

/// What comes after the `?`.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Refusal> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => {
                let cause = std::error::Error::source(&error).map_or_else(|| error.body_text(), ToString::to_string);
                Err(Refusal::usage(format!("not a question: {cause}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{http::StatusCode, response::IntoResponse};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        #[serde(default)]
        cups: u8,
    }

    #[test]
    fn a_body_may_be_missing_and_may_name_its_version() {
        for (body, cups) in [("", 0), ("{}", 0), (r#"{"v":1,"cups":2}"#, 2), (r#"{"cups":2}"#, 2)] {
            assert_eq!(read::<Order>(body.as_bytes()).unwrap(), Order { cups }, "{body}");
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_with_what_would_be_one() {
        check("coffee", "the body is not JSON: expected value at line 1 column 1").await;
        check("[]", "the body is not a JSON object").await;
        check(r#"{"v":9}"#, "request of version 9; this node speaks version 1").await;
        check(r#"{"cup":2}"#, "not a request: unknown field `cup`, expected `cups`").await;
        check(r#"{"cups":999}"#, "not a request: invalid value: integer `999`, expected u8").await;
    }

    async fn check(body: &str, sentence: &str) {
        let response = read::<Order>(body.as_bytes()).unwrap_err().into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let answer = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["error"]["message"], sentence);
    }
}
