//! Which listener an attempt arrived at, what caps listeners may have, and which addresses their sockets can send to. `[pure]`
//!
//! iroh tells the local IP of an incoming attempt, or the relay it came through, but not the port. So two addresses with
//! one IP are one listener, and different caps on them are an error at the start, not a surprise later.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::limits::{Limits, LimitsError};

/// An address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The UDP address.
    pub addr: SocketAddr,
    /// Connections it may hold at one time; [`Limits::inbound_max`] without a word.
    pub connections_max: Option<usize>,
}

impl From<SocketAddr> for Listen {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, connections_max: None }
    }
}

/// A listener by its place in the configuration; relays, all together, are the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ListenerId(pub(crate) usize);

/// One listener: what it is called, and how many it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) connections_max: usize,
}

/// The listeners of one node, the relays last.
#[derive(Debug, Clone)]
pub(crate) struct Listeners {
    entries: Vec<(IpAddr, Listener)>,
    relays: Listener,
}

/// The addresses a node can send to: dials leave by the sockets it listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach(Arc<[IpAddr]>);

impl Reach {
    pub(crate) fn new(listen: &[SocketAddr]) -> Self {
        Self(listen.iter().map(SocketAddr::ip).collect())
    }

    /// Whether a socket has the address' family, and is not bound to loopback while the address is elsewhere.
    pub(crate) fn covers(&self, addr: &SocketAddr) -> bool {
        let covers = |ip: &IpAddr| ip.is_ipv4() == addr.is_ipv4() && (!ip.is_loopback() || addr.ip().is_loopback());
        self.0.iter().any(covers)
    }
}

/// What the relays are called.
pub(crate) const RELAYS: &str = "relays";

impl Listeners {
    /// # Errors
    ///
    /// Caps that cannot be kept.
    pub(crate) fn new(listen: &[Listen], limits: &Limits) -> Result<Self, LimitsError> {
        let mut entries: Vec<(IpAddr, Listener)> = Vec::new();
        for Listen { addr, connections_max } in listen {
            check(addr, *connections_max, limits)?;
            let cap = connections_max.unwrap_or(limits.inbound_max);
            let ip = addr.ip();
            if let Some((other, same)) = entries.iter().find(|(other, _)| is_one_listener(ip, *other)) {
                if same.connections_max != cap {
                    return Err(LimitsError::new(format!(
                        "{addr} and {} would have caps of {cap} and {}, but an attempt at {other} and one at {ip} cannot be \
                         told apart; give both the same max-connections",
                        same.name, same.connections_max
                    )));
                }
                if ip == *other {
                    continue;
                }
            }
            entries.push((ip, Listener { name: addr.to_string(), connections_max: cap }));
        }
        let relays = Listener { name: RELAYS.into(), connections_max: limits.relay_connections_max };
        Ok(Self { entries, relays })
    }

    /// The operating system has chosen the ports that were left to it: listeners are called by what they are bound to.
    pub(crate) fn name_by(&mut self, bound: &[SocketAddr]) {
        for (ip, listener) in &mut self.entries {
            let is_unnamed = listener.name.parse().is_ok_and(|addr: SocketAddr| addr.port() == 0);
            if is_unnamed && let Some(addr) = bound.iter().find(|addr| addr.ip() == *ip) {
                listener.name = addr.to_string();
            }
        }
    }

    /// As the door wants them.
    pub(crate) fn all(&self) -> Vec<Listener> {
        self.entries.iter().map(|(_, listener)| listener).chain([&self.relays]).cloned().collect()
    }

    /// The listener of attempts that arrive at this local address.
    pub(crate) fn at(&self, ip: Option<IpAddr>) -> ListenerId {
        let exact = |ip: IpAddr| self.entries.iter().position(|(listens, _)| *listens == ip);
        let covering = |ip: IpAddr| self.entries.iter().position(|(listens, _)| covers(*listens, ip));
        ListenerId(ip.and_then(|ip| exact(ip).or_else(|| covering(ip))).unwrap_or(0))
    }

    /// The listener of attempts that come through a relay.
    pub(crate) fn relays(&self) -> ListenerId {
        ListenerId(self.entries.len())
    }
}

/// Sets the cap of the listener of this name.
pub(crate) fn set_cap(listeners: &mut [Listener], name: &str, cap: u64) -> Result<(), LimitsError> {
    let names = || listeners.iter().map(|listener| listener.name.clone()).collect::<Vec<_>>().join(", ");
    let Some(index) = listeners.iter().position(|listener| listener.name == name) else {
        return Err(LimitsError::new(format!("no listener is called `{name}`; there are: {}", names())));
    };
    listeners[index].connections_max = cap
        .try_into()
        .map_err(|_| LimitsError::new(format!("max-connections of {cap} is more than any node can use")))?;
    Ok(())
}

/// Listeners without a cap of their own follow the limits they take it from.
pub(crate) fn follow(listeners: &mut [Listener], old: &Limits, new: &Limits) {
    for listener in listeners {
        let (was, is) = match listener.name == RELAYS {
            true => (old.relay_connections_max, new.relay_connections_max),
            false => (old.inbound_max, new.inbound_max),
        };
        if listener.connections_max == was {
            listener.connections_max = is;
        }
    }
}

