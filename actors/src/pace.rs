//! Who is waited for, and how long: whoever keeps pace (`pace_min` of the limits). `[pure]`
//!
//! A publisher, and a link that brings messages, go no faster than those who take them: neighbours and readers alike. One who takes
//! nothing is waited for once, and for a moment.

use std::time::Duration;

/// How long nobody looks again. As short as a timer allows, and still longer than a send half takes to write a batch.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

/// How long one is waited for who takes nothing.
const PATIENCE_MAX: Duration = Duration::from_millis(500);

/// How long links wait for one who takes nothing. Shorter: it may be waiting for us, and whoever lets in what has come unties the
/// knot before publishers lose patience.
const LINK_PATIENCE: Duration = Duration::from_millis(100);

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waiting {
    /// Nobody: what does not fit is dropped.
    Nobody,
    /// The application, with what it publishes.
    Publishers,
    /// Publishers, and the links that bring more.
    Everyone,
}

/// How much longer somebody is waited for. It comes back with each item that is taken: at the least pace it lasts for ever, at a
/// hundredth of it one can hold the others up for a hundredth of the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    left: Duration,
    per_item: Duration,
    /// Items that had been taken when it was last spent.
    taken: usize,
}

impl Patience {
    /// For whoever takes at least `pace_min` items a second; none with 0.
    pub(crate) fn new(pace_min: u32) -> Self {
        match Duration::from_secs(1).checked_div(pace_min) {
            Some(per_item) => Self { left: PATIENCE_MAX, per_item, taken: 0 },
            None => Self { left: Duration::ZERO, per_item: Duration::ZERO, taken: 0 },
        }
    }

    /// Whether there is enough for a [`PAUSE`]. `taken`: items taken since the start.
    pub(crate) fn is_left(&mut self, taken: usize) -> bool {
        let news = u32::try_from(taken.wrapping_sub(self.taken)).unwrap_or(u32::MAX);
        self.left = (self.left + self.per_item.saturating_mul(news)).min(PATIENCE_MAX);
        self.taken = taken;
        self.left >= PAUSE
    }

    /// Spends a [`PAUSE`] of it, if that is left. `taken`: items taken since the start.
    pub(crate) fn spend(&mut self, taken: usize) -> Waiting {
        if !self.is_left(taken) {
            return Waiting::Nobody;
        }
        let left = self.left - PAUSE;
        self.left = left;
        if PATIENCE_MAX - left <= LINK_PATIENCE { Waiting::Everyone } else { Waiting::Publishers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In how many of so many pauses somebody waited, and in how many everyone did.
    fn waited(patience: &mut Patience, pauses: usize, taken_each: usize) -> (usize, usize) {
        let start = patience.taken;
        let all: Vec<_> = (1..=pauses).map(|pause| patience.spend(start + pause * taken_each)).collect();
        let at_least = |least| all.iter().filter(|waiting| **waiting >= least).count();
        (at_least(Waiting::Publishers), at_least(Waiting::Everyone))
    }

    #[test]
    fn who_takes_nothing_is_waited_for_once_and_who_keeps_pace_always() {
        let mut patience = Patience::new(500);
        assert_eq!(waited(&mut patience, 10_000, 0), (250, 50), "half a second, links a fifth of that");
        assert_eq!(waited(&mut patience, 10_000, 1), (10_000, 0), "one in each pause, which is just enough");
        assert_eq!(waited(&mut patience, 1000, 2), (1000, 801), "who is faster gets it back");
        assert_eq!(waited(&mut patience, 1000, 0).0, 249);
        let slow = (0..10_000).map(|pause| patience.spend(patience.taken + usize::from(pause % 10 == 0)));
        let waited = slow.filter(|waiting| *waiting > Waiting::Nobody).count();
        assert_eq!(waited, 1000, "a tenth of the pace, a tenth of the time");
    }

    #[test]
    fn without_a_least_pace_nobody_is_waited_for() {
        assert_eq!(waited(&mut Patience::new(0), 1000, 1000), (0, 0));
    }
}
