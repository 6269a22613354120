//! How many attempts may come in a time: one token bucket for the node, one per group, and what changes in a flood.
//! `[pure]`
//!
//! A token is taken only by what is let in. Charging refusals would lock a remote that keeps trying out for good, and
//! charging addresses that are not validated would let a forger lock out their owners. Who is exempt (this machine,
//! known peers) and what happens to whom finds no token is for the caller to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use n0_future::time::Instant;

use super::prefix::{GroupKey, Groups};

mod flood;

use flood::Flood;

/// What [`Buckets`] are made from.
#[derive(Debug, Clone)]
pub(crate) struct BucketLimits {
    /// Of the whole node.
    pub(crate) global: Rate,
    /// Of one group of addresses.
    pub(crate) group: Rate,
    /// Of one relay, behind which many may stand.
    pub(crate) relay: Rate,
    /// The most groups remembered.
    pub(crate) groups_max: usize,
    /// Admissions in a minute above which it is a flood.
    pub(crate) flood_per_min: u32,
}

impl Default for BucketLimits {
    fn default() -> Self {
        Self {
            // Agave takes 2500/s; a node with a hundred places never needs more than two orders below.
            global: Rate::new(100.0, 200),
            // The numbers of go-libp2p's rate limiter.
            group: Rate::new(0.2, 16),
            // Guess; change it when honest remotes behind one relay are refused.
            relay: Rate::new(5.0, 64),
            // dcrd keeps 10,000. In the 80 s a group is remembered, the node's own bucket yields 8,200 tokens.
            groups_max: 8192,
            // dcrd.
            flood_per_min: 300,
        }
    }
}

/// How fast tokens come and how many wait. Whole nanoseconds, so that a million small steps add up to one large one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// The time one token takes to come.
    interval: Duration,
    /// The time until an empty bucket is full.
    refill: Duration,
}

impl Rate {
    /// `per_s` tokens a second, and at most `burst` of them wait.
    ///
    /// # Panics
    ///
    /// Unless `per_s` is between a millionth and a million, and `burst` at least 1.
    pub(crate) fn new(per_s: f64, burst: u32) -> Self {
        assert!((1e-6..=1e6).contains(&per_s), "a rate of {per_s} per second is not between 0.000001 and 1000000");
        assert!(burst >= 1, "a bucket of 0 tokens never admits anybody; burst must be at least 1");
        let interval = Duration::from_secs_f64(per_s.recip());
        Self { interval, refill: interval.saturating_mul(burst) }
    }
}

/// A token bucket, kept as the moment at which it will be full: that needs no step when time passes, and its order is
/// the order of tokens left.
#[derive(Debug, Clone, Copy)]
struct TokenBucket {
    full_at: Instant,
}

impl TokenBucket {
    /// The time until there is a token, zero if there is one.
    fn wait(self, rate: Rate, now: Instant) -> Duration {
        let missing = self.full_at.saturating_duration_since(now);
        (missing + rate.interval).saturating_sub(rate.refill)
    }

    /// Without one token. The caller has seen that there is one.
    fn taken(self, rate: Rate, now: Instant) -> Self {
        debug_assert!(self.wait(rate, now).is_zero(), "a token is taken from an empty bucket");
        Self { full_at: self.full_at.max(now) + rate.interval }
    }
}

/// Whose tokens are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// The node's.
    Global,
    /// Those of the group the attempt comes from.
    Group,
}

/// The buckets of one node.
///
/// A clock that steps back is taken to stand still until it has caught up.
#[derive(Debug)]
pub(crate) struct Buckets {
    limits: BucketLimits,
    global: TokenBucket,
    groups: Table,
    flood: Flood,
    latest: Instant,
}

impl Buckets {
    /// Full buckets, no flood.
    ///
    /// # Panics
    ///
    /// If not even one group may be remembered.
    pub(crate) fn new(limits: BucketLimits, now: Instant) -> Self {
        assert!(limits.groups_max >= 1, "groups_max is 0; it must be at least 1");
        let flood = Flood::new(limits.flood_per_min, now);
        let groups = Table::new(limits.groups_max);
        Self { limits, global: TokenBucket { full_at: now }, groups, flood, latest: now }
    }

    /// Takes a token of the node and one of each group that counts at this moment, or none at all.
    pub(crate) fn take(&mut self, groups: &Groups, now: Instant) -> Result<(), Exhausted> {
        let now = self.advance(now);
        if !self.global.wait(self.limits.global, now).is_zero() {
            return Err(Exhausted::Global);
        }
        self.take_group(groups, now)?;
        self.take_global(now)
    }

    /// Takes a token of the node only: for an origin that is exempt, or not validated yet. An attempt that passed here
    /// pays its group by [`Buckets::take_group`] once its handshake has shown that the address is its own. Every token of
    /// the node counts as one admission of a flood.
    pub(crate) fn take_global(&mut self, now: Instant) -> Result<(), Exhausted> {
        let now = self.advance(now);
        if !self.has_global(now) {
            return Err(Exhausted::Global);
        }
        self.global = self.global.taken(self.limits.global, now);
        self.flood.note_admitted();
        Ok(())
    }

