//! From settings to a mesh that is not yet spawned, and the contradictions that settings can have. `[pure]`
//!
//! What the library refuses itself (limits, caps of listeners) is told in its own words.

use std::{collections::HashSet, net::SocketAddr};

use iroh::EndpointId;
use perennial::{Access, Limits, Mesh, MeshBuilder};

use super::{Problem, Settings, Source, show::Entry};
use crate::{
    exit::Exit,
    names::{PeerName, short},
    telemetry::settings::{self as telemetry, Named, Otlp},
};

/// Two may get lost before a live neighbour is taken for a dead one.
const KEEP_ALIVES_PER_IDLE_TIMEOUT: u32 = 3;

impl Settings {
    /// A mesh as these settings describe it, without an identity.
    ///
    /// # Errors
    ///
    /// Every contradiction.
    pub(crate) fn builder(&self, me: Option<EndpointId>) -> Result<MeshBuilder, Vec<Problem>> {
        let mut problems = self.contradictions(me);
        let limits = self.effective_limits().map_err(|problem| problems.push(problem));
        let Ok(limits) = limits else { return Err(problems) };
        let builder = Mesh::builder()
            .relay(self.relay.mode())
            .port_mapping(*self.port_mapping)
            .access(self.access.value.into())
            .limits(limits);
        let builder = self.listen.iter().fold(builder, |builder, listen| builder.listen(*listen));
        if let Err(error) = builder.check() {
            problems.push(Problem::config(format!("impossible limits: {error}")));
        }
        let others = self.known.iter().map(|peer| peer.0.id).filter(|id| Some(*id) != me);
        if problems.is_empty() { Ok(others.fold(builder, MeshBuilder::known)) } else { Err(problems) }
    }

    /// The limits in force, whether they hold together or not.
    pub(crate) fn effective_limits(&self) -> Result<Limits, Problem> {
        let mut limits = Limits::default();
        if self.max_connections.is_set() {
            limits = limits.with_connections(self.max_connections.0);
            if let Some(same) = self.limits.get("connections_max") {
                return Err(Problem::config(format!(
                    "{} {} and {} set the same limit; the first one sets its shares as well",
                    self.max_connections.source.calls("max_connections"),
                    self.max_connections.0,
                    same.source.calls_limit("connections_max", same.value)
                )));
            }
        }
        if self.idle_timeout.is_set() {
            limits.idle_timeout = *self.idle_timeout;
            limits.keep_alive = *self.idle_timeout / KEEP_ALIVES_PER_IDLE_TIMEOUT;
            // A connection is stable once it has outlived the time a dead one may take to be noticed.
            limits.stable_after = limits.stable_after.max(*self.idle_timeout * 2);
        }
        limits.memory_budget = self.memory_budget.map(|size| size.0);
        limits.exempt_loopback = !*self.count_loopback;
        for (name, limit) in &self.limits {
            limits.set(name, limit.value).map_err(|error| Problem::config(error.to_string()))?;
        }
        Ok(limits)
    }

    /// Where telemetry goes, with the standard `OTEL_*` variables that `variable` tells. `None`: nowhere.
    ///
    /// # Errors
    ///
    /// A collector that cannot be one, or a variable out of bounds.
    pub(crate) fn otlp(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Otlp>, Problem> {
        let by = self.otlp.source.calls("otlp");
        let url = self.otlp.as_ref().map(|url| Named { url: &url.0, by: &by });
        telemetry::resolve(url, *self.otlp_protocol, variable).map_err(Problem::config)
    }

    /// Every setting with its value and source.
    ///
    /// # Errors
    ///
    /// Limits that cannot be told, because two settings are about the same one.
    pub(crate) fn all_entries(&self) -> Result<Vec<Entry>, Problem> {
        self.effective_limits().map(|limits| self.entries(&limits))
    }

    fn contradictions(&self, me: Option<EndpointId>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let denied: HashSet<EndpointId> = ids(&self.deny).collect();
        let deny = self.deny.source.calls("deny");
        if let Some(me) = me.filter(|me| denied.contains(me)) {
            problems.push(Problem::config(format!("{deny} {} names this node itself", short(me))));
        }
        for (name, peers) in [("known", &self.known), ("join", &self.join)] {
            if let Some(both) = ids(peers).find(|id| denied.contains(id)) {
                let named = peers.source.calls(name);
                let sentence = format!("{} is named by {named} and by {deny}; leave out one", short(both));
                problems.push(Problem::config(sentence));
            }
        }
        // A list that a whole fleet shares names everybody's own id as well, and means the others.
        let is_anyone_known = ids(&self.known).chain(ids(&self.join)).any(|id| Some(id) != me);
        if Access::from(self.access.value) == Access::KnownOnly && !is_anyone_known {
            problems.push(Problem::config(format!(
                "{} known admits nobody, because nobody is known; name somebody with --known or --join",
                self.access.source.calls("access")
            )));
        }
        if !self.join.is_empty() && self.topic.is_empty() {
            let join = self.join.source.calls("join");
            let sentence = format!("{join} names whom to meet, but not where; name a topic with --topic");
            let exit = if self.join.source == Source::Flag { Exit::Usage } else { Exit::Config };
            problems.push(Problem { exit, sentence });
        }
        if self.http_token_file.is_some() && self.http.is_none() {
            let token = self.http_token_file.source.calls("http_token_file");
            problems
                .push(Problem::config(format!("{token} is for an address that is not opened; name one with --http")));
        }
        let mut seen: HashSet<SocketAddr> = HashSet::new();
        if let Some(twice) = self.listen.iter().find(|listen| listen.addr.port() != 0 && !seen.insert(listen.addr)) {
            let listen = self.listen.source.calls("listen");
            problems.push(Problem::config(format!("{listen} {} is given twice", twice.addr)));
        }
        problems
    }
}

fn ids(peers: &[PeerName]) -> impl Iterator<Item = EndpointId> {
    peers.iter().map(|peer| peer.0.id)
}
