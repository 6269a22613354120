//! Dials that end before their handshake: the observer joins a topic through a socket that takes everything and answers
//! nothing, and leaves it again. Nobody waits for these dials any more, so they have to go.

use std::time::Duration;

use iroh::SecretKey;
use serde_json::json;
use tokio::{net::UdpSocket, time::Instant};

use super::{Done, elapsed_ms};
use crate::{
    books,
    cluster::{Cluster, Fault},
    plan::OBSERVER,
};

/// Nobody else is there.
const TOPIC: &str = "nobody";

/// Between the first packet and the leave: long enough to see that nobody answers.
const PATIENCE: Duration = Duration::from_millis(200);

/// Dials have begun within this long of the join.
const BEGUN_TIMEOUT: Duration = Duration::from_secs(5);

/// Longer than the deadline of a dial, 10 s: then it was not given up, it ended.
const GONE_TIMEOUT: Duration = Duration::from_secs(15);

const LOOK: Duration = Duration::from_millis(20);

/// Joins through `dials` ids that nobody has, at one address, and leaves.
pub(super) async fn give_up(cluster: &Cluster, dials: usize) -> Result<Done, Fault> {
    let mut done = Done::to("give-up", cluster, OBSERVER);
    let silent = UdpSocket::bind("127.0.0.1:0").await.map_err(|error| format!("cannot bind a socket: {error}"))?;
    let address = silent.local_addr().map_err(|error| format!("a socket has no address: {error}"))?;
    let peers: Vec<String> = (0..dials).map(|_| format!("{}@{address}", SecretKey::generate().public())).collect();
    let before = dialing(cluster).await?;
    cluster.ask(OBSERVER, json!({"request": "join", "topic": TOPIC, "peers": peers})).await?;
    let joined = Instant::now();
    let mut begun = 0;
    while begun < dials as u64 && joined.elapsed() < BEGUN_TIMEOUT {
        begun = begun.max(dialing(cluster).await?.saturating_sub(before));
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(PATIENCE).await;
    cluster.ask(OBSERVER, json!({"request": "leave", "topic": TOPIC})).await?;
    let left = Instant::now();
    while dialing(cluster).await? > before && left.elapsed() < GONE_TIMEOUT {
        tokio::time::sleep(LOOK).await;
    }
    done.observed.push(("given up, gone after ms", elapsed_ms(left)));
    done.observed.push(("dials dropped", begun as f64));
    // Until here it took everything and said nothing.
    drop(silent);
    Ok(done)
}

/// Dials of the observer under way.
async fn dialing(cluster: &Cluster) -> Result<u64, Fault> {
    let ledger = cluster.ask(OBSERVER, json!({"request": "ledger"})).await?;
    Ok(books::kind(&ledger, "dial").map_or(0, |kind| kind.alive().max(0) as u64))
}
