//! The [`Mesh`] handle dials its own door, as a remote would. What it proves is in `probe.rs`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use iroh::{Endpoint, EndpointAddr};
use n0_future::time::{Instant, timeout};
use tokio::time::timeout_at;

use super::{Mesh, Parts, transport};
use crate::{
    close::{Close, CloseCode},
    connection::{close_with, echo},
    dialer,
    error::SpawnError,
    probe::{ProbeError, ProbeReport, ProbeStage},
};

/// The probe's own endpoint gets this long to say goodbye; on loopback it takes milliseconds.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl Mesh {
    /// Proves that a remote could reach this node at this moment: dials every listener in turn from a socket of its own,
    /// shakes hands, and has a few bytes sent back. Takes no connection slot, and a place at the door that is reserved for
    /// it, so a full node passes as well; everything it made is gone when it returns. One at a time: a second call waits for
    /// the first. Relays are not probed.
    ///
    /// `deadline` is for all listeners together.
    ///
    /// # Errors
    ///
    /// [`ProbeError`]: the first listener that did not answer, and how far the probe had come.
    pub async fn probe(&self, deadline: Duration) -> Result<ProbeReport, ProbeError> {
        let until = Instant::now() + deadline;
        let (parts, listen) = (&self.inner.parts, self.listen_addrs());
        let first = listen.first().copied().unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into());
        let turn = timeout_at(until, parts.probing.turn.lock()).await;
        let mut ports = turn.map_err(|_| failed(ProbeStage::Bind, first, "another probe did not end in time"))?;
        let mut slowest = Duration::ZERO;
        for addr in &listen {
            let begun = Instant::now();
            // Binding an endpoint takes kilobytes of state, which callers should not carry around.
            Box::pin(probe_one(parts, &mut ports, *addr, until)).await?;
            slowest = slowest.max(begun.elapsed());
        }
        Ok(ProbeReport { listeners: listen.len(), slowest })
    }
}

async fn probe_one(
    parts: &Parts,
    ports: &mut BTreeMap<SocketAddr, u16>,
    addr: SocketAddr,
    until: Instant,
) -> Result<(), ProbeError> {
    let target = SocketAddr::new(reachable(addr.ip()), addr.port());
    let last = ports.get(&addr).copied();
    let endpoint = match timeout_at(until, bind(parts, target.ip(), last)).await {
        Ok(endpoint) => endpoint.map_err(|error| failed(ProbeStage::Bind, addr, error.to_string()))?,
        Err(_elapsed) => return Err(failed(ProbeStage::Bind, addr, "no socket in time")),
    };
    if let Some(source) = endpoint.bound_sockets().first() {
        ports.insert(addr, source.port());
    }
    let mut stage = ProbeStage::Bind;
    let outcome = match timeout_at(until, reach(parts, &endpoint, target, &mut stage)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err("no answer in time".into()),
    };
    // Without it iroh's own tasks stay for a moment, which somebody may be counting.
    let _in_time = timeout(CLOSE_TIMEOUT, endpoint.close()).await;
    outcome.map_err(|reason| failed(stage, addr, reason))
}

/// On the port of the last probe; on any if that is taken.
async fn bind(parts: &Parts, ip: IpAddr, last: Option<u16>) -> Result<Endpoint, SpawnError> {
    let at = |port| transport::bind_probe(parts.probing.key.clone(), SocketAddr::new(ip, port), &parts.limits);
    if let Some(port) = last
        && let Ok(endpoint) = at(port).await
    {
        return Ok(endpoint);
    }
    at(0).await
}

async fn reach(parts: &Parts, endpoint: &Endpoint, target: SocketAddr, stage: &mut ProbeStage) -> Result<(), String> {
    let source = endpoint.bound_sockets().first().copied().ok_or("no socket")?;
    let _place = parts.probing.expect(source);
    *stage = ProbeStage::Dial;
    let addr = EndpointAddr::new(parts.endpoint.id()).with_ip_addr(target);
    let connecting = dialer::begin_probe(endpoint, addr).await?;
    *stage = ProbeStage::Handshake;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    *stage = ProbeStage::Echo;
    let answered = echo::ask(&connection, rand::random()).await;
    close_with(&connection, Close::new(CloseCode::Retired));
    answered
}

/// Where a listener can be dialed from its own host.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        specified => specified,
    }
}

fn failed(stage: ProbeStage, addr: SocketAddr, reason: impl Into<String>) -> ProbeError {
    ProbeError { stage, addr, reason: reason.into() }
}
