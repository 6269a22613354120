//! P13: one node publishes as fast as it is let, 100,000 small messages; what the mesh holds at the worst moment, and what
//! does not arrive.

use std::time::{Duration, Instant};

use super::quiet::sum;
use crate::{
    cluster::{Cluster, Fault},
    compare::{
        row::{Goal, Kind, Reading, Row, Unit},
        world::{Figures, World, alive, publish},
    },
    plan::OBSERVER,
    view::probe_text,
};

pub(crate) const ROWS: [Row; 2] = [
    Row {
        id: "P13",
        title: "peak heap of 10 nodes under a burst",
        unit: Unit::Bytes,
        kind: Kind::Size,
        goals: &[Goal::Ratio(0.3)],
        source: "limit window × bytes; stock 0.101 +466 to 490 MB",
    },
    Row {
        id: "P13-lost",
        title: "deliveries of the burst that never came",
        unit: Unit::Percent,
        kind: Kind::Time,
        goals: &[],
        source: "told beside P13, because what is not delivered is not held either",
    },
];

pub(crate) const QUICK: &str = "2,000 messages through 4 nodes instead of 100,000 through 10";

/// Bytes of a message.
const MESSAGE_BYTES: usize = 64;

/// Lines handed over at a time.
const BATCH: u32 = 500;

/// The whole burst is taken within this long, or the publisher is stuck.
const PUBLISH_LIMIT: Duration = Duration::from_secs(180);

/// Nothing new for this long, and the burst is over.
const SILENCE: Duration = Duration::from_secs(3);

/// Looks at the heap are this far apart.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) async fn measure(world: &World<'_>) -> Result<Figures, Fault> {
    let (nodes, messages) = world.pick((10, 100_000), (4, 2_000));
    let cluster = world.mesh("mesh", nodes).await?;
    tokio::time::sleep(world.seconds(10, 1)).await;
    let before = sum(&cluster, "heap_bytes").await;
    let mut peak = before.clone();
    let begun = Instant::now();
    let mut next = 1;
    while next <= messages {
        if begun.elapsed() > PUBLISH_LIMIT {
            return Err(format!("it took {} of {messages} messages within {} s", next - 1, PUBLISH_LIMIT.as_secs()));
        }
        let last = messages.min(next + BATCH - 1);
        let batch: Vec<String> = (next..=last).map(|number| message(number, &world.run())).collect();
        let lines = batch.join("\n");
        let publish = tokio::time::timeout(PUBLISH_LIMIT, publish(&cluster, OBSERVER, &lines));
        publish.await.map_err(|_| "the publisher takes no more input".to_owned())??;
        next = last + 1;
        peak = higher(peak, &cluster).await;
    }
    let mut heard = (0, Instant::now());
    while heard.1.elapsed() < SILENCE && heard.0 < expected(nodes, messages) {
        tokio::time::sleep(LOOK_INTERVAL).await;
        peak = higher(peak, &cluster).await;
        let count = delivered(&cluster);
        if count > heard.0 {
            heard = (count, Instant::now());
        }
    }
    alive(&cluster)?;
    let lost = 1.0 - heard.0 as f64 / expected(nodes, messages) as f64;
    let mut figures = Figures::default();
    figures.add("P13", peak.and_then(|peak| Ok(Reading::Is(peak - before?))));
    figures.is("P13-lost", lost * 100.0);
    Ok(figures)
}

fn expected(nodes: usize, messages: u32) -> usize {
    (nodes - 1) * messages as usize
}

fn delivered(cluster: &Cluster) -> usize {
    let others = cluster.live().into_iter().filter(|(node, _)| *node != OBSERVER);
    others.map(|(_, process)| process.view().probes.len()).sum()
}

async fn higher(peak: Result<f64, Fault>, cluster: &Cluster) -> Result<f64, Fault> {
    Ok(peak?.max(sum(cluster, "heap_bytes").await?))
}

/// A probe, filled up with zeros in front of its number to the size of the burst's messages.
fn message(number: u32, run: &str) -> String {
    let rest = MESSAGE_BYTES.saturating_sub(probe_text(0, run).len() - 1);
    format!("probe {number:0>rest$} of {run}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::View;

    #[test]
    fn a_message_has_its_size_and_is_known_again() {
        let text = message(99_999, "seed 7");
        assert_eq!(text.len(), MESSAGE_BYTES);
        let mut view = View::default();
        view.on_line(&format!(r#"{{"event":"message","text":"{text}"}}"#), "seed 7", std::time::Instant::now());
        assert!(view.probes.contains_key(&99_999));
    }
}
