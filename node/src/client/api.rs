//! Asking a running node: one HTTP exchange per question, over its control socket or its TCP address, each with a deadline.

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::{Pin, pin},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt, Collected, Full, LengthLimitError, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
    http::request::Builder,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};

use super::stream::{Event, Pieces};
use crate::{
    cli::AskArgs,
    control::{
        events::HEARTBEAT,
        http,
        protocol::{ErrorAnswer, LedgerView},
        socket,
    },
    exit::{Exit, Failure},
    names::TopicName,
};

/// A node answers within five seconds or says that it cannot; the rest is for a machine under load, and for a place among
/// its clients.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A node that tells events says something at every heartbeat; one of three may be late.
const SILENCE_TIMEOUT: Duration = HEARTBEAT.saturating_mul(3);

/// The longest answer read. A census of a thousand peers is a few hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Pause between two looks at a ledger that has not settled.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

const JSON: &str = "application/json";

/// One node, as those see it who ask it. Nothing is connected between two questions.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    place: Place,
    token: Option<String>,
    answer_timeout: Duration,
}

#[derive(Debug, Clone)]
enum Place {
    Socket(PathBuf),
    Address(SocketAddr),
}

impl Api {
    /// The node that the arguments name, or the only one running.
    pub(crate) fn new(args: &AskArgs) -> Result<Self, Failure> {
        match (args.http, &args.control) {
            (Some(address), _) => {
                let token = args.http_token_file.as_deref().map(http::token).transpose()?;
                Ok(Self { place: Place::Address(address), token, answer_timeout: ANSWER_TIMEOUT })
            }
            (None, Some(path)) => Ok(Self::of_socket(path.clone())),
            (None, None) => socket::find().map(Self::of_socket),
        }
    }

    /// The node on the control socket `path`.
    pub(crate) fn of_socket(path: PathBuf) -> Self {
        Self { place: Place::Socket(path), token: None, answer_timeout: ANSWER_TIMEOUT }
    }

    /// The same node, with another deadline for each answer.
    pub(crate) fn within(self, answer_timeout: Duration) -> Self {
        Self { answer_timeout, ..self }
    }

