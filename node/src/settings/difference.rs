//! What differs between the settings a node runs with and those it has just read, and what of it can be taken over without
//! a restart. `[pure]`

use std::collections::BTreeMap;

use iroh::{EndpointAddr, EndpointId};
use perennial::Limits;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::{LIMIT_TABLE, Problem, Setting, Settings};
use crate::names::PeerName;

/// The settings that a running node takes over. All limits are, too.
const RELOADABLE: &[&str] = &["known", "deny", "max_connections", "log"];

/// One setting that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Change {
    /// As in the settings file; a limit as `limits.NAME`.
    pub(crate) name: String,
    pub(crate) from: Json,
    pub(crate) to: Json,
}

/// Everything that differs.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    pub(crate) can_apply: Vec<Change>,
    pub(crate) needs_restart: Vec<Change>,
    /// The limits among them, as the mesh takes them.
    pub(crate) limits: BTreeMap<&'static str, u64>,
    pub(crate) lists: Lists,
}

/// What becomes of the lists. Nodes that were allowed or denied at run time are on neither side and stay as they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lists {
    /// Taken off the list of known nodes. Those that are denied or named by `join` are not.
    pub(crate) unknown: Vec<EndpointId>,
    /// Taken off the list of denied nodes. Those that are known from here on are not.
    pub(crate) forgiven: Vec<EndpointId>,
    pub(crate) known: Vec<EndpointAddr>,
    pub(crate) denied: Vec<EndpointId>,
}

impl Settings {
    /// What has to change so that `self` becomes `new`.
    pub(crate) fn difference(&self, new: &Settings) -> Result<Difference, Problem> {
        let (running, wanted) = (self.effective_limits()?, new.effective_limits()?);
        let mut difference = Difference { lists: self.lists(new), ..Difference::default() };
        for (from, to) in self.entries(&running).into_iter().zip(new.entries(&wanted)) {
            if from.value == to.value {
                continue;
            }
            let is_limit = to.name.starts_with(LIMIT_TABLE);
            let list = match is_limit || RELOADABLE.contains(&to.name.as_str()) {
                true => &mut difference.can_apply,
                false => &mut difference.needs_restart,
            };
            list.push(Change { name: to.name, from: from.value, to: to.value });
        }
        let changed = |name: &&&str| running.get(name) != wanted.get(name);
        let limits = Limits::CHANGEABLE.iter().filter(changed).filter_map(|name| Some((*name, wanted.get(name)?)));
        difference.limits = limits.collect();
        Ok(difference)
    }

    /// What a node runs with after it has taken over from `new` what it could.
    pub(crate) fn taken_over(&self, new: Settings) -> Settings {
        let Settings { known, deny, max_connections, limits, log, .. } = new;
        Settings { known, deny, max_connections, limits, log, ..self.clone() }
    }

    fn lists(&self, new: &Settings) -> Lists {
        let has = |peers: &Setting<Vec<PeerName>>, id: EndpointId| peers.iter().any(|peer| peer.0.id == id);
        let gone = |old: &Setting<Vec<PeerName>>, new: &Setting<Vec<PeerName>>| -> Vec<EndpointId> {
            old.iter().map(|peer| peer.0.id).filter(|id| !has(new, *id)).collect()
        };
        let mut unknown = gone(&self.known, &new.known);
        unknown.retain(|id| !has(&new.deny, *id) && !has(&self.join, *id));
        let mut forgiven = gone(&self.deny, &new.deny);
        forgiven.retain(|id| !has(&new.known, *id));
        let is_new = |peer: &&PeerName| !self.known.contains(peer);
        let denied = new.deny.iter().map(|peer| peer.0.id).filter(|id| !has(&self.deny, *id));
        Lists {
            unknown,
            forgiven,
            known: new.known.iter().filter(is_new).map(|peer| peer.0.clone()).collect(),
            denied: denied.collect(),
        }
    }
}
