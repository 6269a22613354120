//! Standard input into the mesh: one line, one message, to the topic the pipe is attached to.
//!
//! A line that nobody could hear is said on stderr, with the reason; it is never kept for later.

use std::{collections::VecDeque, time::Duration};

use perennial::{Enqueued, PublishError, Publisher, Receipt, limits::CONTENT_MAX};
use tokio::{io::AsyncRead, sync::watch, time::timeout};

use crate::{
    line_reader::{Input, LineReader},
    memberships::PipeTarget,
    output::say,
};

/// The first line after a join with peers waits this long for a neighbour: `echo hello | perennial up --join …` would
/// otherwise be spoken into an empty room. As long as a dial may take.
const FIRST_NEIGHBOR_TIMEOUT: Duration = Duration::from_secs(10);

/// Lines handed to the topic whose receipts are awaited. As many as wait for a topic by default.
const UNRECEIPTED_MAX: usize = 64;

/// The pipe of one node.
#[derive(Debug)]
pub(crate) struct Pipe<R> {
    lines: LineReader<R>,
    target: watch::Receiver<Option<PipeTarget>>,
    /// The name of the topic, for people.
    topic: String,
    /// The newest target that was already waited for.
    waited_generation: u64,
    /// The lines that are under way, in their order.
    unreceipted: VecDeque<Enqueued>,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    pub(crate) fn new(source: R, target: watch::Receiver<Option<PipeTarget>>, topic: String) -> Self {
        Self {
            lines: LineReader::new(source, CONTENT_MAX),
            target,
            topic,
            waited_generation: 0,
            unreceipted: VecDeque::new(),
        }
    }

    /// Publishes line by line until the input ends.
    pub(crate) async fn run(mut self) {
        loop {
            let may_read = self.unreceipted.len() < UNRECEIPTED_MAX;
            tokio::select! {
                biased; // What has happened is told before the next thing does.
                receipt = first(&mut self.unreceipted) => {
                    self.unreceipted.pop_front();
                    self.tell(receipt);
                }
                line = self.lines.next(), if may_read => match line {
                    Ok(Input::Line(line)) => self.on_line(line).await,
                    Ok(Input::TooLong(size)) => {
                        say(format_args!("line of {size} bytes exceeds {CONTENT_MAX}; it was not published"));
                    }
                    Ok(Input::End) => break,
                    Err(error) => {
                        say(format_args!("standard input ended: {error}"));
                        break;
                    }
                },
            }
        }
        while let Some(enqueued) = self.unreceipted.pop_front() {
            let receipt = enqueued.await;
            self.tell(receipt);
        }
    }

    async fn on_line(&mut self, line: Vec<u8>) {
        let Some(publisher) = self.publisher().await else {
            return say(format_args!("{} is not joined; the line was not published", self.topic));
        };
        match publisher.enqueue(line).await {
            Ok(enqueued) => self.unreceipted.push_back(enqueued),
            Err(error) => self.tell(Err(error)),
        }
    }

    fn tell(&self, receipt: Result<Receipt, PublishError>) {
        match receipt {
            Ok(receipt) => {
                if receipt.neighbors == 0 {
                    say(format_args!("nobody heard that: {} has no neighbor", self.topic));
                }
                if receipt.repeated {
                    say("the same line was published shortly before; other nodes drop it as a duplicate");
                }
            }
            Err(PublishError::Closed) => {
                say(format_args!("{} is closed; the line was not published", self.topic));
            }
            Err(error) => say(format_args!("{error}; the line was not published")),
        }
    }

    /// The publisher of the moment; after a fresh join with peers, once it has a neighbour or has waited long enough.
    ///
    /// A publisher keeps its topic joined, so none is held while waiting for somebody to leave or join.
    async fn publisher(&mut self) -> Option<Publisher> {
        loop {
            let target = self.target.borrow_and_update().clone()?;
            let fresh = target.generation > self.waited_generation;
            if !(fresh && target.expects_neighbors && target.publisher.neighbors().is_empty()) {
                return Some(target.publisher);
            }
            tokio::select! {
                biased; // A target that was replaced is not worth waiting for.
                changed = self.target.changed() => match changed {
                    Ok(()) => {}
                    Err(_) => return None,
                },
                _ = timeout(FIRST_NEIGHBOR_TIMEOUT, target.publisher.joined()) => {
                    self.waited_generation = target.generation;
                }
            }
        }
    }
}

/// What became of the first of them; never if there is none. Cancel-safe.
async fn first(unreceipted: &mut VecDeque<Enqueued>) -> Result<Receipt, PublishError> {
    match unreceipted.front_mut() {
        Some(first) => first.await,
        None => std::future::pending().await,
    }
}
