//! How many messages the protocol's state keeps, and how large they are. `[pure]`
//!
//! The state does not tell, but it keeps every message for a fixed time from the moment it is published or first received,
//! and both pass through here. So this is its books kept a second time, in sixty-fourths of that time: never too low, and too
//! high by what comes in one or two of them and until the state looks for what has expired.

use std::{collections::VecDeque, time::Duration};

use iroh_gossip::proto::topic::InEvent;
use n0_future::time::Instant;

use super::State;

/// The protocol looks for what has expired this often (`proto/plumtree.rs`, 0.101.0).
const EVICT_INTERVAL: Duration = Duration::from_secs(1);

/// Cells that the time is cut into.
const CELLS: u32 = 64;

/// What the state spends on a message beside its content: the message with its id and a reference-counted buffer, a slot of a
/// hash table and one of a heap, both of which may be twice as large as they need be. Measured with small messages: 300.
pub(super) const ENTRY_BYTES: usize = 300;

/// Messages kept for one time.
#[derive(Debug)]
pub(super) struct Kept {
    start: Instant,
    retention: Duration,
    cell: Duration,
    cells: VecDeque<Cell>,
    entries: usize,
    bytes: usize,
}

/// What came within one cell's time.
#[derive(Debug)]
struct Cell {
    number: u64,
    entries: usize,
    bytes: usize,
}

impl Kept {
    pub(super) fn new(retention: Duration, now: Instant) -> Self {
        // No time of nothing, which everything would be in at once.
        let cell = (retention / CELLS).max(Duration::from_millis(1));
        Self { start: now, retention, cell, cells: VecDeque::new(), entries: 0, bytes: 0 }
    }

    /// One more message with so much content.
    pub(super) fn note(&mut self, bytes: usize, now: Instant) {
        let number = (now.saturating_duration_since(self.start).as_nanos() / self.cell.as_nanos()) as u64;
        if self.cells.back().is_none_or(|last| last.number < number) {
            self.expire(now);
            self.cells.push_back(Cell { number, entries: 0, bytes: 0 });
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
        while let Some(until) = self.oldest_until()
            && until + kept_for <= now
        {
            self.forget_oldest();
        }
    }

    /// Forgets the oldest until no more than `bytes_max` are left, [`ENTRY_BYTES`] of each message included. Returns up to when
    /// what came is to be forgotten, if anything is. All that came in one cell's time goes together, also the latest.
    pub(super) fn shrink_to(&mut self, bytes_max: usize) -> Option<Instant> {
        let mut until = None;
        while self.bytes + self.entries * ENTRY_BYTES > bytes_max {
            until = Some(self.oldest_until()?);
            self.forget_oldest();
        }
        until
    }

    fn oldest_until(&self) -> Option<Instant> {
        let first = self.cells.front()?;
        Some(self.start + self.cell * u32::try_from(first.number + 1).unwrap_or(u32::MAX))
    }

    fn forget_oldest(&mut self) {
        if let Some(first) = self.cells.pop_front() {
            self.entries -= first.entries;
            self.bytes -= first.bytes;
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl State {
    /// The protocol's state keeps one more message, and its id for longer. It has no bound for them but time, so where there
    /// are too many, that time is over early.
    pub(super) fn note_kept(&mut self, bytes: usize, now: Instant) {
        self.ids_kept.note(0, now);
        self.messages_kept.note(bytes, now);
        if let Some(until) = self.messages_kept.shrink_to(self.limits.message_cache_bytes_max)
            && let Some(evict) = self.timers.evict()
        {
            // It asks to be called again, as it does each time; the call it asked for the last time is still to come.
            self.proto
                .handle(InEvent::TimerExpired(evict.clone()), until + self.limits.message_retention)
                .for_each(drop);
        }
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
        assert!(kept.cells.len() <= 72, "{} cells", kept.cells.len());
        assert!((100..=130).contains(&kept.entries()), "{}", kept.entries());
        assert_eq!(kept.bytes(), kept.entries() * 100);
        kept.expire(end + Duration::from_secs(5));
        assert!(kept.entries() > 0);
        kept.expire(end + Duration::from_secs(11));
        assert_eq!((kept.entries(), kept.bytes(), kept.cells.len()), (0, 0, 0));
    }

    #[test]
    fn beyond_its_bytes_the_oldest_goes_first() {
        let start = Instant::now();
        let mut kept = Kept::new(Duration::from_secs(64), start);
        for second in 0..10 {
            kept.note(700, start + Duration::from_secs(second));
        }
        assert_eq!(kept.shrink_to(10_000), None, "ten of a thousand bytes each");
        assert_eq!(kept.shrink_to(7_999), Some(start + Duration::from_secs(3)));
        assert_eq!((kept.entries(), kept.bytes()), (7, 4_900));
        assert_eq!(kept.shrink_to(0), Some(start + Duration::from_secs(10)));
        assert_eq!(kept.shrink_to(0), None);
    }
}
