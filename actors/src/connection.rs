//! One loop per QUIC connection: frames in, frames out. It never retries; `peer.rs` does.
//!
//! Two halves run side by side, and whichever ends first ends the connection. The send half (`connection/send.rs`) ends
//! when its outbox yields `None`, after the retire sequence; the receive half (`connection/receive.rs`) ends when the
//! remote closes. Nothing outside this room touches a stream, and nothing keeps the connection once the loop has ended:
//! its permit, its ledger entry and its QUIC state go with it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use iroh::{EndpointId, endpoint::Connection};
use iroh_gossip::proto::TopicId;
use n0_future::time::{Instant, interval, sleep};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Permit,
    census::Side,
    close::{Close, CloseCode},
    context::Context,
    counters::Reason,
    history::ClosedBy,
    lease::{Outbox, OutboxGauge, outbox},
    lives::{Living, Phase},
    mishaps::Loop,
    retirement::Departure,
    routes::{Gone, Routes},
    supervisor::Heartbeat,
};

pub(crate) mod echo;
mod receive;
mod send;

pub(crate) use receive::LAST_FRAMES;
use receive::ReceiveHalf;
pub(crate) use send::PARTING_MAX;
use send::SendHalf;

/// A connection whose handshake has finished, with the slot it occupies.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) connection: Connection,
    pub(crate) permit: Permit,
    pub(crate) side: Side,
}

impl Established {
    pub(crate) fn peer(&self) -> EndpointId {
        self.connection.remote_id()
    }

    /// Closes it, and says why.
    pub(crate) fn close(&self, close: Close) {
        close_with(&self.connection, close);
    }

    pub(crate) fn is_perennial(&self) -> bool {
        self.connection.alpn() == crate::wire::ALPN_PERENNIAL
    }
}

/// Numbers connections within one mesh; `stable_id` is an address and gets reused.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionNumbers {
    last: Arc<AtomicU64>,
}

impl ConnectionNumbers {
    /// The first is 1.
    pub(crate) fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// The last lease was dropped; everything queued was written and acknowledged, or its time was up.
    Retired,
    /// Its supervisor said so.
    Ordered(Close),
    /// The remote did not read what was sent to it.
    SlowPeer,
    /// The remote said nothing in time after the handshake.
    HelloTimeout,
    /// The remote closed with a code of ours.
    RemoteClosed(Close),
    /// The remote closed with 0 in words of its own, as a stock node does that needs us no more.
    RemoteRetired(String),
    /// The remote closed for another reason, or the connection was lost.
    Lost(String),
    /// What the remote sent cost it the connection.
    Broken(Reason),
    /// A test made it fail.
    Injected,
}

impl ConnectionEnd {
    /// What the remote is told. Where the other side has closed already, nobody hears it.
    fn close(&self, context: &Context, gauge: &OutboxGauge) -> Close {
        match self {
            ConnectionEnd::Retired if context.is_draining() => Close::new(CloseCode::Draining),
            ConnectionEnd::Retired if gauge.is_unclaimed() => Close::new(CloseCode::Idle),
            ConnectionEnd::Retired if gauge.is_superseded() => Close::new(CloseCode::Superseded),
            ConnectionEnd::Retired => Close::new(CloseCode::Retired),
            ConnectionEnd::Ordered(close) | ConnectionEnd::RemoteClosed(close) => *close,
            ConnectionEnd::SlowPeer => Close::new(CloseCode::SlowPeer),
            ConnectionEnd::HelloTimeout => Close::new(CloseCode::HelloTimeout),
            ConnectionEnd::Broken(Reason::FrameTooLarge) => Close::new(CloseCode::FrameTooLarge),
            ConnectionEnd::Broken(_) => Close::new(CloseCode::ProtocolViolation),
            ConnectionEnd::RemoteRetired(_) | ConnectionEnd::Lost(_) | ConnectionEnd::Injected => {
                Close::new(CloseCode::Internal)
            }
        }
    }

