//! The harness against a fake node that behaves, leaks, loses, doubles, dies or falls silent: each must get its verdict.
//!
//! One program in two parts. Without a node's verb it is the driver: it runs `perennial-soak` with itself as `--bin`.
//! With one it is the fake node, which speaks the lines and verbs of `perennial` and forms a full mesh over the control
//! sockets of its directory. What it does wrong comes from the environment variable `FAKE`.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("up") => up(&args),
        Some("status" | "ledger" | "join" | "leave") => verb(&args),
        Some(_) | None => {
            drive();
            ExitCode::SUCCESS
        }
    }
}

/// Fault of the fake, exit code, the invariant that decided.
const CASES: [(&str, i32, &str); 8] = [
    ("none", 0, "invariants hold"),
    ("leak-connections", 1, "I2"),
    ("leak-tasks", 1, "I5"),
    ("lose", 1, "I11"),
    ("lose-in-storm", 1, "I11: in storms"),
    ("double", 1, "I12"),
    ("die", 1, "I14"),
    ("silent", 2, "I5"),
];

fn drive() {
    // A few at once: a run mostly waits, and each has a directory of its own. More would starve each other's fakes.
    for wave in CASES.chunks(3) {
        std::thread::scope(|scope| {
            for case in wave {
                scope.spawn(move || check(*case));
            }
        });
    }
    interrupted();
    refusals();
}

/// A short run with the fake as its node. Memory and descriptors are left out: the fake tells no heap, and opens a socket
/// for every word it says.
fn soak_with(fault: &str, out: &Path) -> Command {
    // What is lost in a storm takes one long enough to be talked through, and nodes that it does not touch.
    let (events, nodes) = if fault == "lose-in-storm" { ("24", "12") } else { ("6", "7") };
    let mut command = Command::new(env!("CARGO_BIN_EXE_perennial-soak"));
    command
        .args(["run", "rotate", "--epochs", "2", "--warm-up", "1", "--events", events, "--nodes", nodes, "--seed", "7"])
        .args(["--barrier", "4s", "--allow", "I6:fake", "--allow", "I7:fake", "--allow", "I9:fake"])
        .args(["--allow", "I16:busy", "--json", "--bin"])
        .arg(std::env::current_exe().unwrap())
        .arg("--out")
        .arg(out)
        .env("FAKE", fault);
    command
}

fn check((fault, code, decided): (&str, i32, &str)) {
    let out = tempfile::tempdir().unwrap();
    let output = soak_with(fault, out.path()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{fault}: {stderr}{stdout}");
    let verdict: Value = serde_json::from_str(&stdout).expect("stdout is one JSON object");
    let headline = verdict["headline"].as_str().unwrap();
    assert!(headline.contains(&format!(" {decided}")), "{fault}: {headline}");
    let run = PathBuf::from(verdict["run"].as_str().unwrap());
    let files =
        ["run.json", "plan.jsonl", "events.jsonl", "samples.csv", "barriers.csv", "verdict.json", "report.html"];
    for name in files.into_iter().chain(["repro.sh", "plots/heap.svg"]) {
        assert!(run.join(name).is_file(), "{fault}: no {name}");
    }
    assert_eq!(run.join("nodes").is_dir(), code != 0, "{fault}: logs are kept of runs that did not pass");
    if code == 0 {
        let again = Command::new(env!("CARGO_BIN_EXE_perennial-soak"))
            .arg("replay")
            .arg(&run)
            .args(["--json", "--keep", "always", "--bin"])
            .arg(std::env::current_exe().unwrap())
            .arg("--out")
            .arg(out.path())
            .env("FAKE", fault)
            .output()
            .unwrap();
        assert_eq!(again.status.code(), Some(0), "replay: {}", String::from_utf8_lossy(&again.stderr));
        let again: Value = serde_json::from_slice(&again.stdout).unwrap();
        let again = PathBuf::from(again["run"].as_str().unwrap());
        let plan = |run: &Path| std::fs::read_to_string(run.join("plan.jsonl")).unwrap();
        assert_eq!(plan(&again), plan(&run));
        assert!(again.join("nodes").is_dir());
    }
    println!("with a node that does {fault}: {headline}");
}

/// What was recorded until the signal is on disk, and no node outlives the harness.
fn interrupted() {
    let out = tempfile::tempdir().unwrap();
    let mut soak = soak_with("none", out.path()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(soak.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains("epoch  1")), "no first barrier");
    assert!(Command::new("kill").args(["-INT", &soak.id().to_string()]).status().unwrap().success());
    lines.map_while(Result::ok).for_each(drop);
    assert_eq!(soak.wait().unwrap().code(), Some(130));
    let run = std::fs::read_dir(out.path()).unwrap().next().unwrap().unwrap().path();
    let verdict = std::fs::read_to_string(run.join("verdict.json")).unwrap();
    assert!(verdict.contains("HARNESS ERROR: interrupted by SIGINT"), "{verdict}");
    assert!(std::fs::read_to_string(run.join("barriers.csv")).unwrap().lines().count() > 1);
}

fn refusals() {
    let soak = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_perennial-soak")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(soak(&["run", "dance"]).0, Some(64));
    assert_eq!(soak(&["replay", "/nonexistent"]).0, Some(70));
    let (code, stderr) = soak(&["run", "kill-same", "--bin", "/nonexistent/perennial"]);
    assert_eq!(code, Some(69));
    assert!(stderr.contains("cargo build --release -p perennial-node"), "{stderr}");
    assert_eq!(soak(&["list"]).0, Some(0));
}

// The fake node.

fn fault() -> String {
    std::env::var("FAKE").unwrap_or_default()
}

fn value_of<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).map(String::as_str)
}

