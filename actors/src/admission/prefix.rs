//! Whose attempts count together: the groups a source address belongs to. `[pure]`
//!
//! One remote often owns many addresses: a host has 2⁶⁴ of its IPv6 network, a lodger of a data center a /24, and a peer
//! behind a relay as many ids as it cares to mint. Caps, buckets and evictions therefore count groups. What is counted,
//! and how much is too much, is not said here.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv6Addr},
};

use iroh::RelayUrl;

/// Where an attempt comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Straight from an address. It can be forged until the remote has answered a packet of ours.
    Ip(IpAddr),
    /// Through a relay. Nothing is known of the remote but an id, which costs nothing to make.
    Relay(RelayUrl),
}

impl Origin {
    /// Whether the attempt comes from this machine. IPv4 written as IPv6 is recognised.
    pub(crate) fn is_loopback(&self) -> bool {
        match self {
            Origin::Ip(address) => address.to_canonical().is_loopback(),
            Origin::Relay(_) => false,
        }
    }
}

/// The two groups of one origin. A relay is one group however it is looked at, so there both are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Groups {
    /// One customer: an IPv4 address, an IPv6 /56, a relay.
    pub(crate) fine: GroupKey,
    /// One network: an IPv4 /24, an IPv6 /48, a relay.
    pub(crate) coarse: GroupKey,
    /// Whether this is a relay, behind which many honest remotes may stand.
    pub(crate) is_relay: bool,
}

/// A group under the secret order of one node: eight bytes, equal within a group.
///
/// The order says nothing about the addresses, and nobody outside can tell which group comes first. That is what makes
/// it fit to decide who is protected where not everybody can be ([Bitcoin's keyed network
/// groups](https://github.com/bitcoin/bitcoin/blob/v28.0/src/node/eviction.cpp)). By chance, two of a million groups
/// share a key with a probability of 3 · 10⁻⁸.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupKey(u64);

/// Sorts origins into groups, under a secret of this node.
#[derive(Clone)]
pub(crate) struct Grouping {
    secret: u64,
}

impl Grouping {
    /// `secret` comes from the random source of the node, new at every start.
    ///
    /// The hash is the SipHash of the standard library, with the secret as its first block: `RandomState` draws its own
    /// key and would make equal runs differ, and a hash without a secret would let an attacker look for addresses that
    /// share a key, or that come first. 64 bits are enough, because no key ever leaves the node.
    pub(crate) fn new(secret: u64) -> Self {
        Self { secret }
    }

    /// The groups of `origin`.
    pub(crate) fn groups(&self, origin: &Origin) -> Groups {
        match origin {
            Origin::Ip(address) => self.address_groups(address.to_canonical()),
            Origin::Relay(url) => {
                // The full stop of a fully qualified name, a path or a user's name make no second relay.
                let host = url.host_str().unwrap_or_default().trim_end_matches('.');
                let key = self.key(("relay", host, url.port_or_known_default()));
                Groups { fine: key, coarse: key, is_relay: true }
            }
        }
    }

    fn address_groups(&self, address: IpAddr) -> Groups {
        let prefix = |bits: u32| match address {
            IpAddr::V4(address) => self.key(("v4", bits, address.to_bits() >> (32 - bits))),
            IpAddr::V6(address) => self.key(("v6", bits, address.to_bits() >> (128 - bits))),
        };
        let (fine, coarse) = match address {
            IpAddr::V4(_) => (32, 24),
            IpAddr::V6(address) if is_link_local(address) => (64, 64),
            IpAddr::V6(_) => (56, 48),
        };
        Groups { fine: prefix(fine), coarse: prefix(coarse), is_relay: false }
    }

    /// What is hashed begins with its kind and its length: 10.0.0.0/24 is not 10.0.0.0/32.
    fn key(&self, group: impl Hash) -> GroupKey {
        let mut hasher = DefaultHasher::new();
        self.secret.hash(&mut hasher);
        group.hash(&mut hasher);
        GroupKey(hasher.finish())
    }
}

/// Whoever sees the secret can choose colliding addresses.
impl fmt::Debug for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grouping").finish_non_exhaustive()
    }
}

