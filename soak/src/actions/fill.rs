//! A cap to its edge: strangers fill the observer to one below it, to it, and one more calls. When somebody leaves, the
//! caller enters; the next one is told that the node is full.

use std::{net::SocketAddr, time::Duration};

use perennial_soak::attack::caller::{Caller, Guest, Refusal};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Done, elapsed_ms};
use crate::{
    books,
    cluster::{Cluster, Fault},
    plan::{Cap, OBSERVER},
    process::TOPIC,
};

/// More strangers than any cap of this scenario.
const CALLS_MAX: usize = 64;

/// Whoever was let in is in the books this soon. A guess; a few milliseconds are usual.
const SEATED_TIMEOUT: Duration = Duration::from_secs(2);

/// Who finds no slot is sent away after the 5 s a node lets it wait, and a goodbye.
const AWAY_TIMEOUT: Duration = Duration::from_secs(9);

/// Slots of strangers that left are free again within this long.
const FREE_TIMEOUT: Duration = Duration::from_secs(10);

const LOOK: Duration = Duration::from_millis(4);

/// One line of the observer's page of limits.
#[derive(Debug, Clone)]
struct Use {
    max: u64,
    in_use: u64,
    high_water: u64,
    /// Where strangers knock to fill it.
    address: SocketAddr,
    /// What a stranger without a slot is told, and the reason under which it is counted.
    code: u64,
    refused: u64,
}

/// Fills one cap of the observer to its edge and beyond.
pub(super) async fn fill(cluster: &Cluster, cap: Cap) -> Result<Done, Fault> {
    let action = match cap {
        Cap::Node => "fill-node",
        Cap::Listener => "fill-listener",
    };
    let mut done = Done::to(action, cluster, OBSERVER);
    let before = look(cluster, cap).await?;
    let topic = *blake3::hash(TOPIC.as_bytes()).as_bytes();
    let caller = Caller::bind(before.address, topic).map_err(|error| format!("strangers cannot call: {error:#}"))?;
    let mut guests = Vec::new();
    let below = enter(cluster, cap, &caller, &mut guests, before.max - 1).await?;
    done.observed.push(("one below the cap held", f64::from(u8::from(below))));
    let full = enter(cluster, cap, &caller, &mut guests, before.max).await?;
    done.observed.push(("the cap held", f64::from(u8::from(full))));
    reuse(cluster, &caller, &mut guests, &mut done).await?;
    overflow(cluster, cap, &caller, &mut guests, &mut done).await?;
    let page = look(cluster, cap).await?;
    done.observed.push(("above the cap", page.high_water.saturating_sub(page.max) as f64));
    guests.into_iter().for_each(Guest::leave);
    caller.end().await;
    let left = Instant::now();
    while look(cluster, cap).await?.in_use > before.in_use && left.elapsed() < FREE_TIMEOUT {
        tokio::time::sleep(LOOK).await;
    }
    Ok(done)
}

/// Strangers enter until `goal` slots are taken; whether they are.
async fn enter(
    cluster: &Cluster,
    cap: Cap,
    caller: &Caller,
    guests: &mut Vec<Guest>,
    goal: u64,
) -> Result<bool, Fault> {
    for _ in 0..CALLS_MAX {
        let before = look(cluster, cap).await?.in_use;
        if before == goal {
            return Ok(true);
        }
        let called = Instant::now();
        if before > goal {
            // Somebody of the mesh came in.
            let Some(guest) = guests.pop() else { return Ok(false) };
            guest.leave();
            while look(cluster, cap).await?.in_use >= before && called.elapsed() < SEATED_TIMEOUT {
                tokio::time::sleep(LOOK).await;
            }
            continue;
        }
        let Ok(guest) = caller.call().await else { return Ok(false) };
        guests.push(guest);
        while look(cluster, cap).await?.in_use <= before && called.elapsed() < SEATED_TIMEOUT {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(false)
}

/// One more calls and waits inside; a guest leaves, and its slot is the caller's.
async fn reuse(cluster: &Cluster, caller: &Caller, guests: &mut Vec<Guest>, done: &mut Done) -> Result<(), Fault> {
    let last = last_stranger(cluster).await?;
    let (Ok(waiting), Some(leaving)) = (caller.call().await, guests.pop()) else { return Ok(()) };
    if last_stranger(cluster).await? > last {
        // Somebody of the mesh left in between, and there was nothing to wait for.
        guests.extend([waiting, leaving]);
        return Ok(());
    }
    let left = Instant::now();
    leaving.leave();
    while last_stranger(cluster).await? == last && left.elapsed() < SEATED_TIMEOUT {
        tokio::time::sleep(LOOK).await;
    }
    done.observed.push(("slot reused after ms", elapsed_ms(left)));
    guests.push(waiting);
    Ok(())
}

/// One more calls, and nobody leaves.
async fn overflow(
    cluster: &Cluster,
    cap: Cap,
    caller: &Caller,
    guests: &mut Vec<Guest>,
    done: &mut Done,
) -> Result<(), Fault> {
    let before = look(cluster, cap).await?;
    let refusal: Option<Refusal> = match caller.call().await {
        Err(refusal) => Some(refusal),
        Ok(guest) => {
            let refusal = guest.sent_away(AWAY_TIMEOUT).await;
            guests.push(guest);
            refusal
        }
    };
    let page = look(cluster, cap).await?;
    // QUIC's own refusal, before a handshake, has no words.
    let is_typed = refusal.as_ref().is_some_and(|refusal| refusal.code.is_none_or(|code| code == before.code));
    let is_counted = page.refused > before.refused;
    if refusal.is_some() && (!is_typed || !is_counted) {
        done.observed.push(("refused without a word or a count", 1.0));
    } else {
        done.observed.push(("refused without a word or a count", 0.0));
        done.observed.push(("one above the cap refused", f64::from(u8::from(refusal.is_some()))));
    }
    Ok(())
}

async fn look(cluster: &Cluster, cap: Cap) -> Result<Use, Fault> {
    let page = cluster.ask(OBSERVER, json!({"request": "limits"})).await?;
    let read = || {
        let listener = |at: usize| page["listeners"].get(at);
        let (line, at, code, reason) = match cap {
            Cap::Node => {
                let line = page["limits"].as_array()?.iter().find(|line| line["name"] == "unknown_inbound")?;
                (line, listener(0)?, 0x10, "refused-at-inbound-cap")
            }
            Cap::Listener => (listener(1)?, listener(1)?, 0x11, "refused-at-listener-cap"),
        };
        let figure = |of: &Value, name: &str| of[name].as_u64();
        Some(Use {
            max: figure(line, "max")?,
            in_use: figure(line, "in_use")?,
            high_water: figure(line, "high_water")?,
            address: at["name"].as_str()?.parse().ok()?,
            code,
            refused: figure(&page["refusals"], reason)?,
        })
    };
    read().ok_or_else(|| "the observer's page of limits lacks a line that this scenario fills".to_owned())
}

/// The number of the latest stranger that got a slot. The mesh speaks a protocol of its own.
async fn last_stranger(cluster: &Cluster) -> Result<u64, Fault> {
    let answer = cluster.ask(OBSERVER, json!({"request": "connections"})).await?;
    let strangers = books::connections(&answer).filter(|row| row.stock && row.accepted);
    Ok(strangers.map(|row| row.number).max().unwrap_or(0))
}
