//! Sets of runs: what belongs before a merge, into a night, into a week. `[pure]`

use clap::ValueEnum;
use serde::Serialize;

use crate::scenario::Scenario;

/// A named set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Set {
    /// Under three minutes: counts and delivery; heap is not judged
    Smoke,
    /// Before a merge: every fault that has ever leaked, to a judged heap
    Pr,
    /// Every scenario, to a judged heap
    Night,
    /// A seeded mixture for two hundred epochs
    Week,
    /// Kills and respawns, 140 of them in 35 minutes, among 16 nodes
    Story,
}

/// One run of a set. What is absent is the scenario's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub scenario: Scenario,
    pub epochs: Option<u32>,
    pub warm_up: Option<u32>,
    pub events: Option<u32>,
    pub nodes: Option<u16>,
    /// Events a minute at most.
    pub per_minute: Option<u32>,
    /// Every so many epochs a deep barrier.
    pub deep_every: Option<u32>,
    /// Invariants that so short a run cannot judge, and why.
    pub allow: &'static [(&'static str, &'static str)],
}

/// Too few barriers for a slope.
const SHORT: &[(&str, &str)] = &[("I7", "too few epochs"), ("I8", "too few epochs"), ("I9", "too few epochs")];

impl Turn {
    /// A scenario as it is.
    pub(crate) fn of(scenario: Scenario) -> Self {
        Self {
            scenario,
            epochs: None,
            warm_up: None,
            events: None,
            nodes: None,
            per_minute: None,
            deep_every: None,
            allow: &[],
        }
    }
}

/// A scenario at night. Where remotes come and never come back, what is kept of them for minutes could hide what is kept of
/// them for good, so two barriers are deep, and twelve are left for the slope of the others.
fn night(scenario: Scenario) -> Turn {
    let leaves_ids =
        scenario.has_strangers() || matches!(scenario, Scenario::KillFresh | Scenario::Mass | Scenario::Mix);
    match leaves_ids {
        true => Turn { epochs: Some(14), deep_every: Some(8), ..Turn::of(scenario) },
        false => Turn::of(scenario),
    }
}

impl Set {
    /// Its runs, in order.
    pub(crate) fn turns(self) -> Vec<Turn> {
        let smoke = |scenario, epochs, events| Turn {
            epochs: Some(epochs),
            warm_up: Some(1),
            events: Some(events),
            nodes: Some(8),
            allow: SHORT,
            ..Turn::of(scenario)
        };
        match self {
            Set::Smoke => {
                vec![smoke(Scenario::Rotate, 3, 24), smoke(Scenario::KillSame, 2, 8), smoke(Scenario::Graceful, 2, 6)]
            }
            Set::Pr => {
                let before_a_merge =
                    [Scenario::Rotate, Scenario::Idle, Scenario::KillSame, Scenario::Supersede, Scenario::FloodSpoof];
                before_a_merge.map(Turn::of).into()
            }
            Set::Night => Scenario::ALL.map(night).into(),
            // Twenty-five deep barriers: enough for a slope of their own.
            Set::Week => vec![Turn { epochs: Some(200), deep_every: Some(8), ..Turn::of(Scenario::Mix) }],
            // Ten events an epoch and four a minute: fourteen epochs of two and a half minutes.
            Set::Story => vec![Turn {
                epochs: Some(14),
                warm_up: Some(1),
                events: Some(10),
                nodes: Some(16),
                per_minute: Some(4),
                ..Turn::of(Scenario::KillSame)
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_names_every_scenario_once_and_the_night_names_all() {
        for set in Set::value_variants() {
            let mut names: Vec<String> = set.turns().iter().map(|turn| turn.scenario.name()).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{set:?}");
        }
        assert_eq!(Set::Night.turns().len(), Scenario::ALL.len());
        let deep = Set::Night.turns().into_iter().filter(|turn| turn.deep_every.is_some());
        assert!(deep.clone().any(|turn| turn.scenario == Scenario::KillFresh) && deep.count() < Scenario::ALL.len());
        let story = Set::Story.turns()[0];
        assert_eq!(story.epochs.unwrap() * story.events.unwrap(), 140);
    }
}
