//! Traces of one breaker, and of two side by side, on virtual time; then every history at once.

use expect_test::expect;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::*;
use trace::{Trace, check, check_with};

mod trace;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_clean_backend_is_healthy() {
    check(
        "ask ok ask",
        expect![[r#"
            0.0 s     ask         go, healthy, 0 failed, 0 saved
            0.0 s     ok          healthy, 0 failed, 0 saved
            0.0 s     ask         go, healthy, 0 failed, 0 saved
        "#]],
    );
}

#[test]
fn below_the_threshold_it_stays_healthy() {
    check(
        "fail fail ask",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     ask         go, healthy, 2 failed, 0 saved
        "#]],
    );
}

#[test]
fn at_the_threshold_it_degrades() {
    check(
        "fail fail fail ask",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            0.0 s     ask         wait, degraded, 3 failed, 1 saved
        "#]],
    );
}

#[test]
fn a_stale_degradation_lapses() {
    check(
        "fail fail fail due +119s look +1s look ask",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            24.4 s    due         degraded, 3 failed, 0 saved
            143.4 s   +119s       degraded, 3 failed, 0 saved
            143.4 s   look        degraded, 3 failed, 0 saved
            144.4 s   +1s         healthy, 0 failed, 0 saved; lapsed, 0 saved meanwhile
            144.4 s   look        healthy, 0 failed, 0 saved
            144.4 s   ask         go, healthy, 0 failed, 0 saved
        "#]],
    );
}

#[test]
fn one_success_clears_at_once() {
    check(
        "fail fail fail ask ok ask fail",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            0.0 s     ask         wait, degraded, 3 failed, 1 saved
            0.0 s     ok          healthy, 0 failed, 1 saved; recovered, 1 saved meanwhile
            0.0 s     ask         go, healthy, 0 failed, 1 saved
            0.0 s     fail        healthy, 1 failed, 1 saved
        "#]],
    );
}

#[test]
fn failures_between_successes_never_add_up() {
    check(
        "fail fail ok fail fail ok fail fail ask",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     ok          healthy, 0 failed, 0 saved
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     ok          healthy, 0 failed, 0 saved
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     ask         go, healthy, 2 failed, 0 saved
        "#]],
    );
}

#[test]
fn a_stale_streak_is_not_resumed() {
    check(
        "fail fail +120s fail ask fail fail",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            120.0 s   +120s       healthy, 2 failed, 0 saved
            120.0 s   fail        healthy, 1 failed, 0 saved
            120.0 s   ask         go, healthy, 1 failed, 0 saved
            120.0 s   fail        healthy, 2 failed, 0 saved
            120.0 s   fail        degraded, 3 failed, 0 saved; degraded
        "#]],
    );
}

#[test]
fn a_gap_inside_the_window_continues_the_streak() {
    check(
        "fail +119s fail +119s fail ask",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            119.0 s   +119s       healthy, 1 failed, 0 saved
            119.0 s   fail        healthy, 2 failed, 0 saved
            238.0 s   +119s       healthy, 2 failed, 0 saved
            238.0 s   fail        degraded, 3 failed, 0 saved; degraded
            238.0 s   ask         wait, degraded, 3 failed, 1 saved
        "#]],
    );
}

#[test]
fn the_open_time_doubles_up_to_its_limit_and_the_probe_that_succeeds_ends_it() {
    let script = "fail fail fail due ask lose due ask lose due ask lose due ask lose due ask lose due ask win ask";
    check(
        script,
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            24.4 s    due         degraded, 3 failed, 0 saved
            24.4 s    ask         probe 1, probing, 3 failed, 0 saved
            24.4 s    lose        degraded, 4 failed, 0 saved
            79.7 s    due         degraded, 4 failed, 0 saved
            79.7 s    ask         probe 2, probing, 4 failed, 0 saved
            79.7 s    lose        degraded, 5 failed, 0 saved
            182.6 s   due         degraded, 5 failed, 0 saved
            182.6 s   ask         probe 3, probing, 5 failed, 0 saved
            182.6 s   lose        degraded, 6 failed, 0 saved
            426.7 s   due         degraded, 6 failed, 0 saved
            426.7 s   ask         probe 4, probing, 6 failed, 0 saved
            426.7 s   lose        degraded, 7 failed, 0 saved
            699.4 s   due         degraded, 7 failed, 0 saved
            699.4 s   ask         probe 5, probing, 7 failed, 0 saved
            699.4 s   lose        degraded, 8 failed, 0 saved
            1053.5 s  due         degraded, 8 failed, 0 saved
            1053.5 s  ask         probe 6, probing, 8 failed, 0 saved
            1053.5 s  win         healthy, 0 failed, 0 saved; recovered, 0 saved meanwhile
            1053.5 s  ask         go, healthy, 0 failed, 0 saved
        "#]],
    );
}

#[test]
fn one_probe_is_made_and_everybody_else_waits_for_it() {
    check(
        "fail fail fail due ask ask ask lose ask",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            24.4 s    due         degraded, 3 failed, 0 saved
            24.4 s    ask         probe 1, probing, 3 failed, 0 saved
            24.4 s    ask         wait, probing, 3 failed, 1 saved
            24.4 s    ask         wait, probing, 3 failed, 2 saved
            24.4 s    lose        degraded, 4 failed, 2 saved
            24.4 s    ask         wait, degraded, 4 failed, 3 saved
        "#]],
    );
}

#[test]
fn what_was_begun_before_and_fails_late_does_not_extend_the_open_time() {
    check(
        "fail fail fail +10s fail fail fail look due fail ask fail look",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            10.0 s    +10s        degraded, 3 failed, 0 saved
            10.0 s    fail        degraded, 3 failed, 0 saved
            10.0 s    fail        degraded, 3 failed, 0 saved
            10.0 s    fail        degraded, 3 failed, 0 saved
            10.0 s    look        degraded, 3 failed, 0 saved
            24.4 s    due         degraded, 3 failed, 0 saved
            24.4 s    fail        degraded, 3 failed, 0 saved
            24.4 s    ask         probe 1, probing, 3 failed, 0 saved
            24.4 s    fail        probing, 3 failed, 0 saved
            24.4 s    look        probing, 3 failed, 0 saved
        "#]],
    );
}

#[test]
fn what_was_begun_before_and_succeeds_late_clears() {
    check(
        "fail fail fail +10s ok ask",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            10.0 s    +10s        degraded, 3 failed, 0 saved
            10.0 s    ok          healthy, 0 failed, 0 saved; recovered, 0 saved meanwhile
            10.0 s    ask         go, healthy, 0 failed, 0 saved
        "#]],
    );
}

#[test]
fn a_success_from_elsewhere_ends_a_probe_and_its_late_failure_counts_as_one() {
    check(
        "fail fail fail due ask ok lose ask",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            24.4 s    due         degraded, 3 failed, 0 saved
            24.4 s    ask         probe 1, probing, 3 failed, 0 saved
            24.4 s    ok          healthy, 0 failed, 0 saved; recovered, 0 saved meanwhile
            24.4 s    lose        healthy, 1 failed, 0 saved
            24.4 s    ask         go, healthy, 1 failed, 0 saved
        "#]],
    );
}

#[test]
fn a_probe_that_was_not_made_leaves_the_next_one_due() {
    check(
        "fail fail fail due ask drop ask lose",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            24.4 s    due         degraded, 3 failed, 0 saved
            24.4 s    ask         probe 1, probing, 3 failed, 0 saved
            24.4 s    drop        degraded, 3 failed, 0 saved
            24.4 s    ask         probe 2, probing, 3 failed, 0 saved
            24.4 s    lose        degraded, 4 failed, 0 saved
        "#]],
    );
}

#[test]
fn a_forgotten_probe_is_taken_back_and_its_late_failure_says_nothing() {
    check(
        "fail fail fail due ask +29s ask +1s ask lose-first look lose",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            24.4 s    due         degraded, 3 failed, 0 saved
            24.4 s    ask         probe 1, probing, 3 failed, 0 saved
            53.4 s    +29s        probing, 3 failed, 0 saved
            53.4 s    ask         wait, probing, 3 failed, 1 saved
            54.4 s    +1s         degraded, 3 failed, 1 saved
            54.4 s    ask         probe 2, probing, 3 failed, 1 saved
            54.4 s    lose-first  probing, 3 failed, 1 saved
            54.4 s    look        probing, 3 failed, 1 saved
            54.4 s    lose        degraded, 4 failed, 1 saved
        "#]],
    );
}

#[test]
fn attempts_saved_are_counted_one_by_one_and_a_probe_stands_for_all_of_its_turn() {
    check(
        "fail fail fail ask*3 ask*3 due ask*3 win ask*3",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            0.0 s     ask*3       wait, degraded, 3 failed, 3 saved
            0.0 s     ask*3       wait, degraded, 3 failed, 6 saved
            24.4 s    due         degraded, 3 failed, 6 saved
            24.4 s    ask*3       probe 1, probing, 3 failed, 8 saved
            24.4 s    win         healthy, 0 failed, 8 saved; recovered, 8 saved meanwhile
            24.4 s    ask*3       go, healthy, 0 failed, 8 saved
        "#]],
    );
}

#[test]
fn a_second_degradation_begins_with_the_first_open_time() {
    check(
        "fail fail fail due ask lose due ask win fail fail fail",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        degraded, 3 failed, 0 saved; degraded
            24.4 s    due         degraded, 3 failed, 0 saved
            24.4 s    ask         probe 1, probing, 3 failed, 0 saved
            24.4 s    lose        degraded, 4 failed, 0 saved
            79.7 s    due         degraded, 4 failed, 0 saved
            79.7 s    ask         probe 2, probing, 4 failed, 0 saved
            79.7 s    win         healthy, 0 failed, 0 saved; recovered, 0 saved meanwhile
            79.7 s    fail        healthy, 1 failed, 0 saved
            79.7 s    fail        healthy, 2 failed, 0 saved
            79.7 s    fail        degraded, 3 failed, 0 saved; degraded
        "#]],
    );
}

#[test]
fn a_backend_that_dies_does_not_touch_the_other() {
    check(
        "a:fail b:ask b:ok a:fail a:fail b:ask a:ask b:fail a:look b:ok due:a a:ask b:ask a:win b:look",
        expect![[r#"
            0.0 s     a:fail      healthy, 1 failed, 0 saved
            0.0 s     b:ask       go, healthy, 0 failed, 0 saved
            0.0 s     b:ok        healthy, 0 failed, 0 saved
            0.0 s     a:fail      healthy, 2 failed, 0 saved
            0.0 s     a:fail      degraded, 3 failed, 0 saved; degraded
            0.0 s     b:ask       go, healthy, 0 failed, 0 saved
            0.0 s     a:ask       wait, degraded, 3 failed, 1 saved
            0.0 s     b:fail      healthy, 1 failed, 0 saved
            0.0 s     a:look      degraded, 3 failed, 1 saved
            0.0 s     b:ok        healthy, 0 failed, 0 saved
            24.4 s    due:a       degraded, 3 failed, 1 saved
            24.4 s    a:ask       probe 1, probing, 3 failed, 1 saved
            24.4 s    b:ask       go, healthy, 0 failed, 0 saved
            24.4 s    a:win       healthy, 0 failed, 1 saved; recovered, 1 saved meanwhile
            24.4 s    b:look      healthy, 0 failed, 0 saved
        "#]],
    );
}

#[test]
fn a_threshold_of_zero_turns_it_off() {
    let settings = Settings { failures: 0, ..settings() };
    check_with(
        settings,
        "fail fail fail fail ask",
        expect![[r#"
            0.0 s     fail        healthy, 1 failed, 0 saved
            0.0 s     fail        healthy, 2 failed, 0 saved
            0.0 s     fail        healthy, 3 failed, 0 saved
            0.0 s     fail        healthy, 4 failed, 0 saved
            0.0 s     ask         go, healthy, 4 failed, 0 saved
        "#]],
    );
}

#[test]
fn a_network_that_has_changed_is_worth_a_probe_and_open_times_begin_anew() {
    check(
        "fail fail fail due ask lose due ask lose +100s hasten due ask lose hasten due ask win",
        expect![[r#"
        0.0 s     fail        healthy, 1 failed, 0 saved
        0.0 s     fail        healthy, 2 failed, 0 saved
        0.0 s     fail        degraded, 3 failed, 0 saved; degraded
        24.4 s    due         degraded, 3 failed, 0 saved
        24.4 s    ask         probe 1, probing, 3 failed, 0 saved
        24.4 s    lose        degraded, 4 failed, 0 saved
        79.7 s    due         degraded, 4 failed, 0 saved
        79.7 s    ask         probe 2, probing, 4 failed, 0 saved
        79.7 s    lose        degraded, 5 failed, 0 saved
        179.7 s   +100s       degraded, 5 failed, 0 saved
        179.7 s   hasten      degraded, 5 failed, 0 saved
        182.6 s   due         degraded, 5 failed, 0 saved
        182.6 s   ask         probe 3, probing, 5 failed, 0 saved
        182.6 s   lose        degraded, 6 failed, 0 saved
        182.6 s   hasten      degraded, 6 failed, 0 saved
        218.3 s   due         degraded, 6 failed, 0 saved
        218.3 s   ask         probe 4, probing, 6 failed, 0 saved
        218.3 s   win         healthy, 0 failed, 0 saved; recovered, 0 saved meanwhile
    "#]],
    );
}

#[test]
fn what_is_healthy_or_being_probed_is_not_hastened() {
    check(
        "fail hasten fail fail due ask hasten",
        expect![[r#"
        0.0 s     fail        healthy, 1 failed, 0 saved
        0.0 s     hasten      healthy, 1 failed, 0 saved
        0.0 s     fail        healthy, 2 failed, 0 saved
        0.0 s     fail        degraded, 3 failed, 0 saved; degraded
        24.4 s    due         degraded, 3 failed, 0 saved
        24.4 s    ask         probe 1, probing, 3 failed, 0 saved
        24.4 s    hasten      probing, 3 failed, 0 saved
    "#]],
    );
}

/// What a compressed measurement stands on: only the numbers on the clock change.
#[test]
fn a_clock_that_runs_twenty_times_as_fast_changes_no_verdict() {
    let Settings { failures, window, open_min, open_max, probe_timeout } = settings();
    let fast = Settings {
        failures,
        window: window / 20,
        open_min: open_min / 20,
        open_max: open_max / 20,
        probe_timeout: probe_timeout / 20,
    };
    let script =
        "fail +100s fail +119s fail ask*3 due ask lose +29s ask due ask +40s ask lose due ask win fail +121s fail ask";
    let of = |settings, pace| {
        let mut trace = Trace::new(settings, pace);
        script.split(' ').map(|step| trace.play(step).1).collect::<Vec<_>>()
    };
    assert_eq!(of(settings(), 1), of(fast, 20));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Ask,
    Succeed,
    Fail,
    EndProbe { number: usize, fails: bool },
    DropProbe { number: usize },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Ask),
        1 => Just(Step::Succeed),
        4 => Just(Step::Fail),
        3 => (0usize..3, any::<bool>()).prop_map(|(number, fails)| Step::EndProbe { number, fails }),
        1 => (0usize..3).prop_map(|number| Step::DropProbe { number }),
        3 => (0u64..400_000).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn no_history_makes_two_probes_or_an_open_time_out_of_bounds(
        seed in any::<u64>(), steps in prop::collection::vec(step(), 0..120)
    ) {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(seed));
        let (mut now, settings) = (start, settings());
        let mut breaker = Breaker::new(settings, now);
        // Probes under way, the oldest first, with when they were begun.
        let mut probes: Vec<(u64, Instant)> = Vec::new();
        for step in steps {
            breaker.on_time(now);
            let before = breaker.clone();
            match step {
                Step::Ask => if let Verdict::Probe(number) = breaker.ask(1, now) {
                    let forgotten = |(_, begun): &(u64, Instant)| now.duration_since(*begun) >= settings.probe_timeout;
                    prop_assert!(probes.iter().all(forgotten), "{probes:?} are under way");
                    probes.push((number, now));
                },
                Step::Succeed => {
                    breaker.succeed(now);
                    prop_assert_eq!(breaker.state, State::Healthy);
                    probes.clear();
                }
                Step::Fail => {
                    breaker.fail(None, now, &mut rng);
                    if before.state != State::Healthy {
                        prop_assert_eq!(breaker.state, before.state, "a late failure changed it");
                    }
                }
                Step::EndProbe { number, fails } if number < probes.len() => {
                    let (number, _) = probes.remove(number);
                    match fails {
                        true => drop(breaker.fail(Some(number), now, &mut rng)),
                        false => {
                            breaker.succeed(now);
                            probes.clear();
                        }
                    }
                }
                Step::DropProbe { number } if number < probes.len() => breaker.cancel(probes.remove(number).0, now),
                Step::EndProbe { .. } | Step::DropProbe { .. } => {}
                Step::Pass(millis) => now += Duration::from_millis(millis),
            }
            if let (State::Degraded { probe_at, .. }, false) = (breaker.state, before.state == breaker.state) {
                let open = probe_at.duration_since(now);
                let is_cancelled = matches!(step, Step::DropProbe { .. });
                let bounds = settings.open_min.mul_f64(1.0 - JITTER)..=settings.open_max.mul_f64(1.0 + JITTER);
                prop_assert!(is_cancelled || bounds.contains(&open), "open for {open:?}");
            }
            // Nothing latches: whoever waits long enough is let through.
            let mut later = breaker.clone();
            let end = now + settings.open_max * 2 + settings.window;
            later.on_time(end);
            prop_assert_eq!(later.state, State::Healthy);
        }
    }
}

fn settings() -> Settings {
    Settings::new(&Limits::default())
}
