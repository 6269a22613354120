//! The node's figures, pushed to a collector: the families of `metrics.rs`, read when they are due. Nothing is counted
//! here, so what a collector is told and what Prometheus scrapes cannot differ.
//!
//! The SDK's instruments only carry the values of the last look, and histograms what is new since the one before. Its
//! periodic reader was not taken: it runs a thread of its own, in which nobody can ask a node anything.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Histogram, Meter, MeterProvider},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{
        Instrument, InstrumentKind, ManualReader, Pipeline, SdkMeterProvider, Stream, Temporality,
        data::ResourceMetrics, exporter::PushMetricExporter, reader::MetricReader,
    },
};
use perennial::BackendGate;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::spans::{Counts, Sent};
use crate::{
    exit::Failure,
    metrics::families::{Family, Form, Label, Row, Value},
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

/// Rows of one family that has labels. The SDK takes room for as many in each instrument beforehand, a table of 64 places
/// for this number; with its own limit of 2000 that was 5.4 MB for the sixty families of an idle node. The largest, of
/// maps, has some forty rows; what is beyond this number the SDK adds up in a row of its own.
pub(crate) const ROWS_MAX: usize = 55;

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
    spreads: Spreads,
    /// Of the instrument that is made next: the SDK asks a view, which is told little more than a name.
    rows_max: Arc<AtomicUsize>,
}

impl Board {
    pub(super) fn new(resource: Resource) -> Self {
        let reader = Reader(Arc::default());
        let rows_max = Arc::new(AtomicUsize::new(ROWS_MAX));
        let of_next = rows_max.clone();
        let few = move |_: &Instrument| {
            Stream::builder().with_cardinality_limit(of_next.load(Ordering::Relaxed)).build().ok()
        };
        let provider = SdkMeterProvider::builder().with_resource(resource).with_view(few).with_reader(reader.clone());
        let provider = provider.build();
        let meter = provider.meter("perennial");
        Self {
            reader,
            _provider: provider,
            meter,
            known: HashSet::new(),
            latest: Arc::default(),
            spreads: Spreads::default(),
            rows_max,
        }
    }

    /// `families` as a collector takes them.
    fn collect(&mut self, families: Vec<Family>) -> Option<ResourceMetrics> {
        for family in &families {
            let has_labels = family.rows.iter().any(|row| !row.labels.is_empty());
            self.rows_max.store(if has_labels { ROWS_MAX } else { 1 }, Ordering::Relaxed);
            match family.form {
                Form::Histogram => self.spreads.show(&self.meter, family),
                Form::Counter | Form::Gauge | Form::Info => {
                    if self.known.insert(family.name) {
                        self.add_instrument(family);
                    }
                }
            }
        }
        let latest = || self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        *latest() = families;
        let mut metrics = ResourceMetrics::default();
        let collected = self.reader.collect(&mut metrics);
        // Until the next look nobody asks for them.
        *latest() = Vec::new();
        collected.ok().map(|()| metrics)
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
            (Form::Histogram, ..) => unreachable!("`Spreads` shows those"),
        }
    }
}

/// Histograms, and how much of each the SDK has been shown. It takes single values only, so each bucket's news are shown
/// as that many values of their mean: counts come out as they are, and sums but for rounding. That costs what recording
/// each value where it occurred would have cost.
#[derive(Debug, Default)]
struct Spreads {
    instruments: HashMap<&'static str, Histogram<f64>>,
    /// Count and sum of each bucket. As many as there are rows on the page.
    shown: HashMap<RowKey, Vec<(u64, f64)>>,
}

