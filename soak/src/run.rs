//! The verbs `run` and `replay`: one run after the other, each in a directory of its own, and the worst code of them.
//!
//! A plan is on disk before the first process starts, and whatever was recorded is on disk however a run ends.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use perennial_soak::{
    netns::{Wiring, tools::PlaceError},
    place::Place,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{self, Keep, Replay, Run},
    cluster::Cluster,
    epochs::{self, Pace},
    judge::{
        Outcome, Verdict,
        epochs::{exit_code, headline, judge, worst},
        flatness::LOOKS,
    },
    page,
    plan::{self, OBSERVER, Shape},
    process::Seat,
    report, run_files,
    run_format::{Deadlines, PlannedStep, Record, RunInfo, SCHEMA, Thresholds},
    scenario::{Ground, Scenario},
    sets::Turn,
    verbs,
};

/// Every run that was asked for.
pub(crate) fn run(args: &Run) -> ExitCode {
    if args.common.bin().is_err() {
        return missing(&args.common);
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    let turns = args.turns();
    let named = !args.scenario.is_empty();
    finish(&args.common, turns.len(), named, |which| {
        let turn = &turns[which];
        Ok((draw(args, turn, seed)?, pace(args, turn)))
    })
}

/// The recorded plan once more.
pub(crate) fn replay(args: &Replay) -> ExitCode {
    let record = match run_files::read_plan(&args.run) {
        Ok(record) => record,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(args::HARNESS);
        }
    };
    if args.common.bin().is_err() {
        return missing(&args.common);
    }
    finish(&args.common, 1, true, |_| {
        let mut record = record.clone();
        record.info.argv = vec!["replay".into(), args.run.display().to_string()];
        record.info.subject = subject(&args.common.bin()?);
        Ok((record, Pace { max_time: args.common.max_time, rate: None, plain: args.common.plain }))
    })
}

fn missing(common: &args::Common) -> ExitCode {
    if let Err(error) = common.bin() {
        eprintln!("error: {error}");
    }
    ExitCode::from(args::LACKING)
}

/// Carries several runs out, one after the other, and says how each came out. A run of a set that this machine cannot
/// carry is said to be left out; one that was `named` is an error.
fn finish(common: &args::Common, runs: usize, named: bool, draw: impl Fn(usize) -> Result<(Record, Pace)>) -> ExitCode {
    // One thread is enough: the work is done by the nodes.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime");
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut done: Vec<Finished> = Vec::new();
            for which in 0..runs {
                let (record, pace) = draw(which)?;
                let scenario = record.info.scenario.clone();
                let finished = match Box::pin(one(common, record, pace)).await {
                    Err(error) if !named && error_code(&error) == args::LACKING => {
                        eprintln!("{scenario}: not run: {error:#}");
                        continue;
                    }
                    finished => finished?,
                };
                let stop = finished.signal;
                done.push(finished);
                if let Some(code) = stop {
                    return Ok(code);
                }
            }
            summary(&done);
            Ok(worst(done.iter().map(|run| run.code)))
        })
    });
    match outcome {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            error_code(&error).into()
        }
    }
}

/// The exit code of an error: what the machine lacks is not the harness's own failure.
pub(crate) fn error_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<PlaceError>().is_some_and(PlaceError::is_lack) { args::LACKING } else { args::HARNESS }
}

/// How one run came out.
#[derive(Debug)]
pub(crate) struct Finished {
    pub code: u8,
    pub headline: String,
    /// The checks that failed.
    pub failed: Vec<&'static str>,
    scenario: String,
    directory: PathBuf,
    /// The code of the signal that ended it.
    pub signal: Option<u8>,
}

fn summary(done: &[Finished]) {
    if done.len() < 2 {
        return;
    }
    eprintln!();
    for run in done {
        eprintln!("{:15} {}  ({})", run.scenario, run.headline, run.directory.display());
    }
}

