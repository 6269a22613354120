//! Who is known, who is unwelcome, and what the embedder says of the rest. No network, no clock: lists and one trait.
//!
//! The lists are looked at by the acceptor before it spends anything, after the handshake when an identity is proved, and
//! before a dial. The embedder's own word ([`Admission`]) is asked for after the lists.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use iroh::EndpointId;
use iroh_gossip::proto::TopicId;
use n0_future::boxed::BoxFuture;

use crate::stores::StoreUse;

/// What an embedder may decide about remotes. Every method has a default that decides nothing.
///
/// The answers stand before anything of a remote reaches the gossip protocol, so a refused stock node is parted from with
/// a farewell it understands and is free to try again.
pub trait Admission: fmt::Debug + Send + Sync + 'static {
    /// What to make of a remote whose identity a handshake has just proved. Asked for remotes that are on no list, in both
    /// directions. Must answer at once: it is called while a connection slot is being given out.
    fn on_handshake(&self, remote: EndpointId) -> Standing {
        let _ = remote;
        Standing::Unknown
    }

    /// Whether [`Admission::on_join`] has anything to say. If not, nobody is asked and no Join waits. Looked at once, when
    /// the mesh is spawned.
    fn decides_joins(&self) -> bool {
        true
    }

    /// Whether `remote` may become a neighbour on `topic`. Asked before anything it says of the topic reaches the protocol:
    /// until the answer its Join or Neighbor waits, and the rest is dropped and counted
    /// ([`crate::Reason::JoinNotApproved`]). It makes no difference which side dialed. Remotes that the application itself
    /// has named for this topic are approved by that, also later; all others are asked about, whoever introduced them.
    ///
    /// A yes holds while the two stay in touch and a minute beyond; to take it back, deny the remote. A no holds for 5 s: a
    /// remote that comes again later is asked about again, so a change of mind needs no other word. A refused remote does
    /// not enter the view, neither hears nor says anything on this topic, and learns of no other member; while the no holds
    /// it is not dialed for it either. A stock node takes the refusal without harm, and its other topics with this node go
    /// on.
    ///
    /// Takes its time, within [`crate::Limits::approval_timeout`]; then, or if it panics, the answer is no. At most
    /// [`crate::Limits::approvals_max`] remotes wait on a topic at once; beyond that a remote is refused without asking, for
    /// that attempt. Runs on a task of its own, which is dropped when its remote is gone. It must not block its thread: the
    /// topic would not notice, but the runtime has only so many of them.
    fn on_join(&self, remote: EndpointId, topic: TopicId) -> BoxFuture<bool> {
        let _ = (remote, topic);
        Box::pin(std::future::ready(true))
    }
}

/// Lets everyone in.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn decides_joins(&self) -> bool {
        false
    }
}

/// What a node makes of a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Configured, allowed, or met through a ticket: has slots of its own, and displaces an unknown one when there are none.
    Known,
    /// Nobody in particular.
    Unknown,
    /// Not dealt with: neither accepted nor dialed.
    Denied,
}

/// Who may connect at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Everyone who is not denied.
    #[default]
    Open,
    /// Only known remotes.
    KnownOnly,
}

/// The most ids on either list. Guess: ten times a large operator's fleet, 1.3 MB.
pub const LIST_MAX: usize = 16_384;

/// A list is as long as it may be ([`LIST_MAX`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the list holds {LIST_MAX} ids, the most it may; take some off first")]
pub struct ListFull;

/// The lists of one node, and its embedder's word. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Lists {
    lists: Arc<RwLock<Inner>>,
    embedder: Arc<dyn Admission>,
    decides_joins: bool,
    access: Access,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashSet<EndpointId>,
    denied: HashSet<EndpointId>,
    known_high_water: usize,
    denied_high_water: usize,
}

impl Lists {
    pub(crate) fn new(access: Access, embedder: Arc<dyn Admission>) -> Self {
        Self { lists: Arc::default(), decides_joins: embedder.decides_joins(), embedder, access }
    }

    /// Puts `remote` on the known list, and takes it off the other.
    pub(crate) fn allow(&self, remote: EndpointId) -> Result<(), ListFull> {
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        insert(&mut lists.known, remote)?;
        lists.mark();
        lists.denied.remove(&remote);
        Ok(())
    }

    /// Puts `remote` on the denied list, and takes it off the other.
    pub(crate) fn deny(&self, remote: EndpointId) -> Result<(), ListFull> {
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        insert(&mut lists.denied, remote)?;
        lists.mark();
        lists.known.remove(&remote);
        Ok(())
    }

