//! The control socket of a node, asked directly: HTTP with JSON. Ours and the stock opponent answer alike, which
//! `perennial`'s own verbs cannot offer.
//!
//! A question is `{"request": NAME, …}`, wherever in the harness it comes from; which route that is, only this file knows.

use std::{path::Path, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};

/// An answer is there within this long. Guess; a loaded machine takes milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer read. The census of a node with a thousand peers is a few hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Asks once, on a connection of its own.
pub(crate) async fn ask(control: &Path, request: Value) -> Result<Value, String> {
    let mut line = Line::open(control).await.map_err(|error| format!("{}: {error}", request["request"]))?;
    line.ask(request, ANSWER_TIMEOUT).await
}

/// The page of figures, in the text format of Prometheus.
pub(crate) async fn figures(control: &Path) -> Result<String, String> {
    const PAGE: &str = "/metrics";
    let mut line = Line::open(control).await.map_err(|error| format!("{PAGE}: {error}"))?;
    let page = timeout(ANSWER_TIMEOUT, line.exchange("GET", PAGE.into(), String::new())).await;
    let (status, page) = page.map_err(|_| format!("{PAGE}: no answer within {ANSWER_TIMEOUT:?}"))??;
    match status.is_success() {
        true => String::from_utf8(page.into()).map_err(|error| format!("{PAGE}: {error}")),
        false => Err(format!("{PAGE}: {status}")),
    }
}

/// A connection that is kept from one question to the next.
#[derive(Debug)]
pub(crate) struct Line {
    requests: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Line {
    pub(crate) async fn open(control: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(control).await.map_err(|error| error.to_string())?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // How it ended, the request that it carried tells.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { requests, connection })
    }

    /// Asks, and waits for the answer at most `patience`.
    pub(crate) async fn ask(&mut self, request: Value, patience: Duration) -> Result<Value, String> {
        let name = request["request"].to_string();
        let (method, path, body) = route(request)?;
        let (status, answer) = match timeout(patience, self.exchange(method, path, body)).await {
            Ok(answered) => answered.map_err(|error| format!("{name}: {error}"))?,
            Err(_) => return Err(format!("{name}: no answer within {patience:?}")),
        };
        let answer: Value =
            serde_json::from_slice(&answer).map_err(|error| format!("{name}: no JSON came back: {error}"))?;
        match status.is_success() {
            true => Ok(answer),
            false => Err(format!("{name}: {}", answer["error"]["message"])),
        }
    }

    async fn exchange(
        &mut self,
        method: &'static str,
        path: String,
        body: String,
    ) -> Result<(StatusCode, Bytes), String> {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json").body(body.into());
        let request = request.map_err(|error| error.to_string())?;
        // One that ended while nobody asked says so here.
        self.requests.ready().await.map_err(|error| error.to_string())?;
        let response = self.requests.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    }
}

/// Where a question is asked, and with which body.
fn route(request: Value) -> Result<(&'static str, String, String), String> {
    let Value::Object(mut fields) = request else { return Err("a request is an object".into()) };
    let Some(Value::String(name)) = fields.remove("request") else { return Err("a request has a name".into()) };
    let nothing = || Map::new();
    let (method, path, body) = match name.as_str() {
        "status" | "peers" | "ledger" | "ticket" | "limits" | "connections" | "backends" => ("GET", name, nothing()),
        "closed_connections" => ("GET", "connections?closed=true".into(), nothing()),
        "join" | "leave" => {
            // The topics of the harness are plain words.
            let topic = fields.remove("topic").unwrap_or_default();
            ("POST", format!("topics/{}/{name}", topic.as_str().unwrap_or_default()), fields)
        }
        _ => ("POST", name, fields),
    };
    let body = if body.is_empty() { String::new() } else { Value::Object(body).to_string() };
    Ok((method, format!("/v1/{path}"), body))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_question_has_its_route() {
        let check = |request: Value, method: &str, path: &str, body: &str| {
            assert_eq!(route(request), Ok((if method == "GET" { "GET" } else { "POST" }, path.into(), body.into())));
        };
        check(json!({"request": "status"}), "GET", "/v1/status", "");
        check(json!({"request": "closed_connections"}), "GET", "/v1/connections?closed=true", "");
        let join = json!({"request": "join", "topic": "soak", "peers": ["x"]});
        check(join, "POST", "/v1/topics/soak/join", r#"{"peers":["x"]}"#);
        check(json!({"request": "leave", "topic": "soak"}), "POST", "/v1/topics/soak/leave", "");
        let fault = json!({"request": "fault", "loop": "peer", "kind": "hang"});
        check(fault, "POST", "/v1/fault", r#"{"kind":"hang","loop":"peer"}"#);
        assert!(route(json!({"loop": "peer"})).is_err());
    }
}
