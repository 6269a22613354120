//! Faults on demand, for tests and soaks (feature `testing`): make exactly one supervised loop panic, fail, be killed or
//! hang.
//!
//! A loop that waits in a `select!` has an arm for `Faults::strike`; an actor asks `Faults::due` with every message.
//! Without the feature `Faults` is empty and no strike ever comes.

#[cfg(feature = "testing")]
pub mod paths;

#[cfg(not(feature = "testing"))]
pub(crate) use absent::{Faults, Registration};
#[cfg(feature = "testing")]
pub use present::{Fault, How};
#[cfg(feature = "testing")]
pub(crate) use present::{Faults, Registration};

#[cfg(not(feature = "testing"))]
mod absent {
    use iroh::EndpointId;
    use tokio::task::AbortHandle;

    use crate::{ledger::Kind, mishaps::Loop};

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

        pub(crate) async fn strike(&self, _at: Loop, _peer: Option<&EndpointId>) -> Strike {
            std::future::pending().await
        }

        pub(crate) fn due(&self, _at: Loop, _peer: Option<&EndpointId>) -> Option<Strike> {
            None
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
        time::Duration,
    };

    use iroh::EndpointId;
    use n0_future::time::{sleep, timeout};
    use tokio::{
        sync::{Notify, oneshot},
        task::AbortHandle,
    };

    use crate::{ledger::Kind, mishaps::Loop};

    /// A hang ends after this long, as an error: nobody watches some of the loops, and a node under test must come back.
    /// Twice [`crate::Limits::frozen_timeout`], so that whoever does watch has acted before.
    const HANG_MAX: Duration = Duration::from_secs(60);

    /// One fault: the next such loop to turn ends this way, or hangs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Fault {
        /// Which loop.
        pub at: Loop,
        /// How it fails.
        pub how: How,
        /// Only the loop that deals with this remote: a peer, a connection, a dial.
        pub peer: Option<EndpointId>,
    }

    impl Fault {
        /// A fault of whichever of these loops turns next.
        pub fn new(at: Loop, how: How) -> Self {
            Self { at, how, peer: None }
        }
    }

    /// How an injected fault shows.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum How {
        /// The loop panics.
        Panic,
        /// The loop returns as if its work had failed.
        Error,
        /// The loop's task is aborted from outside. Not for the supervisors `peers`, `peer` and `topics`, which are actors.
        Kill,
        /// The loop stops turning. It is killed by its supervisor, or returns after a minute as if its work had failed.
        Freeze,
    }

    #[derive(Debug, Clone, Default)]
    pub(crate) struct Faults {
        shared: Arc<Shared>,
    }

    #[derive(Debug, Default)]
    struct Shared {
        planned: Mutex<Vec<Planned>>,
        /// Tasks that can be killed, by the number of their registration.
        running: Mutex<BTreeMap<u64, (Kind, Option<AbortHandle>)>>,
        registrations: AtomicU64,
        changed: Notify,
    }

    #[derive(Debug)]
    struct Planned {
        fault: Fault,
        /// Hears when the fault has found its loop; whoever drops the other end has taken the fault back.
        landed: Option<oneshot::Sender<()>>,
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
                let kind = fault.at.kind();
                let running = self.shared.running.lock().expect("no holder panics");
                let victim = running.values().rev().find(|(of, handle)| *of == kind && handle.is_some());
                return victim.and_then(|(_, handle)| handle.as_ref()).map(AbortHandle::abort).is_some();
            }
            self.plan(Planned { fault, landed: None });
            true
        }

        /// Plans `fault` and waits until it has found its loop, at most `within`; then it is taken back. Whether it has.
        pub(crate) async fn inject_now(&self, fault: Fault, within: Duration) -> bool {
            if fault.how == How::Kill {
                return self.inject(fault);
            }
            let (landed, heard) = oneshot::channel();
            self.plan(Planned { fault, landed: Some(landed) });
            matches!(timeout(within, heard).await, Ok(Ok(())))
        }

        fn plan(&self, planned: Planned) {
            self.shared.planned.lock().expect("no holder panics").push(planned);
            self.shared.changed.notify_waiters();
        }

        /// Waits for a fault planned for this loop. The caller lands it in the body of its arm, so that a freeze stops
        /// the whole loop, as a real one would.
        pub(crate) async fn strike(&self, at: Loop, peer: Option<&EndpointId>) -> Strike {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                // Registered before the look, so that a fault planned in between is not missed.
                changed.as_mut().enable();
                match self.due(at, peer) {
                    Some(strike) => return strike,
                    None => changed.await,
                }
            }
        }

        /// The fault planned for this loop, if there is one.
        pub(crate) fn due(&self, at: Loop, peer: Option<&EndpointId>) -> Option<Strike> {
            let mut planned = self.shared.planned.lock().expect("no holder panics");
            planned.retain(|one| one.landed.as_ref().is_none_or(|landed| !landed.is_closed()));
            let is_meant = |fault: &Fault| fault.at == at && (fault.peer.is_none() || fault.peer.as_ref() == peer);
            let index = planned.iter().position(|one| is_meant(&one.fault))?;
            let Planned { fault, landed } = planned.remove(index);
            if let Some(landed) = landed
                && landed.send(()).is_err()
            {
                // Taken back in this very moment.
                return None;
            }
            Some(Strike(fault.how))
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
                How::Freeze => sleep(HANG_MAX).await,
                How::Error | How::Kill => {}
            }
        }
    }
}
