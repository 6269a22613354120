//! The rows about nodes of the mesh: what happens to them, and what is expected of the others. `[pure]`
//!
//! Strangers are in `strangers.rs`; what a row's figures mean, in the action that reports them.

use super::{Counted, FactRule, Least, LimitRule, REJOINED, STORM, Spec, TOUCHING};

const KILL: Spec = Spec { event_s: 0.8, ..STORM };

pub(super) const ROTATE: Spec =
    Spec { summary: "nodes leave the topic and rejoin it while every process lives", event_s: 0.15, ..STORM };

pub(super) const IDLE: Spec = Spec {
    summary: "no events at all; shuffles go on",
    events: 1,
    event_s: 30.0,
    facts: &[FactRule {
        name: "connections that shuffles opened",
        counted: Counted::Sum("opened while idle"),
        least: Least::Times(8),
    }],
    limits: &[],
    ..STORM
};

pub(super) const KILL_FRESH: Spec = Spec { summary: "nodes die by SIGKILL and come back as strangers", ..KILL };

pub(super) const KILL_SAME: Spec = Spec { summary: "nodes die by SIGKILL and come back with the same key", ..KILL };

pub(super) const KILL_SAME_PORT: Spec =
    Spec { summary: "nodes die by SIGKILL and come back with the same key on the same UDP port", ..KILL };

pub(super) const GRACEFUL: Spec = Spec {
    summary: "nodes are told to stop, and come back",
    event_s: 1.0,
    facts: &[
        TOUCHING,
        FactRule {
            name: "neighbours that named the farewell as their reason",
            counted: Counted::Sum("farewells heard"),
            least: Least::Percent(50),
        },
    ],
    limits: &[REJOINED, LimitRule { what: "forgotten after ms", most: 1_000.0 }],
    ..STORM
};

pub(super) const PAUSE: Spec = Spec {
    summary: "nodes are halted by SIGSTOP, for less and for more than the idle timeout",
    events: 6,
    event_s: 8.0,
    facts: &[
        FactRule {
            name: "pauses shorter than the idle timeout",
            counted: Counted::Observed("neighbours lost in a short pause"),
            least: Least::Percent(40),
        },
        FactRule {
            name: "pauses longer than the idle timeout",
            counted: Counted::Observed("back after a long pause ms"),
            least: Least::Percent(10),
        },
    ],
    limits: &[
        LimitRule { what: "neighbours lost in a short pause", most: 0.0 },
        LimitRule { what: "back after a long pause ms", most: 10_000.0 },
    ],
    allow: &[("I4", "a node counts the time it was halted")],
    ..STORM
};

pub(super) const MASS: Spec = Spec {
    summary: "half, four fifths or nine tenths of the nodes die at once",
    nodes: 20,
    events: 1,
    event_s: 25.0,
    facts: &[FactRule {
        name: "survivors that lost their whole view",
        counted: Counted::Sum("survivors without a living neighbour"),
        least: Least::Times(1),
    }],
    limits: &[LimitRule { what: "survivors whole again after ms", most: 25_000.0 }],
    ..STORM
};

pub(super) const SLOW_READER: Spec = Spec {
    summary: "an application stops reading, a neighbour stops altogether, and messages pour in",
    nodes: 8,
    events: 2,
    event_s: 12.0,
    facts: &[FactRule {
        name: "events an application was told it lost",
        counted: Counted::Sum("events told as lost"),
        least: Least::Times(1),
    }],
    limits: &[
        LimitRule { what: "p99 beyond half as much again ms", most: 0.0 },
        LimitRule { what: "messages lost by readers that read", most: 0.0 },
    ],
    ..STORM
};

pub(super) const MIXED: Spec = Spec {
    summary: "half of the nodes are stock iroh-gossip",
    event_s: 0.3,
    stock: |node| node % 2 == 1,
    facts: &[
        TOUCHING,
        FactRule {
            name: "neighbours of ours that are stock",
            counted: Counted::Sum("links from ours to stock"),
            least: Least::Times(1),
        },
        FactRule {
            name: "neighbours of stock that are ours",
            counted: Counted::Sum("links from stock to ours"),
            least: Least::Times(1),
        },
    ],
    ..STORM
};

pub(super) const LIMITS: Spec = Spec {
    summary: "nodes are started with too few descriptors and too little memory",
    nodes: 7,
    events: 8,
    event_s: 1.0,
    facts: &[
        FactRule {
            name: "refusals with a reason",
            counted: Counted::Sum("refused with a reason"),
            least: Least::Times(1),
        },
        FactRule { name: "starts", counted: Counted::Sum("started"), least: Least::Times(1) },
    ],
    limits: &[LimitRule { what: "ended without a reason", most: 0.0 }],
    ..STORM
};

pub(super) const MIX: Spec = Spec {
    summary: "a seeded mixture of the others",
    event_s: 1.0,
    facts: &[TOUCHING, FactRule { name: "kinds of fault", counted: Counted::Actions, least: Least::Times(5) }],
    ..STORM
};
