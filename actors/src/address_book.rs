//! Where peers may be reached: bounded, expiring, and offered to iroh's dialer.
//!
//! The book replaces the address maps of the protocol state, which nobody can prune. It never asks the network and
//! keeps no clock: topics tell it what gossip says, with the time, and somebody sweeps it now and then.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::{
    EndpointAddr, EndpointId,
    address_lookup::{AddressLookup, EndpointData, EndpointInfo, Error, Item},
};
use n0_future::{
    boxed::BoxStream,
    stream::{self, StreamExt},
    time::Instant,
};

use crate::{limits::Limits, stores::StoreUse, wire::addr::AddrInfo};

/// The book of one node; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct AddressBook {
    book: Arc<Mutex<Book>>,
}

impl AddressBook {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { book: Arc::new(Mutex::new(Book::new(limits))) }
    }

    /// Notes what somebody says of `peer`. False if there was nothing worth keeping, or no room for hearsay.
    pub(crate) fn learn(&self, peer: EndpointId, info: AddrInfo, now: Instant) -> bool {
        self.lock().learn(peer, info, Source::Hearsay, now)
    }

    /// Notes what `peer` says of itself, over a connection that proves it is the peer: this replaces hearsay, and
    /// hearsay does not displace it.
    pub(crate) fn learn_first_hand(&self, peer: EndpointId, info: AddrInfo, now: Instant) -> bool {
        self.lock().learn(peer, info, Source::FirstHand, now)
    }

    /// Keeps an address given by the application or a ticket: it does not expire. False if nothing in it can be
    /// dialed.
    pub(crate) fn pin(&self, addr: &EndpointAddr) -> bool {
        self.lock().pin(addr.id, AddrInfo::from(addr))
    }

    pub(crate) fn get(&self, peer: &EndpointId) -> Option<AddrInfo> {
        self.lock().get(peer)
    }

    /// The peers in the book, pinned ones included.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The learned and the pinned peers.
    pub(crate) fn stores(&self) -> [StoreUse; 2] {
        let book = self.lock();
        [
            StoreUse::new("addresses", Some(book.peers_max), (book.learned.len(), book.learned_high_water)),
            StoreUse::new("addresses_pinned", Some(PINNED_MAX), (book.pinned.len(), book.pinned_high_water)),
        ]
    }

    /// Forgets what nobody confirmed for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.lock().sweep(now);
    }

    /// A panic between two lines of the book leaves at worst one address too many: not worth a poisoned node.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AddressLookup for AddressBook {
    /// What the book knows at this moment; the stream ends with it.
    fn resolve(&self, peer: EndpointId) -> Option<BoxStream<Result<Item, Error>>> {
        let info = self.get(&peer)?;
        let data = EndpointData::new(info.transport_addrs().collect());
        let item = Item::new(EndpointInfo::from_parts(peer, data), "perennial", None);
        Some(stream::once(Ok(item)).boxed())
    }
}

/// The most peers pinned; then the one pinned longest ago goes. Guess; change it when an application brings more
/// tickets than this.
const PINNED_MAX: usize = 1024;

/// Who says so. Ordered: what sorts first is evicted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Hearsay,
    FirstHand,
}

/// The rules, without lock or clock.
#[derive(Debug)]
struct Book {
    learned: HashMap<EndpointId, Learned>,
    /// The learned peers in the order of eviction.
    eviction: BTreeMap<(Source, Ticket), EndpointId>,
    pinned: HashMap<EndpointId, (AddrInfo, Ticket)>,
    last_ticket: Ticket,
    learned_high_water: usize,
    pinned_high_water: usize,
    peers_max: usize,
    addresses_max: usize,
    ttl: Duration,
}

/// Numbers confirmations in their order; two of them in one instant still differ.
type Ticket = u64;

#[derive(Debug)]
struct Learned {
    info: AddrInfo,
    source: Source,
    ticket: Ticket,
    confirmed: Instant,
}

impl Book {
    fn new(limits: &Limits) -> Self {
        Self {
            learned: HashMap::new(),
            eviction: BTreeMap::new(),
            pinned: HashMap::new(),
            last_ticket: 0,
            learned_high_water: 0,
            pinned_high_water: 0,
            peers_max: limits.addresses_max,
            addresses_max: limits.addresses_per_peer_max,
            ttl: limits.address_ttl,
        }
    }

    fn learn(&mut self, peer: EndpointId, mut info: AddrInfo, source: Source, now: Instant) -> bool {
        info.retain_usable();
        if info.is_empty() {
            return false;
        }
        let ticket = self.next_ticket();
        let fresh = |info, source| Learned { info, source, ticket, confirmed: now };
        let learned = match self.forget(&peer) {
            // What the peer said of itself comes first; hearsay fills the room behind it, and does not confirm it: an
            // address the peer has left must expire although others still pass it on.
            Some(old) if source < old.source => Learned { info: merge(old.info, info, self.addresses_max), ..old },
            Some(old) if source == Source::Hearsay => fresh(merge(info, old.info, self.addresses_max), source),
            Some(_) | None => fresh(merge(info, AddrInfo::default(), self.addresses_max), source),
        };
        self.eviction.insert((learned.source, learned.ticket), peer);
        self.learned.insert(peer, learned);
        self.evict();
        self.learned_high_water = self.learned_high_water.max(self.learned.len());
        self.learned.contains_key(&peer)
    }

