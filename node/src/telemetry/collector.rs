//! The ways to a collector: gRPC, with TLS if asked for, or HTTP. Made once, connected when first used. Names this node
//! to it; the standard variables may add to that.

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{Resource, trace::SpanExporter as _};

use super::settings::{Destination, Protocol};
use crate::exit::{Exit, Failure};

/// What a collector is told of this process: its name, its version, and the node's id, by which the telemetry of many nodes
/// is told apart; each unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` says otherwise.
pub(super) fn resource(id: &str) -> Resource {
    let given = Resource::builder().build();
    // The SDK has a name for what has none.
    let is_given =
        |key: &'static str| given.get(&key.into()).is_some_and(|value| !value.as_str().starts_with("unknown_service"));
    let own =
        [("service.name", "perennial"), ("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", id)];
    let missing = own.into_iter().filter(|(key, _)| !is_given(key));
    let missing: Vec<_> = missing.map(|(key, value)| KeyValue::new(key, value.to_owned())).collect();
    Resource::builder().with_attributes(missing).build()
}

/// Both signals have builders of the same form and of no common type. Retries are the library's: three within the timeout
/// of the request, of what a collector says is worth it.
macro_rules! exporter {
    ($builder:expr, $to:expr) => {
        match $to.protocol {
            Protocol::Grpc => {
                let builder = $builder.with_tonic().with_retry_policy(RetryPolicy::recommended()).with_tls_for($to);
                builder.with_endpoint(&$to.endpoint).with_timeout($to.timeout).build()
            }
            Protocol::HttpProtobuf => {
                let builder = $builder.with_http().with_retry_policy(RetryPolicy::recommended());
                let builder = builder.with_protocol(opentelemetry_otlp::Protocol::HttpBinary);
                builder.with_endpoint(&$to.endpoint).with_timeout($to.timeout).build()
            }
        }
        .map_err(|error| impossible(&error))
    };
}

/// Must be called within the runtime that is to drive the connection.
///
/// # Errors
///
/// What the address or the standard variables ask for cannot be.
pub(super) fn span_exporter(to: &Destination, resource: &Resource) -> Result<SpanExporter, Failure> {
    let mut exporter = exporter!(SpanExporter::builder(), to)?;
    exporter.set_resource(resource);
    Ok(exporter)
}

/// The same for metrics, which bring what they are of along.
///
/// # Errors
///
/// As [`span_exporter`].
pub(super) fn metric_exporter(to: &Destination) -> Result<MetricExporter, Failure> {
    exporter!(MetricExporter::builder(), to)
}

fn impossible(error: &ExporterBuildError) -> Failure {
    Failure::new(Exit::Config, format!("telemetry cannot be exported: {error}"))
}

/// TLS where the address says so, and whom to trust with it: the certificate authorities the web trusts.
trait WithTls: WithTonicConfig + Sized {
    fn with_tls_for(self, to: &Destination) -> Self {
        let is_tls = to.endpoint.starts_with("https:");
        if is_tls { self.with_tls_config(ClientTlsConfig::new().with_enabled_roots()) } else { self }
    }
}

impl<T: WithTonicConfig> WithTls for T {}
