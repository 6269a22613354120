//! The accept loop: it never stops polling, and decides every incoming attempt at once.
//!
//! iroh's queue before `accept` cannot be shrunk; when it fills, packets of known peers vanish with the rest. So nothing
//! in this loop waits for anything but the next thing to happen: an attempt is admitted and becomes a child, waits in a
//! short line for a slot, or is sent away. Who gets a slot is decided in `admission.rs`; the two lines are kept here: the
//! waiting room of attempts that have not shaken hands, and the lobby of remotes that have and found no slot.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use iroh::{
    Endpoint,
    endpoint::{Incoming, IncomingAddr, LocalTransportAddr},
};
use n0_future::{
    future,
    time::{Instant, interval},
};
use rand::rngs::StdRng;
use tokio::{sync::Notify, task::JoinError};

use crate::{
    access::Standing,
    admission::{
        Attempt, Decision, Door, Permit, Verdict,
        prefix::Origin,
        seats::{Knock, Shortage},
        usage::Lines,
        waiting::Waiting,
    },
    close::{Close, CloseCode},
    connection::{self, Established},
    context::Context,
    counters::Reason,
    listeners::{ListenerId, Listeners},
    mishaps::Loop,
    probe::Probing,
    supervisor::Heartbeat,
};

mod attempts;

use attempts::{AttemptEnd, Attempts, Guest, Shaken};

/// Takes a finished handshake to whoever supervises the remote. Must not wait.
pub(crate) type Deliver = Arc<dyn Fn(Established) + Send + Sync>;

/// Asks for a slot to be made free for a known remote, at this listener if one is named. Must not wait.
pub(crate) type MakeRoom = Arc<dyn Fn(Option<ListenerId>) + Send + Sync>;

/// Attempts decided in one turn: enough to keep up with a flood, few enough that ended handshakes and free slots get
/// theirs.
const ARRIVALS_PER_TURN: usize = 64;

pub(crate) struct Acceptor {
    pub(crate) endpoint: Endpoint,
    pub(crate) door: Door,
    pub(crate) listeners: Listeners,
    pub(crate) context: Context,
    pub(crate) probing: Probing,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) deliver: Deliver,
    pub(crate) make_room: MakeRoom,
    /// Rung by the door when somebody who waits could be served.
    pub(crate) slot_free: Arc<Notify>,
    /// Attempts in the table below, for the census.
    pub(crate) handshakes: Arc<AtomicUsize>,
    pub(crate) rng: StdRng,
}

/// How the accept loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptorEnd {
    /// The endpoint was closed.
    EndpointClosed,
    /// A test made it fail.
    Injected,
}

/// An attempt that waits before its handshake. It costs no task.
struct Roomer {
    incoming: Incoming,
    knock: Knock,
    addr: Option<SocketAddr>,
    shortage: Shortage,
    permit: Option<Permit>,
}

