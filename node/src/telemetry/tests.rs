//! Nodes come and go in one process, at `debug`, with the real layer: no span may gather events or outlive its operation.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{PortmapperConfig, presets},
};
use opentelemetry::trace::Status;
use opentelemetry_sdk::trace::SpanData;
use perennial::{Limits, Mesh, TopicHandle, TopicId};
use tokio::sync::mpsc;
use tracing::{Event, Instrument, Level, Metadata, Subscriber, span};
use tracing_subscriber::{Layer, Registry, filter::FilterFn, layer::Context, prelude::*, registry::LookupSpan};

use super::spans::{self, Counts, SpanQueue};

/// Whatever is waited for happens within this long, or the test has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Of a dial or a handshake here, and so of any operation.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Rounds in which a node goes and another comes.
const ROUNDS: usize = 8;

/// Watches the spans that a filter lets through.
#[derive(Debug, Clone, Default)]
struct Watch(Arc<Mutex<Watched>>);

#[derive(Debug, Default)]
struct Watched {
    open: HashMap<u64, (&'static str, Instant, usize)>,
    closed: usize,
    longest: Duration,
    events_max: usize,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Watch {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, _context: Context<'_, S>) {
        let name = attributes.metadata().name();
        self.0.lock().unwrap().open.insert(id.into_u64(), (name, Instant::now(), 0));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let Some(span) = context.event_span(event) else { return };
        let mut watched = self.0.lock().unwrap();
        let Some((_, _, events)) = watched.open.get_mut(&span.id().into_u64()) else { return };
        *events += 1;
        let events = *events;
        watched.events_max = watched.events_max.max(events);
    }

    fn on_close(&self, id: span::Id, _context: Context<'_, S>) {
        let mut watched = self.0.lock().unwrap();
        if let Some((_, since, _)) = watched.open.remove(&id.into_u64()) {
            watched.closed += 1;
            watched.longest = watched.longest.max(since.elapsed());
        }
    }
}

impl Watch {
    /// The names of the spans that are open.
    fn open(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().open.values().map(|(name, ..)| *name).collect()
    }
}

/// The real layer, what comes out of it, what it is shown, and how much was said around it.
struct Watching {
    exported: mpsc::Receiver<SpanData>,
    ours: Watch,
    everything: Watch,
    _default: tracing::subscriber::DefaultGuard,
}

fn watch() -> Watching {
    let (queue, exported) = SpanQueue::new(10_000, Counts::default());
    let (ours, everything) = (Watch::default(), Watch::default());
    let is_debug = |metadata: &Metadata<'_>| *metadata.level() <= Level::DEBUG;
    let subscriber = Registry::default()
        .with(spans::layer(queue))
        .with(ours.clone().with_filter(FilterFn::new(spans::is_exported)))
        .with(everything.clone().with_filter(FilterFn::new(is_debug)));
    Watching { exported, ours, everything, _default: tracing::subscriber::set_default(subscriber) }
}

async fn node() -> Mesh {
    let limits = Limits {
        dial_timeout: OPERATION_TIMEOUT,
        handshake_timeout: OPERATION_TIMEOUT,
        tick: Duration::from_millis(100),
        ..Limits::default()
    };
    Mesh::builder().limits(limits).spawn().await.expect("a node starts")
}

async fn member(mesh: &Mesh, bootstrap: Vec<EndpointAddr>) -> TopicHandle {
    let is_first = bootstrap.is_empty();
    let topic = mesh.join(TopicId::from_bytes([7; 32]), bootstrap).await.expect("it joins");
    if !is_first {
        let joined = tokio::time::timeout(DEADLINE, topic.joined()).await;
        assert!(joined.expect("it has a neighbour in time"));
    }
    topic
}

#[tokio::test]
async fn under_churn_at_debug_no_span_gathers_events_or_outlives_its_operation() {
    let mut watching = watch();
    let first = node().await;
    let mut members = vec![(member(&first, Vec::new()).await, first)];
    for round in 0..ROUNDS {
        let mesh = node().await;
        let bootstrap = members.iter().map(|(_, mesh)| mesh.addr()).collect();
        members.push((member(&mesh, bootstrap).await, mesh));
        for (topic, _) in &members {
            topic.publish(format!("round {round}")).await.expect("it is published");
        }
        if members.len() > 3 {
            let (topic, mesh) = members.remove(0);
            drop(topic);
            mesh.drain(DEADLINE).await;
        }
    }
    let mut connections = 0;
    for (_, mesh) in &members {
        connections += mesh.census().await.expect("it is alive").connections;
    }
    assert!(connections > 0, "connections are alive");
    wait_until("every span is closed while connections live", || watching.ours.open().is_empty()).await;

    let (ours, everything) = (watching.ours.0.lock().unwrap(), watching.everything.0.lock().unwrap());
    let (closed, longest) = (ours.closed, ours.longest);
    println!("{closed} spans of ours, the longest {longest:?}, with {} events at most", ours.events_max);
    println!("{} spans of all, with {} events at most", everything.closed, everything.events_max);
    assert_eq!(ours.events_max, 0, "nothing happens within a span of ours");
    assert!(longest < 2 * OPERATION_TIMEOUT, "{longest:?}");
    assert!(everything.events_max > 0, "the libraries do talk within theirs");

    let mut names: HashMap<String, usize> = HashMap::new();
    while let Ok(span) = watching.exported.try_recv() {
        assert!(span.events.is_empty() && span.events.dropped_count == 0, "{span:?}");
        assert!(span.end_time.duration_since(span.start_time).unwrap_or_default() < 2 * OPERATION_TIMEOUT, "{span:?}");
        assert!(span.end_time <= SystemTime::now());
        assert!(span.attributes.iter().any(|attribute| attribute.key.as_str() == "outcome"), "{span:?}");
        *names.entry(span.name.into_owned()).or_default() += 1;
    }
    assert_eq!(names.values().sum::<usize>(), closed, "what closes is exported: {names:?}");
    assert_eq!((names["join"], names["drain"]), (ROUNDS + 1, ROUNDS - 2), "{names:?}");
    assert!(names["dial"] >= ROUNDS && names["handshake"] >= ROUNDS && names["publish"] >= 3 * ROUNDS - 6, "{names:?}");
    assert_eq!(names.len(), 5, "{names:?}");
}

#[tokio::test]
async fn an_operation_that_fails_says_how() {
    let mut watching = watch();
    let mesh = Mesh::builder().limits(Limits { topics_max: 1, ..Limits::default() }).spawn().await.unwrap();
    let topic = member(&mesh, Vec::new()).await;
    topic.publish(vec![0; 5000]).await.expect_err("it is too large");
    mesh.join(TopicId::from_bytes([8; 32]), Vec::<EndpointAddr>::new()).await.expect_err("it is one too many");
    mesh.drain(DEADLINE).await;
    topic.publish("too late").await.expect_err("the topic is closed");
    let told: Vec<_> = std::iter::from_fn(|| watching.exported.try_recv().ok())
        .map(|span| {
            let outcome = span.attributes.iter().find(|attribute| attribute.key.as_str() == "outcome");
            let is_error = matches!(span.status, Status::Error { .. });
            format!("{} {} {is_error}", span.name, outcome.expect("an outcome").value)
        })
        .collect();
    let expected = [
        "join joined false",
        "publish too-large true",
        "join too-many-topics true",
        "drain drained false",
        "publish closed true",
    ];
    assert_eq!(told, expected);
}

#[test]
fn nothing_but_our_own_from_info_up_is_let_through_and_no_span_holds_much() {
    let mut watching = watch();
    drop(tracing::info_span!(target: "noq::connection", "a"));
    drop(tracing::error_span!(target: "iroh::endpoint", "b"));
    drop(tracing::error_span!(target: "ractor", "c"));
    drop(tracing::error_span!(target: "h2::client", "d"));
    drop(tracing::error_span!(target: "hyper_util::client", "e"));
    drop(tracing::error_span!(target: "tonic", "f"));
    drop(tracing::error_span!(target: "opentelemetry_sdk", "g"));
    drop(tracing::error_span!(target: "perennials", "h"));
    drop(tracing::debug_span!(target: "perennial::peer", "i"));
    let ours = tracing::info_span!(target: "perennial::peer", "ours").entered();
    for number in 0..1000 {
        tracing::info!(target: "perennial::peer", number, "shown");
        tracing::debug!(target: "perennial::peer", number, "ours, and not shown");
        tracing::error!(target: "noq::connection", number, "not ours");
    }
    drop(ours);
    let span = watching.exported.try_recv().expect("one is ours");
    assert_eq!((span.name.as_ref(), span.events.len(), span.events.dropped_count), ("ours", 16, 984));
    assert!(watching.exported.try_recv().is_err(), "and one only");
}

/// Why no operation here enters its span, and that the watch would notice.
#[tokio::test]
async fn a_span_entered_around_a_dial_would_live_as_long_as_the_connection() {
    let watching = watch();
    let alpn = b"perennial/test".to_vec();
    let bind = || {
        let builder = Endpoint::builder(presets::Minimal).portmapper_config(PortmapperConfig::Disabled);
        let builder = builder.alpns(vec![alpn.clone()]).clear_ip_transports();
        builder.bind_addr("127.0.0.1:0").expect("an address").bind()
    };
    let (one, two) = (bind().await.unwrap(), bind().await.unwrap());
    let addr = two.bound_sockets().into_iter().fold(EndpointAddr::new(two.id()), EndpointAddr::with_ip_addr);
    let dial = async { one.connect(addr, &alpn).await.unwrap() };
    let span = tracing::info_span!(target: "perennial::planted", "dial");
    let accept = async { two.accept().await.unwrap().accept().unwrap().await.unwrap() };
    let (dialed, accepted) = tokio::join!(dial.instrument(span), accept);
    // The span's own handle is gone with its future.
    assert_eq!(watching.ours.open(), ["dial"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(watching.ours.open(), ["dial"], "while the connection lives");
    drop((dialed, accepted));
    one.close().await;
    two.close().await;
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
