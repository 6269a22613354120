//! How long connections take to end once they are to end: by cause, and against the deadline each has. `[pure]`
//!
//! A connection departs when its end is known or its last lease is dropped, whichever comes first; it is retired when its
//! task is gone. Fixed in size, so that it can run for a year. Who departs when is kept in `lives.rs`.

use std::{collections::BTreeMap, time::Duration};

use iroh::EndpointId;

use crate::{connection, limits::Limits};

/// How a connection came to depart. What came first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Departure {
    /// The last lease on it was dropped: nobody needs it any more.
    LetGo,
    /// Its supervisor ordered it closed.
    Ordered,
    /// It ended by itself: the remote closed it, it was lost, or what the remote did ended it.
    Ended,
}

/// A task that could run waits at most this long for a processor. Guess, for two cores and a dozen nodes.
const SLACK: Duration = Duration::from_secs(2);

impl Departure {
    /// Every departure, in the order of a report.
    pub const ALL: [Departure; 3] = [Departure::LetGo, Departure::Ordered, Departure::Ended];

    /// The stable name in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Departure::LetGo => "let-go",
            Departure::Ordered => "ordered",
            Departure::Ended => "ended",
        }
    }

    /// The longest that the rest of a connection takes after this, by the node's own timeouts.
    pub fn deadline(self, limits: &Limits) -> Duration {
        let own = match self {
            // What is queued, the farewells, their acknowledgements, the grace. A remote that died meanwhile is no slower.
            Departure::LetGo => {
                limits.slow_peer_timeout.max(limits.idle_timeout) + limits.finish_timeout * 2 + limits.close_grace
            }
            Departure::Ordered => connection::PARTING_MAX,
            Departure::Ended => Duration::ZERO,
        };
        own + connection::LAST_FRAMES + SLACK
    }
}

/// What is told of the retirements since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetirementReport {
    /// Connections whose task has ended.
    pub retired: u64,
    /// Of these, how many took longer than the deadline of their departure.
    pub late: u64,
    /// The median of the times from departure to the end of the task, at most a quarter too long.
    pub p50: Duration,
    /// The 99th percentile, at most a quarter too long.
    pub p99: Duration,
    /// The longest, exactly.
    pub max: Duration,
    /// The same by cause, by name. Causes that did not occur are left out.
    pub causes: Vec<CauseReport>,
    /// The slowest one since the start.
    pub slowest: Option<Retired>,
    /// The deadline of each departure, in the order of [`Departure::ALL`].
    pub deadlines: [Duration; Departure::ALL.len()],
}

/// The retirements of one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CauseReport {
    /// As in [`crate::ClosedConnection::cause`].
    pub cause: &'static str,
    /// How many.
    pub retired: u64,
    /// Of these, how many were late.
    pub late: u64,
    /// The longest.
    pub max: Duration,
}

/// One retirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retired {
    /// Number of the connection, unique within the mesh.
    pub number: u64,
    /// The remote.
    pub peer: EndpointId,
    /// What ended it.
    pub cause: &'static str,
    /// How it departed.
    pub departure: Departure,
    /// From departure to the end of its task.
    pub took: Duration,
}

/// The figures of one mesh.
#[derive(Debug)]
pub(crate) struct Retirements {
    deadlines: [Duration; Departure::ALL.len()],
    /// Causes are a closed set of names in the code, some forty.
    causes: BTreeMap<&'static str, CauseReport>,
    times: Histogram,
    slowest: Option<Retired>,
}

impl Retirements {
    pub(crate) fn new(limits: &Limits) -> Self {
        let deadlines = Departure::ALL.map(|departure| departure.deadline(limits));
        Self { deadlines, causes: BTreeMap::new(), times: Histogram::default(), slowest: None }
    }

    pub(crate) fn note(&mut self, one: Retired) {
        let Retired { cause, departure, took, .. } = one;
        let fresh = CauseReport { cause, retired: 0, late: 0, max: Duration::ZERO };
        let line = self.causes.entry(cause).or_insert(fresh);
        line.retired += 1;
        line.late += u64::from(took > self.deadlines[departure as usize]);
        line.max = line.max.max(took);
        self.times.note(took);
        if self.slowest.is_none_or(|slowest| took > slowest.took) {
            self.slowest = Some(one);
        }
    }

