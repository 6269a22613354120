//! A stock node: an iroh endpoint with an unmodified `iroh_gossip::net::Gossip` behind its router. The oracle of every
//! interop scenario, so nothing here depends on the library.

use std::time::Duration;

use anyhow::{Context, Result};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, SecretKey,
    address_lookup::memory::MemoryLookup,
    endpoint::{PortmapperConfig, presets},
    protocol::Router,
};
use iroh_gossip::{
    api::GossipTopic,
    net::{GOSSIP_ALPN, Gossip},
    proto::TopicId,
};

use crate::topic::Topic;

/// A running stock node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stock {
    name: String,
    endpoint: Endpoint,
    gossip: Gossip,
    lookup: MemoryLookup,
    router: Router,
}

impl Stock {
    /// Starts a node on 127.0.0.1 with a free port; without a key it has a fresh identity.
    ///
    /// # Errors
    ///
    /// When the endpoint cannot be bound.
    pub async fn spawn(name: impl Into<String>, key: Option<SecretKey>) -> Result<Self> {
        let (endpoint, lookup) = bind_endpoint(key).await?;
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let router = Router::builder(endpoint.clone()).accept(GOSSIP_ALPN, gossip.clone()).spawn();
        Ok(Self { name: name.into(), endpoint, gossip, lookup, router })
    }

    /// The identity.
    pub fn id(&self) -> EndpointId {
        self.endpoint.id()
    }

    /// The identity with the loopback address.
    pub fn addr(&self) -> EndpointAddr {
        loopback_addr(&self.endpoint)
    }

    /// Makes the addresses known, without dialing.
    pub fn learn(&self, addrs: &[EndpointAddr]) {
        for addr in addrs {
            self.lookup.add_endpoint_info(addr.clone());
        }
    }

    /// Joins a topic through `bootstrap`; does not wait for a neighbour.
    pub async fn join(&self, topic: TopicId, bootstrap: &[EndpointAddr]) -> Topic {
        let topic = self.subscribe(topic, bootstrap).await;
        Topic::stock(self.name.clone(), topic.expect("a stock node that was not shut down lets us join"))
    }

    /// As [`Self::join`], with the library's own handle.
    ///
    /// # Errors
    ///
    /// When the node was shut down.
    pub async fn subscribe(&self, topic: TopicId, bootstrap: &[EndpointAddr]) -> Result<GossipTopic> {
        self.learn(bootstrap);
        let ids = bootstrap.iter().map(|addr| addr.id).collect();
        Ok(self.gossip.subscribe(topic, ids).await?)
    }

    /// Connections open at this moment, by the endpoint's own metrics.
    pub fn connections(&self) -> u64 {
        connections(&self.endpoint)
    }

    /// Shuts down gracefully: gossip says goodbye, the endpoint closes.
    pub async fn shutdown(&self) {
        // An endpoint may take long to close when a remote is gone; the world notices what stays behind.
        let _ = tokio::time::timeout(Duration::from_secs(15), self.router.shutdown()).await;
    }
}

/// An endpoint that never leaves this machine: no relay, no port mapping, no lookup but the one returned.
///
/// # Errors
///
/// When it cannot be bound.
pub async fn bind_endpoint(key: Option<SecretKey>) -> Result<(Endpoint, MemoryLookup)> {
    let lookup = MemoryLookup::new();
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(key.unwrap_or_else(SecretKey::generate))
        .portmapper_config(PortmapperConfig::Disabled)
        .address_lookup(lookup.clone())
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .bind()
        .await
        .context("cannot bind a stock endpoint on 127.0.0.1")?;
    Ok((endpoint, lookup))
}

/// The identity with the address it is bound to.
pub fn loopback_addr(endpoint: &Endpoint) -> EndpointAddr {
    endpoint.bound_sockets().into_iter().fold(EndpointAddr::new(endpoint.id()), EndpointAddr::with_ip_addr)
}

/// Connections open at this moment, by the endpoint's own metrics.
pub(crate) fn connections(endpoint: &Endpoint) -> u64 {
    let metrics = endpoint.metrics();
    // Closed is read first, so that a connection that ends in between is counted as open, never as less than none.
    let closed = metrics.socket.num_conns_closed.get();
    metrics.socket.num_conns_opened.get().saturating_sub(closed)
}
