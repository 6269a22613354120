//! The command line, and where the node binary is.

mod flood;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::flood::{Assault, Attack, Flood, Subjects};
use crate::{
    judge::epochs::INVARIANTS,
    run_format::RunInfo,
    scenario::Scenario,
    sets::{Set, Turn},
};

pub(crate) const USAGE: u8 = 64;
/// No node binary, or no rights, programs or devices for what was asked.
pub(crate) const LACKING: u8 = 69;
pub(crate) const HARNESS: u8 = 70;

/// Kills, respawns and rotates real perennial nodes, and judges what is left behind.
#[derive(Debug, Parser)]
#[command(name = "perennial-soak", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 pass, 1 fail, 2 unknown (too little evidence), 64 usage, 69 no node binary, or \
                          what was asked needs more of the machine, 70 the harness failed, 130/143 by signal";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run scenarios against real node processes on 127.0.0.1, and judge what is left behind
    Run(Run),
    /// Run a recorded plan again
    Replay(Replay),
    /// Find the fewest events of a failed run that still fail: three of five replays each
    Shrink(Shrink),
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
    /// Measure two programs side by side, in pairs, and say what may be claimed
    Compare(crate::compare::options::Options),
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
    #[command(after_help = crate::doctor::HELP)]
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

/// What every verb that runs nodes takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The node binary [default: `perennial` beside this program]
    #[arg(long, visible_alias = "node-bin", value_name = "PATH")]
    pub bin: Option<PathBuf>,
    /// One more argument for every node's `up`, such as --arg=--max-connections=64. May be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub arg: Vec<String>,
    /// What lies between the nodes: 127.0.0.1, or network namespaces that are made and removed for each run, which needs root
    #[arg(long, value_enum, default_value = "lo")]
    pub net: Net,
    /// Runs leave a directory of their own in this one [default: runs]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Whose logs are kept
    #[arg(long, value_enum, default_value = "fail")]
    pub keep: Keep,
    /// Stop after the epoch in which the run gets this old; the verdict is then unknown at best
    #[arg(long, default_value = "12h", value_parser = duration)]
    pub max_time: Duration,
    /// Print every verdict as one JSON object
    #[arg(long)]
    pub json: bool,
    /// No line that moves. Nor is there one where stderr is no terminal
    #[arg(long)]
    pub plain: bool,
}

impl Common {
    /// A program beside this one.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        std::env::current_exe().unwrap_or_default().with_file_name(name)
    }

    /// The node binary, as an absolute path.
    pub(crate) fn bin(&self) -> anyhow::Result<PathBuf> {
        find_bin(self.bin.as_deref(), &std::env::current_exe().unwrap_or_default()).map_err(anyhow::Error::msg)
    }
}

/// What lies between the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Net {
    /// Child processes on 127.0.0.1
    Lo,
    /// A host of its own for every node
    Netns,
}

