//! Runs courses, each in a process of its own, and reads the profiles they leave.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::{process::Command, sync::Semaphore, task::JoinSet, time::timeout};

use crate::{
    args::Runs,
    course::{Course, NEIGHBORS_MAX, Peers, Stage, Subject, TripKind},
    heap::{self, Heap},
    walk::Evidence,
};

/// A course has ended within this long, the writing of its profile included: two stages with their rest, and a minute for
/// the symbols on a busy machine.
const COURSE_TIMEOUT: Duration = Duration::from_secs(540);

/// Walks every course, the heaps in the order of the courses. The profile of the course `name` is `DIR/name.json`.
pub(crate) async fn run(courses: &[(&str, Course)], runs: &Runs) -> Result<Vec<Heap>> {
    std::fs::create_dir_all(&runs.out).with_context(|| format!("cannot make {}", runs.out.display()))?;
    let places = Arc::new(Semaphore::new(runs.parallel.into()));
    let mut walks = JoinSet::new();
    for (index, (name, course)) in courses.iter().enumerate() {
        let (course, file, places) = (*course, file(&runs.out, name), places.clone());
        let name = (*name).to_owned();
        walks.spawn(async move {
            let _place = places.acquire_owned().await.expect("the semaphore is never closed");
            let walked = walk(&course, &file).await.with_context(|| format!("checkpoint {name}"));
            walked.map(|file| (index, file))
        });
    }
    let mut files = vec![PathBuf::new(); courses.len()];
    while let Some(walked) = walks.join_next().await {
        match walked? {
            Ok((index, file)) => files[index] = file,
            Err(error) => {
                // The others are of no use any more. Their processes are killed with the tasks.
                walks.shutdown().await;
                return Err(error);
            }
        }
    }
    files.iter().map(|file| read(file)).collect()
}

/// Where the profile of a checkpoint is left.
pub(crate) fn file(out: &Path, checkpoint: &str) -> PathBuf {
    out.join(format!("{checkpoint}.json"))
}

/// Reads a profile.
pub(crate) fn read(file: &Path) -> Result<Heap> {
    let json = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    heap::parse(&json).map_err(|error| anyhow!("{}: {error}", file.display()))
}

async fn walk(course: &Course, file: &Path) -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program cannot be found")?;
    let mut command = Command::new(program);
    command.arg("walk").arg(serde_json::to_string(course)?).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = timeout(COURSE_TIMEOUT, command.output()).await;
    let output = output.with_context(|| format!("not over after {COURSE_TIMEOUT:?}"))??;
    if !output.status.success() {
        // dhat talks on standard error as well; what failed is said last.
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", output.status, said.lines().last().unwrap_or("nothing was said"));
    }
    let evidence: Evidence = serde_json::from_slice(&output.stdout).context("the course told no evidence")?;
    check(course, evidence)?;
    Ok(file.to_owned())
}

/// Whether what was to be measured was there at all.
fn check(course: &Course, evidence: Evidence) -> Result<()> {
    let Course { peers, until, load, subject, trips, .. } = *course;
    let has_peers = (Stage::Joined..Stage::Closed).contains(&until);
    let least = match peers {
        Peers::None => 0,
        Peers::Silent(count) => count as u64,
        Peers::Members(count) => count.min(NEIGHBORS_MAX) as u64,
    };
    if has_peers && evidence.connections < least {
        bail!("{} connections were open at the end, {least} are needed", evidence.connections);
    }
    let dials = (trips.count + trips.kind.warm_up()) as u64;
    if trips.kind == TripKind::HalfOpen && trips.count > 0 && evidence.dials < dials {
        bail!("{} dials were made, {dials} are needed", evidence.dials);
    }
    if until >= Stage::Loaded && subject != Subject::Iroh && evidence.heard < load.heard_min() {
        bail!("{} messages were heard, {} are needed", evidence.heard, load.heard_min());
    }
    Ok(())
}
