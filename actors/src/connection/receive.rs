//! The receive half: accepts streams, cuts them into frames, has each inspected, hands it to its topic.
//!
//! Every reader is a future of the connection's own loop, not a task. It holds at most one decoded frame and waits for
//! its topic's inbox before it reads the next, so a full topic holds back its own streams only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use iroh::{
    EndpointId,
    endpoint::{Connection, RecvStream},
};
use iroh_gossip::proto::TopicId;
use n0_future::{
    FuturesUnordered, StreamExt,
    time::{Instant, timeout},
};
use tokio::{sync::mpsc, time::timeout_at};

use super::{ConnectionContext, ConnectionEnd};
use crate::{
    counters::Reason,
    routes::{Delivered, Delivery},
    wire::{
        self, FrameReader,
        inspect::{Inbound, inspect},
    },
};

/// Bytes taken from QUIC at once.
const CHUNK_MAX: usize = 16 * 1024;

/// After the connection has closed, readers get this long to hand on what had arrived.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// A stream waits this long for its predecessor on the same topic to end, so that a Disconnect on the old one is not
/// overtaken by a Neighbor on the new one.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(1);

pub(super) struct ReceiveHalf<'a> {
    connection: &'a Connection,
    peer: EndpointId,
    perennial: bool,
    number: u64,
    context: &'a ConnectionContext,
    topics: Mutex<HashMap<TopicId, TopicStreams>>,
}

/// The remote's streams for one topic; they count as one.
#[derive(Debug, Default)]
struct TopicStreams {
    open: usize,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Why a reader stopped.
#[derive(Debug)]
enum StreamEnd {
    /// The remote finished, reset or lost the stream.
    Ended,
    /// What the remote sent makes the rest of the stream unreadable.
    Broken(Reason),
}

impl<'a> ReceiveHalf<'a> {
    pub(super) fn new(connection: &'a Connection, number: u64, context: &'a ConnectionContext) -> Self {
        Self {
            connection,
            peer: connection.remote_id(),
            perennial: connection.alpn() == wire::ALPN_PERENNIAL,
            number,
            context,
            topics: Mutex::default(),
        }
    }

    /// Ends when the connection is closed, by either side, and everything that had arrived is handed on.
    pub(super) async fn run(self) -> ConnectionEnd {
        let mut readers = FuturesUnordered::new();
        let lost = loop {
            tokio::select! {
                stream = self.connection.accept_uni() => match stream {
                    Ok(stream) => readers.push(self.read(stream)),
                    Err(error) => break error.to_string(),
                },
                // A reader's end is its own business; a broken stream costs the remote its connection.
                ended = readers.next(), if !readers.is_empty() => match ended {
                    Some(StreamEnd::Broken(reason)) => {
                        self.context.counters.count(reason);
                        self.context.counters.count(Reason::ClosedProtocol);
                        return ConnectionEnd::Lost(format!("remote broke the protocol: {}", reason.name()));
                    }
                    Some(StreamEnd::Ended) | None => {}
                },
            }
        };
        let last_frames = async { while readers.next().await.is_some() {} };
        let _in_time = timeout(LAST_FRAMES, last_frames).await;
        ConnectionEnd::Lost(lost)
    }

    async fn read(&self, mut stream: RecvStream) -> StreamEnd {
        let mut reader = FrameReader::default();
        let header_deadline = Instant::now() + self.context.limits.frame_timeout;
        let header = match timeout_at(header_deadline, self.next_frame(&mut stream, &mut reader)).await {
            Ok(Ok(Some(header))) => header,
            Ok(Ok(None)) => return self.headerless(),
            Ok(Err(end)) => return end,
            // Dropping the stream stops it; no honest peer opens one without writing its topic at once.
            Err(_elapsed) => return self.headerless(),
        };
        let topic = match wire::decode_header(&header) {
            Ok(topic) => topic,
            Err(error) => return StreamEnd::Broken(error.reason()),
        };
        let turn = self.open(topic);
        let predecessor = timeout(PREDECESSOR_WAIT, turn.lock()).await;
        let end = self.read_topic(topic, &mut stream, &mut reader).await;
        drop(predecessor);
        self.close(topic).await;
        end
    }

    fn headerless(&self) -> StreamEnd {
        self.context.counters.count(Reason::HeaderMissing);
        StreamEnd::Ended
    }

