//! The node's answers: asks the mesh and the program's own tables, and puts what they say into plain values.
//!
//! Those about limits, standings and connections are in `answers/door.rs`, about topics in `answers/topics.rs`, those of
//! builds for soaks in `answers/soak.rs`.

use std::time::Duration;

use iroh::EndpointAddr;
use perennial::{
    BackendCensus, BackendState, Census, Departure, JoinError, Kind, LedgerReport, MeshGone, RetirementReport,
    Standing, StoreUse, Traffic,
    census::{ConnectionCensus, PeerCensus, Side},
};

use crate::{
    control::protocol::{
        ConnectionView, KindView, LedgerView, PeerView, Peers, RetiredView, RetirementCauseView, RetirementsView,
        Status, StoreView, TicketView, TrafficView,
        health::{BackendView, Backends},
    },
    exit::{Exit, Failure},
    lines::VERSION,
    names::{PeerName, topic_hex},
    node::Node,
    panics, vitals,
};

pub(crate) mod door;
#[cfg(feature = "soak")]
pub(crate) mod soak;
pub(crate) mod topics;

pub(crate) async fn status(node: &Node) -> Result<Status, Failure> {
    let census = node.mesh.census().await.map_err(gone)?;
    let pressure = node.mesh.limits().await.map_err(gone)?.pressure;
    let is_known = |peer: &&PeerCensus| node.mesh.standing(&peer.id) == Standing::Known;
    let vitals = vitals::look();
    let orphans = node.tasks.add_to(census.ledger.clone()).orphans();
    Ok(Status {
        v: VERSION,
        id: census.id.to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: seconds(census.uptime),
        listen: census.listen.iter().map(ToString::to_string).collect(),
        topics: topics::views(node, &census).await,
        neighbors: census.neighbors(),
        connections: census.connections,
        connections_high_water: census.connections_high_water,
        half_open: census.half_open,
        connection_cap: census.connection_cap,
        peers: census.peers.len(),
        peers_known: census.peers.iter().filter(is_known).count(),
        addresses: census.addresses,
        pressure: pressure.into(),
        orphans,
        rss_bytes: vitals.rss_bytes,
        heap_bytes: vitals.heap_bytes,
        heap_blocks: vitals.heap_blocks,
        open_fds: vitals.open_fds,
        alive_tasks: vitals.alive_tasks,
        panics: panics::count(),
        crashes: census.crashes.iter().map(|(of, count)| (of.name().to_owned(), *count)).collect(),
        degraded: degraded(node),
        self_probe: Some(node.probe.state().view()),
        stores: stores(node, &census),
        counts: census
            .counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect(),
        traffic: traffic_view(census.traffic),
    })
}

fn traffic_view(Traffic { published, delivered, sent }: Traffic) -> TrafficView {
    TrafficView { published, delivered, sent }
}

/// Those of the mesh and of the program around it, then those of each topic.
fn stores(node: &Node, census: &Census) -> Vec<StoreView> {
    let of_topics = census.topics.iter().flat_map(|topic| &topic.stores);
    let view = |store: &StoreUse| StoreView {
        name: store.name.into(),
        topic: store.topic.map(topic_hex),
        size: store.size,
        cap: store.cap,
        high_water: store.high_water,
    };
    let of_clients = node.clients.iter().map(|(name, gauge)| {
        let counts = gauge.read();
        StoreView {
            name: format!("{name}_clients"),
            topic: None,
            size: counts.in_use as u64,
            cap: Some(gauge.max() as u64),
            high_water: Some(counts.high_water as u64),
        }
    });
    let services = node.tasks.owned().get(Kind::Service);
    let services = StoreView { name: "services".into(), topic: None, size: services, cap: None, high_water: None };
    census.stores.iter().map(view).chain(of_clients).chain([services]).chain(of_topics.map(view)).collect()
}

pub(crate) fn backends(node: &Node) -> Backends {
    let view = |backend: BackendCensus| BackendView {
        name: backend.backend.to_string(),
        state: backend.state.name().into(),
        since_s: seconds(backend.since),
        failures: backend.failures.into(),
        attempts_saved: backend.saved,
        next_probe_s: backend.next_probe.map(seconds),
    };
    Backends { v: VERSION, backends: node.mesh.backends().into_iter().map(view).collect() }
}

/// Those that are not used as often as there is something to do, by name.
pub(crate) fn degraded(node: &Node) -> Vec<String> {
    let all = node.mesh.backends().into_iter();
    let degraded = all.filter(|backend| backend.state != BackendState::Healthy);
    degraded.map(|backend| backend.backend.to_string()).collect()
}

