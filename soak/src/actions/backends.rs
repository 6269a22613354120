//! Faults of what nodes depend on beyond each other: the collector of their telemetry, and those they were told to join through.

use std::time::Duration;

use n0_future::join_all;
use perennial_soak::place::collector::Mood;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Done, REJOIN_TIMEOUT, elapsed_ms, pour::pour};
use crate::{
    books,
    cluster::{Cluster, Fault, HEAL_TIMEOUT},
    plan::{Identity, OBSERVER},
    process::TOPIC,
};

/// Published while the collector fails, each with a span of its own: more than wait for it. In the 90 s for which a node
/// remembers their ids seven events pass, which together are less than what filled its tables before anything is judged.
const BURST_MESSAGES: usize = 120;

/// Longer than an exporter leaves a collector alone after so short an outage.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Three failures of 10 s, with pauses of 30 s at most.
const DEGRADED_TIMEOUT: Duration = Duration::from_secs(100);

/// The second probe of a survivor is made this long after the first, and takes 10 s.
const RECOVERED_TIMEOUT: Duration = Duration::from_secs(100);

/// Between two looks at all nodes.
const LOOK: Duration = Duration::from_millis(500);

/// Failures in a row that degrade a backend. Every one beyond them was a probe.
const BREAKER_FAILURES: u64 = 3;

/// The collector fails in one way while spans pour into the observer's queue. Nobody's messages are lost for it.
pub(super) async fn collector(cluster: &Cluster, mood: Mood, duration: Duration) -> Result<Done, Fault> {
    let action = match mood {
        Mood::Well => "collector-well",
        Mood::Refuses => "collector-refuses",
        Mood::Silent => "collector-silent",
        Mood::Late => "collector-late",
        Mood::Fails => "collector-fails",
    };
    let mut done = Done { action, node: OBSERVER, touching: true, ..Done::default() };
    let (lost, taken) = (spans_lost(cluster).await?, cluster.place.taken_by_collector()?);
    let said = said_of_collector(cluster);
    cluster.place.set_collector(mood)?;
    let since = Instant::now();
    pour(cluster, BURST_MESSAGES).await?;
    let mut missed = 0;
    while since.elapsed() < duration {
        missed += cluster.publish_probe(OBSERVER).await?.missed.len();
        tokio::time::sleep(LOOK).await;
    }
    cluster.place.set_collector(Mood::Well)?;
    let (since, exported) = (Instant::now(), spans(cluster, "exported").await?);
    while spans(cluster, "exported").await? <= exported {
        if since.elapsed() > TAKEN_TIMEOUT {
            let seconds = TAKEN_TIMEOUT.as_secs();
            done.faults.push(format!("node {OBSERVER} sent no span {seconds} s after its collector was well"));
            break;
        }
        // Without a span there is nothing to send.
        missed += cluster.publish_probe(OBSERVER).await?.missed.len();
    }
    done.observed.push(("spans taken again after ms", elapsed_ms(since)));
    done.observed.push(("spans lost", spans_lost(cluster).await? - lost));
    done.observed.push(("requests taken", (cluster.place.taken_by_collector()? - taken) as f64));
    done.observed.push(("messages missed by those who can be reached", missed as f64));
    let lines = said_of_collector(cluster).into_iter().zip(said).map(|(after, before)| after.saturating_sub(before));
    done.observed.push(("lines of one node about its collector", lines.max().unwrap_or(0) as f64));
    Ok(done)
}

/// Lines in the log of each node that its collector takes nothing, or something again.
fn said_of_collector(cluster: &Cluster) -> Vec<usize> {
    let said = |node| {
        let log = std::fs::read(cluster.log(node)).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains("the collector takes")).count()
    };
    (0..cluster.len()).map(said).collect()
}

/// Spans of the observer that never reached its collector.
async fn spans_lost(cluster: &Cluster) -> Result<f64, Fault> {
    Ok(spans(cluster, "dropped").await? + spans(cluster, "failed").await?)
}

async fn spans(cluster: &Cluster, outcome: &str) -> Result<f64, Fault> {
    cluster.figure(OBSERVER, &format!("perennial_telemetry_span_total{{outcome=\"{outcome}\"}}")).await
}

