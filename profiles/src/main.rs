//! `perennial-profiles`: where the heap of a node goes, by bucket, as dhat saw it, and whether it may.
//!
//! Reading order: `scenario` (what is measured), `course` (what happens to a node before its heap is looked at), `walk`
//! (one course under the profiler, in a process of its own), `node` and `crowd` (who takes part), `heap` (what dhat wrote),
//! `buckets` (whose it is), `figures`, `budgets`, `baseline` (what it comes to, and what it may), `measure` (all of that
//! as a verb), `difference`, `ladder`, and `story`, a real node. This file picks the verb and chooses the exit code. dhat costs microseconds an
//! allocation, so no time measured here means anything.

mod args;
mod baseline;
mod buckets;
mod budgets;
mod course;
mod crowd;
mod difference;
mod figures;
mod heap;
mod ladder;
mod measure;
mod node;
mod plant;
mod runner;
mod scenario;
mod story;
mod table;
mod walk;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;

use crate::{
    args::{Cli, OVER, PROGRAM, REGRESSION, USAGE, Verb},
    buckets::Rules,
    course::{Course, Stage, TripKind, Trips},
};

/// Without a profiler it hands everything on to the system's.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(cli.verb) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            PROGRAM.into()
        }
    }
}

fn run(verb: Verb) -> Result<u8> {
    match verb {
        Verb::Measure(args) => block_on(measure::measure(&args)),
        Verb::Bless(args) => block_on(measure::bless(&args)),
        Verb::Ladder(args) => block_on(climb(&args)),
        Verb::Story(args) => block_on(story::tell(&args)),
        Verb::Diff(args) => diff(&args),
        Verb::Open { file, json } => open(&file, json),
        Verb::List => {
            scenario::all().iter().for_each(|one| println!("{:8}  {}", one.name, one.about));
            Ok(0)
        }
        Verb::Walk { course, file } => {
            let evidence = walk::walk(*course, &file)?;
            println!("{}", serde_json::to_string(&evidence)?);
            Ok(0)
        }
        Verb::Crowd { target } => block_on(crowd::serve(target)).map(|()| 0),
    }
}

fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let done = runtime.block_on(future);
    // A thread that reads standard input would be waited for.
    runtime.shutdown_background();
    done
}

/// Walks the rungs and names what climbs.
async fn climb(args: &args::Ladder) -> Result<u8> {
    let rungs = &args.rungs;
    if rungs.len() < 3 || !rungs.is_sorted_by(|a, b| a < b) {
        eprintln!("error: --rungs takes three numbers at least, each larger than the one before");
        return Ok(USAGE);
    }
    let peers = if args.trip == TripKind::Member { course::Peers::Members(4) } else { course::Peers::None };
    let course = |count| Course {
        until: Stage::Churned,
        peers,
        trips: Trips { kind: args.trip, count },
        rest: Duration::from_secs(args.rest.into()),
        planted_bytes: args.plant as usize,
        ..Course::ALONE
    };
    let names: Vec<String> = rungs.iter().map(|count| format!("rung-{count}")).collect();
    let courses: Vec<_> = names.iter().zip(rungs).map(|(name, count)| (name.as_str(), course(*count))).collect();
    let heaps = runner::run(&courses, &args.runs).await?;
    let rungs: Vec<_> = rungs.iter().copied().zip(heaps).collect();
    for (count, heap) in &rungs {
        println!("{count:>5} round trips  {:>12} bytes  {:>8} blocks", heap.total().bytes, heap.total().blocks);
    }
    let climbers = ladder::climbers(&rungs);
    if climbers.is_empty() {
        println!("no call site holds more on every rung");
        return Ok(0);
    }
    println!("larger on every rung:\n{}", table::climbers(&climbers));
    Ok(OVER)
}

fn diff(args: &args::Diff) -> Result<u8> {
    let (before, now) = (runner::read(&args.base)?, runner::read(&args.new)?);
    let rules = Rules::built_in();
    let (sorted_before, sorted) = (rules.sort(&before), rules.sort(&now));
    let beside = |bucket: &str| Some(sorted_before.of(bucket).bytes);
    println!("{}\n", table::buckets(&sorted, &beside, args.per as usize));
    let growths = difference::growths(&rules, &before, &now);
    println!("{}", table::growths(growths.iter().take(args.sites), args.per as usize));
    let is_worse =
        sorted.sizes.iter().any(|(name, size)| baseline::is_growth(sorted_before.of(name).bytes, size.bytes));
    Ok(if is_worse { REGRESSION } else { 0 })
}

fn open(file: &Path, json: bool) -> Result<u8> {
    let heap = runner::read(file)?;
    let buckets = Rules::built_in().sort(&heap);
    if json {
        let bytes = buckets.total().bytes;
        println!("{}", serde_json::json!({"v": 1, "live_bytes": bytes, "buckets": buckets.to_json()}));
        return Ok(0);
    }
    println!("{}", table::buckets(&buckets, &|_| None, 1));
    let full = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    println!("\nin full: load {} in {DH_VIEW}", full.display());
    Ok(0)
}

/// The viewer of dhat's author. It runs in the browser and sends nothing anywhere.
const DH_VIEW: &str = "https://nnethercote.github.io/dh_view/dh_view.html";
