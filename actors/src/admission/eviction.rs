//! Whom to throw out when there is no place for one who should have one. `[pure]`
//!
//! Never done for an unknown newcomer. An attacker can be many, near, quick and talkative, but hardly all of that and
//! from many networks and for a long time: each rule protects a few who are good at one thing that is hard to feign, and
//! of the rest the youngest of the largest group goes. After [Bitcoin's
//! rules](https://github.com/bitcoin/bitcoin/blob/v28.0/src/node/eviction.cpp), with smaller classes, so that they leave
//! somebody to evict among few.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use n0_future::time::Instant;

use super::prefix::GroupKey;

/// A connection that could be closed: incoming, of an unknown remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The number of the connection.
    pub(crate) seat: u64,
    /// The network it comes from.
    pub(crate) group: GroupKey,
    /// When it was admitted.
    pub(crate) since: Instant,
    /// The round-trip time of its best path.
    pub(crate) rtt: Option<Duration>,
    /// When it was last the first to deliver a valid message.
    pub(crate) novel_at: Option<Instant>,
    /// Whether it is in the active view of a topic.
    pub(crate) is_neighbor: bool,
}

/// What somebody is evicted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A known peer wants in: it gets a place if anybody at all can be evicted.
    KnownPeer,
    /// Memory or descriptors run low: whoever is protected or young stays.
    Pressure,
}

/// The most who are protected by one merit.
const MERIT_MAX: usize = 4;

/// One in this many places is protected by one merit, so that a small node has somebody to evict.
const PLACES_PER_MERIT: usize = 16;

/// The most protected because a topic gossips with them. Five neighbours of one topic and some of a second; guess.
const NEIGHBORS_MAX: usize = 8;

/// The seat to evict, if there is one. `connections_max` is the cap of the node, `age_min` (30 s) what a connection
/// lives before it is judged: a newcomer has had no time to show any merit, and a place that changes hands at every knock
/// serves nobody.
///
/// The order of the candidates makes no difference.
pub(crate) fn choose(
    candidates: &[Candidate],
    now: Instant,
    connections_max: usize,
    age_min: Duration,
    need: Need,
) -> Option<u64> {
    let places = MERIT_MAX.min(connections_max / PLACES_PER_MERIT);
    let is_judged = |candidate: &&Candidate| now.saturating_duration_since(candidate.since) >= age_min;
    let mut open: Vec<&Candidate> = candidates.iter().filter(is_judged).collect();
    protect_one_of_each_group(&mut open, places);
    protect(&mut open, places, |candidate| candidate.rtt);
    protect(&mut open, places, |candidate| candidate.novel_at.map(Reverse));
    protect(&mut open, NEIGHBORS_MAX, |candidate| candidate.is_neighbor.then_some(candidate.since));
    let half = open.len() / 2;
    protect(&mut open, half, |candidate| Some(candidate.since));

    let evicted = youngest_of_largest_group(&open, candidates).or_else(|| match need {
        // Protection is for choosing, not for refusing our own peers.
        Need::KnownPeer => candidates.iter().max_by_key(|candidate| youth(candidate)),
        Need::Pressure => None,
    });
    evicted.map(|candidate| candidate.seat)
}

/// The longest-lived of each of the first `places` groups, in the order only this node knows.
fn protect_one_of_each_group(open: &mut Vec<&Candidate>, places: usize) {
    open.sort_by_key(|candidate| (candidate.group, youth(candidate)));
    let groups: BTreeSet<GroupKey> = open.iter().map(|candidate| candidate.group).collect();
    let mut protected: BTreeSet<GroupKey> = groups.into_iter().take(places).collect();
    open.retain(|candidate| !protected.remove(&candidate.group));
}

/// Takes out the `places` who come first by `merit`. Whoever has none is not protected by it.
fn protect<M: Ord>(open: &mut Vec<&Candidate>, places: usize, merit: impl Fn(&Candidate) -> Option<M>) {
    open.sort_by_cached_key(|candidate| {
        let merit = merit(candidate);
        (merit.is_none(), merit, youth(candidate))
    });
    let deserving = open.iter().take(places).take_while(|candidate| merit(candidate).is_some()).count();
    open.drain(..deserving);
}

/// How large a group is, is counted over everybody: members that are protected are members all the same, and a group
/// that holds most places is not to hide behind them.
fn youngest_of_largest_group<'a>(open: &[&'a Candidate], everybody: &[Candidate]) -> Option<&'a Candidate> {
    let mut sizes: BTreeMap<GroupKey, usize> = BTreeMap::new();
    for candidate in everybody {
        *sizes.entry(candidate.group).or_default() += 1;
    }
    // Among groups of one size the one with the youngest member.
    open.iter().copied().max_by_key(|candidate| (sizes[&candidate.group], youth(candidate)))
}

/// Orders by age, the youngest last. Of two admitted in one instant the higher seat came later.
fn youth(candidate: &Candidate) -> (Instant, u64) {
    (candidate.since, candidate.seat)
}

#[cfg(test)]
mod tests;
