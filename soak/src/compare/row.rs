//! What a row of a comparison is: its figure, its unit, what is hoped of it, and why. `[pure]`
//!
//! Every figure is of the kind where less is better. How one is measured is in `rows/`, what many of them mean in
//! `verdict.rs`.

use serde::Serialize;

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Row {
    /// As on the command line.
    pub id: &'static str,
    /// The figure in words.
    pub title: &'static str,
    pub unit: Unit,
    pub kind: Kind,
    /// Each must be met.
    pub goals: &'static [Goal],
    /// Where the goals come from.
    pub source: &'static str,
}

/// What a figure is, and therefore what can be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Whole things that are there or not: compared as counts, also where one side has none.
    Count,
    /// Bytes and the like, which a busy machine hardly changes.
    Size,
    /// Time, or a ratio of times: worth nothing on a busy machine.
    Time,
}

/// How a figure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    Connections,
    Bytes,
    BytesPerHour,
    /// A quotient without a unit.
    Times,
    Percent,
    Seconds,
}

impl Unit {
    /// A value as a reader wants it.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Connections => format!("{value:.0}"),
            Self::Bytes => bytes(value),
            Self::BytesPerHour => format!("{}/h", bytes(value)),
            Self::Times => format!("{} ×", significant(value)),
            Self::Percent => format!("{} %", significant(value)),
            Self::Seconds if value.abs() < 1.0 => format!("{} ms", significant(value * 1e3)),
            Self::Seconds => format!("{} s", significant(value)),
        }
    }

    /// As in a header or a file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Bytes => "B",
            Self::BytesPerHour => "B/h",
            Self::Times => "times",
            Self::Percent => "%",
            Self::Seconds => "s",
        }
    }
}

/// What is hoped of the first subject.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// None at all, in any run. Exact: one run that has any breaks it.
    Zero,
    /// The end is reached in every run before the time is up. Exact.
    Reached,
    /// At most this, in the row's unit.
    AtMost(f64),
    /// At most this times what the second subject has.
    Ratio(f64),
}

impl Goal {
    /// A goal without tolerance needs no statistics.
    pub(crate) fn is_exact(self) -> bool {
        match self {
            Self::Zero | Self::Reached => true,
            Self::AtMost(_) | Self::Ratio(_) => false,
        }
    }

    /// As it is printed.
    pub(crate) fn show(self, unit: Unit) -> String {
        match self {
            Self::Zero => "0, exact".into(),
            Self::Reached => "reached in every run".into(),
            Self::AtMost(most) => format!("≤ {}", unit.show(most)),
            Self::Ratio(most) => format!("≤ {most} × b"),
        }
    }
}

/// One measured figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reading {
    Is(f64),
    /// The time was up before the end; the truth is this or more.
    AtLeast(f64),
}

impl Reading {
    /// The figure, or what it is at least.
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::Is(value) | Self::AtLeast(value) => value,
        }
    }

    pub(crate) fn is_open(self) -> bool {
        match self {
            Self::Is(_) => false,
            Self::AtLeast(_) => true,
        }
    }
}

fn bytes(value: f64) -> String {
    match value.abs() {
        size if size < 1e3 => format!("{value:.0} B"),
        size if size < 1e6 => format!("{:.1} KB", value / 1e3),
        _ => format!("{:.2} MB", value / 1e6),
    }
}

/// Three digits that mean something.
pub(crate) fn significant(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        size if size >= 0.000_5 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_they_are_said() {
        assert_eq!(Unit::Bytes.show(512.0), "512 B");
        assert_eq!(Unit::Bytes.show(-137_900.0), "-137.9 KB");
        assert_eq!(Unit::BytesPerHour.show(9_500_000.0), "9.50 MB/h");
        assert_eq!(Unit::Seconds.show(0.0312), "31.2 ms");
        assert_eq!(Unit::Seconds.show(36.04), "36.0 s");
        assert_eq!(Unit::Connections.show(644.0), "644");
        assert_eq!(Goal::Ratio(0.004).show(Unit::Bytes), "≤ 0.004 × b");
        assert_eq!(Goal::AtMost(20.0).show(Unit::Seconds), "≤ 20.0 s");
    }
}
