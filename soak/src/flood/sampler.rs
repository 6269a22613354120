//! Looks at a victim twenty times a second: its own `status` over the control socket, and what the kernel says of it.
//!
//! One connection is kept, so that looking changes no descriptor count. A figure that is not told is `None`, never zero.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use perennial_soak::proc_figures;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    samples::{Cap, Look, Sample},
    victim::Victim,
};
use crate::socket::Line;

/// Twice the rate asked for, because looks are late on a flooded machine.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The ledger and the limits are asked for at every so many looks.
const LEDGER_EVERY: usize = 10;

/// A victim that does not answer within this long has not answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Watches one victim until dropped.
#[derive(Debug)]
pub(crate) struct Sampler {
    log: Arc<Mutex<Watched>>,
    task: JoinHandle<()>,
}

/// What was seen so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Watched {
    pub samples: Vec<Sample>,
    /// Every cap the victim lists, as of the last answer.
    pub caps: Vec<Cap>,
    /// What the victim says it refused, dropped and closed since its start, by reason.
    pub counts: BTreeMap<String, u64>,
    /// Looks that failed, and why.
    pub gaps: Vec<String>,
}

impl Sampler {
    /// Begins to look. Times are counted from `epoch`.
    pub(crate) async fn begin(victim: &Victim, epoch: Instant) -> Result<Self> {
        let line = Line::open(&victim.control).await;
        let reach = |error| anyhow::anyhow!("cannot reach the victim at {}: {error}", victim.control.display());
        let line = line.map_err(reach)?;
        let log = Arc::<Mutex<Watched>>::default();
        let task = tokio::spawn(watch(line, (victim.pid, victim.addr), log.clone(), epoch));
        Ok(Self { log, task })
    }

    /// What was seen so far. Never held across an await.
    pub(crate) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(mut line: Line, (pid, addr): (u32, SocketAddr), log: Arc<Mutex<Watched>>, epoch: Instant) {
    let lock = || log.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut own_tasks, mut has_ledger, mut has_limits) = (None, true, true);
    for number in 0_usize.. {
        ticks.tick().await;
        if number.is_multiple_of(LEDGER_EVERY) {
            own_tasks = if has_ledger { count_own_tasks(&mut line).await } else { None };
            has_ledger = own_tasks.is_some();
            if has_limits {
                match ask(&mut line, "limits").await {
                    Ok(limits) => lock().caps = super::samples::caps(&limits),
                    Err(_) => has_limits = false,
                }
            }
        }
        let at_s = epoch.elapsed().as_secs_f64();
        let asked = Instant::now();
        let status = match ask(&mut line, "status").await {
            Ok(status) => Some(status),
            Err(error) => {
                let mut log = lock();
                log.gaps.push(format!("{at_s:.1} s: {error:#}"));
                if log.gaps.len() > 20 {
                    return;
                }
                None
            }
        };
        let answered_ms = asked.elapsed().as_secs_f64() * 1e3;
        let look = look(pid, addr);
        let mut log = lock();
        if let Some(counts) = status.as_ref().map(super::samples::counts) {
            log.counts = counts;
        }
        log.samples.push(Sample { at_s, answered_ms, own_tasks, ..super::samples::sample(status.as_ref(), look) });
    }
}

fn look(pid: u32, addr: SocketAddr) -> Look {
    let resident = proc_figures::resident(pid);
    Look {
        rss_bytes: resident.map(|(now, _)| now),
        rss_peak_bytes: resident.map(|(_, peak)| peak),
        fds: proc_figures::open_fds(pid),
        threads: proc_figures::threads(pid),
        cpu_ms: proc_figures::cpu_time(pid).map(|time| time.as_secs_f64() * 1e3),
        dropped_datagrams: match addr {
            SocketAddr::V4(addr) => proc_figures::udp_drops(addr),
            SocketAddr::V6(_) => None,
        },
    }
}

async fn ask(line: &mut Line, request: &str) -> Result<Value> {
    line.ask(json!({"request": request}), ANSWER_TIMEOUT).await.map_err(anyhow::Error::msg)
}

/// Tasks of the victim's own, by its ledger; what the runtime has beyond them is QUIC's.
async fn count_own_tasks(line: &mut Line) -> Option<i64> {
    let ledger = ask(line, "ledger").await.ok()?;
    let alive = |kind: &Value| Some(kind["spawned"].as_i64()? - kind["finished"].as_i64()?);
    ledger["kinds"].as_array()?.iter().map(alive).sum()
}
