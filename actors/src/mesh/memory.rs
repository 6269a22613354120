//! What a node may take from one life into the next: whom its topics dealt with, whom it knows, and where they were. Plain
//! values in and out; keeping them is the embedder's.

use std::collections::BTreeMap;

use iroh::{EndpointAddr, EndpointId, TransportAddr};
use iroh_gossip::proto::TopicId;

use super::Mesh;
use crate::{
    access::Standing,
    census::Census,
    error::{JoinError, MeshGone},
    handle::TopicHandle,
};

/// What is worth remembering at one moment.
#[derive(Debug, Clone, Default)]
pub struct MeshMemory {
    /// The neighbours of every joined topic.
    pub topics: Vec<TopicMemory>,
    /// Configured, allowed, or met through a ticket, by id.
    pub known: Vec<EndpointAddr>,
}

/// One joined topic.
#[derive(Debug, Clone)]
pub struct TopicMemory {
    /// The topic.
    pub topic: TopicId,
    /// Its neighbours, and where they may be reached as far as that is known.
    pub neighbors: Vec<EndpointAddr>,
}

impl Mesh {
    /// What should be remembered of this moment, so that a later life finds back by itself: see [`Mesh::rejoin`] and
    /// [`Mesh::recall`].
    ///
    /// # Errors
    ///
    /// [`MeshGone`] once the mesh has ended.
    pub async fn memory(&self) -> Result<MeshMemory, MeshGone> {
        let census = self.census().await?;
        let paths = live_paths(&census);
        let neighbor = |id: &EndpointId| {
            let addr = self.addr_of(*id);
            let path = paths.get(id).cloned();
            EndpointAddr::from_parts(*id, addr.addrs.into_iter().chain(path))
        };
        let topics = census
            .topics
            .iter()
            .map(|one| TopicMemory { topic: one.topic, neighbors: one.neighbors.iter().map(neighbor).collect() });
        let mut known = self.inner.parts.lists.known();
        known.sort_unstable();
        Ok(MeshMemory { topics: topics.collect(), known: known.into_iter().map(|id| self.addr_of(id)).collect() })
    }

    /// How often in a row `remote` could not be reached. 0 for one that was not tried.
    pub fn failures(&self, remote: &EndpointId) -> u32 {
        self.inner.parts.redials.failures(remote)
    }

    /// As [`Mesh::join`], through remotes that an earlier life has met: they do not become known, and are asked within a
    /// second instead of all at once. Like bootstrap peers they are asked until they answer.
    ///
    /// # Errors
    ///
    /// [`JoinError`]: too many topics, or the mesh is shutting down.
    pub async fn rejoin(
        &self,
        topic: TopicId,
        neighbors: impl IntoIterator<Item = EndpointAddr>,
    ) -> Result<TopicHandle, JoinError> {
        let mut ids = Vec::new();
        for addr in neighbors {
            ids.push(addr.id);
            self.take_up(&addr);
        }
        self.join_through(topic, ids).await
    }

    /// Knows these remotes from an earlier life: they have slots of their own again. At most
    /// [`crate::access::LIST_MAX`] count.
    pub fn recall(&self, known: impl IntoIterator<Item = EndpointAddr>) {
        for addr in known {
            self.inner.parts.lists.meet(addr.id);
            self.take_up(&addr);
        }
    }

    fn take_up(&self, addr: &EndpointAddr) {
        let parts = &self.inner.parts;
        let standing = parts.lists.listed(&addr.id);
        if standing == Standing::Denied {
            return;
        }
        parts.redials.recall(addr.id, standing);
        if !addr.is_empty() {
            // Beyond the bound of pinned peers it can still be learned from gossip.
            let _pinned = parts.addresses.pin(addr);
        }
    }

    /// Where `id` may be reached, as far as the address book knows.
    fn addr_of(&self, id: EndpointId) -> EndpointAddr {
        let info = self.inner.parts.addresses.get(&id).unwrap_or_default();
        EndpointAddr::from_parts(id, info.transport_addrs())
    }
}

/// Where the remotes are that we are connected with. A stock node that has dialed us is in no book.
fn live_paths(census: &Census) -> BTreeMap<EndpointId, TransportAddr> {
    let path = |peer: &crate::census::PeerCensus| {
        let path = peer.connections.iter().rev().find_map(|connection| connection.path.clone());
        path.map(|path| (peer.id, path))
    };
    census.peers.iter().filter_map(path).collect()
}