    /// Takes `remote` off both lists. Whether it was on one.
    pub(crate) fn forget(&self, remote: &EndpointId) -> bool {
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        let was_known = lists.known.remove(remote);
        lists.denied.remove(remote) || was_known
    }

    /// Knows `remote` because the application named it, unless it is denied or the list is full.
    pub(crate) fn meet(&self, remote: EndpointId) {
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        if !lists.denied.contains(&remote) {
            // Beyond the bound it is treated like anyone else.
            let _full = insert(&mut lists.known, remote);
            lists.mark();
        }
    }

    /// What the lists alone say. Cheap: fit for an id that nobody has proved yet.
    pub(crate) fn listed(&self, remote: &EndpointId) -> Standing {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        match (lists.denied.contains(remote), lists.known.contains(remote)) {
            (true, _) => Standing::Denied,
            (false, true) => Standing::Known,
            (false, false) => Standing::Unknown,
        }
    }

    /// What to make of a remote whose identity is proved, or that is about to be dialed.
    pub(crate) fn standing(&self, remote: &EndpointId) -> Standing {
        let standing = match self.listed(remote) {
            Standing::Unknown => self.embedder.on_handshake(*remote),
            listed => listed,
        };
        match (standing, self.access) {
            (Standing::Unknown, Access::KnownOnly) => Standing::Denied,
            (standing, _) => standing,
        }
    }

    /// Whether the embedder is to be asked about Joins at all.
    pub(crate) fn decides_joins(&self) -> bool {
        self.decides_joins
    }

    /// The embedder, for whoever asks it about a Join.
    pub(crate) fn embedder(&self) -> Arc<dyn Admission> {
        self.embedder.clone()
    }

    /// The known list, in no order.
    pub(crate) fn known(&self) -> Vec<EndpointId> {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        lists.known.iter().copied().collect()
    }

    /// Both lists.
    pub(crate) fn stores(&self) -> [StoreUse; 2] {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        [
            StoreUse::new("known_list", Some(LIST_MAX), (lists.known.len(), lists.known_high_water)),
            StoreUse::new("denied_list", Some(LIST_MAX), (lists.denied.len(), lists.denied_high_water)),
        ]
    }

    /// Ids on the known and on the denied list.
    pub(crate) fn len(&self) -> (usize, usize) {
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        (lists.known.len(), lists.denied.len())
    }
}

impl Default for Lists {
    fn default() -> Self {
        Self::new(Access::Open, Arc::new(AdmitAll))
    }
}

impl Inner {
    fn mark(&mut self) {
        self.known_high_water = self.known_high_water.max(self.known.len());
        self.denied_high_water = self.denied_high_water.max(self.denied.len());
    }
}

fn insert(list: &mut HashSet<EndpointId>, remote: EndpointId) -> Result<(), ListFull> {
    if list.len() >= LIST_MAX && !list.contains(&remote) {
        return Err(ListFull);
    }
    list.insert(remote);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seed: u8) -> EndpointId {
        iroh::SecretKey::from_bytes(&[seed; 32]).public()
    }

    #[test]
    fn the_last_word_on_a_remote_counts_and_a_ticket_does_not_overrule_a_denial() {
        let lists = Lists::default();
        lists.allow(id(1)).unwrap();
        assert_eq!(lists.standing(&id(1)), Standing::Known);
        lists.deny(id(1)).unwrap();
        lists.meet(id(1));
        assert_eq!(lists.standing(&id(1)), Standing::Denied);
        assert!(lists.forget(&id(1)) && !lists.forget(&id(1)));
        assert_eq!(lists.standing(&id(1)), Standing::Unknown);
        assert_eq!(lists.len(), (0, 0));
    }

    #[derive(Debug)]
    struct Only(EndpointId);

    impl Admission for Only {
        fn on_handshake(&self, remote: EndpointId) -> Standing {
            if remote == self.0 { Standing::Known } else { Standing::Denied }
        }
    }

    #[test]
    fn the_embedder_is_asked_about_those_on_no_list() {
        let lists = Lists::new(Access::Open, Arc::new(Only(id(1))));
        lists.allow(id(2)).unwrap();
        let standings = [1, 2, 3].map(|seed| lists.standing(&id(seed)));
        assert_eq!(standings, [Standing::Known, Standing::Known, Standing::Denied]);
        assert_eq!(lists.listed(&id(1)), Standing::Unknown, "an id that nobody proved costs the embedder nothing");
    }

    #[test]
    fn with_access_for_the_known_nobody_else_is_dealt_with() {
        let lists = Lists::new(Access::KnownOnly, Arc::new(AdmitAll));
        lists.meet(id(1));
        assert_eq!([id(1), id(2)].map(|id| lists.standing(&id)), [Standing::Known, Standing::Denied]);
    }
}
