//! From dhat's JSON to live memory by call site. `[pure]`
//!
//! dhat writes one entry per call stack, with frames innermost first as indices into a table of names. What was live when
//! the profiler was dropped are `eb` bytes in `ebk` blocks; `tbk` blocks were ever allocated. Addresses differ between any
//! two runs, so a call site is known by the symbols of its frames, and stacks that differ by address alone are one.

use std::{collections::BTreeMap, rc::Rc};

use serde::{Deserialize, Serialize};

/// Memory of one call site, bucket or process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Size {
    /// Live bytes, as they were asked for.
    pub(crate) bytes: u64,
    /// Live allocations.
    pub(crate) blocks: u64,
    /// Allocations since the profiler was started, freed ones included.
    pub(crate) allocated: u64,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.blocks += more.blocks;
        self.allocated += more.allocated;
    }
}

/// One function of a call stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frame {
    pub(crate) symbol: Rc<str>,
    /// File and line, where the program that ran has them.
    pub(crate) place: Option<Rc<str>>,
}

/// Everything that was allocated through one stack of symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    /// Innermost first.
    pub(crate) frames: Vec<Frame>,
    pub(crate) size: Size,
}

impl Site {
    /// What makes two sites of two runs the same one.
    pub(crate) fn symbols(&self) -> Vec<Rc<str>> {
        self.frames.iter().map(|frame| frame.symbol.clone()).collect()
    }
}

/// A heap at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heap {
    pub(crate) sites: Vec<Site>,
}

impl Heap {
    pub(crate) fn total(&self) -> Size {
        let mut total = Size::default();
        self.sites.iter().for_each(|site| total += site.size);
        total
    }
}

/// The part of a `dhat-heap.json` that is looked at.
#[derive(Debug, Deserialize)]
struct File {
    mode: String,
    pps: Vec<ProgramPoint>,
    ftbl: Vec<String>,
}

/// One call stack that allocated.
#[derive(Debug, Deserialize)]
struct ProgramPoint {
    eb: u64,
    ebk: u64,
    tbk: u64,
    fs: Vec<usize>,
}

/// Reads a `dhat-heap.json`. The error says what is wrong with it.
pub(crate) fn parse(json: &str) -> Result<Heap, String> {
    let file: File = serde_json::from_str(json).map_err(|error| format!("not a dhat heap profile: {error}"))?;
    if file.mode != "rust-heap" && file.mode != "heap" {
        return Err(format!("a dhat profile of mode `{}`, where `rust-heap` is needed", file.mode));
    }
    let frames: Vec<Frame> = file.ftbl.iter().map(|text| frame(text)).collect();
    let mut sites: BTreeMap<Vec<Rc<str>>, Site> = BTreeMap::new();
    for ProgramPoint { eb: bytes, ebk: blocks, tbk: allocated, fs } in file.pps {
        if let Some(unknown) = fs.iter().find(|index| **index >= frames.len()) {
            return Err(format!("frame {unknown} is named, but the table has {}", frames.len()));
        }
        let frames: Vec<Frame> = fs.into_iter().map(|index| frames[index].clone()).collect();
        let symbols = frames.iter().map(|frame| frame.symbol.clone()).collect();
        let site = sites.entry(symbols).or_insert(Site { frames, size: Size::default() });
        site.size += Size { bytes, blocks, allocated };
    }
    Ok(Heap { sites: sites.into_values().collect() })
}

/// `0x1: noq::endpoint::RecvState::new (src/endpoint.rs:2:1)`, without what differs between two runs of one program, and
/// without the hash that older compilers put behind a symbol.
fn frame(text: &str) -> Frame {
    let unaddressed =
        text.split_once(": ").filter(|(address, _)| address.starts_with("0x")).map_or(text, |(_, rest)| rest);
    let (symbol, place) = match unaddressed.rsplit_once(" (") {
        Some((symbol, place)) => (symbol, place.trim_end_matches(')')),
        None => (unaddressed, "???"),
    };
    let symbol = match symbol.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => path,
        _ => symbol,
    };
    // A column says nothing to a reader that the line does not.
    let line = place.rsplit_once(':').map_or(place, |(line, _column)| line);
    let place = (!line.starts_with("???")).then(|| line.into());
    Frame { symbol: symbol.into(), place }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const SAMPLE: &str = include_str!("../samples/dhat-heap.json");

    #[test]
    fn a_frame_is_its_symbol_whatever_its_address() {
        let of = |text| {
            let Frame { symbol, place } = frame(text);
            (symbol.to_string(), place.map(|place| place.to_string()))
        };
        let place = Some("src/topic.rs:6".to_owned());
        assert_eq!(of("0x55d0: perennial::topic::run (src/topic.rs:6:1)"), ("perennial::topic::run".into(), place));
        assert_eq!(of("0x1: noq::Endpoint::new::h0123456789abcdef (???:0:0)"), ("noq::Endpoint::new".into(), None));
        assert_eq!(of("0x1: <A (B)>::hash (???:0:0)"), ("<A (B)>::hash".into(), None));
        assert_eq!(of("[root]"), ("[root]".into(), None));
    }

    #[test]
    fn stacks_that_differ_by_address_alone_are_one_site() {
        let json = r#"{"mode": "rust-heap", "ftbl": ["[root]", "0x1: a::b (c.rs:1:1)", "0x2: a::b (c.rs:9:9)"], "pps": [
            {"eb": 10, "ebk": 1, "tbk": 3, "fs": [1, 0]}, {"eb": 5, "ebk": 2, "tbk": 2, "fs": [2, 0]}]}"#;
        let heap = parse(json).unwrap();
        assert_eq!(heap.sites.len(), 1);
        assert_eq!(heap.total(), Size { bytes: 15, blocks: 3, allocated: 5 });
    }

    #[test]
    fn the_sample_is_all_there() {
        let heap = parse(SAMPLE).unwrap();
        assert_eq!(heap.total().bytes, 1_088 + 3_014_656 + 700 + 96 + 24);
        assert_eq!(heap.total().blocks, 1 + 2 + 7 + 3 + 1);
    }

    #[test]
    fn what_is_no_heap_profile_says_so() {
        assert!(parse("{}").unwrap_err().starts_with("not a dhat heap profile"));
        let ad_hoc = r#"{"mode": "rust-ad-hoc", "pps": [], "ftbl": []}"#;
        assert_eq!(parse(ad_hoc).unwrap_err(), "a dhat profile of mode `rust-ad-hoc`, where `rust-heap` is needed");
        let torn = r#"{"mode": "rust-heap", "pps": [{"eb": 1, "ebk": 1, "tbk": 1, "fs": [4]}], "ftbl": ["[root]"]}"#;
        assert_eq!(parse(torn).unwrap_err(), "frame 4 is named, but the table has 1");
    }
}
