//! What the endpoint tells of its home relay and of our network, as word of backends, and what it is spared while that relay is
//! degraded. Of other relays only dials tell (`peer.rs`).
//!
//! iroh looks at all its relays every 20 to 26 s, with up to three requests and a search for a captive portal each time until
//! one has answered. Who is not in its list is not looked at, so a degraded home is taken out of it and put back once it
//! answers. What cannot be held back is iroh's own redial of its home, at last 16 to 32 s apart: a home stays one until another
//! relay has answered, whether it is listed or not. That redial is made anyway, so it is the probe.

use std::sync::Arc;

use iroh::{Endpoint, EndpointAddr, RelayConfig, Watcher, endpoint::RelayStatus};
use n0_future::{future::now_or_never, time::Instant};
use rand::rngs::StdRng;

use super::Parts;
use crate::backends::{Backend, Gate};

/// What the endpoint told at the last look.
#[derive(Debug, Default)]
pub(super) struct Relays {
    homes: Vec<Home>,
    addr: Option<EndpointAddr>,
}

#[derive(Debug)]
struct Home {
    status: RelayStatus,
    gate: Gate,
    /// What it was listed with, while it is not.
    unlisted: Option<Arc<RelayConfig>>,
}

impl Relays {
    /// Looks again. A status differs from the last one whenever an attempt has failed since, so each failure is told once;
    /// several between two looks are told as one.
    pub(super) fn on_tick(&mut self, parts: &Parts, now: Instant, rng: &mut StdRng) {
        let statuses = parts.endpoint.home_relay_status().get();
        if !statuses.iter().eq(self.homes.iter().map(|home| &home.status)) {
            self.on_news(parts, statuses, now, rng);
        }
        for home in &mut self.homes {
            if home.status.is_connected() {
                home.gate.succeed(now);
            }
            home.list_if_healthy(parts);
        }
        parts.backends.note_online(self.homes.iter().any(|home| home.status.is_connected()));
        let addr = parts.endpoint.addr();
        if self.addr.as_ref() != Some(&addr) && self.addr.replace(addr).is_some() {
            parts.backends.hasten(now, rng);
        }
    }

    fn on_news(&mut self, parts: &Parts, statuses: Vec<RelayStatus>, now: Instant, rng: &mut StdRng) {
        let mut before = std::mem::take(&mut self.homes);
        for status in statuses {
            let known = before.iter().position(|home| home.status.url() == status.url());
            let known = known.map(|at| before.swap_remove(at));
            let is_news = known.as_ref().is_none_or(|known| known.status != status);
            let (gate, unlisted) = match known {
                Some(known) => (known.gate, known.unlisted),
                None => (parts.backends.gate(&Backend::Relay(status.url().clone()), now), None),
            };
            if is_news && status.last_error().is_some() {
                on_failed(&gate, now, rng);
            }
            self.homes.push(Home { status, gate, unlisted });
        }
        // Another relay has answered. It may be looked at again: nobody dials it any more.
        before.into_iter().for_each(|mut home| home.list(&parts.endpoint));
    }
}

