//! One direction between two hosts: what becomes of each frame, decided from a seed. `[pure]`
//!
//! Frames themselves are kept and carried elsewhere (`table.rs`); here they are moments.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use serde::{Deserialize, Serialize};

/// The longest delay: longer than any timer of a node that waits for an answer.
const DELAY_MAX_MS: u32 = 60_000;

/// A frame that is to be overtaken waits so much longer. Guess: some frames of a burst follow within it.
pub const HOLD_BACK: Duration = Duration::from_millis(10);

/// What a line does to frames. Shares are between 0 and 1, and each is drawn for every frame.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// Time every frame takes. Carried out to the next millisecond.
    pub delay_ms: u32,
    /// By how much that may be more or less, every value alike. Order is kept all the same.
    pub jitter_ms: u32,
    /// Share of frames that never arrive.
    pub loss: f64,
    /// Share of frames that arrive twice.
    pub duplicate: f64,
    /// Share of frames that wait [`HOLD_BACK`] longer, so that those behind overtake them.
    pub reorder: f64,
}

impl Conditions {
    /// Whether a line can be so; else what is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        for (name, share) in [("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("{name} {share} is no share; it is between 0 and 1"));
            }
        }
        if self.delay_ms > DELAY_MAX_MS {
            return Err(format!("delay_ms {} exceeds {DELAY_MAX_MS}", self.delay_ms));
        }
        if self.jitter_ms > self.delay_ms {
            return Err(format!(
                "jitter_ms {} exceeds delay_ms {}: no frame arrives early",
                self.jitter_ms, self.delay_ms
            ));
        }
        Ok(())
    }
}

/// What a line has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Frames that came in.
    pub offered: u64,
    /// Of them, those that never arrive.
    pub lost: u64,
    /// Of them, those that arrive twice.
    pub duplicated: u64,
    /// Of them, those that were made to wait for others.
    pub held_back: u64,
    /// Frames that went out, both copies counted.
    pub delivered: u64,
    /// Of them, those that went out behind one that had come in later.
    pub overtaken: u64,
    /// Frames dropped because too many were waiting, or because the interface took no more.
    pub overflowed: u64,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Tells frames of a line apart, in the order they came in.
    pub number: u64,
    /// When it goes out.
    pub due: Instant,
    /// How often: 0, 1 or 2.
    pub copies: u8,
}

/// A line.
#[derive(Debug)]
pub(crate) struct Line {
    pub conditions: Conditions,
    pub tally: Tally,
    rng: Xoshiro256PlusPlus,
    /// When the last frame that was not held back goes out.
    last_due: Option<Instant>,
    /// The latest number that has gone out.
    furthest: Option<u64>,
}

