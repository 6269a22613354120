//! The connections that ended lately: with whom, how, and what they carried. `[pure]`
//!
//! Bounded, for people who ask why a peer is gone. Nothing is decided by it.

use std::{collections::VecDeque, time::Duration};

use iroh::EndpointId;
use n0_future::time::Instant;

use crate::census::Side;

/// The end of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedConnection {
    /// Number of this connection, unique within the mesh.
    pub number: u64,
    /// The remote.
    pub peer: EndpointId,
    /// Which side dialed.
    pub side: Side,
    /// The application's close code as it was on the wire, `None` if there was none: a timeout, a reset.
    pub code: Option<u64>,
    /// The stable name of what ended it.
    pub cause: &'static str,
    /// What there is to say beyond the cause: a hint, an error. At most 64 bytes; of a remote's text only what can be
    /// printed.
    pub detail: String,
    /// Which side ended it.
    pub closed_by: ClosedBy,
    /// From the end of the handshake to the end of the connection.
    pub age: Duration,
    /// Bytes sent, over all paths.
    pub bytes_sent: u64,
    /// Bytes received, over all paths.
    pub bytes_received: u64,
    /// When it ended.
    pub at: Instant,
}

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// This node closed it.
    Us,
    /// The remote closed it.
    Remote,
    /// Nobody: it timed out or broke.
    Lost,
}

impl ClosedBy {
    /// The stable name in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            ClosedBy::Us => "us",
            ClosedBy::Remote => "remote",
            ClosedBy::Lost => "lost",
        }
    }
}

/// The most bytes of [`ClosedConnection::detail`]; what the reason text of our own close codes has room for.
pub(crate) const DETAIL_BYTES_MAX: usize = 64;

/// The last connections that ended.
///
/// Its memory is taken at the start, so that a node that has closed many connections does not look as if it had grown by
/// each: 176 bytes an entry, and 64 at most for a detail, by default 45 KB and 61 KB at most.
#[derive(Debug)]
pub(crate) struct History {
    entries: VecDeque<ClosedConnection>,
    entries_max: usize,
    total: u64,
}

/// An entry without its detail.
const ENTRY_BYTES_MAX: usize = 176;

const _: () = assert!(size_of::<ClosedConnection>() <= ENTRY_BYTES_MAX, "an entry of the history has grown");

impl History {
    /// Keeps the last `entries_max`; with 0 it only counts.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { entries: VecDeque::with_capacity(entries_max), entries_max, total: 0 }
    }

    /// Notes one more, and forgets the oldest if there is no room.
    pub(crate) fn push(&mut self, closed: ClosedConnection) {
        self.total = self.total.saturating_add(1);
        if self.entries_max == 0 {
            return;
        }
        if self.entries.len() >= self.entries_max {
            self.entries.pop_front();
        }
        self.entries.push_back(ClosedConnection { detail: short(&closed.detail), ..closed });
    }

    /// The newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ClosedConnection> {
        self.entries.iter().rev()
    }

    /// All that were ever noted, those forgotten included.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

/// The first [`DETAIL_BYTES_MAX`] bytes, at the boundary of a character and in memory of that size. A remote writes here
/// what ends up in a terminal, so control characters become question marks.
fn short(detail: &str) -> String {
    let end = detail.floor_char_boundary(DETAIL_BYTES_MAX);
    let mut short = String::with_capacity(end);
    short.extend(detail[..end].chars().map(|c| if c.is_control() { '?' } else { c }));
    short
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_newest_come_first_and_the_oldest_go() {
        let mut history = History::new(3);
        assert_eq!((history.iter().count(), history.total()), (0, 0));
        (1..=5).for_each(|number| history.push(closed(number, "bye")));
        let numbers: Vec<u64> = history.iter().map(|closed| closed.number).collect();
        assert_eq!((numbers, history.total()), (vec![5, 4, 3], 5));
        assert!(history.iter().all(|closed| closed.detail == "bye" && closed.closed_by.name() == "remote"));
    }

    #[test]
    fn without_room_it_only_counts() {
        let mut history = History::new(0);
        (1..=5).for_each(|number| history.push(closed(number, "bye")));
        assert_eq!((history.iter().count(), history.total()), (0, 5));
    }

    #[test]
    fn a_full_history_takes_what_it_says() {
        let entries_max = crate::Limits::default().history_max;
        let mut history = History::new(entries_max);
        let long = "x".repeat(4000);
        (0..3 * entries_max as u64).for_each(|number| history.push(closed(number, &long)));
        assert_eq!((history.iter().count(), history.total()), (256, 768));
        let details: usize = history.iter().map(|closed| closed.detail.capacity()).sum();
        let bytes = history.entries.capacity() * size_of::<ClosedConnection>() + details;
        assert!(bytes <= 256 * (ENTRY_BYTES_MAX + DETAIL_BYTES_MAX), "{bytes} bytes");
    }

    #[test]
    fn what_a_remote_says_is_cut_between_characters_and_cannot_move_the_cursor() {
        assert_eq!(short("retry_after_ms=5000"), "retry_after_ms=5000");
        assert_eq!(short(&"é".repeat(40)), "é".repeat(32));
        assert_eq!(short(&format!("{}é", "x".repeat(63))), "x".repeat(63));
        assert_eq!(short("a\u{1b}[2Jb\r\nc\u{9b}d"), "a?[2Jb??c?d");
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is pushed: the bounds hold, and what is kept is the end of what was pushed.
        #[test]
        fn the_end_of_what_was_pushed_is_kept(entries_max in 0..20usize, details in prop::collection::vec("\\PC{0,50}", 0..60)) {
            let mut history = History::new(entries_max);
            for (number, detail) in (0..).zip(&details) {
                history.push(closed(number, detail));
            }
            prop_assert_eq!(history.total(), details.len() as u64);
            prop_assert_eq!(history.iter().count(), details.len().min(entries_max));
            prop_assert!(history.entries.capacity() <= 2 * entries_max.max(4));
            for (kept, number) in history.iter().zip((0..details.len()).rev()) {
                prop_assert_eq!(kept.number, number as u64);
                prop_assert!(kept.detail.len() <= DETAIL_BYTES_MAX && kept.detail.capacity() <= DETAIL_BYTES_MAX);
                prop_assert!(details[number].starts_with(&kept.detail));
            }
        }
    }

    fn closed(number: u64, detail: &str) -> ClosedConnection {
        ClosedConnection {
            number,
            peer: SecretKey::from_bytes(&[7; 32]).public(),
            side: Side::Accepted,
            code: Some(0x14),
            cause: "evicted",
            detail: detail.into(),
            closed_by: ClosedBy::Remote,
            age: Duration::from_secs(60),
            bytes_sent: 1,
            bytes_received: 2,
            at: Instant::now(),
        }
    }
}
