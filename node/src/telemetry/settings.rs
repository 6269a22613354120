//! Where telemetry goes and how much of it may wait: from `--otlp` and the standard `OTEL_*` variables. `[pure]`
//!
//! Honoured is what keeps the promise that telemetry cannot leak; a figure out of bounds is refused by name. What is read
//! by the SDK itself is not here: the sampler, the headers, and the attributes of the resource.

use std::{ops::RangeInclusive, time::Duration};

use clap::ValueEnum;
use hyper::Uri;
use perennial::Backend;

/// Everything the exporters are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Otlp {
    /// `None`: spans are not exported.
    pub(crate) traces: Option<Destination>,
    /// `None`: metrics are not exported.
    pub(crate) metrics: Option<Destination>,
    /// Ended spans that may wait, of about a KiB each.
    pub(crate) queue_max: usize,
    /// Spans of one request.
    pub(crate) batch_max: usize,
    /// How long a span waits for others to travel with.
    pub(crate) delay: Duration,
    /// Between two pushes of the metrics.
    pub(crate) interval: Duration,
}

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    /// With gRPC the collector's address; with HTTP the whole URL of the signal.
    pub(crate) endpoint: String,
    pub(crate) protocol: Protocol,
    /// How long one request may take.
    pub(crate) timeout: Duration,
}

impl Destination {
    /// Who it is, as a backend: the signals of one collector share its breaker. Without path and password, which are
    /// nobody's business.
    pub(crate) fn collector(&self) -> Backend {
        let uri: Uri = self.endpoint.parse().unwrap_or_default();
        let scheme = uri.scheme_str().unwrap_or_default();
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        Backend::Other(format!("otlp:{scheme}://{}{port}", uri.host().unwrap_or_default()))
    }
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Protocol {
    #[default]
    Grpc,
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

/// What is collected.
#[derive(Debug, Clone, Copy)]
enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    /// In the names of the variables.
    fn name(self) -> &'static str {
        match self {
            Signal::Traces => "TRACES",
            Signal::Metrics => "METRICS",
        }
    }

    /// Where collectors take it over HTTP.
    fn path(self) -> &'static str {
        match self {
            Signal::Traces => "v1/traces",
            Signal::Metrics => "v1/metrics",
        }
    }
}

/// The SDK's own defaults, within bounds. At most some 16 MiB wait.
const QUEUE: (u64, RangeInclusive<u64>) = (2048, 1..=16_384);
const BATCH: (u64, RangeInclusive<u64>) = (512, 1..=2048);
/// In milliseconds, as the variables are. A minute is longer than anybody should wait for anything here.
const DELAY: (u64, RangeInclusive<u64>) = (5000, 10..=60_000);
const TIMEOUT: (u64, RangeInclusive<u64>) = (10_000, 10..=60_000);
/// A push asks every supervisor of the node.
const INTERVAL: (u64, RangeInclusive<u64>) = (60_000, 100..=3_600_000);

/// A collector's URL, and what the user calls the place it came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) url: &'a str,
    pub(crate) by: &'a str,
}

