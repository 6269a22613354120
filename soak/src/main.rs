//! `perennial-soak`: storms over real node processes, and a verdict on what they leave behind.
//!
//! Reading order: `plan` (what will happen) → `cluster`, `process`, `control`, `socket`, `view` (the nodes, over their
//! public interfaces only) → `epochs` (storm, calm, barrier, and again) → `run_format` (what is kept of it) → `judge/`
//! (records in, verdict out) → `page` (a run for people). `selftest` proves the judge. `storm`, `samples`, `judge.rs` and
//! `report` are the shorter run: one storm between two settled samples. `flood` is a house of its own: strangers instead of
//! storms. Where nodes run is the library's `place`; `doctor` tells what a machine can carry. This file parses, dispatches
//! and chooses the exit code.

mod args;
mod cluster;
mod control;
mod doctor;
mod epochs;
mod flood;
mod judge;
mod page;
mod plan;
mod process;
mod report;
mod run_files;
mod run_format;
mod samples;
mod selftest;
mod socket;
mod storm;
mod verbs;
mod view;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use perennial_soak::{
    attack::{Order, child},
    netns::{Wiring, switch, tools::PlaceError},
    place::Place,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{Cli, Run, Verb},
    cluster::Cluster,
    judge::Outcome,
    plan::{Plan, Scenario, Shape},
    report::Report,
    run_format::{Deadlines, PlannedStep, Record, RunInfo, SCHEMA, Thresholds},
    storm::Times,
};

const USAGE: u8 = 64;
/// No node binary, or no rights, programs or devices for what was asked.
const LACKING: u8 = 69;
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
        Verb::Judge(args) => verbs::judge(&args),
        Verb::Report(args) => verbs::report(&args),
        Verb::Selftest { json } => {
            let beside = std::env::current_exe().unwrap_or_default();
            selftest::run(&beside.with_file_name(format!("perennial-soak-plant{}", std::env::consts::EXE_SUFFIX)), json)
        }
        Verb::Doctor { json } => doctor(json),
        Verb::Flood(args) => flood(&args),
        Verb::Attack(args) => attack(&args),
        Verb::Switch { hosts, seed } => alone(switch::run(hosts, seed)),
    }
}

fn doctor(json: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    end(runtime.context("cannot start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                // First, so that a signal is not starved. Losing the race takes away what is being tried.
                biased;
                code = signalled() => code,
                code = doctor::run(json) => code,
            }
        })
    }))
}

fn flood(args: &args::Flood) -> ExitCode {
    let beside = std::env::current_exe().unwrap_or_default();
    let bin = match args::find_bin(args.bin.as_deref(), &beside) {
        Ok(bin) => Some(bin),
        Err(_) if args.subject == args::Subjects::Stock => None,
        Err(error) => {
            eprintln!("error: {error}");
            return LACKING.into();
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
    let args::Assault { kind, count, target, topic, pace } = *args;
    let order = Order { kind, target, topic: *topic.as_bytes(), count, per_second: pace };
    alone(child::run(order))
}

/// A process that serves the harness, on one thread: one that takes both processors would measure the machine.
fn alone(served: impl Future<Output = Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.context("cannot start the runtime").and_then(|runtime| {
        let ended = runtime.block_on(served);
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
            let lacks = error.downcast_ref::<PlaceError>().is_some_and(PlaceError::is_lack);
            if lacks { LACKING.into() } else { HARNESS.into() }
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
            return LACKING.into();
        }
    };
    // One thread is enough: the work is done by the nodes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("cannot start the runtime").and_then(|runtime| {
        runtime
            .block_on(async { if args.epochs.is_some() { in_epochs(args, bin).await } else { storm(args, bin).await } })
    });
    end(outcome)
}

