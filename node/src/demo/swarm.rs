//! The demo's node processes: `perennial up` as any user would start it, spoken to by stdin, stdout and control socket.
//!
//! Every process dies with the demo: it ends when its stdin closes, and it is killed when its handle is dropped.

use std::{
    collections::BTreeMap,
    fs::File,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use perennial::{Kind, Ledger};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    time::{timeout, timeout_at},
};

use crate::{
    cli::CONFIG_VARIABLE,
    client::api::Api,
    control::protocol::{LedgerView, Stopping},
    demo::{deliveries::Deliveries, links::Links},
    exit::{Exit, Failure},
    identity,
    line_reader::{Input, LineReader},
    names::short,
    output::say,
    settings::VARIABLE_PREFIX,
    tasks::Tasks,
};

/// The topic of the demo.
const TOPIC: &str = "demo";

/// A killed node's neighbours notice this late. The default of 15 s would make three kills take a minute.
const IDLE_TIMEOUT: &str = "3s";

/// A process is up within this long. Measured: 30 ms; a loaded machine takes longer.
const READY_TIMEOUT: Duration = Duration::from_secs(15);

/// A node takes a line of input within this long.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A node drains within ten seconds, and exits.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A mesh has formed once it holds together and no view has changed for this long.
const QUIET: Duration = Duration::from_millis(400);

/// The longest line a node prints is a message of 4055 bytes, escaped.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Lines waiting to be looked at; then the readers wait.
const LINES_MAX: usize = 1024;

/// Lines of a node's stderr that are shown when the demo fails.
const LOG_LINES_SHOWN: usize = 8;

/// All nodes, dead and alive.
#[derive(Debug)]
pub(crate) struct Swarm {
    // Before the directory: processes go before the files they use.
    members: Vec<Member>,
    directory: TempDir,
    numbers: BTreeMap<String, usize>,
    links: Links,
    deliveries: Deliveries,
    tasks: Tasks,
    lines_sender: mpsc::Sender<Heard>,
    lines: mpsc::Receiver<Heard>,
}

#[derive(Debug)]
struct Member {
    id: String,
    /// How often it was started. Lines of an earlier life are not its own any more.
    life: u32,
    process: Option<Process>,
    ticket: Option<String>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    stdin: ChildStdin,
}

#[derive(Debug)]
struct Heard {
    number: usize,
    life: u32,
    /// `None`: its stdout is closed.
    line: Option<LineView>,
}

/// The fields of an event line that the demo reads.
#[derive(Debug, Default, Deserialize)]
struct LineView {
    event: String,
    ticket: Option<String>,
    peer: Option<String>,
    text: Option<String>,
}

