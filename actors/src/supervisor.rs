//! Children: how a loop is started, watched, ended and reported. The one place in this crate that spawns a task, beside
//! the acceptor's set of handshakes.
//!
//! A [`Child`] is one task owned by one supervisor. Dropping it aborts the task; a panic is caught; however it ends, its
//! owner hears one [`Exit`] exactly once, and its line in the ledger is given back before that. What an exit *means*
//! is decided in `supervisor/restart.rs`.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use n0_future::{FutureExt, time::Instant};
use tokio::task::AbortHandle;

use crate::{
    ledger::{Entry, Kind, Ledger},
    mishaps::Mishaps,
    testing::{Faults, Registration},
};

pub(crate) mod restart;

/// How a child ended. Every ending has its own word; a kill is not a success.
#[derive(Debug)]
pub(crate) enum Exit<T> {
    /// The loop returned.
    Finished(T),
    /// The loop panicked; the payload, if it was text.
    Panicked(String),
    /// The task was aborted, by its owner or by the end of the runtime.
    Killed,
}

/// What every loop is given: where it is counted and how it can be made to fail in a test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nursery {
    pub(crate) ledger: Ledger,
    pub(crate) faults: Faults,
    pub(crate) mishaps: Mishaps,
}

impl Nursery {
    /// Starts `task` as a child of the caller. `report` is called exactly once, after the task and everything it
    /// owned have been dropped.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        kind: Kind,
        task: impl Future<Output = T> + Send + 'static,
        report: impl FnOnce(Exit<T>) + Send + 'static,
    ) -> Child {
        let registration = self.faults.open(kind);
        let number = registration.number();
        let reporter = Reporter {
            entry: Some(self.ledger.enter(kind)),
            report: Some(report),
            exit: None,
            _registration: registration,
        };
        let handle = tokio::spawn(Running { task: Box::pin(AssertUnwindSafe(task).catch_unwind()), reporter });
        let abort = handle.abort_handle();
        self.faults.fill(number, &abort);
        Child { abort }
    }
}

/// One running task; dropping the value aborts it.
#[derive(Debug)]
pub(crate) struct Child {
    abort: AbortHandle,
}

impl Child {
    /// Ends the task at its next await. Its owner hears [`Exit::Killed`].
    pub(crate) fn kill(&self) {
        self.abort.abort();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// A task and whoever reports on it, in the order in which they are dropped. An `async` block would hold the task twice, as what
/// it captured and as what it awaits: a third of what a connection costs beyond QUIC.
struct Running<F, T, R: FnOnce(Exit<T>)> {
    task: Pin<Box<F>>,
    reporter: Reporter<T, R>,
}

/// Only the task is pinned, in its box.
impl<F, T, R: FnOnce(Exit<T>)> Unpin for Running<F, T, R> {}

impl<F, T, R> Future for Running<F, T, R>
where
    F: Future<Output = Result<T, Box<dyn Any + Send>>>,
    R: FnOnce(Exit<T>),
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<()> {
        self.task.as_mut().poll(context).map(|outcome| {
            let exit = match outcome {
                Ok(value) => Exit::Finished(value),
                Err(payload) => Exit::Panicked(text_of(payload)),
            };
            self.reporter.report(exit);
        })
    }
}

/// Lives inside the task. Its `Drop` is what makes "exactly once" hold for returns, panics and aborts alike.
struct Reporter<T, R: FnOnce(Exit<T>)> {
    entry: Option<Entry>,
    report: Option<R>,
    exit: Option<Exit<T>>,
    _registration: Registration,
}

impl<T, R: FnOnce(Exit<T>)> Reporter<T, R> {
    fn report(&mut self, exit: Exit<T>) {
        self.exit = Some(exit);
    }
}

impl<T, R: FnOnce(Exit<T>)> Drop for Reporter<T, R> {
    fn drop(&mut self) {
        drop(self.entry.take());
        if let Some(report) = self.report.take() {
            report(self.exit.take().unwrap_or(Exit::Killed));
        }
    }
}

fn text_of(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => match payload.downcast::<&'static str>() {
            Ok(text) => (*text).to_owned(),
            Err(_) => "a panic without text".to_owned(),
        },
    }
}

