//! One control client: reads a line, answers a line, until it goes or is too slow. It knows nothing of the answers.

use std::time::Duration;

use serde::Serialize;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use crate::{
    control::{
        answers,
        protocol::{REQUEST_BYTES_MAX, Request, Response},
    },
    exit::{Exit, Failure},
    line_reader::{Input, LineReader},
    node::Node,
};

/// A client that asks nothing for this long is sent away: its place may be needed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A request is answered within this long. Asking the supervisors takes milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that does not read its answer within this long is sent away.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves one client to its end. An error of the client's is its own business.
pub(crate) async fn run(mut stream: UnixStream, node: Node) {
    let (read_half, mut write_half) = stream.split();
    let mut requests = LineReader::new(read_half, REQUEST_BYTES_MAX);
    loop {
        let response = match timeout(REQUEST_TIMEOUT, requests.next()).await {
            Ok(Ok(Input::Line(line))) => answer(&node, &line).await,
            Ok(Ok(Input::TooLong(size))) => {
                error(Exit::Usage, format!("request of {size} bytes exceeds {REQUEST_BYTES_MAX}"))
            }
            Ok(Ok(Input::End) | Err(_)) | Err(_) => return,
        };
        if write(&mut write_half, &response).await.is_err() {
            return;
        }
    }
}

async fn answer(node: &Node, line: &[u8]) -> Vec<u8> {
    let request = match Request::from_line(line) {
        Ok(request) => request,
        Err(failure) => return Response::<()>::error(&failure).to_line(),
    };
    tracing::debug!(?request, "control");
    let answered = timeout(ANSWER_TIMEOUT, async {
        match request {
            Request::Status => to_line(answers::status(node).await),
            Request::Peers => to_line(answers::peers(node).await),
            Request::Ledger => to_line(answers::ledger(node).await),
            Request::Ticket => to_line(Ok(answers::ticket(node))),
            Request::Join { topic, peers } => to_line(answers::join(node, &topic, &peers).await),
            Request::Leave { topic } => to_line(answers::leave(node, &topic).await),
            Request::Limits => to_line(answers::door::limits(node).await),
            Request::SetLimits { changes, evict } => to_line(answers::door::set_limits(node, changes, evict).await),
            Request::Allow { peer } => to_line(answers::door::allow(node, &peer)),
            Request::Deny { peer } => to_line(answers::door::deny(node, &peer)),
            Request::Forget { peer } => to_line(answers::door::forget(node, &peer)),
            Request::Connections => to_line(answers::door::connections(node).await),
            Request::ClosedConnections => to_line(Ok(answers::door::closed_connections(node))),
            Request::Trim => to_line(answers::soak::trim()),
            Request::Fault(plan) => to_line(answers::soak::fault(node, &plan).await),
            Request::Stop => to_line(Ok(answers::stop(node))),
        }
    });
    answered.await.unwrap_or_else(|_| {
        error(Exit::Unavailable, format!("the node did not answer within {} s", ANSWER_TIMEOUT.as_secs()))
    })
}

fn to_line<T: Serialize>(answer: Result<T, Failure>) -> Vec<u8> {
    match answer {
        Ok(answer) => Response::ok(answer).to_line(),
        Err(failure) => Response::<()>::error(&failure).to_line(),
    }
}

fn error(exit: Exit, sentence: String) -> Vec<u8> {
    Response::<()>::error(&Failure::new(exit, sentence)).to_line()
}

async fn write(target: &mut (impl AsyncWrite + Unpin), line: &[u8]) -> std::io::Result<()> {
    timeout(WRITE_TIMEOUT, target.write_all(line)).await?
}
