//! How short this process is of memory and descriptors. `[pure]`
//!
//! Judges samples against limits and remembers the last judgement, so that it does not change back and forth. `vitals.rs`
//! takes the samples; what is refused or closed under pressure is for the door to say.

/// How short, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Pressure {
    /// Room for everybody.
    #[default]
    Calm,
    /// From 80 % of a limit until it is below 70 %: every address is validated, nobody unknown is admitted.
    Tight,
    /// From 95 % of a limit until it is below 85 %: unknown remotes are evicted, one a second.
    Critical,
}

impl Pressure {
    /// The stable name in reports, metrics and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pressure::Calm => "calm",
            Pressure::Tight => "tight",
            Pressure::Critical => "critical",
        }
    }
}

/// What can run low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    Descriptors,
}

impl Resource {
    /// The stable name in reports, metrics and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Descriptors => "descriptors",
        }
    }
}

/// What this process may use. What has no limit causes no pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Budget {
    /// Resident memory, in bytes.
    pub(crate) memory_budget: Option<u64>,
    /// Open descriptors.
    pub(crate) fds_max: Option<u64>,
}

/// What this process uses at one moment. What the system does not tell is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sample {
    pub(crate) rss_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
}

/// The judgement on a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) pressure: Pressure,
    /// What binds: the shorter of the two, none while calm.
    pub(crate) resource: Option<Resource>,
}

/// Judges one sample after the other.
#[derive(Debug)]
pub(crate) struct PressureGauge {
    memory: Scale,
    descriptors: Scale,
}

impl PressureGauge {
    pub(crate) fn new(budget: Budget) -> Self {
        Self { memory: Scale::new(budget.memory_budget), descriptors: Scale::new(budget.fds_max) }
    }

    pub(crate) fn on_sample(&mut self, sample: Sample) -> Verdict {
        let memory = self.memory.on_sample(sample.rss_bytes);
        let descriptors = self.descriptors.on_sample(sample.open_fds);
        // Both at a guess means that looking failed, and for that it takes a descriptor.
        let (reading, resource) =
            if memory > descriptors { (memory, Resource::Memory) } else { (descriptors, Resource::Descriptors) };
        let resource = (reading.pressure > Pressure::Calm).then_some(resource);
        Verdict { pressure: reading.pressure, resource }
    }
}

/// Percent of the limit at which a level begins.
const TIGHT_PERCENT: u128 = 80;
const CRITICAL_PERCENT: u128 = 95;

/// A level ends this many points below where it began: more than a sample of RSS wavers, less than would make a node
/// refuse strangers long after the load has gone.
const HYSTERESIS_POINTS: u128 = 10;

/// One resource.
#[derive(Debug)]
struct Scale {
    limit: Option<u64>,
    pressure: Pressure,
    /// Whether the system has ever told.
    is_known: bool,
}

/// The state of one resource; ordered by how short it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Reading {
    pressure: Pressure,
    percent: u128,
}

impl Scale {
    fn new(limit: Option<u64>) -> Self {
        Self { limit, pressure: Pressure::Calm, is_known: false }
    }

    fn on_sample(&mut self, used: Option<u64>) -> Reading {
        let percent = match (self.limit, used) {
            (None, _) => 0,
            (Some(limit), Some(used)) => {
                self.is_known = true;
                u128::from(used) * 100 / u128::from(limit.max(1))
            }
            // Looking takes a descriptor. What could be read and cannot any more is most likely out of descriptors,
            // and calm would be the worst guess; but nobody is evicted on a guess.
            (Some(_), None) if self.is_known => TIGHT_PERCENT,
            (Some(_), None) => 0,
        };
        self.pressure = level(self.pressure, percent);
        Reading { pressure: self.pressure, percent }
    }
}

