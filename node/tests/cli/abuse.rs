//! Clients of the control API that are many, slow, silent or rude: each costs itself its place, and the node nothing.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    http::{self, Events, address, get, post, socket},
    process::{Up, eventually, run_expecting},
};

/// The counts of one entrance.
fn clients(up: &Up, name: &str) -> Value {
    let limits = get(up, "/v1/limits").json();
    let found = limits["clients"].as_array().unwrap().iter().find(|one| one["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("no {name} in {limits}"))
}

#[test]
fn at_the_cap_the_next_client_waits_until_one_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let socket_path = dir.path().join("node.sock");
    let capped = format!("{},max-connections=2", socket_path.display());
    let one = Up::json(dir.path(), &["--control", &capped]);
    let mut clients: Vec<UnixStream> = (0..2).map(|_| socket(&one)).collect();
    for client in &mut clients {
        http::send(client, "GET /v1/ticket", &[], b"");
        assert_eq!(http::read(&mut BufReader::new(client)).status, 200);
    }
    let mut third = socket(&one);
    http::send(&mut third, "GET /v1/limits", &[], b"");
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(third.read(&mut [0]).is_err(), "it is connected and not served");
    drop(clients.pop());
    third.set_read_timeout(Some(crate::process::DEADLINE)).unwrap();
    let limits = http::read(&mut BufReader::new(&mut third)).json();
    let counts = &limits["clients"][0];
    assert_eq!((&counts["in_use"], &counts["max"], &counts["high_water"]), (&2.into(), &2.into(), &2.into()));
    assert_eq!((&counts["accepted"], &counts["resumed"], &counts["at_capacity"]), (&3.into(), &1.into(), &true.into()));
}

#[test]
fn a_thousand_clients_come_and_go_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat", "--http", "127.0.0.1:0,max-connections=8"]);
    let before = one.ask_json(&["status"])["open_fds"].as_u64().unwrap();
    for round in 0..1000 {
        let mut client = address(&one);
        // Some leave without a word, some in the middle of one.
        match round % 3 {
            0 => {}
            1 => client.write_all(b"GET /v1/sta").unwrap(),
            _ => http::send(&mut client, "GET /v1/ticket", &[], b""),
        }
    }
    eventually("every one of them was accepted and has left", || {
        let counts = clients(&one, "http");
        counts["accepted"] == 1000 && counts["in_use"] == 0
    });
    assert!(clients(&one, "http")["high_water"].as_u64() <= Some(8));
    eventually("their descriptors are closed", || one.ask_json(&["status"])["open_fds"].as_u64() <= Some(before + 1));
    assert_eq!(one.ask_json(&["ledger"])["orphans"], 0);
}

#[test]
fn two_hundred_idle_clients_keep_no_message_from_passing() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat", "--http", "127.0.0.1:0"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket()]);
    two.event("neighbor_up", |_| true);
    let idle: Vec<TcpStream> = (0..200).map(|_| address(&one)).collect();
    eventually("the entrance is full", || clients(&one, "http")["at_capacity"] == true);
    for number in 0..50 {
        let text = format!("message {number}");
        let asked = Instant::now();
        assert_eq!(post(&one, "/v1/topics/chat/messages", "text/plain", &text).status, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?} for one message", asked.elapsed());
        two.message(&text);
    }
    assert_eq!(clients(&one, "http")["high_water"], 64);
    drop(idle);
    eventually("they are gone", || clients(&one, "http")["in_use"] == 0);
}

#[test]
fn a_client_that_says_too_little_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &[]);
    let started = Instant::now();
    let mut silent = socket(&one);
    let mut half_head = socket(&one);
    half_head.write_all(b"GET /v1/status HTTP/1.1\r\nhost: loc").unwrap();
    let mut half_body = socket(&one);
    half_body.write_all(b"POST /v1/limits HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{").unwrap();
    let refused = http::read(&mut BufReader::new(&mut half_body));
    assert_eq!((refused.status, refused.message().contains("within 5 s")), (408, true), "{refused:?}");
    for client in [&mut silent, &mut half_head] {
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(started.elapsed() >= Duration::from_secs(9), "cut after {:?}", started.elapsed());
    }
    eventually("only the one who asks has a place", || clients(&one, "control")["in_use"] == 1);
}

#[test]
fn nonsense_is_refused_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &[]);
    let nonsense: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"{\"v\":1,\"request\":\"status\"}\n\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"POST /v1/limits HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: \x00\r\n\r\n",
    ];
    for bytes in nonsense {
        let mut client = socket(&one);
        client.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{:?} to {bytes:?}", String::from_utf8_lossy(&answer));
    }
    let mut long_head = socket(&one);
    // It may be cut while it still writes.
    let _ = long_head.write_all(&[b"GET / HTTP/1.1\r\nx: ", &[b'x'; 64 * 1024][..]].concat());
    let mut answer = Vec::new();
    let _ = long_head.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer));
    run_expecting(dir.path(), 0, &["status"]);
    assert_eq!(one.ask_json(&["status"])["panics"], 0);
}

#[test]
fn a_subscriber_that_stops_reading_is_cut_and_the_others_hear_everything() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket()]);
    two.event("neighbor_up", |_| true);
    let deaf = Events::of(&two, "chat");
    let mut hears = Events::of(&two, "chat");
    eventually("both have a place", || clients(&two, "control")["in_use"] == 3);
    let padding = "x".repeat(3900);
    // Far more than the buffers of a socket hold.
    for number in 0..200 {
        let text = format!("{number} {padding}");
        assert_eq!(post(&one, "/v1/topics/chat/messages", "text/plain", &text).status, 200);
        assert_eq!(hears.next("message")["text"], text);
        two.message(&text);
    }
    eventually("the one that does not read has lost its place", || clients(&two, "control")["in_use"] == 2);
    assert_eq!(two.ask_json(&["ledger"])["orphans"], 0);
    drop(deaf);
}
