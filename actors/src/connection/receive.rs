//! The receive half: accepts streams, cuts them into frames, has each inspected, hands it to its topic.
//!
//! Every reader is a future of the connection's own loop, not a task. It holds at most one decoded frame and waits, for a
//! bounded time, for its topic's inbox before it reads the next: QUIC flow control then slows the sender.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use iroh::{
    EndpointId,
    endpoint::{Connection, ConnectionError, RecvStream},
};
use iroh_gossip::proto::TopicId;
use n0_future::{
    FuturesUnordered, StreamExt,
    future::poll_once,
    time::{Instant, sleep_until, timeout},
};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::timeout_at,
};

use super::{ConnectionEnd, UnknownTopics};
use crate::{
    census::Side,
    close::Close,
    context::Context,
    counters::Reason,
    routes::{Delivered, Delivery, Routes},
    wire::{
        self, FrameReader,
        inspect::{Inbound, inspect},
    },
};

/// Bytes taken from QUIC at once.
const CHUNK_MAX: usize = 16 * 1024;

/// Messages of one stream that are on their way into its topic, or whose receivers have no room for more. Enough to keep a busy
/// topic busy; a view of five brings at most so many times five that find no room.
const LINK_FRAMES_MAX: usize = 64;

/// After the connection has closed, readers get this long to hand on what had arrived.
pub(crate) const LAST_FRAMES: Duration = Duration::from_secs(1);

/// A stream waits this long for its predecessor on the same topic to end, so that a Disconnect on the old one is not
/// overtaken by a Neighbor on the new one.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(1);

pub(super) struct ReceiveHalf<'a> {
    connection: &'a Connection,
    peer: EndpointId,
    perennial: bool,
    number: u64,
    side: Side,
    context: &'a Context,
    unknown_topics: &'a UnknownTopics,
    topics: Mutex<HashMap<TopicId, TopicStreams>>,
    /// Streams, numbered as they were accepted, that have not named their topic.
    nameless: Mutex<BTreeSet<u64>>,
    named: Notify,
    /// Some stream has named its topic.
    has_spoken: AtomicBool,
}

/// The remote's streams for one topic; they count as one.
#[derive(Debug, Default)]
struct TopicStreams {
    open: usize,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A reader's way to its topic, looked up again after the topic was left and joined.
struct Inbox {
    topic: TopicId,
    open: Option<mpsc::Sender<Delivery>>,
    /// [`LINK_FRAMES_MAX`] of them.
    credits: Arc<Semaphore>,
    /// The last thing found no place in time.
    is_stuck: bool,
}

impl Inbox {
    fn new(topic: TopicId) -> Self {
        Self { topic, open: None, credits: Arc::new(Semaphore::new(LINK_FRAMES_MAX)), is_stuck: false }
    }

    fn is_open(&mut self, routes: &Routes) -> bool {
        if self.open.as_ref().is_none_or(mpsc::Sender::is_closed) {
            self.open = routes.inbox(&self.topic);
        }
        self.open.is_some()
    }
}

/// Why a reader stopped.
#[derive(Debug)]
enum StreamEnd {
    /// The remote finished, reset or lost the stream.
    Ended,
    /// What the remote sent makes the rest of the stream unreadable.
    Broken(Reason),
}

/// Whether the remote closed with a word of ours, or something else went wrong.
pub(super) fn ended_by(error: &ConnectionError) -> ConnectionEnd {
    let ConnectionError::ApplicationClosed(close) = error else { return ConnectionEnd::Lost(error.to_string()) };
    let number = close.error_code.into_inner();
    match Close::read(number, &close.reason) {
        Some(close) => ConnectionEnd::RemoteClosed(close),
        None if number == 0 => ConnectionEnd::RemoteRetired(error.to_string()),
        None => ConnectionEnd::Lost(error.to_string()),
    }
}

/// How long an accepted connection may be silent. An honest remote has something to say, or it would not have dialed, and
/// says it one round trip after the handshake; so a fifth of the time is enough while somebody else waits for the slot.
struct Hello {
    next_look: Instant,
    pause: Duration,
    until: Instant,
}

impl Hello {
    fn new(timeout: Duration, now: Instant) -> Self {
        let pause = timeout / 5;
        Self { next_look: now + pause, pause, until: now + timeout }
    }