    /// Asks. `path` begins with a slash, and is percent-encoded where it has to be.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Request::get(path), Bytes::new()).await
    }

    /// The same where a refusal has the same shape as an answer: `/healthz` and `/readyz`.
    pub(crate) async fn get_any<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let (status, answer) = self.answer(Request::get(path), Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(|_| refused(status, &answer))
    }

    /// Orders what the path says.
    pub(crate) async fn order<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Request::post(path), Bytes::new()).await
    }

    /// Orders, with a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).expect("strings, numbers and maps of them always serialise");
        self.post_bytes(path, JSON, body).await
    }

    /// Orders, with a body of any type.
    pub(crate) async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<T, Failure> {
        self.ask(Request::post(path).header(CONTENT_TYPE, content_type), body.into()).await
    }

    /// Listens to the events at `path`, for as long as the answer is kept.
    ///
    /// # Errors
    ///
    /// Of a node that refuses, is not there, or does not begin to answer in time.
    pub(crate) async fn stream(&self, path: &str) -> Result<Events, Failure> {
        let opened = timeout(self.answer_timeout, async {
            let (mut connection, response) = self.begin(Request::get(path), Bytes::new()).await?;
            let (status, body) = (response.status(), response.into_body());
            match status.is_success() {
                true => Ok(Events { node: self.clone(), connection, body, pieces: Pieces::default() }),
                false => Err(refused(status, &self.whole(&mut connection, body).await?)),
            }
        });
        opened.await.unwrap_or_else(|_| Err(self.late()))
    }

    /// Asks for the ledger until it has no orphans, at most for `settle`.
    pub(crate) async fn settled_ledger(&self, settle: Duration) -> Result<LedgerView, Failure> {
        let deadline = Instant::now() + settle;
        loop {
            let ledger: LedgerView = self.get("/v1/ledger").await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if ledger.orphans == 0 || left.is_zero() {
                return Ok(ledger);
            }
            tokio::time::sleep(SETTLE_PAUSE.min(left)).await;
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: Builder, body: Bytes) -> Result<T, Failure> {
        let (status, answer) = self.answer(request, body).await?;
        match status.is_success() {
            true => serde_json::from_slice(&answer).map_err(|error| unreadable(&error)),
            false => Err(refused(status, &answer)),
        }
    }

    async fn answer(&self, request: Builder, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        let answered = timeout(self.answer_timeout, async {
            let (mut connection, response) = self.begin(request, body).await?;
            let status = response.status();
            Ok((status, self.whole(&mut connection, response.into_body()).await?))
        });
        answered.await.unwrap_or_else(|_| Err(self.late()))
    }

    /// Asks on a connection of its own, up to the head of the answer.
    async fn begin(&self, request: Builder, body: Bytes) -> Result<(Connection, Response<Incoming>), Failure> {
        match &self.place {
            Place::Socket(path) => self.send(self.socket(path).await?, request, body).await,
            Place::Address(address) => self.send(self.address(*address).await?, request, body).await,
        }
    }

    async fn socket(&self, path: &std::path::Path) -> Result<UnixStream, Failure> {
        socket::check_length(path)?;
        UnixStream::connect(path).await.map_err(|error| socket::unreachable(path, &error))
    }

    async fn address(&self, address: SocketAddr) -> Result<TcpStream, Failure> {
        TcpStream::connect(address).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                Failure::new(Exit::NoNode, format!("no node is running on {address}"))
            }
            _ => Failure::io(format_args!("connect to {address}"), &error),
        })
    }

    async fn send(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Builder,
        body: Bytes,
    ) -> Result<(Connection, Response<Incoming>), Failure> {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        let request = self.dressed(request).body(Full::new(body)).map_err(|error| self.broken(&error))?;
        let mut connection: Connection = Box::pin(async move { drop(connection.await) });
        let sent = alongside(&mut connection, sender.send_request(request)).await;
        sent.map(|response| (connection, response)).map_err(|error| self.broken(&error))
    }

    /// The rest of an answer.
    async fn whole(&self, connection: &mut Connection, body: Incoming) -> Result<Bytes, Failure> {
        let body = alongside(connection, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        body.map(Collected::to_bytes).map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Failure::new(Exit::Io, format!("the answer exceeds {ANSWER_BYTES_MAX} bytes")),
            None => self.broken(&error),
        })
    }

    fn dressed(&self, request: Builder) -> Builder {
        let request = match &self.place {
            Place::Socket(_) => request.header(HOST, "localhost"),
            Place::Address(address) => request.header(HOST, address.to_string()),
        };
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    fn late(&self) -> Failure {
        let within = self.answer_timeout;
        Failure::new(
            Exit::Unavailable,
            format!(
                "the node on {self} did not answer within {within:?}: it is busy, or has as many clients as it may"
            ),
        )
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> Failure {
        Failure::new(Exit::NoNode, format!("the node on {self} went away: {error}"))
    }
}

impl std::fmt::Display for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Socket(path) => write!(f, "{}", path.display()),
            Place::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Where the routes of a topic begin.
pub(crate) fn topic_path(topic: &TopicName) -> String {
    // By its name where it has one, so that the node learns it; a name may hold anything.
    let mut path = String::from("/v1/topics/");
    for byte in topic.to_string().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => path.push(char::from(byte)),
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path
}

fn refused(status: StatusCode, answer: &[u8]) -> Failure {
    match serde_json::from_slice::<ErrorAnswer>(answer) {
        Ok(refused) => Failure::new(Exit::from_number(refused.error.exit), refused.error.message),
        // The head of a request that was never understood is refused without a body.
        Err(_) => Failure::new(Exit::Io, format!("the node refused with {status} and gave no reason")),
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::Io, format!("the node's answer cannot be read: {error}"))
}

/// What a node tells of a topic, event by event.
pub(crate) struct Events {
    node: Api,
    connection: Connection,
    body: Incoming,
    pieces: Pieces,
}

type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Events {
    /// The next event; `None` once the node has told the last one. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Of a node that went away, or has said nothing for three heartbeats.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            let broken = |sentence: String| Failure::new(Exit::Io, sentence);
            if let Some(event) = self.pieces.take().map_err(broken)? {
                return Ok(Some(event));
            }
            match timeout(SILENCE_TIMEOUT, alongside(&mut self.connection, self.body.frame())).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => self.pieces.push(frame.data_ref().map_or(&[][..], |data| data)),
                Ok(Some(Err(error))) => return Err(self.node.broken(&error)),
                Err(_) => {
                    let sentence = format!("the node on {} said nothing for {SILENCE_TIMEOUT:?}", self.node);
                    return Err(Failure::new(Exit::Unavailable, sentence));
                }
            }
        }
    }
}

/// Drives a connection for as long as `exchange` takes. The connection may end first; what it has brought is still read.
async fn alongside<T>(connection: &mut Connection, exchange: impl Future<Output = T>) -> T {
    let mut exchange = pin!(exchange);
    tokio::select! {
        done = &mut exchange => return done,
        () = connection.as_mut() => {}
    }
    // Polled no more from here on, by this exchange or the next.
    *connection = Box::pin(std::future::pending());
    exchange.await
}
