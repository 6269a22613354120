//! Where known remotes were lately: a hint at who knocks before a handshake has shown it. `[pure]`
//!
//! A hint opens no door. It lets an attempt shake hands that would otherwise wait behind a flood, no more; an address can
//! be forged.

use std::{
    collections::{HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
};

/// Addresses remembered. As many known remotes as ever fit a node, twice over.
const ADDRESSES_MAX: usize = 1024;

/// The latest addresses of known remotes.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    known: HashSet<Place>,
    order: VecDeque<Place>,
}

/// Elsewhere a remote comes back from another port; on this machine every remote has the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Elsewhere(IpAddr),
    Here(SocketAddr),
}

impl From<SocketAddr> for Place {
    fn from(addr: SocketAddr) -> Self {
        let ip = addr.ip().to_canonical();
        if ip.is_loopback() { Place::Here(SocketAddr::new(ip, addr.port())) } else { Place::Elsewhere(ip) }
    }
}

impl Hints {
    /// A known remote is, or should be, at this address.
    pub(crate) fn note(&mut self, addr: SocketAddr) {
        let place = Place::from(addr);
        if !self.known.insert(place) {
            return;
        }
        self.order.push_back(place);
        if self.order.len() > ADDRESSES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Addresses remembered, and the most there may be. They only grow, so this is the most there were as well.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.order.len(), ADDRESSES_MAX)
    }

    pub(crate) fn has(&self, addr: SocketAddr) -> bool {
        self.known.contains(&Place::from(addr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_remote_is_known_again_at_another_port_but_not_on_this_machine() {
        let mut hints = Hints::default();
        hints.note(addr("192.0.2.1:4000"));
        hints.note(addr("127.0.0.1:4000"));
        assert!(hints.has(addr("192.0.2.1:5000")) && hints.has(addr("[::ffff:192.0.2.1]:1")));
        assert!(hints.has(addr("127.0.0.1:4000")) && !hints.has(addr("127.0.0.1:5000")));
    }

    #[test]
    fn the_oldest_address_is_forgotten_first() {
        let mut hints = Hints::default();
        for number in 0..=ADDRESSES_MAX as u32 {
            hints.note(SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0a00_0000 + number), 1)));
        }
        assert!(!hints.has(addr("10.0.0.0:1")) && hints.has(addr("10.0.0.1:1")));
        assert_eq!((hints.known.len(), hints.order.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
    }
}
