//! A guest: a stranger with an identity of his own who knocks, says one word once he is connected, and stays until he is
//! sent away or leaves. Cheap enough for a hundred of them; what they find out about the door is for the scenarios to say.

use std::{
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
};

use iroh::{EndpointAddr, EndpointId, endpoint::SendStream};
use tokio::task::JoinHandle;

use crate::{
    frames,
    raw::{Raw, RawConnection, RawOptions},
    topic_id,
    wait::{PATIENCE, eventually, must},
};

/// A stranger at the door.
#[derive(Debug)]
pub struct Guest {
    raw: Raw,
    outcome: Arc<OnceLock<Result<Visit, String>>>,
    knocking: JoinHandle<()>,
}

#[derive(Debug)]
struct Visit {
    connection: RawConnection,
    _word: Option<SendStream>,
}

/// What a guest says once he is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// One frame to a topic that nobody has joined.
    Spoken,
    /// Nothing.
    Silent,
}

impl Guest {
    /// Knocks at this address and does not wait for an answer.
    pub async fn knock(addr: &EndpointAddr) -> Self {
        Self::knock_as(addr, RawOptions::default(), Word::Spoken).await
    }

    /// As [`Guest::knock`], coming from this loopback address.
    pub async fn knock_from(source: [u8; 4], addr: &EndpointAddr) -> Self {
        let options = RawOptions { source: Some(Ipv4Addr::from(source)), ..RawOptions::default() };
        Self::knock_as(addr, options, Word::Spoken).await
    }

    /// As [`Guest::knock`], with everything said.
    pub async fn knock_as(addr: &EndpointAddr, options: RawOptions, word: Word) -> Self {
        let raw = Raw::spawn(options).await.expect("a guest has an endpoint");
        let outcome = Arc::<OnceLock<_>>::default();
        let (endpoint, addr, answer) = (raw.clone(), addr.clone(), outcome.clone());
        let knocking = tokio::spawn(async move {
            let visit = match endpoint.try_dial(addr).await {
                Ok(connection) => {
                    let word = match word {
                        Word::Spoken => connection.try_open(topic_id("nobody joined this"), &[frames::join()]).await,
                        Word::Silent => None,
                    };
                    Ok(Visit { connection, _word: word })
                }
                Err(error) => Err(format!("{error:#}")),
            };
            answer.set(visit).expect("knocks once");
        });
        Self { raw, outcome, knocking }
    }

    /// As many of them, one after the other at the door.
    pub async fn knock_many(count: usize, addr: &EndpointAddr) -> Vec<Self> {
        let mut guests = Vec::new();
        for _ in 0..count {
            guests.push(Self::knock(addr).await);
        }
        guests
    }

    /// The identity.
    pub fn id(&self) -> EndpointId {
        self.raw.id()
    }

    /// Whether his handshake has finished and the connection is open. Says nothing about whether he is served.
    pub fn is_connected(&self) -> bool {
        self.visit().is_some_and(|visit| visit.connection.is_open())
    }

    /// Waits until his handshake has finished.
    pub async fn connected(&self) {
        eventually(PATIENCE, "a guest's handshake finishes", async || match self.outcome.get() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => panic!("a guest is refused: {error}"),
            None => Err("still knocking".into()),
        })
        .await;
    }

    /// Waits until he is refused before his handshake has finished; returns what he was told.
    pub async fn refused(&self) -> String {
        eventually(PATIENCE, "a guest is refused", async || match self.outcome.get() {
            Some(Ok(_)) => panic!("a guest that should be refused is connected"),
            Some(Err(error)) => Ok(error.clone()),
            None => Err("still knocking".into()),
        })
        .await
    }

    /// Whether he has been refused.
    pub fn is_refused(&self) -> bool {
        matches!(self.outcome.get(), Some(Err(_)))
    }

    /// Waits until the connection is closed on him; returns the code and the reason text.
    pub async fn told(&self) -> (u64, String) {
        self.connected().await;
        self.visit().expect("connected").connection.closed_with().await
    }

    /// Closes his connection or gives up knocking, and does not wait until the node has noticed.
    pub fn turn_away(&self) {
        match self.visit() {
            Some(visit) => visit.connection.close(),
            None => self.knocking.abort(),
        }
    }

    /// Goes, and takes everything with him.
    pub async fn leave(self) {
        Self::leave_all([self]).await;
    }

    /// All of them go at one moment.
    pub async fn leave_all(guests: impl IntoIterator<Item = Self>) {
        let guests: Vec<_> = guests.into_iter().collect();
        guests.iter().for_each(Self::turn_away);
        let mut going = tokio::task::JoinSet::new();
        for guest in guests {
            going.spawn(async move { guest.raw.shutdown().await });
        }
        going.join_all().await;
    }

    fn visit(&self) -> Option<&Visit> {
        self.outcome.get().and_then(|outcome| outcome.as_ref().ok())
    }
}

/// That many fresh identities, some at a time, each of which finishes a handshake, or is refused, and goes. Returns how
/// many finished it.
pub async fn come_and_go(count: usize, at_a_time: usize, addr: &EndpointAddr) -> usize {
    let mut visits = tokio::task::JoinSet::new();
    let mut finished = 0;
    for number in 0..count {
        if number >= at_a_time {
            finished += visits.join_next().await.map_or(0, |visit| visit.expect("a visit does not panic"));
        }
        let addr = addr.clone();
        visits.spawn(async move {
            let raw = Raw::spawn(RawOptions::default()).await.expect("a stranger has an endpoint");
            let connection = raw.try_dial(addr).await;
            if let Ok(connection) = &connection {
                connection.close();
            }
            raw.shutdown().await;
            usize::from(connection.is_ok())
        });
    }
    finished + visits.join_all().await.into_iter().sum::<usize>()
}

/// Waits until exactly `count` of the guests have finished their handshake and are connected.
pub async fn connected(guests: &[Guest], count: usize) {
    eventually(PATIENCE, &format!("{count} of {} guests are connected", guests.len()), async || {
        let connected = guests.iter().filter(|guest| guest.is_connected()).count();
        must(connected == count, || format!("{connected} are"))
    })
    .await;
}
