//! Who gets in: caps of listeners, limits changed while the node runs, nodes allowed, denied and forgotten, and how
//! connections ended.

use std::{path::Path, time::Instant};

use serde_json::Value;

use crate::process::{DEADLINE, Up, eventually, run_expecting, text};

#[test]
fn each_listener_has_a_cap_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let listen = ["--listen", "127.0.0.1,max-connections=1", "--listen", "127.0.0.2,max-connections=1"];
    let one = Up::json(dir.path(), &[&["--topic", "chat", "--topic", "news"], &listen[..]].concat());
    let mut two = joining(dir.path(), &at(&one, "127.0.0.1:"));
    two.event("neighbor_up", |_| true);
    eventually("the first listener is full", || listener(&one, "127.0.0.1:")["accepting"] == false);
    assert_eq!(listener(&one, "127.0.0.2:")["accepting"], true, "the other has room");
    // On a topic of its own, so that nobody tells the third one of a node it could join through.
    let mut other = Up::json(dir.path(), &["--topic", "news", "--join", &at(&one, "127.0.0.2:")]);
    other.event("neighbor_up", |_| true);
    eventually("the second listener is full as well", || listener(&one, "127.0.0.2:")["accepting"] == false);

    let mut three = joining(dir.path(), &at(&one, "127.0.0.1:"));
    eventually("the third one waits in the lobby", || limit(&one, "lobby")["in_use"] == 1);
    two.ask(&["stop"]);
    three.event("neighbor_up", |event| event["peer"] == one.id());
    for name in ["127.0.0.1:", "127.0.0.2:"] {
        let listener = listener(&one, name);
        assert_eq!((&listener["max"], &listener["in_use"], &listener["high_water"]), (&1.into(), &1.into(), &1.into()));
    }
    assert_eq!(listener(&one, "127.0.0.1:")["resumed"], 1);
}

#[test]
fn a_cap_that_is_raised_lets_in_who_was_put_off() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat", "--listen", "127.0.0.1,max-connections=1"]);
    let mut two = joining(dir.path(), &one.ticket());
    two.event("neighbor_up", |_| true);
    let mut three = joining(dir.path(), &one.ticket());
    eventually("the third is put off", || refusals(&one, "refused-at-listener-cap") > 0);

    let name = listener(&one, "127.0.0.1:")["name"].as_str().unwrap().to_owned();
    let page = one.ask_json(&["limits", "set", &format!("listener:{name}=2")]);
    assert_eq!(page["listeners"][0]["max"], 2, "the answer is the page as it is now");
    three.event("neighbor_up", |_| true);
}

#[test]
fn limits_are_changed_all_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--limit", "dials_max=9"]);
    assert_eq!(limit(&one, "dials_max")["max"], 9);
    let control = one.control();
    let set = |code: i32, changes: &[&str]| {
        let args = [&["limits", "set"], changes, &["--control", &control]].concat();
        text(&run_expecting(dir.path(), code, &args).stderr)
    };
    assert!(set(78, &["dials_max=5", "inbound_max=500"]).contains("inbound_max of 500 exceeds connections_max of 128"));
    assert!(
        set(78, &["dials_max=5", "listener:192.0.2.1:7=3"]).contains("no listener is called `192.0.2.1:7`; there are")
    );
    assert!(set(2, &["dials_max=5", "inbuond_max=50"]).contains("did you mean `inbound_max`?"));
    assert_eq!(limit(&one, "dials_max")["max"], 9, "none of it was done");
    assert!(set(0, &["dials_max=5", "inbound_max=50", "--evict"]).contains("set dials_max=5, inbound_max=50"));
    assert_eq!((&limit(&one, "dials_max")["max"], &limit(&one, "inbound_max")["max"]), (&5.into(), &50.into()));
}

