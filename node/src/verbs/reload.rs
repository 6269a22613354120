//! `perennial reload`: the node reads its settings anew, and says what is different now and what takes a restart.

use serde::{Deserialize, Serialize};

use crate::{
    cli::AskArgs,
    client::{self, api::Api},
    exit::{Exit, Failure},
    output::say,
    tables,
};

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    v: u8,
    /// What is different from here on.
    pub(crate) applied: Vec<Change>,
    /// What differs in the settings, and in the node only once it is started anew.
    pub(crate) needs_restart: Vec<Change>,
}

/// One setting that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) from: serde_json::Value,
    pub(crate) to: serde_json::Value,
}

pub(crate) async fn reload(args: &AskArgs) -> Result<Exit, Failure> {
    let reloaded: Reloaded = Api::new(args)?.order("/v1/reload").await?;
    if args.json {
        return client::print_json(&reloaded);
    }
    if reloaded.applied.is_empty() && reloaded.needs_restart.is_empty() {
        say("nothing has changed");
        return Ok(Exit::Ok);
    }
    client::print(&tables::talk::reloaded(&reloaded))
}