/// Everybody whom the survivors know by name dies. They stay one mesh, say that their bootstrap is degraded once they have
/// been told to ask it again, and that it is healthy once it is back.
pub(super) async fn lose_bootstrap(cluster: &Cluster, nodes: &[usize], duration: Duration) -> Result<Done, Fault> {
    let mut done = Done { action: "boot-down", node: nodes[0], touching: true, ..Done::default() };
    let survivors: Vec<usize> =
        cluster.live().iter().map(|(node, _)| *node).filter(|node| !nodes.contains(node)).collect();
    let named = nodes.iter().map(|node| cluster.address(*node)).collect::<Result<Vec<_>, _>>()?;
    let ids = nodes.iter().map(|node| cluster.id(*node)).collect::<Result<Vec<_>, _>>()?;
    let saved = saved(cluster, &survivors).await?;
    let mut listened = Vec::new();
    for killed in join_all(nodes.iter().map(|node| cluster.kill(*node))).await {
        listened.push(killed?);
    }
    let since = Instant::now();
    if !cluster.heal().await {
        return Err(format!("{} survivors were not one mesh {} s later", survivors.len(), HEAL_TIMEOUT.as_secs()));
    }
    done.observed.push(("survivors whole again after ms", elapsed_ms(since)));
    for survivor in &survivors {
        for id in &ids {
            // The pauses that earlier storms have left would decide how often they are asked.
            cluster.ask(*survivor, json!({"request": "allow", "peer": id})).await?;
        }
        cluster.ask(*survivor, json!({"request": "join", "topic": TOPIC, "peers": named})).await?;
    }
    let since = Instant::now();
    let degraded = told(cluster, &survivors, false, since + DEGRADED_TIMEOUT).await?;
    done.observed.push(("survivors degraded", degraded as f64));
    done.observed.push(("degraded after ms", elapsed_ms(since)));
    let (since, mut missed) = (Instant::now(), 0);
    for from in survivors.iter().cycle() {
        missed += cluster.publish_probe(*from).await?.missed.len();
        if since.elapsed() > duration {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    done.observed.push(("messages missed by those who can be reached", missed as f64));
    for survivor in &survivors {
        let failures = bootstrap(cluster, *survivor).await?.map_or(0, |bootstrap| bootstrap.failures);
        done.observed.push(("probes of one survivor", failures.saturating_sub(BREAKER_FAILURES) as f64));
    }
    come_back(cluster, nodes, &listened, &mut done).await?;
    let since = Instant::now();
    let recovered = told(cluster, &survivors, true, since + RECOVERED_TIMEOUT).await?;
    done.observed.push(("survivors recovered", recovered as f64));
    done.observed.push(("recovered after ms", elapsed_ms(since)));
    done.observed.push(("attempts saved", self::saved(cluster, &survivors).await?.saturating_sub(saved) as f64));
    Ok(done)
}

/// They are started where they were, as who they were.
async fn come_back(cluster: &Cluster, nodes: &[usize], listened: &[String], done: &mut Done) -> Result<(), Fault> {
    for (node, listened) in nodes.iter().zip(listened) {
        cluster.respawn(*node, OBSERVER, Identity::SamePort, listened).await?;
        let since = Instant::now();
        if cluster.connected_within(*node, REJOIN_TIMEOUT).await {
            done.observed.push(("rejoined after ms", elapsed_ms(since)));
        } else {
            done.faults.push(format!("node {node} had no neighbour {} s after joining", REJOIN_TIMEOUT.as_secs()));
        }
    }
    Ok(())
}

/// How many of these tell that their bootstrap is healthy, or that it is not: all of them, or those that do in time.
async fn told(cluster: &Cluster, nodes: &[usize], is_healthy: bool, deadline: Instant) -> Result<usize, Fault> {
    loop {
        let mut count = 0;
        for node in nodes {
            count += usize::from(bootstrap(cluster, *node).await?.is_some_and(|one| one.is_healthy == is_healthy));
        }
        if count == nodes.len() || Instant::now() >= deadline {
            return Ok(count);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn saved(cluster: &Cluster, nodes: &[usize]) -> Result<u64, Fault> {
    let mut saved = 0;
    for node in nodes {
        saved += bootstrap(cluster, *node).await?.map_or(0, |bootstrap| bootstrap.saved);
    }
    Ok(saved)
}

async fn bootstrap(cluster: &Cluster, node: usize) -> Result<Option<books::Backend>, Fault> {
    let answer: Value = cluster.ask(node, json!({"request": "backends"})).await?;
    let found = books::backends(&answer).find(|backend| backend.name.starts_with("bootstrap:"));
    Ok(found)
}
