//! Who is linked to whom, as the nodes themselves tell. `[pure]`

use std::collections::{BTreeMap, BTreeSet};

/// Every node's own view of its neighbours.
#[derive(Debug, Default)]
pub(crate) struct Links {
    views: BTreeMap<usize, BTreeSet<usize>>,
}

impl Links {
    pub(crate) fn up(&mut self, node: usize, neighbor: usize) {
        self.views.entry(node).or_default().insert(neighbor);
    }

    pub(crate) fn down(&mut self, node: usize, neighbor: usize) {
        self.views.entry(node).or_default().remove(&neighbor);
    }

    /// `node` has died: what it saw is void. What others still see of it is theirs to find out.
    pub(crate) fn forget(&mut self, node: usize) {
        self.views.remove(&node);
    }

    /// Links that both ends tell of. Only those carry messages both ways.
    pub(crate) fn mutual(&self) -> usize {
        self.pairs().count()
    }

    /// Whether `count` nodes hold together by mutual links.
    pub(crate) fn is_connected(&self, count: usize) -> bool {
        let mut reached = BTreeSet::from([0]);
        let mut waiting = vec![0];
        while let Some(node) = waiting.pop() {
            for (one, other) in self.pairs() {
                let next = match node {
                    _ if node == one => other,
                    _ if node == other => one,
                    _ => continue,
                };
                if reached.insert(next) {
                    waiting.push(next);
                }
            }
        }
        reached.len() == count
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.views.iter().flat_map(move |(node, neighbors)| {
            neighbors
                .iter()
                .filter(move |neighbor| *neighbor > node && self.sees(**neighbor, *node))
                .map(move |neighbor| (*node, *neighbor))
        })
    }

    fn sees(&self, node: usize, neighbor: usize) -> bool {
        self.views.get(&node).is_some_and(|neighbors| neighbors.contains(&neighbor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_that_both_ends_see_hold_the_mesh_together() {
        let mut links = Links::default();
        links.up(0, 1);
        assert_eq!((links.mutual(), links.is_connected(2)), (0, false));
        links.up(1, 0);
        assert_eq!((links.mutual(), links.is_connected(2), links.is_connected(3)), (1, true, false));
        links.up(2, 1);
        links.up(1, 2);
        assert!(links.is_connected(3));
        links.forget(1);
        assert!(!links.is_connected(3), "the dead node held the others together");
        links.up(1, 0);
        assert!(!links.is_connected(3));
        links.up(1, 2);
        assert!(links.is_connected(3));
        links.down(2, 1);
        assert_eq!(links.mutual(), 1);
    }
}
