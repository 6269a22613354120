//! The hot paths that touch no network, to be gone one at a time (feature `testing`), so that a program can count what each costs.
//!
//! A path prepares what it needs and hands the step itself to whoever counts; it checks that the step did what its name says. Time
//! is virtual. Nothing is measured here.

use std::{hint::black_box, net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;
use iroh::{EndpointId, SecretKey};
use n0_future::time::Instant;
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    access::Standing,
    admission::{Attempt, Decision, Door, Permit, Verdict, prefix::Origin},
    counters::Reason,
    limits::Limits,
    listeners::{self, Listener, ListenerId},
    topic::state::{Effect, State},
    wire::{
        self, FrameReader, ProtoMessage,
        inspect::{Inbound, inspect},
    },
};

/// One path, by its name.
#[derive(Debug)]
pub struct HotPath {
    /// In one word.
    pub name: &'static str,
    /// In one line.
    pub what: &'static str,
    /// Makes what the path needs before it can be gone.
    pub start: fn() -> Walk,
}

/// Goes the path once; what is to be counted is handed over, and is to be called once.
pub type Walk = Box<dyn FnMut(Count)>;

/// Whoever counts.
pub type Count = fn(&mut dyn FnMut());

/// Every path.
pub const HOT_PATHS: &[HotPath] = &[
    path("encode-64", "a message of 64 B made a frame", || encode(64)),
    path("encode-1024", "… of 1 KiB", || encode(1024)),
    path("cut-64", "a frame of 64 B cut out of what a stream yields", || cut(64)),
    path("cut-1024", "… of 1 KiB", || cut(1024)),
    path("inspect-64", "its bytes inspected and decoded, 64 B", || inspect_payload(64)),
    path("inspect-1024", "… 1 KiB", || inspect_payload(1024)),
    path("inspect-ihave", "an announcement of four messages", inspect_ihave),
    path("topic-received-64", "a topic hears 64 B from one of five neighbours, forwards to four", || received(64)),
    path("topic-received-1024", "… 1 KiB", || received(1024)),
    path("topic-duplicate-64", "it hears the same again from another neighbour", || duplicate(64)),
    path("topic-duplicate-1024", "… 1 KiB", || duplicate(1024)),
    path("topic-publish-64", "it publishes 64 B to five neighbours", || publication(64)),
    path("topic-publish-1024", "… 1 KiB", || publication(1024)),
    path("topic-due", "its timers, per message heard, at 200 a second", due),
    path("door-admitted", "an attempt finds a slot beside 64 connections", admitted),
    path("door-seated", "it shows who it is, and keeps the slot", seated),
    path("door-retry", "an attempt has to prove its address first", retried),
    path("door-refused", "an attempt comes too soon after others of its address", refused),
];

const fn path(name: &'static str, what: &'static str, start: fn() -> Walk) -> HotPath {
    HotPath { name, what, start }
}

fn encode(bytes: usize) -> Walk {
    let message = Mind::new(2, 1..=1).say(bytes);
    Box::new(move |count| count(&mut || drop(black_box(wire::encode(black_box(&message))))))
}

fn cut(bytes: usize) -> Walk {
    let frame = frame(bytes);
    let mut reader = FrameReader::default();
    Box::new(move |count| {
        let mut chunk = Some(Bytes::copy_from_slice(&frame));
        let mut size = 0;
        count(&mut || {
            reader.fill(chunk.take().expect("called once"));
            while let Ok(Some(body)) = reader.next() {
                size += body.len();
            }
        });
        assert_eq!(size, frame.len() - 4, "one frame is cut out");
    })
}

fn inspect_payload(bytes: usize) -> Walk {
    let frame = frame(bytes);
    inspect_body(frame.slice(4..))
}

fn inspect_ihave() -> Walk {
    let mut body = vec![1, 3, 4];
    for id in 0..4u8 {
        body.extend([id; 32]);
        body.push(3);
    }
    inspect_body(body.into())
}

fn inspect_body(body: Bytes) -> Walk {
    let me = key(1);
    Box::new(move |count| {
        let mut is_admitted = false;
        count(&mut || is_admitted = black_box(inspect(black_box(&body), &me)).is_ok());
        assert!(is_admitted, "the message may enter");
    })
}

