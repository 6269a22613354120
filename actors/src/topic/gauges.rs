//! The sizes of one topic's stores, as its loop last noted them. Read by the census; nothing is decided by it.

use iroh_gossip::proto::TopicId;

use super::{TopicInboxes, owed, pending, state::STORES};
use crate::{
    limits::Limits,
    stores::{Gauge, StoreUse},
};

/// The gauges of one topic. They outlive its loop.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    state: [Gauge; STORES.len()],
    leases: Gauge,
    pending: Gauge,
    owed: Gauge,
    frames: Gauge,
    commands: Gauge,
}

/// What a topic's loop holds outside its state.
pub(super) struct LoopSizes {
    pub(super) leases: usize,
    pub(super) pending: usize,
    pub(super) owed: usize,
    pub(super) frames: usize,
    pub(super) commands: usize,
}

impl Gauges {
    pub(super) fn note(&self, of_loop: &LoopSizes, of_state: [usize; STORES.len()]) {
        self.state.iter().zip(of_state).for_each(|(gauge, size)| gauge.note(size));
        self.leases.note(of_loop.leases);
        self.pending.note(of_loop.pending);
        self.owed.note(of_loop.owed);
        self.frames.note(of_loop.frames);
        self.commands.note(of_loop.commands);
    }
}

impl TopicInboxes {
    /// Every store of this topic.
    pub(crate) fn stores(&self, topic: TopicId, limits: &Limits) -> Vec<StoreUse> {
        let gauges = &self.gauges;
        let of_state = STORES.iter().zip(&gauges.state).map(|((name, cap), gauge)| (*name, cap(limits), gauge));
        let of_loop = [
            ("leases", None, &gauges.leases),
            ("pending", Some(pending::PEERS_MAX), &gauges.pending),
            ("owed", Some(owed::OWED_MAX), &gauges.owed),
            ("topic_frames", Some(limits.topic_frames_max), &gauges.frames),
            ("topic_commands", Some(limits.topic_commands_max), &gauges.commands),
        ];
        let mut stores: Vec<_> =
            of_state.chain(of_loop).map(|(name, cap, gauge)| StoreUse::new(name, cap, gauge.read())).collect();
        // And the word that something was lost.
        stores.push(StoreUse::unmarked("events", Some(limits.events_max + 1), self.events.queued()));
        stores.push(StoreUse::unmarked("signals", None, self.signals.len()));
        stores.into_iter().map(|store| store.of_topic(topic)).collect()
    }
}
