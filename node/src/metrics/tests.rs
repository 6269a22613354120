//! Two real nodes, scraped: names, types, units and labels as they are promised, and values that are those of the census.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    time::Duration,
};

use expect_test::{Expect, expect};
use perennial::{Event, Reason, TopicHandle, TopicId};

use super::*;
use crate::listener::CappedListener;

/// Whatever a test waits for happens within this long, or it failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// Of the one door these nodes have.
const CLIENTS_MAX: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// One sample: the name as written, its labels, its value.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A page, understood strictly: whatever is no HELP, TYPE, UNIT, EOF or sample fails the test.
#[derive(Debug, Default)]
struct Parsed {
    /// Type and unit by family, in the order of the page.
    families: Vec<(String, String, Option<String>)>,
    samples: Vec<Sample>,
}

impl Parsed {
    fn of(page: &str) -> Parsed {
        let mut parsed = Parsed::default();
        for line in page.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", _, help] => assert!(help.len() > 3 && !help.ends_with('.'), "{line}"),
                ["#", "TYPE", name, kind] => parsed.families.push((name.into(), kind.into(), None)),
                ["#", "UNIT", name, unit] => {
                    let (family, _, of_family) = parsed.families.last_mut().expect("a unit follows a type");
                    assert!(family == name && name.ends_with(&format!("_{unit}")), "{line}");
                    *of_family = Some(unit.into());
                }
                ["#", "EOF"] => assert!(page.ends_with("# EOF\n"), "nothing follows the end"),
                ["#", ..] => panic!("no such comment: {line}"),
                _ => parsed.samples.push(sample(line)),
            }
        }
        parsed
    }

    /// Of a histogram, which has three names, that of its family.
    fn name_for_people<'a>(&'a self, sample: &'a str) -> &'a str {
        let is_of =
            |family: &&(String, String, Option<String>)| family.1 == "histogram" && sample.starts_with(&family.0);
        self.families.iter().find(is_of).map_or(sample, |(name, ..)| name)
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has_them = |sample: &&Sample| labels.iter().all(|(key, value)| sample.labels[*key] == *value);
        let found = self.samples.iter().filter(|sample| sample.name == name);
        let found: Vec<&Sample> = found.filter(|sample| sample.labels.len() == labels.len()).filter(has_them).collect();
        let [one] = found[..] else { panic!("{name} with {labels:?}: {found:?}") };
        one.value
    }

    fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }

    /// One line per family: what is stable about it.
    fn promise(&self) -> String {
        let mut lines = Vec::new();
        for (family, kind, unit) in &self.families {
            let suffix = match kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                "histogram" => "_bucket",
                _ => "",
            };
            let samples = self.samples.iter().filter(|sample| sample.name == format!("{family}{suffix}"));
            let labels: BTreeSet<&str> = samples.flat_map(|sample| sample.labels.keys()).map(String::as_str).collect();
            let labels = Vec::from_iter(labels).join(",");
            lines.push(format!("{family} {kind} {} {{{labels}}}", unit.as_deref().unwrap_or("-")));
        }
        lines.join("\n")
    }
}

