//! What a run leaves on disk, schema 1: the header `run.json`, the lines of `plan.jsonl` and `events.jsonl`, the rows of
//! `samples.csv` and `barriers.csv`. `[pure]`
//!
//! A reader says which line is wrong and why. A figure the node did not tell is `None` and stays an empty cell; it is
//! never taken for zero. Files are opened in `run_files.rs`; judging them is `judge/`.

mod rows;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use rows::{
    Barrier, Edges, Kind, Lingering, Look, Retired, Store, barriers_csv, looks_csv, read_barriers, read_looks,
};

/// The version every file of a run belongs to.
pub(crate) const SCHEMA: u32 = 1;

/// A whole run, read back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub info: RunInfo,
    /// One entry per planned step. Empty where the plan was not kept.
    pub plan: Vec<PlannedStep>,
    /// `None` where the file was not kept.
    pub events: Option<Vec<Event>>,
    /// `None` where the file was not kept.
    pub looks: Option<Vec<Look>>,
    pub barriers: Vec<Barrier>,
}

/// `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunInfo {
    pub schema: u32,
    pub scenario: String,
    pub seed: u64,
    /// What was run, in a word: `perennial`, `stock`.
    pub subject: String,
    /// How much the subject can tell: 0 only what the kernel sees, 1 lines as well, 2 counters as well.
    pub level: u8,
    pub argv: Vec<String>,
    pub nodes: u32,
    /// The node that no event touches.
    pub observer: u32,
    /// Nodes of other software: what they say is judged, what they hold is not.
    #[serde(default)]
    pub foreign: Vec<u32>,
    /// Epochs that fill tables and are not judged.
    pub warm_up_epochs: u32,
    /// Judged epochs in the plan.
    pub epochs: u32,
    pub events_per_epoch: u32,
    pub thresholds: Thresholds,
    pub deadlines: Deadlines,
    /// Invariants that were not asked for, each with the reason.
    #[serde(default)]
    pub allow: BTreeMap<String, String>,
    /// What must have happened for the run to mean anything.
    #[serde(default)]
    pub facts: Vec<Fact>,
    /// What the scenario expects of figures that its events report.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// What the harness cost. `None` until the run has ended.
    #[serde(default)]
    pub harness: Option<Harness>,
    /// Why the harness gave up, if it did.
    #[serde(default)]
    pub harness_error: Option<String>,
    /// What the machine was.
    #[serde(default)]
    pub machine: BTreeMap<String, String>,
}

/// What growth is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Thresholds {
    /// Live heap per event. 512 B is what s2n-quic allows itself per closed connection.
    pub heap_bytes_per_event: f64,
    /// Resident memory per event.
    pub rss_bytes_per_event: f64,
    /// Heap discounted for every open connection, so that one neighbour more is no leak. 116 KiB as measured.
    pub heap_bytes_per_connection: u64,
    /// Tasks that belong to one connection; `tasks = base + this · connections` at every barrier. `None`: found at the
    /// first two barriers that differ.
    pub tasks_per_connection: Option<u64>,
    /// What a node's heap may never exceed, if the run could derive it.
    pub heap_peak_bytes: Option<u64>,
    /// A message is everywhere within this long.
    pub delivery_ms: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            heap_bytes_per_event: 512.0,
            rss_bytes_per_event: 4096.0,
            heap_bytes_per_connection: 116 << 10,
            tasks_per_connection: None,
            heap_peak_bytes: None,
            delivery_ms: 10_000.0,
        }
    }
}

/// How long things may take, from the node's own constants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deadlines {
    /// From the end of the storm to a drained barrier.
    pub barrier_ms: u64,
    /// From the loss of a peer to the end of its connection task.
    pub retire_ms: u64,
    /// The sum they are.
    pub because: String,
}

/// Something that must have happened at least so often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    pub name: String,
    pub minimum: u64,
    /// `None`: nobody counted.
    pub reached: Option<u64>,
}

/// A figure and what it may be at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub what: String,
    pub most: f64,
}

/// The harness, as a suspect.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Harness {
    /// Planned time between two looks.
    pub look_interval_ms: u64,
    /// The longest time between two looks of one storm.
    pub look_gap_max_ms: u64,
    /// Processor time over wall time.
    pub cpu_share: f64,
    /// Its resident memory after the first judged barrier and at the end.
    pub rss_first_bytes: Option<u64>,
    pub rss_last_bytes: Option<u64>,
}

/// One line of `plan.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlannedStep {
    pub epoch: u32,
    #[serde(flatten)]
    pub step: crate::plan::Step,
}

/// One line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub at_ms: u64,
    pub epoch: u32,
    pub node: u32,
    #[serde(flatten)]
    pub happened: Happened,
}

/// What came to pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Happened {
    /// A planned step was carried out.
    Injected { action: String, took_ms: u64, touching: bool },
    /// A step reported a figure.
    Observed { figure: String, value: f64 },
    /// A process ended. `killed_by_machine` when a SIGKILL was not ours.
    Exited { commanded: bool, killed_by_machine: bool, how: String },
    /// A node refused, stalled or said something wrong.
    Fault { sentence: String },
}

/// Reads `run.json`. A schema of the future is refused: half understood is worse than not at all.
pub(crate) fn read_info(text: &str) -> Result<RunInfo, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("run.json: {error}"))?;
    match value["schema"].as_u64() {
        Some(schema) if schema == u64::from(SCHEMA) => {}
        Some(schema) => return Err(format!("run.json has schema {schema}; this judge reads schema {SCHEMA}")),
        None => return Err(format!("run.json names no schema; expected {SCHEMA}")),
    }
    serde_json::from_value(value).map_err(|error| format!("run.json: {error}"))
}

/// Reads a file of one JSON object per line; `name` is for the error.
pub(crate) fn read_lines<T: DeserializeOwned>(name: &str, text: &str) -> Result<Vec<T>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| format!("{name} line {}: {error}", at + 1))
    };
    lines.map(parse).collect()
}

/// One JSON object per line.
pub(crate) fn write_lines<T: Serialize>(records: &[T]) -> String {
    let line = |record| serde_json::to_string(record).expect("plain records serialise") + "\n";
    records.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Step;

    #[test]
    fn a_wrong_line_is_named() {
        let good = PlannedStep { epoch: 1, step: Step::Rotate { node: 2, via: 3, away_ms: 50 } };
        let text = write_lines(std::slice::from_ref(&good)) + "{\"epoch\":1,\"do\":\"dance\"}\n";
        let error = read_lines::<PlannedStep>("plan.jsonl", &text).unwrap_err();
        assert!(error.starts_with("plan.jsonl line 2: unknown variant `dance`"), "{error}");
        let back: Vec<PlannedStep> = read_lines("plan.jsonl", text.lines().next().unwrap()).unwrap();
        assert_eq!(back, [good]);
    }

    #[test]
    fn another_schema_is_refused() {
        assert_eq!(read_info("{\"schema\":2}").unwrap_err(), "run.json has schema 2; this judge reads schema 1");
        assert_eq!(read_info("{}").unwrap_err(), "run.json names no schema; expected 1");
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let happened = Happened::Exited { commanded: false, killed_by_machine: true, how: "signal 9".into() };
        let event = Event { at_ms: 5, epoch: 1, node: 3, happened };
        let text = write_lines(std::slice::from_ref(&event));
        assert!(text.contains("\"what\":\"exited\",\"commanded\":false"), "{text}");
        assert_eq!(read_lines::<Event>("events.jsonl", &text).unwrap(), [event]);
    }
}
