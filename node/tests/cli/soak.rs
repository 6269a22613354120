//! What a node tells its judge: stores, retirements, crashes; and what only a build for soaks does: trim, fault.

use serde_json::{Value, json};

use crate::{
    http::post,
    process::{Up, eventually},
};

#[test]
fn every_store_is_told_with_its_bound_and_its_high_water() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket(), "--pipe"]);
    two.event("neighbor_up", |_| true);
    two.say("twelve bytes");
    let store = |name: &str, of_topic: bool| {
        let status = two.ask_json(&["status"]);
        let stores = status["stores"].as_array().unwrap().clone();
        let found = stores.into_iter().find(|store| store["name"] == name && store["topic"].is_string() == of_topic);
        found.unwrap_or_else(|| panic!("no store {name} in {status}"))
    };
    eventually("the message is in the cache", || store("message_cache", true)["size"] == 1);
    assert_eq!(store("message_cache_bytes", true)["size"], 12);
    assert_eq!(store("message_ids", true)["cap"], Value::Null);
    assert_eq!(store("neighbors", true)["size"], 1);
    let node = ["peers", "addresses", "history", "token_buckets", "hints", "retries", "redials", "known_list"];
    for name in node {
        assert!(store(name, false)["size"].is_u64(), "{name}");
    }
    for name in ["topic_frames", "topic_commands", "pending", "published", "verdicts", "events"] {
        let store = store(name, true);
        assert!(store["size"].as_u64() <= store["cap"].as_u64(), "{store}");
    }
    assert!(store("peers", false)["high_water"].as_u64() >= Some(1));
    assert_eq!(store("control_clients", false)["cap"], 16);
}

#[test]
fn a_connection_that_retires_is_timed_by_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat"]);
    let two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket()]);
    one.event("neighbor_up", |_| true);
    let before = one.ask_json(&["ledger"])["retirements"].clone();
    assert_eq!(before["retired"], 0, "{before}");
    assert!(before["deadlines_ms"]["let-go"].as_u64() > before["deadlines_ms"]["ended"].as_u64(), "{before}");
    two.ask(&["leave", "chat"]);
    eventually("the connection has retired at both ends", || {
        [&one, &two].iter().all(|node| node.ask_json(&["ledger"])["retirements"]["retired"].as_u64() >= Some(1))
    });
    for node in [&one, &two] {
        let after = node.ask_json(&["ledger"])["retirements"].clone();
        assert_eq!(after["retired_late"], 0, "{after}");
        // Superseded where one, which is alone now, dialed two anew before the old connection was done.
        let orderly = ["retired", "idle", "superseded"].contains(&after["causes"][0]["cause"].as_str().unwrap());
        assert!(orderly && after["slowest"]["number"].is_u64(), "{after}");
        assert!(after["p50_ms"].as_u64() <= after["max_ms"].as_u64(), "{after}");
        assert!(after["max_ms"].as_u64() < Some(5_000), "{after}");
        // One may have dialed two anew by then, whose connection is outside every view and not to end.
        let lingering = node.ask_json(&["connections"])["lingering"].clone();
        let late: Vec<_> = lingering.as_array().unwrap().iter().filter(|one| !one["departure"].is_null()).collect();
        assert!(late.is_empty(), "{lingering}");
    }
}

#[test]
fn only_a_build_for_soaks_trims_and_breaks_loops() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket()]);
    two.event("neighbor_up", |_| true);
    let trimmed = post(&one, "/v1/trim", "application/json", "");
    let fault = |at: &str, kind: &str, peer: Value| {
        let plan = json!({"loop": at, "kind": kind, "peer": peer});
        post(&one, "/v1/fault", "application/json", plan.to_string())
    };
    let struck = fault("connection", "panic", json!(two.id()));
    if !cfg!(feature = "soak") {
        for answer in [&trimmed, &struck] {
            assert_eq!((answer.status, answer.message().contains("no route is called")), (404, true), "{answer:?}");
        }
        return;
    }
    let trimmed = trimmed.json();
    assert!(trimmed["rss_bytes"].is_u64() || trimmed["error"].is_object(), "{trimmed}");
    assert_eq!(struck.json()["loop"], "connection", "{struck:?}");
    eventually("the panic is counted and the connection replaced", || {
        let status = one.ask_json(&["status"]);
        status["panics"] == 1 && status["crashes"]["connection"] == 1 && status["neighbors"] == 1
    });
    let retirements = one.ask_json(&["ledger"])["retirements"].clone();
    assert_eq!(retirements["causes"][0]["cause"], "panicked", "{retirements}");
    for (at, kind, peer) in [("root", "panic", Value::Null), ("topic", "dance", Value::Null)] {
        assert_eq!(fault(at, kind, peer).json()["error"]["exit"], 2, "{at} {kind}");
    }
    assert_eq!(fault("acceptor", "error", json!(two.id())).json()["error"]["exit"], 2);
    let nobody = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";
    assert_eq!(fault("peer", "error", json!(nobody)).json()["error"]["exit"], 75);
    for at in ["acceptor", "clock", "peers", "peer", "topic"] {
        for kind in ["panic", "error"] {
            eventually("such a loop turns", || fault(at, kind, Value::Null).json()["loop"] == at);
        }
    }
    two.ask(&["ledger", "--settle", "20s"]);
    one.ask(&["ledger", "--settle", "20s"]);
}