impl Acceptor {
    pub(crate) async fn run(mut self) -> AcceptorEnd {
        let patience = self.context.limits.waiting_timeout;
        let mut hall = Hall {
            // Its drop aborts what is still half-open; each attempt's own drop then closes it.
            attempts: Attempts::new(self.handshakes.clone()),
            room: Waiting::new(patience),
            lobby: Waiting::new(patience),
        };
        // Whoever waited at a loop that crashed was dropped with it.
        self.note_lines(&hall);
        let slot_free = self.slot_free.clone();
        let mut turn = interval(self.context.limits.tick);
        loop {
            tokio::select! {
                // Bookkeeping first: it is cheap, and a flood of arrivals must not keep ended handshakes in the table, nor
                // take the slot that somebody waits for.
                biased;
                strike = self.context.nursery.faults.strike(Loop::Acceptor, None) => {
                    strike.land().await;
                    return AcceptorEnd::Injected;
                }
                _ = turn.tick() => self.on_tick(&mut hall),
                ended = hall.attempts.next() => self.on_attempt_ended(ended, &mut hall),
                _ = slot_free.notified() => self.serve(&mut hall),
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.on_arrivals(incoming, &mut hall).await,
                    None => return AcceptorEnd::EndpointClosed,
                },
            }
        }
    }

    /// Takes a handful of what has arrived: in a flood the queue before us must not grow while we look at one. Waits for
    /// nothing: each arrival is there or is not.
    async fn on_arrivals(&mut self, first: Incoming, hall: &mut Hall) {
        self.on_incoming(first, hall);
        for _ in 1..ARRIVALS_PER_TURN {
            match future::poll_once(self.endpoint.accept()).await {
                Some(Some(incoming)) => self.on_incoming(incoming, hall),
                // The loop's own arm sees that the endpoint is closed.
                Some(None) | None => break,
            }
        }
    }

    fn on_incoming(&mut self, incoming: Incoming, hall: &mut Hall) {
        let attempt = self.attempt(&incoming);
        if let Some(prober) = self.probing.take(attempt.addr) {
            // Past the door: the question is whether this loop turns, not whether there is a slot.
            return hall.attempts.answer_probe(incoming, prober, self.context.clone());
        }
        match self.door.on_attempt(&attempt, Instant::now(), &mut self.rng) {
            Decision::Shake(permit) => {
                let guest = Guest { incoming, permit, listener: attempt.listener, addr: attempt.addr };
                hall.attempts.shake_hands(guest, self.context.clone());
            }
            Decision::Wait(knock, shortage) => self.let_wait(incoming, knock, attempt.addr, shortage, hall),
            Decision::Retry => {
                self.context.counters.count(Reason::AskedToRetry);
                if let Err(error) = incoming.retry() {
                    error.into_incoming().refuse();
                }
            }
            Decision::Refuse(reason) => {
                self.context.counters.count(reason);
                incoming.refuse();
            }
            Decision::Ignore(reason) => {
                self.context.counters.count(reason);
                incoming.ignore();
            }
        }
    }

    /// What can be told of an attempt from its first packet.
    fn attempt(&self, incoming: &Incoming) -> Attempt {
        let (origin, addr, hearsay) = match incoming.remote_addr() {
            IncomingAddr::Ip(addr) => (Origin::Ip(addr.ip()), Some(addr), Standing::Unknown),
            IncomingAddr::Relay { url, endpoint_id } => {
                (Origin::Relay(url), None, self.context.lists.listed(&endpoint_id))
            }
            // No custom transport is ever configured; what iroh may add one day is nobody we know.
            _ => (Origin::Ip(std::net::Ipv6Addr::UNSPECIFIED.into()), None, Standing::Unknown),
        };
        let listener = match incoming.local_addr() {
            LocalTransportAddr::Ip(ip) => self.listeners.at(ip),
            _ => self.listeners.relays(),
        };
        Attempt { listener, origin, addr, is_validated: incoming.remote_addr_validated(), hearsay }
    }

    fn let_wait(
        &self,
        incoming: Incoming,
        knock: Knock,
        addr: Option<SocketAddr>,
        shortage: Shortage,
        hall: &mut Hall,
    ) {
        let waiting = hall.room.iter().filter(|roomer| roomer.knock.listener == knock.listener).count();
        if waiting >= self.context.limits.waiting_max {
            self.context.counters.count(shortage.reason());
            return incoming.refuse();
        }
        hall.room.enter(Roomer { incoming, knock, addr, shortage, permit: None }, false, Instant::now());
        self.note_lines(hall);
    }

    fn on_attempt_ended(&mut self, ended: Result<AttemptEnd, JoinError>, hall: &mut Hall) {
        match ended {
            Ok(AttemptEnd::Shaken(shaken)) => self.on_shaken(*shaken, hall),
            Ok(AttemptEnd::Failed | AttemptEnd::SentAway | AttemptEnd::Probed) => {}
            Err(error) if error.is_panic() => {
                tracing::warn!(%error, "handshake panicked");
                self.context.counters.count(Reason::HandshakeFailed);
                self.context.nursery.mishaps.note_crash(Loop::Handshake);
            }
            Err(_aborted) => self.context.counters.count(Reason::HandshakeFailed),
        }
    }

    fn on_shaken(&mut self, mut shaken: Shaken, hall: &mut Hall) {
        let remote = shaken.established.peer();
        if let Some(addr) = shaken.addr {
            hall.attempts.give_up_others_from(addr);
        }
        shaken.standing = self.context.lists.standing(&remote);
        let verdict = self.door.on_identity(&mut shaken.established.permit, remote, shaken.standing, Instant::now());
        self.on_verdict(shaken, verdict, hall);
    }

    fn on_verdict(&self, mut shaken: Shaken, verdict: Verdict, hall: &mut Hall) {
        match verdict {
            Verdict::Seated => self.seat(shaken),
            Verdict::Wait(shortage) => {
                shaken.shortage = Some(shortage);
                let is_known = shaken.standing == Standing::Known;
                if is_known {
                    self.ask_for_room(shaken.listener);
                }
                hall.lobby.enter(shaken, is_known, Instant::now());
                self.note_lines(hall);
            }
            Verdict::Away(close, reason) => {
                self.context.counters.count(reason);
                self.send_away(shaken.established, close, hall);
            }
        }
    }

    fn seat(&self, shaken: Shaken) {
        if let (Standing::Known, Some(addr)) = (shaken.standing, shaken.addr) {
            self.door.hint(addr);
        }
        (self.deliver)(shaken.established);
    }

    /// Hands free slots to those who wait, the lobby first.
    fn serve(&mut self, hall: &mut Hall) {
        let now = Instant::now();
        for is_known in [true, false] {
            while let Some((shaken, verdict)) = self.next_of_lobby(hall, is_known, now) {
                self.on_verdict(shaken, verdict, hall);
            }
        }
        while let Some(mut roomer) = hall.room.next_where(|roomer| {
            roomer.permit = self.door.admit_waiting(roomer.knock, now);
            roomer.permit.is_some()
        }) {
            if let Some(permit) = roomer.permit.take() {
                let (listener, addr) = (roomer.knock.listener, roomer.addr);
                hall.attempts
                    .shake_hands(Guest { incoming: roomer.incoming, permit, listener, addr }, self.context.clone());
            }
        }
        self.note_lines(hall);
    }

    /// The first in the lobby for whom there is something other than more waiting. Who has been allowed or denied
    /// meanwhile is seen here.
    fn next_of_lobby(&self, hall: &mut Hall, is_known: bool, now: Instant) -> Option<(Shaken, Verdict)> {
        let mut verdict = Verdict::Seated;
        let next = hall.lobby.next_where(|shaken| {
            let remote = shaken.established.peer();
            shaken.standing = self.context.lists.standing(&remote);
            if is_known != (shaken.standing == Standing::Known) {
                return false;
            }
            verdict = self.door.on_identity(&mut shaken.established.permit, remote, shaken.standing, now);
            !matches!(verdict, Verdict::Wait(_))
        });
        next.map(|shaken| (shaken, verdict))
    }

    fn on_tick(&mut self, hall: &mut Hall) {
        self.heartbeat.beat();
        if hall.room.is_empty() && hall.lobby.is_empty() {
            return;
        }
        let now = Instant::now();
        // A remote that gave up has made its place free.
        while hall.lobby.next_where(|shaken| shaken.established.connection.close_reason().is_some()).is_some() {}
        self.serve(hall);
        while let Some(shaken) = hall.lobby.next_overdue(now) {
            let shortage = shaken.shortage.unwrap_or(Shortage::Global);
            self.count_in_vain(shortage);
            self.send_away(shaken.established, shortage.close(), hall);
        }
        while let Some(roomer) = hall.room.next_overdue(now) {
            self.count_in_vain(roomer.shortage);
            roomer.incoming.refuse();
        }
        let known = hall.lobby.iter().find(|shaken| shaken.standing == Standing::Known);
        if let Some(shaken) = known {
            self.ask_for_room(shaken.listener);
        }
        self.note_lines(hall);
    }

    fn count_in_vain(&self, shortage: Shortage) {
        self.context.counters.count(Reason::WaitedInVain);
        self.context.counters.count(shortage.reason());
    }

    fn ask_for_room(&self, listener: ListenerId) {
        let only_there = self.door.is_listener_full(listener).then_some(listener);
        (self.make_room)(only_there);
    }

    fn note_lines(&self, hall: &Hall) {
        let waits = !hall.room.is_empty() || !hall.lobby.is_empty();
        self.context.scarce.store(waits, Ordering::Relaxed);
        self.door.note_lines(Lines {
            room: (hall.room.len(), hall.room.high_water()),
            lobby: (hall.lobby.len(), hall.lobby.high_water()),
        });
    }

    /// Closes on a remote that finished its handshake and may not stay. A stock remote is told in its own words first,
    /// which takes a moment and keeps its place occupied meanwhile; one that is denied is told nothing.
    fn send_away(&self, established: Established, close: Close, hall: &mut Hall) {
        if established.is_perennial() || close.code == CloseCode::Denied {
            return established.close(close);
        }
        let goodbye = connection::turn_away(established, close, self.context.clone());
        hall.attempts.say_goodbye(goodbye, &self.context);
    }
}

/// Everyone who is neither in nor out.
struct Hall {
    attempts: Attempts,
    room: Waiting<Roomer>,
    lobby: Waiting<Shaken>,
}