fn level(before: Pressure, percent: u128) -> Pressure {
    let begins_or_lasts = |level: Pressure, begin: u128| {
        let end = begin - HYSTERESIS_POINTS;
        percent >= if before >= level { end } else { begin }
    };
    if begins_or_lasts(Pressure::Critical, CRITICAL_PERCENT) {
        Pressure::Critical
    } else if begins_or_lasts(Pressure::Tight, TIGHT_PERCENT) {
        Pressure::Tight
    } else {
        Pressure::Calm
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_begin_at_80_and_95_percent_and_end_ten_points_below() {
        let memory = [0, 79, 80, 70, 69, 79, 95, 85, 84, 70, 69, 200, 75, 0].map(|used| (Some(used), None));
        check(
            Budget { memory_budget: Some(100), fds_max: None },
            &memory,
            expect![[r#"
            0 -: calm
            79 -: calm
            80 -: tight memory
            70 -: tight memory
            69 -: calm
            79 -: calm
            95 -: critical memory
            85 -: critical memory
            84 -: tight memory
            70 -: tight memory
            69 -: calm
            200 -: critical memory
            75 -: tight memory
            0 -: calm
        "#]],
        );
    }

    #[test]
    fn the_shorter_resource_binds() {
        let budget = Budget { memory_budget: Some(100), fds_max: Some(1000) };
        let samples = [(85, 100), (85, 900), (85, 950), (96, 950), (10, 860), (10, 849), (10, 699)];
        check(
            budget,
            &samples.map(|(rss, fds)| (Some(rss), Some(fds))),
            expect![[r#"
            85 100: tight memory
            85 900: tight descriptors
            85 950: critical descriptors
            96 950: critical memory
            10 860: critical descriptors
            10 849: tight descriptors
            10 699: calm
        "#]],
        );
    }

    #[test]
    fn what_has_no_limit_or_was_never_told_causes_none() {
        check(
            Budget::default(),
            &[(Some(u64::MAX), Some(u64::MAX))],
            expect![[r#"
            18446744073709551615 18446744073709551615: calm
        "#]],
        );
        let budget = Budget { memory_budget: Some(100), fds_max: Some(100) };
        check(
            budget,
            &[(None, None), (Some(10), None)],
            expect![[r#"
            - -: calm
            10 -: calm
        "#]],
        );
    }

    #[test]
    fn what_is_told_no_more_counts_as_tight() {
        let budget = Budget { memory_budget: None, fds_max: Some(100) };
        check(
            budget,
            &[(None, Some(10)), (None, None), (None, Some(99)), (None, None), (None, Some(10))],
            expect![[r#"
            - 10: calm
            - -: tight descriptors
            - 99: critical descriptors
            - -: tight descriptors
            - 10: calm
        "#]],
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever came before, the level is never below what the sample alone would give, and above it only within ten
        /// points; nothing overflows.
        #[test]
        fn the_past_matters_within_ten_points_only(samples in prop::collection::vec(0..=120u64, 1..50), unit in 1..=u64::MAX / 130) {
            let budget = Budget { memory_budget: Some(100 * unit), fds_max: None };
            let mut gauge = PressureGauge::new(budget);
            let fresh = |percent: u64| {
                let sample = Sample { rss_bytes: Some(percent * unit), open_fds: None };
                PressureGauge::new(budget).on_sample(sample).pressure
            };
            for percent in samples {
                let sample = Sample { rss_bytes: Some(percent * unit), open_fds: None };
                let verdict = gauge.on_sample(sample);
                prop_assert!(verdict.pressure >= fresh(percent) && verdict.pressure <= fresh(percent + 10));
                prop_assert_eq!(verdict.resource.is_some(), verdict.pressure > Pressure::Calm);
            }
        }
    }

    fn check(budget: Budget, samples: &[(Option<u64>, Option<u64>)], expected: Expect) {
        let mut gauge = PressureGauge::new(budget);
        let mut seen = String::new();
        let told = |used: Option<u64>| used.map_or("-".into(), |used| used.to_string());
        for &(rss_bytes, open_fds) in samples {
            let verdict = gauge.on_sample(Sample { rss_bytes, open_fds });
            let resource = verdict.resource.map_or(String::new(), |resource| format!(" {}", resource.name()));
            writeln!(seen, "{} {}: {}{resource}", told(rss_bytes), told(open_fds), verdict.pressure.name())
                .expect("a string takes everything");
        }
        expected.assert_eq(&seen);
    }
}