#[test]
fn a_lowered_cap_throws_nobody_out_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat"]);
    let mut two = joining(dir.path(), &one.ticket());
    let mut three = joining(dir.path(), &one.ticket());
    for _ in 0..2 {
        one.event("neighbor_up", |_| true);
    }
    two.event("neighbor_up", |event| event["peer"] == one.id());
    three.event("neighbor_up", |event| event["peer"] == one.id());
    let name = format!("listener:{}=1", listener(&one, "127.0.0.1:")["name"].as_str().unwrap());
    one.ask(&["limits", "set", &name]);
    assert_eq!(listener(&one, "127.0.0.1:")["in_use"], 2);
    one.ask(&["limits", "set", &name, "--evict"]);
    let evicted = |closed: &Value| closed["cause"] == "evicted" && closed["closed_by"] == "us";
    eventually("one of the two is closed", || closed(&one).iter().filter(|closed| evicted(closed)).count() == 1);
    assert_eq!(refusals(&one, "evicted"), 1);
}

#[test]
fn a_denied_neighbor_is_disconnected_at_once_and_stays_out_until_it_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat"]);
    let key = dir.path().join("key");
    let joins = ["--topic", "chat", "--join", &one.ticket(), "--key-file", key.to_str().unwrap()];
    let mut two = Up::json(dir.path(), &joins);
    let (at_one, at_two) = (one.id(), two.id());
    one.event("neighbor_up", |event| event["peer"] == at_two);
    two.event("neighbor_up", |event| event["peer"] == at_one);
    assert_eq!(standing(&one, &at_two), "unknown");
    assert_eq!(standing(&two, &at_one), "known", "it was joined through");

    let denied_at = Instant::now();
    let answer = one.ask_json(&["deny", &at_two]);
    assert_eq!((&answer["before"], &answer["standing"]), (&"unknown".into(), &"denied".into()));
    two.event("neighbor_down", |event| event["peer"] == at_one);
    one.event("neighbor_down", |event| event["peer"] == at_two);
    // Silence alone would have taken ten seconds.
    assert!(denied_at.elapsed().as_secs() < 5, "{:?}", denied_at.elapsed());
    assert_closed(&one, &at_two, "us", "denied");
    assert_closed(&two, &at_one, "remote", "denied");
    let table = text(&one.ask(&["connections", "--closed"]).stdout);
    assert!(table.contains("denied 0x16") && table.contains("that ended since the start"), "{table}");

    // A new life of the same node does not know that it was denied, and dials at once.
    drop(two);
    let two = Up::json(dir.path(), &joins);
    eventually("it comes again and is turned away", || refusals(&one, "denied") > 0);
    let status = one.ask_json(&["status"]);
    assert_eq!((&status["neighbors"], &status["peers_known"]), (&0.into(), &0.into()));

    let answer = one.ask_json(&["allow", &two.ticket()]);
    assert_eq!((&answer["before"], &answer["standing"]), (&"denied".into(), &"known".into()));
    // The address came with the ticket, so the id alone will do.
    one.ask(&["join", "chat", "--peer", &at_two]);
    one.event("neighbor_up", |event| event["peer"] == at_two);
    assert_eq!(standing(&one, &at_two), "known");
    one.ask(&["deny", &at_two]);
    assert_closed(&one, &at_two, "us", "revoked");

    assert_eq!(one.ask_json(&["forget", &at_two])["standing"], "unknown");
    let said = text(&run_expecting(dir.path(), 1, &["forget", &at_two, "--control", &one.control()]).stderr);
    assert!(said.contains("is on no list"), "{said}");
    one.ask(&["join", "chat", "--peer", &two.ticket()]);
    one.event("neighbor_up", |event| event["peer"] == at_two);
}

#[test]
fn a_node_does_not_deny_itself() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &[]);
    for verb in ["deny", "allow"] {
        let said = text(&run_expecting(dir.path(), 78, &[verb, &one.id()]).stderr);
        assert!(said.contains("is this node itself"), "{said}");
    }
}

