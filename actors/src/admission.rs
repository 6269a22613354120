//! Who gets a connection slot. `[pure]`
//!
//! One [`Permit`] accompanies one attempt from its first packet to the end of its connection; it is taken here and given
//! back only by its `Drop`, so a refused, failed, abandoned or panicked attempt leaves the books as it found them. No
//! count is changed anywhere else. The acceptor asks for incoming attempts, a peer's supervisor for outgoing ones.

#[cfg_attr(not(test), expect(dead_code, reason = "the acceptor does not ask it yet"))]
mod buckets;
#[cfg_attr(not(test), expect(dead_code, reason = "the acceptor does not ask it yet"))]
mod eviction;
#[cfg_attr(not(test), expect(dead_code, reason = "the acceptor does not ask it yet"))]
mod prefix;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The books of one mesh. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    books: Arc<Mutex<Books>>,
}

#[derive(Debug)]
struct Books {
    connections_max: usize,
    handshakes_max: usize,
    dials_max: usize,
    handshakes: usize,
    dials: usize,
    established: usize,
    high_water: usize,
}

/// Why an attempt was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many connections as the cap allows, half-open ones included.
    AtCap,
    /// As many half-open attempts in this direction as the limits allow.
    HalfOpen,
}

/// The books at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Occupancy {
    pub(crate) in_use: usize,
    pub(crate) half_open: usize,
    pub(crate) high_water: usize,
    pub(crate) cap: usize,
}

impl Door {
    pub(crate) fn new(connections_max: usize, handshakes_max: usize, dials_max: usize) -> Self {
        let books = Books {
            connections_max,
            handshakes_max,
            dials_max,
            handshakes: 0,
            dials: 0,
            established: 0,
            high_water: 0,
        };
        Self { books: Arc::new(Mutex::new(books)) }
    }

    /// A permit for an incoming attempt.
    pub(crate) fn admit_incoming(&self) -> Result<Permit, Refusal> {
        self.admit(Stage::Handshake)
    }

    /// A permit for an outgoing attempt.
    pub(crate) fn admit_dial(&self) -> Result<Permit, Refusal> {
        self.admit(Stage::Dial)
    }

    /// Replaces the cap. Permits already given stay good: lowering it throws nobody out.
    pub(crate) fn set_connections_max(&self, connections_max: usize) {
        self.lock().connections_max = connections_max;
    }

    pub(crate) fn occupancy(&self) -> Occupancy {
        let books = self.lock();
        Occupancy {
            in_use: books.in_use(),
            half_open: books.handshakes + books.dials,
            high_water: books.high_water,
            cap: books.connections_max,
        }
    }

    fn admit(&self, stage: Stage) -> Result<Permit, Refusal> {
        let mut books = self.lock();
        if books.in_use() >= books.connections_max {
            return Err(Refusal::AtCap);
        }
        let half_open_max = match stage {
            Stage::Handshake => books.handshakes_max,
            Stage::Dial => books.dials_max,
            Stage::Established => usize::MAX,
        };
        if *books.count(stage) >= half_open_max {
            return Err(Refusal::HalfOpen);
        }
        *books.count(stage) += 1;
        books.high_water = books.high_water.max(books.in_use());
        Ok(Permit { door: self.clone(), stage })
    }

    /// The books stay consistent at every point where a holder could panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn in_use(&self) -> usize {
        self.handshakes + self.dials + self.established
    }

    fn count(&mut self, stage: Stage) -> &mut usize {
        match stage {
            Stage::Handshake => &mut self.handshakes,
            Stage::Dial => &mut self.dials,
            Stage::Established => &mut self.established,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    Dial,
    Established,
}

/// One connection slot, from the first packet to the end of the connection. Dropping it is the only way to free it.
#[derive(Debug)]
pub(crate) struct Permit {
    door: Door,
    stage: Stage,
}

impl Permit {
    /// The handshake has finished: the slot is no longer half-open.
    pub(crate) fn establish(&mut self) {
        let mut books = self.door.lock();
        *books.count(self.stage) -= 1;
        self.stage = Stage::Established;
        *books.count(self.stage) += 1;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.door.lock().count(self.stage) -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_half_open_attempt_frees_its_place_for_the_next_when_it_establishes_or_ends() {
        let door = Door::new(3, 1, 1);
        let mut first = door.admit_incoming().expect("empty books");
        assert_eq!(door.admit_incoming().unwrap_err(), Refusal::HalfOpen);
        first.establish();
        let second = door.admit_incoming().expect("the first is established");
        let third = door.admit_dial().expect("dials have their own limit");
        drop(second);
        let _fourth = door.admit_incoming().expect("the second gave up");
        assert_eq!(door.admit_incoming().unwrap_err(), Refusal::AtCap);
        assert_eq!(door.occupancy(), Occupancy { in_use: 3, half_open: 2, high_water: 3, cap: 3 });
        drop((first, third));
        assert_eq!(door.occupancy().in_use, 1);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Incoming,
        Dial,
        Establish(usize),
        Finish(usize),
        SetMax(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Incoming),
            3 => Just(Step::Dial),
            2 => any::<usize>().prop_map(Step::Establish),
            2 => any::<usize>().prop_map(Step::Finish),
            1 => (0..12usize).prop_map(Step::SetMax),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Budgets are never exceeded by an admission, and every permit comes back.
        #[test]
        fn the_books_always_equal_the_permits_held(steps in steps()) {
            let door = Door::new(8, 3, 2);
            let mut held: Vec<Permit> = Vec::new();
            for step in steps {
                let before = door.occupancy();
                match step {
                    Step::Incoming | Step::Dial => {
                        let outcome = match step {
                            Step::Incoming => door.admit_incoming(),
                            _ => door.admit_dial(),
                        };
                        if let Ok(permit) = outcome {
                            prop_assert!(before.in_use < before.cap);
                            held.push(permit);
                        }
                    }
                    Step::Establish(which) => {
                        let open: Vec<usize> =
                            (0..held.len()).filter(|&i| held[i].stage != Stage::Established).collect();
                        if !open.is_empty() {
                            held[open[which % open.len()]].establish();
                        }
                    }
                    Step::Finish(which) if !held.is_empty() => {
                        let index = which % held.len();
                        held.swap_remove(index);
                    }
                    Step::Finish(_) => {}
                    Step::SetMax(max) => door.set_connections_max(max),
                }
                let now = door.occupancy();
                prop_assert_eq!(now.in_use, held.len());
                prop_assert_eq!(
                    now.half_open,
                    held.iter().filter(|permit| permit.stage != Stage::Established).count()
                );
                prop_assert!(now.high_water >= now.in_use);
            }
            held.clear();
            prop_assert_eq!(door.occupancy().in_use, 0);
        }
    }
}
