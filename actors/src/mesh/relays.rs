//! What the endpoint tells of its relays, as word of those backends. Only a relay that is home tells anything; of the others
//! only dials tell (`peer.rs`).

use iroh::{Watcher, endpoint::RelayStatus};
use n0_future::time::Instant;
use rand::rngs::StdRng;

use super::Parts;
use crate::backends::{Backend, Gate};

/// The home relays at the last look.
#[derive(Debug, Default)]
pub(super) struct Relays {
    home: Vec<(RelayStatus, Gate)>,
}

impl Relays {
    /// Looks again. A status differs from the last one whenever an attempt has failed since, so each failure is told once;
    /// several between two looks are told as one.
    pub(super) fn on_tick(&mut self, parts: &Parts, now: Instant, rng: &mut StdRng) {
        let statuses = parts.endpoint.home_relay_status().get();
        if statuses.iter().eq(self.home.iter().map(|(status, _)| status)) {
            return;
        }
        let before = std::mem::take(&mut self.home);
        for status in statuses {
            let gate = parts.backends.gate(&Backend::Relay(status.url().clone()), now);
            let is_news = !before.iter().any(|(known, _)| *known == status);
            if is_news && status.is_connected() {
                gate.succeed(now);
            } else if is_news && status.last_error().is_some() {
                gate.fail(now, rng);
            }
            self.home.push((status, gate));
        }
        parts.backends.note_online(self.home.iter().any(|(status, _)| status.is_connected()));
    }
}
