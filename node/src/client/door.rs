//! The verbs about who gets in: `limits`, `allow`, `deny`, `forget`, `connections`.

use std::collections::BTreeMap;

use super::{Question, print_json, print_view};
use crate::{
    cli::{ConnectionsArgs, LimitsArgs, LimitsVerb, SetLimitsArgs, StandingArgs},
    control::protocol::{
        Request,
        door::{ClosedConnections, Connections, LimitsView, StandingChanged},
    },
    exit::{Exit, Failure},
    names::short,
    output::say,
    tables,
};

pub(crate) fn limits(args: &LimitsArgs) -> Result<Exit, Failure> {
    match &args.verb {
        Some(LimitsVerb::Set(set)) => set_limits(set),
        None => {
            let limits: LimitsView = Question::new(&args.ask)?.ask(&Request::Limits)?;
            print_view(args.ask.json, &limits, || tables::door::limits(&limits))
        }
    }
}

fn set_limits(args: &SetLimitsArgs) -> Result<Exit, Failure> {
    let mut changes = BTreeMap::new();
    for change in &args.changes {
        if let Some(earlier) = changes.insert(change.name.clone(), change.value) {
            let sentence = format!("{} is given twice, with {earlier} and {}", change.name, change.value);
            return Err(Failure::new(Exit::Usage, sentence));
        }
    }
    let limits: LimitsView = Question::new(&args.ask)?.ask(&Request::SetLimits { changes, evict: args.evict })?;
    if args.ask.json {
        return print_json(&limits);
    }
    let set: Vec<String> = args.changes.iter().map(ToString::to_string).collect();
    say(format_args!("set {}", set.join(", ")));
    Ok(Exit::Ok)
}

pub(crate) fn allow(args: &StandingArgs) -> Result<Exit, Failure> {
    change_standing(args, &Request::Allow { peer: args.node.to_string() })
}

pub(crate) fn deny(args: &StandingArgs) -> Result<Exit, Failure> {
    change_standing(args, &Request::Deny { peer: args.node.to_string() })
}

pub(crate) fn forget(args: &StandingArgs) -> Result<Exit, Failure> {
    change_standing(args, &Request::Forget { peer: args.node.to_string() })
}

fn change_standing(args: &StandingArgs, request: &Request) -> Result<Exit, Failure> {
    let changed: StandingChanged = Question::new(&args.ask)?.ask(request)?;
    if args.ask.json {
        return print_json(&changed);
    }
    say(format_args!("{} is {} (was {})", short(&changed.id), changed.standing, changed.before));
    Ok(Exit::Ok)
}

pub(crate) fn connections(args: &ConnectionsArgs) -> Result<Exit, Failure> {
    let mut question = Question::new(&args.ask)?;
    if args.closed {
        let closed: ClosedConnections = question.ask(&Request::ClosedConnections)?;
        return print_view(args.ask.json, &closed, || tables::door::closed_connections(&closed));
    }
    let live: Connections = question.ask(&Request::Connections)?;
    print_view(args.ask.json, &live, || tables::door::connections(&live))
}
