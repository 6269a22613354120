//! When each remote may be dialed again: one table per mesh, ruled by the class of what went wrong. `[pure]`
//!
//! A pause begins when an attempt *ends*, so that one that fails in a millisecond spins no faster than one that fails
//! after its deadline. Only a connection that lived for a while forgives: one that opens and dies was a failure. Whoever
//! reaches us is alive, and its pause ends at once. `redial.rs` puts the lock, the clock and the dice around this.

use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    time::Duration,
};

use iroh::EndpointId;
use n0_future::time::Instant;
use rand::Rng;

use super::{
    outage::{Outage, Spread},
    pause, up_to,
};
use crate::{
    close::{Close, CloseCode, RETRY_AFTER_MAX},
    limits::Limits,
    stores::StoreUse,
};

/// A remote that said no for good is asked again after this long, doubling up to the second. reth's class "high".
const SEVERE_MIN: Duration = Duration::from_secs(15 * 60);
const SEVERE_MAX: Duration = Duration::from_secs(60 * 60);

/// The least pause after a remote was full and did not say for how long. reth's class "low".
const FULL_PAUSE: Duration = Duration::from_secs(30);

/// The least pause after a remote said that it shuts down: others may take its place meanwhile.
const DRAINING_PAUSE: Duration = Duration::from_secs(5);

/// The shortest hint that is believed.
const HINT_MIN: Duration = Duration::from_secs(1);

/// Attempts in a row without an answer after which an unknown remote is a ghost. reth's number.
const GHOST_AFTER: u32 = 5;

/// What others say of a ghost is not believed for this long, or gossip would bring it back for ever
/// (Mesh-LLM/mesh-llm#1970).
const GHOST_FOR: Duration = Duration::from_secs(60 * 60);

/// Failures of an unknown remote say nothing any more this long after its pause.
const STALE_AFTER: Duration = Duration::from_secs(60 * 60);

/// Remotes recalled from an earlier life are asked within this time of the start, not all at once.
const START_SPREAD: Duration = Duration::from_secs(1);

/// Whether a remote may be dialed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dial {
    Now,
    /// Not before.
    At(Instant),
    /// It is a ghost.
    No,
}

/// What went wrong with an attempt or a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was our doing, or nobody's: cancelled, injected, shutting down, no network. Says nothing of the remote.
    Ours,
    /// Nobody answered.
    Silent,
    /// There is no address to dial.
    NoAddress,
    /// It refused before the handshake, or answered with something that is not a connection.
    Refused,
    /// An established connection broke.
    Lost,
    /// It closed, or was closed, with this.
    Closed(Close),
    /// What it sent is not the protocol.
    Violation,
}

/// What a failure means for the remote's pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ruling {
    /// Nothing, or a pause that is nobody's fault.
    Neutral { floor: Option<Duration> },
    /// One more failure, with the least pause after it.
    Failed { floor: Duration },
    /// One more that will not get better soon.
    Severe,
}

impl Failure {
    fn ruling(self) -> Ruling {
        let close = match self {
            Failure::Ours => return Ruling::Neutral { floor: None },
            Failure::Silent | Failure::NoAddress | Failure::Refused | Failure::Lost => {
                return Ruling::Failed { floor: Duration::ZERO };
            }
            Failure::Violation => return Ruling::Severe,
            Failure::Closed(close) => close,
        };
        let hint = close.retry_after.map(|pause| pause.clamp(HINT_MIN, RETRY_AFTER_MAX));
        match close.code {
            // The winner of two connections lives, and nobody needs one that is idle or retired.
            CloseCode::Retired | CloseCode::Superseded | CloseCode::Idle => Ruling::Neutral { floor: hint },
            CloseCode::Draining => Ruling::Neutral { floor: hint.max(Some(DRAINING_PAUSE)) },
            // Who is full knows best when it is worth knocking again: its hint replaces our guess, in both directions.
            CloseCode::FullGlobal | CloseCode::FullListener | CloseCode::FullPrefix | CloseCode::RateLimited => {
                Ruling::Failed { floor: hint.unwrap_or(FULL_PAUSE) }
            }
            // Not so here: who was thrown out and comes back early costs somebody else its place.
            CloseCode::Evicted => Ruling::Failed { floor: hint.unwrap_or_default().max(FULL_PAUSE) },
            CloseCode::Denied
            | CloseCode::Revoked
            | CloseCode::NetworkMismatch
            | CloseCode::ProtocolViolation
            | CloseCode::FrameTooLarge => Ruling::Severe,
            CloseCode::HelloTimeout | CloseCode::SlowPeer | CloseCode::Internal => {
                Ruling::Failed { floor: hint.unwrap_or_default() }
            }
        }
    }

