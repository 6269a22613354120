//! The verbs about who gets in: `limits`, `allow`, `deny`, `forget`, `connections`. `[pure]`

use clap::{Args, Subcommand, ValueEnum};
use perennial::Access;

use super::{AskArgs, ConnectionOrder};
use crate::names::{
    PeerName,
    limits::{self, LimitSetting},
};

/// Who may connect at all, as the command line has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccessName {
    /// Everyone who is not denied.
    Open,
    /// Only nodes that are known.
    Known,
}

impl From<AccessName> for Access {
    fn from(name: AccessName) -> Self {
        match name {
            AccessName::Open => Access::Open,
            AccessName::Known => Access::KnownOnly,
        }
    }
}

/// Options of `limits`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LimitsArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<LimitsVerb>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

const SET_EXAMPLES: &str = "\
Examples:
  perennial limits set connections_max=64 inbound_max=48
  perennial limits set listener:0.0.0.0:4433=20 --evict

Limits that can be changed:
  connections_max, inbound_max, known_reserve, relay_connections_max, connections_per_ipv4_max,
  connections_per_ipv6_56_max, connections_per_ipv6_48_max, handshakes_max,
  handshakes_per_listener_max, speculative_max, retry_above, dials_max, and
  listener:ADDR for each listener as `perennial limits` names it";

#[derive(Debug, Subcommand)]
pub(crate) enum LimitsVerb {
    /// Change limits while the node runs: all of them, or none if they contradict each other.
    #[command(after_help = SET_EXAMPLES)]
    Set(SetLimitsArgs),
}

/// Options of `limits set`.
#[derive(Debug, Args)]
pub(crate) struct SetLimitsArgs {
    /// A limit and its value; the names are below.
    #[arg(required = true, value_name = "NAME=N", value_parser = limits::running_limit)]
    pub(crate) changes: Vec<LimitSetting>,
    /// Close connections of unknown nodes that are over a lowered cap. Without it nobody is closed, and nobody new
    /// admitted until enough have gone.
    #[arg(long)]
    pub(crate) evict: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Options of `allow`, `deny` and `forget`.
#[derive(Debug, Args)]
pub(crate) struct StandingArgs {
    /// The node: an id of 64 hex digits, a ticket, or ID@IP:PORT.
    #[arg(value_name = "ID|TICKET")]
    pub(crate) node: PeerName,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Options of `connections`.
#[derive(Debug, Args)]
pub(crate) struct ConnectionsArgs {
    /// Those that ended, the newest first, with who closed them and why.
    #[arg(long)]
    pub(crate) closed: bool,
    /// The most of this first; those that ended have neither rtt nor queue.
    #[arg(long, value_enum, value_name = "ORDER")]
    pub(crate) sort: Option<ConnectionOrder>,
    /// Show at most so many.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[cfg(test)]
mod tests {
    use perennial::Limits;

    use super::*;

    #[test]
    fn the_help_names_every_limit_that_can_be_changed() {
        let names = SET_EXAMPLES.split([',', '\n']).map(str::trim);
        let named: Vec<_> = names.filter(|name| Limits::CHANGEABLE.contains(name)).collect();
        assert_eq!(named, Limits::CHANGEABLE);
    }
}
