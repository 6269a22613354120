//! `perennial subscribe`: the events of a topic as they come, until enough were heard, the time is over, or the node ends.
//!
//! Messages go to stdout, everything else is told on stderr; with `--json` every event is an object, as the node told it.

use std::{
    future::pending,
    io::{self, Write},
};

use data_encoding::BASE64;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::{
    cli::SubscribeArgs,
    client::{
        self,
        api::{Api, topic_path},
        stream::Event,
    },
    exit::{Exit, Failure},
    output::say,
    tables::counted,
};

/// What is read of an event; which of it is there depends on its name.
#[derive(Debug, Deserialize)]
struct Heard {
    text: Option<String>,
    base64: Option<String>,
    peer: Option<String>,
    reason: Option<String>,
    n: Option<u64>,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Message,
    GoOn,
    /// The node has closed the topic, or sent this reader away.
    Closed,
}

pub(crate) async fn subscribe(args: &SubscribeArgs) -> Result<Exit, Failure> {
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut events = Api::new(&args.ask)?.stream(&format!("{}/events", topic_path(&args.topic))).await?;
    let mut messages = 0u64;
    loop {
        let over = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        let event = tokio::select! {
            biased; // A busy topic must not put the end off.
            () = over => return Ok(at_timeout(args.count, messages)),
            event = events.next() => event?,
        };
        let Some(event) = event else {
            return Err(Failure::new(Exit::NoNode, "the node ended the events without a word"));
        };
        match tell(args, &event)? {
            Then::Message => messages += 1,
            Then::GoOn => {}
            Then::Closed => return closed(&event),
        }
        if args.count.is_some_and(|count| messages >= count) {
            return Ok(Exit::Ok);
        }
    }
}

/// Without a number to wait for, the time was all that was asked for.
fn at_timeout(count: Option<u64>, messages: u64) -> Exit {
    let Some(count) = count else { return Exit::Ok };
    say(format_args!("heard {} of {count} in time", counted(messages, "message")));
    Exit::Failed
}

/// Prints one event.
fn tell(args: &SubscribeArgs, event: &Event) -> Result<Then, Failure> {
    let heard = read(event)?;
    if args.ask.json {
        client::print(&event.data)?;
    }
    let then = match event.name.as_str() {
        "message" => Then::Message,
        "closed" => Then::Closed,
        _ => Then::GoOn,
    };
    match then {
        Then::Message if !args.ask.json => write(&content(&heard)?, args.raw)?,
        Then::GoOn if !args.ask.json => say(format_args!("{}", sentence(&event.name, &heard))),
        Then::Message | Then::GoOn | Then::Closed => {}
    }
    Ok(then)
}

fn read(event: &Event) -> Result<Heard, Failure> {
    serde_json::from_str(&event.data)
        .map_err(|error| Failure::new(Exit::Io, format!("the event `{}` cannot be read: {error}", event.name)))
}

fn content(heard: &Heard) -> Result<Vec<u8>, Failure> {
    match (&heard.text, &heard.base64) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(base64)) => BASE64
            .decode(base64.as_bytes())
            .map_err(|error| Failure::new(Exit::Io, format!("a message is not the base64 it should be: {error}"))),
        (None, None) => Err(Failure::new(Exit::Io, "a message came without its content")),
    }
}

fn write(content: &[u8], is_raw: bool) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(content).and_then(|()| if is_raw { Ok(()) } else { stdout.write_all(b"\n") });
    written.and_then(|()| stdout.flush()).map_err(|error| Failure::io("write to standard output", &error))
}

/// What happens beside messages, for people.
fn sentence(name: &str, heard: &Heard) -> String {
    let peer = heard.peer.as_deref().map_or("a node", |peer| &peer[..peer.len().min(10)]);
    match (name, heard.n, &heard.reason) {
        ("neighbor_up", ..) => format!("{peer} is a neighbor"),
        ("neighbor_down", _, Some(reason)) => format!("{peer} is a neighbor no longer: {reason}"),
        ("lagged", Some(n), _) => format!("read too slowly: {} missing", counted(n, "event")),
        ("restarted", ..) => "the topic was restarted".into(),
        (other, ..) => other.replace('_', " "),
    }
}

fn closed(event: &Event) -> Result<Exit, Failure> {
    let reason = read(event)?.reason.unwrap_or_default();
    Err(match reason.as_str() {
        "left" => Failure::new(Exit::Failed, "the node has left the topic"),
        "slow" => Failure::new(Exit::Failed, "the node sent this subscriber away: it read too slowly again and again"),
        _ => Failure::new(Exit::NoNode, "the node has ended"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn a_message_is_its_text_or_the_bytes_behind_its_base64() {
        let content = |data| content(&read(&event("message", data)).unwrap());
        assert_eq!(content(r#"{"v":1,"text":"hello"}"#).unwrap(), b"hello");
        assert_eq!(content(r#"{"v":1,"base64":"/wA="}"#).unwrap(), [255, 0]);
        assert_eq!(content(r#"{"v":1,"base64":"!"}"#).unwrap_err().exit, Exit::Io);
        assert_eq!(content(r#"{"v":1}"#).unwrap_err().exit, Exit::Io);
    }

    #[test]
    fn what_else_happens_is_told_in_a_sentence() {
        let told = |name, data| sentence(name, &read(&event(name, data)).unwrap());
        assert_eq!(told("neighbor_up", r#"{"peer":"0123456789abcdef"}"#), "0123456789 is a neighbor");
        let down = r#"{"peer":"0123456789abcdef","reason":"lost"}"#;
        assert_eq!(told("neighbor_down", down), "0123456789 is a neighbor no longer: lost");
        assert_eq!(told("lagged", r#"{"n":1}"#), "read too slowly: 1 event missing");
        assert_eq!(told("something_new", "{}"), "something new");
    }

    #[test]
    fn the_end_of_a_topic_is_the_end_of_the_verb_with_a_code_that_tells_why() {
        let code = |reason: &str| closed(&event("closed", &format!(r#"{{"reason":"{reason}"}}"#))).unwrap_err().exit;
        assert_eq!([code("left"), code("slow"), code("ended")], [Exit::Failed, Exit::Failed, Exit::NoNode]);
    }

    #[test]
    fn too_few_messages_in_time_are_a_failure_only_where_a_number_was_asked_for() {
        assert_eq!((at_timeout(Some(2), 1), at_timeout(None, 0)), (Exit::Failed, Exit::Ok));
    }
}
