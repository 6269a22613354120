//! The scenarios: what each is about, what must have happened for it to mean anything, and what it expects
//! beyond the invariants that hold for all. `[pure]`
//!
//! A scenario is a row of data. Its events are drawn in `plan.rs` and carried out in `actions/`; these report named
//! figures ([`crate::actions::Done`]), and facts and limits refer to the figures by name.

mod backends;
mod ground;
mod storms;
pub(crate) mod strangers;

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    args::{EPOCHS, WARM_UP_EPOCHS},
    plan::OBSERVER,
    run_format::{Fact, Happened, Limit, Record},
};

/// What a storm consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Nodes leave the topic and rejoin it while every process lives
    Rotate,
    /// No events at all; shuffles go on
    Idle,
    /// Nodes die by SIGKILL and come back as strangers
    KillFresh,
    /// Nodes die by SIGKILL and come back with the same key
    KillSame,
    /// Nodes die by SIGKILL and come back with the same key on the same UDP port
    KillSamePort,
    /// Nodes are told to stop and come back
    Graceful,
    /// Nodes are halted by SIGSTOP, for less and for more than the idle timeout
    Pause,
    /// Half, four fifths or nine tenths of the nodes die at once
    Mass,
    /// An application stops reading, a neighbour stops altogether, and messages pour in
    SlowReader,
    /// Half of the nodes are stock iroh-gossip
    Mixed,
    /// Nodes are started with too few descriptors and too little memory
    Limits,
    /// A seeded mixture of the others
    Mix,
    /// Two nodes dial each other at once, or redial while the old connection is up
    Supersede,
    /// The observer dials who never answers, and gives up
    HalfOut,
    /// Strangers stop in the middle of their handshake with the observer
    HalfIn,
    /// First packets of clients that do not exist flood the observer
    FloodSpoof,
    /// Identities that finish their handshake and do nothing flood the observer
    FloodIdle,
    /// Spoofed, idle, abandoned and stalled at once flood the observer
    FloodMix,
    /// Strangers fill the observer to its caps, and one more knocks
    Cap,
    /// The network falls into two or three parts, or lets through one way only
    Partition,
    /// Lines delay, lose, double and reorder
    Netem,
    /// Hosts get other addresses while their nodes live
    ChurnPath,
    /// The disk with a node's state is full
    DiskFull,
    /// A node's wall clock is an hour or a day off
    Clock,
    /// Single loops panic, fail or hang
    ActorFault,
    /// The collector of telemetry is gone, silent, late, or full of errors
    OtlpDown,
    /// Everybody whom the others were told to join through is dead
    BootDown,
}

/// Where the nodes of a scenario must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// Anywhere.
    Any,
    /// On hosts of their own.
    Hosts,
    /// On hosts of their own, all but the observer's with changing addresses.
    MovingHosts,
    /// On hosts of their own, with a switch between them that can be bad.
    Switch,
    /// Anywhere, and the last one's state lies on a small disk.
    SmallDisk,
    /// Anywhere, and the last one has a wall clock of its own.
    WallClock,
    /// On 127.0.0.1, with a collector of their telemetry.
    Collector,
}

/// How a fact is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Events whose victim was a neighbour of the observer.
    Touching,
    /// Figures of this name.
    Observed(&'static str),
    /// The sum of the figures of this name.
    Sum(&'static str),
    /// Different actions among the events.
    Actions,
}

/// How often, at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Least {
    Times(u64),
    /// Percent of the judged events.
    Percent(u64),
}

/// Something that must have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FactRule {
    /// In words.
    pub name: &'static str,
    pub counted: Counted,
    pub least: Least,
}

