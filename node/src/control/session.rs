//! One client: HTTP/1.1 until it goes, is too slow, or the node ends. It knows nothing of what is asked.

use std::{pin::pin, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::stall::WriteDeadline;

/// A client that has connected, or has its answer, asks its next question within this long: its place may be needed. The
/// head of a request is one packet on this machine, so this bounds who keeps a connection idle, not who is slow.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that takes nothing of its answer for this long is cut.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest head of a request. A token and a cookie jar fit.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Serves one client to its end. An error of the client's is its own business.
pub(super) async fn run<S>(stream: S, router: Router, closing: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(WriteDeadline::new(stream, WRITE_TIMEOUT));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(stream, TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closing.cancelled() => {
            // What is being answered is answered; then the connection ends.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a control client was cut");
    }
}
