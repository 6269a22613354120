//! The command line, and where the node binary is.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use iroh_gossip::proto::TopicId;
use perennial_soak::attack::{COUNT_MAX, Kind};

use crate::{judge::epochs::INVARIANTS, plan::Scenario};

/// Kills, respawns and rotates real perennial nodes, and judges what is left behind.
#[derive(Debug, Parser)]
#[command(name = "perennial-soak", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 pass, 1 fail, 2 unknown (too little evidence), 64 usage, 69 no node binary, or no rights or programs \
                          for what was asked, \
                          70 the harness itself failed, 130/143 by signal";

const DOCTOR_HELP: &str = "\
Hosts, a small disk and a wrong clock are made, tried and taken away again; namespaces and mounts that
killed runs have left are removed. Exit codes: 0 every scenario can run here, 69 some cannot.";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run one scenario against real node processes on 127.0.0.1 and judge the observer
    Run(Run),
    /// Judge recorded runs again
    Judge(Judge),
    /// Draw a recorded run: one page for people, a plot, a table
    Report(Draw),
    /// Prove the judge: every planted fault must be caught by its own invariant, every healthy shape must pass
    Selftest {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Flood a node with strangers, ours and stock in one run, and print what each of them noticed
    Flood(Flood),
    /// The attacker of a flood, in a process of its own: waits for `go` and `stop` on stdin
    #[command(hide = true)]
    Attack(Assault),
    /// The switch between hosts in namespaces, in a process of its own: words on stdin, until it ends
    #[command(hide = true)]
    Switch {
        #[arg(long)]
        hosts: usize,
        #[arg(long)]
        seed: u64,
    },
    /// Find out what this machine can and cannot do for a soak, and what would mend it
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the scenarios
    List {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
}

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub(crate) struct Run {
    /// The scenario
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Judged epochs: storm, calm, barrier, and again. Without it, one storm between two settled samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub epochs: Option<u16>,
    /// With --epochs, how much the node can tell: 0 what the kernel sees, 1 lines, 2 counters. What is beyond is not judged
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub level: u8,
    /// With --epochs, growth of the drained heap per event that is allowed, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    pub theta_heap: u32,
    /// With --epochs, an invariant that is reported and not judged, with the reason, such as I7:smoke. May be repeated
    #[arg(long, value_name = "ID:REASON", value_parser = allowance)]
    pub allow: Vec<(String, String)>,
    /// Judged events [default: 300; with --epochs 50 in each]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub events: Option<u32>,
    /// With --epochs: a barrier is drained within this long, or judged as it stands [default: what the node's own
    /// timers add up to]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub barrier: Option<Duration>,
    /// Node processes, the observer included
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(3..=200))]
    pub nodes: u16,
    /// Where they run: child processes on 127.0.0.1, or a host each in network namespaces, made and removed by this program.
    /// Namespaces need root
    #[arg(long, value_enum, default_value = "lo")]
    pub net: Net,
    /// Events before the first judged sample [default: one per node], or epochs of them [default: 4]
    #[arg(long)]
    pub warm_up: Option<u16>,
    /// A probe message follows every so many events
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
    pub probe_every: u32,
    /// Everything random in the plan comes from here [default: random, printed first]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Quiet time before a settled sample is taken: iroh keeps the state of a remote for 60 s after its last connection
    #[arg(long, default_value = "65s", value_parser = duration)]
    pub rest: Duration,
    /// Time after it within which the observer must have settled; then it is judged as it stands
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub settle: Duration,
    /// Stop the storm when the run is this old; the verdict is then unknown at best
    #[arg(long, default_value = "30m", value_parser = duration)]
    pub max_time: Duration,
    /// The node binary [default: `perennial` beside this program]
    #[arg(long, value_name = "PATH")]
    pub bin: Option<PathBuf>,
    /// Print the verdict as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write verdict.json, samples.csv, plan.json and the nodes' logs here
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

/// What lies between the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Net {
    Lo,
    Netns,
}

/// Judged epochs of a run that does not name its own number: the first look at the slope.
pub(crate) const EPOCHS: u16 = 12;

/// Epochs that fill tables before the first judged one. With four, 99.8 % of runs that settle logarithmically pass.
pub(crate) const WARM_UP_EPOCHS: u16 = 4;

/// What a node's timers add up to: the idle timeout of `perennial up`, the farewell of a connection, two looks.
const BARRIER_PARTS: [(&str, u64); 3] = [("idle timeout", 10), ("farewell and grace", 7), ("looks and slack", 8)];

impl Run {
    /// Judged events, of the run or of one epoch.
    pub(crate) fn events(&self) -> u32 {
        self.events.unwrap_or(if self.epochs.is_some() { 50 } else { 300 })
    }

