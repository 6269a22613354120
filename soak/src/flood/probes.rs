//! Probes: their text, and what became of each. `[pure]`

use perennial_soak::stats::percentile;
use serde::Serialize;

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Probe {
    /// Seconds since the run began, when it was published.
    pub at_s: f64,
    /// From publishing it to hearing the echo.
    pub took_ms: Option<f64>,
    /// Echoes heard; more than one is a duplicate.
    pub echoes: u32,
}

/// What became of the probes of one phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Answers {
    pub published: usize,
    pub unanswered: usize,
    pub duplicated: usize,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

/// Sums up the probes published from `from_s` to just before `until_s`.
pub(crate) fn answers(probes: &[Probe], from_s: f64, until_s: f64) -> Answers {
    let phase: Vec<&Probe> = probes.iter().filter(|probe| probe.at_s >= from_s && probe.at_s < until_s).collect();
    let took_ms: Vec<f64> = phase.iter().filter_map(|probe| probe.took_ms).collect();
    Answers {
        published: phase.len(),
        unanswered: phase.iter().filter(|probe| probe.echoes == 0).count(),
        duplicated: phase.iter().filter(|probe| probe.echoes > 1).count(),
        p50_ms: percentile(&took_ms, 50.0),
        p99_ms: percentile(&took_ms, 99.0),
        max_ms: took_ms.iter().copied().reduce(f64::max),
    }
}

/// The content of probe `number`.
pub(crate) fn probe_text(number: usize) -> String {
    format!("probe {number}")
}

/// The content of its echo.
pub(crate) fn echo_text(number: usize) -> String {
    format!("echo {number}")
}

/// The number of a probe.
pub(crate) fn probe_number(text: &str) -> Option<usize> {
    text.strip_prefix("probe ")?.parse().ok()
}

/// The number of an echo.
pub(crate) fn echo_number(text: &str) -> Option<usize> {
    text.strip_prefix("echo ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_counts_its_own_probes_only() {
        let probe = |at_s, took_ms, echoes| Probe { at_s, took_ms, echoes };
        let probes =
            [probe(0.5, Some(1.0), 1), probe(1.0, Some(2.0), 1), probe(1.5, None, 0), probe(2.0, Some(9.0), 2)];
        let during = answers(&probes, 1.0, 2.0);
        assert_eq!((during.published, during.unanswered, during.duplicated), (2, 1, 0));
        assert_eq!(during.max_ms, Some(2.0));
        assert_eq!(answers(&probes, 2.0, 3.0).duplicated, 1);
        assert_eq!(answers(&probes, 5.0, 6.0), Answers::default());
    }

    #[test]
    fn a_probe_and_its_echo_are_told_apart() {
        assert_eq!(probe_number(&probe_text(12)), Some(12));
        assert_eq!(echo_number(&echo_text(12)), Some(12));
        assert_eq!(probe_number(&echo_text(12)), None);
        assert_eq!(echo_number("probe 1"), None);
    }
}
