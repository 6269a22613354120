//! The [`Mesh`] handle: spawn, join, census, drain. The root supervisor behind it is in `mesh/root.rs`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, SecretKey};
use iroh_gossip::proto::TopicId;
use iroh_tickets::endpoint::EndpointTicket;
use n0_future::time::{Instant, sleep};
use ractor::Actor;
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    access::{self, Access, Admission, Lists, Standing},
    address_book::AddressBook,
    admission::{
        Bell, Door,
        usage::{LimitUse, LimitsPart, ListenerUse},
    },
    census::{Census, Part},
    close::{Close, CloseCode},
    config::MeshConfig,
    context::Context,
    counters::{Counters, Counts},
    error::{JoinError, MeshGone, SetLimitsError, SpawnError},
    handle::{Command, TopicHandle},
    history::{ClosedConnection, History},
    ledger::{Kind, Ledger, LedgerReport, Owned},
    limits::Limits,
    listeners::{Listen, Listeners},
    peers::PeersMsg,
    routes::Routes,
    supervisor::Nursery,
    topics::{JoinRequest, TopicsMsg},
    wire::addr::AddrInfo,
};

mod root;
mod transport;

use root::{Branches, MeshMsg, Root, RootArguments};

/// How long the last handle's drop lets the node say goodbye.
const DROP_DRAIN: Duration = Duration::from_secs(5);

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

    /// Binds the endpoint and starts the tree. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]: contradicting limits, an address that cannot be listened on, or a supervisor that did not start.
    pub async fn spawn(self) -> Result<Mesh, SpawnError> {
        let MeshConfig { secret_key, listen, relay, port_mapping, limits, access, admission, known } = self.config;
        limits.validate()?;
        let lists = Lists::new(access, admission);
        known.into_iter().for_each(|peer| lists.meet(peer));
        let limits = Arc::new(limits);
        let listen = match listen.is_empty() {
            true => vec![Listen::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))],
            false => listen,
        };
        let listeners = Listeners::new(&listen, &limits)?;
        let listen: Vec<_> = listen.iter().map(|listen| listen.addr).collect();
        let slot_free = Arc::new(Notify::new());
        let addresses = AddressBook::new(&limits);
        let key = secret_key.unwrap_or_else(SecretKey::generate);
        let endpoint = transport::bind(key, &listen, relay, port_mapping, &limits, addresses.clone()).await?;
        let parts = Parts {
            nursery: Nursery::default(),
            door: Door::new(&limits, listeners.all(), rand::random(), Instant::now(), bell(slot_free.clone())),
            listeners,
            slot_free,
            history: Arc::new(Mutex::new(History::new(limits.history_max))),
            routes: Routes::default(),
            counters: Counters::default(),
            endpoint,
            addresses,
            limits,
            lists,
            draining: Arc::default(),
        };
        Mesh::start(parts).await
    }
}

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
    pub(crate) lists: Lists,
    pub(crate) listeners: Listeners,
    /// Rung by the door, heard by the acceptor.
    pub(crate) slot_free: Arc<Notify>,
    pub(crate) history: Arc<Mutex<History>>,
    pub(crate) draining: Arc<AtomicBool>,
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
            nursery: self.nursery.clone(),
            lists: self.lists.clone(),
            history: self.history.clone(),
            draining: self.draining.clone(),
        }
    }

    /// Our own addresses, as the endpoint knows them now.
    pub(crate) fn my_addresses(&self) -> AddrInfo {
        AddrInfo::from(&self.endpoint.addr())
    }
}

/// A running node. Cheap to clone; it runs until [`Mesh::drain`] is called or the last clone is dropped, which drains it
/// in the background.
#[derive(Debug, Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: ractor::ActorRef<MeshMsg>,
    branches: Branches,
    parts: Parts,
    listen: Vec<SocketAddr>,
    started: Instant,
    ended: watch::Receiver<Option<Ended>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The root may have ended already.
        drop(self.root.cast(MeshMsg::Drain { deadline: DROP_DRAIN, reply: None }));
    }
}

impl Mesh {
    /// Starts describing a mesh.
    pub fn builder() -> MeshBuilder {
        MeshBuilder::default()
    }

    async fn start(parts: Parts) -> Result<Mesh, SpawnError> {
        let branches = Branches::default();
        let (ended_tx, ended) = watch::channel(None);
        let listen = parts.endpoint.bound_sockets();
        let arguments = RootArguments { parts: parts.clone(), branches: branches.clone(), ended: ended_tx };
        let (root, _task) = Actor::spawn(None, Root, arguments)
            .await
            .map_err(|error| SpawnError::Supervisor("mesh", error.to_string()))?;
        tracing::info!(id = %parts.endpoint.id().fmt_short(), ?listen, "mesh started");
        Ok(Mesh { inner: Arc::new(Inner { root, branches, parts, listen, started: Instant::now(), ended }) })
    }