impl Swarm {
    /// Gives every node a key and a place for its files. No process is started.
    pub(crate) fn new(count: usize) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new()
            .prefix("perennial-demo-")
            .tempdir()
            .map_err(|error| Failure::io("create a temporary directory", &error))?;
        let mut members = Vec::new();
        let mut numbers = BTreeMap::new();
        for number in 0..count {
            let key = identity::generate(&directory.path().join(format!("node-{}.key", number + 1)))?;
            let id = key.public().to_string();
            numbers.insert(id.clone(), number);
            members.push(Member { id, life: 0, process: None, ticket: None });
        }
        let (lines_sender, lines) = mpsc::channel(LINES_MAX);
        Ok(Self {
            members,
            directory,
            numbers,
            links: Links::default(),
            deliveries: Deliveries::default(),
            tasks: Tasks::new(Ledger::new()),
            lines_sender,
            lines,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// `node 3  ae58ff8833  started 2 times`.
    pub(crate) fn title(&self, number: usize) -> String {
        let member = &self.members[number];
        let lives = match member.life {
            1 => String::new(),
            lives => format!("  started {lives} times"),
        };
        format!("node {}  {}{lives}", number + 1, short(&member.id))
    }

    /// Starts node `number`, which joins by way of `contacts`.
    pub(crate) fn spawn(&mut self, number: usize, contacts: &[usize]) -> Result<(), Failure> {
        let name = format!("node-{}", number + 1);
        let program = std::env::current_exe().map_err(|error| Failure::io("find the own program", &error))?;
        let log = self.file(&name, "log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|error| Failure::io(format_args!("create {}", log.display()), &error))?;
        let mut command = Command::new(program);
        command.args(["up", "--json", "--pipe", "--until-stdin-closes", "--topic", TOPIC]);
        command.args(["--idle-timeout", IDLE_TIMEOUT]);
        command.arg("--key-file").arg(self.file(&name, "key")).arg("--control").arg(self.file(&name, "sock"));
        for contact in contacts {
            let ticket = self.members[*contact].ticket.as_ref().expect("a contact is a node that was ready");
            command.args(["--join", ticket]);
        }
        // The settings of the person at the terminal are not the nodes'.
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes())) {
            command.env_remove(name);
        }
        command.env_remove(identity::SECRET_VARIABLE).env(CONFIG_VARIABLE, "/dev/null");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| Failure::io(format_args!("start {name}"), &error))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else { unreachable!("both were piped") };

        let member = &mut self.members[number];
        member.life += 1;
        member.ticket = None;
        member.process = Some(Process { child, stdin });
        let listen = listen(stdout, number, member.life, self.lines_sender.clone());
        self.tasks.spawn(Kind::Service, "listener", listen);
        Ok(())
    }

