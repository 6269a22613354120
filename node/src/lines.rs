//! The lines on stdout: one JSON object per event, or the bare message in plain mode. `[pure]`
//!
//! Every object carries `"v":1`. Fields are only ever added; a reader must ignore those it does not know.

use data_encoding::BASE64;
use perennial::{Event, Message};
use serde::Serialize;

use crate::names::{TopicName, topic_hex};

/// The version of every JSON object this program prints.
pub(crate) const VERSION: u8 = 1;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The endpoint is bound and every topic of the command line is joined. Neighbours may still be missing.
    Ready { id: String, addrs: Vec<String>, ticket: String, control: String, http: Option<String> },
    /// A remote entered the active view of a topic.
    NeighborUp {
        #[serde(flatten)]
        topic: TopicField,
        peer: String,
    },
    /// A remote left the active view.
    NeighborDown {
        #[serde(flatten)]
        topic: TopicField,
        peer: String,
        reason: &'static str,
    },
    /// A message arrived. `from` is the neighbour that delivered it, which need not be its author.
    Message {
        #[serde(flatten)]
        topic: TopicField,
        from: String,
        #[serde(flatten)]
        content: Content,
        hops: u16,
    },
    /// Standard output was read too slowly: `n` events of this topic are missing here.
    Lagged {
        #[serde(flatten)]
        topic: TopicField,
        n: u64,
    },
    /// The topic's loop was restarted; neighbours are being found anew.
    Restarted {
        #[serde(flatten)]
        topic: TopicField,
    },
    /// The topic is closed: `left` on request, or `ended` with the node. To a subscriber of the API also `slow`.
    Closed {
        #[serde(flatten)]
        topic: TopicField,
        reason: &'static str,
    },
}

/// Which topic an event belongs to: always the id, and the name where the user gave one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TopicField {
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl From<&TopicName> for TopicField {
    fn from(topic: &TopicName) -> Self {
        Self { topic: topic_hex(topic.id), name: topic.name.clone() }
    }
}

/// A message's content: `text` where it is valid UTF-8, otherwise `base64`. Never both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Content {
    Text(String),
    Base64(String),
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Content::Text(text.to_owned()),
            Err(_) => Content::Base64(BASE64.encode(bytes)),
        }
    }
}

impl Line {
    /// The line for `event`. `None` for an event this version has no line for.
    pub(crate) fn of(topic: &TopicName, event: &Event) -> Option<Line> {
        let topic = TopicField::from(topic);
        match event {
            Event::NeighborUp(peer) => Some(Line::NeighborUp { topic, peer: peer.to_string() }),
            Event::NeighborDown { peer, reason } => {
                Some(Line::NeighborDown { topic, peer: peer.to_string(), reason: reason.name() })
            }
            Event::Received(Message { content, delivered_from, hops }) => Some(Line::Message {
                topic,
                from: delivered_from.to_string(),
                content: Content::from(&content[..]),
                hops: *hops,
            }),
            Event::Lagged(n) => Some(Line::Lagged { topic, n: *n }),
            Event::Restarted => Some(Line::Restarted { topic }),
            _ => None,
        }
    }

    /// The stable name of this event, as `event` has it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Line::Ready { .. } => "ready",
            Line::NeighborUp { .. } => "neighbor_up",
            Line::NeighborDown { .. } => "neighbor_down",
            Line::Message { .. } => "message",
            Line::Lagged { .. } => "lagged",
            Line::Restarted { .. } => "restarted",
            Line::Closed { .. } => "closed",
        }
    }

    /// This line as one JSON object, newline included.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Versioned<'a> {
            v: u8,
            #[serde(flatten)]
            line: &'a Line,
        }
        let mut bytes =
            serde_json::to_vec(&Versioned { v: VERSION, line: self }).expect("strings and numbers always serialise");
        bytes.push(b'\n');
        bytes
    }
}

/// A message in plain mode: its bytes, as they are, and a newline.
pub(crate) fn plain(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 1);
    bytes.extend_from_slice(content);
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use perennial::DownReason;

    use super::*;

    const ID: &str = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";

    #[test]
    fn events_are_one_object_each() {
        let id: iroh::EndpointId = ID.parse().unwrap();
        let received =
            |content: &'static [u8]| Event::Received(Message { content: content.into(), delivered_from: id, hops: 2 });
        let topic = format!(r#""topic":"{ID}""#);
        check(&Event::NeighborUp(id), &format!(r#"{{"v":1,"event":"neighbor_up",{topic},"peer":"{ID}"}}"#));
        check(
            &Event::NeighborDown { peer: id, reason: DownReason::ConnectionLost },
            &format!(r#"{{"v":1,"event":"neighbor_down",{topic},"peer":"{ID}","reason":"connection-lost"}}"#),
        );
        check(
            &received("h\u{e9}\n".as_bytes()),
            &format!(r#"{{"v":1,"event":"message",{topic},"from":"{ID}","text":"hé\n","hops":2}}"#),
        );
        check(
            &received(b"\xff\x00"),
            &format!(r#"{{"v":1,"event":"message",{topic},"from":"{ID}","base64":"/wA=","hops":2}}"#),
        );
        check(&Event::Lagged(7), &format!(r#"{{"v":1,"event":"lagged",{topic},"n":7}}"#));
        check(&Event::Restarted, &format!(r#"{{"v":1,"event":"restarted",{topic}}}"#));
    }

    #[test]
    fn a_named_topic_carries_its_name() {
        let topic: TopicName = "chat".parse().unwrap();
        let line = Line::Closed { topic: (&topic).into(), reason: "left" };
        let value: serde_json::Value = serde_json::from_slice(&line.to_json()).unwrap();
        assert_eq!(value["name"], "chat");
        assert_eq!(value["topic"], topic_hex(topic.id));
        assert_eq!(value["reason"], "left");
    }

    #[test]
    fn plain_mode_adds_nothing_but_the_newline() {
        assert_eq!(plain(b"\xffa"), b"\xffa\n");
    }

    fn check(event: &Event, expected: &str) {
        let topic: TopicName = ID.parse().unwrap();
        let line = Line::of(&topic, event).expect("every event of this test has a line");
        let json = String::from_utf8(line.to_json()).unwrap();
        assert_eq!(json, format!("{expected}\n"));
        assert!(json.starts_with(&format!(r#"{{"v":1,"event":"{}""#, line.name())), "both names of an event are one");
    }
}
