//! One node in a process of its own, with a heap that is counted: the child behind `child.rs`.
//!
//! `observer stock|perennial TOPIC [ID@IP:PORT]…`, identity from `OBSERVER_KEY` (64 hex digits) or fresh. Commands on
//! stdin: `census`, `publish TEXT`, `leave`, `join`, `quit`. Answers and received messages are JSON lines on stdout.

use std::{io::Write, time::Duration};

use anyhow::{Context, Result, bail};
use iroh::{EndpointAddr, SecretKey};
use iroh_gossip::proto::TopicId;
use perennial_tests::{
    Ours, Stock, Topic,
    child::{ChildCensus, Line},
    ours::{fast_limits, neighbor_connections},
};
use tokio::io::{AsyncBufReadExt, BufReader};

#[global_allocator]
static HEAP: perennial_heap::Counting = perennial_heap::Counting;

enum Node {
    Stock(Stock),
    Ours(Ours),
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let software = args.next().context("the first argument is missing: stock or perennial")?;
    let topic_id: TopicId = args.next().context("the second argument is missing: a topic")?.parse()?;
    let bootstrap = args.map(|arg| parse_peer(&arg)).collect::<Result<Vec<_>>>()?;
    let key = std::env::var("OBSERVER_KEY").ok().map(|text| text.parse::<SecretKey>()).transpose()?;

    let (node, topic) = match software.as_str() {
        "stock" => {
            let node = Stock::spawn("the stock observer", key).await?;
            let topic = node.join(topic_id, &bootstrap).await;
            print(&ready(node.addr())?)?;
            (Node::Stock(node), topic)
        }
        "perennial" => {
            let node = Ours::spawn("our observer", key, fast_limits()).await?;
            let topic = node.join(topic_id, &bootstrap).await;
            print(&ready(node.addr())?)?;
            (Node::Ours(node), topic)
        }
        other => bail!("unknown software {other:?}: stock or perennial"),
    };
    serve(&node, topic, (topic_id, &bootstrap)).await?;
    match node {
        Node::Stock(node) => node.shutdown().await,
        Node::Ours(node) => _ = node.mesh().drain(Duration::from_secs(10)).await,
    }
    // The reader of stdin is a blocked thread that the runtime would wait for.
    std::process::exit(0)
}

/// Reads commands until `quit` or the end of input: a parent that died must not leave us behind.
async fn serve(node: &Node, topic: Topic, (topic_id, bootstrap): (TopicId, &[EndpointAddr])) -> Result<()> {
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let mut topic = Some(topic);
    let mut printed = 0;
    loop {
        let text = async {
            match &topic {
                Some(topic) => topic.nth_text(printed).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = commands.next_line() => match command?.as_deref() {
                Some("census") => print(&Line::Census(census(node, topic.as_ref()).await))?,
                Some("leave") => leave(topic.take()).await,
                Some("join") => {
                    leave(topic.take()).await;
                    printed = 0;
                    topic = Some(match node {
                        Node::Stock(node) => node.join(topic_id, bootstrap).await,
                        Node::Ours(node) => node.join(topic_id, bootstrap).await,
                    });
                }
                Some("quit") | None => {
                    leave(topic.take()).await;
                    return Ok(());
                }
                Some(other) => match (other.strip_prefix("publish "), &topic) {
                    (Some(text), Some(topic)) => topic.publish(text.to_owned()).await,
                    (Some(_), None) => bail!("nothing is joined"),
                    (None, _) => bail!("unknown command {other:?}"),
                },
            },
            text = text => {
                printed += 1;
                print(&Line::Message { text })?;
            }
        }
    }
}

async fn leave(topic: Option<Topic>) {
    if let Some(topic) = topic {
        topic.leave().await;
    }
}

async fn census(node: &Node, topic: Option<&Topic>) -> ChildCensus {
    let heap_bytes = i64::try_from(perennial_heap::live().bytes).unwrap_or(i64::MAX);
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let neighbors = topic.map_or(0, |topic| topic.neighbors().len());
    let (connections, census) = match node {
        Node::Stock(node) => (node.connections(), None),
        Node::Ours(node) => {
            let census = node.census().await;
            (node.connections(), Some(census))
        }
    };
    let neighbor_connections = census.as_ref().map(neighbor_connections);
    let orphans = census.map(|census| census.ledger.orphans());
    ChildCensus { heap_bytes, tasks, connections, neighbor_connections, neighbors, orphans }
}

fn ready(addr: EndpointAddr) -> Result<Line> {
    let socket = addr.ip_addrs().next().context("the node listens on no address")?;
    Ok(Line::Ready { id: addr.id, addr: *socket })
}

fn parse_peer(text: &str) -> Result<EndpointAddr> {
    let (id, socket) = text.split_once('@').with_context(|| format!("{text:?} is not ID@IP:PORT"))?;
    Ok(EndpointAddr::new(id.parse()?).with_ip_addr(socket.parse()?))
}

fn print(line: &Line) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, line)?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}
