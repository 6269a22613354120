//! Scripts and random sequences for the approval of joins: nothing of whom nobody approved of reaches the protocol.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// What happens to a topic. Remotes are named by their seeds.
#[derive(Debug, Clone)]
enum Step {
    Join(u8),
    Neighbor(u8),
    Payload(u8),
    /// A ShuffleReply that introduces a remote.
    Introduce(u8, u8),
    /// The end of a walk that another remote began.
    Shuffle(u8, u8),
    Goodbye(u8),
    StreamEnds(u8),
    Lost(u8),
    Retired(u8),
    /// The embedder answers the oldest open question about this remote.
    Yes(u8),
    No(u8),
    /// The application names a remote.
    Name(u8),
    Publish,
    Millis(u64),
}

use Step::*;

/// A topic whose embedder decides, and everything that is open between the two.
struct Script {
    state: State,
    now: Instant,
    published: u8,
    open: BTreeMap<u8, u64>,
    asked: u64,
    settled: u64,
}

impl Script {
    fn new(approvals_max: usize) -> Self {
        let now = Instant::now();
        let limits = Limits { approvals_max, ..Limits::default() };
        let mut state = State::new(key(1), limits, StdRng::seed_from_u64(1), now);
        state.require_approval();
        Self { state, now, published: 0, open: BTreeMap::new(), asked: 0, settled: 0 }
    }

    fn play(&mut self, step: &Step) -> Vec<Effect> {
        let now = self.now;
        let effects = match *step {
            Join(seed) => self.hear(seed, &wire::join()),
            Neighbor(seed) => self.hear(seed, &wire::neighbor_request()),
            Payload(seed) => {
                self.published = self.published.wrapping_add(1);
                self.hear(seed, &payload(&[self.published]))
            }
            Introduce(seed, other) => {
                let body = [&[0, 3, 1][..], key(other).as_bytes(), &[0]].concat();
                self.hear(seed, &message(&body))
            }
            Shuffle(seed, origin) => {
                let body = [&[0, 2][..], key(origin).as_bytes(), &[0, 0]].concat();
                self.hear(seed, &message(&body))
            }
            Goodbye(seed) => self.hear(seed, &wire::disconnect(true)),
            StreamEnds(seed) => self.state.on_stream_ended(key(seed), 1, now),
            Lost(seed) => self.state.on_gone(key(seed), Gone::Lost, now),
            Retired(seed) => self.state.on_gone(key(seed), Gone::Retired, now),
            Yes(seed) | No(seed) => match self.open.remove(&seed) {
                Some(number) => {
                    self.settled += 1;
                    self.state.on_verdict(key(seed), number, matches!(step, Yes(_)), now)
                }
                None => self.state.on_verdict(key(seed), 0, matches!(step, Yes(_)), now),
            },
            Name(seed) => self.state.on_join(vec![key(seed)], now),
            Publish => {
                self.published = self.published.wrapping_add(1);
                let content = Bytes::from(vec![0, self.published]);
                self.state.on_publish(content, now).expect("fits").1
            }
            Millis(millis) => pass_time(&mut self.state, &mut self.now, Duration::from_millis(millis)),
        };
        effects.iter().for_each(|effect| self.note(effect));
        effects
    }

    fn hear(&mut self, seed: u8, message: &ProtoMessage) -> Vec<Effect> {
        self.state.on_message(key(seed), 1, inbound(message, key(1)), self.now)
    }

    /// What the loop does: one question per remote, which ends with an answer or is taken back.
    fn note(&mut self, effect: &Effect) {
        match effect {
            Effect::Ask { peer, number } => {
                self.asked += 1;
                let earlier = self.open.insert(seed_of(peer), *number);
                assert_eq!(earlier, None, "one question at a time about one remote");
            }
            Effect::Unask(peer) | Effect::Farewell(peer) | Effect::Release(peer) | Effect::Decline(peer) => {
                self.settled += u64::from(self.open.remove(&seed_of(peer)).is_some());
            }
            Effect::Send { .. } | Effect::Hasten(_) | Effect::Emit(_) | Effect::Count(..) => {}
        }
    }
}

fn seed_of(peer: &EndpointId) -> u8 {
    (2..7).find(|seed| key(*seed) == *peer).expect("a remote of this script")
}

fn check(steps: &[Step], expected: Expect) {
    let mut script = Script::new(2);
    let mut log = String::new();
    for step in steps {
        let effects = script.play(step);
        let effects: Vec<_> = effects.iter().filter_map(describe).collect();
        let line = format!("{step:?}: {}", effects.join(", "));
        log += line.trim_end();
        log.push('\n');
    }
    expected.assert_eq(&log);
}

