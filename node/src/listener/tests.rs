//! What a capped listener promises, shown on a scripted listener where accepts can be counted, and on real sockets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::timeout,
};

use super::*;

/// Whatever a test waits for happens within this long, or it failed.
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_client_is_accepted_and_served() {
    let mut world = World::new(8);
    let client = world.connect();
    world.served(1).await;
    assert_eq!(world.counts(), Counts { accepted: 1, in_use: 1, high_water: 1, resumed: 0, is_at_capacity: false });
    drop(client);
    world.left(1).await;
    assert_eq!(world.counts().in_use, 0);
}

#[tokio::test]
async fn at_the_cap_the_next_client_waits_until_one_leaves() {
    let mut world = World::new(1);
    let first = world.connect();
    world.served(1).await;
    let second = world.connect();
    world.settle().await;
    assert_eq!(world.accepts_posted(), 0, "a full listener asks the kernel for nobody");
    assert_eq!(world.counts(), Counts { accepted: 1, in_use: 1, high_water: 1, resumed: 0, is_at_capacity: true });
    drop(first);
    world.served(2).await;
    assert_eq!(world.counts(), Counts { accepted: 2, in_use: 1, high_water: 1, resumed: 1, is_at_capacity: true });
    drop(second);
}

#[tokio::test]
async fn an_idle_gap_before_the_cap_ends_nothing() {
    let mut world = World::new(2);
    let first = world.connect();
    world.served(1).await;
    drop(first);
    world.left(1).await;
    world.settle().await;
    assert_eq!(world.accepts_posted(), 1, "below the cap an accept is always posted");
    let _second = world.connect();
    world.served(2).await;
    assert_eq!(world.counts().resumed, 0, "it was never full");
}

#[tokio::test]
async fn an_idle_gap_after_the_cap_ends_nothing() {
    let mut world = World::new(1);
    for round in 1..=3 {
        let client = world.connect();
        world.served(round).await;
        drop(client);
        world.left(round).await;
        world.settle().await;
        assert_eq!((world.counts().resumed, world.accepts_posted()), (round, 1));
    }
}

#[tokio::test]
async fn a_burst_of_disconnects_posts_one_accept_and_leaves_none_behind() {
    const CAP: usize = 4;
    let mut world = World::new(CAP);
    let clients: Vec<_> = (0..CAP).map(|_| world.connect()).collect();
    world.served(CAP as u64).await;
    drop(clients);
    world.left(CAP as u64).await;
    world.settle().await;
    assert_eq!((world.counts().resumed, world.accepts_posted()), (1, 1), "one step from full to below full");
    let posted = world.end().await;
    assert_eq!(posted.now.load(Ordering::SeqCst), 0, "an ended listener has no accept pending");
    assert_eq!(posted.most.load(Ordering::SeqCst), 1, "and never had two");
}

#[tokio::test]
async fn only_the_step_from_full_to_below_full_resumes() {
    let mut world = World::new(2);
    let first = world.connect();
    let second = world.connect();
    world.served(2).await;
    drop(first);
    world.left(1).await;
    drop(second);
    world.left(2).await;
    world.settle().await;
    assert_eq!((world.counts().resumed, world.accepts_posted()), (1, 1));
}

#[tokio::test]
async fn each_freed_place_admits_one_of_those_who_wait() {
    let mut world = World::new(2);
    let mut clients: Vec<_> = (0..6).map(|_| world.connect()).collect();
    for served in 2..=6 {
        world.served(served).await;
        world.settle().await;
        assert_eq!(world.counts().in_use, 2, "after {served}");
        drop(clients.remove(0));
    }
    assert_eq!(world.counts().high_water, 2);
}

#[tokio::test]
async fn a_client_whose_task_panics_or_is_aborted_gives_its_place_back() {
    let mut world = World::new(1);
    let panics = world.connect();
    world.served(1).await;
    panics.send(()).await.unwrap();
    world.left(1).await;
    let _aborted = world.connect();
    world.served(2).await;
    world.newest.lock().unwrap().take().expect("a client is served").abort();
    world.left(2).await;
    let _third = world.connect();
    world.served(3).await;
    assert_eq!(world.counts(), Counts { accepted: 3, in_use: 1, high_water: 1, resumed: 2, is_at_capacity: true });
}

#[tokio::test(start_paused = true)]
async fn a_failed_accept_is_waited_out_and_does_not_spin() {
    let mut world = World::new(1);
    for _ in 0..5 {
        world.door.try_send(Err(io::ErrorKind::Other)).unwrap();
    }
    let started = tokio::time::Instant::now();
    let _client = world.connect();
    world.served(1).await;
    assert_eq!(started.elapsed(), 5 * ACCEPT_PAUSE);
}

#[tokio::test]
async fn on_a_real_unix_socket_the_next_client_is_connected_and_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capped.sock");
    let listener = CappedListener::new(UnixListener::bind(&path).unwrap(), one());
    check_echo(listener, || UnixStream::connect(path.clone())).await;
}

