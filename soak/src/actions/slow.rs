//! Messages pour in while one application does not read what its node hands it, and one node reads nothing at all: the others
//! must not feel it, and what is lost is told.

use std::time::Duration;

use tokio::time::Instant;

use perennial_soak::stats::percentile;

use super::{Done, pour::pour};
use crate::{
    cluster::{Cluster, Fault, PROBE_TIMEOUT},
    plan::OBSERVER,
};

/// Probes cross the mesh this often during a burst: 110 of them to five readers and more, or their p99 is the one that
/// happened to be late.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Probes begin this long after a burst. Whoever hears the observer by way of a node that has just been halted waits for a
/// graft, 80 ms and a round trip, and for no more than the first messages: that is the tree mending itself, and not what the
/// others feel of somebody who is slow.
const MENDED_AFTER: Duration = Duration::from_millis(500);

/// A halted process goes on before its neighbours' idle timeout, 10 s.
const HALTED_AT_MOST: Duration = Duration::from_secs(8);

/// An application that reads again has been told what it lost within this long.
const TOLD_TIMEOUT: Duration = Duration::from_secs(10);

/// A delay is not longer than half as much again, or this much more: a busy machine's own jitter.
const SLACK_MS: f64 = 5.0;

/// One burst as it should be, and the same with slow readers.
pub(super) async fn slow(cluster: &Cluster, subscriber: usize, halted: usize, messages: usize) -> Result<Done, Fault> {
    let mut done = Done::to("slow", cluster, subscriber);
    done.touching |= cluster.sees(OBSERVER, halted);
    let control = burst(cluster, messages, &[]).await?;
    let (reader, process) = (cluster.process(subscriber)?, cluster.process(halted)?);
    let lagged_before = reader.view().lagged;
    let wrong = |error| format!("node {halted}: {error:#}");
    reader.stop_reading();
    process.pause().map_err(wrong)?;
    let slowed = tokio::time::timeout(HALTED_AT_MOST, burst(cluster, messages, &[subscriber, halted])).await;
    process.resume().map_err(wrong)?;
    reader.read_on();
    // Until it has caught up its queue overflows still, so what the barrier publishes would be lost and told.
    let since = Instant::now();
    while since.elapsed() < TOLD_TIMEOUT {
        let probe = cluster.publish_probe_to(OBSERVER, |node| node == subscriber).await?;
        if probe.missed.is_empty() {
            break;
        }
    }
    let told = reader.view().lagged - lagged_before;
    done.observed.push(("events told as lost", told as f64));
    let Ok(slowed) = slowed else {
        done.faults.push(format!("a burst of {messages} messages took longer than {} s", HALTED_AT_MOST.as_secs()));
        return Ok(done);
    };
    let slowed = slowed?;
    let allowed_ms = (1.5 * control.p99_ms).max(control.p99_ms + SLACK_MS);
    done.observed.push(("p99 of readers without slow ones ms", control.p99_ms));
    done.observed.push(("p99 of readers beside slow ones ms", slowed.p99_ms));
    done.observed.push(("p99 beyond half as much again ms", (slowed.p99_ms - allowed_ms).max(0.0)));
    done.observed.push(("messages lost by readers that read", (slowed.missed + control.missed) as f64));
    Ok(done)
}

/// What the probes of one burst met.
struct Burst {
    p99_ms: f64,
    missed: usize,
}

/// The observer publishes, and probes cross the mesh meanwhile. `slow` nodes need not hear them.
async fn burst(cluster: &Cluster, messages: usize, slow: &[usize]) -> Result<Burst, Fault> {
    let mut sent = Vec::new();
    let probes = async {
        tokio::time::sleep(MENDED_AFTER).await;
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            match cluster.publish_numbered(OBSERVER).await {
                Ok(probe) => sent.push(probe),
                Err(fault) => return fault,
            }
        }
    };
    tokio::select! {
        outcome = pour(cluster, messages) => outcome?,
        fault = probes => return Err(fault),
    }
    let readers: Vec<_> =
        cluster.live().into_iter().filter(|(node, _)| *node != OBSERVER && !slow.contains(node)).collect();
    let arrived = |number| readers.iter().filter_map(move |(_, process)| process.view().probes.get(&number).copied());
    let all_here = |_: &Cluster| sent.iter().all(|(number, _)| arrived(*number).count() == readers.len());
    cluster.wait(Instant::now() + PROBE_TIMEOUT, all_here).await;
    let took = |(number, at): &(u32, Instant)| {
        let at = at.into_std();
        arrived(*number).map(move |arrival| arrival.first.saturating_duration_since(at).as_secs_f64() * 1e3)
    };
    let latencies_ms: Vec<f64> = sent.iter().flat_map(took).collect();
    cluster.forget_probes(&sent.iter().map(|(number, _)| *number).collect::<Vec<_>>());
    let missed = sent.len() * readers.len() - latencies_ms.len();
    Ok(Burst { p99_ms: percentile(&latencies_ms, 99.0).unwrap_or(0.0), missed })
}
