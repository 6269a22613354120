//! Whose memory a call site is: the rules of `buckets.toml`, and what they make of a heap. `[pure]`

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::heap::{Heap, Site, Size};

/// The bucket of sites that no rule matches: std, anything new.
pub(crate) const OTHER: &str = "other";

/// The most of all live bytes that no rule may match: what cannot be attributed cannot be judged.
pub(crate) const OTHER_SHARE_MAX: f64 = 0.05;

/// All rules, in the order in which they are tried.
#[derive(Debug)]
pub(crate) struct Rules {
    buckets: Vec<Rule>,
}

/// One bucket, and the paths that belong to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    name: String,
    /// For people who read the file.
    #[serde(rename = "about")]
    _about: String,
    paths: Vec<String>,
    /// The one verb whose program has such code.
    only: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    bucket: Vec<Rule>,
}

impl Rules {
    /// The rules this program was built with.
    pub(crate) fn built_in() -> Self {
        Self::read(include_str!("../buckets.toml")).expect("a test reads the built-in rules")
    }

    fn read(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text).map(|File { bucket: buckets }| Self { buckets })
    }

    /// Live memory by bucket, in the order of the rules, `other` last.
    pub(crate) fn sort(&self, heap: &Heap) -> Buckets {
        let names = self.buckets.iter().map(|bucket| bucket.name.clone()).chain([OTHER.to_owned()]);
        let mut sizes: Vec<(String, Size)> = names.map(|name| (name, Size::default())).collect();
        let mut matched = BTreeSet::new();
        for site in &heap.sites {
            let rule = self.rule_of(site);
            sizes[rule.map_or(self.buckets.len(), |(bucket, _)| bucket)].1 += site.size;
            matched.extend(rule.map(|(bucket, path)| self.buckets[bucket].paths[path].clone()));
        }
        let buckets = Buckets { sizes, matched };
        assert_eq!(buckets.total(), heap.total(), "every site is in one bucket");
        buckets
    }

    /// The name of the bucket of one site.
    pub(crate) fn bucket_of(&self, site: &Site) -> &str {
        self.rule_of(site).map_or(OTHER, |(bucket, _)| &self.buckets[bucket].name)
    }

    /// Paths that matched in none of `seen`, but for those that only a verb of its own could match.
    pub(crate) fn unmatched(&self, seen: &[&Buckets]) -> Vec<String> {
        self.unmatched_where(seen, |rule| rule.only.is_none())
    }

    /// Paths for nothing but `verb` that did not match there.
    pub(crate) fn unmatched_of(&self, verb: &str, seen: &Buckets) -> Vec<String> {
        self.unmatched_where(&[seen], |rule| rule.only.as_deref() == Some(verb))
    }

    fn unmatched_where(&self, seen: &[&Buckets], is_asked: impl Fn(&Rule) -> bool) -> Vec<String> {
        let paths = self.buckets.iter().filter(|rule| is_asked(rule)).flat_map(|rule| &rule.paths);
        paths.filter(|path| !seen.iter().any(|buckets| buckets.matched.contains(*path))).cloned().collect()
    }

    /// Indices of the bucket and of its path.
    fn rule_of(&self, site: &Site) -> Option<(usize, usize)> {
        site.frames.iter().find_map(|frame| {
            self.buckets.iter().enumerate().find_map(|(bucket, rule)| {
                let path = rule.paths.iter().position(|path| names_path(&frame.symbol, path))?;
                Some((bucket, path))
            })
        })
    }
}

/// A heap by bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buckets {
    pub(crate) sizes: Vec<(String, Size)>,
    /// The paths that matched at least one site, live or not.
    matched: BTreeSet<String>,
}

impl Buckets {
    /// One bucket. Nothing, where there is none of that name.
    pub(crate) fn of(&self, name: &str) -> Size {
        self.sizes.iter().find(|(of, _)| of == name).map(|(_, size)| *size).unwrap_or_default()
    }

    pub(crate) fn total(&self) -> Size {
        let mut total = Size::default();
        self.sizes.iter().for_each(|(_, size)| total += *size);
        total
    }

