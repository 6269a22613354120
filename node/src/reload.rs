//! Reading the settings anew while the node runs: what can be taken over is, all of it or nothing, and the rest is named.
//!
//! What differs is told by `settings/difference.rs`. Called on SIGHUP and by the control API.

use std::{sync::Arc, time::Duration};

use perennial::{LimitsReport, Mesh, MeshGone, SetLimitsError, Standing};
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, task::block_in_place, time::timeout};
use utoipa::ToSchema;

use crate::{
    cli::Given,
    config,
    exit::{Exit, Failure},
    lines::VERSION,
    names::short,
    node::Node,
    service,
    settings::{
        self, Settings,
        difference::{Change, Difference, Lists},
    },
    telemetry::LogControl,
};

/// The mesh answers within milliseconds; this long it is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReloadReport {
    pub(crate) v: u8,
    /// What is different from here on.
    pub(crate) applied: Vec<Change>,
    /// What differs from what the node runs with, and stays so until it is started anew.
    pub(crate) needs_restart: Vec<Change>,
}

/// The settings a node runs with, and what it takes to read them anew. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    given: Given,
    log: LogControl,
    settings: Mutex<Settings>,
}

impl Running {
    /// A node that runs with `settings`, which came of what was `given`.
    pub(crate) fn new(given: Given, settings: Settings, log: LogControl) -> Self {
        Self { shared: Arc::new(Shared { given, log, settings: Mutex::new(settings) }) }
    }
}

/// Reads the settings anew and takes over what can be.
///
/// # Errors
///
/// Settings that cannot be; a mesh that is ending or does not answer. Then nothing has changed.
pub(crate) async fn reload(node: &Node) -> Result<ReloadReport, Failure> {
    service::reloading();
    let reloaded = try_reload(node).await;
    match &reloaded {
        Ok(report) => {
            tell(report);
            service::ready("ready");
        }
        Err(failure) => {
            for sentence in failure.sentence.lines() {
                tracing::error!("settings not reloaded, nothing was changed: {sentence}");
            }
            let first = failure.sentence.lines().next().unwrap_or_default();
            service::ready(format_args!("ready; the last reload was refused: {first}"));
        }
    }
    reloaded
}

async fn try_reload(node: &Node) -> Result<ReloadReport, Failure> {
    let Running { shared } = &node.running;
    // One at a time; each takes seconds at most.
    let mut running = shared.settings.lock().await;
    let refuse = |problems: &[_]| settings::failure(problems);
    let new = block_in_place(|| config::load(&shared.given))?;
    new.builder(Some(node.mesh.id())).map_err(|problems| refuse(&problems))?;
    let difference = running.difference(&new).map_err(|problem| refuse(&[problem]))?;
    let took_over = timeout(ANSWER_TIMEOUT, take_over(&node.mesh, &difference)).await;
    took_over.unwrap_or_else(|_| {
        let sentence = format!("the node did not answer within {} s", ANSWER_TIMEOUT.as_secs());
        Err(Failure::new(Exit::Unavailable, sentence))
    })?;
    if difference.can_apply.iter().any(|change| change.name == "log") {
        shared.log.set(&new.log)?;
    }
    *running = running.taken_over(new);
    Ok(ReloadReport { v: VERSION, applied: difference.can_apply, needs_restart: difference.needs_restart })
}

/// First what can still be refused: the room on the lists is looked at, then the mesh takes all limits or none. From there on
/// nothing waits and nothing fails, unless somebody fills a list at this very moment; then it is told which node had no place.
async fn take_over(mesh: &Mesh, difference: &Difference) -> Result<(), Failure> {
    let lists = &difference.lists;
    check_room(&mesh.limits().await.map_err(gone)?, lists)?;
    if !difference.limits.is_empty() {
        let limits = difference.limits.iter().map(|(name, value)| (*name, *value));
        mesh.set_limits(limits, false).await.map_err(|error| match error {
            SetLimitsError::Gone(error) => gone(error),
            other => Failure::new(Exit::Config, other.to_string()),
        })?;
    }
    let off = |ids: &[iroh::EndpointId], standing| {
        for id in ids.iter().filter(|id| mesh.standing(id) == standing) {
            mesh.forget(id);
        }
    };
    off(&lists.unknown, Standing::Known);
    off(&lists.forgiven, Standing::Denied);
    for peer in lists.known.iter().filter(|peer| peer.id != mesh.id()) {
        if let Err(full) = mesh.allow(peer.id) {
            tracing::warn!(peer = %short(peer.id), %full, "a node of the settings could not be made known");
        }
        mesh.know(peer);
    }
    for id in &lists.denied {
        if let Err(full) = mesh.deny(*id) {
            tracing::warn!(peer = %short(id), %full, "a node of the settings could not be denied");
        }
    }
    Ok(())
}

fn check_room(report: &LimitsReport, lists: &Lists) -> Result<(), Failure> {
    for (setting, name, more) in
        [("known", "known_list", lists.known.len()), ("deny", "denied_list", lists.denied.len())]
    {
        let list = report.uses.iter().find(|limit| limit.name == name).expect("every list is reported");
        if list.in_use + more as u64 > list.max {
            let sentence = format!("{setting} would add {more} nodes to {}; the list holds {}", list.in_use, list.max);
            return Err(Failure::new(Exit::Config, sentence));
        }
    }
    Ok(())
}

fn tell(report: &ReloadReport) {
    for Change { name, from, to } in &report.applied {
        tracing::info!(%name, %from, %to, "setting changed");
    }
    for Change { name, from, to } in &report.needs_restart {
        tracing::warn!(%name, %from, %to, "setting differs from what this node runs with; it needs a restart");
    }
    tracing::info!(applied = report.applied.len(), needs_restart = report.needs_restart.len(), "settings reloaded");
}

fn gone(_: MeshGone) -> Failure {
    Failure::new(Exit::Unavailable, "the node is shutting down")
}
