//! Who may join is the embedder's word, and stock nodes take a no without harm: refused ones stay outside, go on with
//! everything else, and get in as soon as the word changes.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use iroh::EndpointId;
use iroh_gossip::proto::TopicId;
use n0_future::boxed::BoxFuture;
use perennial::{
    Admission, Kind, Limits, Loop, Mesh, Reason,
    testing::{Fault, How},
};
use perennial_tests::{
    Ours, PATIENCE, Stock, Topic, World, eventually, frames, ours::fast_limits, raw::RawOptions, topic::spread,
    topic_id, wait::must,
};
use tokio::sync::Semaphore;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_stock_node_stays_outside_and_its_other_topics_go_on() {
    let (closed, open) = (topic_id("closed to strangers"), topic_id("open to strangers"));
    let mut world = World::new().await;
    let (friend, stranger) = (world.stock().await, world.stock().await);
    let door = Doorman::new(Word::Yes);
    let ours = world.ours_from(door.mesh(fast_limits())).await;
    let (at_closed, at_open) = (ours.join(closed, &[]).await, ours.join(open, &[]).await);
    let friend_at_closed = friend.join(closed, &[ours.addr()]).await;
    at_closed.sees(friend.id()).await;
    let stranger_at_open = stranger.join(open, &[ours.addr()]).await;
    at_open.sees(stranger.id()).await;
    stranger_at_open.sees(ours.id()).await;

    door.say(stranger.id(), closed, Word::No);
    let stranger_at_closed = stranger.join(closed, &[ours.addr()]).await;
    ours.counts(Reason::JoinNotApproved, 1).await;
    let shouted = stranger_at_closed.try_publish("from outside").await;
    spread(&at_closed, &[&friend_at_closed], "among us", PATIENCE).await;
    spread(&friend_at_closed, &[&at_closed], "among us too", PATIENCE).await;
    spread(&at_open, &[&stranger_at_open], "from ours", PATIENCE).await;
    spread(&stranger_at_open, &[&at_open], "from the stranger", PATIENCE).await;
    assert!(stranger_at_closed.neighbors().is_empty(), "it was introduced to nobody");
    assert_eq!((stranger_at_closed.log().messages, shouted), (0, Ok(())));
    assert!(!at_closed.has_heard("from outside") && !friend_at_closed.has_heard("from outside"));
    assert_eq!(at_closed.neighbors(), [friend.id()]);
    // After a farewell it would stop talking on every topic and have to dial again.
    assert_eq!(stranger.connections(), 1, "the refusal cost it its connection");
    for topic in [&at_open, &stranger_at_open] {
        assert!(topic.log().downs.is_empty(), "the refusal cost it another topic: {:?}", topic.log().downs);
    }

    door.say(stranger.id(), closed, Word::Yes);
    drop(stranger_at_closed);
    let stranger_at_closed = join_until_seen(&stranger, closed, &ours).await;
    at_closed.sees(stranger.id()).await;
    spread(&stranger_at_closed, &[&at_closed, &friend_at_closed], "let in", PATIENCE).await;
    spread(&at_closed, &[&stranger_at_closed], "welcome", PATIENCE).await;
    world.finish().await;
}

