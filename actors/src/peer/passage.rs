//! Through what a dial would go: a relay, if its remote can be reached over nothing else. Asked before the dial is begun, and told
//! how it went.

use iroh::EndpointId;
use n0_future::time::Instant;

use crate::{
    backends::{Backend, Backends, Pass},
    backoff::redials::Failure,
    context::Context,
    wire::addr::AddrInfo,
};

/// Leave to dial. Dropped without a word, it says nothing of what it leads through.
#[derive(Debug)]
pub(super) struct Passage {
    backends: Backends,
    /// `None`: over sockets of our own, which are nobody's backend.
    relay: Option<Pass>,
}

impl Passage {
    /// Whether `peer` may be dialed. A remote with an address of its own may be, whatever becomes of its relay; one that none of our
    /// sockets can send to does not count.
    ///
    /// # Errors
    ///
    /// When to ask again, as the relay is degraded.
    pub(super) fn ask(context: &Context, peer: &EndpointId, now: Instant) -> Result<Self, Instant> {
        let is_direct = |known: &AddrInfo| known.direct_addresses.iter().any(|addr| context.reach.covers(addr));
        let known = context.addresses.get(peer).filter(|known| !is_direct(known));
        let relay = known.and_then(|known| known.relay_url).map(Backend::Relay);
        let relay = relay.map(|relay| context.backends.gate(&relay, now).ask(1, now)).transpose()?;
        Ok(Self { backends: context.backends.clone(), relay })
    }

    /// The remote has answered, so the relay works.
    pub(super) fn on_connected(self, now: Instant) {
        if let Some(relay) = self.relay {
            relay.succeed(now);
        }
    }

    /// Nobody has answered. Which of the two is gone, the remote or its relay, can only be guessed: it is the relay while we
    /// are connected to no other, and whenever the dial was made to find that out.
    pub(super) fn on_failed(self, failure: Failure, now: Instant) {
        if let Some(relay) = self.relay
            && failure == Failure::Silent
            && (relay.is_probe() || !self.backends.is_online())
        {
            relay.fail(now, &mut rand::rng());
        }
    }
}
