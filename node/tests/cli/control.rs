//! The verbs that ask a running node: what they tell and what they change.

use serde_json::Value;

use crate::process::{Up, eventually, run_expecting, text};

#[test]
fn status_tells_everything_that_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket(), "--max-connections", "77"]);
    two.event("neighbor_up", |_| true);
    let status = two.ask_json(&["status"]);
    assert_eq!(status["v"], 1);
    assert_eq!(status["id"], two.id());
    assert_eq!(status["connection_cap"], 77);
    assert_eq!(status["topics"][0]["name"], "chat");
    assert_eq!(status["topics"][0]["topic"], blake3::hash(b"chat").to_hex().as_str());
    assert_eq!(status["topics"][0]["neighbors"][0], one.id());
    assert_eq!(status["neighbors"], 1);
    let numbers = ["uptime_s", "connections", "half_open", "rss_bytes", "open_fds", "alive_tasks", "orphans"];
    for field in [&numbers[..], &["connections_high_water", "addresses"]].concat() {
        assert!(status[field].is_number(), "{field} in {status}");
    }
    assert!(status["connections"].as_u64() >= Some(1));
    let heap = status.as_object().unwrap().get("heap_bytes").expect("present, even where it is null");
    assert_eq!(heap.is_number(), cfg!(feature = "soak"));
    assert_eq!(status["heap_blocks"].is_number(), cfg!(feature = "soak"));
    assert_eq!((&status["panics"], &status["crashes"]), (&serde_json::json!(0), &serde_json::json!({})));
    let table = text(&two.ask(&["status"]).stdout);
    assert!(table.contains(&two.id()) && table.contains("of 77"), "{table}");
}

#[test]
fn peers_tells_every_connection() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat"]);
    let two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket()]);
    one.event("neighbor_up", |_| true);
    let mut peers = Value::Null;
    eventually("one sees a connection of two", || {
        peers = one.ask_json(&["peers"]);
        peers["peers"][0]["connections"].as_array().is_some_and(|connections| !connections.is_empty())
    });
    let peer = &peers["peers"][0];
    assert_eq!(peer["id"], two.id());
    assert_eq!(peer["neighbor_in"][0], blake3::hash(b"chat").to_hex().as_str());
    let connection = &peer["connections"][0];
    assert_eq!(connection["protocol"], "perennial");
    assert!(["dialed", "accepted"].contains(&connection["side"].as_str().unwrap()));
    assert!(text(&one.ask(&["peers"]).stdout).contains(&two.id()[..10]));
}

#[test]
fn the_ledger_of_a_settled_node_comes_out_even() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--pipe", "--join", &one.ticket()]);
    two.event("neighbor_up", |_| true);
    let ledger = two.ask_json(&["ledger", "--settle", "10s"]);
    let mut fields: Vec<&String> = ledger.as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["kinds", "orphans", "retirements", "v"]);
    assert_eq!((&ledger["v"], &ledger["orphans"]), (&1.into(), &0.into()));
    let kinds = ledger["kinds"].as_array().unwrap();
    let line = |kind: &str| kinds.iter().find(|line| line["kind"] == kind).unwrap_or_else(|| panic!("{kind}"));
    for line in kinds {
        let number = |field: &str| line[field].as_i64().unwrap_or_else(|| panic!("{field} in {line}"));
        assert_eq!(number("orphans"), number("spawned") - number("finished") - number("owned"));
    }
    assert!(line("connection")["owned"].as_u64() >= Some(1), "{ledger}");
    assert!(line("control-client")["owned"].as_u64() >= Some(1), "the one who asks is counted as well");
    assert!(line("service")["owned"].as_u64() >= Some(4), "stdout, control, pipe and a printer");
    assert!(text(&two.ask(&["ledger"]).stdout).contains("every task is accounted for"));
}

#[test]
fn leaving_and_joining_again_keeps_the_pipe_attached() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--pipe", "--join", &one.ticket()]);
    two.say("before");
    one.message("before");

    assert_eq!(two.ask_json(&["leave", "chat"])["outcome"], "left");
    assert_eq!(two.event("closed", |_| true)["reason"], "left");
    assert_eq!(one.event("neighbor_down", |_| true)["reason"], "left");
    two.say("while away");
    two.told("chat is not joined");
    run_expecting(dir.path(), 1, &["leave", "chat", "--control", &two.control()]);

    let joined = two.ask_json(&["join", "chat", "--peer", &one.ticket()]);
    assert_eq!(joined["outcome"], "joined");
    two.say("back again");
    let message = one.event("message", |event| event["text"] != "while away");
    assert_eq!(message["text"], "back again");
    one.say("welcome back");
    two.message("welcome back");
    assert_eq!(two.ask_json(&["join", "chat", "--peer", &one.ticket()])["outcome"], "already-joined");
    one.say("and still here");
    two.message("and still here");
    eventually("the ledger settles after leaving and joining", || two.ask_json(&["ledger"])["orphans"] == 0);
}

#[test]
fn topics_joined_at_run_time_print_their_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "news", "--pipe"]);
    let mut two = Up::json(dir.path(), &[]);
    assert_eq!(two.ask_json(&["status"])["topics"], Value::Array(Vec::new()));
    two.ask(&["join", "news", "--peer", &one.ticket()]);
    one.event("neighbor_up", |_| true);
    one.say("extra, extra");
    assert_eq!(two.message("extra, extra")["name"], "news");
}

#[test]
fn one_running_node_is_found_and_several_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &[]);
    let id = text(&run_expecting(dir.path(), 0, &["id"]).stdout);
    assert_eq!(id.trim(), one.id());
    assert_eq!(text(&run_expecting(dir.path(), 0, &["ticket"]).stdout).trim(), one.ticket());
    let two = Up::json(dir.path(), &[]);
    let said = text(&run_expecting(dir.path(), 2, &["status"]).stderr);
    assert!(said.contains(&one.control()) && said.contains(&two.control()), "{said}");
}

#[test]
fn stop_drains_and_ends_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    assert_eq!(one.ask_json(&["stop"])["stopping"], true);
    one.wait_expecting(0);
}
