//! P1, P2, P5: peers leave the topic and rejoin while every process lives; what the observer keeps of it.

use std::time::Duration;

use rand::RngExt;
use serde_json::json;

use crate::{
    books,
    cluster::{Cluster, Fault},
    compare::{
        row::{Goal, Kind, Reading, Row, Unit},
        world::{Figures, World, alive, figure, heap_beyond, rotate, settled, status, trimmed_rss},
    },
    plan::OBSERVER,
};

pub(crate) const ROWS: [Row; 3] = [
    Row {
        id: "P1",
        title: "connection tasks without a peer after the rotations",
        unit: Unit::Connections,
        kind: Kind::Count,
        goals: &[Goal::Zero],
        source: "limit 0; stock 0.101 keeps 322 to 335 after 300",
    },
    Row {
        id: "P2",
        title: "heap left per rotation",
        unit: Unit::Bytes,
        kind: Kind::Size,
        goals: &[Goal::AtMost(512.0), Goal::Ratio(0.004)],
        source: "512 B is what s2n-quic allows a closed connection; stock 0.101 keeps 131 to 139 KiB",
    },
    Row {
        id: "P5",
        title: "resident memory (trimmed) at event 140 ÷ before",
        unit: Unit::Times,
        kind: Kind::Size,
        goals: &[Goal::AtMost(1.1), Goal::Ratio(0.5)],
        source: "limit 1; stock 0.101 ends at 2.7 to 5.3",
    },
];

pub(crate) const QUICK: &str =
    "20 rotations among 6 nodes instead of 300 among 31, rest of at most 12 s instead of 65 s";

/// Where resident memory is looked at, of so many events.
const RESIDENT_AT: usize = 140;

/// One rotation in so many may end with a node that found nobody; with more the mesh was not rotated but taken apart.
const LONELY_SHARE: usize = 10;

/// 300 rotations of other nodes, one after the other, then rest. Connections beyond the neighbours are without a peer.
pub(crate) async fn measure(world: &World<'_>) -> Result<Figures, Fault> {
    let (nodes, events) = world.pick((31, 300), (6, 20));
    let rest = world.seconds(65, 12);
    let cluster = world.mesh("mesh", nodes).await?;
    tokio::time::sleep(world.seconds(10, 1)).await;
    let before = settled(&cluster, OBSERVER, rest).await?;
    let resident_before = trimmed_rss(&cluster, OBSERVER).await;
    let mut resident_then = Err("the rotations ended before it".into());
    let (mut rng, mut lonely) = (world.rng(), 0);
    for event in 1..=events {
        let node = rng.random_range(1..nodes);
        let via = (node + rng.random_range(1..nodes)) % nodes;
        let away = Duration::from_millis(rng.random_range(50..250));
        lonely += usize::from(!rotate(&cluster, node, via, away).await?);
        alive(&cluster)?;
        if lonely * LONELY_SHARE > events {
            return Err(format!(
                "{lonely} nodes found no neighbour after rejoining, within {event} of {events} rotations"
            ));
        }
        if event == world.pick(RESIDENT_AT, events / 2) {
            resident_then = trimmed_rss(&cluster, OBSERVER).await;
        }
    }
    // Quick runs give farewells their seven seconds; the full rest outlasts everything iroh keeps of a remote.
    tokio::time::sleep(world.seconds(65, 8)).await;
    let after = settled(&cluster, OBSERVER, rest).await?;
    alive(&cluster)?;
    let mut figures = Figures::default();
    figures.add("P1", unowned(&cluster, rest).await);
    // Every process lives, so that only a neighbour explains a connection.
    let beyond = |status| heap_beyond(status, figure(status, "neighbors")?);
    let left = beyond(&after).and_then(|after| Ok(after - beyond(&before)?));
    figures.add("P2", left.map(|left| Reading::Is(left / events as f64)));
    let growth = resident_then.and_then(|then| Ok(then / resident_before?));
    figures.add("P5", growth.map(Reading::Is));
    Ok(figures)
}

/// Connections, and connection tasks where they are told, beyond the neighbours. A mesh that rewires itself at this very
/// moment has some for as long as a farewell takes, so the least of the looks until `within` is over counts.
async fn unowned(cluster: &Cluster, within: Duration) -> Result<Reading, Fault> {
    let deadline = std::time::Instant::now() + within;
    let mut least = f64::INFINITY;
    while least > 0.0 && std::time::Instant::now() < deadline {
        let ledger = cluster.ask(OBSERVER, json!({"request": "ledger"})).await?;
        let status = status(cluster, OBSERVER).await?;
        let tasks = books::kind(&ledger, "connection").map_or(0.0, |kind| kind.alive() as f64);
        let held = figure(&status, "connections")?.max(tasks);
        least = least.min((held - figure(&status, "neighbors")?).max(0.0));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(Reading::Is(least))
}