/// fe80::/10. All of one link share a /64, and no provider hands out larger networks of these.
fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
impl GroupKey {
    /// A key without an address behind it.
    pub(crate) fn forged(key: u64) -> Self {
        Self(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_one_customer_share_the_fine_group_and_of_one_network_the_coarse() {
        check("10.1.2.3", "10.1.2.3", "fine coarse");
        check("10.1.2.3", "10.1.2.4", "coarse");
        check("10.1.2.3", "10.1.3.3", "");
        check("10.1.2.0", "10.1.2.255", "coarse");
        check("2001:db8:1:200::1", "2001:db8:1:2ff:ffff::2", "fine coarse");
        check("2001:db8:1:200::1", "2001:db8:1:300::1", "coarse");
        check("2001:db8:1:200::1", "2001:db8:2:200::1", "");
        check("10.1.2.3", "::ffff:10.1.2.3", "fine coarse");
        check("10.1.2.3", "::10.1.2.3", "");
        check("fe80::1", "fe80::2", "fine coarse");
        check("fe80:0:0:1::1", "fe80:0:0:2::1", "");
        check("febf::1", "fec0::1", "");
    }

    #[test]
    fn a_relay_is_one_group_however_its_address_is_written() {
        check("https://relay.example/", "https://relay.example./", "fine coarse");
        check("https://relay.example/", "https://RELAY.example:443/path?a=b", "fine coarse");
        check("https://relay.example/", "https://relay.example:444/", "");
        check("https://relay.example/", "https://other.example/", "");
        check("https://10.1.2.3/", "10.1.2.3", "");
        let groups = Grouping::new(1).groups(&origin("https://relay.example/"));
        assert!(groups.is_relay && groups.fine == groups.coarse);
    }

    #[test]
    fn loopback_is_recognised_in_every_spelling() {
        for here in ["127.0.0.1", "127.255.3.4", "::1", "::ffff:127.0.0.1"] {
            assert!(origin(here).is_loopback(), "{here}");
        }
        for elsewhere in ["10.0.0.1", "::2", "0.0.0.0", "fe80::1", "https://127.0.0.1/", "https://localhost/"] {
            assert!(!origin(elsewhere).is_loopback(), "{elsewhere}");
        }
    }

    #[test]
    fn another_secret_gives_another_order_and_is_never_printed() {
        let order = |secret: u64| {
            let grouping = Grouping::new(secret);
            let mut hosts: Vec<u8> = (0..32).collect();
            hosts.sort_by_key(|host| grouping.groups(&origin(&format!("10.0.{host}.1"))).coarse);
            hosts
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_eq!(format!("{:?}", Grouping::new(0x5ec)), "Grouping { .. }");
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

        /// Two addresses are together exactly if their prefixes are equal, whatever the secret.
        #[test]
        fn groups_are_prefixes(secret: u64, a: u32, flipped in 0..32u32, long: u128, long_flipped in 0..128u32) {
            let grouping = Grouping::new(secret);
            let groups = |address: IpAddr| grouping.groups(&Origin::Ip(address));
            let (one, two) = (groups(IpAddr::V4(a.into())), groups(IpAddr::V4((a ^ 1 << flipped).into())));
            prop_assert!(one.fine != two.fine && one.fine != one.coarse);
            prop_assert_eq!(one.coarse == two.coarse, flipped < 8);

            // Not in ::/8, where mapped addresses are, nor in f000::/4 with the local links.
            let long = long % (14 << 124) + (1 << 124);
            let (one, two) = (groups(IpAddr::V6(long.into())), groups(IpAddr::V6((long ^ 1 << long_flipped).into())));
            prop_assert_eq!(one.fine == two.fine, long_flipped < 72);
            prop_assert_eq!(one.coarse == two.coarse, long_flipped < 80);
        }
    }

    /// Says which groups two origins share.
    fn check(one: &str, two: &str, shared: &str) {
        let grouping = Grouping::new(7);
        let (a, b) = (grouping.groups(&origin(one)), grouping.groups(&origin(two)));
        let equal = [("fine", a.fine == b.fine), ("coarse", a.coarse == b.coarse)];
        let names: Vec<&str> = equal.into_iter().filter(|(_, is_equal)| *is_equal).map(|(name, _)| name).collect();
        assert_eq!(names.join(" "), shared, "{one} and {two}");
    }

    fn origin(text: &str) -> Origin {
        match text.parse() {
            Ok(address) => Origin::Ip(address),
            Err(_no_address) => Origin::Relay(text.parse().expect("an address or a URL")),
        }
    }
}
