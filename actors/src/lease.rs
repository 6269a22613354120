//! Leases: the only way to keep a connection alive, and the outbox they feed.
//!
//! A [`Lease`] is a sender of one connection's bounded [`Outbox`]. While anyone holds one, the connection lives; when the
//! last is dropped, the outbox yields `None` and the connection retires. Tables keep a [`LeaseSource`], which cannot keep
//! anything alive. Nothing here waits: what a full outbox means is decided in [`Lease::send`].

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use iroh_gossip::proto::TopicId;
use n0_future::time::Instant;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    limits::Limits,
    lives::Life,
    pace::{Patience, Waiting},
    retirement::Departure,
};

/// What a connection is asked to write.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// One encoded frame; `last` finishes the topic's stream after it.
    Frame { topic: TopicId, frame: Bytes, last: bool },
    /// Nothing more for this topic: finish its stream.
    Finish { topic: TopicId },
    /// As [`Outgoing::Finish`], and the remote is owed a farewell on this topic when the connection retires.
    Decline { topic: TopicId },
}

impl Outgoing {
    fn len(&self) -> usize {
        match self {
            Outgoing::Frame { frame, .. } => frame.len(),
            Outgoing::Finish { .. } | Outgoing::Decline { .. } => 0,
        }
    }
}

/// Which places of an outbox a frame may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Payload: dropped when full, Plumtree repairs it (IHave, Graft).
    Payload,
    /// What keeps the tree (Prune, Graft): may take half of the reserved places, so that a burst does not keep itself alive.
    Tree,
    /// Membership: may take the reserved last places; a remote that has no room even for it is a slow peer.
    Membership,
}

/// An outbox that has this much room left for payload, in frames, is crowded, or half of its room if that is less: about what the four
/// other links of a view may still bring (`LINK_FRAMES_MAX` each).
const CROWDED_BELOW: usize = 256;

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendRefused {
    /// The outbox has no place for this urgency.
    Full,
    /// The connection has ended.
    Closed,
}

/// A strong hold on one connection. Clone it to hold longer; drop it to let go.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    hold: Arc<Hold>,
}

/// What all leases on one connection share: its only sender.
#[derive(Debug)]
struct Hold {
    sender: mpsc::Sender<Outgoing>,
    state: Arc<OutboxState>,
}

impl Drop for Hold {
    /// The last lease is gone. Noted before the outbox can hear of it.
    fn drop(&mut self) {
        self.state.life.depart(Departure::LetGo, Instant::now());
    }
}

/// A weak hold: it can hand out leases while at least one lives.
#[derive(Debug, Clone)]
pub(crate) struct LeaseSource {
    hold: Weak<Hold>,
    state: Arc<OutboxState>,
}

/// The connection's end: frames come out in order, then `None`.
#[derive(Debug)]
pub(crate) struct Outbox {
    receiver: mpsc::Receiver<Outgoing>,
    state: Arc<OutboxState>,
}

#[derive(Debug)]
struct OutboxState {
    life: Arc<Life>,
    perennial: bool,
    bytes: AtomicUsize,
    bytes_max: usize,
    frames_max: usize,
    membership_reserve: usize,
    full_since: Mutex<Option<Instant>>,
    patience: Mutex<Patience>,
    /// Frames that were taken since the start.
    taken: AtomicUsize,
    superseded: AtomicBool,
    unclaimed: AtomicBool,
    overflowed: CancellationToken,
    merits: Mutex<Merits>,
}

/// What a connection has to its credit when one must go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Merits {
    /// The round-trip time of its selected path.
    pub(crate) rtt: Option<Duration>,
    /// When it was last the first to deliver a message.
    pub(crate) novel_at: Option<Instant>,
}

