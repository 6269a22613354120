//! The parent's side of an observer: one node in a process of its own, asked by lines. The child is `bin/observer.rs`.
//!
//! A process of its own gives a scenario what a task cannot: a heap that is this node's alone, a count of tasks that is
//! this node's alone, and a real kill.

use std::{
    collections::VecDeque,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::{EndpointAddr, EndpointId, SecretKey};
use iroh_gossip::proto::TopicId;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout, Command},
    task::JoinHandle,
};

use crate::wait::{PATIENCE, eventually, must};

/// Which software the child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// Unmodified iroh-gossip.
    Stock,
    /// This repository's library.
    Perennial,
}

impl Software {
    /// The word on the child's command line.
    pub fn name(self) -> &'static str {
        match self {
            Software::Stock => "stock",
            Software::Perennial => "perennial",
        }
    }
}

/// A line the child prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// It listens. The address is the one to dial.
    Ready { id: EndpointId, addr: std::net::SocketAddr },
    /// It received a message.
    Message { text: String },
    /// The answer to `census`.
    Census(ChildCensus),
}

/// What the child says about itself.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ChildCensus {
    /// Bytes allocated and not freed, by the counting allocator.
    pub heap_bytes: i64,
    /// Tasks alive on the child's runtime.
    pub tasks: usize,
    /// QUIC connections open. For stock by the endpoint's metrics, for ours spawned − finished in the ledger.
    pub connections: u64,
    /// Of these, connections of neighbours; a stock node does not tell.
    pub neighbor_connections: Option<u64>,
    /// Neighbours on the topic.
    pub neighbors: usize,
    /// Tasks without an owner; a stock node keeps no ledger and cannot tell.
    pub orphans: Option<u64>,
}

/// A running child.
#[derive(Debug)]
pub struct Child {
    /// Identity and address.
    pub addr: EndpointAddr,
    process: tokio::process::Child,
    stdin: ChildStdin,
    heard: Arc<Mutex<Printed>>,
    pump: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Printed {
    ready: Option<EndpointAddr>,
    messages: Vec<String>,
    censuses: VecDeque<ChildCensus>,
}

impl Child {
    /// Starts `program`, the observer binary, joined to `topic` through `bootstrap`.
    pub async fn spawn(
        program: &str,
        software: Software,
        key: Option<&SecretKey>,
        topic: TopicId,
        bootstrap: &[EndpointAddr],
    ) -> Self {
        let mut command = Command::new(program);
        command.arg(software.name()).arg(topic.to_string());
        command.args(bootstrap.iter().map(|addr| {
            let socket = addr.ip_addrs().next().expect("a bootstrap peer has an address");
            format!("{}@{socket}", addr.id)
        }));
        if let Some(key) = key {
            command.env("OBSERVER_KEY", hex(&key.to_bytes()));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        let stdin = process.stdin.take().expect("stdin is piped");
        let stdout = process.stdout.take().expect("stdout is piped");
        let heard = Arc::<Mutex<Printed>>::default();
        let pump = tokio::spawn(pump(stdout, heard.clone()));
        let what = format!("a {} child is ready", software.name());
        let addr = eventually(PATIENCE, &what, async || {
            let ready = lock(&heard).ready.clone();
            ready.ok_or_else(|| format!("no line yet, exit status {:?}", process.try_wait()))
        })
        .await;
        Self { addr, process, stdin, heard, pump }
    }

    /// The identity.
    pub fn id(&self) -> EndpointId {
        self.addr.id
    }

    /// Asks for a census.
    pub async fn census(&mut self) -> ChildCensus {
        lock(&self.heard).censuses.clear();
        self.say("census").await;
        eventually(PATIENCE, "the child answers", async || {
            lock(&self.heard).censuses.pop_front().ok_or_else(|| "no census line".into())
        })
        .await
    }

    /// Publishes one line of text.
    pub async fn publish(&mut self, text: &str) {
        self.say(&format!("publish {text}")).await;
    }

    /// Lets it leave the topic; the node runs on.
    pub async fn leave(&mut self) {
        self.say("leave").await;
    }

    /// Lets it join the topic again, through the same bootstrap peers.
    pub async fn join(&mut self) {
        self.say("join").await;
    }

    /// Waits until the child has received this text.
    pub async fn hears(&self, text: &str) {
        eventually(PATIENCE, &format!("the child hears {text:?}"), async || {
            let heard = lock(&self.heard);
            must(heard.messages.iter().any(|message| message == text), || {
                format!("{} messages so far", heard.messages.len())
            })
        })
        .await;
    }

    /// Waits until the child has a neighbour.
    pub async fn joined(&mut self) {
        eventually(PATIENCE, "the child has a neighbor", async || {
            let census = self.census().await;
            must(census.neighbors > 0, || format!("{census:?}"))
        })
        .await;
    }

    /// Kills it: no goodbye on any connection.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("a running child can be killed");
        let _ = (&mut self.pump).await;
    }

    /// Lets it leave, shut down and exit.
    pub async fn quit(mut self) {
        self.say("quit").await;
        let status = tokio::time::timeout(Duration::from_secs(30), self.process.wait()).await;
        let status =
            status.expect("a child that was asked to quit exits within 30 s").expect("the child was waited for");
        assert!(status.success(), "the child ended with {status}");
        let _ = (&mut self.pump).await;
    }

    async fn say(&mut self, line: &str) {
        let bytes = format!("{line}\n");
        self.stdin.write_all(bytes.as_bytes()).await.expect("the child reads its commands");
    }
}

async fn pump(stdout: ChildStdout, heard: Arc<Mutex<Printed>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = serde_json::from_str(&line).unwrap_or_else(|error| panic!("unreadable line {line:?}: {error}"));
        let mut heard = lock(&heard);
        match line {
            Line::Ready { id, addr } => heard.ready = Some(EndpointAddr::new(id).with_ip_addr(addr)),
            Line::Message { text } => heard.messages.push(text),
            Line::Census(census) => heard.censuses.push_back(census),
        }
    }
}

fn lock(printed: &Mutex<Printed>) -> MutexGuard<'_, Printed> {
    printed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
