//! The switch's process as the harness sees it: started inside the namespace between the hosts, told and asked in lines.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::{Answer, Word, line::Conditions, table::Tallies};
use crate::netns::tools::PlaceError;

/// An answer is there within this long. Guess; a switch that is busy with frames takes a millisecond.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A running switch. Killed on drop, and it ends by itself when this process does.
#[derive(Debug)]
pub(crate) struct Switch {
    child: Child,
    words: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Switch {
    /// Starts `program switch` behind `prefix` and waits until it serves all interfaces.
    pub(crate) async fn start(prefix: &[String], program: &Path, hosts: usize, seed: u64) -> Result<Self, PlaceError> {
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program).args(["switch", "--hosts", &hosts.to_string()]);
        command.args(["--seed", &seed.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(format!("cannot start it: {error}")))?;
        let words = child.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut switch = Self { child, words, answers };
        match switch.answer().await? {
            Answer::Ready => Ok(switch),
            other @ (Answer::Done | Answer::Refused { .. } | Answer::Told(_)) => Err(odd(&other)),
        }
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// One direction is like this from now on.
    pub(crate) async fn set(&mut self, from: usize, to: usize, conditions: Conditions) -> Result<(), PlaceError> {
        match self.ask(Word::Set { from, to, conditions }).await? {
            Answer::Done => Ok(()),
            Answer::Refused { words } => Err(PlaceError::Wrong(words)),
            other @ (Answer::Ready | Answer::Told(_)) => Err(odd(&other)),
        }
    }

    /// What the lines have done.
    pub(crate) async fn tell(&mut self) -> Result<Tallies, PlaceError> {
        match self.ask(Word::Tell).await? {
            Answer::Told(tallies) => Ok(tallies),
            other @ (Answer::Ready | Answer::Done | Answer::Refused { .. }) => Err(odd(&other)),
        }
    }

    async fn ask(&mut self, word: Word) -> Result<Answer, PlaceError> {
        let line = serde_json::to_string(&word).map_err(|error| failed(error.to_string()))? + "\n";
        self.words.write_all(line.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer, PlaceError> {
        let silent = || failed(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        let line = timeout(ANSWER_TIMEOUT, self.answers.next_line()).await.map_err(|_| silent())?;
        let line = line.map_err(|error| failed(error.to_string()))?;
        let line = line.ok_or_else(|| failed("it has ended".into()))?;
        serde_json::from_str(&line).map_err(|error| failed(format!("it said `{line}`: {error}")))
    }
}

fn failed(words: String) -> PlaceError {
    PlaceError::Failed { command: "switch".into(), words }
}

fn odd(answer: &Answer) -> PlaceError {
    failed(format!("it answered {answer:?}"))
}
