//! The maps, queues and caches of a node, each with its size, its bound and the most it ever held. `[pure]`
//!
//! Whoever owns a store tells of it; here are only the words. Every answer costs a look at a length, never a walk.

use std::sync::atomic::{AtomicUsize, Ordering};

use iroh_gossip::proto::TopicId;

/// One store at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUse {
    /// The stable name in reports and JSON.
    pub name: &'static str,
    /// The topic it belongs to, if it belongs to one.
    pub topic: Option<TopicId>,
    /// What it holds, in entries unless the name says bytes.
    pub size: u64,
    /// The most it may hold; `None` where only time, or the number of remotes, bounds it.
    pub cap: Option<u64>,
    /// The most it held since the start; `None` where nobody notes it.
    pub high_water: Option<u64>,
}

impl StoreUse {
    /// One whose owner keeps its high water.
    pub(crate) fn new(name: &'static str, cap: Option<usize>, (size, high_water): (usize, usize)) -> Self {
        let high_water = Some(high_water.max(size) as u64);
        Self { high_water, ..Self::unmarked(name, cap, size) }
    }

    /// One whose high water nobody notes.
    pub(crate) fn unmarked(name: &'static str, cap: Option<usize>, size: usize) -> Self {
        Self { name, topic: None, size: size as u64, cap: cap.map(|cap| cap as u64), high_water: None }
    }

    pub(crate) fn of_topic(self, topic: TopicId) -> Self {
        Self { topic: Some(topic), ..self }
    }
}

/// A size that its owner's loop notes and others read.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    size: AtomicUsize,
    high_water: AtomicUsize,
}

impl Gauge {
    pub(crate) fn note(&self, size: usize) {
        self.size.store(size, Ordering::Relaxed);
        if size > self.high_water.load(Ordering::Relaxed) {
            self.high_water.fetch_max(size, Ordering::Relaxed);
        }
    }

    /// Now, and at most.
    pub(crate) fn read(&self) -> (usize, usize) {
        (self.size.load(Ordering::Relaxed), self.high_water.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_remembers_the_most() {
        let gauge = Gauge::default();
        [3, 7, 2].into_iter().for_each(|size| gauge.note(size));
        let store = StoreUse::new("pending", Some(9), gauge.read());
        assert_eq!((store.size, store.cap, store.high_water), (2, Some(9), Some(7)));
        assert_eq!(StoreUse::unmarked("routes", None, 4).high_water, None);
    }
}