    async fn read_topic(&self, topic: TopicId, stream: &mut RecvStream, reader: &mut FrameReader) -> StreamEnd {
        let mut inbox = None;
        loop {
            let body = match self.next_frame(stream, reader).await {
                Ok(Some(body)) => body,
                Ok(None) => return StreamEnd::Ended,
                Err(end) => return end,
            };
            if let Some(inbound) = self.inspect(&body) {
                self.deliver(topic, &mut inbox, Delivered::Message(inbound)).await;
            }
        }
    }

    /// The next frame's body; `None` at the end of the stream. A frame that has begun must end within its deadline.
    async fn next_frame(&self, stream: &mut RecvStream, reader: &mut FrameReader) -> Result<Option<Bytes>, StreamEnd> {
        let mut deadline = None;
        loop {
            match reader.next() {
                Ok(Some(body)) => return Ok(Some(body)),
                Ok(None) => {}
                Err(error) => return Err(StreamEnd::Broken(error.reason())),
            }
            let chunk = if reader.mid_frame() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.context.limits.frame_timeout);
                match timeout_at(deadline, stream.read_chunk(CHUNK_MAX)).await {
                    Ok(chunk) => chunk,
                    Err(_elapsed) => return Err(StreamEnd::Broken(Reason::FrameUnfinished)),
                }
            } else {
                stream.read_chunk(CHUNK_MAX).await
            };
            match chunk {
                Ok(Some(bytes)) => reader.fill(bytes),
                Ok(None) => {
                    if reader.end().is_err() {
                        self.context.counters.count(Reason::FrameUnfinished);
                    }
                    return Ok(None);
                }
                // A reset or a lost connection; the connection's own end is noticed by the accept arm.
                Err(_) => return Ok(None),
            }
        }
    }

    fn inspect(&self, body: &[u8]) -> Option<Inbound> {
        let mut inbound = match inspect(body, &self.context.me) {
            Ok(inbound) => inbound,
            Err(rejected) => {
                self.context.counters.count(rejected.reason);
                return None;
            }
        };
        for (reason, count) in inbound.notes.iter() {
            self.context.counters.add(reason, count);
        }
        if !inbound.learned.is_empty() || inbound.sender_data.is_some() {
            let now = Instant::now();
            let addresses = &self.context.addresses;
            let mut kept = true;
            if let Some(info) = inbound.sender_data.take() {
                kept &= addresses.learn_first_hand(self.peer, info, now);
            }
            for (peer, info) in &mut inbound.learned {
                kept &= addresses.learn(*peer, std::mem::take(info), now);
            }
            if !kept {
                self.context.counters.count(Reason::AddressDropped);
            }
        }
        Some(inbound)
    }

    /// Hands one thing to the topic, waiting for a place. A stock peer is never held back for long: one blocked stream
    /// would wedge its only actor, so its frame is dropped and counted; our own nodes are slowed by flow control.
    async fn deliver(&self, topic: TopicId, inbox: &mut Option<mpsc::Sender<Delivery>>, what: Delivered) {
        if inbox.as_ref().is_none_or(mpsc::Sender::is_closed) {
            *inbox = self.context.routes.inbox(&topic);
        }
        let Some(open) = inbox else {
            self.context.counters.count(Reason::TopicUnknown);
            return;
        };
        let place = match self.perennial {
            true => open.reserve().await.ok(),
            false => match timeout(self.context.limits.inbox_wait, open.reserve()).await {
                Ok(place) => place.ok(),
                Err(_elapsed) => return self.context.counters.count(Reason::InboxFull),
            },
        };
        match place {
            Some(place) => place.send(Delivery { from: self.peer, connection: self.number, what }),
            None => self.context.counters.count(Reason::TopicUnknown),
        }
    }

    fn open(&self, topic: TopicId) -> Arc<tokio::sync::Mutex<()>> {
        let mut topics = self.topics.lock().expect("no holder panics");
        let streams = topics.entry(topic).or_default();
        streams.open += 1;
        streams.turn.clone()
    }

    /// The topic hears of the end only when its last stream is gone.
    async fn close(&self, topic: TopicId) {
        let was_last = {
            let mut topics = self.topics.lock().expect("no holder panics");
            let streams = topics.get_mut(&topic).expect("opened by the reader that closes it");
            streams.open -= 1;
            let was_last = streams.open == 0;
            if was_last {
                topics.remove(&topic);
            }
            was_last
        };
        if was_last && self.context.routes.inbox(&topic).is_some() {
            self.deliver(topic, &mut None, Delivered::StreamEnded).await;
        }
    }
}
