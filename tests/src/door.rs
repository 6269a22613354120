//! What a scenario can ask about the door of one of our nodes: who is served, what is in use, and whether everything is
//! back where it was. Only the library's public names; asserts nothing by itself but what it waits for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use iroh::EndpointId;
use perennial::{LimitUse, Limits, ListenerUse};

use crate::{
    Guest, Ours,
    ours::{fast_limits, summary},
    wait::{PATIENCE, eventually, must},
};

/// Limits for scenarios in which nobody is closed on for being idle, and whoever waits has all the time of a slow machine.
pub fn patient_limits() -> Limits {
    Limits {
        dial_timeout: Duration::from_secs(30),
        waiting_timeout: Duration::from_secs(30),
        first_frame_timeout: Duration::from_secs(120),
        unclaimed_timeout: Duration::from_secs(120),
        ..fast_limits()
    }
}

/// [`patient_limits`] with slots for `max` connections, all of which unknown remotes may have.
pub fn slots(max: usize) -> Limits {
    Limits {
        connections_max: max,
        inbound_max: max,
        known_reserve: 0,
        relay_connections_max: 0,
        connections_per_peer_max: max.min(2),
        ..patient_limits()
    }
}

/// What must be the same again after whatever happened: everything that can be held, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    held: BTreeMap<String, u64>,
}

impl Footprint {
    /// What is held, but for these.
    pub fn without(&self, names: &[&str]) -> Self {
        let mut rest = self.clone();
        rest.held.retain(|name, _| !names.contains(&name.as_str()));
        rest
    }
}

impl Ours {
    /// The limit of this name and its use.
    pub async fn limit(&self, name: &str) -> LimitUse {
        let report = self.mesh().limits().await.expect("the mesh is up");
        report.uses.into_iter().find(|one| one.name == name).unwrap_or_else(|| panic!("no limit is called {name}"))
    }

    /// How much of this limit is in use.
    pub async fn in_use(&self, name: &str) -> u64 {
        self.limit(name).await.in_use
    }

    /// A listener and its use, by its place in the configuration.
    pub async fn listener(&self, index: usize) -> ListenerUse {
        self.mesh().limits().await.expect("the mesh is up").listeners[index].clone()
    }

    /// Waits until this much of a limit is in use.
    pub async fn uses(&self, name: &str, count: u64) {
        let what = format!("{} uses {count} of {name}", self.name());
        eventually(PATIENCE, &what, async || {
            let in_use = self.in_use(name).await;
            let counts = self.census().await.counts;
            must(in_use == count, || format!("{in_use} are in use; {}", summary(&counts)))
        })
        .await;
    }

    /// The remotes whose connection is served by a loop, now.
    pub async fn served(&self) -> BTreeSet<EndpointId> {
        let peers = self.census().await.peers;
        peers.into_iter().filter(|peer| !peer.connections.is_empty()).map(|peer| peer.id).collect()
    }

    /// How many of the guests are served, now.
    pub async fn served_of(&self, guests: &[Guest]) -> usize {
        let served = self.served().await;
        guests.iter().filter(|guest| served.contains(&guest.id())).count()
    }

    /// Waits until exactly `count` of the guests are served.
    pub async fn serves(&self, guests: &[Guest], count: usize) {
        self.serves_within(PATIENCE, guests, count).await;
    }

    /// As [`Ours::serves`] with a deadline of the caller's.
    pub async fn serves_within(&self, deadline: Duration, guests: &[Guest], count: usize) {
        let what = format!("{} serves {count} of {} guests", self.name(), guests.len());
        eventually(deadline, &what, async || {
            let served = self.served_of(guests).await;
            must(served == count, || format!("{served} are served"))
        })
        .await;
    }

    /// Everything the node holds at this moment. The history and what is counted only grow, within their own bounds.
    pub async fn footprint(&self) -> Footprint {
        let census = self.census().await;
        let report = self.mesh().limits().await.expect("the mesh is up");
        let uses = report.uses.into_iter().filter(|one| one.name != "history_max");
        let listeners = report.listeners.into_iter().map(|one| (format!("listener {}", one.name), one.in_use));
        let mut held: BTreeMap<_, _> = uses.map(|one| (one.name, one.in_use)).chain(listeners).collect();
        held.insert("peers".into(), census.peers.len() as u64);
        held.insert("connections".into(), census.peers.iter().map(|peer| peer.connections.len() as u64).sum());
        held.insert("slots".into(), census.connections as u64);
        held.insert("half-open".into(), census.half_open as u64);
        held.insert("contacts".into(), census.topics.iter().map(|topic| topic.contacts as u64).sum());
        held.insert("tasks".into(), self.alive());
        held.insert("orphans".into(), census.ledger.orphans());
        Footprint { held }
    }

    /// Waits until the node holds exactly what it held then.
    pub async fn returns_to(&self, before: &Footprint) {
        self.returns_but_for(&[], before).await;
    }

    /// As [`Ours::returns_to`]; what has these names may have changed.
    pub async fn returns_but_for(&self, names: &[&str], before: &Footprint) {
        let before = before.without(names);
        eventually(PATIENCE, &format!("{} holds what it held before", self.name()), async || {
            let now = self.footprint().await.without(names);
            must(now == before, || difference(&before, &now))
        })
        .await;
    }
}

fn difference(before: &Footprint, now: &Footprint) -> String {
    let changed = now.held.iter().filter(|(name, held)| before.held.get(*name) != Some(held));
    changed
        .map(|(name, held)| format!("{name}={held} (was {:?})", before.held.get(name)))
        .collect::<Vec<_>>()
        .join(", ")
}
