//! The plan: every event of a run, drawn from one seed before the first process starts. `[pure]`
//!
//! Two runs of one plan do the same things in the same order; when each thing happens is up to the machine. Which steps a
//! scenario consists of is here; what else it is, `scenario.rs`; carrying a step out, `actions/`.

mod step;

use perennial_soak::{attack::Kind, place::collector::Mood};
use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

pub(crate) use self::step::{Cap, Identity, Resource, Step, Weather};
use crate::scenario::Scenario;

/// The node that no storm kills and the verdict names first.
pub(crate) const OBSERVER: usize = 0;

/// The nodes through which all others join where the way in is what fails.
pub(crate) const BOOTSTRAP: [usize; 2] = [1, 2];

/// Steps that may happen at the same time.
pub(crate) const LANES: usize = 3;

/// Probes after the storm of an epoch.
const PROBES_PER_EPOCH: usize = 4;

/// A pause that no QUIC connection notices: shorter than the idle timeout of ours (10 s) and of stock (30 s).
const SHORT_PAUSE_MS: u64 = 5_000;

/// A pause that every QUIC connection notices.
const LONG_PAUSE_MS: u64 = 40_000;

/// Quiet time that counts as one event: half a shuffle interval, so that 512 B an event are 61 KB an hour.
const REST_MS: u64 = 30_000;

/// iroh keeps a task for every remote until 60 s after its last connection, and that takes up to 3 s to drain. A barrier
/// after strangers comes when theirs are gone, or their number would decide what is found there.
const QUIET_MS: u64 = 65_000;

/// Quiet after which no timer of a node still runs, so that what is found is there for good: the longest are the 300 s for
/// which iroh-gossip remembers an address and ours backs off from a remote that cannot be dialed, and a sweep.
pub(crate) const DEEP_MS: u64 = 310_000;

/// What fills the stores of a node before anything is judged: more messages than a usual storm and its talk leave in the
/// tables at any time, and more strangers than the 256 closed connections that are remembered.
const SATURATION: Step = Step::Saturate { messages: 1_000, strangers: 300 };

/// The ids of the messages that fill tables are forgotten after 90 s, and the strangers before.
const SATURATED_MS: u64 = 95_000;

/// Strangers of one flood: few enough for many epochs, several times what any cap lets in.
const FLOOD: usize = 500;

/// Strangers of one siege that stalls: with those before the handshake, twice what may be under way at one time.
const SIEGE: usize = 60;

/// Dials given up at one time: below what may be under way.
const DIALS: usize = 20;
/// A burst that fills the windows and queues towards whoever does not read: 1 KiB each.
const BURST_MESSAGES: usize = 3_000;

/// From what no process can start with to what a node needs.
const CONSTRAINTS: [(Resource, u64); 8] = [
    (Resource::Descriptors, 8),
    (Resource::Descriptors, 16),
    (Resource::Descriptors, 32),
    (Resource::Descriptors, 256),
    (Resource::AddressSpace, 32 << 20),
    (Resource::AddressSpace, 64 << 20),
    (Resource::AddressSpace, 128 << 20),
    (Resource::AddressSpace, 512 << 20),
];

/// A cut that outlasts every idle timeout of ours, and leaves each part the time to close its ranks.
const CUT_MS: u64 = 25_000;

/// How long lines are bad.
const WEATHER_MS: u64 = 8_000;

/// Each alone, then together.
const WEATHERS: [Weather; 5] = [
    Weather { delay_ms: 50, jitter_ms: 20, ..Weather::FAIR },
    Weather { loss_percent: 1, ..Weather::FAIR },
    Weather { loss_percent: 5, ..Weather::FAIR },
    Weather { duplicate_percent: 10, reorder_percent: 10, delay_ms: 5, ..Weather::FAIR },
    Weather { loss_percent: 20, delay_ms: 20, jitter_ms: 10, ..Weather::FAIR },
];

/// Long enough for several attempts to keep the state.
const DISK_FULL_MS: u64 = 12_000;

/// Long enough for timers that should not have looked at the wall clock.
const CLOCK_MS: u64 = 5_000;

