//! Sieges: strangers from a process of their own come to the observer, while the mesh goes on talking with it and its
//! status is asked for. Then a visitor comes whom it has not seen either, and should find the door as it always is.
//!
//! What strangers do is the library's (`attack`); what is watched meanwhile, `watch.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use iroh::{EndpointAddr, EndpointId, SecretKey};
use iroh_gossip::proto::TopicId;
use perennial_soak::attack::{Kind, Tally};
use serde_json::json;
use tokio::time::Instant;

use super::{Done, elapsed_ms, watch::Watch};
use crate::{
    books::{self, Connection},
    cluster::{Cluster, Fault},
    flood::{attacker, peer::Peer},
    plan::OBSERVER,
    process::TOPIC,
    scenario::strangers::{BEYOND, DEADLINES, HALF_OPEN_GONE, TURNED_AWAY, VISITOR, VISITORS_TOPIC},
};

/// Undisturbed probes first: eighty of them.
const BEFORE: Duration = Duration::from_secs(4);

/// How long strangers stay who have done what they came for.
const HOLD: Duration = Duration::from_secs(2);

/// Those who left without a word are forgotten by then, or never.
const GONE_TIMEOUT: Duration = Duration::from_secs(30);

/// A visitor that is not in by then does not get in.
const VISIT_TIMEOUT: Duration = Duration::from_secs(10);

const LOOK: Duration = Duration::from_millis(50);

/// The course of one siege.
struct Course {
    attack: Instant,
    end: Instant,
    half_open_gone_ms: Option<f64>,
    tally: Tally,
    /// What the observer had counted when the visitor came.
    at_end: Counts,
    visitor: Option<Duration>,
}

/// What a node counts, by reason.
type Counts = BTreeMap<String, u64>;

/// Strangers come to the observer, and it deals with them.
pub(super) async fn besiege(cluster: &Cluster, kind: Kind, count: usize) -> Result<Done, Fault> {
    let mut done = Done { action: kind.name(), node: OBSERVER, touching: true, ..Done::default() };
    let (before, number) = (counts(cluster).await?, last_number(cluster).await?);
    let watch = Watch::new(cluster);
    let course = tokio::select! {
        // The end of a siege comes before one more look at it.
        biased;
        course = course(cluster, &watch, kind, count) => course?,
        fault = watch.run() => return Err(fault),
    };
    watch.report(&mut done, course.attack, course.end).await;
    match course.half_open_gone_ms {
        Some(took_ms) => done.observed.push((HALF_OPEN_GONE, took_ms)),
        None => done
            .faults
            .push(format!("handshakes were half open {} s after the last stranger left", GONE_TIMEOUT.as_secs())),
    }
    match course.visitor {
        Some(took) => done.observed.push((VISITOR, took.as_secs_f64() * 1e3)),
        None => done.faults.push(format!(
            "a visitor was not let in within {} s; meanwhile the door counted {}",
            VISIT_TIMEOUT.as_secs(),
            shown(&course.at_end, &counts(cluster).await?)
        )),
    }
    let after = counts(cluster).await?;
    let more = |is_meant: fn(&str) -> bool| {
        let meant = after.iter().filter(|(reason, _)| is_meant(reason));
        meant.map(|(reason, count)| count - before.get(reason).copied().unwrap_or(0)).sum::<u64>() as f64
    };
    done.observed.push((TURNED_AWAY, more(is_turned_away)));
    done.observed.push((DEADLINES, more(|reason| reason == "handshake-timeout")));
    let inside = strangers_since(cluster, number).await?;
    // Who gave up cannot tell whether the other side had finished.
    let finished = course.tally.finished + course.tally.abandoned;
    done.observed.push(("strangers inside", inside as f64));
    done.observed.push((BEYOND, inside.saturating_sub(finished) as f64));
    Ok(done)
}

