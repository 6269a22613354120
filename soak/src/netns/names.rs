//! How everything in a network is called and numbered, and whose it is: read from the name alone. `[pure]`
//!
//! Names of namespaces are visible to the whole machine, so they carry their owner; names and numbers inside the
//! namespaces are the same in every run. Whether an owner still lives is asked in `leftovers.rs`.

use std::net::Ipv4Addr;

/// How every namespace and every mount of the harness begins. Nothing else is ever removed.
pub const PREFIX: &str = "psoak";

/// Hosts of one network. The last byte of an address and of a hardware address tells the host.
pub const HOSTS_MAX: usize = 200;

/// The range set aside for tests of network equipment (RFC 2544, RFC 6890): never routed, and room for hosts that move.
pub const RANGE: &str = "198.18.0.0/15";

/// Addresses that a moving host takes before the first of them comes again.
const AWAY_ADDRESSES: u32 = 256;

/// A process, told apart from a later one with the same number and from those of other containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Inode of its process namespace: a number of another one means nothing here.
    pub pid_namespace: u64,
    /// Its process id there.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started_ticks: u64,
}

/// The names of one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// The process that removes it.
    pub owner: Owner,
    /// Tells networks of one process apart.
    pub run: u32,
}

impl Names {
    /// The namespace of a host.
    pub fn host(&self, host: usize) -> String {
        self.name(&format!("h{host}"))
    }

    /// The namespace of what lies between the hosts.
    pub fn between(&self) -> String {
        self.name("between")
    }

    /// The name under which a file system is mounted.
    pub fn disk(&self, node: usize) -> String {
        self.name(&format!("disk{node}"))
    }

    fn name(&self, what: &str) -> String {
        let Owner { pid_namespace, pid, started_ticks } = self.owner;
        format!("{PREFIX}-{pid_namespace}-{pid}-{started_ticks}-{:08x}-{what}", self.run)
    }
}

/// Whose a name is; `None` where it is none of ours.
pub fn owner(name: &str) -> Option<Owner> {
    let mut parts = name.split('-');
    let is_ours = parts.next() == Some(PREFIX) && name.matches('-').count() == 5;
    let pid_namespace = parts.next()?.parse().ok()?;
    let pid = parts.next()?.parse().ok()?;
    let started_ticks = parts.next()?.parse().ok()?;
    u32::from_str_radix(parts.next()?, 16).ok()?;
    is_ours.then_some(Owner { pid_namespace, pid, started_ticks })
}

/// The address a host starts with.
pub fn home(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, last_byte(host))
}

/// The address of a host after so many moves; none is its [`home`].
pub fn address(host: usize, moves: u32) -> Ipv4Addr {
    match moves.checked_sub(1) {
        None => home(host),
        Some(away) => Ipv4Addr::new(198, 19, (away % AWAY_ADDRESSES) as u8, last_byte(host)),
    }
}

/// The hardware address of a host, the same wherever it moves. Bit 1 of the first byte says that no vendor made it.
pub fn hardware(host: usize) -> [u8; 6] {
    [0x02, 0x50, 0x53, 0, 0, last_byte(host)]
}

/// As `ip` and `nft` write it.
pub fn hardware_text(host: usize) -> String {
    hardware(host).map(|byte| format!("{byte:02x}")).join(":")
}

/// The host of a hardware address, if it is one of ours.
pub fn host_of(hardware: [u8; 6]) -> Option<usize> {
    let [0x02, 0x50, 0x53, 0, 0, last] = hardware else { return None };
    usize::from(last).checked_sub(1).filter(|host| *host < HOSTS_MAX)
}

/// As [`host_of`], from text.
pub fn host_of_text(hardware: &str) -> Option<usize> {
    let mut bytes = [0; 6];
    let mut parts = hardware.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then(|| host_of(bytes)).flatten()
}

fn last_byte(host: usize) -> u8 {
    assert!(host < HOSTS_MAX, "host {host} of at most {HOSTS_MAX}");
    host as u8 + 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn a_name_tells_its_owner(pid_namespace: u64, pid: u32, started_ticks: u64, run: u32, host in 0..HOSTS_MAX) {
            let names = Names { owner: Owner { pid_namespace, pid, started_ticks }, run };
            for name in [names.host(host), names.between(), names.disk(host)] {
                prop_assert_eq!(owner(&name), Some(names.owner));
                // A file name, and an argument of `ip`.
                prop_assert!(name.len() < 128 && !name.contains(['/', ' ']));
            }
        }

        #[test]
        fn other_names_are_nobodys(name in "[a-z0-9-]{0,40}") {
            prop_assume!(!name.starts_with(PREFIX));
            prop_assert_eq!(owner(&name), None);
        }

        #[test]
        fn hardware_addresses_tell_the_host(host in 0..HOSTS_MAX) {
            prop_assert_eq!(host_of(hardware(host)), Some(host));
            prop_assert_eq!(host_of_text(&hardware_text(host)), Some(host));
        }
    }

    #[test]
    fn what_only_looks_like_ours_is_nobodys() {
        for name in [
            "psoak",
            "psoak-1-2-3",
            "psoak-1-2-3-zz-h0",
            "psoak-1-2-x-0000000a-h0",
            "psoak-1-2-3-0a-h0-b",
            "xpsoak-1-2-3-0a-h0",
        ] {
            assert_eq!(owner(name), None, "{name}");
        }
        for hardware in
            ["02:50:53:00:00:00", "02:50:53:00:00:ff", "ff:ff:ff:ff:ff:ff", "02:50:53", "02:50:53:00:00:01:02"]
        {
            assert_eq!(host_of_text(hardware), None, "{hardware}");
        }
    }

    #[test]
    fn no_two_addresses_are_alike() {
        let all: BTreeSet<Ipv4Addr> =
            (0..HOSTS_MAX).flat_map(|host| (0..=AWAY_ADDRESSES).map(move |moves| address(host, moves))).collect();
        assert_eq!(all.len(), HOSTS_MAX * (AWAY_ADDRESSES as usize + 1));
        assert!(all.iter().all(|address| address.octets()[0] == 198 && matches!(address.octets()[1], 18 | 19)));
    }
}
