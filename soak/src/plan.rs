//! The plan: every event of a run, drawn from one seed before the first process starts. `[pure]`
//!
//! Two runs of one plan do the same things in the same order; when each thing happens is up to the machine. Carrying
//! it out is `storm.rs`.

use clap::ValueEnum;
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use serde::{Deserialize, Serialize};

/// The node that the storm never touches and the verdict is about.
pub(crate) const OBSERVER: usize = 0;

/// What a storm consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Nodes leave the topic and rejoin it while every process lives.
    Rotate,
    /// Nodes die by SIGKILL and come back, by turns with a fresh identity and with the same key.
    Kill,
}

impl Scenario {
    /// Every scenario, in the order of `list`.
    pub(crate) const ALL: [Scenario; 2] = [Scenario::Rotate, Scenario::Kill];

    /// The name on the command line and in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Rotate => "rotate",
            Scenario::Kill => "kill",
        }
    }

    /// One line for `list`.
    pub(crate) fn summary(self) -> &'static str {
        match self {
            Scenario::Rotate => "nodes leave the topic and rejoin it while every process lives",
            Scenario::Kill => "nodes die by SIGKILL and come back, by turns with a fresh identity and the same key",
        }
    }
}

/// What a plan is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The storm.
    pub scenario: Scenario,
    /// Everything random comes from here.
    pub seed: u64,
    /// Processes, the observer included.
    pub nodes: usize,
    /// Events before the first judged sample.
    pub warm_up: usize,
    /// Judged events.
    pub events: usize,
    /// A probe follows every so many judged events.
    pub probe_every: usize,
}

/// A run, before it has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// Version of this format.
    pub v: u32,
    /// The storm.
    pub scenario: Scenario,
    /// The seed it was drawn from.
    pub seed: u64,
    /// Processes, the observer included.
    pub nodes: usize,
    /// The node the storm never touches.
    pub observer: usize,
    /// Events before the first judged sample: they fill tables that keep their high-water size.
    pub warm_up: Vec<Step>,
    /// The judged events and their probes.
    pub storm: Vec<Step>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Step {
    /// `node` leaves the topic, stays away, and rejoins through `via`.
    Rotate { node: usize, via: usize, away_ms: u64 },
    /// `node` is killed, stays away, and is started again, joining through `via` and the node after it.
    Kill { node: usize, via: usize, away_ms: u64, identity: Identity },
    /// `from` publishes a numbered message that every live node must receive.
    Probe { number: u32, from: usize },
}

/// Who comes back after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Identity {
    /// A new key, so a stranger.
    Fresh,
    /// The same key file.
    Same,
}

impl Plan {
    /// Draws the plan. Equal shapes give equal plans.
    pub(crate) fn draw(shape: Shape) -> Self {
        assert!(shape.nodes >= 3, "a storm needs an observer, a victim and a third node");
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(shape.seed);
        let mut storm = Vec::new();
        let mut probes = 0;
        let warm_up = (0..shape.warm_up).map(|turn| event(shape, turn, &mut rng)).collect();
        for turn in 0..shape.events {
            storm.push(event(shape, turn, &mut rng));
            let last = turn + 1 == shape.events;
            if last || (turn + 1) % shape.probe_every == 0 {
                probes += 1;
                storm.push(Step::Probe { number: probes, from: rng.random_range(0..shape.nodes) });
            }
        }
        Self {
            v: 1,
            scenario: shape.scenario,
            seed: shape.seed,
            nodes: shape.nodes,
            observer: OBSERVER,
            warm_up,
            storm,
        }
    }

    /// Judged events.
    pub(crate) fn events(&self) -> usize {
        self.storm.len() - self.probes()
    }

    /// Planned probes.
    pub(crate) fn probes(&self) -> usize {
        self.storm.iter().filter(|step| matches!(step, Step::Probe { .. })).count()
    }
}

/// Rotations of one epoch that happen at the same time.
pub(crate) const LANES: usize = 3;

/// Probes after the storm of an epoch.
const PROBES_PER_EPOCH: u32 = 4;

