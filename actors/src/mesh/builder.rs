//! How a mesh is described before it runs, and what its parts are made from.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use iroh::{Endpoint, EndpointId, RelayConfig, RelayMap, RelayMode, SecretKey};
use n0_future::time::Instant;
use tokio::sync::Notify;

use super::{Mesh, transport};
use crate::{
    access::{Access, Admission, Lists},
    address_book::AddressBook,
    admission::{Bell, Door},
    backends::Backends,
    config::MeshConfig,
    context::Context,
    counters::Counters,
    error::SpawnError,
    history::History,
    limits::{Limits, LimitsError},
    listeners::{Listen, Listeners, Reach},
    lives::Lives,
    meters::Meters,
    probe::Probing,
    redial::Redials,
    routes::Routes,
    stores::StoreUse,
    supervisor::Nursery,
    traffic::TrafficCounters,
    vitals::Vitals,
    wire::addr::AddrInfo,
};

/// Settings of a mesh before it is spawned. Made by [`Mesh::builder`]; every setting has a default.
#[derive(Debug, Default)]
pub struct MeshBuilder {
    config: MeshConfig,
}

impl MeshBuilder {
    /// The identity. Without it a fresh one is made and forgotten with the mesh.
    pub fn secret_key(mut self, key: SecretKey) -> Self {
        self.config.secret_key = Some(key);
        self
    }

    /// Adds a UDP address to listen on, with a cap of its own if it is a [`Listen`]. Without any: 127.0.0.1 with a free
    /// port.
    pub fn listen(mut self, listen: impl Into<Listen>) -> Self {
        self.config.listen.push(listen.into());
        self
    }

    /// Relays to be reachable through. Disabled by default.
    pub fn relay(mut self, relay: RelayMode) -> Self {
        self.config.relay = relay;
        self
    }

    /// Whether to ask the router for a port. Off by default.
    pub fn port_mapping(mut self, on: bool) -> Self {
        self.config.port_mapping = on;
        self
    }

    /// Adds a remote that this node knows: it has slots of its own, and displaces an unknown one when there are none. At
    /// most [`crate::access::LIST_MAX`] count.
    pub fn known(mut self, remote: EndpointId) -> Self {
        self.config.known.push(remote);
        self
    }

    /// Who may connect at all. Everyone by default.
    pub fn access(mut self, access: Access) -> Self {
        self.config.access = access;
        self
    }

    /// The embedder's word on remotes that are on no list, and on who may join a topic.
    pub fn admission(mut self, admission: Arc<dyn Admission>) -> Self {
        self.config.admission = admission;
        self
    }

    /// Every bound and timeout.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Whether this process may have what a node needs. [`Self::spawn`] asks it too; a program that wants the sentence instead
    /// of a runtime that cannot start asks before it starts one.
    ///
    /// # Errors
    ///
    /// [`LimitsError`] with what it may have and what it needs: 256 descriptors, 256 MiB of address space.
    pub fn check_process(vitals: &Vitals) -> Result<(), LimitsError> {
        if let Some(max) = vitals.fds_max.filter(|max| *max < DESCRIPTORS_MIN) {
            return Err(LimitsError::new(format!(
                "this process may open {max} descriptors; a node needs at least {DESCRIPTORS_MIN} (ulimit -n)"
            )));
        }
        if let Some(max) = vitals.address_space_max.filter(|max| *max < ADDRESS_SPACE_MIN) {
            let (max_mib, min_mib) = (max >> 20, ADDRESS_SPACE_MIN >> 20);
            return Err(LimitsError::new(format!(
                "this process may map {max_mib} MiB of address space; a node needs at least {min_mib} MiB (ulimit -v)"
            )));
        }
        Ok(())
    }

    /// Whether these settings hold together, as far as that can be told without binding anything. [`Self::spawn`] asks it
    /// too.
    ///
    /// # Errors
    ///
    /// [`LimitsError`]: limits that contradict each other, or caps of listeners that cannot be kept.
    pub fn check(&self) -> Result<(), LimitsError> {
        self.config.limits.validate()?;
        Listeners::new(&self.config.listen, &self.config.limits).map(drop)
    }

    /// Binds the endpoint and starts the tree. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]: contradicting limits, an address that cannot be listened on, or a supervisor that did not start.
    pub async fn spawn(self) -> Result<Mesh, SpawnError> {
        self.check()?;
        let MeshConfig { secret_key, listen, relay, port_mapping, limits, access, admission, known } = self.config;
        let lists = Lists::new(access, admission);
        known.into_iter().for_each(|peer| lists.meet(peer));
        let limits = Arc::new(limits);
        let listen = match listen.is_empty() {
            true => vec![Listen::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))],
            false => listen,
        };
        Self::check_process(&Vitals::read())?;
        let mut listeners = Listeners::new(&listen, &limits)?;
        let listen: Vec<_> = listen.iter().map(|listen| listen.addr).collect();
        let slot_free = Arc::new(Notify::new());
        let addresses = AddressBook::new(&limits);
        let key = secret_key.unwrap_or_else(SecretKey::generate);
        let (relay, relays) = own(relay);
        let endpoint = transport::bind(key, &listen, relay, port_mapping, &limits, addresses.clone()).await?;
        listeners.name_by(&endpoint.bound_sockets());
        let meters = Meters::default();
        let parts = Parts {
            nursery: Nursery::default(),
            door: Door::new(&limits, listeners.all(), rand::random(), Instant::now(), bell(slot_free.clone())),
            listeners,
            slot_free,
            probing: Probing::default(),
            lives: Lives::new(&limits, meters.clone()),
            history: Arc::new(Mutex::new(History::new(limits.history_max))),
            routes: Routes::default(),
            counters: Counters::default(),
            traffic: TrafficCounters::default(),
            meters,
            endpoint,
            addresses,
            redials: Redials::new(&limits),
            backends: Backends::new(&limits, Instant::now()),
            reach: Reach::new(&listen),
            relays,
            limits,
            lists,
            scarce: Arc::default(),
            draining: Arc::default(),
        };
        Mesh::start(parts).await
    }
}

