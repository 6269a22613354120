//! The command line: every verb, flag and help text. What they do is in the file named after the verb. `[pure]`
//!
//! The options of the verbs about who gets in are in `cli/door.rs`, of those that talk, watch and check in `cli/talk.rs`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use perennial::Listen;

use crate::names::{
    self, PeerName, RelayName, TopicName,
    limits::{Capped, LimitSetting},
};

mod door;
mod talk;

pub(crate) use door::{AccessName, ConnectionsArgs, LimitsArgs, LimitsVerb, SetLimitsArgs, StandingArgs};
pub(crate) use talk::{ConnectionOrder, DoctorArgs, DrainArgs, PublishArgs, StatusArgs, TopArgs};

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
   78  a setting that cannot be: contradicting limits, a key that is none
  130, 143  a second SIGINT or SIGTERM while draining";

/// iroh warns several times of every remote that does not negotiate its extensions of QUIC, so that strangers could fill the
/// log of a node whose door keeps them out: ten lines for each was measured.
const LOG: &str = "warn,iroh::socket::remote_map=error,perennial=info";

/// A gossip-mesh node that speaks iroh-gossip and accounts for every task it starts.
#[derive(Debug, Parser)]
#[command(name = "perennial", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// What is logged to stderr, as tracing directives such as `debug` or `perennial=trace,iroh=info`.
    #[arg(long, global = true, env = "PERENNIAL_LOG", value_name = "FILTER", default_value = LOG)]
    pub(crate) log: String,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a node until SIGINT, SIGTERM or `perennial stop`.
    Up(UpArgs),
    /// Show how the running node is.
    Status(StatusArgs),
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
    /// Print a completion script for a shell.
    Completions {
        /// The shell to complete for.
        shell: clap_complete::Shell,
    },
}

const UP_EXAMPLES: &str = "\
Examples:
  perennial up --topic chat --pipe
  perennial up --topic chat --join TICKET --pipe --json
  perennial up --listen 0.0.0.0:4433 --key-file ~/.perennial-key --topic chat

Data goes to stdout, words to stderr. Without --json and --pipe nothing is printed to stdout.
With --pipe each line of stdin is one message to the first --topic, and received messages are
lines of stdout; with --json every event is one JSON object per line. The end of stdin does
not end the node.

The first SIGINT or SIGTERM drains: farewells, flush, at most 10 s, exit 0 (1 if tasks had to
be aborted). The second one ends the node at once with 130 or 143.";

/// Options of `up`.
#[derive(Debug, Args)]
#[command(after_help = UP_EXAMPLES)]
pub(crate) struct UpArgs {
    /// UDP address to listen on: IP:PORT, or an IP for a free port; with max-connections=N, the connections it may hold.
    /// May be repeated [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR[,max-connections=N]", value_parser = names::limits::listen)]
    pub(crate) listen: Vec<Listen>,
    /// A node to meet: a ticket, or ID@IP:PORT[,IP:PORT]. May be repeated.
    #[arg(long, value_name = "TICKET|ID@IP:PORT", requires = "topic")]
    pub(crate) join: Vec<PeerName>,
    /// A topic to join: a name, or the 64 hex digits of any iroh-gossip topic. May be repeated.
    #[arg(long, value_name = "NAME|64-HEX")]
    pub(crate) topic: Vec<TopicName>,
    /// The file with this node's key; created, readable by you only, where it is missing. Without it, and without
    /// IROH_SECRET, the identity is forgotten at the end.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// A directory, used by you only, to remember known nodes and the last neighbors of each topic in, so that a restart
    /// needs no --join. Created where it is missing. Without it they are forgotten at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Publish each line of stdin to the first topic, and print received messages to stdout.
    #[arg(long, requires = "topic")]
    pub(crate) pipe: bool,
    /// Print every event as one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    /// The control socket to create, and how many may be connected to it at one time; the next one waits
    /// [default: in $XDG_RUNTIME_DIR/perennial or /tmp/perennial-UID, 16]
    #[arg(long, value_name = "PATH[,max-connections=N]", env = CONTROL_VARIABLE, value_parser = names::limits::control)]
    pub(crate) control: Option<Capped<PathBuf>>,
    /// An address to answer on over HTTP as well, and how many may be connected to it at one time [default: none, 64]
    #[arg(long, value_name = "IP:PORT[,max-connections=N]", value_parser = names::limits::http)]
    pub(crate) http: Option<Capped<SocketAddr>>,
    /// A file, readable by you only, with the token that every request to --http must bear. Needed where other machines
    /// reach the address.
    #[arg(long, value_name = "FILE", requires = "http")]
    pub(crate) http_token_file: Option<PathBuf>,
    /// Relays to be reachable through: default, disabled, or a URL.
    #[arg(long, value_name = "default|disabled|URL", default_value = "disabled")]
    pub(crate) relay: RelayName,
    /// Ask the router for a port (UPnP, PCP, NAT-PMP).
    #[arg(long)]
    pub(crate) port_mapping: bool,
    /// A node that is known: it has connection slots of its own, and displaces an unknown one when there are none.
    /// Nodes named by --join are known as well. May be repeated.
    #[arg(long, value_name = "ID|TICKET|ID@IP:PORT")]
    pub(crate) known: Vec<PeerName>,
    /// A node not to deal with: neither accepted nor dialed. May be repeated.
    #[arg(long, value_name = "ID")]
    pub(crate) deny: Vec<PeerName>,
    /// Who may connect at all.
    #[arg(long, value_enum, value_name = "open|known", default_value = "open")]
    pub(crate) access: AccessName,
    /// QUIC connections at one time, in both directions, half-open ones included. What is bounded by it follows: three
    /// quarters may be incoming, an eighth is kept for known nodes [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_connections: Option<u32>,
    /// One limit by name; `perennial limits set --help` lists them. May be repeated.
    #[arg(long, value_name = "NAME=N")]
    pub(crate) limit: Vec<LimitSetting>,
    /// Resident memory not to exceed, such as 512MiB: from 80 % on no unknown node is admitted, from 95 % on one a second
    /// is closed [default: not watched]
    #[arg(long, value_name = "SIZE", value_parser = names::limits::size)]
    pub(crate) memory_budget: Option<u64>,
    /// Count nodes of this machine in the limits per address. By default they are exempt.
    #[arg(long)]
    pub(crate) count_loopback: bool,
    /// Give up a connection that has been silent for this long, such as 5s. A killed neighbor is noticed this late
    /// [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = names::duration)]
    pub(crate) idle_timeout: Option<Duration>,
    /// End when stdin is closed, so that the node does not outlive the process that holds the other end.
    #[arg(long, hide = true, requires = "pipe")]
    pub(crate) until_stdin_closes: bool,
}

/// Options of the verbs that ask a running node.
#[derive(Debug, Clone, Args)]
pub(crate) struct AskArgs {
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// The control socket of the node [default: of the only one running]
    #[arg(long, value_name = "PATH", env = CONTROL_VARIABLE)]
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
    fn join_and_pipe_need_a_topic() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let id = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";
        assert!(parse("perennial up").is_ok());
        for line in [format!("perennial up --join {id}"), "perennial up --pipe".into()] {
            let error = parse(&line).unwrap_err();
            assert!(error.to_string().contains("--topic"), "{error}");
        }
        assert!(parse(&format!("perennial up --join {id} --topic chat --pipe --json")).is_ok());
        assert!(parse("perennial ledger --settle soon").is_err());
        assert!(parse("perennial demo --nodes 1").is_err());
        assert!(parse("perennial up --max-connections 0").is_err());
    }
}