impl Line {
    pub(crate) fn new(seed: u64) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self { conditions: Conditions::default(), tally: Tally::default(), rng, last_due: None, furthest: None }
    }

    /// A frame comes in.
    pub(crate) fn carry(&mut self, now: Instant) -> Fate {
        let Conditions { delay_ms, jitter_ms, loss, duplicate, reorder } = self.conditions;
        // Four draws for every frame, so that a change of one condition leaves the fate under the others alone.
        let [is_lost, is_doubled, is_held] = [loss, duplicate, reorder].map(|share| self.rng.random::<f64>() < share);
        let jitter = self.rng.random::<f64>() * 2.0 - 1.0;
        let delay_ms = f64::from(delay_ms) + jitter * f64::from(jitter_ms);
        let number = self.tally.offered;
        self.tally.offered += 1;
        let mut due = now + Duration::from_secs_f64(delay_ms.max(0.0) / 1e3);
        if is_lost {
            self.tally.lost += 1;
            return Fate { number, due, copies: 0 };
        }
        if is_held {
            self.tally.held_back += 1;
            due += HOLD_BACK;
        } else {
            due = self.last_due.map_or(due, |last| last.max(due));
            self.last_due = Some(due);
        }
        self.tally.duplicated += u64::from(is_doubled);
        Fate { number, due, copies: 1 + u8::from(is_doubled) }
    }

    /// A frame has gone out.
    pub(crate) fn delivered(&mut self, number: u64) {
        self.tally.delivered += 1;
        match self.furthest {
            Some(furthest) if number < furthest => self.tally.overtaken += 1,
            Some(_) | None => self.furthest = Some(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conditions() -> impl Strategy<Value = Conditions> {
        let share = || prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0];
        (0..500_u32, 0..=100_u32, share(), share(), share()).prop_map(|(delay_ms, jitter, loss, duplicate, reorder)| {
            let jitter_ms = delay_ms * jitter / 100;
            Conditions { delay_ms, jitter_ms, loss, duplicate, reorder }
        })
    }

    /// Frames that come in at these gaps, in milliseconds, and what becomes of each.
    fn carried(line: &mut Line, begun: Instant, gaps: &[u64]) -> Vec<(Instant, Fate)> {
        let mut now = begun;
        let mut carry = |gap: &u64| {
            now += Duration::from_millis(*gap);
            (now, line.carry(now))
        };
        gaps.iter().map(&mut carry).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn every_frame_is_on_time_and_counted(
            seed: u64,
            conditions in conditions(),
            gaps in prop::collection::vec(0..50_u64, 1..100),
        ) {
            prop_assert_eq!(conditions.check(), Ok(()));
            let mut line = Line::new(seed);
            line.conditions = conditions;
            let fates = carried(&mut line, Instant::now(), &gaps);
            let (delay, jitter) = (u64::from(conditions.delay_ms), u64::from(conditions.jitter_ms));
            let slack = Duration::from_micros(1);
            for (now, fate) in &fates {
                let earliest = *now + Duration::from_millis(delay - jitter);
                let latest = *now + Duration::from_millis(delay + jitter) + HOLD_BACK;
                prop_assert!(fate.due + slack >= earliest && fate.due <= latest + slack, "{:?}", fate);
            }
            let copies: u64 = fates.iter().map(|(_, fate)| u64::from(fate.copies)).sum();
            let tally = line.tally;
            prop_assert_eq!(tally.offered, gaps.len() as u64);
            prop_assert_eq!(copies, tally.offered - tally.lost + tally.duplicated);
        }

        #[test]
        fn without_reordering_nobody_is_overtaken(
            seed: u64,
            conditions in conditions(),
            gaps in prop::collection::vec(0..50_u64, 1..100),
        ) {
            let mut line = Line::new(seed);
            line.conditions = Conditions { reorder: 0.0, ..conditions };
            let fates = carried(&mut line, Instant::now(), &gaps);
            let dues: Vec<Instant> = fates.iter().filter(|(_, fate)| fate.copies > 0).map(|(_, fate)| fate.due).collect();
            prop_assert!(dues.is_sorted());
        }

        #[test]
        fn one_seed_gives_one_fate(seed: u64, conditions in conditions(), gaps in prop::collection::vec(0..50_u64, 1..50)) {
            let begun = Instant::now();
            let run = |seed| {
                let mut line = Line::new(seed);
                line.conditions = conditions;
                carried(&mut line, begun, &gaps)
            };
            prop_assert_eq!(run(seed), run(seed));
        }

        #[test]
        fn a_perfect_line_does_nothing(seed: u64, gaps in prop::collection::vec(0..50_u64, 1..50)) {
            let fates = carried(&mut Line::new(seed), Instant::now(), &gaps);
            prop_assert!(fates.iter().all(|(now, fate)| fate.due == *now && fate.copies == 1));
        }
    }

    #[test]
    fn shares_are_kept_and_those_held_back_are_overtaken() {
        let mut line = Line::new(7);
        line.conditions = Conditions { delay_ms: 50, jitter_ms: 20, loss: 0.05, duplicate: 0.01, reorder: 0.02 };
        let mut fates = carried(&mut line, Instant::now(), &[1; 100_000]);
        fates.sort_by_key(|(_, fate)| fate.due);
        for (_, fate) in fates {
            (0..fate.copies).for_each(|_| line.delivered(fate.number));
        }
        let tally = line.tally;
        // Five standard deviations of a binomial of that many frames.
        let is_near =
            |count: u64, share: f64| (count as f64 - 1e5 * share).abs() < 5.0 * (1e5 * share * (1.0 - share)).sqrt();
        assert!(is_near(tally.lost, 0.05) && is_near(tally.duplicated, 0.01), "{tally:?}");
        assert!(is_near(tally.held_back, 0.02 * 0.95), "{tally:?}");
        assert!(tally.overtaken > tally.held_back / 2, "{tally:?}");
        assert_eq!(tally.delivered, tally.offered - tally.lost + tally.duplicated);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |conditions: Conditions| conditions.check().unwrap_err();
        assert_eq!(
            refused(Conditions { loss: 1.5, ..Default::default() }),
            "loss 1.5 is no share; it is between 0 and 1"
        );
        assert!(refused(Conditions { reorder: f64::NAN, ..Default::default() }).starts_with("reorder NaN"));
        assert!(refused(Conditions { jitter_ms: 1, ..Default::default() }).contains("exceeds delay_ms 0"));
        assert!(refused(Conditions { delay_ms: 60_001, ..Default::default() }).contains("exceeds 60000"));
    }
}
