//! Messages pour in while one application does not read what its node hands it, and one node reads nothing at all: the others
//! must not feel it, and what is lost is told.

use std::time::Duration;

use tokio::time::Instant;

use super::Done;
use crate::{
    cluster::{Cluster, Fault},
    flood::probes::percentile,
    plan::OBSERVER,
};

/// A burst is published at this pace: 1 KiB each.
const MESSAGES_PER_S: f64 = 500.0;

/// Probes cross the mesh this often during a burst.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

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
    let observer = cluster.process(OBSERVER)?;
    let pour = async {
        let begun = Instant::now();
        for number in 0..messages {
            tokio::time::sleep_until(begun + Duration::from_secs_f64(number as f64 / MESSAGES_PER_S)).await;
            // Padded to 1 KiB, and different, or it would be dropped as a duplicate.
            let text = format!("burst {:?} {number:0>1000}", begun);
            observer.publish(&text).await.map_err(|error| format!("node {OBSERVER} takes no input: {error:#}"))?;
        }
        Ok::<(), Fault>(())
    };
    let (mut latencies_ms, mut missed) = (Vec::new(), 0);
    let probes = async {
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            let probe = cluster.publish_probe_to(OBSERVER, |node| !slow.contains(&node)).await?;
            missed += probe.missed.len();
            latencies_ms.extend(probe.latencies_ms);
        }
        #[expect(unreachable_code, reason = "says what an endless loop comes to")]
        Ok::<(), Fault>(())
    };
    tokio::select! {
        outcome = pour => outcome?,
        outcome = probes => outcome?,
    }
    latencies_ms.sort_by(f64::total_cmp);
    Ok(Burst { p99_ms: percentile(&latencies_ms, 99.0).unwrap_or(0.0), missed })
}
