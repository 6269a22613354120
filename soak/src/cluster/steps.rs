//! Small steps a measurement is made of: one node goes, one node comes, one line is published, one thing is waited for.

use std::time::Duration;

use tokio::time::Instant;

use super::{Cluster, Fault};
use crate::{process::Process, view::View};

impl Cluster {
    /// Kills a node and leaves its place empty. A node that is not running is a fault.
    pub(crate) async fn halt(&mut self, node: usize) -> Result<(), Fault> {
        let Some(process) = self.nodes[node].take() else { return Err(format!("node {node} is not running")) };
        self.lagged += process.view().lagged;
        process.kill().await.map_err(|error| format!("node {node}: {error:#}"))
    }

    /// Starts a node in an empty place, with the identity it had, and waits until it is ready.
    pub(crate) async fn revive(&mut self, node: usize, via: &[usize]) -> Result<(), Fault> {
        self.start(node, via).await
    }

    /// Publishes text through one node, which may be several lines at once.
    pub(crate) async fn publish(&mut self, node: usize, text: &str) -> Result<(), Fault> {
        let Some(process) = self.nodes[node].as_mut() else { return Err(format!("node {node} is not running")) };
        process.publish(text).await.map_err(|error| format!("node {node} takes no input: {error:#}"))
    }

    /// Closes a node's input, so that it leaves and ends by itself.
    pub(crate) fn dismiss(&mut self, node: usize) -> Result<(), Fault> {
        let Some(process) = self.nodes[node].as_mut() else { return Err(format!("node {node} is not running")) };
        process.close_input();
        Ok(())
    }

    /// Waits until what a node has said fulfils a condition; false when the deadline passes first.
    pub(crate) async fn said(&self, node: usize, timeout: Duration, holds: impl Fn(&View) -> bool) -> bool {
        let holds = |cluster: &Self| cluster.nodes[node].as_ref().is_some_and(|process| holds(&process.view()));
        self.wait(Instant::now() + timeout, holds).await
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        let running = |(node, process): (usize, &Option<Process>)| process.as_ref().map(|_| node);
        self.nodes.iter().enumerate().filter_map(running).collect()
    }

    /// How many running nodes have not heard probe `number`, without the one that published it.
    pub(crate) fn without_probe(&self, number: u32, from: usize) -> usize {
        self.missing(number, from).len()
    }
}
