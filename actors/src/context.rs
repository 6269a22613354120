//! What every loop of a mesh shares, connection or topic. Nothing in it is process-wide.

use std::sync::Arc;

use iroh::EndpointId;

use crate::{address_book::AddressBook, counters::Counters, limits::Limits, routes::Routes, supervisor::Nursery};

/// The common ground of one mesh. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) me: EndpointId,
    pub(crate) limits: Arc<Limits>,
    pub(crate) routes: Routes,
    pub(crate) addresses: AddressBook,
    pub(crate) counters: Counters,
    pub(crate) nursery: Nursery,
}
