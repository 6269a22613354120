//! What a mesh is started with. Filled by [`crate::MeshBuilder`], read by `mesh.rs`.

use std::sync::Arc;

use iroh::{EndpointId, RelayMode, SecretKey};

use crate::{
    access::{Access, Admission, AdmitAll},
    limits::Limits,
    listeners::Listen,
};

/// The settings of one mesh.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// The identity. `None`: a fresh one, forgotten with the mesh.
    pub secret_key: Option<SecretKey>,
    /// UDP addresses to listen on. Empty: 127.0.0.1 with a free port.
    pub listen: Vec<Listen>,
    /// Relays to be reachable through. Disabled unless asked for.
    pub relay: RelayMode,
    /// Whether to ask the router for a port (UPnP, PCP, NAT-PMP). Off unless asked for.
    pub port_mapping: bool,
    /// Who may connect at all.
    pub access: Access,
    /// Remotes with slots of their own.
    pub known: Vec<EndpointId>,
    /// What the embedder says of remotes.
    pub admission: Arc<dyn Admission>,
    /// Every bound and timeout.
    pub limits: Limits,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            secret_key: None,
            listen: Vec::new(),
            relay: RelayMode::Disabled,
            port_mapping: false,
            access: Access::default(),
            known: Vec::new(),
            admission: Arc::new(AdmitAll),
            limits: Limits::default(),
        }
    }
}
