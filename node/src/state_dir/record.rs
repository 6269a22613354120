//! What is kept between two lives of a node: who was known, who was a neighbour on which topic, and how that went. `[pure]`
//!
//! JSON with a version, so that a person can read it and a later program can tell that it cannot.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use iroh::{EndpointAddr, EndpointId, TransportAddr};
use perennial::{MeshMemory, TopicId};
use serde::{Deserialize, Serialize};

use crate::names::topic_hex;

/// The version this program writes, and the only one it reads.
pub(crate) const VERSION: u32 = 1;

/// Neighbours kept per topic: the active view (5) and a few more, as Bitcoin keeps anchors.
const NEIGHBORS_MAX: usize = 8;

/// Topics kept. As many as a node may join.
const TOPICS_MAX: usize = 64;

/// Known remotes kept. As many as the mesh pins addresses of.
const KNOWN_MAX: usize = 1024;

/// Addresses kept of one remote.
const ADDRS_MAX: usize = 8;

/// A neighbour that stays is noted again only after this long, so that a quiet node does not write for ever.
const SEEN_AGAIN_SECS: u64 = 300;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    v: u32,
    known: Vec<Place>,
    /// By topic, as 64 hex digits.
    topics: BTreeMap<String, Vec<Neighbor>>,
}

/// A remote and where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    id: EndpointId,
    addrs: Vec<String>,
}

/// A remote that was a neighbour, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Neighbor {
    #[serde(flatten)]
    place: Place,
    /// When it was last connected, in seconds since 1970.
    last_seen: u64,
    /// Failed attempts to reach it since.
    failures: u32,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self { v: VERSION, ..Self::default() }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong and what would be right.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let Version { v } = serde_json::from_slice(text).map_err(|error| {
            format!("is no JSON object with a version `v` ({error}); version {VERSION} would be right")
        })?;
        if v != VERSION {
            return Err(format!("has version {v}; this program reads version {VERSION}"));
        }
        let record: Self = serde_json::from_slice(text)
            .map_err(|error| format!("says it has version {VERSION} but does not read as one ({error})"))?;
        if let Some(topic) =
            record.topics.keys().find(|topic| HEXLOWER.decode(topic.as_bytes()).map_or(0, |id| id.len()) != 32)
        {
            return Err(format!("names a topic `{topic}`; 64 hex digits would be right"));
        }
        Ok(record)
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers are JSON");
        text.push(b'\n');
        text
    }

    /// Whom to ask about `topic`.
    pub(crate) fn neighbors(&self, topic: TopicId) -> Vec<EndpointAddr> {
        self.topics.get(&topic_hex(topic)).into_iter().flatten().map(|neighbor| neighbor.place.addr()).collect()
    }

    pub(crate) fn known(&self) -> Vec<EndpointAddr> {
        self.known.iter().map(Place::addr).collect()
    }

    /// Takes in what the mesh remembers at `now`, in seconds since 1970. Topics and remotes that it does not speak of stay
    /// within the bounds: a node that has lost everybody needs them most.
    pub(crate) fn take_in(&mut self, memory: &MeshMemory, failures: impl Fn(&EndpointId) -> u32, now: u64) {
        for addr in memory.known.iter().take(KNOWN_MAX) {
            match self.known.iter_mut().find(|place| place.id == addr.id) {
                Some(place) => place.update(addr),
                None => self.known.push(Place::of(addr)),
            }
        }
        let is_known = |place: &Place| memory.known.iter().any(|addr| addr.id == place.id);
        self.known.retain(is_known);
        for topic in &memory.topics {
            let kept = self.topics.entry(topic_hex(topic.topic)).or_default();
            take_in_neighbors(kept, &topic.neighbors, &failures, now);
        }
        self.topics.retain(|_, kept| !kept.is_empty());
        while self.topics.len() > TOPICS_MAX {
            let last_seen = |kept: &Vec<Neighbor>| kept.iter().map(|neighbor| neighbor.last_seen).max();
            let oldest = self.topics.iter().min_by_key(|(_, kept)| last_seen(kept)).map(|(topic, _)| topic.clone());
            oldest.and_then(|topic| self.topics.remove(&topic));
        }
    }
}

fn take_in_neighbors(kept: &mut Vec<Neighbor>, live: &[EndpointAddr], failures: impl Fn(&EndpointId) -> u32, now: u64) {
    let is_live = |neighbor: &Neighbor| live.iter().any(|addr| addr.id == neighbor.place.id);
    for neighbor in kept.iter_mut().filter(|neighbor| !is_live(neighbor)) {
        neighbor.failures = neighbor.failures.max(failures(&neighbor.place.id));
    }
    for addr in live {
        match kept.iter_mut().find(|neighbor| neighbor.place.id == addr.id) {
            Some(neighbor) => {
                neighbor.place.update(addr);
                neighbor.failures = 0;
                if now.abs_diff(neighbor.last_seen) >= SEEN_AGAIN_SECS {
                    neighbor.last_seen = now;
                }
            }
            None => kept.push(Neighbor { place: Place::of(addr), last_seen: now, failures: 0 }),
        }
    }
    kept.sort_by_key(|neighbor| {
        (!is_live(neighbor), neighbor.failures, std::cmp::Reverse(neighbor.last_seen), neighbor.place.id)
    });
    kept.truncate(NEIGHBORS_MAX);
}