    /// Waits until all of `numbers` have said that they are ready.
    pub(crate) async fn wait_ready(&mut self, numbers: &[usize]) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while let Some(late) = numbers.iter().copied().find(|number| self.members[*number].ticket.is_none()) {
            if !self.hear(deadline).await? {
                return Err(failed(format!("node {} is not ready after {READY_TIMEOUT:?}", late + 1)));
            }
        }
        Ok(())
    }

    /// Waits until all nodes hold together and no view changes any more; the number of links.
    pub(crate) async fn wait_formed(&mut self, limit: Duration, show: impl Fn(usize)) -> Result<usize, Failure> {
        let deadline = Instant::now() + limit;
        loop {
            let formed = self.links.is_connected(self.len());
            let quiet_until = Instant::now() + QUIET;
            let heard = self.hear(if formed { quiet_until.min(deadline) } else { deadline }).await?;
            show(self.links.mutual());
            match (heard, formed) {
                (true, _) => {}
                (false, true) => return Ok(self.links.mutual()),
                (false, false) => {
                    let links = self.links.mutual();
                    return Err(failed(format!("the mesh does not hold together after {limit:?}, with {links} links")));
                }
            }
        }
    }

    /// Publishes `text` from node `number`. Every other node should hear it.
    pub(crate) async fn publish(&mut self, number: usize, text: &str) -> Result<(), Failure> {
        self.deliveries.expect(text, (0..self.members.len()).filter(|other| *other != number));
        let process = self.members[number].process.as_mut().expect("publishers are alive");
        let line = format!("{text}\n");
        let write = async {
            process.stdin.write_all(line.as_bytes()).await?;
            process.stdin.flush().await
        };
        match timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::io(format_args!("write to node {}", number + 1), &error)),
            Err(_) => Err(failed(format!("node {} takes no input", number + 1))),
        }
    }

    /// Waits until every message is where it should be; how many deliveries that were.
    pub(crate) async fn wait_delivered(&mut self, limit: Duration, show: impl Fn(usize)) -> Result<usize, Failure> {
        let deadline = Instant::now() + limit;
        while self.deliveries.left() > 0 {
            show(self.deliveries.left());
            if !self.hear(deadline).await? {
                return Err(failed(self.deliveries.missing().join("\n    ")));
            }
        }
        Ok(self.deliveries.take_made())
    }

    /// Sends SIGKILL and waits for the corpse; the process id it had.
    pub(crate) async fn kill(&mut self, number: usize) -> Result<u32, Failure> {
        let member = &mut self.members[number];
        let mut process = member.process.take().expect("victims are alive");
        let pid = process.child.id().unwrap_or_default();
        process.child.kill().await.map_err(|error| Failure::io(format_args!("kill node {}", number + 1), &error))?;
        member.ticket = None;
        self.links.forget(number);
        Ok(pid)
    }

    /// The ledger of node `number`, after at most `settle`.
    pub(crate) async fn ledger(&self, number: usize, settle: Duration) -> Result<LedgerView, Failure> {
        self.api(number).settled_ledger(settle).await
    }

    /// Asks every node to drain, all at once, and waits for their exits.
    pub(crate) async fn stop(&mut self) -> Result<(), Failure> {
        for number in 0..self.members.len() {
            let _: Stopping = self.api(number).order("/v1/stop").await?;
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for (number, member) in self.members.iter_mut().enumerate() {
            let Some(mut process) = member.process.take() else { continue };
            match timeout_at(deadline.into(), process.child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => return Err(failed(format!("node {} ended with {status}", number + 1))),
                Ok(Err(error)) => return Err(Failure::io(format_args!("wait for node {}", number + 1), &error)),
                Err(_) => return Err(failed(format!("node {} does not end within {STOP_TIMEOUT:?}", number + 1))),
            }
        }
        Ok(())
    }

    /// Shows the end of every node's stderr. Called when something went wrong.
    pub(crate) fn show_logs(&self) {
        for number in 0..self.members.len() {
            let Ok(log) = std::fs::read_to_string(self.file(&format!("node-{}", number + 1), "log")) else { continue };
            let lines: Vec<&str> = log.lines().collect();
            say(format_args!("\n{}", self.title(number)));
            for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
                say(format_args!("  {line}"));
            }
        }
    }

    fn api(&self, number: usize) -> Api {
        Api::of_socket(self.file(&format!("node-{}", number + 1), "sock"))
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.{extension}"))
    }

    /// Takes one line of one node; false once `deadline` has passed.
    async fn hear(&mut self, deadline: Instant) -> Result<bool, Failure> {
        let heard = match timeout_at(deadline.into(), self.lines.recv()).await {
            Ok(Some(heard)) => heard,
            Ok(None) => unreachable!("the swarm holds a sender"),
            Err(_) => return Ok(false),
        };
        let member = &mut self.members[heard.number];
        if heard.life != member.life || member.process.is_none() {
            return Ok(true);
        }
        let Some(line) = heard.line else {
            return Err(failed(format!("node {} has ended unasked", heard.number + 1)));
        };
        let peer = line.peer.and_then(|id| self.numbers.get(&id).copied());
        match (line.event.as_str(), peer) {
            ("ready", _) => member.ticket = line.ticket,
            ("neighbor_up", Some(peer)) => self.links.up(heard.number, peer),
            ("neighbor_down", Some(peer)) => self.links.down(heard.number, peer),
            ("message", _) => self.deliveries.on_heard(heard.number, &line.text.unwrap_or_default()),
            ("lagged", _) => return Err(failed(format!("node {} was read too slowly", heard.number + 1))),
            (_, _) => {}
        }
        Ok(true)
    }
}

async fn listen(stdout: ChildStdout, number: usize, life: u32, lines: mpsc::Sender<Heard>) {
    let mut reader = LineReader::new(stdout, LINE_BYTES_MAX);
    loop {
        let line = match reader.next().await {
            Ok(Input::Line(line)) => Some(serde_json::from_slice(&line).unwrap_or_default()),
            Ok(Input::TooLong(_)) => continue,
            Ok(Input::End) | Err(_) => None,
        };
        let is_end = line.is_none();
        if lines.send(Heard { number, life, line }).await.is_err() || is_end {
            return;
        }
    }
}

fn failed(sentence: String) -> Failure {
    Failure::new(Exit::Failed, sentence)
}
