//! Why a request was not done, as HTTP tells it: a status, and `{"v":1,"error":{"exit":N,"message":"..."}}`. `[pure]`

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    control::protocol::{ErrorAnswer, ErrorView},
    exit::{Exit, Failure},
    lines::VERSION,
};

/// Seconds after which a node that had no room may be asked again. Queues drain in milliseconds; a second is polite.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// A failure with the status it has in HTTP.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    failure: Failure,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, exit: Exit, sentence: impl Into<String>) -> Self {
        Self { status, failure: Failure::new(exit, sentence) }
    }

    /// The request makes no sense.
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Exit::Usage, sentence)
    }

    /// What the request names is not there.
    pub(crate) fn not_found(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Exit::Failed, sentence)
    }

    /// The same request may succeed later.
    pub(crate) fn unavailable(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Exit::Unavailable, sentence)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = match failure.exit {
            Exit::Usage => StatusCode::BAD_REQUEST,
            // What was asked for contradicts what is: a topic that is not joined, a node on no list.
            Exit::Failed => StatusCode::CONFLICT,
            Exit::Config => StatusCode::UNPROCESSABLE_ENTITY,
            Exit::Permission => StatusCode::FORBIDDEN,
            Exit::Unavailable | Exit::NoNode => StatusCode::SERVICE_UNAVAILABLE,
            Exit::Ok | Exit::Io | Exit::Interrupted | Exit::Terminated => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, failure }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, failure } = self;
        let error = ErrorView { exit: failure.exit as u8, message: failure.sentence };
        let mut response = (status, Json(ErrorAnswer { v: VERSION, error })).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S);
        }
        response
    }
}
