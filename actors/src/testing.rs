//! Faults on demand, for tests (feature `testing`): make the loop of a kind panic, fail, be killed or freeze.
//!
//! Without the feature `Faults` is empty and its strike never comes.

#[cfg(not(feature = "testing"))]
pub(crate) use absent::{Faults, Registration};
#[cfg(feature = "testing")]
pub use present::{Fault, How};
#[cfg(feature = "testing")]
pub(crate) use present::{Faults, Registration};

#[cfg(not(feature = "testing"))]
mod absent {
    use tokio::task::AbortHandle;

    use crate::ledger::Kind;

    #[derive(Debug, Clone, Default)]
    pub(crate) struct Faults;

    #[derive(Debug)]
    pub(crate) struct Registration;

    impl Registration {
        pub(crate) fn number(&self) -> u64 {
            0
        }
    }

    #[derive(Debug)]
    pub(crate) enum Strike {}

    impl Strike {
        pub(crate) async fn land(self) {
            match self {}
        }
    }

    impl Faults {
        pub(crate) fn open(&self, _kind: Kind) -> Registration {
            Registration
        }

        pub(crate) fn fill(&self, _number: u64, _abort: &AbortHandle) {}

        pub(crate) async fn strike(&self, _kind: Kind) -> Strike {
            std::future::pending().await
        }
    }
}

#[cfg(feature = "testing")]
mod present {
    use std::{
        collections::BTreeMap,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU64, Ordering},
        },
    };

    use tokio::{sync::Notify, task::AbortHandle};

    use crate::ledger::Kind;

    /// One fault: the next loop of `kind` to turn ends this way, or hangs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Fault {
        /// Which kind of loop.
        pub kind: Kind,
        /// How it fails.
        pub how: How,
    }

    /// How an injected fault shows.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum How {
        /// The loop panics.
        Panic,
        /// The loop returns as if its work had failed.
        Error,
        /// The loop's task is aborted from outside.
        Kill,
        /// The loop stops turning and never returns.
        Freeze,
    }

    #[derive(Debug, Clone, Default)]
    pub(crate) struct Faults {
        shared: Arc<Shared>,
    }

    #[derive(Debug, Default)]
    struct Shared {
        planned: Mutex<Vec<Fault>>,
        /// Tasks that can be killed, by the number of their registration.
        running: Mutex<BTreeMap<u64, (Kind, Option<AbortHandle>)>>,
        registrations: AtomicU64,
        changed: Notify,
    }

    impl Faults {
        /// Announces a task; the registration lives in it. An abort handle keeps a task's memory, so it must not stay
        /// in this table for longer than the task runs.
        pub(crate) fn open(&self, kind: Kind) -> Registration {
            let number = self.shared.registrations.fetch_add(1, Ordering::Relaxed);
            self.shared.running.lock().expect("no holder panics").insert(number, (kind, None));
            Registration { faults: self.clone(), number }
        }

        /// Tells how to kill the task announced under `number`, unless it has ended already.
        pub(crate) fn fill(&self, number: u64, abort: &AbortHandle) {
            if let Some((_, handle)) = self.shared.running.lock().expect("no holder panics").get_mut(&number) {
                *handle = Some(abort.clone());
            }
        }

        /// Plans `fault`. A kill needs a living task and says whether there was one; the rest wait for a loop to turn.
        pub(crate) fn inject(&self, fault: Fault) -> bool {
            if fault.how == How::Kill {
                let running = self.shared.running.lock().expect("no holder panics");
                let victim = running.values().rev().find(|(kind, handle)| *kind == fault.kind && handle.is_some());
                return victim.and_then(|(_, handle)| handle.as_ref()).map(AbortHandle::abort).is_some();
            }
            self.shared.planned.lock().expect("no holder panics").push(fault);
            self.shared.changed.notify_waiters();
            true
        }

        /// Waits for a fault planned for `kind`. The caller lands it in the body of its arm, so that a freeze stops
        /// the whole loop, as a real one would.
        pub(crate) async fn strike(&self, kind: Kind) -> Strike {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                // Registered before the look, so that a fault planned in between is not missed.
                changed.as_mut().enable();
                match self.take(kind) {
                    Some(how) => return Strike(how),
                    None => changed.await,
                }
            }
        }

        fn take(&self, kind: Kind) -> Option<How> {
            let mut planned = self.shared.planned.lock().expect("no holder panics");
            let at = planned.iter().position(|fault| fault.kind == kind)?;
            Some(planned.remove(at).how)
        }
    }

    /// One task's place in the table of those that can be killed.
    #[derive(Debug)]
    pub(crate) struct Registration {
        faults: Faults,
        number: u64,
    }

    impl Registration {
        pub(crate) fn number(&self) -> u64 {
            self.number
        }
    }

    impl Drop for Registration {
        fn drop(&mut self) {
            self.faults.shared.running.lock().expect("no holder panics").remove(&self.number);
        }
    }

    /// A fault that has found its loop.
    #[derive(Debug)]
    pub(crate) struct Strike(How);

    impl Strike {
        /// Panics, hangs, or returns so that the loop can end as if its work had failed.
        pub(crate) async fn land(self) {
            match self.0 {
                How::Panic => panic!("injected panic"),
                How::Freeze => std::future::pending().await,
                How::Error | How::Kill => {}
            }
        }
    }
}
