//! The control socket: accepts local clients and hands each to a session. Few at a time, and only our own user.
//!
//! What may be asked is in `control/protocol.rs`, what is answered in `control/answers.rs`, where the socket lives in
//! `control/socket.rs`.

pub(crate) mod answers;
pub(crate) mod protocol;
pub(crate) mod session;
pub(crate) mod socket;

use std::{sync::Arc, time::Duration};

use perennial::Kind;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::{control::protocol::Response, exit::Exit, exit::Failure, node::Node};

/// Clients at one time. A person, a few scripts and a metrics scraper; sixteen is generous.
const CLIENTS_MAX: usize = 16;

/// Pause after a failed accept. Descriptors have run out, and trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts clients until the task is aborted.
pub(crate) async fn run(listener: UnixListener, node: Node) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => on_client(stream, &places, &node),
            Err(error) => {
                tracing::warn!(%error, "a control client could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn on_client(stream: UnixStream, places: &Arc<Semaphore>, node: &Node) {
    if !is_ours(&stream) {
        tracing::warn!("a control client of another user was turned away");
        return;
    }
    match Arc::clone(places).try_acquire_owned() {
        Ok(place) => {
            let session = session::run(stream, node.clone());
            node.tasks.spawn(Kind::ControlClient, "control-client", async move {
                let _place = place;
                session.await;
            });
        }
        Err(_) => {
            let full = Failure::new(
                Exit::Unavailable,
                format!("{CLIENTS_MAX} control clients are connected, the limit; try again"),
            );
            // A fresh socket's buffer takes one line; whoever cannot take it is not waited for.
            let _ = stream.try_write(&Response::<()>::error(&full).to_line());
        }
    }
}

/// Between bind and chmod a socket has the mode the umask gives it, so the client's user is asked for as well.
fn is_ours(stream: &UnixStream) -> bool {
    match (stream.peer_cred(), socket::own_uid()) {
        (Ok(peer), Ok(own)) => peer.uid() == own || peer.uid() == 0,
        (Err(_), _) | (_, Err(_)) => false,
    }
}
