//! What many threads can do to one gate, what is remembered of whom, and what is shown.

use std::{
    io,
    sync::{Barrier, atomic::AtomicUsize},
    thread,
};

use expect_test::expect;
use rand::{SeedableRng, rngs::StdRng};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const THREADS: usize = 8;

#[test]
fn concurrent_failures_degrade_once_and_only_once() {
    let (gate, now) = gate();
    together(|seed| (0..100).for_each(|_| gate.fail(now, &mut rng(seed))));
    let view = gate.lock().view();
    assert_eq!((view.state, view.failures), (BackendState::Degraded, 3), "what came after the third says nothing new");
    assert!(gate.is_closed() && !gate.is_probe_due(now + SECOND * 23) && gate.is_probe_due(now + SECOND * 37));
}

#[test]
fn concurrent_success_and_failure_leave_one_truth() {
    let (gate, now) = gate();
    together(|seed| {
        let mut rng = rng(seed);
        for round in 0..200 {
            match (seed + round) % 3 {
                0 => gate.succeed(now),
                _ => gate.fail(now, &mut rng),
            }
            let view = gate.line.snapshot.census(&Backend::AddressLookup, now);
            assert!(view.failures <= 3 && (view.state == BackendState::Healthy) == (view.failures < 3), "{view:?}");
        }
    });
    gate.fail(now, &mut rng(0));
    gate.succeed(now);
    let view = gate.lock().view();
    assert_eq!((view.state, view.failures, gate.is_closed()), (BackendState::Healthy, 0, false));
}

#[test]
fn of_many_that_ask_at_once_one_makes_the_probe() {
    let (gate, start) = gate();
    (0..3).for_each(|_| gate.fail(start, &mut rng(7)));
    for _ in 0..20 {
        let now = gate.lock().view().probe_at.expect("it is degraded");
        let (probes, waiting) = (AtomicUsize::new(0), Barrier::new(THREADS));
        together(|seed| {
            let pass = gate.ask(1, now);
            probes.fetch_add(usize::from(pass.is_ok()), Ordering::Relaxed);
            // Nobody is through with the probe before everybody has asked.
            waiting.wait();
            if let Ok(pass) = pass {
                assert!(pass.is_probe());
                pass.fail(now, &mut rng(seed));
            }
        });
        assert_eq!(probes.into_inner(), 1);
    }
    assert_eq!(gate.lock().view().saved, 20 * (THREADS as u64 - 1));
}

#[test]
fn a_pass_that_is_dropped_lets_the_next_one_probe() {
    let (gate, start) = gate();
    (0..3).for_each(|_| gate.fail(start, &mut rng(7)));
    let due = start + SECOND * 36;
    let dropped = gate.ask(1, due).expect("the probe is due");
    assert!(gate.ask(1, due).is_err());
    drop(dropped);
    gate.ask(1, due).expect("it is due again").succeed(due);
    assert!(!gate.is_closed());
}

#[test]
fn a_backend_is_remembered_while_it_is_held_or_has_something_to_tell() {
    let start = Instant::now();
    let backends = Backends::new(&Limits::default(), start);
    let names = || backends.census(start).into_iter().map(|one| one.backend.to_string()).collect::<Vec<_>>();
    let held = backends.gate(&named("held"), start);
    (0..3).for_each(|_| backends.gate(&named("down"), start).fail(start, &mut rng(7)));
    backends.gate(&named("failed once"), start).fail(start, &mut rng(7));
    drop(backends.gate(&named("fine"), start));
    backends.sweep(start + SECOND);
    assert_eq!(names(), ["down", "failed once", "held"]);
    backends.sweep(start + SECOND * 120);
    assert_eq!(names(), ["down", "held"], "a failure is forgotten with its window");
    backends.sweep(start + SECOND * 157);
    assert_eq!(names(), ["held"], "nobody asked for two minutes after the probe was due");
    drop(held);
    backends.sweep(start + SECOND * 157);
    assert_eq!(names(), [""; 0]);
}

