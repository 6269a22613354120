//! P8: a peer is gone; how long the other side keeps its connection. Killed, leaving for good, or leaving the view only.
//!
//! Pairs of nodes that know nobody else, so that a connection held can only be to the one that is gone.

use std::time::{Duration, Instant};

use n0_future::join_all;
use perennial_soak::stats::quantile;

use crate::{
    cluster::{Cluster, Fault},
    compare::{
        row::{Goal, Kind, Reading, Row, Unit},
        world::{Figures, World, alive, retired},
    },
    plan::OBSERVER,
};

pub(crate) const ROWS: [Row; 3] = [
    Row {
        id: "P8-kill",
        title: "time to retire after kill -9, p99",
        unit: Unit::Seconds,
        kind: Kind::Time,
        goals: &[Goal::AtMost(20.0), Goal::Ratio(0.6)],
        source: "limit three lost heartbeats, 15 s; stock 0.101 about 36 s",
    },
    Row {
        id: "P8-leave",
        title: "time to retire after a graceful end, p99",
        unit: Unit::Seconds,
        kind: Kind::Time,
        goals: &[Goal::AtMost(1.0)],
        source: "both sides are told, no timer is needed",
    },
    Row {
        id: "P8-view",
        title: "time to retire after a peer left the view, p99",
        unit: Unit::Seconds,
        kind: Kind::Time,
        goals: &[Goal::AtMost(2.0)],
        source: "a farewell and a short grace; stock 0.101 keeps the connection",
    },
];

pub(crate) const QUICK: &str = "2 pairs of nodes instead of 12";

/// QUIC gives a dead side up after 30 s of silence, and a close is repeated for a little longer.
const KILL_LIMIT: Duration = Duration::from_secs(45);

/// Who is still held after this long, five times what is hoped for, is kept and not forgotten.
const VIEW_LIMIT: Duration = Duration::from_secs(10);

/// The other node of a pair.
const GONE: usize = 1;

/// How a peer goes.
#[derive(Debug, Clone, Copy)]
enum Gone {
    Killed,
    Dismissed,
    Left,
}

pub(crate) async fn measure(world: &World<'_>) -> Result<Figures, Fault> {
    let mut figures = Figures::default();
    for (row, gone) in ROWS.iter().zip([Gone::Killed, Gone::Dismissed, Gone::Left]) {
        let mut pairs = Vec::new();
        for number in 0..world.pick(12, 2) {
            pairs.push(world.mesh(&format!("{}{number}", row.id), 2).await?);
        }
        tokio::time::sleep(world.seconds(5, 1)).await;
        let took = join_all(pairs.iter().map(|pair| goes(pair, gone))).await;
        figures.add(row.id, slowest(took));
    }
    Ok(figures)
}

/// One of the two goes; how long the other keeps the connection.
async fn goes(pair: &Cluster, gone: Gone) -> Result<Reading, Fault> {
    let since = Instant::now();
    let took = match gone {
        Gone::Killed => {
            pair.kill(GONE).await?;
            retired(pair, OBSERVER, since, KILL_LIMIT).await?
        }
        // It may take its time to end; that of the other side is what counts.
        Gone::Dismissed => {
            let (ended, took) = tokio::join!(pair.quit(GONE), retired(pair, OBSERVER, since, KILL_LIMIT));
            ended?;
            took?
        }
        Gone::Left => {
            pair.leave(GONE).await?;
            retired(pair, OBSERVER, since, VIEW_LIMIT).await?
        }
    };
    alive(pair)?;
    Ok(took)
}

/// The p99; with a dozen it is nearly the slowest.
fn slowest(took: Vec<Result<Reading, Fault>>) -> Result<Reading, String> {
    let took = took.into_iter().collect::<Result<Vec<Reading>, Fault>>()?;
    let values: Vec<f64> = took.iter().map(|reading| reading.value()).collect();
    let p99 = quantile(&values, 0.99).ok_or("nobody went")?;
    Ok(if took.iter().any(|reading| reading.is_open()) { Reading::AtLeast(p99) } else { Reading::Is(p99) })
}
