//! What a machine's abilities mean for the scenarios, and what would mend a lack. `[pure]`
//!
//! How they are found out is `machine.rs`.

use serde::Serialize;

use super::machine::{Binary, Machine};

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub state: State,
    pub name: &'static str,
    pub found: String,
    pub means: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How well the machine serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// As it should be.
    Fine,
    /// Everything runs, and some figures mean less.
    Poor,
    /// What is named cannot run.
    Lacking,
}

impl State {
    /// Fit for a column of eight.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Poor => "poor",
            Self::Lacking => "lacking",
        }
    }
}

/// Below it the observer and the storm share one processor.
const CPUS_WANTED: usize = 2;

/// Twelve nodes, 25 MiB each, take a third of it.
const MEMORY_WANTED_BYTES: u64 = 1 << 30;

/// Load per processor above which other work decides what is measured.
const LOAD_WANTED: f64 = 0.5;

/// A node holds some 14, the harness a few for each; room for two hundred nodes.
const OPEN_FILES_WANTED: u64 = 1024;

/// What Linux gives a socket that asks for nothing: some 90 full datagrams.
const RECEIVE_BUFFER_WANTED_BYTES: u64 = 212_992;

/// Everything, in the order of worth.
pub(crate) fn checks(machine: &Machine) -> Vec<Check> {
    let mut checks = vec![cpus(machine), memory(machine), load(machine)];
    checks.extend(machine.binaries.iter().map(binary));
    checks.extend([open_files(machine), receive_buffer(machine), loopback_range(machine), root(machine)]);
    checks.extend(machine.programs.iter().map(|(tool, path)| {
        let means = match tool.program {
            "ip" => "hosts: partition, netem, churn-path",
            "nft" => "cuts between hosts: partition, netem, churn-path",
            _ => "small disks: disk-full",
        };
        match path {
            Some(path) => fine(tool.program, path.display().to_string(), means),
            None => lacking(tool.program, "not found", means, format!("apt-get install -y {}", tool.package)),
        }
    }));
    checks.extend([network(machine), disk(machine), clock(machine), leftovers(machine)]);
    checks
}

fn cpus(machine: &Machine) -> Check {
    let means = "every scenario; with one, nodes starve the observer and its times mean nothing";
    match machine.cpus {
        Some(cpus) if cpus >= CPUS_WANTED => fine("processors", cpus.to_string(), means),
        cpus => poor("processors", told(cpus), means, format!("a machine with at least {CPUS_WANTED}")),
    }
}

fn memory(machine: &Machine) -> Check {
    let means = "every scenario: some 25 MiB for each node, and 87 KiB for each stranger of a flood in a stock victim";
    let found = machine.memory_available_bytes.map(|bytes| format!("{} MiB available", bytes >> 20));
    match machine.memory_available_bytes {
        Some(bytes) if bytes >= MEMORY_WANTED_BYTES => fine("memory", told(found), means),
        _ => poor("memory", told(found), means, "end other programs, or take fewer nodes with --nodes".into()),
    }
}

fn load(machine: &Machine) -> Check {
    let means = "delivery times and every comparison; a busy machine makes them unknown, not worse";
    let bound = machine.cpus.unwrap_or(1) as f64 * LOAD_WANTED;
    let found = machine.load.map(|load| format!("{load:.2} in the last minute"));
    match machine.load {
        Some(load) if load <= bound => fine("load", told(found), means),
        _ => poor("load", told(found), means, format!("wait until it is below {bound:.1}")),
    }
}

fn binary(binary: &Binary) -> Check {
    let (means, build) = match binary.name {
        "perennial" => (
            "the subject of every scenario; its heap is judged (I7, I8, I10) where it tells it",
            "cargo build --release -p perennial-node -p perennial-soak --features perennial-node/soak",
        ),
        "perennial-soak-stock" => ("the opponent: compare, mixed, flood", "cargo build --release -p perennial-soak"),
        _ => ("selftest", "cargo build --release -p perennial-soak"),
    };
    let path = binary.path.display();
    match (&binary.tells_heap, binary.is_there) {
        (_, false) => lacking(binary.name, format!("not at {path}"), means, build.into()),
        (None, true) => fine(binary.name, path.to_string(), means),
        (Some(Ok(true)), true) => fine(binary.name, format!("{path}, tells its heap"), means),
        (Some(Ok(false)), true) => poor(binary.name, format!("{path}, does not tell its heap"), means, build.into()),
        (Some(Err(words)), true) => lacking(binary.name, format!("{path}: {words}"), means, build.into()),
    }
}

fn open_files(machine: &Machine) -> Check {
    let means = "descriptors of one process: the harness holds a few for every node";
    match machine.open_files_max {
        Some(max) if max >= OPEN_FILES_WANTED => fine("open files", max.to_string(), means),
        max => poor("open files", told(max), means, format!("ulimit -n {OPEN_FILES_WANTED}")),
    }
}

fn receive_buffer(machine: &Machine) -> Check {
    let means = "a burst beyond it is dropped by the kernel: flood counts these drops apart, as the machine's";
    let found = machine.receive_buffer_bytes.map(|(default, max)| format!("{default} bytes, at most {max}"));
    match machine.receive_buffer_bytes {
        Some((default, _)) if default >= RECEIVE_BUFFER_WANTED_BYTES => fine("udp buffer", told(found), means),
        _ => {
            let mend = format!("sysctl -w net.core.rmem_default={RECEIVE_BUFFER_WANTED_BYTES}");
            poor("udp buffer", told(found), means, mend)
        }
    }
}

