//! What differs between two heaps: bucket by bucket, then the call sites that grew most. `[pure]`

use std::{collections::BTreeMap, rc::Rc};

use crate::{
    buckets::Rules,
    heap::{Frame, Heap, Site, Size},
};

/// Growth of one call site. Negative where it shrank.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Growth {
    pub(crate) frames: Vec<Frame>,
    pub(crate) bucket: String,
    pub(crate) bytes: i64,
    pub(crate) blocks: i64,
}

/// Every call site whose live bytes differ, the largest growth first.
pub(crate) fn growths(rules: &Rules, before: &Heap, now: &Heap) -> Vec<Growth> {
    let mut sizes: BTreeMap<Vec<Rc<str>>, (&Site, Size, Size)> = BTreeMap::new();
    for site in &now.sites {
        sizes.insert(site.symbols(), (site, Size::default(), site.size));
    }
    for site in &before.sites {
        sizes.entry(site.symbols()).or_insert((site, Size::default(), Size::default())).1 = site.size;
    }
    let growth = |(site, before, now): (&Site, Size, Size)| Growth {
        frames: site.frames.clone(),
        bucket: rules.bucket_of(site).to_owned(),
        bytes: now.bytes as i64 - before.bytes as i64,
        blocks: now.blocks as i64 - before.blocks as i64,
    };
    let mut growths: Vec<Growth> = sizes.into_values().map(growth).filter(|growth| growth.bytes != 0).collect();
    growths.sort_by_key(|growth| std::cmp::Reverse(growth.bytes));
    growths
}

/// Functions that stand between an allocation and whoever wanted it.
const PLUMBING: &[&str] = &[
    "dhat::",
    "backtrace::",
    "alloc::",
    "core::",
    "std::",
    "hashbrown::",
    "__rust",
    "bytes::",
    "indexmap::",
    "perennial_heap::",
    "tracing::instrument::",
    "futures_lite::",
    "???",
];

/// The frames a reader looks for, innermost first, in one line: `a ← b (file.rs:88) ← c`. At most `max` of them.
pub(crate) fn line(frames: &[Frame], max: usize) -> String {
    let mut told: Vec<String> = frames.iter().filter(|frame| is_told(frame)).take(max).map(shown).collect();
    told.dedup();
    match told.is_empty() {
        true => frames.last().map(shown).unwrap_or_default(),
        false => told.join(" ← "),
    }
}

/// Not plumbing, and not a bare name: a generic function of a library that was compiled with our code is known by its last
/// name alone. An async block of ours is too, and has a place.
fn is_told(frame: &Frame) -> bool {
    let name = frame.symbol.trim_start_matches(['<', '&', '[', '(', '*']);
    let name = name.strip_prefix("dyn ").unwrap_or(name);
    let own = name.split('<').next().unwrap_or(name);
    let is_path = own.contains("::") || name.len() < frame.symbol.len();
    (is_path || name.starts_with("{async_")) && !PLUMBING.iter().any(|plumbing| name.starts_with(plumbing))
}

fn shown(frame: &Frame) -> String {
    let Frame { symbol, place } = frame;
    // A place is only there for code of this workspace, where the last name of the path says enough.
    match place {
        Some(place) => format!("{symbol} ({})", place.rsplit('/').next().unwrap_or(place)),
        None => symbol.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap;

    fn heap_of(pps: &str) -> Heap {
        let ftbl =
            r#"["0x1: <alloc::vec::Vec<T>>::push", "0x2: noq::a (src/a.rs:4:2)", "0x3: perennial::b", "[root]"]"#;
        heap::parse(&format!(r#"{{"mode": "rust-heap", "ftbl": {ftbl}, "pps": [{pps}]}}"#)).unwrap()
    }

    #[test]
    fn growth_is_sorted_and_what_shrank_comes_last() {
        let before =
            heap_of(r#"{"eb": 10, "ebk": 1, "tbk": 1, "fs": [0, 1]}, {"eb": 50, "ebk": 5, "tbk": 5, "fs": [2]}"#);
        let now =
            heap_of(r#"{"eb": 40, "ebk": 3, "tbk": 3, "fs": [0, 1]}, {"eb": 7, "ebk": 1, "tbk": 1, "fs": [1, 2]}"#);
        let growths = growths(&Rules::built_in(), &before, &now);
        let figures: Vec<_> = growths.iter().map(|one| (one.bucket.as_str(), one.bytes, one.blocks)).collect();
        assert_eq!(figures, [("quic-conn", 30, 2), ("quic-conn", 7, 1), ("actors", -50, -5)]);
    }

    #[test]
    fn a_line_begins_with_whoever_wanted_the_memory() {
        let heap = heap_of(r#"{"eb": 10, "ebk": 1, "tbk": 1, "fs": [0, 1, 2, 3]}"#);
        assert_eq!(line(&heap.sites[0].frames, 2), "noq::a (a.rs:4) ← perennial::b");
        let nobody = heap_of(r#"{"eb": 10, "ebk": 1, "tbk": 1, "fs": [0]}"#);
        assert_eq!(line(&nobody.sites[0].frames, 2), "<alloc::vec::Vec<T>>::push");
    }
}
