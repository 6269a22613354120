//! What one look at a victim tells, and figures over many looks. `[pure]`

use std::collections::BTreeMap;

use perennial_soak::stats::percentile;
use serde::Serialize;
use serde_json::Value;

/// One look. `None` is what the victim does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Seconds since the run began.
    pub at_s: f64,
    /// How long `status` took.
    pub answered_ms: f64,
    pub heap_bytes: Option<f64>,
    pub tasks: Option<f64>,
    /// Of the tasks, those in the victim's own ledger.
    pub own_tasks: Option<i64>,
    pub connections: Option<f64>,
    /// The most connections held at one time, counted by the victim itself.
    pub connections_high_water: Option<f64>,
    pub connection_cap: Option<f64>,
    pub half_open: Option<f64>,
    #[serde(flatten)]
    pub look: Look,
}

/// What the kernel says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Look {
    pub rss_bytes: Option<u64>,
    /// The most of it since the process began.
    pub rss_peak_bytes: Option<u64>,
    pub fds: Option<u64>,
    pub threads: Option<u64>,
    pub cpu_ms: Option<f64>,
    /// Datagrams lost in front of the victim's socket.
    pub dropped_datagrams: Option<u64>,
}

/// One line of the victim's own page of limits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Cap {
    pub name: String,
    pub max: f64,
    pub high_water: f64,
}

/// Reads `status`; without one, only the kernel's figures are there.
pub(crate) fn sample(status: Option<&Value>, look: Look) -> Sample {
    let figure = |name: &str| status.and_then(|status| status[name].as_f64());
    Sample {
        heap_bytes: figure("heap_bytes"),
        tasks: figure("alive_tasks"),
        connections: figure("connections"),
        connections_high_water: figure("connections_high_water"),
        connection_cap: figure("connection_cap"),
        half_open: figure("half_open"),
        look,
        ..Sample::default()
    }
}

/// Reads the reasons out of a `status`; a victim that counts nothing has none.
pub(crate) fn counts(status: &Value) -> BTreeMap<String, u64> {
    let counts = status["counts"].as_object().into_iter().flatten();
    counts.filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?))).collect()
}

/// Reads `limits`: every line that has a maximum and a high-water mark.
pub(crate) fn caps(limits: &Value) -> Vec<Cap> {
    let lines = limits.as_array().or_else(|| limits["limits"].as_array()).or_else(|| limits["caps"].as_array());
    let cap = |line: &Value| {
        let name = line["name"].as_str()?.to_owned();
        Some(Cap { name, max: line["max"].as_f64()?, high_water: line["high_water"].as_f64()? })
    };
    lines.into_iter().flatten().filter_map(cap).collect()
}

/// The samples of a phase.
pub(crate) fn between(samples: &[Sample], from_s: f64, until_s: f64) -> &[Sample] {
    let from = samples.partition_point(|sample| sample.at_s < from_s);
    let until = samples.partition_point(|sample| sample.at_s < until_s);
    &samples[from..until.max(from)]
}

/// The median of a figure within a second before and after a moment: a settled figure without its jitter.
pub(crate) fn settled(samples: &[Sample], at_s: f64, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = between(samples, at_s - 1.0, at_s + 1.0).iter().filter_map(figure).collect();
    percentile(&values, 50.0)
}

/// The largest value of a figure.
pub(crate) fn peak(samples: &[Sample], figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    samples.iter().filter_map(figure).max_by(f64::total_cmp)
}

/// The figure at the last look not after a moment.
pub(crate) fn last_at(samples: &[Sample], at_s: f64, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    samples.iter().filter(|sample| sample.at_s <= at_s).filter_map(figure).next_back()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_heap(at_s: f64, heap_bytes: f64) -> Sample {
        Sample { at_s, heap_bytes: Some(heap_bytes), ..Sample::default() }
    }

    #[test]
    fn what_is_not_told_is_not_zero() {
        let sample = sample(Some(&json!({"alive_tasks": 9, "heap_bytes": null})), Look::default());
        assert_eq!((sample.tasks, sample.heap_bytes, sample.half_open), (Some(9.0), None, None));
    }

    #[test]
    fn a_settled_figure_ignores_a_spike() {
        let samples: Vec<Sample> = [(0.0, 1.0), (1.5, 5.0), (2.0, 900.0), (2.5, 6.0), (4.0, 7.0)]
            .into_iter()
            .map(|(at_s, heap)| with_heap(at_s, heap))
            .collect();
        assert_eq!(settled(&samples, 2.0, |sample| sample.heap_bytes), Some(6.0));
        assert_eq!(settled(&samples, 9.0, |sample| sample.heap_bytes), None);
        assert_eq!(peak(&samples, |sample| sample.heap_bytes), Some(900.0));
        assert_eq!(last_at(&samples, 2.2, |sample| sample.heap_bytes), Some(900.0));
        assert_eq!(between(&samples, 1.5, 2.5).len(), 2);
    }

    #[test]
    fn limits_may_be_listed_either_way() {
        let line = json!({"name": "connections", "max": 128, "in_use": 3, "high_water": 40});
        let expected = vec![Cap { name: "connections".into(), max: 128.0, high_water: 40.0 }];
        assert_eq!(caps(&json!([line.clone()])), expected);
        assert_eq!(caps(&json!({"v": 1, "limits": [line, {"name": "unbounded"}]})), expected);
        assert_eq!(caps(&json!({})), []);
    }
}
