//! Every bound and every timeout of a node, with how the number was chosen. `[pure]`
//!
//! [`Limits`] is what an embedder may change; the constants below it are fixed by the wire or by a measurement.
//! Relations between numbers are asserted at compile time for the defaults and by [`Limits::validate`] for the rest:
//! an impossible combination is an error at start, and no limit is ever silently shrunk.

use std::time::Duration;

/// The largest frame body stock iroh-gossip reads; it writes only bodies strictly shorter (`net/util.rs`, 0.101.0).
pub const FRAME_MAX: usize = 4096;

/// The most content one message can carry on every hop: [`FRAME_MAX`] − 1 for the strict writer, less 2 for the
/// variants, 32 for the id, 2 for the length, 1 for the scope and 3 for the longest round.
pub const CONTENT_MAX: usize = FRAME_MAX - 1 - 2 - 32 - 2 - 1 - 3;
const _: () = assert!(CONTENT_MAX == 4055);

/// The highest round accepted. A honest round is the number of hops, a handful; `Round(65535)` overflows the next hop.
pub const ROUND_MAX: u16 = 1024;

/// The most nodes accepted in one Shuffle or ShuffleReply; stock sends at most eight. The rest is cut off.
pub const SHUFFLE_NODES_MAX: usize = 16;

/// The most ids in one IHave that fit a frame: ⌊(4096 − 33 − 3) / 35⌋, the chunk stock itself uses.
pub const IHAVE_IDS_MAX: usize = 116;

/// The longest random walk accepted; the paper uses 6 (HyParView, p. 9).
pub const TTL_MAX: u16 = 16;

/// The most bytes of one peer's opaque address data that are looked at. Sixteen IPv6 addresses need 320.
pub const PEER_DATA_MAX: usize = 512;

