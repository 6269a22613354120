//! The backends of one mesh, with a breaker each: key, lock, log and a snapshot around `breaker.rs`. Decides nothing.
//!
//! Whoever is about to begin work for a backend asks its [`Gate`] first and holds the [`Pass`] until it knows how that went;
//! a pass that is dropped says nothing of the backend. Nobody queues here: who may not begin does without, and comes again
//! at its own pace. Every change is one critical section; [`Gate`]s are read without a lock.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use iroh::RelayUrl;
use iroh_gossip::proto::TopicId;
use n0_future::time::Instant;
use rand::Rng;

use crate::{
    breaker::{Breaker, Settings, Turn, Verdict, View},
    census::{BackendCensus, BackendState},
    limits::Limits,
    stores::StoreUse,
};

/// Backends with a breaker at one time: every topic's bootstrap, the relays remotes are reached through, and a few of the
/// program around the mesh. Guess; the next one is used as if it were healthy.
pub(crate) const BACKENDS_MAX: usize = 256;

/// Something a node depends on that is no remote of its mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// The remotes the application named for this topic.
    Bootstrap(TopicId),
    /// One relay.
    Relay(RelayUrl),
    /// Whoever is asked where a remote may be reached.
    AddressLookup,
    /// One of the program around the mesh, by a name of its own, such as `otlp:http://127.0.0.1:4318`.
    Other(String),
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Backend::Bootstrap(topic) => write!(f, "bootstrap:{topic}"),
            Backend::Relay(url) => write!(f, "relay:{url}"),
            Backend::AddressLookup => f.write_str("address-lookup"),
            Backend::Other(name) => f.write_str(name),
        }
    }
}

impl Backend {
    /// Which of the few kinds it is of.
    pub fn kind(&self) -> BackendKind {
        match self {
            Backend::Bootstrap(_) => BackendKind::Bootstrap,
            Backend::Relay(_) => BackendKind::Relay,
            Backend::AddressLookup => BackendKind::AddressLookup,
            Backend::Other(_) => BackendKind::Other,
        }
    }
}

/// The kinds of backends: what can be told of them where there is no room for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// The remotes named for a topic.
    Bootstrap,
    /// A relay.
    Relay,
    /// Whoever is asked for addresses.
    AddressLookup,
    /// One of the program around the mesh.
    Other,
}

impl BackendKind {
    /// Every kind.
    pub const ALL: [BackendKind; 4] =
        [BackendKind::Bootstrap, BackendKind::Relay, BackendKind::AddressLookup, BackendKind::Other];

    /// The stable name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            BackendKind::Bootstrap => "bootstrap",
            BackendKind::Relay => "relay",
            BackendKind::AddressLookup => "address-lookup",
            BackendKind::Other => "other",
        }
    }
}

/// All backends of one mesh. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    began: Instant,
    is_online: AtomicBool,
    gates: RwLock<BTreeMap<Backend, Gate>>,
    /// Of backends that are forgotten, by kind. Changed under the lock of `gates` only, so that none is counted twice.
    saved_before: [AtomicU64; BackendKind::ALL.len()],
}