/// The sign of life of a loop: it beats once a turn, its supervisor looks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heartbeat {
    beats: Arc<AtomicU64>,
}

impl Heartbeat {
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

/// A supervisor's view of one heartbeat.
#[derive(Debug)]
pub(crate) struct Pulse {
    heartbeat: Heartbeat,
    seen: u64,
    since: Instant,
}

impl Pulse {
    pub(crate) fn new(heartbeat: Heartbeat, now: Instant) -> Self {
        Self { heartbeat, seen: 0, since: now }
    }

    /// Whether the loop has not turned for `timeout`.
    pub(crate) fn is_frozen(&mut self, now: Instant, timeout: Duration) -> bool {
        let beats = self.heartbeat.beats.load(Ordering::Relaxed);
        if beats != self.seen {
            self.seen = beats;
            self.since = now;
        }
        now.duration_since(self.since) >= timeout
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn report_to<T: Send + 'static>(tx: oneshot::Sender<Exit<T>>) -> impl FnOnce(Exit<T>) + Send + 'static {
        move |exit| drop(tx.send(exit))
    }

    #[tokio::test]
    async fn each_ending_is_reported_once_and_leaves_the_ledger_even() {
        let nursery = Nursery::default();
        let (tx, finished) = oneshot::channel();
        let returned = nursery.spawn(Kind::Dial, async { 7 }, report_to(tx));
        assert!(matches!(finished.await, Ok(Exit::Finished(7))));

        let (tx, panicked) = oneshot::channel();
        let panics = nursery.spawn(Kind::Dial, async { panic!("boom {}", 1) }, report_to::<()>(tx));
        assert!(matches!(panicked.await, Ok(Exit::Panicked(text)) if text == "boom 1"));

        let (tx, killed) = oneshot::channel();
        let frozen = nursery.spawn(Kind::Dial, std::future::pending::<()>(), report_to(tx));
        frozen.kill();
        assert!(matches!(killed.await, Ok(Exit::Killed)));

        let (tx, dropped) = oneshot::channel();
        drop(nursery.spawn(Kind::Dial, std::future::pending::<()>(), report_to(tx)));
        assert!(matches!(dropped.await, Ok(Exit::Killed)));

        assert_eq!(nursery.ledger.alive(Kind::Dial), 0);
        drop((returned, panics, frozen));
    }

    #[tokio::test]
    async fn what_the_task_owned_is_gone_before_its_owner_hears_of_the_end() {
        let nursery = Nursery::default();
        let owned = Arc::new(());
        let watched = Arc::downgrade(&owned);
        let (tx, ended) = oneshot::channel();
        let child = nursery.spawn(
            Kind::Dial,
            async move {
                let _held = owned;
                std::future::pending::<()>().await;
            },
            move |_exit| tx.send(watched.upgrade().is_none()).expect("the test listens"),
        );
        child.kill();
        assert_eq!(ended.await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_heart_is_frozen_only_after_its_timeout() {
        let heartbeat = Heartbeat::default();
        let start = Instant::now();
        let timeout = Duration::from_secs(3);
        let mut pulse = Pulse::new(heartbeat.clone(), start);
        heartbeat.beat();
        assert!(!pulse.is_frozen(start + Duration::from_secs(2), timeout));
        assert!(!pulse.is_frozen(start + Duration::from_secs(4), timeout));
        assert!(pulse.is_frozen(start + Duration::from_secs(5), timeout));
        heartbeat.beat();
        assert!(!pulse.is_frozen(start + Duration::from_secs(9), timeout));
    }
}
