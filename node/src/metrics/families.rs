//! The names, helps, units and labels of the metrics. Label sets are closed: never an id, an address or a topic. `[pure]`
//!
//! Zeros are written out, so that a rate sees the first event. Reasons, kinds, limits and maps have the names they have
//! in the JSON of the verbs.

use std::{borrow::Cow, collections::BTreeMap};

use perennial::{
    BackendCensus, BackendKind, BackendState, Bucket, CloseCode, Histogram, Kind, Loop, Measured, Stage, Standing,
    StoreUse, Vitals,
    census::{ConnectionCensus, Side},
};

use super::Snapshot;

/// Every figure of one name. Whoever exports the metrics in another form starts from these.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    /// Without what OpenMetrics appends: the unit, and `_total` or `_info`.
    pub(crate) name: &'static str,
    /// `bytes` or `seconds`.
    pub(crate) unit: Option<&'static str>,
    pub(crate) form: Form,
    pub(crate) help: &'static str,
    pub(crate) rows: Vec<Row>,
}

/// How the figures of a family may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Up only, from 0 at the start.
    Counter,
    /// Up and down.
    Gauge,
    /// Always 1; the labels tell.
    Info,
    /// Counts by size, up only.
    Histogram,
}

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) labels: Vec<Label>,
    pub(crate) value: Value,
}

/// A key and its value.
pub(crate) type Label = (&'static str, Cow<'static, str>);

/// Whole numbers stay whole: a counter of bytes outgrows what a float can count.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Count(u64),
    Difference(i64),
    Real(f64),
    Spread(Vec<Slot>),
}

/// A bucket of a histogram, in the unit of its family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slot {
    /// Infinite in the last one.
    pub(crate) max: f64,
    /// Of this bucket alone.
    pub(crate) count: u64,
    /// Of the values in it.
    pub(crate) sum: f64,
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Count(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Difference(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Real(value)
    }
}

impl From<Vec<Slot>> for Value {
    fn from(value: Vec<Slot>) -> Self {
        Value::Spread(value)
    }
}

/// A row of a family whose rows all have the same keys.
type Labelled<const LABELS: usize, V> = ([Label; LABELS], V);

/// The page while it is made.
#[derive(Debug, Default)]
struct Page {
    families: Vec<Family>,
}

impl Page {
    /// A family without rows is left out.
    fn push<const LABELS: usize, V: Into<Value>>(
        &mut self,
        name: &'static str,
        unit: Option<&'static str>,
        form: Form,
        help: &'static str,
        rows: impl IntoIterator<Item = Labelled<LABELS, V>>,
    ) {
        let row = |(labels, value): Labelled<LABELS, V>| Row { labels: labels.into(), value: value.into() };
        let rows: Vec<Row> = rows.into_iter().map(row).collect();
        if !rows.is_empty() {
            self.families.push(Family { name, unit, form, help, rows });
        }
    }

    fn counters<const LABELS: usize, V: Into<Value>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = Labelled<LABELS, V>>,
    ) {
        self.push(name, None, Form::Counter, help, rows);
    }

    fn gauges<const LABELS: usize, V: Into<Value>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = Labelled<LABELS, V>>,
    ) {
        self.push(name, None, Form::Gauge, help, rows);
    }

    /// `name` without its unit. The library measures durations in microseconds, and sizes in bytes.
    fn histograms<const LABELS: usize>(
        &mut self,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        rows: impl IntoIterator<Item = Labelled<LABELS, Histogram>>,
    ) {
        let scale = if unit == "seconds" { 1e6 } else { 1.0 };
        let slot = |Bucket { max, count, sum }: &Bucket| Slot {
            max: max.map_or(f64::INFINITY, |max| max as f64 / scale),
            count: *count,
            sum: *sum as f64 / scale,
        };
        let slots = |of: Histogram| of.buckets.iter().map(slot).collect::<Vec<_>>();
        let rows = rows.into_iter().map(|(labels, histogram)| (labels, slots(histogram)));
        self.push(name, Some(unit), Form::Histogram, help, rows);
    }

    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counters(name, help, [([], value)]);
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.gauges(name, help, [([], value)]);
    }
}