/// Long enough for three failures in a row, and more spans than a node keeps.
const COLLECTOR_MS: u64 = 8_000;

/// Long enough for the first probe of those that are gone.
const BOOT_DOWN_MS: u64 = 30_000;

/// Loops that are always there, each in each way. A hang ends by itself after a minute, so it is rare.
const FAULTS: [(&str, &str); 9] = [
    ("connection", "panic"),
    ("connection", "error"),
    ("topic", "panic"),
    ("topic", "error"),
    ("peer", "panic"),
    ("peers", "panic"),
    ("acceptor", "panic"),
    ("acceptor", "error"),
    ("connection", "hang"),
];

/// What a plan is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The storm.
    pub scenario: Scenario,
    /// Everything random comes from here.
    pub seed: u64,
    /// Processes, the observer included.
    pub nodes: usize,
    /// Events of one epoch.
    pub events: usize,
    /// Whether stores are filled in the first epoch.
    pub saturate: bool,
    /// Every so many epochs the barrier is a deep one; never with 0.
    pub deep_every: u32,
}

/// The events of an epoch in groups: those of one group happen at the same time.
pub(crate) fn groups(steps: &[Step]) -> Vec<&[Step]> {
    let mut groups = Vec::new();
    let events = steps.iter().take_while(|step| step.is_event()).count();
    let mut rest = &steps[..events];
    while let Some(first) = rest.first() {
        let most = if first.side_by_side() { LANES } else { 1 };
        let alike = rest.iter().take(most).take_while(|step| step.side_by_side() == first.side_by_side()).count();
        let (group, after) = rest.split_at(alike.max(1));
        groups.push(group);
        rest = after;
    }
    groups
}

/// The steps of one epoch: its events, then quiet where the barrier needs it, then probes. Equal shapes give equal steps.
///
/// # Panics
///
/// With fewer than seven nodes: three may be away, and each needs somebody to return through.
pub(crate) fn draw_epoch(shape: Shape, epoch: u32) -> Vec<Step> {
    assert!(shape.nodes > 2 * LANES, "an epoch needs nodes to disturb and nodes to return through");
    let mut draw = Draw { shape, rng: Xoshiro256PlusPlus::seed_from_u64(shape.seed ^ u64::from(epoch) << 32) };
    let mut steps = Vec::new();
    while steps.len() < shape.events {
        draw.events(shape.scenario, epoch, &mut steps);
    }
    steps.truncate(shape.events);
    if shape.saturate && epoch == 1 {
        steps.extend([SATURATION, Step::Quiet { for_ms: SATURATED_MS }]);
    } else if epoch.checked_rem(shape.deep_every) == Some(0) {
        steps.push(Step::Quiet { for_ms: DEEP_MS });
    } else if shape.scenario.has_strangers() {
        steps.push(Step::Quiet { for_ms: QUIET_MS });
    }
    for _ in 0..PROBES_PER_EPOCH {
        steps.push(Step::Probe { from: draw.rng.random_range(0..shape.nodes) });
    }
    steps
}

/// Draws the events of one epoch, one after the other.
struct Draw {
    shape: Shape,
    rng: Xoshiro256PlusPlus,
}

