//! `perennial up`: starts the node, says that it is ready, waits for a reason to end, drains. Wiring only.

use std::{net::SocketAddr, time::Duration};

use perennial::{DrainReport, Ended, Kind, Mesh, MeshBuilder, SpawnError};
use tokio::{
    io,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::UpArgs,
    control::{Gauges, answers::join_failed},
    dump,
    exit::{Exit, Failure},
    identity::{self, Identity, Source},
    lines::Line,
    memberships::Memberships,
    names::{TopicName, short},
    node::{Ending, Endings, Node},
    output::{self, Mode, Output, say},
    pipe::Pipe,
    reload::{self, Running},
    service,
    settings::{self, Settings},
    signals::{Caught, EndSignal, Signals},
    state_dir::StateDir,
    tasks::Tasks,
    telemetry::{self, Figures, Telemetry},
    up::entrances::Places,
};

mod entrances;

/// Farewells, flushes and the closing of the endpoint together.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What is being answered when the mesh has drained gets this long to be answered.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(2);

/// How often ended tasks are looked at. A panic is told within this time.
const TASK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Runs a node to its end.
pub(crate) async fn run(args: UpArgs, settings: Settings, telemetry: Telemetry) -> Result<Exit, Failure> {
    // Caught before anything exists that a signal must not leave behind.
    let mut signals = Signals::catch()?;
    if args.pipe && settings.topic.is_empty() {
        return Err(Failure::new(Exit::Usage, "--pipe publishes to the first topic; name one with --topic"));
    }
    let identity = Identity::resolve(settings.key_file.as_deref(), identity::secret_from_environment().as_deref())?;
    let builder = settings.builder(Some(identity.key.public())).map_err(|problems| settings::failure(&problems))?;
    let builder = builder.secret_key(identity.key.clone());
    let log = telemetry.log();
    let telemetry = telemetry.connect(&identity.key.public().to_string())?;
    let (entrances, places) = entrances::bind(&settings, &short(identity.key.public())).await?;
    let state = settings.state_dir.as_deref().map(StateDir::open).transpose()?;
    let mesh = spawn_mesh(&settings, builder).await?;
    let running = Running::new(args.given.clone(), settings.clone(), log);
    let (gauges, figures) = (entrances.gauges(), telemetry.figures());
    let (node, output, endings) = assemble(&args, &settings, mesh, gauges, state.clone(), running, figures);
    let telemetry = telemetry.start(&node);
    let closing = CancellationToken::new();
    let started = tokio::select! {
        started = start(&args, &settings, &node, state.as_ref()) => started,
        signal = signals.next_end() => Err(Failure::new(signal.exit(), format!("{} while starting", signal.name()))),
    };
    if let Err(failure) = started {
        node.mesh.drain(output::FLUSH_TIMEOUT).await;
        return Err(failure);
    }
    entrances.open(&node, &closing);
    say_ready(&settings, &node, identity.source, &places);
    output.line(&ready(&node, &places)).await;
    node.memberships.start_printing();
    service::ready("ready");
    let cause = wait(&node, &mut signals, endings).await;
    node.probe.stop();
    service::stopping("draining");
    if let Some(state) = &state {
        // The last moment at which there are neighbours.
        state.save(&node.mesh).await;
    }
    finish(&node, &output, telemetry, &mut signals, cause, closing).await
}

async fn spawn_mesh(settings: &Settings, builder: MeshBuilder) -> Result<Mesh, Failure> {
    let mesh = builder.spawn().await.map_err(|error| {
        let exit = match error {
            SpawnError::Limits(_) => Exit::Config,
            _ => Exit::Io,
        };
        Failure::new(exit, error.to_string())
    })?;
    for peer in settings.deny.iter() {
        mesh.deny(peer.0.id).map_err(|full| Failure::new(Exit::Config, full.to_string()))?;
    }
    for peer in settings.known.iter().filter(|peer| peer.0.id != mesh.id()) {
        mesh.know(&peer.0);
    }
    Ok(mesh)
}

