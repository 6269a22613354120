//! The standing opponent: stock iroh-gossip with nothing of ours, behind the node's own lines and control socket, so
//! that whatever drives `perennial up --json --pipe` drives this. With `--bare`, an iroh endpoint that accepts and closes:
//! the floor below any gossip.
//!
//! stdin carries one message per line, stdout `ready` and `message` lines; the control socket knows `join`, `leave`, `trim`
//! and `stop`, and answers everything else with its `status`. The end of stdin ends the process like `stop`: goodbyes are
//! said.
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use clap::Parser;
use iroh::{
    Endpoint, EndpointAddr, EndpointId, SecretKey,
    address_lookup::memory::MemoryLookup,
    endpoint::{PortmapperConfig, presets},
    protocol,
};
use iroh_gossip::{
    api::{Event, GossipReceiver, GossipSender},
    net::{GOSSIP_ALPN, Gossip},
    proto::TopicId,
};
use n0_future::StreamExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixListener,
    sync::{Mutex, Notify},
    task::JoinHandle,
    time::timeout,
};

#[global_allocator]
static HEAP: perennial_heap::Counting = perennial_heap::Counting;

/// A stock iroh-gossip node on one address.
#[derive(Debug, Parser)]
struct Cli {
    /// Ignored, as are the other arguments of `perennial up` that mean nothing here
    #[arg(hide = true)]
    verb: Option<String>,
    /// The control socket to create
    #[arg(long)]
    control: PathBuf,
    /// A topic to join: a name, or 64 hex digits. Lines of stdin go to the first. May be repeated
    #[arg(long, value_name = "NAME|64-HEX", required = true, value_parser = topic)]
    topic: Vec<TopicId>,
    /// A node to meet. May be repeated
    #[arg(long, value_name = "ID@IP:PORT", value_parser = peer)]
    join: Vec<EndpointAddr>,
    /// The address to bind: IP:PORT, or an IP for a free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1", value_parser = listen)]
    listen: SocketAddr,
    /// Only accept and close; no gossip
    #[arg(long)]
    bare: bool,
    #[arg(long, hide = true)]
    json: bool,
    #[arg(long, hide = true)]
    pipe: bool,
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    /// The file with this node's key, 64 hex digits; created where it is missing
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// The key of a file, which is created where it is missing; else a fresh one.
fn secret_key(file: Option<&Path>) -> Result<SecretKey> {
    let Some(file) = file else { return Ok(SecretKey::generate()) };
    let wrong = || format!("{} is no key file of 64 hex digits", file.display());
    if file.exists() {
        let text = std::fs::read_to_string(file).with_context(wrong)?;
        return Ok(SecretKey::from_bytes(blake3::Hash::from_hex(text.trim()).with_context(wrong)?.as_bytes()));
    }
    let key = SecretKey::generate();
    let text = blake3::Hash::from_bytes(key.to_bytes()).to_hex();
    std::fs::write(file, format!("{text}\n")).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(key)
}

/// As our node reads it: 64 hex digits, or a name whose hash is the topic.
fn topic(text: &str) -> Result<TopicId, String> {
    Ok(TopicId::from_str(text).unwrap_or_else(|_| TopicId::from_bytes(*blake3::hash(text.as_bytes()).as_bytes())))
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let ip = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    text.parse().or_else(|_| ip()).map_err(|_| format!("`{text}` is no address; write it as IP or IP:PORT"))
}

fn peer(text: &str) -> Result<EndpointAddr, String> {
    let wrong = || format!("`{text}` is not a peer; write it as ID@IP:PORT");
    let (id, address) = text.split_once('@').ok_or_else(wrong)?;
    let id: EndpointId = id.parse().map_err(|_| wrong())?;
    Ok(EndpointAddr::new(id).with_ip_addr(address.parse().map_err(|_| wrong())?))
}

/// Closing an endpoint waits for the other sides, and some of them may be dead.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let lookup = MemoryLookup::new();
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(secret_key(cli.key_file.as_deref())?)
        .portmapper_config(PortmapperConfig::Disabled)
        .address_lookup(lookup.clone())
        .alpns(vec![GOSSIP_ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr(cli.listen)?
        .bind()
        .await
        .with_context(|| format!("cannot bind an endpoint on {}", cli.listen))?;
    let listener = UnixListener::bind(&cli.control);
    let listener = listener.with_context(|| format!("cannot listen on {}", cli.control.display()))?;
    let figures = Figures { endpoint: endpoint.clone(), neighbors: AtomicU64::new(0), peak: AtomicU64::new(0) };
    let figures = Arc::new(figures);
    let stop = Arc::new(Notify::new());
    if cli.bare {
        tokio::spawn(serve(listener, figures, None, stop.clone()));
        tokio::spawn(accept_and_close(endpoint.clone()));
        say_ready(&endpoint);
        tokio::select! {
            dry = run_dry(BufReader::new(tokio::io::stdin())) => dry?,
            () = stop.notified() => {}
        }
    } else {
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let router = protocol::Router::builder(endpoint.clone()).accept(GOSSIP_ALPN, gossip.clone()).spawn();
        let mut topics = Vec::new();
        for topic in cli.topic {
            let (gossip, lookup, figures) = (gossip.clone(), lookup.clone(), figures.clone());
            let member = Member { gossip, lookup, topic, figures, session: Mutex::default() };
            member.join(cli.join.clone()).await?;
            topics.push(Arc::new(member));
        }
        tokio::spawn(serve(listener, figures, Some(topics[0].clone()), stop.clone()));
        say_ready(&endpoint);
        tokio::select! {
            published = publish(&topics[0], BufReader::new(tokio::io::stdin())) => published?,
            () = stop.notified() => {}
        }
        // As its documentation asks an application to end: otherwise neighbours wait for their idle timeout, and that would
        // be the fault of this program and not the opponent's.
        let _ = timeout(GOODBYE_TIMEOUT, router.shutdown()).await;
    }
    // An endpoint may take its time to close, and nobody is left to talk to.
    std::process::exit(0)
}

fn say_ready(endpoint: &Endpoint) {
    let addrs: Vec<String> = endpoint.bound_sockets().iter().map(ToString::to_string).collect();
    say(&json!({"v": 1, "event": "ready", "id": endpoint.id().to_string(), "addrs": addrs}));
}

fn say(line: &Value) {
    // A harness that is gone is noticed at the end of stdin.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes());
}

/// A topic this node is in, or has left for a while.
#[derive(Debug)]
struct Member {
    gossip: Gossip,
    /// One for the process: a second one for every join would be a leak of ours, not of the opponent's.
    lookup: MemoryLookup,
    topic: TopicId,
    figures: Arc<Figures>,
    session: Mutex<Option<(GossipSender, JoinHandle<()>)>>,
}

impl Member {
    async fn join(&self, peers: Vec<EndpointAddr>) -> Result<()> {
        let ids = peers.iter().map(|peer| peer.id).collect();
        for peer in peers {
            self.lookup.add_endpoint_info(peer);
        }
        let (sender, receiver) = self.gossip.subscribe(self.topic, ids).await?.split();
        let printer = tokio::spawn(print(receiver, self.figures.clone()));
        *self.session.lock().await = Some((sender, printer));
        Ok(())
    }

    /// Drops both halves of the subscription, which is how a stock application leaves.
    async fn leave(&self) {
        if let Some((_, printer)) = self.session.lock().await.take() {
            printer.abort();
        }
        self.figures.neighbors.store(0, Ordering::Relaxed);
    }
}

/// Each line of the input is one message. Between a leave and the next join there is nobody to hear it.
async fn publish(member: &Member, input: BufReader<tokio::io::Stdin>) -> Result<()> {
    let mut lines = input.lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((sender, _)) = &*member.session.lock().await {
            sender.broadcast(line.into()).await?;
        }
    }
    Ok(())
}

async fn run_dry(input: BufReader<tokio::io::Stdin>) -> Result<()> {
    let mut lines = input.lines();
    while lines.next_line().await?.is_some() {}
    Ok(())
}

async fn print(mut events: GossipReceiver, figures: Arc<Figures>) {
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Received(message)) => {
                let text = String::from_utf8_lossy(&message.content);
                let from = message.delivered_from.to_string();
                say(&json!({"v": 1, "event": "message", "from": from, "text": text}));
            }
            Ok(Event::NeighborUp(peer)) => {
                figures.neighbors.fetch_add(1, Ordering::Relaxed);
                say(&json!({"v": 1, "event": "neighbor_up", "peer": peer.to_string()}));
            }
            Ok(Event::NeighborDown(peer)) => {
                figures.neighbors.fetch_sub(1, Ordering::Relaxed);
                say(&json!({"v": 1, "event": "neighbor_down", "peer": peer.to_string(), "reason": "unknown"}));
            }
            Ok(Event::Lagged) => say(&json!({"v": 1, "event": "lagged", "n": 1})),
            Err(_) => return,
        }
    }
}

