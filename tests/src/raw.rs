//! A peer that speaks bytes: a plain iroh endpoint with the gossip ALPN and no gossip behind it. It says exactly what a
//! scenario tells it to, and hands out what it hears frame by frame. What the bytes mean is in `frames.rs`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, SecretKey,
    endpoint::{
        Connection, ConnectionError, PortmapperConfig, QuicTransportConfig, RecvStream, SendStream, VarInt, presets,
    },
};
use iroh_gossip::{net::GOSSIP_ALPN, proto::TopicId};

use tokio::{net::UdpSocket, task::JoinHandle, time::Instant};

use crate::{frames, stock::loopback_addr, wait::PATIENCE};

/// How a raw peer behaves below the frames.
#[derive(Debug, Clone, Default)]
pub struct RawOptions {
    /// The identity; a fresh one by default.
    pub key: Option<SecretKey>,
    /// Bytes a remote may send before this peer has read any. Unlimited by default.
    pub receive_window: Option<u32>,
    /// The loopback address it speaks from; 127.0.0.1 by default.
    pub source: Option<Ipv4Addr>,
}

/// A running raw peer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Raw {
    endpoint: Endpoint,
}

/// One connection of a raw peer.
#[derive(Debug)]
pub struct RawConnection {
    connection: Connection,
}

/// One incoming stream, after its header.
#[derive(Debug)]
pub struct RawStream {
    /// The topic its header named.
    pub topic: TopicId,
    stream: RecvStream,
}

/// A handshake that never finishes; given up on drop.
#[derive(Debug)]
pub struct HalfOpen {
    task: JoinHandle<()>,
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Raw {
    /// Starts a peer on a loopback address with a free port.
    ///
    /// # Errors
    ///
    /// When the endpoint cannot be bound.
    pub async fn spawn(options: RawOptions) -> Result<Self> {
        let mut transport = QuicTransportConfig::builder();
        if let Some(bytes) = options.receive_window {
            transport = transport.receive_window(bytes.into()).stream_receive_window(bytes.into());
        }
        let source = options.source.unwrap_or(Ipv4Addr::LOCALHOST);
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(options.key.unwrap_or_else(SecretKey::generate))
            .portmapper_config(PortmapperConfig::Disabled)
            .transport_config(transport.build())
            .alpns(vec![GOSSIP_ALPN.to_vec()])
            .clear_ip_transports()
            .bind_addr(SocketAddr::from((source, 0)))?
            .bind()
            .await
            .with_context(|| format!("cannot bind a raw endpoint on {source}"))?;
        Ok(Self { endpoint })
    }

    /// The identity.
    pub fn id(&self) -> EndpointId {
        self.endpoint.id()
    }

    /// The identity with the loopback address.
    pub fn addr(&self) -> EndpointAddr {
        loopback_addr(&self.endpoint)
    }

    /// Dials and finishes the handshake.
    pub async fn dial(&self, addr: EndpointAddr) -> RawConnection {
        self.try_dial(addr).await.expect("the node accepts a raw peer")
    }

    /// Dials; a refusal is an answer too.
    ///
    /// # Errors
    ///
    /// Why there is no connection.
    pub async fn try_dial(&self, addr: EndpointAddr) -> Result<RawConnection> {
        let connection = tokio::time::timeout(PATIENCE, self.endpoint.connect(addr, GOSSIP_ALPN)).await??;
        Ok(RawConnection { connection })
    }

    /// Begins a handshake through a one-way street: what this peer sends arrives, no answer comes back. The remote has
    /// a half-open handshake until it gives up or the returned value is dropped.
    pub async fn half_open(&self, addr: EndpointAddr) -> HalfOpen {
        self.dial_through(addr, carry_one_way).await
    }

    /// Begins a handshake that goes silent: every answer comes back, but only the first `passed` datagrams of this peer
    /// arrive, its own words at the end of a handshake included.
    pub async fn stalled(&self, addr: EndpointAddr, passed: usize) -> HalfOpen {
        self.dial_through(addr, move |street, remote| carry_first(street, remote, passed)).await
    }

    async fn dial_through<F>(&self, addr: EndpointAddr, carry: impl FnOnce(UdpSocket, SocketAddr) -> F) -> HalfOpen
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let remote = *addr.ip_addrs().next().expect("the node has an address");
        let street = UdpSocket::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let entrance = street.local_addr().expect("a bound socket has an address");
        let entrance = EndpointAddr::new(addr.id).with_ip_addr(entrance);
        let (endpoint, carry) = (self.endpoint.clone(), carry(street, remote));
        let task = tokio::spawn(async move {
            let dial = async {
                // A connection that believes to be open stays silent until the remote is tired of it.
                if let Ok(connection) = endpoint.connect(entrance, GOSSIP_ALPN).await {
                    connection.closed().await;
                }
            };
            tokio::select! {
                () = dial => {}
                () = carry => {}
            }
        });
        HalfOpen { task }
    }

    /// Waits for somebody to dial this peer.
    pub async fn accept(&self) -> RawConnection {
        let incoming = within_patience("an incoming connection", self.endpoint.accept()).await;
        let incoming = incoming.expect("the raw endpoint is open");
        let connection = within_patience("a finished handshake", incoming).await.expect("the handshake succeeds");
        RawConnection { connection }
    }

    /// Waits for somebody to dial this peer, and refuses.
    pub async fn refuse(&self) {
        let incoming = within_patience("an incoming connection", self.endpoint.accept()).await;
        incoming.expect("the raw endpoint is open").refuse();
    }