impl Place {
    fn of(addr: &EndpointAddr) -> Self {
        let addrs = addr.addrs.iter().filter_map(|one| match one {
            TransportAddr::Ip(addr) => Some(addr.to_string()),
            TransportAddr::Relay(url) => Some(url.to_string()),
            _ => None,
        });
        Self { id: addr.id, addrs: addrs.take(ADDRS_MAX).collect() }
    }

    /// An address is kept until there is a newer one.
    fn update(&mut self, addr: &EndpointAddr) {
        let newer = Self::of(addr);
        if !newer.addrs.is_empty() {
            *self = newer;
        }
    }

    /// What does not read as an address is left out: the others may do.
    fn addr(&self) -> EndpointAddr {
        let ip = |text: &String| text.parse().map(TransportAddr::Ip).ok();
        let relay = |text: &String| text.parse().map(TransportAddr::Relay).ok();
        let addrs = self.addrs.iter().take(ADDRS_MAX).filter_map(|text| ip(text).or_else(|| relay(text)));
        EndpointAddr::from_parts(self.id, addrs)
    }
}

#[cfg(test)]
mod tests {
    use perennial::TopicMemory;

    use super::*;

    #[test]
    fn a_record_survives_its_file() {
        let mut record = Record::new();
        record.take_in(&memory(1, &[2, 3]), |_| 0, 1000);
        let read = Record::parse(&record.to_json()).unwrap();
        assert_eq!(read, record);
        assert_eq!(ids(&read), [2, 3].map(id).into_iter().collect::<std::collections::BTreeSet<_>>());
        assert_eq!(read.known(), [addr(1)]);
        let mut neighbors = read.neighbors(topic());
        neighbors.sort();
        let mut expected = [addr(2), addr(3)];
        expected.sort();
        assert_eq!(neighbors, expected);
    }

    #[test]
    fn what_is_no_record_says_what_would_be_right() {
        let sentence = |text: &str| Record::parse(text.as_bytes()).unwrap_err();
        assert!(sentence("").contains("version 1 would be right"));
        assert!(sentence("{\"v\":1").contains("no JSON object"));
        assert_eq!(sentence(r#"{"v":2}"#), "has version 2; this program reads version 1");
        assert!(sentence(r#"{"v":1,"known":7}"#).contains("does not read as one"));
        assert!(sentence(r#"{"v":1,"known":[],"topics":{"chat":[]}}"#).contains("64 hex digits would be right"));
    }

    #[test]
    fn neighbors_that_are_gone_stay_as_long_as_there_is_room_and_the_worst_go_first() {
        let mut record = Record::new();
        record.take_in(&memory(1, &[2, 3, 4, 5]), |_| 0, 1000);
        record.take_in(&memory(1, &[]), |peer| u32::from(*peer == id(3)) * 9, 2000);
        assert_eq!(ids(&record).len(), 4, "a node that has lost everybody keeps them");
        record.take_in(&memory(1, &[10, 11, 12, 13, 14]), |_| 0, 3000);
        assert_eq!(ids(&record).len(), NEIGHBORS_MAX);
        assert!(!ids(&record).contains(&id(3)), "the one that failed went");
        assert!([10, 11, 12, 13, 14].iter().all(|n| ids(&record).contains(&id(*n))));
    }

    #[test]
    fn a_neighbor_that_stays_does_not_change_the_record_each_time() {
        let mut record = Record::new();
        record.take_in(&memory(1, &[2]), |_| 0, 1000);
        let before = record.clone();
        record.take_in(&memory(1, &[2]), |_| 0, 1030);
        assert_eq!(record, before);
        record.take_in(&memory(1, &[2]), |_| 0, 1300);
        assert_ne!(record, before);
    }

    #[test]
    fn topics_are_bounded_and_the_one_seen_longest_ago_goes() {
        let mut record = Record::new();
        for number in 0..=TOPICS_MAX as u64 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let topics = vec![TopicMemory { topic: TopicId::from_bytes(bytes), neighbors: vec![addr(2)] }];
            record.take_in(&MeshMemory { topics, known: Vec::new() }, |_| 0, 1000 + number);
        }
        assert_eq!(record.topics.len(), TOPICS_MAX);
        assert!(!record.topics.contains_key(&"0".repeat(64)));
    }

    #[test]
    fn an_address_is_kept_until_there_is_a_newer_one() {
        let mut place = Place::of(&addr(1));
        place.update(&EndpointAddr::new(id(1)));
        assert_eq!(place.addr(), addr(1));
        place.addrs.push("neither address nor URL".into());
        assert_eq!(place.addr(), addr(1));
    }

    fn ids(record: &Record) -> std::collections::BTreeSet<EndpointId> {
        record.neighbors(topic()).into_iter().map(|addr| addr.id).collect()
    }

    fn memory(known: u8, neighbors: &[u8]) -> MeshMemory {
        let topics = vec![TopicMemory { topic: topic(), neighbors: neighbors.iter().copied().map(addr).collect() }];
        MeshMemory { topics, known: vec![addr(known)] }
    }

    fn topic() -> TopicId {
        TopicId::from_bytes([7; 32])
    }

    fn addr(name: u8) -> EndpointAddr {
        EndpointAddr::new(id(name)).with_ip_addr(([127, 0, 0, 1], 1000 + u16::from(name)).into())
    }

    fn id(name: u8) -> EndpointId {
        iroh::SecretKey::from_bytes(&[name; 32]).public()
    }
}
