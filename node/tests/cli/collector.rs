//! Collectors for the tests: one that takes what it is sent, over gRPC and over HTTP, and ones that do harm.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{HistogramDataPoint, Metric, metric::Data, number_data_point},
    trace::v1::Span,
};
use prost::Message;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A collector that takes everything, or answers everything with an error. Gone when dropped.
pub(crate) struct Collector {
    pub(crate) addr: SocketAddr,
    received: Received,
    /// Its connections end with it.
    _runtime: Runtime,
}

/// What was received so far.
#[derive(Clone, Default)]
struct Received {
    spans: Arc<Mutex<Vec<Spanned>>>,
    metrics: Arc<Mutex<Vec<Metric>>>,
    requests: Arc<AtomicUsize>,
    is_broken: bool,
}

/// A span and what it is of.
#[derive(Debug, Clone)]
pub(crate) struct Spanned {
    pub(crate) span: Span,
    pub(crate) resource: BTreeMap<String, String>,
}

impl Spanned {
    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        attributes(&self.span.attributes).remove(key)
    }

    pub(crate) fn took(&self) -> Duration {
        Duration::from_nanos(self.span.end_time_unix_nano - self.span.start_time_unix_nano)
    }
}

fn attributes(of: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| match value.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    of.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

impl Received {
    fn traces(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.spans.lock().unwrap();
        for of_resource in request.resource_spans {
            let resource = attributes(&of_resource.resource.unwrap_or_default().attributes);
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Spanned { span, resource: resource.clone() });
            }
        }
    }

    fn metrics(&self, request: ExportMetricsServiceRequest) {
        let scopes = request.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
        self.metrics.lock().unwrap().extend(scopes.flat_map(|scope| scope.metrics));
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.is_broken {
            return Err(Status::internal("out of order"));
        }
        self.traces(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        if self.is_broken {
            return Err(Status::internal("out of order"));
        }
        self.metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    /// Takes everything over gRPC.
    pub(crate) fn grpc() -> Self {
        Self::serve_grpc(Received::default())
    }

    /// Has an error for everything.
    pub(crate) fn broken() -> Self {
        Self::serve_grpc(Received { is_broken: true, ..Received::default() })
    }

    fn serve_grpc(received: Received) -> Self {
        let services = received.clone();
        Self::serve(received, async move |listener| {
            let server = Server::builder().add_service(TraceServiceServer::new(services.clone()));
            let server = server.add_service(MetricsServiceServer::new(services));
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("it serves");
        })
    }

    /// Takes everything over HTTP.
    pub(crate) fn http() -> Self {
        async fn traces(State(received): State<Received>, body: Bytes) -> StatusCode {
            received.requests.fetch_add(1, Ordering::Relaxed);
            received.traces(ExportTraceServiceRequest::decode(body).expect("protobuf"));
            StatusCode::OK
        }
        async fn metrics(State(received): State<Received>, body: Bytes) -> StatusCode {
            received.metrics(ExportMetricsServiceRequest::decode(body).expect("protobuf"));
            StatusCode::OK
        }
        let received = Received::default();
        let router = Router::new().route("/v1/traces", post(traces)).route("/v1/metrics", post(metrics));
        let router = router.with_state(received.clone());
        Self::serve(received, async move |listener| axum::serve(listener, router).await.expect("it serves"))
    }

    fn serve<F>(received: Received, serve: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        runtime.spawn(serve(listener));
        Self { addr, received, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn spans(&self) -> Vec<Spanned> {
        self.received.spans.lock().unwrap().clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.received.requests.load(Ordering::Relaxed)
    }

    /// The points of the last push of this metric: its labels and its value, of a histogram the count. Empty before the first.
    pub(crate) fn metric(&self, name: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let metrics = self.received.metrics.lock().unwrap();
        let Some(metric) = metrics.iter().rev().find(|metric| metric.name == name) else { return Vec::new() };
        let points = match metric.data.as_ref().expect("a metric has data") {
            Data::Sum(sum) => {
                assert!(sum.is_monotonic, "{name}");
                &sum.data_points
            }
            Data::Gauge(gauge) => &gauge.data_points,
            Data::Histogram(histogram) => {
                let count = |point: &HistogramDataPoint| (attributes(&point.attributes), point.count as f64);
                return histogram.data_points.iter().map(count).collect();
            }
            other => panic!("{name}: {other:?}"),
        };
        let value = |value: &Option<number_data_point::Value>| match value {
            Some(number_data_point::Value::AsInt(whole)) => *whole as f64,
            Some(number_data_point::Value::AsDouble(real)) => *real,
            None => panic!("{name} has no value"),
        };
        points.iter().map(|point| (attributes(&point.attributes), value(&point.value))).collect()
    }

    pub(crate) fn metric_names(&self) -> Vec<String> {
        self.received.metrics.lock().unwrap().iter().map(|metric| metric.name.clone()).collect()
    }
}

/// Takes connections and does harm with them. Stops when dropped.
pub(crate) struct Villain {
    pub(crate) addr: SocketAddr,
    is_over: Arc<AtomicBool>,
    victims: Arc<AtomicUsize>,
}

impl Villain {
    /// Takes what it is sent and never answers.
    pub(crate) fn silent() -> Self {
        Self::start(|mut stream, is_over| {
            let mut sink = [0; 1024];
            while !is_over() && stream.read(&mut sink).is_ok_and(|read| read > 0) {}
        })
    }

    /// Reads a byte a second, and answers as slowly: the first bytes of an HTTP/2 preface.
    pub(crate) fn slow() -> Self {
        Self::start(|mut stream, is_over| {
            let mut answer = [0_u8, 0, 0, 4, 0, 0, 0, 0, 0].into_iter().cycle();
            let mut byte = [0];
            while !is_over() && stream.read(&mut byte).is_ok_and(|read| read > 0) {
                let written = stream.write_all(&[answer.next().expect("it repeats")]);
                if written.is_err() {
                    return;
                }
                thread::sleep(Duration::from_secs(1));
            }
        })
    }

    fn start(harm: impl Fn(TcpStream, &dyn Fn() -> bool) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (is_over, victims) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, count) = (is_over.clone(), victims.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { return };
                stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
                count.fetch_add(1, Ordering::Relaxed);
                let (harm, over) = (harm.clone(), over.clone());
                thread::spawn(move || harm(stream, &|| over.load(Ordering::Relaxed)));
            }
        });
        Self { addr, is_over, victims }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Connections it was given.
    pub(crate) fn victims(&self) -> usize {
        self.victims.load(Ordering::Relaxed)
    }
}

impl Drop for Villain {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for the next one.
        if let Ok(stream) = TcpStream::connect(self.addr) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