async fn course(cluster: &Cluster, watch: &Watch<'_>, kind: Kind, count: usize) -> Result<Course, Fault> {
    let harness = |error: anyhow::Error| format!("a siege could not be carried out: {error:#}");
    let (id, address) = reached(cluster, OBSERVER)?;
    let soak = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let what = (kind, count, None);
    let mut attacker = attacker::Process::start(&soak, what, address, topic(TOPIC)).await.map_err(harness)?;
    // The same in every epoch: what iroh remembers of it for a minute is then a constant of the barriers.
    let key = SecretKey::from_bytes(blake3::hash(format!("visitor of {}", cluster.run()).as_bytes()).as_bytes());
    let visitor = Peer::bind(key).await.map_err(harness)?;
    tokio::time::sleep(BEFORE).await;
    let half_open = watch.half_open();
    let attack = Instant::now();
    attacker.go().await.map_err(harness)?;
    tokio::time::sleep(HOLD).await;
    let tally = attacker.stop().await.map_err(harness)?.tally;
    let left = Instant::now();
    let mut half_open_gone_ms = None;
    while half_open_gone_ms.is_none() && left.elapsed() < GONE_TIMEOUT {
        tokio::time::sleep(LOOK).await;
        if watch.looked_since(left) && watch.half_open() <= half_open {
            half_open_gone_ms = Some(elapsed_ms(left));
        }
    }
    let (end, at_end) = (Instant::now(), counts(cluster).await?);
    let visitor = visit(visitor, EndpointAddr::new(id).with_ip_addr(address)).await.map_err(harness)?;
    Ok(Course { attack, end, half_open_gone_ms, tally, at_end, visitor })
}

/// Joins the topic that is for visitors, and leaves; how long it took to have a neighbour.
async fn visit(visitor: Peer, via: EndpointAddr) -> anyhow::Result<Option<Duration>> {
    let (took, sender, events) = visitor.join(topic(VISITORS_TOPIC), &via, VISIT_TIMEOUT).await?;
    drop((sender, events));
    visitor.leave().await;
    Ok(took)
}

pub(super) fn topic(name: &str) -> TopicId {
    TopicId::from_bytes(*blake3::hash(name.as_bytes()).as_bytes())
}

/// Where strangers find a node.
pub(super) fn reached(cluster: &Cluster, node: usize) -> Result<(EndpointId, SocketAddr), Fault> {
    let address = cluster.address(node)?;
    let parts = address.split_once('@').and_then(|(id, at)| Some((id.parse().ok()?, at.parse().ok()?)));
    parts.ok_or_else(|| format!("node {node} has no address of the form ID@IP:PORT: {address}"))
}

/// What the observer counts, by reason.
async fn counts(cluster: &Cluster) -> Result<Counts, Fault> {
    let status = cluster.ask(OBSERVER, json!({"request": "status"})).await?;
    let counts = status["counts"].as_object().into_iter().flatten();
    Ok(counts.filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?))).collect())
}

/// What was counted in between.
fn shown(before: &Counts, after: &Counts) -> String {
    let more = after.iter().map(|(reason, count)| (reason, count - before.get(reason).copied().unwrap_or(0)));
    let words: Vec<String> =
        more.filter(|(_, more)| *more > 0).map(|(reason, more)| format!("{reason} {more}")).collect();
    if words.is_empty() { "nothing".into() } else { words.join(", ") }
}

fn is_turned_away(reason: &str) -> bool {
    reason.starts_with("refused-") || matches!(reason, "asked-to-retry" | "retried-enough" | "waited-in-vain")
}

/// The number of the observer's latest connection.
async fn last_number(cluster: &Cluster) -> Result<u64, Fault> {
    Ok(connections(cluster).await?.iter().map(|row| row.number).max().unwrap_or(0))
}

/// Connections of the observer to anybody but the mesh that came after number `since`. Its history holds the last 256.
async fn strangers_since(cluster: &Cluster, since: u64) -> Result<u64, Fault> {
    let ids: BTreeSet<String> = (0..cluster.len()).filter_map(|node| cluster.id(node).ok()).collect();
    let is_meant = |row: &&Connection| row.number > since && !ids.contains(&row.peer);
    let all = connections(cluster).await?;
    // The visitor is the one that was let in.
    Ok((all.iter().filter(is_meant).count() as u64).saturating_sub(1))
}

/// Those that live and those that ended.
async fn connections(cluster: &Cluster) -> Result<Vec<Connection>, Fault> {
    let mut all = Vec::new();
    for request in ["connections", "closed_connections"] {
        let answer = cluster.ask(OBSERVER, json!({"request": request})).await?;
        all.extend(books::connections(&answer));
    }
    Ok(all)
}