/// A fresh outbox for one connection, with its first lease.
pub(crate) fn outbox(life: Arc<Life>, perennial: bool, limits: &Limits) -> (Lease, Outbox) {
    let (sender, receiver) = mpsc::channel(limits.outbox_frames_max);
    let state = Arc::new(OutboxState {
        life,
        perennial,
        bytes: AtomicUsize::new(0),
        bytes_max: limits.outbox_bytes_max,
        frames_max: limits.outbox_frames_max,
        membership_reserve: limits.outbox_membership_reserve,
        full_since: Mutex::new(None),
        patience: Mutex::new(Patience::new(limits.pace_min)),
        taken: AtomicUsize::new(0),
        superseded: AtomicBool::new(false),
        unclaimed: AtomicBool::new(false),
        overflowed: CancellationToken::new(),
        merits: Mutex::default(),
    });
    let hold = Hold { sender, state: state.clone() };
    (Lease { hold: Arc::new(hold) }, Outbox { receiver, state })
}

impl Lease {
    /// The number of the connection this lease holds.
    pub(crate) fn connection(&self) -> u64 {
        self.hold.state.life.number()
    }

    /// Whether the remote is a perennial node.
    pub(crate) fn is_perennial(&self) -> bool {
        self.hold.state.perennial
    }

    /// It was the first to deliver a message.
    pub(crate) fn note_novel(&self, now: Instant) {
        self.hold.state.merits.lock().expect("no holder panics").novel_at = Some(now);
    }

    /// Whether the connection has ended, or another one to the same remote should be used.
    pub(crate) fn is_stale(&self) -> bool {
        self.hold.sender.is_closed() || self.hold.state.superseded.load(Ordering::Relaxed)
    }

    /// Whether there is hardly room for payload.
    pub(crate) fn is_crowded(&self) -> bool {
        let state = &self.hold.state;
        let room_max = state.frames_max - state.membership_reserve;
        self.hold.sender.capacity() <= state.membership_reserve + CROWDED_BELOW.min(room_max / 2)
            || state.bytes.load(Ordering::Relaxed) > state.bytes_max / 4 * 3
    }

    /// Whether its remote is to be waited for until there is room. Not for ever: one that does not read must not hold up the others.
    pub(crate) fn is_worth_waiting(&self) -> bool {
        self.holds_up() && self.patience(Patience::is_left)
    }

    /// Who is to wait for its remote, for one pause.
    pub(crate) fn wait(&self) -> Waiting {
        if self.holds_up() { self.patience(Patience::spend) } else { Waiting::Nobody }
    }

    fn holds_up(&self) -> bool {
        self.is_crowded() && !self.hold.sender.is_closed()
    }

    fn patience<T>(&self, ask: impl FnOnce(&mut Patience, usize) -> T) -> T {
        let state = &self.hold.state;
        let taken = state.taken.load(Ordering::Relaxed);
        ask(&mut state.patience.lock().expect("no holder panics"), taken)
    }

    /// Queues one item without waiting.
    ///
    /// # Errors
    ///
    /// [`SendRefused::Full`] when there is no place for `urgency`; for membership that also marks the remote a slow peer
    /// and ends the connection. [`SendRefused::Closed`] when the connection has ended.
    pub(crate) fn send(&self, item: Outgoing, urgency: Urgency, now: Instant) -> Result<(), SendRefused> {
        if self.hold.sender.is_closed() {
            return Err(SendRefused::Closed);
        }
        let len = item.len();
        let bytes = self.hold.state.bytes.fetch_add(len, Ordering::Relaxed) + len;
        let state = &self.hold.state;
        let leaves_free = |places| bytes <= state.bytes_max && self.hold.sender.capacity() > places;
        let fits = match urgency {
            Urgency::Payload => leaves_free(state.membership_reserve),
            Urgency::Tree => leaves_free(state.membership_reserve / 2),
            Urgency::Membership => true,
        };
        let sent = match fits {
            true => self.hold.sender.try_send(item).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SendRefused::Full,
                mpsc::error::TrySendError::Closed(_) => SendRefused::Closed,
            }),
            false => Err(SendRefused::Full),
        };
        if let Err(refused) = sent {
            self.hold.state.bytes.fetch_sub(len, Ordering::Relaxed);
            if refused == SendRefused::Full {
                let mut full_since = self.hold.state.full_since.lock().expect("no holder panics");
                // Emptied in between, nobody would take the mark off again.
                if self.hold.sender.capacity() <= self.hold.state.frames_max / 2 || bytes > self.hold.state.bytes_max {
                    full_since.get_or_insert(now);
                }
                drop(full_since);
                if urgency == Urgency::Membership {
                    self.hold.state.overflowed.cancel();
                }
            }
        }
        sent
    }

    pub(crate) fn source(&self) -> LeaseSource {
        LeaseSource { hold: Arc::downgrade(&self.hold), state: self.hold.state.clone() }
    }
}

