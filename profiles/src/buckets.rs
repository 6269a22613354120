//! From dhat's JSON to live bytes by bucket. `[pure]`
//!
//! dhat writes one entry per call stack, with frames innermost first as indices into a table of names. The bytes still
//! live when the profiler was dropped are `eb`. A stack belongs to the crate that asked for the memory: its innermost
//! frame that any rule matches decides.

use serde::{Deserialize, Serialize};

/// The part of a `dhat-heap.json` that is looked at.
#[derive(Debug, Deserialize)]
pub(crate) struct HeapFile {
    mode: String,
    pps: Vec<ProgramPoint>,
    ftbl: Vec<String>,
}

/// One call stack that allocated.
#[derive(Debug, Deserialize)]
struct ProgramPoint {
    /// Bytes live at the end. Absent in files of profiles that are not of the heap.
    eb: u64,
    /// Blocks live at the end.
    ebk: u64,
    /// Frames, innermost first.
    fs: Vec<usize>,
}

/// Live memory of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Bucket {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
    pub(crate) blocks: u64,
}

/// The bucket of stacks that no rule matches: std, the program's own main, anything new.
const OTHER: &str = "std/other";

/// Name of a bucket and the substrings that belong to it, tried in this order on every frame. `iroh_gossip` before
/// `iroh`, because the one name contains the other; the paths end in `::`, because `ring` alone is part of `String`.
const RULES: [(&str, &[&str]); 9] = [
    ("noq", &["noq::", "noq_proto::", "noq_udp::"]),
    ("iroh_gossip", &["iroh_gossip::"]),
    (
        "iroh",
        &[
            "iroh::",
            "iroh_base::",
            "iroh_relay::",
            "iroh_dns::",
            "n0_watcher::",
            "netwatch::",
            "netdev::",
            "portmapper::",
        ],
    ),
    ("rustls/ring", &["rustls::", "ring::", "webpki::"]),
    ("tokio", &["tokio::", "tokio_util::", "futures_buffered::"]),
    ("ractor", &["ractor::"]),
    ("perennial", &["perennial::"]),
    ("tracing", &["tracing::", "tracing_core::", "tracing_subscriber::", "sharded_slab::"]),
    ("profiles", &["perennial_profiles::"]),
];

/// Reads a `dhat-heap.json`. The error says what is wrong with it.
pub(crate) fn parse(json: &str) -> Result<HeapFile, String> {
    let file: HeapFile = serde_json::from_str(json).map_err(|error| format!("not a dhat heap profile: {error}"))?;
    if file.mode != "rust-heap" && file.mode != "heap" {
        return Err(format!("a dhat profile of mode `{}`, where `rust-heap` is needed", file.mode));
    }
    match file.pps.iter().flat_map(|point| &point.fs).find(|frame| **frame >= file.ftbl.len()) {
        Some(frame) => Err(format!("frame {frame} is named, but the table has {}", file.ftbl.len())),
        None => Ok(file),
    }
}

/// Live memory by bucket, every bucket named, the largest first. Their sum is [`live_bytes`] by construction, and is
/// checked.
pub(crate) fn buckets(file: &HeapFile) -> Vec<Bucket> {
    let names = RULES.iter().map(|(name, _)| *name).chain([OTHER]);
    let mut buckets: Vec<Bucket> = names.map(|name| Bucket { name, bytes: 0, blocks: 0 }).collect();
    for point in &file.pps {
        let index = bucket_of(point.fs.iter().map(|frame| file.ftbl[*frame].as_str()));
        buckets[index].bytes += point.eb;
        buckets[index].blocks += point.ebk;
    }
    buckets.sort_by_key(|bucket| std::cmp::Reverse(bucket.bytes));
    assert_eq!(buckets.iter().map(|bucket| bucket.bytes).sum::<u64>(), live_bytes(file), "a stack is in one bucket");
    buckets
}

/// Bytes live at the end, over all stacks.
pub(crate) fn live_bytes(file: &HeapFile) -> u64 {
    file.pps.iter().map(|point| point.eb).sum()
}

/// Index into [`RULES`], or one past its end.
fn bucket_of<'a>(mut frames: impl Iterator<Item = &'a str>) -> usize {
    frames.find_map(rule_of).unwrap_or(RULES.len())
}

fn rule_of(frame: &str) -> Option<usize> {
    RULES.iter().position(|(_, paths)| paths.iter().any(|path| names_path(frame, path)))
}

/// Whether `path` stands in `frame` at the beginning of a path: `ring::` is not in `spring::hmac`.
fn names_path(frame: &str, path: &str) -> bool {
    frame.match_indices(path).any(|(at, _)| {
        let before = frame[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../samples/dhat-heap.json");

    #[test]
    fn the_innermost_matching_frame_decides() {
        let file = parse(SAMPLE).unwrap();
        let by_name = |name| *buckets(&file).iter().find(|bucket| bucket.name == name).unwrap();
        // A queue that noq made is tokio's memory, a table that noq made is noq's, whoever called noq.
        assert_eq!(by_name("tokio"), Bucket { name: "tokio", bytes: 1_088, blocks: 2 });
        assert_eq!(by_name("noq"), Bucket { name: "noq", bytes: 3_014_656, blocks: 1 });
        assert_eq!(by_name("iroh_gossip"), Bucket { name: "iroh_gossip", bytes: 700, blocks: 7 });
        assert_eq!(by_name("perennial"), Bucket { name: "perennial", bytes: 96, blocks: 3 });
        assert_eq!(by_name(OTHER), Bucket { name: OTHER, bytes: 24, blocks: 1 });
        assert_eq!(by_name("iroh").bytes, 0, "iroh only called noq, and what it held itself is freed");
    }

    #[test]
    fn the_buckets_sum_to_everything_live() {
        let file = parse(SAMPLE).unwrap();
        assert_eq!(live_bytes(&file), 1_088 + 3_014_656 + 700 + 96 + 24);
        assert_eq!(buckets(&file).iter().map(|bucket| bucket.bytes).sum::<u64>(), live_bytes(&file));
        assert_eq!(buckets(&file).first().unwrap().name, "noq");
    }

    #[test]
    fn names_within_names_do_not_match() {
        assert_eq!(rule_of("0x1: spring::hmac::sign (src/hmac.rs:1:1)"), None);
        assert_eq!(rule_of("0x1: my::tokio::clone"), None);
        let name = |frame| rule_of(frame).map(|rule| RULES[rule].0);
        assert_eq!(name("0x1: <ring::hmac::Key as core::fmt::Debug>::fmt"), Some("rustls/ring"));
        assert_eq!(name("0x1: perennial_profiles::scenarios::churn"), Some("profiles"));
        assert_eq!(name("0x1: iroh_gossip::proto::state::State"), Some("iroh_gossip"));
    }

    #[test]
    fn what_is_no_heap_profile_says_so() {
        assert!(parse("{}").unwrap_err().starts_with("not a dhat heap profile"));
        let ad_hoc = r#"{"mode": "rust-ad-hoc", "pps": [], "ftbl": []}"#;
        assert_eq!(parse(ad_hoc).unwrap_err(), "a dhat profile of mode `rust-ad-hoc`, where `rust-heap` is needed");
        let torn = r#"{"mode": "rust-heap", "pps": [{"eb": 1, "ebk": 1, "fs": [4]}], "ftbl": ["[root]"]}"#;
        assert_eq!(parse(torn).unwrap_err(), "frame 4 is named, but the table has 1");
    }
}