    /// What the topics hear.
    pub(crate) fn gone(&self) -> Gone {
        match self {
            ConnectionEnd::Retired => Gone::Retired,
            ConnectionEnd::RemoteClosed(close) if close.code.is_orderly() => Gone::Retired,
            ConnectionEnd::RemoteClosed(_)
            | ConnectionEnd::Ordered(_)
            | ConnectionEnd::SlowPeer
            | ConnectionEnd::HelloTimeout
            | ConnectionEnd::RemoteRetired(_)
            | ConnectionEnd::Lost(_)
            | ConnectionEnd::Broken(_)
            | ConnectionEnd::Injected => Gone::Lost,
        }
    }

    /// The stable name of what ended it, and who did.
    pub(crate) fn cause(&self) -> (&'static str, ClosedBy) {
        match self {
            ConnectionEnd::Retired => ("retired", ClosedBy::Us),
            ConnectionEnd::Ordered(close) => (close.code.name(), ClosedBy::Us),
            ConnectionEnd::SlowPeer => ("slow-peer", ClosedBy::Us),
            ConnectionEnd::HelloTimeout => ("hello-timeout", ClosedBy::Us),
            ConnectionEnd::Broken(reason) => (reason.name(), ClosedBy::Us),
            ConnectionEnd::Injected => ("internal", ClosedBy::Us),
            ConnectionEnd::RemoteClosed(close) => (close.code.name(), ClosedBy::Remote),
            ConnectionEnd::RemoteRetired(_) => ("retired", ClosedBy::Remote),
            ConnectionEnd::Lost(_) => ("lost", ClosedBy::Lost),
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self {
            ConnectionEnd::SlowPeer => Some(Reason::ClosedSlowPeer),
            ConnectionEnd::HelloTimeout => Some(Reason::ClosedHelloTimeout),
            ConnectionEnd::Broken(_) => Some(Reason::ClosedProtocol),
            ConnectionEnd::Retired
            | ConnectionEnd::Ordered(_)
            | ConnectionEnd::RemoteClosed(_)
            | ConnectionEnd::RemoteRetired(_)
            | ConnectionEnd::Lost(_)
            | ConnectionEnd::Injected => None,
        }
    }
}

/// A connection that is over: how, and what it carried, in UDP payload bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) end: ConnectionEnd,
    /// What it was closed with.
    pub(crate) close: Close,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

/// A supervisor's word that a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) close: Close,
    /// Whether a stock remote is told in its own words first, so that it can dial us again. Costs up to
    /// [`PARTING_MAX`].
    pub(crate) is_polite: bool,
}

/// The supervisor's end of the line on which at most one order is given. Dropping it is none.
pub(crate) type Orders = oneshot::Sender<Order>;

/// Topics a stock remote speaks of and this node has not joined, or not with it. They are owed a farewell when the connection retires:
/// a stock node that is closed on without a word sends into the dead connection for ever (`net.rs`, 0.101.0).
#[derive(Debug, Default)]
struct UnknownTopics {
    topics: Mutex<BTreeSet<TopicId>>,
}

impl UnknownTopics {
    /// As many as one remote is worth; the rest goes without.
    const MAX: usize = 16;

    fn note(&self, topic: TopicId) {
        let mut topics = self.topics.lock().expect("no holder panics");
        if topics.len() < Self::MAX {
            topics.insert(topic);
        }
    }

    fn take(&self) -> BTreeSet<TopicId> {
        std::mem::take(&mut *self.topics.lock().expect("no holder panics"))
    }
}

