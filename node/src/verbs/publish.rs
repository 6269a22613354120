//! `perennial publish`: a text, a file, standard input, or each of its lines, published by the running node.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use perennial::limits::CONTENT_MAX;
use tokio::io::stdin;

use crate::{
    cli::PublishArgs,
    client::{
        self,
        api::{Api, topic_path},
    },
    control::protocol::topics::Published,
    exit::{Exit, Failure},
    line_reader::{Input, LineReader},
    output::say,
    tables::counted,
    verbs::progress::Progress,
};

/// Whatever is published is bytes; the node does not look into them.
const CONTENT_TYPE: &str = "application/octet-stream";

/// Read beyond what a message may have, so that the node can tell what there was; and no more, whatever is in a file.
const READ_MAX: usize = CONTENT_MAX * 8;

pub(crate) async fn publish(args: &PublishArgs) -> Result<Exit, Failure> {
    let publisher = Publisher { api: Api::new(&args.ask)?, path: format!("{}/messages", topic_path(&args.topic)) };
    if args.lines {
        return lines(args, &publisher).await;
    }
    let content = match (&args.file, args.text.as_deref()) {
        (Some(file), _) => read_file(file)?,
        (None, Some("-")) => read(io::stdin(), "standard input")?,
        (None, text) => text.unwrap_or_default().as_bytes().to_vec(),
    };
    let published = publisher.publish(content).await?;
    tell(args, &published)
}

/// One node and the topic's place there.
struct Publisher {
    api: Api,
    path: String,
}

impl Publisher {
    async fn publish(&self, content: Vec<u8>) -> Result<Published, Failure> {
        if content.len() > CONTENT_MAX {
            return Err(too_large(content.len()));
        }
        self.api.post_bytes(&self.path, CONTENT_TYPE, content).await
    }
}

fn too_large(bytes: usize) -> Failure {
    let size = if bytes >= READ_MAX { format!("at least {bytes}") } else { bytes.to_string() };
    Failure::new(Exit::Usage, format!("message of {size} bytes exceeds {CONTENT_MAX}, the most a message may have"))
}

/// Publishes each line until one cannot be: whoever mends it knows where to go on.
async fn lines(args: &PublishArgs, publisher: &Publisher) -> Result<Exit, Failure> {
    let mut lines = LineReader::new(stdin(), CONTENT_MAX);
    let progress = Progress::begin("publishing");
    let (mut number, mut unheard) = (0u64, 0u64);
    let at_line = |number: u64, failure: Failure| Failure { sentence: format!("line {number}: {failure}"), ..failure };
    loop {
        let line = lines.next().await.map_err(|error| Failure::io("read standard input", &error))?;
        number += 1;
        let content = match line {
            Input::Line(line) => line,
            Input::TooLong(size) => return Err(at_line(number, too_large(size))),
            Input::End => break,
        };
        let published = publisher.publish(content).await.map_err(|failure| at_line(number, failure))?;
        unheard += u64::from(published.neighbors == 0);
        if args.ask.json {
            client::print_json(&published)?;
        }
        progress.update(format!("{number} lines"));
    }
    drop(progress);
    if !args.ask.json {
        let of_these = if unheard > 0 { format!(", {unheard} of them to no neighbor") } else { String::new() };
        say(format_args!("published {}{of_these}", counted(number - 1, "line")));
    }
    Ok(Exit::Ok)
}

/// What became of one message, in a sentence or as it came.
fn tell(args: &PublishArgs, published: &Published) -> Result<Exit, Failure> {
    if args.ask.json {
        return client::print_json(published);
    }
    let Published { neighbors, no_room, repeated, bytes, .. } = published;
    let heard = match (neighbors, no_room) {
        (0, _) => "to no neighbor: nobody heard it".to_owned(),
        (neighbors, 0) => format!("to {}", counted(*neighbors as u64, "neighbor")),
        (neighbors, no_room) => {
            format!("to {}, of whom {no_room} had no room", counted(*neighbors as u64, "neighbor"))
        }
    };
    let again = if *repeated { "; it was published here lately, and nodes that remember it drop it" } else { "" };
    say(format_args!("published {} {heard}{again}", counted(*bytes as u64, "byte")));
    Ok(Exit::Ok)
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display().to_string();
    let file = File::open(path).map_err(|error| Failure::io(format_args!("open {shown}"), &error))?;
    read(file, &shown)
}

fn read(source: impl Read, shown: &str) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let read = source.take(READ_MAX as u64).read_to_end(&mut content);
    read.map_err(|error| Failure::io(format_args!("read {shown}"), &error))?;
    Ok(content)
}