async fn storm(args: &Run, bin: PathBuf) -> Result<u8> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let plan = Plan::draw(Shape {
        scenario: args.scenario,
        seed,
        nodes: args.nodes.into(),
        warm_up: args.warm_up.unwrap_or(args.nodes).into(),
        events: args.events() as usize,
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
    let place = tokio::select! {
        biased;
        code = signalled() => return code,
        place = place(args) => place?,
    };
    let cluster = Cluster::new(place, bin, scratch.path().to_owned(), logs, format!("seed {seed}"), plan.nodes);
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

/// Where the nodes will run.
async fn place(args: &Run) -> Result<Place, PlaceError> {
    match args.net {
        args::Net::Lo => Ok(Place::loopback()),
        args::Net::Netns => Place::namespaces(args.nodes.into(), Wiring::Bridge).await,
    }
}

/// A run in epochs, judged by its barriers.
async fn in_epochs(args: &Run, bin: PathBuf) -> Result<u8> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let mut record = draw_epochs(args, &bin, seed);
    eprintln!(
        "{} seed {seed}: {} nodes, {} + {} epochs of {} events; barriers within {} s ({})",
        record.info.scenario,
        record.info.nodes,
        record.info.warm_up_epochs,
        record.info.epochs,
        record.info.events_per_epoch,
        record.info.deadlines.barrier_ms / 1000,
        record.info.deadlines.because
    );
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let directory = args.report.clone().unwrap_or_else(|| scratch.path().join("run"));
    let logs = directory.join("nodes");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    run_files::write_plan(&directory, &record)?;
    let place = tokio::select! {
        biased;
        code = signalled() => return code,
        place = place(args) => place?,
    };
    let cluster = Cluster::new(place, bin, scratch.path().to_owned(), logs, format!("seed {seed}"), args.nodes.into());
    tokio::select! {
        // First, so that a signal is not starved by a busy run. Losing the race drops the cluster and so kills it.
        biased;
        code = signalled() => return code,
        () = epochs::run(&mut record, cluster, args.max_time) => {}
    }
    run_files::write(&directory, &record)?;
    let verdict = judge::epochs::judge(&record);
    if args.report.is_some() {
        verbs::write_all(&directory, &record, &verdict)?;
    }
    verbs::print(&directory, &record, &verdict, args.json)?;
    Ok(judge::epochs::exit_code(&record, &verdict))
}

fn draw_epochs(args: &Run, bin: &std::path::Path, seed: u64) -> Record {
    let shape = Shape {
        scenario: args.scenario,
        seed,
        nodes: args.nodes.into(),
        warm_up: 0,
        events: args.events() as usize,
        probe_every: 1,
    };
    let warm_up_epochs = u32::from(args.warm_up.unwrap_or(args::WARM_UP_EPOCHS));
    let epochs = u32::from(args.epochs.unwrap_or(args::EPOCHS));
    let planned = |epoch| plan::draw_epoch(shape, epoch).into_iter().map(move |step| PlannedStep { epoch, step });
    let subject = bin.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let (barrier, because) = args.barrier();
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let info = RunInfo {
        schema: SCHEMA,
        scenario: args.scenario.name().to_owned(),
        seed,
        level: args.level,
        subject,
        argv: std::env::args().skip(1).collect(),
        nodes: args.nodes.into(),
        observer: plan::OBSERVER as u32,
        warm_up_epochs,
        epochs,
        events_per_epoch: args.events(),
        thresholds: Thresholds { heap_bytes_per_event: args.theta_heap.into(), ..Thresholds::default() },
        deadlines: Deadlines { barrier_ms: barrier.as_millis() as u64, retire_ms: barrier.as_millis() as u64, because },
        allow: args.allow.iter().cloned().collect(),
        facts: Vec::new(),
        harness: None,
        harness_error: None,
        machine: epochs::machine(bin, load.and_then(|load| load.split(' ').next().map(str::to_owned))),
    };
    let plan = (1..=warm_up_epochs + epochs).flat_map(planned).collect();
    Record { info, plan, events: None, looks: None, barriers: Vec::new() }
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
    line += &format!(" --events {} --nodes {} --probe-every {}", args.events(), args.nodes, args.probe_every);
    line += &format!(" --warm-up {} --rest {}ms", args.warm_up.unwrap_or(args.nodes), args.rest.as_millis());
    line += &format!(" --settle {}ms", args.settle.as_millis());
    if args.net == args::Net::Netns {
        line += " --net netns";
    }
    if let Some(bin) = &args.bin {
        line += &format!(" --bin {}", bin.display());
    }
    line
}