#[test]
fn what_was_saved_is_told_by_kind_and_outlives_the_backend() {
    let start = Instant::now();
    let backends = Backends::new(&Limits::default(), start);
    let saved = |kind| backends.saved().into_iter().find(|(of, _)| *of == kind).expect("every kind is told").1;
    for (at, name) in ["one", "two"].into_iter().enumerate() {
        let down = start + SECOND * 1000 * at as u32;
        let gate = backends.gate(&named(name), down);
        (0..3).for_each(|_| gate.fail(down, &mut rng(7)));
        assert!(gate.ask(4, down).is_err());
        drop(gate);
        assert_eq!(saved(BackendKind::Other), 4 * (at as u64 + 1));
        backends.sweep(down + SECOND * 200);
        assert!(backends.census(down).is_empty(), "it has lapsed and is forgotten");
    }
    assert_eq!((saved(BackendKind::Other), saved(BackendKind::Relay)), (8, 0));
    assert_eq!(BackendKind::ALL.map(|kind| kind as usize), [0, 1, 2, 3], "they are indices as well");
}

#[test]
fn beyond_the_bound_a_backend_is_used_as_if_it_were_healthy() {
    let start = Instant::now();
    let backends = Backends::new(&Limits::default(), start);
    let _held: Vec<_> = (0..BACKENDS_MAX).map(|n| backends.gate(&named(&n.to_string()), start)).collect();
    let one_more = backends.gate(&named("one more"), start);
    (0..9).for_each(|_| one_more.fail(start, &mut rng(7)));
    assert!(one_more.ask(1, start).is_ok_and(|pass| !pass.is_probe()));
    assert_eq!(backends.census(start).len(), BACKENDS_MAX);
}

#[test]
fn the_census_shows_what_the_breaker_knows() {
    let start = Instant::now();
    let backends = Backends::new(&Limits::default(), start);
    let gate = backends.gate(&named("otlp"), start);
    let shown = |now| backends.census(now).pop().expect("there is one");
    assert_eq!((shown(start + SECOND).since, shown(start).next_probe), (SECOND, None));
    let down = start + SECOND * 5;
    (0..3).for_each(|_| gate.fail(down, &mut rng(7)));
    assert!(gate.ask(4, down).is_err());
    let view = shown(down + SECOND * 10);
    assert_eq!((view.state.name(), view.failures, view.saved, view.since), ("degraded", 3, 4, SECOND * 10));
    let probe_at = down + SECOND * 10 + view.next_probe.expect("it is degraded");
    assert!((SECOND * 24..=SECOND * 37).contains(&probe_at.duration_since(down)));
    let pass = gate.ask(1, probe_at).expect("it is due to the millisecond shown");
    assert_eq!((shown(probe_at).state, shown(probe_at).next_probe), (BackendState::Probing, None));
    pass.succeed(probe_at);
    assert_eq!((shown(probe_at).state, shown(probe_at).failures, shown(probe_at).saved), (BackendState::Healthy, 0, 4));
}

