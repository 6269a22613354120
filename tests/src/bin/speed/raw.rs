//! The layers underneath, with one sender and one receiver: a stream of iroh, a stream of bare noq (`raw/noq.rs`), datagrams of UDP.
//! On a stream each message has its length before it; a datagram is a message.

pub(crate) mod noq;

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use iroh::{
    Endpoint,
    endpoint::{Connection, RecvStream, SendStream},
};
use perennial_tests::stock::{bind_endpoint, loopback_addr};
use tokio::net::UdpSocket;

use crate::swarm::{Sent, Subject, Tally};

pub(crate) const ALPN: &[u8] = b"/speed/1";

/// Bytes taken from a stream at once.
const CHUNK: usize = 16 * 1024;

/// Larger than any datagram of a course.
const DATAGRAM_MAX: usize = 4096;

/// The sending end; the receiving one tallies what it hears.
#[derive(Debug)]
pub(crate) enum Bare {
    Stream { stream: SendStream, _below: Below },
    Datagrams(UdpSocket),
}

/// What a stream needs to stay open.
#[derive(Debug)]
pub(crate) enum Below {
    Iroh { _connection: Connection, _endpoints: [Endpoint; 2] },
    Noq { _connection: ::noq::Connection, _endpoints: [::noq::Endpoint; 2] },
}

impl Bare {
    pub(crate) async fn connect(subject: Subject, tally: Arc<Tally>, sent: Arc<Sent>) -> Result<Self> {
        match subject {
            Subject::Iroh => Self::over_iroh(tally, sent).await,
            Subject::Noq => Self::over_noq(tally, sent).await,
            Subject::Udp => Self::over_udp(tally, sent).await,
            Subject::Ours | Subject::Stock => bail!("{subject} is a mesh"),
        }
    }

    pub(crate) async fn write(&mut self, message: Bytes) -> Result<()> {
        match self {
            Self::Stream { stream, .. } => {
                let length = Bytes::copy_from_slice(&(message.len() as u32).to_be_bytes());
                stream.write_all_chunks(&mut [length, message]).await?;
            }
            Self::Datagrams(socket) => _ = socket.send(&message).await?,
        }
        Ok(())
    }

    async fn over_iroh(tally: Arc<Tally>, sent: Arc<Sent>) -> Result<Self> {
        let (sender, receiver) = (endpoint().await?, endpoint().await?);
        let addr = loopback_addr(&receiver);
        let accepting = receiver.clone();
        tokio::spawn(async move {
            let connection = accepting.accept().await.context("the endpoint closed")?.await?;
            hear(connection.accept_uni().await?, &tally, &sent).await
        });
        let connection = sender.connect(addr, ALPN).await?;
        let stream = connection.open_uni().await?;
        let _below = Below::Iroh { _connection: connection, _endpoints: [sender, receiver] };
        Ok(Self::Stream { stream, _below })
    }

    async fn over_noq(tally: Arc<Tally>, sent: Arc<Sent>) -> Result<Self> {
        let (sender, receiver) = (noq::dialer()?, noq::acceptor()?);
        let addr = receiver.local_addr()?;
        let accepting = receiver.clone();
        tokio::spawn(async move {
            let connection = accepting.accept().await.context("the endpoint closed")?.await?;
            hear(connection.accept_uni().await?, &tally, &sent).await
        });
        let connection = sender.connect_with(noq::identity(ALPN)?, addr, noq::NAME)?.await?;
        let stream = connection.open_uni().await?;
        let _below = Below::Noq { _connection: connection, _endpoints: [sender, receiver] };
        Ok(Self::Stream { stream, _below })
    }

    async fn over_udp(tally: Arc<Tally>, sent: Arc<Sent>) -> Result<Self> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (sender, receiver) = (bind().await?, bind().await?);
        sender.connect(receiver.local_addr()?).await?;
        tokio::spawn(async move {
            let mut datagram = vec![0; DATAGRAM_MAX];
            while let Ok(size) = receiver.recv(&mut datagram).await {
                tally.hear(&datagram[..size], &sent);
            }
        });
        Ok(Self::Datagrams(sender))
    }
}

/// An endpoint as iroh makes it, on a free port of 127.0.0.1.
pub(crate) async fn endpoint() -> Result<Endpoint> {
    let (endpoint, _lookup) = bind_endpoint(None).await?;
    endpoint.set_alpns(vec![ALPN.to_vec()]);
    Ok(endpoint)
}

async fn hear(mut stream: RecvStream, tally: &Tally, sent: &Sent) -> Result<()> {
    let mut waiting = BytesMut::new();
    while let Some(chunk) = stream.read_chunk(CHUNK).await? {
        waiting.extend_from_slice(&chunk);
        while let Some(length) = waiting.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize)
            && waiting.len() >= 4 + length
        {
            waiting.advance(4);
            tally.hear(&waiting.split_to(length), sent);
        }
    }
    Ok(())
}
