//! Faults of what a single node stands on: its disk, its wall clock, one of its own loops.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Done, elapsed_ms};
use crate::{
    cluster::{Cluster, Fault},
    plan::OBSERVER,
};

/// A mesh is whole again after somebody came.
const HEAL_TIMEOUT: Duration = Duration::from_secs(15);

/// A loop that hangs goes on after a minute, and what needed it after that.
const BREAK_TIMEOUT: Duration = Duration::from_secs(90);

/// The disk is full; others leave and rejoin, so that there is something to keep.
pub(super) async fn fill_disk(cluster: &Cluster, node: usize, duration: Duration) -> Result<Done, Fault> {
    let mut done = Done::to("disk-full", cluster, node);
    let before = complaints(cluster, node);
    cluster.place.fill_disk(node)?;
    let since = Instant::now();
    let mut missed = 0;
    while since.elapsed() < duration {
        let other = if node == 1 { 2 } else { 1 };
        cluster.leave(other).await?;
        cluster.join(other, OBSERVER).await?;
        cluster.connected(other).await?;
        // Whoever was put out of a view for it needs a moment to find another, and a message of that moment is nobody's fault.
        cluster.heal_within(HEAL_TIMEOUT).await;
        missed += cluster.publish_probe_to(OBSERVER, |heard| heard == node).await?.missed.len();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    cluster.place.free_disk(node)?;
    done.observed.push(("complaints about the disk", complaints(cluster, node).saturating_sub(before) as f64));
    done.observed.push(("messages missed by those who can be reached", missed as f64));
    Ok(done)
}

fn complaints(cluster: &Cluster, node: usize) -> usize {
    let log = std::fs::read(cluster.log(node)).unwrap_or_default();
    String::from_utf8_lossy(&log).lines().filter(|line| line.contains("No space left")).count()
}

/// The wall clock is off. Whoever lives by the monotonic clock does not notice.
pub(super) async fn clock(cluster: &Cluster, node: usize, offset_s: i64, duration: Duration) -> Result<Done, Fault> {
    let mut done = Done::to("clock", cluster, node);
    let process = cluster.process(node)?;
    let before = process.view().neighbors.clone();
    cluster.place.set_clock(node, offset_s)?;
    tokio::time::sleep(duration).await;
    let lost = {
        let view = process.view();
        before.difference(&view.neighbors).filter(|id| view.lost_in_silence(id)).count()
    };
    let probe = cluster.publish_probe(node).await?;
    cluster.place.set_clock(node, 0)?;
    done.observed.push(("seconds the clock is off", offset_s as f64));
    done.observed.push(("neighbours lost by the clock", lost as f64));
    done.observed.push(("messages missed by those who can be reached", probe.missed.len() as f64));
    Ok(done)
}

/// One loop panics, fails or hangs; what it owned goes with it, and the mesh is whole again.
pub(super) async fn break_loop(cluster: &Cluster, node: usize, part: &str, kind: &str) -> Result<Done, Fault> {
    let mut done = Done::to("actor-fault", cluster, node);
    let peer = cluster.id(OBSERVER)?;
    let request = match part {
        "connection" | "peer" => json!({"request": "fault", "loop": part, "kind": kind, "peer": peer}),
        _ => json!({"request": "fault", "loop": part, "kind": kind}),
    };
    // Where nothing of the kind turns at the moment there is nothing to break.
    let broken = cluster.ask(node, request).await;
    done.observed.push(("loops broken", f64::from(u8::from(broken.is_ok()))));
    let since = Instant::now();
    while since.elapsed() < BREAK_TIMEOUT {
        if cluster.heal_within(BREAK_TIMEOUT).await && cluster.ask(node, json!({"request": "status"})).await.is_ok() {
            done.observed.push(("one mesh again after ms", elapsed_ms(since)));
            return Ok(done);
        }
    }
    done.faults.push(format!("{kind} in a {part} of node {node}: not one mesh {} s later", BREAK_TIMEOUT.as_secs()));
    Ok(done)
}
