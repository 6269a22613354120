//! A peer's addresses as gossip carries them: a relay and some socket addresses. `[pure]`
//!
//! The bytes are those of stock's opaque `PeerData`. Who remembers addresses, and for how long, is `address_book.rs`.

use std::{collections::BTreeSet, net::SocketAddr};

use iroh::{EndpointAddr, RelayUrl, TransportAddr};
use serde::{Deserialize, Serialize};

use crate::limits::PEER_DATA_MAX;

/// The most addresses taken from one peer's data. Initials go to every one, so this bounds what a forgery reflects.
pub(crate) const ADDRESSES_READ_MAX: usize = 8;

/// The most addresses put into our own data. A host with many interfaces lists more; sixteen IPv6 ones take 320 bytes.
const ADDRESSES_WRITTEN_MAX: usize = 16;

/// The longest relay URL that fits beside the addresses: 20 bytes for each, and 5 for the lengths.
const RELAY_URL_MAX: usize = PEER_DATA_MAX - 20 * ADDRESSES_WRITTEN_MAX - 5;

/// Where a peer may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AddrInfo {
    pub(crate) relay_url: Option<RelayUrl>,
    pub(crate) direct_addresses: Vec<SocketAddr>,
}

/// [`AddrInfo`] as stock writes it.
#[derive(Serialize, Deserialize)]
struct WireAddrInfo<'a> {
    #[serde(borrow)]
    relay_url: Option<&'a str>,
    /// A set, not a list: serde reserves nothing for a set, so a forged count costs no memory.
    direct_addresses: BTreeSet<SocketAddr>,
}

impl AddrInfo {
    pub(crate) fn is_empty(&self) -> bool {
        self.relay_url.is_none() && self.direct_addresses.is_empty()
    }

    /// Reads a peer's data and tells how many addresses were left out as unusable or too many.
    ///
    /// `None` if the data is too large or unreadable. No data at all is an empty answer, as with stock; bytes after
    /// the addresses are ignored, so that a later version may add some.
    pub(crate) fn decode(data: &[u8]) -> Option<(Self, usize)> {
        if data.is_empty() {
            return Some(Default::default());
        }
        if data.len() > PEER_DATA_MAX {
            return None;
        }
        let wire: WireAddrInfo<'_> = postcard::from_bytes(data).ok()?;
        let parsed: Option<RelayUrl> = wire.relay_url.map(str::parse).transpose().ok()?;
        let offered = wire.direct_addresses.len() + usize::from(parsed.is_some());
        let info = Self {
            relay_url: parsed.filter(is_usable_relay),
            direct_addresses: wire.direct_addresses.into_iter().filter(is_usable).take(ADDRESSES_READ_MAX).collect(),
        };
        let kept = info.direct_addresses.len() + usize::from(info.relay_url.is_some());
        Some((info, offered - kept))
    }

    /// The data stock would write, never above [`PEER_DATA_MAX`]: receivers like us drop what is larger.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let wire = WireAddrInfo {
            relay_url: self.relay_url.as_ref().map(|url| url.as_str()).filter(|url| url.len() <= RELAY_URL_MAX),
            direct_addresses: self.direct_addresses.iter().copied().take(ADDRESSES_WRITTEN_MAX).collect(),
        };
        let data = postcard::to_stdvec(&wire).expect("addresses are plain values");
        debug_assert!(data.len() <= PEER_DATA_MAX, "peer data of {} bytes exceeds {PEER_DATA_MAX}", data.len());
        data
    }

    /// Leaves out what cannot be dialed.
    pub(crate) fn retain_usable(&mut self) {
        self.relay_url = self.relay_url.take().filter(is_usable_relay);
        self.direct_addresses.retain(is_usable);
    }

    pub(crate) fn transport_addrs(&self) -> impl Iterator<Item = TransportAddr> {
        let relay = self.relay_url.iter().cloned().map(TransportAddr::Relay);
        relay.chain(self.direct_addresses.iter().copied().map(TransportAddr::Ip))
    }
}

impl From<&EndpointAddr> for AddrInfo {
    /// Keeps the first relay only, as stock does; addresses of custom transports have no place on this wire.
    fn from(addr: &EndpointAddr) -> Self {
        Self { relay_url: addr.relay_urls().next().cloned(), direct_addresses: addr.ip_addrs().copied().collect() }
    }
}

/// Loopback is usable: several nodes on one machine are a mesh too.
fn is_usable(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

fn is_usable_relay(url: &RelayUrl) -> bool {
    matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_the_documented_bytes() {
        let bytes = [0x00, 0x01, 0x00, 0x7f, 0x00, 0x00, 0x01, 0xd1, 0x22];
        let (info, left_out) = AddrInfo::decode(&bytes).unwrap();
        assert_eq!(info, AddrInfo { relay_url: None, direct_addresses: vec!["127.0.0.1:4433".parse().unwrap()] });
        assert_eq!((info.encode(), left_out), (bytes.to_vec(), 0));
        assert_eq!(AddrInfo::decode(&[&bytes[..], b"later"].concat()), Some((info, 0)));
        assert_eq!(AddrInfo::decode(&[]), Some((AddrInfo::default(), 0)));
    }

    #[test]
    fn what_cannot_be_dialed_is_left_out() {
        let unusable = ["0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1", "255.255.255.255:1", "10.0.0.1:0"];
        let info = AddrInfo {
            relay_url: Some("ftp://relay.example".parse().unwrap()),
            direct_addresses: unusable.iter().chain(&["10.0.0.1:1"]).map(|text| text.parse().unwrap()).collect(),
        };
        let (read, left_out) = AddrInfo::decode(&info.encode()).unwrap();
        assert_eq!(read, AddrInfo { relay_url: None, direct_addresses: vec!["10.0.0.1:1".parse().unwrap()] });
        assert_eq!(left_out, 7);
    }

    #[test]
    fn too_many_addresses_are_cut() {
        let info = AddrInfo {
            relay_url: Some("https://relay.example./".parse().unwrap()),
            direct_addresses: (1..=200).map(|port| SocketAddr::from(([0xfd; 16], port))).collect(),
        };
        let (read, left_out) = AddrInfo::decode(&info.encode()).unwrap();
        assert_eq!((read.direct_addresses.len(), left_out), (ADDRESSES_READ_MAX, 8));
        assert_eq!(read.relay_url, info.relay_url);
    }

    #[test]
    fn a_relay_that_does_not_fit_is_not_sent() {
        let relay = format!("https://{}.example/", "a".repeat(PEER_DATA_MAX));
        let info = AddrInfo { relay_url: Some(relay.parse().unwrap()), direct_addresses: Vec::new() };
        assert_eq!(info.encode(), [0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_can_panic_the_decoder(data in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Some((info, _)) = AddrInfo::decode(&data) {
                prop_assert!(info.direct_addresses.len() <= ADDRESSES_READ_MAX);
                prop_assert!(info.encode().len() <= PEER_DATA_MAX);
            }
        }
    }
}
