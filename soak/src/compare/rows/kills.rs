//! P3: nodes are killed and come back, as themselves or as strangers; what the observer keeps of each.

use std::time::Duration;

use rand::RngExt;

use crate::{
    cluster::{Cluster, Fault},
    compare::{
        row::{Goal, Kind, Reading, Row, Unit},
        world::{Figures, World, alive, heap_beyond, settled},
    },
    plan::{Identity, OBSERVER},
};

pub(crate) const SAME: [Row; 1] = [Row {
    id: "P3-same",
    title: "heap left per kill, same identity",
    unit: Unit::Bytes,
    kind: Kind::Size,
    goals: &[Goal::Ratio(0.25)],
    source: "limit 0; stock 0.101 keeps 1.8 to 2.6 KB at 75 s",
}];

pub(crate) const FRESH: [Row; 1] = [Row {
    id: "P3-fresh",
    title: "heap left per kill, fresh identity",
    unit: Unit::Bytes,
    kind: Kind::Size,
    goals: &[Goal::Ratio(0.4)],
    source: "limit one address, about 100 B; stock 0.101 keeps 4.3 to 8.6 KB at 75 s",
}];

pub(crate) const QUICK: &str = "twice 8 kills among 5 nodes instead of 200 among 12, 5 s of rest instead of 75 s: the dead are still being waited for";

/// A respawned node is waited for no longer than this before the next one dies.
const PACE: Duration = Duration::from_secs(1);

/// Kills one node after the other, starts each again, and lets every timer of a dead connection run out; and once more.
pub(crate) async fn measure(world: &World<'_>, identity: Identity) -> Result<Figures, Fault> {
    let (nodes, kills) = world.pick((12, 200_usize), (5, 8));
    let cluster = world.mesh("mesh", nodes).await?;
    let rest = world.seconds(75, 5);
    let mut rng = world.rng();
    // The first round fills what TLS, QUIC and iroh keep of remotes, each up to a bound: sessions, tokens, paths.
    round(&cluster, kills, identity, &mut rng).await?;
    tokio::time::sleep(rest).await;
    let before = settled(&cluster, OBSERVER, rest).await?;
    round(&cluster, kills, identity, &mut rng).await?;
    tokio::time::sleep(rest).await;
    let after = settled(&cluster, OBSERVER, rest).await?;
    alive(&cluster)?;
    // Whoever is alive may be connected. Beyond them, a connection is to somebody who died.
    let beyond = |status| heap_beyond(status, (nodes - 1) as f64);
    let left = beyond(&after).and_then(|after| Ok(after - beyond(&before)?));
    let id = match identity {
        Identity::Same | Identity::SamePort => SAME[0].id,
        Identity::Fresh => FRESH[0].id,
    };
    let mut figures = Figures::default();
    figures.add(id, left.map(|left| Reading::Is(left / kills as f64)));
    Ok(figures)
}

/// So many kills, one after the other.
async fn round(cluster: &Cluster, kills: usize, identity: Identity, rng: &mut impl RngExt) -> Result<(), Fault> {
    let nodes = cluster.len();
    let mut connected = 0;
    for _ in 0..kills {
        let node = rng.random_range(1..nodes);
        let via = (node + rng.random_range(1..nodes)) % nodes;
        connected += usize::from(!cluster.process(node)?.view().neighbors.is_empty());
        cluster.kill(node).await?;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        cluster.respawn(node, via, identity, "").await?;
        // A stock node that is still taken for the one that died may find nobody for half a minute; others go on.
        cluster.connected_within(node, PACE).await;
        alive(cluster)?;
    }
    if connected * 2 < kills {
        return Err(format!("only {connected} of {kills} had a neighbour when they were killed"));
    }
    Ok(())
}
