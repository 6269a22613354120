//! Who may reach the protocol's state at all, where the embedder decides: the front of a topic's door. `[pure]`
//!
//! A remote that wants to become a neighbour is held here until the embedder has answered; meanwhile nothing of it reaches
//! the protocol. The asking itself is done by `topic/asking.rs`. Without an embedder that decides, this costs one look at
//! a flag.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use iroh::EndpointId;
use iroh_gossip::proto::topic::InEvent;
use n0_future::time::Instant;

use super::{Effect, State};
use crate::{
    counters::Reason,
    handle::DownReason,
    limits::Limits,
    wire::{self, Class, ProtoMessage, inspect::Inbound},
};

/// A refused remote is not asked about again for this long, and nothing is sent to it. Guess: an embedder is asked about
/// one that hammers 12 times a minute; longer, and a change of its mind takes effect too late.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// An approved remote is not asked about when it comes back within this long: views rotate, and those who fall out of
/// one are often back with the next shuffle, once a minute.
const APPROVAL_PAUSE: Duration = Duration::from_secs(60);

/// Verdicts remembered about remotes the topic is not in touch with. Beyond this many, the next one is asked about as if
/// it came for the first time.
pub(super) const VERDICTS_MAX: usize = 256;

/// What the embedder has said of whom. Approved and pending remotes are contacts of the topic, and bounded as those are.
#[derive(Debug)]
pub(super) struct Approvals {
    /// Whether there is an embedder that decides.
    is_on: bool,
    pending_max: usize,
    patience: Duration,
    asked: u64,
    approved: HashSet<EndpointId>,
    pending: HashMap<EndpointId, Parked>,
    remembered: HashMap<EndpointId, Verdict>,
}

/// The latest message of a remote that the embedder is being asked about.
#[derive(Debug)]
struct Parked {
    number: u64,
    asked_at: Instant,
    /// The connection it was heard over last.
    connection: u64,
    inbound: Inbound,
}

/// The embedder's last word on a remote, and how long it holds.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    is_approved: bool,
    until: Instant,
}

impl Approvals {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            is_on: false,
            pending_max: limits.approvals_max,
            patience: limits.approval_timeout,
            asked: 0,
            approved: HashSet::new(),
            pending: HashMap::new(),
            remembered: HashMap::new(),
        }
    }

    /// Whether the embedder is being asked about `peer`.
    pub(super) fn is_pending(&self, peer: &EndpointId) -> bool {
        self.pending.contains_key(peer)
    }

    /// The topic parts from `peer`: nobody waits for a word on it, and a good one holds for a while.
    pub(super) fn on_parted(&mut self, peer: EndpointId, now: Instant) {
        self.pending.remove(&peer);
        if self.approved.remove(&peer) {
            self.remember(peer, Verdict { is_approved: true, until: now + APPROVAL_PAUSE }, now);
        }
    }

    fn remember(&mut self, peer: EndpointId, verdict: Verdict, now: Instant) {
        if self.remembered.len() >= VERDICTS_MAX {
            self.remembered.retain(|_, verdict| now < verdict.until);
        }
        if self.remembered.len() < VERDICTS_MAX {
            self.remembered.insert(peer, verdict);
        }
    }

    /// What was said of `peer`, if that still holds.
    fn verdict(&self, peer: &EndpointId, now: Instant) -> Option<bool> {
        match self.approved.contains(peer) {
            true => Some(true),
            false => self.remembered.get(peer).filter(|verdict| now < verdict.until).map(|verdict| verdict.is_approved),
        }
    }

    /// Pending, approved and remembered remotes.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.pending.len(), self.approved.len(), self.remembered.len()]
    }

    fn overdue(&self, now: Instant) -> Vec<EndpointId> {
        let is_overdue = |parked: &Parked| now.duration_since(parked.asked_at) >= self.patience;
        let mut overdue: Vec<_> =
            self.pending.iter().filter(|(_, parked)| is_overdue(parked)).map(|(peer, _)| *peer).collect();
        // The order of a hash map must not decide the order of effects: a seed is to replay.
        overdue.sort_unstable();
        overdue
    }
}

impl State {
    /// From here on nobody becomes a neighbour whom neither the embedder has approved of nor the application has named.
    pub(crate) fn require_approval(&mut self) {
        self.approvals.is_on = true;
    }

    /// The embedder's word on [`Effect::Ask`] number `number`. A word that came too late changes nothing.
    pub(crate) fn on_verdict(&mut self, peer: EndpointId, number: u64, is_approved: bool, now: Instant) -> Vec<Effect> {
        match self.approvals.pending.get(&peer) {
            Some(parked) if parked.number == number && is_approved => self.approve(peer, now),
            Some(parked) if parked.number == number => self.refuse_pending(peer, now),
            Some(_) | None => Vec::new(),
        }
    }

    /// What the application names needs no other word.
    pub(super) fn on_named(&mut self, peers: &[EndpointId], now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        for peer in peers {
            self.approvals.remembered.remove(peer);
            if self.approvals.is_pending(peer) {
                effects.push(Effect::Unask(*peer));
                effects.extend(self.approve(*peer, now));
            }
        }
        effects
    }