    pub(crate) fn report(&self) -> RetirementReport {
        let causes: Vec<_> = self.causes.values().copied().collect();
        let max = self.slowest.map_or(Duration::ZERO, |slowest| slowest.took);
        RetirementReport {
            retired: causes.iter().map(|cause| cause.retired).sum(),
            late: causes.iter().map(|cause| cause.late).sum(),
            p50: self.times.percentile(50).min(max),
            p99: self.times.percentile(99).min(max),
            max,
            causes,
            slowest: self.slowest,
            deadlines: self.deadlines,
        }
    }
}

/// Four buckets to every doubling of milliseconds, up to four minutes; beyond that all is one.
const BUCKETS: usize = 68;

/// Times in buckets that grow with them: a percentile is at most a quarter too long, and never too short.
#[derive(Debug)]
struct Histogram {
    counts: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS] }
    }
}

impl Histogram {
    fn note(&mut self, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.counts[bucket_of(ms).min(BUCKETS - 1)] += 1;
    }

    /// The upper end of the bucket that `percent` of the times do not exceed; zero when there are none.
    fn percentile(&self, percent: u64) -> Duration {
        let all: u64 = self.counts.iter().sum();
        let rank = (all * percent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && rank > 0 {
                return Duration::from_millis(upper_end(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket_of(ms: u64) -> usize {
    if ms < 4 {
        return ms as usize;
    }
    let doubling = ms.ilog2() as usize - 2;
    4 + doubling * 4 + (ms >> doubling & 3) as usize
}

/// The first whole millisecond above everything in the bucket.
fn upper_end(bucket: usize) -> u64 {
    match bucket {
        0..4 => bucket as u64 + 1,
        _ => (4 + (bucket as u64 & 3) + 1) << ((bucket - 4) / 4),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retired(cause: &'static str, departure: Departure, ms: u64) -> Retired {
        let peer = iroh::SecretKey::from_bytes(&[1; 32]).public();
        Retired { number: ms, peer, cause, departure, took: Duration::from_millis(ms) }
    }

    #[test]
    fn each_departure_has_a_deadline_of_its_own_and_a_report_says_who_missed_it() {
        let limits = Limits::default();
        let mut retirements = Retirements::new(&limits);
        let deadline = Departure::LetGo.deadline(&limits);
        assert!(deadline > limits.finish_timeout * 2 + limits.close_grace);
        assert!(Departure::Ended.deadline(&limits) < Departure::Ordered.deadline(&limits));
        retirements.note(retired("retired", Departure::LetGo, deadline.as_millis() as u64));
        retirements.note(retired("lost", Departure::Ended, 2));
        assert_eq!(retirements.report().late, 0);
        retirements.note(retired("lost", Departure::Ended, deadline.as_millis() as u64 + 1));
        let report = retirements.report();
        assert_eq!((report.retired, report.late, report.causes.len()), (3, 1, 2));
        assert_eq!(report.causes[0].cause, "lost");
        assert_eq!(report.slowest.map(|slowest| slowest.cause), Some("lost"));
        assert_eq!(report.deadlines[0], deadline);
    }

    #[test]
    fn percentiles_of_nothing_are_nothing_and_of_a_hundred_are_close() {
        let mut times = Histogram::default();
        assert_eq!(times.percentile(99), Duration::ZERO);
        (1..=100).for_each(|ms| times.note(Duration::from_millis(ms)));
        let (half, most) = (times.percentile(50).as_millis(), times.percentile(99).as_millis());
        assert!((50..=63).contains(&half) && (99..=124).contains(&most), "{half} {most}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_time_falls_outside_its_bucket(ms in 0u64..262_144) {
            let bucket = bucket_of(ms);
            prop_assert!(bucket < BUCKETS && ms < upper_end(bucket));
            prop_assert!(ms < 4 || upper_end(bucket) <= ms + ms / 4 + 1);
            prop_assert!(bucket == 0 || upper_end(bucket - 1) <= ms);
        }
    }
}
