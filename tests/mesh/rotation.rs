//! The regression that matters most: what membership that rotates between live processes costs an observer.
//!
//! Twenty stock nodes share a topic with two observers, one stock and one ours, each in a process of its own. Again and
//! again one of the twenty leaves the topic gracefully and rejoins through two others; no process ends, so no idle
//! time-out cleans up after anybody. Stock keeps a connection, two tasks and about 140 KB per event. Ours keeps nothing.
//!
//! **How heap per event is measured.** A fresh node fills its caches once: tables grow to their high-water size, QUIC
//! connections keep transmit buffers, the passive view fills. Dividing that by the events would charge it to the wrong
//! account, so a warm-up of rotations comes first. Then the node settles: its neighbours' connections, no orphans. Heap
//! is read there, and again after the measured rotations in the same state *with the same number of connections*, because
//! one QUIC connection more or less is 100 KB and no leak. Each reading is the least of several looks, so that a frame
//! on its way or a timer's queue entry does not count. Growth by event is the difference over the measured events.
//!
//! What is left is the noise of the connections themselves: five of them, of another age each time, differ by up to
//! ±80 KB in what QUIC keeps for them, far more than 128 B times 100 events. So the rotation goes on until a settled
//! reading is within the bound for all events since the warm-up, five hundred events at most. Noise comes back to where
//! it was; a leak does not, and with every hundred events it has further to come.

use std::time::Duration;

