//! What of that which passed inspection may reach the protocol's state at this moment. `[pure]`

use std::time::Duration;

use iroh::EndpointId;
use n0_future::time::Instant;

use super::{Effect, State};
use crate::{
    counters::Reason,
    wire::{self, Class, inspect::Inbound},
};

/// A neighbour's Join is answered again over the same connection only after this long: each one starts a walk through
/// the mesh, and a remote could make us flood our other neighbours.
const JOIN_PAUSE: Duration = Duration::from_millis(500);

impl State {
    /// What may not reach the protocol's state from this remote at this moment.
    pub(super) fn refuse(
        &mut self,
        from: &EndpointId,
        connection: u64,
        inbound: &Inbound,
        now: Instant,
    ) -> Option<Effect> {
        let is_neighbor = self.neighbors.contains(from);
        match inbound.class {
            // The protocol does not ask who sends a walk or announces content. A stranger could make us dial whomever it
            // names, or enter the sets of those we push to without being in our view.
            Class::Announce if !is_neighbor => Some(Effect::Count(Reason::FromStranger, 1)),
            Class::Membership if inbound.is_walk && !is_neighbor => Some(Effect::Count(Reason::FromStranger, 1)),
            Class::Membership if is_neighbor && inbound.message == wire::join() => {
                let is_news = self.contacts.on_join(from, connection, JOIN_PAUSE, now);
                (!is_news).then_some(Effect::Count(Reason::JoinRepeated, 1))
            }
            Class::Payload | Class::Announce | Class::Membership | Class::Disconnect => None,
        }
    }
}
