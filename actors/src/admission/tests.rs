//! Scripts and storms at the door, on a clock of their own.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::*;

/// A door with its clock, its dice and the number of times its bell rang.
struct Scene {
    door: Door,
    now: Instant,
    rng: StdRng,
    rung: Arc<AtomicUsize>,
}

fn id(seed: u32) -> EndpointId {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    iroh::SecretKey::from_bytes(&bytes).public()
}

impl Scene {
    fn new(limits: Limits, caps: &[usize]) -> Self {
        let name =
            |index: usize| if index + 1 == caps.len() { listeners::RELAYS.to_owned() } else { index.to_string() };
        let listener = |(index, cap): (usize, &usize)| Listener { name: name(index), connections_max: *cap };
        let listeners = caps.iter().enumerate().map(listener).collect();
        let rung = Arc::new(AtomicUsize::new(0));
        let bell = rung.clone();
        let now = Instant::now();
        let ring: Bell = Arc::new(move || _ = bell.fetch_add(1, Ordering::Relaxed));
        Self { door: Door::new(&limits, listeners, 1, now, ring), now, rng: StdRng::seed_from_u64(5), rung }
    }

    fn attempt(listener: usize, source: &str, is_validated: bool) -> Attempt {
        let addr: SocketAddr = source.parse().expect("an address");
        Attempt {
            listener: ListenerId(listener),
            origin: Origin::Ip(addr.ip()),
            addr: Some(addr),
            is_validated,
            hearsay: Standing::Unknown,
        }
    }

    fn knock(&mut self, listener: usize, source: &str, is_validated: bool) -> Decision {
        self.door.on_attempt(&Self::attempt(listener, source, is_validated), self.now, &mut self.rng)
    }

    /// A handshake that finishes at once.
    fn connect(&mut self, source: &str, remote: u32, standing: Standing) -> (Permit, Verdict) {
        match self.knock(0, source, true) {
            Decision::Shake(mut permit) => {
                let verdict = self.door.on_identity(&mut permit, id(remote), standing, self.now);
                (permit, verdict)
            }
            other => panic!("{source} is not let in: {other:?}"),
        }
    }

    fn rung(&self) -> usize {
        self.rung.load(Ordering::Relaxed)
    }
}

fn roomy() -> Limits {
    Limits::default()
}

#[test]
fn a_listener_with_one_slot_serves_the_second_when_the_first_leaves() {
    let mut scene = Scene::new(roomy(), &[1, 48]);
    let (first, verdict) = scene.connect("127.0.0.1:1", 1, Standing::Unknown);
    assert_eq!(verdict, Verdict::Seated);
    let (mut second, verdict) = scene.connect("127.0.0.1:2", 2, Standing::Unknown);
    assert_eq!(verdict, Verdict::Wait(Shortage::Listener));
    assert_eq!(scene.rung(), 0);
    drop(first);
    assert_eq!(scene.rung(), 1);
    assert_eq!(scene.door.on_identity(&mut second, id(2), Standing::Unknown, scene.now), Verdict::Seated);
    assert_eq!(scene.door.listener_uses()[0].resumed, 1);
}

#[test]
fn a_burst_of_disconnects_rings_once_and_an_idle_gap_changes_nothing() {
    let mut scene = Scene::new(roomy(), &[2, 48]);
    let permits: Vec<_> = (0..2).map(|n| scene.connect("127.0.0.1:1", n, Standing::Unknown).0).collect();
    drop(permits);
    assert_eq!((scene.rung(), scene.door.listener_uses()[0].resumed), (1, 1), "the second release wakes nobody");
    scene.now += Duration::from_secs(3600);
    let (_again, verdict) = scene.connect("127.0.0.1:1", 9, Standing::Unknown);
    assert_eq!((verdict, scene.rung()), (Verdict::Seated, 1));
}

