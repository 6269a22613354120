//! What the supervisor of one remote thinks: its connections, its dial, its duplicates. `[pure]`
//!
//! Every loss of a connection takes one path through here: ended → another one, or gone. Towards a stock remote two
//! connections are kept and closed together, because which one it sends over cannot be seen from here. Between our own
//! nodes the larger id decides: it uses the newest connection it knows and lets older ones retire; the smaller id
//! answers over whichever connection the other speaks on (`topic.rs`). A rule by age would be shorter and wrong: a remote
//! killed and respawned half a second after it connected must not be waited for on its dead connection.

use std::time::Duration;

use iroh::EndpointId;
use n0_future::time::Instant;

use crate::{
    census::Side,
    limits::Limits,
    routes::{Gone, Signal},
};

/// What the supervisor must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Start an outgoing attempt.
    Dial,
    /// Topics reach the remote over this connection from here on; `None`: over none.
    Route(Option<u64>),
    /// Tell the topics.
    Signal(Signal),
    /// Keep this connection alive although no topic holds a lease on it.
    Keep(u64),
    /// Stop keeping it: it lives as long as a topic holds a lease.
    LetGo(u64),
    /// Tell the holders of leases on this connection to take one on the routed one.
    Supersede(u64),
    /// Close it now: the remote holds more connections than one remote may.
    Close(u64),
    /// One more that nobody claimed in time.
    Unclaimed(u64),
}

#[derive(Debug)]
struct Line {
    number: u64,
    perennial: bool,
    since: Instant,
    kept: bool,
    claimed: bool,
}

/// The thinking half of one remote's supervisor.
#[derive(Debug)]
pub(crate) struct State {
    me: EndpointId,
    peer: EndpointId,
    connections_max: usize,
    unclaimed_timeout: Duration,
    lines: Vec<Line>,
    routed: Option<u64>,
    attempt: Attempt,
}

/// How far an outgoing attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    None,
    /// The remote's pause is not over.
    Waiting(Instant),
    Dialing,
}

impl State {
    pub(crate) fn new(me: EndpointId, peer: EndpointId, limits: &Limits) -> Self {
        Self {
            me,
            peer,
            connections_max: limits.connections_per_peer_max,
            unclaimed_timeout: limits.unclaimed_timeout,
            lines: Vec::new(),
            routed: None,
            attempt: Attempt::None,
        }
    }

    /// Nothing to supervise: no connection, no dial under way or to come.
    pub(crate) fn is_idle(&self) -> bool {
        self.lines.is_empty() && self.attempt == Attempt::None
    }

    pub(crate) fn is_dialing(&self) -> bool {
        self.attempt == Attempt::Dialing
    }

    /// A topic wants to reach the remote. `leasable`: whether the routed connection can still be leased.
    pub(crate) fn on_wanted(&mut self, leasable: bool) -> Vec<Effect> {
        match (leasable, self.attempt) {
            (true, _) => vec![Effect::Signal(Signal::Reachable)],
            (false, Attempt::Dialing | Attempt::Waiting(_)) => Vec::new(),
            (false, Attempt::None) => {
                self.attempt = Attempt::Dialing;
                vec![Effect::Dial]
            }
        }
    }

    /// The attempt that was to begin has to wait. Whatever tells the topics about the remote before ends the wish.
    pub(crate) fn on_wait(&mut self, until: Instant) {
        self.attempt = Attempt::Waiting(until);
    }

    /// Nobody waits for the attempt any more; it does not begin.
    pub(crate) fn on_unwanted(&mut self) {
        self.attempt = Attempt::None;
    }

    /// The outgoing attempt failed, or was not made. A connection that is retiring is no reason to ask again.
    pub(crate) fn on_dial_failed(&mut self, how: Gone, leasable: bool) -> Vec<Effect> {
        self.attempt = Attempt::None;
        match leasable {
            true => vec![Effect::Signal(Signal::Reachable)],
            false => vec![Effect::Signal(Signal::Gone(how))],
        }
    }

    /// A handshake has finished, in either direction. Every connection starts kept, until a topic claims it.
    pub(crate) fn on_connected(&mut self, number: u64, side: Side, perennial: bool, now: Instant) -> Vec<Effect> {
        match self.attempt {
            Attempt::Dialing if side == Side::Accepted => {}
            Attempt::Dialing | Attempt::Waiting(_) | Attempt::None => self.attempt = Attempt::None,
        }
        let mut effects = Vec::new();
        self.lines.push(Line { number, perennial, since: now, kept: true, claimed: false });
        if self.lines.len() > self.connections_max {
            let oldest = self.lines.remove(0).number;
            effects.push(Effect::Close(oldest));
        }
        self.routed = Some(number);
        effects.push(Effect::Route(self.routed));
        if perennial {
            if self.me > self.peer {
                effects.extend(self.supersede_all_but(number));
            }
        } else if self.lines.len() > 1 {
            // Two live connections to a stock remote: neither may close before the other.
            for line in self.lines.iter_mut().filter(|line| !line.kept) {
                line.kept = true;
                effects.push(Effect::Keep(line.number));
            }
        }
        effects.push(Effect::Signal(Signal::Reachable));
        effects
    }

