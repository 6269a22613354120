//! From exits to verdicts: restart at once, or give up. `[pure]`
//!
//! The rule is OTP's restart intensity: at most `max` restarts within `period`. One more means that restarting does
//! not help, and the failure climbs one level up the tree.

use std::{collections::VecDeque, time::Duration};

use n0_future::time::Instant;

/// What a supervisor does about a child that crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Restart,
    GiveUp,
}

/// The restarts of one child.
#[derive(Debug)]
pub(crate) struct Restarts {
    max: usize,
    period: Duration,
    recent: VecDeque<Instant>,
    total: u32,
}

impl Restarts {
    pub(crate) fn new(max: usize, period: Duration) -> Self {
        Self { max, period, recent: VecDeque::new(), total: 0 }
    }

    pub(crate) fn on_crash(&mut self, now: Instant) -> Verdict {
        while self.recent.front().is_some_and(|first| now.duration_since(*first) >= self.period) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.max {
            return Verdict::GiveUp;
        }
        self.recent.push_back(now);
        self.total += 1;
        Verdict::Restart
    }

    /// Restarts granted since the start.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_crashes_ends_patience_and_a_slow_drip_does_not() {
        let start = Instant::now();
        let mut burst = Restarts::new(2, Duration::from_secs(10));
        let verdicts: Vec<_> = (0..3).map(|second| burst.on_crash(start + Duration::from_secs(second))).collect();
        assert_eq!(verdicts, [Verdict::Restart, Verdict::Restart, Verdict::GiveUp]);

        let mut drip = Restarts::new(2, Duration::from_secs(10));
        for minute in 0..50 {
            assert_eq!(drip.on_crash(start + Duration::from_secs(60 * minute)), Verdict::Restart);
        }
        assert_eq!(drip.total(), 50);
        assert!(drip.recent.len() <= 2);
    }
}
