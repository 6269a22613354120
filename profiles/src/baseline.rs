//! Where the heap was when somebody last said that it is right: `baseline.json`, buckets by checkpoint. `[pure]`
//!
//! Budgets hold few figures tightly; the baseline holds every bucket loosely, so that what moved is named also where
//! nobody thought of a figure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{buckets::Buckets, heap::Size};

/// A bucket that grew by less than this share is not worse: the buckets of some ten runs were up to 6 % apart.
const GROWTH_SHARE: f64 = 0.10;

/// … and by less than this: one table that doubled, one timer that had not fired yet.
const GROWTH_BYTES: u64 = 16 * 1024;

/// A committed baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baseline {
    pub(crate) v: u32,
    pub(crate) build: String,
    pub(crate) commit: String,
    pub(crate) date: String,
    /// Bytes and blocks by bucket, by checkpoint. Buckets without any are left out.
    pub(crate) checkpoints: BTreeMap<String, BTreeMap<String, [u64; 2]>>,
}

/// A bucket that grew by more than it may without anybody's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Regression {
    pub(crate) bucket: String,
    pub(crate) before: u64,
    pub(crate) now: u64,
}

impl Baseline {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let baseline: Self = serde_json::from_str(text).map_err(|error| format!("not a baseline: {error}"))?;
        match baseline.v {
            1 => Ok(baseline),
            v => Err(format!("a baseline of version {v}, where 1 is needed")),
        }
    }

    /// One line a checkpoint, so that a change of one shows as one.
    pub(crate) fn write(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).expect("a string is JSON");
        let lines: Vec<String> = self
            .checkpoints
            .iter()
            .map(|(name, buckets)| {
                let buckets = serde_json::to_string(buckets).expect("names and numbers are JSON");
                format!("    {}: {buckets}", quoted(name))
            })
            .collect();
        let (build, commit, date) = (quoted(&self.build), quoted(&self.commit), quoted(&self.date));
        format!(
            "{{\n  \"v\": 1,\n  \"build\": {build},\n  \"commit\": {commit},\n  \"date\": {date},\n  \"checkpoints\": \
             {{\n{}\n  }}\n}}\n",
            lines.join(",\n")
        )
    }

    pub(crate) fn set(&mut self, checkpoint: &str, buckets: &Buckets) {
        let sizes = buckets.sizes.iter().filter(|(_, size)| size.blocks > 0);
        let sizes = sizes.map(|(name, size)| (name.clone(), [size.bytes, size.blocks])).collect();
        self.checkpoints.insert(checkpoint.to_owned(), sizes);
    }

    /// One bucket of one checkpoint; `None` where the baseline does not know the checkpoint.
    pub(crate) fn of(&self, checkpoint: &str, bucket: &str) -> Option<Size> {
        let buckets = self.checkpoints.get(checkpoint)?;
        let [bytes, blocks] = buckets.get(bucket).copied().unwrap_or_default();
        Some(Size { bytes, blocks, allocated: 0 })
    }

    /// Buckets of `checkpoint` that are worse than here.
    pub(crate) fn regressions(&self, checkpoint: &str, now: &Buckets) -> Vec<Regression> {
        let is_worse = |(bucket, size): &&(String, Size)| {
            self.of(checkpoint, bucket).is_some_and(|before| is_growth(before.bytes, size.bytes))
        };
        let worse = now.sizes.iter().filter(is_worse);
        let regression = |(bucket, size): &(String, Size)| Regression {
            bucket: bucket.clone(),
            before: self.of(checkpoint, bucket).unwrap_or_default().bytes,
            now: size.bytes,
        };
        worse.map(regression).collect()
    }
}

/// Whether one bucket grew by more than noise.
pub(crate) fn is_growth(before: u64, now: u64) -> bool {
    now > before + GROWTH_BYTES && now as f64 > before as f64 * (1.0 + GROWTH_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{buckets::Rules, heap};

    fn noq(bytes: u64) -> Buckets {
        let json = format!(
            r#"{{"mode": "rust-heap", "ftbl": ["0x1: noq::a"], "pps": [{{"eb": {bytes}, "ebk": 4, "tbk": 4, "fs": [0]}}]}}"#
        );
        Rules::built_in().sort(&heap::parse(&json).unwrap())
    }

    fn baseline(bytes: u64) -> Baseline {
        let (commit, date) = ("abc".into(), "2026-01-02".into());
        let mut baseline = Baseline { v: 1, build: "dev".into(), commit, date, checkpoints: BTreeMap::new() };
        baseline.set("fresh", &noq(bytes));
        baseline
    }

    #[test]
    fn a_bucket_that_grew_is_named_with_both_sizes() {
        let baseline = baseline(1_000_000);
        assert_eq!(baseline.regressions("fresh", &noq(1_099_000)), []);
        let [worse] = &baseline.regressions("fresh", &noq(1_101_000))[..] else { panic!("one bucket is worse") };
        assert_eq!((worse.bucket.as_str(), worse.before, worse.now), ("quic-conn", 1_000_000, 1_101_000));
        assert_eq!(baseline.regressions("joined", &noq(9_000_000)), [], "nobody knows that checkpoint");
    }

    #[test]
    fn a_small_bucket_may_double() {
        assert_eq!(baseline(1000).regressions("fresh", &noq(17_000)), []);
        assert_eq!(baseline(1000).regressions("fresh", &noq(17_400)).len(), 1);
    }

    #[test]
    fn what_is_written_is_read_again_one_line_a_checkpoint() {
        let mut baseline = baseline(1000);
        baseline.set("joined", &noq(2000));
        let text = baseline.write();
        assert_eq!(Baseline::read(&text).unwrap(), baseline);
        assert!(text.contains("    \"fresh\": {\"quic-conn\":[1000,4]},\n"), "{text}");
        assert!(Baseline::read(&text.replace("\"v\": 1", "\"v\": 2")).unwrap_err().contains("version 2"));
    }
}