/// A figure and what it may be at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LimitRule {
    /// The figure's name. Its unit is its last word.
    pub what: &'static str,
    pub most: f64,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub summary: &'static str,
    /// Processes, unless asked otherwise.
    pub nodes: u16,
    /// Events of one epoch, unless asked otherwise.
    pub events: u32,
    /// About how long an event takes, in seconds; for `list` and the time left.
    pub event_s: f64,
    /// Whether a node is stock iroh-gossip. Of such a node only what it says is judged, not what it holds.
    pub stock: fn(usize) -> bool,
    pub facts: &'static [FactRule],
    pub limits: &'static [LimitRule],
    /// More arguments of the observer's `up`.
    pub observer_args: &'static [&'static str],
    /// Where its nodes must be.
    pub ground: Ground,
    /// Whom the others join through at the start.
    pub through: &'static [usize],
    /// Invariants that the storm itself breaks, and why.
    pub allow: &'static [(&'static str, &'static str)],
}

const TOUCHING: FactRule = FactRule {
    name: "an event's victim was a neighbour of the observer",
    counted: Counted::Touching,
    // With a view of five among ten, half of the events hit a neighbour; a fifth is what a storm elsewhere would not.
    least: Least::Percent(20),
};

/// A node that came back has a neighbour within 5 s. A twentieth of a second is usual.
const REJOINED: LimitRule = LimitRule { what: "rejoined after ms", most: 5_000.0 };

const STORM: Spec = Spec {
    summary: "",
    nodes: 12,
    events: 50,
    event_s: 0.5,
    stock: |_| false,
    facts: &[TOUCHING],
    limits: &[REJOINED],
    observer_args: &[],
    ground: Ground::Any,
    through: &[OBSERVER],
    allow: &[],
};

impl Scenario {
    /// Every scenario, in the order of `list`.
    pub(crate) const ALL: [Scenario; 27] = [
        Scenario::Rotate,
        Scenario::Idle,
        Scenario::KillFresh,
        Scenario::KillSame,
        Scenario::KillSamePort,
        Scenario::Graceful,
        Scenario::Pause,
        Scenario::Mass,
        Scenario::SlowReader,
        Scenario::Mixed,
        Scenario::Limits,
        Scenario::Mix,
        Scenario::Supersede,
        Scenario::HalfOut,
        Scenario::HalfIn,
        Scenario::FloodSpoof,
        Scenario::FloodIdle,
        Scenario::FloodMix,
        Scenario::Cap,
        Scenario::Partition,
        Scenario::Netem,
        Scenario::ChurnPath,
        Scenario::DiskFull,
        Scenario::Clock,
        Scenario::ActorFault,
        Scenario::OtlpDown,
        Scenario::BootDown,
    ];

    /// The name on the command line and in reports.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The scenario of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Its row.
    pub(crate) fn spec(self) -> Spec {
        match self {
            Scenario::Rotate => storms::ROTATE,
            Scenario::Idle => storms::IDLE,
            Scenario::KillFresh => storms::KILL_FRESH,
            Scenario::KillSame => storms::KILL_SAME,
            Scenario::KillSamePort => storms::KILL_SAME_PORT,
            Scenario::Graceful => storms::GRACEFUL,
            Scenario::Pause => storms::PAUSE,
            Scenario::Mass => storms::MASS,
            Scenario::SlowReader => storms::SLOW_READER,
            Scenario::Mixed => storms::MIXED,
            Scenario::Limits => storms::LIMITS,
            Scenario::Mix => storms::MIX,
            Scenario::Supersede => strangers::SUPERSEDE,
            Scenario::HalfOut => strangers::HALF_OUT,
            Scenario::HalfIn => strangers::HALF_IN,
            Scenario::FloodSpoof => strangers::FLOOD_SPOOF,
            Scenario::FloodIdle => strangers::FLOOD_IDLE,
            Scenario::FloodMix => strangers::FLOOD_MIX,
            Scenario::Cap => strangers::CAP,
            Scenario::Partition => ground::PARTITION,
            Scenario::Netem => ground::NETEM,
            Scenario::ChurnPath => ground::CHURN_PATH,
            Scenario::DiskFull => ground::DISK_FULL,
            Scenario::Clock => ground::CLOCK,
            Scenario::ActorFault => ground::ACTOR_FAULT,
            Scenario::OtlpDown => backends::OTLP_DOWN,
            Scenario::BootDown => backends::BOOT_DOWN,
        }
    }