fn label(key: &'static str, value: impl Into<Cow<'static, str>>) -> [Label; 1] {
    [(key, value.into())]
}

impl Snapshot {
    /// Every family, in the order of the page.
    pub(super) fn families(&self) -> Vec<Family> {
        let mut page = Page::default();
        process(&self.process, &mut page);
        self.program(&mut page);
        self.tasks(&mut page);
        self.connections(&mut page);
        self.door(&mut page);
        self.limits(&mut page);
        self.maps(&mut page);
        self.dials(&mut page);
        self.gossip(&mut page);
        self.measured(&mut page);
        self.backends(&mut page);
        self.clients(&mut page);
        self.telemetry(&mut page);
        page.families
    }

    fn program(&self, page: &mut Page) {
        let version = label("version", env!("CARGO_PKG_VERSION"));
        page.push("perennial_build", None, Form::Info, "The program that runs", [(version, 1u64)]);
        let uptime = [([], self.census.uptime.as_secs_f64())];
        page.push("perennial_uptime", Some("seconds"), Form::Gauge, "Time since the mesh was spawned", uptime);
        let levels = ["calm", "tight", "critical"];
        let is_at = |level: &'static str| (label("level", level), u64::from(level == self.limits.pressure));
        page.gauges(
            "perennial_pressure",
            "How short the process is of memory and descriptors: 1 at one level",
            levels.map(is_at),
        );
        if let Some((bytes, blocks)) = self.heap {
            page.push("perennial_heap", Some("bytes"), Form::Gauge, "Live heap", [([], bytes)]);
            page.gauge("perennial_heap_blocks", "Live allocations", blocks);
        }
    }

    fn tasks(&self, page: &mut Page) {
        let lines = || self.ledger.kinds.iter().map(|line| (label("kind", line.kind.name()), line));
        let spawned = lines().map(|(kind, line)| (kind, line.spawned));
        page.counters("perennial_task_spawned", "Tasks ever started", spawned);
        let finished = lines().map(|(kind, line)| (kind, line.finished));
        page.counters("perennial_task_finished", "Tasks that have ended, however they ended", finished);
        let owned = lines().map(|(kind, line)| (kind, line.owned));
        page.gauges("perennial_task_owned", "Tasks that a supervisor's table says should be alive", owned);
        let orphans = lines().map(|(kind, line)| (kind, line.orphans()));
        page.gauges(
            "perennial_task_orphan",
            "Tasks spawned, not finished and owned by nobody; 0 once settled",
            orphans,
        );
        page.gauge("perennial_runtime_tasks", "Tasks of the runtime, those of libraries included", self.runtime_tasks);
        let crashes: BTreeMap<Loop, u64> = self.census.crashes.iter().copied().collect();
        let crashes = Loop::ALL.map(|one| (label("loop", one.name()), crashes.get(&one).copied().unwrap_or_default()));
        page.counters("perennial_loop_crash", "Supervised loops that ended other than in order", crashes);
        page.counter("perennial_panic", "Panics of this process, those that a supervisor caught included", self.panics);
    }

    fn connections(&self, page: &mut Page) {
        let live = || self.census.peers.iter().flat_map(|peer| &peer.connections);
        page.gauges("perennial_connection_active", "Connections whose handshake has finished", self.active());
        let half_open = self.census.half_open as u64;
        page.gauge("perennial_connection_half_open", "Handshakes and dials that have not finished", half_open);
        let ending = live().filter(|connection| connection.departed.is_some()).count() as u64;
        page.gauge("perennial_connection_ending", "Connections that are to end and still live", ending);
        let opened = self.ledger.kind(Kind::Connection).spawned;
        page.counter(
            "perennial_connection_opened",
            "Connections whose handshake has finished, since the start",
            opened,
        );
        page.counters("perennial_connection_closed", "Connections that have ended, by what ended them", self.closed());
        let late = self.retirements.late;
        page.counter(
            "perennial_connection_closed_late",
            "Connections that took longer to end than the node's timeouts allow",
            late,
        );
        let cut = self.reasons(Stage::Connection);
        page.counters(
            "perennial_connection_cut",
            "Connections this node closed because of what their remotes did or did not",
            cut,
        );
        let peers = [Standing::Known, Standing::Unknown, Standing::Denied].map(|standing| {
            let count = self.standings.iter().filter(|one| **one == standing).count();
            (label("standing", standing_name(standing)), count as u64)
        });
        page.gauges("perennial_peer_supervised", "Remotes with a supervisor", peers);
    }

