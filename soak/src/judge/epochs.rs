//! The judgement of a run: seventeen invariants and the expectations of its scenario, one function each, and one verdict.
//! `[pure]`

use super::{Check, Outcome, Verdict, case, case::Case, conduct, counts, memory};
use crate::run_format::Record;

/// What an invariant is called, and what it is about. `X` is what the scenario expects beyond them.
pub(crate) const INVARIANTS: [(&str, &str); 18] = [
    ("I1", "ledger"),
    ("I2", "drained"),
    ("I3", "caps"),
    ("I4", "retirement"),
    ("I5", "tasks"),
    ("I6", "descriptors"),
    ("I7", "heap"),
    ("I8", "blocks"),
    ("I9", "rss"),
    ("I10", "peak"),
    ("I11", "delivery"),
    ("I12", "duplicates"),
    ("I13", "overlay"),
    ("I14", "conduct"),
    ("I15", "logs"),
    ("I16", "harness"),
    ("I17", "sometimes"),
    ("X", "expectations"),
];

/// What an invariant is about, in a word.
pub(crate) fn title(id: &str) -> &'static str {
    INVARIANTS.iter().find(|(name, _)| *name == id).map_or("", |(_, title)| title)
}

/// Judges a recorded run.
pub(crate) fn judge(record: &Record) -> Verdict {
    let case = Case::new(record);
    let checks: Vec<Check> = [
        counts::ledger_adds_up(&case),
        counts::drained_exactly(&case),
        counts::caps_hold(&case),
        counts::retired_in_time(&case),
        counts::tasks_are_explained(&case),
        counts::descriptors_stay(&case),
        memory::heap_is_flat(&case),
        memory::no_bucket_climbs(&case),
        memory::resident_is_flat(&case),
        memory::peak_is_explained(&case),
        conduct::everything_arrives(&case),
        conduct::nothing_arrives_twice(&case),
        conduct::the_mesh_is_one(&case),
        conduct::nothing_ends_by_itself(&case),
        conduct::the_log_is_quiet(&case),
        conduct::the_harness_is_no_suspect(&case),
        conduct::the_storm_happened(&case),
        conduct::expectations_hold(&case),
    ]
    .into_iter()
    .map(|check| allowed(record, check))
    .collect();
    let any = |outcome| checks.iter().any(|check| check.outcome == outcome);
    let outcome = if any(Outcome::Fail) {
        Outcome::Fail
    } else if any(Outcome::Unknown) || !any(Outcome::Pass) {
        Outcome::Unknown
    } else {
        Outcome::Pass
    };
    Verdict { outcome, checks }
}

/// An invariant that was not asked for keeps its finding, as words only.
fn allowed(record: &Record, check: Check) -> Check {
    match record.info.allow.get(check.name) {
        Some(why) if check.outcome != Outcome::Pass => {
            case::not_judged(check.name, format!("allowed ({why}): {}", check.detail))
        }
        Some(_) | None => check,
    }
}

/// The first line of a report: the verdict and, unless it is a pass, the reason in words.
pub(crate) fn headline(record: &Record, verdict: &Verdict) -> String {
    if let Some(error) = &record.info.harness_error {
        return format!("HARNESS ERROR: {error}");
    }
    let judged = |outcome| verdict.checks.iter().filter(|check| check.outcome == outcome).count();
    match (verdict.reason(), verdict.outcome) {
        (Some(check), Outcome::Fail) => format!("FAIL {}: {}", check.name, check.detail),
        (Some(check), _) => format!("UNKNOWN {}: {}", check.name, check.detail),
        (None, Outcome::Pass) => {
            let not_judged = judged(Outcome::NotJudged);
            format!("PASS {} invariants hold, {not_judged} not judged", judged(Outcome::Pass))
        }
        (None, _) => "UNKNOWN nothing was judged".into(),
    }
}

/// The exit code of one run. 70 when the harness failed, whatever the nodes did.
pub(crate) fn exit_code(record: &Record, verdict: &Verdict) -> u8 {
    if record.info.harness_error.is_some() { 70 } else { verdict.outcome.exit_code() }
}