    /// Bytes, blocks and blocks ever allocated of each bucket.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        self.sizes.iter().map(|(name, size)| (name.clone(), serde_json::json!(size))).collect()
    }

    /// The sentence to fail with where more than [`OTHER_SHARE_MAX`] of the bytes are nobody's.
    pub(crate) fn check_other(&self) -> Result<(), String> {
        let (other, all) = (self.of(OTHER).bytes as f64, self.total().bytes as f64);
        if other <= all * OTHER_SHARE_MAX {
            return Ok(());
        }
        let (share, max) = (other * 100.0 / all, OTHER_SHARE_MAX * 100.0);
        Err(format!("no rule matches {share:.1} % of the bytes; at most {max} % may be `{OTHER}`"))
    }
}

/// Whether `path` stands in `symbol` at the beginning of a path: `noq::` is not in `mynoq::Endpoint`.
fn names_path(symbol: &str, path: &str) -> bool {
    symbol.match_indices(path).any(|(at, _)| {
        let before = symbol[..at].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap;

    const RULES: &str = r#"
        [[bucket]]
        name = "queues"
        about = ""
        paths = ["tokio::sync::"]

        [[bucket]]
        name = "quic"
        about = ""
        paths = ["noq::", "noq_proto::"]

        [[bucket]]
        name = "spans"
        about = ""
        only = "story"
        paths = ["tracing::"]
    "#;

    #[test]
    fn the_innermost_frame_decides_and_then_the_order() {
        let rules = Rules::read(RULES).unwrap();
        let buckets = rules.sort(&heap::parse(include_str!("../samples/dhat-heap.json")).unwrap());
        let asked_by_noq = Size { bytes: 1_088, blocks: 2, allocated: 20 };
        let nobody_nearer = Size { bytes: 96, blocks: 3, allocated: 30 };
        let mut queues = asked_by_noq;
        queues += nobody_nearer;
        assert_eq!(buckets.of("queues"), queues);
        assert_eq!(buckets.of("quic"), Size { bytes: 3_014_656, blocks: 1, allocated: 1 });
        assert_eq!(buckets.of(OTHER).bytes, 700 + 24);
        assert_eq!(buckets.of("nobody"), Size::default());
    }

    #[test]
    fn a_rule_that_matches_nothing_is_named_where_it_could_have_matched() {
        let rules = Rules::read(RULES).unwrap();
        let buckets = rules.sort(&heap::parse(include_str!("../samples/dhat-heap.json")).unwrap());
        assert_eq!(rules.unmatched(&[&buckets]), ["noq_proto::"]);
        assert_eq!(rules.unmatched_of("story", &buckets), ["tracing::"]);
        assert_eq!(rules.unmatched_of("fiction", &buckets), [""; 0]);
    }

    #[test]
    fn too_much_that_is_nobodys_is_told_in_percent() {
        let size = |bytes| Size { bytes, blocks: 1, allocated: 1 };
        let sizes = |bytes, other| vec![("quic".to_owned(), size(bytes)), (OTHER.to_owned(), size(other))];
        let check = |bytes, other| Buckets { sizes: sizes(bytes, other), matched: BTreeSet::new() }.check_other();
        assert_eq!(check(95, 5), Ok(()));
        assert_eq!(check(94, 6).unwrap_err(), "no rule matches 6.0 % of the bytes; at most 5 % may be `other`");
    }

    #[test]
    fn names_within_names_do_not_match() {
        let rules = Rules::built_in();
        let bucket = |symbol: &str| {
            let frames = vec![heap::Frame { symbol: symbol.into(), place: None }];
            rules.bucket_of(&Site { frames, size: Size::default() }).to_owned()
        };
        assert_eq!(bucket("mynoq::Endpoint::new"), OTHER);
        assert_eq!(bucket("my::tokio::clone"), OTHER);
        assert_eq!(bucket("<rustls::hmac::Key as core::fmt::Debug>::fmt"), "tls");
        assert_eq!(bucket("iroh_gossip::proto::state::State"), "gossip-state");
        assert_eq!(bucket("perennial_profiles::course::run"), "harness");
        assert_eq!(bucket("<noq::endpoint::RecvState>::new"), "quic-recvbuf");
        assert_eq!(bucket("perennial::address_book::AddressBook::learn"), "addrbook");
    }
}
