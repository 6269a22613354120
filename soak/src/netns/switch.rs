//! The switch of a network with delay, loss, duplicates and reordering: a process of its own between the hosts, because
//! kernels without netem can do none of that. It waits for frames, for the next one that is due, and for words; the end of
//! its stdin is its own.
//!
//! What becomes of a frame is `table.rs` and `line.rs`; how the harness talks to this process is `child.rs`. A process, so
//! that what it costs is not taken for the harness's own, and so that it can be started inside the namespace of the
//! interfaces.

pub(crate) mod child;
pub mod line;
pub mod table;

use std::{
    io::{ErrorKind, Write},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::mpsc,
    time::sleep_until,
};

use self::{
    line::Conditions,
    table::{Table, Tallies},
};
use super::tap::Tap;

/// Frames read and not yet looked at. When there are more, the interfaces keep them, and drop what they cannot.
const READ_AHEAD_MAX: usize = 256;

/// Frames looked at before the clock is.
const HANDFUL: usize = 64;

/// An Ethernet frame is 1514 bytes long at most, and one with a tag 1518.
const FRAME_BYTES_MAX: usize = 2048;

/// One line on the switch's stdin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Word {
    /// A direction is like this from now on.
    Set { from: usize, to: usize, conditions: Conditions },
    /// Tell what the lines have done.
    Tell,
}

/// One line on its stdout, for every word and at the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum Answer {
    Ready,
    Done,
    Refused { words: String },
    Told(Tallies),
}

/// The name of the interface that leads to a host.
pub(crate) fn interface(host: usize) -> String {
    format!("t{host}")
}

/// Carries frames between the interfaces of so many hosts until stdin ends.
///
/// # Errors
/// An interface is not there, or fails.
pub async fn run(hosts: usize, seed: u64) -> Result<()> {
    let (read, mut frames) = mpsc::channel(READ_AHEAD_MAX);
    let mut taps = Vec::new();
    for host in 0..hosts {
        let name = interface(host);
        let open = || Tap::open(&name).with_context(|| format!("cannot serve the interface {name}"));
        let tap = Arc::new(open()?);
        tokio::spawn(listen(host, tap.clone(), read.clone()));
        taps.push(tap);
    }
    // Only the listeners keep it open: when each has failed, that is seen.
    drop(read);
    let mut table = Table::new(hosts, seed);
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    say(&Answer::Ready)?;
    loop {
        let due = table.next_due();
        tokio::select! {
            // Words are few and come first; then what is due, which is late already; then what is new.
            biased;
            word = words.next_line() => match word? {
                Some(word) => say(&on_word(&mut table, &word))?,
                None => return Ok(()),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
            frame = frames.recv() => match frame {
                Some(first) => on_frames(&mut table, first, &mut frames),
                None => bail!("no interface is left"),
            },
        }
        while let Some(due) = table.pop_due(Instant::now()) {
            let is_taken = taps[due.to].send(&due.frame).is_ok();
            table.on_sent(&due, is_taken);
        }
    }
}

fn on_word(table: &mut Table, word: &str) -> Answer {
    match serde_json::from_str(word) {
        Ok(Word::Set { from, to, conditions }) => match table.set(from, to, conditions) {
            Ok(()) => Answer::Done,
            Err(words) => Answer::Refused { words },
        },
        Ok(Word::Tell) => Answer::Told(table.tallies()),
        Err(error) => Answer::Refused { words: error.to_string() },
    }
}

fn on_frames(table: &mut Table, first: (usize, Vec<u8>), frames: &mut mpsc::Receiver<(usize, Vec<u8>)>) {
    let now = Instant::now();
    let mut next = Some(first);
    for _ in 0..HANDFUL {
        let Some((from, frame)) = next else { return };
        table.on_frame(from, &frame, now);
        next = frames.try_recv().ok();
    }
    if let Some((from, frame)) = next {
        table.on_frame(from, &frame, now);
    }
}

/// Reads the frames that a host sends, until nobody wants them or the interface is gone.
async fn listen(host: usize, tap: Arc<Tap>, read: mpsc::Sender<(usize, Vec<u8>)>) {
    let mut frame = vec![0; FRAME_BYTES_MAX];
    loop {
        match tap.receive(&mut frame).await {
            Ok(length) => {
                if read.send((host, frame[..length].to_vec())).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn say(answer: &Answer) -> Result<()> {
    let line = serde_json::to_string(answer)? + "\n";
    std::io::stdout().write_all(line.as_bytes()).context("nobody listens to the switch")
}