use iroh::EndpointAddr;
use iroh_gossip::proto::TopicId;
use perennial_tests::{
    Child, Stock, Topic, World,
    child::{ChildCensus, Software},
    topic_id,
    wait::{must, within},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::OBSERVER;

const SWARM: usize = 20;
const WARM_UP_EVENTS: usize = 100;
const EVENTS: usize = 100;

/// The measurement is repeated, on top of the events so far, at most this often.
const ROUNDS_MAX: usize = 5;
const SEED: u64 = 7;

/// Between two events. Three times the rate of the recorded baseline, with as long an absence.
const EVENT_INTERVAL: Duration = Duration::from_millis(120);

/// Events that pass before whoever left comes back: long enough for the others to replace him.
const AWAY: usize = 7;
const _: () = assert!(AWAY < SWARM / 2);

/// After a rotation our node parts from whoever is no neighbour within this long.
const SETTLE_TIME: Duration = Duration::from_secs(60);

/// Looks for the wanted number of neighbours end after this many shuffles.
const SHUFFLES_MAX: usize = 12;

/// The most heap one event may cost our node. A prototype reached 182 B with its caches still filling.
const HEAP_BYTES_PER_EVENT_MAX: f64 = 128.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_that_rotates_costs_stock_a_connection_per_event_and_ours_nothing() {
    println!("seed {SEED}");
    let topic_id = topic_id("rotation");
    let mut world = World::alone().await;
    let mut swarm = Swarm::start(&mut world, topic_id).await;
    let bootstrap = swarm.some_addrs(2, usize::MAX);
    let mut stock = Child::spawn(OBSERVER, Software::Stock, None, topic_id, &bootstrap).await;
    let mut ours = Child::spawn(OBSERVER, Software::Perennial, None, topic_id, &bootstrap).await;
    stock.joined().await;
    ours.joined().await;

    swarm.rotate(WARM_UP_EVENTS).await;
    let ours_before = settled(&mut ours, &mut swarm, None).await;
    let stock_before = stock.census().await;
    let events_before = swarm.events;
    let ours_after = loop {
        swarm.rotate(EVENTS).await;
        let census = settled(&mut ours, &mut swarm, Some(ours_before.connections)).await;
        let (grown, events) = (census.heap_bytes - ours_before.heap_bytes, swarm.events - events_before);
        println!("after {events} events {grown:+} B of heap");
        if grown as f64 <= HEAP_BYTES_PER_EVENT_MAX * events as f64 || events >= EVENTS * ROUNDS_MAX {
            break census;
        }
    };
    let stock_after = stock.census().await;
    let events = swarm.events - events_before;

    println!("{events} events");
    let of_stock = report("stock", stock_before, stock_after, events);
    let of_ours = report("ours", ours_before, ours_after, events);
    // Half of what the quietest of several runs showed, so that this says "grows with every event", not how fast.
    assert!(
        of_stock.tasks > 0.5 && of_stock.connections > 0.25 && of_stock.heap_bytes > 25_000.0,
        "stock no longer leaks: {of_stock:?}"
    );
    assert!(of_ours.heap_bytes <= HEAP_BYTES_PER_EVENT_MAX, "our observer grows: {of_ours:?}");

    stock.quit().await;
    ours.quit().await;
    world.finish().await;
}

/// Waits until our observer holds its neighbours' connections and nothing else, as many as `connections` says when it
/// matters, and returns the census with the least heap of several looks in that state. A quiet swarm keeps the views it
/// has: when the number is another one, a few more rotations shuffle them, and count as events.
async fn settled(child: &mut Child, swarm: &mut Swarm, connections: Option<u64>) -> ChildCensus {
    for _ in 0..SHUFFLES_MAX {
        let settling = within(SETTLE_TIME, async || {
            let census = child.census().await;
            must(is_settled(census), || format!("{census:?}"))?;
            Ok(census)
        });
        let census = settling.await.unwrap_or_else(|last| panic!("our observer did not settle: {last}"));
        if connections.is_none_or(|wanted| census.connections == wanted) {
            return least_heap(child, census).await;
        }
        swarm.rotate(3).await;
    }
    panic!("our observer never settled with {connections:?} connections in {SHUFFLES_MAX} shuffles");
}

async fn least_heap(child: &mut Child, first: ChildCensus) -> ChildCensus {
    let mut least = first;
    let mut looks = 0;
    // The search ends by count; running out of time is no failure, the least heap seen so far stands.
    let _ = within(Duration::from_secs(10), async || {
        let census = child.census().await;
        let is_same = is_settled(census) && census.connections == first.connections;
        if is_same && census.heap_bytes < least.heap_bytes {
            least = census;
        }
        looks += 1;
        must(looks >= 60, || "more looks".into())
    })
    .await;
    least
}

fn is_settled(census: ChildCensus) -> bool {
    census.orphans == Some(0) && census.neighbor_connections == Some(census.connections)
}

/// The twenty stock nodes and who of them is joined.
struct Swarm {
    topic_id: TopicId,
    rng: StdRng,
    nodes: Vec<Stock>,
    topics: Vec<Option<Topic>>,
    /// Leaves so far, each followed by a rejoin.
    events: usize,
}

impl Swarm {
    async fn start(world: &mut World, topic_id: TopicId) -> Self {
        let mut swarm =
            Self { topic_id, rng: StdRng::seed_from_u64(SEED), nodes: Vec::new(), topics: Vec::new(), events: 0 };
        for number in 0..SWARM {
            let node = world.stock().await;
            let bootstrap = if number == 0 { Vec::new() } else { swarm.some_addrs(2, number) };
            swarm.topics.push(Some(node.join(topic_id, &bootstrap).await));
            swarm.nodes.push(node);
        }
        for topic in swarm.topics.iter().flatten() {
            topic.joined().await;
        }
        swarm
    }

    /// Lets one after another leave gracefully, and rejoin a few events later through two others: in between, those it
    /// left fill their views without it. Afterwards everybody is joined again.
    async fn rotate(&mut self, events: usize) {
        let mut clock = tokio::time::interval(EVENT_INTERVAL);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for event in 0..events + AWAY {
            clock.tick().await;
            if let Some(back) = event.checked_sub(AWAY) {
                self.rejoin(back % SWARM).await;
            }
            if event < events {
                let topic = self.topics[event % SWARM].take().expect("nobody leaves twice");
                topic.leave().await;
                self.events += 1;
            }
        }
        for topic in self.topics.iter().flatten() {
            topic.joined().await;
        }
    }

    async fn rejoin(&mut self, index: usize) {
        let bootstrap = self.some_addrs(2, index);
        self.topics[index] = Some(self.nodes[index].join(self.topic_id, &bootstrap).await);
    }

    /// The addresses of `count` nodes by chance, never those of `but`.
    fn some_addrs(&mut self, count: usize, but: usize) -> Vec<EndpointAddr> {
        let is_joined = |index: &usize| self.topics[*index].is_some();
        let mut others: Vec<_> = (0..self.nodes.len()).filter(|&index| index != but).filter(is_joined).collect();
        let count = count.min(others.len());
        let chosen = (0..count).map(|_| others.swap_remove(self.rng.random_range(0..others.len())));
        chosen.map(|index| self.nodes[index].addr()).collect()
    }
}

/// Growth over the measured events.
#[derive(Debug)]
struct PerEvent {
    tasks: f64,
    connections: f64,
    heap_bytes: f64,
}

fn report(name: &str, before: ChildCensus, after: ChildCensus, events: usize) -> PerEvent {
    let per_event = |before: i64, after: i64| (after - before) as f64 / events as f64;
    let growth = PerEvent {
        tasks: per_event(before.tasks as i64, after.tasks as i64),
        connections: per_event(before.connections as i64, after.connections as i64),
        heap_bytes: per_event(before.heap_bytes, after.heap_bytes),
    };
    println!("{name:<6}            before      after   per event");
    println!("  connections {:>10} {:>10} {:>11.2}", before.connections, after.connections, growth.connections);
    println!("  tasks       {:>10} {:>10} {:>11.2}", before.tasks, after.tasks, growth.tasks);
    println!("  heap bytes  {:>10} {:>10} {:>11.0}", before.heap_bytes, after.heap_bytes, growth.heap_bytes);
    println!("  neighbors   {:>10} {:>10}", before.neighbors, after.neighbors);
    println!("  orphans     {:>10} {:>10}", orphans(before), orphans(after));
    growth
}

fn orphans(census: ChildCensus) -> String {
    census.orphans.map_or_else(|| "unknown".into(), |orphans| orphans.to_string())
}