/// Family and labels.
type RowKey = (&'static str, Vec<Label>);

impl Spreads {
    fn show(&mut self, meter: &Meter, family: &Family) {
        let Family { name, unit: of, help, rows, .. } = family;
        for Row { labels, value } in rows {
            let Value::Spread(slots) = value else { continue };
            let instrument = self.instruments.entry(*name).or_insert_with(|| {
                let bounds = slots.iter().map(|slot| slot.max).filter(|max| max.is_finite()).collect();
                let builder = meter.f64_histogram(dotted(name)).with_description(*help).with_unit(unit(*of));
                builder.with_boundaries(bounds).build()
            });
            let shown = self.shown.entry((*name, labels.clone())).or_insert_with(|| vec![(0, 0.0); slots.len()]);
            let labels = key_values(labels);
            let mut above = f64::NEG_INFINITY;
            for (slot, (count, sum)) in slots.iter().zip(shown) {
                let news = slot.count.saturating_sub(*count);
                // Neither rounding nor a sum that was read a moment before its count may move it into another bucket.
                let mean = ((slot.sum - *sum) / news.max(1) as f64).clamp(above.next_up(), slot.max);
                (0..news).for_each(|_| instrument.record(mean, &labels));
                if news > 0 {
                    (*count, *sum) = (slot.count, slot.sum);
                }
                above = slot.max;
            }
        }
    }
}

fn key_values(labels: &[Label]) -> Vec<KeyValue> {
    labels.iter().map(|(key, value)| KeyValue::new(*key, value.clone())).collect()
}

/// Observes the rows that the family has at this look.
fn show<N>(
    latest: &Mutex<Vec<Family>>,
    name: &str,
    observer: &dyn AsyncInstrument<N>,
    number: fn(&Value) -> Option<N>,
) {
    let latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = latest.iter().filter(|family| family.name == name).flat_map(|family| &family.rows);
    for Row { labels, value } in rows {
        if let Some(number) = number(value) {
            observer.observe(number, &key_values(labels));
        }
    }
}

fn whole(value: &Value) -> Option<u64> {
    match *value {
        Value::Count(count) => Some(count),
        Value::Difference(difference) => difference.try_into().ok(),
        Value::Real(_) | Value::Spread(_) => None,
    }
}

fn signed(value: &Value) -> Option<i64> {
    match *value {
        Value::Count(count) => count.try_into().ok(),
        Value::Difference(difference) => Some(difference),
        Value::Real(_) | Value::Spread(_) => None,
    }
}

fn real(value: &Value) -> Option<f64> {
    match *value {
        Value::Count(count) => Some(count as f64),
        Value::Difference(difference) => Some(difference as f64),
        Value::Real(real) => Some(real),
        Value::Spread(_) => None,
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
    use crate::metrics::families::Slot;

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
                AggregatedMetrics::F64(MetricData::Histogram(histogram)) => {
                    assert_eq!(histogram.temporality(), Temporality::Cumulative);
                    for point in histogram.data_points() {
                        let (bounds, counts) =
                            (point.bounds().collect::<Vec<_>>(), point.bucket_counts().collect::<Vec<_>>());
                        let spread = format!("{counts:?} up to {bounds:?}, {:.3} of {}", point.sum(), point.count());
                        tell(point.attributes().collect(), spread);
                    }
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

    #[test]
    fn an_instrument_takes_little_room_beforehand() {
        let mut board = Board::new(Resource::builder_empty().build());
        let name = |number| -> &'static str { Box::leak(format!("perennial_family_{number}").into_boxed_str()) };
        let families = (0..1000).map(|number| family(name(number), Form::Gauge, vec![("all", 1u64.into())])).collect();
        let before = perennial_heap::live().bytes;
        assert!(before > 0, "this test runs with the counting allocator");
        assert!(board.collect(families).is_some());
        let grown = perennial_heap::live().bytes.saturating_sub(before);
        println!("{grown} bytes for a thousand families");
        // With the SDK's own limit they are 135 MB. Other tests of this process have their heap in the sum.
        assert!(grown < 50_000_000, "{grown} bytes");
    }

    #[test]
    fn a_histogram_arrives_with_its_own_bounds_counts_and_sums() {
        let mut board = Board::new(Resource::builder_empty().build());
        let slots = |counts: [(u64, f64); 3]| {
            let slot = |(max, (count, sum))| Slot { max, count, sum };
            Value::Spread([0.1, 1.0, f64::INFINITY].into_iter().zip(counts).map(slot).collect())
        };
        let mut look = |dials, handshakes| {
            let rows = vec![("dial", slots(dials)), ("handshake", slots(handshakes))];
            told(&board.collect(vec![family("perennial_attempt_duration", Form::Histogram, rows)]).unwrap())
        };
        // Three values on the bound, where a mean that is rounded up would be in the next bucket.
        look([(3, 0.1 + 0.1 + 0.1), (0, 0.0), (1, 7.0)], [(0, 0.0); 3]);
        look([(3, 0.1 + 0.1 + 0.1), (0, 0.0), (1, 7.0)], [(0, 0.0); 3]);
        assert_eq!(
            look([(4, 0.35), (2, 1.5), (1, 7.0)], [(0, 0.0), (0, 0.0), (1, 2.0)]),
            [
                "perennial.attempt.duration dial=[4, 2, 1] up to [0.1, 1.0], 8.850 of 7",
                "perennial.attempt.duration handshake=[0, 0, 1] up to [0.1, 1.0], 2.000 of 1",
            ]
        );
    }
}
