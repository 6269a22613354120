//! What neighbours tell each other of messages without sending them (IHave): how many are taken in, and which go out. `[pure]`

use bytes::Bytes;
use iroh::EndpointId;
use n0_future::time::Instant;

use super::{Effect, State};
use crate::{
    counters::Reason,
    wire::{inspect::Inbound, tree},
};

impl State {
    /// What is left to say of an encoded announcement for `to`: not what it has announced to us. Both ends of a link that is not
    /// of the tree would otherwise tell each other of every message.
    pub(crate) fn trim_announcement(&self, to: &EndpointId, frame: Bytes) -> Option<Bytes> {
        tree::retain_announced(frame, |id| !self.announced.contains_of(to.as_bytes(), id))
    }

    /// Announcements are the one thing the protocol's state stores without a bound: distinct ids are limited by their
    /// running timers and swept once enough have come, and of those that one remote repeats, or that find no room, the message is rid.
    /// Returns how many that was; with none left there is nothing to feed.
    pub(super) fn trim_announced(&mut self, from: &EndpointId, inbound: &mut Inbound, now: Instant) -> Option<Effect> {
        let offered = inbound.announced.len();
        if offered == 0 {
            return None;
        }
        let mut room = self.limits.announced_max.saturating_sub(self.timers.questions());
        inbound.announced.retain(|id| {
            let is_taken = room > 0 && self.announced.insert_of(from.as_bytes(), &id[..], now);
            room -= usize::from(is_taken);
            is_taken
        });
        let taken = inbound.announced.len();
        self.announced_since_sweep += taken;
        if self.announced_since_sweep >= self.limits.announced_max {
            // The state keeps an entry for every id until it is swept, however soon its timer has run.
            self.sweep_at = now;
            self.housekeeping_at = now;
        }
        if taken == offered {
            return None;
        }
        if taken > 0 {
            inbound.message = tree::keep_announced(&inbound.message, |id| inbound.announced.contains(id));
        }
        Some(Effect::Count(Reason::AnnouncementsDropped, (offered - taken) as u64))
    }
}
