//! A subject with a fault of one's choice, for the selftest: speaks the line protocol `soak/1`, has no network, and does
//! wrong exactly what its only argument names.
//!
//! In: `leave`, `join`, `pub N SIZE`, `stats`, `quit`. Out: `READY ID ADDR soak/1`, then one JSON object per line. A
//! `join` after a `leave` is one event: a connection retires and another takes its place.

use std::{
    fs::File,
    io::{BufRead, BufWriter, Write},
};

use serde_json::json;

const PEERS: u64 = 3;
const TASKS_BASE: u64 = 25;
const TASKS_PER_CONNECTION: u64 = 3;
const HEAP_BASE: u64 = 4_200_000;
const HEAP_PER_CONNECTION: u64 = 116 << 10;

struct Plant {
    fault: String,
    events: u64,
    stats: u64,
    /// Descriptors that are never closed, and memory that is never freed.
    files: Vec<File>,
    kept: Vec<Vec<u8>>,
}

fn main() -> std::io::Result<()> {
    let fault = std::env::args().nth(1).unwrap_or_default();
    let mut plant = Plant { fault, events: 0, stats: 0, files: Vec::new(), kept: Vec::new() };
    let mut out = BufWriter::new(std::io::stdout().lock());
    writeln!(out, "READY plant-{} 127.0.0.1:0 soak/1", std::process::id())?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ');
        match words.next() {
            Some("join") => plant.on_event()?,
            Some("pub") => plant.deliver(words.next().and_then(|word| word.parse().ok()).unwrap_or(0), &mut out)?,
            Some("stats") => {
                writeln!(out, "{}", plant.stats())?;
                out.flush()?;
            }
            Some("quit") => return Ok(()),
            Some(_) | None => {}
        }
    }
    Ok(())
}

impl Plant {
    fn has(&self, fault: &str) -> bool {
        self.fault == fault
    }

    fn on_event(&mut self) -> std::io::Result<()> {
        self.events += 1;
        if self.has("leak-fd") && self.events.is_multiple_of(50) {
            self.files.push(File::open("/dev/null")?);
        }
        if self.has("leak-heap") {
            self.kept.push(vec![1; 700]);
        }
        if self.events == 500 {
            if self.has("exit-by-itself") {
                std::process::exit(101);
            }
            if self.has("killed-by-machine") {
                // As the kernel does it when memory runs out: by SIGKILL, from outside, to this process and no other.
                std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status()?;
            }
        }
        Ok(())
    }

    fn deliver(&self, number: u64, out: &mut impl Write) -> std::io::Result<()> {
        let one_in_ten_thousand = number % 10_000 == 7_777;
        let copies = match self.fault.as_str() {
            "lose" if one_in_ten_thousand => 0,
            "deliver-twice" if one_in_ten_thousand => 2,
            _ => 1,
        };
        for _ in 0..copies {
            writeln!(out, "{{\"received\":{number}}}")?;
        }
        Ok(())
    }

    fn stats(&mut self) -> serde_json::Value {
        self.stats += 1;
        let leaked = |fault: &str, each: u64| if self.has(fault) { self.events / each } else { 0 };
        let stuck = leaked("leak-connection", 20);
        let connections = PEERS + stuck;
        let kept: usize = self.kept.iter().map(Vec::len).sum();
        let spiked = self.has("exceed-cap") && self.events > 400;
        let late = self.has("retire-late") && self.events > 400;
        let since = if self.has("reset-counters") && self.events >= 500 { self.events - 500 } else { self.events };
        let mut stats = json!({
            "connections": connections,
            "peers": PEERS,
            "half_open": 0,
            "spawned": since + PEERS,
            "finished": since - stuck,
            "tasks": TASKS_BASE + TASKS_PER_CONNECTION * connections + leaked("leak-task", 1),
            "heap_bytes": HEAP_BASE + HEAP_PER_CONNECTION * connections + kept as u64,
            "cap": 128,
            // A spike of 50 ms between two looks is over when anybody asks; only the mark remembers it.
            "high_water": if spiked { 129 } else { connections + 2 },
            "retired": since - stuck,
            "retired_late": u64::from(late),
            "retire_max_ms": if late { 31_000.0 } else { 400.0 },
            "otel_blocks": 120 + if self.has("grow-bucket") { 7 * self.stats } else { 0 },
        });
        if self.has("stop-metric") && self.events > 500 {
            stats.as_object_mut().expect("stats are an object").remove("heap_bytes");
        }
        stats
    }
}
