//! The verbs that need no node: `judge`, `report`, `list`. Files in, words and pictures out.

use std::{path::Path, process::ExitCode};

use anyhow::Result;

use crate::{
    args::{Draw, Judge},
    judge::{Verdict, epochs},
    page, report, run_files,
    run_format::Record,
    scenario::Scenario,
};

/// Judges every run again; the worst code of them.
pub(crate) fn judge(args: &Judge) -> ExitCode {
    let mut codes = Vec::new();
    for directory in &args.runs {
        match run_files::read(directory) {
            Ok(record) => {
                let verdict = epochs::judge(&record);
                print(directory, &record, &verdict, args.json);
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
        match &args.beside {
            Some(other) => save(path, page::heaps(record, &run_files::read(other).map_err(anyhow::Error::msg)?))?,
            None => save(path, page::heap_alone(record))?,
        }
    }
    if let Some(path) = &args.md {
        save(path, report::markdown(record, &verdict))?;
    }
    match &args.html {
        Some(path) => save(path, page::html(record, &verdict)),
        None if args.svg.is_none() && args.md.is_none() => {
            save(&args.run.join("report.html"), page::html(record, &verdict))
        }
        None => Ok(()),
    }
}

/// The verdict on stdout.
pub(crate) fn print(directory: &Path, record: &Record, verdict: &Verdict, json: bool) {
    if json {
        let mut object = report::object(record, verdict);
        object["run"] = directory.display().to_string().into();
        println!("{object}");
    } else {
        print!("{}", report::text(directory, record, verdict));
    }
}

/// The scenarios.
pub(crate) fn list(json: bool) -> ExitCode {
    for scenario in Scenario::ALL {
        let (name, spec) = (scenario.name(), scenario.spec());
        if json {
            let line = serde_json::json!({
                "v": 1, "scenario": name, "summary": spec.summary, "nodes": spec.nodes, "events_per_epoch": spec.events,
                "minutes": spec.minutes()
            });
            println!("{line}");
        } else {
            println!("{name:15} {:3.0} min  {}", spec.minutes(), spec.summary);
        }
    }
    ExitCode::SUCCESS
}
