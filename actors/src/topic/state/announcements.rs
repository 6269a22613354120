//! What neighbours tell each other of messages without sending them (IHave): how many are taken in, and which go out. `[pure]`

use bytes::Bytes;
use iroh::EndpointId;
use n0_future::time::Instant;

use super::{Effect, State};
use crate::{counters::Reason, wire, wire::inspect::Inbound};

impl State {
    /// What is left to say of an encoded announcement for `to`: not what it has announced to us. Both ends of a link that is not
    /// of the tree would otherwise tell each other of every message.
    pub(crate) fn trim_announcement(&self, to: &EndpointId, frame: Bytes) -> Option<Bytes> {
        wire::retain_announced(frame, |id| !self.announced.contains_of(to.as_bytes(), id))
    }

    /// Announcements are the one thing the protocol's state stores without a bound: distinct ids are limited by their
    /// running timers and swept once enough have come, repeated ones are refused, since an honest remote announces a
    /// message to a neighbour once.
    pub(super) fn refuse_announcement(&mut self, from: &EndpointId, inbound: &Inbound, now: Instant) -> Option<Effect> {
        let ids = &inbound.announced;
        let room = self.limits.announced_max.saturating_sub(self.gossip_timers);
        let repeated = ids.iter().filter(|id| !self.announced.insert_of(from.as_bytes(), &id[..], now)).count();
        if repeated > 0 || ids.len() > room {
            return Some(Effect::Count(Reason::AnnouncementsDropped, ids.len() as u64));
        }
        self.announced_since_sweep += ids.len();
        if self.announced_since_sweep >= self.limits.announced_max {
            // The state keeps an entry for every id until it is swept, however soon its timer has run.
            self.sweep_at = now;
            self.housekeeping_at = now;
        }
        None
    }
}
