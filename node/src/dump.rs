//! SIGUSR1: the ledger and the limits into the log, for a node whose control socket nobody can reach.

use crate::{control::answers, node::Node};

/// Writes one line for each kind of task and one for each limit. A mesh that is ending has nothing to tell.
pub(crate) async fn to_log(node: &Node) {
    match answers::ledger(node).await {
        Ok(ledger) => {
            for line in ledger.kinds.iter().filter(|line| line.spawned + line.owned > 0) {
                let (kind, spawned, finished) = (&line.kind, line.spawned, line.finished);
                tracing::info!(%kind, spawned, finished, owned = line.owned, orphans = line.orphans, "ledger");
            }
            tracing::info!(orphans = ledger.orphans, "ledger in all");
        }
        Err(failure) => tracing::warn!("no ledger: {failure}"),
    }
    match answers::door::limits(node).await {
        Ok(page) => {
            for limit in &page.limits {
                let (name, max, in_use) = (&limit.name, limit.max, limit.in_use);
                tracing::info!(%name, max, in_use, high_water = ?limit.high_water, "limit");
            }
            for listener in &page.listeners {
                let (name, max, in_use) = (&listener.name, listener.max, listener.in_use);
                tracing::info!(%name, max, in_use, accepting = listener.accepting, "listener");
            }
            tracing::info!(pressure = %page.pressure, "limits in all");
        }
        Err(failure) => tracing::warn!("no limits: {failure}"),
    }
}
