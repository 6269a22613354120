//! The answers about limits, standings and connections.

use std::collections::BTreeMap;

use iroh::EndpointAddr;
use perennial::{ClosedConnection, Reason, SetLimitsError, Standing};

use super::{connection_view, gone, peer_name, seconds, side_name};
use crate::{
    control::protocol::door::{
        ClosedConnections, ClosedView, Connections, LimitView, LimitsView, LingeringView, ListenerView, LiveView,
        StandingChanged,
    },
    exit::{Exit, Failure},
    lines::VERSION,
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
    })
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

pub(crate) async fn connections(node: &Node) -> Result<Connections, Failure> {
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
    Ok(Connections { v: VERSION, connections: connections.collect(), lingering: lingering.collect() })
}

pub(crate) fn closed_connections(node: &Node) -> ClosedConnections {
    let (closed, total) = node.mesh.closed_connections();
    ClosedConnections { v: VERSION, total, connections: closed.into_iter().map(closed_view).collect() }
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
