//! The task that sends ended spans to a collector, a batch at a time, through the collector's breaker. While that is open
//! batches are dropped here and counted, so that nothing waits for somebody who is not there; what does not fit the queue
//! while one is on its way is dropped there and counted.

use std::time::Duration;

use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use perennial::BackendGate;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::spans::{Counts, Sent};

/// After a batch that failed. With the exporter's own retries three in a row outlast the restart of a collector; then the
/// breaker sets the pace.
const PAUSE: Duration = Duration::from_secs(2);

/// Sends what comes out of the queue.
#[derive(Debug)]
pub(super) struct SpanSender<E> {
    pub(super) exporter: E,
    pub(super) ended: mpsc::Receiver<SpanData>,
    pub(super) counts: Counts,
    pub(super) batch_max: usize,
    /// How long a span waits for others to travel with.
    pub(super) delay: Duration,
    /// How long one batch may take, retries included.
    pub(super) timeout: Duration,
}

impl<E: SpanExporter> SpanSender<E> {
    /// Sends until it is stopped, then what is still waiting. Whoever stops it decides how long to wait for that: what is
    /// queued or on its way when this is dropped is counted as failed.
    pub(super) async fn run(mut self, gate: BackendGate, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let is_over = tokio::select! {
                biased; // The end first, so that a busy queue cannot put it off.
                () = stop.cancelled() => true,
                is_closed = self.fill(&mut batch) => is_closed,
            };
            if is_over {
                return self.flush(batch, &gate).await;
            }
            match self.send(std::mem::take(&mut batch), &gate).await {
                Sent::Taken | Sent::Skipped => {}
                Sent::Failed => tokio::select! {
                    () = stop.cancelled() => {}
                    () = sleep(PAUSE) => {}
                },
            }
        }
    }

    /// Waits for a span, then for those that come within the delay, up to a batch. Whether nothing can come any more.
    /// Cancel-safe: what was taken is in `batch`.
    async fn fill(&mut self, batch: &mut Vec<SpanData>) -> bool {
        if batch.is_empty() && self.ended.recv_many(batch, self.batch_max).await == 0 {
            return true;
        }
        let delay = sleep(self.delay);
        tokio::pin!(delay);
        while batch.len() < self.batch_max {
            tokio::select! {
                biased; // A trickle must not stretch the delay.
                () = &mut delay => break,
                taken = self.ended.recv_many(batch, self.batch_max - batch.len()) => if taken == 0 {
                    break; // Closed: the next call says so.
                }
            }
        }
        false
    }

    async fn send(&self, batch: Vec<SpanData>, gate: &BackendGate) -> Sent {
        let Some(attempt) = gate.ask() else {
            self.counts.note_skipped(batch.len());
            return Sent::Skipped;
        };
        let flight = Flight { spans: batch.len(), counts: &self.counts };
        match timeout(self.timeout, self.exporter.export(batch)).await {
            Ok(Ok(())) => {
                attempt.succeed();
                flight.land();
                Sent::Taken
            }
            Ok(Err(_)) | Err(_) => {
                attempt.fail();
                Sent::Failed
            }
        }
    }

    /// Sends what is there; gives up at the first failure.
    async fn flush(mut self, mut batch: Vec<SpanData>, gate: &BackendGate) {
        self.ended.close();
        loop {
            let room = self.batch_max.saturating_sub(batch.len());
            if room > 0 {
                self.ended.recv_many(&mut batch, room).await;
            }
            if batch.is_empty() || self.send(std::mem::take(&mut batch), gate).await == Sent::Failed {
                return;
            }
        }
    }
}

impl<E> Drop for SpanSender<E> {
    fn drop(&mut self) {
        self.ended.close();
        while self.ended.try_recv().is_ok() {
            self.counts.note_failed(1);
        }
    }
}

/// A batch on its way: failed, however that comes about, unless it has landed.
struct Flight<'a> {
    spans: usize,
    counts: &'a Counts,
}