    /// Whether somebody was there to answer, so that the network works.
    fn is_answer(self) -> bool {
        match self {
            Failure::Refused | Failure::Closed(_) | Failure::Violation => true,
            Failure::Ours | Failure::Silent | Failure::NoAddress | Failure::Lost => false,
        }
    }
}

/// How a connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    /// `None`: it was retired in order.
    pub(crate) end: Option<Failure>,
    pub(crate) lived: Duration,
    /// Whether it was the remote's last one.
    pub(crate) was_last: bool,
}

/// What a table says of one remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standstill {
    pub(crate) failures: u32,
    pub(crate) until: Option<Instant>,
}

/// The table of one mesh.
#[derive(Debug)]
pub(crate) struct RedialTable {
    redial_min: Duration,
    redial_max: Duration,
    stable_after: Duration,
    entries_max: usize,
    entries: HashMap<EndpointId, Entry>,
    /// Ghosts, and until when they are.
    ghosts: HashMap<EndpointId, Instant>,
    entries_high_water: usize,
    ghosts_high_water: usize,
    outage: Outage,
}

#[derive(Debug)]
struct Entry {
    /// In a row, severe ones included.
    failures: u32,
    severe: u32,
    unanswered: u32,
    not_before: Instant,
    /// What of that it asked for itself, be it by what it did. The rest is our guess.
    asked_for: Instant,
    is_known: bool,
    /// Recalled from an earlier life: not given up like others, since it may be the only way back.
    is_recalled: bool,
    /// Being dialed, or connected.
    is_busy: bool,
    /// The number of the last spread it has a place in.
    spread: u64,
    touched: Instant,
}

