//! Storms in which two connections between the same two nodes are up at one time: nodes that dial each other at once, and
//! nodes that are killed and back before anybody noticed.
//!
//! Which of them survives is the nodes' business; that exactly one does, and the same on both sides, is looked at here.
//! What was superseded is counted in the nodes' own histories.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{Done, elapsed_ms, rejoined};
use crate::{
    books::{self, Connection},
    cluster::{Cluster, Fault},
    plan::Identity,
    process::TOPIC,
};

/// A node that left has no connection to the other after this long: it lets go of remotes it has not heard for 4 s.
const PARTED_TIMEOUT: Duration = Duration::from_secs(15);

/// Two nodes hold one connection, or none, after this long.
const ONE_TIMEOUT: Duration = Duration::from_secs(12);

/// A connection to a process that is dead is gone after this long: the idle timeout of 10 s, a keep-alive and the drain.
const DEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What holds for this long is no moment in between.
const STABLE: Duration = Duration::from_millis(500);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(25);

/// The close code of a connection that another one replaces.
const SUPERSEDED: u64 = 0x15;

/// What a node says of its connections to one remote.
#[derive(Debug, Default, PartialEq)]
struct Line {
    sides: Vec<String>,
    dialing: bool,
}

/// Both leave, and join through each other at one instant.
pub(super) async fn meet(cluster: &Cluster, nodes: [usize; 2], via: usize) -> Result<Done, Fault> {
    let [one, other] = nodes;
    let mut done = Done::to("meet", cluster, one);
    done.touching |= Done::to("meet", cluster, other).touching;
    let ids = [cluster.id(one)?, cluster.id(other)?];
    let left = tokio::join!(cluster.leave(one), cluster.leave(other));
    left.0.and(left.1)?;
    let deadline = Instant::now() + PARTED_TIMEOUT;
    while lines(cluster, nodes, &ids).await? != Default::default() && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    let begun = Instant::now();
    let (at_one, at_other) = tokio::join!(join(cluster, one, [other, via]), join(cluster, other, [one, via]));
    at_one.and(at_other)?;
    match one_between(cluster, nodes, &ids, begun).await? {
        Ok(took_ms) => done.observed.push(("one connection after ms", took_ms)),
        Err(fault) => done.faults.push(fault),
    }
    note_superseded(cluster, &mut done, &[(one, &ids[1]), (other, &ids[0])], begun).await?;
    rejoined(cluster, &mut done).await?;
    Ok(done)
}

/// A node dies and is back at once under the same key. Its neighbours take the new connection, and let go of the old.
pub(super) async fn come_back(cluster: &Cluster, node: usize, via: usize) -> Result<Done, Fault> {
    let mut done = Done::to("come-back", cluster, node);
    let id = cluster.id(node)?;
    let neighbors: Vec<usize> =
        cluster.live().iter().map(|(other, _)| *other).filter(|other| cluster.sees(*other, node)).collect();
    // Through somebody who holds an old connection, if there is anybody.
    let via = neighbors.first().copied().unwrap_or(via);
    let listened = cluster.kill(node).await?;
    let begun = Instant::now();
    cluster.respawn(node, via, Identity::Same, &listened).await?;
    rejoined(cluster, &mut done).await?;
    for neighbor in &neighbors {
        let mut held = line(cluster, *neighbor, &id).await?.sides.len();
        while held > 1 && begun.elapsed() < DEAD_TIMEOUT {
            tokio::time::sleep(LOOK).await;
            held = line(cluster, *neighbor, &id).await?.sides.len();
        }
        // What was seen, and not what is there a moment later: two who dial each other anew hold two for a moment.
        if held > 1 {
            let seconds = DEAD_TIMEOUT.as_secs();
            done.faults
                .push(format!("node {neighbor} holds {held} connections to node {node} {seconds} s after its death"));
        }
    }
    done.observed.push(("the old connection gone after ms", elapsed_ms(begun)));
    let mut superseded = 0;
    for neighbor in &neighbors {
        superseded += ages_of_superseded(cluster, *neighbor, &id, begun).await?.len();
    }
    done.observed.push(("superseded", superseded as f64));
    Ok(done)
}