    /// Takes a token of each group that counts at this moment, or none at all.
    pub(crate) fn take_group(&mut self, groups: &Groups, now: Instant) -> Result<(), Exhausted> {
        if !self.has_token(groups, now) {
            return Err(Exhausted::Group);
        }
        let now = self.latest;
        let rate = self.rate(groups);
        for key in self.counting(groups) {
            let bucket = self.groups.get(key, now).taken(rate, now);
            self.groups.put(key, bucket);
        }
        Ok(())
    }

    /// Whether the node has a token. Takes nothing.
    pub(crate) fn has_global(&mut self, now: Instant) -> bool {
        let now = self.advance(now);
        self.global.wait(self.limits.global, now).is_zero()
    }

    /// Whether the groups of an origin have a token. Takes nothing.
    pub(crate) fn has_token(&mut self, groups: &Groups, now: Instant) -> bool {
        self.wait(groups, now).is_zero()
    }

    /// How long the groups of an origin wait for their next token: what a refusal can tell the remote. Takes nothing.
    pub(crate) fn wait(&mut self, groups: &Groups, now: Instant) -> Duration {
        let now = self.advance(now);
        let rate = self.rate(groups);
        self.counting(groups).map(|key| self.groups.get(key, now).wait(rate, now)).max().unwrap_or_default()
    }

    /// Whether more is admitted than usual. Then whole networks share a bucket, and [`Buckets::drop_chance`] applies.
    pub(crate) fn is_flooded(&mut self, now: Instant) -> bool {
        self.advance(now);
        self.flood.is_flooded()
    }

    /// The probability with which an attempt of an unknown origin should be dropped unanswered: 0 outside of a flood,
    /// in one 0.20 to 0.85.
    pub(crate) fn drop_chance(&mut self, now: Instant) -> f64 {
        self.advance(now);
        self.flood.drop_chance()
    }

    /// The most groups that were ever remembered at one time.
    pub(crate) fn high_water(&self) -> usize {
        self.groups.high_water
    }

    /// The groups remembered. One whose bucket is full again need not be.
    pub(crate) fn len(&self) -> usize {
        self.groups.full_at.len()
    }

    /// Forgets the groups whose bucket is full again. With the default limits that is 80 s after their last token, long
    /// before the 20 minutes dcrd gives them.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let now = self.advance(now);
        self.groups.forget_full(now);
    }

    fn advance(&mut self, now: Instant) -> Instant {
        self.latest = self.latest.max(now);
        self.flood.advance(self.latest);
        self.latest
    }

    fn rate(&self, groups: &Groups) -> Rate {
        if groups.is_relay { self.limits.relay } else { self.limits.group }
    }

    /// In a flood the network pays as well as the customer: otherwise its beginning would be worth a fresh bucket.
    fn counting(&self, groups: &Groups) -> impl Iterator<Item = GroupKey> + use<> {
        let network = (self.flood.is_flooded() && groups.coarse != groups.fine).then_some(groups.coarse);
        std::iter::once(groups.fine).chain(network)
    }
}

/// The buckets of groups that are not full. Bounded; every step costs O(log n), also at the bound.
#[derive(Debug)]
struct Table {
    full_at: BTreeMap<GroupKey, Instant>,
    /// The same, the fullest first.
    order: BTreeSet<(Instant, GroupKey)>,
    groups_max: usize,
    high_water: usize,
}

impl Table {
    fn new(groups_max: usize) -> Self {
        Self { full_at: BTreeMap::new(), order: BTreeSet::new(), groups_max, high_water: 0 }
    }

    /// The bucket of a group. One that is not remembered is full.
    fn get(&self, key: GroupKey, now: Instant) -> TokenBucket {
        TokenBucket { full_at: self.full_at.get(&key).copied().unwrap_or(now) }
    }

    fn put(&mut self, key: GroupKey, bucket: TokenBucket) {
        if let Some(before) = self.full_at.remove(&key) {
            self.order.remove(&(before, key));
        } else if self.full_at.len() >= self.groups_max {
            self.evict();
        }
        self.full_at.insert(key, bucket.full_at);
        self.order.insert((bucket.full_at, key));
        self.high_water = self.high_water.max(self.full_at.len());
        debug_assert_eq!(self.full_at.len(), self.order.len());
    }

    /// Forgets the group that would be full first. It gains the least by being forgotten; the one used least recently
    /// could be an exhausted attacker, who would come back to [a fresh
    /// bucket](https://github.com/paritytech/polkadot-sdk/pull/11988).
    fn evict(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.full_at.remove(&key);
        }
    }

    fn forget_full(&mut self, now: Instant) {
        while self.order.first().is_some_and(|(full_at, _)| *full_at <= now) {
            self.evict();
        }
    }
}

#[cfg(test)]
mod tests;
