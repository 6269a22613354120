//! The control API: HTTP with JSON, on a Unix socket that only our own user may open and, if asked for, on a TCP address.
//!
//! This file lets clients in. What may be asked is in `control/routes.rs`, what is answered in `control/answers.rs`, how one
//! client is served in `control/session.rs`, where the socket lives in `control/socket.rs`.

pub(crate) mod answers;
pub(crate) mod events;
mod extract;
pub(crate) mod guard;
pub(crate) mod http;
pub(crate) mod protocol;
mod refusal;
mod routes;
mod session;
pub(crate) mod socket;
mod stall;

use std::{io, num::NonZeroUsize};

use perennial::Kind;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

use crate::{
    control::guard::Guard,
    listener::{Accept, CappedListener, Gauge},
    node::Node,
};

/// Clients of the control socket at one time, unless told otherwise. A person, a few scripts and a few subscribers.
pub(crate) const CONTROL_CLIENTS_MAX: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Clients of the TCP address at one time, unless told otherwise: as above, with what scrapes and probes, and keeps its
/// connections.
pub(crate) const HTTP_CLIENTS_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// What clients are accepted from, bound and not yet served.
#[derive(Debug)]
pub(crate) struct Entrances {
    control: CappedListener<OwnUser>,
    http: Option<(CappedListener<TcpListener>, Guard)>,
}

/// The counts of each entrance, by name.
#[derive(Debug, Clone)]
pub(crate) struct Gauges(Vec<(&'static str, Gauge)>);

impl Gauges {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &Gauge)> {
        self.0.iter().map(|(name, gauge)| (*name, gauge))
    }
}

impl Entrances {
    pub(crate) fn new(control: CappedListener<OwnUser>, http: Option<(CappedListener<TcpListener>, Guard)>) -> Self {
        Self { control, http }
    }

    pub(crate) fn gauges(&self) -> Gauges {
        let http = self.http.as_ref().map(|(listener, _)| ("http", listener.gauge()));
        Gauges([("control", self.control.gauge())].into_iter().chain(http).collect())
    }

    /// Serves clients until `closing`; then those being served get their answers and nobody new comes in.
    pub(crate) fn open(self, node: &Node, closing: &CancellationToken) {
        let control = accept(self.control, None, node.clone(), closing.clone());
        node.tasks.spawn(Kind::Service, "control", control);
        if let Some((listener, guard)) = self.http {
            let http = accept(listener, Some(guard), node.clone(), closing.clone());
            node.tasks.spawn(Kind::Service, "http", http);
        }
    }
}

async fn accept<L>(mut listener: CappedListener<L>, guard: Option<Guard>, node: Node, closing: CancellationToken)
where
    L: Accept,
    L::Stream: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let router = routes::router(node.clone(), guard);
    loop {
        let (stream, slot) = tokio::select! {
            biased; // Closing first: clients who keep coming must not put it off.
            () = closing.cancelled() => return,
            client = listener.accept() => client,
        };
        let session = session::run(stream, router.clone(), closing.clone());
        node.tasks.spawn(Kind::ControlClient, "control-client", async move {
            let _slot = slot;
            session.await;
        });
    }
}

/// A control socket as our own user sees it: clients of others are turned away before they take a place.
#[derive(Debug)]
pub(crate) struct OwnUser(pub(crate) UnixListener);

impl Accept for OwnUser {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.0.accept().await?;
            if is_ours(&stream) {
                return Ok(stream);
            }
            tracing::warn!("a control client of another user was turned away");
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
