//! Real nodes on hosts of their own: cut apart, delayed, moved, without room on their disk, by a wrong clock. Needs root and
//! the programs that `perennial-soak doctor` names; without them each test says `not run` and why, and is not counted.
//!
//! One after the other, with a last one that looks for what the others have left behind.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use perennial_soak::{
    netns::{
        Network, Wiring,
        cuts::Cut,
        leftovers::Leftovers,
        switch::line::Conditions,
        tools::{IP, PlaceError, must_be_root},
    },
    place::Place,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout, timeout_at},
};

/// A node is up, and a message has arrived, within this long; in a cut mesh it takes until QUIC gives up and dials again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message that a cut holds back would have arrived within this long: it takes a millisecond without.
const SILENCE: Duration = Duration::from_secs(2);

/// The tests, in order.
const TESTS: [&str; 9] = [
    "a_cut_is_a_fact_with_a_number_and_ends_with_heal",
    "a_one_way_cut_lets_the_other_way_through",
    "a_delayed_link_takes_its_time",
    "a_lossy_link_loses_and_messages_arrive",
    "a_dozen_hosts_are_cut_three_ways",
    "a_node_that_moves_is_reached_again",
    "a_node_with_a_full_disk_says_so_and_goes_on",
    "a_clock_is_set_while_a_node_runs",
    "what_a_killed_run_left_is_removed_and_nothing_else",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let (mut ran, mut skipped) = (0, 0);
    for name in TESTS.into_iter().filter(|name| wanted.is_empty() || wanted.iter().any(|part| name.contains(part))) {
        let begun = Instant::now();
        match run(name).await {
            Ok(words) => {
                println!("test {name} ... ok, {:.1} s; {words}", begun.elapsed().as_secs_f64());
                ran += 1;
            }
            Err(error) if error.is_lack() => {
                println!("test {name} ... not run: {error}");
                skipped += 1;
            }
            Err(error) => {
                println!("test {name} ... FAILED: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("test result: {ran} passed, {skipped} not run");
    ExitCode::SUCCESS
}

async fn run(name: &str) -> Result<String, PlaceError> {
    match name {
        "a_cut_is_a_fact_with_a_number_and_ends_with_heal" => cut_and_heal().await,
        "a_one_way_cut_lets_the_other_way_through" => cut_one_way().await,
        "a_delayed_link_takes_its_time" => delay().await,
        "a_lossy_link_loses_and_messages_arrive" => lose().await,
        "a_dozen_hosts_are_cut_three_ways" => three_ways().await,
        "a_node_that_moves_is_reached_again" => flip().await,
        "a_node_with_a_full_disk_says_so_and_goes_on" => fill().await,
        "what_a_killed_run_left_is_removed_and_nothing_else" => sweep().await,
        "a_clock_is_set_while_a_node_runs" => set_clock().await,
        _ => unreachable!("{name} is no test"),
    }
}

async fn cut_and_heal() -> Result<String, PlaceError> {
    let mut world = World::new(3, Wiring::Bridge).await?;
    let names = world.place.network()?.namespaces().to_vec();
    assert!(names.iter().all(|name| Path::new("/run/netns").join(name).exists()), "{names:?}");
    world.start_all().await?;
    world.delivers(0, 1, "before").await;
    assert_eq!(world.place.partition(&[vec![0], vec![1, 2]]).await?, 4);
    world.holds_back(0, 1, "during").await;
    world.holds_back(1, 0, "during too").await;
    world.delivers(1, 2, "inside").await;
    let cuts = world.place.heal().await?;
    assert_eq!(cuts.len(), 4);
    for (from, to) in [(0, 1), (1, 0)] {
        let dropped = cuts.iter().find(|cut| (cut.from, cut.to) == (from, to)).map(|cut| cut.packets);
        assert!(dropped.is_some_and(|packets| packets > 0), "nothing was dropped from {from} to {to}: {cuts:?}");
    }
    let begun = Instant::now();
    world.delivers(0, 1, "after").await;
    let words = format!("healed in {:.1} s, {cuts:?}", begun.elapsed().as_secs_f64());
    drop(world);
    assert!(names.iter().all(|name| !Path::new("/run/netns").join(name).exists()), "namespaces are left");
    Ok(words)
}

async fn cut_one_way() -> Result<String, PlaceError> {
    let mut world = World::new(2, Wiring::Bridge).await?;
    world.start_all().await?;
    world.delivers(0, 1, "before").await;
    assert_eq!(world.place.one_way(&[0], &[1]).await?, 1);
    world.holds_back(0, 1, "during").await;
    let cuts = world.place.heal().await?;
    assert!(matches!(cuts[..], [cut] if (cut.from, cut.to) == (0, 1) && cut.packets > 0), "{cuts:?}");
    assert_eq!(world.place.cuts().await?, []);
    world.delivers(0, 1, "after").await;
    Ok(format!("{} packets dropped", cuts[0].packets))
}

async fn delay() -> Result<String, PlaceError> {
    let mut world = World::new(2, switch()).await?;
    world.start_all().await?;
    let direct = world.round_trip("direct").await;
    world.place.link(0, 1, Conditions { delay_ms: 20, ..Conditions::default() }).await?;
    let delayed = world.round_trip("delayed").await;
    // The shortest of ten each, so that a busy machine does not matter.
    assert!(direct < Duration::from_millis(40), "without a delay a round trip takes {direct:?}");
    let expected = Duration::from_millis(40)..Duration::from_millis(200);
    assert!(expected.contains(&delayed), "with 20 ms each way a round trip takes {delayed:?}");
    // The same cuts hold behind a switch.
    world.place.partition(&[vec![0], vec![1]]).await?;
    world.holds_back(0, 1, "during").await;
    world.holds_back(1, 0, "during too").await;
    assert!(world.place.heal().await?.iter().all(|cut| cut.packets > 0));
    world.delivers(0, 1, "after").await;
    let sum = world.place.tallies().await?.sum();
    assert_eq!((sum.lost, sum.overflowed), (0, 0));
    Ok(format!("round trips of {direct:?} and {delayed:?}, {} frames", sum.delivered))
}

async fn lose() -> Result<String, PlaceError> {
    let mut world = World::new(2, switch()).await?;
    world.start_all().await?;
    let bad = Conditions { delay_ms: 10, jitter_ms: 5, loss: 0.2, duplicate: 0.1, reorder: 0.1 };
    world.place.links(bad).await?;
    for number in 0..100 {
        world.delivers(0, 1, &format!("bad {number}")).await;
    }
    let sum = world.place.tallies().await?.sum();
    assert!(sum.lost > 0 && sum.duplicated > 0 && sum.overtaken > 0, "{sum:?}");
    assert_eq!(world.nodes[1].seen.len(), 100);
    assert_eq!(world.nodes[1].doubled, 0, "the application saw a message twice");
    Ok(format!("{sum:?}"))
}

/// With datagrams and no nodes, so that every pair is tried: a dozen nodes would be a soak.
async fn three_ways() -> Result<String, PlaceError> {
    const HOSTS: usize = 12;
    let mut took = Vec::new();
    let mut dropped = 0;
    for wiring in [Wiring::Bridge, switch()] {
        let begun = Instant::now();
        let place = Place::namespaces(HOSTS, wiring).await?;
        took.push(begun.elapsed());
        let groups: Vec<Vec<usize>> =
            (0..3).map(|group| (0..HOSTS).filter(|host| host % 3 == group).collect()).collect();
        assert_eq!(place.partition(&groups).await?, 3 * 4 * 8);
        let network = place.network()?;
        for host in 0..HOSTS {
            // To everyone else; nobody listens, and nobody has to.
            let send = |other: usize| format!("echo x >/dev/udp/{}/9", network.address(other));
            let sends: Vec<String> = (0..HOSTS).filter(|other| *other != host).map(send).collect();
            network.look(host, &["bash", "-c", &sends.join("; ")]).await?;
        }
        // Each pair in one direction or the other: who was asked for its address knows the asker's, and need not ask.
        let deadline = Instant::now() + PATIENCE;
        let silent = |cuts: &[Cut]| {
            let packets =
                |from, to| cuts.iter().find(|cut| (cut.from, cut.to) == (from, to)).map_or(0, |cut| cut.packets);
            cuts.iter().filter(|cut| packets(cut.from, cut.to) + packets(cut.to, cut.from) == 0).count()
        };
        while silent(&place.cuts().await?) > 0 {
            assert!(Instant::now() < deadline, "{:?}", place.cuts().await?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for (host, group) in (0..HOSTS).map(|host| (host, &groups[host % 3])) {
            let neighbors = network.look(host, &["ip", "neigh", "show", "dev", "eth0"]).await?;
            for other in group.iter().filter(|other| **other != host) {
                let address = format!("{} ", network.address(*other));
                let line = neighbors.lines().find(|line| line.starts_with(&address)).unwrap_or_default();
                assert!(line.contains("lladdr"), "host {host} did not reach {other} of its own group: {neighbors}");
            }
        }
        dropped += place.heal().await?.iter().map(|cut| cut.packets).sum::<u64>();
    }
    Ok(format!("{HOSTS} hosts in {took:?}, {dropped} packets dropped"))
}

async fn flip() -> Result<String, PlaceError> {
    let mut world = World::new(2, Wiring::Bridge).await?;
    world.place.will_move(1);
    world.start_all().await?;
    world.delivers(0, 1, "before").await;
    let mut slowest = Duration::ZERO;
    for number in 1..=3 {
        let moved = world.place.flip_address(1).await?;
        assert_ne!(moved.from, moved.to);
        let addresses = world.place.network()?.look(1, &["ip", "-4", "-o", "addr", "show", "dev", "eth0"]).await?;
        assert!(addresses.contains(&moved.to.to_string()) && !addresses.contains(&moved.from.to_string()));
        let begun = Instant::now();
        world.delivers(0, 1, &format!("after {number}")).await;
        slowest = slowest.max(begun.elapsed());
    }
    Ok(format!("delivered again within {slowest:?}"))
}

async fn fill() -> Result<String, PlaceError> {
    let mut world = World::new(2, Wiring::Bridge).await?;
    let directory = world.scratch.path().join("state");
    world.place.give_disk(0, &directory).await?;
    world.start(0, &[]).await?;
    let taken = world.place.fill_disk(0)?;
    assert!((4096..=65536).contains(&taken), "{taken} bytes taken");
    let full = std::fs::write(directory.join("more"), [0; 4096]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    // A neighbour is worth remembering, and there is no room for it.
    world.start(1, &[0]).await?;
    world.all_have_neighbors().await;
    world.delivers(1, 0, "with a full disk").await;
    world.logged(0, "No space left on device").await;
    world.place.free_disk(0)?;
    // The half of a file that the other failure was about may have stayed.
    std::fs::write(directory.join("more"), [0; 4096]).unwrap();
    std::fs::remove_file(directory.join("more")).unwrap();
    world.delivers(0, 1, "with a free disk").await;
    let World { place, .. } = world;
    drop(place);
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(directory.to_str().unwrap()), "the disk is still mounted");
    Ok(format!("{taken} bytes taken; the node said that there is no space, and went on"))
}

async fn set_clock() -> Result<String, PlaceError> {
    // No namespaces: it works on loopback as well.
    let mut world = World::on(Place::loopback())?;
    world.place.give_clock(0, &world.scratch.path().join("clock"))?;
    let mut said = Vec::new();
    for offset_s in [3_600, -86_400, 0] {
        world.place.set_clock(0, offset_s)?;
        let output = world.place.command(0, Path::new("/bin/date"))?.arg("+%s").output().await.unwrap();
        let date: i64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
        let now = UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        assert!((date - now - offset_s).abs() <= 2, "{date} {now} {offset_s}");
        said.push(date - now);
    }
    // A day ahead when the node starts, a day behind while it runs: its own log tells, and messages do not care.
    world.place.set_clock(0, 86_400)?;
    world.start(0, &[]).await?;
    let tomorrow = date_in(86_400).await;
    world.logged(0, &tomorrow).await;
    world.place.set_clock(0, -86_400)?;
    world.start(1, &[0]).await?;
    world.all_have_neighbors().await;
    for number in 0..3 {
        world.delivers(0, 1, &format!("from tomorrow {number}")).await;
        world.delivers(1, 0, &format!("to tomorrow {number}")).await;
    }
    world.nodes.remove(1).child.kill().await.unwrap();
    world.logged(0, &date_in(-86_400).await).await;
    assert!(world.nodes[0].child.try_wait().unwrap().is_none(), "the node ended");
    let pid = world.nodes[0].child.id().unwrap();
    drop(world);
    assert!(!Path::new(&format!("/dev/shm/faketime_shm_{pid}")).exists(), "shared memory is left");
    Ok(format!("off by {said:?} s; a node lived through two days of difference"))
}

/// As a log line begins.
async fn date_in(seconds: i64) -> String {
    let at = UNIX_EPOCH.elapsed().unwrap().as_secs() as i64 + seconds;
    let output = Command::new("date").args(["-u", "+%Y-%m-%dT", "-d", &format!("@{at}")]).output().await.unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn sweep() -> Result<String, PlaceError> {
    must_be_root("network namespaces")?;
    let ip = IP.find()?;
    // The name of a network of this process tells the process namespace; the rest is somebody's who is gone.
    let network = Network::new(1, Wiring::Bridge).await?;
    let mine = network.namespaces()[0].clone();
    let pid_namespace = mine.split('-').nth(1).unwrap();
    let mut gone = Command::new("true").spawn().unwrap();
    let pid = gone.id().unwrap();
    gone.wait().await.unwrap();
    let left = format!("psoak-{pid_namespace}-{pid}-1-0000000a-h0");
    let foreign = format!("psoak-1-{pid}-1-0000000a-h0");
    for name in [&left, &foreign] {
        assert!(Command::new(&ip).args(["netns", "add", name]).status().await.unwrap().success());
    }
    let found = Leftovers::find();
    found.remove();
    let again = Leftovers::find();
    let is_foreign_there = Path::new("/run/netns").join(&foreign).exists();
    assert!(Command::new(&ip).args(["netns", "del", &foreign]).status().await.unwrap().success());
    assert!(found.namespaces.contains(&left) && !again.namespaces.contains(&left), "{found:?} {again:?}");
    assert!(is_foreign_there, "a namespace of another container was removed");
    assert!(!found.namespaces.contains(&mine) && Path::new("/run/netns").join(mine).exists());
    Ok(format!("{} removed", found.namespaces.len()))
}

fn switch() -> Wiring {
    Wiring::Switch { program: env!("CARGO_BIN_EXE_perennial-soak").into(), seed: 7 }
}

/// A place with nodes in it.
struct World {
    nodes: Vec<Node>,
    place: Place,
    bin: PathBuf,
    scratch: tempfile::TempDir,
    hosts: usize,
}

impl World {
    async fn new(hosts: usize, wiring: Wiring) -> Result<Self, PlaceError> {
        // Found first: without a node nothing has to be made.
        node_bin()?;
        let world = Self::on(Place::namespaces(hosts, wiring).await?)?;
        Ok(Self { hosts, ..world })
    }

    fn on(place: Place) -> Result<Self, PlaceError> {
        let scratch = tempfile::tempdir().unwrap();
        Ok(Self { nodes: Vec::new(), place, bin: node_bin()?, scratch, hosts: 1 })
    }

    /// A node on every host, each joining through the first; all have a neighbour when this returns.
    async fn start_all(&mut self) -> Result<(), PlaceError> {
        for host in 0..self.hosts {
            self.start(host, if host == 0 { &[] } else { &[0] }).await?;
        }
        self.all_have_neighbors().await;
        Ok(())
    }

    async fn all_have_neighbors(&mut self) {
        for node in &mut self.nodes {
            node.has_neighbor().await;
        }
    }

    /// The next node, ready when this returns.
    async fn start(&mut self, host: usize, through: &[usize]) -> Result<(), PlaceError> {
        let mut command = self.place.command(host, &self.bin)?;
        let control = self.scratch.path().join(format!("n{host}.sock"));
        command.args(["up", "--json", "--pipe", "--topic", "t", "--until-stdin-closes", "--control"]);
        command.arg(control).args(self.place.arguments(host)).env_remove("IROH_SECRET");
        if let Some(address) = self.place.listen(host) {
            command.args(["--listen", &address.to_string()]);
        }
        command.stderr(std::fs::File::create(self.log(host)).unwrap());
        for other in through {
            command.args(["--join", &self.place.reached_at(*other, &self.nodes[*other].address)]);
        }
        let mut node = Node::start(command);
        self.place.started(host, node.child.id().unwrap());
        node.ready().await;
        self.nodes.push(node);
        Ok(())
    }

    fn log(&self, host: usize) -> PathBuf {
        self.scratch.path().join(format!("n{host}.log"))
    }

    /// Waits until a node has logged something. A file tells nobody that it grows, so it is read again.
    async fn logged(&self, host: usize, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut text = String::new();
        while Instant::now() < deadline {
            text = std::fs::read_to_string(self.log(host)).unwrap();
            if text.contains(words) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("node {host} did not log `{words}`:\n{text}");
    }

    async fn delivers(&mut self, from: usize, to: usize, text: &str) {
        self.nodes[from].publish(text).await;
        let arrived = self.nodes[to].hears(text, PATIENCE).await;
        assert!(arrived, "`{text}` did not get from node {from} to node {to}");
    }

    async fn holds_back(&mut self, from: usize, to: usize, text: &str) {
        self.nodes[from].publish(text).await;
        assert!(!self.nodes[to].hears(text, SILENCE).await, "`{text}` got from node {from} to node {to}");
    }

    /// The shortest of ten messages and their answers.
    async fn round_trip(&mut self, what: &str) -> Duration {
        let mut shortest = PATIENCE;
        for number in 0..10 {
            let begun = Instant::now();
            self.delivers(0, 1, &format!("{what} {number}")).await;
            self.delivers(1, 0, &format!("{what} {number} back")).await;
            shortest = shortest.min(begun.elapsed());
        }
        shortest
    }
}

struct Node {
    /// `ID@IP:PORT`, once it is ready.
    address: String,
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    seen: BTreeSet<String>,
    doubled: u32,
    neighbors: u32,
}

impl Node {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { address: String::new(), child, stdin, lines, seen: BTreeSet::new(), doubled: 0, neighbors: 0 }
    }

    async fn ready(&mut self) {
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a node is ready in time").unwrap();
            let json: Value = serde_json::from_str(&line.expect("a node says that it is ready")).unwrap();
            if json["event"] == "ready" {
                self.address = format!("{}@{}", json["id"].as_str().unwrap(), json["addrs"][0].as_str().unwrap());
                return;
            }
        }
    }

    async fn has_neighbor(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.neighbors == 0 {
            assert!(self.line(deadline).await, "a node has no neighbour");
        }
    }

    async fn publish(&mut self, text: &str) {
        self.stdin.write_all(format!("{text}\n").as_bytes()).await.unwrap();
    }

    async fn hears(&mut self, text: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.seen.contains(text) {
            if !self.line(deadline).await {
                return false;
            }
        }
        true
    }

    /// Takes in one line; false when none comes in time.
    async fn line(&mut self, deadline: Instant) -> bool {
        let Ok(line) = timeout_at(deadline, self.lines.next_line()).await else { return false };
        let json: Value = serde_json::from_str(&line.unwrap().expect("the node runs")).unwrap();
        match json["event"].as_str() {
            Some("message") => {
                let text = json["text"].as_str().unwrap_or_default().to_owned();
                self.doubled += u32::from(!self.seen.insert(text));
            }
            Some("neighbor_up") => self.neighbors += 1,
            Some(_) | None => {}
        }
        true
    }
}

/// The node, where the workspace has been built as a whole.
fn node_bin() -> Result<PathBuf, PlaceError> {
    let beside = Path::new(env!("CARGO_BIN_EXE_perennial-soak"));
    let node = beside.with_file_name(format!("perennial{}", std::env::consts::EXE_SUFFIX));
    let mend = "`cargo build -p perennial-node` makes it";
    node.is_file().then_some(node).ok_or(PlaceError::NoFile { path: "`perennial` beside the harness", mend })
}
