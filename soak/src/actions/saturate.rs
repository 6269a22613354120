//! Before anything is judged: stores that only use fills are filled, so that their growth is not taken for a leak later.
//!
//! Messages fill the tables of ids and contents, whose capacity stays; strangers fill the history of connections, the TLS
//! sessions, and the batches in which iroh frees what it kept of remotes. Both come to every node, since every node is judged.
//! Stores that only a mesh of thousands would fill tell their sizes instead.

use perennial_soak::attack::Kind;
use serde_json::{Value, json};

use super::{
    Done,
    pour::pour,
    strangers::{reached, topic},
};
use crate::{
    cluster::{Cluster, Fault},
    flood::attacker,
    plan::OBSERVER,
    process::TOPIC,
};

/// Messages pour in, and strangers come to one node after the other, and go.
pub(super) async fn saturate(cluster: &Cluster, messages: usize, strangers: usize) -> Result<Done, Fault> {
    let mut done = Done::to("saturate", cluster, OBSERVER);
    let harness = |error: anyhow::Error| format!("the tables could not be filled: {error:#}");
    pour(cluster, messages).await?;
    let soak = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    for (node, _) in cluster.live() {
        let (_, address) = reached(cluster, node)?;
        let what = (Kind::ComeAndGo, strangers, None);
        let mut attacker = attacker::Process::start(&soak, what, address, topic(TOPIC)).await.map_err(harness)?;
        attacker.go().await.map_err(harness)?;
        let tally = attacker.stop().await.map_err(harness)?.tally;
        done.observed.push(("strangers that came and went", tally.finished as f64));
    }
    let status = cluster.ask(OBSERVER, json!({"request": "status"})).await?;
    done.observed.push(("stores at their cap", at_their_cap(&status) as f64));
    Ok(done)
}

/// Bounded stores that have once been full.
fn at_their_cap(status: &Value) -> usize {
    let stores = status["stores"].as_array().into_iter().flatten();
    let is_full = |store: &&Value| {
        let most = store["high_water"].as_u64().or(store["size"].as_u64());
        most.zip(store["cap"].as_u64()).is_some_and(|(most, cap)| most >= cap)
    };
    stores.filter(is_full).count()
}