/// The floor: the least an iroh node can do with a stranger.
async fn accept_and_close(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(accepting) = incoming.accept() else { return };
            if let Ok(connection) = accepting.await {
                // Until the stranger goes; then nothing of it should be left.
                connection.closed().await;
            }
        });
    }
}

/// Where the figures of a `status` come from.
#[derive(Debug)]
struct Figures {
    endpoint: Endpoint,
    neighbors: AtomicU64,
    /// The most connections seen at any look.
    peak: AtomicU64,
}

impl Figures {
    fn status(&self) -> serde_json::Value {
        let metrics = self.endpoint.metrics();
        // Closed is read first: a connection that ends in between counts as open, never as less than none.
        let closed = metrics.socket.num_conns_closed.get();
        let connections = metrics.socket.num_conns_opened.get().saturating_sub(closed);
        let heap = perennial_heap::live();
        let peak = self.peak.fetch_max(connections, Ordering::Relaxed).max(connections);
        json!({
            "v": 1,
            "connections": connections,
            "connections_high_water": peak,
            "neighbors": self.neighbors.load(Ordering::Relaxed),
            "alive_tasks": tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            "heap_bytes": heap.bytes,
            "heap_blocks": heap.blocks,
        })
    }
}

/// What the answers are made of.
#[derive(Debug, Clone)]
struct Shared {
    figures: Arc<Figures>,
    /// None with `--bare`.
    member: Option<Arc<Member>>,
    stop: Arc<Notify>,
}

