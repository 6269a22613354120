//! Which links a duplicate cuts. `[pure]`
//!
//! Plumtree prunes a link as soon as it brings what is known already. That is one message at a time; of those that come meanwhile in a
//! burst some are first over this link and some over that one, and by the time the first Prune has been heard every link of a node
//! may have been cut, the publisher's too. So a link that has just brought something new is cut with a small chance only: still soon
//! where messages come fast, but hardly all of them within one round trip.

use std::time::Duration;

use iroh::EndpointId;
use iroh_gossip::proto::topic::InEvent;
use n0_future::time::Instant;
use rand::{RngExt, seq::IteratorRandom};

use super::{Effect, State};
use crate::{
    handle::{DownReason, Event},
    wire::{self, Class, ProtoMessage},
};

/// How long a link lives on something new: about the time that a Prune needs to the other side, and what is on its way behind it
/// back, where both are busy. At 20 messages a second and less it changes nothing.
const NEWS_LAST: Duration = Duration::from_millis(50);

/// One of so many duplicates cuts such a link.
const SPARED_OF: u32 = 512;

impl State {
    /// What was just published goes to one neighbour at least: if `effects` push it to nobody, because each of them once had something
    /// from another first, one is pushed to again from here on. Otherwise it would have to be announced and asked for. Where there
    /// is only one, no others were faster, and its Prune is heeded.
    pub(super) fn push_to_somebody(&mut self, content: &[u8], effects: &mut Vec<Effect>, now: Instant) {
        let is_payload = |effect: &Effect| matches!(effect, Effect::Send { message, .. } if wire::classify(message) == Class::Payload);
        if self.neighbors.len() < 2 || effects.iter().any(is_payload) {
            return;
        }
        if let Some(peer) = self.neighbors.iter().choose(&mut self.rng).copied() {
            let asked = InEvent::RecvMessage(peer, wire::tree::graft_of(blake3::hash(content).as_bytes()));
            effects.extend(self.feed(asked, DownReason::Evicted, now));
        }
    }

    /// Hands a message to the protocol.
    pub(super) fn feed_message(
        &mut self,
        from: EndpointId,
        message: ProtoMessage,
        class: Class,
        cause: DownReason,
        now: Instant,
    ) -> Vec<Effect> {
        let mut effects = self.feed(InEvent::RecvMessage(from, message), cause, now);
        if class != Class::Payload {
            return effects;
        }
        match &effects[..] {
            // The one answer to a payload that is known.
            [Effect::Send { to, message }]
                if *to == from
                    && self.neighbors.len() > 1
                    && wire::classify(message) == Class::Announce
                    && self.contacts.brought_news_after(&from, now - NEWS_LAST)
                    && !self.rng.random_ratio(1, SPARED_OF) =>
            {
                // The protocol has cut its own end of the link already; this is how the other side would tie it again.
                effects.clear();
                effects.extend(self.feed(InEvent::RecvMessage(from, wire::tree::graft()), cause, now));
            }
            _ if effects.iter().any(|effect| matches!(effect, Effect::Emit(Event::Received(_)))) => {
                self.contacts.on_news(&from, now);
            }
            _ => {}
        }
        effects
    }
}
