//! Runs that never happened: a healthy one, and what each planted fault makes of it. `[pure]`

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};

use crate::run_format::{
    Barrier, Deadlines, Edges, Event, Fact, Happened, Harness, Kind, Look, Record, Retired, RunInfo, SCHEMA, Store,
    Thresholds,
};

const WARM_UP: u32 = 4;
const EPOCHS: u32 = 12;
/// Of them four are deep, and twelve are left for the slope.
const DEEP_EPOCHS: u32 = 16;
const DEEP_EVERY: u32 = 4;
pub(super) const EVENTS: u32 = 50;
const NODES: u32 = 4;
const VIEW_MAX: u64 = 5;
const LOOKS_PER_EPOCH: u32 = 10;

/// Noise of a drained barrier. The figure of the calibration.
const NOISE_BYTES: f64 = 32.0 * 1024.0;

/// A run with the fault or shape `name`.
pub(super) fn record(name: &str) -> Record {
    record_of_seed(name, 7)
}

/// As [`record`], with noise of another seed.
pub(super) fn record_of_seed(name: &str, seed: u64) -> Record {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut record = empty(name, "made up");
    let mut events = vec![injected()];
    let mut looks = Vec::new();
    for epoch in 1..=WARM_UP + record.info.epochs {
        for node in 0..NODES {
            let mut row = healthy(epoch, node);
            let noise: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0;
            row.heap_bytes = row.heap_bytes.map(|bytes| (bytes as f64 + noise * NOISE_BYTES) as u64);
            row.heap_blocks = row.heap_blocks.map(|blocks| (blocks as f64 + noise * 20.0) as u64);
            if node == 0 {
                shape(name, epoch, &mut row);
                looks.extend((1..=LOOKS_PER_EPOCH).map(|turn| look(name, &row, turn)));
            }
            record.barriers.push(row);
        }
    }
    match name {
        "killed-by-machine" => events.push(exited(true, "signal 9, oom_kill 1")),
        "exit-by-itself" => events.push(exited(false, "code 101")),
        _ => {}
    }
    record.events = Some(events);
    record.looks = Some(looks);
    record
}

/// The header of a selftest run, and nothing else.
pub(super) fn empty(name: &str, subject: &str) -> Record {
    let thresholds = Thresholds::default();
    let deadlines = Deadlines { barrier_ms: 20_000, retire_ms: 20_000, because: "a selftest".into() };
    let fact = Fact { name: "events touched the observer".into(), minimum: 100, reached: Some(300) };
    let harness = Harness {
        look_interval_ms: 1000,
        look_gap_max_ms: 1200,
        cpu_share: 0.03,
        rss_first_bytes: Some(20 << 20),
        rss_last_bytes: Some(20 << 20),
    };
    let info = RunInfo {
        schema: SCHEMA,
        scenario: name.to_owned(),
        seed: 7,
        subject: subject.to_owned(),
        level: 2,
        argv: vec!["selftest".into()],
        nodes: NODES,
        observer: 0,
        foreign: Vec::new(),
        warm_up_epochs: WARM_UP,
        epochs: if has_deep_barriers(name) { DEEP_EPOCHS } else { EPOCHS },
        events_per_epoch: EVENTS,
        thresholds,
        deadlines,
        allow: BTreeMap::new(),
        facts: vec![fact],
        limits: Vec::new(),
        harness: Some(harness),
        harness_error: None,
        machine: BTreeMap::new(),
    };
    Record { info, plan: Vec::new(), events: None, looks: None, barriers: Vec::new() }
}

