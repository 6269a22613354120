//! A relay of iroh's own on loopback, without TLS, that can be stopped and brought back where it was.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use iroh::RelayUrl;
use iroh_relay::server::{RelayConfig, Server, ServerConfig};

/// Start it before the world: what the world finds running when it begins need not end with it.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    server: Option<Server>,
}

impl Relay {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// What the server said.
    pub async fn spawn() -> Result<Self> {
        let server = serve((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let addr = server.http_addr().context("a relay without TLS has an HTTP address")?;
        Ok(Self { addr, server: Some(server) })
    }

    /// Where nodes are told to find it, whether it runs or not.
    pub fn url(&self) -> RelayUrl {
        format!("http://{}", self.addr).parse().expect("an address makes a URL")
    }

    /// The address it listens on while it runs.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Nodes that have connected since it was started last.
    pub fn connected(&self) -> u64 {
        self.server.as_ref().map_or(0, |server| server.metrics().server.accepts.get())
    }

    /// Ends it, with every connection to it.
    ///
    /// # Errors
    ///
    /// What the server said.
    pub async fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(server) => server.shutdown().await.context("the relay does not end in order"),
            None => Ok(()),
        }
    }

    /// Starts it again at the address it had.
    ///
    /// # Errors
    ///
    /// What the server said; somebody else may have taken the address.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.server = Some(serve(self.addr).await?);
        Ok(())
    }
}

async fn serve(addr: SocketAddr) -> Result<Server> {
    let mut config = ServerConfig::default();
    config.relay = Some(RelayConfig::new(addr));
    Server::spawn(config).await.with_context(|| format!("no relay at {addr}"))
}