/// The settings of one process: those of the node first, then the standard variables. `None` while nothing names a
/// collector.
///
/// # Errors
///
/// A sentence about the variable or setting that cannot be.
pub(crate) fn resolve(
    url: Option<Named<'_>>,
    protocol: Option<Protocol>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Otlp>, String> {
    let from = Variables(variable);
    if from.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let traces = destination(Signal::Traces, url, protocol, &from)?;
    let metrics = destination(Signal::Metrics, url, protocol, &from)?;
    if traces.is_none() && metrics.is_none() {
        return Ok(None);
    }
    let queue_max = from.number("OTEL_BSP_MAX_QUEUE_SIZE", &QUEUE)?;
    Ok(Some(Otlp {
        traces,
        metrics,
        queue_max: queue_max as usize,
        batch_max: from.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", &BATCH)?.min(queue_max) as usize,
        delay: Duration::from_millis(from.number("OTEL_BSP_SCHEDULE_DELAY", &DELAY)?),
        interval: Duration::from_millis(from.number("OTEL_METRIC_EXPORT_INTERVAL", &INTERVAL)?),
    }))
}

fn destination(
    signal: Signal,
    url: Option<Named<'_>>,
    protocol: Option<Protocol>,
    from: &Variables<'_>,
) -> Result<Option<Destination>, String> {
    match from.get(&format!("OTEL_{}_EXPORTER", signal.name())).as_deref() {
        Some("none") => return Ok(None),
        Some("otlp") | None => {}
        Some(other) => {
            let name = signal.name();
            return Err(format!("OTEL_{name}_EXPORTER=`{other}` is no exporter of this node; otlp and none are"));
        }
    }
    let protocol = match protocol {
        Some(protocol) => protocol,
        None => from.protocol(signal)?,
    };
    let (own_name, common_name) =
        (format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name()), "OTEL_EXPORTER_OTLP_ENDPOINT");
    let (endpoint, by) = match (url, from.get(&own_name), from.get(common_name)) {
        (Some(Named { url, by }), ..) => (base(url, signal, protocol), by),
        (None, Some(own), _) => (own, own_name.as_str()),
        (None, None, Some(common)) => (base(&common, signal, protocol), common_name),
        (None, None, None) => return Ok(None),
    };
    check(&endpoint, protocol).map_err(|wrong| format!("{by}: {wrong}"))?;
    let timeout = from.of_signal(signal, "TIMEOUT", |name| from.number_if_set(name, &TIMEOUT.1))?;
    Ok(Some(Destination { endpoint, protocol, timeout: Duration::from_millis(timeout.unwrap_or(TIMEOUT.0)) }))
}

/// gRPC tells signals apart by method, HTTP by path.
fn base(url: &str, signal: Signal, protocol: Protocol) -> String {
    match protocol {
        Protocol::Grpc => url.to_owned(),
        Protocol::HttpProtobuf => format!("{}/{}", url.trim_end_matches('/'), signal.path()),
    }
}