/// Nothing else keeps its connection, so that retires. A stock node that is closed on without its farewell would send
/// everything it ever says to us into the dead connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_node_that_was_refused_and_closed_on_can_dial_again() {
    let topic_id = topic_id("refused and closed on");
    let mut world = World::new().await;
    let stranger = world.stock().await;
    let door = Doorman::new(Word::No);
    let ours = world.ours_from(door.mesh(fast_limits())).await;
    let at_ours = ours.join(topic_id, &[]).await;
    let at_stranger = stranger.join(topic_id, &[ours.addr()]).await;
    ours.counts(Reason::JoinNotApproved, 1).await;
    eventually(PATIENCE, "its connection retires", async || {
        must(ours.connections() == 0 && stranger.connections() == 0, || {
            format!("{} at ours, {} at the stranger", ours.connections(), stranger.connections())
        })
    })
    .await;
    assert!(at_ours.neighbors().is_empty() && at_stranger.neighbors().is_empty());
    door.say(stranger.id(), topic_id, Word::Yes);
    drop(at_stranger);
    let at_stranger = join_until_seen(&stranger, topic_id, &ours).await;
    spread(&at_stranger, &[&at_ours], "dialed again", PATIENCE).await;
    spread(&at_ours, &[&at_stranger], "and heard", PATIENCE).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_ours_that_was_refused_gets_in_by_itself_when_the_word_changes() {
    let topic_id = topic_id("refused and patient");
    let mut world = World::new().await;
    let stranger = world.ours().await;
    let door = Doorman::new(Word::No);
    let ours = world.ours_from(door.mesh(fast_limits())).await;
    let at_ours = ours.join(topic_id, &[]).await;
    let at_stranger = stranger.join(topic_id, &[ours.addr()]).await;
    ours.counts(Reason::JoinNotApproved, 2).await;
    assert!(at_ours.neighbors().is_empty() && at_stranger.neighbors().is_empty());
    door.say(stranger.id(), topic_id, Word::Yes);
    at_stranger.sees(ours.id()).await;
    spread(&at_stranger, &[&at_ours], "let in", PATIENCE).await;
    spread(&at_ours, &[&at_stranger], "welcome", PATIENCE).await;
    let line = stranger.census().await.ledger.kind(Kind::Approval);
    assert_eq!(line.spawned, 0, "where nobody decides, nobody is asked");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_word_delays_only_the_one_it_is_about() {
    let topic_id = topic_id("slow approval");
    let pause = Duration::from_secs(2);
    let mut world = World::new().await;
    let (slow, fast) = (world.stock().await, world.stock().await);
    let door = Doorman::new(Word::Yes);
    door.say(slow.id(), topic_id, Word::YesAfter(pause));
    // Longer than either linger: who waits for the word is not shown out.
    let limits =
        Limits { linger: pause / 4, first_frame_timeout: pause / 4, unclaimed_timeout: pause / 4, ..fast_limits() };
    let ours = world.ours_from(door.mesh(limits)).await;
    let at_ours = ours.join(topic_id, &[]).await;
    let asked_at = Instant::now();
    let at_slow = slow.join(topic_id, &[ours.addr()]).await;
    eventually(PATIENCE, "the embedder is asked", async || must(door.asked(slow.id()) == 1, || "not yet".into())).await;
    let at_fast = fast.join(topic_id, &[ours.addr()]).await;
    at_ours.sees(fast.id()).await;
    spread(&at_fast, &[&at_ours], "no waiting", PATIENCE).await;
    spread(&at_ours, &[&at_fast], "nor for you", PATIENCE).await;
    let took = asked_at.elapsed();
    assert!(took < pause && !at_ours.neighbors().contains(&slow.id()), "{took:?} for the one nobody has doubts about");
    at_ours.sees(slow.id()).await;
    assert!(asked_at.elapsed() >= pause);
    spread(&at_slow, &[&at_ours], "at last", PATIENCE).await;
    assert_eq!(door.asked(slow.id()), 1, "one question, one answer");
    assert!(at_slow.log().downs.is_empty() && at_ours.log().downs.is_empty());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedder_that_panics_or_never_answers_has_said_no() {
    let topic_id = topic_id("no answer");
    let mut world = World::new().await;
    let nodes = [world.stock().await, world.stock().await, world.stock().await];
    let door = Doorman::new(Word::Yes);
    door.say(nodes[0].id(), topic_id, Word::Panic);
    door.say(nodes[1].id(), topic_id, Word::Never);
    let limits = Limits { approval_timeout: Duration::from_secs(1), ..fast_limits() };
    let ours = world.ours_from(door.mesh(limits)).await;
    let at_ours = ours.join(topic_id, &[]).await;
    let mut joined = Vec::new();
    for node in &nodes {
        joined.push(node.join(topic_id, &[ours.addr()]).await);
    }
    at_ours.sees(nodes[2].id()).await;
    ours.counts(Reason::JoinNotApproved, 2).await;
    ours.has_no_orphans().await;
    assert_eq!(ours.mesh().ledger_counters().alive(Kind::Approval), 0, "nobody waits any longer");
    assert_eq!(at_ours.neighbors(), [nodes[2].id()]);
    assert_eq!(at_ours.log().restarts, 0, "the topic noticed nothing");

    for (node, before) in nodes.iter().zip(joined.drain(..)).take(2) {
        door.say(node.id(), topic_id, Word::Yes);
        drop(before);
        let again = join_until_seen(node, topic_id, &ours).await;
        spread(&again, &[&at_ours], "heard", PATIENCE).await;
    }
    world.finish().await;
}

/// The question is killed, the topic's loop is, the application leaves: each time nobody goes on asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_questions_end_with_whoever_asks_them() {
    let topic_id = topic_id("open questions");
    let mut world = World::new().await;
    let door = Doorman::new(Word::Never);
    let limits = Limits { approval_timeout: PATIENCE, ..fast_limits() };
    let ours = world.ours_from(door.mesh(limits)).await;
    let at_ours = ours.join(topic_id, &[]).await;
    let ledger = ours.mesh().ledger_counters();
    let open = async |count| {
        eventually(PATIENCE, &format!("{count} open questions"), async || {
            let line = ours.census().await.ledger.kind(Kind::Approval);
            must(line.owned == count && line.orphans() == 0, || format!("{line:?}"))
        })
        .await;
    };

    let strangers = [world.stock().await, world.stock().await, world.stock().await];
    let mut joined = vec![strangers[0].join(topic_id, &[ours.addr()]).await];
    open(1).await;
    assert!(ours.mesh().inject(Fault::new(Loop::Approval, How::Kill)));
    ours.counts(Reason::JoinNotApproved, 1).await;
    open(0).await;

    joined.push(strangers[1].join(topic_id, &[ours.addr()]).await);
    open(1).await;
    assert!(ours.mesh().inject(Fault::new(Loop::Topic, How::Panic)));
    eventually(PATIENCE, "a restart", async || must(at_ours.log().restarts == 1, || "none".into())).await;
    open(0).await;

    joined.push(strangers[2].join(topic_id, &[ours.addr()]).await);
    open(1).await;
    at_ours.leave().await;
    open(0).await;
    assert_eq!(ledger.alive(Kind::Approval), 0);
    drop(joined);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_the_door_is_asked_about_within_the_bound() {
    const CROWD: usize = 100;
    const APPROVALS_MAX: usize = 8;
    let topic_id = topic_id("a crowd at the door");
    let mut world = World::alone().await;
    let door = Doorman::new(Word::WhenOpened);
    // All of them come from one address.
    let limits = Limits {
        approvals_max: APPROVALS_MAX,
        approval_timeout: PATIENCE,
        admissions_burst: 200,
        prefix_admissions_burst: 200,
        prefix_admissions_per_minute: 300,
        ..fast_limits()
    };
    let ours = world.ours_from(door.mesh(limits)).await;
    let at_ours = ours.join(topic_id, &[]).await;
    let mut streams = Vec::new();
    for _ in 0..CROWD {
        let raw = world.raw(RawOptions::default()).await;
        let connection = raw.dial(ours.addr()).await;
        let stream = connection.open(topic_id, &[frames::join()]).await;
        streams.push((connection, stream));
    }
    ours.counts(Reason::JoinNotApproved, (CROWD - APPROVALS_MAX) as u64).await;
    let (open, most) = door.open();
    assert_eq!((open, most), (APPROVALS_MAX, APPROVALS_MAX), "questions open now, and at most");
    assert!(at_ours.neighbors().is_empty(), "nobody is in without a word");
    door.gate.add_permits(CROWD);
    eventually(PATIENCE, "those who were asked about are let in", async || {
        must(at_ours.neighbors().len() == 5 && door.open().0 == 0, || format!("{:?}", at_ours.neighbors()))
    })
    .await;
    drop(streams);
    world.finish().await;
}

/// A member that others introduce again and again, and that ours does not want: neither side wears the other out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_member_of_the_same_swarm_is_not_asked_about_in_a_loop() {
    let topic_id = topic_id("unwanted member");
    let mut world = World::new().await;
    let (friend, unwanted) = (world.stock().await, world.stock().await);
    let door = Doorman::new(Word::Yes);
    door.say(unwanted.id(), topic_id, Word::No);
    let ours = world.ours_from(door.mesh(fast_limits())).await;
    let at_friend = friend.join(topic_id, &[]).await;
    let at_ours = ours.join(topic_id, &[friend.addr()]).await;
    at_ours.sees(friend.id()).await;
    // The friend tells everybody of the newcomer: ours asks it, it says yes, and ours has to part from it.
    let at_unwanted = unwanted.join(topic_id, &[friend.addr()]).await;
    at_unwanted.sees(friend.id()).await;
    eventually(PATIENCE, "the embedder is asked", async || must(door.asked(unwanted.id()) > 0, || "not yet".into()))
        .await;
    let begun = Instant::now();
    let mut sent = 0;
    eventually(PATIENCE, "ten seconds of ordinary talk", async || {
        sent += 1;
        at_friend.publish(format!("talk {sent}")).await;
        must(begun.elapsed() > Duration::from_secs(10), || "still talking".into())
    })
    .await;
    at_ours.hears(format!("talk {sent}")).await;
    at_unwanted.hears(format!("talk {sent}")).await;
    let counts = ours.census().await.counts;
    let (asked, refused) = (door.asked(unwanted.id()), counts.get(Reason::JoinNotApproved));
    println!("in 10 s: asked {asked} times, {refused} messages refused");
    assert!(asked <= 4 && refused <= 300, "asked {asked} times, {refused} messages refused");
    assert!(!at_ours.neighbors().contains(&unwanted.id()));
    assert!(at_friend.log().downs.is_empty() && at_ours.log().downs.iter().all(|(peer, _)| *peer != friend.id()));
    world.finish().await;
}

/// What a doorman says of one remote on one topic.
#[derive(Debug, Clone, Copy)]
enum Word {
    Yes,
    No,
    YesAfter(Duration),
    Never,
    Panic,
    /// Yes, as soon as the gate has a permit.
    WhenOpened,
}

/// An embedder that does what it is told, and remembers what it was asked.
struct Doorman {
    otherwise: Word,
    words: Mutex<HashMap<(EndpointId, TopicId), Word>>,
    asked: Mutex<HashMap<EndpointId, usize>>,
    open: Arc<AtomicUsize>,
    open_most: AtomicUsize,
    gate: Arc<Semaphore>,
}

impl Doorman {
    fn new(otherwise: Word) -> Arc<Self> {
        Arc::new(Self {
            otherwise,
            words: Mutex::default(),
            asked: Mutex::default(),
            open: Arc::default(),
            open_most: AtomicUsize::new(0),
            gate: Arc::new(Semaphore::new(0)),
        })
    }

    fn mesh(self: &Arc<Self>, limits: Limits) -> perennial::MeshBuilder {
        Mesh::builder().limits(limits).admission(self.clone())
    }

    fn say(&self, remote: EndpointId, topic: TopicId, word: Word) {
        self.words.lock().expect("no holder panics").insert((remote, topic), word);
    }

    fn asked(&self, remote: EndpointId) -> usize {
        self.asked.lock().expect("no holder panics").get(&remote).copied().unwrap_or(0)
    }

    /// Questions open at this moment, and the most there ever were.
    fn open(&self) -> (usize, usize) {
        (self.open.load(Ordering::SeqCst), self.open_most.load(Ordering::SeqCst))
    }
}

impl fmt::Debug for Doorman {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Doorman")
    }
}