/// Whether these caps can be kept. Relays may have none at all.
pub(crate) fn check_all(listeners: &[Listener], limits: &Limits) -> Result<(), LimitsError> {
    let addresses = listeners.iter().filter(|listener| listener.name != RELAYS);
    addresses.into_iter().try_for_each(|listener| check(&listener.name, Some(listener.connections_max), limits))
}

fn check(name: impl std::fmt::Display, cap: Option<usize>, limits: &Limits) -> Result<(), LimitsError> {
    match cap {
        Some(0) => Err(LimitsError::new(format!(
            "max-connections of 0 at {name}; a listener that admits nobody is better left out"
        ))),
        Some(cap) if cap > limits.inbound_max => Err(LimitsError::new(format!(
            "max-connections of {cap} at {name} exceeds inbound_max of {}, so it would never bind",
            limits.inbound_max
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Whether what arrives at one may be taken for the other: the same IP, or one that listens on all of its family.
fn is_one_listener(one: IpAddr, other: IpAddr) -> bool {
    one == other || covers(one, other) || covers(other, one)
}

fn covers(listens: IpAddr, ip: IpAddr) -> bool {
    listens.is_unspecified() && (listens.is_ipv4() == ip.is_ipv4() || listens.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(listen: &[(&str, Option<usize>)]) -> Result<Listeners, LimitsError> {
        let listen: Vec<_> = listen
            .iter()
            .map(|(addr, connections_max)| Listen { addr: addr.parse().unwrap(), connections_max: *connections_max })
            .collect();
        Listeners::new(&listen, &Limits::default())
    }

    #[test]
    fn an_address_is_in_reach_if_a_socket_can_send_to_it() {
        let reached = |listen: &[&str]| {
            let listen: Vec<_> = listen.iter().map(|addr| addr.parse().unwrap()).collect();
            let reach = Reach::new(&listen);
            let all = ["127.0.0.9:1", "192.0.2.1:1", "[::1]:1", "[2001:db8::1]:1"];
            all.into_iter().filter(|addr| reach.covers(&addr.parse().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(reached(&["127.0.0.1:0"]), ["127.0.0.9:1"]);
        assert_eq!(reached(&["0.0.0.0:0"]), ["127.0.0.9:1", "192.0.2.1:1"]);
        assert_eq!(reached(&["[::1]:0", "192.0.2.9:7"]), ["127.0.0.9:1", "192.0.2.1:1", "[::1]:1"]);
        assert_eq!(reached(&["[::]:0"]), ["[::1]:1", "[2001:db8::1]:1"]);
        assert_eq!(reached(&[]), [""; 0]);
    }

    #[test]
    fn an_attempt_is_charged_to_the_address_it_arrived_at() {
        let listeners = listeners(&[("127.0.0.1:1", Some(2)), ("127.0.0.2:1", Some(3))]).unwrap();
        let caps: Vec<_> = listeners.all().iter().map(|listener| listener.connections_max).collect();
        assert_eq!(caps, [2, 3, 48]);
        let at = |ip: &str| listeners.at(Some(ip.parse().unwrap())).0;
        assert_eq!((at("127.0.0.1"), at("127.0.0.2"), listeners.relays().0), (0, 1, 2));
        assert_eq!(listeners.at(None).0, 0, "an old operating system that does not say");
    }

    #[test]
    fn two_addresses_with_one_ip_are_one_listener() {
        let listeners = listeners(&[("127.0.0.1:1", Some(2)), ("127.0.0.1:2", Some(2))]).unwrap();
        assert_eq!(listeners.all().len(), 2, "one, and the relays");
    }

    #[test]
    fn a_listener_is_called_by_the_port_it_got() {
        let mut listeners = listeners(&[("127.0.0.1:0", None), ("127.0.0.2:7", None)]).unwrap();
        listeners.name_by(&["127.0.0.2:7".parse().unwrap(), "127.0.0.1:4711".parse().unwrap()]);
        let names: Vec<_> = listeners.all().into_iter().map(|listener| listener.name).collect();
        assert_eq!(names, ["127.0.0.1:4711", "127.0.0.2:7", RELAYS]);
    }

    #[test]
    fn caps_that_cannot_be_kept_are_named() {
        let error = |listen: &[(&str, Option<usize>)]| listeners(listen).unwrap_err().to_string();
        let two_ports = error(&[("127.0.0.1:1", Some(2)), ("127.0.0.1:2", Some(3))]);
        assert!(two_ports.contains("caps of 3 and 2") && two_ports.contains("cannot be told apart"), "{two_ports}");
        let everywhere = error(&[("0.0.0.0:1", None), ("10.0.0.1:2", Some(3))]);
        assert!(everywhere.contains("caps of 3 and 96"), "{everywhere}");
        let dual_stack = error(&[("[::]:1", None), ("10.0.0.1:2", Some(3))]);
        assert!(dual_stack.contains("cannot be told apart"), "{dual_stack}");
        assert!(error(&[("127.0.0.1:1", Some(0))]).starts_with("max-connections of 0 at 127.0.0.1:1"));
        assert!(error(&[("127.0.0.1:1", Some(97))]).contains("97 at 127.0.0.1:1 exceeds inbound_max of 96"));
    }
}
