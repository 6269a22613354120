//! The events of one topic for one client, as server-sent events.
//!
//! A task stands between the topic and the client, so that a client that does not read cannot keep a topic joined that has
//! been left. What waits for a client is bounded twice: here, and by the events a topic keeps for a subscriber.

use std::{convert::Infallible, time::Duration};

use axum::response::sse::{self, KeepAlive, Sse};
use n0_future::{Stream, stream::unfold};
use perennial::{Event, Kind};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::{lines::Line, memberships::Subscription, node::Node};

/// Events on their way to one client. More wait at the topic, which tells what is lost.
const EVENTS_MAX: usize = 16;

/// A comment goes out when nothing else has for this long, so that either side notices when the other is gone.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(15);

/// A client whose reading lags this often within [`LAG_PERIOD`] is told so and sent away: a burst is forgiven, being slower
/// than the topic is not.
const LAGS_MAX: usize = 3;

/// See [`LAGS_MAX`].
const LAG_PERIOD: Duration = Duration::from_secs(60);

/// The last word waits this long for room.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

type Events = mpsc::Receiver<sse::Event>;

/// Everything that happens on the topic from here on, until it is left, ends, or the client is too slow or gone.
pub(super) fn stream(
    node: &Node,
    subscription: Subscription,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>> + use<>> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    node.tasks.spawn(Kind::Service, "subscription", run(subscription, sender));
    let stream = unfold(events, |mut events: Events| async { events.recv().await.map(|event| (Ok(event), events)) });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

async fn run(subscription: Subscription, client: mpsc::Sender<sse::Event>) {
    let topic = subscription.topic.clone();
    if let Some(reason) = pass_on(subscription, &client).await {
        let closed = written(&Line::Closed { topic: (&topic).into(), reason });
        // A client that does not read has no use for it.
        let _ = timeout(FAREWELL_TIMEOUT, client.send(closed)).await;
    }
}

/// Why no more events come; `None` if nobody is there to hear it. The topic's events are dropped on return.
async fn pass_on(mut subscription: Subscription, client: &mpsc::Sender<sse::Event>) -> Option<&'static str> {
    let mut lags = Lags::default();
    loop {
        let event = tokio::select! {
            biased; // Leaving first: a busy topic must not put it off.
            () = subscription.left.cancelled() => return Some("left"),
            () = client.closed() => return None,
            event = subscription.events.next() => match event {
                Some(event) => event,
                None => return Some("ended"),
            },
        };
        let Some(line) = Line::of(&subscription.topic, &event) else { continue };
        tokio::select! {
            biased;
            () = subscription.left.cancelled() => return Some("left"),
            sent = client.send(written(&line)) => sent.ok()?,
        }
        if matches!(event, Event::Lagged(_)) && lags.on_lag(Instant::now()) {
            return Some("slow");
        }
    }
}

/// The event's name, and the same JSON that standard output would carry.
fn written(line: &Line) -> sse::Event {
    let json = String::from_utf8(line.to_json()).expect("JSON is UTF-8");
    sse::Event::default().event(line.name()).data(json.trim_end())
}

/// When a client lagged lately, the oldest first.
#[derive(Debug, Default)]
struct Lags(Vec<Instant>);

impl Lags {
    /// Whether this was one too many.
    fn on_lag(&mut self, now: Instant) -> bool {
        self.0.retain(|then| now.duration_since(*then) < LAG_PERIOD);
        self.0.push(now);
        self.0.len() >= LAGS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_forgiven_and_being_too_slow_is_not() {
        let start = Instant::now();
        let lag = |lags: &mut Lags, after_s| lags.on_lag(start + Duration::from_secs(after_s));
        let mut often = Lags::default();
        assert_eq!([0, 1, 2].map(|at| lag(&mut often, at)), [false, false, true]);
        let mut seldom = Lags::default();
        assert!((0..20).all(|minute| !lag(&mut seldom, 31 * minute)), "two in a minute");
        assert!(seldom.0.len() < LAGS_MAX, "what is long ago is forgotten");
    }
}
