//! What nodes say to each other while a storm goes on, and how much of it was heard.
//!
//! Who had to hear it is decided in `untouched.rs`. A storm in which no fault goes on is not talked through: a quiet mesh is
//! to be quiet.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::untouched::Holds;
use crate::{
    cluster::{Cluster, PROBE_TIMEOUT},
    plan::Step,
    process::Process,
};

/// Somebody says something this often. Thirty messages in the seven seconds of a usual storm, each to eleven nodes.
const EVERY: Duration = Duration::from_millis(250);

/// The talk of one storm.
#[derive(Debug)]
pub(super) struct Talk<'a> {
    cluster: &'a Cluster,
    /// Nodes of other software. What they lose is not ours, and what has to pass them is not relied on.
    foreign: &'a [u32],
    holds: RefCell<Holds>,
    said: RefCell<Vec<Said>>,
    turn: Cell<usize>,
}

/// A message, and the mesh as it was when it was published.
#[derive(Debug)]
struct Said {
    number: u32,
    from: usize,
    at: Instant,
    edges: Vec<Vec<usize>>,
    /// The processes of that moment: whoever dies later has heard what it had heard.
    listeners: Vec<(usize, Arc<Process>)>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Pairs of a speaker and a listener, and those of them in which it did not arrive.
    pub pairs: u64,
    pub unheard: u64,
    /// Of the pairs, those that no fault touched, and where it did not arrive or arrived twice.
    pub untouched: u64,
    pub missed: u64,
    pub twice: u64,
}

impl<'a> Talk<'a> {
    pub(super) fn new(cluster: &'a Cluster, foreign: &'a [u32]) -> Self {
        Self { cluster, foreign, holds: RefCell::default(), said: RefCell::default(), turn: Cell::new(0) }
    }

    /// A step of the storm begins.
    pub(super) fn begins(&self, step: &Step) {
        self.holds.borrow_mut().begin(&step.touches(self.cluster.len()), Instant::now().into_std());
    }

    /// It has ended.
    pub(super) fn ends(&self, step: &Step) {
        self.holds.borrow_mut().end(&step.touches(self.cluster.len()), Instant::now().into_std());
    }

    /// One after the other says something. Never ends by itself.
    pub(super) async fn go_on(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let Some(from) = self.next_speaker() else { continue };
            let (edges, listeners) = (self.cluster.edges(), self.cluster.live());
            // Who was killed just now says nothing.
            let Ok((number, at)) = self.cluster.publish_numbered(from).await else { continue };
            self.said.borrow_mut().push(Said { number, from, at, edges, listeners });
        }
    }

    /// The next node of ours that no fault touches, while one goes on anywhere.
    fn next_speaker(&self) -> Option<usize> {
        let (holds, now) = (self.holds.borrow(), Instant::now().into_std());
        let count = self.cluster.len();
        let first = self.turn.get();
        let may_speak = |node: &usize| !self.is_foreign(*node) && !holds.touched(*node, now);
        let speaker = (first..first + count).map(|at| at % count).find(may_speak).filter(|_| holds.any())?;
        self.turn.set(speaker + 1);
        Some(speaker)
    }

    /// Waits for what is still on its way, and sums up. The nodes' views are as empty afterwards as they were before.
    pub(super) async fn heard(self) -> Heard {
        let Some(last) = self.said.borrow().last().map(|said| said.at) else { return Heard::default() };
        let said = self.said.take();
        let first = said.first().map_or(last, |said| said.at);
        let mut holds = self.holds.into_inner();
        // Nothing of another software's node is demanded, or relied on.
        let foreign: Vec<usize> = self.foreign.iter().map(|node| *node as usize).collect();
        holds.begin(&foreign, first.into_std());
        let due = |said: &Said| holds.must_hear(said.from, said.at.into_std(), &said.edges);
        let due: Vec<Vec<usize>> = said.iter().map(due).collect();
        let is_here = |said: &Said, node: usize| copies(said, node) > 0;
        let all_here =
            |_: &Cluster| said.iter().zip(&due).all(|(said, due)| due.iter().all(|node| is_here(said, *node)));
        self.cluster.wait(last + PROBE_TIMEOUT, all_here).await;
        let mut heard = Heard::default();
        for (said, due) in said.iter().zip(&due) {
            let others = || said.listeners.iter().map(|(node, _)| *node).filter(|node| *node != said.from);
            heard.pairs += others().count() as u64;
            heard.unheard += others().filter(|node| !is_here(said, *node)).count() as u64;
            heard.untouched += due.len() as u64;
            heard.missed += due.iter().filter(|node| !is_here(said, **node)).count() as u64;
            heard.twice += due.iter().filter(|node| copies(said, **node) > 1).count() as u64;
        }
        self.cluster.forget_probes(&said.iter().map(|said| said.number).collect::<Vec<_>>());
        heard
    }

    fn is_foreign(&self, node: usize) -> bool {
        self.foreign.iter().any(|foreign| *foreign as usize == node)
    }
}

/// How often a message reached the application of a node.
fn copies(said: &Said, node: usize) -> u32 {
    let process = said.listeners.iter().find(|(listener, _)| *listener == node).map(|(_, process)| process);
    process.and_then(|process| process.view().probes.get(&said.number).copied()).map_or(0, |arrival| arrival.copies)
}
