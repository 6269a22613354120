//! Whether a backend is worth an attempt: one circuit breaker, counting failures in a row. `[pure]`
//!
//! A backend is what a node spends on without being a remote of its mesh: a relay, the places a topic is joined through. A
//! few failures in a row within a window degrade it; then nothing is begun for it until one probe has been made, and one
//! success, whoever brings it, clears everything at once. What was begun before and fails late says nothing new. Which
//! backends there are, and the lock around each, is in `backends.rs`; the pauses of a single remote are in `backoff/`.

use std::time::Duration;

use n0_future::time::Instant;
use rand::{Rng, RngExt};

use crate::{backoff::up_to, census::BackendState, limits::Limits};

/// How much an open time is drawn above or below its nominal length, so that nodes that failed together do not probe together.
/// Envoy's ejection jitter is of this order; a fifth of 30 s spreads a mesh over twelve.
pub(crate) const JITTER: f64 = 0.2;

/// The numbers of one breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// So many in a row degrade; 0: never.
    pub(crate) failures: u32,
    pub(crate) window: Duration,
    pub(crate) open_min: Duration,
    pub(crate) open_max: Duration,
    /// Whoever makes a probe has told how it went by then, or has forgotten it.
    pub(crate) probe_timeout: Duration,
}

impl Settings {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            failures: limits.breaker_failures,
            window: limits.breaker_window,
            open_min: limits.breaker_open_min,
            open_max: limits.breaker_open_max,
            // A topic gives up waiting for a dial after twice its deadline (`topic.rs`); later than that nobody tells.
            probe_timeout: limits.dial_timeout * 3,
        }
    }
}

/// Whether to begin an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    /// It is the one probe, by number.
    Probe(u64),
    /// Not before, and then only if nobody else was first.
    Wait(Instant),
}

/// A change worth a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Degraded {
        failures: u32,
    },
    Recovered {
        after: Duration,
        saved: u64,
    },
    /// It was to be probed, but nobody wanted anything of it any more.
    Lapsed {
        after: Duration,
        saved: u64,
    },
}

/// What is told of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) state: BackendState,
    pub(crate) since: Instant,
    pub(crate) failures: u32,
    /// Since the start.
    pub(crate) saved: u64,
    pub(crate) probe_at: Option<Instant>,
}

/// The breaker of one backend.
#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    settings: Settings,
    state: State,
    since: Instant,
    /// In a row, none of them older than the window when the next one came.
    failures: u32,
    failed_at: Option<Instant>,
    probes: u64,
    saved: u64,
    saved_before: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Healthy,
    /// Until `probe_at`, after so many probes that failed.
    Degraded {
        probe_at: Instant,
        failed_probes: u32,
    },
    /// Probe `number` is under way, and forgotten at `until`.
    Probing {
        number: u64,
        until: Instant,
        failed_probes: u32,
    },
}

