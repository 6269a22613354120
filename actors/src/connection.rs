//! One loop per QUIC connection: frames in, frames out. It never retries; `peer.rs` does.
//!
//! Two halves run side by side, and whichever ends first ends the connection. The send half (`connection/send.rs`) ends
//! when its outbox yields `None`, after the retire sequence; the receive half (`connection/receive.rs`) ends when the
//! remote closes. Nothing outside this room touches a stream, and nothing keeps the connection once the loop has ended:
//! its permit, its ledger entry and its QUIC state go with it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use iroh::{
    EndpointId,
    endpoint::{Connection, VarInt},
};
use iroh_gossip::proto::TopicId;
use n0_future::time::{Instant, interval};

use crate::{
    admission::Permit,
    census::Side,
    context::Context,
    counters::Reason,
    lease::{Outbox, OutboxGauge},
    ledger::Kind,
    supervisor::Heartbeat,
};

mod receive;
mod send;

use receive::ReceiveHalf;
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
    /// The remote did not read what was sent to it.
    SlowPeer,
    /// The remote retired the connection in order.
    RemoteRetired,
    /// The remote closed for another reason, or the connection was lost.
    Lost(String),
    /// What the remote sent cost it the connection.
    Broken(Reason),
    /// A test made it fail.
    Injected,
}

/// The close of a connection that nobody needs any more.
const RETIRED: (VarInt, &[u8]) = (VarInt::from_u32(0), b"retired");

/// Application close codes. Stock ignores them; our own nodes log them.
impl ConnectionEnd {
    fn close_code(&self) -> (VarInt, &'static [u8]) {
        match self {
            ConnectionEnd::Retired => RETIRED,
            ConnectionEnd::SlowPeer => (VarInt::from_u32(2), b"slow peer"),
            // Closed by the other side already; the code is for one that only lost a stream.
            ConnectionEnd::RemoteRetired | ConnectionEnd::Lost(_) => (VarInt::from_u32(3), b"stream lost"),
            ConnectionEnd::Broken(_) => (VarInt::from_u32(5), b"protocol error"),
            ConnectionEnd::Injected => (VarInt::from_u32(4), b"internal error"),
        }
    }
}

/// Topics a stock remote speaks of and this node has not joined. They are owed a farewell when the connection retires:
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
    number: u64,
    outbox: Outbox,
    heartbeat: Heartbeat,
    context: Context,
) -> ConnectionEnd {
    let Established { connection, permit: _permit, side: _ } = established;
    let watch = Watch { gauge: outbox.gauge(), heartbeat, context: &context };
    let overflowed = outbox.overflowed();
    let unknown_topics = UnknownTopics::default();
    let send = SendHalf::new(&connection, outbox, &context.limits, &unknown_topics).run();
    let receive = ReceiveHalf::new(&connection, number, &context, &unknown_topics).run();
    tokio::pin!(send, receive);
    let (end, still_receiving) = tokio::select! {
        // Verdicts before work: a connection that is to end must not be kept alive by traffic.
        biased;
        _ = overflowed.cancelled() => (ConnectionEnd::SlowPeer, false),
        end = watch.run() => (end, false),
        end = &mut send => (end, true),
        end = &mut receive => (end, false),
    };
    match &end {
        ConnectionEnd::SlowPeer => context.counters.count(Reason::ClosedSlowPeer),
        ConnectionEnd::Broken(reason) => {
            context.counters.count(*reason);
            context.counters.count(Reason::ClosedProtocol);
        }
        ConnectionEnd::Retired | ConnectionEnd::RemoteRetired | ConnectionEnd::Lost(_) | ConnectionEnd::Injected => {}
    }
    let (code, reason) = end.close_code();
    connection.close(code, reason);
    if still_receiving {
        // What the remote sent before it saw the close is already here; hand it on.
        receive.await;
    }
    end
}

/// The third party of the loop: beats its heart and judges its outbox.
struct Watch<'a> {
    gauge: OutboxGauge,
    heartbeat: Heartbeat,
    context: &'a Context,
}

impl Watch<'_> {
    async fn run(&self) -> ConnectionEnd {
        let mut turn = interval(self.context.limits.frozen_timeout / 4);
        loop {
            tokio::select! {
                strike = self.context.nursery.faults.strike(Kind::Connection) => {
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
