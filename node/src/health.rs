//! Whether all is well: what `/healthz` and `/readyz` answer, and the little that has to be remembered for it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use perennial::{Kind, LedgerReport};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    control::{
        answers,
        protocol::health::{Check, Health, Readiness},
    },
    lines::VERSION,
    node::Node,
    probe::ProbeState,
};

/// The main loop turns once a second; one that has not for this long hangs. As long as anything else here may take twice.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the ledger is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Orphans that stay this long are a leak: whatever ends has a deadline shorter than that.
const ORPHANS_TIMEOUT: Duration = Duration::from_secs(30);

/// What is remembered of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Vigil {
    draining: CancellationToken,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    turned: Instant,
    orphans: Orphans,
}

impl Vigil {
    pub(crate) fn new() -> Self {
        let seen = Seen { turned: Instant::now(), orphans: Orphans::default() };
        Self { draining: CancellationToken::new(), seen: Arc::new(Mutex::new(seen)) }
    }

    /// The main loop has turned.
    pub(crate) fn on_turn(&self) {
        self.lock().turned = Instant::now();
    }

    /// From here on the node takes no work.
    pub(crate) fn on_drain(&self) {
        self.draining.cancel();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Looks at the ledger from time to time, until the mesh has ended.
    pub(crate) async fn keep(self, node: Node) {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let Ok(report) = node.mesh.ledger().await else { return };
            let report = node.tasks.add_to(report);
            if self.lock().orphans.on_look(Instant::now(), report.orphans()) {
                tracing::error!(kinds = kinds_of_orphans(&report), "tasks are alive that nobody owns");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // Nothing panics while holding it.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kinds_of_orphans(report: &LedgerReport) -> String {
    let kinds = report.kinds.iter().filter(|line| line.orphans() != 0);
    kinds.map(|line| format!("{} {}", line.orphans(), line.kind)).collect::<Vec<_>>().join(", ")
}

/// Since when there have been orphans without a break.
#[derive(Debug, Clone, Copy, Default)]
struct Orphans {
    since: Option<Instant>,
    count: u64,
    is_told: bool,
}

impl Orphans {
    /// Whether this look is the first to find that they stay.
    fn on_look(&mut self, now: Instant, count: u64) -> bool {
        self.count = count;
        self.since = (count > 0).then(|| self.since.unwrap_or(now));
        let stay = self.stay(now);
        let was_told = std::mem::replace(&mut self.is_told, stay);
        stay && !was_told
    }

    fn stay(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= ORPHANS_TIMEOUT)
    }
}

/// What `/healthz` answers. A node that drains has left its main loop, and is well.
pub(crate) fn health(node: &Node) -> Health {
    let turned_ago = node.vigil.lock().turned.elapsed();
    let healthy = turned_ago < TURN_TIMEOUT || node.vigil.is_draining();
    Health { v: VERSION, healthy, turned_s_ago: turned_ago.as_millis() as f64 / 1e3 }
}

/// What `/readyz` answers.
pub(crate) async fn readiness(node: &Node) -> Readiness {
    let checks = vec![accepting(node).await, self_probe(&node.probe.state()), orphans(node), draining(node)];
    let (ready, degraded) = (checks.iter().all(|check| check.ok), answers::degraded(node));
    Readiness { v: VERSION, ready, checks, degraded }
}

async fn accepting(node: &Node) -> Check {
    let (ok, reason) = match node.mesh.ledger().await {
        Ok(report) if report.kind(Kind::Acceptor).owned > 0 => (true, "connections are accepted"),
        Ok(_) => (false, "the acceptor does not run"),
        Err(_) => (false, "the mesh has ended"),
    };
    check("accepting", ok, reason)
}

fn orphans(node: &Node) -> Check {
    let Orphans { since, count, .. } = node.vigil.lock().orphans;
    let Some(since) = since else { return check("orphans", true, "every task is accounted for") };
    let (for_s, is_leak) = (since.elapsed().as_secs(), since.elapsed() >= ORPHANS_TIMEOUT);
    check("orphans", !is_leak, format!("{count} tasks have been alive for {for_s} s that nobody owns"))
}

fn self_probe(probe: &ProbeState) -> Check {
    match (probe.trouble(), probe.view().succeeded) {
        (Some(trouble), _) => check("self-probe", false, trouble),
        (None, 0) => check("self-probe", true, "the node has not probed itself"),
        (None, succeeded) => check("self-probe", true, format!("the node reaches itself, {succeeded} times until now")),
    }
}

fn draining(node: &Node) -> Check {
    match node.vigil.is_draining() {
        true => check("draining", false, "the node is draining and takes no work"),
        false => check("draining", true, "the node is not draining"),
    }
}

fn check(name: &str, ok: bool, reason: impl Into<String>) -> Check {
    Check { name: name.into(), ok, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_reach_itself_three_times_in_a_row_is_not_ready() {
        let mut probe = ProbeState::default();
        assert!(self_probe(&probe).ok, "before the first probe nothing is held against it");
        for _ in 0..3 {
            assert!(self_probe(&probe).ok);
            probe.on_failure(perennial::ProbeStage::Echo, "echo at 127.0.0.1:7: no answer in time");
        }
        let Check { ok, reason, .. } = self_probe(&probe);
        assert_eq!(
            (ok, reason.as_str()),
            (false, "the node did not reach itself 3 times in a row: echo at 127.0.0.1:7: no answer in time")
        );
    }

    #[test]
    fn orphans_are_a_leak_once_they_have_stayed_and_are_told_once() {
        let mut orphans = Orphans::default();
        let start = Instant::now();
        let mut look = |after_s: u64, count| {
            let now = start + Duration::from_secs(after_s);
            (orphans.on_look(now, count), orphans.stay(now))
        };
        assert_eq!(look(0, 1), (false, false), "whatever ends is one for a moment");
        assert_eq!(look(29, 7), (false, false));
        assert_eq!(look(30, 1), (true, true));
        assert_eq!(look(31, 1), (false, true), "told once");
        assert_eq!(look(32, 0), (false, false));
        assert_eq!(look(33, 1), (false, false), "a gap begins anew");
        assert_eq!(look(63, 1), (true, true), "and is told anew");
    }
}
