//! From single measurements to what may be said of two subjects: better, worse, not shown, unknown; and whether the goals
//! of the first are met. `[pure]`
//!
//! Everything is decided by signs of differences within pairs, so nothing is assumed of how a figure is spread. A claim
//! needs the whole interval on one side, and an interval needs enough pairs to mean something.

use perennial_soak::stats::{Covered, median, median_interval};
use serde::Serialize;

use super::row::{Goal, Kind, Reading, Row, significant};

/// Both sides of one pair; a side that told nothing says why.
pub(crate) type Pair = [Result<Reading, String>; 2];

/// The level of every interval, two-sided, where there are pairs enough for it.
const ALPHA: f64 = 0.05;

/// An interval that covers less proves nothing. Five pairs, the least the statistics are planned for, reach 93.75 %.
const COVERAGE_MIN: f64 = 0.9;

/// What is known of the circumstances of a row.
#[derive(Debug, Clone, Default)]
pub(crate) struct Circumstances {
    /// The load before the start, where the machine was too busy for times.
    pub busy: Option<f64>,
    /// What was made smaller than the goals were set for.
    pub shrunk: Option<String>,
    /// The ratio that the caller allows.
    pub allowed: Option<f64>,
}

/// What the first subject is against the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Comparison {
    Better,
    Worse,
    NotShown,
    Unknown,
}

impl Comparison {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NotShown => "not shown",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a goal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Met,
    NotJudged,
    NotMet,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotJudged => "not judged",
            Self::NotMet => "not met",
        }
    }
}

/// A ratio of the two, and whether open ends make it a bound only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    pub covered: Covered,
    /// The truth is this or less: the second subject did not reach the end.
    pub at_most: bool,
    /// The truth is this or more: the first did not.
    pub at_least: bool,
}

/// A row, judged.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    pub row: &'static Row,
    pub pairs: Vec<Pair>,
    /// The medians of both sides, over what was told.
    pub medians: [Option<Reading>; 2],
    /// Where every figure is above zero.
    pub ratio: Option<Ratio>,
    pub comparison: Comparison,
    /// Why it is unknown or not shown.
    pub because: Option<String>,
    pub goals: Vec<(Goal, State, Option<String>)>,
    pub circumstances: Circumstances,
    /// Where the caller's own limit stands.
    pub allowed: Option<State>,
}

impl Judged {
    /// The worst of the goals. A row without one is not judged.
    pub(crate) fn goal(&self) -> State {
        self.goals.iter().map(|(_, state, _)| *state).max().unwrap_or(State::NotJudged)
    }

    /// Whether something that was asked cannot be told.
    pub(crate) fn is_unknown(&self) -> bool {
        self.comparison == Comparison::Unknown || self.allowed == Some(State::NotJudged)
    }

    /// Whether the first subject broke something exact.
    pub(crate) fn is_violated(&self) -> bool {
        self.goals.iter().any(|(goal, state, _)| goal.is_exact() && *state == State::NotMet)
    }
}

/// Judges one row.
pub(crate) fn judge(row: &'static Row, pairs: Vec<Pair>, circumstances: Circumstances) -> Judged {
    let told = |side: usize| pairs.iter().filter_map(move |pair| pair[side].as_ref().ok().copied());
    let medians = [middle(told(0).collect()), middle(told(1).collect())];
    let whole: Vec<[Reading; 2]> = pairs.iter().filter_map(both).collect();
    let (comparison, because) = match unknown(row, &pairs, &whole, circumstances.busy) {
        Some(because) => (Comparison::Unknown, Some(because)),
        None => compare(&whole),
    };
    let first: Vec<Reading> = told(0).collect();
    let state = |goal: &Goal| {
        let (state, because) = on_goal(row, *goal, &first, &pairs, &whole, &circumstances);
        (*goal, state, because)
    };
    let goals = row.goals.iter().map(state).collect();
    let allowed = circumstances.allowed.map(|most| match comparison {
        Comparison::Unknown => State::NotJudged,
        Comparison::Better | Comparison::Worse | Comparison::NotShown => within(&whole, most).0,
    });
    let ratio = if comparison == Comparison::Unknown { None } else { ratio(&whole) };
    Judged { row, pairs, medians, ratio, comparison, because, goals, circumstances, allowed }
}

