//! P15: half of a mesh, or four fifths of it, dies at once; when everything said is heard by every survivor again.

use std::time::{Duration, Instant};

use n0_future::join_all;
use rand::seq::SliceRandom;

use crate::{
    cluster::{Cluster, Fault},
    compare::{
        row::{Goal, Kind, Reading, Row, Unit},
        world::{Figures, World, alive, publish},
    },
    plan::OBSERVER,
    process::Process,
    view::probe_text,
};

pub(crate) const HALF: [Row; 1] = [Row {
    id: "P15-50",
    title: "half of the nodes die: time to 100 % delivery",
    unit: Unit::Seconds,
    kind: Kind::Time,
    goals: &[Goal::Reached, Goal::Ratio(0.7)],
    source: "limit detection and one round trip; HyParView promises 100 % at 80 %",
}];

pub(crate) const MOST: [Row; 1] = [Row {
    id: "P15-80",
    title: "four fifths die: time to 100 % delivery",
    unit: Unit::Seconds,
    kind: Kind::Time,
    goals: &[Goal::Reached, Goal::Ratio(0.7)],
    source: "limit detection and one round trip; HyParView promises 100 % at 80 %",
}];

pub(crate) const QUICK: &str = "10 nodes instead of 50";

/// Not healed within this long is not healed: twice the 60 s of a shuffle.
const LIMIT: Duration = Duration::from_secs(120);

/// A survivor says something this often.
const PROBE_EVERY: Duration = Duration::from_millis(250);

/// So many in a row, from different survivors, must be heard by all: one alone may have had luck with its sender.
const IN_A_ROW: usize = 3;

/// Kills, and then lets the survivors speak in turn. The figure is the time from the kills to the moment at which the first
/// of three probes in a row was with every survivor.
pub(crate) async fn measure(world: &World<'_>, percent: usize) -> Result<Figures, Fault> {
    let nodes = world.pick(50, 10);
    let cluster = world.mesh("mesh", nodes).await?;
    // Views are full once everybody has joined, and what waiting would add, a shuffle, stock does once a minute.
    tokio::time::sleep(world.seconds(10, 2)).await;
    let mut victims: Vec<usize> = (0..nodes).filter(|node| *node != OBSERVER).collect();
    victims.shuffle(&mut world.rng());
    let since = Instant::now();
    let dying = victims.into_iter().take(nodes * percent / 100).map(|victim| cluster.kill(victim));
    join_all(dying).await.into_iter().collect::<Result<Vec<_>, Fault>>()?;
    let reading = heals(&cluster, since, &world.run()).await?;
    alive(&cluster)?;
    let mut figures = Figures::default();
    figures.add(if percent == 50 { HALF[0].id } else { MOST[0].id }, Ok(reading));
    Ok(figures)
}

async fn heals(cluster: &Cluster, since: Instant, run: &str) -> Result<Reading, Fault> {
    let survivors = cluster.live();
    // Probes under way: number, sender, and when all had it.
    let mut probes: Vec<(u32, usize, Option<Duration>)> = Vec::new();
    while since.elapsed() < LIMIT {
        let number = probes.len() as u32 + 1;
        let from = survivors[number as usize % survivors.len()].0;
        publish(cluster, from, &probe_text(number, run)).await?;
        probes.push((number, from, None));
        tokio::time::sleep(PROBE_EVERY).await;
        for (number, from, complete) in probes.iter_mut().filter(|(.., complete)| complete.is_none()) {
            let has = |process: &Process| process.view().probes.contains_key(number);
            let all = survivors.iter().filter(|(node, _)| node != from).all(|(_, process)| has(process));
            *complete = all.then(|| since.elapsed());
        }
        let whole = probes.windows(IN_A_ROW).find(|row| row.iter().all(|(.., complete)| complete.is_some()));
        if let Some(&[(.., Some(complete)), ..]) = whole {
            return Ok(Reading::Is(complete.as_secs_f64()));
        }
    }
    Ok(Reading::AtLeast(LIMIT.as_secs_f64()))
}