async fn join(cluster: &Cluster, node: usize, through: [usize; 2]) -> Result<(), Fault> {
    let peers = through.iter().map(|via| cluster.address(*via)).collect::<Result<Vec<_>, _>>()?;
    cluster.ask(node, json!({"request": "join", "topic": TOPIC, "peers": peers})).await.map(drop)
}

/// Waits until both hold the same single connection to each other, or neither holds one: when that was, or what they hold
/// instead. The end that dialed knows of a connection before the other, so one look proves nothing.
async fn one_between(
    cluster: &Cluster,
    nodes: [usize; 2],
    ids: &[String; 2],
    begun: Instant,
) -> Result<Result<f64, Fault>, Fault> {
    let mut since = None;
    loop {
        let (one, other) = lines(cluster, nodes, ids).await?;
        let same = match (one.sides.as_slice(), other.sides.as_slice()) {
            ([], []) => true,
            ([at_one], [at_other]) => at_one != at_other,
            _ => false,
        };
        if same && !one.dialing && !other.dialing {
            let since = *since.get_or_insert_with(Instant::now);
            if since.elapsed() >= STABLE {
                return Ok(Ok((since - begun).as_secs_f64() * 1e3));
            }
        } else if begun.elapsed() >= ONE_TIMEOUT {
            let [a, b] = nodes;
            let (at_a, at_b) = (one.sides.join(", "), other.sides.join(", "));
            let seconds = ONE_TIMEOUT.as_secs();
            return Ok(Err(format!(
                "{seconds} s after nodes {a} and {b} dialed each other, one holds [{at_a}] and the other [{at_b}]"
            )));
        } else {
            since = None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What two nodes hold to each other.
async fn lines(cluster: &Cluster, nodes: [usize; 2], ids: &[String; 2]) -> Result<(Line, Line), Fault> {
    let (one, other) = tokio::join!(line(cluster, nodes[0], &ids[1]), line(cluster, nodes[1], &ids[0]));
    Ok((one?, other?))
}

async fn line(cluster: &Cluster, node: usize, id: &str) -> Result<Line, Fault> {
    let peers = cluster.ask(node, json!({"request": "peers"})).await?;
    let Some(peer) = peers["peers"].as_array().into_iter().flatten().find(|peer| peer["id"] == id) else {
        return Ok(Line::default());
    };
    let connections = peer["connections"].as_array().into_iter().flatten();
    let sides = connections.filter_map(|connection| connection["side"].as_str().map(str::to_owned)).collect();
    Ok(Line { sides, dialing: peer["dialing"] == true })
}

/// How many were superseded between two nodes, and how long the longest lived of them lived. Both ends write it down, and
/// the one that hears of it a moment later.
async fn note_superseded(
    cluster: &Cluster,
    done: &mut Done,
    ends: &[(usize, &String); 2],
    begun: Instant,
) -> Result<(), Fault> {
    let one = ages_of_superseded(cluster, ends[0].0, ends[0].1, begun).await?;
    let other = ages_of_superseded(cluster, ends[1].0, ends[1].1, begun).await?;
    done.observed.push(("superseded", one.len().max(other.len()) as f64));
    for age_s in one.into_iter().chain(other) {
        done.observed.push(("a superseded connection lived ms", age_s * 1e3));
    }
    Ok(())
}

/// Ages of the connections to `id` that have ended since `begun` because of another one.
async fn ages_of_superseded(cluster: &Cluster, node: usize, id: &str, begun: Instant) -> Result<Vec<f64>, Fault> {
    let closed = cluster.ask(node, json!({"request": "closed_connections"})).await?;
    let since_s = begun.elapsed().as_secs_f64();
    let is_meant = |one: &Connection| {
        let is_late = one.ended_s_ago.is_some_and(|ago| ago < since_s);
        one.peer == id && one.code == Some(SUPERSEDED) && is_late
    };
    Ok(books::connections(&closed).filter(is_meant).filter_map(|one| one.age_s).collect())
}