/// What the exit code says of all rows: 1 before 3 before 2 before 0.
pub(crate) fn exit_code(rows: &[Judged]) -> u8 {
    if rows.iter().any(Judged::is_violated) {
        1
    } else if rows.iter().any(|row| row.allowed == Some(State::NotMet)) {
        3
    } else if rows.is_empty() || rows.iter().any(Judged::is_unknown) {
        2
    } else {
        0
    }
}

/// The first line for a reader.
pub(crate) fn headline(rows: &[Judged], load: Option<f64>) -> String {
    let count = |wanted| rows.iter().filter(|row| row.comparison == wanted).count();
    let names = |filter: fn(&Judged) -> bool| {
        rows.iter().filter(|row| filter(row)).map(|row| row.row.id).collect::<Vec<_>>().join(", ")
    };
    let found = format!(
        "{} better, {} worse, {} not shown, {} unknown",
        count(Comparison::Better),
        count(Comparison::Worse),
        count(Comparison::NotShown),
        count(Comparison::Unknown)
    );
    match (exit_code(rows), load) {
        (1, _) => format!("FAIL: {} must be exact and is not; {found}", names(Judged::is_violated)),
        (3, _) => {
            let over = names(|row| row.allowed == Some(State::NotMet));
            format!("WORSE than allowed: {over}; {found}")
        }
        (2, Some(load)) => format!("UNKNOWN: load {load:.1} before start; {found}"),
        (2, None) => format!("UNKNOWN: {}; {found}", names(Judged::is_unknown)),
        (_, Some(load)) => format!("{found}; load {load:.1} before start"),
        (_, None) => found,
    }
}

fn both(pair: &Pair) -> Option<[Reading; 2]> {
    match pair {
        [Ok(a), Ok(b)] => Some([*a, *b]),
        [Err(_), _] | [_, Err(_)] => None,
    }
}

/// Why nothing can be said, if so.
fn unknown(row: &Row, pairs: &[Pair], whole: &[[Reading; 2]], busy: Option<f64>) -> Option<String> {
    for (number, pair) in pairs.iter().enumerate() {
        for (side, name) in pair.iter().zip(["a", "b"]) {
            if let Err(why) = side {
                return Some(format!("{name} in pair {}: {why}", number + 1));
            }
        }
    }
    if whole.is_empty() {
        return Some("nothing was measured".into());
    }
    if row.kind == Kind::Time
        && let Some(load) = busy
    {
        return Some(format!("load {load:.1} before start"));
    }
    let neither = whole.iter().position(|pair| pair.iter().all(|side| side.is_open()))?;
    Some(format!("neither ended in time in pair {}", neither + 1))
}

fn compare(whole: &[[Reading; 2]]) -> (Comparison, Option<String>) {
    let Some(Covered { interval, coverage }) = scaled(whole, 1.0) else { return (Comparison::NotShown, None) };
    let open = |side: usize| whole.iter().any(|pair| pair[side].is_open());
    if coverage < COVERAGE_MIN {
        return (Comparison::NotShown, Some(too_few(whole.len(), coverage)));
    }
    // A side that did not reach its end is worse than its figure, never better.
    if interval.upper < 0.0 && !open(0) {
        (Comparison::Better, None)
    } else if interval.lower > 0.0 && !open(1) {
        (Comparison::Worse, None)
    } else {
        (Comparison::NotShown, None)
    }
}