#[test]
fn with_access_for_the_known_others_stay_out() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let key = key.to_str().unwrap();
    let known = text(&run_expecting(dir.path(), 0, &["key", "generate", key]).stdout);
    let one = Up::json(dir.path(), &["--topic", "chat", "--access", "known", "--known", known.trim()]);
    let stranger = joining(dir.path(), &one.ticket());
    eventually("the stranger is turned away", || refusals(&one, "denied") > 0);
    let mut friend = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket(), "--key-file", key]);
    friend.event("neighbor_up", |event| event["peer"] == one.id());
    assert_eq!(one.ask_json(&["status"])["peers_known"], 1);
    assert_eq!(stranger.ask_json(&["status"])["neighbors"], 0);
}

#[test]
fn a_node_that_is_denied_from_the_start_stays_out() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let key = key.to_str().unwrap();
    let denied = text(&run_expecting(dir.path(), 0, &["key", "generate", key]).stdout);
    let one = Up::json(dir.path(), &["--topic", "chat", "--deny", denied.trim()]);
    let two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket(), "--key-file", key]);
    eventually("it is turned away", || refusals(&one, "denied") > 0);
    assert_eq!(two.ask_json(&["status"])["neighbors"], 0);
}

#[test]
fn the_address_of_a_known_node_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    let mut two = Up::json(dir.path(), &["--known", &at(&one, "127.0.0.1:")]);
    two.ask(&["join", "chat", "--peer", &one.id()]);
    two.event("neighbor_up", |event| event["peer"] == one.id());
}

#[test]
fn nodes_of_this_machine_are_counted_like_others_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--topic", "chat", "--limit", "connections_per_ipv4_max=1"];
    let one = Up::json(dir.path(), &[&flags[..], &["--count-loopback"]].concat());
    let mut two = joining(dir.path(), &one.ticket());
    two.event("neighbor_up", |_| true);
    let three = joining(dir.path(), &one.ticket());
    eventually("the second of one address is put off", || refusals(&one, "refused-at-prefix-cap") > 0);
    assert_eq!(limit(&one, "connections_per_ipv4_max")["in_use"], 1);
    assert_eq!(three.ask_json(&["status"])["neighbors"], 0);

    let exempting = Up::json(dir.path(), &flags);
    for _ in 0..2 {
        let mut next = joining(dir.path(), &exempting.ticket());
        next.event("neighbor_up", |event| event["peer"] == exempting.id());
    }
}

#[test]
fn limits_tell_everything_that_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat", "--max-connections", "64", "--memory-budget", "8GiB"]);
    let _two = joining(dir.path(), &one.ticket());
    one.event("neighbor_up", |_| true);
    let page = one.ask_json(&["limits"]);
    assert_eq!(keys(&page), ["clients", "limits", "listeners", "pressure", "refusals", "v"]);
    assert_eq!((&page["v"], &page["pressure"]), (&1.into(), &"calm".into()));
    for limit in page["limits"].as_array().unwrap() {
        assert_eq!(keys(limit), ["high_water", "in_use", "max", "name"]);
        assert!(limit["max"].is_u64() && limit["in_use"].is_u64(), "{limit}");
    }
    for listener in page["listeners"].as_array().unwrap() {
        assert_eq!(keys(listener), ["accepting", "high_water", "in_use", "max", "name", "resumed"]);
    }
    assert_eq!(page["listeners"].as_array().unwrap().last().unwrap()["name"], "relays");
    for name in perennial::Limits::CHANGEABLE {
        assert!(limit(&one, name)["max"].is_u64(), "what can be changed is told: {name}");
    }
    let connections = limit(&one, "connections_max");
    assert_eq!(connections["max"], 64);
    assert!(connections["in_use"].as_u64() >= Some(1) && connections["high_water"].as_u64() >= Some(1));
    assert_eq!(limit(&one, "inbound_max")["max"], 48);
    let refusals = page["refusals"].as_object().unwrap();
    for reason in ["refused-at-cap", "refused-at-rate", "denied", "evicted", "waited-in-vain"] {
        assert_eq!(refusals[reason], 0, "zeros are told");
    }
    let table = text(&one.ask(&["limits"]).stdout);
    assert!(
        table.contains("connections_max") && table.contains("relays") && table.contains("pressure calm"),
        "{table}"
    );
    assert!(table.contains("nothing was refused"), "{table}");
}

