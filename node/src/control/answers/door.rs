//! The answers about limits, standings and connections.

use std::{cmp::Reverse, collections::BTreeMap};

use iroh::EndpointAddr;
use perennial::{ClosedConnection, Reason, SetLimitsError, Standing};

use super::{connection_view, gone, peer_name, seconds, side_name};
use crate::{
    control::protocol::door::{
        ClientsView, ClosedConnections, ClosedView, Connections, ConnectionsQuery, LimitView, LimitsView,
        LingeringView, ListenerView, LiveView, StandingChanged,
    },
    exit::{Exit, Failure},
    lines::VERSION,
    listener::Gauge,
    names::short,
    node::Node,
};

pub(crate) async fn limits(node: &Node) -> Result<LimitsView, Failure> {
    let report = node.mesh.limits().await.map_err(gone)?;
    let limits = report.uses.into_iter().map(|limit| LimitView {
        name: limit.name,
        max: limit.max,
        in_use: limit.in_use,
        high_water: limit.high_water,
    });
    let listeners = report.listeners.into_iter().map(|listener| ListenerView {
        name: listener.name,
        max: listener.connections_max,
        in_use: listener.in_use,
        high_water: listener.high_water,
        accepting: listener.is_accepting,
        resumed: listener.resumed,
    });
    let refusals = report.counts.iter().filter(|(reason, _)| is_of_the_door(*reason));
    Ok(LimitsView {
        v: VERSION,
        pressure: report.pressure.into(),
        limits: limits.collect(),
        listeners: listeners.collect(),
        refusals: refusals.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        clients: node.clients.iter().map(|(name, gauge)| clients_view(name, gauge)).collect(),
    })
}

fn clients_view(name: &str, gauge: &Gauge) -> ClientsView {
    let counts = gauge.read();
    ClientsView {
        name: name.into(),
        max: gauge.max() as u64,
        in_use: counts.in_use as u64,
        high_water: counts.high_water as u64,
        accepted: counts.accepted,
        resumed: counts.resumed,
        at_capacity: counts.is_at_capacity,
    }
}

/// Whether the door did it. The other reasons are about frames and messages, and in `status`.
fn is_of_the_door(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::RefusedAtCap
            | Reason::RefusedHandshakes
            | Reason::RefusedAtInboundCap
            | Reason::RefusedAtListenerCap
            | Reason::RefusedAtPrefixCap
            | Reason::RefusedAtRate
            | Reason::RefusedInFlood
            | Reason::RefusedUnderPressure
            | Reason::AskedToRetry
            | Reason::WaitedInVain
            | Reason::Denied
            | Reason::JoinNotApproved
            | Reason::Evicted
            | Reason::ClosedHelloTimeout
            | Reason::ClosedPerPeer
            | Reason::HandshakeTimeout
            | Reason::HandshakeFailed
            | Reason::DialTooEarly
            | Reason::DialRefused
    )
}

/// Answers with the page as it is afterwards.
pub(crate) async fn set_limits(
    node: &Node,
    changes: BTreeMap<String, u64>,
    evict: bool,
) -> Result<LimitsView, Failure> {
    match node.mesh.set_limits(changes, evict).await {
        Ok(()) => limits(node).await,
        Err(SetLimitsError::Gone(error)) => Err(gone(error)),
        Err(error) => Err(Failure::new(Exit::Config, error.to_string())),
    }
}

pub(crate) fn allow(node: &Node, peer: &str) -> Result<StandingChanged, Failure> {
    change(node, peer, |peer| {
        not_myself(node, peer)?;
        node.mesh.allow(peer.id).map_err(|full| Failure::new(Exit::Unavailable, full.to_string()))?;
        node.mesh.know(peer);
        Ok(())
    })
}

pub(crate) fn deny(node: &Node, peer: &str) -> Result<StandingChanged, Failure> {
    change(node, peer, |peer| {
        not_myself(node, peer)?;
        node.mesh.deny(peer.id).map_err(|full| Failure::new(Exit::Unavailable, full.to_string()))
    })
}

pub(crate) fn forget(node: &Node, peer: &str) -> Result<StandingChanged, Failure> {
    change(node, peer, |peer| match node.mesh.forget(&peer.id) {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, format!("{} is on no list", short(peer.id)))),
    })
}

