//! Connections that are made and closed, one after the other: what that costs whoever accepts them.
//!
//! Everybody is dialed by the same bare noq, so that what differs is the accepting end. It comes again and again and resumes the
//! session it had, or it is a stranger each time, with a key that nobody has seen. It leaves once its handshake is confirmed: an
//! acceptor that has not finished would count it as failed. The dialer has a thread of its own, whose processor time is told from
//! the rest of the process.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use iroh::Endpoint;
use perennial::{Limits, Mesh};
use perennial_tests::{Stock, stock::loopback_addr};
use rustix::time::ClockId;
use tokio::time::Instant;

use crate::{
    measure::{Figure, clock},
    raw,
    swarm::Subject,
};

/// Who dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialer {
    Again,
    Strangers,
}

/// Handshakes before anything counts.
const WARM_UP: usize = 20;

/// They are used in turns: a node of ours takes attempts from one socket for one remote, and gives up the rest once it has come
/// through with one.
const SOCKETS: usize = 4;

/// What one handshake costs.
pub(crate) async fn measure(subject: Subject, dialer: Dialer, times: usize) -> Result<Vec<Figure>> {
    let acceptor = Acceptor::start(subject).await?;
    let way = acceptor.way(dialer)?;
    let dialing = tokio::task::spawn_blocking(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(way.go(times))
    });
    let cost = match dialing.await? {
        Ok(cost) => cost,
        Err(error) => return Err(error.context(acceptor.refusals().await)),
    };
    let each = |time: Duration| time.as_secs_f64() * 1e6 / times as f64;
    Ok(vec![
        Figure::new("time each", "µs", each(cost.took)),
        Figure::new("cpu each, accepting end", "µs", each(cost.everybody.saturating_sub(cost.dialer))),
        Figure::new("cpu each, both ends", "µs", each(cost.everybody)),
    ])
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    took: Duration,
    dialer: Duration,
    everybody: Duration,
}

impl Cost {
    /// The clocks at this moment, read by the dialer's thread.
    fn now(begun: Instant) -> Self {
        let (dialer, everybody) = (clock(ClockId::ThreadCPUTime), clock(ClockId::ProcessCPUTime));
        Self { took: begun.elapsed(), dialer, everybody }
    }

    fn since(self, before: Self) -> Self {
        Self {
            took: self.took - before.took,
            dialer: self.dialer - before.dialer,
            everybody: self.everybody - before.everybody,
        }
    }
}

/// Somebody who accepts.
#[derive(Debug)]
enum Acceptor {
    Ours(Mesh),
    Stock(Stock),
    Iroh(Endpoint),
    Noq(noq::Endpoint),
}

const ALPN_GOSSIP: &[u8] = b"/iroh-gossip/1";

impl Acceptor {
    async fn start(subject: Subject) -> Result<Self> {
        Ok(match subject {
            Subject::Ours => {
                // A node lets in so many a second, and of one remote two at a time; this is about what each costs.
                let limits = Limits {
                    admissions_per_second: 100_000,
                    admissions_burst: 100_000,
                    flood_per_minute: 1_000_000,
                    connections_per_peer_max: 16,
                    ..Limits::default()
                };
                Self::Ours(Box::pin(Mesh::builder().limits(limits).spawn()).await?)
            }
            Subject::Stock => Self::Stock(Stock::spawn("accepts", None).await?),
            Subject::Iroh => {
                let endpoint = raw::endpoint().await?;
                let accepting = endpoint.clone();
                tokio::spawn(async move {
                    while let Some(incoming) = accepting.accept().await {
                        tokio::spawn(async move { Some(incoming.await.ok()?.closed().await) });
                    }
                });
                Self::Iroh(endpoint)
            }
            Subject::Noq => {
                let endpoint = raw::noq::acceptor()?;
                let accepting = endpoint.clone();
                tokio::spawn(async move {
                    while let Some(incoming) = accepting.accept().await {
                        tokio::spawn(async move { Some(incoming.await.ok()?.closed().await) });
                    }
                });
                Self::Noq(endpoint)
            }
            Subject::Udp => bail!("UDP shakes no hands"),
        })
    }

    /// What a node of ours says of those it did not keep.
    async fn refusals(&self) -> String {
        let Self::Ours(mesh) = self else { return "a handshake failed".into() };
        let Ok(census) = mesh.census().await else { return "the node is gone".into() };
        let counted: Vec<String> = census.counts.iter().map(|(why, times)| format!("{} {times}", why.name())).collect();
        format!("a handshake failed; the node counts {}", counted.join(", "))
    }

    fn way(&self, dialer: Dialer) -> Result<Way> {
        let (addr, alpn) = match self {
            Self::Ours(mesh) => (mesh.addr(), ALPN_GOSSIP),
            Self::Stock(stock) => (stock.addr(), ALPN_GOSSIP),
            Self::Iroh(endpoint) => (loopback_addr(endpoint), raw::ALPN),
            Self::Noq(endpoint) => return Ok(Way { addr: endpoint.local_addr()?, alpn: raw::ALPN, dialer }),
        };
        let addr = *addr.ip_addrs().next().context("no address to dial")?;
        Ok(Way { addr, alpn, dialer })
    }
}

/// How somebody is dialed.
#[derive(Debug)]
struct Way {
    addr: SocketAddr,
    alpn: &'static [u8],
    dialer: Dialer,
}

impl Way {
    async fn go(self, times: usize) -> Result<Cost> {
        let begun = Instant::now();
        let endpoints = (0..SOCKETS).map(|_| raw::noq::dialer()).collect::<Result<Vec<_>>>()?;
        let known = raw::noq::identity(self.alpn)?;
        let mut before = Cost::now(begun);
        for number in 0..WARM_UP + times {
            if number == WARM_UP {
                before = Cost::now(begun);
            }
            let config = match self.dialer {
                Dialer::Again => known.clone(),
                Dialer::Strangers => raw::noq::identity(self.alpn)?,
            };
            let endpoint = &endpoints[number % SOCKETS];
            let connection = endpoint.connect_with(config, self.addr, raw::noq::NAME)?.await?;
            connection.handshake_confirmed().await?;
            connection.close(0u32.into(), b"");
        }
        Ok(Cost::now(begun).since(before))
    }
}