fn assemble(
    args: &UpArgs,
    settings: &Settings,
    mesh: Mesh,
    clients: Gauges,
    state: Option<StateDir>,
    running: Running,
    telemetry: Figures,
) -> (Node, Output, mpsc::Receiver<Ending>) {
    let tasks = Tasks::new(mesh.ledger_counters());
    let (endings, received) = Endings::channel();
    let mode = match (args.json, args.pipe) {
        (true, _) => Mode::Json,
        (false, true) => Mode::Plain,
        (false, false) => Mode::Silent,
    };
    let on_gone = endings.clone();
    let output = Output::open(mode, io::stdout(), &tasks, move |error| {
        on_gone.end(Ending::OutputGone(error.to_string()));
    });
    let pipe_topic = args.pipe.then(|| settings.topic.first().map(|topic| topic.id)).flatten();
    let memberships = Memberships::new(mesh.clone(), tasks.clone(), output.clone(), pipe_topic, state);
    (Node::new(mesh, tasks, memberships, clients, running, telemetry, endings), output, received)
}

async fn start(args: &UpArgs, settings: &Settings, node: &Node, state: Option<&StateDir>) -> Result<(), Failure> {
    node.tasks.spawn(Kind::Service, "vigil", node.vigil.clone().keep(node.clone()));
    if let Some(state) = state {
        node.mesh.recall(state.known());
        node.tasks.spawn(Kind::Service, "state", state.clone().keep(node.mesh.clone()));
    }
    let peers: Vec<_> = settings.join.iter().map(|peer| peer.0.clone()).collect();
    for topic in settings.topic.iter() {
        node.memberships.join(topic.clone(), peers.clone()).await.map_err(|error| join_failed(&error))?;
    }
    let probing = node.probe.clone().run(node.mesh.clone(), *settings.probe_interval);
    node.tasks.spawn(Kind::Service, "probe", probing);
    if let (true, Some(topic)) = (args.pipe, settings.topic.first()) {
        start_pipe(args, node, topic);
    }
    Ok(())
}

fn start_pipe(args: &UpArgs, node: &Node, topic: &TopicName) {
    let pipe = Pipe::new(io::stdin(), node.memberships.pipe_target(), topic.to_string());
    let ends_node = args.until_stdin_closes;
    let ending = node.clone();
    node.tasks.spawn(Kind::Service, "pipe", async move {
        pipe.run().await;
        if ends_node {
            ending.end(Ending::InputClosed);
        }
    });
}

fn ready(node: &Node, places: &Places) -> Line {
    Line::Ready {
        id: node.mesh.id().to_string(),
        addrs: dialable(node).iter().map(ToString::to_string).collect(),
        ticket: node.mesh.ticket().to_string(),
        control: places.control.display().to_string(),
        http: places.http.map(|address| address.to_string()),
    }
}

/// The addresses others can dial: an unspecified listen address stands for those of every interface.
fn dialable(node: &Node) -> Vec<SocketAddr> {
    node.mesh.addr().ip_addrs().copied().collect()
}

fn say_ready(settings: &Settings, node: &Node, source: Source, places: &Places) {
    let addrs: Vec<String> = dialable(node).iter().map(ToString::to_string).collect();
    let ticket = node.mesh.ticket();
    say(format_args!("id        {}", node.mesh.id()));
    match (source, &*settings.key_file) {
        (Source::Ephemeral, _) => say("          ephemeral: forgotten when this node ends; --key-file FILE keeps it"),
        (Source::NewKeyFile, Some(file)) => say(format_args!("          new key, kept in {}", file.display())),
        (Source::Environment, _) => say(format_args!("          from {}", identity::SECRET_VARIABLE)),
        (Source::KeyFile | Source::NewKeyFile, _) => {}
    }
    say(format_args!("listening {}", addrs.join(", ")));
    say(format_args!("control   {}", places.control.display()));
    if let Some(address) = places.http {
        say(format_args!("http      http://{address}"));
    }
    say(format_args!("ticket    {ticket}"));
    let topic = settings.topic.first().map_or_else(|| "NAME".to_owned(), |topic| shell_quoted(&topic.to_string()));
    say(format_args!("join from another shell with\n  perennial up --join {ticket} --topic {topic}"));
}

/// As a shell takes it back.
fn shell_quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Why the node ends.
#[derive(Debug)]
enum Cause {
    Signal(EndSignal),
    Own(Ending),
    Mesh(Ended),
    Panicked(&'static str),
}

async fn wait(node: &Node, signals: &mut Signals, mut endings: mpsc::Receiver<Ending>) -> Cause {
    let mut task_check = interval(TASK_CHECK_INTERVAL);
    task_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased; // What a person wants goes before what the program noticed.
            caught = signals.next() => match caught {
                Caught::End(signal) => return Cause::Signal(signal),
                // What came of it is in the log; the node goes on either way.
                Caught::Reload => drop(reload::reload(node).await),
                Caught::Dump => dump::to_log(node).await,
            },
            ending = endings.recv() => match ending {
                Some(ending) => return Cause::Own(ending),
                None => unreachable!("the node holds a sender"),
            },
            ended = node.mesh.closed() => return Cause::Mesh(ended),
            _ = task_check.tick() => {
                node.vigil.on_turn();
                for name in node.tasks.take_panicked() {
                    // A client's panic is its own, and the node works untold; it cannot do without the others.
                    if !["control-client", "subscription"].contains(&name) && !telemetry::TASKS.contains(&name) {
                        return Cause::Panicked(name);
                    }
                    tracing::error!(name, "a task panicked");
                }
            }
        }
    }
}

