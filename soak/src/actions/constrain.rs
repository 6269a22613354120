//! A node that is started with too little of something: it runs, or it says what it lacks.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use perennial_soak::place::isolate;
use tokio::process::Command;

use super::Done;
use crate::{
    cluster::{Cluster, Fault},
    plan::{OBSERVER, Resource},
};

/// util-linux.
const PRLIMIT: &str = "/usr/bin/prlimit";

/// How long a node that has started is left running. It ends when its stdin does, which is at once.
const RUN_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts one more node under a limit and looks at how it ends.
pub(super) async fn constrain(cluster: &Cluster, resource: Resource, value: u64) -> Result<Done, Fault> {
    let mut done = Done { action: "constrain", node: OBSERVER, touching: true, ..Done::default() };
    let option = match resource {
        Resource::Descriptors => format!("--nofile={value}"),
        Resource::AddressSpace => format!("--as={value}"),
    };
    let directory = tempfile::tempdir().map_err(|error| format!("cannot make a temporary directory: {error}"))?;
    let mut command = Command::new(PRLIMIT);
    command.arg(&option).arg(&cluster.seat(OBSERVER).bin).args(["up", "--json", "--pipe", "--topic", "alone"]);
    command.arg("--until-stdin-closes").arg("--control").arg(directory.path().join("n.sock"));
    isolate(&mut command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(RUN_TIMEOUT, command.output()).await;
    let output = match ended {
        Ok(output) => output.map_err(|error| format!("cannot run {PRLIMIT}: {error}"))?,
        Err(_) => return Err(format!("a node with {option} neither ran nor ended within {} s", RUN_TIMEOUT.as_secs())),
    };
    let (started, refused) = (output.status.success(), refused_with_a_reason(&output));
    done.observed.push(("started", f64::from(u8::from(started))));
    done.observed.push(("refused with a reason", f64::from(u8::from(refused))));
    done.observed.push(("ended without a reason", f64::from(u8::from(!started && !refused))));
    if !started && !refused {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned();
        done.faults.push(format!("a node with {option} ended with {} and said: {last}", output.status));
    }
    Ok(done)
}

/// An exit code of its own and a line that begins as errors do; no panic.
fn refused_with_a_reason(output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    let has_reason = said.lines().any(|line| line.starts_with("error: "));
    output.status.code().is_some_and(|code| code > 0 && code != 101) && has_reason && !said.contains("panicked at")
}
