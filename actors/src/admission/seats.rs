//! The table of slots, and who may take one. `[pure]`
//!
//! Every attempt and every connection has one row here, from its first packet to its end. Rows come, change and go in three places
//! only, each of which books the row out of the tallies and in again; where assertions are on, they are counted anew beside that each
//! time. What to do with whoever finds no slot is decided in `admission.rs`.

use std::collections::BTreeMap;

use iroh::EndpointId;
use n0_future::time::Instant;

use super::{
    prefix::Groups,
    tally::{Tally, Way},
};
use crate::{access::Standing, counters::Reason, limits::Limits, listeners::ListenerId, pressure::Pressure};

/// Where an incoming attempt came from, and where it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Knock {
    pub(crate) listener: ListenerId,
    pub(crate) groups: Groups,
    pub(crate) family: Family,
    /// Whether the limits per address and prefix leave it alone.
    pub(crate) is_exempt: bool,
    /// Whether the source has proved that it receives what is sent to its address. Until then nothing is held against that
    /// address: its owner may be somebody else.
    pub(crate) is_validated: bool,
}

/// What kind of address an attempt came from. Each has its own cap per group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    Relay,
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its handshake is under way, with a slot to come to.
    Handshake,
    /// It shakes hands, or has, without a slot.
    Speculative,
    /// Its handshake has failed, and QUIC keeps the state of it for a while.
    Lingering {
        /// Whether it had a slot to come to: then it keeps its place among the handshakes.
        had_slot: bool,
    },
    /// We dial.
    Dial,
    /// A connection that a remote dialed.
    Inbound,
    /// A connection that we dialed.
    Outbound,
}

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) stage: Stage,
    /// `None` for what we dial.
    pub(crate) knock: Option<Knock>,
    pub(crate) standing: Standing,
    pub(crate) peer: Option<EndpointId>,
    pub(crate) since: Instant,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// At the cap on connections.
    Global,
    /// At the ceiling for incoming ones, or for those of unknown remotes.
    Inbound,
    /// At the cap of the listener or relay.
    Listener,
    /// At the cap of the address prefix.
    Prefix,
    /// As many half-open attempts as there may be.
    HalfOpen,
    /// Memory or descriptors run low.
    Pressure,
}

impl Shortage {
    /// What is counted when somebody is refused for it.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Shortage::Global => Reason::RefusedAtCap,
            Shortage::Inbound => Reason::RefusedAtInboundCap,
            Shortage::Listener => Reason::RefusedAtListenerCap,
            Shortage::Prefix => Reason::RefusedAtPrefixCap,
            Shortage::HalfOpen => Reason::RefusedHandshakes,
            Shortage::Pressure => Reason::RefusedUnderPressure,
        }
    }
}

/// The most of each that was ever in use at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HighWater {
    pub(crate) total: usize,
    pub(crate) inbound: usize,
    pub(crate) unknown: usize,
    pub(crate) handshakes: usize,
    pub(crate) speculative: usize,
    pub(crate) remains: usize,
    pub(crate) dials: usize,
    /// Everything at once, speculative attempts included.
    pub(crate) live: usize,
    pub(crate) listeners: Vec<usize>,
}

/// Whether a listener has a slot for an unknown, and for a known remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Openness {
    unknown: bool,
    known: bool,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Seats {
    limits: Limits,
    /// One per listener, the relays' last.
    caps: Vec<usize>,
    pressure: Pressure,
    rows: BTreeMap<u64, Seat>,
    last: u64,
    tally: Tally,
    high_water: HighWater,
    open: Vec<Openness>,
    /// How often each listener went from full to below full.
    resumed: Vec<u64>,
}