    /// Looks at a message before anything else does: gives it back if its sender may be heard, and otherwise says what is
    /// to be done about it.
    pub(super) fn await_approval(
        &mut self,
        from: EndpointId,
        connection: u64,
        inbound: Inbound,
        now: Instant,
    ) -> Result<Inbound, Vec<Effect>> {
        // A goodbye is always heard: it only takes away.
        if !self.approvals.is_on || inbound.class == Class::Disconnect || self.needs_no_word(&from) {
            return Ok(inbound);
        }
        let verdict = self.approvals.verdict(&from, now);
        let wants_in = inbound.message == wire::join() || wire::is_neighbor(&inbound.message);
        if verdict == Some(false) && !wants_in {
            return Err(vec![Effect::Count(Reason::JoinNotApproved, 1)]);
        }
        // From here on it is a contact: its connection is held while the embedder thinks, and whoever only believes to be
        // a neighbour is told otherwise in time.
        self.contacts.on_heard(from, connection, false, now);
        match (self.approvals.pending.get_mut(&from), verdict) {
            (_, Some(true)) => {
                self.approvals.approved.insert(from);
                Ok(inbound)
            }
            (_, Some(false)) => Err(self.decline(from, &inbound.message, now)),
            (Some(parked), None) if wants_in => {
                *parked = Parked { connection, inbound, ..*parked };
                Err(Vec::new())
            }
            (Some(parked), None) => {
                parked.connection = connection;
                Err(vec![Effect::Count(Reason::JoinNotApproved, 1)])
            }
            (None, None) if wants_in => Err(self.ask(from, connection, inbound, now)),
            (None, None) => Err(vec![Effect::Count(Reason::JoinNotApproved, 1)]),
        }
    }

    /// Whether the protocol may say `message` to `to`: a remote that is not approved learns nothing of others, and one
    /// that was refused hears nothing at all.
    pub(super) fn may_be_told(&self, to: &EndpointId, message: &ProtoMessage, now: Instant) -> bool {
        if !self.approvals.is_on || self.needs_no_word(to) {
            return true;
        }
        let is_about_us = *message == wire::join() || wire::is_neighbor(message) || message.is_disconnect();
        self.approvals.verdict(to, now).unwrap_or(is_about_us)
    }

    /// Refuses those the embedder has not answered for in time, whatever became of its asking.
    pub(super) fn refuse_overdue(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for peer in self.approvals.overdue(now) {
            effects.extend(self.refuse_pending(peer, now));
        }
        self.approvals.remembered.retain(|_, verdict| now < verdict.until);
    }

    /// Neighbours are through, and those the application names it has approved of itself.
    fn needs_no_word(&self, peer: &EndpointId) -> bool {
        self.neighbors.contains(peer) || self.acquaintances.is_named(peer)
    }

    fn ask(&mut self, peer: EndpointId, connection: u64, inbound: Inbound, now: Instant) -> Vec<Effect> {
        if self.approvals.pending.len() >= self.approvals.pending_max {
            return self.decline(peer, &inbound.message, now);
        }
        self.approvals.asked += 1;
        let number = self.approvals.asked;
        self.approvals.pending.insert(peer, Parked { number, asked_at: now, connection, inbound });
        vec![Effect::Ask { peer, number }]
    }

    /// What was parked arrives.
    fn approve(&mut self, peer: EndpointId, now: Instant) -> Vec<Effect> {
        let Some(Parked { connection, inbound, .. }) = self.approvals.pending.remove(&peer) else { return Vec::new() };
        self.approvals.approved.insert(peer);
        self.on_message(peer, connection, inbound, now)
    }

    fn refuse_pending(&mut self, peer: EndpointId, now: Instant) -> Vec<Effect> {
        let Some(parked) = self.approvals.pending.remove(&peer) else { return Vec::new() };
        self.approvals.remember(peer, Verdict { is_approved: false, until: now + REFUSAL_PAUSE }, now);
        self.decline(peer, &parked.inbound.message, now)
    }

    /// Parts from a remote that may not become a neighbour. The protocol is to forget it: chosen from the passive view, it
    /// would be asked, refused and asked again.
    fn decline(&mut self, peer: EndpointId, wanted: &ProtoMessage, now: Instant) -> Vec<Effect> {
        self.acquaintances.on_lost(&peer);
        self.unanswered.remove(&peer);
        let mut effects = vec![Effect::Count(Reason::JoinNotApproved, 1)];
        effects.extend(self.feed(InEvent::PeerDisconnected(peer), DownReason::ConnectionLost, now));
        self.part(peer, now);
        if wire::is_neighbor(wanted) {
            // It waits for an answer, or takes us for a neighbour already. Not "alive", or it would ask again at once.
            effects.push(Effect::Send { to: peer, message: wire::disconnect(false) });
        }
        effects.push(Effect::Decline(peer));
        effects
    }
}
