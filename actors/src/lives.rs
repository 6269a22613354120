//! Every connection task by number: since when, in which phase, when it departed. Held by the tasks themselves.
//!
//! A `Living` lives in its connection's task; its `Drop` takes the task off the list and accounts for its retirement. So
//! what the list says is true whatever the supervisors' tables say, and a task that nobody owns any more can still be
//! named. Nothing is decided by it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use iroh::EndpointId;
use n0_future::time::Instant;

use crate::{
    limits::Limits,
    meters::Meters,
    retirement::{Departure, Retired, RetirementReport, Retirements},
};

/// What a connection's task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Phase {
    /// Frames in, frames out.
    Open,
    /// It was ordered to close, and tells a stock remote so.
    Parting,
    /// Saying farewell on topics that were not joined.
    Farewells,
    /// Waiting until the remote has acknowledged everything.
    Acknowledgements,
    /// Giving the remote a moment to accept its last streams.
    Grace,
    /// Closed; handing on what had arrived before.
    LastFrames,
}

impl Phase {
    const ALL: [Phase; 6] =
        [Phase::Open, Phase::Parting, Phase::Farewells, Phase::Acknowledgements, Phase::Grace, Phase::LastFrames];

    /// The stable name in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Open => "open",
            Phase::Parting => "parting",
            Phase::Farewells => "farewells",
            Phase::Acknowledgements => "acknowledgements",
            Phase::Grace => "grace",
            Phase::LastFrames => "last-frames",
        }
    }
}

/// A connection that lives although it has departed, or although its remote is in no active view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lingering {
    /// Number of the connection, unique within the mesh.
    pub number: u64,
    /// The remote.
    pub peer: EndpointId,
    /// What its task is doing.
    pub phase: Phase,
    /// How it departed and how long ago, if it has.
    pub departed: Option<(Departure, Duration)>,
    /// Since when its remote has been in no active view; `None`: it is a neighbour.
    pub outside_view: Option<Duration>,
}

impl Lingering {
    fn age(&self) -> Duration {
        self.departed.map(|(_, ago)| ago).or(self.outside_view).unwrap_or_default()
    }
}

/// All connection tasks of one mesh. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Lives {
    shared: Arc<Mutex<Shared>>,
    meters: Meters,
}

#[derive(Debug)]
struct Shared {
    living: BTreeMap<u64, Arc<Life>>,
    high_water: usize,
    retirements: Retirements,
}

/// What is known of one task. Whoever deals with the connection notes it here.
#[derive(Debug)]
pub(crate) struct Life {
    number: u64,
    peer: EndpointId,
    began: Instant,
    phase: AtomicU8,
    marks: Mutex<Marks>,
}

#[derive(Debug)]
struct Marks {
    departed: Option<(Departure, Instant)>,
    outside_view_since: Option<Instant>,
    cause: Option<&'static str>,
}

impl Lives {
    pub(crate) fn new(limits: &Limits, meters: Meters) -> Self {
        let shared = Shared { living: BTreeMap::new(), high_water: 0, retirements: Retirements::new(limits) };
        Self { shared: Arc::new(Mutex::new(shared)), meters }
    }

    /// Lists a connection that begins now.
    pub(crate) fn begin(&self, number: u64, peer: EndpointId, now: Instant) -> Living {
        let life = Arc::new(Life::new(number, peer, now));
        let mut shared = self.lock();
        shared.living.insert(number, life.clone());
        shared.high_water = shared.high_water.max(shared.living.len());
        Living { life, lives: Some(self.clone()) }
    }

    pub(crate) fn retirements(&self) -> RetirementReport {
        self.lock().retirements.report()
    }

    /// The longest departed, or longest outside every view, first; at most `max`.
    pub(crate) fn lingering(&self, max: usize, now: Instant) -> Vec<Lingering> {
        let mut all: Vec<_> = self.lock().living.values().filter_map(|life| life.lingering(now)).collect();
        all.sort_by_key(|one| (std::cmp::Reverse(one.departed.is_some()), std::cmp::Reverse(one.age())));
        all.truncate(max);
        all
    }

