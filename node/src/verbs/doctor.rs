//! `perennial doctor`: what `up` with the same options would meet on this machine, and whether the node that runs is well.
//!
//! Nothing is started, created or changed. What is made of what is seen is in `doctor/findings.rs`.

use std::{
    fs, io,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use iroh::EndpointId;
use perennial::Vitals;

use crate::{
    cli::{AskArgs, DoctorArgs},
    client::{self, api::Api},
    config,
    control::{
        protocol::{Status, health::Readiness},
        socket,
    },
    exit::{Exit, Failure},
    identity::{self, Identity},
    names::short,
    settings::{self, Settings},
    state_dir, tables,
    telemetry::{is_colour_wanted, settings::Destination},
};

pub(crate) mod findings;

use findings::{Finding, Report, failure, fine};

/// Long enough for a busy node, and short enough for somebody who waits.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn doctor(args: &DoctorArgs) -> Result<Exit, Failure> {
    // Settings that cannot be read are told, and everything else is looked at as if there were none.
    let (settings, misread) = match config::load(&args.up.given) {
        Ok(settings) => (settings, None),
        Err(wrong) => (Settings::defaults(), Some(failure("settings", &wrong))),
    };
    let (of_node, node) = running(&settings).await;
    let mut findings = look(&settings, misread, node.as_ref());
    findings.push(of_node);
    let report = Report::new(findings);
    let has_colour = is_colour_wanted(&io::stdout());
    client::print_view(args.up.json, &report, || tables::talk::findings(&report, has_colour))?;
    Ok(if report.failed == 0 { Exit::Ok } else { Exit::Failed })
}

/// Whether the node that these options name, or the only one, is ready; and how it is.
async fn running(settings: &Settings) -> (Finding, Option<Status>) {
    let ask = AskArgs {
        json: true,
        control: settings.control.as_ref().map(|control| control.at.clone()),
        http: settings.http.as_ref().map(|http| http.at),
        http_token_file: settings.http_token_file.value.clone(),
    };
    let asked = async {
        let api = Api::new(&ask)?.within(NODE_TIMEOUT);
        let readiness: Readiness = api.get_any("/readyz").await?;
        Ok::<_, Failure>((readiness, api.get::<Status>("/v1/status").await?))
    };
    match asked.await {
        Ok((readiness, status)) => (findings::node(&readiness, &status), Some(status)),
        Err(wrong) if wrong.exit == Exit::NoNode => (fine("node", "none is running"), None),
        Err(wrong) => (failure("node", &wrong), None),
    }
}

/// Everything but the node itself.
fn look(settings: &Settings, misread: Option<Finding>, node: Option<&Status>) -> Vec<Finding> {
    let vitals = Vitals::read();
    let (key, id) = key(settings.key_file.as_deref());
    let mut findings = vec![key, misread.unwrap_or_else(|| contradictions(settings, id)), control_socket(settings)];
    findings.extend(settings.state_dir.as_deref().map(state_directory));
    findings.extend(listeners(settings, node));
    findings.push(telemetry(settings));
    findings.extend([
        findings::process(&vitals),
        findings::memory(settings.memory_budget.map(|size| size.0), memory_of_machine()),
        findings::udp_buffers(kernel_limit("rmem_max"), kernel_limit("wmem_max")),
        findings::ipv6(UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()),
        findings::clock(SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())),
    ]);
    findings
}

/// The key a node would have, and what it makes the node.
fn key(file: Option<&Path>) -> (Finding, Option<EndpointId>) {
    let secret = identity::secret_from_environment();
    if let Some(file) = file.filter(|file| !file.exists()) {
        let finding = match parent(file) {
            Ok(_) => fine("key", format!("{} is not there yet; `up` creates it", file.display())),
            Err(wrong) => failure("key", &wrong),
        };
        return (finding, None);
    }
    match Identity::existing(file, secret.as_deref()) {
        Ok(Some(key)) => {
            let whose = short(key.public());
            let from = file.map_or(identity::SECRET_VARIABLE.to_owned(), |file| file.display().to_string());
            (fine("key", format!("{from} makes this node {whose}")), Some(key.public()))
        }
        Ok(None) => (fine("key", "none is given, so the identity is forgotten at the end"), None),
        Err(wrong) => (failure("key", &wrong), None),
    }
}

fn contradictions(settings: &Settings, id: Option<EndpointId>) -> Finding {
    match settings.builder(id) {
        Ok(_) => fine("settings", "hold together"),
        Err(problems) => failure("settings", &settings::failure(&problems)),
    }
}

fn control_socket(settings: &Settings) -> Finding {
    let checked = match &*settings.control {
        Some(control) => {
            let path = &control.at;
            socket::check_length(path).and_then(|()| parent(path)).map(|_| path.display().to_string())
        }
        None => socket::check_default_directory().map(|directory| format!("in {}", directory.display())),
    };
    match checked {
        Ok(place) => fine("control socket", place),
        Err(wrong) => failure("control socket", &wrong),
    }
}

fn state_directory(directory: &Path) -> Finding {
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(_) => match state_dir::check_directory(directory) {
            Ok(()) => fine("state directory", shown.to_string()),
            Err(wrong) => failure("state directory", &wrong),
        },
        Err(_) => match parent(directory) {
            Ok(_) => fine("state directory", format!("{shown} is not there yet; `up` creates it")),
            Err(wrong) => failure("state directory", &wrong),
        },
    }
}

/// Where telemetry would go. Nobody is asked whether a collector is there: a node does without one.
fn telemetry(settings: &Settings) -> Finding {
    let otlp = match settings.otlp(&|name| std::env::var(name).ok()) {
        Ok(Some(otlp)) => otlp,
        Ok(None) => return fine("telemetry", "is sent to nobody"),
        Err(problem) => return failure("telemetry", &settings::failure(&[problem])),
    };
    let to = |what: &str, to: Option<Destination>| to.map(|to| format!("{what} go to {}", to.endpoint));
    let told: Vec<String> = to("spans", otlp.traces).into_iter().chain(to("figures", otlp.metrics)).collect();
    fine("telemetry", told.join(", "))
}

/// The directory that `path` would be created in.
fn parent(path: &Path) -> Result<&Path, Failure> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match parent.is_dir() {
        true => Ok(parent),
        false => {
            let sentence = format!("there is no directory {}; create it, or choose another place", parent.display());
            Err(Failure::new(Exit::Io, sentence))
        }
    }
}

/// Whether each address can be listened on, by doing it for a moment. What the running node holds is in good hands.
fn listeners(settings: &Settings, node: Option<&Status>) -> Vec<Finding> {
    let held: &[String] = node.map_or(&[], |node| &node.listen);
    settings.listen.iter().map(|listen| listener(listen.addr, held)).collect()
}

fn listener(addr: SocketAddr, held: &[String]) -> Finding {
    let error = match UdpSocket::bind(addr) {
        Ok(_) => return fine("listen", format!("{addr} is free")),
        Err(error) => error,
    };
    if error.kind() == io::ErrorKind::AddrInUse && held.contains(&addr.to_string()) {
        return fine("listen", format!("{addr} is held by the node that runs"));
    }
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => "stop who holds it, or choose another port",
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
        _ => "choose another address",
    };
    failure("listen", &Failure::new(Exit::Io, format!("cannot listen on {addr}: {error}; {cure}")))
}

/// A limit of the kernel in `/proc/sys/net/core`.
fn kernel_limit(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse().ok()
}

fn memory_of_machine() -> Option<u64> {
    let lines = fs::read_to_string("/proc/meminfo").ok()?;
    let total = lines.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
