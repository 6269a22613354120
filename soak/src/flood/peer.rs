//! The honest peers of a flood: the prober whom the victim knows, and the newcomer who arrives when it is over. Both are
//! stock iroh-gossip within the harness, whatever the victim is.
//!
//! Why an echo through the victim's own application, and not a third node that listens: peers of one topic find each
//! other through the victim and connect, and from then on a probe would pass it by. With one peer and one victim there
//! is no other way, both directions are measured, and the only thing that differs between the two columns of the table
//! is the victim.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, SecretKey,
    address_lookup::memory::MemoryLookup,
    endpoint::{PortmapperConfig, presets},
    protocol::Router,
};
use iroh_gossip::{
    api::{Event, GossipReceiver, GossipSender},
    net::{GOSSIP_ALPN, Gossip},
    proto::TopicId,
};
use n0_future::StreamExt;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use super::probes::{Probe, echo_number, probe_text};

/// Twenty probes a second.
const PROBE_EVERY: Duration = Duration::from_millis(50);

/// Who has no neighbour asks again this often: stock dials once, and an application would ask again.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A peer closes within this long or is left behind.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A stock peer, bound and not yet on any topic.
#[derive(Debug)]
pub(crate) struct Peer {
    gossip: Gossip,
    lookup: MemoryLookup,
    router: Router,
}

impl Peer {
    pub(crate) async fn bind(key: SecretKey) -> Result<Self> {
        let lookup = MemoryLookup::new();
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(key)
            .portmapper_config(PortmapperConfig::Disabled)
            .address_lookup(lookup.clone())
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")?
            .bind()
            .await
            .context("cannot bind a peer on 127.0.0.1")?;
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let router = Router::builder(endpoint).accept(GOSSIP_ALPN, gossip.clone()).spawn();
        Ok(Self { gossip, lookup, router })
    }

    /// Joins `topic` through `via`, asking again until there is a neighbour. How long it took; `None` if it did not
    /// happen within `patience`.
    pub(crate) async fn join(
        &self,
        topic: TopicId,
        via: &EndpointAddr,
        patience: Duration,
    ) -> Result<(Option<Duration>, GossipSender, GossipReceiver)> {
        self.lookup.add_endpoint_info(via.clone());
        let begun = Instant::now();
        let (sender, mut events) = self.gossip.subscribe(topic, vec![via.id]).await?.split();
        let joined = async {
            let mut ask = interval(ASK_EVERY);
            ask.reset();
            loop {
                tokio::select! {
                    event = events.next() => match event {
                        Some(Ok(Event::NeighborUp(_))) => return true,
                        Some(Ok(Event::NeighborDown(_) | Event::Received(_) | Event::Lagged)) => {}
                        Some(Err(_)) | None => return false,
                    },
                    _ = ask.tick() => { let _ = sender.join_peers(vec![via.id]).await; }
                }
            }
        };
        let took = timeout(patience, joined).await.unwrap_or(false).then(|| begun.elapsed());
        Ok((took, sender, events))
    }

    pub(crate) async fn leave(self) {
        let _ = timeout(CLOSE_TIMEOUT, self.router.shutdown()).await;
    }
}

/// Publishes probes and hears their echoes.
#[derive(Debug)]
pub(crate) struct Prober {
    peer: Peer,
    log: Arc<Mutex<Vec<Probe>>>,
    publishing: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl Prober {
    /// Begins on a topic that `peer` has joined. Times are counted from `epoch`.
    pub(crate) fn begin(
        peer: Peer,
        sender: GossipSender,
        events: GossipReceiver,
        victim: EndpointId,
        epoch: Instant,
    ) -> Self {
        let log = Arc::<Mutex<Vec<Probe>>>::default();
        let (publishing, is_publishing) = watch::channel(true);
        let published = tokio::spawn(publish(sender.clone(), log.clone(), is_publishing, epoch));
        let heard = tokio::spawn(hear(events, sender, log.clone(), victim, epoch));
        Self { peer, log, publishing, tasks: [published, heard] }
    }

    /// Publishes no more, waits `patience` for the last echoes, and tells what became of every probe.
    pub(crate) async fn finish(self, patience: Duration) -> Vec<Probe> {
        let _ = self.publishing.send(false);
        let all_heard = async {
            while lock(&self.log).iter().any(|probe| probe.echoes == 0) {
                tokio::time::sleep(PROBE_EVERY).await;
            }
        };
        let _ = timeout(patience, all_heard).await;
        // A duplicate may come after the first echo.
        tokio::time::sleep(2 * PROBE_EVERY).await;
        for task in &self.tasks {
            task.abort();
        }
        self.peer.leave().await;
        std::mem::take(&mut *lock(&self.log))
    }
}

fn lock(log: &Mutex<Vec<Probe>>) -> std::sync::MutexGuard<'_, Vec<Probe>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn publish(
    sender: GossipSender,
    log: Arc<Mutex<Vec<Probe>>>,
    is_publishing: watch::Receiver<bool>,
    epoch: Instant,
) {
    let mut ticks = interval(PROBE_EVERY);
    // A harness that was held up does not make up for it with a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while *is_publishing.borrow() {
        ticks.tick().await;
        let number = {
            let mut log = lock(&log);
            log.push(Probe { at_s: epoch.elapsed().as_secs_f64(), took_ms: None, echoes: 0 });
            log.len() - 1
        };
        if sender.broadcast(probe_text(number).into()).await.is_err() {
            return;
        }
    }
}

async fn hear(
    mut events: GossipReceiver,
    sender: GossipSender,
    log: Arc<Mutex<Vec<Probe>>>,
    victim: EndpointId,
    epoch: Instant,
) {
    let mut ask = interval(ASK_EVERY);
    let mut is_neighbor = true;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Received(message))) => {
                    on_message(&message.content, &log, epoch);
                }
                Some(Ok(Event::NeighborUp(peer))) => is_neighbor |= peer == victim,
                Some(Ok(Event::NeighborDown(peer))) => is_neighbor &= peer != victim,
                Some(Ok(Event::Lagged)) => {}
                Some(Err(_)) | None => return,
            },
            // A known peer that was thrown out comes back; the probes lost in between stay lost.
            _ = ask.tick(), if !is_neighbor => { let _ = sender.join_peers(vec![victim]).await; }
        }
    }
}

fn on_message(content: &[u8], log: &Mutex<Vec<Probe>>, epoch: Instant) {
    let Some(number) = std::str::from_utf8(content).ok().and_then(echo_number) else { return };
    if let Some(probe) = lock(log).get_mut(number) {
        probe.echoes += 1;
        probe.took_ms.get_or_insert((epoch.elapsed().as_secs_f64() - probe.at_s) * 1e3);
    }
}
