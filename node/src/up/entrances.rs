//! Where the node of these settings may be asked: binds the control socket and, if asked for, the TCP address.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    control::{
        CONTROL_CLIENTS_MAX, Entrances, HTTP_CLIENTS_MAX, OwnUser, http,
        socket::{self, SocketFile},
    },
    exit::Failure,
    listener::CappedListener,
    settings::Settings,
};

/// Where the entrances are. Dropping it removes the socket.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) control: PathBuf,
    pub(super) http: Option<SocketAddr>,
    _socket_file: SocketFile,
}

/// Binds everything; nobody is served yet. Without --control the socket is named after the node's `short_id`, so that nodes
/// of one machine do not meet.
pub(super) async fn bind(settings: &Settings, short_id: &str) -> Result<(Entrances, Places), Failure> {
    let (control, clients_max) = match &*settings.control {
        Some(control) => (control.at.clone(), control.clients_max),
        None => (socket::default_path(short_id)?, None),
    };
    let (listener, _socket_file) = socket::bind(&control).await?;
    let at_socket = CappedListener::new(OwnUser(listener), clients_max.unwrap_or(CONTROL_CLIENTS_MAX));
    let Some(wanted) = &*settings.http else {
        return Ok((Entrances::new(at_socket, None), Places { control, http: None, _socket_file }));
    };
    let (listener, guard) = http::bind(wanted.at, settings.http_token_file.as_deref()).await?;
    let address = listener.local_addr().map_err(|error| Failure::io("find the own HTTP address", &error))?;
    let at_address = CappedListener::new(listener, wanted.clients_max.unwrap_or(HTTP_CLIENTS_MAX));
    let entrances = Entrances::new(at_socket, Some((at_address, guard)));
    Ok((entrances, Places { control, http: Some(address), _socket_file }))
}
