//! The command line, and where the node binary is.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use crate::plan::Scenario;

/// Kills, respawns and rotates real perennial nodes, and judges what is left behind.
#[derive(Debug, Parser)]
#[command(name = "perennial-soak", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 pass, 1 fail, 2 unknown (too little evidence), 64 usage, 69 no node binary, \
                          70 the harness itself failed, 130/143 by signal";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run one scenario against real node processes on 127.0.0.1 and judge the observer
    Run(Run),
    /// List the scenarios
    List {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The scenario
    #[arg(value_enum)]
    pub scenario: Scenario,
    /// Judged events
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub events: u32,
    /// Node processes, the observer included
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(3..=200))]
    pub nodes: u16,
    /// Events before the first judged sample [default: one per node]
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