    fn active(&self) -> Vec<Labelled<2, u64>> {
        let mut rows = Vec::new();
        for side in [Side::Accepted, Side::Dialed] {
            for standing in [Standing::Known, Standing::Unknown, Standing::Denied] {
                let peers = self.census.peers.iter().zip(&self.standings).filter(|(_, one)| **one == standing);
                let is_of_side = |connection: &&ConnectionCensus| connection.side == side;
                let count: usize = peers.map(|(peer, _)| peer.connections.iter().filter(is_of_side).count()).sum();
                let direction = match side {
                    Side::Accepted => "inbound",
                    Side::Dialed => "outbound",
                };
                let labels = [("direction", direction.into()), ("standing", standing_name(standing).into())];
                rows.push((labels, count as u64));
            }
        }
        rows
    }

    /// Every close code and every other cause that can be named beforehand, and those that occurred.
    fn closed(&self) -> Vec<Labelled<1, u64>> {
        let codes = CloseCode::ALL.iter().map(|code| code.name());
        let named = codes.chain(["lost", "panicked", "killed"]).map(|cause| (cause, 0));
        let counted = self.retirements.causes.iter().map(|cause| (cause.cause, cause.retired));
        let all: BTreeMap<&'static str, u64> = named.chain(counted).collect();
        all.into_iter().map(|(cause, count)| (label("reason", cause), count)).collect()
    }

    fn door(&self, page: &mut Page) {
        page.gauge("perennial_handshake_active", "Incoming handshakes under way", self.handshakes);
        let refused = self.reasons(Stage::Door);
        page.counters("perennial_admission_refused", "Incoming attempts refused, ignored, put off or failed", refused);
        let listeners = || self.limits.listeners.iter().enumerate().map(|(at, one)| (self.listener_label(at), one));
        let accepting = listeners().map(|(name, listener)| (name, u64::from(listener.is_accepting)));
        page.gauges("perennial_listener_accepting", "Whether an unknown remote would find a slot", accepting);
        let resumed = listeners().map(|(name, listener)| (name, listener.resumed));
        page.counters("perennial_listener_resumed", "How often a listener went from full to below full", resumed);
        let max = listeners().map(|(name, listener)| (name, listener.connections_max));
        page.gauges("perennial_listener_max", "Connections a listener may hold", max);
        let used = listeners().map(|(name, listener)| (name, listener.in_use));
        page.gauges("perennial_listener_used", "Connections a listener holds, handshakes included", used);
        let high_water = listeners().map(|(name, listener)| (name, listener.high_water));
        page.gauges("perennial_listener_high_water", "The most connections a listener held at one time", high_water);
    }

    /// A listener's place in the configuration: its address must not be in a label. The relays are the last.
    fn listener_label(&self, index: usize) -> [Label; 1] {
        match index + 1 == self.limits.listeners.len() {
            true => label("listener", "relays"),
            false => label("listener", index.to_string()),
        }
    }

    fn limits(&self, page: &mut Page) {
        let limits = || self.limits.uses.iter().map(|limit| (label("limit", limit.name.clone()), limit));
        let max = limits().map(|(name, limit)| (name, limit.max));
        page.gauges("perennial_limit_max", "The limit in force", max);
        let used = limits().map(|(name, limit)| (name, limit.in_use));
        page.gauges("perennial_limit_used", "What is in use of a limit", used);
        let high_water = limits().filter_map(|(name, limit)| Some((name, limit.high_water?)));
        page.gauges("perennial_limit_high_water", "The most that was in use of a limit at one time", high_water);
    }

