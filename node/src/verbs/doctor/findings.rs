//! What `doctor` makes of what it sees: each finding is fine, a warning or a failure, and says what would mend it. `[pure]`
//!
//! The looking is in `verbs/doctor.rs`.

use perennial::{MeshBuilder, Vitals};
use serde::Serialize;

use crate::{
    control::protocol::{Status, health::Readiness},
    exit::{Exit, Failure},
    lines::VERSION,
    names::short,
    tables::counted,
};

/// How a finding comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Ok,
    /// The node will run, not as well as it could.
    Warn,
    /// The node will not start, or does not do its work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) finding: String,
    /// What would mend it; null where nothing has to be.
    pub(crate) cure: Option<String>,
}

/// `doctor`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    v: u8,
    pub(crate) failed: usize,
    pub(crate) warned: usize,
    pub(crate) checks: Vec<Finding>,
}

impl Report {
    pub(crate) fn new(checks: Vec<Finding>) -> Self {
        let count = |verdict| checks.iter().filter(|one| one.verdict == verdict).count();
        Self { v: VERSION, failed: count(Verdict::Fail), warned: count(Verdict::Warn), checks }
    }
}

pub(crate) fn fine(check: &'static str, finding: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Ok, finding: finding.into(), cure: None }
}

pub(crate) fn warning(check: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Warn, finding: finding.into(), cure: Some(cure.into()) }
}

/// What `up` would end with. Its sentences say themselves what would be right, most of them after the last semicolon.
pub(crate) fn failure(check: &'static str, failure: &Failure) -> Finding {
    let (finding, cure) = match failure.sentence.rsplit_once("; ") {
        Some((finding, cure)) => (finding.to_owned(), Some(cure.to_owned())),
        None => (failure.sentence.clone(), None),
    };
    Finding { check, verdict: Verdict::Fail, finding, cure }
}

/// What iroh asks the kernel for, per socket and direction.
const UDP_BUFFER_WANTED: u64 = 7 << 20;

/// The kernel's own default is a thirtieth of what is wanted; from a quarter on, a burst of a hundred full frames of every
/// neighbour fits. Guess.
const UDP_BUFFER_ENOUGH: u64 = UDP_BUFFER_WANTED / 4;

/// The buffers a socket may get, by the kernel's limits for receiving and sending.
pub(crate) fn udp_buffers(receive_max: Option<u64>, send_max: Option<u64>) -> Finding {
    let (Some(receive_max), Some(send_max)) = (receive_max, send_max) else {
        return fine("udp buffers", "the system does not tell");
    };
    let finding = format!("{} KiB for receiving, {} KiB for sending", receive_max >> 10, send_max >> 10);
    if receive_max.min(send_max) >= UDP_BUFFER_ENOUGH {
        return fine("udp buffers", finding);
    }
    let setting = |name: &str| format!("net.core.{name}={UDP_BUFFER_WANTED}");
    let cure = format!("bursts get lost; run: sysctl -w {} {}", setting("rmem_max"), setting("wmem_max"));
    warning("udp buffers", finding, cure)
}

/// Descriptors beyond what a node needs to start: for its connections' sockets there is no need, but state files, clients
/// of its doors and the resolver come and go. Guess.
const DESCRIPTORS_ENOUGH: u64 = 1024;

/// What this process, and so a node started from the same shell, may use.
pub(crate) fn process(vitals: &Vitals) -> Finding {
    if let Err(error) = MeshBuilder::check_process(vitals) {
        return failure("descriptors", &Failure::new(Exit::Config, error.to_string()));
    }
    match vitals.fds_max {
        Some(max) if max < DESCRIPTORS_ENOUGH => {
            let finding = format!("{max} may be open at one time");
            warning("descriptors", finding, format!("run: ulimit -n {DESCRIPTORS_ENOUGH}"))
        }
        Some(max) => fine("descriptors", format!("{max} may be open at one time")),
        None => fine("descriptors", "any number may be open"),
    }
}

/// The budget against what the machine has.
pub(crate) fn memory(budget: Option<u64>, machine: Option<u64>) -> Finding {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    match (budget, machine) {
        (Some(budget), Some(machine)) if budget > machine => {
            let finding = format!("--memory-budget is {}, the machine has {}", mib(budget), mib(machine));
            warning("memory", finding, format!("choose a budget below {}", mib(machine)))
        }
        (Some(budget), _) => fine("memory", format!("the budget is {}", mib(budget))),
        (None, Some(machine)) => fine("memory", format!("the machine has {}; no budget is watched", mib(machine))),
        (None, None) => fine("memory", "no budget is watched"),
    }
}

