//! The options of `up`. `[pure]`

use std::{path::PathBuf, time::Duration};

use clap::Args;
use perennial::Listen;

use super::{AccessName, CONTROL_VARIABLE};
use crate::names::{self, PeerName, RelayName, TopicName, limits::LimitSetting};

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
    /// The control socket to create [default: in $XDG_RUNTIME_DIR/perennial or /tmp/perennial-UID]
    #[arg(long, value_name = "PATH", env = CONTROL_VARIABLE)]
    pub(crate) control: Option<PathBuf>,
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