fn received(bytes: usize) -> Walk {
    let (mut speaker, mut topic) = (Mind::new(2, 1..=1), Mind::new(1, 2..=6));
    Box::new(move |count| {
        let mut heard = Some(inbound(&speaker.say(bytes)));
        topic.pass();
        let mut forwarded = 0;
        count(&mut || forwarded = topic.hear(0, heard.take().expect("called once")));
        assert_eq!(forwarded, 4);
    })
}

fn duplicate(bytes: usize) -> Walk {
    let (mut speaker, mut topic) = (Mind::new(2, 1..=1), Mind::new(1, 2..=6));
    Box::new(move |count| {
        let message = speaker.say(bytes);
        topic.pass();
        topic.hear(0, inbound(&message));
        let mut again = Some(inbound(&message));
        let mut answered = 0;
        count(&mut || answered = topic.hear(1, again.take().expect("called once")));
        assert_eq!(answered, 1, "it is told not to send what it has only announced");
    })
}

fn publication(bytes: usize) -> Walk {
    let mut topic = Mind::new(1, 2..=6);
    Box::new(move |count| {
        topic.pass();
        let mut content = Some(topic.content(bytes));
        let mut sent = 0;
        count(&mut || {
            let content = content.take().expect("called once");
            let (_, effects) = topic.state.on_publish(content, topic.now).expect("it fits");
            sent = sends(&effects);
            topic.state.reuse(effects);
        });
        assert_eq!(sent, 5);
    })
}

fn due() -> Walk {
    let (mut speaker, mut topic) = (Mind::new(2, 1..=1), Mind::new(1, 2..=6));
    Box::new(move |count| {
        let message = speaker.say(64);
        // One of the neighbours is only told of messages.
        topic.hear(0, inbound(&message));
        topic.hear(1, inbound(&message));
        count(&mut || topic.pass());
    })
}

fn admitted() -> Walk {
    let mut entrance = Entrance::new();
    Box::new(move |count| {
        let attempt = entrance.next_attempt(true);
        let mut decision = None;
        count(&mut || decision = Some(entrance.door.on_attempt(&attempt, entrance.now, &mut entrance.rng)));
        assert!(matches!(decision, Some(Decision::Shake(_))), "{decision:?}");
    })
}

fn seated() -> Walk {
    let mut entrance = Entrance::new();
    Box::new(move |count| {
        let attempt = entrance.next_attempt(true);
        let mut permit = entrance.shake(&attempt);
        let mut verdict = None;
        count(&mut || {
            verdict = Some(entrance.door.on_identity(&mut permit, entrance.guest, Standing::Unknown, entrance.now));
        });
        assert_eq!(verdict, Some(Verdict::Seated));
    })
}

fn retried() -> Walk {
    let mut entrance = Entrance::new();
    let handshakes: Vec<Permit> = (0..Limits::default().retry_above)
        .map(|_| {
            let attempt = entrance.next_attempt(true);
            entrance.shake(&attempt)
        })
        .collect();
    Box::new(move |count| {
        let attempt = entrance.next_attempt(false);
        let mut decision = None;
        count(&mut || decision = Some(entrance.door.on_attempt(&attempt, entrance.now, &mut entrance.rng)));
        assert!(matches!(decision, Some(Decision::Retry)), "{decision:?} beside {} handshakes", handshakes.len());
    })
}

fn refused() -> Walk {
    let mut entrance = Entrance::new();
    let attempt = entrance.next_attempt(true);
    // Whoever is let in pays, so a burst is enough; each has left before the next one comes.
    for _ in 0..Limits::default().prefix_admissions_burst {
        drop(entrance.shake(&attempt));
    }
    Box::new(move |count| {
        let mut decision = None;
        count(&mut || decision = Some(entrance.door.on_attempt(&attempt, entrance.now, &mut entrance.rng)));
        assert!(matches!(decision, Some(Decision::Refuse(Reason::RefusedAtRate))), "{decision:?}");
    })
}

/// From one message to the next: 200 a second.
const PACE: Duration = Duration::from_millis(5);

/// One topic's state with its clock.
struct Mind {
    state: State,
    neighbors: Vec<EndpointId>,
    now: Instant,
    said: u64,
}

impl Mind {
    fn new(me: u8, neighbors: RangeInclusive<u8>) -> Self {
        let now = Instant::now();
        let mut state = State::new(key(me), Limits::default(), StdRng::seed_from_u64(me.into()), now);
        // Making a key takes more than what is counted.
        let neighbors: Vec<EndpointId> = neighbors.map(key).collect();
        for neighbor in &neighbors {
            let effects = state.on_message(*neighbor, 1, inbound(&wire::join()), now);
            state.reuse(effects);
        }
        assert_eq!(state.neighbors().len(), neighbors.len(), "whoever joins becomes a neighbour");
        Self { state, neighbors, now, said: 0 }
    }

