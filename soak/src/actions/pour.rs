//! A burst of messages from the observer, at a pace that every reader can follow.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    cluster::{Cluster, Fault},
    plan::OBSERVER,
};

/// A burst is published at this pace: 1 KiB each.
const MESSAGES_PER_S: f64 = 500.0;

/// The observer publishes so many messages.
pub(super) async fn pour(cluster: &Cluster, messages: usize) -> Result<(), Fault> {
    let observer = cluster.process(OBSERVER)?;
    let begun = Instant::now();
    for number in 0..messages {
        tokio::time::sleep_until(begun + Duration::from_secs_f64(number as f64 / MESSAGES_PER_S)).await;
        // Padded to 1 KiB, and different, or it would be dropped as a duplicate.
        let text = format!("burst {begun:?} {number:0>1000}");
        observer.publish(&text).await.map_err(|error| format!("node {OBSERVER} takes no input: {error:#}"))?;
    }
    Ok(())
}