    fn is_over(&mut self, is_scarce: bool) -> bool {
        let looked_at = self.next_look;
        self.next_look = looked_at + self.pause;
        is_scarce || looked_at >= self.until
    }
}

impl<'a> ReceiveHalf<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        number: u64,
        side: Side,
        context: &'a Context,
        unknown_topics: &'a UnknownTopics,
    ) -> Self {
        Self {
            connection,
            peer: connection.remote_id(),
            perennial: connection.alpn() == wire::ALPN_PERENNIAL,
            number,
            side,
            context,
            unknown_topics,
            topics: Mutex::default(),
            nameless: Mutex::default(),
            named: Notify::new(),
            has_spoken: AtomicBool::new(false),
        }
    }

    /// Ends when the connection is closed, by either side, and everything that had arrived is handed on.
    pub(super) async fn run(&self) -> ConnectionEnd {
        // Each remote has a stream for each topic, and most have one. By itself it makes room for 32 readers, 45 KB.
        let mut readers = FuturesUnordered::with_capacity(1);
        let mut accepted = 0;
        let mut hello = Hello::new(self.context.limits.first_frame_timeout, Instant::now());
        // Whoever we dialed need not say anything: it was us who had something to say.
        let mut awaits_hello = self.side == Side::Accepted;
        let end = loop {
            tokio::select! {
                _ = sleep_until(hello.next_look), if awaits_hello => {
                    awaits_hello = !self.has_spoken.load(Ordering::Relaxed);
                    if awaits_hello && hello.is_over(self.context.is_scarce()) {
                        return ConnectionEnd::HelloTimeout;
                    }
                }
                stream = self.connection.accept_uni() => match stream {
                    Ok(stream) => {
                        accepted += 1;
                        self.nameless.lock().expect("no holder panics").insert(accepted);
                        readers.push(self.read(stream, accepted));
                    }
                    Err(error) => break ended_by(&error),
                },
                // A reader's end is its own business; a broken stream costs the remote its connection.
                ended = readers.next(), if !readers.is_empty() => match ended {
                    Some(StreamEnd::Broken(reason)) => return ConnectionEnd::Broken(reason),
                    Some(StreamEnd::Ended) | None => {}
                },
            }
        };
        let last_frames = async { while readers.next().await.is_some() {} };
        let _in_time = timeout(LAST_FRAMES, last_frames).await;
        end
    }

    async fn read(&self, mut stream: RecvStream, accepted: u64) -> StreamEnd {
        let mut reader = FrameReader::default();
        let header = self.read_header(&mut stream, &mut reader).await;
        // Older streams name their topics first, or a stream that only lost a packet would be overtaken by its
        // successor.
        let _in_time = timeout(PREDECESSOR_WAIT, self.older_are_named(accepted)).await;
        let opened = header.map(|topic| (topic, self.open(topic)));
        self.nameless.lock().expect("no holder panics").remove(&accepted);
        self.named.notify_waiters();
        let (topic, turn) = match opened {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        let predecessor = timeout(PREDECESSOR_WAIT, turn.lock()).await;
        let end = self.read_topic(topic, &mut stream, &mut reader).await;
        drop(predecessor);
        self.close(topic).await;
        end
    }

    async fn older_are_named(&self, accepted: u64) {
        loop {
            let named = self.named.notified();
            tokio::pin!(named);
            // Registered before the look, so that a name in between is not missed.
            named.as_mut().enable();
            match self.nameless.lock().expect("no holder panics").first() {
                Some(first) if *first < accepted => {}
                Some(_) | None => return,
            }
            named.await;
        }
    }

    async fn read_header(&self, stream: &mut RecvStream, reader: &mut FrameReader) -> Result<TopicId, StreamEnd> {
        let header_deadline = Instant::now() + self.context.limits.frame_timeout;
        let header = match timeout_at(header_deadline, self.next_frame(stream, reader)).await {
            Ok(Ok(Some(header))) => header,
            Ok(Ok(None)) => return Err(self.headerless()),
            Ok(Err(end)) => return Err(end),
            // Dropping the stream stops it; no honest peer opens one without writing its topic at once.
            Err(_elapsed) => return Err(self.headerless()),
        };
        let topic = wire::decode_header(&header).map_err(|error| StreamEnd::Broken(error.reason()))?;
        self.has_spoken.store(true, Ordering::Relaxed);
        Ok(topic)
    }

    fn headerless(&self) -> StreamEnd {
        self.context.counters.count(Reason::HeaderMissing);
        StreamEnd::Ended
    }

    async fn read_topic(&self, topic: TopicId, stream: &mut RecvStream, reader: &mut FrameReader) -> StreamEnd {
        let mut inbox = Inbox::new(topic);
        loop {
            let body = match self.next_frame(stream, reader).await {
                Ok(Some(body)) => body,
                Ok(None) => return StreamEnd::Ended,
                Err(end) => return end,
            };
            // Frames that are already here and go nowhere would otherwise keep the rest of this task from running.
            tokio::task::consume_budget().await;
            // A topic that is not joined costs a lookup, not a decoding.
            if !inbox.is_open(&self.context.routes) {
                self.context.counters.count(Reason::TopicUnknown);
                self.unknown_topics.note(topic);
                continue;
            }
            if let Some(inbound) = self.inspect(&body) {
                self.deliver(&mut inbox, Delivered::Message(inbound)).await;
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
            // Or gossip would bring back for ever whoever has left.
            inbound.learned.retain(|(peer, _)| !self.context.redials.is_ghost(peer, now));
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

    /// Hands one thing to the topic, waiting for a place, and a message also for those that came before it to be passed on. A stock
    /// peer is never held back for long: one blocked stream would wedge its only actor. Our own nodes are slowed by flow
    /// control, but not so long that they take us for slow and close the connection over one topic. What waited in vain is
    /// dropped and counted, and until there is room again nothing waits.
    async fn deliver(&self, inbox: &mut Inbox, what: Delivered) {
        let Some(open) = &inbox.open else { return };
        let patience = match (inbox.is_stuck, self.perennial) {
            (true, _) => Duration::ZERO,
            (false, true) => self.context.limits.slow_peer_timeout / 2,
            (false, false) => self.context.limits.inbox_wait,
        };
        let needs_credit = what.is_payload();
        let room = async {
            let credit = match needs_credit {
                // Never closed.
                true => inbox.credits.clone().acquire_owned().await.ok(),
                false => None,
            };
            open.reserve().await.map(|place| (place, credit))
        };
        tokio::pin!(room);
        let found = match poll_once(room.as_mut()).await {
            Some(found) => Ok(found),
            // A timer costs more than a place that is there.
            None => timeout(patience, room).await,
        };
        match found {
            Ok(Ok((place, credit))) => {
                inbox.is_stuck = false;
                place.send(Delivery { from: self.peer, connection: self.number, what, credit });
            }
            Ok(Err(_closed)) => self.context.counters.count(Reason::TopicUnknown),
            Err(_elapsed) => {
                inbox.is_stuck = true;
                self.context.counters.count(Reason::InboxFull);
            }
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
        let mut inbox = Inbox::new(topic);
        if was_last && inbox.is_open(&self.context.routes) {
            self.deliver(&mut inbox, Delivered::StreamEnded).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_borne_for_its_time_and_for_a_fifth_of_it_while_somebody_waits() {
        let (timeout, now) = (Duration::from_secs(5), Instant::now());
        let mut hello = Hello::new(timeout, now);
        let looks = (1..=5).map(|_| (hello.next_look.duration_since(now).as_secs(), hello.is_over(false)));
        assert_eq!(looks.collect::<Vec<_>>(), [(1, false), (2, false), (3, false), (4, false), (5, true)]);
        assert!(Hello::new(timeout, now).is_over(true));
    }
}
