//! From spans of the program to spans that wait to be exported. What is let through is fixed here and no setting reaches
//! it: our own targets, from INFO up. Sent is what waits in `exporter.rs`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, trace::TracerProvider};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanLimits, SpanProcessor},
};
use tokio::sync::mpsc;
use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::{FilterExt, FilterFn},
    registry::LookupSpan,
};

/// What one span may carry. Ours have six attributes and no events; whatever is added one day has room, and no more than
/// that can be held by one.
const LIMITS: SpanLimits = SpanLimits {
    max_events_per_span: 16,
    max_attributes_per_span: 16,
    max_links_per_span: 4,
    max_attributes_per_event: 16,
    max_attributes_per_link: 4,
};

/// Whether something reaches the exporter at all. By what is ours and not by what is not: the libraries underneath
/// (`noq*`, `iroh*`, `ractor`, and `h2`, `hyper*`, `tonic`, `opentelemetry*` that the export itself is made of) are many,
/// talk within spans that live as long as a connection, and may be joined by others.
pub(super) fn is_exported(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_ours = target.strip_prefix("perennial").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    is_ours && *metadata.level() <= Level::INFO
}

/// The layer that turns what [`is_exported`] into spans for `queue`, for any subscriber.
pub(super) fn layer<S>(queue: SpanQueue) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let provider = SdkTracerProvider::builder().with_span_limits(LIMITS).with_span_processor(queue).build();
    tracing_opentelemetry::layer()
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_tracer(provider.tracer("perennial"))
        .with_filter(FilterFn::new(is_exported).and(LevelFilter::INFO))
}

/// What became of the spans that ended and of the pushes that were due. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    pushed: AtomicU64,
    pushes_failed: AtomicU64,
    pushes_skipped: AtomicU64,
}

/// Spans so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spans {
    /// A collector took them.
    pub(crate) exported: u64,
    /// The queue was full.
    pub(crate) dropped: u64,
    /// No collector took them in time.
    pub(crate) failed: u64,
    /// The collector was known to be down and was not asked.
    pub(crate) skipped: u64,
}

impl Spans {
    /// Those that reached no collector.
    pub(crate) fn lost(&self) -> u64 {
        self.dropped + self.failed + self.skipped
    }
}

/// Pushes of the metrics so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pushes {
    pub(crate) exported: u64,
    /// No collector took it in time.
    pub(crate) failed: u64,
    /// The collector was known to be down and was not asked.
    pub(crate) skipped: u64,
}

/// What became of one batch or push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Taken,
    Failed,
    Skipped,
}

impl Counts {
    pub(crate) fn read(&self) -> Spans {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Spans {
            exported: read(&self.0.exported),
            dropped: read(&self.0.dropped),
            failed: read(&self.0.failed),
            skipped: read(&self.0.skipped),
        }
    }

    pub(crate) fn pushes(&self) -> Pushes {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Pushes {
            exported: read(&self.0.pushed),
            failed: read(&self.0.pushes_failed),
            skipped: read(&self.0.pushes_skipped),
        }
    }

    pub(super) fn note_push(&self, sent: Sent) {
        let counter = match sent {
            Sent::Taken => &self.0.pushed,
            Sent::Failed => &self.0.pushes_failed,
            Sent::Skipped => &self.0.pushes_skipped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_exported(&self, spans: usize) {
        self.0.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn note_failed(&self, spans: usize) {
        self.0.failed.fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn note_skipped(&self, spans: usize) {
        self.0.skipped.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

/// The way into the queue. A span that finds it full is dropped and counted; nobody waits.
///
/// The SDK's own batch processor has such a queue as well, with a thread of its own, but tells how many it dropped only
/// when it is shut down.
#[derive(Debug)]
pub(super) struct SpanQueue {
    waiting: mpsc::Sender<SpanData>,
    counts: Counts,
}

impl SpanQueue {
    /// A queue for `max` spans, and the end they come out of.
    pub(super) fn new(max: usize, counts: Counts) -> (Self, mpsc::Receiver<SpanData>) {
        let (waiting, ended) = mpsc::channel(max);
        (Self { waiting, counts }, ended)
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.waiting.try_send(span).is_err() {
            self.counts.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The task that sends does it.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
