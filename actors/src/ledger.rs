//! Who was started, who has ended, who should be alive: the ledger of every task in a mesh. `[pure]`
//!
//! A task takes an [`Entry`] before its first instruction and gives it back in `Drop`, so a panic, an abort and a
//! normal return all count. What *should* be alive is not counted here: the supervisors' tables say so, and
//! [`Ledger::report`] holds the two against each other. The difference is the number of orphans, and settled it is zero.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The kinds of task a node runs. One line of the ledger each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// A supervisor actor: `Mesh`, `Peers`, `Topics`.
    Supervisor,
    /// The supervisor actor of one remote.
    Peer,
    /// The loop of one QUIC connection.
    Connection,
    /// One outgoing connection attempt.
    Dial,
    /// One incoming connection that has not finished its handshake.
    Handshake,
    /// The loop of one topic.
    Topic,
    /// The embedder's word on one remote that wants to join one topic.
    Approval,
    /// The accept loop.
    Acceptor,
    /// The clock that ticks the supervisors.
    Clock,
    /// The goodbye of a mesh that ends.
    Drain,
    /// A client of a local control socket. Taken by the program around the mesh.
    ControlClient,
    /// Any other task of the program around the mesh: signal watcher, pipe, event printer.
    Service,
}

impl Kind {
    /// Every kind, in the order of a report.
    pub const ALL: [Kind; 12] = [
        Kind::Supervisor,
        Kind::Peer,
        Kind::Connection,
        Kind::Dial,
        Kind::Handshake,
        Kind::Topic,
        Kind::Approval,
        Kind::Acceptor,
        Kind::Clock,
        Kind::Drain,
        Kind::ControlClient,
        Kind::Service,
    ];

    /// The stable name of this kind in reports, metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Supervisor => "supervisor",
            Kind::Peer => "peer",
            Kind::Connection => "connection",
            Kind::Dial => "dial",
            Kind::Handshake => "handshake",
            Kind::Topic => "topic",
            Kind::Approval => "approval",
            Kind::Acceptor => "acceptor",
            Kind::Clock => "clock",
            Kind::Drain => "drain",
            Kind::ControlClient => "control-client",
            Kind::Service => "service",
        }
    }

    /// Whether tasks of this kind belong to the mesh itself, not to the program around it.
    pub fn is_of_mesh(self) -> bool {
        !matches!(self, Kind::ControlClient | Kind::Service)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Default)]
struct Line {
    spawned: AtomicU64,
    finished: AtomicU64,
}

/// The counters of one mesh. Cheap to clone; all clones count into the same lines.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    lines: Arc<[Line; Kind::ALL.len()]>,
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one task of `kind` as spawned; dropping the entry counts it as finished.
    #[must_use = "the entry must live as long as its task"]
    pub fn enter(&self, kind: Kind) -> Entry {
        self.lines[kind as usize].spawned.fetch_add(1, Ordering::Relaxed);
        Entry { ledger: self.clone(), kind }
    }

    /// Tasks of `kind` that have been spawned and have not finished.
    pub fn alive(&self, kind: Kind) -> u64 {
        let (spawned, finished) = self.read(kind);
        spawned.saturating_sub(finished)
    }

    /// Tasks of every kind that have been spawned and have not finished.
    pub fn alive_total(&self) -> u64 {
        Kind::ALL.into_iter().map(|kind| self.alive(kind)).sum()
    }

    /// Compares what is alive with what `owned` says should be.
    pub fn report(&self, owned: &Owned) -> LedgerReport {
        let kinds = Kind::ALL
            .into_iter()
            .map(|kind| {
                let (spawned, finished) = self.read(kind);
                KindReport { kind, spawned, finished, owned: owned.get(kind) }
            })
            .collect();
        LedgerReport { kinds }
    }

    /// Finished is read first: a task that ends in between is then seen as alive, never as negative.
    fn read(&self, kind: Kind) -> (u64, u64) {
        let line = &self.lines[kind as usize];
        let finished = line.finished.load(Ordering::Acquire);
        let spawned = line.spawned.load(Ordering::Acquire);
        (spawned, finished)
    }
}

/// One task's line in the ledger. Lives in the task; its `Drop` is the only way to count a task as finished.
#[derive(Debug)]
pub struct Entry {
    ledger: Ledger,
    kind: Kind,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.lines[self.kind as usize].finished.fetch_add(1, Ordering::Release);
    }
}

/// What the supervisors' tables say should be alive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owned {
    counts: [u64; Kind::ALL.len()],
}

impl Owned {
    /// Nothing is owned.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds `n` owned tasks of `kind`.
    pub fn add(&mut self, kind: Kind, n: usize) {
        self.counts[kind as usize] += n as u64;
    }

    /// Owned tasks of `kind`.
    pub fn get(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }
}

/// One line of a [`LedgerReport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindReport {
    /// The kind of task.
    pub kind: Kind,
    /// Tasks ever started.
    pub spawned: u64,
    /// Tasks that have ended, however they ended.
    pub finished: u64,
    /// Tasks that a supervisor's table says should be alive.
    pub owned: u64,
}

impl KindReport {
    /// `spawned − finished − owned`. Positive: a task nobody owns. Negative: a table entry without a task.
    /// Either may be seen for a moment while something ends; neither may stay.
    pub fn orphans(&self) -> i64 {
        self.spawned as i64 - self.finished as i64 - self.owned as i64
    }
}

/// The ledger held against the tables at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerReport {
    /// One line per kind, in the order of [`Kind::ALL`].
    pub kinds: Vec<KindReport>,
}

impl LedgerReport {
    /// The sum of the absolute orphans of every kind: zero exactly when every line comes out even.
    pub fn orphans(&self) -> u64 {
        self.kinds.iter().map(|line| line.orphans().unsigned_abs()).sum()
    }

    /// The line of `kind`.
    pub fn kind(&self, kind: Kind) -> KindReport {
        self.kinds[kind as usize]
    }
}

impl fmt::Display for LedgerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.kinds.iter().filter(|line| line.spawned + line.owned > 0) {
            writeln!(
                f,
                "{:<15} spawned {:>8}  finished {:>8}  owned {:>6}  orphans {:>4}",
                line.kind.name(),
                line.spawned,
                line.finished,
                line.owned,
                line.orphans()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panicking_task_is_still_counted_as_finished() {
        let ledger = Ledger::new();
        let inner = ledger.clone();
        let caught = std::panic::catch_unwind(move || {
            let _entry = inner.enter(Kind::Topic);
            panic!("boom");
        });
        assert!(caught.is_err());
        assert_eq!(ledger.alive(Kind::Topic), 0);
        assert_eq!(ledger.report(&Owned::none()).kind(Kind::Topic).spawned, 1);
    }

    #[test]
    fn orphans_are_what_lives_without_an_owner() {
        let ledger = Ledger::new();
        let entries: Vec<_> = (0..3).map(|_| ledger.enter(Kind::Connection)).collect();
        let mut owned = Owned::none();
        owned.add(Kind::Connection, 2);
        assert_eq!(ledger.report(&owned).orphans(), 1);
        drop(entries);
        assert_eq!(
            ledger.report(&owned).kind(Kind::Connection).orphans(),
            -2,
            "a table that still lists ended tasks is as wrong as a task nobody lists"
        );
        assert_eq!(ledger.report(&Owned::none()).orphans(), 0);
    }

    #[test]
    fn every_kind_has_its_own_line_and_name() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "the order of ALL is the order of the variants");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
