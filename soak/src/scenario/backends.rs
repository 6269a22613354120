//! The rows about what nodes depend on beyond each other: a collector of telemetry, and those they join through. `[pure]`
//!
//! Their figures come from `actions/backends.rs`.

use super::{Counted, FactRule, Ground, Least, LimitRule, STORM, Spec, ground::HEARD};
use crate::plan::BOOTSTRAP;

pub(super) const OTLP_DOWN: Spec = Spec {
    summary: "the collector of telemetry is gone, silent, late, or full of errors",
    // Each way twice.
    events: 8,
    event_s: 12.0,
    ground: Ground::Collector,
    facts: &[
        FactRule { name: "spans that were lost", counted: Counted::Sum("spans lost"), least: Least::Times(100) },
        FactRule {
            name: "collectors that took spans again",
            counted: Counted::Observed("spans taken again after ms"),
            least: Least::Percent(100),
        },
        FactRule {
            name: "requests the collector took",
            counted: Counted::Sum("requests taken"),
            least: Least::Times(100),
        },
    ],
    limits: &[
        HEARD,
        // A backend that was degraded is left alone for 30 s and a fifth, and an exporter's own pause is 16 s by then.
        LimitRule { what: "spans taken again after ms", most: 45_000.0 },
        // Lost and back, spans and figures; and one that a busy machine lost once more.
        LimitRule { what: "lines of one node about its collector", most: 6.0 },
    ],
    allow: &[("I15", "events are few and shuffles go on; what is said of the collector has a limit of its own")],
    ..STORM
};

pub(super) const BOOT_DOWN: Spec = Spec {
    summary: "everybody whom the others were told to join through is dead",
    events: 1,
    event_s: 130.0,
    through: &BOOTSTRAP,
    facts: &[
        FactRule {
            name: "survivors that told a degraded bootstrap",
            counted: Counted::Sum("survivors degraded"),
            least: Least::Times(10),
        },
        FactRule {
            name: "survivors that told a healthy one after it",
            counted: Counted::Sum("survivors recovered"),
            least: Least::Times(10),
        },
        FactRule {
            name: "attempts that were not made",
            counted: Counted::Sum("attempts saved"),
            least: Least::Times(10),
        },
    ],
    limits: &[
        HEARD,
        // The idle timeout, and what it takes to close ranks.
        LimitRule { what: "survivors whole again after ms", most: 25_000.0 },
        // Three failures of 10 s each, one after the other, and the growing pauses of 30 s at most between them.
        LimitRule { what: "degraded after ms", most: 60_000.0 },
        // Half a minute after it is degraded the first probe is made, and the second a minute after that one has failed.
        LimitRule { what: "probes of one survivor", most: 2.0 },
        LimitRule { what: "rejoined after ms", most: 5_000.0 },
        // That minute and its fifth, and a dial.
        LimitRule { what: "recovered after ms", most: 85_000.0 },
    ],
    ..STORM
};
