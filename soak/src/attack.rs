//! The attacker: floods of one kind against one node on 127.0.0.0/8, each bounded in number and time, every attempt
//! counted.
//!
//! It speaks QUIC below iroh (`identity`), so that an attempt costs it as little as it would cost a real attacker and
//! thousands of identities fit one small process. Run it in a process of its own (`child`): only then can the processor
//! time of the two sides be told apart. What a flood does to the victim is not measured here.

pub mod caller;
pub mod child;
mod crowd;
mod identity;
mod initials;
pub mod sources;
mod street;

pub use identity::fresh_key;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use self::{
    crowd::{Crowd, SOCKETS_MAX, UNDER_WAY_GENTLE, UNDER_WAY_MAX, Visit},
    identity::Identities,
    sources::SOURCES_MAX,
};

/// The most attempts of one attack.
pub const COUNT_MAX: usize = 100_000;

/// No attempt begins later than this after the first.
pub const ATTEMPTS_TIME_MAX: Duration = Duration::from_secs(120);

/// The protocol of stock iroh-gossip, the one every victim speaks.
const ALPN: &[u8] = b"/iroh-gossip/1";

/// What strangers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Valid first packets of clients that do not exist, from many addresses; answers are never read.
    Spoofed,
    /// Identities that finish the handshake and do nothing.
    Idle,
    /// Dials dropped in the middle of the handshake.
    Abandon,
    /// Attempts that stop at every step: first packet, silence after the server's flight, no stream, half a header, no
    /// message.
    Stall,
    /// Spoofed, idle, abandoned and stalled at once, a quarter each.
    Mix,
    /// Identities that finish a handshake and leave.
    ComeAndGo,
    /// Identities that open a stream for the topic and keep their connection alive.
    Fill,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Spoofed, Self::Idle, Self::Abandon, Self::Stall, Self::Mix, Self::ComeAndGo, Self::Fill];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spoofed => "spoofed",
            Self::Idle => "idle",
            Self::Abandon => "abandon",
            Self::Stall => "stall",
            Self::Mix => "mix",
            Self::ComeAndGo => "come-and-go",
            Self::Fill => "fill",
        }
    }

    /// Whether strangers stay once every attempt is made: then the flood ends when they leave, otherwise with the last
    /// attempt.
    pub fn stays(self) -> bool {
        match self {
            Self::Spoofed | Self::Abandon | Self::ComeAndGo => false,
            Self::Idle | Self::Stall | Self::Mix | Self::Fill => true,
        }
    }
}

/// One attack.
#[derive(Debug, Clone)]
pub struct Order {
    /// What strangers do.
    pub kind: Kind,
    /// The victim, on 127.0.0.0/8.
    pub target: SocketAddr,
    /// The topic that headers name.
    pub topic: [u8; 32],
    /// Attempts, at most [`COUNT_MAX`].
    pub count: usize,
    /// Spoofed packets a second; all at once if absent.
    pub per_second: Option<u32>,
}

/// What came of the attempts, as the attacker saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Attempts begun.
    pub attempted: u64,
    /// Of these, packets sent without waiting for an answer.
    pub sent: u64,
    /// Handshakes that finished on the attacker's side.
    pub finished: u64,
    /// Attempts the victim ended during the handshake.
    pub refused: u64,
    /// Attempts the victim did not answer in time.
    pub timed_out: u64,
    /// Attempts the attacker dropped in the middle, saying so.
    pub abandoned: u64,
    /// Attempts that fell silent in the middle, after the victim's flight.
    pub silent: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.attempted += other.attempted;
        self.sent += other.sent;
        self.finished += other.finished;
        self.refused += other.refused;
        self.timed_out += other.timed_out;
        self.abandoned += other.abandoned;
        self.silent += other.silent;
    }
}

/// An attack that is ready to begin.
#[derive(Debug)]
pub struct Attack {
    order: Order,
    crowd: Crowd,
    flights: Vec<Vec<u8>>,
}

impl Attack {
    /// Builds first flights and binds sockets. Nothing is sent to the victim yet.
    ///
    /// # Errors
    ///
    /// When the order leaves loopback or its bounds, or a socket cannot be bound.
    pub async fn prepare(order: Order) -> Result<Self> {
        ensure!(order.target.ip().is_loopback(), "{} is not a loopback address", order.target);
        ensure!(order.count <= COUNT_MAX, "{} attempts; at most {COUNT_MAX}", order.count);
        let identities = Identities::new(ALPN);
        let flights = initials::build(&identities, flights_of(order.kind, order.count)).await?;
        let crowd = Crowd::gather(identities, order.target, order.topic, SOCKETS_MAX)?;
        Ok(Self { order, crowd, flights })
    }