    /// The maps of all topics together are one row each.
    fn maps(&self, page: &mut Page) {
        let of_topics = self.census.topics.iter().flat_map(|topic| &topic.stores);
        let (mut entries, mut capacity, mut bytes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for StoreUse { name, size, cap, .. } in self.census.stores.iter().chain(of_topics) {
            if let Some(of) = name.strip_suffix("_bytes") {
                *bytes.entry(of).or_default() += size;
                continue;
            }
            *entries.entry(*name).or_default() += size;
            if let Some(cap) = cap {
                *capacity.entry(*name).or_default() += cap;
            }
        }
        let rows = |of: BTreeMap<&'static str, u64>| of.into_iter().map(|(name, size)| (label("map", name), size));
        page.gauges("perennial_map_entries", "What a map, queue or cache holds, over all topics", rows(entries));
        page.gauges("perennial_map_capacity", "The most it may hold, where it has a bound of its own", rows(capacity));
        let help = "What a cache holds in bytes, over all topics";
        page.push("perennial_map", Some("bytes"), Form::Gauge, help, rows(bytes));
    }

    fn dials(&self, page: &mut Page) {
        let attempts = self.ledger.kind(Kind::Dial).spawned;
        page.counter("perennial_dial_attempts", "Outgoing attempts made", attempts);
        let failed = self.reasons(Stage::Dial);
        page.counters("perennial_dial_failed", "Outgoing attempts that failed or were not made", failed);
        page.gauge("perennial_backoff_peers", "Remotes in the table of redials", self.census.redials.entries as u64);
        let outage = u64::from(self.census.redials.outage);
        page.gauge("perennial_network_outage", "Whether this node's own network is taken to be out", outage);
    }

    fn gossip(&self, page: &mut Page) {
        let (topics, traffic) = (&self.census.topics, self.census.traffic);
        page.gauge("perennial_topic_joined", "Topics joined", topics.len() as u64);
        let isolated = topics.iter().filter(|topic| topic.neighbors.is_empty()).count() as u64;
        page.gauge("perennial_topic_isolated", "Topics joined that have no neighbor", isolated);
        page.gauge("perennial_neighbor_active", "Neighbors over all topics, each once", self.census.neighbors() as u64);
        page.counter("perennial_gossip_published", "Messages this node published", traffic.published);
        page.counter("perennial_gossip_delivered", "Messages of others that this node was given", traffic.delivered);
        page.counter(
            "perennial_gossip_sent",
            "Copies of messages, own and forwarded, queued for a neighbor",
            traffic.sent,
        );
        let dropped = self.reasons(Stage::Frame);
        page.counters("perennial_gossip_dropped", "Frames, or parts of them, that were not taken or not sent", dropped);
        let connections = self.census.peers.iter().flat_map(|peer| &peer.connections);
        let outbox: usize = connections.map(|connection| connection.queued_frames).sum();
        let inbox: usize = topics.iter().map(|topic| topic.queued_frames).sum();
        let queues = [("outbox", outbox), ("inbox", inbox)];
        let queues = queues.map(|(queue, frames)| (label("queue", queue), frames as u64));
        page.gauges("perennial_gossip_queue_frames", "Frames waiting: to be written, or for their topic", queues);
    }

    fn measured(&self, page: &mut Page) {
        let Measured { dials, handshakes, lifetimes, published, delivered } = self.measured.clone();
        let by_outcome = |of: Vec<(&'static str, Histogram)>| {
            of.into_iter().map(|(outcome, histogram)| (label("outcome", outcome), histogram))
        };
        let help = "How long outgoing attempts took, by how they ended";
        page.histograms("perennial_dial_duration", "seconds", help, by_outcome(dials));
        let help = "How long incoming handshakes took, by how they ended";
        page.histograms("perennial_handshake_duration", "seconds", help, by_outcome(handshakes));
        let help = "How long connections lived that have ended";
        page.histograms("perennial_connection_duration", "seconds", help, [([], lifetimes)]);
        let sizes = [("published", published), ("delivered", delivered)];
        let sizes = sizes.map(|(direction, sizes)| (label("direction", direction), sizes));
        let help = "The content of messages, published here and of others";
        page.histograms("perennial_gossip_message", "bytes", help, sizes);
    }

    /// Of each kind how many are in which state: names have addresses in them.
    fn backends(&self, page: &mut Page) {
        let mut states = Vec::new();
        for kind in BackendKind::ALL {
            for state in BackendState::ALL {
                let is_it = |one: &&BackendCensus| one.backend.kind() == kind && one.state == state;
                let labels = [("kind", kind.name().into()), ("state", state.name().into())];
                states.push((labels, self.backends.iter().filter(is_it).count() as u64));
            }
        }
        page.gauges("perennial_backend_state", "Backends of a kind that are in a state", states);
        let saved = self.attempts_saved.map(|(kind, saved)| (label("kind", kind.name()), saved));
        page.counters(
            "perennial_backend_attempts_saved",
            "Attempts not made because their backend was degraded",
            saved,
        );
    }

    fn clients(&self, page: &mut Page) {
        let doors = || self.clients.iter().map(|(door, max, counts)| (label("door", *door), *max as u64, counts));
        let max = doors().map(|(door, max, _)| (door, max));
        page.gauges("perennial_client_max", "Clients of the control API that a door lets in at one time", max);
        let used = doors().map(|(door, _, counts)| (door, counts.in_use as u64));
        page.gauges("perennial_client_used", "Clients of the control API, those that listen included", used);
        let high_water = doors().map(|(door, _, counts)| (door, counts.high_water as u64));
        page.gauges("perennial_client_high_water", "The most clients a door had at one time", high_water);
        let accepted = doors().map(|(door, _, counts)| (door, counts.accepted));
        page.counters("perennial_client_accepted", "Clients since the start", accepted);
    }

    fn telemetry(&self, page: &mut Page) {
        let suppressed = self.telemetry.lines.suppressed();
        page.counter(
            "perennial_log_suppressed",
            "Log lines not shown because their place had said too much",
            suppressed,
        );
        let spans = self.telemetry.spans.read();
        let spans = [
            ("exported", spans.exported),
            ("dropped", spans.dropped),
            ("failed", spans.failed),
            ("skipped", spans.skipped),
        ];
        let spans = spans.map(|(outcome, count)| (label("outcome", outcome), count));
        page.counters(
            "perennial_telemetry_span",
            "Spans for a collector: taken, without room, not taken, or not sent while it was degraded",
            spans,
        );
        let pushes = self.telemetry.spans.pushes();
        let pushes = [("exported", pushes.exported), ("failed", pushes.failed), ("skipped", pushes.skipped)];
        let pushes = pushes.map(|(outcome, count)| (label("outcome", outcome), count));
        page.counters(
            "perennial_telemetry_push",
            "Pushes of the metrics to a collector: taken, not taken, or not sent while it was degraded",
            pushes,
        );
    }

    fn reasons(&self, stage: Stage) -> impl Iterator<Item = Labelled<1, u64>> + '_ {
        let of_stage = self.census.counts.iter().filter(move |(reason, _)| reason.stage() == stage);
        of_stage.map(|(reason, count)| (label("reason", reason.name()), count))
    }
}

fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Known => "known",
        Standing::Unknown => "unknown",
        Standing::Denied => "denied",
    }
}

/// What this process uses, under the names that all exporters give these figures. What the system does not tell is left
/// out, never zero.
fn process(vitals: &Vitals, page: &mut Page) {
    let Vitals { rss_bytes, open_fds, fds_max, threads, cpu, .. } = *vitals;
    let rss = rss_bytes.map(|bytes| ([], bytes));
    page.push("process_resident_memory", Some("bytes"), Form::Gauge, "Resident memory", rss);
    page.gauges("process_open_fds", "Open descriptors", open_fds.map(|open| ([], open)));
    page.gauges("process_max_fds", "Descriptors this process may open", fds_max.map(|max| ([], max)));
    page.gauges("process_threads", "Threads", threads.map(|threads| ([], threads)));
    let cpu = cpu.map(|cpu| ([], cpu.as_secs_f64()));
    page.push("process_cpu", Some("seconds"), Form::Counter, "Processor time used, in user and kernel mode", cpu);
}
