//! P4 and P7: a mesh in which nothing happens; what grows all the same, and how many connections it holds.

use std::time::{Duration, Instant};

use crate::{
    cluster::{Cluster, Fault},
    compare::{
        row::{Goal, Kind, Reading, Row, Unit},
        world::{Figures, World, alive, figure, heap_beyond, status},
    },
};

pub(crate) const GROWTH: [Row; 1] = [Row {
    id: "P4",
    title: "growth with no events, per node",
    unit: Unit::BytesPerHour,
    kind: Kind::Size,
    goals: &[Goal::AtMost(65_536.0), Goal::Ratio(0.005)],
    source: "limit 0; stock 0.101 grows by about 9.5 MiB an hour",
}];

pub(crate) const ENDS: [Row; 1] = [Row {
    id: "P7",
    title: "connection ends per node ÷ neighbours, settled",
    unit: Unit::Times,
    kind: Kind::Size,
    goals: &[Goal::AtMost(1.2)],
    source: "limit 1; stock 0.101 holds 13.5 to 15.5 for a view of 5",
}];

pub(crate) const GROWTH_QUICK: &str =
    "8 s of 6 nodes after 2 s instead of 240 s of 31 after 60 s: hardly a shuffle falls into it";
pub(crate) const ENDS_QUICK: &str = "4 s of 8 nodes after 10 s instead of 60 s of 50 after 120 s";

/// The mean over all nodes of what each holds at least, so that neither one table that doubles decides nor a connection that
/// passes by at the moment of a look.
pub(crate) async fn growth(world: &World<'_>) -> Result<Figures, Fault> {
    let nodes = world.pick(31, 6);
    let cluster = world.mesh("mesh", nodes).await?;
    tokio::time::sleep(world.seconds(60, 2)).await;
    let begun = Instant::now();
    let before = floor(&cluster, world.seconds(60, 4)).await;
    // From one window to the next four rounds of the shuffle that stock does once a minute.
    tokio::time::sleep((world.seconds(240, 8)).saturating_sub(begun.elapsed())).await;
    let took = begun.elapsed();
    let after = floor(&cluster, world.seconds(60, 4)).await;
    alive(&cluster)?;
    let grown = after.and_then(|after| Ok(after - before?));
    let mut figures = Figures::default();
    figures.add("P4", grown.map(|bytes| Reading::Is(bytes * hours(took).recip())));
    Ok(figures)
}

/// Looks are this far apart.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// The least heap that every node holds at some look within `window`, beyond what its neighbours explain; the mean of all.
async fn floor(cluster: &Cluster, window: Duration) -> Result<f64, Fault> {
    let until = Instant::now() + window;
    let mut least = vec![f64::INFINITY; cluster.len()];
    while Instant::now() < until {
        for (node, least) in least.iter_mut().enumerate() {
            let status = status(cluster, node).await?;
            let held = heap_beyond(&status, figure(&status, "neighbors")?);
            *least = least.min(held.map_err(|error| format!("node {node}: {error}"))?);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(least.iter().sum::<f64>() / least.len() as f64)
}

/// Forms the mesh and lets it settle for two rounds of the shuffle. What a shuffle opens and closes again is held for as long
/// as it is held: all nodes of a mesh were started together and shuffle together, so that one look would find it all or none
/// of it.
pub(crate) async fn ends(world: &World<'_>) -> Result<Figures, Fault> {
    let cluster = world.mesh("mesh", world.pick(50, 8)).await?;
    tokio::time::sleep(world.seconds(120, 10)).await;
    let until = Instant::now() + world.seconds(60, 4);
    let (mut held, mut neighbors) = (0.0, 0.0);
    while Instant::now() < until {
        held += sum(&cluster, "connections").await?;
        neighbors += sum(&cluster, "neighbors").await?;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    alive(&cluster)?;
    let mut figures = Figures::default();
    let share = if neighbors > 0.0 { Ok(Reading::Is(held / neighbors)) } else { Err("nobody has a neighbour".into()) };
    figures.add("P7", share);
    Ok(figures)
}

/// One figure of every running node, added up.
pub(super) async fn sum(cluster: &Cluster, name: &str) -> Result<f64, Fault> {
    let mut sum = 0.0;
    for (node, _) in cluster.live() {
        sum += figure(&status(cluster, node).await?, name).map_err(|error| format!("node {node}: {error}"))?;
    }
    Ok(sum)
}

fn hours(time: Duration) -> f64 {
    time.as_secs_f64() / 3600.0
}
