//! When to try again: exponential, half fixed and half random. `[pure]`
//!
//! "Equal jitter": the fixed half keeps a fast failure from spinning, the random half keeps nodes that failed together
//! from coming back together.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The pauses between the attempts at one thing.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, attempts: 0 }
    }

    /// The pause before the next attempt: between half and all of `min · 2ⁿ`, at most `max`.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let full = self.min.saturating_mul(2u32.saturating_pow(self.attempts)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        full / 2 + (full / 2).mul_f64(rng.random_range(0.0..=1.0))
    }

    /// The thing has succeeded.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_stay_within_their_half() {
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut rng = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::new(min, max);
        for full in [1, 2, 4, 8, 16, 30, 30, 30].map(Duration::from_secs) {
            let pause = backoff.next(&mut rng);
            assert!(pause >= full / 2 && pause <= full, "{pause:?} is not within {full:?} and its half");
        }
        (0..100).for_each(|_| assert!(backoff.next(&mut rng) <= max));
        backoff.reset();
        assert!(backoff.next(&mut rng) <= min);
    }
}
