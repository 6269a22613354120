//! The node's figures, pushed to a collector: the families of `metrics.rs`, read when they are due. Nothing is counted
//! here, so what a collector is told and what Prometheus scrapes cannot differ.
//!
//! The SDK's instruments only carry the values of the last look. Its periodic reader was not taken: it runs a thread of
//! its own, in which nobody can ask a node anything.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter, MeterProvider},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{
        InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Temporality, data::ResourceMetrics,
        exporter::PushMetricExporter, reader::MetricReader,
    },
};
use perennial::BackendGate;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::spans::{Counts, Sent};
use crate::{
    exit::Failure,
    metrics::families::{Family, Form, Row, Value},
};

/// Pushes what `look` finds.
pub(super) struct MetricSender<E> {
    pub(super) exporter: E,
    pub(super) board: Board,
    pub(super) counts: Counts,
    pub(super) interval: Duration,
    /// How long one push may take, and the look before it.
    pub(super) timeout: Duration,
}

impl<E: PushMetricExporter> MetricSender<E> {
    /// Pushes until it is stopped, whenever the breaker of the collector lets it. Figures are not kept for a collector that
    /// fails, because the next ones say the same and more.
    pub(super) async fn run(
        mut self,
        look: impl AsyncFn() -> Result<Vec<Family>, Failure>,
        gate: BackendGate,
        stop: CancellationToken,
    ) {
        let mut turn = interval(self.interval);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = turn.tick() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                sent = self.push(&look, &gate) => self.counts.note_push(sent),
            }
        }
    }

    async fn push(&mut self, look: &impl AsyncFn() -> Result<Vec<Family>, Failure>, gate: &BackendGate) -> Sent {
        let Some(attempt) = gate.ask() else { return Sent::Skipped };
        // A node that cannot say how it is says nothing of its collector: the attempt is dropped without a word.
        let Ok(Ok(families)) = timeout(self.timeout, look()).await else { return Sent::Failed };
        let Some(metrics) = self.board.collect(families) else { return Sent::Failed };
        match timeout(self.timeout, self.exporter.export(&metrics)).await {
            Ok(Ok(())) => {
                attempt.succeed();
                Sent::Taken
            }
            Ok(Err(_)) | Err(_) => {
                attempt.fail();
                Sent::Failed
            }
        }
    }
}

/// The instruments, and the figures they show.
#[derive(Debug)]
pub(super) struct Board {
    reader: Reader,
    /// Owns the instruments.
    _provider: SdkMeterProvider,
    meter: Meter,
    /// Families that have an instrument. As many as there are names in the program.
    known: HashSet<&'static str>,
    latest: Arc<Mutex<Vec<Family>>>,
}

impl Board {
    pub(super) fn new(resource: Resource) -> Self {
        let reader = Reader(Arc::default());
        let provider = SdkMeterProvider::builder().with_resource(resource).with_reader(reader.clone()).build();
        let meter = provider.meter("perennial");
        Self { reader, _provider: provider, meter, known: HashSet::new(), latest: Arc::default() }
    }

    /// `families` as a collector takes them.
    fn collect(&mut self, families: Vec<Family>) -> Option<ResourceMetrics> {
        for family in &families {
            if self.known.insert(family.name) {
                self.add_instrument(family);
            }
        }
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = families;
        let mut metrics = ResourceMetrics::default();
        self.reader.collect(&mut metrics).ok()?;
        Some(metrics)
    }

    /// Whole numbers stay whole.
    fn add_instrument(&self, family: &Family) {
        let is_real = family.rows.iter().any(|row| matches!(row.value, Value::Real(_)));
        let is_signed = family.rows.iter().any(|row| matches!(row.value, Value::Difference(_)));
        let (name, meter) = (dotted(family.name), &self.meter);
        macro_rules! instrument {
            ($kind:ident, $number:expr) => {{
                let (latest, of) = (self.latest.clone(), family.name);
                let observe = move |observer: &dyn AsyncInstrument<_>| show(&latest, of, observer, $number);
                let builder = meter.$kind(name).with_description(family.help).with_unit(unit(family.unit));
                // The provider keeps the callback, and with it the instrument.
                let _handle = builder.with_callback(observe).build();
            }};
        }
        match (family.form, is_real, is_signed) {
            (Form::Counter, true, _) => instrument!(f64_observable_counter, real),
            (Form::Counter, false, _) => instrument!(u64_observable_counter, whole),
            (Form::Gauge | Form::Info, true, _) => instrument!(f64_observable_gauge, real),
            (Form::Gauge | Form::Info, false, true) => instrument!(i64_observable_gauge, signed),
            (Form::Gauge | Form::Info, false, false) => instrument!(u64_observable_gauge, whole),
        }
    }
}

