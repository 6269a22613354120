//! Storms in which every process lives: quiet, and nodes that leave the topic and rejoin it.

use std::time::Duration;

use serde_json::json;

use super::{Done, rejoined};
use crate::{
    books,
    cluster::{Cluster, Fault},
    plan::OBSERVER,
};

/// Nothing, for a while. Shuffles open connections meanwhile, which is what an idle mesh leaks by.
pub(super) async fn rest(cluster: &Cluster, duration: Duration) -> Result<Done, Fault> {
    let before = opened(cluster).await;
    tokio::time::sleep(duration).await;
    let mut done = Done { action: "rest", ..Done::default() };
    if let (Some(before), Some(after)) = (before, opened(cluster).await) {
        done.observed.push(("opened while idle", after.saturating_sub(before) as f64));
    }
    Ok(done)
}

/// Connections ever opened, over all nodes that tell.
async fn opened(cluster: &Cluster) -> Option<u64> {
    let mut sum = None;
    for (node, _) in cluster.live() {
        let Ok(ledger) = cluster.ask(node, json!({"request": "ledger"})).await else { continue };
        sum = books::kind(&ledger, "connection").map(|kind| kind.spawned + sum.unwrap_or(0)).or(sum);
    }
    sum
}

/// A node leaves the topic, stays away, and rejoins through another.
pub(super) async fn rotate(cluster: &Cluster, node: usize, via: usize, away: Duration) -> Result<Done, Fault> {
    let mut done = Done::to("rotate", cluster, node);
    done.touching |= via == OBSERVER;
    cluster.leave(node).await?;
    tokio::time::sleep(away).await;
    cluster.join(node, via).await?;
    rejoined(cluster, &mut done).await?;
    done.observed.extend(cross_links(cluster));
    Ok(done)
}

/// Neighbourhoods across software, where there is more than one.
fn cross_links(cluster: &Cluster) -> Vec<(&'static str, f64)> {
    let live = cluster.live();
    let is_ours = |node: usize| cluster.is_ours(node);
    if live.iter().all(|(node, _)| is_ours(*node)) {
        return Vec::new();
    }
    let count = |from_ours: bool| {
        let froms = live.iter().filter(|(from, _)| is_ours(*from) == from_ours);
        let links = froms.flat_map(|(from, _)| live.iter().map(move |(to, _)| (*from, *to)));
        links.filter(|(from, to)| is_ours(*to) != from_ours && cluster.sees(*from, *to)).count() as f64
    };
    vec![("links from ours to stock", count(true)), ("links from stock to ours", count(false))]
}
