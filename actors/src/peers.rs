//! The supervisor of all remotes: starts a [`Peer`] for each that is wanted or knocks, stops it when it is idle.
//!
//! Also where counters, caps and the census of connections are asked for: as messages. Its handlers never await the
//! network. A remote's supervisor that crashes takes its connections with it; the topics hear that the remote is gone
//! and ask again if they still want it.

use std::collections::HashMap;

use iroh::EndpointId;
use n0_future::time::Instant;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::{
    admission::{EVICTED_RETRY_AFTER, usage::LimitsPart},
    census::{CensusCollector, Part},
    close::{Close, CloseCode},
    connection::{Established, Order},
    counters::Reason,
    ledger::{Entry, Kind},
    limits::LimitsError,
    listeners::ListenerId,
    mishaps::Loop,
    peer::{OnIdle, Peer, PeerArguments, PeerMsg, PeerShared},
    pressure::Pressure,
    redial::WishWatch,
    routes::{Gone, Signal},
};

mod evictor;

use evictor::{Cause, Evictor};

/// What the supervisor of all remotes is told.
#[derive(Debug)]
pub(crate) enum PeersMsg {
    /// A topic wants to reach this remote, as long as its wish is held.
    Want(EndpointId, WishWatch),
    /// An incoming handshake has finished.
    Accepted(Box<Established>),
    /// A remote's supervisor has nothing left to supervise, having handled this many messages.
    Idle { peer: EndpointId, handled: u64 },
    /// Look after the children.
    Tick,
    /// Answer for all remotes.
    Census(oneshot::Sender<Part>),
    /// A known remote waits for a slot, at this listener if one is named: close somebody unknown.
    MakeRoom(Option<ListenerId>),
    /// Close every connection to this remote and give up dialing it.
    Close(EndpointId, Close),
    /// Tell every limit of the door, and what is in use.
    Limits(oneshot::Sender<LimitsPart>),
    /// Replace limits of the door. Nobody is thrown out unless asked for.
    SetLimits { changes: Vec<(String, u64)>, evict: bool, reply: oneshot::Sender<Result<(), LimitsError>> },
    /// Stop dialing, let go of everything; answer when no remote is left.
    Drain(oneshot::Sender<()>),
}

pub(crate) struct Peers;

pub(crate) struct PeersState {
    _entry: Entry,
    shared: PeerShared,
    rows: HashMap<EndpointId, Row>,
    high_water: usize,
    evictor: Evictor,
    draining: Option<oneshot::Sender<()>>,
    is_draining: bool,
}

struct Row {
    actor: ActorRef<PeerMsg>,
    /// Messages that can start work, sent so far.
    sent: u64,
}

impl Actor for Peers {
    type Msg = PeersMsg;
    type State = PeersState;
    type Arguments = PeerShared;

