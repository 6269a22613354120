//! `perennial up`: what it prints, what it publishes, how it ends.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use serde_json::Value;

use crate::process::{Up, eventually, perennial, run_expecting, text};

#[test]
fn ready_is_one_line_with_everything_others_need() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::json(dir.path(), &["--topic", "chat"]);
    assert_eq!(up.ready["v"], 1);
    assert_eq!(up.id().len(), 64);
    let addrs = up.ready["addrs"].as_array().unwrap();
    assert_eq!(addrs.len(), 1);
    let addr: std::net::SocketAddr = addrs[0].as_str().unwrap().parse().unwrap();
    assert!(addr.ip().is_loopback() && addr.port() != 0, "{addr}");
    let ticket: iroh_tickets::endpoint::EndpointTicket = up.ticket().parse().unwrap();
    assert_eq!(ticket.endpoint_addr().id.to_string(), up.id());
    assert_eq!(ticket.endpoint_addr().ip_addrs().collect::<Vec<_>>(), [&addr]);
    let socket = dir.path().join("perennial").join(format!("{}.sock", &up.id()[..10]));
    assert_eq!(Path::new(&up.control()), socket);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(socket.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn without_json_and_pipe_stdout_stays_empty_and_stderr_says_how_to_join() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::plain(dir.path(), &["--topic", "chat"]);
    up.signal("TERM");
    up.told("SIGTERM");
    assert_eq!(up.wait_expecting(0), [""; 0]);

    let mut up = Up::plain(dir.path(), &[]);
    up.signal("INT");
    up.told("SIGINT");
    assert_eq!(up.wait_expecting(0), [""; 0]);
}

#[test]
fn a_key_file_is_created_private_and_keeps_the_identity() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let args = ["--key-file", file.to_str().unwrap()];
    let first = Up::json(dir.path(), &args);
    let id = first.id();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    drop(first); // Killed: its socket stays behind and is replaced.
    let mut second = Up::json(dir.path(), &args);
    assert_eq!(second.id(), id);

    let said = text(&run_expecting(dir.path(), 75, &["up", args[0], args[1]]).stderr);
    assert!(said.contains("already answers"), "{said}");
    second.signal("TERM");
    second.told("SIGTERM");
    let control = second.control();
    second.wait_expecting(0);
    assert!(!Path::new(&control).exists(), "a node that ends takes its socket along");
}

#[test]
fn an_ephemeral_identity_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::json(dir.path(), &[]);
    up.told("ephemeral");
}

#[test]
fn two_nodes_talk_through_their_pipes() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--pipe", "--join", &one.ticket()]);
    // Said before they have met: the pipe of a node that joins somebody waits for its first neighbour.
    two.say("hello, one");
    let message = one.message("hello, one");
    assert_eq!(message["from"], two.id());
    assert_eq!(message["name"], "chat");
    assert_eq!(message["topic"], blake3::hash(b"chat").to_hex().as_str());
    one.say("hello, two");
    assert_eq!(two.message("hello, two")["from"], one.id());
    one.say(b"\xff\xfe");
    assert_eq!(two.event("message", |event| event["text"].is_null())["base64"], "//4=");

    // The end of the input is not the end of the node.
    one.close_stdin();
    two.say("still there?");
    one.message("still there?");

    two.signal("TERM");
    let rest = two.wait_expecting(0);
    assert!(rest.iter().any(|line| line.contains(r#""event":"closed""#)), "{rest:?}");
    let two_id = message["from"].clone();
    let down = one.event("neighbor_down", |event| event["peer"] == two_id);
    assert_eq!(down["reason"], "left");
}

#[test]
fn plain_mode_prints_messages_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let mut two = Up::plain(dir.path(), &["--topic", "chat", "--pipe", "--join", &one.ticket()]);
    two.told("is up");
    one.event("neighbor_up", |_| true);
    one.say("first");
    assert_eq!(two.line(), "first");
    one.say("second");
    assert_eq!(two.line(), "second");
    two.say("third");
    one.message("third");
}

#[test]
fn a_topic_may_be_given_as_its_raw_id() {
    let dir = tempfile::tempdir().unwrap();
    let hex = blake3::hash(b"chat").to_hex().to_string();
    let mut one = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let peer = format!("{}@{}", one.id(), one.ready["addrs"][0].as_str().unwrap());
    let mut two = Up::json(dir.path(), &["--topic", &hex, "--pipe", "--join", &peer]);
    two.say("by id");
    let message = one.message("by id");
    assert_eq!(message["topic"], hex);
    one.say("by name");
    assert!(two.message("by name")["name"].is_null());
}

#[test]
fn lines_that_nobody_hears_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    up.say("anybody?");
    up.told("nobody heard that");
    up.say("x".repeat(4056));
    let said = up.told("exceeds");
    assert!(said.contains("4056 bytes exceeds 4055"), "{said}");
}

#[test]
fn the_largest_message_crosses() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--pipe", "--join", &one.ticket()]);
    let line = "x".repeat(4055);
    two.say(&line);
    one.message(&line);
}

#[test]
fn a_closed_stdout_ends_the_node_with_74() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--pipe", "--join", &one.ticket()]);
    two.say("hello");
    one.message("hello");
    one.close_stdout();
    // The first line still finds the reader of this test, which only then goes away; a later one finds nobody.
    let mut lines = 0;
    eventually("a node that cannot print ends", || {
        lines += 1;
        two.say(format!("are you listening? {lines}"));
        one.has_ended()
    });
    one.told("standard output is gone");
    assert_eq!(one.wait().0.code(), Some(74));
    two.event("neighbor_down", |event| event["reason"] == "left");
}

#[test]
fn a_node_may_be_bound_to_its_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::json(dir.path(), &["--topic", "chat", "--pipe", "--until-stdin-closes"]);
    up.close_stdin();
    up.wait_expecting(0);
}

#[test]
fn every_topic_says_that_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::json(dir.path(), &["--topic", "a", "--topic", "b"]);
    up.signal("TERM");
    let mut closed: Vec<String> = up
        .wait_expecting(0)
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["event"] == "closed")
        .map(|event| format!("{} {}", event["name"].as_str().unwrap(), event["reason"].as_str().unwrap()))
        .collect();
    closed.sort();
    assert_eq!(closed, ["a ended", "b ended"]);
}

#[test]
fn a_second_signal_does_not_wait_for_the_drain() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket()]);
    two.event("neighbor_up", |_| true);
    // A neighbour that does not answer makes the farewell last for seconds.
    one.signal("STOP");
    two.signal("TERM");
    two.told("SIGTERM: draining");
    two.signal("TERM");
    two.told("not waiting");
    two.wait_expecting(143);
}

#[test]
fn a_stdout_that_nobody_reads_cannot_hold_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let control = dir.path().join("two.sock");
    let control = control.to_str().unwrap();
    let mut two = perennial(dir.path())
        .args(["up", "--json", "--topic", "chat", "--join", &one.ticket(), "--control", control])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    one.event("neighbor_up", |_| true);
    // A pipe holds 64 KiB and the node's queue 256 lines; this is more than both.
    for number in 0..2000 {
        one.say(format!("{number} {}", "x".repeat(1000)));
    }
    run_expecting(dir.path(), 0, &["status", "--control", control]);
    run_expecting(dir.path(), 0, &["leave", "chat", "--control", control]);
    run_expecting(dir.path(), 0, &["stop", "--control", control]);
    eventually("it ends although its stdout is full", || two.try_wait().unwrap().is_some());
    assert_eq!(two.wait().unwrap().code(), Some(74));
}
