//! Every bound and every timeout of a node, with how the number was chosen. `[pure]`
//!
//! [`Limits`] is what an embedder may change; the constants below it are fixed by the wire or by a measurement.
//! Relations between numbers are asserted at compile time for the defaults and by [`Limits::validate`] for the rest:
//! an impossible combination is an error at start, and no limit is ever silently shrunk.

use std::time::Duration;

mod named;
mod validate;

pub use validate::LimitsError;

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
    /// Of those, connections that remotes may have dialed. The difference is left for our own dials: Bitcoin Core keeps 11
    /// of 125; ours is larger because every topic wants five neighbours.
    pub inbound_max: usize,
    /// Of [`Limits::inbound_max`], slots that only known remotes get. bitcoin/bitcoin#8798 has asked for it since 2016.
    pub known_reserve: usize,
    /// Connections accepted through relays. Ids are free to mint there and have no address to be grouped by; of these,
    /// one relay gets at most a quarter of what unknown remotes may have.
    pub relay_connections_max: usize,
    /// Accepted connections of unknown remotes from one IPv4 address. go-libp2p's number; an office behind one address
    /// fits.
    pub connections_per_ipv4_max: usize,
    /// Accepted connections of unknown remotes from one IPv6 /56, what one household gets. go-libp2p's number.
    pub connections_per_ipv6_56_max: usize,
    /// Accepted connections of unknown remotes from one IPv6 /48, what one site gets. go-libp2p's number.
    pub connections_per_ipv6_48_max: usize,
    /// Whether loopback sources are exempt from the limits per address and prefix, so that one-host networks work. Never
    /// exempt from anything else.
    pub exempt_loopback: bool,
    /// Live connections to one remote. Two, because stock peers that dial each other at once use both.
    pub connections_per_peer_max: usize,
    /// Incoming handshakes at one time, with what failed ones leave behind. Each takes 0.7 ms of a processor and 60 KB: with 32
    /// a flood of identities doubled the delay of a neighbour's messages, with 16 it did not show (measured).
    pub handshakes_max: usize,
    /// Of those, at one listener: the others stay reachable when one is flooded.
    pub handshakes_per_listener_max: usize,
    /// Handshakes made although there is no slot, to learn who is knocking; half of them only for sources that a known
    /// remote has used. Live connections never exceed [`Limits::connections_max`] by more than this. None is made while as
    /// many failed ones as [`Limits::handshakes_max`] have left something behind.
    pub speculative_max: usize,
    /// From this many incoming handshakes on, sources that have not proved their address are asked to (QUIC Retry, RFC
    /// 9000 §8.1.2). Half of the semaphore: what forgers can hold of it is 0.5 MB, and an honest remote pays one round trip
    /// only when eight others are at the door.
    pub retry_above: usize,
    /// Attempts per listener that wait for a slot without a handshake.
    pub waiting_max: usize,
    /// Attempts admitted per second, altogether. A handshake takes 0.7 ms of a processor (measured), so these take 4 % of
    /// one.
    pub admissions_per_second: u32,
    /// Attempts admitted at once before [`Limits::admissions_per_second`] binds: a full house after a restart.
    pub admissions_burst: u32,
    /// Attempts admitted per minute from one address or prefix. go-libp2p's 0.2 per second.
    pub prefix_admissions_per_minute: u32,
    /// Attempts admitted at once from one address or prefix.
    pub prefix_admissions_burst: u32,
    /// Attempts admitted per minute through one relay.
    pub relay_admissions_per_minute: u32,
    /// Attempts admitted at once through one relay.
    pub relay_admissions_burst: u32,
    /// More attempts admitted within a minute are a flood: prefixes are drawn wider and unknown sources are dropped by
    /// chance. dcrd's number.
    pub flood_per_minute: u32,
    /// Address prefixes whose rate is remembered. dcrd keeps 10 000, about 2 MiB.
    pub prefixes_max: usize,
    /// Closed connections remembered, with their causes: at the one restart a second of a soak, the last minutes. Guess.
    pub history_max: usize,
    /// Joins of one topic that wait for the embedder's word at one time.
    pub approvals_max: usize,
    /// Remotes whose failed dials are remembered. Known ones are never forgotten.
    pub redials_max: usize,
    /// Resident memory of this process in bytes that must not be exceeded: from 80 % on no unknown remote is admitted, from
    /// 95 % on unknown ones are closed, one a second. `None`: not watched.
    pub memory_budget: Option<u64>,
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
    /// Messages a second: a neighbour or subscriber that takes at least so many is waited for, by publishers of this node and by the
    /// links that bring more. One that takes fewer loses what does not fit, and one that takes none is waited for half a
    /// second. 0: nobody is waited for. A tenth of what a busy node still takes, measured.
    pub pace_min: u32,
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
    /// An incoming handshake ends after this long; after half of it if the source has not proved its address, after a fifth
    /// while somebody waits for a slot. QUIC has no absolute deadline of its own.
    pub handshake_timeout: Duration,
    /// An attempt without a slot waits this long for one, before its handshake or after it. Below every dialer's own
    /// patience.
    pub waiting_timeout: Duration,
    /// An accepted connection must have named a topic after this long; after a fifth of it while somebody waits for a slot.
    pub first_frame_timeout: Duration,
    /// The embedder's word on a Join is waited for this long; then it is no.
    pub approval_timeout: Duration,
    /// A connection is not closed to make room before it is this old, if another can be.
    pub eviction_age_min: Duration,
    /// The pause after one failed dial; it doubles with every further one up to [`Limits::redial_max`].
    pub redial_min: Duration,
    /// The longest pause between two dials of one remote.
    pub redial_max: Duration,
    /// A connection that lived this long was stable: earlier failures are forgiven.
    pub stable_after: Duration,
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
    /// The longest pause between two attempts to rejoin, while there is anybody to ask: see [`Limits::breaker_open_max`].
    pub rejoin_max: Duration,
    /// So many failed attempts in a row degrade a backend (a topic's bootstrap, a relay): nothing more is begun for it until a
    /// probe has succeeded. 0: never. urnetwork's and Envoy's order; two could be one lost packet each.
    pub breaker_failures: u32,
    /// A failure this long after the last one begins a new row, and a degraded backend that nobody asks for is forgotten this
    /// long after its probe was due. urnetwork's number: "comfortably larger" than any pause between two attempts.
    pub breaker_window: Duration,
    /// A degraded backend is probed after this long, a fifth more or less; the time doubles with every probe that fails.
    /// urnetwork's and Envoy's number.
    pub breaker_open_min: Duration,
    /// The longest time between two probes, but for that fifth; so long may a node that knows nobody else stay alone once its
    /// bootstrap is back. Envoy's number: in the long run such a node makes a fortieth of the dials it makes without a breaker
    /// (measured: one in 310 s, and 8.5 a minute).
    pub breaker_open_max: Duration,
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
    /// Content in bytes that one topic keeps for so long; beyond it the oldest goes early. A second of the fastest rate at
    /// which small messages still arrive, with room to spare. Guess.
    pub message_cache_bytes_max: usize,
    /// A message that was announced and has not come after this long is asked for (Graft), and then from one announcer after
    /// the other, in half the time each. Longer than a message takes on the tree through nodes that are busy: each one asked for
    /// although it was on its way adds a link to the tree, and duplicates. Stock waits 80 and 40 ms.
    pub graft_timeout: Duration,
    /// What neighbours that are not pushed a message are told of it (IHave) is gathered for this long. Only who has lost its
    /// way in the tree waits for it. Stock gathers for 5 ms: at 200 messages a second
    /// that is a packet for every message on every link that is not of the tree, three times as many as carry messages.
    pub announce_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Limits {
    const DEFAULT: Self = Self {
        connections_max: 128,
        inbound_max: 96,
        known_reserve: 16,
        relay_connections_max: 48,
        connections_per_ipv4_max: 8,
        connections_per_ipv6_56_max: 8,
        connections_per_ipv6_48_max: 64,
        exempt_loopback: true,
        connections_per_peer_max: 2,
        handshakes_max: 16,
        handshakes_per_listener_max: 12,
        speculative_max: 8,
        retry_above: 8,
        waiting_max: 8,
        admissions_per_second: 50,
        admissions_burst: 100,
        prefix_admissions_per_minute: 12,
        prefix_admissions_burst: 16,
        relay_admissions_per_minute: 300,
        relay_admissions_burst: 64,
        flood_per_minute: 300,
        prefixes_max: 8192,
        history_max: 256,
        approvals_max: 64,
        redials_max: 1024,
        memory_budget: None,
        dials_max: 32,
        topics_max: 64,
        addresses_max: 2048,
        addresses_per_peer_max: 8,
        topic_frames_max: 1024,
        topic_commands_max: 64,
        events_max: 1024,
        pace_min: 500,
        outbox_frames_max: 512,
        outbox_bytes_max: 1 << 20,
        outbox_membership_reserve: 64,
        pending_frames_max: 16,
        announced_max: 10_000,
        dial_timeout: Duration::from_secs(10),
        handshake_timeout: Duration::from_secs(10),
        waiting_timeout: Duration::from_secs(5),
        first_frame_timeout: Duration::from_secs(5),
        approval_timeout: Duration::from_secs(10),
        eviction_age_min: Duration::from_secs(30),
        redial_min: Duration::from_secs(1),
        redial_max: Duration::from_secs(300),
        stable_after: Duration::from_secs(60),
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
        breaker_failures: 3,
        breaker_window: Duration::from_secs(120),
        breaker_open_min: Duration::from_secs(30),
        breaker_open_max: Duration::from_secs(300),
        sweep_interval: Duration::from_secs(10),
        tick: Duration::from_millis(250),
        frozen_timeout: Duration::from_secs(30),
        restarts_max: 5,
        restart_period: Duration::from_secs(60),
        shuffle_interval: Duration::from_secs(20),
        message_retention: Duration::from_secs(10),
        message_cache_bytes_max: 4 << 20,
        graft_timeout: Duration::from_millis(100),
        announce_interval: Duration::from_millis(25),
    };
    /// The same limits for `max` connections: a quarter is left for our own dials, an eighth is kept for known remotes, and
    /// what is bounded by these follows. Says nothing about whether `max` makes sense; [`Limits::validate`] does.
    #[must_use]
    pub fn with_connections(self, max: usize) -> Self {
        let inbound_max = max - max / 4;
        Self {
            connections_max: max,
            inbound_max,
            known_reserve: max / 8,
            relay_connections_max: inbound_max / 2,
            connections_per_peer_max: self.connections_per_peer_max.min(max),
            prefixes_max: self.prefixes_max.max(inbound_max),
            redials_max: self.redials_max.max(max),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_any_size_has_shares_that_hold_together() {
        assert_eq!(Limits::default().with_connections(128), Limits::default());
        for max in [1, 2, 3, 4, 7, 8, 100, 5000] {
            assert_eq!(Limits::default().with_connections(max).validate(), Ok(()), "{max} connections");
        }
    }
}
