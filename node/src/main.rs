//! `perennial`, the node as a program. This file only picks the verb; each lives in the file named after it.

mod cli;
mod client;
mod config;
mod control;
mod demo;
mod dump;
mod exit;
mod health;
mod identity;
mod line_reader;
mod lines;
mod listener;
mod memberships;
mod metrics;
mod names;
mod node;
mod output;
mod panics;
mod pipe;
mod probe;
mod reload;
mod service;
mod settings;
mod signals;
mod state_dir;
mod tables;
mod tasks;
mod telemetry;
mod up;
mod verbs;
mod vitals;

use std::{
    future::Future,
    sync::{Arc, Barrier},
    time::Duration,
};

use clap::{CommandFactory, Parser};
use perennial::{MeshBuilder, Vitals};

use crate::{
    cli::{Cli, UpArgs, Verb},
    exit::{Exit, Failure},
    settings::value::{LogFilter, Word},
    telemetry::LogFormat,
};

#[cfg(any(feature = "soak", test))]
#[global_allocator]
static HEAP: perennial_heap::Counting = perennial_heap::Counting;

/// One thread is blocked reading standard input, one writes standard output, one is for whatever a library waits for.
const BLOCKING_THREADS: usize = 3;

/// They are there from the start and stay: a thread more or less from one moment to the next would look like a leak, or hide
/// one.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(24 * 3600);

fn main() {
    panics::install();
    let exit = run(Cli::parse()).unwrap_or_else(|failure| {
        for sentence in failure.sentence.lines() {
            output::say(format_args!("error: {sentence}"));
        }
        failure.exit
    });
    // Ends the thread that is blocked reading standard input as well; a return would wait for it.
    std::process::exit(exit as i32);
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    if !matches!(cli.verb, Verb::Up(_)) {
        let usage = |sentence| Failure::new(Exit::Usage, sentence);
        let filter = cli.log.as_deref().map(LogFilter::read).transpose().map_err(usage)?.unwrap_or_default();
        let format = cli.log_format.as_deref().map(LogFormat::read).transpose().map_err(usage)?.unwrap_or_default();
        telemetry::install(&filter, format, None)?;
    }
    match cli.verb {
        Verb::Up(args) => up(args),
        Verb::Status(args) => ask(client::status(&args)),
        Verb::Ready(args) => ask(client::ready(&args)),
        Verb::Peers(args) => ask(client::peers(&args)),
        Verb::Connections(args) => ask(client::door::connections(&args)),
        Verb::Limits(args) => ask(client::door::limits(&args)),
        Verb::Allow(args) => ask(client::door::allow(&args)),
        Verb::Deny(args) => ask(client::door::deny(&args)),
        Verb::Forget(args) => ask(client::door::forget(&args)),
        Verb::Ledger(args) => ask(client::ledger(&args)),
        Verb::Join(args) => ask(client::join(&args)),
        Verb::Leave(args) => ask(client::leave(&args)),
        Verb::Top(args) => ask(verbs::top::top(&args)),
        Verb::Topics(args) => ask(client::topics(&args)),
        Verb::Publish(args) => ask(verbs::publish::publish(&args)),
        Verb::Subscribe(args) => ask(verbs::subscribe::subscribe(&args)),
        Verb::Reload(args) => ask(verbs::reload::reload(&args)),
        Verb::Drain(args) => ask(verbs::drain::drain(&args)),
        Verb::Doctor(args) => ask(verbs::doctor::doctor(&args)),
        Verb::Stop(args) => ask(client::stop(&args)),
        Verb::Demo(args) => block_on(demo::run(args)),
        Verb::Id(args) => ask(client::id(&args)),
        Verb::Key(verb) => client::key(&verb),
        Verb::Ticket(args) => ask(client::ticket(&args)),
        Verb::Config(verb) => config::run(&verb),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "perennial", &mut script);
            client::print(String::from_utf8_lossy(&script).trim_end())
        }
    }
}

fn up(args: UpArgs) -> Result<Exit, Failure> {
    let settings = config::load(&args.given)?;
    let variable = |name: &str| std::env::var(name).ok();
    let otlp = settings.otlp(&variable).map_err(|problem| settings::failure(&[problem]))?;
    // What a node logs is a setting, so nothing is logged before they are read.
    let telemetry = telemetry::install(&settings.log, *settings.log_format, otlp)?;
    // Before the runtime, which would panic for want of a descriptor or a thread.
    let allowed = MeshBuilder::check_process(&Vitals::read());
    allowed.map_err(|error| Failure::new(Exit::Config, format!("impossible limits: {error}")))?;
    block_on(up::run(args, settings, telemetry))
}

/// One question needs one thread.
fn ask(question: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io("start the runtime", &error))?;
    runtime.block_on(question)
}

fn block_on(future: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .build()
        .map_err(|error| Failure::io("start the runtime", &error))?;
    let all_there = Arc::new(Barrier::new(BLOCKING_THREADS));
    for _ in 0..BLOCKING_THREADS {
        let all_there = all_there.clone();
        drop(runtime.spawn_blocking(move || _ = all_there.wait()));
    }
    let ended = runtime.block_on(future);
    runtime.shutdown_background();
    ended
}