/// Descriptors a process with a node needs: a socket per listener and family, the runtime's, log and state files, and room
/// for the clients of whatever the program around it serves.
const DESCRIPTORS_MIN: u64 = 256;

/// Address space a process with a node needs. Guess: a full node maps 60 MiB, threads reserve stacks and the allocator arenas.
const ADDRESS_SPACE_MIN: u64 = 256 << 20;

/// What every part of one mesh is made from. Nothing in it is process-wide.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) endpoint: Endpoint,
    pub(crate) limits: Arc<Limits>,
    pub(crate) nursery: Nursery,
    pub(crate) door: Door,
    pub(crate) routes: Routes,
    pub(crate) addresses: AddressBook,
    pub(crate) counters: Counters,
    pub(crate) traffic: TrafficCounters,
    pub(crate) meters: Meters,
    pub(crate) lists: Lists,
    pub(crate) redials: Redials,
    pub(crate) backends: Backends,
    pub(crate) reach: Reach,
    /// What the endpoint looks for a home among; `mesh/relays.rs` takes from it and puts back.
    pub(crate) relays: RelayMap,
    pub(crate) listeners: Listeners,
    /// Rung by the door, heard by the acceptor.
    pub(crate) slot_free: Arc<Notify>,
    /// Shared by the acceptor and whoever probes.
    pub(crate) probing: Probing,
    pub(crate) history: Arc<Mutex<History>>,
    pub(crate) lives: Lives,
    pub(crate) scarce: Arc<AtomicBool>,
    pub(crate) draining: Arc<AtomicBool>,
}

/// The same relays in a list of the node's own, and that list. Clones of the embedder's are one list, shared with its other nodes.
fn own(relay: RelayMode) -> (RelayMode, RelayMap) {
    let relays: RelayMap = relay.relay_map().relays::<Vec<Arc<RelayConfig>>>().into_iter().collect();
    match relay {
        RelayMode::Disabled => (RelayMode::Disabled, relays),
        RelayMode::Default | RelayMode::Staging | RelayMode::Custom(_) => (RelayMode::Custom(relays.clone()), relays),
    }
}

fn bell(slot_free: Arc<Notify>) -> Bell {
    Arc::new(move || slot_free.notify_one())
}

impl Parts {
    /// What its loops are given.
    pub(crate) fn context(&self) -> Context {
        Context {
            me: self.endpoint.id(),
            limits: self.limits.clone(),
            routes: self.routes.clone(),
            addresses: self.addresses.clone(),
            counters: self.counters.clone(),
            traffic: self.traffic.clone(),
            meters: self.meters.clone(),
            nursery: self.nursery.clone(),
            lists: self.lists.clone(),
            redials: self.redials.clone(),
            backends: self.backends.clone(),
            reach: self.reach.clone(),
            history: self.history.clone(),
            lives: self.lives.clone(),
            scarce: self.scarce.clone(),
            draining: self.draining.clone(),
        }
    }

    /// The maps, queues and caches that all share, with the remotes that have a supervisor: now, and at most.
    pub(crate) fn stores(&self, peers: (usize, usize)) -> Vec<StoreUse> {
        let limits = &self.limits;
        let (topics, remotes) = self.routes.sizes();
        let history = self.history.lock().expect("no holder panics").iter().count();
        let mut stores = vec![
            StoreUse::new("peers", None, peers),
            StoreUse::new("connection_tasks", None, self.lives.sizes()),
            StoreUse::unmarked("routes_topics", Some(limits.topics_max), topics),
            StoreUse::unmarked("routes_peers", None, remotes),
            // It never shrinks.
            StoreUse::new("history", Some(limits.history_max), (history, history)),
        ];
        stores.extend(self.addresses.stores());
        stores.extend(self.redials.stores());
        stores.push(self.backends.store());
        stores.extend(self.lists.stores());
        stores.extend(self.door.stores());
        stores
    }

    /// Our own addresses, as the endpoint knows them now.
    pub(crate) fn my_addresses(&self) -> AddrInfo {
        AddrInfo::from(&self.endpoint.addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_may_have_too_little_is_told_how_much_it_needs() {
        let refused = |vitals: Vitals| MeshBuilder::check_process(&vitals).unwrap_err().to_string();
        assert_eq!(
            refused(Vitals { fds_max: Some(32), ..Vitals::default() }),
            "this process may open 32 descriptors; a node needs at least 256 (ulimit -n)"
        );
        assert_eq!(
            refused(Vitals { address_space_max: Some(64 << 20), ..Vitals::default() }),
            "this process may map 64 MiB of address space; a node needs at least 256 MiB (ulimit -v)"
        );
        let enough = Vitals { fds_max: Some(256), address_space_max: Some(256 << 20), ..Vitals::default() };
        assert_eq!(MeshBuilder::check_process(&enough), Ok(()));
        assert_eq!(MeshBuilder::check_process(&Vitals::default()), Ok(()));
    }
}
