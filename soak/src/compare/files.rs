//! What a comparison leaves: a table or one JSON object on stdout, and the files of `--out`.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    Measurement, Report, page,
    row::Reading,
    table,
    verdict::{self, Judged},
    world::Subject,
};
use crate::run_files;

/// The verdict on stdout, the first line first.
pub(crate) fn print(report: &Report, as_json: bool) -> Result<()> {
    if as_json {
        println!("{}", object(report));
        return Ok(());
    }
    println!("{}\n", verdict::headline(&report.rows, report.machine.busy()));
    print!("{}", table::text(&report.rows, names(report)));
    Ok(())
}

/// What was measured so far, so that hours are not lost to a signal.
pub(crate) fn keep(measurements: &[Measurement], subjects: &[Subject; 2], directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    run_files::save(directory, "measurements.csv", &csv(measurements, [&subjects[0].name, &subjects[1].name]))
}

/// Every file of `--out`.
pub(crate) fn write(report: &Report, directory: &Path) -> Result<()> {
    keep(&report.measurements, &report.subjects, directory)?;
    run_files::save(directory, "compare.json", &(serde_json::to_string_pretty(&object(report))? + "\n"))?;
    for row in report.rows.iter().filter(|row| page::is_claim(row)) {
        run_files::save(directory, &format!("{}.svg", row.row.id), &page::plot_alone(row, names(report)))?;
    }
    let argv: Vec<String> = std::env::args().skip(1).collect();
    run_files::save(directory, "compare.html", &page::html(report, &argv))
}

fn names(report: &Report) -> [&str; 2] {
    [&report.subjects[0].name, &report.subjects[1].name]
}

/// One object for programs. What is not known is null, never zero.
fn object(report: &Report) -> Value {
    let subject = |side: usize| {
        let subject = &report.subjects[side];
        let hash = std::fs::read(&subject.bin).map(|bytes| blake3::hash(&bytes).to_hex()[..16].to_owned()).ok();
        json!({"name": subject.name, "bin": subject.bin, "blake3": hash})
    };
    json!({
        "v": 1,
        "headline": verdict::headline(&report.rows, report.machine.busy()),
        "exit": verdict::exit_code(&report.rows),
        "a": subject(0),
        "b": subject(1),
        "seed": report.seed,
        "pairs": report.pairs,
        "quick": report.quick,
        "took_s": report.took_s,
        "machine": {
            "load_before": report.machine.load,
            "busy": report.machine.busy().is_some(),
            "cpus": report.machine.cpus,
            "kernel": report.machine.kernel,
        },
        "rows": report.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn row(judged: &Judged) -> Value {
    let row = judged.row;
    let side = |side: usize| {
        let told = |pair: &verdict::Pair| pair[side].as_ref().map_or(Value::Null, |reading| reading_value(*reading));
        json!({
            "median": judged.medians[side].map(reading_value),
            "readings": judged.pairs.iter().map(told).collect::<Vec<_>>(),
        })
    };
    let ratio = judged.ratio.map(|ratio| {
        let interval = ratio.covered.interval;
        json!({
            "median": interval.estimate, "lower": interval.lower, "upper": interval.upper,
            "coverage": ratio.covered.coverage, "at_most": ratio.at_most, "at_least": ratio.at_least,
        })
    });
    let goal = |(goal, state, because): &(super::row::Goal, verdict::State, Option<String>)| json!({"goal": goal.show(row.unit), "exact": goal.is_exact(), "state": state, "because": because});
    json!({
        "id": row.id,
        "title": row.title,
        "unit": row.unit.name(),
        "kind": row.kind,
        "a": side(0),
        "b": side(1),
        "ratio": ratio,
        "comparison": judged.comparison,
        "because": judged.because,
        "goals": judged.goals.iter().map(goal).collect::<Vec<_>>(),
        "goal": judged.goal(),
        "source": row.source,
        "max_ratio": judged.circumstances.allowed,
        "within_max_ratio": judged.allowed,
        "shrunk": judged.circumstances.shrunk,
    })
}

/// A number, or an object that says it is only a lower bound.
fn reading_value(reading: Reading) -> Value {
    match reading {
        Reading::Is(value) => json!(value),
        Reading::AtLeast(value) => json!({"at_least": value}),
    }
}

/// Every single measurement. What was not told is an empty cell with its reason.
fn csv(measurements: &[Measurement], names: [&str; 2]) -> String {
    let mut out = String::from("pair,side,subject,first,course,row,value,at_least,took_s,because\n");
    for one in measurements {
        let (value, open, because) = match &one.reading {
            Ok(reading) => (reading.value().to_string(), reading.is_open(), String::new()),
            Err(why) => (String::new(), false, format!("\"{}\"", why.replace('"', "'").replace('\n', " "))),
        };
        let side = ["a", "b"][one.side];
        let Measurement { pair, first, course, row, took_s, .. } = one;
        let (subject, course) = (names[one.side], course.about().name);
        out += &format!("{pair},{side},{subject},{first},{course},{row},{value},{open},{took_s:.2},{because}\n");
    }
    out
}