/// Every bound and timeout an embedder may set.
///
/// [`Limits::default`] suits a node with a handful of topics. All fields are plain numbers; [`Limits::validate`] names
/// the first contradiction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// QUIC connections at one time, in both directions, half-open ones included. 128: what Bitcoin Core and go-libp2p
    /// settled on.
    pub connections_max: usize,
    /// Live connections to one remote. Two, because stock peers that dial each other at once use both.
    pub connections_per_peer_max: usize,
    /// Incoming handshakes at one time. 32: a 32-permit semaphore kept a flooded stock node answering (measured).
    pub handshakes_max: usize,
    /// Outgoing attempts at one time. Guess; change it when a mass restart waits on it.
    pub dials_max: usize,
    /// Topics joined at one time. Bounded by the streams a stock peer lets us open (100).
    pub topics_max: usize,
    /// Remotes the address book remembers. Guess: 64 times the passive view of one topic, about 1 MiB.
    pub addresses_max: usize,
    /// Addresses remembered per remote. Initials go to every known path, so this bounds what a forged entry reflects.
    pub addresses_per_peer_max: usize,
    /// Decoded frames waiting for a topic; then its readers wait.
    pub topic_frames_max: usize,
    /// Commands of the application waiting for a topic; then the publisher waits.
    pub topic_commands_max: usize,
    /// Events waiting for a subscriber; then it is told how many it lost.
    pub events_max: usize,
    /// Frames waiting for a connection; then payload is dropped and counted.
    pub outbox_frames_max: usize,
    /// Bytes waiting for a connection. One QUIC send window of a connection.
    pub outbox_bytes_max: usize,
    /// The last places of an outbox, kept for membership messages.
    pub outbox_membership_reserve: usize,
    /// Frames a topic keeps for a remote it is still dialing.
    pub pending_frames_max: usize,
    /// Announced messages (IHave) a topic waits for at one time; beyond it announcements are dropped. Upstream proposed
    /// 10 000.
    pub announced_max: usize,

    /// An outgoing attempt ends after this long. Three times the 3 s a lost first flight costs.
    pub dial_timeout: Duration,
    /// An incoming handshake ends after this long. QUIC has no absolute deadline of its own.
    pub handshake_timeout: Duration,
    /// A frame, once its first byte is there, must be complete after this long.
    pub frame_timeout: Duration,
    /// A reader waits this long for a place in its topic's inbox before it drops the frame and counts it.
    pub inbox_wait: Duration,
    /// An outbox that stays full this long, or one write that takes it, makes the remote a slow peer.
    pub slow_peer_timeout: Duration,
    /// An accepted connection that no topic claims is retired after this long.
    pub unclaimed_timeout: Duration,
    /// A remote that is no neighbour is parted from after this long without a message. 4 s: the prototype's figure.
    pub linger: Duration,
    /// The state hears that a peer is gone at the latest this long after our farewell.
    pub farewell_timeout: Duration,
    /// Finished streams must be acknowledged within this long at retirement. Stock waits as long.
    pub finish_timeout: Duration,
    /// After the last acknowledgement a connection stays this long, so that a stock peer can accept its streams.
    pub close_grace: Duration,
    /// QUIC idle timeout. A killed neighbour is noticed after at most this and one keep-alive; until then the view holds
    /// a dead place. Stock waits 30 s for its own kind and accepts less.
    pub idle_timeout: Duration,
    /// QUIC keep-alive.
    pub keep_alive: Duration,
    /// An address not confirmed for this long is forgotten. Stock keeps them five minutes.
    pub address_ttl: Duration,
    /// A topic without a neighbour asks its bootstrap peers again after this long, doubling up to
    /// [`Limits::rejoin_max`].
    pub rejoin_min: Duration,
    /// The longest pause between two attempts to rejoin.
    pub rejoin_max: Duration,
    /// The state is swept of empty entries this often.
    pub sweep_interval: Duration,
    /// How often supervisors look at their children.
    pub tick: Duration,
    /// A loop that has not turned for this long is frozen: it is killed and handled as a crash.
    pub frozen_timeout: Duration,
    /// Restarts of one child allowed within [`Limits::restart_period`]; one more ends its supervisor's patience.
    pub restarts_max: usize,
    /// The window in which restarts are counted.
    pub restart_period: Duration,
    /// How often a topic exchanges known nodes with one at the end of a random walk. Stock waits 60 s, longer than a node
    /// lives under a kill storm; each exchange may cost a connection for a few seconds. Guess.
    pub shuffle_interval: Duration,
    /// How long message content is kept to answer a Graft. Stock keeps 30 s, which costs half a gigabyte in a burst.
    pub message_retention: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            connections_per_peer_max: 2,
            handshakes_max: 32,
            dials_max: 32,
            topics_max: 64,
            addresses_max: 2048,
            addresses_per_peer_max: 8,
            topic_frames_max: 1024,
            topic_commands_max: 64,
            events_max: 256,
            outbox_frames_max: 256,
            outbox_bytes_max: 1 << 20,
            outbox_membership_reserve: 64,
            pending_frames_max: 16,
            announced_max: 10_000,
            dial_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(10),
            inbox_wait: Duration::from_secs(2),
            slow_peer_timeout: Duration::from_secs(10),
            unclaimed_timeout: Duration::from_secs(10),
            linger: Duration::from_secs(4),
            farewell_timeout: Duration::from_secs(5),
            finish_timeout: Duration::from_secs(5),
            close_grace: Duration::from_millis(200),
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            address_ttl: Duration::from_secs(600),
            rejoin_min: Duration::from_secs(1),
            rejoin_max: Duration::from_secs(30),
            sweep_interval: Duration::from_secs(10),
            tick: Duration::from_millis(250),
            frozen_timeout: Duration::from_secs(30),
            restarts_max: 5,
            restart_period: Duration::from_secs(60),
            shuffle_interval: Duration::from_secs(20),
            message_retention: Duration::from_secs(10),
        }
    }
}

/// A contradiction between limits, with what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LimitsError(String);

