//! The control API as a client of it sees it: two entrances, messages in and out, a document that tells the truth, a drain
//! that loses nothing that was promised.

use std::{
    collections::BTreeSet,
    fs,
    io::BufReader,
    os::unix::fs::PermissionsExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::{Map, Value, json};

use crate::{
    http::{self, Events, address, ask, get, post, socket},
    process::{Up, eventually, run_expecting, text},
};

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

#[test]
fn both_entrances_give_the_same_answers_to_hand_to_verb_and_to_curl() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &HTTP);
    let address = one.ready["http"].as_str().unwrap().to_owned();
    let curl = |args: &[&str]| {
        let output = Command::new("curl").args(["--silent", "--show-error", "--max-time", "20"]).args(args).output();
        let output = output.expect("this test needs curl");
        assert!(output.status.success(), "curl {args:?}: {}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let by_hand = [get(&one, "/v1/ticket"), ask(http::address(&one), "GET /v1/ticket", &[], b"")];
    for answer in by_hand {
        assert_eq!((answer.status, answer.json()["id"].as_str()), (200, Some(one.id().as_str())));
    }
    assert_eq!(one.ask_json(&["ticket"])["ticket"], one.ticket());
    let over_http = run_expecting(dir.path(), 0, &["ticket", "--http", &address]);
    assert_eq!(text(&over_http.stdout).trim(), one.ticket());
    assert_eq!(curl(&["--unix-socket", &one.control(), "http://localhost/v1/status"])["id"], one.id());
    assert_eq!(curl(&[&format!("http://{address}/v1/status")])["id"], one.id());
    let joined = curl(&["--data", r#"{"peers":[]}"#, &format!("http://{address}/v1/topics/two%20words/join")]);
    assert_eq!((&joined["name"], &joined["outcome"]), (&json!("two words"), &json!("joined")));
}

#[test]
fn a_token_opens_the_address_and_a_web_page_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "0123456789abcdef\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let token = token.to_str().unwrap();
    let open = Up::json(dir.path(), &HTTP);
    let status = |up: &Up, headers: &[(&str, &str)]| ask(address(up), "GET /v1/status", headers, b"");
    assert_eq!(status(&open, &[]).status, 200);
    for headers in [[("host", "evil.example")], [("origin", "http://evil.example")]] {
        let refused = status(&open, &headers);
        assert_eq!((refused.status, refused.json()["error"]["exit"].as_u64()), (403, Some(77)), "{headers:?}");
        assert!(refused.message().contains("evil.example"), "{refused:?}");
    }
    let guarded = Up::json(dir.path(), &[&HTTP[..], &["--http-token-file", token]].concat());
    let refused = status(&guarded, &[]);
    assert_eq!(refused.status, 401);
    assert!(refused.message().contains("Authorization: Bearer"), "{refused:?}");
    assert_eq!(status(&guarded, &[("authorization", "Bearer 0123456789abcdef")]).status, 200);
    assert_eq!(get(&guarded, "/v1/status").status, 200, "the socket has the file system's word");
    let args = ["id", "--http", guarded.ready["http"].as_str().unwrap(), "--http-token-file", token];
    assert_eq!(text(&run_expecting(dir.path(), 0, &args).stdout).trim(), guarded.id());
    run_expecting(dir.path(), 77, &args[..3]);
    let refused = run_expecting(dir.path(), 78, &["up", "--http", "0.0.0.0:0"]);
    assert!(text(&refused.stderr).contains("needs --http-token-file"), "{}", text(&refused.stderr));
}

#[test]
fn a_message_goes_in_by_one_node_and_comes_out_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket()]);
    two.event("neighbor_up", |_| true);
    let (mut first, mut second) = (Events::of(&two, "chat"), Events::of(&two, "chat"));
    eventually("one has its neighbor", || one.ask_json(&["status"])["neighbors"] == 1);
    let contents: [(&str, &[u8], Value); 3] = [
        ("text/plain", "h\u{e9}llo".as_bytes(), json!({"text": "h\u{e9}llo"})),
        ("application/json", br#"{"a":1}"#, json!({"text": r#"{"a":1}"#})),
        ("application/octet-stream", b"\xff\x00", json!({"base64": "/wA="})),
    ];
    for (kind, content, shown) in contents {
        let receipt = post(&one, "/v1/topics/chat/messages", kind, content);
        assert_eq!(receipt.status, 200, "{receipt:?}");
        let receipt = receipt.json();
        assert_eq!(receipt["name"], "chat");
        assert_eq!((&receipt["neighbors"], &receipt["no_room"]), (&json!(1), &json!(0)), "{receipt}");
        assert_eq!((&receipt["bytes"], &receipt["repeated"]), (&json!(content.len()), &json!(false)), "{receipt}");
        let printed = two.event("message", |_| true);
        for heard in [first.next("message"), second.next("message"), printed] {
            assert_eq!((&heard["from"], &heard["name"]), (&json!(one.id()), &json!("chat")), "{heard}");
            let (field, content) = shown.as_object().unwrap().iter().next().unwrap();
            assert_eq!(&heard[field], content, "{heard}");
        }
    }
    assert_eq!(post(&one, "/v1/topics/chat/messages", "text/plain", "h\u{e9}llo").json()["repeated"], true);
    drop(second);
    two.ask(&["leave", "chat"]);
    assert_eq!(first.next("closed")["reason"], "left");
    assert_eq!(first.any(), None, "`closed` is the last word");
    eventually("nothing keeps the topic joined", || two.ask_json(&["status"])["topics"] == json!([]));
    assert_eq!(two.ask_json(&["ledger"])["orphans"], 0);
}