/// One effect in a word; what the protocol says to others is left to its own tests.
fn describe(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Send { to, message } if message.is_disconnect() => format!("disconnect {}", seed_of(to)),
        Effect::Send { to, message } if wire::is_neighbor(message) => format!("neighbor {}", seed_of(to)),
        Effect::Send { to, message } if *message == wire::join() => format!("join {}", seed_of(to)),
        Effect::Send { .. } => return None,
        Effect::Ask { peer, number } => format!("ask {} ({number})", seed_of(peer)),
        Effect::Unask(peer) => format!("unask {}", seed_of(peer)),
        Effect::Farewell(peer) => format!("farewell {}", seed_of(peer)),
        Effect::Decline(peer) => format!("decline {}", seed_of(peer)),
        Effect::Release(peer) => format!("release {}", seed_of(peer)),
        Effect::Hasten(peer) => format!("hasten {}", seed_of(peer)),
        Effect::Emit(Event::NeighborUp(peer)) => format!("up {}", seed_of(peer)),
        Effect::Emit(Event::NeighborDown { peer, .. }) => format!("down {}", seed_of(peer)),
        Effect::Emit(event) => format!("{event:?}"),
        Effect::Count(reason, count) => format!("{count} {}", reason.name()),
    })
}

#[test]
fn a_join_waits_for_the_word_and_then_counts_as_just_arrived() {
    check(
        &[Join(2), Payload(2), Millis(9_000), Join(2), Yes(2), Join(3)],
        expect![[r#"
            Join(2): ask 2 (1)
            Payload(2): 1 join-not-approved
            Millis(9000):
            Join(2):
            Yes(2): up 2, neighbor 2
            Join(3): ask 3 (2)
        "#]],
    );
}

#[test]
fn whoever_is_refused_is_parted_from_and_asked_about_again_later() {
    check(
        &[Join(2), No(2), Join(2), Payload(2), Millis(5_000), Join(2), Yes(2)],
        expect![[r#"
        Join(2): ask 2 (1)
        No(2): 1 join-not-approved, decline 2
        Join(2): 1 join-not-approved, decline 2
        Payload(2): 1 join-not-approved
        Millis(5000): release 2
        Join(2): ask 2 (2)
        Yes(2): up 2, neighbor 2
    "#]],
    );
}

#[test]
fn a_request_is_refused_in_the_words_of_the_protocol() {
    check(
        &[Neighbor(2), No(2), Neighbor(2)],
        expect![[r#"
        Neighbor(2): ask 2 (1)
        No(2): 1 join-not-approved, disconnect 2, decline 2
        Neighbor(2): 1 join-not-approved, disconnect 2, decline 2
    "#]],
    );
}

#[test]
fn no_word_is_a_no_and_a_word_too_late_is_none() {
    check(
        &[Join(2), Millis(11_000), Yes(2)],
        expect![[r#"
            Join(2): ask 2 (1)
            Millis(11000): 1 join-not-approved, decline 2
            Yes(2):
        "#]],
    );
}

#[test]
fn more_than_may_wait_are_refused_and_may_come_again() {
    check(
        &[Join(2), Join(3), Join(4), No(2), Join(4)],
        expect![[r#"
        Join(2): ask 2 (1)
        Join(3): ask 3 (2)
        Join(4): 1 join-not-approved, decline 4
        No(2): 1 join-not-approved, decline 2
        Join(4): ask 4 (3)
    "#]],
    );
}

#[test]
fn a_remote_that_goes_takes_its_question_along() {
    check(
        &[Join(2), Goodbye(2), Yes(2), Join(3), Lost(3), Yes(3), Join(4), StreamEnds(4), Millis(3_000)],
        expect![[r#"
            Join(2): ask 2 (1)
            Goodbye(2): release 2
            Yes(2):
            Join(3): ask 3 (2)
            Lost(3): release 3
            Yes(3):
            Join(4): ask 4 (3)
            StreamEnds(4):
            Millis(3000): release 4
        "#]],
    );
}

#[test]
fn a_yes_holds_a_minute_beyond_the_contact() {
    check(
        &[Join(2), Yes(2), Lost(2), Join(2), Lost(2), Millis(61_000), Join(2)],
        expect![[r#"
        Join(2): ask 2 (1)
        Yes(2): up 2, neighbor 2
        Lost(2): down 2, release 2
        Join(2): up 2, neighbor 2
        Lost(2): down 2, release 2
        Millis(61000): join 2, join 2, join 2, join 2, farewell 2, join 2, farewell 2, release 2, join 2, farewell 2, release 2, join 2, farewell 2, release 2
        Join(2): ask 2 (2)
    "#]],
    );
}

#[test]
fn what_the_application_names_needs_no_word() {
    check(
        &[Name(2), Neighbor(2), Join(3), Name(3), Yes(3), Join(4), No(4), Name(4), Join(4)],
        expect![[r#"
            Name(2): join 2
            Neighbor(2): up 2, neighbor 2
            Join(3): ask 3 (1)
            Name(3): unask 3, up 3, neighbor 3, join 3
            Yes(3):
            Join(4): ask 4 (2)
            No(4): 1 join-not-approved, decline 4
            Name(4): join 4
            Join(4): up 4, neighbor 4
        "#]],
    );
}

#[test]
fn a_remote_that_only_believes_to_be_a_neighbour_is_told_otherwise() {
    let second = || [Payload(2), Millis(4_000)];
    let steps: Vec<_> = std::iter::repeat_with(second).take(8).flatten().collect();
    check(
        &steps,
        expect![[r#"
        Payload(2): 1 join-not-approved
        Millis(4000): farewell 2
        Payload(2): 1 join-not-approved
        Millis(4000): farewell 2
        Payload(2): 1 join-not-approved
        Millis(4000): farewell 2
        Payload(2): 1 join-not-approved
        Millis(4000): farewell 2
        Payload(2): 1 join-not-approved
        Millis(4000): disconnect 2, release 2
        Payload(2): 1 join-not-approved
        Millis(4000): disconnect 2, release 2
        Payload(2): 1 join-not-approved
        Millis(4000): disconnect 2, release 2
        Payload(2): 1 join-not-approved
        Millis(4000): disconnect 2, release 2
    "#]],
    );
}

#[test]
fn one_that_is_denied_and_cannot_be_dialed_is_not_asked_in_a_loop() {
    let mut now = Instant::now();
    let mut state = state(1, now);
    state.on_join(vec![key(2)], now);
    state.on_message(key(2), 1, inbound(&wire::neighbor_request(), key(1)), now);
    let effects = state.on_gone(key(2), Gone::Lost, now);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Emit(Event::NeighborDown { .. }))), "{effects:?}");
    let (mut attempts, end) = (0, now + Duration::from_secs(60));
    while now < end {
        now = state.next_deadline();
        for effect in state.on_deadlines(now) {
            // The dial is refused at once, as the lists say.
            if let Effect::Send { to, .. } = effect {
                attempts += 1;
                assert!(attempts < 20, "the pauses grow");
                state.on_gone(to, Gone::NotDialed, now);
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let remote = 2..7u8;
    let step = prop_oneof![
        4 => remote.clone().prop_map(Join),
        3 => remote.clone().prop_map(Neighbor),
        3 => remote.clone().prop_map(Payload),
        2 => (remote.clone(), remote.clone()).prop_map(|(from, other)| Introduce(from, other)),
        2 => (remote.clone(), remote.clone()).prop_map(|(from, origin)| Shuffle(from, origin)),
        1 => remote.clone().prop_map(Goodbye),
        1 => remote.clone().prop_map(StreamEnds),
        1 => remote.clone().prop_map(Lost),
        1 => remote.clone().prop_map(Retired),
        3 => remote.clone().prop_map(Yes),
        2 => remote.prop_map(No),
        2 => Just(Publish),
        3 => (1..8000u64).prop_map(Millis),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Remotes 2 and 3 are never approved of, whatever they say and whenever: the protocol's sets do not know them but as
    /// ids that others introduced, the application hears nothing of them, and they learn of nobody.
    #[test]
    fn nothing_of_an_unapproved_remote_reaches_the_protocol(steps in steps()) {
        let mut script = Script::new(2);
        let strangers = BTreeSet::from([2, 3]);
        for step in &steps {
            let is_heard = match *step {
                Yes(seed) if strangers.contains(&seed) => No(seed),
                ref other => other.clone(),
            };
            for effect in script.play(&is_heard) {
                match &effect {
                    Effect::Emit(Event::NeighborUp(peer)) => prop_assert!(!strangers.contains(&seed_of(peer))),
                    Effect::Emit(Event::Received(heard)) => prop_assert!(!strangers.contains(&seed_of(&heard.delivered_from))),
                    Effect::Send { to, message } if strangers.contains(&seed_of(to)) => {
                        let is_about_us = *message == wire::join() || wire::is_neighbor(message) || message.is_disconnect();
                        prop_assert!(is_about_us, "{:?}", message);
                    }
                    _ => {}
                }
            }
            let [pending, approved, _] = script.state.approvals.sizes();
            prop_assert!(pending <= 2, "parked messages are bounded");
            prop_assert_eq!(pending, script.open.len(), "a question for each");
            prop_assert!(pending + approved <= script.state.contacts(), "only contacts are asked about");
            prop_assert_eq!(script.asked, script.settled + script.open.len() as u64, "answered or taken back once");
            let text = script.state.describe();
            for seed in &strangers {
                for set in ["active_view", "eager_push_peers", "lazy_push_peers"] {
                    prop_assert!(!members(&text, set).contains(&format!("{:?}", key(*seed))), "{} in {}", seed, set);
                }
            }
        }
        // Left alone, it forgets all of them.
        for seed in 2..7 {
            script.play(&Lost(seed));
        }
        prop_assert!(script.open.is_empty() && script.state.approvals.sizes()[..2] == [0, 0]);
        script.play(&Millis(120_000));
        prop_assert!(script.state.approvals.sizes()[2] == 0);
    }
}

/// The text of one private set of the protocol's state.
fn members<'a>(text: &'a str, set: &str) -> &'a str {
    let start = text.find(&format!("{set}: ")).unwrap_or_else(|| panic!("no set {set} in {text}"));
    let inside = &text[start..];
    &inside[..inside.find('}').expect("a set ends")]
}
