//! The supervised loops by name, and how often each ended other than in order. `[pure]`
//!
//! A crash is no error of a remote's: it is a bug of ours, or a fault somebody injected. What is done about it is decided
//! by the loop's supervisor; here it is only counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::ledger::Kind;

macro_rules! loops {
    ($($(#[doc = $doc:literal])+ $variant:ident = $kind:ident => $name:literal,)+) => {
        /// A supervised loop. A closed set.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Loop { $($(#[doc = $doc])+ $variant,)+ }

        impl Loop {
            /// Every loop, in the order of a report.
            pub const ALL: [Loop; [$($name),+].len()] = [$(Loop::$variant),+];

            /// The stable name in reports and JSON.
            pub fn name(self) -> &'static str {
                match self { $(Loop::$variant => $name,)+ }
            }

            /// The line of the ledger it stands in.
            pub fn kind(self) -> Kind {
                match self { $(Loop::$variant => Kind::$kind,)+ }
            }
        }
    };
}

loops! {
    /// The accept loop.
    Acceptor = Acceptor => "acceptor",
    /// The clock that ticks the supervisors.
    Clock = Clock => "clock",
    /// The supervisor of all remotes.
    Peers = Supervisor => "peers",
    /// The supervisor of one remote.
    Peer = Peer => "peer",
    /// The loop of one QUIC connection.
    Connection = Connection => "connection",
    /// One outgoing attempt, also one that redials.
    Dial = Dial => "dial",
    /// One incoming handshake.
    Handshake = Handshake => "handshake",
    /// The supervisor of all topics.
    Topics = Supervisor => "topics",
    /// The loop of one topic.
    Topic = Topic => "topic",
    /// One question to the embedder.
    Approval = Approval => "approval",
}

impl Loop {
    /// The loop with this name.
    pub fn from_name(name: &str) -> Option<Loop> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// The counters of one mesh. Cheap to clone; all clones count into the same lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mishaps {
    crashes: Arc<[AtomicU64; Loop::ALL.len()]>,
}

impl Mishaps {
    pub(crate) fn note_crash(&self, of: Loop) {
        self.crashes[of as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Every loop that crashed, and how often.
    pub(crate) fn crashes(&self) -> Vec<(Loop, u64)> {
        let counted = Loop::ALL.into_iter().map(|one| (one, self.crashes[one as usize].load(Ordering::Relaxed)));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loop_has_a_name_of_its_own_and_a_count_of_its_own() {
        let mishaps = Mishaps::default();
        for (index, one) in Loop::ALL.into_iter().enumerate() {
            assert_eq!(one as usize, index);
            assert_eq!(Loop::from_name(one.name()), Some(one));
            assert_eq!(mishaps.crashes().len(), index);
            mishaps.note_crash(one);
        }
        assert_eq!(Loop::from_name("root"), None);
        assert!(mishaps.crashes().iter().all(|(_, count)| *count == 1));
    }
}
