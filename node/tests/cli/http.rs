//! A client of the control API for the tests: as few lines as HTTP takes, so that it can also be rude.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
};

use serde_json::Value;

use crate::process::{DEADLINE, Up};

/// A connection to a node, by either entrance.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    /// The body, which is JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The sentence of a refusal.
    pub(crate) fn message(&self) -> String {
        let answer = self.json();
        assert_eq!(answer["v"], 1, "{answer}");
        assert!(answer["error"]["exit"].is_u64(), "{answer}");
        answer["error"]["message"].as_str().unwrap_or_else(|| panic!("no message in {answer}")).to_owned()
    }
}

/// Connects to the control socket.
pub(crate) fn socket(up: &Up) -> UnixStream {
    let stream = UnixStream::connect(up.control()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Connects to the TCP address.
pub(crate) fn address(up: &Up) -> TcpStream {
    let stream = TcpStream::connect(up.ready["http"].as_str().expect("it has an address")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Asks over the control socket, on a connection of its own.
pub(crate) fn get(up: &Up, path: &str) -> Answer {
    ask(socket(up), &format!("GET {path}"), &[], b"")
}

/// Orders over the control socket, on a connection of its own.
pub(crate) fn post(up: &Up, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Answer {
    ask(socket(up), &format!("POST {path}"), &[("content-type", content_type)], body.as_ref())
}

/// One exchange, after which the connection ends.
pub(crate) fn ask(mut stream: impl Stream, what: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    send(&mut stream, what, &[headers, &[("connection", "close")]].concat(), body);
    read(&mut BufReader::new(stream))
}

pub(crate) fn send(stream: &mut impl Write, what: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!("{what} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += "host: localhost\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
}

/// Reads one answer whose length is told.
pub(crate) fn read(reader: &mut impl BufRead) -> Answer {
    let (status, head) = read_head(reader);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|text| text.parse().unwrap());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    Answer { status, head, text: String::from_utf8(body).unwrap() }
}

fn read_head(reader: &mut impl BufRead) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "the head of an answer ends early: {head:?}");
    }
    let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {head:?}")).parse().unwrap();
    (status, head.replace("\r\n", "\n").to_ascii_lowercase())
}

/// The events of one topic.
pub(crate) struct Events<S> {
    reader: BufReader<S>,
}

impl Events<UnixStream> {
    /// Listens to a topic over the control socket. On return it hears everything.
    pub(crate) fn of(up: &Up, topic: &str) -> Self {
        let mut stream = socket(up);
        send(&mut stream, &format!("GET /v1/topics/{topic}/events"), &[], b"");
        let mut reader = BufReader::new(stream);
        let (status, head) = read_head(&mut reader);
        assert!(status == 200 && head.contains("content-type: text/event-stream"), "{head}");
        Self { reader }
    }
}

impl<S: Read> Events<S> {
    /// The next event of this name; others are skipped.
    pub(crate) fn next(&mut self, name: &str) -> Value {
        loop {
            let event = self.any().unwrap_or_else(|| panic!("the stream ended without {name}"));
            if event["event"] == name {
                return event;
            }
        }
    }

    /// The next event of any name; `None` at the end of the stream.
    pub(crate) fn any(&mut self) -> Option<Value> {
        let mut name = String::new();
        loop {
            // Lines between events are chunk lengths, comments and nothing.
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(text) = line.trim_end().strip_prefix("event: ") {
                text.clone_into(&mut name);
            }
            if let Some(data) = line.trim_end().strip_prefix("data: ") {
                let event: Value = serde_json::from_str(data).unwrap();
                assert_eq!((&event["v"], &event["event"]), (&1.into(), &name.as_str().into()), "{line}");
                return Some(event);
            }
        }
    }
}