/// Whose logs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keep {
    /// Those of runs that did not pass.
    Fail,
    Always,
    Never,
}

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub(crate) struct Run {
    /// What happens to the nodes; see `list` [default: the set `pr`]
    #[arg(value_enum, value_name = "SCENARIO", conflicts_with = "set")]
    pub scenario: Vec<Scenario>,
    /// A set of runs
    #[arg(long, value_enum)]
    pub set: Option<Set>,
    /// Judged epochs: storm, calm, barrier, and again [default: 12, the first look at the slope]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub epochs: Option<u32>,
    /// Epochs before them that fill tables and are not judged [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub warm_up: Option<u32>,
    /// Every so many epochs wait 310 s before the barrier, until every timer of a node has run out [default: the set's; no
    /// such barrier where scenarios are named]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub deep_every: Option<u32>,
    /// Events of one epoch [default: the scenario's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub events: Option<u32>,
    /// Node processes, the observer included [default: the scenario's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(7..=200))]
    pub nodes: Option<u16>,
    /// Events a second at most
    #[arg(long, value_name = "N", value_parser = rate)]
    pub rate: Option<f64>,
    /// Everything random in the plan comes from here [default: random, printed first]
    #[arg(long)]
    pub seed: Option<u64>,
    /// How much the node can tell: 0 what the kernel sees, 1 lines, 2 counters. What is beyond is not judged
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub level: u8,
    /// Growth of the drained heap per event that is allowed, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = THETA_HEAP)]
    pub theta_heap: u32,
    /// Growth of the resident memory per event that is allowed, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = THETA_RSS)]
    pub theta_rss: u32,
    /// Judge these invariants alone; the others are reported
    #[arg(long, value_name = "ID,…", value_delimiter = ',', value_parser = invariant)]
    pub only: Vec<String>,
    /// An invariant that is reported and not judged, with the reason, such as I7:smoke. May be repeated
    #[arg(long, value_name = "ID:REASON", value_parser = allowance)]
    pub allow: Vec<(String, String)>,
    /// A barrier is drained within this long, or judged as it stands [default: what the node's own timers add up to]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub barrier: Option<Duration>,
    #[command(flatten)]
    pub common: Common,
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// A directory with run.json and plan.jsonl
    #[arg(value_name = "DIR")]
    pub run: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

/// Options of `shrink`.
#[derive(Debug, Args)]
pub(crate) struct Shrink {
    /// The directory of a run that failed
    #[arg(value_name = "DIR")]
    pub run: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

/// Judged epochs of a run that does not name its own number: the first look at the slope.
pub(crate) const EPOCHS: u32 = 12;

/// Epochs that fill tables before the first judged one. With four, 99.8 % of runs that settle logarithmically pass.
pub(crate) const WARM_UP_EPOCHS: u32 = 4;

/// Heap an event may leave behind: what s2n-quic allows itself per closed connection.
const THETA_HEAP: u32 = 512;

const THETA_RSS: u32 = 4096;

/// What a node's timers add up to: the idle timeout of `perennial up`, the farewell of a connection, two looks.
const BARRIER_PARTS: [(&str, u64); 3] = [("idle timeout", 10), ("farewell and grace", 7), ("looks and slack", 8)];

impl Run {
    /// What is run, in order.
    pub(crate) fn turns(&self) -> Vec<Turn> {
        if self.scenario.is_empty() {
            return self.set.unwrap_or(Set::Pr).turns();
        }
        self.scenario.iter().copied().map(Turn::of).collect()
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

    /// Invariants that are not judged, each with the reason.
    pub(crate) fn allowed(&self) -> Vec<(String, String)> {
        let mut allowed = self.allow.clone();
        if !self.only.is_empty() {
            let others = INVARIANTS.iter().filter(|(id, _)| !self.only.iter().any(|only| only == id));
            allowed.extend(others.map(|(id, _)| ((*id).to_owned(), "not asked for".to_owned())));
        }
        allowed
    }

    /// The arguments that run the same plan again, every number written out.
    pub(crate) fn reproduce(&self, info: &RunInfo, turn: &Turn) -> Vec<String> {
        let mut words = vec!["run".to_owned(), info.scenario.clone()];
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        option("seed", info.seed.to_string());
        option("nodes", info.nodes.to_string());
        option("warm-up", info.warm_up_epochs.to_string());
        option("epochs", info.epochs.to_string());
        option("events", info.events_per_epoch.to_string());
        if let Some(rate) = self.rate.or(turn.per_minute.map(|events| f64::from(events) / 60.0)) {
            option("rate", rate.to_string());
        }
        if let Some(deep_every) = self.deep_every.or(turn.deep_every) {
            option("deep-every", deep_every.to_string());
        }
        if self.level != 2 {
            option("level", self.level.to_string());
        }
        if self.theta_heap != THETA_HEAP {
            option("theta-heap", self.theta_heap.to_string());
        }
        if let Some(barrier) = self.barrier {
            option("barrier", format!("{}ms", barrier.as_millis()));
        }
        for (id, why) in &info.allow {
            option("allow", format!("'{id}:{why}'"));
        }
        if let Some(bin) = &self.common.bin {
            option("bin", bin.display().to_string());
        }
        if self.common.net == Net::Netns {
            option("net", "netns".into());
        }
        words.extend(self.common.arg.iter().map(|arg| format!("--arg={arg}")));
        words
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("`{text}` is not a number of events a second above 0"))
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
    /// With --svg, the heap of another run in the same plot
    #[arg(long, value_name = "DIR", requires = "svg")]
    pub beside: Option<PathBuf>,
    /// Write the verdict as a Markdown table
    #[arg(long, value_name = "FILE")]
    pub md: Option<PathBuf>,
}

fn allowance(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("`{text}` is no allowance; write it as I9:reason");
    let (id, reason) = text.split_once(':').filter(|(_, reason)| !reason.is_empty()).ok_or_else(wrong)?;
    Ok((invariant(id)?, reason.to_owned()))
}

fn invariant(id: &str) -> Result<String, String> {
    let known = INVARIANTS.iter().any(|(known, _)| *known == id);
    known.then(|| id.to_owned()).ok_or_else(|| format!("`{id}` is no invariant; there are I1 to I17 and X"))
}

const RUN_HELP: &str = "\
The plan is written first. Then, epoch after epoch: a storm, in which every node is looked at once a second;
a calm, in which the mesh is waited for until it is provably drained - no half-open handshake, no orphan, as
many connection tasks as open connections as peers in the table, and the heap at rest, twice in a row. What is
then found is a barrier, and seventeen invariants and the scenario's own expectations judge the barriers
(`perennial-soak judge --help`). Everything a run recorded stays in its directory, however it ended.

Examples:
  perennial-soak run --set smoke
  perennial-soak run rotate kill-same --epochs 12 --seed 7
  perennial-soak run rotate --level 1 --bin target/release/perennial-soak-stock";

/// `90s`, `5m`, `2h`, `1500ms`, or a bare number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let wrong = || format!("`{text}` is not a duration; write it as 90s, 5m, 2h or 1500ms");
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    match &text[digits..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs).ok_or_else(wrong),
        "h" => number.checked_mul(3600).map(Duration::from_secs).ok_or_else(wrong),
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
        for wrong in ["", "s", "5d", "-1s", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_allowance_names_an_invariant_and_a_reason() {
        assert_eq!(allowance("I9:arenas"), Ok(("I9".into(), "arenas".into())));
        assert_eq!(allowance("I18:no").unwrap_err(), "`I18` is no invariant; there are I1 to I17 and X");
        assert!(allowance("I9").is_err() && allowance("I9:").is_err());
    }

    fn run(args: &[&str]) -> Run {
        let cli = Cli::try_parse_from([&["soak", "run"], args].concat()).unwrap();
        let Verb::Run(run) = cli.verb else { panic!("run was asked for") };
        run
    }

    #[test]
    fn a_barrier_waits_as_long_as_the_timers_of_a_node() {
        assert_eq!(run(&["rotate"]).barrier().0, Duration::from_secs(25));
        assert_eq!(run(&["rotate", "--barrier", "6s"]).barrier().0, Duration::from_secs(6));
    }

    #[test]
    fn scenarios_are_run_in_order_and_without_any_the_set_before_a_merge() {
        assert_eq!(run(&[]).turns(), Set::Pr.turns());
        assert_eq!(run(&["--set", "smoke"]).turns(), Set::Smoke.turns());
        let turns = run(&["kill-same", "rotate"]).turns();
        assert_eq!(turns, [Turn::of(Scenario::KillSame), Turn::of(Scenario::Rotate)]);
        assert!(Cli::try_parse_from(["soak", "run", "rotate", "--set", "pr"]).is_err());
    }

    #[test]
    fn only_some_invariants_means_that_the_others_are_allowed() {
        let allowed = run(&["rotate", "--only", "I1,I7"]).allowed();
        assert_eq!(allowed.len(), INVARIANTS.len() - 2);
        assert!(!allowed.iter().any(|(id, _)| id == "I7"));
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