    /// This node.
    pub fn id(&self) -> EndpointId {
        self.inner.parts.endpoint.id()
    }

    /// The UDP sockets it listens on.
    pub fn listen_addrs(&self) -> Vec<SocketAddr> {
        self.inner.listen.clone()
    }

    /// Its id and every address others can dial it at: interface addresses in place of unspecified ones, relay
    /// included.
    pub fn addr(&self) -> EndpointAddr {
        let known = self.inner.parts.endpoint.addr();
        let bound = self.inner.listen.iter().filter(|addr| !addr.ip().is_unspecified());
        bound.fold(known, |addr, one| addr.with_ip_addr(*one))
    }

    /// [`Mesh::addr`] as one word to hand to someone else.
    pub fn ticket(&self) -> EndpointTicket {
        EndpointTicket::new(self.addr())
    }

    /// Joins `topic` through `bootstrap`, which may be empty for the first node of a topic. Does not wait for a
    /// neighbour; [`TopicHandle::joined`] does. The bootstrap peers are asked again, with growing pauses, whenever the
    /// topic has no neighbour.
    ///
    /// # Errors
    ///
    /// [`JoinError`]: too many topics, or the mesh is shutting down.
    pub async fn join(
        &self,
        topic: TopicId,
        bootstrap: impl IntoIterator<Item = impl Into<EndpointAddr>>,
    ) -> Result<TopicHandle, JoinError> {
        let mut ids = Vec::new();
        for addr in bootstrap {
            let addr: EndpointAddr = addr.into();
            ids.push(addr.id);
            self.know(&addr);
        }
        let (reply, joined) = oneshot::channel();
        let request = JoinRequest { topic, bootstrap: ids, reply };
        self.inner.branches.tell_topics(TopicsMsg::Join(request)).map_err(|MeshGone| JoinError::ShuttingDown)?;
        let joined = joined.await.map_err(|_| JoinError::ShuttingDown)??;
        // A topic that crashes at this moment takes the command with its next loop.
        let _given_up = joined.commands.send(Command::Join(joined.bootstrap)).await;
        Ok(joined.handle)
    }

    /// Knows the remote of `addr` from here on, unless it is denied, and remembers its addresses. Dials nobody. Beyond
    /// [`access::LIST_MAX`] ids, and beyond the pinned addresses there is room for, it is treated like anyone else.
    pub fn know(&self, addr: &EndpointAddr) {
        let parts = &self.inner.parts;
        parts.lists.meet(addr.id);
        addr.ip_addrs().for_each(|addr| parts.door.hint(*addr));
        if !addr.is_empty() {
            // What is not pinned can still be learned from gossip.
            let _pinned = parts.addresses.pin(addr);
        }
    }

    /// Everything this node is doing at this moment.
    ///
    /// # Errors
    ///
    /// [`MeshGone`] once the mesh has ended.
    pub async fn census(&self) -> Result<Census, MeshGone> {
        let Part { mut peers, owned: of_peers, .. } = self.ask_peers().await?;
        let Part { topics, owned: of_topics, .. } = self.ask_topics().await?;
        peers.sort_by_key(|peer| peer.id);
        let parts = &self.inner.parts;
        let occupancy = parts.door.occupancy();
        Ok(Census {
            id: self.id(),
            listen: self.listen_addrs(),
            uptime: self.inner.started.elapsed(),
            topics,
            peers,
            connections: occupancy.in_use,
            half_open: occupancy.half_open,
            connections_high_water: occupancy.high_water,
            connection_cap: occupancy.cap,
            addresses: parts.addresses.len(),
            counts: parts.counters.read(),
            ledger: self.report(&[of_peers, of_topics]),
        })
    }

    /// Spawned, finished, owned and orphans of every kind of task.
    ///
    /// # Errors
    ///
    /// [`MeshGone`] once the mesh has ended.
    pub async fn ledger(&self) -> Result<LedgerReport, MeshGone> {
        let of_peers = self.ask_peers().await?.owned;
        let of_topics = self.ask_topics().await?.owned;
        Ok(self.report(&[of_peers, of_topics]))
    }