#[test]
fn a_full_listener_leaves_the_others_open() {
    let mut scene = Scene::new(roomy(), &[1, 5, 48]);
    let (_held, _) = scene.connect("127.0.0.1:1", 1, Standing::Unknown);
    assert!(matches!(scene.knock(0, "127.0.0.1:2", false), Decision::Retry), "not even a handshake without proof");
    assert!(matches!(scene.knock(1, "127.0.0.1:2", false), Decision::Shake(_)));
}

#[test]
fn a_prefix_is_full_for_its_own_but_a_forger_cannot_fill_it() {
    let mut scene = Scene::new(Limits { retry_above: 16, ..roomy() }, &[96, 48]);
    let forged: Vec<_> = (0..12).map(|_| scene.knock(0, "192.0.2.1:1", false)).collect();
    assert!(forged.iter().all(|decision| matches!(decision, Decision::Shake(_))));
    let mut held = Vec::new();
    for remote in 0..8 {
        let (permit, verdict) = scene.connect("192.0.2.1:1", remote, Standing::Unknown);
        assert_eq!(verdict, Verdict::Seated);
        held.push(permit);
    }
    let (ninth, verdict) = scene.connect("192.0.2.1:1", 9, Standing::Unknown);
    assert_eq!(verdict, Verdict::Away(Shortage::Prefix.close(), Reason::RefusedAtPrefixCap));
    drop(ninth);
    let (_known, verdict) = scene.connect("192.0.2.1:1", 10, Standing::Known);
    assert_eq!(verdict, Verdict::Seated, "who shares an address with strangers is not one of them");
    assert!(matches!(scene.knock(0, "192.0.2.2:1", true), Decision::Shake(_)), "its neighbour is not charged");
}

/// Behind a relay ids cost nothing to make: one relay counts as one prefix, all of them together as one listener.
#[test]
fn a_relay_is_a_listener_and_gets_a_quarter_of_what_strangers_may_have() {
    let limits = Limits { relay_connections_max: 3, known_reserve: 0, ..roomy().with_connections(8) };
    let mut scene = Scene::new(Limits { inbound_max: 8, ..limits }, &[8, 3]);
    let through = |relay: &str, hearsay| Attempt {
        listener: ListenerId(1),
        origin: Origin::Relay(relay.parse().expect("a relay's address")),
        addr: None,
        is_validated: true,
        hearsay,
    };
    let mut knock = |relay, remote, standing| {
        let attempt = through(relay, Standing::Unknown);
        match scene.door.on_attempt(&attempt, scene.now, &mut scene.rng) {
            Decision::Shake(mut permit) => {
                let verdict = scene.door.on_identity(&mut permit, id(remote), standing, scene.now);
                (permit, verdict)
            }
            other => panic!("not let in: {other:?}"),
        }
    };
    let held: Vec<_> = (0..2).map(|remote| knock("https://one.example", remote, Standing::Unknown)).collect();
    assert!(held.iter().all(|(_, verdict)| *verdict == Verdict::Seated));
    let (_third, verdict) = knock("https://one.example", 3, Standing::Unknown);
    assert_eq!(verdict, Verdict::Away(Shortage::Prefix.close(), Reason::RefusedAtPrefixCap));
    let (_other, verdict) = knock("https://two.example", 4, Standing::Unknown);
    assert_eq!(verdict, Verdict::Seated);
    let (_known, verdict) = knock("https://two.example", 5, Standing::Known);
    assert_eq!(verdict, Verdict::Wait(Shortage::Listener), "all relays together are full");
    let denied = scene.door.on_attempt(&through("https://two.example", Standing::Denied), scene.now, &mut scene.rng);
    assert!(matches!(denied, Decision::Ignore(Reason::Denied)), "the relay vouches for the id: {denied:?}");
    assert_eq!(scene.door.listener_uses()[1].in_use, 3);
}

