//! The verb `flood`: attacks on ours and on stock, interleaved in one run, and a table of what they did.
//!
//! `course` runs one flood against one victim, `rounds` those who come and go; `victim`, `attacker`, `peer` and `sampler`
//! are the parties; `evidence` and `criteria` think; `table` writes. How the attacker works is in the library.

pub(crate) mod attacker;
pub(crate) mod course;
mod criteria;
pub(crate) mod evidence;
pub(crate) mod peer;
pub(crate) mod probes;
mod rounds;
mod sampler;
mod samples;
mod table;
pub(crate) mod victim;

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use perennial_soak::attack::Kind;
use serde::Serialize;

use self::{
    course::{Flood, Phases},
    evidence::{Evidence, Quiet, Record, evidence},
    rounds::Round,
    victim::{Programs, Software},
};
use crate::{
    args::{self, Subjects},
    judge::{Check, Outcome},
    run_files,
};

/// The judged floods of a run, and everything to print.
#[derive(Debug, Serialize)]
struct Report {
    v: u32,
    outcome: Outcome,
    floods: Vec<Judged>,
    rounds: Vec<Round>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rounds_check: Option<Check>,
    table: String,
}

/// One flood and, against ours, the verdicts.
#[derive(Debug, Serialize)]
struct Judged {
    evidence: Evidence,
    checks: Vec<Check>,
}

/// Runs every flood asked for; the outcome decides the exit code.
pub(crate) async fn run(args: &args::Flood, node: Option<PathBuf>) -> Result<Outcome> {
    let programs = programs(args, node)?;
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    if let Some(directory) = &args.report {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let subjects = match args.subject {
        Subjects::Ours => vec![Software::Ours],
        Subjects::Stock => vec![Software::Stock],
        Subjects::Both => vec![Software::Ours, Software::Stock],
    };
    let attacks = args.attacks();
    let floods = floods(args, &programs, &subjects, &attacks, scratch.path()).await?;
    let mut rounds = Vec::new();
    for attack in attacks.iter().filter(|attack| attack.kind == Kind::ComeAndGo) {
        let with_floor: Vec<Software> = subjects.iter().copied().chain([Software::Bare]).collect();
        eprintln!("come-and-go: {} rounds of {}, {} s of rest", args.rounds, attack.count, args.rest.as_secs());
        let what = (args.rounds.into(), attack.count);
        rounds.extend(rounds::run(&programs, &with_floor, what, args.rest, scratch.path()).await?);
    }
    let report = judged(floods, rounds, &subjects);
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", text(&report));
    }
    if let Some(directory) = &args.report {
        run_files::save(directory, "flood.json", &serde_json::to_string_pretty(&report)?)?;
        run_files::save(directory, "flood.txt", &text(&report))?;
    }
    Ok(report.outcome)
}

/// Every flood against every subject, a quiet run of each first. The order of subjects turns with each attack, so that
/// neither always has the warmer machine.
async fn floods(
    args: &args::Flood,
    programs: &Programs,
    subjects: &[Software],
    attacks: &[args::Attack],
    scratch: &Path,
) -> Result<Vec<Evidence>> {
    let phases = Phases { before: args.before, hold: args.hold, after: args.after };
    let storms: Vec<&args::Attack> = attacks.iter().filter(|attack| attack.kind != Kind::ComeAndGo).collect();
    let mut done = Vec::new();
    if storms.is_empty() {
        return Ok(done);
    }
    let mut quiet: Vec<(Software, Quiet)> = Vec::new();
    for subject in subjects {
        let flood = Flood { kind: None, count: 0, per_second: None, subject: *subject };
        let record = one(args, programs, flood, phases, scratch).await?;
        quiet.push((*subject, Quiet::of(&record)));
        done.push(evidence((None, 0, *subject), record, None));
    }
    for (turn, attack) in storms.into_iter().enumerate() {
        let mut order = quiet.iter().collect::<Vec<_>>();
        if !turn.is_multiple_of(2) {
            order.reverse();
        }
        for (subject, quiet) in order {
            let flood =
                Flood { kind: Some(attack.kind), count: attack.count, per_second: args.pace, subject: *subject };
            let record = one(args, programs, flood, phases, scratch).await?;
            done.push(evidence((flood.kind, flood.count, *subject), record, Some(quiet)));
        }
    }
    Ok(done)
}

