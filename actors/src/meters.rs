//! What one mesh measures of its work: how long attempts and connections took, how large messages were. `[pure]`
//!
//! Who begins and ends something measures it and notes it here; this file holds the bounds and the words.

use std::{sync::Arc, time::Duration};

use crate::histogram::{Histogram, Recorder};

/// How an attempt can end, by the outcome of its operation.
const OUTCOMES: [&str; 4] = ["connected", "timed-out", "failed", "abandoned"];

/// In microseconds. From a handshake on one host to the deadlines of a dial, 10 s and more.
const ATTEMPT_BOUNDS: &[u64] = &[
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// In microseconds: from connections that were not wanted to those of a mesh that stays up for a month.
const LIFETIME_BOUNDS: &[u64] = &[
    100_000,
    1_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
    21_600_000_000,
    86_400_000_000,
    604_800_000_000,
    2_592_000_000_000,
];

/// In bytes. What a message may hold by default ends below 4096; whoever allows larger frames sees them apart.
const SIZE_BOUNDS: &[u64] = &[16, 64, 256, 1024, 2048, 4096, 16_384, 65_536];

/// What a mesh measured since its start. Durations are in microseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Outgoing attempts, by outcome: `connected`, `timed-out`, `failed`, `abandoned`.
    pub dials: Vec<(&'static str, Histogram)>,
    /// Incoming attempts that were let in, by outcome as dials are.
    pub handshakes: Vec<(&'static str, Histogram)>,
    /// Connections that have ended, from the end of their handshake to the end of their task.
    pub lifetimes: Histogram,
    /// The content of messages that the application of this node published.
    pub published: Histogram,
    /// The content of messages of others that it was given.
    pub delivered: Histogram,
}

/// The live meters of one mesh. Cheap to clone; all clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dials: [Recorder; OUTCOMES.len()],
    handshakes: [Recorder; OUTCOMES.len()],
    lifetimes: Recorder,
    published: Recorder,
    delivered: Recorder,
}

/// Which attempts are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    Dial,
    Handshake,
}

impl Default for Meters {
    fn default() -> Self {
        let by_outcome = || std::array::from_fn(|_| Recorder::new(ATTEMPT_BOUNDS));
        let shared = Shared {
            dials: by_outcome(),
            handshakes: by_outcome(),
            lifetimes: Recorder::new(LIFETIME_BOUNDS),
            published: Recorder::new(SIZE_BOUNDS),
            delivered: Recorder::new(SIZE_BOUNDS),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Meters {
    /// An attempt has ended. An outcome that has no name here counts as failed.
    pub(crate) fn note_attempt(&self, attempt: Attempt, outcome: &str, took: Duration) {
        let at = OUTCOMES.iter().position(|name| *name == outcome);
        debug_assert!(at.is_some(), "{outcome} is none of {OUTCOMES:?}");
        let recorders = match attempt {
            Attempt::Dial => &self.shared.dials,
            Attempt::Handshake => &self.shared.handshakes,
        };
        recorders[at.unwrap_or(2)].record(micros(took));
    }

    /// The task of a connection has ended.
    pub(crate) fn note_lifetime(&self, lived: Duration) {
        self.shared.lifetimes.record(micros(lived));
    }

    /// The application published a message of this size.
    pub(crate) fn note_published(&self, bytes: usize) {
        self.shared.published.record(bytes as u64);
    }

    /// The application is given a message of this size.
    pub(crate) fn note_delivered(&self, bytes: usize) {
        self.shared.delivered.record(bytes as u64);
    }

    pub(crate) fn read(&self) -> Measured {
        let Shared { dials, handshakes, lifetimes, published, delivered } = &*self.shared;
        let by_outcome =
            |recorders: &[Recorder]| OUTCOMES.into_iter().zip(recorders.iter().map(Recorder::read)).collect();
        Measured {
            dials: by_outcome(dials),
            handshakes: by_outcome(handshakes),
            lifetimes: lifetimes.read(),
            published: published.read(),
            delivered: delivered.read(),
        }
    }
}

/// 585 thousand years fit.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_of_each_kind_of_attempt_is_counted_apart() {
        let meters = Meters::default();
        for (times, outcome) in (1..).zip(OUTCOMES) {
            (0..times).for_each(|_| meters.note_attempt(Attempt::Dial, outcome, Duration::from_millis(3)));
        }
        meters.clone().note_attempt(Attempt::Handshake, "failed", Duration::MAX);
        let Measured { dials, handshakes, .. } = meters.read();
        let counts =
            |of: &[(&str, Histogram)]| of.iter().map(|(name, one)| (name.len(), one.count())).collect::<Vec<_>>();
        assert_eq!(counts(&dials), [(9, 1), (9, 2), (6, 3), (9, 4)]);
        assert_eq!(counts(&handshakes), [(9, 0), (9, 0), (6, 1), (9, 0)]);
        assert_eq!(dials[3].1.sum(), 12_000);
    }
}