/// Runs one connection until it ends.
pub(crate) async fn run(
    established: Established,
    living: Living,
    outbox: Outbox,
    orders: oneshot::Receiver<Order>,
    heartbeat: Heartbeat,
    context: Context,
) -> Closed {
    let Established { connection, permit: _permit, side } = established;
    let (life, number) = (living.life(), living.life().number());
    let watch = Watch { peer: connection.remote_id(), gauge: outbox.gauge(), heartbeat, context: &context };
    let (overflowed, gauge) = (outbox.overflowed(), outbox.gauge());
    let unknown_topics = UnknownTopics::default();
    let ordered = OnceLock::new();
    let parting = CancellationToken::new();
    let obey = async {
        match orders.await {
            Ok(order) if order.is_polite && connection.alpn() != crate::wire::ALPN_PERENNIAL => {
                ordered.get_or_init(|| order.close);
                parting.cancel();
                // A remote that reads nothing holds the send half up in a write; its slot is wanted all the same.
                sleep(PARTING_MAX).await;
                return order.close;
            }
            Ok(order) => return order.close,
            Err(_no_order_any_more) => {}
        }
        std::future::pending().await
    };
    // By reference: a future that owns what it was made of holds it twice.
    let mut send_half = SendHalf::new(&connection, outbox, &context.limits, &unknown_topics);
    let receive_half = ReceiveHalf::new(&connection, number, side, &context, &unknown_topics);
    let (send, receive) = (send_half.run(&parting), receive_half.run());
    tokio::pin!(send, receive);
    let (mut end, still_receiving) = tokio::select! {
        // Verdicts before work: a connection that is to end must not be kept alive by traffic.
        biased;
        close = obey => (ConnectionEnd::Ordered(close), false),
        _ = overflowed.cancelled() => (ConnectionEnd::SlowPeer, false),
        end = watch.run() => (end, false),
        end = &mut send => (end, true),
        end = &mut receive => (end, false),
    };
    life.depart(Departure::Ended, Instant::now());
    life.enter(Phase::LastFrames);
    if let (ConnectionEnd::Lost(_), Some(error)) = (&end, connection.close_reason()) {
        // Whichever half noticed first: what the remote said counts.
        end = receive::ended_by(&error);
    }
    if let Some(close) = ordered.get() {
        end = ConnectionEnd::Ordered(*close);
    }
    life.end(end.cause().0);
    if let Some(reason) = end.reason() {
        context.counters.count(reason);
    }
    if let ConnectionEnd::Broken(reason) = &end {
        context.counters.count(*reason);
    }
    let close = end.close(&context, &gauge);
    close_with(&connection, close);
    if still_receiving {
        // What the remote sent before it saw the close is already here; hand it on.
        receive.await;
    }
    let stats = connection.stats();
    Closed { end, close, bytes_sent: stats.udp_tx.bytes, bytes_received: stats.udp_rx.bytes }
}

pub(crate) fn close_with(connection: &Connection, close: Close) {
    connection.close(close.code.number().into(), close.reason().as_bytes());
}

/// Closes on a stock remote that has no slot. It speaks to topics that do not exist, and then hears that nobody is here.
pub(crate) async fn turn_away(established: Established, close: Close, context: Context) {
    let context = Context { routes: Routes::default(), ..context };
    let living = Living::unlisted(established.peer());
    let (lease, outbox) = outbox(living.life().clone(), false, &context.limits);
    let (orders, ordered) = oneshot::channel();
    let _listening = orders.send(Order { close, is_polite: true });
    run(established, living, outbox, ordered, Heartbeat::default(), context).await;
    drop(lease);
}

/// The third party of the loop: beats its heart and judges its outbox.
struct Watch<'a> {
    peer: EndpointId,
    gauge: OutboxGauge,
    heartbeat: Heartbeat,
    context: &'a Context,
}

impl Watch<'_> {
    async fn run(&self) -> ConnectionEnd {
        let mut turn = interval(self.context.limits.frozen_timeout / 4);
        loop {
            tokio::select! {
                strike = self.context.nursery.faults.strike(Loop::Connection, Some(&self.peer)) => {
                    strike.land().await;
                    return ConnectionEnd::Injected;
                }
                _ = turn.tick() => {
                    self.heartbeat.beat();
                    if self.gauge.is_full_for(Instant::now(), self.context.limits.slow_peer_timeout) {
                        return ConnectionEnd::SlowPeer;
                    }
                }
            }
        }
    }
}