/// A control verb: asks the node behind the socket and prints what it answers.
fn verb(args: &[String]) -> ExitCode {
    let socket = Path::new(value_of(args, "--control").unwrap());
    match call(socket, &args[0]) {
        Some(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        None => 69.into(),
    }
}

fn call(socket: &Path, request: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.write_all(format!("{request}\n").as_bytes()).ok()?;
    stream.shutdown(std::net::Shutdown::Write).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[derive(Debug)]
struct Fake {
    id: String,
    socket: PathBuf,
    fault: String,
    /// Socket of a neighbour -> its id.
    neighbors: BTreeMap<String, String>,
    /// Neighbours that ever came, and the most there were at one time.
    ups: u64,
    most: usize,
}

fn up(args: &[String]) -> ExitCode {
    let socket = PathBuf::from(value_of(args, "--control").unwrap());
    let listener = UnixListener::bind(&socket).unwrap();
    let id = format!("id-of-process-{}", std::process::id());
    let is_observer = socket.ends_with("n0.sock");
    // Only the observer leaks; only the last node loses, doubles and dies.
    let guilty = match fault().as_str() {
        "lose" | "lose-in-storm" | "double" | "die" => socket.ends_with("n3.sock"),
        _ => is_observer,
    };
    let fault = if guilty { fault() } else { "none".into() };
    let fake = Fake { id: id.clone(), socket, fault, neighbors: BTreeMap::new(), ups: 0, most: 0 };
    let fake = Arc::new(Mutex::new(fake));
    say(&json!({"v": 1, "event": "ready", "id": id, "addrs": ["127.0.0.1:1"], "ticket": "none"}));
    let publisher = fake.clone();
    // Beside the accept loop, so that two nodes that greet each other do not wait for each other.
    std::thread::spawn(move || {
        greet(&publisher, "up");
        for line in std::io::stdin().lines().map_while(Result::ok) {
            greet(&publisher, &format!("text {line}"));
        }
    });
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut reader = BufReader::new(&stream);
        let mut request = String::new();
        reader.read_line(&mut request).unwrap();
        let answer = match request.trim().strip_suffix(" HTTP/1.1") {
            Some(asked) => on_http(&fake, asked, &mut reader),
            None => on_request(&fake, request.trim()),
        };
        let _ = stream.write_all(answer.as_bytes());
    }
    ExitCode::SUCCESS
}

/// Tells every other node of the directory something; those who answer `up` are neighbours.
fn greet(fake: &Arc<Mutex<Fake>>, what: &str) {
    let (me, id) = {
        let fake = fake.lock().unwrap();
        (fake.socket.clone(), fake.id.clone())
    };
    for entry in std::fs::read_dir(me.parent().unwrap()).unwrap().flatten() {
        let other = entry.path();
        if other == me || other.extension().is_none_or(|extension| extension != "sock") {
            continue;
        }
        let Some(answer) = call(&other, &format!("peer {} {id} {what}", me.display())) else { continue };
        if what == "up" && !answer.is_empty() {
            fake.lock().unwrap().on_up(&other.display().to_string(), &answer);
        }
    }
}

/// The harness speaks HTTP, the fakes among themselves speak words: the last one of the path is the same word.
fn on_http(fake: &Arc<Mutex<Fake>>, asked: &str, reader: &mut impl BufRead) -> String {
    let mut body_bytes = 0;
    for line in reader.lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            body_bytes = length.trim().parse().unwrap();
        }
    }
    // Read to its end, so that closing the socket does not take the answer with it.
    reader.read_exact(&mut vec![0; body_bytes]).unwrap();
    let answer = on_request(fake, asked.rsplit('/').next().unwrap());
    let (status, answer) = match serde_json::from_str::<Value>(&answer) {
        Ok(answer) => ("200 OK", answer),
        Err(_) => ("404 Not Found", json!({"v": 1, "error": {"exit": 2, "message": "not a request"}})),
    };
    let answer = answer.to_string();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{answer}", answer.len())
}

