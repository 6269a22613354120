//! What works without a node, and what goes wrong before there is one: usage, keys, tickets, exit codes.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::process::{perennial, run_expecting, text};

const ID: &str = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";

#[test]
fn a_mistake_on_the_command_line_is_2_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| text(&run_expecting(dir.path(), 2, args).stderr);
    assert!(said(&["up", "--pipe"]).contains("--topic"));
    assert!(said(&["up", "--join", &"a".repeat(64)]).contains("--topic"));
    assert!(said(&["up", "--topic", "t", "--join", "hello"]).contains("neither a ticket, nor ID@IP:PORT"));
    assert!(said(&["up", "--listen", "localhost"]).contains("expected IP:PORT"));
    assert!(said(&["up", "--relay", "relay.example"]).contains("https://"));
    assert!(said(&["stats"]).contains("status"), "a near miss is named");
    assert!(said(&["--log", "a=b=c", "key", "show", "x"]).contains("log filter"));
    assert!(said(&["join", ""]).contains("topic"));
    assert!(said(&["up", "--listen", "127.0.0.1,max-conections=3"]).contains("did you mean `max-connections`?"));
    assert!(said(&["up", "--listen", "127.0.0.1,max-connections=few"]).contains("such as max-connections=32"));
    assert!(said(&["up", "--limit", "inbuond_max=3"]).contains("did you mean `inbound_max`?"));
    assert!(said(&["up", "--memory-budget", "512MB"]).contains("such as 512MiB"));
    assert!(said(&["up", "--access", "closed"]).contains("known"));
    assert!(said(&["limits", "set"]).contains("NAME=N"));
    assert!(said(&["limits", "set", "inbound_max"]).contains("expected NAME=N"));
    assert!(said(&["limits", "set", "known_resrve=3"]).contains("did you mean `known_reserve`?"));
    assert!(said(&["limits", "set", "dials_max=1", "dials_max=2"]).contains("given twice, with 1 and 2"));
    assert!(said(&["deny", "hello"]).contains("neither a ticket"));
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let help = text(&run_expecting(dir.path(), 0, &["--help"]).stdout);
    assert!(help.contains("perennial demo") && help.contains("69") && help.contains("143"), "{help}");
    assert!(text(&run_expecting(dir.path(), 0, &["up", "--help"]).stdout).contains("--join TICKET"));
}

/// Every page of help, word for word: a changed flag shows in the diff. `UPDATE_EXPECT=1` writes the file anew.
#[test]
fn the_help_of_every_verb_is_what_the_snapshot_says() {
    let dir = tempfile::tempdir().unwrap();
    let help = |verb: &[&str]| text(&run_expecting(dir.path(), 0, &[verb, &["--help"]].concat()).stdout).to_owned();
    let verbs = |page: &str| -> Vec<String> {
        let commands = page.split("\nCommands:\n").nth(1).into_iter().flat_map(str::lines);
        // A verb stands two columns in; the lines of its sentence further.
        let verbs = commands.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
        let verbs = verbs.filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help");
        verbs.map(str::to_owned).collect()
    };
    let mut pages = vec![help(&[])];
    for verb in verbs(&pages[0]) {
        let page = help(&[&verb]);
        let inner: Vec<String> = verbs(&page).iter().map(|inner| help(&[&verb, inner])).collect();
        pages.push(page);
        pages.extend(inner);
    }
    assert!(pages.len() > 30, "{} pages", pages.len());
    expect_test::expect_file!["help.txt"].assert_eq(&pages.join("\n"));
}

#[test]
fn without_a_node_every_question_is_69() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("none.sock");
    for verb in [
        "status",
        "ready",
        "peers",
        "connections",
        "limits",
        "ledger",
        "stop",
        "id",
        "ticket",
        "topics",
        "drain",
        "reload",
    ] {
        let said = text(&run_expecting(dir.path(), 69, &[verb]).stderr);
        assert!(said.contains("no node is running"), "{said}");
        run_expecting(dir.path(), 69, &[verb, "--control", nowhere.to_str().unwrap()]);
    }
    for verb in ["allow", "deny", "forget"] {
        run_expecting(dir.path(), 69, &[verb, ID]);
    }
    run_expecting(dir.path(), 69, &["limits", "set", "dials_max=3"]);
    run_expecting(dir.path(), 69, &["join", "chat"]);
    run_expecting(dir.path(), 69, &["leave", "chat"]);
    run_expecting(dir.path(), 69, &["publish", "chat", "hello"]);
    run_expecting(dir.path(), 69, &["subscribe", "chat"]);
}

#[test]
fn a_key_is_generated_once_shown_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let file = file.to_str().unwrap();
    let id = text(&run_expecting(dir.path(), 0, &["key", "generate", file]).stdout);
    assert_eq!(id.trim().len(), 64);
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(text(&run_expecting(dir.path(), 0, &["key", "show", file]).stdout), id);
    assert_eq!(text(&run_expecting(dir.path(), 0, &["id", "--key-file", file]).stdout), id);
    let said = text(&run_expecting(dir.path(), 74, &["key", "generate", file]).stderr);
    assert!(said.contains("not overwritten"), "{said}");

    let secret = text(&run_expecting(dir.path(), 0, &["key", "show", "--secret", file]).stdout);
    let shown = perennial(dir.path()).env("IROH_SECRET", secret.trim()).args(["id", "--json"]).output().unwrap();
    assert_eq!(text(&shown.stdout), format!("{{\"v\":1,\"id\":\"{}\"}}\n", id.trim()));
}

#[test]
fn a_key_that_others_may_read_is_77_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    run_expecting(dir.path(), 0, &["key", "generate", file.to_str().unwrap()]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let file = file.to_str().unwrap();
    for args in [
        &["key", "show", file][..],
        &["id", "--key-file", file],
        &["up", "--key-file", file],
        &["ticket", "--key-file", file, "--addr", "127.0.0.1:4433"],
    ] {
        let said = text(&run_expecting(dir.path(), 77, args).stderr);
        assert!(said.contains(&format!("chmod 600 {file}")), "{said}");
    }
}

#[test]
fn a_key_that_is_none_is_78_and_not_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let output = perennial(dir.path()).env("IROH_SECRET", "very-secret").arg("up").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(!text(&output.stderr).contains("very-secret"));
}

#[test]
fn a_ticket_is_made_without_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let file = file.to_str().unwrap();
    let id = text(&run_expecting(dir.path(), 0, &["key", "generate", file]).stdout);
    let args = ["ticket", "--key-file", file, "--addr", "192.0.2.1:4433", "--addr", "[2001:db8::1]:4433"];
    let ticket = text(&run_expecting(dir.path(), 0, &args).stdout);
    let ticket: iroh_tickets::endpoint::EndpointTicket = ticket.trim().parse().unwrap();
    assert_eq!(ticket.endpoint_addr().id.to_string(), id.trim());
    assert_eq!(ticket.endpoint_addr().ip_addrs().count(), 2);
    run_expecting(dir.path(), 2, &["ticket", "--key-file", file]);
}

#[test]
fn completions_are_printed_for_every_shell() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&run_expecting(dir.path(), 0, &["completions", shell]).stdout);
        assert!(script.contains("perennial") && script.contains("ledger"), "{shell}");
    }
}

#[test]
fn a_reader_that_went_away_is_74_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = perennial(dir.path())
        .args(["completions", "bash"])
        .stdout(closed_pipe())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(74));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("standard output") && !said.contains("panicked"), "{said}");
}

/// A pipe whose reading end is closed.
fn closed_pipe() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}
