//! The verdict rule: PASS needs evidence of flatness, FAIL needs evidence of growth, and between them nobody knows.
//! `[pure]`
//!
//! "Not significant" is not "flat". A slope passes when its upper bound is below the budget, fails when its lower bound is
//! above it, and otherwise the run goes on to the next look. One point per drained barrier: raw samples follow each other
//! and would cry leak in a third of healthy runs.

use perennial_soak::stats::{Slope, theil_sen};

use super::Outcome;

/// Judged epochs at which the slope is looked at. The first three are calibrated: a leak of twice the budget is seen at
/// the first or second, and nothing healthy failed in 300 simulated runs. The others are for runs of a week.
pub(crate) const LOOKS: [usize; 6] = [12, 20, 32, 64, 128, 256];

/// The chance of a wrong answer at one look, on each side. Three looks stay below 3 %.
pub(crate) const ALPHA: f64 = 0.01;

/// What the slope says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Flatness {
    pub outcome: Outcome,
    /// Points the deciding look had.
    pub points: usize,
    /// `None` below the first look.
    pub slope: Option<Slope>,
}

/// Judges `(events, figure)` against a budget per event. A failure at any look fails; otherwise the last look that the
/// run has reached decides.
pub(crate) fn flatness(points: &[(f64, f64)], budget: f64, alpha: f64) -> Flatness {
    let mut last = Flatness { outcome: Outcome::Unknown, points: points.len(), slope: None };
    for look in LOOKS.into_iter().take_while(|look| *look <= points.len()) {
        let Some(slope) = theil_sen(&points[..look], alpha) else { break };
        let outcome = if slope.lower > budget {
            Outcome::Fail
        } else if slope.upper < budget {
            Outcome::Pass
        } else {
            Outcome::Unknown
        };
        last = Flatness { outcome, points: look, slope: Some(slope) };
        if outcome == Outcome::Fail {
            break;
        }
    }
    last
}

/// As [`flatness`], of a series too short for a look: it may fail, if all of the slope is above the budget, and never passes.
/// Five points are the least that can.
pub(crate) fn few(points: &[(f64, f64)], budget: f64, alpha: f64) -> Flatness {
    let slope = theil_sen(points, alpha);
    let outcome = match slope {
        Some(slope) if slope.lower > budget => Outcome::Fail,
        Some(_) | None => Outcome::NotJudged,
    };
    Flatness { outcome, points: points.len(), slope }
}

/// The slope in words, in bytes per event.
pub(crate) fn sentence(what: &str, flatness: &Flatness, budget: f64) -> String {
    let Some(Slope { estimate, lower, upper }) = flatness.slope else {
        return format!("{what} not judged: {} epochs, the first look is at {}", flatness.points, LOOKS[0]);
    };
    let relation = match flatness.outcome {
        Outcome::Pass => "below",
        Outcome::Fail => "above",
        Outcome::Unknown | Outcome::NotJudged => "on both sides of",
    };
    format!(
        "{what} {estimate:+.0} B/event [{lower:+.0}, {upper:+.0}] at 99 % over {} epochs, {relation} {budget:.0}",
        flatness.points
    )
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;

    /// The calibration of the rule: 50 events per epoch, barrier noise that remembers 0.3 of itself.
    fn share(noise_bytes: f64, leak_bytes: f64, wanted: Outcome) -> usize {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut count = 0;
        for _ in 0..200 {
            let mut kept = 0.0;
            let mut points = Vec::new();
            for epoch in 0..32 {
                // Twelve uniforms less six: a normal deviate, near enough.
                let fresh: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
                kept = 0.3 * kept + fresh * (1.0_f64 - 0.09).sqrt() * noise_bytes;
                let events = 50.0 * f64::from(epoch);
                points.push((events, 4e6 + leak_bytes * events + kept));
            }
            // A run stops at its first answer.
            let decided = LOOKS[..3].iter().map(|look| flatness(&points[..*look], 512.0, ALPHA).outcome);
            let outcome = decided.clone().find(|outcome| *outcome != Outcome::Unknown).unwrap_or(Outcome::Unknown);
            count += usize::from(outcome == wanted);
        }
        count * 100 / 200
    }

    #[test]
    fn the_rule_is_as_sharp_as_calibrated() {
        let kib = 1024.0;
        assert!(share(64.0 * kib, 0.0, Outcome::Pass) >= 99);
        assert_eq!(share(64.0 * kib, 0.0, Outcome::Fail), 0);
        assert!(share(64.0 * kib, kib, Outcome::Fail) >= 99);
        assert!(share(128.0 * kib, 0.0, Outcome::Pass) >= 97);
        assert!(share(128.0 * kib, kib, Outcome::Fail) >= 97);
        assert!(share(256.0 * kib, 2.4 * kib, Outcome::Fail) >= 97);
        let undecided = share(64.0 * kib, 512.0, Outcome::Unknown);
        assert!(undecided >= 75, "on the budget nobody knows: {undecided} %");
    }

    #[test]
    fn too_few_epochs_are_no_evidence() {
        let points: Vec<(f64, f64)> = (0..11).map(|epoch| (f64::from(epoch) * 50.0, 4e6)).collect();
        let flat = flatness(&points, 512.0, ALPHA);
        assert_eq!((flat.outcome, flat.slope), (Outcome::Unknown, None));
        assert_eq!(sentence("heap", &flat, 512.0), "heap not judged: 11 epochs, the first look is at 12");
    }

    #[test]
    fn a_few_points_can_fail_and_never_pass() {
        let points = |count: i32, leak: f64| -> Vec<(f64, f64)> {
            (0..count).map(|at| (f64::from(at) * 400.0, 4e6 + leak * f64::from(at) * 400.0)).collect()
        };
        assert_eq!(few(&points(5, 1024.0), 512.0, ALPHA).outcome, Outcome::Fail);
        assert_eq!(few(&points(4, 1024.0), 512.0, ALPHA).outcome, Outcome::NotJudged, "chance does as much");
        assert_eq!(few(&points(9, 0.0), 512.0, ALPHA).outcome, Outcome::NotJudged);
    }

    #[test]
    fn a_leak_that_begins_late_fails_at_a_later_look() {
        let late = |epoch: i32| f64::from((epoch - 10).max(0)) * 50.0 * 4096.0;
        let points: Vec<(f64, f64)> = (0..32).map(|epoch| (f64::from(epoch) * 50.0, 4e6 + late(epoch))).collect();
        assert_eq!(flatness(&points, 512.0, ALPHA).outcome, Outcome::Fail);
    }
}
