//! The node probes itself: at intervals it dials its own door, as a remote would. What that comes to is in `probe/state.rs`; the
//! service manager's watchdog is fed only by a probe that came through.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use perennial::Mesh;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::service;

mod state;

pub(crate) use state::{ProbeState, ProbeView};

/// A probe takes milliseconds. One that takes this long has failed.
const DEADLINE_MAX: Duration = Duration::from_secs(5);

/// Where probes are frequent they have less time, but never less than a busy machine needs.
const DEADLINE_MIN: Duration = Duration::from_secs(1);

/// Probes within the time after which the manager gives the node up: two may fail.
const PROBES_PER_WATCHDOG: u32 = 3;

/// The probes of one node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct SelfProbe {
    state: Arc<Mutex<ProbeState>>,
    stopping: CancellationToken,
}

impl SelfProbe {
    /// What the probes have come to.
    pub(crate) fn state(&self) -> ProbeState {
        self.lock().clone()
    }

    /// The node is about to end: from here on nothing is held against it.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Probes every `every`, and more often if the watchdog asks for it, until it is stopped. Never if that is zero: then the
    /// watchdog is fed with nothing but the proof that this loop turns.
    pub(crate) async fn run(self, mesh: Mesh, every: Duration) {
        let fed = service::watchdog().map(|patience| patience / PROBES_PER_WATCHDOG);
        let is_on = !every.is_zero();
        let Some(period) = [fed, is_on.then_some(every)].into_iter().flatten().min() else { return };
        let mut turn = interval(period.max(Duration::from_millis(1)));
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased; // No more probes once it is to end.
                () = self.stopping.cancelled() => return,
                _ = turn.tick() => {}
            }
            if is_on && !self.probe(&mesh, period.clamp(DEADLINE_MIN, DEADLINE_MAX)).await {
                continue;
            }
            if fed.is_some() {
                service::alive();
            }
        }
    }

    /// Probes once; whether it came through.
    async fn probe(&self, mesh: &Mesh, deadline: Duration) -> bool {
        let outcome = mesh.probe(deadline).await;
        if self.stopping.is_cancelled() {
            return false;
        }
        let (before, after) = {
            let mut state = self.lock();
            let before = state.clone();
            match &outcome {
                Ok(report) => state.on_success(report.slowest),
                Err(error) => state.on_failure(error.stage, &error.to_string()),
            }
            (before, state.clone())
        };
        match &outcome {
            Ok(report) => tracing::debug!(?report, "probe came through"),
            Err(error) => tracing::warn!(failures = after.failures_in_row(), "probe failed: {error}"),
        }
        match (before.is_ready(), after.trouble()) {
            (false, None) => {
                tracing::info!("probes come through again");
                service::status("ready");
            }
            (true, Some(trouble)) => {
                tracing::error!("not ready: {trouble}");
                service::status(&trouble);
            }
            (_, _) => {}
        }
        outcome.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, ProbeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
