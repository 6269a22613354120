//! What one node has said on its stdout: ready, neighbours, probes received. `[pure]`
//!
//! Lines come from `process.rs`; this file only remembers what they mean.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use serde_json::Value;

/// One process as seen from outside.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The topic that counts, in hex; what is said of others is not taken in. `None`: there is one topic.
    topic: Option<String>,
    /// Its identity and first address, once it is ready.
    pub ready: Option<Ready>,
    /// Ids of the neighbours it has announced and not taken back.
    pub neighbors: BTreeSet<String>,
    /// Probes of this run that arrived. At most one entry per planned probe.
    pub probes: BTreeMap<u32, Arrival>,
    /// Per former neighbour: how often it was lost, and the reason given last. Bounded: the least recent goes first.
    downs: VecDeque<Down>,
    /// Events it said it lost.
    pub lagged: u64,
    /// Its stdout has ended, so the process has.
    pub ended: bool,
}

/// A probe at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub copies: u32,
    /// When its line was read.
    pub first: Instant,
}

/// A neighbour that was lost.
#[derive(Debug)]
struct Down {
    peer: String,
    reason: String,
    times: u64,
}

/// Former neighbours that are remembered.
const DOWNS_MAX: usize = 256;

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Its id.
    pub id: String,
    /// `IP:PORT` of its first listener.
    pub listened: String,
}

impl Ready {
    /// `ID@IP:PORT`, fit for `--join` and `--peer`.
    pub(crate) fn address(&self) -> String {
        format!("{}@{}", self.id, self.listened)
    }
}

impl View {
    /// Of a node that may be on other topics than this one, in hex.
    pub(crate) fn on_topic(topic: String) -> Self {
        Self { topic: Some(topic), ..Self::default() }
    }

    /// Takes in one line. Lines that mean nothing here are ignored; `run` names the probes of this run.
    pub(crate) fn on_line(&mut self, line: &str, run: &str, now: Instant) {
        // Of thousands of messages only the probes are read.
        if line.contains(r#""event":"message""#) && !line.contains(r#""probe "#) {
            return;
        }
        let Ok(json) = serde_json::from_str::<Value>(line) else { return };
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        if self.topic.as_ref().zip(text("topic")).is_some_and(|(mine, of)| *mine != of) {
            return;
        }
        match json["event"].as_str() {
            Some("ready") => {
                let listened = json["addrs"][0].as_str().map(str::to_owned);
                if let (Some(id), Some(listened)) = (text("id"), listened) {
                    self.ready = Some(Ready { id, listened });
                }
            }
            Some("neighbor_up") => self.neighbors.extend(text("peer")),
            Some("neighbor_down") => {
                if let Some(peer) = json["peer"].as_str() {
                    self.neighbors.remove(peer);
                    self.on_down(peer, json["reason"].as_str().unwrap_or_default());
                }
            }
            Some("message") => {
                if let Some(number) = json["text"].as_str().and_then(|text| probe_number(text, run)) {
                    self.probes.entry(number).or_insert(Arrival { copies: 0, first: now }).copies += 1;
                }
            }
            Some("lagged") => self.lagged += json["n"].as_u64().unwrap_or(1),
            // A restarted topic finds its neighbours anew.
            Some("closed" | "restarted") => self.neighbors.clear(),
            Some(_) | None => {}
        }
    }
}

impl View {
    /// How often `peer` was lost as a neighbour, as far as is remembered.
    pub(crate) fn downs_of(&self, peer: &str) -> u64 {
        self.downs.iter().find(|down| down.peer == peer).map_or(0, |down| down.times)
    }

    /// Whether `peer` was last lost because it said so.
    pub(crate) fn heard_farewell_of(&self, peer: &str) -> bool {
        self.downs.iter().any(|down| down.peer == peer && down.reason == "left")
    }

    /// Whether `peer` was last lost because nothing was heard of it.
    pub(crate) fn lost_in_silence(&self, peer: &str) -> bool {
        self.downs.iter().any(|down| down.peer == peer && down.reason == "connection-lost")
    }

    fn on_down(&mut self, peer: &str, reason: &str) {
        let known = self.downs.iter().position(|down| down.peer == peer);
        let times = known.and_then(|at| self.downs.remove(at)).map_or(0, |down| down.times);
        if self.downs.len() == DOWNS_MAX {
            self.downs.pop_front();
        }
        self.downs.push_back(Down { peer: peer.to_owned(), reason: reason.to_owned(), times: times + 1 });
    }
}