fn change(
    node: &Node,
    peer: &str,
    apply: impl FnOnce(&EndpointAddr) -> Result<(), Failure>,
) -> Result<StandingChanged, Failure> {
    let peer = peer_name(peer)?;
    let before = node.mesh.standing(&peer.id);
    apply(&peer)?;
    let standing = node.mesh.standing(&peer.id);
    tracing::info!(peer = %short(peer.id), before = name(before), standing = name(standing), "standing changed");
    Ok(StandingChanged {
        v: VERSION,
        id: peer.id.to_string(),
        before: name(before).into(),
        standing: name(standing).into(),
    })
}

fn not_myself(node: &Node, peer: &EndpointAddr) -> Result<(), Failure> {
    if peer.id == node.mesh.id() {
        return Err(Failure::new(Exit::Config, format!("{} is this node itself", short(peer.id))));
    }
    Ok(())
}

/// Enough to see a pattern.
const LINGERING_MAX: usize = 8;

pub(crate) async fn connections(node: &Node, query: &ConnectionsQuery) -> Result<Connections, Failure> {
    let census = node.mesh.census().await.map_err(gone)?;
    let rows =
        census.peers.iter().flat_map(|peer| peer.connections.iter().map(move |connection| (peer.id, connection)));
    let connections = rows.map(|(id, connection)| LiveView {
        peer: id.to_string(),
        standing: name(node.mesh.standing(&id)).into(),
        connection: connection_view(connection),
    });
    let lingering = node.mesh.lingering(LINGERING_MAX).into_iter().map(|one| LingeringView {
        number: one.number,
        peer: one.peer.to_string(),
        phase: one.phase.name().into(),
        departure: one.departed.map(|(departure, _)| departure.name().into()),
        departed_s: one.departed.map(|(_, ago)| seconds(ago)),
        outside_view_s: one.outside_view.map(seconds),
    });
    let mut connections: Vec<LiveView> = connections.collect();
    match query.sort.as_deref() {
        None => {}
        Some("age") => connections.sort_by(|a, b| b.connection.age_s.total_cmp(&a.connection.age_s)),
        Some("rtt") => connections.sort_by(|a, b| rtt(b).total_cmp(&rtt(a))),
        Some("bytes") => {
            connections.sort_by_key(|view| Reverse(view.connection.bytes_sent + view.connection.bytes_received))
        }
        Some("queue") => connections.sort_by_key(|view| Reverse(view.connection.queued_frames)),
        Some(other) => return Err(no_order(other, "age, rtt, bytes or queue")),
    }
    connections.truncate(query.limit.unwrap_or(usize::MAX));
    Ok(Connections { v: VERSION, connections, lingering: lingering.collect() })
}

pub(crate) fn closed_connections(node: &Node, query: &ConnectionsQuery) -> Result<ClosedConnections, Failure> {
    let (closed, total) = node.mesh.closed_connections();
    let mut connections: Vec<ClosedView> = closed.into_iter().map(closed_view).collect();
    match query.sort.as_deref() {
        None => {}
        Some("age") => connections.sort_by(|a, b| b.age_s.total_cmp(&a.age_s)),
        Some("bytes") => connections.sort_by_key(|view| Reverse(view.bytes_sent + view.bytes_received)),
        Some(other) => return Err(no_order(other, "age or bytes")),
    }
    connections.truncate(query.limit.unwrap_or(usize::MAX));
    Ok(ClosedConnections { v: VERSION, total, connections })
}

/// One that is not known yet comes last.
fn rtt(view: &LiveView) -> f64 {
    view.connection.rtt_ms.unwrap_or(-1.0)
}

fn no_order(given: &str, names: &str) -> Failure {
    Failure::new(Exit::Usage, format!("these connections cannot be sorted by `{given}`; sort={names}"))
}

fn closed_view(closed: ClosedConnection) -> ClosedView {
    ClosedView {
        number: closed.number,
        peer: closed.peer.to_string(),
        side: side_name(closed.side).into(),
        closed_by: closed.closed_by.name().into(),
        cause: closed.cause.into(),
        code: closed.code,
        detail: closed.detail,
        age_s: seconds(closed.age),
        bytes_sent: closed.bytes_sent,
        bytes_received: closed.bytes_received,
        ended_s_ago: seconds(closed.at.elapsed()),
    }
}

/// The stable name of a standing.
pub(super) fn name(standing: Standing) -> &'static str {
    match standing {
        Standing::Known => "known",
        Standing::Unknown => "unknown",
        Standing::Denied => "denied",
    }
}