#[test]
fn whoever_waits_without_a_handshake_is_looked_at_as_soon_as_there_is_a_place_for_that() {
    let mut scene = Scene::new(Limits { speculative_max: 2, ..roomy() }, &[1, 48]);
    let (_member, _) = scene.connect("127.0.0.1:1", 1, Standing::Unknown);
    let (lobby, _) = scene.connect("127.0.0.1:2", 2, Standing::Unknown);
    let Decision::Wait(knock, Shortage::Listener) = scene.knock(0, "127.0.0.1:3", true) else { panic!("it waits") };
    assert!(scene.door.admit_waiting(knock, scene.now).is_none());
    drop(lobby);
    let mut permit = scene.door.admit_waiting(knock, scene.now).expect("a place to shake hands");
    let verdict = scene.door.on_identity(&mut permit, id(3), Standing::Known, scene.now);
    assert_eq!(verdict, Verdict::Wait(Shortage::Listener), "and then somebody can make room for it");
}

#[test]
fn known_remotes_have_slots_that_unknown_ones_cannot_take() {
    let limits = Limits { known_reserve: 1, ..roomy().with_connections(4) };
    let mut scene = Scene::new(limits, &[3, 1]);
    let (_a, first) = scene.connect("127.0.0.1:1", 1, Standing::Unknown);
    let (_b, second) = scene.connect("127.0.0.1:2", 2, Standing::Unknown);
    assert_eq!((first, second), (Verdict::Seated, Verdict::Seated));
    let (mut unknown, verdict) = scene.connect("127.0.0.1:3", 3, Standing::Unknown);
    assert_eq!(verdict, Verdict::Wait(Shortage::Inbound));
    let (_known, verdict) = scene.connect("127.0.0.1:4", 4, Standing::Known);
    assert_eq!(verdict, Verdict::Seated);
    assert_eq!(
        scene.door.on_identity(&mut unknown, id(3), Standing::Unknown, scene.now),
        Verdict::Wait(Shortage::Inbound)
    );
}

#[test]
fn our_own_dials_leave_the_reserve_to_known_remotes() {
    let mut scene = Scene::new(Limits { known_reserve: 1, ..roomy().with_connections(4) }, &[3, 1]);
    let dial = |standing| scene.door.admit_dial(standing, scene.now);
    let held: Vec<_> = (0..3).map(|_| dial(Standing::Unknown).expect("a slot that is not reserved")).collect();
    assert_eq!(dial(Standing::Unknown).map(drop).unwrap_err(), Shortage::Global);
    let known = dial(Standing::Known).expect("the reserved one");
    assert_eq!(dial(Standing::Known).map(drop).unwrap_err(), Shortage::Global);
    drop((held, known));
    assert!(matches!(scene.knock(0, "127.0.0.1:1", true), Decision::Shake(_)));
}

#[test]
fn a_denied_remote_and_one_beyond_its_rate_are_told_so() {
    let mut scene = Scene::new(Limits { exempt_loopback: false, ..roomy() }, &[96, 48]);
    let (_permit, verdict) = scene.connect("127.0.0.1:1", 1, Standing::Denied);
    assert_eq!(verdict, Verdict::Away(Close::new(CloseCode::Denied), Reason::Denied));
    let spent = (0..15).filter(|_| matches!(scene.knock(0, "127.0.0.1:1", true), Decision::Shake(_))).count();
    assert_eq!(spent, 15);
    assert!(matches!(scene.knock(0, "127.0.0.1:1", true), Decision::Refuse(Reason::RefusedAtRate)));
    assert!(matches!(scene.knock(0, "127.0.0.1:1", false), Decision::Retry), "the owner of the address may be another");
}

#[test]
fn what_failed_frees_its_slot_at_once_and_its_place_among_the_handshakes_when_its_remains_are_gone() {
    let limits =
        Limits { handshakes_max: 1, handshakes_per_listener_max: 1, retry_above: 1, speculative_max: 0, ..roomy() };
    let mut scene = Scene::new(limits, &[1, 48]);
    let Decision::Shake(mut failed) = scene.knock(0, "127.0.0.1:1", true) else { panic!("the only place is free") };
    failed.linger();
    assert_eq!(scene.rung(), 1, "whoever waits for the slot may have it");
    assert_eq!(scene.door.occupancy().in_use, 0);
    let next = scene.knock(0, "127.0.0.1:2", true);
    assert!(matches!(next, Decision::Wait(_, Shortage::HalfOpen)), "{next:?}");
    drop(failed);
    assert!(matches!(scene.knock(0, "127.0.0.1:2", true), Decision::Shake(_)));
}

