//! The limits of the door on one page: each cap, what is in use, what was at most. Plain values. `[pure]`

use super::{
    Door,
    seats::{Family, HighWater, Seats},
};
use crate::stores::StoreUse;

/// One limit and its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUse {
    /// The name of the limit; the name of its field in [`crate::Limits`] where it has one.
    pub name: String,
    /// The limit in force.
    pub max: u64,
    /// In use at this moment.
    pub in_use: u64,
    /// The most that was in use at one time since the start, taken at every change; `None`
    /// where nobody takes it.
    pub high_water: Option<u64>,
}

impl LimitUse {
    pub(crate) fn new(name: impl Into<String>, max: usize, in_use: usize, high_water: usize) -> Self {
        Self { high_water: Some(high_water as u64), ..Self::unmarked(name, max, in_use) }
    }

    /// One whose highest use nobody notes.
    pub(crate) fn unmarked(name: impl Into<String>, max: usize, in_use: usize) -> Self {
        Self { name: name.into(), max: max as u64, in_use: in_use as u64, high_water: None }
    }
}

/// The limits that are shares of others: what is in use is the most of any one listener or prefix, and nobody notes the
/// highest.
fn shares(seats: &Seats) -> Vec<LimitUse> {
    let (limits, tally) = (seats.limits(), seats.tally());
    let known = tally.inbound - tally.unknown;
    let busiest = tally.listeners.iter().map(|listener| listener.handshakes).max().unwrap_or_default();
    let relayed = tally.listeners.last().map_or(0, |relays| relays.in_use);
    let (ipv4, _) = seats.most_of_one(Family::V4);
    let (ipv6_56, ipv6_48) = seats.most_of_one(Family::V6);
    vec![
        LimitUse::unmarked("known_reserve", limits.known_reserve, known.min(limits.known_reserve)),
        LimitUse::unmarked("relay_connections_max", limits.relay_connections_max, relayed),
        LimitUse::unmarked("connections_per_ipv4_max", limits.connections_per_ipv4_max, ipv4),
        LimitUse::unmarked("connections_per_ipv6_56_max", limits.connections_per_ipv6_56_max, ipv6_56),
        LimitUse::unmarked("connections_per_ipv6_48_max", limits.connections_per_ipv6_48_max, ipv6_48),
        LimitUse::unmarked("handshakes_per_listener_max", limits.handshakes_per_listener_max, busiest),
        LimitUse::unmarked("retry_above", limits.retry_above, tally.handshakes),
    ]
}

/// One listener's door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerUse {
    /// The address it listens on, or `relays`.
    pub name: String,
    /// Connections it may hold.
    pub connections_max: u64,
    /// Connections it holds, handshakes included.
    pub in_use: u64,
    /// The most it held at one time.
    pub high_water: u64,
    /// Whether an unknown remote would find a slot.
    pub is_accepting: bool,
    /// How often it went from full to below full.
    pub resumed: u64,
}

/// What the door says of its limits.
#[derive(Debug)]
pub(crate) struct LimitsPart {
    pub(crate) uses: Vec<LimitUse>,
    pub(crate) listeners: Vec<ListenerUse>,
    pub(crate) pressure: &'static str,
}

/// The two lines, as the acceptor last saw them: now, and at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) room: (usize, usize),
    pub(crate) lobby: (usize, usize),
}

/// How many connections there are, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Occupancy {
    /// Slots in use, speculative attempts not included.
    pub(crate) in_use: usize,
    pub(crate) half_open: usize,
    /// The most that lived at one time, speculative attempts included.
    pub(crate) high_water: usize,
    pub(crate) cap: usize,
}

impl Door {
    pub(crate) fn occupancy(&self) -> Occupancy {
        let books = self.lock();
        let tally = books.seats.tally();
        Occupancy {
            in_use: tally.total,
            half_open: tally.handshakes + tally.dials + tally.speculative,
            high_water: books.seats.high_water().live,
            cap: books.seats.limits().connections_max,
        }
    }

    /// The acceptor tells how long its lines are. One that was restarted knows nothing of what was before it.
    pub(crate) fn note_lines(&self, lines: Lines) {
        let known = &mut self.lock().lines;
        let longest = |(_, known): (usize, usize), (len, high_water): (usize, usize)| (len, known.max(high_water));
        *known = Lines { room: longest(known.room, lines.room), lobby: longest(known.lobby, lines.lobby) };
    }

    /// The maps and lines of the door. The counts of Retries are an array of fixed size.
    pub(crate) fn stores(&self) -> Vec<StoreUse> {
        let books = self.lock();
        let limits = books.seats.limits();
        let (hints, hints_max) = books.hints.sizes();
        let waiting_max = limits.waiting_max * books.listeners.len();
        let buckets = (books.buckets.len(), books.buckets.high_water());
        vec![
            StoreUse::new("token_buckets", Some(limits.prefixes_max), buckets),
            StoreUse::new("hints", Some(hints_max), (hints, hints)),
            StoreUse::new("retries", Some(super::retries::PLACES), (super::retries::PLACES, super::retries::PLACES)),
            StoreUse::new("waiting_room", Some(waiting_max), books.lines.room),
            StoreUse::new("lobby", None, books.lines.lobby),
        ]
    }

    /// The caps that this room holds.
    pub(crate) fn uses(&self) -> Vec<LimitUse> {
        let books = self.lock();
        let (limits, tally) = (books.seats.limits(), books.seats.tally());
        let HighWater { total, inbound, unknown, handshakes, speculative, remains, dials, .. } =
            *books.seats.high_water();
        let (room, lobby) = (books.lines.room, books.lines.lobby);
        let rooms_max = limits.waiting_max * books.listeners.len();
        vec![
            LimitUse::new("connections_max", limits.connections_max, tally.total, total),
            LimitUse::new(
                "live_connections",
                limits.connections_max + limits.speculative_max,
                tally.total + tally.speculative,
                books.seats.high_water().live,
            ),
            LimitUse::new("inbound_max", limits.inbound_max, tally.inbound, inbound),
            LimitUse::new("unknown_inbound", books.seats.unknown_max(), tally.unknown, unknown),
            LimitUse::new("handshakes_max", limits.handshakes_max, tally.shaking(), handshakes),
            LimitUse::new("speculative_max", limits.speculative_max, tally.speculative, speculative),
            LimitUse::new(
                "speculative_remains",
                limits.handshakes_max + limits.speculative_max,
                tally.remains,
                remains,
            ),
            LimitUse::new("waiting_room", rooms_max, room.0, room.1),
            LimitUse::new("lobby", limits.speculative_max, lobby.0, lobby.1),
            LimitUse::new("dials_max", limits.dials_max, tally.dials, dials),
            LimitUse::new("prefixes_max", limits.prefixes_max, books.buckets.len(), books.buckets.high_water()),
        ]
        .into_iter()
        .chain(shares(&books.seats))
        .collect()
    }

    /// The listeners, the relays last.
    pub(crate) fn listener_uses(&self) -> Vec<ListenerUse> {
        let books = self.lock();
        let (seats, tally) = (&books.seats, books.seats.tally());
        books
            .listeners
            .iter()
            .enumerate()
            .map(|(index, listener)| ListenerUse {
                name: listener.name.clone(),
                connections_max: listener.connections_max as u64,
                in_use: tally.listeners[index].in_use as u64,
                high_water: seats.high_water().listeners[index] as u64,
                is_accepting: seats.is_accepting(super::ListenerId(index)),
                resumed: seats.resumed()[index],
            })
            .collect()
    }
}
