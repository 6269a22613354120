//! The verbs that ask a running node over its control socket, and those that need none: `id`, `key`, `ticket`.
//!
//! Plain blocking I/O with deadlines; no runtime is started for a question. The verbs about who gets in are in
//! `client/door.rs`.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use iroh::EndpointAddr;
use iroh_tickets::endpoint::EndpointTicket;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cli::{AskArgs, IdArgs, JoinArgs, KeyVerb, LeaveArgs, LedgerArgs, TicketArgs},
    control::{
        protocol::{LedgerView, Peers, Request, Response, Status, Stopping, TicketView, TopicChanged},
        socket,
    },
    exit::{Exit, Failure},
    identity::{self, Identity},
    output::say,
    probe::ProbeView,
    tables,
};

pub(crate) mod door;

/// A node answers within five seconds or says that it cannot; the rest is for a machine under load.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer read. A census of a thousand peers is a few hundred kilobytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A task that ends is an orphan for a moment; whoever probes readiness waits for a few seconds at most.
const READY_SETTLE: Duration = Duration::from_secs(2);

/// Pause between two looks at a ledger that has not settled.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

pub(crate) fn status(args: &AskArgs) -> Result<Exit, Failure> {
    let status: Status = Question::new(args)?.ask(&Request::Status)?;
    print_view(args.json, &status, || tables::status(&status))
}

pub(crate) fn ready(args: &AskArgs) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct Readiness {
        v: u8,
        ready: bool,
        checks: Vec<Check>,
    }
    let mut question = Question::new(args)?;
    let status: Status = question.ask(&Request::Status)?;
    let ledger = question.settled_ledger(READY_SETTLE)?;
    let checks = readiness(status.self_probe.as_ref(), ledger.orphans);
    let ready = checks.iter().all(|check| check.ok);
    print_view(args.json, &Readiness { v: crate::lines::VERSION, ready, checks: checks.clone() }, || {
        let line = |check: &Check| format!("{} {}", if check.ok { "ok  " } else { "fail" }, check.says);
        checks.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if ready { Exit::Ok } else { Exit::Failed })
}

/// One thing that must hold of a node that is ready.
#[derive(Debug, Clone, Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    says: String,
}

fn readiness(probe: Option<&ProbeView>, orphans: u64) -> Vec<Check> {
    let reach = match probe {
        Some(probe) if !probe.ready => {
            let reason = probe.failed_reason.as_deref().unwrap_or("no reason was given");
            (false, format!("it did not reach itself {} times in a row: {reason}", probe.failures_in_row))
        }
        Some(probe) => (true, format!("it reaches itself, {} probes came through", probe.succeeded)),
        None => (true, "it does not probe itself".into()),
    };
    let ledger = match orphans {
        0 => (true, "every task is accounted for".into()),
        orphans => (false, format!("{orphans} orphans")),
    };
    [("self-probe", reach), ("ledger", ledger)].map(|(check, (ok, says))| Check { check, ok, says }).into()
}

pub(crate) fn peers(args: &AskArgs) -> Result<Exit, Failure> {
    let peers: Peers = Question::new(args)?.ask(&Request::Peers)?;
    print_view(args.json, &peers, || tables::peers(&peers))
}

pub(crate) fn ledger(args: &LedgerArgs) -> Result<Exit, Failure> {
    let ledger = Question::new(&args.ask)?.settled_ledger(args.settle)?;
    print_view(args.ask.json, &ledger, || tables::ledger(&ledger))?;
    if ledger.orphans == 0 {
        return Ok(Exit::Ok);
    }
    say(format_args!("{} orphans did not go away within {:?}", ledger.orphans, args.settle));
    Ok(Exit::Failed)
}

pub(crate) fn join(args: &JoinArgs) -> Result<Exit, Failure> {
    let request =
        Request::Join { topic: args.topic.to_string(), peers: args.peer.iter().map(ToString::to_string).collect() };
    change_topic(&args.ask, &request)
}

pub(crate) fn leave(args: &LeaveArgs) -> Result<Exit, Failure> {
    change_topic(&args.ask, &Request::Leave { topic: args.topic.to_string() })
}

fn change_topic(args: &AskArgs, request: &Request) -> Result<Exit, Failure> {
    let changed: TopicChanged = Question::new(args)?.ask(request)?;
    if args.json {
        return print_json(&changed);
    }
    let outcome = changed.outcome.replace('-', " ");
    say(format_args!("{outcome} {}", changed.name.as_ref().unwrap_or(&changed.topic)));
    Ok(Exit::Ok)
}

pub(crate) fn stop(args: &AskArgs) -> Result<Exit, Failure> {
    let stopping: Stopping = Question::new(args)?.ask(&Request::Stop)?;
    if args.json {
        return print_json(&stopping);
    }
    say("the node is draining");
    Ok(Exit::Ok)
}

