//! The door: who gets a connection slot, who waits for one, who is sent away. `[pure]`
//!
//! One [`Permit`] accompanies one attempt from its first packet to the end of its connection. It is taken here and given
//! back only by its `Drop`, so a refused, failed, abandoned or panicked attempt leaves the table as it found it. The
//! acceptor asks about incoming attempts, first by where they come from ([`Door::on_attempt`]), then by who they are
//! ([`Door::on_identity`]); a remote's supervisor asks for outgoing ones. The rules are in `admission/seats.rs` (slots),
//! `buckets.rs` (rates), `eviction.rs` (who makes room); who waits is kept by the acceptor.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::EndpointId;
use n0_future::time::Instant;
use rand::{Rng, RngExt};

use crate::{
    access::Standing,
    close::{Close, CloseCode},
    counters::Reason,
    limits::{Limits, LimitsError},
    listeners::{self, Listener, ListenerId},
    pressure::Pressure,
};

pub(crate) mod buckets;
pub(crate) mod eviction;
mod hints;
pub(crate) mod prefix;
mod retries;
pub(crate) mod seats;
mod tally;
pub(crate) mod usage;
pub(crate) mod waiting;

use buckets::{BucketLimits, Buckets, Rate};
use hints::Hints;
use prefix::{GroupKey, Grouping, Origin};
use retries::Retries;
use seats::{Family, Knock, Seats, Shortage, Stage};

/// What a remote that found no slot is told to wait: a slot may come free at any moment, but not for everyone at once.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(10);

/// What a remote that had to make room is told to wait.
pub(crate) const EVICTED_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The door of one mesh. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door {
    books: Arc<Mutex<Books>>,
    bell: Bell,
}

/// Rung when somebody who waits could be served. Must not wait, and must not come back through the door.
pub(crate) type Bell = Arc<dyn Fn() + Send + Sync>;

#[derive(Debug)]
struct Books {
    seats: Seats,
    buckets: Buckets,
    hints: Hints,
    retries: Retries,
    grouping: Grouping,
    listeners: Vec<Listener>,
    lines: usage::Lines,
}

/// An incoming attempt before its handshake.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) listener: ListenerId,
    pub(crate) origin: Origin,
    /// The source, where it is an address.
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) is_validated: bool,
    /// What the lists say of the id that a relay vouches for; nobody has proved it.
    pub(crate) hearsay: Standing,
}

/// What to do with an incoming attempt.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Shake hands; there is a slot.
    Shake(Permit),
    /// There is no slot: it may wait for one.
    Wait(Knock, Shortage),
    /// Ask it to prove its address, which costs us nothing to remember.
    Retry,
    /// Say no.
    Refuse(Reason),
    /// Say nothing.
    Ignore(Reason),
}

/// What to do with a remote that has shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has a slot.
    Seated,
    /// It may wait for one.
    Wait(Shortage),
    /// It is sent away.
    Away(Close, Reason),
}

/// Somebody who could be closed to make room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occupant {
    pub(crate) seat: u64,
    pub(crate) peer: EndpointId,
    pub(crate) group: GroupKey,
    pub(crate) since: Instant,
    pub(crate) listener: ListenerId,
}

impl Shortage {
    /// What a remote that waited in vain is told.
    pub(crate) fn close(self) -> Close {
        let code = match self {
            Shortage::Global | Shortage::Inbound | Shortage::HalfOpen | Shortage::Pressure => CloseCode::FullGlobal,
            Shortage::Listener => CloseCode::FullListener,
            Shortage::Prefix => CloseCode::FullPrefix,
        };
        Close::retry_after(code, FULL_RETRY_AFTER)
    }
}

impl Door {
    /// `listeners` in the order of their [`ListenerId`]s, the one for all relays last. `secret` is drawn anew at every start.
    pub(crate) fn new(limits: &Limits, listeners: Vec<Listener>, secret: u64, now: Instant, bell: Bell) -> Self {
        let caps = listeners.iter().map(|listener| listener.connections_max).collect();
        let books = Books {
            seats: Seats::new(limits.clone(), caps),
            buckets: Buckets::new(bucket_limits(limits), now),
            hints: Hints::default(),
            retries: Retries::new(secret, now),
            grouping: Grouping::new(secret),
            listeners,
            lines: usage::Lines::default(),
        };
        Self { books: Arc::new(Mutex::new(books)), bell }
    }

