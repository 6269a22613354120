//! What is measured: scenarios, their checkpoints, and the figures that are derived from these. `[pure]`
//!
//! A figure is a difference of two checkpoints divided by how many of something lie between them, so that what a node costs
//! once does not hide what each connection costs.

use std::time::Duration;

use crate::course::{Course, HOUSE, Load, Peers, Stage, Subject, TripKind, Trips};

/// Checkpoints that are taken together, and what they tell.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) checkpoints: Vec<Checkpoint>,
    pub(crate) figures: Vec<Figure>,
}

/// One heap that is looked at: the end of one course.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checkpoint {
    /// Unique over all scenarios.
    pub(crate) name: &'static str,
    pub(crate) course: Course,
}

impl Checkpoint {
    const fn new(name: &'static str, course: Course) -> Self {
        Self { name, course }
    }
}

/// `(at − less) ÷ per`, of some buckets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// Unique over all scenarios; what its budget is called.
    pub(crate) name: &'static str,
    pub(crate) at: &'static str,
    pub(crate) less: Option<&'static str>,
    pub(crate) per: usize,
    pub(crate) of: Of,
}

/// Which part of a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    All,
    Only(&'static [&'static str]),
    Without(&'static [&'static str]),
    /// Blocks allocated for each, freed or not: what every call site allocates between the two checkpoints, divided and
    /// rounded by itself, so that timers that go off meanwhile do not count. No bytes.
    AllocatedEach(&'static [&'static str]),
}

/// Longer than iroh remembers a remote without a connection (60 s), and than message content is kept (10 s).
const FORGOTTEN: Duration = Duration::from_secs(70);

/// Longer than message content is kept, shorter than message ids are (90 s).
const CONTENT_FORGOTTEN: Duration = Duration::from_secs(14);

/// A connection's own, wherever it stands: not the receive buffer of the endpoint, and not what gossip keeps of messages.
const NOT_OF_A_CONNECTION: &[&str] = &["quic-recvbuf", "netscan", "gossip-state", "harness"];

/// Everything, in the order in which it is run.
pub(crate) fn all() -> Vec<Scenario> {
    vec![fresh(), idle(), others(), used(), forward(), cache(), mesh(), residue()]
}

fn fresh() -> Scenario {
    let figure = |name, of| Figure { name, at: "fresh", less: None, per: 1, of };
    Scenario {
        name: "fresh",
        about: "a node that is alone",
        checkpoints: vec![Checkpoint::new("fresh", Course::ALONE)],
        figures: vec![
            figure("fixed", Of::Without(&["quic-recvbuf", "harness"])),
            figure("receive buffer", Of::Only(&["quic-recvbuf"])),
            figure("sampler", Of::Only(&["sampler"])),
        ],
    }
}

const IDLE: usize = 32;

/// The endpoint's buffer is larger or smaller by a batch of datagrams, whatever connections there are.
const ALL_BUT_THE_BUFFER: Of = Of::Without(&["quic-recvbuf", "harness"]);

fn silent(name: &'static str, subject: Subject, count: usize) -> Checkpoint {
    Checkpoint::new(name, Course { subject, until: Stage::Joined, peers: Peers::Silent(count), ..Course::ALONE })
}

fn idle() -> Scenario {
    Scenario {
        name: "idle",
        about: "connections that were accepted and do nothing",
        checkpoints: vec![silent("idle-1", Subject::Perennial, 1), silent("idle-33", Subject::Perennial, 1 + IDLE)],
        figures: vec![Figure {
            name: "idle connection",
            at: "idle-33",
            less: Some("idle-1"),
            per: IDLE,
            of: ALL_BUT_THE_BUFFER,
        }],
    }
}

fn others() -> Scenario {
    let figure = |name, at, less| Figure { name, at, less: Some(less), per: IDLE, of: ALL_BUT_THE_BUFFER };
    Scenario {
        name: "others",
        about: "the same connections, accepted by stock iroh-gossip and by iroh alone",
        checkpoints: vec![
            silent("stock-idle-1", Subject::Stock, 1),
            silent("stock-idle-33", Subject::Stock, 1 + IDLE),
            silent("iroh-idle-1", Subject::Iroh, 1),
            silent("iroh-idle-33", Subject::Iroh, 1 + IDLE),
        ],
        figures: vec![
            figure("idle connection of stock", "stock-idle-33", "stock-idle-1"),
            figure("idle connection of iroh", "iroh-idle-33", "iroh-idle-1"),
        ],
    }
}

const USED: usize = 4;

/// 250 messages of 4000 bytes are one megabyte.
const MEGABYTE: Load = Load { messages: 250, pause: Duration::from_millis(4) };

fn used() -> Scenario {
    let course = Course { peers: Peers::Members(USED), ..Course::ALONE };
    let joined = Course { until: Stage::Joined, ..course };
    let rested = Course { until: Stage::Rested, load: MEGABYTE, rest: CONTENT_FORGOTTEN, ..course };
    let figure = |name, at| Figure { name, at, less: Some("alone"), per: USED, of: Of::Without(NOT_OF_A_CONNECTION) };
    Scenario {
        name: "used",
        about: "connections to members of a topic, before and after a megabyte each way",
        checkpoints: vec![
            Checkpoint::new("alone", Course::ALONE),
            Checkpoint::new("members-4", joined),
            Checkpoint::new("members-4-used", rested),
        ],
        figures: vec![figure("member connection", "members-4"), figure("used connection", "members-4-used")],
    }
}

const FORWARDED: usize = 100;

