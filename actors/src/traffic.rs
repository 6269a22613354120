//! What the topics of one node have carried since the start. `[pure]`
//!
//! What was *not* carried is counted by reason in `counters.rs`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Messages, over all topics, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Messages that the application of this node published.
    pub published: u64,
    /// Messages of others that the application of this node was given. Duplicates are not.
    pub delivered: u64,
    /// Copies of messages, own and forwarded ones, that were put into the outbox of a neighbour.
    pub sent: u64,
}

/// The live counters of one mesh. Cheap to clone; all clones count into the same lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrafficCounters {
    lines: Arc<[AtomicU64; 3]>,
}

impl TrafficCounters {
    pub(crate) fn note_published(&self) {
        self.lines[0].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_delivered(&self) {
        self.lines[1].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_sent(&self) {
        self.lines[2].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Traffic {
        let [published, delivered, sent] = [0, 1, 2].map(|line| self.lines[line].load(Ordering::Relaxed));
        Traffic { published, delivered, sent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_its_own_and_all_clones_share_them() {
        let counters = TrafficCounters::default();
        let clone = counters.clone();
        clone.note_published();
        (0..2).for_each(|_| clone.note_delivered());
        (0..3).for_each(|_| clone.note_sent());
        assert_eq!(counters.read(), Traffic { published: 1, delivered: 2, sent: 3 });
    }
}
