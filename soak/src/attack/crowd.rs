//! Strangers: fresh identities that begin a handshake with the victim and then stay, stall, or go.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use noq::{Connecting, Connection, ConnectionError, Endpoint, SendStream};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{Tally, identity::Identities, sources::source, street::Street};

/// Handshakes under way at one time: enough that the victim never waits for the attacker.
pub(super) const UNDER_WAY_MAX: usize = 1024;

/// Those of strangers who come and go: so few that a victim with a cap on handshakes lets every one of them in.
pub(super) const UNDER_WAY_GENTLE: usize = 8;

/// A stranger waits this long for its handshake, then counts as timed out. A victim that drops first flights in silence
/// makes every stranger wait as long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// After this long the victim of a mute stranger has sent its flight and, before that, its Retry.
const MUTE_AFTER: Duration = Duration::from_secs(1);

/// Closing packets are on their way within this long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Sockets strangers share. More sources cost the attacker three megabytes each.
pub(super) const SOCKETS_MAX: usize = 64;

/// What a stranger does with its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// Finishes it and leaves at once.
    Leave,
    /// Finishes it and says nothing more.
    Idle,
    /// Opens a stream and writes half of a header.
    HalfHeader,
    /// Opens a stream and names the topic; no message follows.
    Header,
    /// Gives up after this many milliseconds, as a rule in the middle.
    Abandon { after_ms: u64 },
    /// Proves its address if asked to, then never answers the victim's flight.
    Mute,
}

/// Strangers behind a few sockets, and what they hold open.
#[derive(Debug)]
pub(super) struct Crowd {
    endpoints: Vec<Endpoint>,
    identities: Identities,
    target: SocketAddr,
    topic: [u8; 32],
    streets: Vec<Street>,
    held: Vec<Held>,
    /// Handshakes that will never finish. Dropping one would say goodbye, which the mute do not.
    mute: Vec<Connecting>,
}

/// A connection kept open, with the stream that was opened on it.
#[derive(Debug)]
struct Held {
    connection: Connection,
    _stream: Option<SendStream>,
}

/// How one visit ended.
enum Ended {
    Stays(Held),
    Mute(Box<Connecting>),
    Left,
    Abandoned,
    Refused,
    TimedOut,
}

impl Crowd {
    /// Binds `sockets` sockets on addresses of their own. `topic` is what headers name.
    pub(super) fn gather(identities: Identities, target: SocketAddr, topic: [u8; 32], sockets: usize) -> Result<Self> {
        let bind = |number| {
            let address = source(number);
            Endpoint::client(address).with_context(|| format!("cannot bind {address}"))
        };
        let endpoints = (0..sockets.clamp(1, SOCKETS_MAX)).map(bind).collect::<Result<_>>()?;
        Ok(Self { endpoints, identities, target, topic, streets: Vec::new(), held: Vec::new(), mute: Vec::new() })
    }

    /// One stranger per element of `visits`, as many at one time as allowed; those that stay are held until [`Crowd::end`].
    /// No more than `under_way` handshakes at one time; no new one begins after `deadline`.
    pub(super) async fn visit(
        &mut self,
        visits: impl Iterator<Item = Visit>,
        under_way: usize,
        deadline: Instant,
    ) -> Result<Tally> {
        let places = Arc::new(Semaphore::new(under_way));
        let mut strangers = JoinSet::new();
        let mut tally = Tally::default();
        for (number, visit) in visits.enumerate() {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            if Instant::now() > deadline {
                break;
            }
            tally.attempted += 1;
            let remote = self.remote(number, visit).await?;
            let endpoint = self.endpoints[number % self.endpoints.len()].clone();
            let (config, topic) = (self.identities.fresh(), self.topic);
            strangers.spawn(async move {
                let _place = place;
                knock(&endpoint, config, remote, visit, topic).await
            });
            while let Some(ended) = strangers.try_join_next() {
                self.on_ended(ended?, &mut tally);
            }
        }
        while let Some(ended) = strangers.join_next().await {
            self.on_ended(ended?, &mut tally);
        }
        Ok(tally)
    }