fn healthy(epoch: u32, node: u32) -> Barrier {
    let events = u64::from(epoch * EVENTS);
    let connections = 3;
    let connection =
        Kind { spawned: events + connections, finished: events, owned: Some(connections), orphans: Some(0) };
    let store = Store { size: Some(connections), cap: Some(128), high_water: Some(9) };
    let view = Store { size: Some(connections), cap: Some(VIEW_MAX), high_water: Some(connections) };
    Barrier {
        epoch,
        node,
        events,
        at_ms: u64::from(epoch) * 20_000,
        waited_ms: Some(9_000),
        drained: Some(true),
        deep: None,
        id: Some(id(node)),
        lingering: None,
        connections: Some(connections),
        half_open: Some(0),
        neighbors: Some(connections),
        peers: Some(connections),
        foreign_doubles: Some(0),
        unleased: Some(0),
        tasks: Some(25 + 3 * connections),
        heap_bytes: Some(4_200_000 + connections * (116 << 10)),
        heap_blocks: Some(2_300),
        rss_bytes: Some(18 << 20),
        anon_bytes: Some(12 << 20),
        trimmed: Some(true),
        fds: Some(14),
        threads: Some(3),
        missed: (node == 0).then_some(0),
        duplicates: (node == 0).then_some(0),
        deliveries: (node == 0).then_some(1_000),
        storm_pairs: (node == 0).then_some(330),
        // Whoever is away at the moment hears nothing.
        storm_unheard: (node == 0).then_some(40),
        storm_untouched: (node == 0).then_some(120),
        storm_missed: (node == 0).then_some(0),
        storm_twice: (node == 0).then_some(0),
        latency_p50_ms: Some(1.0),
        latency_p99_ms: Some(2.0),
        latency_max_ms: Some(4.0),
        retired: Some(events),
        retired_late: Some(0),
        retire_max_ms: Some(400.0),
        retire_p50_ms: Some(40.0),
        retire_p99_ms: Some(320.0),
        components: (node == 0).then_some(1),
        one_sided_edges: Some(0),
        edges: Some(Edges((0..NODES).filter(|other| *other != node).map(id).collect())),
        panics: Some(0),
        restarts: Some(0),
        log_lines: Some(events),
        error_lines: Some(0),
        kinds: BTreeMap::from([("connection".to_owned(), connection)]),
        stores: BTreeMap::from([("connections".to_owned(), store), ("neighbors".to_owned(), view)]),
        retirements: BTreeMap::from([("retired".to_owned(), Retired { count: events, late: 0, max_ms: 400 })]),
        buckets: BTreeMap::from([("otel".to_owned(), 120)]),
    }
}

fn id(node: u32) -> String {
    format!("node{node}")
}

/// What the fault or shape does to the observer's barrier.
fn shape(name: &str, epoch: u32, row: &mut Barrier) {
    let events = row.events;
    let judged = epoch.saturating_sub(WARM_UP);
    let more = |figure: &mut Option<u64>, by: u64| *figure = figure.map(|figure| figure + by);
    match name {
        "leak-task" => more(&mut row.tasks, events),
        "leak-connection" => leak_connections(row, events / 20),
        "leak-heap" => more(&mut row.heap_bytes, 700 * events),
        "leak-fd" => more(&mut row.fds, events / 50),
        "exceed-cap" if judged == 5 => high_water(row, 129),
        "deliver-twice" if judged == 10 => row.duplicates = Some(1),
        "lose" if judged == 10 => row.missed = Some(1),
        "lose-in-storm" if judged == 10 => row.storm_missed = Some(1),
        "deliver-twice-in-storm" if judged == 10 => row.storm_twice = Some(1),
        "retire-late" if judged >= 3 => retire_late(row),
        "grow-blocks" => more(&mut row.heap_blocks, 300 * u64::from(epoch)),
        "one-sided" if judged >= 5 => forget_first(row),
        "one-sided-at-one-barrier" if judged == 5 => forget_first(row),
        "crowded-view" if judged == 5 => {
            row.edges = Some(Edges((0..=VIEW_MAX as u32).map(|node| id(node + 1)).collect()));
        }
        "leak-behind-young" => behind_young(row, events / 20),
        "young-at-most-barriers" => behind_young(row, 0),
        "panic" if judged >= 3 => row.panics = Some(1),
        "restart" if judged >= 3 => row.restarts = Some(1),
        "stop-metric" if judged > 6 => row.heap_bytes = None,
        "reset-counters" if judged > 6 => {
            row.kinds.values_mut().for_each(|kind| (kind.spawned, kind.finished) = (8, 5))
        }
        "grow-bucket" => drop(row.buckets.insert("otel".into(), 120 + u64::from(epoch) * 7)),
        "ramp-to-14MB" => more(&mut row.heap_bytes, 2_500_000 * u64::from(epoch.min(WARM_UP))),
        "settle-by-logarithm" => more(&mut row.heap_bytes, (102_400.0 * f64::from(epoch).ln()) as u64),
        "late-step-1MB" if judged == EPOCHS => more(&mut row.heap_bytes, 1 << 20),
        _ => {}
    }
}

