//! When a node that probes itself is ready, and what it says of it. `[pure]`

use std::time::Duration;

use perennial::ProbeStage;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One failure may be a busy moment; as many in a row are not.
const FAILURES_MAX: u32 = 3;

/// What the probes of a node have come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProbeState {
    succeeded: u64,
    failed: u64,
    failures_in_row: u32,
    last_took: Option<Duration>,
    last_failure: Option<(ProbeStage, String)>,
}

/// The same for programs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProbeView {
    /// Whether the node counts as reachable: no probe yet, or fewer than three failures in a row.
    pub(crate) ready: bool,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) failures_in_row: u32,
    /// How long the last one that came through took at the slowest listener; null if none has.
    pub(crate) took_ms: Option<f64>,
    /// `bind`, `dial`, `handshake` or `echo`: how far the last one that failed had come; null if none has.
    pub(crate) failed_stage: Option<String>,
    pub(crate) failed_reason: Option<String>,
}

impl ProbeState {
    pub(crate) fn on_success(&mut self, took: Duration) {
        self.succeeded += 1;
        self.failures_in_row = 0;
        self.last_took = Some(took);
    }

    pub(crate) fn on_failure(&mut self, stage: ProbeStage, reason: &str) {
        self.failed += 1;
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        self.last_failure = Some((stage, reason.to_owned()));
    }

    pub(crate) fn failures_in_row(&self) -> u32 {
        self.failures_in_row
    }

    /// Whether the node counts as reachable.
    pub(crate) fn is_ready(&self) -> bool {
        self.failures_in_row < FAILURES_MAX
    }

    /// Why it does not, if it does not.
    pub(crate) fn trouble(&self) -> Option<String> {
        let (_, reason) = self.last_failure.as_ref().filter(|_| !self.is_ready())?;
        Some(format!("the node did not reach itself {} times in a row: {reason}", self.failures_in_row))
    }

    pub(crate) fn view(&self) -> ProbeView {
        ProbeView {
            ready: self.is_ready(),
            succeeded: self.succeeded,
            failed: self.failed,
            failures_in_row: self.failures_in_row,
            took_ms: self.last_took.map(|took| (took.as_secs_f64() * 1e5).round() / 1e2),
            failed_stage: self.last_failure.as_ref().map(|(stage, _)| stage.name().to_owned()),
            failed_reason: self.last_failure.as_ref().map(|(_, reason)| reason.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_make_a_node_unready_and_one_success_mends_it() {
        let mut state = ProbeState::default();
        assert!(state.is_ready(), "before the first probe nothing is held against it");
        for _ in 0..2 {
            state.on_failure(ProbeStage::Dial, "dial at 127.0.0.1:7: no answer");
        }
        assert_eq!((state.is_ready(), state.trouble()), (true, None));
        state.on_success(Duration::from_micros(1234));
        for _ in 0..2 {
            state.on_failure(ProbeStage::Dial, "dial at 127.0.0.1:7: no answer");
        }
        assert!(state.is_ready(), "they were not in a row");
        state.on_failure(ProbeStage::Handshake, "handshake at 127.0.0.1:7: no answer");
        let trouble = state.trouble().expect("the third in a row");
        assert_eq!(trouble, "the node did not reach itself 3 times in a row: handshake at 127.0.0.1:7: no answer");
        let view = state.view();
        assert_eq!((view.ready, view.succeeded, view.failed, view.failures_in_row), (false, 1, 5, 3));
        assert_eq!((view.took_ms, view.failed_stage.as_deref()), (Some(1.23), Some("handshake")));
        state.on_success(Duration::from_millis(1));
        assert_eq!((state.is_ready(), state.trouble()), (true, None));
    }
}