/// Carries one plan out, judges it, and leaves its directory behind.
pub(crate) async fn one(common: &args::Common, mut record: Record, pace: Pace) -> Result<Finished> {
    let directory = common.directory(&record.info)?;
    let info = &record.info;
    eprintln!(
        "{} seed {}: {} nodes, {} + {} epochs of {} events; barriers within {} s ({})",
        info.scenario,
        info.seed,
        info.nodes,
        info.warm_up_epochs,
        info.epochs,
        info.events_per_epoch,
        info.deadlines.barrier_ms / 1000,
        info.deadlines.because
    );
    let logs = directory.join("nodes");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    run_files::write_plan(&directory, &record)?;
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let seats = common.seats(&record.info)?;
    let place = tokio::select! {
        biased;
        signalled = signalled() => bail!("interrupted by {} before the first node", signalled?.0),
        place = common.place(&record.info, scratch.path()) => place?,
    };
    let cluster =
        Cluster::new(place, seats, scratch.path().to_owned(), logs.clone(), format!("seed {}", record.info.seed));
    let signal = tokio::select! {
        // First, so that a signal is not starved by a busy run.
        biased;
        signalled = signalled() => Some(signalled?),
        () = epochs::run(&mut record, &cluster, pace) => None,
    };
    // Losing the race dropped the run; what it recorded is judged as it stands, and every process ends here.
    drop(cluster);
    if let Some((name, _)) = signal {
        record.info.harness_error = Some(format!("interrupted by {name}"));
    }
    if let Some(scenario) = Scenario::named(&record.info.scenario) {
        record.info.facts = scenario.spec().facts(&record);
    }
    record.info.machine.insert("load after".into(), load());
    let verdict = judge(&record);
    leave(&directory, &record, &verdict)?;
    if common.keep == Keep::Never || (common.keep == Keep::Fail && verdict.outcome == Outcome::Pass) {
        // Its verdict, records and page stay; the logs of a run that went well say nothing.
        let _ = std::fs::remove_dir_all(&logs);
    }
    verbs::print(&directory, &record, &verdict, common.json);
    Ok(Finished {
        code: exit_code(&record, &verdict),
        headline: headline(&record, &verdict),
        failed: verdict.checks.iter().filter(|check| check.outcome == Outcome::Fail).map(|check| check.name).collect(),
        scenario: record.info.scenario.clone(),
        directory,
        signal: signal.map(|(_, code)| code),
    })
}

fn leave(directory: &Path, record: &Record, verdict: &Verdict) -> Result<()> {
    run_files::write(directory, record)?;
    let object = serde_json::to_string_pretty(&report::object(record, verdict))? + "\n";
    run_files::save(directory, "verdict.json", &object)?;
    run_files::save(directory, "report.html", &page::html(record, verdict))?;
    let plots = directory.join("plots");
    std::fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    for (name, svg) in page::plots(record) {
        run_files::save(&plots, &format!("{name}.svg"), &svg)?;
    }
    let words = record.info.argv.join(" ");
    run_files::save(directory, "repro.sh", &format!("#!/bin/sh\nexec perennial-soak {words}\n"))
}

fn draw(args: &Run, turn: &Turn, seed: u64) -> Result<Record> {
    let scenario = turn.scenario;
    let spec = scenario.spec();
    let nodes = args.nodes.or(turn.nodes).unwrap_or(spec.nodes);
    let events = args.events.or(turn.events).unwrap_or(spec.events);
    let warm_up_epochs = args.warm_up.or(turn.warm_up).unwrap_or(args::WARM_UP_EPOCHS);
    let epochs = args.epochs.or(turn.epochs).unwrap_or(args::EPOCHS);
    let shape = Shape {
        scenario,
        seed,
        nodes: nodes.into(),
        events: events as usize,
        // Where no heap is judged nothing has to be full.
        saturate: warm_up_epochs > 1 && epochs as usize >= LOOKS[0],
        deep_every: args.deep_every.or(turn.deep_every).unwrap_or(0),
    };
    let planned = |epoch| plan::draw_epoch(shape, epoch).into_iter().map(move |step| PlannedStep { epoch, step });
    let (barrier, because) = args.barrier();
    let bin = args.common.bin()?;
    let given = turn.allow.iter().chain(spec.allow).map(|(id, why)| ((*id).to_owned(), (*why).to_owned()));
    let info = RunInfo {
        schema: SCHEMA,
        scenario: scenario.name(),
        seed,
        level: args.level,
        subject: subject(&bin),
        argv: Vec::new(),
        nodes: nodes.into(),
        observer: OBSERVER as u32,
        foreign: (0..nodes).filter(|node| (spec.stock)(usize::from(*node))).map(u32::from).collect(),
        warm_up_epochs,
        epochs,
        events_per_epoch: events,
        thresholds: Thresholds {
            heap_bytes_per_event: args.theta_heap.into(),
            rss_bytes_per_event: args.theta_rss.into(),
            ..Thresholds::default()
        },
        deadlines: Deadlines { barrier_ms: barrier.as_millis() as u64, retire_ms: barrier.as_millis() as u64, because },
        allow: given.chain(args.allowed()).collect(),
        facts: Vec::new(),
        limits: spec.limits(),
        harness: None,
        harness_error: None,
        machine: machine(&bin),
    };
    let info = RunInfo { argv: args.reproduce(&info, turn), ..info };
    let plan = (1..=warm_up_epochs + epochs).flat_map(planned).collect();
    Ok(Record { info, plan, events: None, looks: None, barriers: Vec::new() })
}

