//! Asks the embedder whether remotes may join: one child for each question, whose answer waits for the topic's turn.
//!
//! Whom to ask, how many at once and what an answer means is decided in `topic/state/approvals.rs`. The embedder's code runs
//! on the child's task alone, so whatever it does there, the topic goes on.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use iroh::EndpointId;
use iroh_gossip::proto::TopicId;
use n0_future::time::timeout;

use super::TopicInboxes;
use crate::{
    access::Standing,
    context::Context,
    ledger::Kind,
    mishaps::Loop,
    routes::Signals,
    supervisor::{Child, Exit},
};

/// The questions of one topic that are open. Dropping it ends them.
pub(super) struct Asking {
    topic: TopicId,
    context: Context,
    /// Wakes the topic when there is an answer.
    signals: Signals,
    /// The number of each question, and who is asking it.
    children: HashMap<EndpointId, (u64, Child)>,
    answers: Answers,
    /// How many children there are, for the census.
    owned: Arc<AtomicUsize>,
}

/// Answers that wait for the topic: at most one per remote, that to its latest question.
#[derive(Debug, Clone, Default)]
struct Answers {
    waiting: Arc<Mutex<HashMap<EndpointId, (u64, bool)>>>,
}

impl Answers {
    fn post(&self, peer: EndpointId, number: u64, is_approved: bool) {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        let latest = waiting.entry(peer).or_insert((number, is_approved));
        // The end of a question that was taken back must not overwrite the answer to a later one.
        if latest.0 <= number {
            *latest = (number, is_approved);
        }
    }

    fn take(&self) -> HashMap<EndpointId, (u64, bool)> {
        std::mem::take(&mut *self.waiting.lock().expect("no holder panics"))
    }
}

impl Asking {
    pub(super) fn new(topic: TopicId, context: Context, inboxes: &TopicInboxes) -> Self {
        let (signals, owned) = (inboxes.signals.clone(), inboxes.approvals.clone());
        Self { topic, context, signals, children: HashMap::new(), answers: Answers::default(), owned }
    }

    /// Puts question `number`. It is answered exactly once, by "no" if the embedder panics or takes too long.
    pub(super) fn ask(&mut self, peer: EndpointId, number: u64) {
        let (lists, topic, patience) = (self.context.lists.clone(), self.topic, self.context.limits.approval_timeout);
        let (faults, mishaps) = (self.context.nursery.faults.clone(), self.context.nursery.mishaps.clone());
        let question = async move {
            // Denied in the meantime: the lists stand before the embedder.
            if lists.listed(&peer) == Standing::Denied {
                return false;
            }
            tokio::select! {
                strike = faults.strike(Loop::Approval, Some(&peer)) => {
                    // A question that hangs still has its deadline.
                    let _elapsed = timeout(patience, strike.land()).await;
                    false
                }
                answer = timeout(patience, lists.embedder().on_join(peer, topic)) => answer.unwrap_or(false),
            }
        };
        let (answers, signals) = (self.answers.clone(), self.signals.clone());
        let child = self.context.nursery.spawn(Kind::Approval, question, move |exit| {
            let is_approved = match exit {
                Exit::Finished(is_approved) => is_approved,
                Exit::Panicked(text) => {
                    tracing::warn!(peer = %peer.fmt_short(), %topic, %text, "the embedder panicked over a join");
                    mishaps.note_crash(Loop::Approval);
                    false
                }
                Exit::Killed => false,
            };
            answers.post(peer, number, is_approved);
            signals.wake();
        });
        self.children.insert(peer, (number, child));
        self.show();
    }

    /// Takes the question about `peer` back.
    pub(super) fn unask(&mut self, peer: &EndpointId) {
        if self.children.remove(peer).is_some() {
            self.show();
        }
    }

    /// Answers that have come: the remote, the number of the question, and whether it may join.
    pub(super) fn take(&mut self) -> Vec<(EndpointId, u64, bool)> {
        if self.children.is_empty() {
            return Vec::new();
        }
        let answers: Vec<_> = self
            .answers
            .take()
            .into_iter()
            .filter(|(peer, (number, _))| self.children.get(peer).is_some_and(|(open, _)| open == number))
            .map(|(peer, (number, is_approved))| (peer, number, is_approved))
            .collect();
        answers.iter().for_each(|(peer, ..)| self.unask(peer));
        answers
    }

    fn show(&self) {
        self.owned.store(self.children.len(), Ordering::Relaxed);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.owned.store(0, Ordering::Relaxed);
    }
}
