//! How many lines one place in the program may log before the rest is only counted. `[pure]`
//!
//! A remote that misbehaves in a new way makes one place talk without end; nobody must be able to fill a disk or to bury
//! the line that matters. What was not shown is told in one line once its interval is over, so that no count is lost.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Lines of one place in one interval. Together about a line a second, which is what a person can follow, and a mebibyte
/// an hour, which is what a disk can take of every place that ever goes wrong.
const LINES_MAX: u32 = 60;

/// From the first line on.
const INTERVAL: Duration = Duration::from_secs(60);

/// Places that are counted apart; those beyond share one count. Guess: this program has some thirty that log at `info` and
/// above, its libraries a few hundred. Change it if a summary ever names a place that is not the one talking.
const SITES_MAX: usize = 1024;

/// The state of every place that said something in its current interval.
#[derive(Debug)]
pub(super) struct Throttle<S> {
    sites: HashMap<S, Interval>,
    others: Option<(S, Interval)>,
}

/// Of one place.
#[derive(Debug)]
struct Interval {
    since: Instant,
    lines: u32,
    /// Not shown and not told yet.
    suppressed: u64,
}

/// What a place said that was not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary<S> {
    pub(super) site: S,
    pub(super) suppressed: u64,
}

/// Derived it would ask for a place that has a default.
impl<S> Default for Throttle<S> {
    fn default() -> Self {
        Self { sites: HashMap::new(), others: None }
    }
}

impl<S: Copy + Eq + Hash> Throttle<S> {
    /// Whether a line of `site` is shown at `now`.
    pub(super) fn allow(&mut self, site: S, now: Instant) -> bool {
        let is_room = self.sites.len() < SITES_MAX || self.sites.contains_key(&site);
        let interval = if is_room {
            self.sites.entry(site).or_insert_with(|| Interval::new(now))
        } else {
            &mut self.others.get_or_insert_with(|| (site, Interval::new(now))).1
        };
        interval.allow(now)
    }

    /// Closes every interval that is over; what was suppressed in each.
    pub(super) fn close_ended(&mut self, now: Instant) -> Vec<Summary<S>> {
        self.close(|interval| interval.is_over(now))
    }

    /// Closes every interval, at the end of the program.
    pub(super) fn close_all(&mut self) -> Vec<Summary<S>> {
        self.close(|_| true)
    }

    fn close(&mut self, is_over: impl Fn(&Interval) -> bool) -> Vec<Summary<S>> {
        let ended = self.sites.extract_if(|_, interval| is_over(interval));
        let others = self.others.take_if(|(_, interval)| is_over(interval));
        let ended = ended.chain(others).filter(|(_, interval)| interval.suppressed > 0);
        ended.map(|(site, interval)| Summary { site, suppressed: interval.suppressed }).collect()
    }
}

impl Interval {
    fn new(since: Instant) -> Self {
        Self { since, lines: 0, suppressed: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= INTERVAL
    }

    fn allow(&mut self, now: Instant) -> bool {
        // With something left to tell it stays as it is until that is told, a moment later.
        if self.is_over(now) && self.suppressed == 0 {
            *self = Self::new(now);
        }
        let is_shown = self.lines < LINES_MAX;
        if is_shown {
            self.lines += 1;
        } else {
            self.suppressed += 1;
        }
        is_shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of `site` that are shown out of `said`.
    fn shown(throttle: &mut Throttle<u32>, site: u32, said: u64, now: Instant) -> u64 {
        (0..said).filter(|_| throttle.allow(site, now)).count() as u64
    }

    #[test]
    fn a_flood_shows_its_first_lines_and_one_summary() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(shown(&mut throttle, 1, 1000, start), u64::from(LINES_MAX));
        assert_eq!(throttle.close_ended(start + INTERVAL / 2), []);
        let summary = Summary { site: 1, suppressed: 1000 - u64::from(LINES_MAX) };
        assert_eq!(throttle.close_ended(start + INTERVAL), [summary]);
        assert_eq!(throttle.close_ended(start + 2 * INTERVAL), [], "told once");
    }

    #[test]
    fn a_place_that_says_little_is_never_cut_and_leaves_nothing_behind() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        for second in 0..3600 {
            assert!(throttle.allow(1, start + Duration::from_secs(second)));
        }
        assert_eq!(throttle.close_ended(start + Duration::from_secs(3600) + INTERVAL), []);
        assert!(throttle.sites.is_empty());
    }

    #[test]
    fn a_flood_in_one_place_silences_no_other() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        shown(&mut throttle, 1, 1000, start);
        assert_eq!(shown(&mut throttle, 2, 3, start), 3);
    }

    #[test]
    fn every_line_is_shown_or_told_however_floods_and_summaries_fall() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let (mut said, mut shown, mut told) = (0, 0, 0);
        for step in 0..5000_u64 {
            let now = start + Duration::from_millis(step * 97);
            for _ in 0..step % 7 {
                said += 1;
                shown += u64::from(throttle.allow(0, now));
            }
            if step % 311 == 0 {
                told += throttle.close_ended(now).iter().map(|summary| summary.suppressed).sum::<u64>();
            }
        }
        told += throttle.close_all().iter().map(|summary| summary.suppressed).sum::<u64>();
        assert_eq!(shown + told, said);
        // Eight minutes; a summary may come half a minute late, and nothing new is shown before it.
        assert!((300..=540).contains(&shown), "{shown} of {said}");
    }

    #[test]
    fn beyond_the_bound_places_share_one_count_and_none_is_forgotten() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let places = SITES_MAX as u32 + 100;
        let all: u64 = (0..places).map(|site| shown(&mut throttle, site, 2, start)).sum();
        assert_eq!(throttle.sites.len(), SITES_MAX);
        assert_eq!(all, 2 * SITES_MAX as u64 + u64::from(LINES_MAX));
        let told: u64 = throttle.close_all().iter().map(|summary| summary.suppressed).sum();
        assert_eq!(told, 2 * u64::from(places) - all);
    }
}