    /// Lets time pass until the next message, and does what falls due.
    fn pass(&mut self) {
        self.now += PACE;
        while self.state.next_deadline() <= self.now {
            let effects = self.state.on_deadlines(self.now);
            self.state.reuse(effects);
        }
    }

    /// Content that was never said before.
    fn content(&mut self, bytes: usize) -> Bytes {
        self.said += 1;
        let mut content = vec![0; bytes];
        content[..8].copy_from_slice(&self.said.to_be_bytes());
        content.into()
    }

    /// Publishes, and returns what the neighbours are sent.
    fn say(&mut self, bytes: usize) -> ProtoMessage {
        self.pass();
        let content = self.content(bytes);
        let (_, effects) = self.state.on_publish(content, self.now).expect("it fits");
        let sent = effects.into_iter().find_map(|effect| match effect {
            Effect::Send { message, .. } => Some(message),
            _ => None,
        });
        sent.expect("a neighbour is sent what is published")
    }

    /// Hears a message from one of the neighbours, and returns how many it sends for it.
    fn hear(&mut self, from: usize, heard: Inbound) -> usize {
        let effects = self.state.on_message(self.neighbors[from], 1, heard, self.now);
        let sent = sends(&effects);
        self.state.reuse(effects);
        sent
    }
}

fn sends(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count()
}

fn key(seed: u8) -> EndpointId {
    SecretKey::from_bytes(&[seed; 32]).public()
}

fn frame(bytes: usize) -> Bytes {
    wire::encode(&Mind::new(2, 1..=1).say(bytes)).expect("it fits")
}

/// A message as it comes out of a connection.
fn inbound(message: &ProtoMessage) -> Inbound {
    let frame = wire::encode(message).expect("it fits");
    inspect(&frame[4..], &key(1)).expect("it may enter")
}

/// Connections that are there already.
const SEATED: u8 = 64;

/// A door with its clock and its dice.
struct Entrance {
    door: Door,
    now: Instant,
    rng: StdRng,
    attempts: u8,
    guest: EndpointId,
    _permits: Vec<Permit>,
}

impl Entrance {
    fn new() -> Self {
        let limits = Limits::default();
        let listener = |name: &str, connections_max| Listener { name: name.into(), connections_max };
        let listeners = vec![
            listener("192.0.2.1:4433", limits.inbound_max),
            listener(listeners::RELAYS, limits.relay_connections_max),
        ];
        let now = Instant::now();
        let door = Door::new(&limits, listeners, 1, now, Arc::new(|| {}));
        let rng = StdRng::seed_from_u64(1);
        let mut entrance = Self { door, now, rng, attempts: 0, guest: key(255), _permits: Vec::new() };
        for number in 0..SEATED {
            let attempt = attempt([198, 51, 100, number], true);
            let mut permit = entrance.shake(&attempt);
            let verdict = entrance.door.on_identity(&mut permit, key(number), Standing::Unknown, now);
            assert_eq!(verdict, Verdict::Seated);
            entrance._permits.push(permit);
        }
        entrance
    }

    /// From one of 256 addresses, two seconds after the one before: slower than any rate allows.
    fn next_attempt(&mut self, is_validated: bool) -> Attempt {
        self.now += Duration::from_secs(2);
        self.attempts = self.attempts.wrapping_add(1);
        attempt([203, 0, 113, self.attempts], is_validated)
    }

    fn shake(&mut self, attempt: &Attempt) -> Permit {
        match self.door.on_attempt(attempt, self.now, &mut self.rng) {
            Decision::Shake(permit) => permit,
            other => panic!("{attempt:?} is not let in: {other:?}"),
        }
    }
}

fn attempt(ip: [u8; 4], is_validated: bool) -> Attempt {
    let addr = SocketAddr::from((ip, 4433));
    Attempt {
        listener: ListenerId(0),
        origin: Origin::Ip(addr.ip()),
        addr: Some(addr),
        is_validated,
        hearsay: Standing::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_can_be_gone_again_and_again() {
        for path in HOT_PATHS {
            let mut walk = (path.start)();
            (0..100).for_each(|_| walk(|step| step()));
        }
    }
}