    /// What to do with an attempt whose first packet has just arrived.
    pub(crate) fn on_attempt(&self, attempt: &Attempt, now: Instant, rng: &mut impl Rng) -> Decision {
        let mut books = self.lock();
        if attempt.hearsay == Standing::Denied {
            return Decision::Ignore(Reason::Denied);
        }
        let knock = books.knock(attempt);
        let is_hinted = attempt.hearsay == Standing::Known || attempt.addr.is_some_and(|addr| books.hints.has(addr));
        let is_flooded = books.buckets.is_flooded(now);
        if is_flooded && !is_hinted && rng.random_bool(books.buckets.drop_chance(now)) {
            return Decision::Ignore(Reason::RefusedInFlood);
        }
        let pays = !knock.is_exempt && !is_hinted;
        let is_out_of_tokens = pays && !books.buckets.has_token(&knock.groups, now);
        if !attempt.is_validated && (is_flooded || is_out_of_tokens || books.is_busy(&knock)) {
            return match attempt.addr {
                Some(addr) if !books.retries.take(addr, now) => Decision::Ignore(Reason::RetriedEnough),
                Some(_) | None => Decision::Retry,
            };
        }
        // Only what is let in pays, so that a remote that keeps trying does not lock itself out.
        if is_out_of_tokens || (!is_hinted && !books.buckets.has_global(now)) {
            return Decision::Refuse(Reason::RefusedAtRate);
        }
        let admitted = books.seats.admit_handshake(knock, now).or_else(|shortage| {
            books.seats.admit_speculative(knock, is_hinted, now).map_err(|_no_place_either| shortage)
        });
        match admitted {
            Ok(seat) => {
                let is_paid = pays && attempt.is_validated;
                books.charge(&knock, is_paid, now);
                Decision::Shake(Permit { door: self.clone(), seat, is_paid: is_paid || knock.is_exempt })
            }
            // Waiting helps only against those from elsewhere.
            Err(Shortage::Prefix) => Decision::Refuse(Reason::RefusedAtPrefixCap),
            Err(shortage) => Decision::Wait(knock, shortage),
        }
    }

    /// A slot for one that waited without a handshake, or a place to learn who it is: it may be one we know.
    pub(crate) fn admit_waiting(&self, knock: Knock, now: Instant) -> Option<Permit> {
        let mut books = self.lock();
        let pays = !knock.is_exempt;
        if !books.buckets.has_global(now) || (pays && !books.buckets.has_token(&knock.groups, now)) {
            return None;
        }
        let slot = books.seats.admit_handshake(knock, now);
        let seat = slot.or_else(|_| books.seats.admit_speculative(knock, false, now)).ok()?;
        books.charge(&knock, pays, now);
        Some(Permit { door: self.clone(), seat, is_paid: true })
    }

    /// What to do with a remote whose handshake has shown who it is. One that has to wait keeps its permit; asking again
    /// is what serves it.
    pub(crate) fn on_identity(
        &self,
        permit: &mut Permit,
        remote: EndpointId,
        standing: Standing,
        now: Instant,
    ) -> Verdict {
        if standing == Standing::Denied {
            return Verdict::Away(Close::new(CloseCode::Denied), Reason::Denied);
        }
        if !permit.is_paid && standing == Standing::Unknown {
            let mut books = self.lock();
            if let Some(knock) = books.seats.knock(permit.seat)
                && books.buckets.take_group(&knock.groups, now).is_err()
            {
                let pause = books.buckets.wait(&knock.groups, now);
                return Verdict::Away(Close::retry_after(CloseCode::RateLimited, pause), Reason::RefusedAtRate);
            }
            permit.is_paid = true;
        }
        match self.change(|books| books.seats.identify(permit.seat, remote, standing)) {
            Ok(()) => Verdict::Seated,
            Err(shortage @ (Shortage::Prefix | Shortage::Pressure)) if standing == Standing::Unknown => {
                Verdict::Away(shortage.close(), shortage.reason())
            }
            Err(shortage) => Verdict::Wait(shortage),
        }
    }

    /// A permit for an outgoing attempt.
    pub(crate) fn admit_dial(&self, standing: Standing, now: Instant) -> Result<Permit, Shortage> {
        let seat = self.lock().seats.admit_dial(standing, now)?;
        Ok(Permit { door: self.clone(), seat, is_paid: true })
    }

    /// A known remote is, or should be, at this address.
    pub(crate) fn hint(&self, addr: SocketAddr) {
        self.lock().hints.note(addr);
    }

    /// What is now made of a remote's connections.
    pub(crate) fn reclassify(&self, peer: &EndpointId, standing: Standing) {
        self.change(|books| books.seats.reclassify(peer, standing));
    }

    /// Changes limits by name; a listener's cap is `listener:ADDR`. All of them or none. Permits already given stay good.
    pub(crate) fn change_limits(&self, changes: &[(String, u64)]) -> Result<(), LimitsError> {
        self.change(|books| {
            let mut limits = books.seats.limits().clone();
            let mut listeners = books.listeners.clone();
            for (name, value) in changes {
                match name.strip_prefix("listener:") {
                    Some(listener) => listeners::set_cap(&mut listeners, listener, *value)?,
                    None => limits.set(name, *value)?,
                }
            }
            limits.validate()?;
            listeners::follow(&mut listeners, books.seats.limits(), &limits);
            listeners::check_all(&listeners, &limits)?;
            let caps = listeners.iter().map(|listener| listener.connections_max).collect();
            books.listeners = listeners;
            books.seats.set_limits(limits, caps);
            Ok(())
        })
    }

