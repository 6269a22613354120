//! Scripts and storms for the choice of whom to evict.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

const AGE_MIN: Duration = Duration::from_secs(30);

/// Where the time of the scripts ends.
const NOW_S: u64 = 10_000;

#[test]
fn the_youngest_of_the_largest_group_goes() {
    let crowd = [aged(1, 7, 900), aged(2, 7, 800), aged(3, 7, 40), aged(4, 8, 35), aged(5, 9, 32)];
    check(&crowd, 15, Need::Pressure, expect!["3"]);
    check(&crowd, 15, Need::KnownPeer, expect!["3"]);
    let long_lived = [aged(1, 7, 900), aged(2, 7, 800), aged(3, 8, 40), aged(4, 9, 35)];
    check(&long_lived, 15, Need::Pressure, expect!["4"]);
    check(&[aged(1, 1, 500), aged(2, 2, 400), aged(3, 3, 300)], 15, Need::Pressure, expect!["3"]);
    check(&[], 128, Need::KnownPeer, expect!["nobody"]);
}

#[test]
fn each_merit_protects_its_own() {
    // Places for one of each merit; nobody older than the rest, so that age protects by seat: the lower ones.
    let all = |change: fn(&mut Candidate)| {
        let mut crowd: Vec<Candidate> = (1..=8).map(|seat| aged(seat, seat, 100)).collect();
        change(&mut crowd[7]);
        crowd
    };
    check(&all(|_| {}), 16, Need::Pressure, expect!["8"]);
    check(&all(|last| last.group = GroupKey::forged(0)), 16, Need::Pressure, expect!["7"]);
    check(&all(|last| last.rtt = Some(Duration::from_millis(3))), 16, Need::Pressure, expect!["7"]);
    check(&all(|last| last.novel_at = Some(last.since)), 16, Need::Pressure, expect!["7"]);
    check(&all(|last| last.is_neighbor = true), 16, Need::Pressure, expect!["7"]);
    check(&all(|last| last.since -= Duration::from_secs(1)), 16, Need::Pressure, expect!["7"]);
}

#[test]
fn a_node_of_few_places_protects_by_age_and_neighborhood_only() {
    let mut crowd: Vec<Candidate> = (1..=4).map(|seat| aged(seat, seat, 100)).collect();
    crowd[3].rtt = Some(Duration::from_micros(1));
    crowd[3].novel_at = Some(crowd[3].since);
    check(&crowd, 15, Need::Pressure, expect!["4"]);
    crowd[3].is_neighbor = true;
    check(&crowd, 15, Need::Pressure, expect!["3"]);
}

#[test]
fn the_young_and_the_protected_go_for_a_known_peer_only() {
    let newcomers = [aged(1, 1, 29), aged(2, 2, 3), aged(3, 3, 12)];
    check(&newcomers, 128, Need::Pressure, expect!["nobody"]);
    check(&newcomers, 128, Need::KnownPeer, expect!["2"]);
    let neighbors: Vec<Candidate> =
        (1..=8).map(|seat| Candidate { is_neighbor: true, ..aged(seat, 1, 60 + seat) }).collect();
    check(&neighbors, 15, Need::Pressure, expect!["nobody"]);
    check(&neighbors, 15, Need::KnownPeer, expect!["1"]);
}