    fn supersede_all_but(&mut self, newest: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        for line in self.lines.iter_mut().filter(|line| line.number != newest) {
            effects.push(Effect::Supersede(line.number));
            if std::mem::take(&mut line.kept) {
                effects.push(Effect::LetGo(line.number));
            }
        }
        effects
    }

    /// A connection loop has ended, however it ended.
    pub(crate) fn on_ended(&mut self, number: u64, how: Gone) -> Vec<Effect> {
        self.lines.retain(|line| line.number != number);
        if self.routed == Some(number) {
            self.routed = self.lines.last().map(|line| line.number);
        }
        if matches!(self.attempt, Attempt::Waiting(_)) {
            // The topics are told below; who still wants the remote asks again.
            self.attempt = Attempt::None;
        }
        // Also when another one was routed: topics may have held leases on this one.
        let signal = if self.routed.is_some() { Signal::Reachable } else { Signal::Gone(how) };
        vec![Effect::Route(self.routed), Effect::Signal(signal)]
    }

    /// Looks at who still needs what. `leases` tells how many leases topics hold on a connection.
    pub(crate) fn on_tick(&mut self, now: Instant, leases: impl Fn(u64) -> usize) -> Vec<Effect> {
        let mut effects = Vec::new();
        if matches!(self.attempt, Attempt::Waiting(until) if until <= now) {
            self.attempt = Attempt::Dialing;
            effects.push(Effect::Dial);
        }
        let any_claimed = self.lines.iter().any(|line| leases(line.number) > 0);
        let several_stock = self.lines.len() > 1 && self.lines.iter().any(|line| !line.perennial);
        for line in &mut self.lines {
            line.claimed |= leases(line.number) > 0;
        }
        let any_ever_claimed = self.lines.iter().any(|line| line.claimed);
        for line in self.lines.iter_mut().filter(|line| line.kept) {
            let overdue = now.duration_since(line.since) >= self.unclaimed_timeout;
            let let_go = if several_stock {
                // Together: all stay while one is used, all go when none is.
                !any_claimed && (any_ever_claimed || overdue)
            } else {
                line.claimed || overdue
            };
            if let_go {
                line.kept = false;
                if !any_ever_claimed {
                    effects.push(Effect::Unclaimed(line.number));
                }
                effects.push(Effect::LetGo(line.number));
            }
        }
        effects
    }