fn loopback_range(machine: &Machine) -> Check {
    let means = "spoofed sources: flood spoofed, flood mix";
    match &machine.loopback_range {
        Ok(()) => fine("127.0.0.0/8", "every address can be bound".into(), means),
        Err(words) => lacking("127.0.0.0/8", words, means, "ip addr add 127.0.0.1/8 dev lo".into()),
    }
}

fn root(machine: &Machine) -> Check {
    let means = "namespaces and mounts: partition, netem, churn-path, disk-full";
    match machine.is_root {
        true => fine("root", "yes".into(), means),
        false => lacking("root", "no", means, "run it as root".into()),
    }
}

fn network(machine: &Machine) -> Check {
    let means = "hosts, cuts and the switch, tried with two: partition, netem, churn-path";
    match &machine.network {
        Ok(took) => fine("hosts", format!("made in {} ms", took.as_millis()), means),
        Err(words) => {
            lacking("hosts", words, means, "what it says; a kernel needs veth, bridge, tun, nf_tables".into())
        }
    }
}

fn disk(machine: &Machine) -> Check {
    let means = "a tmpfs that was filled and freed: disk-full";
    match &machine.disk {
        Ok(()) => fine("small disk", "yes".into(), means),
        Err(words) => lacking("small disk", words, means, "what it says; a container needs CAP_SYS_ADMIN".into()),
    }
}

fn clock(machine: &Machine) -> Check {
    let means = "a wall clock that was a day ahead: clock";
    match &machine.clock {
        Ok(()) => fine("wall clock", "libfaketime works".into(), means),
        Err(words) => lacking("wall clock", words, means, "apt-get install -y libfaketime".into()),
    }
}

fn leftovers(machine: &Machine) -> Check {
    let means = "namespaces and mounts of killed runs; each start removes them";
    match machine.leftovers {
        (0, _) => fine("leftovers", "none".into(), means),
        (found, 0) => fine("leftovers", format!("{found}, removed"), means),
        (_, still) => poor("leftovers", still.to_string(), means, "run it as root".into()),
    }
}

fn fine(name: &'static str, found: String, means: &str) -> Check {
    Check { state: State::Fine, name, found, means: means.into(), mend: None }
}

fn poor(name: &'static str, found: String, means: &str, mend: String) -> Check {
    Check { state: State::Poor, name, found, means: means.into(), mend: Some(mend) }
}

fn lacking(name: &'static str, found: impl Into<String>, means: &str, mend: String) -> Check {
    Check { state: State::Lacking, name, found: found.into(), means: means.into(), mend: Some(mend) }
}

fn told(found: Option<impl ToString>) -> String {
    found.map_or_else(|| "the kernel does not tell".into(), |found| found.to_string())
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use perennial_soak::netns::tools;

    use super::*;

    fn good() -> Machine {
        Machine {
            cpus: Some(2),
            memory_available_bytes: Some(8 << 30),
            load: Some(0.1),
            is_root: true,
            programs: vec![(tools::IP, Some("ip".into())), (tools::NFT, Some("nft".into()))],
            network: Ok(Duration::from_millis(60)),
            disk: Ok(()),
            clock: Ok(()),
            open_files_max: Some(1024),
            receive_buffer_bytes: Some((212_992, 4 << 20)),
            loopback_range: Ok(()),
            leftovers: (3, 0),
            binaries: vec![subject(true, Some(Ok(true)))],
        }
    }

    fn subject(is_there: bool, tells_heap: Option<Result<bool, String>>) -> Binary {
        Binary { name: "perennial", path: PathBuf::from("perennial"), is_there, tells_heap }
    }

    fn not_fine(machine: &Machine) -> Vec<(&'static str, State)> {
        let checks = checks(machine);
        assert!(checks.iter().all(|check| check.mend.is_some() == (check.state != State::Fine)), "{checks:?}");
        let not_fine = checks.iter().filter(|check| check.state != State::Fine);
        not_fine.map(|check| (check.name, check.state)).collect()
    }

    #[test]
    fn a_good_machine_lacks_nothing() {
        assert_eq!(not_fine(&good()), []);
    }

    #[test]
    fn what_is_missing_keeps_scenarios_from_running() {
        let machine = Machine {
            is_root: false,
            programs: vec![(tools::NFT, None)],
            network: Err("no".into()),
            disk: Err("no".into()),
            clock: Err("no".into()),
            loopback_range: Err("no".into()),
            binaries: vec![subject(false, None), subject(true, Some(Err("it does not start".into())))],
            ..good()
        };
        let names = ["perennial", "perennial", "127.0.0.0/8", "root", "nft", "hosts", "small disk", "wall clock"];
        assert_eq!(not_fine(&machine), names.map(|name| (name, State::Lacking)));
    }

    #[test]
    fn what_is_scarce_or_unknown_only_makes_figures_poor() {
        let machine = Machine {
            cpus: None,
            memory_available_bytes: Some(1 << 20),
            load: Some(3.1),
            open_files_max: Some(256),
            receive_buffer_bytes: None,
            leftovers: (2, 2),
            binaries: vec![subject(true, Some(Ok(false)))],
            ..good()
        };
        let names = ["processors", "memory", "load", "perennial", "open files", "udp buffer", "leftovers"];
        assert_eq!(not_fine(&machine), names.map(|name| (name, State::Poor)));
    }
}
