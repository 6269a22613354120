//! How often a collector that fails is asked, and what is said of it: once when it begins to fail, once when it is back.
//! `[pure]`

use std::time::Duration;

/// Between two attempts while a collector fails, at first and at most. A restart of a collector takes seconds; once it is
/// down for longer, half a minute late is early enough.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The attempts that failed in a row.
#[derive(Debug, Default)]
pub(super) struct Outage {
    failed: u32,
}

/// What an attempt changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    None,
    Begun,
    /// After so many attempts that failed.
    Over {
        attempts: u32,
    },
}

impl Outage {
    pub(super) fn on_attempt(&mut self, is_sent: bool) -> News {
        match (is_sent, self.failed) {
            (true, 0) => News::None,
            (true, attempts) => {
                self.failed = 0;
                News::Over { attempts }
            }
            (false, failed) => {
                self.failed = failed.saturating_add(1);
                if failed == 0 { News::Begun } else { News::None }
            }
        }
    }

    /// How long to leave the collector alone; `None` while it does its work.
    pub(super) fn pause(&self) -> Option<Duration> {
        let doublings = self.failed.checked_sub(1)?.min(u32::BITS - 1);
        Some(PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_fails_is_asked_ever_more_seldom_and_told_of_twice() {
        let mut outage = Outage::default();
        let mut pauses = Vec::new();
        let mut news = Vec::new();
        for is_sent in [true, false, false, false, false, false, false, false, true, true, false] {
            news.push(outage.on_attempt(is_sent));
            pauses.push(outage.pause().map(|pause| pause.as_secs()));
        }
        let seconds = [1, 2, 4, 8, 16, 30, 30].map(Some);
        assert_eq!(pauses, [&[None][..], &seconds, &[None, None, Some(1)]].concat());
        let is_news: Vec<_> = news.into_iter().filter(|news| *news != News::None).collect();
        assert_eq!(is_news, [News::Begun, News::Over { attempts: 7 }, News::Begun]);
        for _ in 0..100 {
            outage.on_attempt(false);
        }
        assert_eq!(outage.pause(), Some(PAUSE_MAX));
    }
}