impl Draw {
    /// A few more events of a scenario: one, or a group that happens at the same time.
    fn events(&mut self, scenario: Scenario, epoch: u32, steps: &mut Vec<Step>) {
        let turn = steps.len();
        match scenario {
            Scenario::Idle => steps.push(Step::Rest { for_ms: REST_MS }),
            Scenario::Rotate => self.rotations(steps),
            Scenario::KillFresh => steps.push(self.kill(Identity::Fresh)),
            Scenario::KillSame => steps.push(self.kill(Identity::Same)),
            Scenario::KillSamePort => steps.push(self.kill(Identity::SamePort)),
            Scenario::Graceful => {
                let node = self.victim();
                let via = self.other_than(&[node]);
                steps.push(Step::Quit { node, via, away_ms: self.away_ms() });
            }
            Scenario::Pause => self.pauses(turn, steps),
            Scenario::Mass => {
                let share = [50, 80, 90][(epoch as usize + turn) % 3];
                let count = (self.shape.nodes * share).div_ceil(100).min(self.shape.nodes - 2);
                let mut nodes = self.distinct(1, count);
                nodes.sort_unstable();
                steps.push(Step::Mass { nodes });
            }
            Scenario::Supersede => steps.push(self.meeting(turn)),
            Scenario::HalfOut => steps.push(Step::GiveUp { dials: DIALS }),
            Scenario::HalfIn => {
                let kind = [Kind::Stall, Kind::Abandon][turn % 2];
                steps.push(Step::Strangers { kind, count: SIEGE });
            }
            Scenario::FloodSpoof => steps.push(Step::Strangers { kind: Kind::Spoofed, count: FLOOD }),
            Scenario::FloodIdle => steps.push(Step::Strangers { kind: Kind::Idle, count: FLOOD }),
            Scenario::FloodMix => steps.push(Step::Strangers { kind: Kind::Mix, count: FLOOD }),
            Scenario::Cap => steps.push(Step::Fill { cap: [Cap::Listener, Cap::Node][turn % 2] }),
            Scenario::Mixed => self.rotations(steps),
            Scenario::SlowReader => {
                let nodes = self.distinct(1, 2);
                steps.push(Step::Slow { subscriber: nodes[0], halted: nodes[1], messages: BURST_MESSAGES });
            }
            Scenario::Partition => steps.push(self.part(turn)),
            Scenario::Netem => {
                let weather = WEATHERS[turn % WEATHERS.len()];
                steps.push(Step::Weather { weather, for_ms: WEATHER_MS });
            }
            Scenario::ChurnPath => steps.push(Step::Move { node: self.victim() }),
            Scenario::DiskFull => {
                steps.push(Step::FillDisk { node: self.shape.nodes - 1, for_ms: DISK_FULL_MS });
            }
            Scenario::Clock => {
                let offset_s = [3_600, -3_600, 86_400, -86_400][turn % 4];
                steps.push(Step::Clock { node: self.shape.nodes - 1, offset_s, for_ms: CLOCK_MS });
            }
            Scenario::ActorFault => {
                let (part, kind) = FAULTS[turn % FAULTS.len()];
                steps.push(Step::Break { node: self.victim(), part: part.into(), kind: kind.into() });
            }
            Scenario::OtlpDown => {
                let mood = [Mood::Refuses, Mood::Silent, Mood::Late, Mood::Fails][turn % 4];
                steps.push(Step::Collector { mood, for_ms: COLLECTOR_MS });
            }
            Scenario::BootDown => {
                steps.push(Step::LoseBootstrap { nodes: BOOTSTRAP.into(), for_ms: BOOT_DOWN_MS });
            }
            Scenario::Limits => {
                let (resource, value) = CONSTRAINTS[turn % CONSTRAINTS.len()];
                steps.push(Step::Constrain { resource, value });
            }
            Scenario::Mix => self.mixture(epoch, steps),
        }
    }

    /// Three nodes leave at once, the observer like any other, and each returns through somebody who stayed.
    fn rotations(&mut self, steps: &mut Vec<Step>) {
        let away = self.distinct(0, LANES);
        for node in &away {
            let via = self.other_than(&away);
            steps.push(Step::Rotate { node: *node, via, away_ms: self.away_ms() });
        }
    }

    fn kill(&mut self, identity: Identity) -> Step {
        // Who returns through somebody who dies a second later knows nobody alive, and no protocol can help it.
        Step::Kill { node: self.victim(), via: OBSERVER, away_ms: self.away_ms(), identity }
    }

    /// Two dial each other, and every fourth time one comes back as if it had never been away.
    fn meeting(&mut self, turn: usize) -> Step {
        if turn % 4 == 3 {
            let node = self.victim();
            return Step::ComeBack { node, via: self.other_than(&[node]) };
        }
        let pair = self.distinct(0, 2);
        Step::Meet { nodes: [pair[0], pair[1]], via: self.other_than(&pair) }
    }

    /// The first of every epoch is a long one.
    fn pauses(&mut self, turn: usize, steps: &mut Vec<Step>) {
        for (lane, node) in self.distinct(1, LANES).into_iter().enumerate() {
            let for_ms = if turn + lane == 0 { LONG_PAUSE_MS } else { SHORT_PAUSE_MS };
            steps.push(Step::Pause { node, for_ms });
        }
    }