impl Breaker {
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            state: State::Healthy,
            since: now,
            failures: 0,
            failed_at: None,
            probes: 0,
            saved: 0,
            saved_before: 0,
        }
    }

    /// What time alone has changed. To be called before anything else is, so that every answer is of `now`.
    pub(crate) fn on_time(&mut self, now: Instant) -> Option<Turn> {
        if let State::Probing { until, failed_probes, .. } = self.state
            && until <= now
        {
            self.state = State::Degraded { probe_at: until, failed_probes };
        }
        match self.state {
            State::Degraded { probe_at, .. } if probe_at + self.settings.window <= now => {
                Some(self.clear(now, |after, saved| Turn::Lapsed { after, saved }))
            }
            State::Healthy | State::Degraded { .. } | State::Probing { .. } => None,
        }
    }

    /// Whether an attempt, or `attempts` of them that are made together, may begin. Those that may not are counted as
    /// saved; a probe stands for all of them.
    pub(crate) fn ask(&mut self, attempts: u64, now: Instant) -> Verdict {
        match self.state {
            State::Healthy => Verdict::Go,
            State::Degraded { probe_at, failed_probes } if probe_at <= now => {
                self.probes += 1;
                self.saved += attempts.saturating_sub(1);
                let (number, until) = (self.probes, now + self.settings.probe_timeout);
                self.state = State::Probing { number, until, failed_probes };
                Verdict::Probe(number)
            }
            State::Degraded { probe_at: at, .. } | State::Probing { until: at, .. } => {
                self.saved += attempts;
                Verdict::Wait(at)
            }
        }
    }

    /// Something went well: an attempt, a probe, or a word of the backend's own.
    pub(crate) fn succeed(&mut self, now: Instant) -> Option<Turn> {
        match self.state {
            State::Healthy => {
                (self.failures, self.failed_at) = (0, None);
                None
            }
            State::Degraded { .. } | State::Probing { .. } => {
                Some(self.clear(now, |after, saved| Turn::Recovered { after, saved }))
            }
        }
    }

    /// An attempt failed, the probe of this number or another one.
    pub(crate) fn fail(&mut self, probe: Option<u64>, now: Instant, rng: &mut impl Rng) -> Option<Turn> {
        match self.state {
            State::Healthy => {
                let is_streak = self.failed_at.is_some_and(|at| now.duration_since(at) < self.settings.window);
                self.failures = if is_streak { self.failures.saturating_add(1) } else { 1 };
                self.failed_at = Some(now);
                let trips = self.settings.failures > 0 && self.failures >= self.settings.failures;
                trips.then(|| {
                    (self.since, self.saved_before) = (now, self.saved);
                    self.open(0, now, rng);
                    Turn::Degraded { failures: self.failures }
                })
            }
            State::Probing { number, failed_probes, .. } if probe == Some(number) => {
                self.failures = self.failures.saturating_add(1);
                self.failed_at = Some(now);
                self.open(failed_probes.saturating_add(1), now, rng);
                None
            }
            // It was begun before the backend was degraded, or before a probe that was forgotten: it knows nothing new.
            State::Degraded { .. } | State::Probing { .. } => None,
        }
    }

    /// The probe of this number was not made after all. The next one is due.
    pub(crate) fn cancel(&mut self, probe: u64, now: Instant) {
        if let State::Probing { number, failed_probes, .. } = self.state
            && number == probe
        {
            self.state = State::Degraded { probe_at: now, failed_probes };
        }
    }

    /// What failed so far may have been our own network, and that has changed: the probe is due, and open times begin anew. Not
    /// sooner after the last failure than the first open time, or an address that comes and goes would set the pace.
    pub(crate) fn hasten(&mut self, now: Instant, rng: &mut impl Rng) {
        if let State::Degraded { probe_at, .. } = self.state {
            let open_min = self.settings.open_min;
            let earliest = self.failed_at.map_or(now, |at| now.max(at + open_min));
            // Whoever shares that network is hastened with us.
            let hastened = earliest + up_to(open_min.mul_f64(JITTER), rng);
            self.state = State::Degraded { probe_at: probe_at.min(hastened), failed_probes: 0 };
        }
    }

    pub(crate) fn view(&self) -> View {
        let (state, probe_at) = match self.state {
            State::Healthy => (BackendState::Healthy, None),
            State::Degraded { probe_at, .. } => (BackendState::Degraded, Some(probe_at)),
            State::Probing { .. } => (BackendState::Probing, None),
        };
        View { state, since: self.since, failures: self.failures, saved: self.saved, probe_at }
    }

    /// Whether it is as it was at first, but for what it counted.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        let says_something = self.failed_at.is_some_and(|at| now.duration_since(at) < self.settings.window);
        self.state == State::Healthy && !says_something
    }

    fn open(&mut self, failed_probes: u32, now: Instant, rng: &mut impl Rng) {
        let Settings { open_min, open_max, .. } = self.settings;
        let nominal = open_min.saturating_mul(2u32.saturating_pow(failed_probes)).min(open_max);
        let probe_at = now + nominal.mul_f64(rng.random_range(1.0 - JITTER..=1.0 + JITTER));
        self.state = State::Degraded { probe_at, failed_probes };
    }

    fn clear(&mut self, now: Instant, turn: impl FnOnce(Duration, u64) -> Turn) -> Turn {
        let turn = turn(now.duration_since(self.since), self.saved - self.saved_before);
        self.state = State::Healthy;
        (self.since, self.failures, self.failed_at) = (now, 0, None);
        turn
    }
}

#[cfg(test)]
mod tests;
