//! A process that is halted and goes on: shorter than the idle timeout nobody may notice, longer both sides retire once.

use std::time::Duration;

use tokio::time::Instant;

use super::{Done, elapsed_ms};
use crate::cluster::{Cluster, Fault, HEAL_TIMEOUT};

/// Shorter than every idle timeout: ours is 10 s, stock's 30 s.
const SHORT: Duration = Duration::from_secs(8);

/// Halts a node by SIGSTOP and lets it go on.
pub(super) async fn pause(cluster: &Cluster, node: usize, duration: Duration) -> Result<Done, Fault> {
    let mut done = Done::to("pause", cluster, node);
    let id = cluster.id(node)?;
    let process = cluster.process(node)?;
    let neighbors: Vec<_> = cluster.live().into_iter().filter(|(other, _)| cluster.sees(*other, node)).collect();
    let wrong = |error| format!("node {node}: {error:#}");
    let losses = || neighbors.iter().map(|(_, process)| process.view().downs_of(&id)).sum::<u64>();
    let before = losses();
    process.pause().map_err(wrong)?;
    tokio::time::sleep(duration).await;
    process.resume().map_err(wrong)?;
    let since = Instant::now();
    if duration <= SHORT {
        // Who loses it for the pause has lost it by the time it can answer again.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let timed_out = neighbors.iter().filter(|(_, process)| process.view().lost_in_silence(&id)).count();
        let lost = if losses() == before { 0 } else { timed_out };
        done.observed.push(("neighbours lost in a short pause", lost as f64));
        return Ok(done);
    }
    // It believes in its neighbours until it has heard of its own timeouts, so both ends must say so.
    let is_back = |cluster: &Cluster| {
        cluster.live().iter().any(|(other, _)| cluster.sees(*other, node) && cluster.sees(node, *other))
    };
    if cluster.wait(since + HEAL_TIMEOUT, is_back).await {
        done.observed.push(("back after a long pause ms", elapsed_ms(since)));
    } else {
        done.faults.push(format!("node {node} had no neighbour {} s after a pause", HEAL_TIMEOUT.as_secs()));
    }
    Ok(done)
}
