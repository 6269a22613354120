//! How a topic lets go of remotes: with which last word, and of every lease.

use iroh::EndpointId;
use n0_future::time::Instant;

use super::Topic;
use crate::{
    lease::{Outgoing, Urgency},
    wire,
};

impl Topic {
    /// Parts from a remote that is no neighbour. A stock node is told with an empty ShuffleReply, so that it forgets us
    /// before the close and can dial again; our own know from the close alone.
    pub(super) fn farewell(&mut self, peer: EndpointId) {
        if let Some(lease) = self.leases.get(&peer)
            && !lease.is_perennial()
        {
            // Full or closed: then there is nobody to be polite to.
            let _unheard = lease.send(self.outgoing(wire::farewell_frame(), true), Urgency::Payload, Instant::now());
        }
        self.release(peer);
    }

    pub(super) fn release(&mut self, peer: EndpointId) {
        self.let_go(peer, Outgoing::Finish { topic: self.topic });
    }

    pub(super) fn decline(&mut self, peer: EndpointId) {
        // One that is refused at once has never been leased.
        let _held = self.lease(peer);
        self.let_go(peer, Outgoing::Decline { topic: self.topic });
    }

    fn let_go(&mut self, peer: EndpointId, last: Outgoing) {
        self.asking.unask(&peer);
        self.pending.take(&peer);
        if let Some(lease) = self.leases.remove(&peer) {
            // Full or closed: the stream ends with its connection.
            let _unfinished = lease.send(last, Urgency::Payload, Instant::now());
        }
    }

    /// The goodbye: Disconnect to every neighbour, a finished stream to everyone else, then every lease is dropped.
    pub(super) fn leave(&mut self) {
        let now = Instant::now();
        let effects = self.state.on_quit(now);
        self.apply(effects, now);
        for peer in self.leases.keys().copied().collect::<Vec<_>>() {
            self.release(peer);
        }
        self.inboxes.neighbors.send_replace(Vec::new());
    }
}