fn sample(line: &str) -> Sample {
    let (name_and_labels, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
    let (name, labels) = name_and_labels.split_once('{').unwrap_or((name_and_labels, "}"));
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("no end of labels: {line}"));
    let label = |pair: &str| {
        let (key, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        (key.to_owned(), value.strip_suffix('"').unwrap_or_else(|| panic!("no end of a value: {line}")).to_owned())
    };
    let labels = labels.split(',').filter(|pair| !pair.is_empty()).map(label).collect();
    Sample { name: name.into(), labels, value: value.parse().unwrap_or_else(|_| panic!("no number: {line}")) }
}

/// Two neighbours on one topic, and a message from the first to the second. The topic stays joined with the handles.
async fn two_that_have_talked() -> [(Mesh, TopicHandle); 2] {
    let topic = TopicId::from_bytes([7; 32]);
    let (one, two) = (Mesh::builder().spawn().await.unwrap(), Mesh::builder().spawn().await.unwrap());
    let at_one = one.join(topic, None::<iroh::EndpointAddr>).await.unwrap();
    let mut at_two = two.join(topic, [one.addr()]).await.unwrap();
    let talk = async {
        assert!(at_one.joined().await && at_two.joined().await);
        at_one.publish("hello").await.unwrap();
        while !matches!(at_two.next_event().await, Some(Event::Received(_))) {}
    };
    tokio::time::timeout(DEADLINE, talk).await.expect("the message arrives");
    [(one, at_one), (two, at_two)]
}

async fn scrape(mesh: &Mesh, format: Format) -> String {
    write(snapshot(mesh).await.families(), format)
}

async fn snapshot(mesh: &Mesh) -> Snapshot {
    let directory = tempfile::tempdir().unwrap();
    let door = tokio::net::UnixListener::bind(directory.path().join("door")).unwrap();
    let door = CappedListener::new(door, CLIENTS_MAX).gauge();
    let tasks = Tasks::new(mesh.ledger_counters());
    Snapshot::take(mesh, &tasks, [("control", &door)].into_iter(), &Figures::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_types_units_and_labels_are_as_promised() {
    let [(one, _at_one), _two] = two_that_have_talked().await;
    let page = Parsed::of(&scrape(&one, Format::OpenMetrics).await);
    // Only what the system and the allocator tell may be missing, and on Linux it is there.
    let promise = page.promise().replace("perennial_heap_bytes gauge bytes {}\nperennial_heap_blocks gauge - {}\n", "");
    promised().assert_eq(&promise);
    let families: BTreeSet<&String> = page.families.iter().map(|(name, ..)| name).collect();
    assert_eq!(families.len(), page.families.len(), "each family stands there once");
}

/// Name, type, unit and labels of every family, in the order of the page.
fn promised() -> Expect {
    expect![[r#"
        process_resident_memory_bytes gauge bytes {}
        process_open_fds gauge - {}
        process_max_fds gauge - {}
        process_threads gauge - {}
        process_cpu_seconds counter seconds {}
        perennial_build info - {version}
        perennial_uptime_seconds gauge seconds {}
        perennial_pressure gauge - {level}
        perennial_task_spawned counter - {kind}
        perennial_task_finished counter - {kind}
        perennial_task_owned gauge - {kind}
        perennial_task_orphan gauge - {kind}
        perennial_runtime_tasks gauge - {}
        perennial_loop_crash counter - {loop}
        perennial_panic counter - {}
        perennial_connection_active gauge - {direction,standing}
        perennial_connection_half_open gauge - {}
        perennial_connection_ending gauge - {}
        perennial_connection_opened counter - {}
        perennial_connection_closed counter - {reason}
        perennial_connection_closed_late counter - {}
        perennial_connection_cut counter - {reason}
        perennial_peer_supervised gauge - {standing}
        perennial_handshake_active gauge - {}
        perennial_admission_refused counter - {reason}
        perennial_listener_accepting gauge - {listener}
        perennial_listener_resumed counter - {listener}
        perennial_listener_max gauge - {listener}
        perennial_listener_used gauge - {listener}
        perennial_listener_high_water gauge - {listener}
        perennial_limit_max gauge - {limit}
        perennial_limit_used gauge - {limit}
        perennial_limit_high_water gauge - {limit}
        perennial_map_entries gauge - {map}
        perennial_map_capacity gauge - {map}
        perennial_map_bytes gauge bytes {map}
        perennial_dial_attempts counter - {}
        perennial_dial_failed counter - {reason}
        perennial_backoff_peers gauge - {}
        perennial_network_outage gauge - {}
        perennial_topic_joined gauge - {}
        perennial_topic_isolated gauge - {}
        perennial_neighbor_active gauge - {}
        perennial_gossip_published counter - {}
        perennial_gossip_delivered counter - {}
        perennial_gossip_sent counter - {}
        perennial_gossip_dropped counter - {reason}
        perennial_gossip_queue_frames gauge - {queue}
        perennial_dial_duration_seconds histogram seconds {le,outcome}
        perennial_handshake_duration_seconds histogram seconds {le,outcome}
        perennial_connection_duration_seconds histogram seconds {le}
        perennial_gossip_message_bytes histogram bytes {direction,le}
        perennial_backend_state gauge - {kind,state}
        perennial_backend_attempts_saved counter - {kind}
        perennial_client_max gauge - {door}
        perennial_client_used gauge - {door}
        perennial_client_high_water gauge - {door}
        perennial_client_accepted counter - {door}
        perennial_log_suppressed counter - {}
        perennial_telemetry_span counter - {outcome}
        perennial_telemetry_push counter - {outcome}"#]]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_lists_every_metric_and_no_other() {
    let [(one, _at_one), _two] = two_that_have_talked().await;
    let page = Parsed::of(&scrape(&one, Format::OpenMetrics).await);
    let told: BTreeSet<&str> = page.samples.iter().map(|sample| page.name_for_people(&sample.name)).collect();
    let rows = include_str!("../../../README.md").lines().filter(|line| line.starts_with("| `p"));
    let names = rows.flat_map(|line| line.split('`'));
    let is_metric = |name: &&str| name.starts_with("perennial_") || name.starts_with("process_");
    let listed: BTreeSet<&str> = names.filter(is_metric).collect();
    let only_of_some = |name: &&&str| !name.starts_with("perennial_heap_");
    assert_eq!(
        listed.iter().filter(only_of_some).collect::<Vec<_>>(),
        told.iter().filter(only_of_some).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_label_tells_who_where_or_about_what() {
    let [(one, _at_one), (two, _at_two)] = two_that_have_talked().await;
    let page = scrape(&one, Format::OpenMetrics).await;
    for secret in [one.id().to_string(), two.id().to_string(), "127.0.0.1".into(), "0707070707".into()] {
        assert!(!page.contains(&secret), "{secret} in {page}");
    }
    for Sample { name, labels, .. } in Parsed::of(&page).samples {
        for (key, value) in labels.iter().filter(|(key, _)| !["version", "le"].contains(&key.as_str())) {
            let is_word = value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c));
            assert!(is_word && !value.is_empty() && value.len() <= 32, "{name}: {key}={value}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_those_of_the_census() {
    let [(one, _at_one), (two, _at_two)] = two_that_have_talked().await;
    let [of_one, of_two] = [scrape(&one, Format::OpenMetrics).await, scrape(&two, Format::OpenMetrics).await];
    let [of_one, of_two] = [&of_one, &of_two].map(|page| Parsed::of(page));
    assert_eq!(of_one.value("perennial_gossip_published_total", &[]), 1.0);
    assert_eq!(of_one.value("perennial_gossip_sent_total", &[]), 1.0);
    assert_eq!(of_two.value("perennial_gossip_delivered_total", &[]), 1.0);
    let labels = [("direction", "outbound"), ("standing", "known")];
    assert!(of_two.value("perennial_connection_active", &labels) >= 1.0, "it dialed the one it was told of");
    let census = two.census().await.unwrap();
    let connections = census.peers.iter().map(|peer| peer.connections.len()).sum::<usize>() as f64;
    assert_eq!(of_two.sum("perennial_connection_active"), connections);
    assert_eq!(of_two.sum("perennial_neighbor_active"), 1.0);
    let delivered = [("direction", "delivered")];
    assert_eq!(of_two.value("perennial_gossip_message_bytes_count", &delivered), 1.0);
    assert_eq!(of_two.value("perennial_gossip_message_bytes_sum", &delivered), 5.0);
    let up_to_16 = [("direction", "delivered"), ("le", "16.0")];
    assert_eq!(of_two.value("perennial_gossip_message_bytes_bucket", &up_to_16), 1.0);
    let shaken = of_one.value("perennial_handshake_duration_seconds_sum", &[("outcome", "connected")]);
    assert!(shaken > 0.0 && shaken < DEADLINE.as_secs_f64(), "{shaken} s");
    assert_eq!(of_two.value("perennial_limit_max", &[("limit", "connections_max")]), 128.0);
    assert_eq!(of_two.value("perennial_listener_accepting", &[("listener", "0")]), 1.0);
    assert_eq!(of_two.value("perennial_client_max", &[("door", "control")]), 16.0);
    assert!(of_two.value("process_open_fds", &[]) > 3.0 && of_two.value("process_threads", &[]) > 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_is_counted_in_one_family() {
    let mesh = Mesh::builder().spawn().await.unwrap();
    let page = Parsed::of(&scrape(&mesh, Format::OpenMetrics).await);
    let families = ["admission_refused", "connection_cut", "dial_failed", "gossip_dropped"];
    for reason in Reason::ALL {
        let is_it = |sample: &&Sample| {
            let family = families.iter().any(|family| sample.name == format!("perennial_{family}_total"));
            family && sample.labels["reason"] == reason.name()
        };
        assert_eq!(page.samples.iter().filter(is_it).count(), 1, "{}", reason.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_family_has_more_rows_than_a_collector_is_told_of() {
    let [(one, _at_one), _two] = two_that_have_talked().await;
    let most = snapshot(&one).await.families().into_iter().max_by_key(|family| family.rows.len()).unwrap();
    let (name, rows) = (most.name, most.rows.len());
    assert!(rows + 10 <= crate::telemetry::ROWS_MAX, "{name} has {rows}, and a few more must find room");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_formats_tell_the_same() {
    let mesh = Mesh::builder().spawn().await.unwrap();
    let [new, old] = [scrape(&mesh, Format::OpenMetrics).await, scrape(&mesh, Format::Prometheus).await];
    assert!(new.ends_with("# EOF\n") && !old.contains("# EOF") && !old.contains("# UNIT"));
    let names = |page: &str| {
        // OpenMetrics wants the bounds of buckets written as fractions, and the samples of a histogram in another order.
        let number = |bound: &mut String| *bound = bound.parse::<f64>().expect("a bound is a number").to_string();
        let samples = Parsed::of(page).samples.into_iter();
        let with_bounds = samples.map(|mut sample| {
            sample.labels.get_mut("le").into_iter().for_each(number);
            (sample.name, sample.labels)
        });
        let mut all: Vec<_> = with_bounds.collect();
        all.sort();
        all
    };
    assert_eq!(names(&new), names(&old));
    assert!(old.contains("# TYPE perennial_task_spawned_total counter"), "{old}");
}

#[test]
fn a_scraper_gets_what_it_can_read() {
    let of_prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                         text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::accepted(of_prometheus), Format::OpenMetrics);
    assert_eq!([Format::accepted(""), Format::accepted("*/*")], [Format::Prometheus; 2]);
    assert!(Format::OpenMetrics.content_type().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(Format::Prometheus.content_type().starts_with("text/plain; version=0.0.4"));
}
