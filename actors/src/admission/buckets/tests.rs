//! Scripts and storms for the token buckets, on virtual time.

use std::{collections::HashMap, fmt::Write};

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

#[test]
fn a_group_has_its_burst_and_then_its_rate() {
    let script = "20 a; 5 s; 2 a; 4999 ms; 1 a; 1 ms; 1 a; 1 b; 80 s; 17 a";
    check(
        script,
        BucketLimits::default(),
        expect![[r#"
        20 a: 16 taken, then the group waits 5s
        2 a: 1 taken, then the group waits 5s
        1 a: 0 taken, then the group waits 1ms
        1 a: 1 taken
        1 b: 1 taken
        17 a: 16 taken, then the group waits 5s
    "#]],
    );
}

#[test]
fn a_relay_has_more_room() {
    check(
        "70 relay; 1 s; 6 relay",
        BucketLimits::default(),
        expect![[r#"
        70 relay: 64 taken, then the group waits 200ms
        6 relay: 5 taken, then the group waits 200ms
    "#]],
    );
}

#[test]
fn the_node_has_a_bucket_of_its_own_and_a_failed_take_costs_nobody() {
    let limits = BucketLimits { global: Rate::new(1.0, 18), ..BucketLimits::default() };
    check(
        "17 a; 3 b; 1 s; 17 a; 1 b; 1 b; 15 s; 15 b",
        limits,
        expect![[r#"
        17 a: 16 taken, then the group waits 5s
        3 b: 2 taken, then the node is out of tokens
        17 a: 0 taken, then the group waits 4s
        1 b: 1 taken
        1 b: 0 taken, then the node is out of tokens
        15 b: 15 taken
    "#]],
    );
}

#[test]
fn in_a_flood_a_network_shares_one_bucket() {
    let limits = BucketLimits { flood_per_min: 10, ..BucketLimits::default() };
    let mut buckets = Buckets::new(limits, Instant::now());
    let now = buckets.latest;
    for host in 1..=10 {
        buckets.take(&host_of(host, 99), now).unwrap();
    }
    assert!(!buckets.is_flooded(now));
    buckets.take_global(now).expect("one exempt origin more, and it is a flood");
    assert!(buckets.is_flooded(now));
    let taken = (11..=40).filter(|host| buckets.take(&host_of(*host, 99), now).is_ok()).count();
    assert_eq!(taken, 16, "the network's burst, from thirty hosts that never came before");
    assert!(!buckets.has_token(&host_of(41, 99), now));
    assert!(buckets.has_token(&host_of(41, 98), now), "other networks have their own");
    let calm = now + Duration::from_secs(61);
    assert!(!buckets.is_flooded(calm) && buckets.has_token(&host_of(41, 99), calm));
}

#[test]
fn the_share_that_is_dropped_grows_with_the_flood_and_ends_below_half() {
    let mut buckets =
        Buckets::new(BucketLimits { global: Rate::new(1e6, 10_000), ..Default::default() }, Instant::now());
    let start = buckets.latest;
    let mut seen = String::new();
    for (second, admitted) in [(0, 300), (1, 1), (2, 149), (3, 150), (4, 300), (5, 300), (6, 600)] {
        let now = start + Duration::from_secs(second);
        (0..admitted).for_each(|_| buckets.take_global(now).unwrap());
        writeln!(seen, "{admitted} more: {:.3}", buckets.drop_chance(now)).unwrap();
    }
    for second in [60, 62, 64, 65, 66] {
        let now = start + Duration::from_secs(second);
        let (chance, count) = (buckets.drop_chance(now), buckets.flood.count);
        writeln!(seen, "at {second} s, {count} in the last minute: {chance:.3}").unwrap();
    }
    expect![[r#"
        300 more: 0.000
        1 more: 0.200
        149 more: 0.248
        150 more: 0.369
        300 more: 0.681
        300 more: 0.850
        600 more: 0.850
        at 60 s, 1500 in the last minute: 0.850
        at 62 s, 1350 in the last minute: 0.850
        at 64 s, 900 in the last minute: 0.681
        at 65 s, 600 in the last minute: 0.369
        at 66 s, 0 in the last minute: 0.000
    "#]]
    .assert_eq(&seen);
}

#[test]
fn a_flood_lasts_until_a_minute_has_half_of_what_began_it() {
    let mut buckets = Buckets::new(BucketLimits { flood_per_min: 10, ..Default::default() }, Instant::now());
    let start = buckets.latest;
    let at = |second: u64| start + Duration::from_secs(second);
    for (second, admitted) in [(0, 5), (10, 5), (20, 1)] {
        (0..admitted).for_each(|_| buckets.take_global(at(second)).unwrap());
    }
    assert!(buckets.is_flooded(at(20)));
    assert!(buckets.is_flooded(at(69)), "6 in the last minute");
    assert_eq!(buckets.drop_chance(at(69)), 0.20);
    assert!(!buckets.is_flooded(at(70)), "1 in the last minute");
    assert!(!buckets.is_flooded(at(10_000)));
}

/// polkadot-sdk#11988: an attacker who fills the table must not get its old group back full.
#[test]
fn spraying_the_table_does_not_refill_an_exhausted_group() {
    let limits = BucketLimits { groups_max: 64, ..BucketLimits::default() };
    let mut buckets = Buckets::new(limits, Instant::now());
    let now = buckets.latest;
    let attacker = host_of(0, 0);
    (0..16).for_each(|_| buckets.take(&attacker, now).unwrap());
    for host in 1..=1000 {
        let _every_host_has_a_first_token = buckets.take_group(&host_of(host, host), now);
        assert!(buckets.len() <= 64);
    }
    assert_eq!(buckets.wait(&attacker, now), Duration::from_secs(5));
}

#[test]
fn what_is_full_again_is_forgotten() {
    let mut buckets = Buckets::new(BucketLimits::default(), Instant::now());
    let start = buckets.latest;
    (0..100).for_each(|host| buckets.take(&host_of(host, host), start).unwrap());
    (0..15).for_each(|_| buckets.take(&host_of(0, 0), start).unwrap());
    buckets.sweep(start + Duration::from_millis(4999));
    assert_eq!(buckets.len(), 100);
    buckets.sweep(start + Duration::from_secs(5));
    assert_eq!(buckets.len(), 1, "the one that took sixteen");
    buckets.sweep(start + Duration::from_secs(80));
    assert_eq!(buckets.len(), 0);
    let limits = BucketLimits::default();
    let longest = [limits.global, limits.group, limits.relay].map(|rate| rate.refill).into_iter().max();
    assert!(longest < Some(Duration::from_secs(20 * 60)), "nothing is remembered longer than 20 minutes");
}

#[test]
#[should_panic(expected = "a rate of 0 per second is not between 0.000001 and 1000000")]
fn a_rate_of_nothing_is_a_bug() {
    Rate::new(0.0, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// In any span of time a group is admitted its burst and what came in since, at most; floods come and go, and the
    /// clock may step back.
    #[test]
    fn nobody_is_admitted_more_than_burst_and_rate(steps in steps(4)) {
        let limits = BucketLimits { flood_per_min: 20, ..BucketLimits::default() };
        let mut buckets = Buckets::new(limits.clone(), Instant::now());
        let mut now = buckets.latest + Duration::from_secs(100);
        let mut latest = now;
        let mut admitted: HashMap<GroupKey, Vec<Instant>> = HashMap::new();
        for Step { host, passes_ms } in steps {
            now = if passes_ms < 0 {
                now - Duration::from_millis(passes_ms.unsigned_abs())
            } else {
                now + Duration::from_millis(passes_ms.unsigned_abs())
            };
            latest = latest.max(now);
            let groups = host_of(host, host / 2);
            let had_one = buckets.has_token(&groups, now);
            let outcome = buckets.take(&groups, now);
            prop_assert_eq!(outcome.is_ok(), had_one, "the node's own bucket never runs out here");
            if outcome.is_ok() {
                admitted.entry(groups.fine).or_default().push(latest);
            }
        }
        for times in admitted.values() {
            for (first, from) in times.iter().enumerate() {
                for (last, to) in times.iter().enumerate().skip(first) {
                    let came = (*to - *from).as_secs_f64() * 0.2;
                    prop_assert!((last - first + 1) as f64 <= 16.0 + came + 1e-6);
                }
            }
        }
    }

    /// Whoever is forgotten before its bucket is full had the most tokens of all.
    #[test]
    fn the_table_is_bounded_and_gives_up_the_fullest(steps in steps(40), groups_max in 1..12usize) {
        let limits = BucketLimits { groups_max, flood_per_min: 50, ..BucketLimits::default() };
        let mut buckets = Buckets::new(limits, Instant::now());
        let mut now = buckets.latest;
        for Step { host, passes_ms } in steps {
            now += Duration::from_millis(passes_ms.unsigned_abs());
            let before = buckets.groups.full_at.clone();
            let _whatever = buckets.take(&host_of(host, host), now);
            let after = &buckets.groups.full_at;
            prop_assert!(after.len() <= groups_max && after.len() == buckets.groups.order.len());
            let forgotten = before.iter().filter(|(key, _)| !after.contains_key(key));
            for (key, full_at) in forgotten {
                let kept = before.iter().filter(|(other, _)| after.contains_key(other));
                for (other, fuller_at) in kept {
                    // One that paid in this very step was put back with less than it had.
                    let has_paid = after[other] != *fuller_at;
                    prop_assert!(has_paid || full_at <= fuller_at, "{key:?} is forgotten before {other:?}");
                }
            }
        }
    }

    /// Steps back change nothing but that time stands still meanwhile.
    #[test]
    fn a_clock_that_steps_back_is_a_clock_that_stands_still(steps in steps(4), back_ms in 0..10_000u64) {
        let start = Instant::now();
        let mut wandering = Buckets::new(BucketLimits::default(), start);
        let mut steady = Buckets::new(BucketLimits::default(), start);
        let mut now = start + Duration::from_secs(60);
        for (number, Step { host, passes_ms }) in steps.into_iter().enumerate() {
            now += Duration::from_millis(passes_ms.unsigned_abs());
            let groups = host_of(host, host);
            prop_assert_eq!(wandering.wait(&groups, now), steady.wait(&groups, now));
            let earlier = if number % 2 == 0 { now } else { now - Duration::from_millis(back_ms) };
            prop_assert_eq!(wandering.take(&groups, earlier), steady.take(&groups, now));
            wandering.sweep(earlier);
        }
    }
}

#[derive(Debug, Clone)]
struct Step {
    host: u64,
    passes_ms: i64,
}

/// Attempts by a few hosts, mostly in quick succession, sometimes after a long pause or a step back.
fn steps(hosts: u64) -> impl Strategy<Value = Vec<Step>> {
    let passes_ms = prop_oneof![6 => 0..300i64, 2 => 300..9_000i64, 1 => 9_000..100_000i64, 1 => -3_000..0i64];
    let step = (0..hosts, passes_ms).prop_map(|(host, passes_ms)| Step { host, passes_ms });
    prop::collection::vec(step, 0..250)
}

/// A host within a network, both by number.
fn host_of(host: u64, network: u64) -> Groups {
    Groups { fine: GroupKey::forged(host), coarse: GroupKey::forged(1 << 32 | network), is_relay: false }
}

/// Runs "COUNT NAME" (attempts by a host or the relay) and "N s", "N ms" (time passes), parted by semicolons.
fn check(script: &str, limits: BucketLimits, expected: Expect) {
    let mut buckets = Buckets::new(limits, Instant::now());
    let mut now = buckets.latest;
    let mut seen = String::new();
    for step in script.split("; ") {
        let (number, what) = step.split_once(' ').expect("a number and a word");
        let number: u64 = number.parse().expect("a number");
        let groups = match what {
            "s" | "ms" => {
                now += Duration::from_millis(if what == "s" { number * 1000 } else { number });
                continue;
            }
            "relay" => Groups { is_relay: true, ..host_of(7, 7) },
            host => host_of(u64::from(host.as_bytes()[0]), 0),
        };
        let outcomes: Vec<_> = (0..number).map(|_| buckets.take(&groups, now)).collect();
        let taken = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
        let rest = match outcomes.get(taken) {
            None | Some(Ok(())) => String::new(),
            Some(Err(Exhausted::Global)) => ", then the node is out of tokens".into(),
            Some(Err(Exhausted::Group)) => format!(", then the group waits {:?}", buckets.wait(&groups, now)),
        };
        writeln!(seen, "{step}: {taken} taken{rest}").expect("a string takes everything");
    }
    expected.assert_eq(&seen);
}