    /// How long a barrier may take to drain, and why.
    pub(crate) fn barrier(&self) -> (Duration, String) {
        if let Some(barrier) = self.barrier {
            return (barrier, "as asked with --barrier".into());
        }
        let sum = BARRIER_PARTS.iter().map(|(_, seconds)| seconds).sum();
        let because: Vec<String> = BARRIER_PARTS.iter().map(|(what, seconds)| format!("{what} {seconds} s")).collect();
        (Duration::from_secs(sum), because.join(" + "))
    }
}

const JUDGE_HELP: &str = "\
A run passes only with evidence of flatness: at 12, 20 and 32 judged epochs the slope of the drained heap
per event is taken (Theil-Sen, exact Kendall bounds). Its upper 99 % bound below the budget passes, its
lower bound above it fails, anything else is unknown. With several runs the exit code is the worst one:
70 before 1 before 3 before 2 before 0.";

/// Options of `judge`.
#[derive(Debug, Args)]
#[command(after_help = JUDGE_HELP)]
pub(crate) struct Judge {
    /// Directories with run.json and barriers.csv
    #[arg(value_name = "DIR", required = true)]
    pub runs: Vec<PathBuf>,
    /// One JSON object per run
    #[arg(long)]
    pub json: bool,
}

/// Options of `report`.
#[derive(Debug, Args)]
pub(crate) struct Draw {
    /// A directory with run.json and barriers.csv
    #[arg(value_name = "DIR")]
    pub run: PathBuf,
    /// Write one self-contained page [default: report.html in DIR, where nothing else is asked for]
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the heap plot alone
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Write the verdict as a Markdown table
    #[arg(long, value_name = "FILE")]
    pub md: Option<PathBuf>,
}

fn allowance(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("`{text}` is no allowance; write it as I9:reason");
    let (id, reason) = text.split_once(':').filter(|(_, reason)| !reason.is_empty()).ok_or_else(wrong)?;
    if !INVARIANTS.iter().any(|(known, _)| *known == id) {
        return Err(format!("`{id}` is no invariant; there are I1 to I{}", INVARIANTS.len()));
    }
    Ok((id.to_owned(), reason.to_owned()))
}

const RUN_HELP: &str = "\
With --epochs the plan is written first, every node is looked at once a second, and after each storm the mesh
is waited for until it is provably drained: no half-open handshake, no orphan, as many connection tasks as
open connections as peers in the table, and the heap at rest, twice in a row. What is then found is a
barrier, and seventeen invariants judge the barriers (`perennial-soak judge --help`).

Examples:
  perennial-soak run rotate --epochs 12 --report runs/a
  perennial-soak run rotate --epochs 12 --level 1 --bin target/release/perennial-soak-stock
  perennial-soak run kill --epochs 3 --allow I7:smoke";

const FLOOD_HELP: &str = "\
Attacks, each NAME or NAME:COUNT:
  spoofed      valid first packets of clients that do not exist, from many addresses of 127.0.0.0/8
  idle         identities that finish the handshake and do nothing
  abandon      dials dropped in the middle of the handshake
  stall        attempts that stop at each step, a fifth each
  mix          spoofed, idle, abandon and stall at once
  fill         identities that open a stream for the topic and keep their connection alive
  come-and-go  rounds of identities that finish a handshake and leave, also against a bare iroh endpoint

Meanwhile a stock peer publishes a probe every 50 ms, and the victim's application echoes it. Both
victims need their counted heap:
  cargo build --release -p perennial-node -p perennial-soak --features perennial-node/count-heap
  target/release/perennial-soak flood spoofed:500 spoofed:2000 idle:2000";

/// Options of `flood`.
#[derive(Debug, Args)]
#[command(after_help = FLOOD_HELP)]
pub(crate) struct Flood {
    /// What strangers do, see below [default: every attack]
    #[arg(value_name = "ATTACK[:COUNT]")]
    pub attack: Vec<AttackArg>,
    /// Attempts of an attack that does not name its own number
    #[arg(long, default_value_t = 2000, value_parser = count)]
    pub count: usize,
    /// Spoofed packets a second [default: all at once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pace: Option<u32>,
    /// Who is flooded
    #[arg(long, value_enum, default_value = "both")]
    pub subject: Subjects,
    /// Undisturbed time before the first attempt
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub before: Duration,
    /// Time strangers stay after the last attempt, or in which a flood that is over is still watched closely
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub hold: Duration,
    /// Time from the end of a flood to the end of its run: iroh keeps the state of a remote for 60 s
    #[arg(long, default_value = "65s", value_parser = duration)]
    pub after: Duration,
    /// Rounds of come-and-go
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub rounds: u8,
    /// Quiet time after each of them
    #[arg(long, default_value = "65s", value_parser = duration)]
    pub rest: Duration,
    /// One more argument for `perennial up`, such as --up-arg=--max-connections=64. May be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub up_arg: Vec<String>,
    /// The node binary [default: `perennial` beside this program]
    #[arg(long, value_name = "PATH")]
    pub bin: Option<PathBuf>,
    /// Print everything as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write flood.json, flood.txt and every run's samples and probes here
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

impl Flood {
    /// What was asked for, every number filled in.
    pub(crate) fn attacks(&self) -> Vec<Attack> {
        let with_count = |arg: &AttackArg| Attack { kind: arg.kind, count: arg.count.unwrap_or(self.count) };
        if self.attack.is_empty() {
            return Kind::ALL.map(|kind| Attack { kind, count: self.count }).into();
        }
        self.attack.iter().map(with_count).collect()
    }
}

/// One attack of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attack {
    pub kind: Kind,
    pub count: usize,
}

