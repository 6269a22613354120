//! When it is a flood, and how much of it to drop. `[pure]`
//!
//! Only counts and judges; what a flood changes is in `buckets.rs`. The numbers are those of
//! [dcrd](https://github.com/decred/dcrd/pull/3702), the way out of a flood is ours.

use n0_future::time::Instant;

/// A minute in seconds.
const CELLS: usize = 60;

/// What is dropped when a flood begins, and at most.
const DROP_MIN: f64 = 0.20;
const DROP_MAX: f64 = 0.85;

/// The multiple of the threshold at which no more than [`DROP_MAX`] helps.
const DROP_MAX_AT: f64 = 4.0;

/// Counts the admissions of the last minute.
#[derive(Debug)]
pub(super) struct Flood {
    per_min_max: u32,
    /// Admissions by second, a ring.
    cells: [u32; CELLS],
    /// The sum of the cells.
    pub(super) count: u32,
    /// The second being counted, from `start`.
    second: u64,
    start: Instant,
    is_flooded: bool,
}

impl Flood {
    pub(super) fn new(per_min_max: u32, now: Instant) -> Self {
        Self { per_min_max, cells: [0; CELLS], count: 0, second: 0, start: now, is_flooded: false }
    }

    /// Time has passed; it does not go back.
    pub(super) fn advance(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        for passed in (self.second + 1..=second).take(CELLS) {
            self.count -= std::mem::take(&mut self.cells[passed as usize % CELLS]);
        }
        self.second = self.second.max(second);
        // What is dropped, a fifth at least, is not counted: what would end at the threshold would begin again at once.
        self.is_flooded &= self.count > self.per_min_max / 2;
    }

    /// One more, at the moment of the last [`Flood::advance`].
    pub(super) fn note_admitted(&mut self) {
        self.cells[self.second as usize % CELLS] += 1;
        self.count += 1;
        self.is_flooded |= self.count > self.per_min_max;
    }

    /// From the first admission above the threshold until a minute has seen no more than half of it.
    pub(super) fn is_flooded(&self) -> bool {
        self.is_flooded
    }

    /// Grows slowly at first, then fast, then slowly again, from once to four times the threshold.
    pub(super) fn drop_chance(&self) -> f64 {
        if !self.is_flooded {
            return 0.0;
        }
        let multiple = f64::from(self.count) / f64::from(self.per_min_max.max(1));
        let way = ((multiple - 1.0) / (DROP_MAX_AT - 1.0)).clamp(0.0, 1.0);
        DROP_MIN + (DROP_MAX - DROP_MIN) * way * way * (3.0 - 2.0 * way)
    }
}