fn on_request(fake: &Arc<Mutex<Fake>>, request: &str) -> String {
    if request == "join" {
        let fake = fake.clone();
        std::thread::spawn(move || greet(&fake, "up"));
        return "{}".into();
    }
    if request == "leave" {
        fake.lock().unwrap().neighbors.clear();
        // Beside the accept loop: several may leave at once, and none may wait for the others.
        let fake = fake.clone();
        std::thread::spawn(move || greet(&fake, "down"));
        return "{}".into();
    }
    fake.lock().unwrap().answer(request)
}

impl Fake {
    fn answer(&mut self, request: &str) -> String {
        let leaked = |fault: &str, each: u64| if self.fault == fault { self.ups * each } else { 0 };
        let connections = self.neighbors.len() as u64;
        let tasks = 10 + 3 * connections + leaked("leak-tasks", 2);
        let mut words = request.splitn(4, ' ');
        match words.next() {
            Some("status") if self.fault == "silent" => json!({"v": 1, "connections": connections}).to_string(),
            Some("status") => json!({
                "v": 1, "id": self.id, "neighbors": connections, "connections": connections, "half_open": 0,
                "connection_cap": 128, "rss_bytes": 16_000_000, "heap_bytes": null, "open_fds": 14,
                "alive_tasks": tasks
            })
            .to_string(),
            Some("ledger") => {
                let leaked = leaked("leak-connections", 1);
                let finished = self.ups - connections - leaked.min(self.ups - connections);
                let line = json!({"kind": "connection", "spawned": self.ups, "finished": finished, "orphans": 0});
                json!({"v": 1, "orphans": 0, "kinds": [line]}).to_string()
            }
            Some("peer") => {
                let (socket, id) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
                self.on_peer(&socket, &id, words.next().unwrap())
            }
            Some(_) | None => String::new(),
        }
    }

    fn on_peer(&mut self, socket: &str, id: &str, what: &str) -> String {
        match what {
            "up" => self.on_up(socket, id),
            "down" => self.on_down(socket),
            message => self.on_message(id, message.trim_start_matches("text ")),
        }
        self.id.clone()
    }

    fn on_up(&mut self, socket: &str, id: &str) {
        if self.neighbors.get(socket).is_some_and(|known| known == id) {
            return;
        }
        self.on_down(socket);
        self.ups += 1;
        self.neighbors.insert(socket.to_owned(), id.to_owned());
        self.most = self.most.max(self.neighbors.len());
        say(&json!({"v": 1, "event": "neighbor_up", "topic": topic(), "peer": id}));
        if self.fault == "die" && self.ups > 6 {
            eprintln!("out of luck");
            std::process::exit(101);
        }
    }

    fn on_down(&mut self, socket: &str) {
        if let Some(id) = self.neighbors.remove(socket) {
            say(&json!({"v": 1, "event": "neighbor_down", "topic": topic(), "peer": id, "reason": "left"}));
        }
    }

    fn on_message(&self, from: &str, text: &str) {
        let copies = match self.fault.as_str() {
            "lose" => 0,
            // It hears while everybody is there.
            "lose-in-storm" if self.neighbors.len() < self.most => 0,
            "double" => 2,
            _ => 1,
        };
        for _ in 0..copies {
            say(&json!({"v": 1, "event": "message", "topic": topic(), "from": from, "text": text}));
        }
    }
}

fn say(line: &Value) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").unwrap();
    stdout.flush().unwrap();
}

/// The topic of a soak as events name it: by the hash of its name.
fn topic() -> String {
    blake3::hash(b"soak").to_hex().to_string()
}
