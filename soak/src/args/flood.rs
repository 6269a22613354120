//! The command line of a flood and of its attacker.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};
use iroh_gossip::proto::TopicId;
use perennial_soak::attack::{COUNT_MAX, Kind};

use super::duration;

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
  cargo build --release -p perennial-node -p perennial-soak --features perennial-node/soak
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn an_attack_may_name_its_number() {
        let parse = |text: &str| text.parse::<AttackArg>();
        assert_eq!(parse("idle"), Ok(AttackArg { kind: Kind::Idle, count: None }));
        assert_eq!(parse("come-and-go:1000"), Ok(AttackArg { kind: Kind::ComeAndGo, count: Some(1000) }));
        for wrong in ["", "siege", "idle:", "idle:0", "idle:100001", "idle:many"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let cli = crate::args::Cli::try_parse_from(["soak", "flood", "idle:7", "mix", "--count", "9"]).unwrap();
        let crate::args::Verb::Flood(flood) = cli.verb else { panic!("flood was asked for") };
        let attacks = flood.attacks();
        assert_eq!(attacks[0], Attack { kind: Kind::Idle, count: 7 });
        assert_eq!(attacks[1], Attack { kind: Kind::Mix, count: 9 });
    }
}