    /// Makes every attempt once. Returns when each has ended or stays.
    ///
    /// # Errors
    ///
    /// When the attacker itself cannot go on.
    pub async fn run(&mut self) -> Result<Tally> {
        let Order { kind, target, count, per_second, .. } = self.order;
        let deadline = Instant::now() + ATTEMPTS_TIME_MAX;
        let sources = self.flights.len().min(SOURCES_MAX);
        let spoof = initials::send(&self.flights, target, sources, per_second);
        let visits = visits(kind, count);
        let under_way = if kind == Kind::ComeAndGo { UNDER_WAY_GENTLE } else { UNDER_WAY_MAX };
        let mut tally = Tally::default();
        let (sent, visited) = tokio::try_join!(spoof, self.crowd.visit(visits, under_way, deadline))?;
        tally.add(Tally { attempted: sent as u64, sent: sent as u64, ..Tally::default() });
        tally.add(visited);
        Ok(tally)
    }

    /// Connections the victim has not closed yet.
    pub fn still_held(&self) -> u64 {
        self.crowd.still_held()
    }

    /// Everyone leaves.
    pub async fn end(self) {
        self.crowd.end().await;
    }
}

/// How many of the attempts are bare first packets.
fn flights_of(kind: Kind, count: usize) -> usize {
    match kind {
        Kind::Spoofed => count,
        Kind::Stall => count / 5,
        // A quarter spoofed, and a fifth of the quarter that stalls.
        Kind::Mix => count / 4 + count / 4 / 5,
        Kind::Idle | Kind::Abandon | Kind::ComeAndGo | Kind::Fill => 0,
    }
}

/// What the other attempts do, in the order they begin.
fn visits(kind: Kind, count: usize) -> Box<dyn Iterator<Item = Visit> + Send> {
    let rest = count - flights_of(kind, count);
    let steps = [Visit::Mute, Visit::Idle, Visit::HalfHeader, Visit::Header];
    // Between the first packet and the last of a handshake on loopback, over and over.
    let abandon = |number: usize| Visit::Abandon { after_ms: 1 + number as u64 % 3 };
    match kind {
        Kind::Spoofed => Box::new(std::iter::empty()),
        Kind::Idle => Box::new(std::iter::repeat_n(Visit::Idle, rest)),
        Kind::Fill => Box::new(std::iter::repeat_n(Visit::Header, rest)),
        Kind::ComeAndGo => Box::new(std::iter::repeat_n(Visit::Leave, rest)),
        Kind::Abandon => Box::new((0..rest).map(abandon)),
        Kind::Stall => Box::new(steps.into_iter().cycle().take(rest)),
        Kind::Mix => Box::new((0..rest).map(move |number| match number % 3 {
            0 => Visit::Idle,
            1 => abandon(number / 3),
            _ => steps[number / 3 % steps.len()],
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_is_planned_once() {
        for kind in Kind::ALL {
            for count in [0, 1, 7, 500, 2000] {
                let planned = flights_of(kind, count) + visits(kind, count).count();
                assert_eq!(planned, count, "{} {count}", kind.name());
            }
        }
    }

    #[test]
    fn stalls_stop_at_every_step() {
        let steps: Vec<Visit> = visits(Kind::Stall, 500).collect();
        for step in [Visit::Mute, Visit::Idle, Visit::HalfHeader, Visit::Header] {
            assert_eq!(steps.iter().filter(|other| **other == step).count(), 100, "{step:?}");
        }
        assert_eq!(flights_of(Kind::Stall, 500), 100);
    }

    #[tokio::test]
    async fn an_attack_stays_on_loopback_and_within_bounds() {
        let order = |target: &str, count| Order {
            kind: Kind::Idle,
            target: target.parse().unwrap(),
            topic: [0; 32],
            count,
            per_second: None,
        };
        assert!(Attack::prepare(order("192.0.2.1:1", 1)).await.unwrap_err().to_string().contains("192.0.2.1"));
        assert!(Attack::prepare(order("127.0.0.1:1", COUNT_MAX + 1)).await.is_err());
    }
}