#[test]
fn a_ninth_neighbor_is_not_protected() {
    let neighbors: Vec<Candidate> =
        (1..=9).map(|seat| Candidate { is_neighbor: true, ..aged(seat, seat, 60 + seat) }).collect();
    check(&neighbors, 15, Need::Pressure, expect!["1"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A known peer finds a place if anybody sits there; pressure never costs the young or the best.
    #[test]
    fn a_known_peer_always_finds_a_place(crowd in crowd(0..40), cap in 0..200usize) {
        let chosen = |need| choose(&crowd, now(), cap, AGE_MIN, need);
        prop_assert_eq!(chosen(Need::KnownPeer).is_some(), !crowd.is_empty());
        if let Some(seat) = chosen(Need::Pressure) {
            prop_assert_eq!(chosen(Need::KnownPeer), Some(seat), "the choice differs only if there is none");
            let evicted = seat_of(&crowd, seat);
            prop_assert!(now() - evicted.since >= AGE_MIN);
            let judged = || crowd.iter().filter(|other| now() - other.since >= AGE_MIN);
            if cap >= 16 {
                let nearest = judged().filter(|other| other.rtt.is_some()).min_by_key(|other| (other.rtt, youth(other)));
                prop_assert!(nearest.is_none_or(|nearest| nearest.seat != seat));
                let news = judged().filter_map(|other| other.novel_at).max();
                prop_assert!(news.is_none() || evicted.novel_at < news || judged().filter(|other| other.novel_at == news).count() > 1);
            }
        } else {
            // No merit, except perhaps a group of its own: four places are kept for those.
            let plain = |other: &&Candidate| {
                now() - other.since >= AGE_MIN && other.rtt.is_none() && other.novel_at.is_none() && !other.is_neighbor
            };
            prop_assert!(crowd.iter().filter(plain).count() <= 4, "somebody plain could have gone");
        }
    }

    #[test]
    fn the_order_of_the_candidates_makes_no_difference(
        (crowd, shuffled) in crowd(0..40).prop_flat_map(|crowd| (Just(crowd.clone()), Just(crowd).prop_shuffle())),
        cap in 0..200usize,
    ) {
        for need in [Need::KnownPeer, Need::Pressure] {
            let choice = choose(&crowd, now(), cap, AGE_MIN, need);
            prop_assert_eq!(choice, choose(&shuffled, now(), cap, AGE_MIN, need));
        }
    }

    /// One network that holds most places, however near and old its connections, loses them before anybody else loses
    /// one, until it holds no more than six places above the rest.
    #[test]
    fn a_sprayer_of_addresses_loses_before_the_diverse(
        honest in crowd(1..20),
        sprayed in crowd(0..60),
        cap in 0..200usize,
    ) {
        let network = GroupKey::forged(1_000);
        let diverse = honest.into_iter().enumerate().map(|(number, candidate)| Candidate {
            group: GroupKey::forged(number as u64 * 100 + 50),
            since: candidate.since.min(now() - AGE_MIN),
            ..candidate
        });
        let idle = sprayed.into_iter().map(|candidate| Candidate {
            seat: candidate.seat + 100,
            group: network,
            since: candidate.since.min(now() - AGE_MIN),
            novel_at: None,
            is_neighbor: false,
            ..candidate
        });
        let mut crowd: Vec<Candidate> = diverse.chain(idle).collect();
        let held = |crowd: &[Candidate]| crowd.iter().filter(|candidate| candidate.group == network).count();
        while held(&crowd) >= crowd.len() - held(&crowd) + 6 {
            let seat = choose(&crowd, now(), cap, AGE_MIN, Need::KnownPeer).expect("somebody is there");
            prop_assert_eq!(seat_of(&crowd, seat).group, network);
            crowd.retain(|candidate| candidate.seat != seat);
        }
    }
}

/// A crowd of a few groups with and without merits, seats numbered from 1.
fn crowd(sizes: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Candidate>> {
    let rtt = prop::option::of((0..50u64).prop_map(Duration::from_millis));
    let one = (0..6u64, 0..200u64, rtt, prop::option::of(0..100u64), prop::bool::weighted(0.2));
    prop::collection::vec(one, sizes).prop_map(|all| {
        let seated = (1..).zip(all);
        seated
            .map(|(seat, (group, age_s, rtt, novel_age_s, is_neighbor))| Candidate {
                rtt,
                novel_at: novel_age_s.map(|age_s| now() - Duration::from_secs(age_s)),
                is_neighbor,
                ..aged(seat, group, age_s)
            })
            .collect()
    })
}

/// A candidate without any merit but its age.
fn aged(seat: u64, group: u64, age_s: u64) -> Candidate {
    let since = now() - Duration::from_secs(age_s);
    Candidate { seat, group: GroupKey::forged(group), since, rtt: None, novel_at: None, is_neighbor: false }
}

/// One moment for all scripts of this process.
fn now() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now) + Duration::from_secs(NOW_S)
}

fn seat_of(crowd: &[Candidate], seat: u64) -> &Candidate {
    crowd.iter().find(|candidate| candidate.seat == seat).expect("the chosen seat is taken")
}

fn check(crowd: &[Candidate], connections_max: usize, need: Need, expected: Expect) {
    let seat = choose(crowd, now(), connections_max, AGE_MIN, need);
    expected.assert_eq(&seat.map_or("nobody".into(), |seat| seat.to_string()));
}
