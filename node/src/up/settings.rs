//! From the flags of `up` to the settings of a mesh, and the contradictions that only the flags can have. `[pure]`
//!
//! What the library refuses itself (limits, caps of listeners) it refuses when the mesh is spawned, in its own words.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
};

use iroh::EndpointId;
use perennial::{Access, Limits, Mesh, MeshBuilder};

use crate::{
    cli::UpArgs,
    exit::{Exit, Failure},
    identity::Identity,
    names::short,
};

/// Two may get lost before a live neighbour is taken for a dead one.
const KEEP_ALIVES_PER_IDLE_TIMEOUT: u32 = 3;

/// A mesh as the flags describe it, not yet spawned.
pub(super) fn builder(args: &UpArgs, identity: &Identity) -> Result<MeshBuilder, Failure> {
    let me = identity.key.public();
    check_ids(args, me)?;
    check_addresses(args)?;
    let builder = Mesh::builder()
        .secret_key(identity.key.clone())
        .relay(args.relay.mode())
        .port_mapping(args.port_mapping)
        .access(args.access.into())
        .limits(limits(args)?);
    let builder = args.listen.iter().fold(builder, |builder, listen| builder.listen(*listen));
    let others = args.known.iter().map(|peer| peer.0.id).filter(|id| *id != me);
    Ok(others.fold(builder, MeshBuilder::known))
}

fn check_ids(args: &UpArgs, me: EndpointId) -> Result<(), Failure> {
    let denied: HashSet<EndpointId> = args.deny.iter().map(|peer| peer.0.id).collect();
    if denied.contains(&me) {
        return Err(impossible(format!("--deny {} names this node itself", short(me))));
    }
    for (flag, peers) in [("--known", &args.known), ("--join", &args.join)] {
        if let Some(both) = peers.iter().find(|peer| denied.contains(&peer.0.id)) {
            return Err(impossible(format!("{} is named by {flag} and by --deny; leave out one", short(both.0.id))));
        }
    }
    // A list that a whole fleet shares names everybody's own id as well, and means the others.
    let is_anyone_known = args.known.iter().chain(&args.join).any(|peer| peer.0.id != me);
    if Access::from(args.access) == Access::KnownOnly && !is_anyone_known {
        return Err(impossible(
            "--access known admits nobody, because nobody is known; name somebody with --known or --join".into(),
        ));
    }
    Ok(())
}

fn check_addresses(args: &UpArgs) -> Result<(), Failure> {
    let mut seen: HashSet<SocketAddr> = HashSet::new();
    match args.listen.iter().find(|listen| listen.addr.port() != 0 && !seen.insert(listen.addr)) {
        Some(twice) => Err(impossible(format!("--listen {} is given twice", twice.addr))),
        None => Ok(()),
    }
}

fn limits(args: &UpArgs) -> Result<Limits, Failure> {
    let mut limits = Limits::default();
    if let Some(connections_max) = args.max_connections {
        limits = limits.with_connections(connections_max as usize);
    }
    if let Some(idle_timeout) = args.idle_timeout {
        limits.idle_timeout = idle_timeout;
        limits.keep_alive = idle_timeout / KEEP_ALIVES_PER_IDLE_TIMEOUT;
        // A connection is stable once it has outlived the time a dead one may take to be noticed.
        limits.stable_after = limits.stable_after.max(idle_timeout * 2);
    }
    limits.memory_budget = args.memory_budget;
    limits.exempt_loopback = !args.count_loopback;
    let mut set: BTreeMap<&str, u64> = BTreeMap::new();
    for setting in &args.limit {
        if let Some(earlier) = set.insert(&setting.name, setting.value) {
            return Err(impossible(format!(
                "--limit {} is given twice, with {earlier} and {}",
                setting.name, setting.value
            )));
        }
        limits.set(&setting.name, setting.value).map_err(|error| impossible(error.to_string()))?;
    }
    match (args.max_connections, set.get("connections_max")) {
        (Some(scaled), Some(set)) => Err(impossible(format!(
            "--max-connections {scaled} and --limit connections_max={set} set the same limit; the first one sets its shares \
             as well"
        ))),
        (Some(_), None) | (None, _) => Ok(limits),
    }
}

fn impossible(sentence: String) -> Failure {
    Failure::new(Exit::Config, sentence)
}