    /// Refuses everybody who dials this peer until then; how many that were.
    pub async fn refuse_until(&self, deadline: Instant) -> usize {
        let mut refused = 0;
        while let Ok(incoming) = tokio::time::timeout_at(deadline, self.endpoint.accept()).await {
            incoming.expect("the raw endpoint is open").refuse();
            refused += 1;
        }
        refused
    }

    /// Closes every connection and the endpoint.
    pub async fn shutdown(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(15), self.endpoint.close()).await;
    }
}

impl RawConnection {
    /// Opens a stream without writing anything: the remote hears of it when a later stream is written to.
    pub async fn open_bare(&self) -> SendStream {
        within_patience("credit for a stream", self.connection.open_uni()).await.expect("the connection is open")
    }

    /// Opens a stream for a topic and writes these message bodies, each in a frame.
    pub async fn open(&self, topic: TopicId, bodies: &[Vec<u8>]) -> SendStream {
        let mut stream = self.open_bare().await;
        write(&mut stream, &frames::header(topic)).await;
        for body in bodies {
            write(&mut stream, &frames::frame(body)).await;
        }
        stream
    }

    /// As [`RawConnection::open`] for a remote that may close the connection meanwhile.
    pub async fn try_open(&self, topic: TopicId, bodies: &[Vec<u8>]) -> Option<SendStream> {
        let mut stream = self.connection.open_uni().await.ok()?;
        write(&mut stream, &frames::header(topic)).await;
        for body in bodies {
            write(&mut stream, &frames::frame(body)).await;
        }
        Some(stream)
    }

    /// Opens a stream and writes these bytes, whatever they are.
    pub async fn open_with_bytes(&self, bytes: &[u8]) -> SendStream {
        let mut stream = self.open_bare().await;
        write(&mut stream, bytes).await;
        stream
    }

    /// Waits for the remote's next stream and reads its header.
    pub async fn accept_stream(&self) -> RawStream {
        let accepted = within_patience("a stream of the remote", self.connection.accept_uni()).await;
        let mut stream = accepted.expect("the connection is open");
        let header = read_frame(&mut stream).await.expect("a stream begins with a header");
        let topic = header.try_into().expect("a header is a topic of 32 bytes");
        RawStream { topic: TopicId::from_bytes(topic), stream }
    }

    /// Waits until the remote has closed this connection.
    pub async fn closed(&self) -> ConnectionError {
        within_patience("the connection closed by the remote", self.connection.closed()).await
    }

    /// Waits until the remote has closed this connection, and returns its code and its reason text.
    pub async fn closed_with(&self) -> (u64, String) {
        match self.closed().await {
            ConnectionError::ApplicationClosed(close) => {
                (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
            }
            other => panic!("closed without a word of the application: {other}"),
        }
    }

    /// Whether the connection is still open.
    pub fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Closes with this code and reason.
    pub fn close_with(&self, close: perennial::Close) {
        self.connection.close(u32::from(close.code.number()).into(), close.reason().as_bytes());
    }

    /// Closes with code 0.
    pub fn close(&self) {
        self.connection.close(VarInt::from_u32(0), b"done");
    }
}

impl RawStream {
    /// The next message body; `None` when the remote finished the stream.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        within_patience("a frame", read_frame(&mut self.stream)).await
    }

    /// The next message body that `is_wanted`; others are skipped.
    pub async fn next_where(&mut self, is_wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        for _ in 0..1000 {
            let body = self.next().await.expect("the stream goes on until the frame that was waited for");
            if is_wanted(&body) {
                return body;
            }
        }
        panic!("1000 frames and none is the one that was waited for");
    }
}

/// Writes all of it. A remote that has closed the connection meanwhile is a legitimate answer to hostile bytes.
pub async fn write(stream: &mut SendStream, bytes: &[u8]) -> bool {
    within_patience("room to write", stream.write_all(bytes)).await.is_ok()
}

/// Passes on every datagram that does not come from `remote`, and only to it.
async fn carry_one_way(street: UdpSocket, remote: SocketAddr) {
    let mut datagram = vec![0; 2048];
    while let Ok((len, from)) = street.recv_from(&mut datagram).await {
        if from != remote {
            let _ = street.send_to(&datagram[..len], remote).await;
        }
    }
}

/// Passes on every datagram of `remote`, and the first `passed` of whoever else speaks here.
async fn carry_first(street: UdpSocket, remote: SocketAddr, mut passed: usize) {
    let (mut datagram, mut dialer) = (vec![0; 2048], None);
    while let Ok((len, from)) = street.recv_from(&mut datagram).await {
        let to = match (from == remote, dialer) {
            (true, Some(dialer)) => dialer,
            (true, None) => continue,
            (false, _) => {
                dialer = Some(from);
                match passed.checked_sub(1) {
                    Some(left) => passed = left,
                    None => continue,
                }
                remote
            }
        };
        let _ = street.send_to(&datagram[..len], to).await;
    }
}

async fn read_frame(stream: &mut RecvStream) -> Option<Vec<u8>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await.ok()?;
    let len = u32::from_be_bytes(len);
    assert!(len <= 4096, "a frame of {len} bytes; no honest peer writes more than 4096");
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

async fn within_patience<T>(what: &str, future: impl IntoFuture<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("a raw peer waited {PATIENCE:?} for {what}"),
    }
}