#[test]
fn connections_are_a_row_each() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    let mut two = joining(dir.path(), &one.ticket());
    two.event("neighbor_up", |_| true);
    let live = two.ask_json(&["connections"]);
    let row = &live["connections"][0];
    assert_eq!((&row["peer"], &row["standing"], &row["side"]), (&one.id().into(), &"known".into(), &"dialed".into()));
    for field in ["number", "age_s", "leases", "queued_frames"] {
        assert!(row[field].is_number(), "{field} in {row}");
    }
    let closed = two.ask_json(&["connections", "--closed"]);
    assert_eq!(keys(&closed), ["connections", "total", "v"]);
    assert!(text(&two.ask(&["connections"]).stdout).contains(&one.id()[..10]));

    one.ask(&["stop"]);
    let one_id = one.id();
    one.wait_expecting(0);
    eventually("the end is told", || !self::closed(&two).is_empty());
    let row = &self::closed(&two)[0];
    assert_eq!(row["peer"], one_id.as_str());
    let wanted = [
        "age_s",
        "bytes_received",
        "bytes_sent",
        "cause",
        "closed_by",
        "code",
        "detail",
        "ended_s_ago",
        "number",
        "peer",
        "side",
    ];
    assert_eq!(keys(row), wanted);
    assert!(row["bytes_sent"].as_u64() > Some(0), "{row}");
}

/// A node on the topic `chat` that joins through `peer`.
fn joining(directory: &Path, peer: &str) -> Up {
    Up::json(directory, &["--topic", "chat", "--join", peer])
}

/// The address of `up` that begins so, with its id.
fn at(up: &Up, begins: &str) -> String {
    let mut addrs = up.ready["addrs"].as_array().unwrap().iter().map(|addr| addr.as_str().unwrap());
    format!("{}@{}", up.id(), addrs.find(|addr| addr.starts_with(begins)).expect("it listens there"))
}

fn named(page: &Value, list: &str, begins: &str) -> Value {
    let mut rows = page[list].as_array().unwrap().iter();
    let row = rows.find(|row| row["name"].as_str().unwrap().starts_with(begins));
    row.unwrap_or_else(|| panic!("{begins} in {page}")).clone()
}

fn listener(up: &Up, begins: &str) -> Value {
    named(&up.ask_json(&["limits"]), "listeners", begins)
}

fn limit(up: &Up, name: &str) -> Value {
    named(&up.ask_json(&["limits"]), "limits", name)
}

fn refusals(up: &Up, reason: &str) -> u64 {
    up.ask_json(&["limits"])["refusals"][reason].as_u64().expect("every reason is told")
}

fn closed(up: &Up) -> Vec<Value> {
    up.ask_json(&["connections", "--closed"])["connections"].as_array().unwrap().clone()
}

fn standing(up: &Up, peer: &str) -> String {
    let peers = up.ask_json(&["peers"]);
    let mut rows = peers["peers"].as_array().unwrap().iter();
    let row = rows.find(|row| row["id"] == peer).unwrap_or_else(|| panic!("{peer} in {peers}"));
    row["standing"].as_str().unwrap().to_owned()
}

/// Waits until `up` tells of a connection to `peer` that ended so.
fn assert_closed(up: &Up, peer: &str, by: &str, cause: &str) {
    let deadline = Instant::now() + DEADLINE;
    let is_it = |row: &Value| row["peer"] == peer && row["closed_by"] == by && row["cause"] == cause;
    let mut rows = closed(up);
    while !rows.iter().any(is_it) {
        assert!(Instant::now() < deadline, "no connection ended as {cause} by {by}: {rows:#?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
        rows = closed(up);
    }
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}
