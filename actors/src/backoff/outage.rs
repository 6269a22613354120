//! Whether it is our own network that is out, and whether everybody was lost at once. `[pure]`
//!
//! When many remotes fall silent together the fault is on our side: their counters must not grow for it, and a trickle of
//! probes is enough to notice the end. When it ends, and when most connections are lost at once, redials are spread over a
//! few seconds, so that a mass restart does not meet a mass redial. Which remote waits how long is in `redials.rs`.

use std::{collections::VecDeque, time::Duration};

use iroh::EndpointId;
use n0_future::time::Instant;
use rand::Rng;

use super::up_to;

/// Attempts in a row that nobody answered, before the network is called out. dcrd takes 25, with far more remotes to try.
const SILENT_MAX: u32 = 8;

/// Distinct remotes among them. Fewer are a few dead remotes.
const SILENT_PEERS: usize = 4;

/// Probes while the network is out, and the time in which so many are made. Guess: noticed within 5 s, unnoticeable in
/// cost.
const PROBES: usize = 2;
const PROBE_WINDOW: Duration = Duration::from_secs(5);

/// Losing half of the remotes, and at least this many, within [`LOSS_WINDOW`] is one event, not several.
const LOSSES_MIN: usize = 4;
const LOSS_WINDOW: Duration = Duration::from_secs(5);

/// Losses counted within the window. More than any node has connections.
const LOSSES_MAX: usize = 4096;

/// Redials after an outage or a mass loss are spread over this long.
pub(crate) const SPREAD: Duration = Duration::from_secs(10);

/// The guard of one mesh.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    silent: u32,
    /// At most [`SILENT_PEERS`], distinct.
    silent_peers: Vec<EndpointId>,
    is_on: bool,
    probes: VecDeque<Instant>,
    losses: VecDeque<Instant>,
    spread: Option<Spread>,
    spreads: u64,
}

/// Redials are being spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spread {
    /// Counted from 1, so that a remote gets one place in each.
    pub(crate) number: u64,
    began: Instant,
}

impl Spread {
    /// A place in it.
    pub(crate) fn place(&self, rng: &mut impl Rng) -> Instant {
        self.began + up_to(SPREAD, rng)
    }
}

impl Outage {
    /// Whether our network is taken to be out.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// An attempt was not answered. `live`: remotes connected at this moment. With one of them the network is not out, and
    /// a remote that names ghosts to us cannot make us believe it is: after a real outage none is left within the idle
    /// timeout.
    pub(crate) fn on_silence(&mut self, peer: EndpointId, live: usize) {
        self.silent = self.silent.saturating_add(1);
        if self.silent_peers.len() < SILENT_PEERS && !self.silent_peers.contains(&peer) {
            self.silent_peers.push(peer);
        }
        let is_everybody = self.silent >= SILENT_MAX && self.silent_peers.len() >= SILENT_PEERS;
        self.is_on |= is_everybody && live == 0;
    }

    /// Somebody answered, be it with a refusal.
    pub(crate) fn on_answer(&mut self, now: Instant) {
        self.silent = 0;
        self.silent_peers.clear();
        if std::mem::take(&mut self.is_on) {
            self.probes.clear();
            self.begin_spread(now);
        }
    }

    /// The last connection to a remote was lost, not retired in order. `live`: remotes still connected.
    pub(crate) fn on_loss(&mut self, live: usize, now: Instant) {
        forget_before(&mut self.losses, now, LOSS_WINDOW);
        if self.losses.len() < LOSSES_MAX {
            self.losses.push_back(now);
        }
        if self.losses.len() >= LOSSES_MIN && self.losses.len() >= live && self.spread(now).is_none() {
            self.begin_spread(now);
        }
    }

    /// The spread under way, if there is one.
    pub(crate) fn spread(&self, now: Instant) -> Option<Spread> {
        self.spread.filter(|spread| now.saturating_duration_since(spread.began) < SPREAD)
    }

    /// When the next attempt may be made, if not at once.
    pub(crate) fn probe_at(&mut self, now: Instant) -> Option<Instant> {
        if !self.is_on {
            return None;
        }
        forget_before(&mut self.probes, now, PROBE_WINDOW);
        let is_due = self.probes.len() < PROBES;
        if is_due { None } else { self.probes.front().map(|oldest| *oldest + PROBE_WINDOW) }
    }

    /// An attempt is made.
    pub(crate) fn on_dial(&mut self, now: Instant) {
        if self.is_on && self.probes.len() < PROBES {
            self.probes.push_back(now);
        }
    }

    fn begin_spread(&mut self, now: Instant) {
        self.spreads += 1;
        self.spread = Some(Spread { number: self.spreads, began: now });
    }
}

/// Drops what is `window` old.
fn forget_before(times: &mut VecDeque<Instant>, now: Instant, window: Duration) {
    while times.front().is_some_and(|oldest| now.saturating_duration_since(*oldest) >= window) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_silences_of_four_remotes_in_a_row_are_an_outage_and_fewer_are_not() {
        let silences = |peers: u8, times: u8, live| {
            let mut outage = Outage::default();
            (0..times).for_each(|n| outage.on_silence(peer(n % peers), live));
            outage.is_on()
        };
        assert!(silences(4, 8, 0));
        assert!(!silences(4, 7, 0), "one more could be answered");
        assert!(!silences(3, 100, 0), "three dead remotes");
        assert!(!silences(50, 100, 1), "a living connection proves the network");
    }

    #[test]
    fn an_answer_between_silences_starts_the_count_anew() {
        let (mut outage, now) = (Outage::default(), Instant::now());
        (0..7).for_each(|n| outage.on_silence(peer(n), 0));
        outage.on_answer(now);
        (0..7).for_each(|n| outage.on_silence(peer(n), 0));
        assert!(!outage.is_on() && outage.spread(now).is_none());
    }

    #[test]
    fn two_probes_in_five_seconds_and_an_answer_ends_it_with_a_spread() {
        let (mut outage, start) = (out(), Instant::now());
        let mut made = Vec::new();
        for tenth in 0..200u64 {
            let now = start + Duration::from_millis(tenth * 100);
            if outage.probe_at(now).is_none() {
                outage.on_dial(now);
                made.push(tenth);
            }
        }
        assert_eq!(made, [0, 1, 50, 51, 100, 101, 150, 151]);
        let end = start + Duration::from_secs(20);
        outage.on_answer(end);
        assert!(!outage.is_on() && outage.probe_at(end).is_none());
        assert!(outage.spread(end).is_some() && outage.spread(end + SPREAD).is_none());
    }

    #[test]
    fn losing_half_and_at_least_four_within_five_seconds_spreads_the_redials() {
        let spreads = |lost: usize, live: usize, apart: Duration| {
            let (mut outage, start) = (Outage::default(), Instant::now());
            for number in 0..lost {
                outage.on_loss(live + lost - 1 - number, start + apart * number as u32);
            }
            outage.spread(start + apart * lost as u32).is_some()
        };
        let (at_once, slowly) = (Duration::from_millis(10), Duration::from_secs(2));
        assert!(spreads(4, 4, at_once));
        assert!(!spreads(4, 5, at_once), "less than half");
        assert!(!spreads(3, 0, at_once), "all of three");
        assert!(!spreads(9, 4, slowly), "one after the other");
    }

    fn out() -> Outage {
        let mut outage = Outage::default();
        (0..8).for_each(|n| outage.on_silence(peer(n), 0));
        outage
    }

    fn peer(name: u8) -> EndpointId {
        iroh::SecretKey::from_bytes(&[name + 1; 32]).public()
    }
}
