//! Who waits for a slot, and whose turn it is. `[pure]`
//!
//! The line stands for the kernel's backlog in front of a listener that has stopped accepting: short, first come first
//! served, and nobody stays in it for long. Used twice: for attempts that have not begun their handshake (the waiting
//! room) and for remotes that have finished it (the lobby).

use std::{collections::VecDeque, time::Duration};

use n0_future::time::Instant;

/// A line. Those in `front` are served before the others.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    waiters: VecDeque<Waiter<T>>,
    patience: Duration,
    high_water: usize,
}

#[derive(Debug)]
struct Waiter<T> {
    is_in_front: bool,
    until: Instant,
    item: T,
}

impl<T> Waiting<T> {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { waiters: VecDeque::new(), patience, high_water: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// The most that ever waited at one time.
    pub(crate) fn high_water(&self) -> usize {
        self.high_water
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiters.iter().map(|waiter| &waiter.item)
    }

    /// Joins the line, behind everyone of its kind.
    pub(crate) fn enter(&mut self, item: T, is_in_front: bool, now: Instant) {
        let place = match is_in_front {
            true => self.waiters.iter().take_while(|waiter| waiter.is_in_front).count(),
            false => self.waiters.len(),
        };
        self.waiters.insert(place, Waiter { is_in_front, until: now + self.patience, item });
        self.high_water = self.high_water.max(self.waiters.len());
    }

    /// Takes out the first of whom this is true: there is something for it, or it has given up.
    pub(crate) fn next_where(&mut self, is_served: impl FnMut(&mut T) -> bool) -> Option<T> {
        let place = self.waiters.iter_mut().map(|waiter| &mut waiter.item).position(is_served)?;
        self.waiters.remove(place).map(|waiter| waiter.item)
    }

    /// Whoever has waited too long, longest first.
    pub(crate) fn next_overdue(&mut self, now: Instant) -> Option<T> {
        let place = self.waiters.iter().position(|waiter| waiter.until <= now)?;
        self.waiters.remove(place).map(|waiter| waiter.item)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn first_come_first_served_and_known_ones_before_all() {
        let now = Instant::now();
        let mut line = Waiting::new(PATIENCE);
        for (name, is_known) in [("a", false), ("b", false), ("c", true), ("d", true)] {
            line.enter(name, is_known, now);
        }
        let served: Vec<_> = std::iter::from_fn(|| line.next_where(|_| true)).collect();
        assert_eq!(served, ["c", "d", "a", "b"]);
        assert_eq!((line.len(), line.high_water()), (0, 4));
    }

    #[test]
    fn who_cannot_be_served_is_passed_by_and_keeps_the_place() {
        let now = Instant::now();
        let mut line = Waiting::new(PATIENCE);
        for name in ["at the full listener", "at the other"] {
            line.enter(name, false, now);
        }
        assert_eq!(line.next_where(|name| name.ends_with("other")), Some("at the other"));
        assert_eq!(line.next_where(|_| true), Some("at the full listener"));
    }

    #[test]
    fn a_waiter_that_gives_up_frees_its_place() {
        let now = Instant::now();
        let mut line = Waiting::new(PATIENCE);
        for name in ["first", "second"] {
            line.enter(name, false, now);
        }
        assert_eq!(line.next_where(|name| *name == "first"), Some("first"));
        assert_eq!(line.next_overdue(now + PATIENCE - Duration::from_millis(1)), None);
        assert_eq!(line.next_overdue(now + PATIENCE), Some("second"));
        assert!(line.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

        /// Whatever happens, everyone leaves the line exactly once.
        #[test]
        fn nobody_is_lost_or_served_twice(steps in prop::collection::vec((0u8..5, any::<bool>(), 0u64..3), 0..100)) {
            let mut now = Instant::now();
            let mut line = Waiting::new(PATIENCE);
            let (mut entered, mut left) = (0u32, Vec::new());
            for (step, flag, seconds) in steps {
                now += Duration::from_secs(seconds);
                match step {
                    0 | 1 => {
                        line.enter(entered, flag, now);
                        entered += 1;
                    }
                    2 => left.extend(line.next_where(|_| flag)),
                    3 => left.extend(line.next_overdue(now)),
                    _ => left.extend(line.next_where(|waiter| *waiter % 3 == 0)),
                }
            }
            left.extend(std::iter::from_fn(|| line.next_where(|_| true)));
            left.sort_unstable();
            prop_assert_eq!(left, (0..entered).collect::<Vec<_>>());
        }
    }
}
