//! `perennial drain`: the node takes no more work, says goodbye and ends; with `--wait` this is watched to its end.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    cli::DrainArgs,
    client::{self, api::Api},
    control::protocol::{Status, health::Draining},
    exit::{Exit, Failure},
    output::say,
    verbs::progress::Progress,
};

/// A drain takes ten seconds at most, and what is answered and printed meanwhile a few more.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);

/// How often the node is asked how far it is.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A node that is ending may not answer any more; then the next look tells.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) async fn drain(args: &DrainArgs) -> Result<Exit, Failure> {
    let api = Api::new(&args.ask)?;
    let draining: Draining = api.order("/v1/drain").await?;
    if args.ask.json {
        client::print_json(&draining)?;
    }
    if !args.wait {
        if !args.ask.json {
            say("the node is draining");
        }
        return Ok(Exit::Ok);
    }
    let begun = Instant::now();
    until_ended(api.within(LOOK_TIMEOUT), begun + DRAINED_WITHIN).await?;
    if !args.ask.json {
        say(format_args!("the node has ended, after {:.1} s", begun.elapsed().as_secs_f64()));
    }
    Ok(Exit::Ok)
}

async fn until_ended(api: Api, deadline: Instant) -> Result<(), Failure> {
    let progress = Progress::begin("the node is draining");
    let mut was_gone = false;
    loop {
        match api.get::<Status>("/v1/status").await {
            Ok(status) => {
                let (connections, neighbors) = (status.connections, status.neighbors);
                progress.update(format!("{connections} connections, {neighbors} neighbors left"));
                was_gone = false;
            }
            // The first time it may only have closed this one connection.
            Err(failure) if failure.exit == Exit::NoNode && was_gone => return Ok(()),
            Err(failure) => was_gone = failure.exit == Exit::NoNode,
        }
        if Instant::now() >= deadline {
            let sentence = format!("the node has not ended within {} s", DRAINED_WITHIN.as_secs());
            return Err(Failure::new(Exit::Unavailable, sentence));
        }
        sleep(LOOK_PAUSE).await;
    }
}
