//! Who had to hear a message of a storm: whoever no fault touched, and could be reached past those that one did. `[pure]`
//!
//! A node counts as touched from a moment before its fault until a moment after: what was on its way when it began may go
//! down with it, and whoever has just come back is known to its neighbours one round trip later.

use std::time::{Duration, Instant};

/// How far a fault reaches beyond its beginning and its end. Twenty times what a message of a quiet machine takes to cross
/// the mesh; with a second nearly every node of a fast storm would count as touched, and nothing would be judged.
const MARGIN: Duration = Duration::from_millis(250);

/// When faults held which node.
#[derive(Debug, Default)]
pub(super) struct Holds(Vec<Hold>);

#[derive(Debug)]
struct Hold {
    node: usize,
    from: Instant,
    until: Option<Instant>,
}

impl Holds {
    /// A fault begins to hold these nodes.
    pub(super) fn begin(&mut self, nodes: &[usize], now: Instant) {
        self.0.extend(nodes.iter().map(|node| Hold { node: *node, from: now, until: None }));
    }

    /// The fault that holds them ends. A node that two hold at one time stays with the other.
    pub(super) fn end(&mut self, nodes: &[usize], now: Instant) {
        for node in nodes {
            if let Some(hold) = self.0.iter_mut().find(|hold| hold.node == *node && hold.until.is_none()) {
                hold.until = Some(now);
            }
        }
    }

    /// Whether any fault goes on.
    pub(super) fn any(&self) -> bool {
        self.0.iter().any(|hold| hold.until.is_none())
    }

    /// Whether a fault touched `node` when something was said at `at`.
    pub(super) fn touched(&self, node: usize, at: Instant) -> bool {
        let reaches = |hold: &Hold| {
            hold.node == node && hold.from <= at + MARGIN && hold.until.is_none_or(|until| at <= until + MARGIN)
        };
        self.0.iter().any(reaches)
    }

    /// Who must hear what `from` said at `at`: the untouched that a chain of untouched neighbours leads to. `edges` are the
    /// neighbourhoods of that moment that both ends knew of.
    pub(super) fn must_hear(&self, from: usize, at: Instant, edges: &[Vec<usize>]) -> Vec<usize> {
        let mut reached: Vec<usize> = if self.touched(from, at) { Vec::new() } else { vec![from] };
        let mut next = 0;
        while let Some(node) = reached.get(next).copied() {
            next += 1;
            for other in edges.get(node).into_iter().flatten() {
                if !reached.contains(other) && !self.touched(*other, at) {
                    reached.push(*other);
                }
            }
        }
        reached.into_iter().skip(1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A ring of four.
    fn ring() -> Vec<Vec<usize>> {
        vec![vec![1, 3], vec![0, 2], vec![1, 3], vec![2, 0]]
    }

    #[test]
    fn whom_no_fault_touched_must_hear_whatever_the_others_do() {
        let (mut holds, begun) = (Holds::default(), Instant::now());
        assert_eq!(holds.must_hear(0, begun, &ring()), [1, 3, 2]);
        holds.begin(&[1], begun);
        assert_eq!(holds.must_hear(0, begun, &ring()), [3, 2], "there is a way around the one that is away");
        holds.begin(&[3], begun);
        assert_eq!(holds.must_hear(0, begun, &ring()), [] as [usize; 0], "nobody leads to the fourth");
        assert_eq!(holds.must_hear(1, begun, &ring()), [] as [usize; 0], "who is touched is not relied on");
    }

    #[test]
    fn a_fault_reaches_a_moment_beyond_itself_and_no_further() {
        let (mut holds, begun) = (Holds::default(), Instant::now() + Duration::from_secs(9));
        holds.begin(&[1], begun);
        assert!(holds.any() && holds.touched(1, begun + 9000 * MS), "it goes on");
        holds.end(&[1], begun + 400 * MS);
        assert!(!holds.any() && !holds.touched(0, begun));
        for (at, touched) in
            [(begun - 251 * MS, false), (begun - MS, true), (begun + 650 * MS, true), (begun + 651 * MS, false)]
        {
            assert_eq!(holds.touched(1, at), touched);
        }
    }

    #[test]
    fn of_two_faults_at_one_node_the_later_holds_on() {
        let (mut holds, begun) = (Holds::default(), Instant::now());
        holds.begin(&[2], begun);
        holds.begin(&[2], begun);
        holds.end(&[2], begun);
        assert!(holds.any() && holds.touched(2, begun + 9000 * MS));
    }
}
