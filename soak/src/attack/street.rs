//! A street that lets first flights through and swallows the answers, all but a Retry: the client behind it proves its
//! address when asked to, begins the handshake, and then never says anything the victim waits for.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use tokio::{net::UdpSocket, task::JoinHandle};

use super::sources::source;

/// A one-way street from an entrance on this machine to a victim. Closed on drop.
#[derive(Debug)]
pub(super) struct Street {
    /// Where the client knocks.
    pub(super) entrance: SocketAddr,
    carriers: [JoinHandle<()>; 2],
}

impl Street {
    /// Opens a street; the victim sees source address `number`.
    pub(super) async fn open(number: usize, victim: SocketAddr) -> Result<Self> {
        let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").await.context("cannot bind the entrance of a street")?);
        let outside = source(number);
        let outside = UdpSocket::bind(outside).await.with_context(|| format!("cannot bind {outside}"))?;
        let outside = Arc::new(outside);
        let entrance = inside.local_addr()?;
        let client = Arc::new(Mutex::new(None));
        let out = tokio::spawn(carry_out(inside.clone(), outside.clone(), victim, client.clone()));
        let back = tokio::spawn(carry_retries(outside, inside, client));
        Ok(Self { entrance, carriers: [out, back] })
    }
}

impl Drop for Street {
    fn drop(&mut self) {
        for carrier in &self.carriers {
            carrier.abort();
        }
    }
}

/// A street serves one client socket; its address is that of the last datagram in.
type Client = Arc<Mutex<Option<SocketAddr>>>;

async fn carry_out(inside: Arc<UdpSocket>, outside: Arc<UdpSocket>, victim: SocketAddr, client: Client) {
    let mut datagram = vec![0; 2048];
    while let Ok((size, from)) = inside.recv_from(&mut datagram).await {
        *client.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
        // Whatever is lost here the client sends again.
        let _ = outside.send_to(&datagram[..size], victim).await;
    }
}

async fn carry_retries(outside: Arc<UdpSocket>, inside: Arc<UdpSocket>, client: Client) {
    let mut datagram = vec![0; 2048];
    while let Ok(size) = outside.recv(&mut datagram).await {
        let client = *client.lock().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(client)) = (is_retry(&datagram[..size]), client) {
            let _ = inside.send_to(&datagram[..size], client).await;
        }
    }
}

/// Long header, type 3 (RFC 9000, section 17.2.5).
fn is_retry(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xb0 == 0xb0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_retry_comes_back() {
        assert!(is_retry(&[0xff]) && is_retry(&[0xf0]));
        assert!(!is_retry(&[0xc3]) && !is_retry(&[0xe3]) && !is_retry(&[0x70]) && !is_retry(&[]));
    }
}
