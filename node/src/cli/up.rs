//! The options of `up`, and which of them are settings. `[pure]`
//!
//! Settings are taken here as words, flags and variables apart; `settings.rs` reads them, so that a value is understood the
//! same way and refused in the same words wherever it comes from.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches, parser::ValueSource};

use super::CONTROL_VARIABLE;
use crate::settings::{LIMIT_FLAG, NAMES, Words};

/// The variable that names the settings file.
pub(crate) const CONFIG_VARIABLE: &str = "PERENNIAL_CONFIG";

const UP_EXAMPLES: &str = "\
Examples:
  perennial up --topic chat --pipe
  perennial up --topic chat --join TICKET --pipe --json
  perennial up --listen 0.0.0.0:4433 --key-file ~/.perennial-key --topic chat
  perennial up --config /etc/perennial/config.toml

Data goes to stdout, words to stderr. Without --json and --pipe nothing is printed to stdout.
With --pipe each line of stdin is one message to the first --topic, and received messages are
lines of stdout; with --json every event is one JSON object per line. The end of stdin does
not end the node.

Every option with an environment variable is a setting, and can stand in the settings file as
well: a flag goes before a variable, a variable before the file. A list replaces the list below
it. In a variable white space stands between two values, and an empty one counts as not set.
`perennial config default` prints the file with every setting, `perennial config show` what
all of them come to.

SIGHUP reads the settings anew (from a terminal that is closed it drains), SIGUSR1 writes ledger
and limits to the log. The first SIGINT or
SIGTERM drains: farewells, flush, at most 10 s, exit 0 (1 if tasks had to be aborted). The
second one ends the node at once with 130 or 143.";

/// Options of `up`.
#[derive(Debug, Args)]
#[command(after_help = UP_EXAMPLES)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) given: Given,
    /// Publish each line of stdin to the first topic, and print received messages to stdout.
    #[arg(long)]
    pub(crate) pipe: bool,
    /// Print every event as one JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
    /// End when stdin is closed, so that the node does not outlive the process that holds the other end.
    #[arg(long, hide = true, requires = "pipe")]
    pub(crate) until_stdin_closes: bool,
}

/// What command line and environment say of the settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    /// The settings file that was asked for.
    pub(crate) config: Option<PathBuf>,
    pub(crate) flags: Words,
    pub(crate) variables: Words,
}

