//! What this process tells about itself: lines on stderr, and with `--otlp` spans and metrics to a collector. What is
//! logged is decided where it happens; how much of it is shown, by `--log`, also while the node runs.
//!
//! None of it can grow: lines are throttled by place (`log.rs`), nothing but our own spans of single operations is let
//! through to the exporter (`spans.rs`), what waits there is bounded and what does not fit is counted, and a collector
//! that does not answer is left alone by its breaker, as any backend is (`exporter.rs`).

use std::{io, time::Duration};

use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::trace::SpanData;
use perennial::{Backend, Kind};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::{
    exit::{Exit, Failure},
    node::Node,
    settings::value::LogFilter,
    tasks::TaskEnd,
};

mod collector;
mod exporter;
mod log;
mod metrics;
pub(crate) mod settings;
mod spans;
mod throttle;

pub(crate) use log::{LogFormat, is_colour_wanted};

#[cfg(test)]
pub(crate) use metrics::ROWS_MAX;

use exporter::SpanSender;
use log::Lines;
use metrics::{Board, MetricSender};
use settings::Otlp;
use spans::{Counts, SpanQueue, Spans};

/// What is still waiting when the node ends gets this long to reach the collector. An end must not hang on telemetry.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The names of the tasks here. The node goes on without them.
pub(crate) const TASKS: [&str; 3] = ["log", "spans", "metrics"];

/// What is counted of telemetry itself. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) lines: Lines,
    pub(crate) spans: Counts,
}

/// Changes what is logged. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogControl {
    /// Logs by `filter` from here on.
    pub(crate) fn set(&self, filter: &LogFilter) -> Result<(), Failure> {
        let changed = self.filter.reload(filter.to_filter());
        changed.map_err(|error| Failure::new(Exit::Failed, format!("cannot change the log filter: {error}")))
    }
}

/// Telemetry of a process that has not begun its work.
#[derive(Debug)]
pub(crate) struct Telemetry {
    figures: Figures,
    log: LogControl,
    otlp: Option<(Otlp, mpsc::Receiver<SpanData>)>,
}

/// Installs the subscriber for this process. Spans wait from here on; they are sent once it is [connected](Telemetry::connect).
///
/// # Errors
///
/// A subscriber that is there already.
pub(crate) fn install(filter: &LogFilter, format: LogFormat, otlp: Option<Otlp>) -> Result<Telemetry, Failure> {
    // Of the lines alone: what is exported has a filter of its own, which nothing can widen.
    let (filter, handle) = reload::Layer::new(filter.to_filter());
    let figures = Figures::default();
    let colour = is_colour_wanted(&io::stderr());
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
        vec![log::layer(format, filter, &figures.lines, io::stderr, colour)];
    let otlp = otlp.map(|otlp| {
        let (queue, ended) = SpanQueue::new(otlp.queue_max, figures.spans.clone());
        if otlp.traces.is_some() {
            layers.push(spans::layer(queue).boxed());
        }
        (otlp, ended)
    });
    let installed = tracing_subscriber::registry().with(layers).try_init();
    installed.map_err(|error| Failure::new(Exit::Failed, format!("cannot log: {error}")))?;
    Ok(Telemetry { figures, log: LogControl { filter: handle }, otlp })
}

impl Telemetry {
    /// What changes the log while the node runs.
    pub(crate) fn log(&self) -> LogControl {
        self.log.clone()
    }

    /// Makes the ways to the collectors, for the node with this id. Must be called within the runtime.
    ///
    /// # Errors
    ///
    /// Settings of the export that cannot be.
    pub(crate) fn connect(self, id: &str) -> Result<Connected, Failure> {
        let Telemetry { figures, log: _, otlp } = self;
        let Some((otlp, ended)) = otlp else { return Ok(Connected { figures, spans: None, metrics: None }) };
        let resource = collector::resource(id);
        let Otlp { traces, metrics, batch_max, delay, interval, .. } = otlp;
        let counts = || figures.spans.clone();
        let spans = traces.map(|to| {
            let exporter = collector::span_exporter(&to, &resource)?;
            let sender = SpanSender { exporter, ended, counts: counts(), batch_max, delay, timeout: to.timeout };
            Ok((to.collector(), sender))
        });
        let metrics = metrics.map(|to| {
            let (exporter, board) = (collector::metric_exporter(&to)?, Board::new(resource.clone()));
            Ok((to.collector(), MetricSender { exporter, board, counts: counts(), interval, timeout: to.timeout }))
        });
        let (spans, metrics) = (spans.transpose()?, metrics.transpose()?);
        Ok(Connected { figures, spans, metrics })
    }
}

/// Telemetry that could be sent, and to whom.
pub(crate) struct Connected {
    figures: Figures,
    spans: Option<(Backend, SpanSender<SpanExporter>)>,
    metrics: Option<(Backend, MetricSender<MetricExporter>)>,
}

impl Connected {
    pub(crate) fn figures(&self) -> Figures {
        self.figures.clone()
    }

    /// Starts to send.
    pub(crate) fn start(self, node: &Node) -> Running {
        let stop = CancellationToken::new();
        let [log, spans, metrics] = TASKS;
        node.tasks.spawn(Kind::Service, log, self.figures.lines.clone().summarise());
        let sender = self.spans.map(|(collector, sender)| {
            let sending = sender.run(node.mesh.backend(&collector), stop.clone());
            node.tasks.spawn(Kind::Service, spans, sending)
        });
        if let Some((collector, sender)) = self.metrics {
            let (of, gate) = (node.clone(), node.mesh.backend(&collector));
            let look = async move || crate::metrics::families(&of).await;
            node.tasks.spawn(Kind::Service, metrics, sender.run(look, gate, stop.clone()));
        }
        Running { figures: self.figures, stop, sender }
    }
}

/// Telemetry that is being sent.
#[derive(Debug)]
pub(crate) struct Running {
    figures: Figures,
    stop: CancellationToken,
    sender: Option<TaskEnd>,
}

impl Running {
    /// Sends what is waiting, as far as the collector takes it in time.
    pub(crate) async fn flush(&self) {
        self.stop.cancel();
        if let Some(sender) = &self.sender {
            // What could not be sent is counted and told below.
            let _in_time = sender.wait_at_most(FLUSH_TIMEOUT).await;
        }
    }

    /// Tells what was lost. For the end, when nothing is sent any more.
    pub(crate) fn close(self) {
        let spans = self.figures.spans.read();
        if spans.lost() > 0 {
            let Spans { exported, dropped, failed, skipped } = spans;
            tracing::warn!(
                target: "perennial::state",
                exported, dropped, failed, skipped,
                "not every span reached the collector"
            );
        }
        self.figures.lines.close();
    }
}

#[cfg(test)]
mod tests;
