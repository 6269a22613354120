//! One real node process: started, listened to, written to, killed by its own process id.
//!
//! What its lines mean is `view.rs`; when to start and kill is `cluster.rs`. Dropping a [`Process`] kills it, so no node
//! outlives the harness however a run ends.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use perennial_soak::place::Place;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    sync::Notify,
    task::JoinHandle,
};

use crate::view::View;

/// The topic every node joins.
pub(crate) const TOPIC: &str = "soak";

/// A killed process is gone within this long, or something is wrong with the machine.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);

/// How a node is started.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Where it runs, and as which of the nodes there.
    pub place: &'a Place,
    pub node: usize,
    pub bin: &'a Path,
    pub control: &'a Path,
    pub key_file: &'a Path,
    pub log: &'a Path,
    /// `ID@IP:PORT` of nodes to join through.
    pub join: &'a [String],
    /// Names the probes of this run.
    pub run: &'a str,
    /// Told whenever the view has changed.
    pub changed: &'a Arc<Notify>,
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    view: Arc<Mutex<View>>,
    reader: JoinHandle<()>,
    /// Its control socket.
    pub control: PathBuf,
}

impl Process {
    /// Starts a node. It is not ready yet.
    pub(crate) fn start(launch: Launch<'_>) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(launch.log);
        let log = log.with_context(|| format!("cannot write the log {}", launch.log.display()))?;
        // A killed node leaves its socket behind; the next one on this path must find it free.
        let _ = std::fs::remove_file(launch.control);
        let mut command = launch.place.command(launch.node, launch.bin)?;
        command
            .args(["up", "--json", "--pipe", "--topic", TOPIC, "--control"])
            .arg(launch.control)
            .arg("--key-file")
            .arg(launch.key_file)
            .args(launch.place.arguments(launch.node))
            // A harness that is killed takes its nodes with it.
            .arg("--until-stdin-closes")
            // An identity from the environment would be everybody's.
            .env_remove("IROH_SECRET")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        for address in launch.join {
            command.args(["--join", address]);
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", launch.bin.display()))?;
        if let Some(pid) = child.id() {
            launch.place.started(launch.node, pid);
        }
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let view = Arc::new(Mutex::new(View::default()));
        let reader = tokio::spawn(read(stdout, view.clone(), launch.changed.clone(), launch.run.to_owned()));
        Ok(Self { child, stdin, view, reader, control: launch.control.to_owned() })
    }

    /// What it has said so far. Never held across an await.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Publishes one line through the pipe.
    pub(crate) async fn publish(&mut self, line: &str) -> Result<()> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.stdin.flush().await?)
    }

    /// SIGKILL, then waits until the operating system has taken it away.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.start_kill().context("cannot kill a node")?;
        tokio::time::timeout(REAP_TIMEOUT, self.child.wait()).await.context("a killed node did not end")??;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(stdout: ChildStdout, view: Arc<Mutex<View>>, changed: Arc<Notify>, run: String) {
    let mut lines = BufReader::new(stdout).lines();
    let lock = || view.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match lines.next_line().await {
            Ok(Some(line)) => lock().on_line(&line, &run),
            Ok(None) | Err(_) => {
                lock().ended = true;
                changed.notify_waiters();
                return;
            }
        }
        changed.notify_waiters();
    }
}
