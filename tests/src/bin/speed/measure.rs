//! The measurements themselves: pace a publisher, wait until everybody has heard, read the clocks.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::swarm::{Shape, Subject, Swarm};

/// One number with its name and unit. Less is better, except for a rate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
}

impl Figure {
    pub(crate) fn new(name: &str, unit: &str, value: f64) -> Self {
        Self { name: name.into(), unit: unit.into(), value }
    }
}

/// How a publisher goes about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Messages a second.
    pub(crate) rate: u32,
    pub(crate) bytes: usize,
    pub(crate) time: Duration,
}

impl Pace {
    fn messages(&self) -> u64 {
        (f64::from(self.rate) * self.time.as_secs_f64()) as u64
    }
}

/// Messages published before anything counts: the trees form meanwhile, and tables are made.
const WARM_UP: Duration = Duration::from_secs(2);

/// Nothing more heard for this long, and the rest is lost.
const SILENCE: Duration = Duration::from_secs(2);

/// How soon, and at what cost of processor and memory, everybody hears a publisher with a steady pace.
pub(crate) async fn latency(subject: Subject, shape: Shape, pace: Pace) -> Result<Vec<Figure>> {
    let heap_before = perennial_heap::live().bytes;
    let mut swarm = Swarm::form(subject, shape).await?;
    let heap_formed = perennial_heap::live().bytes;
    publish(&mut swarm, Pace { time: WARM_UP, ..pace }).await?;
    let _warm_up = swarm.take_delays();
    let (heard, cpu) = (swarm.received(), cpu());
    let published = publish(&mut swarm, pace).await?;
    let spent = self::cpu() - cpu;
    let heard = swarm.received() - heard;
    let delays = swarm.take_delays();
    let lost = published.messages * swarm.receivers() as u64 - heard;
    let nodes = (swarm.receivers() + 1) as f64;
    Ok(vec![
        Figure::new("p50", "µs", quantile(&delays, 0.5)?),
        Figure::new("p99", "µs", quantile(&delays, 0.99)?),
        Figure::new("cpu per delivery", "µs", spent.as_secs_f64() * 1e6 / heard.max(1) as f64),
        Figure::new("lost", "deliveries", lost as f64),
        Figure::new("heap per node before", "KB", heap_formed.saturating_sub(heap_before) as f64 / 1e3 / nodes),
        Figure::new("heap per node after", "KB", perennial_heap::live().bytes as f64 / 1e3 / nodes),
    ])
}

/// Each step is so much faster than the one before.
const STEP: f64 = 1.25;

/// Slower than this offered, and the publisher counts as held back.
const HELD_BACK: f64 = 0.9;

/// The highest rate at which nothing is lost and everybody is told everything. Ends with the first step that loses something or at
/// which the publisher is held back; what it reached there counts if nothing was lost.
pub(crate) async fn loss_free(subject: Subject, shape: Shape, bytes: usize, quick: bool) -> Result<Vec<Figure>> {
    let mut swarm = Swarm::form(subject, shape).await?;
    let time = Duration::from_secs(if quick { 1 } else { 3 });
    publish(&mut swarm, Pace { rate: 500, bytes, time: WARM_UP }).await?;
    let (mut rate, mut best, mut cpu_per_delivery, mut p99) = (1000.0, 0.0, 0.0, 0.0);
    let (mut silent, mut lagged) = (0, 0);
    while rate < 1e6 {
        let _before = swarm.take_delays();
        let (heard, lag, told, cpu) = (swarm.received(), swarm.lagged(), swarm.told, cpu());
        let published = publish(&mut swarm, Pace { rate: rate as u32, bytes, time }).await?;
        let spent = self::cpu() - cpu;
        let heard = swarm.received() - heard;
        let lost = (published.messages * swarm.receivers() as u64).saturating_sub(heard);
        let reached = published.messages as f64 / published.took.as_secs_f64();
        if lost > 0 {
            lagged = swarm.lagged() - lag;
            silent = lost.saturating_sub(lagged + (swarm.told - told));
            break;
        }
        if reached > best {
            best = reached;
            cpu_per_delivery = spent.as_secs_f64() * 1e6 / heard.max(1) as f64;
            p99 = quantile(&swarm.take_delays(), 0.99)?;
        }
        if reached < HELD_BACK * rate {
            break;
        }
        rate *= STEP;
    }
    Ok(vec![
        Figure::new("loss-free rate", "messages/s", best),
        Figure::new("cpu per delivery there", "µs", cpu_per_delivery),
        Figure::new("p99 there", "µs", p99),
        Figure::new("lost in the next step, told", "deliveries", lagged as f64),
        Figure::new("lost in the next step, silently", "deliveries", silent as f64),
    ])
}

struct Published {
    messages: u64,
    /// From the first word to the last that anybody heard, or to the last that was said.
    took: Duration,
}

/// Publishes at a pace, as far as the publisher is let, and waits until all is heard or nothing more is.
async fn publish(swarm: &mut Swarm, pace: Pace) -> Result<Published> {
    let (before, messages) = (swarm.received(), pace.messages());
    // Several at a time beyond a thousand a second, which is as fine as a timer goes.
    let batch = (u64::from(pace.rate) / 1000).max(1);
    let mut ticks = interval(Duration::from_secs_f64(batch as f64 / f64::from(pace.rate)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let mut said = 0;
    // A publisher that is held back says less, not for longer.
    while said < messages && begun.elapsed() < pace.time * 2 {
        ticks.tick().await;
        for _ in 0..batch.min(messages - said) {
            swarm.publish(pace.bytes).await?;
            said += 1;
        }
    }
    let mut took = begun.elapsed();
    let all = before + said * swarm.receivers() as u64;
    let (mut heard, mut heard_at) = (swarm.received(), Instant::now());
    while heard < all && heard_at.elapsed() < SILENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = swarm.received();
        if now > heard {
            (heard, heard_at) = (now, Instant::now());
            took = begun.elapsed();
        }
    }
    Ok(Published { messages: said, took })
}

fn quantile(sorted: &[u32], share: f64) -> Result<f64> {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map(|micros| f64::from(*micros)).context("nobody heard anything")
}

/// Processor time of this process.
fn cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

pub(crate) fn clock(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
