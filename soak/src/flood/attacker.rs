//! The attacker's process as the harness sees it: started, told to go and to stop, listened to.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use iroh_gossip::proto::TopicId;
use perennial_soak::attack::{ATTEMPTS_TIME_MAX, Kind, child::Line};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::evidence::Attacker;

/// Ten thousand first flights take a few seconds to build.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Attempts that have begun end by themselves within this long.
const MADE_TIMEOUT: Duration = ATTEMPTS_TIME_MAX.saturating_add(Duration::from_secs(30));

/// Everyone has left within this long.
const ENDED_TIMEOUT: Duration = Duration::from_secs(20);

/// A running attacker. Killed on drop.
#[derive(Debug)]
pub(crate) struct Process {
    _child: Child,
    words: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Attacker,
}

impl Process {
    /// Starts one, by this program, and waits until everything is built.
    pub(crate) async fn start(
        soak: &Path,
        (kind, count, per_second): (Kind, usize, Option<u32>),
        target: SocketAddr,
        topic: TopicId,
    ) -> Result<Self> {
        let mut command = Command::new(soak);
        command.args(["attack", kind.name(), "--count", &count.to_string(), "--target", &target.to_string()]);
        command.args(["--topic", &topic.to_string()]);
        if let Some(per_second) = per_second {
            command.args(["--pace", &per_second.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start the attacker")?;
        let words = child.stdin.take().expect("stdin is piped");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut attacker = Self { _child: child, words, lines, seen: Attacker::default() };
        match attacker.next(READY_TIMEOUT).await? {
            Line::Ready { build_cpu_ms } => attacker.seen.build_cpu_ms = build_cpu_ms,
            other @ (Line::Made { .. } | Line::Ended { .. }) => bail!("the attacker began with {other:?}"),
        }
        Ok(attacker)
    }

    /// Lets it go and waits until every attempt is made.
    pub(crate) async fn go(&mut self) -> Result<()> {
        self.words.write_all(b"go\n").await?;
        match self.next(MADE_TIMEOUT).await? {
            Line::Made { tally, took_ms, cpu_ms } => {
                self.seen = Attacker { tally, took_ms, cpu_ms, ..self.seen };
                Ok(())
            }
            other @ (Line::Ready { .. } | Line::Ended { .. }) => bail!("the attacker went on with {other:?}"),
        }
    }

    /// Makes everyone leave; what it has to tell.
    pub(crate) async fn stop(mut self) -> Result<Attacker> {
        self.words.write_all(b"stop\n").await?;
        match self.next(ENDED_TIMEOUT).await? {
            Line::Ended { held_to_the_end, cpu_ms } => Ok(Attacker { held_to_the_end, cpu_ms, ..self.seen }),
            other @ (Line::Ready { .. } | Line::Made { .. }) => bail!("the attacker ended with {other:?}"),
        }
    }

    async fn next(&mut self, patience: Duration) -> Result<Line> {
        let line = timeout(patience, self.lines.next_line()).await.context("the attacker fell silent")??;
        let line = line.context("the attacker ended early")?;
        serde_json::from_str(&line).with_context(|| format!("the attacker said {line:?}"))
    }
}
