//! One real node process: started, listened to, written to, killed by its own process id.
//!
//! What its lines mean is `view.rs`; when to start and kill is `cluster.rs`. Dropping a [`Process`] kills it, so no node
//! outlives the harness however a run ends.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use perennial_soak::place::Place;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Mutex as AsyncMutex, Notify, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::view::View;

/// The topic every node joins.
pub(crate) const TOPIC: &str = "soak";

/// A killed process is gone within this long, or something is wrong with the machine.
const REAP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a node of a run is, before it is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seat {
    /// The program.
    pub bin: PathBuf,
    /// A program that becomes the node, and its arguments: `prlimit`.
    pub prefix: Vec<String>,
    /// More arguments for `up`.
    pub args: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
}

/// How a node is started.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Where it runs, and as which of the nodes there.
    pub place: &'a Place,
    pub node: usize,
    pub seat: &'a Seat,
    pub control: &'a Path,
    pub key_file: &'a Path,
    pub log: &'a Path,
    /// `ID@IP:PORT` of nodes to join through.
    pub join: &'a [String],
    /// The address to listen on, where it must be a certain one.
    pub listen: Option<&'a str>,
    /// Names the probes of this run.
    pub run: &'a str,
    /// Told whenever the view has changed.
    pub changed: &'a Arc<Notify>,
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Process {
    child: AsyncMutex<Child>,
    stdin: AsyncMutex<ChildStdin>,
    view: Arc<Mutex<View>>,
    reader: JoinHandle<()>,
    /// Whether its stdout is read.
    reading: watch::Sender<bool>,
    /// Its process id. Not used again before this value is dropped: the child is reaped by nobody else.
    pub pid: u32,
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
        let mut command = command(&launch)?;
        command
            .args(["up", "--json", "--pipe", "--topic", TOPIC, "--control"])
            .arg(launch.control)
            .arg("--key-file")
            .arg(launch.key_file)
            .args(launch.place.arguments(launch.node))
            // A harness that is killed takes its nodes with it.
            .arg("--until-stdin-closes")
            .args(&launch.seat.args)
            .envs(launch.seat.env.iter().map(|(name, value)| (name, value)))
            // An identity from the environment would be everybody's.
            .env_remove("IROH_SECRET")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        for address in launch.join {
            command.args(["--join", address]);
        }
        let place = || launch.place.listen(launch.node).map(|address| address.to_string());
        if let Some(address) = launch.listen.map(str::to_owned).or_else(place) {
            command.args(["--listen", &address]);
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {}", launch.seat.bin.display()))?;
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let view = View::on_topic(blake3::hash(TOPIC.as_bytes()).to_hex().to_string());
        let view = Arc::new(Mutex::new(view));
        let reading = watch::Sender::new(true);
        let listener = Listener { view: view.clone(), changed: launch.changed.clone(), run: launch.run.to_owned() };
        let reader = tokio::spawn(listener.read(stdout, reading.subscribe()));
        let pid = child.id().context("a node ended as it was started")?;
        launch.place.started(launch.node, pid);
        let (child, stdin) = (AsyncMutex::new(child), AsyncMutex::new(stdin));
        Ok(Self { child, stdin, view, reader, reading, pid, control: launch.control.to_owned() })
    }

    /// What it has said so far. Never held across an await.
    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes one line through the pipe.
    pub(crate) async fn publish(&self, line: &str) -> Result<()> {
        let mut stdin = self.stdin.lock().await;
        stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    /// SIGKILL, then waits until the operating system has taken it away.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.child.lock().await.start_kill().context("cannot kill a node")?;
        self.ended_within(REAP_TIMEOUT).await.map(drop)
    }

    /// SIGSTOP: it lives, and does nothing until [`Self::resume`].
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Nobody reads its stdout until [`Self::read_on`]: its application has stopped.
    pub(crate) fn stop_reading(&self) {
        self.reading.send_replace(false);
    }

    /// Reads again what it says.
    pub(crate) fn read_on(&self) {
        self.reading.send_replace(true);
    }

    /// Waits for its end; how it ended.
    pub(crate) async fn ended_within(&self, timeout: Duration) -> Result<ExitStatus> {
        let mut child = self.child.lock().await;
        Ok(tokio::time::timeout(timeout, child.wait()).await.context("a node that was to end did not")??)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process id beyond its range")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal process {}", self.pid))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The node's program in its place. A paused node does not see its stdin close, so the kernel is asked to end it with the
/// harness, where util-linux can ask.
fn command(launch: &Launch<'_>) -> Result<Command> {
    const SETPRIV: &str = "/usr/bin/setpriv";
    let mut words: Vec<PathBuf> = Vec::new();
    if Path::new(SETPRIV).exists() {
        words.extend([SETPRIV, "--pdeathsig", "KILL"].map(PathBuf::from));
    }
    words.extend(launch.seat.prefix.iter().map(PathBuf::from));
    words.push(launch.seat.bin.clone());
    let mut command = launch.place.command(launch.node, &words[0])?;
    command.args(&words[1..]);
    Ok(command)
}

/// Who reads the lines of a node.
struct Listener {
    view: Arc<Mutex<View>>,
    changed: Arc<Notify>,
    run: String,
}

impl Listener {
    async fn read(self, stdout: ChildStdout, mut reading: watch::Receiver<bool>) {
        let mut lines = BufReader::new(stdout).lines();
        let lock = || self.view.lock().unwrap_or_else(PoisonError::into_inner);
        // An error means that nobody can ask for silence any more.
        while reading.wait_for(|reading| *reading).await.is_ok() {
            match lines.next_line().await {
                Ok(Some(line)) => lock().on_line(&line, &self.run, Instant::now().into_std()),
                Ok(None) | Err(_) => {
                    lock().ended = true;
                    self.changed.notify_waiters();
                    return;
                }
            }
            self.changed.notify_waiters();
        }
    }
}