#[test]
fn attempts_without_a_slot_leave_no_more_behind_than_those_with_one() {
    let limits = Limits { handshakes_max: 3, handshakes_per_listener_max: 3, speculative_max: 4, ..roomy() };
    let mut scene = Scene::new(limits, &[96, 48]);
    let mut knock = |_| match scene.knock(0, "127.0.0.1:1", true) {
        Decision::Shake(mut permit) => {
            permit.linger();
            Some(permit)
        }
        Decision::Wait(_, Shortage::HalfOpen) => None,
        other => panic!("neither let in nor waiting: {other:?}"),
    };
    let failed: Vec<_> = (0..30).filter_map(&mut knock).collect();
    assert_eq!(failed.len(), 6, "three that had a slot, and as many that had none");
    let page = scene.door.uses();
    assert!(page.iter().all(|one| one.high_water.is_none_or(|mark| mark <= one.max)), "{page:?}");
    drop(failed);
    assert!(matches!(scene.knock(0, "127.0.0.1:1", true), Decision::Shake(_)));
}

#[test]
fn under_pressure_only_known_remotes_come_in() {
    let mut scene = Scene::new(roomy(), &[96, 48]);
    scene.door.set_pressure(Pressure::Tight);
    assert!(matches!(scene.knock(0, "127.0.0.1:1", false), Decision::Retry));
    let (_unknown, verdict) = scene.connect("127.0.0.1:1", 1, Standing::Unknown);
    assert_eq!(verdict, Verdict::Away(Shortage::Pressure.close(), Reason::RefusedUnderPressure));
    let (_known, verdict) = scene.connect("127.0.0.1:2", 2, Standing::Known);
    assert_eq!(verdict, Verdict::Seated);
    scene.door.set_pressure(Pressure::Calm);
    assert_eq!(scene.rung(), 1, "whoever waited is served now");
}

#[test]
fn lowering_a_cap_throws_nobody_out_and_admits_nobody_new() {
    let mut scene = Scene::new(roomy(), &[96, 48]);
    let held: Vec<_> = (0..10).map(|n| scene.connect("127.0.0.1:1", n, Standing::Unknown).0).collect();
    scene
        .door
        .change_limits(&[("inbound_max".into(), 5), ("known_reserve".into(), 0), ("relay_connections_max".into(), 5)])
        .unwrap();
    assert_eq!(scene.door.occupancy().in_use, 10);
    assert_eq!(scene.door.excess().len(), 5);
    let (_more, verdict) = scene.connect("127.0.0.1:1", 11, Standing::Unknown);
    assert!(matches!(verdict, Verdict::Wait(_)), "{verdict:?}");
    drop(held);
    let error = scene.door.change_limits(&[("inbound_max".into(), 5), ("known_reserve".into(), 5)]).unwrap_err();
    assert!(error.to_string().contains("known_reserve of 5 leaves no slot"), "{error}");
    let inbound = scene.door.uses().into_iter().find(|one| one.name == "inbound_max").expect("every cap has its line");
    assert_eq!(inbound.max, 5, "all changes or none");
}

