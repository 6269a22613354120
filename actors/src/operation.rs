//! One span for each operation of a node: dial, handshake, join, publish, drain; dials and handshakes are timed as well. The
//! only place that opens spans.
//!
//! What a connection, a topic or an actor lives through is told by events and counters and never by a span: whoever
//! collects spans keeps everything that happens within one until it closes. So an operation's span is never *entered*
//! either. noq runs a connection's driver in the span that was current when the connection began, and iroh does the same
//! with the tasks of a remote: a span entered around a dial would stay open for as long as the connection, and gather
//! whatever those tasks have to say. Setting another span current does not help, because an empty span hides nothing.

use iroh::EndpointId;
use iroh_gossip::proto::TopicId;
use n0_future::time::Instant;
use tracing::{Span, field::Empty, info_span};

use crate::meters::{Attempt, Meters};

/// An operation under way. Its span closes when this is dropped, with the outcome `abandoned` unless another was told.
#[derive(Debug)]
#[must_use = "dropping it abandons the operation"]
pub(crate) struct Operation {
    span: Span,
    is_ended: bool,
    timer: Option<Timer>,
}

/// Notes how long an attempt took, for the operations that have an outcome worth timing.
#[derive(Debug)]
struct Timer {
    meters: Meters,
    attempt: Attempt,
    began: Instant,
}

impl Operation {
    /// One outgoing attempt.
    pub(crate) fn dial(peer: EndpointId, meters: Meters) -> Self {
        Self::begin(info_span!(
            parent: None,
            "dial",
            otel.kind = "client",
            peer = %peer.fmt_short(),
            outcome = Empty,
            otel.status_code = Empty,
        ))
        .timed(Attempt::Dial, meters)
    }

    /// One incoming attempt, of somebody who has not said yet who it is.
    pub(crate) fn handshake(meters: Meters) -> Self {
        Self::begin(info_span!(
            parent: None,
            "handshake",
            otel.kind = "server",
            peer = Empty,
            outcome = Empty,
            otel.status_code = Empty,
        ))
        .timed(Attempt::Handshake, meters)
    }

    /// Becoming a member of a topic. A child of the embedder's span, if there is one.
    pub(crate) fn join(topic: &TopicId, bootstrap: usize) -> Self {
        Self::begin(info_span!(
            "join",
            topic = %topic.fmt_short(),
            bootstrap,
            outcome = Empty,
            otel.status_code = Empty,
        ))
    }

    /// Handing one message to a topic. A child of the embedder's span, if there is one.
    pub(crate) fn publish(topic: &TopicId, bytes: usize) -> Self {
        Self::begin(info_span!(
            "publish",
            otel.kind = "producer",
            topic = %topic.fmt_short(),
            bytes,
            neighbors = Empty,
            dropped = Empty,
            outcome = Empty,
            otel.status_code = Empty,
        ))
    }

    /// Shutting down. A child of the embedder's span, if there is one.
    pub(crate) fn drain() -> Self {
        Self::begin(info_span!("drain", stragglers = Empty, outcome = Empty, otel.status_code = Empty))
    }

    fn begin(span: Span) -> Self {
        Self { span, is_ended: false, timer: None }
    }

    fn timed(mut self, attempt: Attempt, meters: Meters) -> Self {
        self.timer = Some(Timer { meters, attempt, began: Instant::now() });
        self
    }

    /// Adds what became known on the way, to a field the operation was begun with.
    pub(crate) fn note(&self, field: &'static str, value: impl tracing::Value) {
        self.span.record(field, value);
    }

    /// It did what it was for.
    pub(crate) fn succeed(self, outcome: &'static str) {
        self.end(outcome, "ok");
    }

    /// It did not.
    pub(crate) fn fail(self, outcome: &'static str) {
        self.end(outcome, "error");
    }

    fn end(mut self, outcome: &'static str, status: &'static str) {
        self.is_ended = true;
        self.span.record("otel.status_code", status);
        self.tell(outcome);
    }

    fn tell(&self, outcome: &'static str) {
        self.span.record("outcome", outcome);
        if let Some(Timer { meters, attempt, began }) = &self.timer {
            meters.note_attempt(*attempt, outcome, began.elapsed());
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if !self.is_ended {
            self.tell("abandoned");
        }
    }
}