/// 2026-01-01. Nothing of this program is older.
const NOT_BEFORE: u64 = 1_767_225_600;

/// A century later no clock is right either.
const NOT_AFTER: u64 = NOT_BEFORE + 100 * 365 * 24 * 3600;

/// Seconds since 1970 by the system's clock. A clock that is years off breaks TLS to relays and every log.
pub(crate) fn clock(unix_seconds: Option<u64>) -> Finding {
    match unix_seconds {
        Some(now) if (NOT_BEFORE..NOT_AFTER).contains(&now) => fine("clock", "plausible"),
        Some(_) | None => {
            let cure = "set the clock; relays are not believed, and logs are in the wrong year";
            Finding {
                check: "clock",
                verdict: Verdict::Fail,
                finding: "the system's clock is years off".into(),
                cure: Some(cure.into()),
            }
        }
    }
}

pub(crate) fn ipv6(is_there: bool) -> Finding {
    match is_there {
        true => fine("ipv6", "there is IPv6 on this machine"),
        false => {
            let cure = "turn IPv6 on if nodes that have nothing else are to be met";
            warning("ipv6", "there is no IPv6 on this machine; nodes are met over IPv4 only", cure)
        }
    }
}

/// Whether the node that runs is ready.
pub(crate) fn node(readiness: &Readiness, status: &Status) -> Finding {
    let (who, neighbors) = (short(&status.id), counted(status.neighbors as u64, "neighbor"));
    let wrong: Vec<&str> = readiness.checks.iter().filter(|check| !check.ok).map(|check| &*check.reason).collect();
    match wrong.is_empty() {
        true => fine("node", format!("{who} is ready and has {neighbors}")),
        false => Finding {
            check: "node",
            verdict: Verdict::Fail,
            finding: format!("{who} is not ready: {}", wrong.join(", ")),
            cure: Some("see `perennial status` and its log".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_udp_buffers_come_with_the_command_that_mends_them() {
        let found = udp_buffers(Some(212_992), Some(4 << 20));
        assert_eq!(found.verdict, Verdict::Warn);
        assert_eq!(found.finding, "208 KiB for receiving, 4096 KiB for sending");
        let cure = "bursts get lost; run: sysctl -w net.core.rmem_max=7340032 net.core.wmem_max=7340032";
        assert_eq!(found.cure.as_deref(), Some(cure));
        assert_eq!(udp_buffers(Some(4 << 20), Some(4 << 20)).verdict, Verdict::Ok);
        assert_eq!(udp_buffers(None, None).verdict, Verdict::Ok, "what is not told is not blamed");
    }

    #[test]
    fn too_few_descriptors_fail_as_the_node_would_and_few_are_a_warning() {
        let of = |max| process(&Vitals { fds_max: Some(max), ..Vitals::default() });
        assert_eq!([255, 256, 1024].map(|max| of(max).verdict), [Verdict::Fail, Verdict::Warn, Verdict::Ok]);
        assert_eq!(of(255).finding, "this process may open 255 descriptors");
        assert_eq!(of(255).cure.as_deref(), Some("a node needs at least 256 (ulimit -n)"));
        assert_eq!(process(&Vitals::default()).verdict, Verdict::Ok);
    }

    #[test]
    fn a_budget_beyond_the_machine_and_a_clock_of_another_century_are_seen() {
        assert_eq!(memory(Some(2 << 30), Some(1 << 30)).verdict, Verdict::Warn);
        assert_eq!(memory(Some(1 << 29), Some(1 << 30)).verdict, Verdict::Ok);
        assert_eq!(memory(None, None).verdict, Verdict::Ok);
        assert_eq!([Some(0), Some(NOT_AFTER), None].map(|now| clock(now).verdict), [Verdict::Fail; 3]);
        assert_eq!(clock(Some(NOT_BEFORE + 1)).verdict, Verdict::Ok);
    }

    #[test]
    fn a_failure_of_the_node_is_cut_into_what_is_wrong_and_what_would_be_right() {
        let found = failure("settings", &Failure::new(Exit::Config, "a is b; leave out one"));
        assert_eq!((found.finding.as_str(), found.cure.as_deref()), ("a is b", Some("leave out one")));
        assert_eq!(failure("settings", &Failure::new(Exit::Config, "all is lost")).cure, None);
        let report = Report::new(vec![found, fine("clock", "plausible"), ipv6(false)]);
        assert_eq!((report.failed, report.warned), (1, 1));
    }
}
