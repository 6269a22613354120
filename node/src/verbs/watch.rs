//! `perennial status --watch`: the same page again and again, until the node ends or the person has seen enough.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    cli::AskArgs,
    client::{self, api::Api},
    control::protocol::Status,
    exit::{Exit, Failure},
    tables,
};

/// Clears the screen and what has scrolled off it, and goes to its first place.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Shows the status every `pause`. On a terminal each page takes the place of the last one; elsewhere they follow each
/// other, with `--json` one object per line.
///
/// # Errors
///
/// The node has ended, which is the only way this ends by itself; or standard output is gone.
pub(crate) async fn status(args: &AskArgs, pause: Duration) -> Result<Exit, Failure> {
    let api = Api::new(args)?;
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let clears = !args.json && io::stdout().is_terminal();
    loop {
        ticks.tick().await;
        let status: Status = api.get("/v1/status").await?;
        match (args.json, clears) {
            (true, _) => client::print_json(&status)?,
            (false, true) => client::print(&format!("{CLEAR}{}", tables::status(&status)))?,
            (false, false) => client::print(&format!("{}\n", tables::status(&status)))?,
        };
    }
}
