//! The node's figures for Prometheus: one look per scrape, written as OpenMetrics or as the older text format.
//!
//! Nothing is counted here. Every value is read from the census, the ledger, the limits and `/proc/self` at the moment it
//! is asked for, so the metrics cannot drift from what `status`, `ledger` and `limits` tell. Names and labels are in
//! `metrics/families.rs`.

use std::fmt;

use perennial::{
    BackendCensus, BackendKind, Census, Kind, LedgerReport, LimitsReport, Measured, Mesh, MeshGone, RetirementReport,
    Standing, Vitals,
};
use prometheus_client::{
    collector::Collector,
    encoding::{
        CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, GaugeValueEncoder, MetricEncoder,
        NoLabelSet, prometheus_text, text,
    },
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::{
    exit::{Exit, Failure},
    listener::{Counts, Gauge},
    node::Node,
    panics,
    tasks::Tasks,
    telemetry::Figures,
};

pub(crate) mod families;

use families::{Family, Form, Row, Value};

/// In which form the figures are written. They are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// OpenMetrics 1.0, for whoever asks for it: it knows units.
    OpenMetrics,
    /// Prometheus text 0.0.4, for everybody else: what a person reads and every scraper takes.
    Prometheus,
}

impl Format {
    /// What an `Accept` header asks for. Weights are not looked at: a scraper that names OpenMetrics can read it.
    pub(crate) fn accepted(header: &str) -> Format {
        if header.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Prometheus }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// Every figure of this node at this moment, in text.
///
/// # Errors
///
/// The node is shutting down.
pub(crate) async fn render(node: &Node, format: Format) -> Result<String, Failure> {
    Ok(write(families(node).await?, format))
}

/// The same as values, for exports of another form.
///
/// # Errors
///
/// The node is shutting down.
pub(crate) async fn families(node: &Node) -> Result<Vec<Family>, Failure> {
    let snapshot = Snapshot::take(&node.mesh, &node.tasks, node.clients.iter(), &node.telemetry).await;
    let snapshot = snapshot.map_err(|MeshGone| Failure::new(Exit::Unavailable, "the node is shutting down"))?;
    Ok(snapshot.families())
}

/// All that one scrape tells, read once.
#[derive(Debug)]
struct Snapshot {
    census: Census,
    limits: LimitsReport,
    ledger: LedgerReport,
    retirements: RetirementReport,
    /// Of the remotes of the census, in its order.
    standings: Vec<Standing>,
    panics: u64,
    /// Tasks of the runtime, iroh's own included.
    runtime_tasks: u64,
    /// Of the control API's doors: the name, the clients there may be, and what was counted.
    clients: Vec<(&'static str, usize, Counts)>,
    /// Handshakes under way.
    handshakes: u64,
    /// Live heap and the allocations it is in, where the allocator tells.
    heap: Option<(u64, u64)>,
    process: Vitals,
    telemetry: Figures,
    measured: Measured,
    backends: Vec<BackendCensus>,
    attempts_saved: [(BackendKind, u64); BackendKind::ALL.len()],
}

impl Snapshot {
    async fn take<'a>(
        mesh: &Mesh,
        tasks: &Tasks,
        clients: impl Iterator<Item = (&'static str, &'a Gauge)>,
        telemetry: &Figures,
    ) -> Result<Self, MeshGone> {
        let census = mesh.census().await?;
        let vitals = crate::vitals::look();
        Ok(Self {
            limits: mesh.limits().await?,
            ledger: tasks.add_to(census.ledger.clone()),
            retirements: mesh.retirements(),
            standings: census.peers.iter().map(|peer| mesh.standing(&peer.id)).collect(),
            panics: panics::count(),
            runtime_tasks: vitals.alive_tasks,
            clients: clients.map(|(door, gauge)| (door, gauge.max(), gauge.read())).collect(),
            handshakes: mesh.ledger_counters().alive(Kind::Handshake),
            heap: vitals.heap_bytes.zip(vitals.heap_blocks),
            process: Vitals::read(),
            telemetry: telemetry.clone(),
            measured: mesh.measured(),
            backends: mesh.backends(),
            attempts_saved: mesh.attempts_saved(),
            census,
        })
    }
}

fn write(families: Vec<Family>, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(families)));
    let mut page = String::new();
    let written = match format {
        Format::OpenMetrics => text::encode(&mut page, &registry),
        Format::Prometheus => prometheus_text::encode(&mut page, &registry),
    };
    written.expect("a string takes all that is written to it");
    page
}

/// The families as the encoder takes them.
#[derive(Debug)]
struct Page(Vec<Family>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, unit, form, help, rows } in &self.0 {
            let unit = unit.map(|unit| Unit::Other(unit.into()));
            let kind = match form {
                Form::Counter => MetricType::Counter,
                Form::Gauge => MetricType::Gauge,
                Form::Info => MetricType::Info,
                Form::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), kind)?;
            for Row { labels, value } in rows {
                match form {
                    Form::Counter => family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(value, None)?,
                    Form::Gauge => family.encode_family(labels)?.encode_gauge(value)?,
                    Form::Info => family.encode_info(labels)?,
                    Form::Histogram => encode_spread(&mut family.encode_family(labels)?, value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode_spread(encoder: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
    let Value::Spread(slots) = value else { return Err(fmt::Error) };
    let (sum, count) = slots.iter().fold((0.0, 0), |(sum, count), slot| (sum + slot.sum, count + slot.count));
    let buckets: Vec<(f64, u64)> = slots.iter().map(|slot| (slot.max, slot.count)).collect();
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Value::Count(value) => EncodeGaugeValue::encode(value, encoder),
            Value::Difference(value) => EncodeGaugeValue::encode(value, encoder),
            Value::Real(value) => EncodeGaugeValue::encode(value, encoder),
            Value::Spread(_) => Err(fmt::Error),
        }
    }
}

impl EncodeCounterValue for Value {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Value::Count(value) => EncodeCounterValue::encode(value, encoder),
            // What may be negative is no counter, and what has many numbers neither.
            Value::Difference(_) | Value::Spread(_) => Err(fmt::Error),
            Value::Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}

#[cfg(test)]
mod tests;