    /// For each connection over a cap the listener it has to leave, or none if any will do.
    pub(crate) fn excess(&self) -> Vec<Option<ListenerId>> {
        self.lock().seats.excess()
    }

    pub(crate) fn pressure(&self) -> Pressure {
        self.lock().seats.pressure()
    }

    pub(crate) fn set_pressure(&self, pressure: Pressure) {
        self.change(|books| books.seats.set_pressure(pressure));
    }

    /// Forgets the rates of those who have been quiet.
    pub(crate) fn sweep(&self, now: Instant) {
        self.lock().buckets.sweep(now);
    }

    /// The incoming connections of unknown remotes.
    pub(crate) fn occupants(&self) -> Vec<Occupant> {
        let books = self.lock();
        let unknown =
            books.seats.rows().filter(|(_, row)| row.stage == Stage::Inbound && row.standing != Standing::Known);
        unknown
            .filter_map(|(seat, row)| {
                let (peer, knock) = (row.peer?, row.knock?);
                let group = knock.groups.coarse;
                Some(Occupant { seat, peer, group, since: row.since, listener: knock.listener })
            })
            .collect()
    }

    /// Whether slots are short at this listener because of its own cap, so that only room made there helps.
    pub(crate) fn is_listener_full(&self, ListenerId(listener): ListenerId) -> bool {
        let books = self.lock();
        books.seats.tally().listeners[listener].in_use >= books.seats.caps()[listener]
    }

    /// Changes the books, counts anew, and rings if somebody who waits could now be served.
    fn change<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        let mut books = self.lock();
        let outcome = act(&mut books);
        let rises = books.seats.refresh();
        drop(books);
        if rises {
            (self.bell)();
        }
        outcome
    }

    /// The books stay consistent at every point where a holder could panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn knock(&self, attempt: &Attempt) -> Knock {
        let family = match &attempt.origin {
            Origin::Ip(address) if address.to_canonical().is_ipv4() => Family::V4,
            Origin::Ip(_) => Family::V6,
            Origin::Relay(_) => Family::Relay,
        };
        Knock {
            listener: attempt.listener,
            groups: self.grouping.groups(&attempt.origin),
            family,
            is_exempt: attempt.origin.is_loopback() && self.seats.limits().exempt_loopback,
            is_validated: attempt.is_validated,
        }
    }

    /// Whether a source that has not proved its address is asked to, before anything is spent on it.
    fn is_busy(&self, knock: &Knock) -> bool {
        self.seats.tally().shaking() >= self.seats.limits().retry_above
            || !self.seats.is_accepting(knock.listener)
            || self.seats.pressure() >= Pressure::Tight
    }

    /// Takes the tokens of one that has been let in. The node's may be missing for a hinted one.
    fn charge(&mut self, knock: &Knock, group_pays: bool, now: Instant) {
        let _may_be_missing = match group_pays {
            true => self.buckets.take(&knock.groups, now),
            false => self.buckets.take_global(now),
        };
    }
}

fn bucket_limits(limits: &Limits) -> BucketLimits {
    let per_minute = |count: u32, burst| Rate::new(f64::from(count) / 60.0, burst);
    BucketLimits {
        global: Rate::new(f64::from(limits.admissions_per_second), limits.admissions_burst),
        group: per_minute(limits.prefix_admissions_per_minute, limits.prefix_admissions_burst),
        relay: per_minute(limits.relay_admissions_per_minute, limits.relay_admissions_burst),
        groups_max: limits.prefixes_max,
        flood_per_min: limits.flood_per_minute,
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("books", &self.books).finish_non_exhaustive()
    }
}

/// One place at the door, from the first packet to the end of the connection. Dropping it is the only way to free it.
#[derive(Debug)]
pub(crate) struct Permit {
    door: Door,
    seat: u64,
    /// Whether the source's group has paid for it, or need not.
    is_paid: bool,
}

impl Permit {
    /// The number of the place, unique within the mesh.
    pub(crate) fn seat(&self) -> u64 {
        self.seat
    }

    /// The handshake has failed: the slot is free, but a failed attempt leaves a state behind that is not free of cost. It
    /// counts among the handshakes until the permit is dropped.
    pub(crate) fn linger(&mut self) {
        self.door.change(|books| books.seats.linger(self.seat));
    }

    /// Our dial has become a connection.
    pub(crate) fn establish(&mut self, remote: EndpointId, standing: Standing) {
        self.door.change(|books| books.seats.establish(self.seat, remote, standing));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.door.change(|books| books.seats.release(self.seat));
    }
}

#[cfg(test)]
mod tests;
