//! The command line: every verb, flag and help text. What they do is in the file named after the verb. `[pure]`
//!
//! The options of `up` are in `cli/up.rs`, those of `config` in `cli/config.rs`, of the verbs about who gets in in
//! `cli/door.rs`, of those that talk, watch and check in `cli/talk.rs`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::names::{self, PeerName, TopicName};

mod config;
mod door;
mod talk;
mod up;

pub(crate) use config::{ConfigVerb, Format, ShowArgs};
pub(crate) use door::{AccessName, ConnectionsArgs, LimitsArgs, LimitsVerb, SetLimitsArgs, StandingArgs};
pub(crate) use talk::{ConnectionOrder, DoctorArgs, DrainArgs, PublishArgs, StatusArgs, SubscribeArgs, TopArgs};
pub(crate) use up::{CONFIG_VARIABLE, Given, UpArgs};

/// The control socket's environment variable, for the node and for those who ask it.
pub(crate) const CONTROL_VARIABLE: &str = "PERENNIAL_CONTROL";

const EXAMPLES: &str = "\
Examples:
  perennial demo                                      see a mesh form, lose a node and heal
  perennial up --topic chat --pipe                    type to everybody on the topic `chat`
  perennial up --join TICKET --topic chat --pipe      meet the node that printed TICKET
  perennial status                                    ask the running node how it is

Exit codes:
    0  done; a node that was asked to end has drained
    1  a check failed: orphans, a lost message, a node that gave up or had to abort tasks while draining
    2  usage
   69  no node is running
   74  reading or writing failed, or standard output was closed
   75  not at this moment: the socket is taken, or the node is full or shutting down
   77  a key, socket or directory that others could use
   78  a setting that cannot be: contradicting limits, an unknown name in the settings file, a key that is none
  130, 143  a second SIGINT or SIGTERM while draining";

/// A gossip-mesh node that speaks iroh-gossip and accounts for every task it starts.
#[derive(Debug, Parser)]
#[command(name = "perennial", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// What is logged to stderr, as tracing directives such as `debug` or `perennial=trace,iroh=info`
    /// [default: warn,iroh::socket::remote_map=error,perennial=info]
    #[arg(long, global = true, env = "PERENNIAL_LOG", hide_env_values = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How lines on stderr look [default: text]
    #[arg(long, global = true, env = "PERENNIAL_LOG_FORMAT", hide_env_values = true, value_name = "text|json|logfmt")]
    pub(crate) log_format: Option<String>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a node until SIGINT, SIGTERM or `perennial stop`.
    Up(UpArgs),
    /// Show how the running node is.
    Status(StatusArgs),
    /// Ask whether the running node should be sent work; exit 1 if not. For the probes of a supervisor.
    Ready(AskArgs),
    /// Watch the running node live: rates, queues, tasks, memory, connections.
    Top(TopArgs),
    /// Show every remote the running node has to do with, and its connections.
    Peers(AskArgs),
    /// Show the connections of the running node, or with --closed those that ended and why.
    Connections(ConnectionsArgs),
    /// Show every limit of the running node, its use, and what was refused; or change limits.
    Limits(LimitsArgs),
    /// Know a node from here on: it has connection slots of its own, and displaces an unknown one when there are none.
    Allow(StandingArgs),
    /// Deal with a node no longer: its connections are closed at once, it is neither accepted nor dialed.
    Deny(StandingArgs),
    /// Take a node off both lists: it is nobody in particular again.
    Forget(StandingArgs),
    /// Hold every task ever started against what should be alive; exit 1 while the two differ.
    Ledger(LedgerArgs),
    /// Show the topics the running node has joined.
    Topics(AskArgs),
    /// Publish a message on a topic, or each line of standard input.
    Publish(PublishArgs),
    /// Listen to a topic of the running node.
    Subscribe(SubscribeArgs),
    /// Join a topic on the running node.
    Join(JoinArgs),
    /// Leave a topic on the running node.
    Leave(LeaveArgs),
    /// Let the running node read its settings anew, and tell what is different now.
    Reload(AskArgs),
    /// Let the running node take no more work, say goodbye and end.
    Drain(DrainArgs),
    /// Ask the running node to drain and end.
    Stop(AskArgs),
    /// Check what a node would meet on this machine, and whether the one that runs is ready; exit 1 if anything fails.
    Doctor(DoctorArgs),
    /// Start real nodes on loopback, kill some, and check that nothing is lost or left behind.
    Demo(DemoArgs),
    /// Print an id: of a key file, of IROH_SECRET, or of the running node.
    Id(IdArgs),
    /// Create a key file, or show what is in one.
    #[command(subcommand)]
    Key(KeyVerb),
    /// Print a ticket others can join with: of the running node, or made from a key file and addresses.
    Ticket(TicketArgs),
    /// Check, show or print settings.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Print a completion script for a shell.
    Completions {
        /// The shell to complete for.
        shell: clap_complete::Shell,
    },
}

