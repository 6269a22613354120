//! How many instructions the hot paths of the library take: each goes through callgrind, on its own and more than once.
//!
//! `paths [NAME…]` runs itself under `valgrind --tool=callgrind`, which counts only inside [`counted`]; what a path prepares is not
//! in the figure. Instructions do not depend on how busy the machine is, so a few per cent can be told apart; they say nothing of
//! caches, and little of time.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use perennial::testing::paths::{HOT_PATHS, HotPath};

/// Counts the instructions of each hot path; needs valgrind
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    one: Option<One>,
    /// Which paths; all if none is named
    names: Vec<String>,
    /// How often each is counted
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    runs: u32,
}

#[derive(Debug, Subcommand)]
enum One {
    /// Goes one path; under callgrind
    Go { name: String },
}

/// Before anything is counted: tables are made, memory is asked for.
const WARM_UP: u32 = 1000;

/// Enough that a table which doubles once more does not show.
const STEPS: u32 = 4000;

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(One::Go { name }) = cli.one {
        go(find(&name)?);
        return Ok(());
    }
    let paths: Vec<&HotPath> = match cli.names.is_empty() {
        true => HOT_PATHS.iter().collect(),
        false => cli.names.iter().map(|name| find(name)).collect::<Result<_>>()?,
    };
    println!("{:22} {:>12} {:>9}", "path", "instructions", "spread");
    for path in paths {
        let mut counts = (0..cli.runs).map(|_| count(path)).collect::<Result<Vec<f64>>>()?;
        counts.sort_by(f64::total_cmp);
        let (least, most) = (counts[0], counts[counts.len() - 1]);
        println!("{:22} {least:>12.0} {:>7.2} %  {}", path.name, 100.0 * (most - least) / least, path.what);
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static HotPath> {
    HOT_PATHS.iter().find(|path| path.name == name).with_context(|| {
        let names: Vec<&str> = HOT_PATHS.iter().map(|path| path.name).collect();
        format!("no path {name:?}; there are {}", names.join(", "))
    })
}

fn go(path: &HotPath) {
    let mut walk = (path.start)();
    for _ in 0..WARM_UP {
        walk(|step| step());
    }
    for _ in 0..STEPS {
        walk(counted);
    }
}

/// Where callgrind counts, found by name.
#[inline(never)]
fn counted(step: &mut dyn FnMut()) {
    step();
    // Keeps the call above from becoming a jump, with which this function would have been left too soon.
    std::hint::black_box(());
}

/// Instructions of one step.
fn count(path: &HotPath) -> Result<f64> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*paths::counted*"])
        .arg(this)
        .args(["go", path.name])
        .output()
        .context("cannot start valgrind; install it, for example with `apt-get install valgrind`")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} under callgrind ended with {}: {said}", path.name, output.status);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, count)| count.trim());
    let collected: f64 = collected.with_context(|| format!("callgrind told no figure: {said}"))?.parse()?;
    ensure!(collected > 0.0, "callgrind did not find where to count");
    Ok(collected / f64::from(STEPS))
}