    async fn pre_start(
        &self,
        _myself: ActorRef<PeersMsg>,
        shared: PeerShared,
    ) -> Result<PeersState, ActorProcessingErr> {
        let entry = shared.connections.nursery.ledger.enter(Kind::Supervisor);
        Ok(PeersState {
            _entry: entry,
            shared,
            rows: HashMap::new(),
            high_water: 0,
            evictor: Evictor::default(),
            draining: None,
            is_draining: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<PeersMsg>,
        message: PeersMsg,
        state: &mut PeersState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(strike) = state.shared.connections.nursery.faults.due(Loop::Peers, None) {
            strike.land().await;
            return Err("injected".into());
        }
        match message {
            PeersMsg::Want(peer, wish) => state.pass(&myself, peer, PeerMsg::Want(wish)).await,
            PeersMsg::Accepted(established) => {
                let peer = established.peer();
                state.pass(&myself, peer, PeerMsg::Accepted(established)).await;
            }
            PeersMsg::Idle { peer, handled } => state.on_idle(peer, handled),
            PeersMsg::Tick => state.on_tick(),
            PeersMsg::Census(reply) => state.on_census(reply),
            PeersMsg::MakeRoom(listener) => state.make_room(Cause::KnownRemote(listener)),
            PeersMsg::Close(peer, close) => state.close(&peer, None, Order { close, is_polite: false }),
            PeersMsg::Limits(reply) => state.on_limits(reply),
            PeersMsg::SetLimits { changes, evict, reply } => state.on_set_limits(&changes, evict, reply),
            PeersMsg::Drain(reply) => state.on_drain(reply),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<PeersMsg>,
        event: SupervisionEvent,
        state: &mut PeersState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, last_state, reason) => {
                // The last state rides in the event and owns connections: it goes first.
                drop(last_state);
                state.on_child_gone(&cell, &reason.unwrap_or_default());
            }
            SupervisionEvent::ActorFailed(cell, error) => state.on_child_gone(&cell, &error.to_string()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl PeersState {
    /// Hands a message to the remote's supervisor, starting it if need be.
    async fn pass(&mut self, myself: &ActorRef<PeersMsg>, peer: EndpointId, message: PeerMsg) {
        if peer == self.shared.connections.me {
            return;
        }
        if !self.rows.contains_key(&peer) {
            let peers = myself.clone();
            let on_idle = OnIdle(Box::new(move |handled| drop(peers.cast(PeersMsg::Idle { peer, handled }))));
            let arguments = PeerArguments { peer, on_idle, shared: self.shared.clone() };
            match Actor::spawn_linked(None, Peer, arguments, myself.get_cell()).await {
                // The runtime owns the actor's task; its end arrives as a supervision event.
                Ok((actor, _task)) => {
                    if self.is_draining {
                        drop(actor.cast(PeerMsg::Drain));
                    }
                    self.rows.insert(peer, Row { actor, sent: 0 });
                    self.high_water = self.high_water.max(self.rows.len());
                }
                Err(error) => {
                    tracing::error!(peer = %peer.fmt_short(), %error, "cannot supervise remote");
                    return self.shared.connections.routes.signal(peer, Signal::Gone(Gone::Lost));
                }
            }
        }
        if let Some(row) = self.rows.get_mut(&peer) {
            row.sent += 1;
            drop(row.actor.cast(message));
        }
    }

    /// Only here is a remote's supervisor let go, and only if no message to it is on its way.
    fn on_idle(&mut self, peer: EndpointId, handled: u64) {
        if self.rows.get(&peer).is_some_and(|row| row.sent == handled)
            && let Some(row) = self.rows.remove(&peer)
        {
            row.actor.stop(None);
        }
        self.answer_drain();
    }

    /// A supervisor that ended by our own word has no row any more; one that still has crashed.
    fn on_child_gone(&mut self, cell: &ActorCell, reason: &str) {
        let crashed = self.rows.iter().find(|(_, row)| row.actor.get_id() == cell.get_id()).map(|(peer, _)| *peer);
        if let Some(peer) = crashed {
            tracing::warn!(peer = %peer.fmt_short(), %reason, "supervisor of a remote crashed");
            self.shared.connections.nursery.mishaps.note_crash(Loop::Peer);
            self.rows.remove(&peer);
            self.shared.connections.routes.set_connections(peer, Vec::new());
            self.shared.connections.routes.signal(peer, Signal::Gone(Gone::Lost));
        }
        self.answer_drain();
    }

    fn on_tick(&mut self) {
        if self.shared.door.pressure() == Pressure::Critical {
            self.make_room(Cause::Pressure);
        }
        self.tell_all(|| PeerMsg::Tick);
    }

    fn make_room(&mut self, cause: Cause) {
        let (door, context) = (&self.shared.door, &self.shared.connections);
        if let Some((seat, peer)) = self.evictor.next(cause, door, context, Instant::now()) {
            self.evict(seat, &peer);
        }
    }

    fn evict(&self, seat: u64, peer: &EndpointId) {
        tracing::info!(peer = %peer.fmt_short(), seat, "evicted");
        self.shared.connections.counters.count(Reason::Evicted);
        let close = Close::retry_after(CloseCode::Evicted, EVICTED_RETRY_AFTER);
        self.close(peer, Some(seat), Order { close, is_polite: true });
    }

    fn close(&self, peer: &EndpointId, seat: Option<u64>, order: Order) {
        if let Some(row) = self.rows.get(peer) {
            drop(row.actor.cast(PeerMsg::Close { seat, order }));
        }
    }

    fn on_limits(&self, reply: oneshot::Sender<LimitsPart>) {
        let door = &self.shared.door;
        let pressure = door.pressure().name();
        let _asker_gone = reply.send(LimitsPart { uses: door.uses(), listeners: door.listener_uses(), pressure });
    }

    /// All of the changes or none of them.
    fn on_set_limits(
        &mut self,
        changes: &[(String, u64)],
        evict: bool,
        reply: oneshot::Sender<Result<(), LimitsError>>,
    ) {
        let outcome = self.shared.door.change_limits(changes);
        if outcome.is_ok() && evict {
            for (seat, peer) in self.evictor.excess(&self.shared.door, &self.shared.connections, Instant::now()) {
                self.evict(seat, &peer);
            }
        }
        let _asker_gone = reply.send(outcome);
    }

    fn on_census(&mut self, reply: oneshot::Sender<Part>) {
        let mut part = Part { peers_high_water: self.high_water, ..Part::default() };
        part.owned.add(Kind::Peer, self.rows.len());
        let collector = CensusCollector::new(part, reply);
        self.tell_all(|| PeerMsg::Census(collector.clone()));
    }

    fn on_drain(&mut self, reply: oneshot::Sender<()>) {
        self.is_draining = true;
        self.draining = Some(reply);
        self.tell_all(|| PeerMsg::Drain);
        self.answer_drain();
    }

    fn answer_drain(&mut self) {
        if self.rows.is_empty()
            && let Some(reply) = self.draining.take()
        {
            let _asker_gone = reply.send(());
        }
    }

    fn tell_all(&self, message: impl Fn() -> PeerMsg) {
        for row in self.rows.values() {
            drop(row.actor.cast(message()));
        }
    }
}
