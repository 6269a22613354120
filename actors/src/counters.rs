//! Everything a node refused, ignored, dropped or closed, counted by reason. `[pure]`
//!
//! A remote's misbehaviour is never an error of ours and never a log line per frame: it is one more on a counter.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why something was refused, ignored, dropped or closed. A closed set: fit to be a metric's label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason { $($(#[doc = $doc])+ $variant,)+ }

        impl Reason {
            /// Every reason, in the order of a report.
            pub const ALL: [Reason; [$($name),+].len()] = [$(Reason::$variant),+];

            /// The stable name of this reason in reports, metrics and JSON.
            pub fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)+ }
            }
        }
    };
}

reasons! {
    /// An incoming connection at the global cap.
    RefusedAtCap => "refused-at-cap",
    /// An incoming connection while too many handshakes were under way.
    RefusedHandshakes => "refused-handshakes",
    /// An incoming connection at the ceiling for incoming ones.
    RefusedAtInboundCap => "refused-at-inbound-cap",
    /// An incoming connection at its listener's or relay's cap.
    RefusedAtListenerCap => "refused-at-listener-cap",
    /// An incoming connection at the cap of its address prefix.
    RefusedAtPrefixCap => "refused-at-prefix-cap",
    /// An incoming connection beyond the rate of all, or of its address prefix.
    RefusedAtRate => "refused-at-rate",
    /// An incoming connection dropped by chance while flooded.
    RefusedInFlood => "refused-in-flood",
    /// An incoming connection of an unknown remote while memory or descriptors ran low.
    RefusedUnderPressure => "refused-under-pressure",
    /// A source was asked to prove its address.
    AskedToRetry => "asked-to-retry",
    /// A source that did not prove its address although it was asked several times within a second.
    RetriedEnough => "retried-enough",
    /// An attempt that waited for a slot and got none in time.
    WaitedInVain => "waited-in-vain",
    /// A remote on the denied list, or one that the embedder does not deal with.
    Denied => "denied",
    /// A Join that the embedder did not approve of, or that found too many others waiting for its word; and whatever else
    /// a remote says on a topic before that word.
    JoinNotApproved => "join-not-approved",
    /// A connection closed to make room for a known remote, or because memory or descriptors ran low.
    Evicted => "evicted",
    /// An accepted connection on which nothing was said in time.
    ClosedHelloTimeout => "closed-hello-timeout",
    /// A connection over the cap of one remote.
    ClosedPerPeer => "closed-per-peer",
    /// An incoming handshake that missed its deadline.
    HandshakeTimeout => "handshake-timeout",
    /// An incoming handshake that failed.
    HandshakeFailed => "handshake-failed",
    /// An outgoing attempt that failed, missed its deadline, or was given up because nobody waited for it any more.
    DialFailed => "dial-failed",
    /// An outgoing attempt that was not made, because its remote's pause is not over.
    DialTooEarly => "dial-too-early",
    /// An outgoing attempt that was not made, because the relay it would have gone through is degraded.
    DialGated => "dial-gated",
    /// An outgoing attempt that was not made, because the node was at its cap or had too many under way.
    DialRefused => "dial-refused",
    /// An accepted connection that no topic claimed in time.
    ClosedUnclaimed => "closed-unclaimed",
    /// A connection closed because its remote did not read.
    ClosedSlowPeer => "closed-slow-peer",
    /// A connection closed because of what its remote sent.
    ClosedProtocol => "closed-protocol",
    /// A connection loop that had stopped turning and was killed.
    ClosedFrozen => "closed-frozen",
    /// A frame that announced more bytes than a frame may have.
    FrameTooLarge => "frame-too-large",
    /// A stream that began a frame and did not finish it in time, or ended inside one.
    FrameUnfinished => "frame-unfinished",
    /// A stream that never named its topic.
    HeaderMissing => "header-missing",
    /// A frame that is not a message of the protocol.
    MessageMalformed => "message-malformed",
    /// A message with an impossible round.
    RoundImpossible => "round-impossible",
    /// A message that names this node where it must not.
    SelfAddressed => "self-addressed",
    /// Nodes cut from an oversize Shuffle or ShuffleReply.
    NodesCut => "nodes-cut",
    /// Opaque address data that was too large or unreadable.
    PeerDataDropped => "peer-data-dropped",
    /// A walk (ForwardJoin, Shuffle) or a word about content from a remote that is no neighbour.
    FromStranger => "from-stranger",
    /// A Join of a neighbour right after its last one.
    JoinRepeated => "join-repeated",
    /// Announcements (IHave) beyond what a topic remembers, or repeated ones.
    AnnouncementsDropped => "announcements-dropped",
    /// A frame for a topic that is not joined.
    TopicUnknown => "topic-unknown",
    /// A frame dropped because its topic's inbox stayed full.
    InboxFull => "inbox-full",
    /// A payload frame dropped because a connection's outbox was full.
    OutboxFull => "outbox-full",
    /// A gossip frame dropped because its remote is not connected.
    NotConnected => "not-connected",
    /// A message this node would have sent that does not fit a frame.
    OutgoingTooLarge => "outgoing-too-large",
    /// An address that did not fit the address book.
    AddressDropped => "address-dropped",
}