impl Flight<'_> {
    fn land(mut self) {
        self.counts.note_exported(std::mem::take(&mut self.spans));
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.counts.note_failed(self.spans);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU8, AtomicUsize, Ordering},
        },
        time::SystemTime,
    };

    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
    use opentelemetry_sdk::{
        error::{OTelSdkError, OTelSdkResult},
        trace::{SpanEvents, SpanLinks, SpanProcessor},
    };
    use perennial::{Backend, Limits};
    use tokio::{task::JoinHandle, time::Instant};

    use super::{
        super::spans::{SpanQueue, Spans},
        *,
    };

    const QUEUE: usize = 100;
    const BATCH: usize = 10;
    const DELAY: Duration = Duration::from_secs(5);
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// What a collector does; it may change its mind.
    #[derive(Debug, Clone, Default)]
    struct Collector {
        mood: Arc<AtomicU8>,
        spans: Arc<AtomicUsize>,
        requests: Arc<AtomicUsize>,
    }

    const TAKES: u8 = 0;
    const REFUSES: u8 = 1;
    const IS_SILENT: u8 = 2;

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.requests.fetch_add(1, Ordering::Relaxed);
            match self.mood.load(Ordering::Relaxed) {
                TAKES => {
                    self.spans.fetch_add(batch.len(), Ordering::Relaxed);
                    Ok(())
                }
                REFUSES => Err(OTelSdkError::InternalFailure("refused".into())),
                _ => std::future::pending().await,
            }
        }
    }

    struct World {
        queue: SpanQueue,
        counts: Counts,
        collector: Collector,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    impl World {
        fn with(mood: u8) -> Self {
            let (counts, collector, stop) = (Counts::default(), Collector::default(), CancellationToken::new());
            collector.mood.store(mood, Ordering::Relaxed);
            let (queue, ended) = SpanQueue::new(QUEUE, counts.clone());
            let sender = SpanSender {
                exporter: collector.clone(),
                ended,
                counts: counts.clone(),
                batch_max: BATCH,
                delay: DELAY,
                timeout: TIMEOUT,
            };
            let gate = BackendGate::alone(&Backend::Other("otlp:http://a".into()), &Limits::default());
            let task = tokio::spawn(sender.run(gate, stop.clone()));
            Self { queue, counts, collector, stop, task }
        }

        fn end_spans(&self, count: usize) {
            (0..count).for_each(|_| self.queue.on_end(span()));
        }

        /// Counted so far.
        fn spans(&self) -> Spans {
            self.counts.read()
        }

        /// Ends the task as a node does.
        async fn stop(self, within: Duration) -> Spans {
            self.stop.cancel();
            let mut task = self.task;
            if timeout(within, &mut task).await.is_err() {
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            }
            self.counts.read()
        }
    }

    /// As large as one of ours.
    fn span() -> SpanData {
        let now = SystemTime::now();
        let attribute = |key: &'static str| opentelemetry::KeyValue::new(key, "a value".to_owned());
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(1),
                SpanId::from(1),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Client,
            name: "dial".into(),
            start_time: now,
            end_time: now,
            attributes: ["target", "peer", "outcome"].map(attribute).to_vec(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Ok,
            instrumentation_scope: opentelemetry::InstrumentationScope::default(),
        }
    }

    /// For a simulated while, long enough for everything that is due within it.
    async fn pass(time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn spans_travel_together_and_none_waits_longer_than_the_delay() {
        let world = World::with(TAKES);
        world.end_spans(1);
        pass(DELAY / 2).await;
        world.end_spans(2);
        assert_eq!(world.collector.requests.load(Ordering::Relaxed), 0);
        pass(DELAY / 2 + Duration::from_millis(200)).await;
        assert_eq!(world.collector.requests.load(Ordering::Relaxed), 1);
        assert_eq!(world.spans(), Spans { exported: 3, ..Spans::default() });
        // A full batch waits for nobody.
        world.end_spans(BATCH);
        pass(Duration::from_millis(200)).await;
        assert_eq!(world.spans().exported, 3 + BATCH as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_never_answers_costs_the_queue_and_no_more() {
        for mood in [IS_SILENT, REFUSES] {
            let world = World::with(mood);
            let begun = std::time::Instant::now();
            // Ten minutes with a hundred spans a second.
            for _ in 0..600 {
                world.end_spans(100);
                pass(Duration::from_secs(1)).await;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "whoever ends a span waits for nobody");
            let spans = world.spans();
            let held = 60_000 - spans.lost();
            assert_eq!(spans.exported, 0);
            assert!(held <= (QUEUE + BATCH) as u64, "{held} are held");
            assert!(spans.skipped > 40_000, "most of them while nobody is asked: {spans:?}");
            let requests = world.collector.requests.load(Ordering::Relaxed);
            // Three, then a probe after some 30 s, 60 s, 120 s and 240 s.
            assert!((5..=8).contains(&requests), "{requests} requests in ten minutes");
            let after = world.stop(Duration::from_secs(2)).await;
            assert_eq!((after.exported, after.lost()), (0, 60_000), "every span is accounted for");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_back_gets_what_waited() {
        let world = World::with(REFUSES);
        world.end_spans(QUEUE);
        pass(Duration::from_secs(3)).await;
        let lost = world.spans().failed;
        world.collector.mood.store(TAKES, Ordering::Relaxed);
        pass(Duration::from_secs(60)).await;
        assert_eq!(world.spans(), Spans { exported: QUEUE as u64 - lost, failed: lost, ..Spans::default() });
        assert!((1..=3 * BATCH as u64).contains(&lost), "{lost}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_stays_away_is_left_alone_until_a_probe_finds_it_back() {
        let world = World::with(REFUSES);
        let requests = || world.collector.requests.load(Ordering::Relaxed);
        world.end_spans(3 * BATCH);
        pass(2 * PAUSE + Duration::from_secs(1)).await;
        assert_eq!(requests(), 3);
        world.collector.mood.store(TAKES, Ordering::Relaxed);
        world.end_spans(BATCH);
        pass(Duration::from_secs(20)).await;
        let spans = world.spans();
        assert_eq!((requests(), spans.failed, spans.skipped), (3, 3 * BATCH as u64, BATCH as u64), "nobody asks");
        pass(Duration::from_secs(20)).await;
        world.end_spans(BATCH);
        pass(Duration::from_secs(1)).await;
        assert_eq!((requests(), world.spans().exported), (4, BATCH as u64), "the probe is a batch like any other");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waiting_at_the_end_is_sent_if_it_can_be_and_counted_if_not() {
        for (mood, exported) in [(TAKES, 25), (REFUSES, 0), (IS_SILENT, 0)] {
            let world = World::with(TAKES);
            world.collector.mood.store(mood, Ordering::Relaxed);
            world.end_spans(25);
            let begun = Instant::now();
            let spans = world.stop(Duration::from_secs(2)).await;
            assert!(begun.elapsed() <= Duration::from_secs(2));
            assert_eq!(spans, Spans { exported, failed: 25 - exported, ..Spans::default() }, "mood {mood}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_heap_is_flat_however_long_the_collector_is_silent() {
        let world = World::with(IS_SILENT);
        world.end_spans(10 * QUEUE);
        let full = perennial_heap::live().bytes;
        assert!(full > 0, "this test runs with the counting allocator");
        for _ in 0..300 {
            world.end_spans(1000);
            pass(Duration::from_secs(1)).await;
        }
        let grown = perennial_heap::live().bytes.saturating_sub(full);
        println!("{grown} bytes more after 300000 spans than with a full queue");
        // They are 180 MB. Other tests of this process have their heap in the sum, whole nodes among them.
        assert!(grown < 40_000_000, "{grown} bytes more than with a full queue");
    }
}
