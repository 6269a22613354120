//! The [`Mesh`] handle: spawn, join, census, drain. The root supervisor behind it is in `mesh/root.rs`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use iroh::{EndpointAddr, EndpointId};
use iroh_gossip::proto::TopicId;
use iroh_tickets::endpoint::EndpointTicket;
use n0_future::time::{Instant, sleep};
use ractor::Actor;
use tokio::sync::{oneshot, watch};

use crate::{
    census::{Census, Part},
    error::{JoinError, MeshGone, SpawnError},
    handle::{Command, TopicHandle},
    ledger::{Kind, Ledger, LedgerReport, Owned},
    meters::Measured,
    operation::Operation,
    peers::PeersMsg,
    topics::{JoinRequest, TopicsMsg},
};

mod backend;
mod builder;
mod door;
mod memory;
mod probe;
mod relays;
mod root;
mod transport;

pub use backend::{BackendAttempt, BackendGate};
pub use builder::MeshBuilder;
pub(crate) use builder::Parts;
pub use door::LimitsReport;
pub use memory::{MeshMemory, TopicMemory};

use root::{Branches, MeshMsg, Root, RootArguments};

/// How long the last handle's drop lets the node say goodbye.
const DROP_DRAIN: Duration = Duration::from_secs(5);

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
        let operation = Operation::join(&topic, ids.len());
        let joined = self.join_through(topic, ids).await;
        match &joined {
            Ok(_) => operation.succeed("joined"),
            Err(error) => operation.fail(error.name()),
        }
        joined
    }

    async fn join_through(&self, topic: TopicId, bootstrap: Vec<EndpointId>) -> Result<TopicHandle, JoinError> {
        let (reply, joined) = oneshot::channel();
        let request = JoinRequest { topic, bootstrap, reply };
        self.inner.branches.tell_topics(TopicsMsg::Join(request)).map_err(|MeshGone| JoinError::ShuttingDown)?;
        let joined = joined.await.map_err(|_| JoinError::ShuttingDown)??;
        // A topic that crashes at this moment takes the command with its next loop.
        let _given_up = joined.commands.send(Command::Join(joined.bootstrap)).await;
        Ok(joined.handle)
    }

    /// Knows the remote of `addr` from here on, unless it is denied, and remembers its addresses. Dials nobody. Beyond
    /// [`crate::access::LIST_MAX`] ids, and beyond the pinned addresses there is room for, it is treated like anyone else.
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
        let Part { mut peers, owned: of_peers, peers_high_water, .. } = self.ask_peers().await?;
        let Part { topics, owned: of_topics, .. } = self.ask_topics().await?;
        peers.sort_by_key(|peer| peer.id);
        let parts = &self.inner.parts;
        let occupancy = parts.door.occupancy();
        let stores = parts.stores((peers.len(), peers_high_water));
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
            redials: parts.redials.census(),
            counts: parts.counters.read(),
            traffic: parts.traffic.read(),
            stores,
            crashes: parts.nursery.mishaps.crashes(),
            ledger: self.report(&[of_peers, of_topics]),
        })
    }

    /// How long attempts and connections took and how large messages were, since the start. Asks no actor.
    pub fn measured(&self) -> Measured {
        self.inner.parts.meters.read()
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

    /// Leaves every topic, says goodbye to every remote, flushes, and closes the endpoint; at most `deadline`, then
    /// whatever is left is aborted. Calling it again waits for the same end.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let operation = Operation::drain();
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
        operation.note("stragglers", stragglers);
        let clean = clean && stragglers == 0;
        if clean {
            operation.succeed("drained")
        } else {
            operation.fail("cut-short")
        }
        DrainReport { clean, stragglers, took: started.elapsed() }
    }

    /// Waits until the mesh has ended: drained, or given up after too many restarts.
    pub async fn closed(&self) -> Ended {
        let mut ended = self.inner.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ended::Drained),
            Err(_root_gone) => Ended::Drained,
        }
    }

    /// Makes one loop fail, for tests and soaks: the next one to turn.
    #[cfg(feature = "testing")]
    pub fn inject(&self, fault: crate::testing::Fault) -> bool {
        self.inner.parts.nursery.faults.inject(fault)
    }

    /// As [`Mesh::inject`], and waits until the fault has found its loop, at most `within`; then it is taken back.
    /// Whether it has found one.
    #[cfg(feature = "testing")]
    pub async fn inject_now(&self, fault: crate::testing::Fault, within: Duration) -> bool {
        self.inner.parts.nursery.faults.inject_now(fault, within).await
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

/// Why a mesh ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It was drained.
    Drained,
    /// A child crashed more often than [`crate::Limits::restarts_max`] in [`crate::Limits::restart_period`]; the text names it.
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
