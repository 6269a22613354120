//! `perennial-profiles`: where the heap of a mesh goes, by bucket, as dhat saw it.
//!
//! `scenarios` is what happens, `buckets` reads what dhat wrote; this file puts the profiler around the one and prints
//! the other. dhat costs microseconds per allocation, so no time measured here means anything.

mod buckets;
mod scenarios;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::Serialize;

use crate::{
    buckets::{Bucket, HeapFile},
    scenarios::{Scenario, Shape, Swarm},
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CHECK_FAILED: u8 = 1;
const USAGE: u8 = 64;
const PROGRAM: u8 = 70;

/// dhat heap profiles of perennial meshes, by bucket.
#[derive(Debug, Parser)]
#[command(name = "perennial-profiles", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a scenario on 127.0.0.1 in this process, and show where its heap went
    Run(Run),
    /// Show the buckets of an existing dhat-heap.json
    Show {
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// The scenario
    #[arg(value_enum)]
    scenario: Scenario,
    /// Events between the two checkpoints
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    events: u32,
    /// Meshes in this process, the observer included
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=50))]
    nodes: u16,
    /// Everything random comes from here
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where dhat-heap.json is written
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a run measured beside the buckets.
#[derive(Debug, Clone, Copy, Serialize)]
struct Checkpoints {
    events: u32,
    /// Live bytes of the settled swarm before the events, all meshes together, as dhat counted.
    before_bytes: u64,
    /// The same after them.
    after_bytes: u64,
    connections_before: u64,
    connections_after: u64,
    bytes_per_event: f64,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let done = match cli.verb {
        Verb::Run(args) => run(&args),
        Verb::Show { file, json } => read(&file).map(|file| {
            print(&file, None, json);
            true
        }),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => CHECK_FAILED.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            PROGRAM.into()
        }
    }
}

/// Runs a scenario under the profiler. False when the file and dhat's own count disagree.
fn run(args: &Run) -> Result<bool> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let path = args.out.join("dhat-heap.json");
    let shape = Shape { scenario: args.scenario, events: args.events, nodes: args.nodes.into(), seed: args.seed };
    // Before the runtime: blocks allocated earlier are invisible. Full stacks: a trimmed one may lose its owner.
    let profiler = dhat::Profiler::builder().file_name(&path).trim_backtraces(None).build();
    // One thread, so that nothing runs between the count and the file.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (swarm, mut checkpoints) = runtime.block_on(measure(shape))?;
    checkpoints.after_bytes = dhat::HeapStats::get().curr_bytes as u64;
    // Here and not at the end of main: after the teardown the heap would be empty.
    drop(profiler);
    checkpoints.bytes_per_event =
        (checkpoints.after_bytes as f64 - checkpoints.before_bytes as f64) / f64::from(args.events);
    runtime.block_on(swarm.drain());

    let file = read(&path)?;
    print(&file, Some(checkpoints), args.json);
    let live_bytes = buckets::live_bytes(&file);
    if live_bytes != checkpoints.after_bytes {
        eprintln!("the buckets sum to {live_bytes} bytes, but dhat counted {}", checkpoints.after_bytes);
        return Ok(false);
    }
    Ok(true)
}

/// Everything up to the second checkpoint, whose bytes are counted by the caller once no task can run any more.
async fn measure(shape: Shape) -> Result<(Swarm, Checkpoints)> {
    eprintln!("forming a swarm of {}", shape.nodes);
    let mut swarm = Swarm::form(shape).await?;
    let connections_before = swarm.connections().await?;
    let before_bytes = dhat::HeapStats::get().curr_bytes as u64;
    eprintln!("{} events", shape.events);
    swarm.storm(shape).await?;
    let connections_after = swarm.connections().await?;
    let checkpoints = Checkpoints {
        events: shape.events,
        before_bytes,
        after_bytes: 0,
        connections_before,
        connections_after,
        bytes_per_event: 0.0,
    };
    Ok((swarm, checkpoints))
}

fn read(path: &Path) -> Result<HeapFile> {
    let json = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    buckets::parse(&json).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn print(file: &HeapFile, checkpoints: Option<Checkpoints>, json: bool) {
    let live_bytes = buckets::live_bytes(file);
    let buckets = buckets::buckets(file);
    if json {
        let object = serde_json::json!({
            "v": 1, "live_bytes": live_bytes, "buckets": buckets, "checkpoints": checkpoints
        });
        println!("{object}");
        return;
    }
    println!("{}", table(&buckets, live_bytes));
    if let Some(Checkpoints { events, before_bytes, after_bytes, connections_before, connections_after, .. }) =
        checkpoints
    {
        let per_event = checkpoints.map_or(0.0, |checkpoints| checkpoints.bytes_per_event);
        println!("\nall meshes, live bytes  {before_bytes} -> {after_bytes} over {events} events");
        println!("                        {per_event:+.1} bytes per event");
        println!("connection ends         {connections_before} -> {connections_after}");
    }
}

fn table(buckets: &[Bucket], live_bytes: u64) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["bucket", "live bytes", "blocks", "share"]);
    for Bucket { name, bytes, blocks } in buckets {
        let percent = *bytes as f64 * 100.0 / live_bytes.max(1) as f64;
        table.add_row([(*name).to_owned(), bytes.to_string(), blocks.to_string(), format!("{percent:.1} %")]);
    }
    let blocks: u64 = buckets.iter().map(|bucket| bucket.blocks).sum();
    table.add_row(["total".to_owned(), live_bytes.to_string(), blocks.to_string(), "100.0 %".to_owned()]);
    for column in 1..=3 {
        let column = table.column_mut(column).expect("the table has four columns");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}
