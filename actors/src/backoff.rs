//! When to try again: exponential, half fixed and half random. `[pure]`
//!
//! "Equal jitter": the fixed half keeps a fast failure from spinning, the random half keeps nodes that failed together
//! from coming back together. Which remote may be dialed when is in `backoff/redials.rs`; whether it is our own network that
//! is out, in `backoff/outage.rs`.

use std::time::Duration;

use rand::{Rng, RngExt};

pub(crate) mod outage;
pub(crate) mod redials;

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
        self.attempts = self.attempts.saturating_add(1);
        pause(self.min, self.max, self.attempts, rng)
    }

    /// The thing has succeeded.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// The pause after the `failures`-th failure in a row, counted from 1: between half and all of `min · 2^(failures − 1)`, at
/// most `max`.
pub(crate) fn pause(min: Duration, max: Duration, failures: u32, rng: &mut impl Rng) -> Duration {
    let full = min.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(max);
    full / 2 + up_to(full / 2, rng)
}

/// Some time from none to `longest`.
pub(crate) fn up_to(longest: Duration, rng: &mut impl Rng) -> Duration {
    longest.mul_f64(rng.random_range(0.0..=1.0))
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
