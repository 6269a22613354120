//! The rows about what nodes stand on: the network between them, disk and clock, and their own loops. `[pure]`

use super::{Counted, FactRule, Ground, Least, LimitRule, STORM, Spec};

pub(super) const HEARD: LimitRule = LimitRule { what: "messages missed by those who can be reached", most: 0.0 };

const HEALED: LimitRule = LimitRule { what: "one mesh again after ms", most: 120_000.0 };

pub(super) const PARTITION: Spec = Spec {
    summary: "the network falls into two or three parts, or lets through one way only",
    events: 3,
    event_s: 37.0,
    ground: Ground::Hosts,
    facts: &[
        FactRule {
            name: "directions in which packets were dropped",
            counted: Counted::Sum("directions cut"),
            least: Least::Times(6),
        },
        FactRule {
            name: "parts that heard their own messages",
            counted: Counted::Sum("parts that heard themselves"),
            least: Least::Times(2),
        },
        FactRule { name: "heals", counted: Counted::Observed("one mesh again after ms"), least: Least::Percent(90) },
    ],
    // Two shuffle rounds.
    limits: &[HEARD, HEALED],
    ..STORM
};

pub(super) const NETEM: Spec = Spec {
    summary: "lines delay, lose, double and reorder",
    events: 5,
    event_s: 10.0,
    ground: Ground::Switch,
    facts: &[FactRule {
        name: "frames that were lost, doubled, held back or overtaken",
        counted: Counted::Sum("frames disturbed"),
        least: Least::Times(1_000),
    }],
    limits: &[HEARD, LimitRule { what: "messages heard twice", most: 0.0 }],
    ..STORM
};

pub(super) const CHURN_PATH: Spec = Spec {
    summary: "hosts get other addresses while their nodes live",
    events: 6,
    event_s: 8.0,
    ground: Ground::MovingHosts,
    facts: &[FactRule {
        name: "moves",
        counted: Counted::Observed("heard again after a move ms"),
        least: Least::Times(50),
    }],
    // The idle timeout and a dial.
    limits: &[LimitRule { what: "heard again after a move ms", most: 15_000.0 }],
    ..STORM
};

pub(super) const DISK_FULL: Spec = Spec {
    summary: "the disk with a node's state is full",
    events: 2,
    event_s: 15.0,
    ground: Ground::SmallDisk,
    facts: &[FactRule {
        name: "complaints that no space is left",
        counted: Counted::Sum("complaints about the disk"),
        least: Least::Times(1),
    }],
    limits: &[HEARD, LimitRule { what: "complaints about the disk", most: 3.0 }],
    ..STORM
};

pub(super) const CLOCK: Spec = Spec {
    summary: "a node's wall clock is an hour or a day off",
    events: 4,
    event_s: 7.0,
    ground: Ground::WallClock,
    facts: &[FactRule {
        name: "clocks set",
        counted: Counted::Observed("seconds the clock is off"),
        least: Least::Percent(100),
    }],
    limits: &[HEARD, LimitRule { what: "neighbours lost by the clock", most: 0.0 }],
    ..STORM
};

pub(super) const ACTOR_FAULT: Spec = Spec {
    summary: "single loops panic, fail or hang",
    events: 9,
    event_s: 9.0,
    facts: &[FactRule { name: "loops broken", counted: Counted::Sum("loops broken"), least: Least::Percent(60) }],
    limits: &[LimitRule { what: "one mesh again after ms", most: 90_000.0 }],
    allow: &[
        ("I14", "loops are broken on purpose"),
        ("I15", "a broken loop is an error worth a line"),
        ("I4", "a loop that hangs does not retire"),
    ],
    ..STORM
};