async fn serve(listener: UnixListener, figures: Arc<Figures>, member: Option<Arc<Member>>, stop: Arc<Notify>) {
    let router = Router::new()
        .route("/v1/topics/{topic}/join", post(on_join))
        .route("/v1/topics/{topic}/leave", post(on_leave))
        .route("/v1/trim", post(async || Json(json!({"v": 1, "released": perennial_heap::trim()}))))
        .route("/v1/stop", post(on_stop))
        .fallback(async |State(shared): State<Shared>| Json(shared.figures.status()))
        .with_state(Shared { figures, member, stop });
    if let Err(error) = axum::serve(listener, router).await {
        eprintln!("the control socket is gone: {error}");
    }
}

type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

async fn on_join(State(shared): State<Shared>, Json(order): Json<Value>) -> Answer {
    let Some(member) = shared.member else { return Ok(Json(shared.figures.status())) };
    let peers = order["peers"].as_array().into_iter().flatten();
    let peers = peers.filter_map(|text| peer(text.as_str()?).ok()).collect();
    match member.join(peers).await {
        Ok(()) => Ok(Json(json!({"v": 1}))),
        Err(error) => {
            let message = json!({"v": 1, "error": {"exit": 1, "message": format!("{error:#}")}});
            Err((StatusCode::INTERNAL_SERVER_ERROR, Json(message)))
        }
    }
}

async fn on_leave(State(shared): State<Shared>) -> Json<Value> {
    if let Some(member) = shared.member {
        member.leave().await;
    }
    Json(json!({"v": 1}))
}

async fn on_stop(State(shared): State<Shared>) -> Json<Value> {
    shared.stop.notify_one();
    Json(json!({"v": 1}))
}