impl RedialTable {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            redial_min: limits.redial_min,
            redial_max: limits.redial_max,
            stable_after: limits.stable_after,
            entries_max: limits.redials_max,
            entries: HashMap::new(),
            ghosts: HashMap::new(),
            entries_high_water: 0,
            ghosts_high_water: 0,
            outage: Outage::default(),
        }
    }

    /// Whether `peer` may be dialed now, or when. Asked again when that time has come.
    pub(crate) fn may_dial(&mut self, peer: EndpointId, is_known: bool, now: Instant, rng: &mut impl Rng) -> Dial {
        if !is_known && self.is_ghost(&peer, now) {
            return Dial::No;
        }
        if let Some(spread) = self.outage.spread(now) {
            self.give_place(peer, is_known, spread, now, rng);
        }
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.is_known = is_known;
            if entry.not_before > now {
                return Dial::At(entry.not_before);
            }
        }
        self.outage.probe_at(now).map_or(Dial::Now, Dial::At)
    }

    /// What others say of this remote is not worth keeping.
    pub(crate) fn is_ghost(&self, peer: &EndpointId, now: Instant) -> bool {
        self.ghosts.get(peer).is_some_and(|until| now < *until)
    }

    /// An attempt begins.
    pub(crate) fn on_dial(&mut self, peer: &EndpointId, now: Instant) {
        self.outage.on_dial(now);
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.is_busy = true;
            entry.touched = now;
        }
    }

    /// An attempt has ended without a connection. `live`: remotes connected at this moment.
    pub(crate) fn on_failed(
        &mut self,
        peer: EndpointId,
        is_known: bool,
        failure: Failure,
        live: usize,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        self.on_idle(&peer);
        if failure.is_answer() {
            self.outage.on_answer(now);
        } else if failure == Failure::Silent {
            self.outage.on_silence(peer, live);
        }
        self.rule(peer, is_known, failure.ruling(), now, rng);
        let is_frozen = self.outage.is_on();
        let Some(entry) = self.entries.get_mut(&peer) else { return };
        match failure {
            Failure::Silent | Failure::NoAddress if !is_frozen => entry.unanswered += 1,
            _ if failure.is_answer() => entry.unanswered = 0,
            _ => {}
        }
        if entry.unanswered >= GHOST_AFTER && !entry.is_kept() {
            self.entries.remove(&peer);
            self.call_ghost(peer, now);
        }
    }

    /// A handshake with `peer` has finished. One that it began ends its pause: it is there and wants us.
    pub(crate) fn on_connected(&mut self, peer: &EndpointId, is_inbound: bool, now: Instant) {
        self.outage.on_answer(now);
        self.ghosts.remove(peer);
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.is_busy = true;
            entry.unanswered = 0;
            entry.touched = now;
            if is_inbound {
                (entry.not_before, entry.asked_for) = (now, now);
            }
        }
    }

    /// A connection with `peer` has ended. `live`: remotes still connected.
    pub(crate) fn on_ended(
        &mut self,
        peer: EndpointId,
        is_known: bool,
        life: Life,
        live: usize,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let was_stable = life.lived >= self.stable_after;
        if was_stable && let Some(entry) = self.entries.get_mut(&peer) {
            (entry.failures, entry.severe) = (0, 0);
        }
        if !life.was_last {
            return;
        }
        self.on_idle(&peer);
        let ruling = life.end.map_or(Ruling::Neutral { floor: None }, Failure::ruling);
        if ruling != (Ruling::Neutral { floor: None }) {
            self.outage.on_loss(live, now);
        }
        match ruling {
            Ruling::Failed { floor: Duration::ZERO } if was_stable => {}
            ruling => self.rule(peer, is_known, ruling, now, rng),
        }
    }

    /// `peer` is neither being dialed nor connected.
    pub(crate) fn on_idle(&mut self, peer: &EndpointId) {
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.is_busy = false;
        }
    }

    /// Takes up a remote from an earlier life. At most half of the table is for those; false beyond.
    pub(crate) fn recall(&mut self, peer: EndpointId, is_known: bool, now: Instant, rng: &mut impl Rng) -> bool {
        let recalled = self.entries.values().filter(|entry| entry.is_recalled).count();
        if recalled >= self.entries_max / 2 {
            return false;
        }
        let Some(entry) = self.entry(peer, is_known, now) else { return false };
        entry.is_recalled = true;
        entry.not_before = entry.not_before.max(now + up_to(START_SPREAD, rng));
        true
    }

    /// Somebody wants to deal with `peer` again, whatever it did.
    pub(crate) fn forgive(&mut self, peer: &EndpointId, now: Instant) {
        self.ghosts.remove(peer);
        if let Some(entry) = self.entries.get_mut(peer) {
            (entry.failures, entry.severe, entry.unanswered) = (0, 0, 0);
            (entry.not_before, entry.asked_for) = (now, now);
        }
    }

    /// Somebody has reason to try `peer` once before its pause is over. What it asked for itself still holds.
    pub(crate) fn hasten(&mut self, peer: &EndpointId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.not_before = entry.not_before.min(entry.asked_for.max(now));
        }
    }

    /// Forgets what says nothing any more.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.entries.retain(|_, entry| entry.says_something(now));
        self.ghosts.retain(|_, until| now < *until);
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
    }

    /// What is known of `peer`.
    pub(crate) fn standstill(&self, peer: &EndpointId, now: Instant) -> Standstill {
        self.entries.get(peer).map_or_else(Standstill::default, |entry| Standstill {
            failures: entry.failures,
            until: (entry.not_before > now).then_some(entry.not_before),
        })
    }

    /// Remotes in the table, and whether our network is taken to be out.
    pub(crate) fn stores(&self) -> [StoreUse; 2] {
        let cap = Some(self.entries_max);
        [
            StoreUse::new("redials", cap, (self.entries.len(), self.entries_high_water)),
            StoreUse::new("ghosts", cap, (self.ghosts.len(), self.ghosts_high_water)),
        ]
    }

    pub(crate) fn census(&self) -> (usize, bool) {
        (self.entries.len(), self.outage.is_on())
    }

    fn rule(&mut self, peer: EndpointId, is_known: bool, ruling: Ruling, now: Instant, rng: &mut impl Rng) {
        let is_frozen = self.outage.is_on();
        let (min, max) = (self.redial_min, self.redial_max);
        let floor = match ruling {
            Ruling::Neutral { floor: None } => return,
            Ruling::Neutral { floor: Some(floor) } | Ruling::Failed { floor } => floor,
            Ruling::Severe => Duration::ZERO,
        };
        let Some(entry) = self.entry(peer, is_known, now) else { return };
        let (failed, severe) = match ruling {
            Ruling::Neutral { .. } => (0, 0),
            Ruling::Failed { .. } => (1, 0),
            Ruling::Severe => (1, 1),
        };
        if !is_frozen {
            entry.failures = entry.failures.saturating_add(failed);
            entry.severe = entry.severe.saturating_add(severe);
        }
        let floor = match ruling {
            Ruling::Severe => SEVERE_MIN.saturating_mul(2u32.saturating_pow(entry.severe.max(1) - 1)).min(SEVERE_MAX),
            Ruling::Neutral { .. } | Ruling::Failed { .. } => floor,
        };
        let own = if failed > 0 { pause(min, max, entry.failures.max(1), rng) } else { Duration::ZERO };
        // A floor is the same for everybody it is told to: what lies above it keeps them from coming back as one.
        let asked_for = floor + up_to(floor / 4, rng);
        if !asked_for.is_zero() {
            entry.asked_for = entry.asked_for.max(now + asked_for);
        }
        entry.not_before = entry.not_before.max(now + own.max(asked_for));
    }

    /// A remote that is asked for during a spread waits for its place in it, once.
    fn give_place(&mut self, peer: EndpointId, is_known: bool, spread: Spread, now: Instant, rng: &mut impl Rng) {
        if let Some(entry) = self.entry(peer, is_known, now)
            && entry.spread < spread.number
        {
            entry.spread = spread.number;
            entry.not_before = entry.not_before.max(spread.place(rng));
        }
    }

    /// The entry of `peer`, made if there is room; the unknown idle one that was touched longest ago makes room.
    fn entry(&mut self, peer: EndpointId, is_known: bool, now: Instant) -> Option<&mut Entry> {
        if !self.entries.contains_key(&peer) && self.entries.len() >= self.entries_max {
            let idle = self.entries.iter().filter(|(_, entry)| !entry.is_kept() && !entry.is_busy);
            let oldest = *idle.min_by_key(|(_, entry)| entry.touched)?.0;
            self.entries.remove(&oldest);
        }
        let more = usize::from(!self.entries.contains_key(&peer));
        self.entries_high_water = self.entries_high_water.max(self.entries.len() + more);
        let entry = match self.entries.entry(peer) {
            Slot::Occupied(entry) => entry.into_mut(),
            Slot::Vacant(slot) => slot.insert(Entry::new(now)),
        };
        entry.is_known = is_known;
        entry.touched = now;
        Some(entry)
    }

    fn call_ghost(&mut self, peer: EndpointId, now: Instant) {
        if self.ghosts.len() >= self.entries_max
            && let Some(first) = self.ghosts.iter().min_by_key(|(_, until)| **until).map(|(ghost, _)| *ghost)
        {
            self.ghosts.remove(&first);
        }
        self.ghosts.insert(peer, now + GHOST_FOR);
        self.ghosts_high_water = self.ghosts_high_water.max(self.ghosts.len());
    }
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            failures: 0,
            severe: 0,
            unanswered: 0,
            not_before: now,
            asked_for: now,
            is_known: false,
            is_recalled: false,
            is_busy: false,
            spread: 0,
            touched: now,
        }
    }

    /// Whether it stands while there are others to evict, however often it fails.
    fn is_kept(&self) -> bool {
        self.is_known || self.is_recalled
    }

    fn says_something(&self, now: Instant) -> bool {
        let has_failed = self.failures > 0 || self.unanswered > 0;
        let is_fresh = now < self.not_before.max(self.touched) + STALE_AFTER;
        self.is_busy || self.is_recalled || self.not_before > now || (has_failed && (self.is_known || is_fresh))
    }
}

#[cfg(test)]
mod tests;
