//! What every loop of a mesh shares, connection or topic. Nothing in it is process-wide.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use iroh::EndpointId;

use crate::{
    access::Lists, address_book::AddressBook, backends::Backends, counters::Counters, history::History, limits::Limits,
    listeners::Reach, lives::Lives, meters::Meters, redial::Redials, routes::Routes, supervisor::Nursery,
    traffic::TrafficCounters,
};

/// The common ground of one mesh. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) me: EndpointId,
    pub(crate) limits: Arc<Limits>,
    pub(crate) routes: Routes,
    pub(crate) addresses: AddressBook,
    pub(crate) counters: Counters,
    pub(crate) traffic: TrafficCounters,
    pub(crate) meters: Meters,
    pub(crate) nursery: Nursery,
    pub(crate) lists: Lists,
    pub(crate) history: Arc<Mutex<History>>,
    pub(crate) lives: Lives,
    /// Somebody waits at the door for a slot.
    pub(crate) scarce: Arc<AtomicBool>,
    pub(crate) redials: Redials,
    pub(crate) backends: Backends,
    pub(crate) reach: Reach,
    pub(crate) draining: Arc<AtomicBool>,
}

impl Context {
    /// Whether somebody waits at the door for a slot, so that whoever says nothing holds it too long.
    pub(crate) fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Relaxed)
    }

    /// Whether the mesh is saying goodbye.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
