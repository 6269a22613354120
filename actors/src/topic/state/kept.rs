//! How many messages the protocol's state keeps, and how large they are. `[pure]`
//!
//! The state does not tell, but it keeps every message for a fixed time from the moment it is published or first received,
//! and both pass through here. So this is its books kept a second time, by whole seconds: never too low, and too high by
//! what comes in a second or two.

use std::{collections::VecDeque, time::Duration};

use n0_future::time::Instant;

/// The protocol looks for what has expired this often (`proto/plumtree.rs`, 0.101.0).
const EVICT_INTERVAL: Duration = Duration::from_secs(1);

/// Messages kept for one time. At most one cell for each second of it.
#[derive(Debug)]
pub(super) struct Kept {
    start: Instant,
    retention: Duration,
    cells: VecDeque<Cell>,
    entries: usize,
    bytes: usize,
}

/// What came within one second.
#[derive(Debug)]
struct Cell {
    second: u64,
    entries: usize,
    bytes: usize,
}

impl Kept {
    pub(super) fn new(retention: Duration, now: Instant) -> Self {
        Self { start: now, retention, cells: VecDeque::new(), entries: 0, bytes: 0 }
    }

    /// One more message with so much content.
    pub(super) fn note(&mut self, bytes: usize, now: Instant) {
        let second = now.saturating_duration_since(self.start).as_secs();
        if self.cells.back().is_none_or(|last| last.second < second) {
            self.expire(now);
            self.cells.push_back(Cell { second, entries: 0, bytes: 0 });
        }
        if let Some(last) = self.cells.back_mut() {
            last.entries += 1;
            last.bytes += bytes;
            self.entries += 1;
            self.bytes += bytes;
        }
    }

    /// Forgets what the state has forgotten by now.
    pub(super) fn expire(&mut self, now: Instant) {
        let kept_for = self.retention + EVICT_INTERVAL;
        while let Some(first) = self.cells.front()
            && self.start + Duration::from_secs(first.second + 1) + kept_for <= now
        {
            self.entries -= first.entries;
            self.bytes -= first.bytes;
            self.cells.pop_front();
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_long_ago_is_not_kept_and_the_cells_are_few() {
        let start = Instant::now();
        let mut kept = Kept::new(Duration::from_secs(10), start);
        for step in 0..1000 {
            kept.note(100, start + Duration::from_millis(100 * step));
        }
        let end = start + Duration::from_secs(100);
        assert!(kept.cells.len() <= 13, "{} cells", kept.cells.len());
        assert!((100..=130).contains(&kept.entries()), "{}", kept.entries());
        assert_eq!(kept.bytes(), kept.entries() * 100);
        kept.expire(end + Duration::from_secs(5));
        assert!(kept.entries() > 0);
        kept.expire(end + Duration::from_secs(11));
        assert_eq!((kept.entries(), kept.bytes(), kept.cells.len()), (0, 0, 0));
    }
}
