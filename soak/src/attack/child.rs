//! The attacker as a process: words in, JSON lines out. `Ready` once everything is built, `go` begins, `Made` when every
//! attempt is made, `stop` (or the end of input) makes everyone leave, `Ended` is the last line.

use std::io::Write;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Attack, Order, Tally};
use crate::proc_figures;

/// One line of the attacker's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// Everything is built; it took this much processor time.
    Ready {
        /// Milliseconds.
        build_cpu_ms: f64,
    },
    /// Every attempt is made.
    Made {
        /// What came of them.
        tally: Tally,
        /// Milliseconds from `go` to the last.
        took_ms: f64,
        /// Processor time of the attempts alone, in milliseconds.
        cpu_ms: f64,
    },
    /// Everyone has left.
    Ended {
        /// Connections the victim had not closed when they were told to.
        held_to_the_end: u64,
        /// Processor time from `go` to the end, in milliseconds: keeping connections open costs as well.
        cpu_ms: f64,
    },
}

/// Runs one attack by the words on standard input.
///
/// # Errors
///
/// When the attack cannot be prepared or carried out, or a word is not understood.
pub async fn run(order: Order) -> Result<()> {
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    let before_build_ms = cpu_ms();
    let mut attack = Attack::prepare(order).await?;
    let begin_ms = cpu_ms();
    say(&Line::Ready { build_cpu_ms: begin_ms - before_build_ms })?;
    match words.next_line().await?.as_deref() {
        Some("go") => {}
        Some(other) => bail!("the word {other:?} came where only `go` is understood"),
        None => return Ok(()),
    }
    let begun = std::time::Instant::now();
    let begin_ms = cpu_ms();
    let tally = attack.run().await?;
    let took_ms = begun.elapsed().as_secs_f64() * 1e3;
    say(&Line::Made { tally, took_ms, cpu_ms: cpu_ms() - begin_ms })?;
    match words.next_line().await?.as_deref() {
        Some("stop") | None => {}
        Some(other) => bail!("the word {other:?} came where only `stop` is understood"),
    }
    let held_to_the_end = attack.still_held();
    attack.end().await;
    say(&Line::Ended { held_to_the_end, cpu_ms: cpu_ms() - begin_ms })
}

fn cpu_ms() -> f64 {
    proc_figures::cpu_time(std::process::id()).unwrap_or_default().as_secs_f64() * 1e3
}

fn say(line: &Line) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, line)?;
    stdout.write_all(b"\n")?;
    stdout.flush().context("nobody listens to the attacker")
}
