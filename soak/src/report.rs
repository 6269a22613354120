//! What a run leaves for its reader: a table and a verdict on stdout, or one JSON object, and the files of `--report`.

use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

use crate::{
    judge::{Evidence, Outcome, Verdict},
    plan::Plan,
    samples::{self, Sample, Status},
};

/// The verdict object of `--json` and `verdict.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub v: u32,
    #[serde(flatten)]
    pub verdict: &'a Verdict,
    pub evidence: &'a Evidence,
    /// The command that runs the same plan again.
    pub reproduce: String,
}

/// Writes a file of the report.
pub(crate) fn write(directory: &Path, name: &str, content: &str) -> Result<()> {
    let path = directory.join(name);
    std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// `plan.json`, written before the first process starts.
pub(crate) fn write_plan(directory: &Path, plan: &Plan) -> Result<()> {
    write(directory, "plan.json", &serde_json::to_string_pretty(plan)?)
}

/// `verdict.json` and `samples.csv`.
pub(crate) fn write_verdict(directory: &Path, report: &Report<'_>, samples: &[Sample]) -> Result<()> {
    write(directory, "samples.csv", &samples::csv(samples))?;
    write(directory, "verdict.json", &serde_json::to_string_pretty(report)?)
}

/// The report for a reader: the observer before and after, every check, the verdict.
pub(crate) fn text(report: &Report<'_>) -> String {
    let Report { verdict, evidence, reproduce, .. } = report;
    let mut checks = Table::new();
    checks.load_preset(NOTHING);
    for check in &verdict.checks {
        checks.add_row([word(check.outcome), check.name, &check.detail]);
    }
    let mut out = format!("{}\n\n{}\n", observer(evidence), checks.trim_fmt());
    for fault in evidence.faults.iter().skip(1) {
        out += &format!("also: {fault}\n");
    }
    let mut event_ms = evidence.event_ms.clone();
    event_ms.sort_unstable();
    if let Some(slowest_ms) = event_ms.last() {
        let median_ms = event_ms[event_ms.len() / 2];
        out += &format!("\na node was back with a neighbour after {median_ms} ms (median), {slowest_ms} ms (slowest)");
    }
    if let Some(settle_s) = evidence.settle_s {
        out += &format!("\nsettled within {settle_s:.0} s of the last event, quiet time included\n");
    }
    out += &format!("\n{}", word(verdict.outcome).to_uppercase());
    if let Some(check) = verdict.reason() {
        out += &format!("  {}: {}", check.name, check.detail);
    }
    out += &format!("\nreproduce: {reproduce}\n");
    out
}

fn observer(evidence: &Evidence) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["observer", "before", "after", "change"]);
    let status = |sample: &Option<Sample>| sample.as_ref().map(|sample| sample.status);
    let (before, after) = (status(&evidence.before), status(&evidence.after));
    let ledger = |sample: &Option<Sample>| {
        sample.as_ref().map(|Sample { ledger, .. }| (ledger.connections_alive() as i64, ledger.orphans))
    };
    let (ledger_before, ledger_after) = (ledger(&evidence.before), ledger(&evidence.after));
    let mut row = |name: &str, before: Option<i64>, after: Option<i64>| {
        let cell = |figure: Option<i64>| figure.map_or("unknown".into(), |figure| figure.to_string());
        let change = before.zip(after).map_or(String::new(), |(before, after)| format!("{:+}", after - before));
        table.add_row([name.to_owned(), cell(before), cell(after), change]);
    };
    type Figure = fn(Status) -> Option<u64>;
    let figures: [(&str, Figure); 7] = [
        ("neighbours", |status| Some(status.neighbors)),
        ("connections", |status| Some(status.connections)),
        ("half-open", |status| Some(status.half_open)),
        ("tasks", |status| Some(status.alive_tasks)),
        ("heap bytes", |status| status.heap_bytes),
        ("rss bytes", |status| status.rss_bytes),
        ("open fds", |status| status.open_fds),
    ];
    for (name, figure) in figures {
        let read = |status: Option<Status>| status.and_then(figure).map(|figure| figure as i64);
        row(name, read(before), read(after));
    }
    let alive = |ledger: Option<(i64, i64)>| ledger.map(|(alive, _)| alive);
    row("connections, spawned - finished", alive(ledger_before), alive(ledger_after));
    let orphans = |ledger: Option<(i64, i64)>| ledger.map(|(_, orphans)| orphans);
    row("orphans", orphans(ledger_before), orphans(ledger_after));
    for column in 1..=3 {
        let column = table.column_mut(column).expect("the table has four columns");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// An outcome in words.
pub(crate) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Unknown => "unknown",
        Outcome::NotJudged => "not judged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::judge,
        plan::{Scenario, Shape},
    };

    #[test]
    fn an_empty_run_reads_as_unknown_and_tells_no_zeros() {
        let plan =
            Plan::draw(Shape { scenario: Scenario::Rotate, seed: 7, nodes: 5, warm_up: 0, events: 9, probe_every: 3 });
        let evidence = Evidence::empty(&plan);
        let verdict = judge(&evidence);
        let report = Report { v: 1, verdict: &verdict, evidence: &evidence, reproduce: "again".into() };
        let text = text(&report);
        assert!(text.contains("\nUNKNOWN  events: 0 of 9 planned\nreproduce: again\n"), "{text}");
        assert!(text.lines().any(|line| line.contains("tasks") && line.contains("unknown")), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((json["v"].as_u64(), json["outcome"].as_str()), (Some(1), Some("unknown")));
        assert!(json["evidence"]["after"].is_null());
    }
}
