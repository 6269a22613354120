//! The Mesh handle lends its breakers: whatever else a program depends on is gated as relays and bootstraps are.
//!
//! Clock and chance are put in here; what they come to is decided in `breaker.rs`.

use n0_future::time::Instant;

use super::Mesh;
use crate::{
    backends::{Backend, BackendKind, Gate, Pass},
    breaker::Settings,
    census::BackendCensus,
    limits::Limits,
};

impl Mesh {
    /// The backends this node has dealt with, by name: the bootstrap of every topic, relays, and those the program has
    /// [asked for](Mesh::backend). Asks no actor and waits for nobody.
    pub fn backends(&self) -> Vec<BackendCensus> {
        self.inner.parts.backends.census(Instant::now())
    }

    /// Attempts that were not made because their backend was degraded, since the start, by kind of backend. Those of
    /// backends that are forgotten by now are counted as well, so no figure ever falls.
    pub fn attempts_saved(&self) -> [(BackendKind, u64); BackendKind::ALL.len()] {
        self.inner.parts.backends.saved()
    }

    /// The way to `backend`, with a breaker of its own under the limits of this mesh ([`crate::Limits::breaker_failures`]
    /// and its neighbours). For what the program around the mesh depends on, [`Backend::Other`]; whoever has news of a
    /// bootstrap or a relay can tell them by it as well. Every call with the same backend gives the same breaker. Beyond
    /// 256 backends the next one is let through as if it were healthy, and is not listed.
    pub fn backend(&self, backend: &Backend) -> BackendGate {
        BackendGate(self.inner.parts.backends.gate(backend, Instant::now()))
    }
}

/// The way to one backend. Cheap to clone; outlives its mesh.
///
/// Whoever is about to spend something on the backend asks for an attempt, and says how it went:
///
/// ```
/// # use perennial::{Backend, BackendState, Limits, Mesh};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = Mesh::builder().spawn().await?;
/// let gate = mesh.backend(&Backend::Other("otlp:http://127.0.0.1:4318".into()));
/// for _ in 0..Limits::default().breaker_failures {
///     gate.ask().expect("it is healthy").fail();
/// }
/// assert!(gate.ask().is_none(), "half a minute of silence, then one probe");
/// assert_eq!(mesh.backends()[0].state, BackendState::Degraded);
/// # mesh.drain(std::time::Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct BackendGate(Gate);

impl BackendGate {
    /// A breaker under `limits` that belongs to no mesh and is on no list, for a program or a test that has none.
    pub fn alone(backend: &Backend, limits: &Limits) -> Self {
        let now = Instant::now();
        Self(Gate::new(backend.to_string(), Settings::new(limits), now, now))
    }

    /// Leave to make one attempt, at most one of them while the backend is degraded and that is the probe. `None`: do
    /// without, and come again at your own pace; the attempt is counted as saved. Never waits.
    pub fn ask(&self) -> Option<BackendAttempt> {
        self.0.ask(1, Instant::now()).ok().map(BackendAttempt)
    }
}

/// Leave to make one attempt. Dropped without a word, it says that nothing was learned of the backend.
#[derive(Debug)]
#[must_use = "dropping it says that nothing was learned"]
pub struct BackendAttempt(Pass);

impl BackendAttempt {
    /// The backend did what it is for: it is healthy, whatever was before.
    pub fn succeed(self) {
        self.0.succeed(Instant::now());
    }

    /// It did not. An attempt that was cancelled, or failed for a reason of our own, should be dropped instead.
    pub fn fail(self) {
        self.0.fail(Instant::now(), &mut rand::rng());
    }
}