async fn one(args: &args::Flood, programs: &Programs, flood: Flood, phases: Phases, scratch: &Path) -> Result<Record> {
    let title = format!("{}-{}-{}", flood.kind.map_or("quiet", Kind::name), flood.count, flood.subject.name());
    eprintln!("{title}");
    let record = course::run(programs, flood, phases, scratch).await.with_context(|| title.clone())?;
    for gap in &record.gaps {
        eprintln!("  {gap}");
    }
    if let Some(directory) = &args.report {
        run_files::save(directory, &format!("{title}.samples.json"), &serde_json::to_string(&record.samples)?)?;
        run_files::save(directory, &format!("{title}.probes.json"), &serde_json::to_string(&record.probes)?)?;
    }
    Ok(record)
}

/// Only ours is judged: stock has no caps to hold.
fn judged(floods: Vec<Evidence>, rounds: Vec<Round>, subjects: &[Software]) -> Report {
    let table = if floods.is_empty() { String::new() } else { table::floods(&floods) };
    let judge = |evidence: Evidence| {
        let is_judged = evidence.subject == Software::Ours && evidence.kind.is_some();
        let checks = if is_judged { criteria::judge(&evidence) } else { Vec::new() };
        Judged { evidence, checks }
    };
    let floods: Vec<Judged> = floods.into_iter().map(judge).collect();
    let is_judged = !rounds.is_empty() && subjects.contains(&Software::Ours);
    let rounds_check = is_judged.then(|| rounds::judge(&rounds));
    let mut checks = floods.iter().flat_map(|flood| &flood.checks).chain(&rounds_check).peekable();
    let is_empty = checks.peek().is_none();
    let outcomes: Vec<Outcome> = checks.map(|check| check.outcome).collect();
    let outcome = if outcomes.contains(&Outcome::Fail) {
        Outcome::Fail
    } else if is_empty || outcomes.contains(&Outcome::Unknown) {
        Outcome::Unknown
    } else {
        Outcome::Pass
    };
    Report { v: 1, outcome, floods, rounds, rounds_check, table }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    if !report.table.is_empty() {
        out += &format!("{}\n\n", report.table);
    }
    if !report.rounds.is_empty() {
        out += &format!("{}\n\n", table::rounds(&report.rounds));
    }
    let lines = report.floods.iter().flat_map(|flood| {
        let title = table::title(&flood.evidence);
        flood.checks.iter().map(move |check| (title.clone(), check))
    });
    let rounds = report.rounds_check.iter().map(|check| ("come-and-go".to_owned(), check));
    for (title, check) in lines.chain(rounds) {
        let word = check.outcome.word().to_uppercase();
        writeln!(out, "{word:10} {title:14} {}: {}", check.name, check.detail).expect("writing to a string succeeds");
    }
    for flood in report.floods.iter().filter(|flood| !flood.evidence.counts.is_empty()) {
        let counts = flood.evidence.counts.iter().map(|(reason, count)| format!("{reason} {count}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        writeln!(out, "counted    {:14} {counts}", table::title(&flood.evidence))
            .expect("writing to a string succeeds");
    }
    out + &format!("\n{}\n", report.outcome.word().to_uppercase())
}

/// The programs beside this one. Without a node, ours is never started.
fn programs(args: &args::Flood, node: Option<PathBuf>) -> Result<Programs> {
    let soak = std::env::current_exe().context("cannot find this program")?;
    let stock = soak.with_file_name(format!("perennial-soak-stock{}", std::env::consts::EXE_SUFFIX));
    let needs_stock = args.subject != Subjects::Ours || args.attacks().iter().any(|one| one.kind == Kind::ComeAndGo);
    anyhow::ensure!(
        !needs_stock || stock.is_file(),
        "no stock node at {}; build it with `cargo build --release -p perennial-soak`",
        stock.display()
    );
    let has_known = match &node {
        Some(node) => {
            let help = std::process::Command::new(node).args(["up", "--help"]).output();
            String::from_utf8_lossy(&help.context("cannot ask the node for help")?.stdout).contains("--known")
        }
        None => false,
    };
    Ok(Programs { ours: node.unwrap_or_default(), stock, soak, has_known, up_args: args.up_arg.clone() })
}
