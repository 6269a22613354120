//! The answers only a build for soaks has: give free memory back, break one loop.

use std::time::Duration;

use perennial::{
    Loop, Vitals,
    testing::{Fault, How},
};

use super::peer_name;
use crate::{
    control::protocol::soak::{FaultPlan, Struck, Trimmed},
    exit::{Exit, Failure},
    lines::VERSION,
    node::Node,
};

/// Every loop turns several times a second, but for handshakes, dials and questions, which come when they come.
const STRIKE_WITHIN: Duration = Duration::from_secs(4);

pub(crate) fn trim() -> Result<Trimmed, Failure> {
    let Some(released) = perennial_heap::trim() else {
        return Err(Failure::new(Exit::Failed, "this node's allocator cannot be trimmed; only glibc's can"));
    };
    Ok(Trimmed { v: VERSION, released, rss_bytes: Vitals::read().rss_bytes })
}

pub(crate) async fn fault(node: &Node, plan: &FaultPlan) -> Result<Struck, Failure> {
    let wrong = |sentence: String| Failure::new(Exit::Usage, sentence);
    let names = || Loop::ALL.map(Loop::name).join(", ");
    let at = Loop::from_name(&plan.at)
        .ok_or_else(|| wrong(format!("no loop is called `{}`; these are: {}", plan.at, names())))?;
    let how = match plan.kind.as_str() {
        "panic" => How::Panic,
        "error" => How::Error,
        "hang" => How::Freeze,
        other => return Err(wrong(format!("no fault is called `{other}`; these are: panic, error, hang"))),
    };
    let peer = plan.peer.as_deref().map(peer_name).transpose()?.map(|peer| peer.id);
    let has_peer = matches!(at, Loop::Peer | Loop::Connection | Loop::Dial | Loop::Approval);
    if peer.is_some() && !has_peer {
        return Err(wrong(format!("the loop `{at}` deals with no one peer", at = plan.at)));
    }
    if node.mesh.inject_now(Fault { at, how, peer }, STRIKE_WITHIN).await {
        return Ok(Struck { v: VERSION, at: plan.at.clone(), kind: plan.kind.clone(), peer: plan.peer.clone() });
    }
    let seconds = STRIKE_WITHIN.as_secs();
    let whose = plan.peer.as_ref().map(|peer| format!(" for {peer}")).unwrap_or_default();
    Err(Failure::new(Exit::Unavailable, format!("no loop `{}`{whose} turned within {seconds} s", plan.at)))
}
