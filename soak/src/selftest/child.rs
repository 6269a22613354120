//! A planted fault as a real process: the plant is started, driven through its lines, and what it tells becomes a record.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use perennial_soak::proc_figures;
use serde_json::Value;

use super::shapes::{EVENTS, empty};
use crate::run_format::{Barrier, Event, Happened, Kind, Record, Store};

/// Messages per epoch: a fault of one in ten thousand happens within the twelve judged ones.
const MESSAGES: u32 = 1_000;

/// Drives the plant through a whole run. Errors are the harness's own.
pub(super) fn record(plant: &Path, fault: &str) -> Result<Record, String> {
    let mut record = empty(fault, "plant");
    record.info.nodes = 4;
    let mut events = Vec::new();
    let mut subject = Subject::start(plant, fault)?;
    for epoch in 1..=record.info.warm_up_epochs + record.info.epochs {
        let Some(row) = subject.epoch(epoch) else {
            let happened = subject.ended()?;
            events.push(Event { at_ms: u64::from(epoch) * 20_000, epoch, node: 0, happened });
            break;
        };
        record.barriers.push(row);
    }
    record.events = Some(events);
    Ok(record)
}

struct Subject {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next_message: u64,
}

impl Subject {
    fn start(plant: &Path, fault: &str) -> Result<Self, String> {
        let mut command = Command::new(plant);
        command.arg(fault).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("cannot start {}: {error}", plant.display()))?;
        let input = child.stdin.take().expect("stdin is piped");
        let mut output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut ready = String::new();
        output.read_line(&mut ready).map_err(|error| format!("the plant said nothing: {error}"))?;
        if !ready.starts_with("READY ") || !ready.ends_with(" soak/1\n") {
            return Err(format!("expected `READY ID ADDR soak/1`, the plant said `{}`", ready.trim_end()));
        }
        Ok(Self { child, input, output, next_message: 0 })
    }

    /// One storm and its barrier. `None` when the process has ended.
    fn epoch(&mut self, epoch: u32) -> Option<Barrier> {
        // In one write, so that a run costs hundreds of exchanges and not hundred thousands.
        let mut lines = "leave\njoin\n".repeat(EVENTS as usize);
        let first = self.next_message;
        for number in first..first + u64::from(MESSAGES) {
            lines += &format!("pub {number} 64\n");
        }
        self.next_message += u64::from(MESSAGES);
        lines += "stats\n";
        self.input.write_all(lines.as_bytes()).ok()?;
        let mut received: BTreeMap<u64, u64> = BTreeMap::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
            if let Some(number) = value["received"].as_u64() {
                *received.entry(number).or_default() += 1;
                continue;
            }
            let mut row = self.row(epoch, &value);
            row.deliveries = Some(u64::from(MESSAGES));
            row.missed = Some(u64::from(MESSAGES) - received.len() as u64);
            row.duplicates = Some(received.values().map(|copies| copies - 1).sum());
            return Some(row);
        }
    }

    fn row(&self, epoch: u32, stats: &Value) -> Barrier {
        let figure = |name: &str| stats[name].as_u64();
        let pid = self.child.id();
        let connections = figure("connections");
        let alive = |spawned: u64, finished: u64| Kind { spawned, finished, owned: None, orphans: None };
        let connection = figure("spawned").zip(figure("finished")).map(|(spawned, finished)| alive(spawned, finished));
        let store = Store { size: connections, cap: figure("cap"), high_water: figure("high_water") };
        Barrier {
            epoch,
            events: u64::from(epoch * EVENTS),
            at_ms: u64::from(epoch) * 20_000,
            drained: Some(true),
            connections,
            half_open: figure("half_open"),
            neighbors: figure("peers"),
            peers: figure("peers"),
            tasks: figure("tasks"),
            heap_bytes: figure("heap_bytes"),
            rss_bytes: proc_figures::resident(pid).map(|(now, _)| now),
            fds: proc_figures::open_fds(pid),
            threads: proc_figures::threads(pid),
            latency_max_ms: Some(0.0),
            retired: figure("retired"),
            retired_late: figure("retired_late"),
            retire_max_ms: stats["retire_max_ms"].as_f64(),
            components: Some(1),
            kinds: connection.map(|kind| ("connection".to_owned(), kind)).into_iter().collect(),
            stores: BTreeMap::from([("connections".to_owned(), store)]),
            buckets: figure("otel_blocks").map(|blocks| ("otel".to_owned(), blocks)).into_iter().collect(),
            ..Barrier::default()
        }
    }

    /// How it ended. A SIGKILL we did not send was the machine's.
    fn ended(&mut self) -> Result<Happened, String> {
        let status = self.child.wait().map_err(|error| format!("cannot wait for the plant: {error}"))?;
        let killed_by_machine = status.signal() == Some(9);
        Ok(Happened::Exited { commanded: false, killed_by_machine, how: status.to_string() })
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