impl Home {
    fn list_if_healthy(&mut self, parts: &Parts) {
        match (self.gate.is_closed(), &self.unlisted) {
            (true, None) => {
                self.unlisted = parts.relays.get(self.status.url());
                if self.unlisted.is_some() {
                    tell(parts.endpoint.remove_relay(self.status.url()));
                }
            }
            (false, Some(_)) => self.list(&parts.endpoint),
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn list(&mut self, endpoint: &Endpoint) {
        if let Some(config) = self.unlisted.take() {
            tell(endpoint.insert_relay(config.url.clone(), config));
        }
    }
}

/// The list has changed by the first poll. What is waited for is that the endpoint hears of it, which a supervisor does not wait
/// for: it looks by itself within half a minute.
fn tell(change: impl Future<Output = Option<Arc<RelayConfig>>>) {
    let _told = now_or_never(change);
}

/// iroh dials its home whatever we think of it: where a probe was due, this was it.
fn on_failed(home: &Gate, now: Instant, rng: &mut StdRng) {
    let probe = home.is_probe_due(now).then(|| home.ask(1, now));
    match probe {
        Some(Ok(probe)) => probe.fail(now, rng),
        Some(Err(_)) | None => home.fail(now, rng),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use iroh::{RelayMap, RelayMode, RelayUrl};
    use rand::SeedableRng;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
        time::sleep,
    };

    use super::*;
    use crate::{backends::Backends, census::BackendState, limits::Limits, mesh::Mesh};

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_degraded_home_is_not_looked_at_until_it_is_healthy_again() {
        let (url, relay) = half_a_relay().await;
        let of_embedder = RelayMap::from(RelayConfig::new(url.clone(), None));
        let builder = Mesh::builder().relay(RelayMode::Custom(of_embedder.clone()));
        let mesh = builder.spawn().await.expect("a node");
        let parts = &mesh.inner.parts;
        let gate = parts.backends.gate(&Backend::Relay(url.clone()), Instant::now());
        until("the home is degraded and not listed", || gate.is_closed() && !parts.relays.contains(&url)).await;
        assert!(of_embedder.contains(&url), "the list the embedder gave is shared with its other nodes");
        gate.succeed(Instant::now());
        until("it is listed again", || parts.relays.contains(&url)).await;
        until("and degraded again, as it does not relay", || gate.is_closed() && !parts.relays.contains(&url)).await;
        assert!(mesh.drain(DEADLINE).await.clean);
        relay.abort();
    }

    #[test]
    fn a_redial_of_iroh_is_the_probe_where_one_is_due_and_says_nothing_otherwise() {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(7));
        let after = |seconds| start + Duration::from_secs(seconds);
        let backends = Backends::new(&Limits::default(), start);
        let gate = backends.gate(&Backend::Relay("https://relay.example".parse().expect("a URL")), start);
        let mut shown = |seconds| {
            on_failed(&gate, after(seconds), &mut rng);
            let view = backends.census(after(seconds)).pop().expect("there is one");
            (view.state, view.failures, view.saved)
        };
        assert_eq!([0, 1, 2].map(&mut shown)[2], (BackendState::Degraded, 3, 0));
        assert_eq!(
            shown(20),
            (BackendState::Degraded, 3, 0),
            "an attempt that nobody asked for is none that was saved"
        );
        assert_eq!(shown(40), (BackendState::Degraded, 4, 0));
        assert_eq!(shown(80), (BackendState::Degraded, 4, 0), "the open time has doubled");
        // So a home that is dead for an hour is degraded once.
        for minute in 2..60 {
            assert_eq!(shown(minute * 60).0, BackendState::Degraded);
        }
        gate.succeed(after(3600));
        assert!(!gate.is_closed());
    }

    #[tokio::test]
    async fn a_new_address_hastens_the_probe_of_what_is_degraded() {
        let limits = Limits { breaker_open_min: Duration::from_millis(10), ..Limits::default() };
        let mesh = Mesh::builder().limits(limits).spawn().await.expect("a node");
        let parts = &mesh.inner.parts;
        let gate = parts.backends.gate(&Backend::AddressLookup, Instant::now());
        // Ahead of the clock: probes fail until the next one is a minute away.
        let (mut rng, mut at) = (rand::rng(), Instant::now());
        (0..3).for_each(|_| gate.fail(at, &mut rng));
        let soon = |at| at + Duration::from_secs(30);
        while gate.is_probe_due(soon(at)) {
            at += Duration::from_secs(30);
            gate.ask(1, at).expect("the probe is due").fail(at, &mut rng);
        }
        let deadline = Instant::now() + DEADLINE;
        // What was there at the first look is no change.
        for port in 1.. {
            parts.endpoint.add_external_addr(([127, 0, 0, 1], port).into()).await;
            sleep(Duration::from_millis(100)).await;
            if gate.is_probe_due(soon(at)) {
                break;
            }
            assert!(Instant::now() < deadline, "no address hastens a probe");
        }
        assert!(mesh.drain(DEADLINE).await.clean);
    }

    /// Answers who looks for a home, and nothing else.
    async fn half_a_relay() -> (RelayUrl, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let serve = async move {
            while let Ok((mut socket, _from)) = listener.accept().await {
                let mut request = [0; 1024];
                let read = socket.read(&mut request).await.unwrap_or(0);
                if request[..read].starts_with(b"GET /ping") {
                    // Who has gone away meanwhile looks again.
                    let _gone = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        };
        (format!("http://{addr}").parse().expect("a URL"), tokio::spawn(serve))
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