pub(crate) fn id(args: &IdArgs) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct IdView {
        v: u8,
        id: String,
    }
    // A socket that was asked for goes before a secret that happens to be in the environment.
    let secret = match args.ask.control {
        Some(_) => None,
        None => identity::secret_from_environment(),
    };
    let id = match Identity::existing(args.key_file.as_deref(), secret.as_deref())? {
        Some(key) => key.public().to_string(),
        None => Question::new(&args.ask)?.ask::<TicketView>(&Request::Ticket)?.id,
    };
    print_view(args.ask.json, &IdView { v: crate::lines::VERSION, id: id.clone() }, || id.clone())
}

pub(crate) fn key(verb: &KeyVerb) -> Result<Exit, Failure> {
    match verb {
        KeyVerb::Generate { file } => {
            let key = identity::generate(file)?;
            say(format_args!("created {}; its id is", file.display()));
            print(&key.public().to_string())
        }
        KeyVerb::Show { file, secret: false } => print(&identity::load(file)?.public().to_string()),
        KeyVerb::Show { file, secret: true } => print(&identity::secret_hex(&identity::load(file)?)),
    }
}

pub(crate) fn ticket(args: &TicketArgs) -> Result<Exit, Failure> {
    let view = match &args.key_file {
        Some(file) => {
            let mut addr = EndpointAddr::new(identity::load(file)?.public());
            for socket in &args.addr {
                addr = addr.with_ip_addr(*socket);
            }
            let id = addr.id.to_string();
            TicketView { v: crate::lines::VERSION, id, ticket: EndpointTicket::new(addr).to_string() }
        }
        None => Question::new(&args.ask)?.ask(&Request::Ticket)?,
    };
    print_view(args.ask.json, &view, || view.ticket.clone())
}

/// One conversation with a node.
#[derive(Debug)]
pub(crate) struct Question {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Question {
    fn new(args: &AskArgs) -> Result<Self, Failure> {
        let path = match &args.control {
            Some(path) => path.clone(),
            None => socket::find()?,
        };
        Self::to(path)
    }

    /// Connects to the node on `path`.
    pub(crate) fn to(path: PathBuf) -> Result<Self, Failure> {
        let stream = socket::connect(&path)?;
        let limit = Some(ANSWER_TIMEOUT);
        stream
            .set_read_timeout(limit)
            .and_then(|()| stream.set_write_timeout(limit))
            .map_err(|error| Failure::io("set a deadline on the control socket", &error))?;
        Ok(Self { path, stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, Failure> {
        let failed = |error: &io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::new(
                Exit::Unavailable,
                format!("the node did not answer within {} s", ANSWER_TIMEOUT.as_secs()),
            ),
            _ => Failure::io(format_args!("ask the node on {}", self.path.display()), error),
        };
        let mut line = Vec::new();
        // A node that turns a client away answers without having read, so a failed write may still have an answer.
        let written = self.stream.get_mut().write_all(&request.to_line());
        let read = self.stream.by_ref().take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
        if line.is_empty() {
            written.map_err(|error| failed(&error))?;
            read.map_err(|error| failed(&error))?;
            return Err(Failure::new(Exit::NoNode, format!("the node on {} went away", self.path.display())));
        }
        Response::from_line(&line)?.into_result()
    }

    /// Asks for the ledger until it has no orphans, at most for `settle`.
    pub(crate) fn settled_ledger(&mut self, settle: Duration) -> Result<LedgerView, Failure> {
        let deadline = Instant::now() + settle;
        loop {
            let ledger: LedgerView = self.ask(&Request::Ledger)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if ledger.orphans == 0 || left.is_zero() {
                return Ok(ledger);
            }
            thread::sleep(SETTLE_PAUSE.min(left));
        }
    }
}

fn print_view(json: bool, view: &impl Serialize, table: impl FnOnce() -> String) -> Result<Exit, Failure> {
    if json { print_json(view) } else { print(&table()) }
}

fn print_json(view: &impl Serialize) -> Result<Exit, Failure> {
    print(&serde_json::to_string(view).expect("strings, numbers and maps of them always serialise"))
}

/// Prints to stdout. A reader that has gone is an error like any other, not a panic.
pub(crate) fn print(text: &str) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::io("write to standard output", &error))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::ProbeState;

    #[test]
    fn a_node_is_ready_when_it_reaches_itself_and_its_ledger_is_even() {
        let mut probe = ProbeState::default();
        let oks = |probe: &ProbeState, orphans| -> Vec<bool> {
            readiness(Some(&probe.view()), orphans).iter().map(|check| check.ok).collect()
        };
        assert_eq!((oks(&probe, 0), oks(&probe, 2)), (vec![true, true], vec![true, false]));
        for _ in 0..3 {
            probe.on_failure(perennial::ProbeStage::Echo, "echo at 127.0.0.1:7: no answer in time");
        }
        assert_eq!(oks(&probe, 0), [false, true]);
        let says = readiness(Some(&probe.view()), 0)[0].says.clone();
        assert_eq!(says, "it did not reach itself 3 times in a row: echo at 127.0.0.1:7: no answer in time");
        assert!(readiness(None, 0)[0].ok, "a node of an earlier version, or one that does not probe itself");
    }
}