impl Backends {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings: Settings::new(limits),
                began: now,
                is_online: AtomicBool::new(false),
                gates: RwLock::default(),
                saved_before: Default::default(),
            }),
        }
    }

    /// The gate of `backend`, which is remembered for as long as somebody holds it or it has something to tell.
    pub(crate) fn gate(&self, backend: &Backend, now: Instant) -> Gate {
        if let Some(gate) = self.find(backend) {
            return gate;
        }
        let mut gates = self.shared.gates.write().unwrap_or_else(PoisonError::into_inner);
        let is_full = gates.len() >= BACKENDS_MAX;
        match gates.get(backend) {
            Some(gate) => gate.clone(),
            None => {
                let gate = self.open(backend, is_full, now);
                if !is_full {
                    gates.insert(backend.clone(), gate.clone());
                }
                gate
            }
        }
    }

    /// The gate of `backend`, if anything is known of it.
    pub(crate) fn find(&self, backend: &Backend) -> Option<Gate> {
        self.shared.gates.read().unwrap_or_else(PoisonError::into_inner).get(backend).cloned()
    }

    /// Lets time pass, and forgets backends that nobody uses and that have nothing to tell.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut gates = self.shared.gates.write().unwrap_or_else(PoisonError::into_inner);
        gates.retain(|backend, gate| {
            let is_quiet = gate.act(now, |breaker| breaker.is_quiet(now));
            let is_kept = !is_quiet || Arc::strong_count(&gate.line) > 1;
            if !is_kept {
                let saved = gate.line.snapshot.saved.load(Ordering::Relaxed);
                self.shared.saved_before[backend.kind() as usize].fetch_add(saved, Ordering::Relaxed);
            }
            is_kept
        });
    }

    /// Our own network has changed, so what failed may work: every degraded backend is worth a probe.
    pub(crate) fn hasten(&self, now: Instant, rng: &mut impl Rng) {
        let gates = self.shared.gates.read().unwrap_or_else(PoisonError::into_inner);
        gates.values().filter(|gate| gate.is_closed()).for_each(|gate| gate.hasten(now, rng));
    }

    /// Whether a relay of ours answers.
    pub(crate) fn note_online(&self, is_online: bool) {
        self.shared.is_online.store(is_online, Ordering::Relaxed);
    }

    pub(crate) fn is_online(&self) -> bool {
        self.shared.is_online.load(Ordering::Relaxed)
    }

    pub(crate) fn store(&self) -> StoreUse {
        let size = self.shared.gates.read().unwrap_or_else(PoisonError::into_inner).len();
        StoreUse::unmarked("backends", Some(BACKENDS_MAX), size)
    }

    /// All of them, without waiting for anybody who changes one.
    pub(crate) fn census(&self, now: Instant) -> Vec<BackendCensus> {
        let gates = self.shared.gates.read().unwrap_or_else(PoisonError::into_inner);
        gates.iter().map(|(backend, gate)| gate.line.snapshot.census(backend, now)).collect()
    }

    /// Attempts saved since the start, by kind.
    pub(crate) fn saved(&self) -> [(BackendKind, u64); BackendKind::ALL.len()] {
        let gates = self.shared.gates.read().unwrap_or_else(PoisonError::into_inner);
        BackendKind::ALL.map(|kind| {
            let of_kind = gates.iter().filter(|(backend, _)| backend.kind() == kind);
            let saved: u64 = of_kind.map(|(_, gate)| gate.line.snapshot.saved.load(Ordering::Relaxed)).sum();
            (kind, self.shared.saved_before[kind as usize].load(Ordering::Relaxed) + saved)
        })
    }

    fn open(&self, backend: &Backend, is_ignored: bool, now: Instant) -> Gate {
        let settings = self.shared.settings;
        let settings = if is_ignored { Settings { failures: 0, ..settings } } else { settings };
        Gate::new(backend.to_string(), settings, self.shared.began, now)
    }
}

/// The way to one backend. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    name: String,
    breaker: Mutex<Breaker>,
    snapshot: Snapshot,
}

impl Gate {
    /// `began`: any moment before everything else this gate will hear of.
    pub(crate) fn new(name: String, settings: Settings, began: Instant, now: Instant) -> Self {
        let breaker = Breaker::new(settings, now);
        let snapshot = Snapshot::new(began, breaker.view());
        Self { line: Arc::new(Line { name, breaker: Mutex::new(breaker), snapshot }) }
    }

    /// Whether `attempts` that would be made together may begin now; otherwise when to ask again.
    pub(crate) fn ask(&self, attempts: u64, now: Instant) -> Result<Pass, Instant> {
        let pass = |probe| Ok(Pass { gate: self.clone(), probe, is_told: false, began: now });
        match self.act(now, |breaker| breaker.ask(attempts, now)) {
            Verdict::Go => pass(None),
            Verdict::Probe(number) => pass(Some(number)),
            Verdict::Wait(until) => Err(until),
        }
    }

    /// The backend has shown that it works.
    pub(crate) fn succeed(&self, now: Instant) {
        if self.line.snapshot.says_something() {
            self.turn(now, |breaker| breaker.succeed(now));
        }
    }

    /// An attempt that nobody asked for here has failed.
    pub(crate) fn fail(&self, now: Instant, rng: &mut impl Rng) {
        self.turn(now, |breaker| breaker.fail(None, now, rng));
    }

    fn hasten(&self, now: Instant, rng: &mut impl Rng) {
        self.act(now, |breaker| breaker.hasten(now, rng));
    }

    /// Whether nothing but a probe may begin.
    pub(crate) fn is_closed(&self) -> bool {
        self.line.snapshot.state() != BackendState::Healthy
    }

    /// Whether whoever asks next makes the probe.
    pub(crate) fn is_probe_due(&self, now: Instant) -> bool {
        self.line.snapshot.probe_at().is_some_and(|at| at <= now)
    }

    fn turn(&self, now: Instant, act: impl FnOnce(&mut Breaker) -> Option<Turn>) {
        let turn = self.act(now, act);
        self.log(turn);
    }

    fn act<T>(&self, now: Instant, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let (turn, answer) = {
            let mut breaker = self.lock();
            let turn = breaker.on_time(now);
            let answer = act(&mut breaker);
            self.line.snapshot.show(breaker.view());
            (turn, answer)
        };
        self.log(turn);
        answer
    }