impl Admission for Doorman {
    fn on_join(&self, remote: EndpointId, topic: TopicId) -> BoxFuture<bool> {
        *self.asked.lock().expect("no holder panics").entry(remote).or_default() += 1;
        let word =
            self.words.lock().expect("no holder panics").get(&(remote, topic)).copied().unwrap_or(self.otherwise);
        let question = Open::new(&self.open);
        self.open_most.fetch_max(self.open.load(Ordering::SeqCst), Ordering::SeqCst);
        let gate = self.gate.clone();
        Box::pin(async move {
            let _question = question;
            match word {
                Word::Yes => true,
                Word::No => false,
                Word::YesAfter(pause) => {
                    tokio::time::sleep(pause).await;
                    true
                }
                Word::Never => std::future::pending().await,
                Word::Panic => panic!("on purpose"),
                Word::WhenOpened => gate.acquire().await.map(tokio::sync::SemaphorePermit::forget).is_ok(),
            }
        })
    }
}

/// One question, counted while it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A refusal holds for some seconds, and a stock node asks once per join: joins until it has `through` as a neighbour.
async fn join_until_seen(node: &Stock, topic_id: TopicId, through: &Ours) -> Topic {
    eventually(PATIENCE, "a stock node gets in", async || {
        let topic = node.join(topic_id, &[through.addr()]).await;
        let is_in = async || must(topic.neighbors().contains(&through.id()), || "still outside".into());
        match perennial_tests::wait::within(Duration::from_secs(1), is_in).await {
            Ok(()) => Ok(topic),
            Err(outside) => {
                topic.leave().await;
                Err(outside)
            }
        }
    })
    .await
}