    fn pin(&mut self, peer: EndpointId, mut info: AddrInfo) -> bool {
        info.retain_usable();
        if info.is_empty() {
            return false;
        }
        let old = self.pinned.remove(&peer).map(|(info, _)| info).unwrap_or_default();
        let ticket = self.next_ticket();
        self.pinned.insert(peer, (merge(info, old, self.addresses_max), ticket));
        if self.pinned.len() > PINNED_MAX {
            let oldest = self.pinned.iter().min_by_key(|(_, (_, ticket))| *ticket).map(|(peer, _)| *peer);
            oldest.and_then(|peer| self.pinned.remove(&peer));
        }
        self.pinned_high_water = self.pinned_high_water.max(self.pinned.len());
        true
    }

    /// The peer's own word first, then the application's, then hearsay.
    fn get(&self, peer: &EndpointId) -> Option<AddrInfo> {
        let pinned = self.pinned.get(peer).map(|(info, _)| info.clone());
        let learned = self.learned.get(peer);
        match (learned, pinned) {
            (None, pinned) => pinned,
            (Some(learned), None) => Some(learned.info.clone()),
            (Some(learned), Some(pinned)) => Some(match learned.source {
                Source::FirstHand => merge(learned.info.clone(), pinned, self.addresses_max),
                Source::Hearsay => merge(pinned, learned.info.clone(), self.addresses_max),
            }),
        }
    }

    #[cfg(test)]
    fn known(&self, peer: &EndpointId) -> bool {
        self.learned.contains_key(peer) || self.pinned.contains_key(peer)
    }

    fn len(&self) -> usize {
        let both = self.pinned.keys().filter(|peer| self.learned.contains_key(*peer)).count();
        self.learned.len() + self.pinned.len() - both
    }

    fn sweep(&mut self, now: Instant) {
        let Self { learned, eviction, ttl, .. } = self;
        learned.retain(|_, entry| {
            let is_fresh = now.saturating_duration_since(entry.confirmed) < *ttl;
            if !is_fresh {
                eviction.remove(&(entry.source, entry.ticket));
            }
            is_fresh
        });
        // A burst of forged ids must not keep its tables once they are gone.
        if learned.len() < learned.capacity() / 4 {
            learned.shrink_to_fit();
        }
        debug_assert_eq!(learned.len(), eviction.len());
    }

    fn evict(&mut self) {
        while self.learned.len() > self.peers_max
            && let Some((_, peer)) = self.eviction.pop_first()
        {
            self.learned.remove(&peer);
        }
        debug_assert_eq!(self.learned.len(), self.eviction.len());
    }

    fn forget(&mut self, peer: &EndpointId) -> Option<Learned> {
        let old = self.learned.remove(peer)?;
        self.eviction.remove(&(old.source, old.ticket));
        Some(old)
    }

    fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        self.last_ticket
    }
}