/// The content of probe `number`. `run` keeps runs apart that share a mesh by mistake.
pub(crate) fn probe_text(number: u32, run: &str) -> String {
    format!("probe {number} of {run}")
}

fn probe_number(text: &str, run: &str) -> Option<u32> {
    text.strip_prefix("probe ")?.strip_suffix(run)?.strip_suffix(" of ")?.parse().ok()
}

/// Whether the live nodes form one mesh: no neighbour is dead, and the edges that both ends announce connect them all.
pub(crate) fn is_whole(live: &[(&str, &BTreeSet<String>)]) -> bool {
    let by_id: BTreeMap<&str, &BTreeSet<String>> = live.iter().copied().collect();
    if by_id.values().any(|neighbors| neighbors.iter().any(|peer| !by_id.contains_key(peer.as_str()))) {
        return false;
    }
    let Some(first) = by_id.keys().next() else { return true };
    let mut reached = BTreeSet::from([*first]);
    let mut todo = vec![*first];
    while let Some(node) = todo.pop() {
        for peer in by_id[node] {
            if by_id[peer.as_str()].contains(node) && reached.insert(peer) {
                todo.push(peer);
            }
        }
    }
    reached.len() == by_id.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_a_view() {
        let mut view = View::default();
        let now = Instant::now();
        for line in [
            r#"{"v":1,"event":"ready","id":"aa","addrs":["127.0.0.1:4433"],"ticket":"t"}"#,
            r#"{"v":1,"event":"neighbor_up","topic":"t","peer":"bb"}"#,
            r#"{"v":1,"event":"neighbor_up","topic":"t","peer":"cc"}"#,
            r#"{"v":1,"event":"neighbor_down","topic":"t","peer":"bb","reason":"left"}"#,
            r#"{"v":1,"event":"message","topic":"t","from":"cc","text":"probe 3 of seed 7"}"#,
            r#"{"v":1,"event":"message","topic":"t","from":"cc","text":"probe 3 of seed 8"}"#,
            r#"{"v":1,"event":"message","topic":"t","from":"cc","base64":"AA=="}"#,
            r#"{"v":1,"event":"lagged","n":4}"#,
            r#"{"v":1,"event":"of a later version"}"#,
            "not json",
        ] {
            view.on_line(line, "seed 7", now);
        }
        assert_eq!(view.ready, Some(Ready { id: "aa".into(), listened: "127.0.0.1:4433".into() }));
        assert_eq!(view.neighbors, BTreeSet::from(["cc".to_owned()]));
        assert_eq!(view.probes, BTreeMap::from([(3, Arrival { copies: 1, first: now })]));
        assert_eq!(view.lagged, 4);
    }

    #[test]
    fn what_happens_on_another_topic_is_nobodys_business() {
        let mut view = View::on_topic("aa".into());
        for line in [
            r#"{"v":1,"event":"neighbor_up","topic":"aa","peer":"bb"}"#,
            r#"{"v":1,"event":"neighbor_up","topic":"cc","peer":"dd"}"#,
            r#"{"v":1,"event":"neighbor_down","topic":"cc","peer":"bb","reason":"left"}"#,
            r#"{"v":1,"event":"closed","topic":"cc"}"#,
        ] {
            view.on_line(line, "seed 7", Instant::now());
        }
        assert_eq!(view.neighbors, BTreeSet::from(["bb".to_owned()]));
    }

    #[test]
    fn a_probe_is_recognised_by_its_own_run_only() {
        assert_eq!(probe_number(&probe_text(12, "seed 7"), "seed 7"), Some(12));
        assert_eq!(probe_number(&probe_text(12, "seed 17"), "seed 7"), None);
    }

    #[test]
    fn a_mesh_is_whole_when_both_ends_agree_and_nobody_is_dead() {
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let whole = |edges: &[(&str, &[&str])]| {
            let sets: Vec<_> = edges.iter().map(|(id, peers)| (*id, set(peers))).collect();
            is_whole(&sets.iter().map(|(id, peers)| (*id, peers)).collect::<Vec<_>>())
        };
        assert!(whole(&[("a", &["b"]), ("b", &["a", "c"]), ("c", &["b"])]));
        assert!(!whole(&[("a", &["b"]), ("b", &["a"]), ("c", &["b"])]), "one-sided");
        assert!(!whole(&[("a", &["b"]), ("b", &["a"]), ("c", &["d"]), ("d", &["c"])]), "split");
        assert!(!whole(&[("a", &["b", "dead"]), ("b", &["a"])]), "dead neighbour");
    }
}
