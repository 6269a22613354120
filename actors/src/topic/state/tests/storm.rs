//! Storms of joins, leaves, kills and messages over a mesh of states, on virtual time and a virtual network.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::wire::inspect::inspect;

/// A mesh of states: messages take a millisecond, streams end when they are released.
struct Net {
    now: Instant,
    nodes: Vec<Option<State>>,
    wires: VecDeque<(usize, usize, Option<ProtoMessage>)>,
    received: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Step {
    Join(usize, usize),
    Leave(usize),
    Kill(usize),
    Publish(usize),
    Wait(u64),
}

impl Net {
    fn new(size: usize) -> Self {
        let now = Instant::now();
        let nodes = (0..size).map(|at| Some(state(at as u8 + 1, now))).collect();
        Self { now, nodes, wires: VecDeque::new(), received: vec![0; size] }
    }

    fn apply(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.wires.push_back((at, self.index(to), Some(message))),
                Effect::Farewell(to) => {
                    self.wires.push_back((at, self.index(to), Some(wire::farewell())));
                    self.wires.push_back((at, self.index(to), None));
                }
                Effect::Ask { .. } | Effect::Unask(_) | Effect::Decline(_) => unreachable!("nobody decides here"),
                Effect::Release(to) => self.wires.push_back((at, self.index(to), None)),
                Effect::Emit(Event::Received(_)) => self.received[at] += 1,
                Effect::Hasten(_) | Effect::Emit(_) | Effect::Count(..) => {}
            }
        }
    }

    fn index(&self, id: EndpointId) -> usize {
        (0..self.nodes.len()).find(|at| key(*at as u8 + 1) == id).expect("a node of this net")
    }

    fn with(&mut self, at: usize, act: impl FnOnce(&mut State, Instant) -> Vec<Effect>) {
        let now = self.now;
        if let Some(state) = &mut self.nodes[at] {
            let effects = act(state, now);
            self.apply(at, effects);
        }
    }

    fn deliver_all(&mut self) {
        let mut budget = 20_000;
        while let Some((from, to, message)) = self.wires.pop_front() {
            budget -= 1;
            assert!(budget > 0, "the protocol does not come to rest");
            if self.nodes[to].is_none() {
                let gone = key(to as u8 + 1);
                self.with(from, |state, now| state.on_gone(gone, Gone::Lost, now));
                continue;
            }
            let (sender, me) = (key(from as u8 + 1), key(to as u8 + 1));
            self.with(to, |state, now| match message {
                Some(message) => {
                    let frame = wire::encode(&message).expect("fits");
                    match inspect(&frame[4..], &me) {
                        Ok(inbound) => state.on_message(sender, 1, inbound, now),
                        Err(_) => Vec::new(),
                    }
                }
                None => state.on_stream_ended(sender, 1, now),
            });
        }
    }

    fn wait(&mut self, period: Duration) {
        let end = self.now + period;
        loop {
            self.deliver_all();
            let next = self.nodes.iter().flatten().map(State::next_deadline).min();
            match next {
                Some(next) if next <= end => self.now = next.max(self.now),
                Some(_) | None => break,
            }
            for at in 0..self.nodes.len() {
                self.with(at, |state, now| state.on_deadlines(now));
            }
        }
        self.now = end;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join(at, through) => {
                if self.nodes[at].is_none() {
                    self.nodes[at] = Some(state(at as u8 + 1, self.now));
                }
                self.with(at, |state, now| state.on_join(vec![key(through as u8 + 1)], now));
            }
            Step::Leave(at) => {
                self.with(at, |state, now| state.on_quit(now));
                self.deliver_all();
                self.kill(at);
            }
            Step::Kill(at) => self.kill(at),
            Step::Publish(at) => {
                let content = Bytes::from(format!("{at} at {:?}", self.now));
                self.with(at, |state, now| state.on_publish(content, now).expect("fits").1);
            }
            Step::Wait(millis) => self.wait(Duration::from_millis(millis)),
        }
        self.deliver_all();
    }

    fn kill(&mut self, at: usize) {
        self.nodes[at] = None;
        let gone = key(at as u8 + 1);
        for other in 0..self.nodes.len() {
            self.with(other, |state, now| state.on_gone(gone, Gone::Lost, now));
        }
    }
}

const SIZE: usize = 9;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..SIZE, 0..SIZE).prop_map(|(at, through)| Step::Join(at, through)),
        1 => (0..SIZE).prop_map(Step::Leave),
        1 => (0..SIZE).prop_map(Step::Kill),
        2 => (0..SIZE).prop_map(Step::Publish),
        3 => (1..3000u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// A storm of joins, leaves, kills and messages, then calm: every map is within its bound, whoever is still there
    /// hears one last message, and a node left alone has forgotten everybody.
    #[test]
    fn after_any_storm_the_maps_are_bounded_and_the_mesh_delivers(steps in steps()) {
        let mut net = Net::new(SIZE);
        for step in steps {
            net.step(step);
        }
        for at in 1..SIZE {
            net.step(Step::Join(at, 0));
        }
        net.step(Step::Join(0, 1));
        net.wait(Duration::from_secs(40));
        for state in net.nodes.iter().flatten() {
            prop_assert!(state.neighbors().len() <= 5, "the active view is bounded");
            prop_assert!(state.contacts() <= SIZE);
            prop_assert_eq!(entries(state, "peer_data"), 0);
            for map in PRIVATE_MAPS {
                prop_assert!(entries(state, map) < SIZE, "{} of {}", entries(state, map), map);
            }
        }
        let before = net.received.clone();
        net.step(Step::Publish(0));
        net.wait(Duration::from_secs(5));
        for (at, (now, then)) in net.received.iter().zip(&before).enumerate().skip(1) {
            prop_assert_eq!(now - then, 1, "node {} heard it exactly once", at);
        }
        for at in 1..SIZE {
            net.step(Step::Kill(at));
        }
        net.wait(Duration::from_secs(15));
        let alone = net.nodes[0].as_ref().expect("never killed last");
        prop_assert_eq!(alone.neighbors().len(), 0);
        for map in ["pending_neighbor_requests", "peer_data", "missing_messages", "eager_push_peers"] {
            prop_assert!(entries(alone, map) <= acquaintances::REJOIN_PEERS, "{}", map);
        }
    }
}
