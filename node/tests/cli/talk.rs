//! The verbs that talk on topics, and those that watch, check and end a node.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use serde_json::{Value, json};

use crate::process::{DEADLINE, Up, eventually, perennial, run_expecting, text};

/// Two nodes on a topic that are each other's neighbor.
fn pair(dir: &std::path::Path) -> (Up, Up) {
    let one = Up::json(dir, &["--topic", "chat"]);
    let mut two = Up::json(dir, &["--topic", "chat", "--join", &one.ticket()]);
    two.event("neighbor_up", |_| true);
    eventually("one has its neighbor", || one.ask_json(&["status"])["neighbors"] == 1);
    (one, two)
}

#[test]
fn what_is_published_in_every_way_is_heard_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (one, mut two) = pair(dir.path());
    let receipt = one.ask_json(&["publish", "chat", "hello"]);
    assert_eq!((&receipt["neighbors"], &receipt["bytes"], &receipt["repeated"]), (&json!(1), &json!(5), &json!(false)));
    two.message("hello");
    assert_eq!(one.ask_json(&["publish", "chat", "hello"])["repeated"], true);

    let file = dir.path().join("picture");
    fs::write(&file, b"\xff\x00").unwrap();
    one.ask(&["publish", "chat", "--file", file.to_str().unwrap()]);
    assert_eq!(two.event("message", |_| true)["base64"], "/wA=");

    let with_input = |args: &[&str], input: &[u8]| {
        let mut child = perennial(dir.path())
            .args(["publish", "chat", "--control", &one.control()])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    assert!(with_input(&["-"], b"two\nlines").status.success());
    two.message("two\nlines");
    let told = with_input(&["--lines"], b"first\nsecond\n");
    assert_eq!(text(&told.stderr).trim(), "published 2 lines");
    two.message("first");
    two.message("second");
    let stopped = with_input(&["--lines"], [b"short\n".as_slice(), &[b'x'; 4056], b"\nnever\n"].concat().as_slice());
    assert_eq!(stopped.status.code(), Some(2));
    assert!(text(&stopped.stderr).contains("line 2: message of 4056 bytes exceeds 4055"), "{}", text(&stopped.stderr));

    let control = one.control();
    let refused = run_expecting(dir.path(), 1, &["publish", "news", "x", "--control", &control]);
    assert!(text(&refused.stderr).contains("is not joined"), "{}", text(&refused.stderr));
}

#[test]
fn a_subscriber_hears_what_it_asked_for_and_ends_with_a_code_that_tells() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = pair(dir.path());
    let subscribe = |args: &[&str]| {
        perennial(dir.path())
            .args(["subscribe", "chat", "--control", &one.control()])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let clients = || {
        let limits = one.ask_json(&["limits"]);
        limits["clients"][0]["in_use"].as_u64().unwrap()
    };
    // The one that asks is one of them.
    let plain = subscribe(&["--count", "2"]);
    let as_json = subscribe(&["--count", "1", "--json"]);
    let raw = subscribe(&["--count", "2", "--raw"]);
    eventually("three listen", || clients() == 4);
    two.ask(&["publish", "chat", "one"]);
    two.ask(&["publish", "chat", "two"]);
    let heard = |child: std::process::Child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout).to_owned()
    };
    let mut lines: Vec<_> = heard(plain).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one", "two"]);
    let event: Value = serde_json::from_str(heard(as_json).trim()).unwrap();
    assert_eq!((&event["event"], &event["from"], &event["v"]), (&json!("message"), &json!(two.id()), &json!(1)));
    assert!(["onetwo", "twoone"].contains(&heard(raw).as_str()));

    let control = one.control();
    run_expecting(dir.path(), 0, &["subscribe", "chat", "--timeout", "100ms", "--control", &control]);
    let too_few = &["subscribe", "chat", "--count", "1", "--timeout", "100ms", "--control", &control];
    assert!(text(&run_expecting(dir.path(), 1, too_few).stderr).contains("heard 0 messages of 1 in time"));
    let refused = run_expecting(dir.path(), 1, &["subscribe", "news", "--control", &control]);
    assert!(text(&refused.stderr).contains("is not joined"), "{}", text(&refused.stderr));

    let left_alone = subscribe(&[]);
    eventually("it listens", || clients() == 2);
    one.ask(&["drain"]);
    let ended = left_alone.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), text(&ended.stderr).contains("the node has ended")),
        (Some(69), true),
        "{ended:?}"
    );
    one.wait_expecting(0);
    two.signal("TERM");
}

#[test]
fn topics_and_connections_are_listed_in_the_order_one_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let (one, _two) = pair(dir.path());
    let topics = one.ask_json(&["topics"]);
    assert_eq!(
        (&topics["topics"][0]["name"], topics["topics"][0]["neighbors"].as_array().unwrap().len()),
        (&json!("chat"), 1)
    );
    assert!(text(&one.ask(&["topics"]).stdout).contains("chat"));
    for order in ["age", "rtt", "bytes", "queue"] {
        let sorted = one.ask_json(&["connections", "--sort", order]);
        assert_eq!(sorted["connections"].as_array().unwrap().len(), 1, "{order}: {sorted}");
    }
    let control = one.control();
    let wrong = run_expecting(dir.path(), 2, &["connections", "--sort", "colour", "--control", &control]);
    assert!(text(&wrong.stderr).contains("age, rtt, bytes, queue"), "{}", text(&wrong.stderr));
}