impl Seats {
    pub(crate) fn new(limits: Limits, caps: Vec<usize>) -> Self {
        let listeners = caps.len();
        let mut seats = Self {
            limits,
            caps,
            pressure: Pressure::Calm,
            rows: BTreeMap::new(),
            last: 0,
            tally: Tally::new(listeners),
            high_water: HighWater { listeners: vec![0; listeners], ..HighWater::default() },
            open: vec![Openness { unknown: true, known: true }; listeners],
            resumed: vec![0; listeners],
        };
        seats.refresh();
        seats.resumed.fill(0);
        seats
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn high_water(&self) -> &HighWater {
        &self.high_water
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn caps(&self) -> &[usize] {
        &self.caps
    }

    pub(crate) fn resumed(&self) -> &[u64] {
        &self.resumed
    }

    /// Where an incoming attempt came from.
    pub(crate) fn knock(&self, seat: u64) -> Option<Knock> {
        self.rows.get(&seat)?.knock
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (u64, &Seat)> {
        self.rows.iter().map(|(number, seat)| (*number, seat))
    }

    /// Replaces the limits. Nobody loses a slot.
    pub(crate) fn set_limits(&mut self, limits: Limits, caps: Vec<usize>) {
        self.limits = limits;
        self.caps = caps;
    }

    pub(crate) fn set_pressure(&mut self, pressure: Pressure) {
        self.pressure = pressure;
    }

    pub(crate) fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// Whether an unknown remote would find a slot at this listener.
    pub(crate) fn is_accepting(&self, listener: ListenerId) -> bool {
        self.open[listener.0].unknown
    }

    /// A slot for an incoming handshake. Until it has shown who it is, it counts as unknown.
    pub(crate) fn admit_handshake(&mut self, knock: Knock, now: Instant) -> Result<u64, Shortage> {
        self.room_to_shake_hands(&knock)?;
        self.room_for(&knock, Standing::Unknown)?;
        Ok(self.take(Stage::Handshake, Some(knock), now))
    }

    /// A place without a slot, to learn who knocks. Half of these are for `hinted` sources alone. One that fails frees its
    /// place at once, so that whoever gives up again and again keeps nobody out; what they leave behind costs as much as what
    /// handshakes leave, and is bounded alike.
    pub(crate) fn admit_speculative(&mut self, knock: Knock, is_hinted: bool, now: Instant) -> Result<u64, Shortage> {
        let max = if is_hinted { self.limits.speculative_max } else { self.limits.speculative_max / 2 };
        if self.tally.speculative >= max || self.tally.remains >= self.limits.handshakes_max {
            return Err(Shortage::HalfOpen);
        }
        Ok(self.take(Stage::Speculative, Some(knock), now))
    }

    /// A slot for an outgoing attempt. The last ones are left for known remotes, whoever dials: nobody could be closed to
    /// make room for them if we had filled the node with strangers ourselves.
    pub(crate) fn admit_dial(&mut self, standing: Standing, now: Instant) -> Result<u64, Shortage> {
        let reserve = if standing == Standing::Known { 0 } else { self.limits.known_reserve };
        if self.tally.total + reserve >= self.limits.connections_max {
            return Err(Shortage::Global);
        }
        if self.tally.dials >= self.limits.dials_max {
            return Err(Shortage::HalfOpen);
        }
        Ok(self.take(Stage::Dial, None, now))
    }

    /// An incoming attempt has shown who it is. One that had a slot keeps it; one that had none takes one, if there is one
    /// for such a remote.
    pub(crate) fn identify(&mut self, seat: u64, peer: EndpointId, standing: Standing) -> Result<(), Shortage> {
        let Some(Seat { stage, knock: Some(knock), .. }) = self.rows.get(&seat).cloned() else { return Ok(()) };
        let room = match (stage, standing) {
            (Stage::Handshake, Standing::Known) => Ok(()),
            (Stage::Handshake, _) if self.pressure >= Pressure::Tight => Err(Shortage::Pressure),
            // From here on it counts for its prefix.
            (Stage::Handshake, _) if !knock.is_validated => self.room_in_prefix(&knock),
            (Stage::Speculative, _) => self.room_for(&knock, standing),
            (Stage::Handshake | Stage::Lingering { .. } | Stage::Inbound | Stage::Dial | Stage::Outbound, _) => Ok(()),
        };
        self.change(seat, |row| {
            (row.peer, row.standing) = (Some(peer), standing);
            if room.is_ok() {
                row.stage = Stage::Inbound;
                row.knock = Some(Knock { is_validated: true, ..knock });
            }
        });
        room
    }

    /// An outgoing attempt has become a connection.
    pub(crate) fn establish(&mut self, seat: u64, peer: EndpointId, standing: Standing) {
        self.change(seat, |row| {
            row.stage = Stage::Outbound;
            (row.peer, row.standing) = (Some(peer), standing);
        });
    }

    /// A handshake has failed.
    pub(crate) fn linger(&mut self, seat: u64) {
        self.change(seat, |row| row.stage = Stage::Lingering { had_slot: row.stage != Stage::Speculative });
    }

    /// What is now made of a remote's connections.
    pub(crate) fn reclassify(&mut self, peer: &EndpointId, standing: Standing) {
        let theirs = self.rows().filter(|(_, row)| row.peer.as_ref() == Some(peer)).map(|(seat, _)| seat);
        for seat in theirs.collect::<Vec<_>>() {
            self.change(seat, |row| row.standing = standing);
        }
    }

    pub(crate) fn release(&mut self, seat: u64) {
        if let Some(row) = self.rows.remove(&seat) {
            self.tally.book(&row, Way::Out);
        }
    }

    /// Looks at the tallies once rows have changed. True if a listener that had no slot has one, so that whoever waits should be
    /// served. The rising edge is what counts: the second of two slots that come free wakes nobody, because whoever serves takes both.
    pub(crate) fn refresh(&mut self) -> bool {
        debug_assert_eq!(self.tally, self.count(), "the tallies have drifted from the rows");
        self.note_high_water();
        let mut rises = false;
        for index in 0..self.caps.len() {
            let now = self.openness(ListenerId(index));
            let before = std::mem::replace(&mut self.open[index], now);
            self.resumed[index] += u64::from(now.unknown && !before.unknown);
            rises |= (now.unknown && !before.unknown) || (now.known && !before.known);
        }
        rises
    }

    /// For each connection over a cap the listener it has to leave, or none if any will do.
    pub(crate) fn excess(&self) -> Vec<Option<ListenerId>> {
        let (limits, tally) = (&self.limits, &self.tally);
        let over_total = tally.total.saturating_sub(limits.connections_max);
        let over_inbound = tally.inbound.saturating_sub(limits.inbound_max);
        let over_unknown = tally.unknown.saturating_sub(self.unknown_max());
        let mut excess = Vec::new();
        for (index, (listener, cap)) in tally.listeners.iter().zip(&self.caps).enumerate() {
            let over = listener.in_use.saturating_sub(*cap);
            excess.extend(std::iter::repeat_n(Some(ListenerId(index)), over));
        }
        let over = over_total.max(over_inbound).max(over_unknown).saturating_sub(excess.len());
        excess.extend(std::iter::repeat_n(None, over));
        excess
    }

    /// Whether there is a slot for such a remote from there. Says nothing about handshakes.
    fn room_for(&self, knock: &Knock, standing: Standing) -> Result<(), Shortage> {
        self.room_at(knock.listener, standing)?;
        if standing == Standing::Known { Ok(()) } else { self.room_in_prefix(knock) }
    }

    /// Of all but the prefix, which is the remote's own affair.
    fn room_at(&self, ListenerId(listener): ListenerId, standing: Standing) -> Result<(), Shortage> {
        let (limits, tally) = (&self.limits, &self.tally);
        if tally.total >= limits.connections_max {
            return Err(Shortage::Global);
        }
        if tally.inbound >= limits.inbound_max {
            return Err(Shortage::Inbound);
        }
        if tally.listeners[listener].in_use >= self.caps[listener] {
            return Err(Shortage::Listener);
        }
        if standing == Standing::Known {
            return Ok(());
        }
        if self.pressure >= Pressure::Tight {
            return Err(Shortage::Pressure);
        }
        if tally.unknown >= self.unknown_max() { Err(Shortage::Inbound) } else { Ok(()) }
    }

    /// Slots that unknown remotes can have.
    pub(crate) fn unknown_max(&self) -> usize {
        self.limits.inbound_max - self.limits.known_reserve
    }

    /// The most that unknown remotes hold of one customer, and of one site, of this family.
    pub(crate) fn most_of_one(&self, family: Family) -> (usize, usize) {
        let knocks = self.rows.values().filter_map(|row| row.knock).filter(|knock| knock.family == family);
        let held = knocks.map(|knock| self.tally.held(knock.groups));
        held.fold((0, 0), |most, held| (most.0.max(held.0), most.1.max(held.1)))
    }

    fn room_in_prefix(&self, knock: &Knock) -> Result<(), Shortage> {
        if knock.is_exempt {
            return Ok(());
        }
        let (fine, coarse) = self.tally.held(knock.groups);
        let is_full = match knock.family {
            Family::V4 => fine >= self.limits.connections_per_ipv4_max,
            Family::V6 => {
                fine >= self.limits.connections_per_ipv6_56_max || coarse >= self.limits.connections_per_ipv6_48_max
            }
            // A quarter, rounded up: one relay must not hold all that unknown remotes may have.
            Family::Relay => fine >= self.unknown_max().div_ceil(4),
        };
        if is_full { Err(Shortage::Prefix) } else { Ok(()) }
    }

    fn room_to_shake_hands(&self, knock: &Knock) -> Result<(), Shortage> {
        let here = self.tally.listeners[knock.listener.0].handshakes;
        let is_full =
            self.tally.shaking() >= self.limits.handshakes_max || here >= self.limits.handshakes_per_listener_max;
        if is_full { Err(Shortage::HalfOpen) } else { Ok(()) }
    }

    fn openness(&self, listener: ListenerId) -> Openness {
        let has_room = |standing| self.room_at(listener, standing).is_ok();
        Openness { unknown: has_room(Standing::Unknown), known: has_room(Standing::Known) }
    }

    fn take(&mut self, stage: Stage, knock: Option<Knock>, now: Instant) -> u64 {
        self.last += 1;
        let row = Seat { stage, knock, standing: Standing::Unknown, peer: None, since: now };
        self.tally.book(&row, Way::In);
        self.rows.insert(self.last, row);
        self.refresh();
        self.last
    }

    /// Changes a row. False if there is none.
    fn change(&mut self, seat: u64, change: impl FnOnce(&mut Seat)) -> bool {
        let Some(row) = self.rows.get_mut(&seat) else { return false };
        self.tally.book(row, Way::Out);
        change(row);
        self.tally.book(row, Way::In);
        true
    }

    /// What the tallies should say.
    fn count(&self) -> Tally {
        let mut tally = Tally::new(self.caps.len());
        self.rows.values().for_each(|row| tally.book(row, Way::In));
        tally
    }

    fn note_high_water(&mut self) {
        let (high, now) = (&mut self.high_water, &self.tally);
        let raise = |mark: &mut usize, value: usize| *mark = (*mark).max(value);
        raise(&mut high.total, now.total);
        raise(&mut high.inbound, now.inbound);
        raise(&mut high.unknown, now.unknown);
        raise(&mut high.handshakes, now.shaking());
        raise(&mut high.speculative, now.speculative);
        raise(&mut high.remains, now.remains);
        raise(&mut high.dials, now.dials);
        raise(&mut high.live, now.total + now.speculative);
        for (mark, listener) in high.listeners.iter_mut().zip(&now.listeners) {
            raise(mark, listener.in_use);
        }
    }
}
