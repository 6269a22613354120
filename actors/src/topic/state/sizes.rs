//! What a topic's state holds, store by store. `[pure]`

use iroh_gossip::proto;

use super::{State, acquaintances, approvals};
use crate::limits::Limits;

/// A store of a topic's state: its name, and its bound if it has one of its own.
pub(crate) type Named = (&'static str, fn(&Limits) -> Option<usize>);

/// The stores of [`State::sizes`], in its order.
pub(crate) const STORES: [Named; 16] = [
    ("neighbors", |_| Some(proto::topic::Config::default().membership.active_view_capacity)),
    ("contacts", |_| None),
    ("message_ids", |_| None),
    ("message_cache", |_| None),
    ("message_cache_bytes", |limits| Some(limits.message_cache_bytes_max)),
    ("announced", |limits| Some(limits.announced_max * 8)),
    ("announced_timers", |limits| Some(limits.announced_max)),
    ("published", |_| Some(super::PUBLISHED_MAX * 2)),
    ("timers", |_| None),
    ("unanswered", |_| None),
    ("bootstrap", |_| Some(acquaintances::BOOTSTRAP_MAX)),
    ("introduced", |_| Some(acquaintances::INTRODUCED_MAX)),
    ("refusals", |_| Some(acquaintances::REFUSALS_MAX)),
    ("approvals_pending", |limits| Some(limits.approvals_max)),
    ("approved", |_| None),
    ("verdicts", |_| Some(approvals::VERDICTS_MAX)),
];

impl State {
    /// How much each store holds. A few lengths; nothing is walked.
    pub(crate) fn sizes(&self) -> [usize; STORES.len()] {
        let [bootstrap, introduced, refusals] = self.acquaintances.sizes();
        let [pending, approved, verdicts] = self.approvals.sizes();
        [
            self.neighbors.len(),
            self.contacts.len(),
            self.ids_kept.entries(),
            self.messages_kept.entries(),
            self.messages_kept.bytes(),
            self.announced.len(),
            self.timers.questions(),
            self.published.len(),
            self.timers.len(),
            self.unanswered.len(),
            bootstrap,
            introduced,
            refusals,
            pending,
            approved,
            verdicts,
        ]
    }
}