    /// The mute knock at the entrance of a street, one per socket; all others at the victim itself.
    async fn remote(&mut self, number: usize, visit: Visit) -> Result<SocketAddr> {
        if visit != Visit::Mute {
            return Ok(self.target);
        }
        let socket = number % self.endpoints.len();
        while self.streets.len() <= socket {
            let source = SOCKETS_MAX + self.streets.len();
            self.streets.push(Street::open(source, self.target).await?);
        }
        Ok(self.streets[socket].entrance)
    }

    fn on_ended(&mut self, ended: Ended, tally: &mut Tally) {
        match ended {
            Ended::Stays(held) => {
                tally.finished += 1;
                self.held.push(held);
            }
            Ended::Mute(connecting) => {
                tally.silent += 1;
                self.mute.push(*connecting);
            }
            Ended::Left => tally.finished += 1,
            Ended::Abandoned => tally.abandoned += 1,
            Ended::Refused => tally.refused += 1,
            Ended::TimedOut => tally.timed_out += 1,
        }
    }

    /// How many of those who stay the victim has not closed.
    pub(super) fn still_held(&self) -> u64 {
        self.held.iter().filter(|held| held.connection.close_reason().is_none()).count() as u64
    }

    /// Everyone leaves, and says so.
    pub(super) async fn end(mut self) {
        // First, so that the mute stay mute.
        self.streets.clear();
        for endpoint in &self.endpoints {
            endpoint.close(0_u32.into(), b"");
        }
        drop((self.held, self.mute));
        let all_closed = async {
            for endpoint in &self.endpoints {
                endpoint.wait_idle().await;
            }
        };
        // A victim that does not answer is not waited for.
        let _ = timeout(CLOSE_TIMEOUT, all_closed).await;
    }
}

async fn knock(
    endpoint: &Endpoint,
    config: noq::ClientConfig,
    remote: SocketAddr,
    visit: Visit,
    topic: [u8; 32],
) -> Ended {
    let Ok(connecting) = endpoint.connect_with(config, remote, "stranger.invalid") else { return Ended::Refused };
    if visit == Visit::Mute {
        return mute(connecting).await;
    }
    let patience = match visit {
        Visit::Abandon { after_ms } => Duration::from_millis(after_ms),
        Visit::Leave | Visit::Idle | Visit::HalfHeader | Visit::Header | Visit::Mute => HANDSHAKE_TIMEOUT,
    };
    let connection = match timeout(patience, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(ConnectionError::TimedOut)) => return Ended::TimedOut,
        Ok(Err(_)) => return Ended::Refused,
        Err(_) if matches!(visit, Visit::Abandon { .. }) => return Ended::Abandoned,
        Err(_) => return Ended::TimedOut,
    };
    match visit {
        Visit::Idle | Visit::Mute => Ended::Stays(Held { connection, _stream: None }),
        Visit::HalfHeader => hold_stream(connection, &header(topic)[..18]).await,
        Visit::Header => hold_stream(connection, &header(topic)).await,
        Visit::Leave | Visit::Abandon { .. } => {
            connection.close(0_u32.into(), b"");
            Ended::Left
        }
    }
}

async fn mute(mut connecting: Connecting) -> Ended {
    match timeout(MUTE_AFTER, &mut connecting).await {
        Ok(Ok(connection)) => Ended::Stays(Held { connection, _stream: None }),
        Ok(Err(_)) => Ended::Refused,
        Err(_) => Ended::Mute(Box::new(connecting)),
    }
}

async fn hold_stream(connection: Connection, begin: &[u8]) -> Ended {
    let opened = timeout(HANDSHAKE_TIMEOUT, async {
        let mut stream = connection.open_uni().await.ok()?;
        stream.write_all(begin).await.ok()?;
        Some(stream)
    });
    // A victim that closed in between has refused after the handshake; that is counted with those no longer held.
    let stream = opened.await.unwrap_or(None);
    Ended::Stays(Held { connection, _stream: stream })
}

/// The first frame of a gossip stream: a length of 32 in network order, then the topic.
pub(super) fn header(topic: [u8; 32]) -> [u8; 36] {
    let mut frame = [0; 36];
    frame[3] = 32;
    frame[4..].copy_from_slice(&topic);
    frame
}
