//! Whether the remotes the application named are worth asking: the breaker of a topic's bootstrap. `[pure]`
//!
//! `acquaintances.rs` chooses whom to ask, and here those are taken out that would be asked in vain. Nobody else is: a former
//! neighbour, or one that was introduced, is no part of this backend. What the application asks for itself is not held back.

use iroh::EndpointId;
use n0_future::time::Instant;
use rand::{Rng, rngs::StdRng};

use super::{Effect, State};
use crate::{
    backends::{Backend, Gate, Pass},
    breaker::Settings,
    limits::Limits,
    routes::Gone,
};

/// The places a topic is joined through, as one backend.
#[derive(Debug)]
pub(super) struct Bootstrap {
    gate: Gate,
    probe: Option<(EndpointId, Pass)>,
    /// Probes take turns, or one dead remote among living ones could be all that is ever tried.
    turn: usize,
}

/// Whom to ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) peers: Vec<EndpointId>,
    /// The one of them that is a probe.
    pub(super) probe: Option<EndpointId>,
}

impl Bootstrap {
    /// One that nobody else sees, until [`State::share_gate`].
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let gate = Gate::new(Backend::Other("bootstrap".into()).to_string(), Settings::new(limits), now, now);
        Self { gate, probe: None, turn: 0 }
    }

    /// Whether there is a reason to ask before it would be asked anyway.
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        self.gate.is_probe_due(now)
    }

    /// Whether those named are left alone for now.
    pub(super) fn is_closed(&self, now: Instant) -> bool {
        self.gate.is_closed() && !self.is_probe_due(now)
    }

    /// Of those chosen, whom to ask. All that were not `named`; of these all, one as a probe, or none.
    pub(super) fn admit(&mut self, chosen: Vec<EndpointId>, named: &[EndpointId], now: Instant) -> Admitted {
        let (of_backend, mut peers): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|peer| named.contains(peer));
        let is_due = self.is_probe_due(now) && !named.is_empty();
        if of_backend.is_empty() && !is_due {
            return Admitted { peers, probe: None };
        }
        match self.gate.ask(of_backend.len() as u64, now) {
            Ok(pass) if pass.is_probe() => {
                let probe = named[self.turn % named.len()];
                self.turn = self.turn.wrapping_add(1);
                self.probe = Some((probe, pass));
                peers.push(probe);
                Admitted { peers, probe: Some(probe) }
            }
            Ok(_pass) => {
                peers.extend(of_backend);
                Admitted { peers, probe: None }
            }
            Err(_until) => Admitted { peers, probe: None },
        }
    }

    /// One that was named has said something, whatever it was.
    fn on_heard(&mut self, now: Instant) {
        self.gate.succeed(now);
        self.probe = None;
    }

    /// One that was named, and is no neighbour, could not be reached, or was not dialed.
    fn on_gone(&mut self, peer: &EndpointId, is_failure: bool, now: Instant, rng: &mut impl Rng) {
        let probe = self.probe.take_if(|(probed, _pass)| probed == peer);
        match probe {
            Some((_, pass)) if is_failure => pass.fail(now, rng),
            // Dropping the pass says that the probe was not made.
            Some(_not_made) => {}
            None if is_failure => self.gate.fail(now, rng),
            None => {}
        }
    }
}

impl State {
    /// Shows the breaker of this topic's bootstrap where all backends are listed, and takes up what an earlier loop of the topic
    /// has learned.
    pub(crate) fn share_gate(&mut self, gate: Gate) {
        self.bootstrap.gate = gate;
    }

    pub(super) fn note_heard(&mut self, from: &EndpointId, now: Instant) {
        if self.acquaintances.is_named(from) {
            self.bootstrap.on_heard(now);
        }
    }

    pub(super) fn note_gone(&mut self, peer: &EndpointId, how: Gone, now: Instant) {
        if !self.acquaintances.is_named(peer) || self.neighbors.contains(peer) {
            return;
        }
        let is_failure = match how {
            Gone::Lost => !self.contacts.get(peer).is_some_and(|contact| contact.is_parting()),
            Gone::Retired | Gone::NotDialed => false,
        };
        let rng: &mut StdRng = &mut self.rng;
        self.bootstrap.on_gone(peer, is_failure, now, rng);
    }

    /// Whom to ask of those chosen, and what that takes: a probe is dialed although its pause may not be over.
    pub(super) fn admit(
        &mut self,
        chosen: Vec<EndpointId>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> Vec<EndpointId> {
        let Admitted { peers, probe } = self.bootstrap.admit(chosen, self.acquaintances.named(), now);
        effects.extend(probe.map(Effect::Hasten));
        peers
    }
}