/// Everything of `first`, then what of `second` is new and still has room.
fn merge(mut first: AddrInfo, second: AddrInfo, addresses_max: usize) -> AddrInfo {
    let mut merged: Vec<SocketAddr> = Vec::new();
    for address in first.direct_addresses.into_iter().chain(second.direct_addresses) {
        if merged.len() < addresses_max && !merged.contains(&address) {
            merged.push(address);
        }
    }
    first.direct_addresses = merged;
    first.relay_url = first.relay_url.or(second.relay_url);
    first
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_nobody_confirms_is_forgotten() {
        let (mut book, start) = book(4);
        assert!(book.learn(peer(1), info(&[1]), Source::Hearsay, start));
        assert!(book.learn(peer(2), info(&[2]), Source::FirstHand, start));
        assert!(book.learn(peer(1), info(&[1]), Source::Hearsay, start + TTL / 2));
        book.sweep(start + TTL);
        assert_eq!((book.get(&peer(1)), book.get(&peer(2))), (Some(info(&[1])), None));
        book.sweep(start + TTL * 3 / 2);
        assert_eq!((book.len(), book.eviction.len()), (0, 0));
    }

    #[test]
    fn the_least_recently_confirmed_goes_first_and_hearsay_before_it() {
        let (mut book, now) = book(2);
        book.learn(peer(1), info(&[1]), Source::FirstHand, now);
        book.learn(peer(2), info(&[2]), Source::Hearsay, now);
        assert!(book.learn(peer(3), info(&[3]), Source::Hearsay, now));
        assert!(!book.known(&peer(2)) && book.known(&peer(1)), "hearsay went");

        assert!(book.learn(peer(4), info(&[4]), Source::FirstHand, now));
        assert!(!book.learn(peer(5), info(&[5]), Source::Hearsay, now), "no room for hearsay");
        book.learn(peer(1), info(&[1]), Source::FirstHand, now);
        book.learn(peer(6), info(&[6]), Source::FirstHand, now);
        assert!(book.known(&peer(1)) && !book.known(&peer(4)), "the older word went");
    }

    #[test]
    fn hearsay_adds_to_what_a_peer_says_of_itself_but_never_displaces_it() {
        let (mut book, now) = book(4);
        book.learn(peer(1), info(&[1, 2]), Source::Hearsay, now);
        book.learn(peer(1), info(&[3]), Source::FirstHand, now);
        assert_eq!(book.get(&peer(1)), Some(info(&[3])));
        book.learn(peer(1), info(&[11, 12, 13, 14, 15, 16, 17, 18]), Source::Hearsay, now);
        assert_eq!(book.get(&peer(1)), Some(info(&[3, 11, 12, 13, 14, 15, 16, 17])));
        book.learn(peer(1), info(&[4]), Source::FirstHand, now);
        assert_eq!(book.get(&peer(1)), Some(info(&[4])), "a peer that moved has moved");
    }

    #[test]
    fn newer_hearsay_goes_before_older() {
        let (mut book, now) = book(4);
        book.learn(peer(1), info(&[1, 2, 3, 4, 5]), Source::Hearsay, now);
        book.learn(peer(1), info(&[5, 6, 7, 8, 9]), Source::Hearsay, now);
        assert_eq!(book.get(&peer(1)), Some(info(&[5, 6, 7, 8, 9, 1, 2, 3])));
    }

    #[test]
    fn a_pinned_peer_outlives_time_and_pressure() {
        let (mut book, now) = book(2);
        assert!(book.pin(peer(1), info(&[1])));
        for n in 2..9 {
            book.learn(peer(n), info(&[9]), Source::FirstHand, now);
        }
        book.learn(peer(1), info(&[2]), Source::Hearsay, now);
        book.sweep(now + TTL * 100);
        assert_eq!((book.len(), book.get(&peer(1))), (1, Some(info(&[1]))));
        assert!(!book.pin(peer(2), info(&[0])), "port 0 cannot be dialed");
    }

    #[test]
    fn pinned_peers_have_a_bound_of_their_own() {
        let (mut book, _) = book(2);
        let peers: Vec<_> = (0..=PINNED_MAX as u32).map(wide_peer).collect();
        for peer in &peers {
            book.pin(*peer, info(&[1]));
        }
        assert_eq!(book.len(), PINNED_MAX);
        assert!(!book.known(&peers[0]) && book.known(&peers[1]));
    }

    #[tokio::test]
    async fn iroh_is_told_once_and_the_stream_ends() {
        let book = AddressBook::new(&Limits::default());
        assert!(book.resolve(peer(1)).is_none());
        let addr = EndpointAddr::new(peer(1)).with_ip_addr("127.0.0.1:1".parse().unwrap());
        assert!(book.pin(&addr));
        let items: Vec<_> = book.resolve(peer(1)).unwrap().collect().await;
        let [Ok(item)] = &items[..] else { panic!("one answer, not {items:?}") };
        assert_eq!((item.to_endpoint_addr(), item.provenance()), (addr, "perennial"));
    }

    proptest! {
        #[test]
        fn no_history_breaks_the_bounds(
            steps in prop::collection::vec((0u8..20, 0u8..4, prop::collection::vec(0u16..30, 0..12), 0u64..400), 0..80)
        ) {
            let (mut book, mut now) = book(5);
            for (name, deed, ports, seconds) in steps {
                now += Duration::from_secs(seconds);
                match deed {
                    0 => drop(book.learn(peer(name), info(&ports), Source::Hearsay, now)),
                    1 => drop(book.learn(peer(name), info(&ports), Source::FirstHand, now)),
                    2 => drop(book.pin(peer(name), info(&ports))),
                    _ => book.sweep(now),
                }
                prop_assert!(book.learned.len() <= 5);
                prop_assert_eq!(book.learned.len(), book.eviction.len());
                let addresses = book.get(&peer(name)).map_or(0, |info| info.direct_addresses.len());
                prop_assert!(addresses <= 8);
            }
        }
    }

    const TTL: Duration = Duration::from_secs(600);

    fn book(addresses_max: usize) -> (Book, Instant) {
        (Book::new(&Limits { addresses_max, address_ttl: TTL, ..Limits::default() }), Instant::now())
    }

    fn peer(name: u8) -> EndpointId {
        wide_peer(name.into())
    }

    fn wide_peer(name: u32) -> EndpointId {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&name.to_le_bytes());
        SecretKey::from_bytes(&seed).public()
    }

    fn info(ports: &[u16]) -> AddrInfo {
        let direct_addresses = ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect();
        AddrInfo { relay_url: None, direct_addresses }
    }
}
