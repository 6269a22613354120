//! Carrying one step of a plan out: which room does it, and what came of it.
//!
//! An action disturbs nodes, waits for what the disturbed node itself has to achieve, and reports figures by name. It judges
//! nothing: limits on the figures are the scenario's. A node that does wrong where anyone can see it is a fault, in words;
//! only a node the storm cannot do without ends the run.

mod backends;
mod constrain;
mod fill;
mod give_up;
mod ground;
mod leave;
mod mass;
mod meet;
mod odds;
mod pause;
mod pour;
mod restart;
mod saturate;
mod slow;
mod strangers;
mod watch;

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    cluster::{Cluster, Fault},
    plan::{OBSERVER, Step},
};

/// A node that rejoined has a neighbour within this long. A twentieth of a second is usual.
const REJOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of a step.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// What was done, in a word.
    pub action: &'static str,
    /// The node it was done to; the first of several.
    pub node: usize,
    /// Whether a neighbour of the observer, or the observer itself, was hit.
    pub touching: bool,
    /// Figures with their names.
    pub observed: Vec<(&'static str, f64)>,
    /// What nodes did wrong, in words.
    pub faults: Vec<Fault>,
}

impl Done {
    fn to(action: &'static str, cluster: &Cluster, node: usize) -> Self {
        let touching = node == OBSERVER || cluster.sees(OBSERVER, node);
        Self { action, node, touching, ..Self::default() }
    }
}

/// Does it. `Err` when the storm cannot go on.
pub(crate) async fn carry_out(cluster: &Cluster, step: &Step) -> Result<Done, Fault> {
    match *step {
        Step::Rest { for_ms } => leave::rest(cluster, ms(for_ms)).await,
        Step::Rotate { node, via, away_ms } => leave::rotate(cluster, node, via, ms(away_ms)).await,
        Step::Kill { node, via, away_ms, identity } => restart::kill(cluster, node, via, ms(away_ms), identity).await,
        Step::Quit { node, via, away_ms } => restart::quit(cluster, node, via, ms(away_ms)).await,
        Step::Pause { node, for_ms } => pause::pause(cluster, node, ms(for_ms)).await,
        Step::Mass { ref nodes } => mass::mass(cluster, nodes).await,
        Step::Meet { nodes, via } => meet::meet(cluster, nodes, via).await,
        Step::ComeBack { node, via } => meet::come_back(cluster, node, via).await,
        Step::GiveUp { dials } => give_up::give_up(cluster, dials).await,
        Step::Strangers { kind, count } => strangers::besiege(cluster, kind, count).await,
        Step::Fill { cap } => fill::fill(cluster, cap).await,
        Step::Slow { subscriber, halted, messages } => slow::slow(cluster, subscriber, halted, messages).await,
        Step::Constrain { resource, value } => constrain::constrain(cluster, resource, value).await,
        Step::Part { ref groups, one_way, for_ms } => ground::part(cluster, groups, one_way, ms(for_ms)).await,
        Step::Weather { weather, for_ms } => ground::weather(cluster, weather, ms(for_ms)).await,
        Step::Move { node } => ground::moved(cluster, node).await,
        Step::FillDisk { node, for_ms } => odds::fill_disk(cluster, node, ms(for_ms)).await,
        Step::Clock { node, offset_s, for_ms } => odds::clock(cluster, node, offset_s, ms(for_ms)).await,
        Step::Break { node, ref part, ref kind } => odds::break_loop(cluster, node, part, kind).await,
        Step::Saturate { messages, strangers } => saturate::saturate(cluster, messages, strangers).await,
        Step::Collector { mood, for_ms } => backends::collector(cluster, mood, ms(for_ms)).await,
        Step::LoseBootstrap { ref nodes, for_ms } => backends::lose_bootstrap(cluster, nodes, ms(for_ms)).await,
        Step::Quiet { .. } | Step::Probe { .. } => Ok(Done::default()),
    }
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn elapsed_ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Waits until a node that came back has a neighbour, and notes how long that took. One that finds nobody is a fault, and
/// the storm needs it all the same: it joins once more, through the observer or whom it can reach.
async fn rejoined(cluster: &Cluster, done: &mut Done) -> Result<(), Fault> {
    let since = Instant::now();
    let node = done.node;
    let is_ours = cluster.is_ours(node);
    if cluster.connected_within(node, REJOIN_TIMEOUT).await {
        let figure = if is_ours { "rejoined after ms" } else { "stock rejoined after ms" };
        done.observed.push((figure, elapsed_ms(since)));
        return Ok(());
    }
    let fault = format!("node {node} had no neighbour {} s after joining", REJOIN_TIMEOUT.as_secs());
    // What stock does is no fault of ours.
    done.faults.extend(is_ours.then_some(fault));
    let via = if node == OBSERVER { 1 } else { OBSERVER };
    cluster.leave(node).await?;
    cluster.join(node, via).await?;
    cluster.connected(node).await
}
