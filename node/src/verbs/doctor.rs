//! `perennial doctor`: what `up` with the same options would meet on this machine, and whether the node that runs is well.
//!
//! Nothing is started, created or changed. What is made of what is seen is in `doctor/findings.rs`.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use perennial::Vitals;

use crate::{
    cli::{AskArgs, DoctorArgs, UpArgs},
    client::{self, api::Api},
    control::{
        protocol::{Status, health::Readiness},
        socket,
    },
    exit::{Exit, Failure},
    identity::{self, Identity, Source},
    names::short,
    state_dir, tables,
    telemetry::is_colour_wanted,
    up,
};

pub(crate) mod findings;

use findings::{Finding, Report, failure, fine};

/// Long enough for a busy node, and short enough for somebody who waits.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn doctor(args: &DoctorArgs) -> Result<Exit, Failure> {
    let (of_node, node) = running(&args.up).await;
    let mut findings = look(&args.up, node.as_ref());
    findings.push(of_node);
    let report = Report::new(findings);
    let has_colour = is_colour_wanted(&io::stdout());
    client::print_view(args.up.json, &report, || tables::talk::findings(&report, has_colour))?;
    Ok(if report.failed == 0 { Exit::Ok } else { Exit::Failed })
}

/// Whether the node that these options name, or the only one, is ready; and how it is.
async fn running(args: &UpArgs) -> (Finding, Option<Status>) {
    let ask = AskArgs {
        json: args.json,
        control: args.control.as_ref().map(|control| control.at.clone()),
        http: args.http.as_ref().map(|http| http.at),
        http_token_file: args.http_token_file.clone(),
    };
    let asked = async {
        let api = Api::new(&ask)?.within(NODE_TIMEOUT);
        let readiness: Readiness = api.get("/readyz").await?;
        Ok::<_, Failure>((readiness, api.get::<Status>("/v1/status").await?))
    };
    match asked.await {
        Ok((readiness, status)) => (findings::node(&readiness, &status), Some(status)),
        Err(wrong) if wrong.exit == Exit::NoNode => (fine("node", "none is running"), None),
        Err(wrong) => (failure("node", &wrong), None),
    }
}

/// Everything but the node itself.
fn look(args: &UpArgs, node: Option<&Status>) -> Vec<Finding> {
    let vitals = Vitals::read();
    let (key, identity) = key(args);
    let mut findings = vec![key, settings(args, &identity), control_socket(args)];
    findings.extend(args.state_dir.as_deref().map(state_directory));
    findings.extend(listeners(args, node));
    findings.extend([
        findings::process(&vitals),
        findings::memory(args.memory_budget, memory_of_machine()),
        findings::udp_buffers(kernel_limit("rmem_max"), kernel_limit("wmem_max")),
        findings::ipv6(UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()),
        findings::clock(SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())),
    ]);
    findings
}

/// The key a node would have, or in place of one that cannot be used any other.
fn key(args: &UpArgs) -> (Finding, Identity) {
    let any = || Identity { key: iroh::SecretKey::generate(), source: Source::Ephemeral };
    let secret = identity::secret_from_environment();
    let file = args.key_file.as_deref();
    if let Some(file) = file.filter(|file| !file.exists()) {
        let finding = match parent(file) {
            Ok(_) => fine("key", format!("{} is not there yet; `up` creates it", file.display())),
            Err(wrong) => failure("key", &wrong),
        };
        return (finding, any());
    }
    match Identity::existing(file, secret.as_deref()) {
        Ok(Some(key)) => {
            let whose = short(key.public());
            let from = file.map_or(identity::SECRET_VARIABLE.to_owned(), |file| file.display().to_string());
            (fine("key", format!("{from} makes this node {whose}")), Identity { key, source: Source::KeyFile })
        }
        Ok(None) => (fine("key", "none is given, so the identity is forgotten at the end"), any()),
        Err(wrong) => (failure("key", &wrong), any()),
    }
}

fn settings(args: &UpArgs, identity: &Identity) -> Finding {
    match up::check(args, identity) {
        Ok(()) => fine("settings", "hold together"),
        Err(wrong) => failure("settings", &wrong),
    }
}

fn control_socket(args: &UpArgs) -> Finding {
    let checked = match &args.control {
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
fn listeners(args: &UpArgs, node: Option<&Status>) -> Vec<Finding> {
    let free_port = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let addrs = args.listen.iter().map(|listen| listen.addr);
    let addrs: Vec<SocketAddr> = if args.listen.is_empty() { vec![free_port] } else { addrs.collect() };
    let held: &[String] = node.map_or(&[], |node| &node.listen);
    addrs.into_iter().map(|addr| listener(addr, held)).collect()
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
