//! Scripts and storms of dials on virtual time.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn pauses_grow_from_the_end_of_each_attempt_and_stay_within_their_half() {
    let mut mesh = Script::new();
    for full in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        mesh.known = true;
        mesh.fail(1, Failure::Silent);
        let pause = mesh.pause(1);
        assert!(pause >= SECOND * full / 2 && pause <= SECOND * full, "{pause:?} after a failure worth {full} s");
        assert_eq!(mesh.dial(1), Dial::At(mesh.now + pause));
        mesh.pass(pause);
        assert_eq!(mesh.dial(1), Dial::Now);
        // However long the attempt takes, the next pause is counted from its end.
        mesh.pass(SECOND * 10);
    }
}

#[test]
fn each_class_has_its_floor_and_counts_as_it_should() {
    let hint = |code, secs| Failure::Closed(Close::retry_after(code, SECOND * secs));
    let plain = |code| Failure::Closed(Close::new(code));
    check(
        &[
            ("ours", Failure::Ours),
            ("silent", Failure::Silent),
            ("no address", Failure::NoAddress),
            ("refused", Failure::Refused),
            ("retired", plain(CloseCode::Retired)),
            ("superseded", plain(CloseCode::Superseded)),
            ("draining", plain(CloseCode::Draining)),
            ("draining for 60 s", hint(CloseCode::Draining, 60)),
            ("full", plain(CloseCode::FullGlobal)),
            ("full for 5 s", hint(CloseCode::FullGlobal, 5)),
            ("full for 0 s", hint(CloseCode::FullListener, 0)),
            ("full for an hour", hint(CloseCode::FullPrefix, 3600)),
            ("rate limited", plain(CloseCode::RateLimited)),
            ("evicted", plain(CloseCode::Evicted)),
            ("evicted for 5 s", hint(CloseCode::Evicted, 5)),
            ("evicted for 60 s", hint(CloseCode::Evicted, 60)),
            ("denied", plain(CloseCode::Denied)),
            ("network mismatch", plain(CloseCode::NetworkMismatch)),
            ("violation", Failure::Violation),
            ("internal", plain(CloseCode::Internal)),
        ],
        expect![[r#"
            ours                 no pause, 0 failures
            silent               within 500ms..1s, 1 failures
            no address           within 500ms..1s, 1 failures
            refused              within 500ms..1s, 1 failures
            retired              no pause, 0 failures
            superseded           no pause, 0 failures
            draining             within 5s..6.25s, 0 failures
            draining for 60 s    within 60s..75s, 0 failures
            full                 within 30s..37.5s, 1 failures
            full for 5 s         within 5s..6.25s, 1 failures
            full for 0 s         within 1s..1.25s, 1 failures
            full for an hour     within 300s..375s, 1 failures
            rate limited         within 30s..37.5s, 1 failures
            evicted              within 30s..37.5s, 1 failures
            evicted for 5 s      within 30s..37.5s, 1 failures
            evicted for 60 s     within 60s..75s, 1 failures
            denied               within 900s..1125s, 1 failures
            network mismatch     within 900s..1125s, 1 failures
            violation            within 900s..1125s, 1 failures
            internal             within 500ms..1s, 1 failures
        "#]],
    );
}

#[test]
fn a_no_for_good_doubles_up_to_an_hour() {
    let mut mesh = Script::new();
    for floor in [15, 30, 60, 60].map(|minutes| MINUTE * minutes) {
        mesh.fail(1, Failure::Closed(Close::new(CloseCode::Denied)));
        let pause = mesh.pause(1);
        assert!(pause >= floor && pause <= floor * 5 / 4, "{pause:?}");
        mesh.pass(pause);
    }
}

#[test]
fn a_flapping_remote_waits_longer_each_time_and_a_stable_connection_forgives() {
    let mut mesh = Script::new();
    for full in [1, 2, 4] {
        mesh.connect(1, false);
        mesh.pass(SECOND);
        mesh.lose(1, Some(Failure::Lost), SECOND);
        assert!(mesh.pause(1) >= SECOND * full / 2);
        mesh.pass(MINUTE);
    }
    mesh.connect(1, false);
    mesh.lose(1, Some(Failure::Lost), MINUTE);
    assert_eq!((mesh.dial(1), mesh.failures(1)), (Dial::Now, 0), "it lived for a minute: a loss is no failure");
    mesh.fail(1, Failure::Silent);
    assert!(mesh.pause(1) <= SECOND, "counted anew");
}

#[test]
fn a_stable_connection_that_is_closed_with_a_floor_still_waits_for_it() {
    let mut mesh = Script::new();
    mesh.connect(1, false);
    mesh.lose(1, Some(Failure::Closed(Close::new(CloseCode::Evicted))), MINUTE * 10);
    assert!(mesh.pause(1) >= SECOND * 30);
}

#[test]
fn an_orderly_end_is_no_failure_however_soon() {
    let mut mesh = Script::new();
    mesh.fail(1, Failure::Silent);
    mesh.pass(SECOND);
    for _ in 0..20 {
        mesh.connect(1, false);
        mesh.lose(1, None, Duration::ZERO);
        assert_eq!((mesh.dial(1), mesh.failures(1)), (Dial::Now, 1));
    }
}

#[test]
fn a_lost_duplicate_is_no_failure_while_the_other_lives() {
    let mut mesh = Script::new();
    mesh.connect(1, true);
    let life = Life { end: Some(Failure::Lost), lived: SECOND, was_last: false };
    mesh.table.on_ended(peer(1), false, life, 1, mesh.now, &mut mesh.rng);
    assert_eq!((mesh.dial(1), mesh.failures(1)), (Dial::Now, 0));
}

#[test]
fn a_pause_of_our_own_may_be_cut_short_and_one_that_was_asked_for_may_not() {
    let mut mesh = Script::new();
    mesh.known = true;
    (0..9).for_each(|_| mesh.fail(1, Failure::Silent));
    assert!(mesh.pause(1) >= SECOND * 128);
    mesh.table.hasten(&peer(1), mesh.now);
    assert_eq!((mesh.dial(1), mesh.failures(1)), (Dial::Now, 9), "it is tried once, and not forgiven");
    mesh.fail(1, Failure::Closed(Close::retry_after(CloseCode::FullGlobal, SECOND * 20)));
    assert!(mesh.pause(1) >= SECOND * 150);
    mesh.table.hasten(&peer(1), mesh.now);
    assert!((SECOND * 20..=SECOND * 25).contains(&mesh.pause(1)), "{:?}", mesh.pause(1));
}

#[test]
fn a_remote_that_dials_us_is_alive_and_its_count_stays() {
    let mut mesh = Script::new();
    (0..4).for_each(|_| mesh.fail(1, Failure::Silent));
    assert!(matches!(mesh.dial(1), Dial::At(_)));
    mesh.connect(1, true);
    mesh.lose(1, None, SECOND);
    assert_eq!((mesh.dial(1), mesh.failures(1)), (Dial::Now, 4));
    mesh.fail(1, Failure::Silent);
    assert!(mesh.pause(1) >= SECOND * 8, "the fifth in a row");
}

#[test]
fn an_unknown_ghost_is_forgotten_and_not_learnt_again_for_an_hour() {
    let mut mesh = Script::new();
    for attempt in 1..=5 {
        assert!(!mesh.table.is_ghost(&peer(1), mesh.now), "attempt {attempt}");
        mesh.fail(1, Failure::Silent);
    }
    assert_eq!((mesh.dial(1), mesh.table.census().0), (Dial::No, 0));
    mesh.pass(MINUTE * 59);
    mesh.table.sweep(mesh.now);
    assert!(mesh.table.is_ghost(&peer(1), mesh.now));
    mesh.pass(MINUTE);
    assert_eq!(mesh.dial(1), Dial::Now);
}

#[test]
fn a_ghost_that_dials_us_is_none() {
    let mut mesh = Script::new();
    (0..5).for_each(|_| mesh.fail(1, Failure::Silent));
    mesh.connect(1, true);
    mesh.lose(1, None, SECOND);
    assert_eq!(mesh.dial(1), Dial::Now);
}

#[test]
fn who_answers_with_a_no_is_no_ghost() {
    let mut mesh = Script::new();
    (0..20).for_each(|_| mesh.fail(1, Failure::Closed(Close::new(CloseCode::FullGlobal))));
    assert!(matches!(mesh.dial(1), Dial::At(_)));
}

#[test]
fn known_and_recalled_remotes_are_neither_evicted_nor_forgotten() {
    let mut mesh = Script::with(Limits { redials_max: 4, ..Limits::default() });
    mesh.known = true;
    (0..10).for_each(|_| mesh.fail(1, Failure::Silent));
    mesh.known = false;
    assert!(mesh.table.recall(peer(2), false, mesh.now, &mut mesh.rng));
    (0..10).for_each(|_| mesh.fail(2, Failure::Silent));
    for stranger in 10..30 {
        mesh.fail(stranger, Failure::Refused);
        mesh.pass(SECOND);
    }
    assert_eq!(mesh.table.census().0, 4);
    assert_eq!((mesh.failures(1), mesh.failures(2)), (10, 10));
    assert_eq!((mesh.failures(29), mesh.failures(28), mesh.failures(27)), (1, 1, 0), "the latest strangers stay");
    mesh.pass(MINUTE * 60 * 24);
    mesh.table.sweep(mesh.now);
    assert_eq!((mesh.failures(1), mesh.table.census().0), (10, 2), "a day later only these are left");
}

#[test]
fn recalled_remotes_are_asked_within_a_second_of_the_start_and_not_all_at_once() {
    let mut mesh = Script::new();
    (0..50).for_each(|n| assert!(mesh.table.recall(peer(n), false, mesh.now, &mut mesh.rng)));
    let pauses: Vec<_> = (0..50).map(|n| mesh.pause(n)).collect();
    assert!(pauses.iter().all(|pause| *pause <= SECOND));
    assert!(pauses.iter().filter(|pause| **pause > SECOND / 2).count() > 10);
    assert_eq!(mesh.dial(100), Dial::Now, "whom the user names is asked at once");
}

#[test]
fn while_our_network_is_out_counters_freeze_and_the_recovery_is_spread() {
    let mut mesh = Script::new();
    mesh.known = true;
    for round in 0..2 {
        (0..4).for_each(|n| mesh.fail(n, Failure::Silent));
        assert_eq!(mesh.table.census().1, round == 1);
    }
    let before: Vec<_> = (0..4).map(|n| mesh.failures(n)).collect();
    let mut dials = 0;
    for _ in 0..60 {
        mesh.pass(SECOND);
        for n in 0..4 {
            if mesh.dial(n) == Dial::Now {
                mesh.table.on_dial(&peer(n), mesh.now);
                mesh.fail(n, Failure::Silent);
                dials += 1;
            }
        }
    }
    assert!((20..=26).contains(&dials), "two probes in five seconds, for a minute: {dials}");
    assert_eq!((0..4).map(|n| mesh.failures(n)).collect::<Vec<_>>(), before);
    mesh.connect(3, false);
    assert!(!mesh.table.census().1);
    mesh.pass(SECOND);
    let waiting = (10..60).filter(|n| matches!(mesh.dial(*n), Dial::At(at) if at <= mesh.now + SECOND * 9)).count();
    assert!(waiting > 35, "{waiting} of 50 wait for a place within ten seconds");
    mesh.pass(SECOND * 9);
    assert!((10..60).all(|n| mesh.dial(n) == Dial::Now));
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, the tables stay bounded, a pause is respected and no longer than the longest there is, and
    /// nothing known is a ghost.
    #[test]
    fn no_history_breaks_the_bounds(
        steps in prop::collection::vec((0u8..12, 0u8..8, 0usize..CAUSES.len(), 0u64..100), 0..200),
        seed in any::<u64>(),
    ) {
        let limits = Limits { redials_max: 5, ..Limits::default() };
        let mut mesh = Script::with(limits);
        mesh.rng = StdRng::seed_from_u64(seed);
        let longest = SEVERE_MAX * 5 / 4;
        for (name, deed, cause, seconds) in steps {
            mesh.known = name < 3;
            match deed {
                0..=2 => mesh.fail(name, CAUSES[cause]),
                3 => mesh.connect(name, seconds % 2 == 0),
                4 => mesh.lose(name, Some(CAUSES[cause]), SECOND * seconds as u32),
                5 => mesh.lose(name, None, SECOND * seconds as u32),
                6 => mesh.table.sweep(mesh.now),
                _ => mesh.pass(SECOND * seconds as u32),
            }
            prop_assert!(mesh.table.entries.len() <= 5 && mesh.table.ghosts.len() <= 5);
            match mesh.dial(name) {
                Dial::At(at) => prop_assert!(at > mesh.now && at <= mesh.now + longest),
                Dial::No => prop_assert!(!mesh.known),
                Dial::Now => prop_assert_eq!(mesh.pause(name), Duration::ZERO),
            }
        }
    }
}

const CAUSES: [Failure; 7] = [
    Failure::Ours,
    Failure::Silent,
    Failure::Refused,
    Failure::Lost,
    Failure::Violation,
    Failure::Closed(Close { code: CloseCode::FullGlobal, retry_after: Some(Duration::from_secs(9)) }),
    Failure::Closed(Close { code: CloseCode::Draining, retry_after: None }),
];

/// Prints the pause that each failure brings, over many throws of the dice, and what it counts.
fn check(failures: &[(&str, Failure)], expected: Expect) {
    let mut text = String::new();
    for (name, failure) in failures {
        // With a connection elsewhere, or a hundred silent remotes would be an outage.
        let mut mesh = Script { live: 1, ..Script::new() };
        let mut count = 0;
        let pauses: Vec<Duration> = (0..100)
            .map(|n| {
                mesh.fail(n, *failure);
                count = mesh.failures(n);
                mesh.pause(n)
            })
            .collect();
        let (least, most) = (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
        let bounds = [
            (Duration::ZERO, Duration::ZERO, "no pause".to_owned()),
            (SECOND / 2, SECOND, "within 500ms..1s".to_owned()),
        ];
        let floors = [1, 5, 30, 60, 300, 900].map(|floor| {
            (
                SECOND * floor,
                SECOND * floor * 5 / 4,
                format!("within {:?}..{:?}", SECOND * floor, SECOND * floor * 5 / 4),
            )
        });
        let fits = |(from, to, _): &&(Duration, Duration, String)| *from <= least && most <= *to;
        let bounds: Vec<_> = bounds.into_iter().chain(floors).collect();
        let within = bounds.iter().find(fits).map_or_else(|| format!("{least:?}..{most:?}"), |(.., text)| text.clone());
        text += &format!("{name:20} {within}, {count} failures\n");
    }
    expected.assert_eq(&text);
}

/// A table, its clock and its dice. `known` is what the next calls say of the remote.
struct Script {
    table: RedialTable,
    now: Instant,
    rng: StdRng,
    known: bool,
    live: usize,
}

impl Script {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let rng = StdRng::seed_from_u64(7);
        Self { table: RedialTable::new(&limits), now: Instant::now(), rng, known: false, live: 0 }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn dial(&mut self, name: u8) -> Dial {
        self.table.may_dial(peer(name), self.known, self.now, &mut self.rng)
    }

    fn fail(&mut self, name: u8, failure: Failure) {
        self.table.on_failed(peer(name), self.known, failure, self.live, self.now, &mut self.rng);
    }

    fn connect(&mut self, name: u8, inbound: bool) {
        self.table.on_connected(&peer(name), inbound, self.now);
    }

    fn lose(&mut self, name: u8, end: Option<Failure>, lived: Duration) {
        let life = Life { end, lived, was_last: true };
        self.table.on_ended(peer(name), self.known, life, self.live, self.now, &mut self.rng);
    }

    fn pause(&self, name: u8) -> Duration {
        self.table.standstill(&peer(name), self.now).until.map_or(Duration::ZERO, |until| until - self.now)
    }

    fn failures(&self, name: u8) -> u32 {
        self.table.standstill(&peer(name), self.now).failures
    }
}

fn peer(name: u8) -> EndpointId {
    iroh::SecretKey::from_bytes(&[name.wrapping_add(1); 32]).public()
}
