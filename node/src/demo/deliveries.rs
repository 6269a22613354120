//! Who should still hear what. `[pure]`

use std::collections::{BTreeMap, BTreeSet};

/// Messages on their way, by their text, which is unique.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    awaited: BTreeMap<String, BTreeSet<usize>>,
    made: usize,
}

impl Deliveries {
    /// `text` was published, and every one of `nodes` should hear it.
    pub(crate) fn expect(&mut self, text: &str, nodes: impl IntoIterator<Item = usize>) {
        self.awaited.insert(text.to_owned(), nodes.into_iter().collect());
    }

    /// `node` heard `text`.
    pub(crate) fn on_heard(&mut self, node: usize, text: &str) {
        if let Some(nodes) = self.awaited.get_mut(text) {
            self.made += usize::from(nodes.remove(&node));
            if nodes.is_empty() {
                self.awaited.remove(text);
            }
        }
    }

    /// Deliveries still to come.
    pub(crate) fn left(&self) -> usize {
        self.awaited.values().map(BTreeSet::len).sum()
    }

    /// Deliveries made since the last call.
    pub(crate) fn take_made(&mut self) -> usize {
        std::mem::take(&mut self.made)
    }

    /// One sentence per node that missed something.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut by_node: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (text, nodes) in &self.awaited {
            for node in nodes {
                by_node.entry(*node).or_default().push(text);
            }
        }
        by_node.into_iter().map(|(node, texts)| format!("node {} missed: {}", node + 1, texts.join("; "))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_per_node() {
        let mut deliveries = Deliveries::default();
        deliveries.expect("a", [0, 1]);
        deliveries.expect("b", [1, 2]);
        deliveries.on_heard(1, "b");
        deliveries.on_heard(1, "b");
        deliveries.on_heard(2, "never published");
        assert_eq!((deliveries.left(), deliveries.take_made(), deliveries.take_made()), (3, 1, 0));
        assert_eq!(deliveries.missing(), ["node 1 missed: a", "node 2 missed: a", "node 3 missed: b"]);
        for (node, text) in [(0, "a"), (1, "a"), (2, "b")] {
            deliveries.on_heard(node, text);
        }
        assert_eq!((deliveries.left(), deliveries.missing().len()), (0, 0));
    }
}
