//! The program's own tasks: pipe, printers, control clients. Each has an owner, a name and an entry in the ledger.
//!
//! This is the only place in `node/` that spawns. The mesh's own tasks belong to the library's supervisors.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use perennial::{Kind, Ledger, LedgerReport, ledger::Owned};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// The table of the program's tasks. Cheap to clone; dropping the last clone aborts them all.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    ledger: Ledger,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    set: JoinSet<()>,
    running: HashMap<Id, (Kind, &'static str, TaskEnd)>,
    /// Names of tasks that panicked and have not been reported.
    panicked: Vec<&'static str>,
    closed: bool,
}

/// Resolves when one task has ended, however it ended.
#[derive(Debug, Clone)]
pub(crate) struct TaskEnd(CancellationToken);

impl TaskEnd {
    pub(crate) async fn wait(&self) {
        self.0.cancelled().await;
    }

    /// Waits at most `limit`; whether the task has ended.
    pub(crate) async fn wait_at_most(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.wait()).await.is_ok()
    }
}

impl Tasks {
    /// An empty table that counts into `ledger`.
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self { ledger, table: Arc::default() }
    }

    /// Starts a task. After [`Tasks::abort_all`] nothing is started any more.
    pub(crate) fn spawn<F>(&self, kind: Kind, name: &'static str, future: F) -> TaskEnd
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let end = CancellationToken::new();
        let guard = end.clone().drop_guard();
        let mut table = self.lock();
        table.reap();
        if !table.closed {
            let entry = self.ledger.enter(kind);
            let handle = table.set.spawn(async move {
                // Declared first, dropped last: whoever waits for the end finds the ledger already even.
                let _guard = guard;
                let _entry = entry;
                future.await;
            });
            table.running.insert(handle.id(), (kind, name, TaskEnd(end.clone())));
        }
        TaskEnd(end)
    }

    /// What this table says should be alive.
    pub(crate) fn owned(&self) -> Owned {
        let mut table = self.lock();
        table.reap();
        let mut owned = Owned::none();
        for (kind, ..) in table.running.values() {
            owned.add(*kind, 1);
        }
        owned
    }

    /// The mesh's report, with this table's word for the kinds that are not the mesh's: it takes those on trust.
    pub(crate) fn add_to(&self, mut report: LedgerReport) -> LedgerReport {
        let owned = self.owned();
        for line in report.kinds.iter_mut().filter(|line| !line.kind.is_of_mesh()) {
            line.owned = owned.get(line.kind);
        }
        report
    }

    /// The tasks that panicked since the last call. Ordinary ends are forgotten here as well.
    pub(crate) fn take_panicked(&self) -> Vec<&'static str> {
        let mut table = self.lock();
        table.reap();
        std::mem::take(&mut table.panicked)
    }

    /// Waits until no task of `kind` runs, at most `limit`.
    pub(crate) async fn wait_for_none_of(&self, kind: Kind, limit: Duration) {
        let ends: Vec<TaskEnd> = {
            let table = self.lock();
            table.running.values().filter(|(of, ..)| *of == kind).map(|(.., end)| end.clone()).collect()
        };
        let all = async {
            for end in ends {
                end.wait().await;
            }
        };
        // Whoever is not done by then is aborted with the others.
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// Aborts every task and waits until they are gone, at most `limit`.
    pub(crate) async fn abort_all(&self, limit: Duration) -> bool {
        let mut set = {
            let mut table = self.lock();
            table.closed = true;
            table.running.clear();
            std::mem::take(&mut table.set)
        };
        tokio::time::timeout(limit, set.shutdown()).await.is_ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // Nothing panics while holding it; and a table is still right after somebody else's panic.
        self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Table {
    fn reap(&mut self) {
        while let Some(ended) = self.set.try_join_next_with_id() {
            let (id, panicked) = match ended {
                Ok((id, ())) => (id, false),
                Err(error) => (error.id(), error.is_panic()),
            };
            let running = self.running.remove(&id);
            if let Some((_, name, _)) = running
                && panicked
            {
                self.panicked.push(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ledger_comes_out_even_however_a_task_ends() {
        let ledger = Ledger::new();
        let tasks = Tasks::new(ledger.clone());
        let returned = tasks.spawn(Kind::Service, "returns", async {});
        let panicked = tasks.spawn(Kind::Service, "panics", async { panic!("on purpose") });
        let stays = tasks.spawn(Kind::ControlClient, "stays", std::future::pending());
        returned.wait().await;
        panicked.wait().await;
        settle(&tasks, &ledger).await;
        assert_eq!(tasks.owned().get(Kind::ControlClient), 1);
        assert_eq!(tasks.take_panicked(), ["panics"]);

        assert!(tasks.abort_all(Duration::from_secs(5)).await);
        assert!(stays.wait_at_most(Duration::from_secs(5)).await);
        settle(&tasks, &ledger).await;
        assert_eq!(ledger.alive_total(), 0);
        tasks.spawn(Kind::Service, "too late", std::future::pending()).wait().await;
        assert_eq!(ledger.alive_total(), 0, "a closed table starts nothing");
    }

    /// A task gives its entry back a moment before the runtime lists it as ended.
    async fn settle(tasks: &Tasks, ledger: &Ledger) {
        for _ in 0..1000 {
            if tasks.add_to(ledger.report(&Owned::none())).orphans() == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the ledger did not settle: {}", tasks.add_to(ledger.report(&Owned::none())));
    }
}
