//! The verbs that talk on topics (`publish`, `subscribe`), and those that watch, check and end a node (`status --watch`,
//! `top`, `doctor`, `drain`). `[pure]`

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{AskArgs, UpArgs};
use crate::names::{self, TopicName};

const PUBLISH_EXAMPLES: &str = "\
Examples:
  perennial publish chat 'hello, everybody'
  perennial publish chat --file picture.png
  date | perennial publish chat -
  tail -F app.log | perennial publish logs --lines --json

The node must have joined the topic. One message has at most 4055 bytes. With --json a receipt is
printed for each message: the neighbors there were, how many of them had no room, and whether the
same content was published here lately, so that nodes that remember it drop it.
--lines stops at the first line that cannot be published, and names it.";

/// Options of `publish`.
#[derive(Debug, Args)]
#[command(after_help = PUBLISH_EXAMPLES)]
pub(crate) struct PublishArgs {
    /// A name, or 64 hex digits.
    pub(crate) topic: TopicName,
    /// The message; `-` takes all of standard input as one message.
    #[arg(value_name = "TEXT|-", required_unless_present_any = ["file", "lines"], allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// Publish the content of a file as one message.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "lines"])]
    pub(crate) file: Option<PathBuf>,
    /// Publish each line of standard input as one message.
    #[arg(long, conflicts_with = "text")]
    pub(crate) lines: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

const SUBSCRIBE_EXAMPLES: &str = "\
Examples:
  perennial subscribe chat
  perennial subscribe chat --count 1 --timeout 10s || echo nobody said anything
  perennial subscribe chat --json | jq -r 'select(.event == \"message\") | .text // .base64'

The node must have joined the topic, and stays in it. Each message is a line of stdout, what else
happens is told on stderr; with --json every event is one object, as with `up --json`. Whoever
reads too slowly is told how many events are missing. It does not reconnect: exit 69 when the
node ends.";

/// Options of `subscribe`.
#[derive(Debug, Args)]
#[command(after_help = SUBSCRIBE_EXAMPLES)]
pub(crate) struct SubscribeArgs {
    /// A name, or 64 hex digits.
    pub(crate) topic: TopicName,
    /// End with 0 after this many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after this long, such as 30s: with 0, or with 1 if --count was not reached.
    #[arg(long, value_name = "DURATION", value_parser = names::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print messages as they are, with nothing between them.
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show it again and again, every two seconds or at another interval, until the node ends.
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s", value_parser = interval)]
    pub(crate) watch: Option<Duration>,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Options of `drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Wait until the node has ended.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// Options of `top`.
#[derive(Debug, Args)]
#[command(mut_arg("json", |arg| arg.hide(true)))]
pub(crate) struct TopArgs {
    /// How often the node is asked.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub(crate) interval: Duration,
    /// What the connections are sorted by at first.
    #[arg(long, value_enum, value_name = "ORDER", default_value = "age")]
    pub(crate) sort: ConnectionOrder,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// What connections are sorted by, the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConnectionOrder {
    /// The oldest first.
    Age,
    /// The slowest first.
    Rtt,
    /// Those that carried most first; in `top`, those that carry most at the moment.
    Bytes,
    /// Those with most frames waiting first.
    Queue,
}

impl ConnectionOrder {
    /// The name that the API knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ConnectionOrder::Age => "age",
            ConnectionOrder::Rtt => "rtt",
            ConnectionOrder::Bytes => "bytes",
            ConnectionOrder::Queue => "queue",
        }
    }
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  perennial doctor
  perennial doctor --listen 0.0.0.0:4433 --key-file node.key --state-dir /var/lib/perennial
  perennial doctor --json | jq -r '.checks[] | select(.verdict != \"ok\") | .cure'

Takes the options of `up` and checks what it would meet: key, settings, directories, ports, what
the kernel allows; and whether the node that runs is ready. Nothing is started or changed.
Exit 1 if anything fails; a warning is no failure.";

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = DOCTOR_EXAMPLES,
    mut_arg("json", |arg| arg.help("Print one JSON object.")),
    mut_arg("pipe", |arg| arg.hide(true))
)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) up: UpArgs,
}

/// More often than this the answers would be most of what the node does.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = names::duration(text)?;
    match interval < INTERVAL_MIN {
        true => Err(format!("an interval of {interval:?} is less than {INTERVAL_MIN:?}, the least")),
        false => Ok(interval),
    }
}