fn on_goal(
    row: &Row,
    goal: Goal,
    first: &[Reading],
    pairs: &[Pair],
    whole: &[[Reading; 2]],
    circumstances: &Circumstances,
) -> (State, Option<String>) {
    let not = |why: String| (State::NotJudged, Some(why));
    if let Goal::Zero | Goal::Reached = goal {
        let broken = first.iter().filter(|reading| reading.is_open() || (goal == Goal::Zero && reading.value() > 0.0));
        return match broken.count() {
            0 if first.len() < pairs.len() || first.is_empty() => not("a did not tell it in every run".into()),
            0 => (State::Met, None),
            count => (State::NotMet, Some(format!("broken in {count} of {} runs", first.len()))),
        };
    }
    if circumstances.shrunk.is_some() {
        return not("set for the full size".into());
    }
    if row.kind == Kind::Time
        && let Some(load) = circumstances.busy
    {
        return not(format!("load {load:.1} before start"));
    }
    if whole.len() < pairs.len() {
        return not("not told in every run".into());
    }
    match goal {
        Goal::AtMost(most) => below(first, most),
        Goal::Ratio(most) => within(whole, most),
        Goal::Zero | Goal::Reached => not("exact".into()),
    }
}

/// Whether the middle of the readings is at most `most`.
fn below(readings: &[Reading], most: f64) -> (State, Option<String>) {
    let values: Vec<f64> = readings.iter().map(|reading| reading.value() - most).collect();
    decided(median_interval(&values, ALPHA), readings.iter().any(|reading| reading.is_open()), false, values.len())
}

/// Whether the first subject has at most `most` times what the second has.
fn within(whole: &[[Reading; 2]], most: f64) -> (State, Option<String>) {
    if whole.iter().any(|[_, b]| b.value() <= 0.0) {
        // Times nothing is nothing: there is no measure to hold the first against.
        return (State::NotJudged, Some("b shows none".into()));
    }
    let open = |side: usize| whole.iter().any(|pair| pair[side].is_open());
    decided(scaled(whole, most), open(0), open(1), whole.len())
}

/// Where the differences lie: all at most zero, all above, or on both sides. An open first side may be larger than it
/// looks, an open second side too.
fn decided(covered: Option<Covered>, first_open: bool, second_open: bool, count: usize) -> (State, Option<String>) {
    let Some(Covered { interval, coverage }) = covered else { return (State::NotJudged, None) };
    if coverage < COVERAGE_MIN {
        (State::NotJudged, Some(too_few(count, coverage)))
    } else if interval.upper <= 0.0 && !first_open {
        (State::Met, None)
    } else if interval.lower > 0.0 && !second_open {
        (State::NotMet, None)
    } else {
        (State::NotJudged, Some("the interval spans the goal".into()))
    }
}

/// `a − factor × b` over the pairs.
fn scaled(whole: &[[Reading; 2]], factor: f64) -> Option<Covered> {
    let differences: Vec<f64> = whole.iter().map(|[a, b]| a.value() - factor * b.value()).collect();
    median_interval(&differences, ALPHA)
}

/// The ratios of the pairs; `None` where a figure is not above zero, or where open ends on both sides leave it anywhere.
fn ratio(whole: &[[Reading; 2]]) -> Option<Ratio> {
    if whole.iter().flatten().any(|reading| reading.value() <= 0.0) {
        return None;
    }
    let open = |side: usize| whole.iter().any(|pair| pair[side].is_open());
    let ratios: Vec<f64> = whole.iter().map(|[a, b]| a.value() / b.value()).collect();
    let ratio = Ratio { covered: median_interval(&ratios, ALPHA)?, at_most: open(1), at_least: open(0) };
    (!(ratio.at_most && ratio.at_least)).then_some(ratio)
}

/// The median, open where as many readings are open that it may be larger.
fn middle(readings: Vec<Reading>) -> Option<Reading> {
    let values: Vec<f64> = readings.iter().map(|reading| reading.value()).collect();
    let middle = median(&values)?;
    let is_open = readings.iter().any(|reading| reading.is_open() && reading.value() <= middle);
    Some(if is_open { Reading::AtLeast(middle) } else { Reading::Is(middle) })
}