    /// Whether remotes finish a handshake, or are dialed, that nobody has seen before and nobody sees again.
    pub(crate) fn has_strangers(self) -> bool {
        match self {
            Scenario::HalfOut | Scenario::HalfIn | Scenario::FloodIdle | Scenario::FloodMix | Scenario::Cap => true,
            // A spoofed packet is nobody, and nodes that come back fresh come back to everyone at any time.
            Scenario::FloodSpoof
            | Scenario::Supersede
            | Scenario::Rotate
            | Scenario::Idle
            | Scenario::KillFresh
            | Scenario::KillSame
            | Scenario::KillSamePort
            | Scenario::Graceful
            | Scenario::Pause
            | Scenario::Mass
            | Scenario::SlowReader
            | Scenario::Mixed
            | Scenario::Limits
            | Scenario::Mix
            | Scenario::Partition
            | Scenario::Netem
            | Scenario::ChurnPath
            | Scenario::DiskFull
            | Scenario::Clock
            | Scenario::ActorFault
            | Scenario::OtlpDown
            | Scenario::BootDown => false,
        }
    }
}

impl Spec {
    /// About how long a run of the usual length takes.
    pub(crate) fn minutes(&self) -> f64 {
        /// From the last event of an epoch to its barrier, where nothing is wrong.
        const CALM_S: f64 = 9.0;
        /// Tables are filled, and their entries run out, before anything is judged.
        const FILL_S: f64 = 130.0;
        let epochs = f64::from(WARM_UP_EPOCHS + EPOCHS);
        ((epochs * (f64::from(self.events) * self.event_s + CALM_S) + FILL_S) / 60.0).ceil()
    }

    /// What came of the facts over the judged epochs of a run.
    pub(crate) fn facts(&self, record: &Record) -> Vec<Fact> {
        let info = &record.info;
        let planned = u64::from(info.epochs * info.events_per_epoch);
        let minimum = |least| match least {
            Least::Times(times) => times,
            Least::Percent(percent) => planned * percent / 100,
        };
        let judged = || record.events.iter().flatten().filter(|event| event.epoch > info.warm_up_epochs);
        let fact = |rule: &FactRule| Fact {
            name: rule.name.to_owned(),
            minimum: minimum(rule.least),
            reached: Some(rule.counted.over(judged().map(|event| &event.happened))),
        };
        self.facts.iter().map(fact).collect()
    }

    /// Its limits, for the record.
    pub(crate) fn limits(&self) -> Vec<Limit> {
        self.limits.iter().map(|rule| Limit { what: rule.what.to_owned(), most: rule.most }).collect()
    }
}

impl Counted {
    fn over<'a>(self, happened: impl Iterator<Item = &'a Happened>) -> u64 {
        let mut actions = BTreeSet::new();
        let (mut touching, mut seen, mut sum) = (0, 0, 0.0);
        for happened in happened {
            match (happened, self) {
                (Happened::Injected { action, touching: touches, .. }, _) => {
                    actions.insert(action.as_str());
                    touching += u64::from(*touches);
                }
                (Happened::Observed { figure, value }, Counted::Observed(name) | Counted::Sum(name))
                    if figure == name =>
                {
                    seen += 1;
                    sum += value;
                }
                (Happened::Observed { .. } | Happened::Exited { .. } | Happened::Fault { .. }, _) => {}
            }
        }
        match self {
            Counted::Touching => touching,
            Counted::Observed(_) => seen,
            Counted::Sum(_) => sum as u64,
            Counted::Actions => actions.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_listed_once_and_found_by_its_name() {
        assert_eq!(Scenario::ALL.len(), Scenario::value_variants().len());
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::named(&scenario.name()), Some(scenario));
            let spec = scenario.spec();
            assert!(!spec.summary.is_empty() && !spec.facts.is_empty(), "{scenario:?}");
        }
        assert_eq!(Scenario::KillSamePort.name(), "kill-same-port");
    }
}
