//! Settings read anew while the node runs, and what it writes to its log when asked by a signal.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::process::{Up, eventually, run, run_expecting, text};

#[test]
fn a_reload_takes_over_limits_lists_and_log_while_messages_flow() {
    let dir = tempfile::tempdir().unwrap();
    let (file, key) = (dir.path().join("node.toml"), dir.path().join("key"));
    let key = key.to_str().unwrap();
    let friend = text(&run_expecting(dir.path(), 0, &["key", "generate", key]).stdout).trim().to_owned();
    fs::write(&file, "topic = [\"chat\"]\n").unwrap();
    let args = ["--config", file.to_str().unwrap(), "--pipe", "--probe-interval", "200ms"];
    let mut one = Up::json(dir.path(), &args);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--pipe", "--join", &one.ticket()]);
    one.event("neighbor_up", |_| true);
    two.event("neighbor_up", |_| true);
    let mut number = 0;
    let mut talk = |one: &mut Up, two: &mut Up| {
        number += 1;
        two.say(format!("message {number}"));
        one.message(&format!("message {number}"));
    };
    talk(&mut one, &mut two);

    let stranger = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";
    let content = format!(
        "topic = [\"chat\"]\nknown = [\"{friend}@127.0.0.1:9\"]\ndeny = [\"{stranger}\"]\nmax_connections = 40\n\
         log = \"warn,perennial=debug\"\nrelay = \"default\"\nstate_dir = \"/nowhere\"\n[limits]\ndials_max = 9\n"
    );
    fs::write(&file, &content).unwrap();
    one.signal("HUP");
    talk(&mut one, &mut two);
    let said = one.told("needs a restart");
    assert!(said.contains("state_dir") && said.contains("/nowhere"), "{said}");
    let said = one.told("needs a restart");
    assert!(said.contains("relay") && said.contains("disabled") && said.contains("default"), "{said}");
    one.told("settings reloaded");
    // Only with the new filter.
    one.told("probe came through");
    assert_eq!(max(&one, &["connections_max", "inbound_max", "dials_max"]), json!([40, 30, 9]));
    assert_eq!(in_use(&one, &["known_list", "denied_list"]), json!([1, 1]));
    talk(&mut one, &mut two);

    let two_id = two.id();
    fs::write(&file, content.replace(stranger, &two_id)).unwrap();
    one.signal("HUP");
    one.event("neighbor_down", |event| event["peer"] == two_id);
    fs::write(&file, content.replace(stranger, "").replace("deny = [\"\"]", "")).unwrap();
    one.signal("HUP");
    eventually("nobody is denied any more", || in_use(&one, &["known_list", "denied_list"]) == json!([1, 0]));
    one.ask(&["join", "chat", "--peer", &two.ticket()]);
    // Both, or the message would be published into a mesh that is not one.
    one.event("neighbor_up", |_| true);
    two.event("neighbor_up", |_| true);
    talk(&mut one, &mut two);
    one.signal("TERM");
    one.wait_expecting(0);
}

#[test]
fn a_broken_file_changes_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "max_connections = 50\n").unwrap();
    let mut one = Up::json(dir.path(), &["--config", file.to_str().unwrap()]);
    let two = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";
    let cases = [
        (format!("max_connections = 60\ndeny = [\"{two}\"]\nlisten = 3\n"), "node.toml:3: listen is a number"),
        ("max_connections = 60\n[limits]\nmax_dials = 3\n".into(), "node.toml:3: `max_dials` is no limit"),
        (format!("deny = [\"{two}\"]\n[limits]\ninbound_max = 500\n"), "inbound_max of 500 exceeds"),
        (format!("deny = [\"{}\"]\nmax_connections = 60\n", one.id()), "names this node itself"),
        // It holds together by itself, but not with what only a restart can change.
        (
            format!("deny = [\"{two}\"]\nmax_connections = 9000\n"),
            "redials_max of 1024 is less than connections_max of 9000",
        ),
    ];
    for (content, sentence) in cases {
        fs::write(&file, content).unwrap();
        one.signal("HUP");
        let said = one.told("settings not reloaded, nothing was changed");
        assert!(said.contains(sentence), "{said}");
        assert_eq!(max(&one, &["connections_max"]), json!([50]));
        assert_eq!(in_use(&one, &["denied_list"]), json!([0]));
    }
    fs::remove_file(&file).unwrap();
    one.signal("HUP");
    assert!(one.told("nothing was changed").contains("there is no settings file"));
    fs::write(&file, "max_connections = 60\n").unwrap();
    one.signal("HUP");
    one.told("settings reloaded");
    assert_eq!(max(&one, &["connections_max"]), json!([60]));
}

#[test]
fn what_was_set_by_hand_or_by_flag_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    let mut one = Up::json(dir.path(), &["--config", path, "--limit", "dials_max=7"]);
    one.ask(&["limits", "set", "retry_above=3"]);
    fs::write(&file, "[limits]\ndials_max = 9\nspeculative_max = 5\n").unwrap();
    one.signal("HUP");
    one.told("settings reloaded");
    assert_eq!(max(&one, &["dials_max", "retry_above", "speculative_max"]), json!([7, 3, 5]));
}

#[test]
fn usr1_writes_ledger_and_limits_to_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &["--topic", "chat"]);
    one.signal("USR1");
    let said = one.told("ledger");
    assert!(said.contains("kind=") && said.contains("orphans="), "{said}");
    assert!(one.told("ledger in all").contains("orphans=0"));
    assert!(one.told("connections_max").contains("max=128"));
    one.told("limits in all");
    one.signal("TERM");
    one.wait_expecting(0);
}

#[test]
fn a_reload_without_any_file_is_one_that_finds_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Up::json(dir.path(), &[]);
    one.signal("HUP");
    let said = one.told("settings reloaded");
    assert!(said.contains("applied=0") && said.contains("needs_restart=0"), "{said}");
    assert!(Path::new(&one.control()).exists());
}

#[test]
fn a_node_ends_with_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let control = dir.path().join("node.sock");
    let control = control.to_str().unwrap();
    let up = format!("{} up --control {control}", env!("CARGO_BIN_EXE_perennial"));
    let mut terminal = perennial_in_a_terminal(dir.path(), &up);
    eventually("it answers", || run(dir.path(), &["status", "--control", control]).status.success());
    // Whoever holds the other end of the terminal is gone at once, as a window that is closed.
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    eventually("it has drained and taken its socket along", || !Path::new(control).exists());
}

/// `script` gives what it runs a terminal of its own.
fn perennial_in_a_terminal(directory: &Path, command: &str) -> Child {
    let mut script = Command::new("script");
    script.args(["--quiet", "--command", &format!("exec {command}"), "/dev/null"]);
    script.env("XDG_RUNTIME_DIR", directory).env("PERENNIAL_CONFIG", "/dev/null").env("SHELL", "/bin/sh");
    script.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("util-linux is there")
}

fn max(up: &Up, names: &[&str]) -> Value {
    column(up, names, "max")
}

fn in_use(up: &Up, names: &[&str]) -> Value {
    column(up, names, "in_use")
}

fn column(up: &Up, names: &[&str], field: &str) -> Value {
    let page = up.ask_json(&["limits"]);
    let rows = page["limits"].as_array().unwrap();
    let row = |name: &&str| rows.iter().find(|row| row["name"] == **name).unwrap_or_else(|| panic!("{name} in {page}"));
    names.iter().map(|name| row(name)[field].clone()).collect()
}
