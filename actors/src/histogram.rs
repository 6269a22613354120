//! How long or how large things were, as counts by size: a few words of memory however many are counted. `[pure]`
//!
//! What is measured is in `meters.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

/// What was measured since the start, by size. Nothing is ever taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// From the smallest values to the largest.
    pub buckets: Vec<Bucket>,
}

/// Values of about one size: larger than the `max` of the bucket before, and no larger than this one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// `None` of the last one, which takes whatever is larger.
    pub max: Option<u64>,
    /// How many.
    pub count: u64,
    /// Of them all together.
    pub sum: u64,
}

impl Histogram {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    /// Of all values.
    pub fn sum(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.sum).sum()
    }
}

/// A histogram that is being filled, from any number of threads. Its bounds never change.
#[derive(Debug)]
pub(crate) struct Recorder {
    bounds: &'static [u64],
    /// One more than bounds; each a count and a sum.
    buckets: Box<[(AtomicU64, AtomicU64)]>,
}

impl Recorder {
    /// `bounds`: the largest value of each bucket, rising.
    pub(crate) fn new(bounds: &'static [u64]) -> Self {
        debug_assert!(bounds.is_sorted(), "{bounds:?}");
        Self { bounds, buckets: (0..=bounds.len()).map(|_| Default::default()).collect() }
    }

    /// Counts one more.
    pub(crate) fn record(&self, value: u64) {
        let at = self.bounds.partition_point(|max| *max < value);
        let (count, sum) = &self.buckets[at];
        // The sum first and the count last: who reads in between is told of one too few, and of no value out of nothing.
        sum.fetch_add(value, Ordering::Relaxed);
        count.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn read(&self) -> Histogram {
        let maxima = self.bounds.iter().copied().map(Some).chain([None]);
        let bucket = |(max, (count, sum)): (Option<u64>, &(AtomicU64, AtomicU64))| {
            let count = count.load(Ordering::Acquire);
            Bucket { max, count, sum: sum.load(Ordering::Relaxed) }
        };
        Histogram { buckets: maxima.zip(&self.buckets).map(bucket).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_the_bucket_that_is_just_large_enough() {
        let recorder = Recorder::new(&[10, 100]);
        [0, 10, 11, 100, 101, u64::MAX - 101].into_iter().for_each(|value| recorder.record(value));
        let told: Vec<_> = recorder.read().buckets.iter().map(|one| (one.max, one.count, one.sum)).collect();
        assert_eq!(told, [(Some(10), 2, 10), (Some(100), 2, 111), (None, 2, u64::MAX)]);
    }

    #[test]
    fn threads_that_record_at_once_lose_nothing() {
        let recorder = Recorder::new(&[1, 2, 3]);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let recorder = &recorder;
                scope.spawn(move || (0..1000).for_each(|value| recorder.record((thread + value) % 5)));
            }
        });
        let told = recorder.read();
        assert_eq!((told.count(), told.sum()), (8000, 8 * 200 * (1 + 2 + 3 + 4)));
    }
}
