//! The files of a run, opened and written. What is in them is `run_format.rs`.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::Context;

use crate::run_format::{
    Record, RunInfo, barriers_csv, looks_csv, read_barriers, read_info, read_lines, read_looks, write_lines,
};

/// Reads the run of a directory. The header and the barriers must be there; a part that was not kept is `None`.
pub(crate) fn read(directory: &Path) -> Result<Record, String> {
    let wrong = |why: String| format!("{}: {why}", directory.display());
    let must = |name: &str| file(directory, name)?.ok_or_else(|| format!("no {name} here; is this a run?"));
    let read = || -> Result<Record, String> {
        let plan = file(directory, "plan.jsonl")?.unwrap_or_default();
        let events = file(directory, "events.jsonl")?;
        let looks = file(directory, "samples.csv")?;
        Ok(Record {
            info: read_info(&must("run.json")?)?,
            plan: read_lines("plan.jsonl", &plan)?,
            events: events.map(|text| read_lines("events.jsonl", &text)).transpose()?,
            looks: looks.map(|text| read_looks(&text)).transpose()?,
            barriers: read_barriers(&must("barriers.csv")?)?,
        })
    };
    read().map_err(wrong)
}

/// The header and the plan of a run, as they were before it began; the rest is empty.
pub(crate) fn read_plan(directory: &Path) -> Result<Record, String> {
    let wrong = |why: String| format!("{}: {why}", directory.display());
    let must = |name: &str| file(directory, name)?.ok_or_else(|| format!("no {name} here; is this a run?"));
    let read = || -> Result<Record, String> {
        let info = read_info(&must("run.json")?)?;
        let info = RunInfo { facts: Vec::new(), harness: None, harness_error: None, ..info };
        let plan = read_lines("plan.jsonl", &must("plan.jsonl")?)?;
        Ok(Record { info, plan, events: None, looks: None, barriers: Vec::new() })
    };
    read().map_err(wrong)
}

fn file(directory: &Path, name: &str) -> Result<Option<String>, String> {
    match fs::read_to_string(directory.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {name}: {error}")),
    }
}

/// `run.json` and `plan.jsonl`, written before the first process starts.
pub(crate) fn write_plan(directory: &Path, record: &Record) -> anyhow::Result<()> {
    write_info(directory, &record.info)?;
    save(directory, "plan.jsonl", &write_lines(&record.plan))
}

/// Everything, after the last barrier.
pub(crate) fn write(directory: &Path, record: &Record) -> anyhow::Result<()> {
    write_plan(directory, record)?;
    if let Some(events) = &record.events {
        save(directory, "events.jsonl", &write_lines(events))?;
    }
    if let Some(looks) = &record.looks {
        save(directory, "samples.csv", &looks_csv(looks))?;
    }
    save(directory, "barriers.csv", &barriers_csv(&record.barriers))
}

fn write_info(directory: &Path, info: &RunInfo) -> anyhow::Result<()> {
    save(directory, "run.json", &(serde_json::to_string_pretty(info)? + "\n"))
}

/// Writes one file of a run.
pub(crate) fn save(directory: &Path, name: &str, content: &str) -> anyhow::Result<()> {
    let path = directory.join(name);
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}