    /// Listed now, and at most.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let shared = self.lock();
        (shared.living.len(), shared.high_water)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    /// One that is on no list.
    pub(crate) fn new(number: u64, peer: EndpointId, now: Instant) -> Self {
        let marks = Marks { departed: None, outside_view_since: Some(now), cause: None };
        Self { number, peer, began: now, phase: AtomicU8::new(Phase::Open as u8), marks: Mutex::new(marks) }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed)) % Phase::ALL.len()]
    }

    /// Its end is known. Only the first word counts.
    pub(crate) fn depart(&self, departure: Departure, now: Instant) {
        self.marks().departed.get_or_insert((departure, now));
    }

    /// Whether its remote is in an active view at this moment.
    pub(crate) fn note_view(&self, is_neighbor: bool, now: Instant) {
        let since = &mut self.marks().outside_view_since;
        *since = match is_neighbor {
            true => None,
            false => since.or(Some(now)),
        };
    }

    /// What ended it.
    pub(crate) fn end(&self, cause: &'static str) {
        self.marks().cause = Some(cause);
    }

    pub(crate) fn departed(&self, now: Instant) -> Option<(Departure, Duration)> {
        self.marks().departed.map(|(departure, at)| (departure, now.saturating_duration_since(at)))
    }

    fn lingering(&self, now: Instant) -> Option<Lingering> {
        let departed = self.departed(now);
        let outside_view = self.marks().outside_view_since.map(|since| now.saturating_duration_since(since));
        let (number, peer, phase) = (self.number, self.peer, self.phase());
        let lingers = departed.is_some() || outside_view.is_some();
        lingers.then_some(Lingering { number, peer, phase, departed, outside_view })
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one task on the list. Lives in the task.
#[derive(Debug)]
pub(crate) struct Living {
    life: Arc<Life>,
    lives: Option<Lives>,
}

impl Living {
    /// For a connection that is closed on at once and counts as a handshake.
    pub(crate) fn unlisted(peer: EndpointId) -> Self {
        Self { life: Arc::new(Life::new(0, peer, Instant::now())), lives: None }
    }

    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        let Some(lives) = &self.lives else { return };
        let now = Instant::now();
        let Marks { departed, cause, .. } = *self.life.marks();
        // A task that was ended from outside names no cause, and departed at this moment if nobody knew before.
        let unnamed = if std::thread::panicking() { "panicked" } else { "killed" };
        let (departure, at) = departed.unwrap_or((Departure::Ended, now));
        let took = now.saturating_duration_since(at);
        let Life { number, peer, began, .. } = *self.life;
        lives.meters.note_lifetime(now.saturating_duration_since(began));
        let mut shared = lives.lock();
        shared.living.remove(&number);
        shared.retirements.note(Retired { number, peer, cause: cause.unwrap_or(unnamed), departure, took });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> EndpointId {
        iroh::SecretKey::from_bytes(&[1; 32]).public()
    }

    #[test]
    fn whoever_departed_first_and_is_still_there_is_named_first() {
        let lives = Lives::new(&Limits::default(), Meters::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let all: Vec<_> = (1..=4).map(|number| lives.begin(number, peer(), start)).collect();
        all[0].life().note_view(true, start);
        all[1].life().depart(Departure::Ordered, at(20));
        all[2].life().depart(Departure::LetGo, at(10));
        all[2].life().depart(Departure::Ended, at(15));
        all[2].life().enter(Phase::Acknowledgements);
        let named = lives.lingering(8, at(30));
        assert_eq!(named.iter().map(|one| one.number).collect::<Vec<_>>(), [3, 2, 4], "a neighbour does not linger");
        assert_eq!(named[0].departed, Some((Departure::LetGo, Duration::from_secs(20))));
        assert_eq!(named[0].phase.name(), "acknowledgements");
        assert_eq!(lives.lingering(1, at(30)).len(), 1);
        drop(all);
        assert_eq!((lives.sizes(), lives.lingering(8, at(31)).len()), ((0, 4), 0));
    }

    #[test]
    fn every_end_is_accounted_for_a_panic_included() {
        let lives = Lives::new(&Limits::default(), Meters::default());
        let ended = lives.begin(1, peer(), Instant::now());
        ended.life().end("retired");
        drop(ended);
        drop(lives.begin(2, peer(), Instant::now()));
        let panics = lives.begin(3, peer(), Instant::now());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = panics;
            panic!("boom");
        }));
        assert!(caught.is_err());
        let report = lives.retirements();
        let causes: Vec<_> = report.causes.iter().map(|cause| (cause.cause, cause.retired)).collect();
        assert_eq!(causes, [("killed", 1), ("panicked", 1), ("retired", 1)]);
        assert_eq!((report.retired, report.late), (3, 0));
        assert_eq!(lives.meters.read().lifetimes.count(), 3);
    }

    #[test]
    fn every_phase_is_found_again_by_its_number() {
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, index);
        }
    }
}