#[test]
fn a_reload_by_verb_tells_what_took_effect_and_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let write = |settings: &str| fs::write(&file, settings).unwrap();
    write("max_connections = 64\n");
    let one = Up::json(dir.path(), &["--config", file.to_str().unwrap()]);
    assert!(text(&one.ask(&["reload"]).stderr).contains("nothing has changed"));
    write("max_connections = 32\nidle_timeout = \"7s\"\n");
    let report = one.ask_json(&["reload"]);
    let names = |list: &str| -> Vec<String> {
        let list = report[list].as_array().unwrap().iter();
        list.map(|change| change["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(names("applied").contains(&"max_connections".to_owned()), "{report}");
    assert_eq!(names("needs_restart"), ["idle_timeout"]);
    assert_eq!(one.ask_json(&["limits"])["limits"][0]["max"], 32);
    write("max_connectoins = 16\n");
    let control = one.control();
    let refused = run_expecting(dir.path(), 78, &["reload", "--control", &control]);
    assert!(text(&refused.stderr).contains("did you mean `max_connections`"), "{}", text(&refused.stderr));
    assert_eq!(one.ask_json(&["limits"])["limits"][0]["max"], 32, "a wrong file changes nothing");
}

#[test]
fn a_drain_can_be_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (one, mut two) = pair(dir.path());
    let told = one.ask(&["drain", "--wait"]);
    assert!(text(&told.stderr).contains("the node has ended, after "), "{}", text(&told.stderr));
    one.wait_expecting(0);
    two.event("neighbor_down", |_| true);
}

#[test]
fn the_doctor_finds_what_up_would_stumble_over_and_says_what_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let doctor = |exit, args: &[&str]| -> Value {
        let output = run_expecting(dir.path(), exit, &[&["doctor", "--json"], args].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let of = |report: &Value, check: &str| -> Value {
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|one| one["check"] == check).unwrap_or_else(|| panic!("no {check} in {report}")).clone()
    };
    let well = doctor(0, &[]);
    assert_eq!((&well["v"], &well["failed"]), (&json!(1), &json!(0)));
    assert_eq!(of(&well, "node")["finding"], "none is running");

    let key = dir.path().join("key");
    run_expecting(dir.path(), 0, &["key", "generate", key.to_str().unwrap()]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let sick = doctor(1, &["--key-file", key.to_str().unwrap(), "--listen", &listen, "--limit", "inbound_max=500"]);
    let cures = [("key", "chmod 600"), ("listen", "choose another port"), ("settings", "")];
    let telemetry = doctor(1, &["--otlp", "collector:4317"]);
    let of_telemetry = [("telemetry", "http://127.0.0.1:4317 would be one")];
    let all = cures.map(|cure| (&sick, cure)).into_iter().chain(of_telemetry.map(|cure| (&telemetry, cure)));
    for (sick, (check, cure)) in all {
        let found = of(sick, check);
        assert_eq!(found["verdict"], "fail", "{found}");
        assert!(found["cure"].as_str().unwrap_or_default().contains(cure), "{found}");
    }

    let one = Up::json(dir.path(), &[]);
    let found = of(&one.ask_json(&["doctor"]), "node");
    assert_eq!((&found["verdict"], found["finding"].as_str().unwrap().contains("is ready")), (&json!("ok"), true));
}

#[test]
fn top_draws_on_a_terminal_and_gives_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let (one, _two) = pair(dir.path());
    let refused = run_expecting(dir.path(), 2, &["top", "--control", &one.control()]);
    assert!(text(&refused.stderr).contains("`top` is for a terminal"), "{}", text(&refused.stderr));

    // `script` makes the terminal; what is typed into it comes through its own input.
    let top =
        format!("stty rows 40 columns 120; exec {} top --control {}", env!("CARGO_BIN_EXE_perennial"), one.control());
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &top, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("util-linux is there");
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (screen, shown) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let (mut all, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = stdout.read(&mut piece) {
            all.extend_from_slice(&piece[..read]);
            let _ = screen.send(String::from_utf8_lossy(&all).into_owned());
        }
    });
    let deadline = Instant::now() + DEADLINE;
    let mut seen = String::new();
    let mut wait_for = |part: &str| {
        while !seen.contains(part) {
            let left = deadline.saturating_duration_since(Instant::now());
            seen = shown.recv_timeout(left).unwrap_or_else(|error| panic!("{error}: no {part:?} in {seen:?}"));
        }
    };
    wait_for("\x1b[?1049h");
    wait_for(&one.id()[..10]);
    stdin.write_all(b"q").unwrap();
    wait_for("\x1b[?1049l");
    wait_for("\x1b[?25h");
    assert!(child.wait().unwrap().success());
    drop(stdin);
    reader.join().unwrap();
}
