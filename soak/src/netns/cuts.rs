//! Which hosts are cut from which, as `nft` is told and as it answers. `[pure]`
//!
//! A cut is a pair of hardware addresses in one set with counters: it holds whatever address a host moves to, in both
//! wirings, and frames that are not IP as well. Broadcasts pass, so a host may still be asked for its address; its
//! answer does not.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::{hardware_text, host_of_text};

/// What `nft -f -` reads once, when the network is made.
pub(crate) const RULES: &str = "\
table bridge soak {
  set cut { typeof ether saddr . ether daddr; counter; }
  chain forward { type filter hook forward priority 0; policy accept; ether saddr . ether daddr @cut drop; }
}
";

/// Makes all pairs whole again.
pub(crate) const FLUSH: &str = "flush set bridge soak cut\n";

/// Prints the set with its counters.
pub(crate) const LIST: [&str; 6] = ["-j", "list", "set", "bridge", "soak", "cut"];

/// One direction between two hosts, and what has been dropped on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cut {
    /// The host that is not heard.
    pub from: usize,
    /// The host that does not hear.
    pub to: usize,
    /// Frames dropped so far. What a sender hands over as one large segment counts once.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Both directions of every pair in different groups. A host in no group is cut from nobody.
pub fn between_groups(groups: &[Vec<usize>]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        let others = groups.iter().enumerate().filter(|(other, _)| *other != number).flat_map(|(_, hosts)| hosts);
        for to in others {
            pairs.extend(group.iter().map(|from| (*from, *to)));
        }
    }
    pairs.retain(|(from, to)| from != to);
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// Every pair from one side to the other.
pub fn one_way(from: &[usize], to: &[usize]) -> Vec<(usize, usize)> {
    let mut pairs: Vec<_> = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to))).collect();
    pairs.retain(|(from, to)| from != to);
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// What `nft -f -` reads to cut these pairs. A pair that is cut already keeps its count.
pub(crate) fn add(pairs: &[(usize, usize)]) -> String {
    let element = |(from, to): &(usize, usize)| format!("{} . {}", hardware_text(*from), hardware_text(*to));
    let elements: Vec<String> = pairs.iter().map(element).collect();
    match elements.is_empty() {
        true => String::new(),
        false => format!("add element bridge soak cut {{ {} }}\n", elements.join(", ")),
    }
}

/// What `nft -j list set` printed. An element that cannot be read is an error: a cut without a number is no fact.
pub(crate) fn parse(text: &str) -> Result<Vec<Cut>, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| format!("no JSON came back: {error}"))?;
    let mut objects = json["nftables"].as_array().into_iter().flatten();
    let set = objects.find_map(|object| object.get("set")).ok_or("the set is not there")?;
    let elements = set["elem"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut cuts = elements.iter().map(element).collect::<Result<Vec<_>, _>>()?;
    cuts.sort_unstable();
    Ok(cuts)
}

fn element(json: &Value) -> Result<Cut, String> {
    let host = |side: usize| json["elem"]["val"]["concat"][side].as_str().and_then(host_of_text);
    let count = |what: &str| json["elem"]["counter"][what].as_u64();
    let cut = || Some(Cut { from: host(0)?, to: host(1)?, packets: count("packets")?, bytes: count("bytes")? });
    cut().ok_or_else(|| format!("an element without hosts or counter: {json}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn a_partition_is_symmetric_and_leaves_groups_whole(sides in prop::collection::vec(0..4_usize, 0..20)) {
            let group = |side: usize| (0..sides.len()).filter(|host| sides[*host] == side).collect::<Vec<_>>();
            // Side 3 is named in no group.
            let pairs = between_groups(&[group(0), group(1), group(2)]);
            for from in 0..sides.len() {
                for to in 0..sides.len() {
                    let expected = sides[from] != sides[to] && sides[from] < 3 && sides[to] < 3;
                    prop_assert_eq!(pairs.contains(&(from, to)), expected, "{} {}", from, to);
                }
            }
        }
    }

    #[test]
    fn one_way_cuts_one_way() {
        assert_eq!(one_way(&[0, 1], &[1, 2]), [(0, 1), (0, 2), (1, 2)]);
        assert_eq!(add(&[]), "");
        assert_eq!(add(&[(0, 9)]), "add element bridge soak cut { 02:50:53:00:00:01 . 02:50:53:00:00:0a }\n");
    }

    #[test]
    fn counters_are_read_back_or_an_error() {
        let set = |elements: &str| {
            format!(
                r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {{"set": {{"name": "cut"{elements}}}}}]}}"#
            )
        };
        assert_eq!(parse(&set("")), Ok(vec![]));
        let element = |rest: &str| {
            set(&format!(
                r#", "elem": [{{"elem": {{"val": {{"concat": ["02:50:53:00:00:02", "02:50:53:00:00:01"]}}{rest}}}}}]"#
            ))
        };
        let counter = r#", "counter": {"packets": 3, "bytes": 126}"#;
        assert_eq!(parse(&element(counter)), Ok(vec![Cut { from: 1, to: 0, packets: 3, bytes: 126 }]));
        assert!(parse(&element("")).unwrap_err().starts_with("an element without hosts or counter"));
        assert!(parse("{}").is_err() && parse("").is_err());
    }
}
