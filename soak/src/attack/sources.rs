//! Where attacks come from: many addresses of 127.0.0.0/8, all of them this machine. `[pure]`

use std::net::{Ipv4Addr, SocketAddr};

/// The most source addresses of one attack: one socket each, well below the usual limit of 1024 descriptors.
pub const SOURCES_MAX: usize = 500;

/// Address `number` of an attack, with a port the system chooses. Spread over the last three bytes, so that neither one
/// address nor one /24 or /16 carries many; never 127.0.x.y, where the nodes live.
pub fn source(number: usize) -> SocketAddr {
    // A multiplicative walk over the 16 million addresses; odd, so it visits each once.
    let host = (number as u32 + 1).wrapping_mul(0x9E_37_79) & 0x00ff_ffff;
    let [_, a, b, c] = host.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254)), 0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn sources_are_distinct_and_stay_on_loopback() {
        let all: BTreeSet<SocketAddr> = (0..SOURCES_MAX).map(source).collect();
        assert_eq!(all.len(), SOURCES_MAX);
        assert!(all.iter().all(|address| address.ip().is_loopback()));
        let networks: BTreeSet<[u8; 3]> = all
            .iter()
            .map(|address| match address {
                SocketAddr::V4(address) => {
                    let [_, a, b, _] = address.ip().octets();
                    [127, a, b]
                }
                SocketAddr::V6(_) => panic!("{address} is not IPv4"),
            })
            .collect();
        assert!(networks.len() > SOURCES_MAX * 9 / 10, "only {} networks", networks.len());
    }
}
