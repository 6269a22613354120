//! Peers that mean harm. Whatever a stranger sends ends as an ignored message or as his closed connection, is counted by
//! reason and grows nothing; the friend beside him notices nothing.
//!
//! Every scenario is one attack in a `Siege`: our node, a stock friend whose messages must keep flowing, and a raw peer.

use iroh::{EndpointId, SecretKey, endpoint::SendStream};
use iroh_gossip::proto::TopicId;
use perennial::{Limits, Reason};
use perennial_tests::{
    Ours, PATIENCE, Raw, Stock, Topic, World, eventually, frames,
    ours::{fast_limits, summary},
    raw::{RawConnection, RawOptions, write},
    topic::spread,
    topic_id,
    wait::must,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

const SEED: u64 = 11;

/// The bounds a siege is held to; small, so that an attack has to meet them.
const ADDRESSES_MAX: usize = 64;
const ANNOUNCED_MAX: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_that_would_overflow_is_not_passed_on() {
    let siege = Siege::begin("round overflow").await;
    let mut attack = siege.as_neighbor().await;
    attack.say(&frames::gossip(b"last hop", u16::MAX)).await;
    attack.say(&frames::i_have(&[[7; 32]], u16::MAX)).await;
    siege.ours.counts(Reason::RoundImpossible, 1).await;
    assert!(!siege.at_ours.has_heard("last hop"), "an impossible message is not delivered");
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_name_us_are_not_believed() {
    let siege = Siege::begin("self-addressed").await;
    let mut attack = siege.as_neighbor().await;
    let me = siege.ours.id();
    let bodies = [
        frames::forward_join(me, None, 0),
        frames::forward_join(me, None, 6),
        frames::shuffle(me, &[], 0),
        frames::shuffle(me, &[], 6),
        frames::shuffle_reply(&[(me, None)]),
    ];
    for body in bodies {
        attack.say(&body).await;
    }
    siege.ours.counts(Reason::SelfAddressed, 4).await;
    assert!(!siege.at_ours.neighbors().contains(&me), "nobody is his own neighbor");
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shuffles_full_of_forged_ids_grow_neither_contacts_nor_addresses() {
    let siege = Siege::begin("forged ids").await;
    let mut attack = siege.as_neighbor().await;
    for batch in 0..20_u8 {
        // Nobody listens on these ports: each address costs whoever dials it his deadline.
        let data = frames::addr_info(&[([127, 0, 0, batch + 2], 9)]);
        let nodes: Vec<_> = forged_ids(batch, 80).into_iter().map(|id| (id, Some(data.clone()))).collect();
        for body in [frames::shuffle_reply(&nodes), frames::shuffle(siege.raw.id(), &nodes, 0)] {
            assert!(body.len() < 4096, "a legal frame, only full: {}", body.len());
            attack.say(&body).await;
        }
    }
    // Each list had 80 nodes; the bound on addresses is looked at by the end of the siege.
    siege.ours.counts(Reason::NodesCut, 1000).await;
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn address_data_that_is_too_large_or_unreadable_is_not_kept() {
    let siege = Siege::begin("address data").await;
    let mut attack = siege.as_neighbor().await;
    let stranger = forged_ids(99, 1)[0];
    attack.say(&frames::forward_join(stranger, Some(&[0xff; 600]), 0)).await;
    attack.say(&frames::forward_join(stranger, Some(&[0x07, 0xff, 0xff]), 0)).await;
    siege.ours.counts(Reason::PeerDataDropped, 2).await;
    let many: Vec<_> = (1..60).map(|port| ([127, 0, 0, 1], port)).collect();
    attack.say(&frames::shuffle_reply(&[(stranger, Some(frames::addr_info(&many)))])).await;
    siege.ours.counts(Reason::AddressDropped, 1).await;
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_announces_too_much_costs_its_sender_the_connection() {
    for announced in [4097, 70_000, u32::MAX] {
        let siege = Siege::begin(&format!("oversize {announced}")).await;
        let attack = siege.raw.dial(siege.ours.addr()).await;
        let bytes = [frames::header(siege.topic_id), announced.to_be_bytes().to_vec(), vec![0; 512]].concat();
        let _stream = attack.open_with_bytes(&bytes).await;
        siege.ours.counts(Reason::FrameTooLarge, 1).await;
        attack.closed().await;
        siege.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_announces_too_much_costs_its_sender_the_connection() {
    let siege = Siege::begin("oversize header").await;
    let attack = siege.raw.dial(siege.ours.addr()).await;
    let _stream = attack.open_with_bytes(&u32::MAX.to_be_bytes()).await;
    siege.counts_any(&[Reason::FrameTooLarge, Reason::HeaderMissing]).await;
    attack.closed().await;
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_frames_that_stop_half_way_are_given_up() {
    let siege = Siege::begin("half written").await;
    let attack = siege.raw.dial(siege.ours.addr()).await;
    let header = frames::header(siege.topic_id);
    let _half_a_header = attack.open_with_bytes(&header[..10]).await;
    let _half_a_length = attack.open_with_bytes(&header[..2]).await;
    let half_a_frame = [header.clone(), frames::frame(&frames::gossip(b"never whole", 0))[..20].to_vec()].concat();
    let _half_a_frame = attack.open_with_bytes(&half_a_frame).await;
    siege.counts_any(&[Reason::FrameUnfinished, Reason::HeaderMissing]).await;
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_inside_a_frame_is_counted() {
    let siege = Siege::begin("ends inside a frame").await;
    let attack = siege.raw.dial(siege.ours.addr()).await;
    let bytes = [frames::header(siege.topic_id), frames::frame(&frames::gossip(b"cut off", 0))[..20].to_vec()].concat();
    let mut stream = attack.open_with_bytes(&bytes).await;
    stream.finish().expect("the stream is open");
    siege.ours.counts(Reason::FrameUnfinished, 1).await;
    siege.end().await;
}

/// A stream nobody wrote to becomes visible when a later one is written to; it must not block that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_never_write_block_nobody() {
    let siege = Siege::begin("silent streams").await;
    let attack = siege.as_neighbor().await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(attack.connection.open_bare().await);
    }
    let _speaking = attack.connection.open(siege.topic_id, &[frames::gossip(b"past the silent ones", 0)]).await;
    siege.at_ours.hears("past the silent ones").await;
    siege.ours.counts(Reason::HeaderMissing, 1).await;
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_for_unknown_topics_are_read_and_dropped() {
    let siege = Siege::begin("unknown topics").await;
    let attack = siege.as_neighbor().await;
    for number in 0..30 {
        let unknown = topic_id(&format!("nobody joined this {number}"));
        let mut stream = attack.connection.open(unknown, &[frames::join(), frames::gossip(b"anybody", 0)]).await;
        let _ = stream.finish();
    }
    siege.ours.counts(Reason::TopicUnknown, 30).await;
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_beyond_the_limit_are_not_remembered() {
    let siege = Siege::begin("announcements").await;
    let mut attack = siege.as_neighbor().await;
    for batch in 0..20_u8 {
        let ids: Vec<[u8; 32]> = (0..116).map(|number: u8| *blake3_of(batch, number).as_bytes()).collect();
        attack.say(&frames::i_have(&ids, 1)).await;
    }
    siege.ours.counts(Reason::AnnouncementsDropped, 1).await;
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_announcement_again_and_again_grows_nothing() {
    let siege = Siege::begin("repeated announcement").await;
    let mut attack = siege.as_neighbor().await;
    for _ in 0..200 {
        attack.say(&frames::i_have(&[[9; 32]; 116], 1)).await;
    }
    siege.ours.counts(Reason::AnnouncementsDropped, 100).await;
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_is_nothing_but_noise() {
    println!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    let siege = Siege::begin("noise").await;
    for number in 0..60 {
        let attack = siege.raw.dial(siege.ours.addr()).await;
        let mut noise = vec![0; rng.random_range(1..3000)];
        rng.fill_bytes(&mut noise);
        // Three in four get past the header, half of those past the length too: noise at every depth of the parser.
        let bytes = match number % 4 {
            0 => noise,
            1 => [frames::header(siege.topic_id), noise].concat(),
            _ => {
                let kind = [number as u8 % 2, rng.random_range(0..7)];
                [frames::header(siege.topic_id), frames::frame(&[kind.to_vec(), noise].concat())].concat()
            }
        };
        let mut stream = attack.open_with_bytes(&bytes).await;
        let _ = stream.finish();
        // Read by the node before the connection goes: an acknowledgement or a refusal, either ends the wait.
        let _ = tokio::time::timeout(PATIENCE, stream.stopped()).await;
        attack.close();
    }
    siege.ours.counts(Reason::MessageMalformed, 1).await;
    siege.end().await;
}

/// Handshakes that begin and never finish end by our deadline, not by their patience.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_finish_are_given_up() {
    let siege = Siege::begin("half-open").await;
    let mut knocking = Vec::new();
    for _ in 0..10 {
        knocking.push(siege.raw.half_open(siege.ours.addr()).await);
    }
    siege.ours.counts(Reason::HandshakeTimeout, 1).await;
    drop(knocking);
    siege.end().await;
}

/// Handshakes that finish and say nothing, and one-shot strangers: neither stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_strangers_are_shown_out() {
    let mut siege = Siege::begin("silent strangers").await;
    for _ in 0..10 {
        let stranger = siege.world.raw(RawOptions::default()).await;
        let connection = stranger.dial(siege.ours.addr()).await;
        connection.closed().await;
    }
    siege.ours.counts(Reason::ClosedHelloTimeout, 10).await;
    siege.end().await;
}

/// Our node with a stock friend on one topic, and an attacker who knows its address.
struct Siege {
    world: World,
    topic_id: TopicId,
    ours: Ours,
    at_ours: Topic,
    friend: Stock,
    at_friend: Topic,
    raw: Raw,
}

impl Siege {
    async fn begin(name: &str) -> Self {
        let topic_id = topic_id(name);
        let mut world = World::new().await;
        let limits = Limits { addresses_max: ADDRESSES_MAX, announced_max: ANNOUNCED_MAX, ..fast_limits() };
        let ours = world.ours_with(None, limits).await;
        let at_ours = ours.join(topic_id, &[]).await;
        let friend = world.stock().await;
        let at_friend = friend.join(topic_id, &[ours.addr()]).await;
        at_ours.sees(friend.id()).await;
        at_friend.sees(ours.id()).await;
        let raw = world.raw(RawOptions::default()).await;
        Self { world, topic_id, ours, at_ours, friend, at_friend, raw }
    }

    /// The attacker after he has become a neighbour by the book.
    async fn as_neighbor(&self) -> Attack {
        let connection = self.raw.dial(self.ours.addr()).await;
        let stream = connection.open(self.topic_id, &[frames::join()]).await;
        self.at_ours.sees(self.raw.id()).await;
        Attack { connection, stream }
    }

    async fn counts_any(&self, reasons: &[Reason]) {
        eventually(PATIENCE, &format!("one of {reasons:?} is counted"), async || {
            let counts = self.ours.census().await.counts;
            must(reasons.iter().any(|reason| counts.get(*reason) > 0), || summary(&counts))
        })
        .await;
    }

    /// The friend noticed nothing, nothing has grown, and once the attacker is gone nothing of him is left.
    async fn end(self) {
        spread(&self.at_friend, &[&self.at_ours], "a friend after the attack", PATIENCE).await;
        spread(&self.at_ours, &[&self.at_friend], "an answer to the friend", PATIENCE).await;
        let census = self.ours.census().await;
        assert!(census.addresses <= ADDRESSES_MAX, "{} addresses", census.addresses);
        for topic in &census.topics {
            assert!(topic.contacts <= 64, "{} contacts for one friend and one attacker", topic.contacts);
            assert_eq!(topic.restarts, 0, "nothing a remote sends restarts a topic");
        }
        self.raw.shutdown().await;
        self.at_ours.misses(self.raw.id()).await;
        let friend = self.friend.id();
        eventually(PATIENCE, "only the friend is left", async || {
            let census = self.ours.census().await;
            let is_left = census.ledger.orphans() == 0
                && census.half_open == 0
                && census.peers.iter().all(|peer| peer.id == friend);
            must(is_left, || format!("{}{:#?}\n{}", census.ledger, census.peers, summary(&census.counts)))
        })
        .await;
        self.world.finish().await;
    }
}

/// An attacker who is a neighbour: his connection and the stream he joined on, which must stay open for that.
struct Attack {
    connection: RawConnection,
    stream: SendStream,
}

impl Attack {
    /// Says one message on the topic. A closed connection is a legitimate answer, so nobody looks at the outcome.
    async fn say(&mut self, body: &[u8]) {
        write(&mut self.stream, &frames::frame(body)).await;
    }
}

/// Valid ids of nobody; decoding checks the curve point, so they cannot be plain noise.
fn forged_ids(batch: u8, count: u8) -> Vec<EndpointId> {
    (0..count).map(|number| SecretKey::from_bytes(blake3_of(batch, number).as_bytes()).public()).collect()
}

fn blake3_of(batch: u8, number: u8) -> blake3::Hash {
    blake3::hash(&[batch, number])
}