/// One attack as it was written: `idle` or `idle:500`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttackArg {
    kind: Kind,
    count: Option<usize>,
}

impl FromStr for AttackArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once(':').map_or((text, None), |(name, number)| (name, Some(number)));
        Ok(Self { kind: kind(name)?, count: number.map(count).transpose()? })
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    let names = || Kind::ALL.map(Kind::name).join(", ");
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| format!("`{name}` is not an attack; expected one of {}", names()))
}

fn count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=COUNT_MAX).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a number of attempts from 1 to {COUNT_MAX}"))
}

/// Who is flooded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subjects {
    Ours,
    Stock,
    Both,
}

/// Options of the hidden `attack`.
#[derive(Debug, Args)]
pub(crate) struct Assault {
    #[arg(value_parser = kind)]
    pub kind: Kind,
    #[arg(long, value_parser = count)]
    pub count: usize,
    #[arg(long)]
    pub target: SocketAddr,
    #[arg(long)]
    pub topic: TopicId,
    #[arg(long)]
    pub pace: Option<u32>,
}

/// `90s`, `5m`, `1500ms`, or a bare number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let wrong = || format!("`{text}` is not a duration; write it as 90s, 5m or 1500ms");
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// The node binary: the one asked for, else the one beside `beside`, else an error that says how to get one.
pub(crate) fn find_bin(asked: Option<&Path>, beside: &Path) -> Result<PathBuf, String> {
    let name = format!("perennial{}", std::env::consts::EXE_SUFFIX);
    let found = match asked {
        Some(path) => path.to_owned(),
        None => beside.parent().unwrap_or(Path::new(".")).join(name),
    };
    if found.is_file() {
        // Made absolute, because a bare name would be looked for in PATH.
        return found.canonicalize().map_err(|error| format!("cannot open {}: {error}", found.display()));
    }
    Err(format!(
        "no node binary at {}; build it with `cargo build --release -p perennial-node`, or name one with --bin",
        found.display()
    ))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("65s"), Ok(Duration::from_secs(65)));
        assert_eq!(duration("65"), Ok(Duration::from_secs(65)));
        assert_eq!(duration("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "s", "5h", "-1s", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_attack_may_name_its_number() {
        let parse = |text: &str| text.parse::<AttackArg>();
        assert_eq!(parse("idle"), Ok(AttackArg { kind: Kind::Idle, count: None }));
        assert_eq!(parse("come-and-go:1000"), Ok(AttackArg { kind: Kind::ComeAndGo, count: Some(1000) }));
        for wrong in ["", "siege", "idle:", "idle:0", "idle:100001", "idle:many"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let cli = Cli::try_parse_from(["soak", "flood", "idle:7", "mix", "--count", "9"]).unwrap();
        let Verb::Flood(flood) = cli.verb else { panic!("flood was asked for") };
        let attacks = flood.attacks();
        assert_eq!(attacks[0], Attack { kind: Kind::Idle, count: 7 });
        assert_eq!(attacks[1], Attack { kind: Kind::Mix, count: 9 });
    }

    #[test]
    fn an_allowance_names_an_invariant_and_a_reason() {
        assert_eq!(allowance("I9:arenas"), Ok(("I9".into(), "arenas".into())));
        assert_eq!(allowance("I18:no").unwrap_err(), "`I18` is no invariant; there are I1 to I17");
        assert!(allowance("I9").is_err() && allowance("I9:").is_err());
    }

    #[test]
    fn a_barrier_waits_as_long_as_the_timers_of_a_node() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["soak", "run", "rotate"], args].concat()).unwrap().verb;
        let Verb::Run(run) = parse(&["--epochs", "3"]) else { panic!("run was asked for") };
        assert_eq!((run.barrier().0, run.events()), (Duration::from_secs(25), 50));
        let Verb::Run(run) = parse(&["--barrier", "6s"]) else { panic!("run was asked for") };
        assert_eq!((run.barrier().0, run.events()), (Duration::from_secs(6), 300));
    }

    #[test]
    fn a_missing_binary_says_how_to_build_one() {
        let directory = tempfile::tempdir().unwrap();
        let beside = directory.path().join("perennial-soak");
        let error = find_bin(None, &beside).unwrap_err();
        assert!(error.contains("cargo build --release -p perennial-node"), "{error}");
        std::fs::write(directory.path().join(format!("perennial{}", std::env::consts::EXE_SUFFIX)), "").unwrap();
        assert!(find_bin(None, &beside).is_ok());
        assert!(find_bin(Some(&directory.path().join("other")), &beside).is_err());
    }
}
