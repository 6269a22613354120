//! Standard output: data only, through one bounded queue and one writing task. Words for people go to stderr, by `say`.
//!
//! A reader that is slow holds back the printers, and the mesh tells them what they missed (`lagged`). A reader that is
//! gone ends the node: see [`Output::open`].

use std::{fmt, io, time::Duration};

use perennial::{Event, Kind};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    lines::{self, Line},
    names::{TopicName, short},
    tasks::{TaskEnd, Tasks},
};

/// Lines waiting for standard output. As many as a subscriber's events; then printers wait.
const QUEUED_LINES_MAX: usize = 256;

/// Lines written between two flushes while more are already waiting.
const LINES_PER_FLUSH_MAX: usize = 64;

/// After draining, standard output gets this long to take what is waiting for it.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What standard output carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing.
    Silent,
    /// Received messages, as they are.
    Plain,
    /// Every event as a JSON object.
    Json,
}

/// The queue in front of standard output. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    mode: Mode,
    lines: mpsc::Sender<Vec<u8>>,
    closing: CancellationToken,
    writer: TaskEnd,
}

impl Output {
    /// Starts the writer. `on_gone` is called when `target` cannot be written any more, a closed pipe for example.
    pub(crate) fn open(
        mode: Mode,
        target: impl AsyncWrite + Send + Unpin + 'static,
        tasks: &Tasks,
        on_gone: impl FnOnce(io::Error) + Send + 'static,
    ) -> Self {
        let (lines, queue) = mpsc::channel(QUEUED_LINES_MAX);
        let closing = CancellationToken::new();
        let closed = closing.clone();
        let writer = tasks.spawn(Kind::Service, "stdout", async move {
            if let Err(error) = write(queue, target, closed).await {
                on_gone(error);
            }
        });
        Self { mode, lines, closing, writer }
    }

    /// Prints `line` in JSON mode. Waits while standard output is slow.
    pub(crate) async fn line(&self, line: &Line) {
        if self.mode == Mode::Json {
            self.bytes(line.to_json()).await;
        }
    }

    /// Prints an event of a topic in the form of the mode; without JSON, changes of neighbours are told on stderr.
    pub(crate) async fn event(&self, topic: &TopicName, event: &Event) {
        match (self.mode, event) {
            (Mode::Json, _) => {
                if let Some(line) = Line::of(topic, event) {
                    self.line(&line).await;
                }
            }
            (Mode::Plain, Event::Received(message)) => self.bytes(lines::plain(&message.content)).await,
            (Mode::Silent, Event::Received(_)) => {}
            (_, Event::NeighborUp(peer)) => say(format_args!("{topic}: neighbor {} is up", short(peer))),
            (_, Event::NeighborDown { peer, reason }) => {
                say(format_args!("{topic}: neighbor {} is down ({})", short(peer), reason.name()));
            }
            (_, Event::Lagged(n)) => say(format_args!("{topic}: {n} events were lost, output is read too slowly")),
            (_, Event::Restarted) => say(format_args!("{topic}: restarted, finding neighbors anew")),
            (_, _) => {}
        }
    }

    /// Writes what is waiting, at most for `limit`; whether everything went out.
    pub(crate) async fn close(&self, limit: Duration) -> bool {
        self.closing.cancel();
        self.writer.wait_at_most(limit).await
    }

    async fn bytes(&self, bytes: Vec<u8>) {
        // The writer has ended only once standard output is gone, which it has reported itself.
        let _ = self.lines.send(bytes).await;
    }
}

async fn write(
    mut queue: mpsc::Receiver<Vec<u8>>,
    mut target: impl AsyncWrite + Unpin,
    closing: CancellationToken,
) -> io::Result<()> {
    let mut waiting = Vec::with_capacity(LINES_PER_FLUSH_MAX);
    loop {
        tokio::select! {
            biased; // Closing first, so that a busy queue cannot put it off; what waits is still written.
            () = closing.cancelled(), if !queue.is_closed() => queue.close(),
            taken = queue.recv_many(&mut waiting, LINES_PER_FLUSH_MAX) => {
                if taken == 0 {
                    return Ok(());
                }
                for line in waiting.drain(..) {
                    target.write_all(&line).await?;
                }
                target.flush().await?;
            }
        }
    }
}

/// Says something to the person at the terminal. Nobody listening is no reason to fail.
pub(crate) fn say(sentence: impl fmt::Display) {
    use std::io::Write;
    let _ = writeln!(io::stderr().lock(), "{sentence}");
}

#[cfg(test)]
mod tests {
    use perennial::{Ledger, Message};

    use super::*;

    #[tokio::test]
    async fn what_was_queued_before_closing_is_written() {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let tasks = Tasks::new(Ledger::new());
        let output = Output::open(Mode::Plain, ours, &tasks, |error| panic!("{error}"));
        let topic: TopicName = "chat".parse().unwrap();
        let from = iroh::SecretKey::generate().public();
        for number in 0..200 {
            let message = Message { content: format!("line {number}").into(), delivered_from: from, hops: 0 };
            output.event(&topic, &Event::Received(message)).await;
        }
        assert!(output.close(Duration::from_secs(5)).await);
        let mut reader = crate::line_reader::LineReader::new(theirs, 100);
        for number in 0..200 {
            let line = format!("line {number}").into_bytes();
            assert_eq!(reader.next().await.unwrap(), crate::line_reader::Input::Line(line));
        }
    }

    #[tokio::test]
    async fn a_closed_output_is_reported_once_and_blocks_nobody() {
        let (ours, theirs) = tokio::io::duplex(64);
        drop(theirs);
        let tasks = Tasks::new(Ledger::new());
        let (report, mut reports) = mpsc::channel(1);
        let output = Output::open(Mode::Json, ours, &tasks, move |error| report.try_send(error.kind()).unwrap());
        let topic: TopicName = "chat".parse().unwrap();
        for _ in 0..2 * QUEUED_LINES_MAX {
            output.event(&topic, &Event::Restarted).await;
        }
        assert_eq!(reports.recv().await, Some(io::ErrorKind::BrokenPipe));
        assert!(output.close(Duration::from_secs(5)).await);
    }
}
