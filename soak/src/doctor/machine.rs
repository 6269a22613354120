//! What is found on this machine: read from the kernel where it tells, tried out where it does not. Every trial takes
//! away what it made.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use perennial_soak::{
    netns::{Network, Wiring, leftovers::Leftovers, tools},
    place::{
        Place,
        clock::{WallClock, library},
        disk,
    },
};
use serde_json::json;
use tokio::sync::Notify;

use crate::{
    process::{Launch, Process, Seat},
    socket,
};

/// A node on an idle machine is ready in 50 ms.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Everything a check needs to know. What could not be read is `None`; what did not work says why.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub cpus: Option<usize>,
    pub memory_available_bytes: Option<u64>,
    pub load: Option<f64>,
    pub is_root: bool,
    pub programs: Vec<(tools::Tool, Option<PathBuf>)>,
    /// Two hosts with the switch between them were made; how long it took.
    pub network: Result<Duration, String>,
    pub disk: Result<(), String>,
    pub clock: Result<(), String>,
    pub open_files_max: Option<u64>,
    pub receive_buffer_bytes: Option<(u64, u64)>,
    pub loopback_range: Result<(), String>,
    /// What killed runs had left, and whether it is still there.
    pub leftovers: (usize, usize),
    pub binaries: Vec<Binary>,
}

/// A program of the harness, or a subject.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub name: &'static str,
    pub path: PathBuf,
    pub is_there: bool,
    /// Whether it counts its own heap; `None` for one that is no node.
    pub tells_heap: Option<Result<bool, String>>,
}

impl Machine {
    /// Looks, and tries. Takes about a second.
    pub(crate) async fn look() -> Result<Self> {
        let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
        let harness = std::env::current_exe().context("cannot find this program")?;
        let found = Leftovers::find();
        found.remove();
        let still = Leftovers::find();
        let count = |left: &Leftovers| left.namespaces.len() + left.mounts.len();
        let programs = [tools::IP, tools::NFT, tools::MOUNT, tools::UMOUNT];
        Ok(Self {
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            memory_available_bytes: memory_available(),
            load: read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
            is_root: tools::is_root(),
            programs: programs.map(|tool| (tool, tool.find().ok())).into(),
            network: try_network(&harness).await,
            disk: try_disk(scratch.path()).await,
            clock: try_clock(scratch.path()).await,
            open_files_max: open_files_max(),
            receive_buffer_bytes: number("/proc/sys/net/core/rmem_default").zip(number("/proc/sys/net/core/rmem_max")),
            loopback_range: try_loopback_range(),
            leftovers: (count(&found), count(&still)),
            binaries: binaries(&harness, scratch.path()).await,
        })
    }
}

/// With the switch, so that the device it needs is tried as well.
async fn try_network(harness: &Path) -> Result<Duration, String> {
    let begun = Instant::now();
    let wiring = Wiring::Switch { program: harness.to_owned(), seed: 0 };
    let network = Network::new(2, wiring).await.map_err(|error| error.to_string())?;
    network.tallies().await.map_err(|error| error.to_string())?;
    Ok(begun.elapsed())
}

async fn try_disk(scratch: &Path) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let small = disk::SmallDisk::mount(&scratch.join("disk"), 0, disk::BYTES).await.map_err(|error| words(&error))?;
    small.fill().map_err(|error| words(&error))?;
    small.free().map_err(|error| words(&error))
}

/// Asks a program what time it is, which must not be what it is.
async fn try_clock(scratch: &Path) -> Result<(), String> {
    const DAY_S: i64 = 86_400;
    library().map_err(|error| error.to_string())?;
    let clock = WallClock::new(&scratch.join("clock")).map_err(|error| error.to_string())?;
    clock.set(DAY_S).map_err(|error| error.to_string())?;
    let mut date = tokio::process::Command::new("date");
    clock.apply(&mut date);
    let output = date.arg("+%s").kill_on_drop(true).output().await.map_err(|error| format!("date: {error}"))?;
    let told: Option<i64> = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() as i64);
    match told {
        Some(told) if (told - now - DAY_S).abs() <= 2 => Ok(()),
        Some(_) | None => Err("libfaketime is there and changes nothing".into()),
    }
}

fn try_loopback_range() -> Result<(), String> {
    for address in ["127.0.0.2:0", "127.200.0.1:0", "127.255.255.254:0"] {
        UdpSocket::bind(address).map_err(|error| format!("{address}: {error}"))?;
    }
    Ok(())
}

async fn binaries(harness: &Path, scratch: &Path) -> Vec<Binary> {
    let mut binaries = Vec::new();
    for (name, is_node) in [("perennial", true), ("perennial-soak-stock", true), ("perennial-soak-plant", false)] {
        let path = harness.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        let is_there = path.is_file();
        let tells_heap = if is_node && is_there { Some(tells_heap(&path, scratch, name).await) } else { None };
        binaries.push(Binary { name, path, is_there, tells_heap });
    }
    binaries
}

/// Runs the node and asks it.
async fn tells_heap(bin: &Path, scratch: &Path, name: &str) -> Result<bool, String> {
    let changed = Arc::new(Notify::new());
    let process = Process::start(Launch {
        place: &Place::loopback(),
        node: 0,
        seat: &Seat { bin: bin.to_owned(), ..Seat::default() },
        control: &scratch.join(format!("{name}.sock")),
        key_file: &scratch.join(format!("{name}.key")),
        log: &scratch.join(format!("{name}.log")),
        join: &[],
        listen: None,
        run: "doctor",
        changed: &changed,
    });
    let process = process.map_err(|error| format!("{error:#}"))?;
    let ready = tokio::time::timeout(READY_TIMEOUT, async {
        loop {
            let told = changed.notified();
            tokio::pin!(told);
            // Enabled before the look, so that a change right after it is not missed.
            told.as_mut().enable();
            if process.view().ready.is_some() || process.view().ended {
                return;
            }
            told.await;
        }
    });
    let is_ready = ready.await.is_ok() && process.view().ready.is_some();
    let status = match is_ready {
        true => socket::ask(&process.control, json!({"request": "status"})).await,
        false => Err("it does not start".into()),
    };
    process.kill().await.map_err(|error| format!("{error:#}"))?;
    status.map(|status| status["heap_bytes"].is_u64() || status["heap_bytes"].is_i64())
}

fn open_files_max() -> Option<u64> {
    let limits = read("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn memory_available() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

fn number(path: &str) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}