impl LeaseSource {
    pub(crate) fn connection(&self) -> u64 {
        self.state.life.number()
    }

    pub(crate) fn life(&self) -> &Life {
        &self.state.life
    }

    /// A new lease, if the connection is still held by anyone.
    pub(crate) fn upgrade(&self) -> Option<Lease> {
        let hold = self.hold.upgrade()?;
        (!hold.sender.is_closed()).then_some(Lease { hold })
    }

    pub(crate) fn note_rtt(&self, rtt: Option<Duration>) {
        self.state.merits.lock().expect("no holder panics").rtt = rtt;
    }

    pub(crate) fn merits(&self) -> Merits {
        *self.state.merits.lock().expect("no holder panics")
    }

    /// Leases that live now.
    pub(crate) fn leases(&self) -> usize {
        self.hold.strong_count()
    }

    pub(crate) fn queued_frames(&self) -> usize {
        self.hold.upgrade().map_or(0, |hold| self.state.frames_max.saturating_sub(hold.sender.capacity()))
    }

    /// Marks the connection as replaced: its holders should take a lease on the one that replaced it.
    pub(crate) fn supersede(&self) {
        self.state.superseded.store(true, Ordering::Relaxed);
    }

    /// Marks the connection as one that no topic wanted.
    pub(crate) fn mark_unclaimed(&self) {
        self.state.unclaimed.store(true, Ordering::Relaxed);
    }
}

impl Outbox {
    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.state.life
    }

    /// The next item; `None` once the last lease is gone and everything queued has been taken. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Outgoing> {
        let item = self.receiver.recv().await;
        self.on_taken(item.as_ref());
        item
    }

    /// The next item if one is waiting.
    pub(crate) fn next_now(&mut self) -> Option<Outgoing> {
        let item = self.receiver.try_recv().ok();
        self.on_taken(item.as_ref());
        item
    }

    /// Resolves when a membership frame found no place.
    pub(crate) fn overflowed(&self) -> CancellationToken {
        self.state.overflowed.clone()
    }

    /// A view on how long this outbox has been full, for the loop that watches it.
    pub(crate) fn gauge(&self) -> OutboxGauge {
        OutboxGauge { state: self.state.clone() }
    }

    fn on_taken(&mut self, item: Option<&Outgoing>) {
        if let Some(item) = item {
            self.state.bytes.fetch_sub(item.len(), Ordering::Relaxed);
            self.state.taken.fetch_add(1, Ordering::Relaxed);
            if self.receiver.len() <= self.state.frames_max / 2 {
                *self.state.full_since.lock().expect("no holder panics") = None;
            }
        }
    }
}

/// See [`Outbox::gauge`].
#[derive(Debug)]
pub(crate) struct OutboxGauge {
    state: Arc<OutboxState>,
}

impl OutboxGauge {
    pub(crate) fn is_full_for(&self, now: Instant, timeout: Duration) -> bool {
        let full_since = *self.state.full_since.lock().expect("no holder panics");
        full_since.is_some_and(|since| now.duration_since(since) >= timeout)
    }