#[tokio::test]
async fn on_a_real_tcp_address_the_next_client_is_connected_and_not_served() {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    check_echo(CappedListener::new(listener, one()), || TcpStream::connect(address)).await;
}

/// A server that echoes one byte per client, with a cap of one: who is connected is not yet served.
async fn check_echo<L, F, S>(mut listener: CappedListener<L>, connect: impl Fn() -> F)
where
    L: Accept<Stream = S> + 'static,
    F: Future<Output = io::Result<S>>,
    S: AsyncReadExt + AsyncWriteExt + Unpin + Send + 'static,
{
    let gauge = listener.gauge();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut clients = JoinSet::new();
        loop {
            let (mut stream, slot) = listener.accept().await;
            clients.spawn(async move {
                let _slot = slot;
                while let Ok(byte) = stream.read_u8().await {
                    stream.write_u8(byte).await.unwrap();
                }
            });
        }
    });
    let mut first = connect().await.unwrap();
    first.write_u8(1).await.unwrap();
    assert_eq!(timeout(DEADLINE, first.read_u8()).await.unwrap().unwrap(), 1);
    let mut second = timeout(DEADLINE, connect()).await.unwrap().expect("the backlog takes it");
    second.write_u8(2).await.unwrap();
    first.write_u8(3).await.unwrap();
    assert_eq!(timeout(DEADLINE, first.read_u8()).await.unwrap().unwrap(), 3);
    // Not proof that it never is, but the server has had the whole round trip of the first client to do so.
    assert!(timeout(Duration::from_millis(100), second.read_u8()).await.is_err(), "served beyond the cap");
    assert_eq!(gauge.read().accepted, 1);
    drop(first);
    assert_eq!(timeout(DEADLINE, second.read_u8()).await.unwrap().unwrap(), 2);
    assert_eq!(gauge.read(), Counts { accepted: 2, in_use: 1, high_water: 1, resumed: 1, is_at_capacity: true });
}

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

/// One client of the scripted listener; dropping it is to leave, a word makes its task panic.
type Client = mpsc::Sender<()>;

/// The accepts of the scripted listener: how many wait at this moment, and the most that ever did.
#[derive(Debug, Default)]
struct Posted {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A listener whose clients are sent to it.
struct Scripted {
    clients: mpsc::Receiver<Result<mpsc::Receiver<()>, io::ErrorKind>>,
    posted: Arc<Posted>,
}

impl Accept for Scripted {
    type Stream = mpsc::Receiver<()>;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let now = self.posted.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.posted.most.fetch_max(now, Ordering::SeqCst);
        let _posted = OnDrop(self.posted.clone());
        match self.clients.recv().await {
            Some(client) => client.map_err(Into::into),
            None => std::future::pending().await,
        }
    }
}

/// An accept that is posted no more, however it ended.
struct OnDrop(Arc<Posted>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A capped listener on a script, and a server that keeps each client until it leaves.
struct World {
    door: mpsc::Sender<Result<mpsc::Receiver<()>, io::ErrorKind>>,
    posted: Arc<Posted>,
    gauge: Gauge,
    served: watch::Receiver<u64>,
    /// The task of the newest client.
    newest: Arc<Mutex<Option<AbortHandle>>>,
    server: JoinHandle<()>,
}

impl World {
    fn new(max: usize) -> Self {
        let (door, clients) = mpsc::channel(64);
        let posted = Arc::new(Posted::default());
        let scripted = Scripted { clients, posted: posted.clone() };
        let mut listener = CappedListener::new(scripted, NonZeroUsize::new(max).unwrap());
        let gauge = listener.gauge();
        let (count, served) = watch::channel(0);
        let newest = Arc::new(Mutex::new(None));
        let task_of_newest = newest.clone();
        let server = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (mut client, slot) = listener.accept().await;
                let task = clients.spawn(async move {
                    let _slot = slot;
                    assert!(client.recv().await.is_none(), "panics on a word");
                });
                *task_of_newest.lock().unwrap() = Some(task);
                count.send_modify(|count| *count += 1);
            }
        });
        Self { door, posted, gauge, served, newest, server }
    }

    fn connect(&self) -> Client {
        let (client, stream) = mpsc::channel(1);
        self.door.try_send(Ok(stream)).unwrap();
        client
    }

    async fn served(&mut self, clients: u64) {
        timeout(DEADLINE, self.served.wait_for(|served| *served >= clients)).await.unwrap().unwrap();
    }

    async fn left(&self, clients: u64) {
        let left = || self.counts().accepted - self.counts().in_use as u64;
        for _ in 0..10_000 {
            if left() >= clients {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} clients have left, not {clients}", left());
    }

    /// Lets every task of this thread run until none has anything to do.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn counts(&self) -> Counts {
        self.gauge.read()
    }

    fn accepts_posted(&self) -> usize {
        self.posted.now.load(Ordering::SeqCst)
    }

    async fn end(self) -> Arc<Posted> {
        self.server.abort();
        assert!(timeout(DEADLINE, self.server).await.unwrap().unwrap_err().is_cancelled());
        self.posted
    }
}
