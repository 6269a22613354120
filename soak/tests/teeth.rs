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
    process::{Command, ExitCode},
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

/// Scenario, fault of the fake, exit code, the check that decided.
const CASES: [(&str, &str, i32, &str); 8] = [
    ("rotate", "none", 0, ""),
    ("kill", "none", 0, ""),
    ("rotate", "leak-connections", 1, "connections"),
    ("rotate", "leak-tasks", 1, "tasks"),
    ("rotate", "lose", 1, "delivery"),
    ("rotate", "double", 1, "delivery"),
    ("rotate", "die", 1, "faults"),
    ("rotate", "silent", 2, "events"),
];

/// The same fakes in epochs: fault, exit code, the invariant that decided.
const EPOCH_CASES: [(&str, i32, &str); 7] = [
    ("none", 0, ""),
    ("leak-connections", 1, "I2"),
    ("leak-tasks", 1, "I5"),
    ("lose", 1, "I11"),
    ("double", 1, "I12"),
    ("die", 1, "I14"),
    ("silent", 2, "I5"),
];

fn drive() {
    // All at once: a run mostly waits, and each has a directory of its own.
    std::thread::scope(|scope| {
        for case in CASES {
            scope.spawn(move || check(case));
        }
        for case in EPOCH_CASES {
            scope.spawn(move || check_in_epochs(case));
        }
    });
    refusals();
}

fn check((scenario, fault, code, decided): (&str, &str, i32, &str)) {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_perennial-soak"))
        .args(["run", scenario, "--nodes", "4", "--events", "20", "--warm-up", "3", "--probe-every", "10"])
        .args(["--seed", "7", "--rest", "0", "--settle", "3s", "--json", "--bin"])
        .arg(std::env::current_exe().unwrap())
        .arg("--report")
        .arg(directory.path())
        .env("FAKE", fault)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{scenario} {fault}: {stderr}");
    let verdict: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    let outcome = verdict["outcome"].as_str().unwrap();
    let reason = verdict["checks"].as_array().unwrap().iter().find(|check| check["outcome"] == outcome).unwrap();
    if outcome != "pass" {
        assert_eq!(reason["name"], decided, "{scenario} {fault}: {verdict:#}");
    }
    for name in ["plan.json", "samples.csv", "verdict.json"] {
        assert!(directory.path().join(name).is_file(), "{scenario} {fault}: no {name}");
    }
    println!("{scenario} with a node that does {fault}: {outcome}, exit {code}");
}

/// Memory and descriptors are left out: the fake tells no heap, and opens a socket for every word it says.
fn check_in_epochs((fault, code, decided): (&str, i32, &str)) {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_perennial-soak"))
        .args(["run", "rotate", "--epochs", "2", "--warm-up", "1", "--events", "6", "--nodes", "7", "--seed", "7"])
        .args(["--barrier", "4s", "--allow", "I6:fake", "--allow", "I7:fake", "--allow", "I9:fake"])
        .args(["--allow", "I16:busy", "--json", "--bin"])
        .arg(std::env::current_exe().unwrap())
        .arg("--report")
        .arg(directory.path())
        .env("FAKE", fault)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "in epochs, {fault}: {stderr}{stdout}");
    let verdict: Value = serde_json::from_str(&stdout).expect("stdout is one JSON object");
    let headline = verdict["headline"].as_str().unwrap();
    assert!(headline.contains(&format!(" {decided}")), "in epochs, {fault}: {headline}");
    for name in ["run.json", "plan.jsonl", "events.jsonl", "samples.csv", "barriers.csv", "verdict.json", "report.html"]
    {
        assert!(directory.path().join(name).is_file(), "in epochs, {fault}: no {name}");
    }
    println!("in epochs with a node that does {fault}: {headline}");
}

fn refusals() {
    let soak = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_perennial-soak")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(soak(&["run", "dance"]).0, Some(64));
    let (code, stderr) = soak(&["run", "kill", "--bin", "/nonexistent/perennial"]);
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
    /// Neighbours that ever came.
    ups: u64,
}

fn up(args: &[String]) -> ExitCode {
    let socket = PathBuf::from(value_of(args, "--control").unwrap());
    let listener = UnixListener::bind(&socket).unwrap();
    let id = format!("id-of-process-{}", std::process::id());
    let is_observer = socket.ends_with("n0.sock");
    // Only the observer leaks; only the last node loses, doubles and dies.
    let guilty = match fault().as_str() {
        "lose" | "double" | "die" => socket.ends_with("n3.sock"),
        _ => is_observer,
    };
    let fault = if guilty { fault() } else { "none".into() };
    let fake = Fake { id: id.clone(), socket, fault, neighbors: BTreeMap::new(), ups: 0 };
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
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        let answer = on_request(&fake, request.trim());
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

fn on_request(fake: &Arc<Mutex<Fake>>, request: &str) -> String {
    // The socket speaks JSON, the verbs of this program speak words.
    if let Ok(json) = serde_json::from_str::<Value>(request) {
        let answer = on_request(fake, json["request"].as_str().unwrap());
        return match serde_json::from_str::<Value>(&answer) {
            Ok(answer) => format!("{}\n", json!({"v": 1, "ok": answer})),
            Err(_) => format!("{}\n", json!({"v": 1, "error": {"exit": 2, "message": "not a request"}})),
        };
    }
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
        say(&json!({"v": 1, "event": "neighbor_up", "topic": "soak", "peer": id}));
        if self.fault == "die" && self.ups > 6 {
            eprintln!("out of luck");
            std::process::exit(101);
        }
    }

    fn on_down(&mut self, socket: &str) {
        if let Some(id) = self.neighbors.remove(socket) {
            say(&json!({"v": 1, "event": "neighbor_down", "topic": "soak", "peer": id, "reason": "left"}));
        }
    }

    fn on_message(&self, from: &str, text: &str) {
        let copies = match self.fault.as_str() {
            "lose" => 0,
            "double" => 2,
            _ => 1,
        };
        for _ in 0..copies {
            say(&json!({"v": 1, "event": "message", "topic": "soak", "from": from, "text": text}));
        }
    }
}

fn say(line: &Value) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").unwrap();
    stdout.flush().unwrap();
}