impl Limits {
    /// Checks every relation between the limits.
    ///
    /// # Errors
    ///
    /// Names the first contradiction found, with both numbers.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let positive = [
            ("connections_max", self.connections_max),
            ("connections_per_peer_max", self.connections_per_peer_max),
            ("handshakes_max", self.handshakes_max),
            ("dials_max", self.dials_max),
            ("topics_max", self.topics_max),
            ("addresses_max", self.addresses_max),
            ("addresses_per_peer_max", self.addresses_per_peer_max),
            ("topic_frames_max", self.topic_frames_max),
            ("topic_commands_max", self.topic_commands_max),
            ("events_max", self.events_max),
            ("pending_frames_max", self.pending_frames_max),
            ("announced_max", self.announced_max),
            ("restarts_max", self.restarts_max),
        ];
        for (name, value) in positive {
            check(value > 0, || format!("{name} is 0; it must be at least 1"))?;
        }
        check(self.connections_per_peer_max <= self.connections_max, || {
            format!(
                "connections_per_peer_max of {} exceeds connections_max of {}",
                self.connections_per_peer_max, self.connections_max
            )
        })?;
        check(self.outbox_membership_reserve < self.outbox_frames_max, || {
            format!(
                "outbox_membership_reserve of {} leaves no payload room in outbox_frames_max of {}",
                self.outbox_membership_reserve, self.outbox_frames_max
            )
        })?;
        check(self.outbox_bytes_max >= 2 * FRAME_MAX, || {
            format!("outbox_bytes_max of {} holds less than two frames of {FRAME_MAX}", self.outbox_bytes_max)
        })?;
        check(self.idle_timeout >= self.keep_alive * 2, || {
            format!("idle_timeout of {:?} is less than two keep-alives of {:?}", self.idle_timeout, self.keep_alive)
        })?;
        check(self.rejoin_min <= self.rejoin_max, || {
            format!("rejoin_min of {:?} exceeds rejoin_max of {:?}", self.rejoin_min, self.rejoin_max)
        })?;
        check(!self.tick.is_zero(), || "tick is 0; it must be at least 1 ms".into())?;
        check(self.frozen_timeout >= self.tick * 4, || {
            format!("frozen_timeout of {:?} is less than four ticks of {:?}", self.frozen_timeout, self.tick)
        })?;
        check(self.inbox_wait < self.slow_peer_timeout, || {
            format!(
                "inbox_wait of {:?} must be less than slow_peer_timeout of {:?}, or a full topic costs the connection",
                self.inbox_wait, self.slow_peer_timeout
            )
        })?;
        // A reader that waits for its topic is alive; only then may a silent loop be called frozen.
        check(self.frozen_timeout > self.inbox_wait, || {
            format!("frozen_timeout of {:?} must exceed inbox_wait of {:?}", self.frozen_timeout, self.inbox_wait)
        })
    }
}

fn check(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), LimitsError> {
    if holds { Ok(()) } else { Err(LimitsError(sentence())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together() {
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn contradictions_are_named_with_both_numbers() {
        type Case = (fn(&mut Limits), &'static str);
        let cases: [Case; 5] = [
            (|l| l.connections_max = 0, "connections_max is 0; it must be at least 1"),
            (|l| l.connections_max = 1, "connections_per_peer_max of 2 exceeds connections_max of 1"),
            (
                |l| l.outbox_frames_max = 64,
                "outbox_membership_reserve of 64 leaves no payload room in outbox_frames_max of 64",
            ),
            (|l| l.idle_timeout = Duration::from_secs(5), "idle_timeout of 5s is less than two keep-alives of 3s"),
            (|l| l.frozen_timeout = Duration::from_secs(1), "frozen_timeout of 1s must exceed inbox_wait of 2s"),
        ];
        for (change, sentence) in cases {
            let mut limits = Limits::default();
            change(&mut limits);
            assert_eq!(limits.validate().unwrap_err().to_string(), sentence);
        }
    }
}