#[derive(Debug, Clone)]
enum Step {
    Knock { listener: usize, source: u8, is_validated: bool },
    Identify { which: usize, standing: u8 },
    Dial,
    Establish(usize),
    Finish(usize),
    Cap { name: &'static str, value: u64 },
    Press(u8),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let caps =
        prop::sample::select(vec!["connections_max", "inbound_max", "known_reserve", "handshakes_max", "listener:0"]);
    let step = prop_oneof![
        6 => (0..2usize, 0..6u8, any::<bool>())
            .prop_map(|(listener, source, is_validated)| Step::Knock { listener, source, is_validated }),
        5 => (any::<usize>(), 0..3u8).prop_map(|(which, standing)| Step::Identify { which, standing }),
        2 => Just(Step::Dial),
        2 => any::<usize>().prop_map(Step::Establish),
        4 => any::<usize>().prop_map(Step::Finish),
        1 => (caps, 0..12u64).prop_map(|(name, value)| Step::Cap { name, value }),
        1 => (0..3u8).prop_map(Step::Press),
        1 => (0..30u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    /// Whatever comes, no admission exceeds a budget, and every permit that is dropped gives all of it back.
    #[test]
    fn budgets_are_never_exceeded_and_everything_comes_back(steps in steps()) {
        let limits = Limits { handshakes_max: 4, handshakes_per_listener_max: 3, retry_above: 2, speculative_max: 2, dials_max: 3, exempt_loopback: false, ..roomy().with_connections(8) };
        let mut scene = Scene::new(limits, &[3, 4, 2]);
        let mut held: Vec<Permit> = Vec::new();
        for step in steps {
            let before = scene.door.lock().seats.tally().clone();
            let limits = scene.door.lock().seats.limits().clone();
            match step {
                Step::Knock { listener, source, is_validated } => {
                    let source = format!("127.0.0.{source}:1");
                    if let Decision::Shake(permit) = scene.knock(listener, &source, is_validated) {
                        let now = scene.door.lock().seats.tally().clone();
                        prop_assert!(now.handshakes <= limits.handshakes_max.max(before.handshakes));
                        prop_assert!(now.total <= limits.connections_max.max(before.total));
                        prop_assert!(now.inbound <= limits.inbound_max.max(before.inbound));
                        prop_assert!(now.speculative <= limits.speculative_max.max(before.speculative));
                        held.push(permit);
                    }
                }
                Step::Identify { which, standing } if !held.is_empty() => {
                    let standing = [Standing::Known, Standing::Unknown, Standing::Denied][standing as usize];
                    let index = which % held.len();
                    let verdict = scene.door.on_identity(&mut held[index], id(1), standing, scene.now);
                    if let Verdict::Away(..) = verdict {
                        held.swap_remove(index);
                    }
                    let now = scene.door.lock().seats.tally().clone();
                    prop_assert!(now.total <= limits.connections_max.max(before.total));
                }
                Step::Dial => held.extend(scene.door.admit_dial(Standing::Unknown, scene.now).ok()),
                Step::Establish(which) if !held.is_empty() => {
                    let index = which % held.len();
                    let is_dial = scene.door.lock().seats.rows().any(|(seat, row)| seat == held[index].seat && row.stage == Stage::Dial);
                    if is_dial {
                        held[index].establish(id(2), Standing::Unknown);
                    }
                }
                Step::Finish(which) if !held.is_empty() => {
                    let index = which % held.len();
                    held.swap_remove(index);
                }
                Step::Identify { .. } | Step::Establish(_) | Step::Finish(_) => {}
                Step::Cap { name, value } => {
                    // Most of these contradict others, and then nothing may have changed.
                    if scene.door.change_limits(&[(name.into(), value)]).is_err() {
                        prop_assert_eq!(limits, scene.door.lock().seats.limits().clone());
                    }
                }
                Step::Press(level) => scene.door.set_pressure([Pressure::Calm, Pressure::Tight, Pressure::Critical][level as usize]),
                Step::Wait(seconds) => scene.now += Duration::from_secs(seconds),
            }
            let books = scene.door.lock();
            prop_assert_eq!(books.seats.rows().count(), held.len(), "one row for each permit");
            let (tally, high) = (books.seats.tally(), books.seats.high_water());
            prop_assert!(high.live >= tally.total + tally.speculative && high.inbound >= tally.inbound);
        }
        held.clear();
        let empty = scene.door.lock().seats.tally().clone();
        prop_assert_eq!((empty.total, empty.speculative, empty.inbound, empty.unknown), (0, 0, 0, 0));
    }
}
