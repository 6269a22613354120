//! How the QUIC endpoint is bound: addresses, protocols, windows, timeouts.

use std::net::{SocketAddr, UdpSocket};

use iroh::{
    Endpoint, RelayMode, SecretKey,
    endpoint::{Builder, PortmapperConfig, QuicTransportConfig, VarInt, presets},
};

use crate::{address_book::AddressBook, error::SpawnError, limits::Limits, wire};

/// Bytes one stream may have in flight towards us: sixteen of the largest frames.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Bytes all streams of a connection may have in flight towards us, and we towards a remote.
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// Streams a remote may have open towards us. Stock blocks its whole node when this runs out (`net/util.rs`, 0.101.0),
/// so it is never less than what iroh grants by default.
const STREAMS_MAX: usize = 100;

/// TLS tickets kept to resume sessions with remotes, eight of each at most. Only whoever comes back soon is worth one:
/// a view and a half.
const TLS_TICKETS_MAX: usize = 8 * 8;

pub(super) async fn bind(
    key: SecretKey,
    listen: &[SocketAddr],
    relay: RelayMode,
    port_mapping: bool,
    limits: &Limits,
    addresses: AddressBook,
) -> Result<Endpoint, SpawnError> {
    let port_mapping = match port_mapping {
        true => PortmapperConfig::default(),
        false => PortmapperConfig::Disabled,
    };
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .alpns(vec![wire::ALPN_PERENNIAL.to_vec(), wire::ALPN_STOCK.to_vec()])
        .relay_mode(relay)
        .portmapper_config(port_mapping)
        .transport_config(transport_config(limits))
        .max_tls_tickets(TLS_TICKETS_MAX)
        .address_lookup(addresses)
        .clear_ip_transports();
    for addr in listen {
        builder = add_listen_addr(builder, *addr)?;
    }
    builder.bind().await.map_err(|error| blame(listen, &error.to_string()))
}

fn add_listen_addr(builder: Builder, addr: SocketAddr) -> Result<Builder, SpawnError> {
    builder.bind_addr(addr).map_err(|error| SpawnError::Listen { addr, reason: error.to_string() })
}

/// iroh does not say which of several addresses could not be bound; the operating system does.
fn blame(listen: &[SocketAddr], error: &str) -> SpawnError {
    for addr in listen {
        if let Err(reason) = UdpSocket::bind(addr) {
            return SpawnError::Listen { addr: *addr, reason: reason.to_string() };
        }
    }
    SpawnError::Bind(error.to_owned())
}

fn transport_config(limits: &Limits) -> QuicTransportConfig {
    let streams = STREAMS_MAX.max(limits.topics_max + 16);
    let idle_timeout = limits.idle_timeout.try_into().expect("validated limits fit a QUIC idle timeout");
    QuicTransportConfig::builder()
        .max_idle_timeout(Some(idle_timeout))
        .keep_alive_interval(limits.keep_alive)
        .max_concurrent_uni_streams(VarInt::try_from(streams).expect("a stream count fits a varint"))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .build()
}
