//! Faults of the network between hosts: parts that do not hear each other, bad lines, and hosts that move.

use std::time::Duration;

use perennial_soak::netns::switch::line::Conditions;
use tokio::time::Instant;

use super::{Done, elapsed_ms};
use crate::{
    cluster::{Cluster, Fault},
    plan::{OBSERVER, Weather},
};

/// Two shuffle rounds of 60 s, and some.
const HEAL_TIMEOUT: Duration = Duration::from_secs(130);

/// A node that moved is heard again within this long: the idle timeout, a dial, and as much again.
const MOVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Messages between parts are not demanded; within a part they are, once both sides know that they are cut.
pub(super) async fn part(
    cluster: &Cluster,
    groups: &[Vec<usize>],
    one_way: bool,
    duration: Duration,
) -> Result<Done, Fault> {
    let mut done = Done { action: "part", node: OBSERVER, touching: true, ..Done::default() };
    let place = &cluster.place;
    let cut = match (one_way, groups) {
        (true, [from, to, ..]) => place.one_way(from, to).await,
        _ => place.partition(groups).await,
    };
    cut?;
    tokio::time::sleep(duration).await;
    let (mut missed, mut heard) = (0, 0);
    for group in groups.iter().filter(|group| group.len() > 1) {
        let probe = cluster.publish_probe_to(group[0], |node| group.contains(&node)).await?;
        missed += probe.missed.len();
        heard += usize::from(probe.missed.is_empty());
    }
    let cuts = place.heal().await?;
    let since = Instant::now();
    done.observed.push(("directions cut", cuts.iter().filter(|cut| cut.packets > 0).count() as f64));
    done.observed.push(("parts that heard themselves", heard as f64));
    done.observed.push(("messages missed by those who can be reached", missed as f64));
    if cluster.heal_within(HEAL_TIMEOUT).await {
        done.observed.push(("one mesh again after ms", elapsed_ms(since)));
    } else {
        done.faults.push(format!("not one mesh {} s after the network was", HEAL_TIMEOUT.as_secs()));
    }
    Ok(done)
}

/// Probes cross bad lines.
pub(super) async fn weather(cluster: &Cluster, weather: Weather, duration: Duration) -> Result<Done, Fault> {
    let mut done = Done { action: "weather", node: OBSERVER, touching: true, ..Done::default() };
    let place = &cluster.place;
    let disturbed = async || -> Result<u64, Fault> {
        let sum = place.tallies().await?.sum();
        Ok(sum.lost + sum.duplicated + sum.held_back + sum.overtaken)
    };
    let before = disturbed().await?;
    place.links(conditions(weather)).await?;
    let since = Instant::now();
    let (mut missed, mut twice) = (0, 0);
    let mut from = OBSERVER;
    while since.elapsed() < duration {
        let probe = cluster.publish_probe(from).await?;
        missed += probe.missed.len();
        twice += probe.duplicates;
        from = (from + 1) % cluster.len();
    }
    place.links(Conditions::default()).await?;
    done.observed.push(("frames disturbed", (disturbed().await? - before) as f64));
    done.observed.push(("messages missed by those who can be reached", missed as f64));
    done.observed.push(("messages heard twice", f64::from(twice)));
    Ok(done)
}

fn conditions(weather: Weather) -> Conditions {
    let share = |percent: u32| f64::from(percent) / 100.0;
    Conditions {
        delay_ms: weather.delay_ms,
        jitter_ms: weather.jitter_ms,
        loss: share(weather.loss_percent),
        duplicate: share(weather.duplicate_percent),
        reorder: share(weather.reorder_percent),
    }
}

/// A host gets another address. What was published meanwhile is not demanded of its node.
pub(super) async fn moved(cluster: &Cluster, node: usize) -> Result<Done, Fault> {
    let mut done = Done::to("move", cluster, node);
    cluster.place.flip_address(node).await?;
    let since = Instant::now();
    let from = if node == OBSERVER { 1 } else { OBSERVER };
    while since.elapsed() < MOVE_TIMEOUT {
        if cluster.publish_probe_to(from, |other| other == node).await?.missed.is_empty() {
            done.observed.push(("heard again after a move ms", elapsed_ms(since)));
            return Ok(done);
        }
    }
    done.faults.push(format!("node {node} heard nothing {} s after its host moved", MOVE_TIMEOUT.as_secs()));
    Ok(done)
}
