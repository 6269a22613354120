//! What a topic does when nobody tells it to: lets go of idle contacts, sweeps, looks for neighbours. `[pure]`
//!
//! Called by `state.rs` once a tick; the protocol's own timers are fired there.

use std::time::Duration;

use iroh::EndpointId;
use iroh_gossip::proto::topic::{Command, InEvent};
use n0_future::time::Instant;

use super::{Effect, Ending, State};
use crate::{handle::DownReason, wire};

/// A Neighbor of ours that has not been answered for this long will not be: it was an answer itself, or is lost.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(2);

impl State {
    pub(super) fn keep_house(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        for peer in self.contacts.parted_by(now) {
            // A neighbour that has gone mute did not part in order.
            let ending = if self.neighbors.contains(&peer) { Ending::Lost } else { Ending::Polite };
            effects.extend(self.on_peer_done(peer, ending, now));
        }
        self.ids_kept.expire(now);
        self.messages_kept.expire(now);
        self.refuse_overdue(now, effects);
        for peer in self.contacts.idle_since(now, self.limits.linger, &self.neighbors) {
            if self.approvals.is_pending(&peer) {
                continue;
            }
            self.part(peer, now);
            effects.push(Effect::Farewell(peer));
        }
        // A remote that goes on talking although we are no neighbours believes that we are: tell it, or it would push
        // payload for ever (an asymmetric view; HyParView has no other repair for it).
        for peer in self.contacts.stranger_since(now, self.limits.linger * 4, &self.neighbors) {
            if self.approvals.is_pending(&peer) {
                continue;
            }
            self.part(peer, now);
            effects.push(Effect::Send { to: peer, message: wire::disconnect(true) });
            effects.push(Effect::Release(peer));
        }
        if self.sweep_at <= now {
            self.sweep_at = now + self.limits.sweep_interval;
            self.announced_since_sweep = 0;
            // A no-op for the membership; Plumtree drops what has no announcer left.
            effects.extend(self.feed(InEvent::PeerDisconnected(self.me), DownReason::Evicted, now));
        }
        self.expect_no_more_answers(now, effects);
        self.look_for_neighbors(now, effects);
    }

    /// Tells the protocol that the requests it believes to be under way are not. For a neighbour its own Neighbor does it,
    /// which changes nothing else; for anybody else a Disconnect.
    fn expect_no_more_answers(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let is_over = |said_at: &Instant| now.duration_since(*said_at) >= ANSWER_WAIT;
        let over: Vec<_> =
            self.unanswered.iter().filter(|(_, said_at)| is_over(said_at)).map(|(peer, _)| *peer).collect();
        for peer in over {
            self.unanswered.remove(&peer);
            let heard = match self.neighbors.contains(&peer) {
                true => wire::neighbor_request(),
                false => wire::disconnect(true),
            };
            effects.extend(self.feed(InEvent::RecvMessage(peer, heard), DownReason::Evicted, now));
        }
    }

    /// The watchdog: joins again while there is no neighbour or a bootstrap peer has not answered, and asks a remote it
    /// knows while the view is not full. The protocol alone does neither, so a mesh under kills would fall into islands.
    fn look_for_neighbors(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let is_due = self.bootstrap.is_probe_due(now);
        let chosen = self.acquaintances.next_join(&self.neighbors, is_due, &mut self.rng, now);
        let through = if chosen.is_empty() { chosen } else { self.admit(chosen, now, effects) };
        if !through.is_empty() {
            effects.extend(self.feed(InEvent::Command(Command::Join(through)), DownReason::Evicted, now));
        }
        if (1..self.view_max).contains(&self.neighbors.len()) {
            let (is_closed, named) = (self.bootstrap.is_closed(now), self.acquaintances.named().to_vec());
            let is_busy = |peer: &EndpointId| self.contacts.get(peer).is_some() || (is_closed && named.contains(peer));
            let chosen = self.acquaintances.next_request(&self.neighbors, is_busy, &mut self.rng, now);
            for to in chosen.map(|one| self.admit(vec![one], now, effects)).unwrap_or_default() {
                self.contacts.on_sent(to, false, now);
                effects.push(Effect::Send { to, message: wire::neighbor_request() });
            }
        }
    }
}