fn too_few(pairs: usize, coverage: f64) -> String {
    let noun = if pairs == 1 { "pair reaches" } else { "pairs reach" };
    format!("{pairs} {noun} {} % at most", significant(coverage * 100.0))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::row::{Reading::*, Unit},
        *,
    };

    const LEAK: Row = Row {
        id: "P2",
        title: "heap left per rotation",
        unit: Unit::Bytes,
        kind: Kind::Size,
        goals: &[Goal::AtMost(512.0), Goal::Ratio(0.004)],
        source: "made up",
    };
    const COUNT: Row = Row { id: "P1", kind: Kind::Count, goals: &[Goal::Zero], ..LEAK };
    const TIME: Row = Row { id: "P15-50", kind: Kind::Time, goals: &[Goal::Reached, Goal::Ratio(0.7)], ..LEAK };

    fn told(pairs: &[(f64, f64)]) -> Vec<Pair> {
        pairs.iter().map(|(a, b)| [Ok(Is(*a)), Ok(Is(*b))]).collect()
    }

    fn calm(row: &'static Row, pairs: Vec<Pair>) -> Judged {
        judge(row, pairs, Circumstances::default())
    }

    fn states(judged: &Judged) -> Vec<State> {
        judged.goals.iter().map(|(_, state, _)| *state).collect()
    }

    #[test]
    fn five_pairs_on_one_side_are_a_claim() {
        let pairs = [(300.0, 140e3), (250.0, 138e3), (320.0, 139e3), (280.0, 141e3), (310.0, 137e3)];
        let judged = calm(&LEAK, told(&pairs));
        assert_eq!((judged.comparison, states(&judged)), (Comparison::Better, vec![State::Met; 2]));
        let ratio = judged.ratio.unwrap().covered;
        assert_eq!((ratio.interval.lower, ratio.interval.upper), (250.0 / 138e3, 320.0 / 139e3));
        assert_eq!(ratio.coverage, 0.9375);
        assert_eq!(exit_code(&[judged]), 0);
    }

    #[test]
    fn one_pair_to_the_other_side_is_no_claim_among_five_and_one_among_twelve() {
        let mut pairs = vec![(2.0, 1.0); 4];
        pairs.push((1.0, 2.0));
        assert_eq!(calm(&LEAK, told(&pairs)).comparison, Comparison::NotShown);
        pairs.extend([(2.0, 1.0); 7]);
        assert_eq!(calm(&LEAK, told(&pairs)).comparison, Comparison::Worse);
    }

    #[test]
    fn four_pairs_show_nothing_and_say_so() {
        let judged = calm(&LEAK, told(&[(1.0, 2e6); 4]));
        assert_eq!(judged.comparison, Comparison::NotShown);
        assert_eq!(judged.because.as_deref(), Some("4 pairs reach 87.5 % at most"));
        assert_eq!(judged.goal(), State::NotJudged);
        assert_eq!(calm(&LEAK, told(&[(1.0, 2.0)])).because.as_deref(), Some("1 pair reaches 0 % at most"));
    }

    #[test]
    fn a_side_that_dies_or_is_silent_is_never_a_win() {
        for side in [0, 1] {
            let mut pairs = told(&[(1.0, 2e6); 5]);
            pairs[3][side] = Err("node 2 ended by itself".into());
            let judged = calm(&LEAK, pairs);
            assert_eq!((judged.comparison, judged.ratio), (Comparison::Unknown, None));
            assert!(judged.because.as_ref().unwrap().contains("in pair 4: node 2 ended by itself"), "{judged:?}");
            assert_eq!(judged.goal(), State::NotJudged);
            assert_eq!(exit_code(&[judged]), 2);
        }
    }

    #[test]
    fn counts_are_compared_without_a_ratio_where_one_is_nothing() {
        let judged = calm(&COUNT, told(&[(0.0, 644.0), (0.0, 650.0), (0.0, 670.0), (0.0, 655.0), (0.0, 660.0)]));
        assert_eq!((judged.comparison, judged.ratio, judged.goal()), (Comparison::Better, None, State::Met));
        assert_eq!(judged.medians, [Some(Is(0.0)), Some(Is(655.0))]);
        assert_eq!(calm(&COUNT, told(&[(0.0, 0.0); 5])).comparison, Comparison::NotShown);
    }

    #[test]
    fn what_is_exact_is_broken_by_one_run_of_the_first_subject() {
        let mut pairs = told(&[(0.0, 644.0); 5]);
        pairs[4][0] = Ok(Is(1.0));
        let judged = calm(&COUNT, pairs.clone());
        assert_eq!(judged.goals[0].2.as_deref(), Some("broken in 1 of 5 runs"));
        assert_eq!(exit_code(&[judged]), 1);
        // Also where the other side told nothing, and where everything was made smaller.
        pairs[0][1] = Err("died".into());
        let shrunk = Circumstances { shrunk: Some("smaller".into()), ..Circumstances::default() };
        assert_eq!(exit_code(&[judge(&COUNT, pairs, shrunk)]), 1);
        let mut silent = told(&[(0.0, 1.0); 5]);
        silent[1][0] = Err("died".into());
        assert_eq!(calm(&COUNT, silent).goal(), State::NotJudged, "four runs do not speak for the fifth");
    }

    #[test]
    fn an_open_end_bounds_a_ratio_and_never_flatters() {
        let open_second: Vec<Pair> = vec![[Ok(Is(2.0)), Ok(AtLeast(120.0))]; 5];
        let judged = calm(&TIME, open_second);
        assert_eq!((judged.comparison, states(&judged)), (Comparison::Better, vec![State::Met; 2]));
        assert!(judged.ratio.unwrap().at_most && !judged.ratio.unwrap().at_least);
        assert_eq!(judged.medians[1], Some(AtLeast(120.0)));

        // 30 s or more against 40 s may be anything; 50 s or more against 40 s is worse.
        let first = |at_least| vec![[Ok(AtLeast(at_least)), Ok(Is(40.0))]; 5];
        assert_eq!(calm(&TIME, first(30.0)).comparison, Comparison::NotShown);
        assert_eq!(calm(&TIME, first(50.0)).comparison, Comparison::Worse);
        assert_eq!(exit_code(&[calm(&TIME, first(50.0))]), 1, "the end must be reached");
        let both_open: Vec<Pair> = vec![[Ok(AtLeast(9.0)), Ok(AtLeast(9.0))]; 5];
        assert_eq!(calm(&TIME, both_open).comparison, Comparison::Unknown);
    }

    #[test]
    fn a_busy_machine_has_no_times_but_sizes() {
        let busy = || Circumstances { busy: Some(3.1), ..Circumstances::default() };
        let judged = judge(&TIME, told(&[(1.0, 9.0); 5]), busy());
        assert_eq!((judged.comparison, judged.ratio), (Comparison::Unknown, None));
        assert_eq!(states(&judged), [State::Met, State::NotJudged], "reaching the end is not a time");
        assert_eq!(
            headline(&[judged], Some(3.1)),
            "UNKNOWN: load 3.1 before start; 0 better, 0 worse, 0 not shown, 1 unknown"
        );
        assert_eq!(judge(&LEAK, told(&[(1.0, 9e5); 5]), busy()).comparison, Comparison::Better);
    }

    #[test]
    fn a_quick_run_judges_no_goal_that_needs_the_size() {
        let shrunk = Circumstances { shrunk: Some("smaller".into()), ..Circumstances::default() };
        let judged = judge(&LEAK, told(&[(1.0, 9e5); 5]), shrunk);
        assert_eq!((judged.comparison, states(&judged)), (Comparison::Better, vec![State::NotJudged; 2]));
    }

    #[test]
    fn a_ratio_to_nothing_is_not_judged() {
        let judged = calm(&LEAK, told(&[(-20.0, 0.0), (5.0, -3.0), (1.0, 0.0), (2.0, 0.0), (2.0, 0.0)]));
        assert_eq!(states(&judged), [State::Met, State::NotJudged]);
        assert_eq!(judged.goals[1].2.as_deref(), Some("b shows none"));
        // Nothing left on the first side is within any share of what the second keeps.
        let judged = calm(&LEAK, told(&[(-20.0, 140e3); 5]));
        assert_eq!((judged.comparison, states(&judged), judged.ratio), (Comparison::Better, vec![State::Met; 2], None));
    }

    #[test]
    fn a_limit_of_the_callers_decides_between_2_and_3() {
        let code = |a: f64, pairs: usize, most: f64| {
            let circumstances = Circumstances { allowed: Some(most), ..Circumstances::default() };
            exit_code(&[judge(&LEAK, told(&vec![(a, 100.0); pairs]), circumstances)])
        };
        assert_eq!(code(120.0, 5, 1.3), 0);
        assert_eq!(code(120.0, 5, 1.1), 3);
        assert_eq!(code(120.0, 2, 1.1), 2, "two pairs cannot tell");
    }

    #[test]
    fn an_exact_violation_comes_before_a_ratio_before_the_unknown() {
        let over = Circumstances { allowed: Some(0.5), ..Circumstances::default() };
        let worse = || judge(&LEAK, told(&[(2.0, 1.0); 5]), over.clone());
        let unknown = || calm(&LEAK, vec![[Err("silent".into()), Ok(Is(1.0))]]);
        let broken = || calm(&COUNT, told(&[(3.0, 4.0)]));
        assert_eq!(exit_code(&[unknown(), worse(), broken()]), 1);
        assert_eq!(exit_code(&[unknown(), worse()]), 3);
        assert_eq!(exit_code(&[unknown(), calm(&LEAK, told(&[(1.0, 2.0); 5]))]), 2);
        assert_eq!(exit_code(&[]), 2);
        assert!(headline(&[unknown(), worse(), broken()], None).starts_with("FAIL: P1 must be exact"));
        assert!(headline(&[worse()], None).starts_with("WORSE than allowed: P2;"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sides_swapped_turn_the_claim_round(pairs in vec((0.1..1e6_f64, 0.1..1e6_f64), 1..25)) {
            let there = calm(&LEAK, told(&pairs));
            let swapped: Vec<_> = pairs.iter().map(|(a, b)| (*b, *a)).collect();
            let back = calm(&LEAK, told(&swapped));
            let turned = match there.comparison {
                Comparison::Better => Comparison::Worse,
                Comparison::Worse => Comparison::Better,
                other => other,
            };
            prop_assert_eq!(back.comparison, turned);
        }

        #[test]
        fn a_claim_is_a_whole_interval_on_one_side_of_one(pairs in vec((0.1..10.0_f64, 0.1..10.0_f64), 1..25)) {
            let judged = calm(&LEAK, told(&pairs));
            let Covered { interval, coverage } = judged.ratio.unwrap().covered;
            let one_side = coverage >= COVERAGE_MIN && (interval.upper < 1.0 || interval.lower > 1.0);
            prop_assert_eq!(matches!(judged.comparison, Comparison::Better | Comparison::Worse), one_side);
            if one_side {
                prop_assert_eq!(judged.comparison == Comparison::Better, interval.upper < 1.0);
            }
        }

        #[test]
        fn two_alike_are_seldom_told_apart(seed in 0..40_u64) {
            use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut figure = || rng.random_range(1.0..2.0_f64).powi(7);
            let claims = (0..400).filter(|_| {
                let pairs: Vec<_> = (0..5).map(|_| (figure(), figure())).collect();
                calm(&LEAK, told(&pairs)).comparison != Comparison::NotShown
            });
            // 6.25 % are expected, 25 of 400; 54 are six standard deviations more.
            prop_assert!(claims.count() <= 54);
        }
    }
}