fn forward() -> Scenario {
    let loaded = |messages| Course {
        until: Stage::Loaded,
        peers: Peers::Members(1),
        load: Load { messages, pause: Duration::from_millis(10) },
        ..Course::ALONE
    };
    let of = Of::AllocatedEach(&["actors", "gossip-state"]);
    Scenario {
        name: "forward",
        about: "blocks allocated for a frame that is sent and a frame that is received",
        checkpoints: vec![
            Checkpoint::new("forward-100", loaded(FORWARDED)),
            Checkpoint::new("forward-200", loaded(2 * FORWARDED)),
        ],
        figures: vec![Figure {
            name: "allocations per frame each way",
            at: "forward-200",
            less: Some("forward-100"),
            per: FORWARDED,
            of,
        }],
    }
}

const CACHED: usize = 50;

fn cache() -> Scenario {
    let course = Course { until: Stage::Loaded, peers: Peers::Members(1), ..Course::ALONE };
    // Both within the time that content is kept.
    let slow = Load { messages: CACHED, pause: Duration::from_millis(20) };
    let fast = Load { messages: 10 * CACHED, pause: Duration::from_millis(2) };
    let rested = Course { until: Stage::Rested, rest: CONTENT_FORGOTTEN, ..course };
    let of = Of::All;
    Scenario {
        name: "cache",
        about: "message content that is kept to repeat it, at one rate and at ten times that rate",
        checkpoints: vec![
            Checkpoint::new("cache-0", Course { until: Stage::Joined, ..course }),
            Checkpoint::new("cache-50", Course { load: slow, ..course }),
            Checkpoint::new("cache-500", Course { load: fast, ..course }),
            Checkpoint::new("cache-500-rested", Course { load: fast, ..rested }),
        ],
        figures: vec![
            Figure { name: "message kept", at: "cache-50", less: Some("cache-0"), per: 2 * CACHED, of },
            Figure { name: "message kept at 10x", at: "cache-500", less: Some("cache-0"), per: 20 * CACHED, of },
            Figure {
                name: "left of a forgotten message",
                at: "cache-500-rested",
                less: Some("cache-0"),
                per: 20 * CACHED,
                of,
            },
        ],
    }
}

fn mesh() -> Scenario {
    let course = Course { until: Stage::Joined, peers: Peers::Members(15), ..Course::ALONE };
    Scenario {
        name: "mesh",
        about: "a node whose mesh has fifteen others",
        checkpoints: vec![Checkpoint::new("mesh-15", course)],
        figures: vec![Figure { name: "total at 15 peers", at: "mesh-15", less: None, per: 1, of: Of::All }],
    }
}

/// Round trips between the two checkpoints of a figure per trip. iroh frees what it knew of remotes in batches of 32, so in a
/// multiple of that the last batch is as far in both.
const TRIPS: usize = 64;

fn residue() -> Scenario {
    let churned =
        |kind, count| Course { until: Stage::Churned, trips: Trips { kind, count }, rest: FORGOTTEN, ..Course::ALONE };
    let closed = Course { until: Stage::Closed, peers: Peers::Members(USED), rest: FORGOTTEN, ..Course::ALONE };
    // Tables keep their size. One that never stops growing is what the ladder is for.
    let of = Of::Without(&["quic-recvbuf", "quic-tables", "harness"]);
    let trip = |name, at, less| Figure { name, at, less: Some(less), per: TRIPS, of };
    Scenario {
        name: "residue",
        about: "what is left of connections and dials once everything that is kept for a time is forgotten",
        checkpoints: vec![
            Checkpoint::new("rested", Course { until: Stage::Closed, rest: FORGOTTEN, ..Course::ALONE }),
            Checkpoint::new("closed-4", closed),
            Checkpoint::new("house-1", churned(TripKind::House, 1)),
            Checkpoint::new("house-3", churned(TripKind::House, 3)),
            Checkpoint::new("stranger-32", churned(TripKind::Stranger, 32)),
            Checkpoint::new("stranger-96", churned(TripKind::Stranger, 32 + TRIPS)),
            Checkpoint::new("fresh-id-32", churned(TripKind::Fresh, 32)),
            Checkpoint::new("fresh-id-96", churned(TripKind::Fresh, 32 + TRIPS)),
            Checkpoint::new("half-open-32", churned(TripKind::HalfOpen, 32)),
            Checkpoint::new("half-open-96", churned(TripKind::HalfOpen, 32 + TRIPS)),
        ],
        figures: vec![
            Figure { name: "left by four members", at: "closed-4", less: Some("rested"), per: 1, of },
            Figure { name: "residue per close", at: "house-3", less: Some("house-1"), per: 2 * HOUSE, of },
            trip("residue per round trip, same id", "stranger-96", "stranger-32"),
            trip("residue per round trip, fresh id", "fresh-id-96", "fresh-id-32"),
            trip("residue per dropped dial", "half-open-96", "half-open-32"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_figures_speak_of_their_own_checkpoints() {
        let scenarios = all();
        let checkpoints: Vec<&str> = scenarios.iter().flat_map(|one| &one.checkpoints).map(|one| one.name).collect();
        let figures: Vec<&str> = scenarios.iter().flat_map(|one| &one.figures).map(|one| one.name).collect();
        for names in [checkpoints, figures] {
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        }
        for scenario in scenarios {
            let has = |name: &str| scenario.checkpoints.iter().any(|checkpoint| checkpoint.name == name);
            for figure in &scenario.figures {
                assert!(has(figure.at) && figure.less.is_none_or(has) && figure.per > 0, "{}", figure.name);
            }
        }
    }
}
