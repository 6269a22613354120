//! One outgoing attempt with a deadline. It never retries; whoever asked decides whether to ask again.

use std::sync::Arc;

use iroh::{
    Endpoint, EndpointAddr, EndpointId,
    endpoint::{ConnectOptions, Connecting, Connection},
};
use n0_future::time::timeout;

use crate::{
    admission::Permit,
    census::Side,
    connection::Established,
    handshake::{Failed, HalfOpen, HandshakeError},
    limits::Limits,
    meters::Meters,
    mishaps::Loop,
    operation::Operation,
    redial,
    supervisor::Nursery,
    wire,
};

/// Dials `peer` once, offering our own protocol before stock's.
pub(crate) async fn run(
    endpoint: Endpoint,
    peer: EndpointId,
    permit: Permit,
    limits: Arc<Limits>,
    nursery: Nursery,
    meters: Meters,
) -> Result<Established, HandshakeError> {
    let operation = Operation::dial(peer, meters);
    let attempt = HalfOpen::new(connect(endpoint, peer), permit, Side::Dialed);
    let outcome = tokio::select! {
        strike = nursery.faults.strike(Loop::Dial, Some(&peer)) => {
            // A frozen dial still has its deadline.
            match timeout(limits.dial_timeout, strike.land()).await {
                Ok(()) => Err(HandshakeError::Failed("injected".into())),
                Err(_elapsed) => Err(HandshakeError::TimedOut),
            }
        }
        outcome = attempt.finish(limits.dial_timeout) => outcome,
    };
    match &outcome {
        Ok(_) => operation.succeed("connected"),
        Err(error) => operation.fail(error.name()),
    }
    outcome
}

/// Begins the dial of a probe, which has an endpoint, a deadline and a caller of its own.
pub(crate) async fn begin_probe(endpoint: &Endpoint, addr: EndpointAddr) -> Result<Connecting, String> {
    let begun = endpoint.connect_with_opts(addr, wire::ALPN_PERENNIAL, ConnectOptions::new()).await;
    begun.map_err(|error| error.to_string())
}

async fn connect(endpoint: Endpoint, peer: EndpointId) -> Result<Connection, Failed> {
    let options = ConnectOptions::new().with_additional_alpns(vec![wire::ALPN_STOCK.to_vec()]);
    let connecting = endpoint
        .connect_with_opts(peer, wire::ALPN_PERENNIAL, options)
        .await
        .map_err(|error| Failed { failure: redial::failure_to_begin(&error), text: error.to_string() })?;
    connecting.await.map_err(|error| Failed { failure: redial::failure_to_connect(&error), text: error.to_string() })
}