    /// Asks for the ledger until it has no orphans, at most for `within`; returns the last report either way. What is
    /// just starting or ending may show for a moment, so only this says whether something is left behind.
    ///
    /// # Errors
    ///
    /// [`MeshGone`] once the mesh has ended.
    pub async fn settle(&self, within: Duration) -> Result<LedgerReport, MeshGone> {
        let deadline = Instant::now() + within;
        loop {
            let report = self.ledger().await?;
            if report.orphans() == 0 || Instant::now() >= deadline {
                return Ok(report);
            }
            sleep(self.inner.parts.limits.tick / 4).await;
        }
    }

    /// The counters themselves, for tasks of the program around the mesh that should stand in the same ledger.
    pub fn ledger_counters(&self) -> Ledger {
        self.inner.parts.nursery.ledger.clone()
    }

    /// Every cap, what is in use, what was at most, and what was refused for which reason.
    ///
    /// # Errors
    ///
    /// [`MeshGone`] once the mesh has ended.
    pub async fn limits(&self) -> Result<LimitsReport, MeshGone> {
        let LimitsPart { mut uses, listeners, pressure } =
            self.ask(|reply| self.inner.branches.tell_peers(PeersMsg::Limits(reply))).await?;
        let topics = self.ask_topics().await?.topics.len();
        let (parts, (known, denied)) = (&self.inner.parts, self.inner.parts.lists.len());
        let limits = &parts.limits;
        let history = parts.history.lock().expect("no holder panics").iter().count();
        uses.extend([
            LimitUse::unmarked("topics_max", limits.topics_max, topics),
            LimitUse::unmarked("addresses_max", limits.addresses_max, parts.addresses.len()),
            LimitUse::unmarked("known_list", access::LIST_MAX, known),
            LimitUse::unmarked("denied_list", access::LIST_MAX, denied),
            LimitUse::unmarked("history_max", limits.history_max, history),
        ]);
        Ok(LimitsReport { uses, listeners, pressure, counts: parts.counters.read() })
    }

    /// Changes limits by name, all of them or none: those in [`Limits::CHANGEABLE`], and `listener:ADDR` for the cap of a
    /// listener. Lowering one admits nobody new until enough have gone; it throws nobody out unless `evict` asks for it,
    /// and then only unknown remotes.
    ///
    /// # Errors
    ///
    /// A name that is not one, or values that contradict each other; [`MeshGone`] once the mesh has ended.
    pub async fn set_limits(
        &self,
        changes: impl IntoIterator<Item = (impl Into<String>, u64)>,
        evict: bool,
    ) -> Result<(), SetLimitsError> {
        let changes: Vec<_> = changes.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let outcome = self.ask(|reply| {
            self.inner.branches.tell_peers(PeersMsg::SetLimits { changes: changes.clone(), evict, reply })
        });
        Ok(outcome.await??)
    }

    /// Replaces the cap on connections and the shares that follow from it, see [`Limits::with_connections`].
    ///
    /// # Errors
    ///
    /// See [`Mesh::set_limits`].
    pub async fn set_connection_cap(&self, cap: usize) -> Result<(), SetLimitsError> {
        let limits = Limits::clone(&self.inner.parts.limits).with_connections(cap);
        let changes = [
            ("connections_max", limits.connections_max),
            ("inbound_max", limits.inbound_max),
            ("known_reserve", limits.known_reserve),
            ("relay_connections_max", limits.relay_connections_max),
        ];
        self.set_limits(changes.map(|(name, value)| (name, value as u64)), false).await
    }

    /// Knows `remote` from here on: it has slots of its own, and displaces an unknown one when there are none.
    ///
    /// # Errors
    ///
    /// [`access::ListFull`].
    pub fn allow(&self, remote: EndpointId) -> Result<(), access::ListFull> {
        self.inner.parts.lists.allow(remote)?;
        self.inner.parts.door.reclassify(&remote, Standing::Known);
        Ok(())
    }

    /// Deals with `remote` no longer: its connections are closed at once, it is neither accepted nor dialed.
    ///
    /// # Errors
    ///
    /// [`access::ListFull`].
    pub fn deny(&self, remote: EndpointId) -> Result<(), access::ListFull> {
        let parts = &self.inner.parts;
        let code = match parts.lists.listed(&remote) {
            Standing::Known => CloseCode::Revoked,
            Standing::Unknown | Standing::Denied => CloseCode::Denied,
        };
        parts.lists.deny(remote)?;
        parts.door.reclassify(&remote, Standing::Denied);
        // Between two supervisors there is no connection to close.
        let _restarting = self.inner.branches.tell_peers(PeersMsg::Close(remote, Close::new(code)));
        Ok(())
    }

    /// Takes `remote` off the lists: it is nobody in particular again. Whether it was on one.
    pub fn forget(&self, remote: &EndpointId) -> bool {
        let was_listed = self.inner.parts.lists.forget(remote);
        self.inner.parts.door.reclassify(remote, Standing::Unknown);
        was_listed
    }

