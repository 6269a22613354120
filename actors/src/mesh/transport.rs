//! How the QUIC endpoint is bound: addresses, protocols, windows, timeouts.

use std::{
    cmp::Reverse,
    net::{SocketAddr, UdpSocket},
};

use iroh::{
    Endpoint, RelayMode, SecretKey,
    endpoint::{BindOpts, PortmapperConfig, QuicTransportConfig, VarInt, presets},
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
    for (addr, options) in routed(listen) {
        builder = builder
            .bind_addr_with_opts(addr, options)
            .map_err(|error| SpawnError::Listen { addr, reason: error.to_string() })?;
    }
    builder.bind().await.map_err(|error| blame(listen, &error.to_string()))
}

/// An endpoint for one probe, bound to `addr`: what it dials is on this host.
pub(super) async fn bind_probe(key: SecretKey, addr: SocketAddr, limits: &Limits) -> Result<Endpoint, SpawnError> {
    let builder = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport_config(limits))
        .clear_ip_transports()
        .bind_addr(addr)
        .map_err(|error| SpawnError::Listen { addr, reason: error.to_string() })?;
    builder.bind().await.map_err(|error| SpawnError::Bind(error.to_string()))
}

/// Which socket a dial leaves by: iroh wants one default route per family, named after all others, and sends through the
/// others only what is for their own network. Whose length nobody tells us, so it is the host alone, and all of loopback.
fn routed(listen: &[SocketAddr]) -> Vec<(SocketAddr, BindOpts)> {
    let mut rest: Vec<SocketAddr> = listen.to_vec();
    rest.sort_by_key(|addr| Reverse((addr.ip().is_unspecified(), !addr.ip().is_loopback())));
    let mut routed = Vec::with_capacity(rest.len());
    for is_family in [SocketAddr::is_ipv4, SocketAddr::is_ipv6] {
        let mut family = rest.iter().copied().filter(is_family);
        let Some(default) = family.next() else { continue };
        routed.extend(family.map(|addr| (addr, BindOpts::default().set_prefix_len(prefix_len(addr)))));
        routed.push((default, BindOpts::default()));
    }
    routed
}

fn prefix_len(addr: SocketAddr) -> u8 {
    match addr {
        SocketAddr::V4(addr) if addr.ip().is_loopback() => 8,
        SocketAddr::V4(_) => 32,
        SocketAddr::V6(_) => 128,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_one_default_route_and_it_comes_last() {
        let listen = ["127.0.0.1:1", "127.0.0.2:2", "[::1]:3", "192.0.2.1:4", "0.0.0.0:5", "192.0.2.1:6"];
        let listen = listen.map(|addr| addr.parse().unwrap());
        let routes: Vec<_> =
            routed(&listen).iter().map(|(addr, options)| (addr.port(), options.prefix_len())).collect();
        assert_eq!(routes, [(4, 32), (6, 32), (1, 8), (2, 8), (5, 0), (3, 0)]);
        assert_eq!(routed(&[]).len(), 0);
    }
}
