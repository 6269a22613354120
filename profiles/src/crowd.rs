//! The peers of the node that is profiled, in a process of their own: words in, one answer a word.
//!
//! [`Crowd`] is the node's side, [`serve`] the process. It ends when its standard input does.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use iroh::{Endpoint, EndpointAddr, EndpointId, SecretKey, endpoint::Connection};
use iroh_gossip::net::GOSSIP_ALPN;
use perennial::{Mesh, TopicHandle};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use crate::{
    course::MESSAGE_BYTES,
    node::{bind, limits, topic},
};

/// Whatever a word asks for is done within this long. Guess; fifty members under a profiler take ten seconds.
const WORD_TIMEOUT: Duration = Duration::from_secs(120);

/// A member has a neighbour within this long. Guess; a profiler makes every allocation of the other side slow.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A handshake is done within this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// What a crowd is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "word")]
pub(crate) enum Word {
    /// So many strangers connect and say nothing.
    Silent { count: usize },
    /// So many nodes join the topic.
    Members { count: usize },
    /// The first member says so many messages.
    Publish { messages: usize, pause: Duration },
    /// A stranger connects and leaves; one that nobody has seen before if it is `fresh`.
    Visit { fresh: bool },
    /// The first member leaves the topic and joins it again.
    Rotate,
    /// Everybody leaves, and says so.
    Part,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
enum Answer {
    Done,
    Failed { why: String },
}

/// A crowd as the node sees it. Killed on drop.
#[derive(Debug)]
pub(crate) struct Crowd {
    process: Child,
    words: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Crowd {
    /// Starts a crowd for the node at `target`.
    pub(crate) fn start(target: &EndpointAddr) -> Result<Self> {
        let addr = target.ip_addrs().next().context("the node has no address")?;
        let mut command = Command::new(std::env::current_exe().context("this program cannot be found")?);
        command.arg("crowd").arg(format!("{}@{addr}", target.id));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().context("cannot start the process of the peers")?;
        let words = process.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(process.stdout.take().expect("stdout is piped")).lines();
        Ok(Self { process, words, answers })
    }

    /// Says one word and waits until it is done.
    pub(crate) async fn tell(&mut self, word: Word) -> Result<()> {
        let line = serde_json::to_string(&word)? + "\n";
        self.words.write_all(line.as_bytes()).await.context("the process of the peers is gone")?;
        let answer = timeout(WORD_TIMEOUT, self.answers.next_line()).await;
        let answer = answer.with_context(|| format!("the peers have not done {word:?} within {WORD_TIMEOUT:?}"))??;
        let answer =
            answer.with_context(|| format!("the process of the peers ended with {:?}", self.process.try_wait()))?;
        match serde_json::from_str(&answer)? {
            Answer::Done => Ok(()),
            Answer::Failed { why } => bail!("the peers: {why}"),
        }
    }
}

/// `ID@IP:PORT`, as the process of the peers is told where the node is.
pub(crate) fn target(text: &str) -> Result<EndpointAddr, String> {
    let wrong = || format!("`{text}` is no node; write it as ID@IP:PORT");
    let (id, addr) = text.split_once('@').ok_or_else(wrong)?;
    let id: EndpointId = id.parse().map_err(|_| wrong())?;
    Ok(EndpointAddr::new(id).with_ip_addr(addr.parse().map_err(|_| wrong())?))
}

/// Does what standard input says, until it ends.
pub(crate) async fn serve(target: EndpointAddr) -> Result<()> {
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    let mut people = People { target, silent: Vec::new(), members: Vec::new(), visitor: None };
    while let Some(line) = words.next_line().await? {
        let answer = match people.obey(serde_json::from_str(&line)?).await {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Failed { why: format!("{error:#}") },
        };
        let line = serde_json::to_string(&answer)? + "\n";
        let mut stdout = tokio::io::stdout();
        stdout.write_all(line.as_bytes()).await?;
        stdout.flush().await?;
    }
    Ok(())
}

/// Everybody in the process of the peers.
#[derive(Debug)]
struct People {
    target: EndpointAddr,
    silent: Vec<(Endpoint, Connection)>,
    members: Vec<Member>,
    /// The stranger that comes again and again.
    visitor: Option<Endpoint>,
}

/// One node; `topic` is `None` only between leaving and joining again.
#[derive(Debug)]
struct Member {
    mesh: Mesh,
    topic: Option<TopicHandle>,
}

impl People {
    async fn obey(&mut self, word: Word) -> Result<()> {
        match word {
            Word::Silent { count } => {
                // One after the other: a node that is asked by many at once proves their addresses first.
                for _ in 0..count {
                    let endpoint = bind(SecretKey::generate()).await?;
                    let connection = self.connect(&endpoint).await?;
                    self.silent.push((endpoint, connection));
                }
                Ok(())
            }
            Word::Members { count } => {
                for _ in 0..count {
                    let mesh = Mesh::builder().limits(limits()).spawn().await.context("cannot spawn a mesh")?;
                    let mut member = Member { mesh, topic: None };
                    member.join(&self.target).await?;
                    self.members.push(member);
                }
                Ok(())
            }
            Word::Publish { messages, pause } => self.publish(messages, pause).await,
            Word::Visit { fresh: true } => {
                let endpoint = bind(SecretKey::generate()).await?;
                self.connect(&endpoint).await?.close(0_u32.into(), b"");
                endpoint.close().await;
                Ok(())
            }
            Word::Visit { fresh: false } => {
                let endpoint = match &self.visitor {
                    Some(visitor) => visitor.clone(),
                    None => self.visitor.insert(bind(SecretKey::generate()).await?).clone(),
                };
                let connection = self.connect(&endpoint).await?;
                connection.close(0_u32.into(), b"");
                connection.closed().await;
                Ok(())
            }
            Word::Rotate => {
                let target = self.target.clone();
                let member = self.members.first_mut().context("there is no member to rotate")?;
                member.topic = None;
                sleep(Duration::from_millis(50)).await;
                member.join(&target).await
            }
            Word::Part => {
                self.part().await;
                Ok(())
            }
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Connection> {
        let connecting = endpoint.connect(self.target.clone(), GOSSIP_ALPN);
        let connected = timeout(HANDSHAKE_TIMEOUT, connecting).await;
        connected.context("no handshake in time")?.context("the node did not let a stranger in")
    }

    async fn publish(&self, messages: usize, pause: Duration) -> Result<()> {
        let topic = self.members.first().and_then(|member| member.topic.as_ref());
        let topic = topic.context("there is no member to say anything")?;
        for number in 0..messages {
            topic.publish(message(b'b', number)).await?;
            sleep(pause).await;
        }
        Ok(())
    }

    async fn part(&mut self) {
        for (endpoint, connection) in self.silent.drain(..) {
            connection.close(0_u32.into(), b"");
            endpoint.close().await;
        }
        for member in self.members.drain(..) {
            member.mesh.drain(Duration::from_secs(10)).await;
        }
        if let Some(visitor) = self.visitor.take() {
            visitor.close().await;
        }
    }
}

impl Member {
    async fn join(&mut self, target: &EndpointAddr) -> Result<()> {
        let topic = self.mesh.join(topic(), [target.clone()]).await.context("cannot join the topic")?;
        let joined = timeout(JOIN_TIMEOUT, topic.joined()).await.context("no neighbour in time")?;
        self.topic = Some(topic);
        if joined { Ok(()) } else { bail!("the topic was closed") }
    }
}

/// No two messages alike: the same content is the same message.
pub(crate) fn message(author: u8, number: usize) -> Vec<u8> {
    let mut content = vec![author; MESSAGE_BYTES];
    content[..8].copy_from_slice(&(number as u64).to_le_bytes());
    content
}
