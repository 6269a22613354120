//! The [`Mesh`] handle at the door: who is let in, how many, and who went. What to do with an attempt is decided in
//! `admission.rs`; here is only asked and told.

use iroh::EndpointId;
use n0_future::time::Instant;

use super::Mesh;
use crate::{
    access::{self, Standing},
    admission::usage::{LimitUse, LimitsPart, ListenerUse},
    close::{Close, CloseCode},
    counters::Counts,
    error::{MeshGone, SetLimitsError},
    history::ClosedConnection,
    limits::Limits,
    lives::Lingering,
    peers::PeersMsg,
    retirement::RetirementReport,
};

/// The limits of a node on one page.
#[derive(Debug, Clone)]
pub struct LimitsReport {
    /// Every cap.
    pub uses: Vec<LimitUse>,
    /// The listeners, the relays last.
    pub listeners: Vec<ListenerUse>,
    /// `calm`, `tight` or `critical`: how short this process is of memory and descriptors.
    pub pressure: &'static str,
    /// What was refused, and everything else that is counted.
    pub counts: Counts,
}

impl Mesh {
    /// Every cap, what is in use, what was at most, and what was refused for which reason.
    ///
    /// # Errors
    ///
    /// [`MeshGone`] once the mesh has ended.
    pub async fn limits(&self) -> Result<LimitsReport, MeshGone> {
        let LimitsPart { mut uses, listeners, pressure } =
            self.ask(|reply| self.inner.branches.tell_peers(PeersMsg::Limits(reply))).await?;
        let topics = self.ask_topics().await?.topics.len();
        let (parts, (known, denied)) = (&self.inner.parts, self.inner.parts.lists.len());
        let limits = &parts.limits;
        let history = parts.history.lock().expect("no holder panics").iter().count();
        uses.extend([
            LimitUse::unmarked("topics_max", limits.topics_max, topics),
            LimitUse::unmarked("addresses_max", limits.addresses_max, parts.addresses.len()),
            LimitUse::unmarked("known_list", access::LIST_MAX, known),
            LimitUse::unmarked("denied_list", access::LIST_MAX, denied),
            LimitUse::unmarked("history_max", limits.history_max, history),
        ]);
        Ok(LimitsReport { uses, listeners, pressure, counts: parts.counters.read() })
    }

    /// Changes limits by name, all of them or none: those in [`Limits::CHANGEABLE`], and `listener:ADDR` for the cap of a
    /// listener. Lowering one admits nobody new until enough have gone; it throws nobody out unless `evict` asks for it,
    /// and then only unknown remotes.
    ///
    /// # Errors
    ///
    /// A name that is not one, or values that contradict each other; [`MeshGone`] once the mesh has ended.
    pub async fn set_limits(
        &self,
        changes: impl IntoIterator<Item = (impl Into<String>, u64)>,
        evict: bool,
    ) -> Result<(), SetLimitsError> {
        let changes: Vec<_> = changes.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let outcome = self.ask(|reply| {
            self.inner.branches.tell_peers(PeersMsg::SetLimits { changes: changes.clone(), evict, reply })
        });
        Ok(outcome.await??)
    }

    /// Replaces the cap on connections and the shares that follow from it, see [`Limits::with_connections`].
    ///
    /// # Errors
    ///
    /// See [`Mesh::set_limits`].
    pub async fn set_connection_cap(&self, cap: usize) -> Result<(), SetLimitsError> {
        let limits = Limits::clone(&self.inner.parts.limits).with_connections(cap);
        let changes = [
            ("connections_max", limits.connections_max),
            ("inbound_max", limits.inbound_max),
            ("known_reserve", limits.known_reserve),
            ("relay_connections_max", limits.relay_connections_max),
        ];
        self.set_limits(changes.map(|(name, value)| (name, value as u64)), false).await
    }

    /// Knows `remote` from here on: it has slots of its own, and displaces an unknown one when there are none.
    ///
    /// # Errors
    ///
    /// [`access::ListFull`].
    pub fn allow(&self, remote: EndpointId) -> Result<(), access::ListFull> {
        self.inner.parts.lists.allow(remote)?;
        self.inner.parts.door.reclassify(&remote, Standing::Known);
        self.inner.parts.redials.forgive(&remote);
        Ok(())
    }

    /// Deals with `remote` no longer: its connections are closed at once, it is neither accepted nor dialed.
    ///
    /// # Errors
    ///
    /// [`access::ListFull`].
    pub fn deny(&self, remote: EndpointId) -> Result<(), access::ListFull> {
        let parts = &self.inner.parts;
        let code = match parts.lists.listed(&remote) {
            Standing::Known => CloseCode::Revoked,
            Standing::Unknown | Standing::Denied => CloseCode::Denied,
        };
        parts.lists.deny(remote)?;
        parts.door.reclassify(&remote, Standing::Denied);
        // Between two supervisors there is no connection to close.
        let _restarting = self.inner.branches.tell_peers(PeersMsg::Close(remote, Close::new(code)));
        Ok(())
    }

    /// Takes `remote` off the lists: it is nobody in particular again. Whether it was on one.
    pub fn forget(&self, remote: &EndpointId) -> bool {
        let was_listed = self.inner.parts.lists.forget(remote);
        self.inner.parts.door.reclassify(remote, Standing::Unknown);
        self.inner.parts.redials.forgive(remote);
        was_listed
    }

    /// What this node makes of `remote` at this moment.
    pub fn standing(&self, remote: &EndpointId) -> Standing {
        self.inner.parts.lists.standing(remote)
    }

    /// How long connections took to end once they were to end, by cause.
    pub fn retirements(&self) -> RetirementReport {
        self.inner.parts.lives.retirements()
    }

    /// At most `max` connections that live although they are to end, the longest first, and after them those whose remote
    /// is in no active view. The tasks themselves tell; no supervisor is asked.
    pub fn lingering(&self, max: usize) -> Vec<Lingering> {
        self.inner.parts.lives.lingering(max, Instant::now())
    }

    /// The connections that ended lately, the newest first, and how many ended since the start.
    pub fn closed_connections(&self) -> (Vec<ClosedConnection>, u64) {
        let history = self.inner.parts.history.lock().expect("no holder panics");
        (history.iter().cloned().collect(), history.total())
    }
}
