//! From heaps to figures. `[pure]`

use std::collections::BTreeMap;

use crate::{
    buckets::{Buckets, Rules},
    budgets::Amount,
    heap::{Heap, Size},
    scenario::{Figure, Of},
};

/// A heap that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) heap: Heap,
    pub(crate) buckets: Buckets,
}

impl Taken {
    pub(crate) fn new(rules: &Rules, heap: Heap) -> Self {
        Self { buckets: rules.sort(&heap), heap }
    }
}

/// Heaps by the name of their checkpoint.
pub(crate) type Checkpoints = BTreeMap<String, Taken>;

/// What `figure` comes to.
pub(crate) fn evaluate(figure: &Figure, rules: &Rules, checkpoints: &Checkpoints) -> Amount {
    if let Of::AllocatedEach(names) = figure.of {
        let heap = |name: &str| &checkpoints[name].heap;
        let blocks = allocated_each(rules, names, figure.less.map(heap), heap(figure.at), figure.per);
        return Amount { bytes: 0.0, blocks };
    }
    let at = |name: &str| part(figure.of, &checkpoints[name].buckets);
    let less = figure.less.map(at).unwrap_or_default();
    let (at, per) = (at(figure.at), figure.per as f64);
    Amount { bytes: (at.bytes - less.bytes) / per, blocks: (at.blocks - less.blocks) / per }
}

fn part(of: Of, buckets: &Buckets) -> Amount {
    let mut sum = Size::default();
    let is_meant = |name: &&str| match of {
        Of::All => true,
        Of::Only(names) | Of::AllocatedEach(names) => names.contains(name),
        Of::Without(names) => !names.contains(name),
    };
    buckets.sizes.iter().filter(|(name, _)| is_meant(&name.as_str())).for_each(|(_, size)| sum += *size);
    Amount { bytes: sum.bytes as f64, blocks: sum.blocks as f64 }
}

fn allocated_each(rules: &Rules, names: &[&str], before: Option<&Heap>, now: &Heap, per: usize) -> f64 {
    let mut sites: BTreeMap<_, i64> = BTreeMap::new();
    for (heap, sign) in before.into_iter().map(|heap| (heap, -1)).chain([(now, 1)]) {
        for site in heap.sites.iter().filter(|site| names.contains(&rules.bucket_of(site))) {
            // The function that allocates and its callers are the site here: which poll of which task ran it differs
            // from frame to frame.
            let near = site.symbols().into_iter().take(NEAR_FRAMES).collect::<Vec<_>>();
            *sites.entry(near).or_default() += sign * site.size.allocated as i64;
        }
    }
    sites.into_values().map(|allocated| (allocated as f64 / per as f64).round()).sum()
}

/// dhat's own three frames, the allocator's, and what calls them.
const NEAR_FRAMES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap;

    /// One site of `noq` and one of `perennial`, of these bytes, which the latter allocated so often.
    fn taken(noq: u64, perennial: u64, allocated: u64) -> Taken {
        let json = format!(
            r#"{{"mode": "rust-heap", "ftbl": ["[root]", "0x1: noq::a", "0x2: perennial::b"], "pps": [
                {{"eb": {noq}, "ebk": 4, "tbk": 40, "fs": [1, 0]}},
                {{"eb": {perennial}, "ebk": 2, "tbk": {allocated}, "fs": [2, 0]}}]}}"#
        );
        Taken::new(&Rules::built_in(), heap::parse(&json).unwrap())
    }

    #[test]
    fn a_figure_is_a_difference_divided() {
        let checkpoints = Checkpoints::from([("one".into(), taken(100, 20, 7)), ("nine".into(), taken(900, 36, 33))]);
        let of = |of| {
            let figure = Figure { name: "connection", at: "nine", less: Some("one"), per: 8, of };
            evaluate(&figure, &Rules::built_in(), &checkpoints)
        };
        assert_eq!(of(Of::All), Amount { bytes: 102.0, blocks: 0.0 });
        assert_eq!(of(Of::Only(&["actors"])).bytes, 2.0);
        assert_eq!(of(Of::Without(&["actors"])).bytes, 100.0);
        let each = of(Of::AllocatedEach(&["actors"]));
        assert_eq!(each, Amount { bytes: 0.0, blocks: 3.0 }, "26 blocks for 8: two of them are somebody else's");
    }
}
