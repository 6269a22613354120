//! P6: what one accepted connection costs that does nothing. The connecting side is a crowd below iroh, in a process of
//! its own.

use std::time::Duration;

use perennial_soak::attack::Kind as Attack;

use super::programs;
use crate::{
    cluster::{Cluster, Fault},
    compare::{
        row::{Goal, Kind, Reading, Row, Unit},
        world::{Figures, World, alive, figure, settled},
    },
    flood::attacker,
    plan::OBSERVER,
    process::TOPIC,
};

pub(crate) const ROWS: [Row; 1] = [Row {
    id: "P6",
    title: "heap per idle accepted connection",
    unit: Unit::Bytes,
    kind: Kind::Size,
    goals: &[Goal::Ratio(1.05)],
    source: "bare noq needs 91.0 KB, iroh 109.6, stock 0.101 116.4",
}];

pub(crate) const QUICK: &str = "20 connections instead of 60";

/// Whoever finds too many others at the door is sent away; with fewer than a third of them inside nothing is weighed.
const INSIDE_SHARE_MIN: f64 = 1.0 / 3.0;

/// `(joined of 1 + n − joined of 1) ÷ n`, so that what is made once is not counted. Idle strangers are closed
/// after 5 s, and after one second while anybody waits for a slot: n stays below the 80 that unknown remotes may hold.
pub(crate) async fn measure(world: &World<'_>) -> Result<Figures, Fault> {
    let count = world.pick(60, 20);
    let mut figures = Figures::default();
    let cluster = world.mesh("alone", 1).await?;
    let one = crowd(world, &cluster, 1).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let joined_one = settled(&cluster, OBSERVER, Duration::from_secs(2)).await?;
    let many = crowd(world, &cluster, count).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let joined = settled(&cluster, OBSERVER, Duration::from_secs(2)).await?;
    alive(&cluster)?;
    let more = |name| Ok::<f64, String>(figure(&joined, name)? - figure(&joined_one, name)?);
    let (held, heap) = (more("connections")?, more("heap_bytes"));
    figures.add(
        "P6",
        match heap {
            Ok(_) if held < count as f64 * INSIDE_SHARE_MIN => {
                Err(format!("it holds {held} of {count} idle connections"))
            }
            heap => heap.map(|heap| Reading::Is(heap / held)),
        },
    );
    let (one, many) = tokio::join!(one.stop(), many.stop());
    one.and(many).map_err(|error| format!("the crowd: {error:#}"))?;
    Ok(figures)
}

/// So many strangers, each of them let in or sent away.
async fn crowd(world: &World<'_>, cluster: &Cluster, count: usize) -> Result<attacker::Process, Fault> {
    let wrong = |error: anyhow::Error| format!("the crowd: {error:#}");
    let address = cluster.address(OBSERVER)?;
    let target = address.split_once('@').and_then(|(_, address)| address.parse().ok());
    let target = target.ok_or_else(|| format!("`{address}` is no ID@IP:PORT"))?;
    let topic = iroh_gossip::proto::TopicId::from_bytes(*blake3::hash(TOPIC.as_bytes()).as_bytes());
    let what = (Attack::Idle, count, None);
    let mut crowd = attacker::Process::start(&programs(world).soak, what, target, topic).await.map_err(wrong)?;
    crowd.go().await.map_err(wrong)?;
    Ok(crowd)
}