    /// What this node makes of `remote` at this moment.
    pub fn standing(&self, remote: &EndpointId) -> Standing {
        self.inner.parts.lists.standing(remote)
    }

    /// The connections that ended lately, the newest first, and how many ended since the start.
    pub fn closed_connections(&self) -> (Vec<ClosedConnection>, u64) {
        let history = self.inner.parts.history.lock().expect("no holder panics");
        (history.iter().cloned().collect(), history.total())
    }

    /// Leaves every topic, says goodbye to every remote, flushes, and closes the endpoint; at most `deadline`, then
    /// whatever is left is aborted. Calling it again waits for the same end.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let started = Instant::now();
        let (reply, drained) = oneshot::channel();
        let clean = match self.inner.root.cast(MeshMsg::Drain { deadline, reply: Some(reply) }) {
            Ok(()) => drained.await.unwrap_or(true),
            Err(_already_gone) => true,
        };
        self.closed().await;
        let ledger = &self.inner.parts.nursery.ledger;
        let mesh_alive = || Kind::ALL.into_iter().filter(|kind| kind.is_of_mesh()).map(|kind| ledger.alive(kind)).sum();
        // Aborted tasks are dropped at their next await; actors end a moment after their root.
        let patience = Instant::now() + Duration::from_secs(1);
        let mut stragglers: u64 = mesh_alive();
        while stragglers > 0 && Instant::now() < patience {
            sleep(Duration::from_millis(5)).await;
            stragglers = mesh_alive();
        }
        DrainReport { clean: clean && stragglers == 0, stragglers, took: started.elapsed() }
    }

    /// Waits until the mesh has ended: drained, or given up after too many restarts.
    pub async fn closed(&self) -> Ended {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ended::Drained),
            Err(_root_gone) => Ended::Drained,
        }
    }

    /// Makes a loop fail, for tests.
    #[cfg(feature = "testing")]
    pub fn inject(&self, fault: crate::testing::Fault) -> bool {
        self.inner.parts.nursery.faults.inject(fault)
    }

    async fn ask_peers(&self) -> Result<Part, MeshGone> {
        self.ask(|reply| self.inner.branches.tell_peers(PeersMsg::Census(reply))).await
    }

    async fn ask_topics(&self) -> Result<Part, MeshGone> {
        self.ask(|reply| self.inner.branches.tell_topics(TopicsMsg::Census(reply))).await
    }

    /// A supervisor that crashes with the question in its mailbox is asked again once it is back.
    async fn ask<T>(&self, tell: impl Fn(oneshot::Sender<T>) -> Result<(), MeshGone>) -> Result<T, MeshGone> {
        for _ in 0..20 {
            if self.inner.ended.borrow().is_some() {
                return Err(MeshGone);
            }
            let (reply, answer) = oneshot::channel();
            if tell(reply).is_ok()
                && let Ok(part) = answer.await
            {
                return Ok(part);
            }
            sleep(self.inner.parts.limits.tick / 4).await;
        }
        Err(MeshGone)
    }

    fn report(&self, owned_by_branches: &[Owned]) -> LedgerReport {
        let mut owned = Owned::none();
        for kind in Kind::ALL {
            for branch in owned_by_branches {
                owned.add(kind, branch.get(kind) as usize);
            }
        }
        self.inner.branches.add_owned(&mut owned);
        // The program's own tasks are nobody's here; whoever counts them in knows how many it owns.
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_of_mesh()) {
            owned.add(kind, self.inner.parts.nursery.ledger.alive(kind) as usize);
        }
        self.inner.parts.nursery.ledger.report(&owned)
    }
}

/// The limits of a node on one page.
#[derive(Debug, Clone)]
pub struct LimitsReport {
    /// Every cap.
    pub uses: Vec<LimitUse>,
    /// The listeners, the relays last.
    pub listeners: Vec<ListenerUse>,
    /// `calm`, `tight` or `critical`: how short this process is of memory and descriptors.
    pub pressure: &'static str,
    /// What was refused, and everything else that is counted.
    pub counts: Counts,
}

/// Why a mesh ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It was drained.
    Drained,
    /// A child crashed more often than [`Limits::restarts_max`] in [`Limits::restart_period`]; the text names it.
    GaveUp(String),
}

/// How a drain went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainReport {
    /// Whether everything ended by itself within the deadline.
    pub clean: bool,
    /// Tasks of the mesh still alive after everything was aborted.
    pub stragglers: u64,
    /// How long it took.
    pub took: Duration,
}

#[cfg(test)]
mod tests;
