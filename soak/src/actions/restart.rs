//! Storms in which one process ends and another takes its place: by SIGKILL, or because it was told to stop.

use std::time::Duration;

use tokio::time::Instant;

use super::{Done, elapsed_ms, rejoined};
use crate::{
    cluster::{Cluster, Fault},
    plan::Identity,
};

/// Whoever hears a farewell has forgotten the node within this long, or never heard it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// A node dies, stays away, and comes back through `via` and one more.
pub(super) async fn kill(
    cluster: &Cluster,
    node: usize,
    via: usize,
    away: Duration,
    identity: Identity,
) -> Result<Done, Fault> {
    let action = match identity {
        Identity::Fresh => "kill-fresh",
        Identity::Same => "kill-same",
        Identity::SamePort => "kill-same-port",
    };
    let mut done = Done::to(action, cluster, node);
    let listened = cluster.kill(node).await?;
    tokio::time::sleep(away).await;
    cluster.respawn(node, via, identity, &listened).await?;
    rejoined(cluster, &mut done).await?;
    Ok(done)
}

/// A node is told to stop, and comes back as who it was. Its neighbours hear it go; no timeout is involved.
pub(super) async fn quit(cluster: &Cluster, node: usize, via: usize, away: Duration) -> Result<Done, Fault> {
    let mut done = Done::to("quit", cluster, node);
    let id = cluster.id(node)?;
    let neighbors: Vec<_> = cluster.live().into_iter().filter(|(other, _)| cluster.sees(*other, node)).collect();
    cluster.quit(node).await?;
    let since = Instant::now();
    let forgotten = |_: &Cluster| neighbors.iter().all(|(_, process)| !process.view().neighbors.contains(&id));
    if cluster.wait(since + FAREWELL_TIMEOUT, forgotten).await {
        done.observed.push(("forgotten after ms", elapsed_ms(since)));
    } else {
        done.faults
            .push(format!("node {node} stopped, and is a neighbour still {} s later", FAREWELL_TIMEOUT.as_secs()));
    }
    let farewells = neighbors.iter().filter(|(_, process)| process.view().heard_farewell_of(&id)).count();
    done.observed.push(("farewells heard", if neighbors.is_empty() { 1.0 } else { farewells as f64 }));
    tokio::time::sleep(away).await;
    cluster.respawn(node, via, Identity::Same, "").await?;
    rejoined(cluster, &mut done).await?;
    Ok(done)
}