#[test]
fn a_message_that_cannot_be_published_is_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    let check = |topic: &str, kind: &str, body: &[u8], status: u16, part: &str| {
        let refused = post(&one, &format!("/v1/topics/{topic}/messages"), kind, body);
        assert_eq!(refused.status, status, "{refused:?}");
        assert!(refused.message().contains(part), "{refused:?}");
    };
    check("news", "text/plain", b"x", 404, "news is not joined; POST /v1/topics/news/join joins it");
    check("chat", "text/plain", &[b'x'; 4056], 413, "message of 4056 bytes exceeds 4055");
    check(
        "chat",
        "text/plain",
        &[b'x'; 65537],
        413,
        "exceeds 65536 bytes, the most of any request; a message may have 4055",
    );
    check("chat", "text/plain", b"\xff", 400, "not UTF-8");
    check("chat", "application/json", b"{", 400, "not JSON");
    check("chat", "image/png", b"x", 415, "text/plain, application/json or application/octet-stream");
    assert_eq!(post(&one, "/v1/topics/chat/messages", "text/plain", [b'x'; 4055]).json()["neighbors"], 0);
    let refused = get(&one, "/v1/topics/news/events");
    assert_eq!((refused.status, refused.message().contains("is not joined")), (404, true));
}

#[test]
fn what_is_no_request_is_answered_with_what_would_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &[]);
    let check = |answer: http::Answer, status: u16, part: &str| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.message().contains(part), "{answer:?}");
        answer
    };
    check(get(&one, "/v1/statsu"), 404, "GET /v1/openapi.json lists them");
    let wrong = check(post(&one, "/v1/status", "application/json", "{}"), 405, "this path takes GET");
    assert!(wrong.head.contains("allow: get"), "{wrong:?}");
    let limits = |body: &str| post(&one, "/v1/limits", "application/json", body);
    check(limits("{"), 400, "not JSON");
    check(limits(r#"{"chnges":{}}"#), 400, "unknown field `chnges`, expected `changes` or `evict`");
    check(limits(r#"{"v":9,"changes":{}}"#), 400, "this node speaks version 1");
    check(limits(r#"{"changes":{"inbound_max":7,"connections_max":3}}"#), 422, "inbound_max");
    let kept = get(&one, "/v1/limits").json();
    assert_eq!(kept["limits"][0]["max"], 128, "all or none: {kept}");
    check(get(&one, "/v1/connections?sort=size"), 400, "sort=age, rtt, bytes or queue");
    check(get(&one, "/v1/connections?closd=true"), 400, "unknown field `closd`");
    check(post(&one, "/v1/deny", "application/json", r#"{"peer":"x"}"#), 400, "neither a ticket");
    check(post(&one, "/v1/deny", "application/json", json!({"peer": one.id()}).to_string()), 422, "this node itself");
    check(post(&one, "/v1/topics/t/join", "application/json", r#"{"peers":["x"]}"#), 400, "neither a ticket");
    assert_eq!(get(&one, "/v1/topics").json()["topics"], json!([]), "nothing is half done");
}

#[test]
fn every_operation_of_the_document_does_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat"]);
    let document = get(&one, "/v1/openapi.json").json();
    let mut operations: Vec<(String, String, Value)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let methods = methods.as_object().unwrap().iter();
        operations.extend(methods.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation.clone())));
    }
    assert!(operations.len() >= 23, "{} operations", operations.len());
    // What ends the topic comes late, what ends the node last. Two operations do that.
    operations.sort_by_key(|(path, ..)| (path.ends_with("/drain"), path.ends_with("/leave")));
    let other = Up::json(dir.path(), &[]);
    for (path, method, operation) in &operations {
        let what = format!("{method} {}", path.replace("{topic}", "chat"));
        if what.ends_with("/events") {
            drop(Events::of(&one, "chat"));
            continue;
        }
        let node = if what.ends_with("/stop") { &other } else { &one };
        let answer = ask(socket(node), &what, &[("content-type", "application/json")], sample(operation).as_bytes());
        let documented = &operation["responses"][answer.status.to_string()];
        assert!(answer.status == 200 && documented.is_object(), "{what}: {answer:?}");
        if let Some(page) = documented["content"].get("text/plain") {
            assert_eq!(page["schema"]["type"], "string", "{what}");
            assert!(answer.head.contains("content-type: text/plain"), "{answer:?}");
            continue;
        }
        let schema = &documented["content"]["application/json"]["schema"];
        check_fields(&document, schema, &answer.json(), &what);
    }
    one.wait_expecting(0);
    other.wait_expecting(0);
}

/// A body that the operation takes.
fn sample(operation: &Value) -> String {
    let id = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";
    let body = match operation["operationId"].as_str().unwrap() {
        "allow" | "deny" | "forget" => json!({"peer": id}),
        "set_limits" => json!({"changes": {"dials_max": 16}}),
        "fault" => json!({"loop": "clock", "kind": "error"}),
        "publish" => json!("a JSON text"),
        _ if operation["requestBody"].is_object() => json!({}),
        _ => return String::new(),
    };
    body.to_string()
}

/// That `value` has the fields its schema requires, and no others than it names, all the way down.
fn check_fields(document: &Value, schema: &Value, value: &Value, what: &str) {
    if let (Some(alternatives), true) = (resolved(document, schema)["oneOf"].as_array(), value.is_object()) {
        let fits = |one: &&Value| {
            let (properties, required) = properties(document, one);
            !properties.is_empty() && required.iter().all(|name| value.get(name).is_some())
        };
        let fitting = alternatives.iter().find(fits).unwrap_or_else(|| panic!("{what}: nothing fits {value}"));
        return check_fields(document, fitting, value, what);
    }
    let (properties, required) = properties(document, schema);
    match value {
        Value::Object(fields) if !properties.is_empty() => {
            let given: BTreeSet<&String> = fields.keys().collect();
            let missing: Vec<&String> = required.iter().filter(|name| !given.contains(name)).collect();
            assert!(missing.is_empty(), "{what}: {missing:?} are required, in {value}");
            for (name, field) in fields {
                let schema = properties.get(name).unwrap_or_else(|| panic!("{what}: {name} is not in the document"));
                check_fields(document, schema, field, &format!("{what}: {name}"));
            }
        }
        Value::Array(items) => {
            let schema = &resolved(document, schema)["items"];
            items.iter().for_each(|item| check_fields(document, schema, item, what));
        }
        _ => {}
    }
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("a reference leads somewhere"),
        None => schema,
    }
}

/// The fields of a schema and those it requires, with those of all it is made of.
fn properties(document: &Value, schema: &Value) -> (Map<String, Value>, BTreeSet<String>) {
    let schema = resolved(document, schema);
    let mut properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let required = schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned());
    let mut required: BTreeSet<String> = required.collect();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (more, also) = self::properties(document, part);
        properties.extend(more);
        required.extend(also);
    }
    (properties, required)
}

#[test]
fn a_drain_under_load_loses_no_message_that_has_a_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat"]);
    let two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket()]);
    one.event("neighbor_up", |_| true);
    eventually("two has its neighbor", || two.ask_json(&["status"])["neighbors"] == 1);
    assert_eq!(get(&two, "/readyz").status, 200);
    let drained = Arc::new(AtomicBool::new(false));
    let publisher = {
        let (mut stream, drained) = (socket(&two), drained.clone());
        thread::spawn(move || {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut receipted = Vec::new();
            for number in 0..100_000 {
                let content = format!("message {number}");
                let headers = [("content-type", "text/plain")];
                http::send(&mut stream, "POST /v1/topics/chat/messages", &headers, content.as_bytes());
                let receipt = http::read(&mut reader);
                if receipt.status != 200 {
                    assert_eq!(receipt.status, 503, "{receipt:?}");
                    assert!(
                        receipt.message().contains("draining") && receipt.head.contains("retry-after"),
                        "{receipt:?}"
                    );
                    assert!(drained.load(Ordering::SeqCst), "refused before anybody asked for it");
                    return receipted;
                }
                receipted.push(content);
            }
            panic!("the node takes work although it drains");
        })
    };
    for number in 0..200 {
        one.message(&format!("message {number}"));
    }
    drained.store(true, Ordering::SeqCst);
    assert_eq!(post(&two, "/v1/drain", "application/json", "").json(), json!({"v": 1, "draining": true}));
    let receipted = publisher.join().unwrap();
    assert!(receipted.len() >= 200);
    for content in &receipted[200..] {
        one.message(content);
    }
    two.wait_expecting(0);
}

#[test]
fn a_taken_socket_tells_by_whom() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &[]);
    let refused = run_expecting(dir.path(), 75, &["up", "--control", &one.control()]);
    let said = text(&refused.stderr);
    assert!(said.contains(&format!("node {} (process ", &one.id()[..10])), "{said}");
}

#[test]
fn a_well_node_is_ready_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &[]);
    assert_eq!(get(&one, "/healthz").json()["healthy"], true);
    let ready = get(&one, "/readyz").json();
    assert_eq!(ready["ready"], true);
    let names: Vec<_> = ready["checks"].as_array().unwrap().iter().map(|check| check["name"].clone()).collect();
    assert_eq!(names, ["accepting", "self-probe", "orphans", "draining"]);
}
