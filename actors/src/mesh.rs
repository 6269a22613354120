//! The root supervisor and the `Mesh` handle.

use std::{net::SocketAddr, time::Duration};

use iroh::{EndpointAddr, EndpointId, RelayMode, SecretKey};
use iroh_gossip::proto::TopicId;
use iroh_tickets::endpoint::EndpointTicket;

use crate::{
    census::Census,
    config::MeshConfig,
    error::{JoinError, MeshGone, SpawnError},
    handle::TopicHandle,
    ledger::{Ledger, LedgerReport},
    limits::Limits,
};

#[derive(Debug, Default)]
pub struct MeshBuilder {
    config: MeshConfig,
}

impl MeshBuilder {
    pub fn secret_key(mut self, key: SecretKey) -> Self {
        self.config.secret_key = Some(key);
        self
    }
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.config.listen.push(addr);
        self
    }
    pub fn relay(mut self, relay: RelayMode) -> Self {
        self.config.relay = relay;
        self
    }
    pub fn port_mapping(mut self, on: bool) -> Self {
        self.config.port_mapping = on;
        self
    }
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }
    pub async fn spawn(self) -> Result<Mesh, SpawnError> {
        unimplemented!()
    }
}

/// A running node. Cheap to clone; the node stops when `drain` is called or the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Mesh {}

impl Mesh {
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }
    pub fn id(&self) -> EndpointId {
        unimplemented!()
    }
    pub fn listen_addrs(&self) -> Vec<SocketAddr> {
        unimplemented!()
    }
    /// Id and every address others can dial (unspecified listen addresses replaced by interface addresses; relay included).
    pub fn addr(&self) -> EndpointAddr {
        unimplemented!()
    }
    pub fn ticket(&self) -> EndpointTicket {
        unimplemented!()
    }
    pub async fn join(
        &self,
        _topic: TopicId,
        _bootstrap: impl IntoIterator<Item = impl Into<EndpointAddr>>,
    ) -> Result<TopicHandle, JoinError> {
        unimplemented!()
    }
    pub async fn census(&self) -> Result<Census, MeshGone> {
        unimplemented!()
    }
    pub async fn ledger(&self) -> Result<LedgerReport, MeshGone> {
        unimplemented!()
    }
    /// Polls until the ledger has no orphans, at most `within`; the last report either way.
    pub async fn settle(&self, _within: Duration) -> Result<LedgerReport, MeshGone> {
        unimplemented!()
    }
    /// The counters themselves, for tasks of the program around the mesh (control clients, services).
    pub fn ledger_counters(&self) -> Ledger {
        unimplemented!()
    }
    /// Replaces the global connection cap. Lowering it throws nobody out.
    pub async fn set_connection_cap(&self, _cap: usize) -> Result<(), MeshGone> {
        unimplemented!()
    }
    /// Leaves every topic, says farewell, flushes, closes the endpoint; at most `deadline`.
    pub async fn drain(&self, _deadline: Duration) -> DrainReport {
        unimplemented!()
    }
    /// Resolves when the mesh has ended: drained, or given up after too many restarts.
    pub async fn closed(&self) -> Ended {
        unimplemented!()
    }
}

/// Why a mesh ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    Drained,
    /// A child crashed more often than `restarts_max` in `restart_period`.
    GaveUp(String),
}

/// How a drain went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainReport {
    /// Whether everything ended by itself within the deadline.
    pub clean: bool,
    /// Tasks still alive when the deadline passed, all of them aborted.
    pub stragglers: u64,
    pub took: Duration,
}
