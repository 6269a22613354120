//! The control verbs of a running node, spoken through the binary's own command line: `status`, `ledger`, `join`,
//! `leave`.
//!
//! Only public interfaces are used, so that what the soak sees is what an operator would see.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::process::Command;

use crate::{
    process::TOPIC,
    samples::{self, Ledger, Status},
};

/// A verb answers within this long. Guess; a loaded machine starts a process in well under a second.
const VERB_TIMEOUT: Duration = Duration::from_secs(15);

/// Asks nodes. Errors say which verb failed and how.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    bin: PathBuf,
}

impl Control {
    pub(crate) fn new(bin: PathBuf) -> Self {
        Self { bin }
    }

    /// The node leaves the topic.
    pub(crate) async fn leave(&self, socket: &Path) -> Result<(), String> {
        self.ask(socket, &["leave", TOPIC], &[0], VERB_TIMEOUT).await.map(drop)
    }

    /// The node joins the topic through `peer`, an `ID@IP:PORT`.
    pub(crate) async fn join(&self, socket: &Path, peer: &str) -> Result<(), String> {
        self.ask(socket, &["join", TOPIC, "--peer", peer], &[0], VERB_TIMEOUT).await.map(drop)
    }

    /// The node's figures.
    pub(crate) async fn status(&self, socket: &Path) -> Result<Status, String> {
        let output = self.ask(socket, &["status"], &[0], VERB_TIMEOUT).await?;
        samples::status(&parse(&output)?)
    }

    /// The node's ledger; the node is given `settle` to bring its orphans to zero.
    pub(crate) async fn ledger(&self, socket: &Path, settle: Duration) -> Result<Ledger, String> {
        let settle_arg = format!("{}s", settle.as_secs());
        // With orphans left the verb exits with 1 and still prints them.
        let output = self.ask(socket, &["ledger", "--settle", &settle_arg], &[0, 1], settle + VERB_TIMEOUT).await?;
        samples::ledger(&parse(&output)?)
    }

    async fn ask(&self, socket: &Path, verb: &[&str], codes: &[i32], timeout: Duration) -> Result<String, String> {
        let name = format!("perennial {}", verb.join(" "));
        let mut command = Command::new(&self.bin);
        command.args(verb).arg("--json").arg("--control").arg(socket).stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(timeout, command.output()).await {
            Ok(output) => output.map_err(|error| format!("`{name}` cannot be run: {error}"))?,
            Err(_) => return Err(format!("`{name}` gave no answer within {} s", timeout.as_secs())),
        };
        if output.status.code().is_some_and(|code| codes.contains(&code)) {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().last().unwrap_or("no message").trim();
        Err(format!("`{name}` ended with {}: {last}", output.status))
    }
}

fn parse(output: &str) -> Result<Value, String> {
    serde_json::from_str(output.trim()).map_err(|error| format!("the node's answer is not JSON: {error}"))
}