pub(crate) async fn peers(node: &Node) -> Result<Peers, Failure> {
    let census = node.mesh.census().await.map_err(gone)?;
    let peers = census.peers.iter().map(|peer| peer_view(node, peer, &census)).collect();
    Ok(Peers { v: VERSION, peers })
}

fn peer_view(node: &Node, peer: &PeerCensus, census: &Census) -> PeerView {
    let neighbor_in =
        census.topics.iter().filter(|topic| topic.neighbors.contains(&peer.id)).map(|topic| topic_hex(topic.topic));
    PeerView {
        id: peer.id.to_string(),
        standing: door::name(node.mesh.standing(&peer.id)).into(),
        dialing: peer.dialing,
        failures: peer.failures,
        waiting_s: peer.waiting_until.map(seconds),
        neighbor_in: neighbor_in.collect(),
        connections: peer.connections.iter().map(connection_view).collect(),
    }
}

fn connection_view(connection: &ConnectionCensus) -> ConnectionView {
    ConnectionView {
        number: connection.number,
        side: side_name(connection.side).into(),
        protocol: if connection.perennial { "perennial".into() } else { "iroh-gossip".into() },
        age_s: seconds(connection.age),
        leases: connection.leases,
        queued_frames: connection.queued_frames,
        phase: connection.phase.name().into(),
        departed_s: connection.departed.map(|(_, ago)| seconds(ago)),
        bytes_sent: connection.bytes_sent,
        bytes_received: connection.bytes_received,
        path: connection.path.as_ref().map(|path| match path {
            iroh::TransportAddr::Ip(addr) => addr.to_string(),
            other => other.to_string(),
        }),
        rtt_ms: connection.rtt.map(|rtt| (rtt.as_secs_f64() * 1e5).round() / 1e2),
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Dialed => "dialed",
        Side::Accepted => "accepted",
    }
}

pub(crate) async fn ledger(node: &Node) -> Result<LedgerView, Failure> {
    let report = node.mesh.ledger().await.map_err(gone)?;
    let view = ledger_view(&node.tasks.add_to(report));
    Ok(LedgerView { retirements: Some(retirements_view(&node.mesh.retirements())), ..view })
}

fn retirements_view(report: &RetirementReport) -> RetirementsView {
    let ms = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let causes = report.causes.iter().map(|cause| RetirementCauseView {
        cause: cause.cause.into(),
        retired: cause.retired,
        retired_late: cause.late,
        max_ms: ms(cause.max),
    });
    let slowest = report.slowest.map(|slowest| RetiredView {
        number: slowest.number,
        peer: slowest.peer.to_string(),
        cause: slowest.cause.into(),
        departure: slowest.departure.name().into(),
        took_ms: ms(slowest.took),
    });
    let deadlines = Departure::ALL.into_iter().zip(report.deadlines);
    RetirementsView {
        retired: report.retired,
        retired_late: report.late,
        p50_ms: ms(report.p50),
        p99_ms: ms(report.p99),
        max_ms: ms(report.max),
        causes: causes.collect(),
        slowest,
        deadlines_ms: deadlines.map(|(departure, deadline)| (departure.name().to_owned(), ms(deadline))).collect(),
    }
}

pub(crate) fn ledger_view(report: &LedgerReport) -> LedgerView {
    let kinds = report
        .kinds
        .iter()
        .map(|line| KindView {
            kind: line.kind.name().into(),
            spawned: line.spawned,
            finished: line.finished,
            owned: line.owned,
            orphans: line.orphans(),
        })
        .collect();
    LedgerView { v: VERSION, orphans: report.orphans(), kinds, retirements: None }
}

pub(crate) fn ticket(node: &Node) -> TicketView {
    TicketView { v: VERSION, id: node.mesh.id().to_string(), ticket: node.mesh.ticket().to_string() }
}

/// Why a join failed, as an exit code: both reasons pass with time.
pub(crate) fn join_failed(error: &JoinError) -> Failure {
    Failure::new(Exit::Unavailable, error.to_string())
}

fn peer_name(text: &str) -> Result<EndpointAddr, Failure> {
    let peer: Result<PeerName, String> = text.parse();
    peer.map(|peer| peer.0).map_err(|sentence| Failure::new(Exit::Usage, sentence))
}

fn gone(_: MeshGone) -> Failure {
    Failure::new(Exit::Unavailable, "the node is shutting down")
}

/// Milliseconds are precise enough for people and shorter to read.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}