    /// The mesh drains: nothing is kept any more.
    pub(crate) fn on_drain(&mut self) -> Vec<Effect> {
        let kept = self.lines.iter_mut().filter(|line| line.kept);
        let let_go = kept.map(|line| {
            line.kept = false;
            Effect::LetGo(line.number)
        });
        let mut effects: Vec<_> = let_go.collect();
        if matches!(self.attempt, Attempt::Waiting(_)) {
            self.attempt = Attempt::None;
            effects.push(Effect::Signal(Signal::Gone(Gone::NotDialed)));
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seed: u8) -> EndpointId {
        iroh::SecretKey::from_bytes(&[seed; 32]).public()
    }

    /// Two ids with `small < large`.
    fn ids() -> (EndpointId, EndpointId) {
        let (a, b) = (id(1), id(2));
        if a < b { (a, b) } else { (b, a) }
    }

    fn state(me: EndpointId, peer: EndpointId) -> State {
        State::new(me, peer, &Limits::default())
    }

    fn routes(effects: &[Effect]) -> Option<Option<u64>> {
        effects.iter().rev().find_map(|effect| match effect {
            Effect::Route(route) => Some(*route),
            _ => None,
        })
    }

    #[test]
    fn a_wish_dials_once_and_a_failure_tells_the_topics() {
        let (me, peer) = ids();
        let mut state = state(me, peer);
        assert_eq!(state.on_wanted(false), [Effect::Dial]);
        assert_eq!(state.on_wanted(false), []);
        assert_eq!(state.on_dial_failed(Gone::Lost, false), [Effect::Signal(Signal::Gone(Gone::Lost))]);
        assert!(state.is_idle());
    }

    #[test]
    fn a_dial_that_has_to_wait_is_made_when_it_is_due_unless_something_happens_before() {
        let (me, peer) = ids();
        let now = Instant::now();
        let due = now + Duration::from_secs(3);
        let waiting = || {
            let mut state = state(me, peer);
            state.on_wanted(false);
            state.on_wait(due);
            assert!(!state.is_idle() && !state.is_dialing());
            assert_eq!(state.on_wanted(false), [], "another topic's wish waits with it");
            state
        };
        let mut untouched = waiting();
        assert_eq!(untouched.on_tick(now, |_| 0), []);
        assert_eq!(untouched.on_tick(due, |_| 0), [Effect::Dial]);
        assert_eq!(untouched.on_tick(due, |_| 0), [], "once");

        let mut unwanted = waiting();
        unwanted.on_tick(due, |_| 0);
        unwanted.on_unwanted();
        assert!(unwanted.is_idle());

        let mut reached = waiting();
        reached.on_connected(1, Side::Accepted, false, now);
        assert_eq!(reached.on_tick(due, |_| 1), [Effect::LetGo(1)], "the remote came by itself");

        let mut drained = waiting();
        assert_eq!(drained.on_drain(), [Effect::Signal(Signal::Gone(Gone::NotDialed))]);
        assert!(drained.is_idle());
    }

    #[test]
    fn an_accepted_connection_is_kept_until_it_is_claimed_and_then_lives_by_its_leases() {
        let (me, peer) = ids();
        let now = Instant::now();
        let mut state = state(me, peer);
        state.on_connected(1, Side::Accepted, false, now);
        assert_eq!(state.on_tick(now, |_| 0), []);
        assert_eq!(state.on_tick(now, |_| 1), [Effect::LetGo(1)]);
        let gone = Effect::Signal(Signal::Gone(Gone::Retired));
        assert_eq!(state.on_ended(1, Gone::Retired), [Effect::Route(None), gone]);
        assert!(state.is_idle());
    }

    #[test]
    fn an_unclaimed_connection_is_let_go_after_its_time_and_counted() {
        let (me, peer) = ids();
        let now = Instant::now();
        let mut state = state(me, peer);
        state.on_connected(1, Side::Accepted, false, now);
        let later = now + Limits::default().unclaimed_timeout;
        assert_eq!(state.on_tick(later, |_| 0), [Effect::Unclaimed(1), Effect::LetGo(1)]);
    }

    #[test]
    fn two_connections_to_a_stock_remote_stay_while_one_is_used_and_go_together() {
        let (me, peer) = ids();
        let now = Instant::now();
        let mut state = state(me, peer);
        state.on_connected(1, Side::Dialed, false, now);
        assert_eq!(state.on_tick(now, |_| 1), [Effect::LetGo(1)]);
        let effects = state.on_connected(2, Side::Accepted, false, now);
        assert!(effects.contains(&Effect::Keep(1)), "the older one may not close first");
        assert_eq!(routes(&effects), Some(Some(2)), "sent over the newest, as stock does");
        let much_later = now + Duration::from_secs(100);
        assert_eq!(state.on_tick(much_later, |number| usize::from(number == 2)), []);
        assert_eq!(state.on_tick(much_later, |_| 0), [Effect::LetGo(1), Effect::LetGo(2)]);
    }

    #[test]
    fn a_simultaneous_dial_between_our_own_is_decided_by_the_larger_id_alone() {
        let (small, large) = ids();
        let now = Instant::now();
        for (first, second) in [(Side::Dialed, Side::Accepted), (Side::Accepted, Side::Dialed)] {
            let both = |me, peer| {
                let mut state = state(me, peer);
                state.on_connected(1, first, true, now);
                state.on_connected(2, second, true, now)
            };
            let supersedes = |effects: &[Effect]| effects.contains(&Effect::Supersede(1));
            assert!(supersedes(&both(large, small)), "it uses the newest and lets the older retire");
            assert!(!supersedes(&both(small, large)), "it follows; two deciders could close both");
        }
    }

    #[test]
    fn a_respawned_remote_is_reached_over_its_new_connection_at_once() {
        let (small, large) = ids();
        let now = Instant::now();
        for (me, peer) in [(small, large), (large, small)] {
            let mut state = state(me, peer);
            state.on_connected(1, Side::Dialed, true, now);
            // Killed and respawned with the same key, it dials us; the old connection has not timed out.
            let effects = state.on_connected(2, Side::Accepted, true, now);
            assert_eq!(routes(&effects), Some(Some(2)));
        }
    }

    #[test]
    fn a_remote_cannot_hold_more_connections_than_its_share() {
        let (me, peer) = ids();
        let now = Instant::now();
        let mut state = state(me, peer);
        for number in 1..=2 {
            state.on_connected(number, Side::Accepted, false, now);
        }
        let effects = state.on_connected(3, Side::Accepted, false, now);
        assert_eq!(effects[0], Effect::Close(1));
    }
}