/// Each of three backends goes through as many failures, probes and refusals as an outage brings: each says two things.
#[test]
fn every_backend_says_once_that_it_is_degraded_and_once_that_it_is_back() {
    let start = Instant::now();
    let backends = Backends::new(&Limits::default(), start);
    let relay: RelayUrl = "https://relay.example".parse().expect("a URL");
    let topic = TopicId::from_bytes([7; 32]);
    let mut rng = rng(7);
    let said = lines(|| {
        for (number, backend) in
            [Backend::Relay(relay), Backend::AddressLookup, Backend::Bootstrap(topic)].iter().enumerate()
        {
            let gate = backends.gate(backend, start);
            (0..9).for_each(|_| gate.fail(start, &mut rng));
            for _ in 0..=number {
                assert!((0..7).all(|_| gate.ask(3, start).is_err()));
                let due = gate.lock().view().probe_at.expect("it is degraded");
                gate.ask(1, due).expect("the probe is due").fail(due, &mut rng);
            }
            let end = gate.lock().view().probe_at.expect("it is degraded");
            (0..3).for_each(|_| gate.succeed(end));
            assert!(gate.ask(1, end).is_ok_and(|pass| !pass.is_probe()));
        }
    });
    expect![[r#"
        WARN perennial::state: backend degraded backend=relay:https://relay.example/ failures=3
        INFO perennial::state: backend recovered after 79.7s, 21 attempts saved backend=relay:https://relay.example/ after=79.733879131s saved=21
        WARN perennial::state: backend degraded backend=address-lookup failures=3
        INFO perennial::state: backend recovered after 195.8s, 42 attempts saved backend=address-lookup after=195.81198766s saved=42
        WARN perennial::state: backend degraded backend=bootstrap:0707070707070707070707070707070707070707070707070707070707070707 failures=3
        INFO perennial::state: backend recovered after 400.0s, 63 attempts saved backend=bootstrap:0707070707070707070707070707070707070707070707070707070707070707 after=399.970596329s saved=63
    "#]].assert_eq(&said);
}

#[test]
fn one_that_nobody_wants_any_more_says_so_once() {
    let (gate, start) = gate();
    let said = lines(|| {
        (0..3).for_each(|_| gate.fail(start, &mut rng(7)));
        assert!(gate.ask(1, start).is_err());
        (0..3).for_each(|_| gate.act(start + SECOND * 157, |_| ()));
    });
    expect![[r#"
        WARN perennial::state: backend degraded backend=backend failures=3
        INFO perennial::state: backend is not used any more; 1 attempts saved backend=backend after=157s saved=1
    "#]]
    .assert_eq(&said);
}

#[test]
fn a_network_that_has_changed_hastens_the_probe_of_every_degraded_backend() {
    let start = Instant::now();
    let backends = Backends::new(&Limits::default(), start);
    let [long, lately, fine] = ["long", "lately", "fine"].map(|name| backends.gate(&named(name), start));
    let mut rng = rng(7);
    (0..3).for_each(|_| long.fail(start, &mut rng));
    let changed = start + SECOND * 100;
    long.ask(1, changed).expect("the probe is due").fail(changed, &mut rng);
    let changed = start + SECOND * 140;
    (0..3).for_each(|_| lately.fail(changed, &mut rng));
    backends.hasten(changed, &mut rng);
    assert!(long.is_probe_due(changed + SECOND * 6), "a fifth of the first open time");
    assert!(!lately.is_probe_due(changed + SECOND * 23) && lately.is_probe_due(changed + SECOND * 36));
    assert!(!fine.is_closed() && fine.lock().view().probe_at.is_none());
}

/// What `act` logs on this thread, without the time.
fn lines(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no holder panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let page = Page::default();
    let writer = page.clone();
    let log = tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(move || writer.clone());
    tracing::subscriber::with_default(log.finish(), act);
    let bytes = page.0.lock().expect("no holder panics").clone();
    let text = String::from_utf8(bytes).expect("a log is text");
    text.lines().map(|line| format!("{}\n", line.trim())).collect()
}

fn gate() -> (Gate, Instant) {
    let now = Instant::now();
    (Gate::new("backend".into(), Settings::new(&Limits::default()), now, now), now)
}

fn named(name: &str) -> Backend {
    Backend::Other(name.into())
}

fn rng(seed: usize) -> StdRng {
    StdRng::seed_from_u64(seed as u64)
}

/// Runs `act` on all threads at once, each with a number of its own.
fn together(act: impl Fn(usize) + Sync) {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (start, act) = (&start, &act);
            scope.spawn(move || {
                start.wait();
                act(seed);
            });
        }
    });
}
