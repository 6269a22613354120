//! The verbs that need no node: `judge` and `report`. Files in, words and pictures out.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use crate::{
    args::{Draw, Judge},
    judge::{
        Verdict,
        epochs::{self, headline, title},
    },
    page,
    report::{word, write},
    run_files,
    run_format::Record,
};

/// Judges every run again; the worst code of them.
pub(crate) fn judge(args: &Judge) -> ExitCode {
    let mut codes = Vec::new();
    for directory in &args.runs {
        match run_files::read(directory) {
            Ok(record) => {
                let verdict = epochs::judge(&record);
                if let Err(error) = print(directory, &record, &verdict, args.json) {
                    eprintln!("error: {error:#}");
                    codes.push(70);
                }
                codes.push(epochs::exit_code(&record, &verdict));
            }
            Err(error) => {
                eprintln!("error: {error}");
                codes.push(70);
            }
        }
    }
    epochs::worst(codes).into()
}

/// Draws a run.
pub(crate) fn report(args: &Draw) -> ExitCode {
    let drawn = run_files::read(&args.run).map_err(anyhow::Error::msg).and_then(|record| draw(args, &record));
    match drawn {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            70.into()
        }
    }
}

fn draw(args: &Draw, record: &Record) -> Result<()> {
    let verdict = epochs::judge(record);
    let save = |path: &Path, content: String| -> Result<()> {
        std::fs::write(path, content).map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))?;
        eprintln!("{}", path.display());
        Ok(())
    };
    if let Some(path) = &args.svg {
        save(path, page::heap_alone(record))?;
    }
    if let Some(path) = &args.md {
        save(path, markdown(record, &verdict))?;
    }
    match &args.html {
        Some(path) => save(path, page::html(record, &verdict)),
        None if args.svg.is_none() && args.md.is_none() => {
            save(&args.run.join("report.html"), page::html(record, &verdict))
        }
        None => Ok(()),
    }
}

/// `verdict.json` and `report.html` beside the records.
pub(crate) fn write_all(directory: &Path, record: &Record, verdict: &Verdict) -> Result<()> {
    write(directory, "verdict.json", &(serde_json::to_string_pretty(&object(record, verdict))? + "\n"))?;
    write(directory, "report.html", &page::html(record, verdict))
}

/// The verdict on stdout: the reason first, then every invariant.
pub(crate) fn print(directory: &Path, record: &Record, verdict: &Verdict, json: bool) -> Result<()> {
    if json {
        let mut object = object(record, verdict);
        object["run"] = directory.display().to_string().into();
        println!("{object}");
        return Ok(());
    }
    println!("{}", headline(record, verdict));
    let info = &record.info;
    println!(
        "  {} {} seed {}, {} nodes  ({})",
        info.subject,
        info.scenario,
        info.seed,
        info.nodes,
        directory.display()
    );
    for check in &verdict.checks {
        println!("  {:10}  {:3} {:11} {}", word(check.outcome), check.name, title(check.name), check.detail);
    }
    Ok(())
}

fn object(record: &Record, verdict: &Verdict) -> serde_json::Value {
    let checks: Vec<_> = verdict
        .checks
        .iter()
        .map(|check| {
            let (id, sentence) = (check.name, &check.detail);
            serde_json::json!({"id": id, "title": title(id), "outcome": check.outcome, "sentence": sentence})
        })
        .collect();
    serde_json::json!({
        "v": 1,
        "outcome": verdict.outcome,
        "exit": epochs::exit_code(record, verdict),
        "headline": headline(record, verdict),
        "checks": checks,
    })
}

fn markdown(record: &Record, verdict: &Verdict) -> String {
    let info = &record.info;
    let mut out = format!("**{}**\n\n", headline(record, verdict));
    out += &format!("{} {}, seed {}, {} nodes\n\n", info.subject, info.scenario, info.seed, info.nodes);
    out += "| | about | | |\n|---|---|---|---|\n";
    for check in &verdict.checks {
        let detail = check.detail.replace('|', "\\|");
        out += &format!("| {} | {} | {} | {detail} |\n", check.name, title(check.name), word(check.outcome));
    }
    out
}