/// Where a [`Reason`] applies. A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// An incoming attempt, up to the end of its handshake.
    Door,
    /// An outgoing attempt.
    Dial,
    /// A connection that was closed, by this node's own decision.
    Connection,
    /// A frame, or a part of one.
    Frame,
}

impl Reason {
    /// Where this reason applies.
    pub fn stage(self) -> Stage {
        match self {
            Reason::RefusedAtCap
            | Reason::RefusedHandshakes
            | Reason::RefusedAtInboundCap
            | Reason::RefusedAtListenerCap
            | Reason::RefusedAtPrefixCap
            | Reason::RefusedAtRate
            | Reason::RefusedInFlood
            | Reason::RefusedUnderPressure
            | Reason::AskedToRetry
            | Reason::RetriedEnough
            | Reason::WaitedInVain
            | Reason::Denied
            | Reason::HandshakeTimeout
            | Reason::HandshakeFailed => Stage::Door,
            Reason::DialFailed | Reason::DialTooEarly | Reason::DialRefused | Reason::DialGated => Stage::Dial,
            Reason::Evicted
            | Reason::ClosedHelloTimeout
            | Reason::ClosedPerPeer
            | Reason::ClosedUnclaimed
            | Reason::ClosedSlowPeer
            | Reason::ClosedProtocol
            | Reason::ClosedFrozen => Stage::Connection,
            Reason::JoinNotApproved
            | Reason::FrameTooLarge
            | Reason::FrameUnfinished
            | Reason::HeaderMissing
            | Reason::MessageMalformed
            | Reason::RoundImpossible
            | Reason::SelfAddressed
            | Reason::NodesCut
            | Reason::PeerDataDropped
            | Reason::FromStranger
            | Reason::JoinRepeated
            | Reason::AnnouncementsDropped
            | Reason::TopicUnknown
            | Reason::InboxFull
            | Reason::OutboxFull
            | Reason::NotConnected
            | Reason::OutgoingTooLarge
            | Reason::AddressDropped => Stage::Frame,
        }
    }
}

/// The live counters of one mesh. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    lines: Arc<[AtomicU64; Reason::ALL.len()]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { lines: Arc::new([const { AtomicU64::new(0) }; Reason::ALL.len()]) }
    }
}

impl Counters {
    pub(crate) fn count(&self, reason: Reason) {
        self.add(reason, 1);
    }

    pub(crate) fn add(&self, reason: Reason, n: u64) {
        self.lines[reason as usize].fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counts {
        Counts { counts: std::array::from_fn(|index| self.lines[index].load(Ordering::Relaxed)) }
    }
}

/// A copy of the counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    counts: [u64; Reason::ALL.len()],
}

impl Counts {
    /// How often `reason` was counted since the start.
    pub fn get(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    /// Every reason with its count, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }
}
