//! `--state-dir`: a restart finds back by itself, and nothing in the directory can keep a node from starting.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;

use crate::process::{Up, eventually, run_expecting, text};

#[test]
fn a_killed_node_finds_back_to_its_topic_without_being_told_whom_to_join() {
    let dir = tempfile::tempdir().unwrap();
    let (key, state) = (dir.path().join("key"), dir.path().join("state"));
    let mut other = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let args = [
        "--topic",
        "chat",
        "--pipe",
        "--key-file",
        key.to_str().unwrap(),
        "--state-dir",
        state.to_str().unwrap(),
        // The other one holds the dead connection until then.
        "--idle-timeout",
        "2s",
    ];
    let mut first = Up::json(dir.path(), &[&args[..], &["--join", &other.ticket()]].concat());
    first.say("hello");
    other.message("hello");
    let other_id = other.id();
    eventually("the neighbour is written down", || {
        let record = record(&state);
        let topic = &record["topics"][blake3::hash(b"chat").to_hex().as_str()];
        topic[0]["id"] == other_id && topic[0]["addrs"][0] == other.ready["addrs"][0]
    });
    assert_eq!(record(&state)["known"][0]["id"], other_id, "met through a ticket");
    let file = state.join("peers.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    let id = first.id();
    drop(first); // Killed with SIGKILL.

    let mut second = Up::json(dir.path(), &args);
    assert_eq!(second.id(), id);
    second.event("neighbor_up", |event| event["peer"] == other_id);
    other.say("there you are");
    second.message("there you are");
    second.signal("TERM");
    second.wait_expecting(0);
    assert_eq!(record(&state)["topics"][blake3::hash(b"chat").to_hex().as_str()][0]["id"], other_id, "and again");
}

#[test]
fn a_file_that_cannot_be_read_is_put_aside_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let args = ["--topic", "chat", "--state-dir", state.to_str().unwrap()];
    drop(Up::json(dir.path(), &args));
    for (content, sentence) in
        [("{\"v\":1,\"kno", "no JSON object"), (r#"{"v":7}"#, "version 7; this program reads version 1")]
    {
        fs::write(state.join("peers.json"), content).unwrap();
        let mut up = Up::json(dir.path(), &args);
        let said = up.told("warning: state file");
        assert!(said.contains(sentence) && said.contains("peers.json.bad"), "{said}");
        assert_eq!(fs::read_to_string(state.join("peers.json.bad")).unwrap(), content);
        up.signal("TERM");
        up.wait_expecting(0);
        assert_eq!(record(&state)["v"], 1);
    }
}

#[test]
fn a_directory_that_cannot_be_used_ends_the_start_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let said = |code, path: &Path| {
        text(&run_expecting(dir.path(), code, &["up", "--state-dir", path.to_str().unwrap()]).stderr)
    };
    assert!(said(74, &file).contains("is a file; name a directory instead"));
    assert!(said(74, &file.join("below")).contains("cannot create state directory"));
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(said(77, &shared).contains("chmod 700"));
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o700)).unwrap();
    // A directory where the file should be: nothing can be written, whoever runs it.
    fs::create_dir(shared.join("peers.json")).unwrap();
    assert!(said(74, &shared).contains("peers.json"));
}

fn record(state: &Path) -> Value {
    let text = fs::read(state.join("peers.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}
