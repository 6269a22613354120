//! What every loop of a mesh shares, connection or topic. Nothing in it is process-wide.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use iroh::EndpointId;

use crate::{
    access::Lists, address_book::AddressBook, counters::Counters, limits::Limits, redial::Redials, routes::Routes,
    supervisor::Nursery,
};

/// The common ground of one mesh. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) me: EndpointId,
    pub(crate) limits: Arc<Limits>,
    pub(crate) routes: Routes,
    pub(crate) addresses: AddressBook,
    pub(crate) counters: Counters,
    pub(crate) nursery: Nursery,
    pub(crate) lists: Lists,
    pub(crate) redials: Redials,
    pub(crate) draining: Arc<AtomicBool>,
}

impl Context {
    /// Whether the mesh is saying goodbye.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