/// The settings as the command line has them: names, variables and help. Values are read by name, in [`Given`].
#[derive(Debug, Args)]
struct Declared {
    /// The settings file [default: $XDG_CONFIG_HOME/perennial/config.toml or ~/.config/perennial/config.toml if there is
    /// one, else /etc/perennial/config.toml if there is one, else none]
    #[arg(short, long, value_name = "FILE", env = CONFIG_VARIABLE, hide_env_values = true)]
    config: Option<PathBuf>,
    /// UDP address to listen on: IP:PORT, or an IP for a free port; with max-connections=N, the connections it may hold.
    /// May be repeated [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR[,max-connections=N]", env = "PERENNIAL_LISTEN", hide_env_values = true)]
    listen: Vec<String>,
    /// A node to meet: a ticket, or ID@IP:PORT[,IP:PORT]. May be repeated.
    #[arg(long, value_name = "TICKET|ID@IP:PORT", env = "PERENNIAL_JOIN", hide_env_values = true)]
    join: Vec<String>,
    /// A topic to join: a name, or the 64 hex digits of any iroh-gossip topic. May be repeated.
    #[arg(long, value_name = "NAME|64-HEX", env = "PERENNIAL_TOPIC", hide_env_values = true)]
    topic: Vec<String>,
    /// The file with this node's key; created, readable by you only, where it is missing. Without it, and without
    /// IROH_SECRET, the identity is forgotten at the end.
    #[arg(long, value_name = "FILE", env = "PERENNIAL_KEY_FILE", hide_env_values = true)]
    key_file: Option<String>,
    /// A directory, used by you only, to remember known nodes and the last neighbors of each topic in, so that a restart
    /// needs no --join. Created where it is missing. Without it they are forgotten at the end.
    #[arg(long, value_name = "DIR", env = "PERENNIAL_STATE_DIR", hide_env_values = true)]
    state_dir: Option<String>,
    /// The control socket to create, and how many may be connected to it at one time; the next one waits
    /// [default: in $XDG_RUNTIME_DIR/perennial or /tmp/perennial-UID, 16]
    #[arg(long, value_name = "PATH[,max-connections=N]", env = CONTROL_VARIABLE, hide_env_values = true)]
    control: Option<String>,
    /// An address to answer on over HTTP as well, and how many may be connected to it at one time [default: none, 64]
    #[arg(long, value_name = "IP:PORT[,max-connections=N]", env = "PERENNIAL_HTTP", hide_env_values = true)]
    http: Option<String>,
    /// A file, readable by you only, with the token that every request to --http must bear. Needed where other machines
    /// reach the address.
    #[arg(long, value_name = "FILE", env = "PERENNIAL_HTTP_TOKEN_FILE", hide_env_values = true)]
    http_token_file: Option<String>,
    /// Relays to be reachable through: default, disabled, or a URL [default: disabled]
    #[arg(long, value_name = "default|disabled|URL", env = "PERENNIAL_RELAY", hide_env_values = true)]
    relay: Option<String>,
    /// Ask the router for a port (UPnP, PCP, NAT-PMP).
    #[arg(long, value_name = "true|false", env = "PERENNIAL_PORT_MAPPING", hide_env_values = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    port_mapping: Option<String>,
    /// A node that is known: it has connection slots of its own, and displaces an unknown one when there are none.
    /// Nodes named by --join are known as well. May be repeated.
    #[arg(long, value_name = "ID|TICKET|ID@IP:PORT", env = "PERENNIAL_KNOWN", hide_env_values = true)]
    known: Vec<String>,
    /// A node not to deal with: neither accepted nor dialed. May be repeated.
    #[arg(long, value_name = "ID", env = "PERENNIAL_DENY", hide_env_values = true)]
    deny: Vec<String>,
    /// Who may connect at all [default: open]
    #[arg(long, value_name = "open|known", env = "PERENNIAL_ACCESS", hide_env_values = true)]
    access: Option<String>,
    /// QUIC connections at one time, in both directions, half-open ones included. What is bounded by it follows: three
    /// quarters may be incoming, an eighth is kept for known nodes [default: 128]
    #[arg(long, value_name = "N", env = "PERENNIAL_MAX_CONNECTIONS", hide_env_values = true)]
    max_connections: Option<String>,
    /// One limit by name; `perennial limits set --help` lists them. May be repeated.
    #[arg(long, value_name = "NAME=N", env = "PERENNIAL_LIMIT", hide_env_values = true)]
    limit: Vec<String>,
    /// Resident memory not to exceed, such as 512MiB: from 80 % on no unknown node is admitted, from 95 % on one a second
    /// is closed [default: not watched]
    #[arg(long, value_name = "SIZE", env = "PERENNIAL_MEMORY_BUDGET", hide_env_values = true)]
    memory_budget: Option<String>,
    /// Count nodes of this machine in the limits per address. By default they are exempt.
    #[arg(long, value_name = "true|false", env = "PERENNIAL_COUNT_LOOPBACK", hide_env_values = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    count_loopback: Option<String>,
    /// Give up a connection that has been silent for this long, such as 5s. A killed neighbor is noticed this late
    /// [default: 10s]
    #[arg(long, value_name = "DURATION", env = "PERENNIAL_IDLE_TIMEOUT", hide_env_values = true)]
    idle_timeout: Option<String>,
    /// A collector to send spans and metrics to, such as http://127.0.0.1:4317. The standard OTEL_* variables are read as
    /// well; this one goes before OTEL_EXPORTER_OTLP_ENDPOINT [default: none, nothing is sent]
    #[arg(long, value_name = "URL", env = "PERENNIAL_OTLP", hide_env_values = true)]
    otlp: Option<String>,
    /// How the collector is spoken to [default: OTEL_EXPORTER_OTLP_PROTOCOL, else grpc]
    #[arg(long, value_name = "grpc|http/protobuf", env = "PERENNIAL_OTLP_PROTOCOL", hide_env_values = true)]
    otlp_protocol: Option<String>,
    /// How often the node proves to itself that it can be reached, by a handshake with its own door; 0s for never
    /// [default: 10s]
    #[arg(long, value_name = "DURATION", env = "PERENNIAL_PROBE_INTERVAL", hide_env_values = true)]
    probe_interval: Option<String>,
}

impl Given {
    fn note(&mut self, matches: &ArgMatches, name: &'static str) {
        let words = || matches.get_many::<String>(name).unwrap_or_default().cloned();
        match matches.value_source(name) {
            Some(ValueSource::CommandLine) => drop(self.flags.insert(name, words().collect())),
            Some(ValueSource::EnvVariable) => {
                let text = words().next().unwrap_or_default();
                if !text.trim().is_empty() {
                    self.variables.insert(name, vec![text]);
                }
            }
            Some(_) | None => {}
        }
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        Declared::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Declared::augment_args_for_update(command)
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let config: Option<&PathBuf> = matches.get_one("config");
        let mut given = Self { config: config.filter(|path| !path.as_os_str().is_empty()).cloned(), ..Self::default() };
        for name in NAMES.iter().copied().chain([LIMIT_FLAG]) {
            given.note(matches, name);
        }
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
