//! The rows about remotes that nobody asked for: dials that cross, dials into nothing, strangers at the door. `[pure]`
//!
//! Their figures come from `actions/meet.rs`, `actions/give_up.rs`, `actions/strangers.rs` and `actions/fill.rs`.

use super::{Counted, FactRule, Least, LimitRule, REJOINED, STORM, Spec};

/// Figures of a siege, shared between the rows and the action that reports them.
pub(crate) const UNANSWERED: &str = "probes unanswered";
pub(crate) const LATENCY: &str = "p99 to a neighbour in the siege, percent of its allowance";
pub(crate) const STATUS: &str = "status p99 ms";
pub(crate) const HEAP: &str = "heap above before MB";
pub(crate) const HALF_OPEN_GONE: &str = "half open gone after ms";
pub(crate) const VISITOR: &str = "a visitor joined after ms";
pub(crate) const TURNED_AWAY: &str = "strangers asked to retry, refused or dropped";
pub(crate) const DEADLINES: &str = "handshake deadlines fired";
pub(crate) const BEYOND: &str = "connections beyond finished handshakes";

/// A topic of the observer's on which only visitors are.
pub(crate) const VISITORS_TOPIC: &str = "visitors";

const VISITORS: &[&str] = &["--topic", VISITORS_TOPIC];

const NONE_UNANSWERED: LimitRule = LimitRule { what: UNANSWERED, most: 0.0 };

/// Twice what it was before, or 5 ms more, whichever is more.
const HARDLY_LATER: LimitRule = LimitRule { what: LATENCY, most: 100.0 };

/// A page that takes longer to appear is not asked for a second time.
const ANSWERS: LimitRule = LimitRule { what: STATUS, most: 100.0 };

/// What the default caps can cost: 128 connections of 128 KiB, 16 handshakes of 96 KiB, 24 waiting of 4 KiB.
const HEAP_EXPLAINED: LimitRule = LimitRule { what: HEAP, most: 18.5 };

/// Whoever left without a word has the deadline of a handshake, 10 s, and one that waited for its place 5 s before it.
const ALL_GONE: LimitRule = LimitRule { what: HALF_OPEN_GONE, most: 17_000.0 };

const LET_IN: LimitRule = LimitRule { what: VISITOR, most: 2_000.0 };

const SIEGE: &[LimitRule] = &[NONE_UNANSWERED, HARDLY_LATER, ANSWERS, HEAP_EXPLAINED, ALL_GONE, LET_IN];

const FLOOD: Spec = Spec {
    events: 1,
    event_s: 85.0,
    facts: &[FactRule { name: TURNED_AWAY, counted: Counted::Sum(TURNED_AWAY), least: Least::Times(1) }],
    limits: SIEGE,
    observer_args: VISITORS,
    ..STORM
};

pub(super) const SUPERSEDE: Spec = Spec {
    summary: "two nodes dial each other at once, or redial while the old connection is up",
    nodes: 16,
    events: 12,
    event_s: 3.0,
    facts: &[FactRule { name: "connections superseded", counted: Counted::Sum("superseded"), least: Least::Times(20) }],
    limits: &[
        REJOINED,
        LimitRule { what: "one connection after ms", most: 10_000.0 },
        LimitRule { what: "a superseded connection lived ms", most: 2_000.0 },
        // Nobody answers on it any more, so that it takes the idle timeout of 10 s and a keep-alive where no rule helps.
        LimitRule { what: "the old connection gone after ms", most: 15_000.0 },
    ],
    ..STORM
};

pub(super) const HALF_OUT: Spec = Spec {
    summary: "the observer dials who never answers, and gives up",
    events: 5,
    event_s: 16.0,
    facts: &[FactRule {
        name: "dials dropped before their handshake",
        counted: Counted::Sum("dials dropped"),
        least: Least::Times(100),
    }],
    limits: &[LimitRule { what: "given up, gone after ms", most: 1_000.0 }],
    ..STORM
};

pub(super) const HALF_IN: Spec = Spec {
    summary: "strangers stop in the middle of their handshake with the observer",
    events: 2,
    event_s: 55.0,
    facts: &[FactRule { name: DEADLINES, counted: Counted::Sum(DEADLINES), least: Least::Times(50) }],
    limits: &[
        NONE_UNANSWERED,
        HARDLY_LATER,
        ANSWERS,
        HEAP_EXPLAINED,
        ALL_GONE,
        LET_IN,
        LimitRule { what: BEYOND, most: 0.0 },
    ],
    observer_args: VISITORS,
    ..STORM
};

pub(super) const FLOOD_SPOOF: Spec =
    Spec { summary: "first packets of clients that do not exist flood the observer", event_s: 12.0, ..FLOOD };

pub(super) const FLOOD_IDLE: Spec = Spec {
    summary: "identities that finish their handshake and do nothing flood the observer",
    facts: &[
        FactRule { name: TURNED_AWAY, counted: Counted::Sum(TURNED_AWAY), least: Least::Times(1) },
        FactRule { name: "strangers inside", counted: Counted::Sum("strangers inside"), least: Least::Times(100) },
    ],
    ..FLOOD
};

pub(super) const FLOOD_MIX: Spec =
    Spec { summary: "spoofed, idle, abandoned and stalled at once flood the observer", ..FLOOD };

pub(super) const CAP: Spec = Spec {
    summary: "strangers fill the observer to its caps, and one more knocks",
    events: 4,
    event_s: 26.0,
    facts: &[
        FactRule { name: "one below a cap held", counted: Counted::Sum("one below the cap held"), least: EACH_TIME },
        FactRule { name: "a cap held", counted: Counted::Sum("the cap held"), least: EACH_TIME },
        FactRule {
            name: "one above a cap refused",
            counted: Counted::Sum("one above the cap refused"),
            least: EACH_TIME,
        },
        FactRule { name: "a slot reused", counted: Counted::Observed("slot reused after ms"), least: EACH_TIME },
    ],
    limits: &[
        LimitRule { what: "slot reused after ms", most: 100.0 },
        LimitRule { what: "refused without a word or a count", most: 0.0 },
        LimitRule { what: "above the cap", most: 0.0 },
    ],
    // Three quarters of 40 may be incoming, and an eighth is kept for those it knows: 25 are left, and a mesh of twelve
    // needs at most eleven. The second listener is for strangers.
    observer_args: &["--max-connections", "40", "--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0,max-connections=4"],
    ..STORM
};

/// A passer-by of the mesh may take or leave a slot in the middle of one.
const EACH_TIME: Least = Least::Percent(80);