/// Observes the rows that the family has at this look.
fn show<N>(latest: &Mutex<Vec<Family>>, name: &str, observer: &dyn AsyncInstrument<N>, number: fn(Value) -> Option<N>) {
    let latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = latest.iter().filter(|family| family.name == name).flat_map(|family| &family.rows);
    for Row { labels, value } in rows {
        let labels: Vec<KeyValue> = labels.iter().map(|(key, value)| KeyValue::new(*key, value.clone())).collect();
        if let Some(number) = number(*value) {
            observer.observe(number, &labels);
        }
    }
}

fn whole(value: Value) -> Option<u64> {
    match value {
        Value::Count(count) => Some(count),
        Value::Difference(difference) => difference.try_into().ok(),
        Value::Real(_) => None,
    }
}

fn signed(value: Value) -> Option<i64> {
    match value {
        Value::Count(count) => count.try_into().ok(),
        Value::Difference(difference) => Some(difference),
        Value::Real(_) => None,
    }
}

fn real(value: Value) -> Option<f64> {
    match value {
        Value::Count(count) => Some(count as f64),
        Value::Difference(difference) => Some(difference as f64),
        Value::Real(real) => Some(real),
    }
}

/// As OpenTelemetry writes names. A collector that writes for Prometheus makes the name of the page of it again.
fn dotted(name: &str) -> String {
    name.replace('_', ".")
}

/// As UCUM has it.
fn unit(unit: Option<&'static str>) -> &'static str {
    match unit {
        Some("bytes") => "By",
        Some("seconds") => "s",
        Some(other) => other,
        // Not `1`: what makes names for Prometheus of it takes a gauge of that unit for a ratio.
        None => "",
    }
}

/// The SDK keeps a reader to itself; this one can be asked by us as well.
#[derive(Debug, Clone)]
struct Reader(Arc<ManualReader>);

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};

    use super::*;

    fn family(name: &'static str, form: Form, rows: Vec<(&'static str, Value)>) -> Family {
        let row = |(kind, value): (&'static str, Value)| Row { labels: vec![("kind", kind.into())], value };
        Family { name, unit: None, form, help: "a help", rows: rows.into_iter().map(row).collect() }
    }

    /// Every figure, as `name kind=value`.
    fn told(metrics: &ResourceMetrics) -> Vec<String> {
        let mut told = Vec::new();
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            let mut tell = |labels: Vec<&KeyValue>, value: String| {
                let labels: Vec<String> = labels.iter().map(|label| label.value.to_string()).collect();
                told.push(format!("{} {}={value}", metric.name(), labels.join(",")));
            };
            match metric.data() {
                AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                    assert!(sum.is_monotonic() && sum.temporality() == Temporality::Cumulative);
                    sum.data_points().for_each(|point| tell(point.attributes().collect(), point.value().to_string()));
                }
                AggregatedMetrics::U64(MetricData::Gauge(gauge)) => {
                    gauge.data_points().for_each(|point| tell(point.attributes().collect(), point.value().to_string()));
                }
                AggregatedMetrics::I64(MetricData::Gauge(gauge)) => {
                    gauge.data_points().for_each(|point| tell(point.attributes().collect(), point.value().to_string()));
                }
                AggregatedMetrics::F64(MetricData::Sum(sum)) => {
                    sum.data_points().for_each(|point| tell(point.attributes().collect(), point.value().to_string()));
                }
                other => panic!("{other:?}"),
            }
        }
        told.sort();
        told
    }

    #[test]
    fn a_push_tells_what_the_look_found_and_nothing_of_earlier_ones() {
        let mut board = Board::new(Resource::builder_empty().build());
        let largest = u64::MAX - 1;
        let first = vec![
            family("perennial_task_spawned", Form::Counter, vec![("dial", 3u64.into()), ("peer", largest.into())]),
            family("perennial_task_owned", Form::Gauge, vec![("dial", 1u64.into())]),
            family("perennial_task_orphan", Form::Gauge, vec![("dial", (-1i64).into())]),
            family("process_cpu", Form::Counter, vec![("all", 0.5.into())]),
        ];
        assert_eq!(
            told(&board.collect(first).unwrap()),
            [
                "perennial.task.orphan dial=-1",
                "perennial.task.owned dial=1",
                "perennial.task.spawned dial=3",
                &format!("perennial.task.spawned peer={largest}"),
                "process.cpu all=0.5",
            ]
        );
        let second = vec![
            family("perennial_task_spawned", Form::Counter, vec![("dial", 4u64.into())]),
            family("perennial_panic", Form::Counter, vec![("all", 0u64.into())]),
        ];
        let told = told(&board.collect(second).unwrap());
        assert_eq!(told, ["perennial.panic all=0", "perennial.task.spawned dial=4"]);
    }
}