/// The code of several runs: 70 before 1 before 3 before 2 before 0.
pub(crate) fn worst(codes: impl IntoIterator<Item = u8>) -> u8 {
    const PRECEDENCE: [u8; 5] = [0, 2, 3, 1, 70];
    let rank = |code: &u8| PRECEDENCE.iter().position(|known| known == code).unwrap_or(PRECEDENCE.len());
    codes.into_iter().max_by_key(rank).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome_of(record: &Record, id: &str) -> Outcome {
        judge(record).checks.into_iter().find(|check| check.name == id).unwrap().outcome
    }

    #[test]
    fn a_run_without_barriers_is_unknown_and_never_passes() {
        let mut record = crate::selftest::record("none");
        record.barriers.clear();
        assert_eq!(judge(&record).outcome, Outcome::Unknown);
        let passed = |check: &Check| (check.outcome == Outcome::Pass).then_some(check.name);
        let passed: Vec<_> = judge(&record).checks.iter().filter_map(passed).collect();
        // What happened, the harness and the facts need no barrier.
        assert_eq!(passed, ["I14", "I16", "I17"]);
        for id in ["I1", "I2", "I5", "I6", "I7", "I11", "I12"] {
            assert_eq!(outcome_of(&record, id), Outcome::Unknown, "{id}");
        }
    }

    #[test]
    fn a_storm_that_did_not_happen_proves_nothing() {
        let mut record = crate::selftest::record("none");
        record.info.facts[0].reached = Some(99);
        assert_eq!(headline(&record, &judge(&record)), "UNKNOWN I17: events touched the observer: 99 (at least 100)");
        record.info.facts[0].reached = None;
        assert_eq!(outcome_of(&record, "I17"), Outcome::Unknown);
        record.info.facts.clear();
        assert_eq!(outcome_of(&record, "I17"), Outcome::Unknown);
    }

    #[test]
    fn what_nobody_recorded_is_unknown_where_it_was_promised() {
        let mut record = crate::selftest::record("none");
        record.barriers.iter_mut().for_each(|row| row.heap_bytes = None);
        assert_eq!(outcome_of(&record, "I7"), Outcome::Unknown);
        record.info.level = 1;
        assert_eq!(outcome_of(&record, "I7"), Outcome::NotJudged);
        let mut record = crate::selftest::record("none");
        record.events = None;
        assert_eq!(outcome_of(&record, "I14"), Outcome::Unknown);
        record.info.harness = None;
        assert_eq!(outcome_of(&record, "I16"), Outcome::Unknown);
    }

    #[test]
    fn an_allowance_keeps_the_finding_and_drops_the_judgement() {
        let mut record = crate::selftest::record("leak-fd");
        record.info.allow.insert("I6".into(), "a known leak".into());
        let verdict = judge(&record);
        assert_eq!(verdict.outcome, Outcome::Pass);
        let check = verdict.checks.iter().find(|check| check.name == "I6").unwrap();
        assert!(check.detail.starts_with("allowed (a known leak): descriptors of node 0 grew"), "{}", check.detail);
    }

    #[test]
    fn a_harness_that_failed_says_so_before_anything_else() {
        let mut record = crate::selftest::record("leak-task");
        record.info.harness_error = Some("no space left".into());
        let verdict = judge(&record);
        assert_eq!(
            (exit_code(&record, &verdict), headline(&record, &verdict).as_str()),
            (70, "HARNESS ERROR: no space left")
        );
    }

    #[test]
    fn a_leak_at_a_node_that_is_not_the_observer_is_found() {
        let mut record = crate::selftest::record("none");
        for row in record.barriers.iter_mut().filter(|row| row.node == 2) {
            row.heap_bytes = row.heap_bytes.map(|bytes| bytes + 4096 * row.events);
        }
        let said = headline(&record, &judge(&record));
        assert!(said.starts_with("FAIL I7: heap +") && said.ends_with("at node 2"), "{said}");
    }

    #[test]
    fn the_worst_code_wins_in_the_order_of_the_help() {
        assert_eq!(worst([]), 0);
        assert_eq!(worst([0, 2, 3]), 3);
        assert_eq!(worst([3, 1, 2]), 1);
        assert_eq!(worst([1, 70, 0]), 70);
    }
}
