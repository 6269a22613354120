//! `perennial-soak`: storms over real node processes, and a verdict on what they leave behind.
//!
//! Reading order: `scenario`, `sets`, `plan` (what will happen) → `cluster`, `process`, `socket`, `view`, `books` (the nodes,
//! over their public interfaces only) → `actions` (one file per kind of fault) → `epochs` (storm, calm, barrier, and again) →
//! `run_format` (what is kept of it) → `judge/` (records in, verdict out) → `report`, `page` (a verdict for people). `run`
//! and `verbs` are the verbs. `selftest` proves the judge. `flood` is a house of its own: strangers instead of storms.
//! `compare` is another: two programs side by side. Where nodes run is the library's `place`; `doctor` tells what a machine
//! can carry. This file parses, dispatches and chooses the exit code.

mod actions;
mod args;
mod books;
mod cluster;
mod compare;
mod doctor;
mod epochs;
mod flood;
mod judge;
mod page;
mod plan;
mod process;
mod report;
mod run;
mod run_files;
mod run_format;
mod scenario;
mod selftest;
mod sets;
mod shrink;
mod socket;
mod verbs;
mod view;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use perennial_soak::{
    attack::{Order, child},
    netns::switch,
};

use crate::args::{Cli, LACKING, USAGE, Verb};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.verb {
        Verb::List { json } => verbs::list(json),
        Verb::Run(args) => run::run(&args),
        Verb::Replay(args) => run::replay(&args),
        Verb::Shrink(args) => shrink::shrink(&args),
        Verb::Judge(args) => verbs::judge(&args),
        Verb::Report(args) => verbs::report(&args),
        Verb::Selftest { json } => {
            let beside = std::env::current_exe().unwrap_or_default();
            selftest::run(&beside.with_file_name(format!("perennial-soak-plant{}", std::env::consts::EXE_SUFFIX)), json)
        }
        Verb::Flood(args) => flood(&args),
        Verb::Compare(options) => compare(&options),
        Verb::Attack(args) => attack(&args),
        Verb::Switch { hosts, seed } => alone(switch::run(hosts, seed)),
        Verb::Doctor { json } => doctor(json),
    }
}

fn doctor(json: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    end(runtime.context("cannot start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                // First, so that a signal is not starved. Losing the race takes away what is being tried.
                biased;
                signalled = run::signalled() => signalled.map(|(_, code)| code),
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
    // The prober must not wait for the sampler.
    on_two_threads(async { Ok(flood::run(args, bin).await?.exit_code()) })
}

fn compare(options: &compare::options::Options) -> ExitCode {
    if let Err(error) = options.check() {
        eprintln!("error: {error}");
        return USAGE.into();
    }
    let subjects = match compare::subjects(options, &std::env::current_exe().unwrap_or_default()) {
        Ok(subjects) => subjects,
        Err(error) => {
            eprintln!("error: {error}");
            return LACKING.into();
        }
    };
    // A reader of deliveries must not wait for a look.
    on_two_threads(Box::pin(compare::run(options, subjects)))
}

/// Measures until it is done or a signal comes.
fn on_two_threads(measured: impl Future<Output = Result<u8>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    end(runtime.context("cannot start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                // First, so that a signal is not starved. Losing the race drops, and so kills, every process.
                biased;
                signalled = run::signalled() => signalled.map(|(_, code)| code),
                code = measured => code,
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
            run::error_code(&error).into()
        }
    }
}