fn has_deep_barriers(name: &str) -> bool {
    matches!(name, "leak-behind-young" | "young-at-most-barriers")
}

/// A store holds some hundred entries for minutes, more or fewer of them, and `kept` of them for good: a few bytes an event,
/// which no heap shows, and which a look at the store shows only once the young are gone.
fn behind_young(row: &mut Barrier, kept: u64) {
    let is_deep = row.epoch.is_multiple_of(DEEP_EVERY);
    let young = if is_deep { 3 } else { 300 + 50 * (u64::from(row.epoch) * 37 % 11) };
    row.deep = is_deep.then_some(true);
    row.heap_bytes = row.heap_bytes.map(|bytes| bytes + 100 * (kept + young));
    row.stores.insert("contacts".into(), Store { size: Some(kept + young), cap: None, high_water: None });
}

fn retire_late(row: &mut Barrier) {
    (row.retired_late, row.retire_max_ms) = (Some(1), Some(31_000.0));
    let retired = Retired { count: row.events, late: 1, max_ms: 31_000 };
    row.retirements.insert("retired".into(), retired);
}

/// The observer is not aware of a neighbour that counts on it.
fn forget_first(row: &mut Barrier) {
    if let Some(Edges(edges)) = &mut row.edges {
        edges.pop_first();
    }
}

/// Connections that stay with their tasks and heap while their peers are gone, as stock has them.
fn leak_connections(row: &mut Barrier, leaked: u64) {
    for figure in [&mut row.connections, &mut row.tasks, &mut row.heap_bytes].into_iter().zip([1, 3, 116 << 10]) {
        *figure.0 = figure.0.map(|before| before + figure.1 * leaked);
    }
    for kind in row.kinds.values_mut() {
        kind.finished -= leaked;
        kind.owned = kind.owned.map(|owned| owned + leaked);
    }
    high_water(row, 9 + leaked);
}

fn high_water(row: &mut Barrier, most: u64) {
    if let Some(store) = row.stores.get_mut("connections") {
        store.high_water = Some(most);
    }
}

/// One look of the storm before a barrier. Between barriers a heap may do what it likes below its peak.
fn look(name: &str, row: &Barrier, turn: u32) -> Look {
    let swing = match name {
        "saw-tooth-3MB" => 300_000 * u64::from(turn % LOOKS_PER_EPOCH),
        // Gone before the next barrier, so that only a look can show it.
        "spike" if turn == 5 && row.epoch == WARM_UP + 6 => 60 << 20,
        _ => 0,
    };
    Look {
        at_ms: row.at_ms - 20_000 + u64::from(turn) * 1_000,
        epoch: row.epoch,
        node: row.node,
        events: row.events - u64::from(EVENTS) + u64::from(turn * EVENTS / LOOKS_PER_EPOCH),
        connections: row.connections,
        tasks: row.tasks,
        heap_bytes: row.heap_bytes.map(|bytes| bytes + swing),
        rss_bytes: row.rss_bytes,
        fds: row.fds,
        threads: row.threads,
        connection: row.kinds.get("connection").copied(),
    }
}

fn injected() -> Event {
    let happened = Happened::Injected { action: "rotate".into(), took_ms: 300, touching: true };
    Event { at_ms: 500, epoch: 1, node: 1, happened }
}

fn exited(killed_by_machine: bool, how: &str) -> Event {
    let happened = Happened::Exited { commanded: false, killed_by_machine, how: how.into() };
    Event { at_ms: 250_000, epoch: 12, node: 2, happened }
}
