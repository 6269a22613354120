//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use iroh::EndpointAddr;

use crate::course::{Course, TripKind};

/// A figure is over its budget, or looser than it should be; a call site leaks.
pub(crate) const OVER: u8 = 1;
/// A bucket is larger than in the baseline.
pub(crate) const REGRESSION: u8 = 3;
pub(crate) const USAGE: u8 = 64;
pub(crate) const PROGRAM: u8 = 70;

/// Where the heap of a node goes: dhat profiles by bucket, held against budgets and a baseline.
#[derive(Debug, Parser)]
#[command(name = "perennial-profiles", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 within every budget, 1 over a budget, looser than one, or a leak found, 3 worse \
                          than the baseline, 64 usage, 70 the program itself failed";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Take the heaps of scenarios, each checkpoint in a process of its own, and judge the figures they come to
    Measure(Measure),
    /// Show what differs between two profiles: by bucket, then the call sites that grew most
    Diff(Diff),
    /// Repeat a round trip 50 to 250 times, and name every call site that holds more on each rung than on the one before
    Ladder(Ladder),
    /// Show an existing profile by bucket, and where to look at it in full
    Open {
        /// A dhat-heap.json
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Measure, and write the figures that are not within their budgets into budgets.toml, the heaps into baseline.json
    Bless(Bless),
    /// Kill and respawn the peers of a real node whose telemetry is on, and show where its heap is at the end
    #[command(after_help = STORY_HELP)]
    Story(Story),
    /// List the scenarios
    List,
    /// One checkpoint, in this process
    #[command(hide = true)]
    Walk {
        #[arg(value_parser = course)]
        course: Box<Course>,
        file: PathBuf,
    },
    /// The peers of a checkpoint, by words on standard input
    #[command(hide = true)]
    Crowd {
        #[arg(value_parser = crate::crowd::target)]
        target: EndpointAddr,
    },
}

const STORY_HELP: &str = "The node must be built for it: cargo build -p perennial-node --features \
                          soak,perennial-heap/dhat";

/// What every verb that runs courses takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Runs {
    /// Profiles are left in this directory
    #[arg(long, value_name = "DIR", default_value = "runs/heap")]
    pub(crate) out: PathBuf,
    /// Checkpoints taken at one time; most of what they do is wait
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) parallel: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Measure {
    /// Scenarios, see `list` [default: all]
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    #[command(flatten)]
    pub(crate) runs: Runs,
    /// Show every bucket of every checkpoint beside the baseline
    #[arg(long)]
    pub(crate) buckets: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Judge nothing. Without it a build that the budgets do not hold for is refused
    #[arg(long)]
    pub(crate) show: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The profile before
    pub(crate) base: PathBuf,
    /// The profile after
    pub(crate) new: PathBuf,
    /// Divide by so many: connections, round trips
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) per: u32,
    /// Call sites to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) sites: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Ladder {
    /// What is repeated
    #[arg(value_enum, default_value = "stranger")]
    pub(crate) trip: TripKind,
    /// Round trips of each rung, rising
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "50,100,150,200,250")]
    pub(crate) rungs: Vec<usize>,
    /// Seconds of rest before each look, so that what is kept for a time is forgotten
    #[arg(long, value_name = "SECONDS", default_value_t = 75, value_parser = clap::value_parser!(u16).range(0..=600))]
    pub(crate) rest: u16,
    /// Leave so many bytes behind with every round trip, to see that they are found
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) plant: u32,
    #[command(flatten)]
    pub(crate) runs: Runs,
}

#[derive(Debug, Args)]
pub(crate) struct Bless {
    /// Scenarios, see `list` [default: all]
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// Why the figures are what they are. Stands beside each that changes
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,
    #[command(flatten)]
    pub(crate) runs: Runs,
}

#[derive(Debug, Args)]
pub(crate) struct Story {
    /// The node's program
    #[arg(long, value_name = "PATH")]
    pub(crate) node: PathBuf,
    /// How often a peer is killed and brought back
    #[arg(long, value_name = "N", default_value_t = 140, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) kills: u16,
    /// Peers of the node that is looked at
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) peers: u16,
    /// The profile is left in this directory
    #[arg(long, value_name = "DIR", default_value = "runs/heap")]
    pub(crate) out: PathBuf,
}

fn course(text: &str) -> Result<Box<Course>, String> {
    serde_json::from_str(text).map(Box::new).map_err(|error| format!("no course: {error}"))
}
