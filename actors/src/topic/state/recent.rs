//! A bounded memory of what was seen a short while ago. `[pure]`

use std::{
    collections::HashSet,
    hash::{BuildHasherDefault, DefaultHasher, Hasher},
    time::Duration,
};

use n0_future::time::Instant;
use rand::Rng;

/// Remembers items for one to two periods, by a salted 64-bit fingerprint each. Two generations: when the young one is
/// full or its period is over it becomes the old one, and what was old is forgotten.
#[derive(Debug)]
pub(super) struct Recent {
    salt: u64,
    young: Fingerprints,
    old: Fingerprints,
    items_max: usize,
    period: Duration,
    turns_at: Instant,
}

impl Recent {
    pub(super) fn new(rng: &mut impl Rng, items_max: usize, period: Duration, now: Instant) -> Self {
        Self {
            salt: rng.next_u64(),
            young: Fingerprints::default(),
            old: Fingerprints::default(),
            items_max,
            period,
            turns_at: now + period,
        }
    }

    /// Items remembered.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Remembers `item`; false when it was remembered already.
    pub(super) fn insert(&mut self, item: &[u8], now: Instant) -> bool {
        self.insert_of(&[], item, now)
    }

    /// Remembers `item` of `owner`, all of whose names are equally long.
    pub(super) fn insert_of(&mut self, owner: &[u8], item: &[u8], now: Instant) -> bool {
        if now >= self.turns_at || self.young.len() >= self.items_max {
            self.old = std::mem::take(&mut self.young);
            self.turns_at = now + self.period;
        }
        let fingerprint = self.fingerprint(owner, item);
        !self.old.contains(&fingerprint) && self.young.insert(fingerprint)
    }

    /// Whether `item` of `owner` is remembered.
    pub(super) fn contains_of(&self, owner: &[u8], item: &[u8]) -> bool {
        let fingerprint = self.fingerprint(owner, item);
        self.young.contains(&fingerprint) || self.old.contains(&fingerprint)
    }

    fn fingerprint(&self, owner: &[u8], item: &[u8]) -> u64 {
        // The salt keeps a remote from preparing collisions.
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.salt);
        hasher.write(owner);
        hasher.write(item);
        hasher.finish()
    }
}

/// Fingerprints are hashes already, and salted.
type Fingerprints = HashSet<u64, BuildHasherDefault<AsItIs>>;

/// Takes the one `u64` that it is given.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("a fingerprint is one u64");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn items_are_known_for_a_period_and_forgotten_after_two() {
        let start = Instant::now();
        let period = Duration::from_secs(10);
        let mut recent = Recent::new(&mut StdRng::seed_from_u64(1), 100, period, start);
        assert!(recent.insert(b"a", start));
        assert!(!recent.insert(b"a", start + Duration::from_secs(9)));
        assert!(!recent.insert(b"a", start + Duration::from_secs(11)));
        assert!(recent.insert(b"b", start + Duration::from_secs(21)));
        assert!(recent.insert(b"a", start + Duration::from_secs(22)));
    }

    #[test]
    fn the_number_of_items_is_bounded() {
        let now = Instant::now();
        let mut recent = Recent::new(&mut StdRng::seed_from_u64(1), 100, Duration::from_secs(10), now);
        for item in 0..10_000u32 {
            recent.insert(&item.to_be_bytes(), now);
        }
        assert!(recent.young.len() + recent.old.len() <= 200);
    }
}
