//! `perennial-soak`: storms over real node processes, and a verdict on what they leave behind.
//!
//! Reading order: `plan` (what will happen) → `cluster`, `process`, `control`, `view` (the nodes, over their public
//! interfaces only) → `storm` (one run) → `samples`, `judge` (figures in, verdict out) → `report`. `flood` is a
//! house of its own: strangers instead of storms. This file parses, dispatches and chooses the exit code.

mod args;
mod cluster;
mod control;
mod flood;
mod judge;
mod plan;
mod process;
mod report;
mod samples;
mod storm;
mod view;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use perennial_soak::attack::{Order, child};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{Cli, Run, Verb},
    cluster::Cluster,
    judge::Outcome,
    plan::{Plan, Scenario, Shape},
    report::Report,
    storm::Times,
};

const USAGE: u8 = 64;
const NO_BINARY: u8 = 69;
const HARNESS: u8 = 70;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.verb {
        Verb::List { json } => list(json),
        Verb::Run(args) => run(&args),
        Verb::Flood(args) => flood(&args),
        Verb::Attack(args) => attack(&args),
    }
}

fn flood(args: &args::Flood) -> ExitCode {
    let beside = std::env::current_exe().unwrap_or_default();
    let bin = match args::find_bin(args.bin.as_deref(), &beside) {
        Ok(bin) => Some(bin),
        Err(_) if args.subject == args::Subjects::Stock => None,
        Err(error) => {
            eprintln!("error: {error}");
            return NO_BINARY.into();
        }
    };
    // Two threads: the prober must not wait for the sampler.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    end(runtime.context("cannot start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                // First, so that a signal is not starved. Losing the race drops, and so kills, every process.
                biased;
                code = signalled() => code,
                outcome = flood::run(args, bin) => outcome.map(exit_code),
            }
        })
    }))
}

fn attack(args: &args::Assault) -> ExitCode {
    // One thread: an attacker that takes both processors would measure the machine.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let args::Assault { kind, count, target, topic, pace } = *args;
    let order = Order { kind, target, topic: *topic.as_bytes(), count, per_second: pace };
    let ended = runtime.context("cannot start the runtime").and_then(|runtime| {
        let ended = runtime.block_on(child::run(order));
        // The reader of stdin is a blocked thread that the runtime would wait for.
        runtime.shutdown_background();
        ended
    });
    end(ended.map(|()| 0))
}

fn end(outcome: Result<u8>) -> ExitCode {
    match outcome {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            HARNESS.into()
        }
    }
}

fn exit_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Pass => 0,
        Outcome::Fail => 1,
        Outcome::Unknown | Outcome::NotJudged => 2,
    }
}

fn list(json: bool) -> ExitCode {
    for scenario in Scenario::ALL {
        if json {
            let line = serde_json::json!({"v": 1, "scenario": scenario.name(), "summary": scenario.summary()});
            println!("{line}");
        } else {
            println!("{:8} {}", scenario.name(), scenario.summary());
        }
    }
    ExitCode::SUCCESS
}

fn run(args: &Run) -> ExitCode {
    let beside = std::env::current_exe().unwrap_or_default();
    let bin = match args::find_bin(args.bin.as_deref(), &beside) {
        Ok(bin) => bin,
        Err(error) => {
            eprintln!("error: {error}");
            return NO_BINARY.into();
        }
    };
    // One thread is enough: the work is done by the nodes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("cannot start the runtime").and_then(|runtime| runtime.block_on(storm(args, bin)));
    end(outcome)
}

async fn storm(args: &Run, bin: PathBuf) -> Result<u8> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let plan = Plan::draw(Shape {
        scenario: args.scenario,
        seed,
        nodes: args.nodes.into(),
        warm_up: args.warm_up.unwrap_or(args.nodes).into(),
        events: args.events as usize,
        probe_every: args.probe_every as usize,
    });
    eprintln!("{} seed {seed}: {} nodes, {} events", plan.scenario.name(), plan.nodes, plan.events());
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let logs = match &args.report {
        Some(directory) => directory.join("nodes"),
        None => scratch.path().join("nodes"),
    };
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    if let Some(directory) = &args.report {
        report::write_plan(directory, &plan)?;
    }
    let cluster = Cluster::new(bin, scratch.path().to_owned(), logs, format!("seed {seed}"), plan.nodes);
    let times = Times { rest: args.rest, settle: args.settle, max: args.max_time };
    let (evidence, samples) = tokio::select! {
        // First, so that a signal is not starved by a busy run. Losing the race drops the cluster and so kills it.
        biased;
        code = signalled() => return code,
        done = storm::run(&plan, cluster, times) => done,
    };
    let verdict = judge::judge(&evidence);
    let report = Report { v: 1, verdict: &verdict, evidence: &evidence, reproduce: reproduce(args, seed) };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report::text(&report));
    }
    if let Some(directory) = &args.report {
        report::write_verdict(directory, &report, &samples)?;
    }
    Ok(exit_code(verdict.outcome))
}

/// Waits for SIGINT or SIGTERM; the exit code that goes with it.
async fn signalled() -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => Ok(130),
        _ = terminate.recv() => Ok(143),
    }
}

fn reproduce(args: &Run, seed: u64) -> String {
    let mut line = format!("perennial-soak run {} --seed {seed}", args.scenario.name());
    line += &format!(" --events {} --nodes {} --probe-every {}", args.events, args.nodes, args.probe_every);
    line += &format!(" --warm-up {} --rest {}ms", args.warm_up.unwrap_or(args.nodes), args.rest.as_millis());
    line += &format!(" --settle {}ms", args.settle.as_millis());
    if let Some(bin) = &args.bin {
        line += &format!(" --bin {}", bin.display());
    }
    line
}
