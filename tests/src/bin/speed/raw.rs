//! The layer underneath: one iroh connection between two endpoints, one stream, frames with their length before them.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::{Buf, Bytes, BytesMut};
use iroh::{
    Endpoint,
    endpoint::{Connection, SendStream},
};
use perennial_tests::stock::{bind_endpoint, loopback_addr};

use crate::swarm::{Sent, Tally};

const ALPN: &[u8] = b"/speed/1";

/// Bytes taken from the stream at once.
const CHUNK: usize = 16 * 1024;

/// The sending end; the receiving one tallies what it hears.
#[derive(Debug)]
pub(crate) struct Bare {
    stream: SendStream,
    _connection: Connection,
    _endpoints: [Endpoint; 2],
}

impl Bare {
    pub(crate) async fn connect(tally: Arc<Tally>, sent: Arc<Sent>) -> Result<Self> {
        let (sender, receiver) = (endpoint().await?, endpoint().await?);
        let addr = loopback_addr(&receiver);
        let accepting = receiver.clone();
        tokio::spawn(async move { listen(accepting, tally, sent).await });
        let connection = sender.connect(addr, ALPN).await?;
        let stream = connection.open_uni().await?;
        Ok(Self { stream, _connection: connection, _endpoints: [sender, receiver] })
    }

    pub(crate) async fn write(&mut self, message: Bytes) -> Result<()> {
        let length = Bytes::copy_from_slice(&(message.len() as u32).to_be_bytes());
        Ok(self.stream.write_all_chunks(&mut [length, message]).await?)
    }
}

/// An endpoint as iroh makes it, on a free port of 127.0.0.1.
pub(crate) async fn endpoint() -> Result<Endpoint> {
    let (endpoint, _lookup) = bind_endpoint(None).await?;
    endpoint.set_alpns(vec![ALPN.to_vec()]);
    Ok(endpoint)
}

async fn listen(endpoint: Endpoint, tally: Arc<Tally>, sent: Arc<Sent>) -> Result<()> {
    let connection = endpoint.accept().await.context("the endpoint closed")?.await?;
    let mut stream = connection.accept_uni().await?;
    let mut waiting = BytesMut::new();
    while let Some(chunk) = stream.read_chunk(CHUNK).await? {
        waiting.extend_from_slice(&chunk);
        while let Some(length) = waiting.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize)
            && waiting.len() >= 4 + length
        {
            waiting.advance(4);
            tally.hear(&waiting.split_to(length), &sent);
        }
    }
    Ok(())
}

/// Connects and closes so many times; the accepting end is in the same process.
pub(crate) async fn handshakes(times: usize) -> Result<()> {
    let (dialer, receiver) = (endpoint().await?, endpoint().await?);
    let addr = loopback_addr(&receiver);
    tokio::spawn(async move {
        while let Some(incoming) = receiver.accept().await {
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    connection.closed().await;
                }
            });
        }
    });
    for _ in 0..times {
        let connection = dialer.connect(addr.clone(), ALPN).await?;
        connection.close(0u32.into(), b"");
    }
    Ok(())
}