fn pace(args: &Run, turn: &Turn) -> Pace {
    let rate = args.rate.or(turn.per_minute.map(|events| f64::from(events) / 60.0));
    Pace { max_time: args.common.max_time, rate, plain: args.common.plain }
}

fn subject(bin: &Path) -> String {
    bin.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What a run ran on.
fn machine(bin: &Path) -> std::collections::BTreeMap<String, String> {
    let cpus = std::thread::available_parallelism().map(|cpus| cpus.to_string()).unwrap_or_default();
    let mut machine = std::collections::BTreeMap::from([
        ("binary".to_owned(), bin.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()),
        ("cpus".to_owned(), cpus),
        ("load before".to_owned(), load()),
    ]);
    if let Ok(bytes) = std::fs::read(bin) {
        machine.insert("binary blake3".into(), blake3::hash(&bytes).to_hex()[..16].to_owned());
    }
    if let Ok(kernel) = std::fs::read_to_string("/proc/sys/kernel/osrelease") {
        machine.insert("kernel".into(), kernel.trim().to_owned());
    }
    machine
}

/// Processes that wanted to run, over the last minute.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    load.and_then(|load| load.split(' ').next().map(str::to_owned)).unwrap_or_else(|| "unknown".into())
}

/// Waits for SIGINT or SIGTERM; its name and the exit code that goes with it.
pub(crate) async fn signalled() -> Result<(&'static str, u8)> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => Ok(("SIGINT", 130)),
        _ = terminate.recv() => Ok(("SIGTERM", 143)),
    }
}

impl args::Common {
    /// Where the nodes of a run are, made now.
    async fn place(&self, info: &RunInfo, scratch: &Path) -> Result<Place> {
        let nodes = info.nodes as usize;
        let ground = Scenario::named(&info.scenario).map_or(Ground::Any, |scenario| scenario.spec().ground);
        let mut place = match (ground, self.net) {
            (Ground::Switch, _) => {
                let program = std::env::current_exe().context("cannot find this program")?;
                Place::namespaces(nodes, Wiring::Switch { program, seed: info.seed }).await?
            }
            // From a host of its own nobody reaches the harness.
            (Ground::Collector, _) => Place::loopback(),
            (Ground::Hosts | Ground::MovingHosts, _) | (_, args::Net::Netns) => {
                Place::namespaces(nodes, Wiring::Bridge).await?
            }
            (Ground::Any | Ground::SmallDisk | Ground::WallClock, args::Net::Lo) => Place::loopback(),
        };
        match ground {
            Ground::MovingHosts => (1..nodes).for_each(|node| place.will_move(node)),
            Ground::SmallDisk => place.give_disk(nodes - 1, &scratch.join("disk")).await?,
            Ground::WallClock => place.give_clock(nodes - 1, &scratch.join("clock"))?,
            Ground::Collector => place.give_collector()?,
            Ground::Any | Ground::Hosts | Ground::Switch => {}
        }
        Ok(place)
    }

    /// What each node of a run is.
    pub(crate) fn seats(&self, info: &RunInfo) -> Result<Vec<Seat>> {
        let bin = self.bin()?;
        let seat = Seat { bin, args: self.arg.clone(), ..Seat::default() };
        // Fixed thresholds stop the allocator's drift, so that resident memory means something. Users have none of this.
        let env =
            [("MALLOC_ARENA_MAX", "2"), ("MALLOC_TRIM_THRESHOLD_", "131072"), ("MALLOC_MMAP_THRESHOLD_", "131072")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let stock = self.beside("perennial-soak-stock");
        if !info.foreign.is_empty() && !stock.is_file() {
            bail!("no stock node at {}; build it with `cargo build --release -p perennial-soak`", stock.display());
        }
        let seat_of = |node| match info.foreign.contains(&node) {
            true => Seat { bin: stock.clone(), env: env.clone(), ..Seat::default() },
            false => Seat { env: env.clone(), ..seat.clone() },
        };
        let mut seats: Vec<Seat> = (0..info.nodes).map(seat_of).collect();
        if let Some((scenario, observer)) = Scenario::named(&info.scenario).zip(seats.get_mut(OBSERVER)) {
            observer.args.extend(scenario.spec().observer_args.iter().map(|arg| (*arg).to_owned()));
        }
        Ok(seats)
    }

    /// The directory of a run, made.
    fn directory(&self, info: &RunInfo) -> Result<PathBuf> {
        let now = time::OffsetDateTime::now_utc();
        let stamp = format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}",
            now.year(),
            u8::from(now.month()),
            now.day(),
            now.hour(),
            now.minute(),
            now.second()
        );
        let name = format!("{stamp}-{}-{}", info.scenario, info.seed);
        let directory = self.out.clone().unwrap_or_else(|| PathBuf::from("runs")).join(name);
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }
}
