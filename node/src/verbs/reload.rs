//! `perennial reload`: the node reads its settings anew, and says what is different now and what takes a restart.

use crate::{
    cli::AskArgs,
    client::{self, api::Api},
    exit::{Exit, Failure},
    output::say,
    reload::ReloadReport,
    tables,
};

pub(crate) async fn reload(args: &AskArgs) -> Result<Exit, Failure> {
    let reloaded: ReloadReport = Api::new(args)?.order("/v1/reload").await?;
    if args.json {
        return client::print_json(&reloaded);
    }
    if reloaded.applied.is_empty() && reloaded.needs_restart.is_empty() {
        say("nothing has changed");
        return Ok(Exit::Ok);
    }
    client::print(&tables::talk::reloaded(&reloaded))
}
