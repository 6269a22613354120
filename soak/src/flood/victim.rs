//! The node that is flooded, as a process: ours, stock or a bare endpoint behind the same lines and control socket. Also
//! the application on it: a loop that publishes an echo for every probe it hears.
//!
//! Dropping a [`Victim`] kills it. What it costs is looked at by `sampler.rs`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use iroh::{EndpointAddr, EndpointId};
use iroh_gossip::proto::TopicId;
use perennial_soak::place::isolate;
use serde::Serialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

use super::probes::{echo_text, probe_number};

/// A node is ready within this long.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// What is flooded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Software {
    /// `perennial up`.
    Ours,
    /// Stock iroh-gossip.
    Stock,
    /// An iroh endpoint that accepts and closes.
    Bare,
}

impl Software {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Stock => "stock",
            Self::Bare => "bare iroh",
        }
    }
}

/// The programs a flood needs, and what ours understands.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// `perennial`.
    pub ours: PathBuf,
    /// `perennial-soak-stock`.
    pub stock: PathBuf,
    /// This program, to run the attacker in a process of its own.
    pub soak: PathBuf,
    /// Whether `perennial up` can be told whom it knows.
    pub has_known: bool,
    /// More arguments for `perennial up`.
    pub up_args: Vec<String>,
}

/// A running victim.
#[derive(Debug)]
pub(crate) struct Victim {
    pub software: Software,
    pub id: EndpointId,
    pub addr: SocketAddr,
    pub pid: u32,
    pub control: PathBuf,
    child: Child,
    application: JoinHandle<()>,
}

impl Victim {
    /// Starts one and waits until it is ready. `known` are peers it is told about, where it can be told.
    pub(crate) async fn start(
        programs: &Programs,
        software: Software,
        directory: &Path,
        topics: &[TopicId],
        known: &[EndpointId],
    ) -> Result<Self> {
        let control = directory.join(format!("{}.sock", software.name().replace(' ', "-")));
        let _ = std::fs::remove_file(&control);
        let log = directory.join(format!("{}.log", software.name().replace(' ', "-")));
        let log = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = command(programs, software, known);
        for topic in topics {
            command.arg("--topic").arg(topic.to_string());
        }
        isolate(&mut command);
        command.arg("--control").arg(&control).stderr(log);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start the victim ({})", software.name()))?;
        let pid = child.id().context("the victim ended at once")?;
        let stdin = child.stdin.take().expect("stdin is piped");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let ready = timeout(READY_TIMEOUT, first_ready(&mut lines)).await;
        let (id, addr) = ready.with_context(|| format!("the victim ({}) was not ready in time", software.name()))??;
        let application = tokio::spawn(echo(lines, stdin));
        Ok(Self { software, id, addr, pid, control, child, application })
    }

    /// Its identity and address.
    pub(crate) fn endpoint_addr(&self) -> EndpointAddr {
        EndpointAddr::new(self.id).with_ip_addr(self.addr)
    }

    /// How it ended, if it has. A victim that dies in a flood has lost.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Some(status.to_string()),
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.application.abort();
    }
}

fn command(programs: &Programs, software: Software, known: &[EndpointId]) -> Command {
    match software {
        Software::Ours => {
            let mut command = Command::new(&programs.ours);
            command.args(["up", "--json", "--pipe", "--until-stdin-closes"]);
            // The one place where the victim is told whom it knows.
            for peer in known.iter().filter(|_| programs.has_known) {
                command.arg("--known").arg(peer.to_string());
            }
            command.args(&programs.up_args);
            command
        }
        Software::Stock | Software::Bare => {
            let mut command = Command::new(&programs.stock);
            if software == Software::Bare {
                command.arg("--bare");
            }
            command
        }
    }
}

async fn first_ready(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<(EndpointId, SocketAddr)> {
    while let Some(line) = lines.next_line().await? {
        let json: Value = serde_json::from_str(&line).with_context(|| format!("not a JSON line: {line}"))?;
        if json["event"] == "ready" {
            let id = json["id"].as_str().context("the victim is ready without an id")?;
            let addr = json["addrs"][0].as_str().context("the victim is ready without an address")?;
            return Ok((id.parse()?, addr.parse()?));
        }
    }
    bail!("the victim ended before it was ready")
}

/// The application of the victim, the same for every software: what is heard comes back.
async fn echo(mut lines: Lines<BufReader<ChildStdout>>, mut stdin: ChildStdin) {
    loop {
        let line = match lines.next_line().await {
            Ok(Some(line)) => line,
            // The victim ended; whoever asks for it next is told.
            Ok(None) | Err(_) => return,
        };
        let Ok(json) = serde_json::from_str::<Value>(&line) else { continue };
        let heard = json["text"].as_str().and_then(probe_number);
        if let Some(number) = heard
            && stdin.write_all(format!("{}\n", echo_text(number)).as_bytes()).await.is_err()
        {
            return;
        }
    }
}