    /// Whether another connection to the same remote is used.
    pub(crate) fn is_superseded(&self) -> bool {
        self.state.superseded.load(Ordering::Relaxed)
    }

    /// Whether no topic ever wanted this connection.
    pub(crate) fn is_unclaimed(&self) -> bool {
        self.state.unclaimed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId::from_bytes([7; 32]);

    fn limits() -> Limits {
        Limits { outbox_frames_max: 4, outbox_membership_reserve: 2, outbox_bytes_max: 8192, ..Limits::default() }
    }

    fn life() -> Arc<Life> {
        Arc::new(Life::new(1, iroh::SecretKey::from_bytes(&[1; 32]).public(), Instant::now()))
    }

    fn frame(len: usize) -> Outgoing {
        Outgoing::Frame { topic: TOPIC, frame: Bytes::from(vec![0; len]), last: false }
    }

    #[tokio::test]
    async fn dropping_the_last_lease_yields_none_after_what_was_queued() {
        let (lease, mut outbox) = outbox(life(), true, &limits());
        let source = lease.source();
        let second = source.upgrade().expect("the first lease lives");
        second.send(frame(10), Urgency::Payload, Instant::now()).expect("an empty outbox");
        drop(lease);
        assert_eq!(source.life().departed(Instant::now()), None, "one lease is enough");
        drop(second);
        assert!(matches!(source.life().departed(Instant::now()), Some((Departure::LetGo, _))));
        assert!(outbox.next().await.is_some(), "queued frames are written first");
        assert!(outbox.next().await.is_none());
        assert!(source.upgrade().is_none(), "a retired connection cannot be leased");
    }

    #[tokio::test]
    async fn the_last_places_are_kept_for_membership() {
        let now = Instant::now();
        let (lease, mut outbox) = outbox(life(), true, &limits());
        for _ in 0..2 {
            lease.send(frame(10), Urgency::Payload, now).expect("room for payload");
        }
        assert_eq!(lease.send(frame(10), Urgency::Payload, now), Err(SendRefused::Full));
        for _ in 0..2 {
            lease.send(frame(10), Urgency::Membership, now).expect("the reserve");
        }
        assert!(!outbox.overflowed().is_cancelled());
        assert_eq!(lease.send(frame(10), Urgency::Membership, now), Err(SendRefused::Full));
        assert!(outbox.overflowed().is_cancelled(), "no room even for membership: a slow peer");
        assert!(outbox.gauge().is_full_for(now, Duration::ZERO));
        while outbox.next_now().is_some() {}
        assert!(!outbox.gauge().is_full_for(now, Duration::ZERO), "an emptied outbox is not full");
    }

    #[tokio::test]
    async fn a_crowded_outbox_is_waited_for_while_frames_are_taken() {
        let now = Instant::now();
        let (lease, mut outbox) = outbox(life(), true, &limits());
        let is_waited_for = || lease.wait() > Waiting::Nobody;
        assert!(!is_waited_for(), "there is room");
        let crowd = || lease.send(frame(10), Urgency::Payload, now).expect("room for payload");
        crowd();
        assert!((0..1000).filter(|_| is_waited_for()).count() < 1000, "nothing is taken");
        for _ in 0..1000 {
            assert!(outbox.next_now().is_some());
            assert!(!is_waited_for(), "emptied");
            crowd();
            assert!(is_waited_for());
        }
    }

    #[tokio::test]
    async fn bytes_are_bounded_beside_frames_and_come_back() {
        let now = Instant::now();
        let (lease, mut outbox) = outbox(life(), true, &limits());
        lease.send(frame(8000), Urgency::Payload, now).expect("fits");
        assert_eq!(lease.send(frame(8000), Urgency::Payload, now), Err(SendRefused::Full));
        assert!(outbox.next().await.is_some());
        lease.send(frame(8000), Urgency::Payload, now).expect("the bytes came back");
    }
}