    /// By turns two halves, a half that does not reach the other, and three thirds.
    fn part(&mut self, turn: usize) -> Step {
        let nodes = self.distinct(0, self.shape.nodes);
        let (parts, one_way) = [(2, false), (2, true), (3, false)][turn % 3];
        let groups = nodes.chunks(nodes.len().div_ceil(parts)).map(<[usize]>::to_vec).collect();
        Step::Part { groups, one_way, for_ms: CUT_MS }
    }

    /// Weights say how often each is expected in two minutes.
    fn mixture(&mut self, epoch: u32, steps: &mut Vec<Step>) {
        const WEIGHTS: [(Scenario, u32); 7] = [
            (Scenario::Rotate, 20),
            (Scenario::KillFresh, 8),
            (Scenario::KillSame, 8),
            (Scenario::KillSamePort, 2),
            (Scenario::Graceful, 6),
            (Scenario::Supersede, 6),
            (Scenario::Idle, 1),
        ];
        let mut at: u32 = self.rng.random_range(0..WEIGHTS.iter().map(|(_, weight)| weight).sum());
        let drawn = WEIGHTS.into_iter().find(|(_, weight)| {
            let hit = at < *weight;
            at = at.saturating_sub(*weight);
            hit
        });
        let (scenario, _) = drawn.expect("a number below the sum hits a weight");
        self.events(scenario, epoch, steps);
    }

    /// Anybody but the observer.
    fn victim(&mut self) -> usize {
        self.rng.random_range(1..self.shape.nodes)
    }

    fn other_than(&mut self, taken: &[usize]) -> usize {
        let staying: Vec<usize> = (0..self.shape.nodes).filter(|node| !taken.contains(node)).collect();
        staying[self.rng.random_range(0..staying.len())]
    }

    fn distinct(&mut self, first: usize, count: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = (first..self.shape.nodes).collect();
        for at in 0..count {
            let other = self.rng.random_range(at..nodes.len());
            nodes.swap(at, other);
        }
        nodes.truncate(count);
        nodes
    }

    /// Long enough that the leave has reached the neighbours, short enough for several events per second.
    fn away_ms(&mut self) -> u64 {
        self.rng.random_range(50..=400)
    }
}

#[cfg(test)]
mod tests {
    use perennial_soak::attack::COUNT_MAX;

    use super::*;

    fn shape(scenario: Scenario) -> Shape {
        Shape { scenario, seed: 7, nodes: 12, events: 60, saturate: false, deep_every: 0 }
    }

    #[test]
    fn one_seed_gives_one_plan_of_the_length_asked_for() {
        for scenario in Scenario::ALL {
            let steps = draw_epoch(shape(scenario), 3);
            assert_eq!(steps, draw_epoch(shape(scenario), 3));
            let (events, others) = steps.split_at(60);
            assert!(events.iter().all(Step::is_event) && others.iter().all(|step| !step.is_event()), "{scenario:?}");
            let (probes, quiet): (Vec<_>, Vec<_>) = others.iter().partition(|step| matches!(step, Step::Probe { .. }));
            assert_eq!((probes.len(), quiet.len()), (4, usize::from(scenario.has_strangers())), "{scenario:?}");
        }
        let other = Shape { seed: 8, ..shape(Scenario::Rotate) };
        assert_ne!(draw_epoch(shape(Scenario::Rotate), 3), draw_epoch(other, 3));
    }

    #[test]
    fn stores_are_filled_once_and_every_so_many_epochs_a_barrier_is_deep() {
        let shape = Shape { saturate: true, deep_every: 8, ..shape(Scenario::FloodIdle) };
        let others = |epoch| draw_epoch(shape, epoch).split_off(60);
        assert!(matches!(others(1)[..2], [Step::Saturate { .. }, Step::Quiet { for_ms: SATURATED_MS }]));
        let deep: Vec<u32> = (1..=24).filter(|epoch| others(*epoch).iter().any(Step::is_deep)).collect();
        assert_eq!(deep, [8, 16, 24]);
        assert!(others(2).contains(&Step::Quiet { for_ms: QUIET_MS }), "strangers are waited for in the others");
    }

