//! P20: a killed node is started again; how soon it hears what others say.

use std::time::{Duration, Instant};

use rand::RngExt;

use crate::{
    cluster::{Cluster, Fault},
    compare::{
        row::{Goal, Kind, Reading, Row, Unit},
        world::{Figures, World, alive, publish},
    },
    plan::Identity,
    view::probe_text,
};

pub(crate) const ROWS: [Row; 1] = [Row {
    id: "P20",
    title: "respawn → first delivery, median",
    unit: Unit::Seconds,
    kind: Kind::Time,
    goals: &[Goal::Ratio(0.75)],
    source: "limit: start of a process, one handshake and three round trips",
}];

pub(crate) const QUICK: &str = "2 respawns among 4 nodes instead of 9 among 8";

/// Somebody says something this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(5);

/// A node that hears nothing for this long is as good as lost.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a node is dead: as long as a service manager takes to start it again. Others have not noticed by then.
const AWAY: Duration = Duration::from_secs(1);

/// Kills one node after the other and starts it, with its identity, through two others.
pub(crate) async fn measure(world: &World<'_>) -> Result<Figures, Fault> {
    // The median of nine: what is compared is the median of five pairs of these, so each may be a little rough.
    let (nodes, rounds) = world.pick((8, 9), (4, 2));
    let cluster = world.mesh("mesh", nodes).await?;
    let mut rng = world.rng();
    let (mut took, mut number) = (Vec::new(), 0);
    for _ in 0..rounds {
        let node = rng.random_range(1..nodes);
        let via = (node + rng.random_range(1..nodes)) % nodes;
        cluster.kill(node).await?;
        tokio::time::sleep(AWAY).await;
        took.push(hears(&cluster, node, via, &world.run(), &mut number).await?);
        alive(&cluster)?;
    }
    let mut figures = Figures::default();
    took.sort_by(|a, b| a.value().total_cmp(&b.value()));
    figures.add("P20", took.get(took.len() / 2).copied().ok_or_else(|| "nothing was respawned".into()));
    Ok(figures)
}

/// Starts `node` while the one it joins through publishes without a pause.
async fn hears(cluster: &Cluster, node: usize, via: usize, run: &str, number: &mut u32) -> Result<Reading, Fault> {
    let begun = Instant::now();
    cluster.respawn(node, via, Identity::Same, "").await?;
    let respawned = cluster.process(node)?;
    while begun.elapsed() < LIMIT {
        *number += 1;
        publish(cluster, via, &probe_text(*number, run)).await?;
        let until = tokio::time::Instant::now() + PUBLISH_EVERY;
        if cluster.wait(until, |_| !respawned.view().probes.is_empty()).await {
            return Ok(Reading::Is(begun.elapsed().as_secs_f64()));
        }
    }
    Ok(Reading::AtLeast(LIMIT.as_secs_f64()))
}