    /// Once for each change, and never held back: they are rare by construction.
    fn log(&self, turn: Option<Turn>) {
        let backend = &self.line.name;
        match turn {
            None => {}
            Some(Turn::Degraded { failures }) => {
                tracing::warn!(target: "perennial::state", %backend, failures, "backend degraded");
            }
            Some(Turn::Recovered { after, saved }) => {
                tracing::info!(
                    target: "perennial::state", %backend, ?after, saved,
                    "backend recovered after {after:.1?}, {saved} attempts saved"
                );
            }
            Some(Turn::Lapsed { after, saved }) => {
                tracing::info!(
                    target: "perennial::state", %backend, ?after, saved,
                    "backend is not used any more; {saved} attempts saved"
                );
            }
        }
    }

    /// A panic between two lines of a breaker leaves at worst one attempt too many: not worth a poisoned node.
    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.line.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to begin. Dropped without a word, it says that nothing was learned.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Gate,
    probe: Option<u64>,
    is_told: bool,
    began: Instant,
}

impl Pass {
    /// Whether it is the one probe of a degraded backend.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    pub(crate) fn succeed(mut self, now: Instant) {
        self.is_told = true;
        self.gate.succeed(now);
    }

    pub(crate) fn fail(mut self, now: Instant, rng: &mut impl Rng) {
        self.is_told = true;
        self.gate.turn(now, |breaker| breaker.fail(self.probe, now, rng));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let (false, Some(number)) = (self.is_told, self.probe) {
            // There is no clock in a drop; a probe that was not made leaves the next one as due as it was.
            self.gate.act(self.began, |breaker| breaker.cancel(number, self.began));
        }
    }
}

/// What a breaker shows, for readers without its lock. State, failures and since are one word, so they belong together.
#[derive(Debug)]
struct Snapshot {
    began: Instant,
    word: AtomicU64,
    probe_at: AtomicU64,
    saved: AtomicU64,
}

/// Milliseconds since the mesh began fill the low bits: 34 years of them.
const SINCE_BITS: u32 = 40;
/// Failures in a row are shown up to this many.
const FAILURES_SHOWN_MAX: u32 = (1 << 22) - 1;
const NO_PROBE: u64 = u64::MAX;

impl Snapshot {
    fn new(began: Instant, view: View) -> Self {
        let snapshot =
            Self { began, word: AtomicU64::default(), probe_at: AtomicU64::new(NO_PROBE), saved: AtomicU64::default() };
        snapshot.show(view);
        snapshot
    }

    fn show(&self, view: View) {
        let state = match view.state {
            BackendState::Healthy => 0,
            BackendState::Probing => 1,
            BackendState::Degraded => 2,
        };
        let failures = u64::from(view.failures.min(FAILURES_SHOWN_MAX));
        let since = self.millis(view.since) & ((1 << SINCE_BITS) - 1);
        self.saved.store(view.saved, Ordering::Relaxed);
        self.probe_at.store(view.probe_at.map_or(NO_PROBE, |at| self.millis(at)), Ordering::Relaxed);
        self.word.store(state << 62 | failures << SINCE_BITS | since, Ordering::Release);
    }

    fn state(&self) -> BackendState {
        read(self.word.load(Ordering::Acquire)).0
    }

    /// Whether a success would change anything.
    fn says_something(&self) -> bool {
        let (state, failures, _since) = read(self.word.load(Ordering::Acquire));
        state != BackendState::Healthy || failures > 0
    }

    fn probe_at(&self) -> Option<Instant> {
        match self.probe_at.load(Ordering::Relaxed) {
            NO_PROBE => None,
            millis => Some(self.began + Duration::from_millis(millis)),
        }
    }

    fn census(&self, backend: &Backend, now: Instant) -> BackendCensus {
        let (state, failures, since) = read(self.word.load(Ordering::Acquire));
        BackendCensus {
            backend: backend.clone(),
            state,
            since: now.saturating_duration_since(self.began + since),
            failures,
            saved: self.saved.load(Ordering::Relaxed),
            next_probe: self.probe_at().map(|at| at.saturating_duration_since(now)),
        }
    }

    /// Rounded up: whoever waits until the moment shown must not be early.
    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began);
        u64::try_from(since.as_micros().div_ceil(1000)).unwrap_or(NO_PROBE - 1)
    }
}

fn read(word: u64) -> (BackendState, u32, Duration) {
    let state = match word >> 62 {
        0 => BackendState::Healthy,
        1 => BackendState::Probing,
        _ => BackendState::Degraded,
    };
    let failures = (word >> SINCE_BITS) as u32 & FAILURES_SHOWN_MAX;
    (state, failures, Duration::from_millis(word & ((1 << SINCE_BITS) - 1)))
}

#[cfg(test)]
mod tests;