/// Options of the verbs that ask a running node.
#[derive(Debug, Clone, Args)]
pub(crate) struct AskArgs {
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// The control socket of the node [default: of the only one running]
    #[arg(long, value_name = "PATH", env = CONTROL_VARIABLE, value_parser = names::limits::control_path)]
    pub(crate) control: Option<PathBuf>,
    /// The HTTP address of the node, instead of its control socket
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) http: Option<SocketAddr>,
    /// The file with the token of that address
    #[arg(long, value_name = "FILE", requires = "http")]
    pub(crate) http_token_file: Option<PathBuf>,
}

/// Options of `ledger`.
#[derive(Debug, Args)]
pub(crate) struct LedgerArgs {
    /// How long orphans may take to disappear, such as 5s or 500ms. A task that ends is one for a moment.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = names::duration)]
    pub(crate) settle: Duration,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Options of `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// A name, or the 64 hex digits of any iroh-gossip topic.
    pub(crate) topic: TopicName,
    /// A node to meet: a ticket, or ID@IP:PORT[,IP:PORT]. May be repeated.
    #[arg(long, value_name = "TICKET|ID@IP:PORT")]
    pub(crate) peer: Vec<PeerName>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Options of `leave`.
#[derive(Debug, Args)]
pub(crate) struct LeaveArgs {
    /// A name, or 64 hex digits.
    pub(crate) topic: TopicName,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Nodes to start, from 2 to 50.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=50))]
    pub(crate) nodes: u8,
    /// Nodes to kill with SIGKILL and bring back, one after the other.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) kills: u8,
    /// Chooses the victims. The same seed chooses the same ones [default: a random one, printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// Options of `id`.
#[derive(Debug, Args)]
pub(crate) struct IdArgs {
    /// The key file to read.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    /// Create a key file, readable by you only, and print its id. An existing file is not overwritten.
    Generate {
        /// The file to create.
        file: PathBuf,
    },
    /// Print the id of a key file.
    Show {
        /// The file to read.
        file: PathBuf,
        /// Print the secret key itself, fit for IROH_SECRET.
        #[arg(long)]
        secret: bool,
    },
}

/// Options of `ticket`.
#[derive(Debug, Args)]
pub(crate) struct TicketArgs {
    /// Make the ticket from this key file, without a running node.
    #[arg(long, value_name = "FILE", requires = "addr")]
    pub(crate) key_file: Option<PathBuf>,
    /// An address the node will be reachable at. May be repeated.
    #[arg(long, value_name = "IP:PORT", requires = "key_file")]
    pub(crate) addr: Vec<SocketAddr>,
    /// Print it as a QR code as well, if that fits the terminal.
    #[arg(long, conflicts_with = "json")]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_wrong_at_first_sight_is_refused() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("perennial up").is_ok());
        assert!(parse("perennial up --until-stdin-closes").is_err());
        assert!(parse("perennial ledger --settle soon").is_err());
        assert!(parse("perennial demo --nodes 1").is_err());
    }

    #[test]
    fn flags_and_variables_of_the_settings_are_told_apart() {
        let line = ["perennial", "--log", "debug", "up", "--port-mapping", "--limit", "a=1", "--limit", "b=2"];
        let cli = Cli::try_parse_from(line).unwrap();
        let Verb::Up(args) = cli.verb else { panic!("not up: {:?}", cli.verb) };
        let words = |name: &str| args.given.flags.get(name).cloned();
        assert_eq!(words("log"), Some(vec!["debug".to_owned()]));
        assert_eq!(words("port_mapping"), Some(vec!["true".to_owned()]));
        assert_eq!(words("limit"), Some(vec!["a=1".to_owned(), "b=2".to_owned()]));
        assert_eq!(words("listen"), None);
    }

    #[test]
    fn every_setting_has_a_flag_and_a_variable_named_after_it() {
        let command = Cli::command();
        let up = command.find_subcommand("up").expect("there is such a verb");
        for name in crate::settings::NAMES.iter().copied().chain([crate::settings::LIMIT_FLAG]) {
            let of = |command: &clap::Command| command.get_arguments().find(|arg| arg.get_id() == name).cloned();
            let arg = of(up).or_else(|| of(&command)).unwrap_or_else(|| panic!("{name} has no flag"));
            assert_eq!(arg.get_long(), Some(name.replace('_', "-").as_str()));
            let variable = arg.get_env().map(|variable| variable.to_string_lossy().into_owned());
            assert_eq!(variable, Some(crate::settings::variable(name)));
        }
    }
}