    #[test]
    fn what_a_step_touches_includes_whom_it_kills() {
        for (scenario, epoch) in Scenario::ALL.into_iter().flat_map(|scenario| [(scenario, 1), (scenario, 2)]) {
            for step in draw_epoch(shape(scenario), epoch) {
                let touched = step.touches(12);
                assert!(step.killed().iter().all(|node| touched.contains(node)), "{step:?}");
                assert!(touched.iter().all(|node| *node < 12), "{step:?}");
            }
        }
    }

    #[test]
    fn the_observer_is_never_killed_and_nobody_returns_through_itself() {
        for (scenario, epoch) in Scenario::ALL.into_iter().flat_map(|scenario| [(scenario, 1), (scenario, 2)]) {
            for step in draw_epoch(shape(scenario), epoch) {
                assert!(!step.killed().contains(&OBSERVER), "{scenario:?}: {step:?}");
                match step {
                    Step::Rotate { node, via, .. } | Step::Kill { node, via, .. } | Step::Quit { node, via, .. } => {
                        assert!(node != via && node < 12 && via < 12);
                    }
                    Step::Pause { node, .. } => assert!((1..12).contains(&node)),
                    Step::Mass { nodes } => assert!(nodes.len() <= 10 && nodes.iter().all(|node| *node < 12)),
                    Step::Slow { subscriber, halted, .. } => {
                        assert!(subscriber != halted && subscriber != OBSERVER && halted != OBSERVER);
                    }
                    Step::Probe { from } => assert!(from < 12),
                    Step::Meet { nodes: [one, other], via } => {
                        assert!(one != other && via != one && via != other && one.max(other).max(via) < 12);
                    }
                    Step::ComeBack { node, via } => assert!(node != via && node < 12 && via < 12),
                    Step::Strangers { count, .. } => assert!((1..=COUNT_MAX).contains(&count)),
                    Step::GiveUp { dials } => assert!((1..=32).contains(&dials), "the default of dials_max is 32"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn what_happens_at_the_same_time_does_not_need_each_other() {
        for (scenario, epoch) in Scenario::ALL.into_iter().flat_map(|scenario| (1..20).map(move |at| (scenario, at))) {
            let steps = draw_epoch(shape(scenario), epoch);
            let groups = groups(&steps);
            assert_eq!(groups.concat().len(), 60, "{scenario:?}: no event is lost");
            for group in groups {
                let away: Vec<usize> = group
                    .iter()
                    .filter_map(|step| match step {
                        Step::Rotate { node, .. } | Step::Pause { node, .. } => Some(*node),
                        _ => None,
                    })
                    .collect();
                let mut distinct = away.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), away.len(), "{scenario:?}: {group:?}");
                let leans = |step: &Step| matches!(step, Step::Rotate { via, .. } if away.contains(via));
                assert!(!group.iter().any(leans), "{scenario:?}: {group:?}");
            }
        }
    }

    #[test]
    fn a_plan_with_strangers_survives_the_file_and_each_of_them_counts() {
        for scenario in Scenario::ALL {
            let steps = draw_epoch(shape(scenario), 2);
            let lines: Vec<String> = steps.iter().map(|step| serde_json::to_string(step).unwrap()).collect();
            let back: Vec<Step> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(back, steps, "{scenario:?}");
        }
        assert_eq!(draw_epoch(shape(Scenario::FloodIdle), 1)[0].weight(), 500);
    }

    #[test]
    fn a_rotation_takes_the_observer_too_and_a_pause_is_long_once_an_epoch() {
        let steps = draw_epoch(shape(Scenario::Rotate), 1);
        assert!(steps.iter().any(|step| matches!(step, Step::Rotate { node: OBSERVER, .. })));
        let steps = draw_epoch(shape(Scenario::Pause), 1);
        let long = steps.iter().filter(|step| matches!(step, Step::Pause { for_ms: LONG_PAUSE_MS, .. })).count();
        assert_eq!(long, 1);
    }
}