async fn finish(
    node: &Node,
    output: &Output,
    telemetry: telemetry::Running,
    signals: &mut Signals,
    cause: Cause,
    closing: CancellationToken,
) -> Result<Exit, Failure> {
    node.vigil.on_drain();
    say_cause(&cause);
    let report = tokio::select! {
        biased; // The second signal wins even over a drain that is just done.
        signal = signals.next_end() => {
            say(format_args!("{}: not waiting any longer", signal.name()));
            return Ok(signal.exit());
        }
        report = node.mesh.drain(DRAIN_TIMEOUT) => report,
    };
    let printed = tokio::time::timeout(output::FLUSH_TIMEOUT, node.memberships.printed()).await.is_ok();
    let written = output.close(output::FLUSH_TIMEOUT).await;
    closing.cancel();
    node.tasks.wait_for_none_of(Kind::ControlClient, ANSWERS_TIMEOUT).await;
    telemetry.flush().await;
    node.tasks.abort_all(output::FLUSH_TIMEOUT).await;
    telemetry.close();
    verdict(&cause, &report, printed && written)
}

fn say_cause(cause: &Cause) {
    match cause {
        Cause::Signal(signal) => say(format_args!("{}: draining; once more to end at once", signal.name())),
        Cause::Own(ending) => say(format_args!("{ending}: draining")),
        Cause::Mesh(Ended::GaveUp(reason)) => say(format_args!("the mesh gave up: {reason}")),
        Cause::Mesh(_) => say("the mesh has ended"),
        Cause::Panicked(name) => say(format_args!("the task `{name}` panicked, which is a bug: draining")),
    }
}

/// The exit code: what ended the node, then how it went.
fn verdict(cause: &Cause, report: &DrainReport, output_written: bool) -> Result<Exit, Failure> {
    match cause {
        Cause::Own(Ending::OutputGone(error)) => {
            return Err(Failure::new(Exit::Io, format!("cannot write to standard output: {error}")));
        }
        Cause::Mesh(Ended::GaveUp(_)) | Cause::Panicked(_) => return Ok(Exit::Failed),
        Cause::Mesh(_) | Cause::Signal(_) | Cause::Own(Ending::Asked | Ending::InputClosed) => {}
    }
    if !report.clean {
        return Err(Failure::new(
            Exit::Failed,
            format!("{} tasks were still alive after {:?} and were aborted", report.stragglers, report.took),
        ));
    }
    if !output_written {
        return Err(Failure::new(Exit::Io, "standard output is not read; the last lines are lost"));
    }
    tracing::info!(took = ?report.took, "drained");
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_is_shown_survives_a_shell() {
        assert_eq!(shell_quoted("chat-2"), "chat-2");
        assert_eq!(shell_quoted("two words"), "'two words'");
        assert_eq!(shell_quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn the_cause_decides_the_exit_code_before_the_drain_does() {
        let report = |clean, stragglers| DrainReport { clean, stragglers, took: Duration::ZERO };
        let code =
            |cause, report, written| verdict(&cause, &report, written).unwrap_or_else(|failure: Failure| failure.exit);
        let asked = || Cause::Own(Ending::Asked);
        assert_eq!(code(asked(), report(true, 0), true), Exit::Ok);
        assert_eq!(code(Cause::Signal(EndSignal::Terminate), report(true, 0), true), Exit::Ok);
        assert_eq!(code(asked(), report(false, 3), true), Exit::Failed);
        assert_eq!(code(asked(), report(true, 0), false), Exit::Io);
        assert_eq!(code(Cause::Own(Ending::OutputGone("x".into())), report(false, 1), false), Exit::Io);
        assert_eq!(code(Cause::Mesh(Ended::GaveUp("x".into())), report(true, 0), true), Exit::Failed);
        assert_eq!(code(Cause::Panicked("pipe"), report(true, 0), true), Exit::Failed);
    }
}