/// The steps of one epoch: events in groups of [`LANES`] that do not need each other, then probes.
pub(crate) fn draw_epoch(shape: Shape, epoch: u32) -> Vec<Step> {
    assert!(shape.nodes > 2 * LANES, "an epoch needs nodes to rotate and nodes to return through");
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(shape.seed ^ u64::from(epoch) << 32);
    let mut steps = Vec::new();
    let mut away = Vec::new();
    for turn in 0..shape.events {
        if turn.is_multiple_of(LANES) {
            away.clear();
            while away.len() < LANES {
                let node = rng.random_range(1..shape.nodes);
                if !away.contains(&node) {
                    away.push(node);
                }
            }
        }
        let node = away[turn % LANES];
        let staying: Vec<usize> = (0..shape.nodes).filter(|other| !away.contains(other)).collect();
        let via = match shape.scenario {
            Scenario::Rotate => staying[rng.random_range(0..staying.len())],
            // Who returns through somebody who dies a second later knows nobody alive, and no protocol can help it.
            Scenario::Kill => OBSERVER,
        };
        let away_ms = rng.random_range(50..=400);
        steps.push(step(shape.scenario, turn, node, via, away_ms));
    }
    for number in 1..=PROBES_PER_EPOCH {
        steps.push(Step::Probe { number, from: rng.random_range(0..shape.nodes) });
    }
    steps
}

fn event(shape: Shape, turn: usize, rng: &mut Xoshiro256PlusPlus) -> Step {
    let node = rng.random_range(1..shape.nodes);
    let via = (node + rng.random_range(1..shape.nodes)) % shape.nodes;
    // Long enough that the leave has reached the neighbours, short enough for several events per second.
    let away_ms = rng.random_range(50..=400);
    step(shape.scenario, turn, node, via, away_ms)
}

fn step(scenario: Scenario, turn: usize, node: usize, via: usize, away_ms: u64) -> Step {
    match scenario {
        Scenario::Rotate => Step::Rotate { node, via, away_ms },
        Scenario::Kill => {
            let identity = if turn.is_multiple_of(2) { Identity::Fresh } else { Identity::Same };
            Step::Kill { node, via, away_ms, identity }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { scenario: Scenario::Kill, seed: 7, nodes: 12, warm_up: 12, events: 300, probe_every: 25 };

    #[test]
    fn one_seed_gives_one_plan() {
        assert_eq!(Plan::draw(SHAPE), Plan::draw(SHAPE));
        assert_ne!(Plan::draw(SHAPE), Plan::draw(Shape { seed: 8, ..SHAPE }));
    }

    #[test]
    fn the_observer_is_never_a_victim_and_nobody_returns_through_itself() {
        for scenario in Scenario::ALL {
            let plan = Plan::draw(Shape { scenario, ..SHAPE });
            for step in plan.warm_up.iter().chain(&plan.storm) {
                match *step {
                    Step::Rotate { node, via, .. } | Step::Kill { node, via, .. } => {
                        assert_ne!(node, OBSERVER);
                        assert_ne!(node, via);
                        assert!(node < plan.nodes && via < plan.nodes);
                    }
                    Step::Probe { from, .. } => assert!(from < plan.nodes),
                }
            }
        }
    }

    #[test]
    fn nobody_in_an_epoch_returns_through_somebody_who_is_away() {
        for epoch in 1..20 {
            let steps = draw_epoch(SHAPE, epoch);
            assert_eq!(steps, draw_epoch(SHAPE, epoch));
            let turns: Vec<(usize, usize)> = steps
                .iter()
                .filter_map(|step| match *step {
                    Step::Rotate { node, via, .. } | Step::Kill { node, via, .. } => Some((node, via)),
                    Step::Probe { .. } => None,
                })
                .collect();
            assert_eq!(turns.len(), SHAPE.events);
            for group in turns.chunks(LANES) {
                assert!(group.iter().all(|(_, via)| group.iter().all(|(node, _)| node != via)), "{group:?}");
            }
        }
    }

    #[test]
    fn probes_are_interspersed_numbered_and_last() {
        let plan = Plan::draw(Shape { events: 60, ..SHAPE });
        let numbers: Vec<u32> = plan
            .storm
            .iter()
            .filter_map(|step| match step {
                Step::Probe { number, .. } => Some(*number),
                Step::Rotate { .. } | Step::Kill { .. } => None,
            })
            .collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert_eq!((plan.events(), plan.probes(), plan.warm_up.len()), (60, 3, 12));
        assert!(matches!(plan.storm.last(), Some(Step::Probe { .. })));
    }

    #[test]
    fn kills_alternate_between_fresh_and_same_identities() {
        let plan = Plan::draw(Shape { events: 10, ..SHAPE });
        let fresh = plan.storm.iter().filter(|step| matches!(step, Step::Kill { identity: Identity::Fresh, .. }));
        assert_eq!(fresh.count(), 5);
    }
}