fn check(endpoint: &str, protocol: Protocol) -> Result<(), String> {
    let uri: Option<Uri> = endpoint.parse().ok();
    let uri = uri.filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    match (uri.as_ref().and_then(Uri::scheme_str), protocol) {
        (Some("http"), _) | (Some("https"), Protocol::Grpc) => Ok(()),
        (Some("https"), Protocol::HttpProtobuf) => Err(format!(
            "`{endpoint}`: TLS is spoken with the protocol grpc only; use that, or a collector on this host"
        )),
        _ => Err(format!("`{endpoint}` is no address of a collector; http://127.0.0.1:4317 would be one")),
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    /// Empty is as good as unset, as the standard has it.
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The signal's own variable goes before that of all signals.
    fn of_signal<T>(
        &self,
        signal: Signal,
        what: &str,
        read: impl Fn(&str) -> Result<Option<T>, String>,
    ) -> Result<Option<T>, String> {
        match read(&format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name()))? {
            Some(value) => Ok(Some(value)),
            None => read(&format!("OTEL_EXPORTER_OTLP_{what}")),
        }
    }

    fn protocol(&self, signal: Signal) -> Result<Protocol, String> {
        let read = |name: &str| {
            let Some(value) = self.get(name) else { return Ok(None) };
            let protocol = Protocol::from_str(&value, true);
            protocol.map(Some).map_err(|_| format!("{name}=`{value}` is not spoken here; grpc and http/protobuf are"))
        };
        Ok(self.of_signal(signal, "PROTOCOL", read)?.unwrap_or_default())
    }

    fn number(&self, name: &str, (default, bounds): &(u64, RangeInclusive<u64>)) -> Result<u64, String> {
        Ok(self.number_if_set(name, bounds)?.unwrap_or(*default))
    }

    fn number_if_set(&self, name: &str, bounds: &RangeInclusive<u64>) -> Result<Option<u64>, String> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if bounds.contains(&number) => Ok(Some(number)),
            _ => Err(format!("{name}=`{text}` is no number from {} to {}", bounds.start(), bounds.end())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(url: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<Otlp>, String> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        resolve(url.map(|url| Named { url, by: "--otlp" }), None, &find)
    }

    fn endpoints(otlp: Result<Option<Otlp>, String>) -> [Option<String>; 2] {
        let otlp = otlp.unwrap().unwrap();
        [otlp.traces, otlp.metrics].map(|destination| destination.map(|destination| destination.endpoint))
    }

    #[test]
    fn nothing_is_exported_until_somebody_names_a_collector() {
        assert_eq!(with(None, &[]), Ok(None));
        assert_eq!(with(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        assert_eq!(with(None, &[("OTEL_SERVICE_NAME", "a"), ("OTEL_BSP_SCHEDULE_DELAY", "100")]), Ok(None));
        assert_eq!(with(Some("http://a:1"), &[("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
    }

    #[test]
    fn the_flag_goes_before_the_signals_variable_and_that_before_the_common_one() {
        let common = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://common:4317");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own:4317");
        let both = |url: &str| [Some(url.to_owned()), Some(url.to_owned())];
        assert_eq!(endpoints(with(None, &[common])), both("http://common:4317"));
        assert_eq!(
            endpoints(with(None, &[common, own])),
            [Some("http://own:4317".to_owned()), Some("http://common:4317".to_owned())]
        );
        assert_eq!(endpoints(with(None, &[own])), [Some("http://own:4317".to_owned()), None]);
        assert_eq!(endpoints(with(Some("http://flag:4317"), &[common, own])), both("http://flag:4317"));
        let none = ("OTEL_METRICS_EXPORTER", "none");
        assert_eq!(endpoints(with(None, &[common, none])), [Some("http://common:4317".to_owned()), None]);
    }

    #[test]
    fn over_http_each_signal_has_a_path_unless_its_own_variable_says_where() {
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b:4318/push");
        assert_eq!(
            endpoints(with(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/"), http, own])),
            [Some("http://a:4318/v1/traces".to_owned()), Some("http://b:4318/push".to_owned())]
        );
    }

    #[test]
    fn the_signals_of_one_collector_are_one_backend_and_its_name_keeps_secrets() {
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let otlp = with(Some("http://user:secret@a:4318/tenant/"), &[http]).unwrap().unwrap();
        let names = [otlp.traces, otlp.metrics].map(|to| to.unwrap().collector().to_string());
        assert_eq!(names, ["otlp:http://a:4318"; 2]);
        let of = |url| with(Some(url), &[]).unwrap().unwrap().traces.unwrap().collector().to_string();
        assert_eq!(of("https://collector.example"), "otlp:https://collector.example");
        assert_eq!(of("http://[::1]:4317"), "otlp:http://[::1]:4317");
    }

    #[test]
    fn figures_are_taken_within_bounds_and_refused_by_name_beyond() {
        let otlp = with(
            Some("http://a:1"),
            &[
                ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
                ("OTEL_BSP_SCHEDULE_DELAY", "20"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "50"),
                ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "70"),
            ],
        );
        let otlp = otlp.unwrap().unwrap();
        assert_eq!((otlp.queue_max, otlp.batch_max), (100, 100), "no batch is larger than the queue");
        assert_eq!((otlp.delay, otlp.interval), (Duration::from_millis(20), Duration::from_secs(1)));
        assert_eq!(otlp.traces.unwrap().timeout, Duration::from_millis(70));
        assert_eq!(otlp.metrics.unwrap().timeout, Duration::from_millis(50));

        let refused = |name, value| with(Some("http://a:1"), &[(name, value)]).unwrap_err();
        let sentence = refused("OTEL_BSP_MAX_QUEUE_SIZE", "1000000");
        assert_eq!(sentence, "OTEL_BSP_MAX_QUEUE_SIZE=`1000000` is no number from 1 to 16384");
        assert!(refused("OTEL_EXPORTER_OTLP_TIMEOUT", "0").contains("OTEL_EXPORTER_OTLP_TIMEOUT"));
        assert!(refused("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json").contains("grpc and http/protobuf"));
        assert!(refused("OTEL_TRACES_EXPORTER", "zipkin").contains("otlp and none"));
    }

    #[test]
    fn an_address_that_cannot_be_dialed_is_refused_before_anything_starts() {
        for url in ["localhost:4317", "ftp://a:1", "http://", "", "http:///v1/traces"] {
            let refused = with(Some(url), &[]);
            assert!(
                refused.as_ref().is_err_and(|sentence| sentence.contains("http://127.0.0.1:4317")),
                "{url}: {refused:?}"
            );
        }
        assert!(with(Some("https://collector.example:4317"), &[]).is_ok());
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        assert!(with(Some("https://collector.example:4318"), &[http]).unwrap_err().contains("grpc"));
        assert!(with(Some("a"), &[]).unwrap_err().starts_with("--otlp: "), "whoever is wrong is named");
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] {
            assert!(with(None, &[(name, "a")]).unwrap_err().starts_with(&format!("{name}: ")));
        }
    }
}
