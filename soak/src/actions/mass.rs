//! Many nodes die at once. What counts is the survivors: one mesh again, in which everything arrives.

use n0_future::join_all;
use tokio::time::Instant;

use super::{Done, elapsed_ms};
use crate::{
    cluster::{Cluster, Fault, HEAL_TIMEOUT},
    plan::{Identity, OBSERVER},
};

/// Kills all of `nodes`, waits for the survivors, and starts the dead as strangers.
pub(super) async fn mass(cluster: &Cluster, nodes: &[usize]) -> Result<Done, Fault> {
    let mut done = Done { action: "mass", node: nodes[0], touching: true, ..Done::default() };
    let survivors: Vec<usize> =
        cluster.live().iter().map(|(node, _)| *node).filter(|node| !nodes.contains(node)).collect();
    let lonely = survivors.iter().filter(|node| !survivors.iter().any(|other| cluster.sees(**node, *other))).count();
    done.observed.push(("survivors without a living neighbour", lonely as f64));
    for killed in join_all(nodes.iter().map(|node| cluster.kill(*node))).await {
        killed?;
    }
    let since = Instant::now();
    if cluster.heal().await {
        done.observed.push(("survivors whole again after ms", elapsed_ms(since)));
        let probe = cluster.publish_probe(OBSERVER).await?;
        let missed = probe.missed.len();
        if missed > 0 {
            done.faults.push(format!("{missed} of {} survivors missed a message in a whole mesh", probe.expected));
        }
    } else {
        let seconds = HEAL_TIMEOUT.as_secs();
        done.faults.push(format!(
            "{} survivors were not one mesh {seconds} s after {} died",
            survivors.len(),
            nodes.len()
        ));
    }
    for node in nodes {
        cluster.respawn(*node, OBSERVER, Identity::Fresh, "").await?;
        cluster.connected(*node).await?;
    }
    Ok(done)
}
