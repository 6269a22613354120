//! The verbs that ask a running node, and those that need none: `id`, `key`, `ticket`.
//!
//! How a node is asked is in `client/api.rs`. The verbs about who gets in are in `client/door.rs`.

use std::io::{self, IsTerminal, Write};

use iroh::EndpointAddr;
use iroh_tickets::endpoint::EndpointTicket;
use ratatui::crossterm::terminal;
use serde::Serialize;

use self::api::Api;
use crate::{
    cli::{AskArgs, IdArgs, JoinArgs, KeyVerb, LeaveArgs, LedgerArgs, StatusArgs, TicketArgs},
    control::protocol::{
        Peers, Status, Stopping, TicketView,
        health::{Check, Readiness},
        topics::{JoinOrder, TopicChanged, Topics},
    },
    exit::{Exit, Failure},
    identity::{self, Identity},
    output::say,
    tables,
    verbs::{qr, watch},
};

pub(crate) mod api;
pub(crate) mod door;
pub(crate) mod stream;

pub(crate) async fn status(StatusArgs { watch, ask }: &StatusArgs) -> Result<Exit, Failure> {
    if let Some(pause) = watch {
        return watch::status(ask, *pause).await;
    }
    let status: Status = Api::new(ask)?.get("/v1/status").await?;
    print_view(ask.json, &status, || tables::status(&status))
}

pub(crate) async fn topics(args: &AskArgs) -> Result<Exit, Failure> {
    let topics: Topics = Api::new(args)?.get("/v1/topics").await?;
    print_view(args.json, &topics, || tables::talk::topics(&topics.topics))
}

/// Exit 1 while the node is not ready.
pub(crate) async fn ready(args: &AskArgs) -> Result<Exit, Failure> {
    let readiness: Readiness = Api::new(args)?.get_any("/readyz").await?;
    print_view(args.json, &readiness, || {
        let line =
            |check: &Check| format!("{} {}: {}", if check.ok { "ok  " } else { "fail" }, check.name, check.reason);
        let degraded = readiness.degraded.iter().map(|name| format!("ok   without {name}, which is degraded"));
        readiness.checks.iter().map(line).chain(degraded).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if readiness.ready { Exit::Ok } else { Exit::Failed })
}

pub(crate) async fn peers(args: &AskArgs) -> Result<Exit, Failure> {
    let peers: Peers = Api::new(args)?.get("/v1/peers").await?;
    print_view(args.json, &peers, || tables::peers(&peers))
}

pub(crate) async fn ledger(args: &LedgerArgs) -> Result<Exit, Failure> {
    let ledger = Api::new(&args.ask)?.settled_ledger(args.settle).await?;
    print_view(args.ask.json, &ledger, || tables::ledger(&ledger))?;
    if ledger.orphans == 0 {
        return Ok(Exit::Ok);
    }
    say(format_args!("{} orphans did not go away within {:?}", ledger.orphans, args.settle));
    Ok(Exit::Failed)
}

pub(crate) async fn join(args: &JoinArgs) -> Result<Exit, Failure> {
    let order = JoinOrder { peers: args.peer.iter().map(ToString::to_string).collect() };
    let path = format!("{}/join", api::topic_path(&args.topic));
    show_change(&args.ask, &Api::new(&args.ask)?.post(&path, &order).await?)
}

pub(crate) async fn leave(args: &LeaveArgs) -> Result<Exit, Failure> {
    let path = format!("{}/leave", api::topic_path(&args.topic));
    show_change(&args.ask, &Api::new(&args.ask)?.order(&path).await?)
}

fn show_change(args: &AskArgs, changed: &TopicChanged) -> Result<Exit, Failure> {
    if args.json {
        return print_json(changed);
    }
    let outcome = changed.outcome.replace('-', " ");
    say(format_args!("{outcome} {}", changed.name.as_ref().unwrap_or(&changed.topic)));
    Ok(Exit::Ok)
}

pub(crate) async fn stop(args: &AskArgs) -> Result<Exit, Failure> {
    let stopping: Stopping = Api::new(args)?.order("/v1/stop").await?;
    if args.json {
        return print_json(&stopping);
    }
    say("the node is draining");
    Ok(Exit::Ok)
}

pub(crate) async fn id(args: &IdArgs) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct IdView {
        v: u8,
        id: String,
    }
    // A node that was asked for goes before a secret that happens to be in the environment.
    let secret = match (&args.ask.control, args.ask.http) {
        (None, None) => identity::secret_from_environment(),
        (Some(_), _) | (_, Some(_)) => None,
    };
    let id = match Identity::existing(args.key_file.as_deref(), secret.as_deref())? {
        Some(key) => key.public().to_string(),
        None => Api::new(&args.ask)?.get::<TicketView>("/v1/ticket").await?.id,
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

pub(crate) async fn ticket(args: &TicketArgs) -> Result<Exit, Failure> {
    let view = match &args.key_file {
        Some(file) => {
            let mut addr = EndpointAddr::new(identity::load(file)?.public());
            for socket in &args.addr {
                addr = addr.with_ip_addr(*socket);
            }
            let id = addr.id.to_string();
            TicketView { v: crate::lines::VERSION, id, ticket: EndpointTicket::new(addr).to_string() }
        }
        None => Api::new(&args.ask)?.get("/v1/ticket").await?,
    };
    if args.qr {
        show_code(&view.ticket)?;
    }
    print_view(args.ask.json, &view, || view.ticket.clone())
}

/// A code that is not whole can be read by nobody, so one that does not fit is left out, with a word.
fn show_code(ticket: &str) -> Result<(), Failure> {
    let code = qr::code(ticket).map_err(|error| Failure::new(Exit::Failed, format!("no QR code holds it: {error}")))?;
    let (columns, rows) = qr::size(&code);
    let size = io::stdout().is_terminal().then(terminal::size).transpose();
    match size.map_err(|error| Failure::io("measure the terminal", &error))? {
        // The ticket itself and the prompt come below.
        Some((width, height)) if columns > width.into() || rows + 2 > height.into() => {
            say(format_args!(
                "the QR code of {columns} columns and {rows} rows does not fit a terminal of {width} by {height}"
            ));
        }
        Some(_) | None => _ = print(&code)?,
    }
    Ok(())
}

/// Prints an answer: as JSON, or as the table that it makes.
pub(crate) fn print_view(json: bool, view: &impl Serialize, table: impl FnOnce() -> String) -> Result<Exit, Failure> {
    if json { print_json(view) } else { print(&table()) }
}

/// Prints an answer as one JSON object.
pub(crate) fn print_json(view: &impl Serialize) -> Result<Exit, Failure> {
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
