//! Who is closed to make room, and how often that may happen. The choice itself is in `admission/eviction.rs`.

use std::{collections::HashSet, time::Duration};

use iroh::EndpointId;
use n0_future::time::Instant;

use crate::{
    admission::{
        Door, Occupant,
        eviction::{self, Candidate, Need},
    },
    context::Context,
    listeners::ListenerId,
};

/// One connection at most is closed to make room in this time: closing in batches makes a node thrash
/// (anza-xyz/agave#6665).
const EVICTION_PAUSE: Duration = Duration::from_secs(1);

/// The pause between two evictions, and those on their way out.
#[derive(Debug, Default)]
pub(super) struct Evictor {
    last_at: Option<Instant>,
    leaving: HashSet<u64>,
}

/// What room is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A known remote waits; only a slot at this listener helps it, if one is named.
    KnownRemote(Option<ListenerId>),
    /// Memory or descriptors run low.
    Pressure,
}

impl Evictor {
    /// The seat to close now and whose it is, if it is time and there is one. Never a second one while the first is still
    /// on its way out: the same remote asks again and again until it is served.
    pub(super) fn next(
        &mut self,
        cause: Cause,
        door: &Door,
        context: &Context,
        now: Instant,
    ) -> Option<(u64, EndpointId)> {
        if self.last_at.is_some_and(|last_at| now.duration_since(last_at) < EVICTION_PAUSE) {
            return None;
        }
        let mut occupants = door.occupants();
        self.leaving.retain(|seat| occupants.iter().any(|occupant| occupant.seat == *seat));
        // One that does not leave within three pauses is stuck, and somebody else has to go.
        let is_patient = self.last_at.is_some_and(|last_at| now.duration_since(last_at) < EVICTION_PAUSE * 3);
        if !self.leaving.is_empty() && is_patient {
            return None;
        }
        let need = match cause {
            Cause::KnownRemote(listener) => {
                occupants.retain(|occupant| listener.is_none_or(|listener| occupant.listener == listener));
                Need::KnownPeer
            }
            Cause::Pressure => Need::Pressure,
        };
        let chosen = self.choose(&occupants, need, context, now)?;
        self.last_at = Some(now);
        Some(chosen)
    }

    /// As many as are over the caps, at once: somebody asked for it.
    pub(super) fn excess(&mut self, door: &Door, context: &Context, now: Instant) -> Vec<(u64, EndpointId)> {
        let mut occupants = door.occupants();
        let mut chosen = Vec::new();
        for listener in door.excess() {
            let of_listener = |occupant: &&Occupant| listener.is_none_or(|listener| occupant.listener == listener);
            let candidates: Vec<_> = occupants.iter().filter(of_listener).cloned().collect();
            let Some(one) = self.choose(&candidates, Need::KnownPeer, context, now) else { continue };
            occupants.retain(|occupant| occupant.seat != one.0);
            chosen.push(one);
        }
        chosen
    }

    fn choose(
        &mut self,
        occupants: &[Occupant],
        need: Need,
        context: &Context,
        now: Instant,
    ) -> Option<(u64, EndpointId)> {
        let candidates: Vec<_> = occupants
            .iter()
            .filter(|occupant| !self.leaving.contains(&occupant.seat))
            .map(|occupant| {
                let merits = context.routes.merits(&occupant.peer);
                Candidate {
                    seat: occupant.seat,
                    group: occupant.group,
                    since: occupant.since,
                    rtt: merits.rtt,
                    novel_at: merits.novel_at,
                    is_neighbor: context.routes.is_neighbor(&occupant.peer),
                }
            })
            .collect();
        let limits = &context.limits;
        let seat = eviction::choose(&candidates, now, limits.connections_max, limits.eviction_age_min, need)?;
        self.leaving.insert(seat);
        let peer = occupants.iter().find(|occupant| occupant.seat == seat)?.peer;
        Some((seat, peer))
    }
}
