//! The verbs about who gets in: `limits`, `allow`, `deny`, `forget`, `connections`.

use std::collections::BTreeMap;

use super::{api::Api, print_json, print_view};
use crate::{
    cli::{ConnectionsArgs, LimitsArgs, LimitsVerb, SetLimitsArgs, StandingArgs},
    control::protocol::door::{ClosedConnections, Connections, LimitsView, SetLimits, StandingChanged, StandingOrder},
    exit::{Exit, Failure},
    names::short,
    output::say,
    tables,
};

pub(crate) async fn limits(args: &LimitsArgs) -> Result<Exit, Failure> {
    match &args.verb {
        Some(LimitsVerb::Set(set)) => set_limits(set).await,
        None => {
            let limits: LimitsView = Api::new(&args.ask)?.get("/v1/limits").await?;
            print_view(args.ask.json, &limits, || tables::door::limits(&limits))
        }
    }
}

async fn set_limits(args: &SetLimitsArgs) -> Result<Exit, Failure> {
    let mut changes = BTreeMap::new();
    for change in &args.changes {
        if let Some(earlier) = changes.insert(change.name.clone(), change.value) {
            let sentence = format!("{} is given twice, with {earlier} and {}", change.name, change.value);
            return Err(Failure::new(Exit::Usage, sentence));
        }
    }
    let order = SetLimits { changes, evict: args.evict };
    let limits: LimitsView = Api::new(&args.ask)?.post("/v1/limits", &order).await?;
    if args.ask.json {
        return print_json(&limits);
    }
    let set: Vec<String> = args.changes.iter().map(ToString::to_string).collect();
    say(format_args!("set {}", set.join(", ")));
    Ok(Exit::Ok)
}

pub(crate) async fn allow(args: &StandingArgs) -> Result<Exit, Failure> {
    change_standing(args, "/v1/allow").await
}

pub(crate) async fn deny(args: &StandingArgs) -> Result<Exit, Failure> {
    change_standing(args, "/v1/deny").await
}

pub(crate) async fn forget(args: &StandingArgs) -> Result<Exit, Failure> {
    change_standing(args, "/v1/forget").await
}

async fn change_standing(args: &StandingArgs, path: &str) -> Result<Exit, Failure> {
    let order = StandingOrder { peer: args.node.to_string() };
    let changed: StandingChanged = Api::new(&args.ask)?.post(path, &order).await?;
    if args.ask.json {
        return print_json(&changed);
    }
    say(format_args!("{} is {} (was {})", short(&changed.id), changed.standing, changed.before));
    Ok(Exit::Ok)
}

pub(crate) async fn connections(args: &ConnectionsArgs) -> Result<Exit, Failure> {
    let api = Api::new(&args.ask)?;
    let sort = args.sort.map(|order| format!("&sort={}", order.name())).unwrap_or_default();
    let limit = args.limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
    if args.closed {
        let closed: ClosedConnections = api.get(&format!("/v1/connections?closed=true{sort}{limit}")).await?;
        return print_view(args.ask.json, &closed, || tables::door::closed_connections(&closed));
    }
    let live: Connections = api.get(&format!("/v1/connections?closed=false{sort}{limit}")).await?;
    print_view(args.ask.json, &live, || tables::door::connections(&live))
}
