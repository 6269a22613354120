//! Settings that cannot be: each is exit 78 before the node starts, with a sentence of its own. And those that only look so.

use crate::process::{Up, run_expecting, text};

/// A node that is not there.
const OTHER: &str = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";

/// Flags that contradict each other, and a part of what is said about them. `ME` stands for the node's own id.
const IMPOSSIBLE: &[(&str, &str)] = &[
    // Slots.
    ("--limit connections_max=0", "connections_max is 0; it must be at least 1"),
    ("--limit connections_max=95", "inbound_max of 96 exceeds connections_max of 95"),
    ("--limit inbound_max=0", "inbound_max is 0; it must be at least 1"),
    ("--limit inbound_max=129", "inbound_max of 129 exceeds connections_max of 128"),
    ("--limit known_reserve=96", "known_reserve of 96 leaves no slot for an unknown remote in inbound_max of 96"),
    ("--limit relay_connections_max=97", "relay_connections_max of 97 exceeds inbound_max of 96"),
    ("--limit connections_per_ipv4_max=0", "connections_per_ipv4_max is 0"),
    (
        "--limit connections_per_ipv6_56_max=65",
        "connections_per_ipv6_56_max of 65 exceeds connections_per_ipv6_48_max of 64",
    ),
    (
        "--limit connections_per_ipv6_48_max=7",
        "connections_per_ipv6_56_max of 8 exceeds connections_per_ipv6_48_max of 7",
    ),
    (
        "--limit connections_max=1 --limit inbound_max=1 --limit known_reserve=0 --limit relay_connections_max=1",
        "connections_per_peer_max of 2 exceeds connections_max of 1",
    ),
    ("--limit connections_max=9000 --limit inbound_max=9000", "prefixes_max of 8192 is less than inbound_max of 9000"),
    ("--limit connections_max=2000", "redials_max of 1024 is less than connections_max of 2000"),
    ("--max-connections 2000000", "connections_max of 2000000 exceeds 1000000"),
    // Handshakes and dials.
    ("--limit handshakes_max=0", "handshakes_max is 0"),
    ("--limit handshakes_per_listener_max=17", "handshakes_per_listener_max of 17 exceeds handshakes_max of 16"),
    ("--limit retry_above=17", "retry_above of 17 exceeds handshakes_max of 16"),
    ("--limit speculative_max=17", "speculative_max of 17 exceeds handshakes_max of 16"),
    ("--limit dials_max=0", "dials_max is 0"),
    // Memory and time.
    ("--memory-budget 63MiB", "memory_budget of 66060288 bytes is less than 67108864"),
    ("--idle-timeout 0s", "idle_timeout is 0"),
    // Listeners.
    ("--listen 127.0.0.1,max-connections=0", "max-connections of 0 at 127.0.0.1:0; a listener that admits nobody"),
    ("--listen 127.0.0.1,max-connections=97", "max-connections of 97 at 127.0.0.1:0 exceeds inbound_max of 96"),
    (
        "--max-connections 8 --listen 127.0.0.1,max-connections=7",
        "max-connections of 7 at 127.0.0.1:0 exceeds inbound_max of 6",
    ),
    (
        "--listen 127.0.0.1:1,max-connections=2 --listen 127.0.0.1:2,max-connections=3",
        "127.0.0.1:2 and 127.0.0.1:1 would have caps of 3 and 2",
    ),
    (
        "--listen 127.0.0.1:1,max-connections=2 --listen 0.0.0.0:2",
        "would have caps of 96 and 2, but an attempt at 127.0.0.1 and one at 0.0.0.0 cannot be told apart",
    ),
    ("--listen 127.0.0.1:1 --listen 127.0.0.1:1", "--listen 127.0.0.1:1 is given twice"),
    // One limit, set twice.
    ("--limit dials_max=3 --limit dials_max=4", "--limit dials_max is given twice, with 3 and 4"),
    ("--max-connections 64 --limit connections_max=128", "--max-connections 64 and --limit connections_max=128"),
    // Who is who.
    ("--known OTHER --deny OTHER", "ae58ff8833 is named by --known and by --deny; leave out one"),
    ("--topic t --join OTHER --deny OTHER", "ae58ff8833 is named by --join and by --deny; leave out one"),
    ("--deny ME", "names this node itself"),
    ("--access known", "--access known admits nobody, because nobody is known"),
    ("--access known --known ME", "--access known admits nobody"),
];

#[test]
fn settings_that_cannot_be_are_78_each_with_its_own_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let key = key.to_str().unwrap();
    let me = text(&run_expecting(dir.path(), 0, &["key", "generate", key]).stdout);
    for (flags, sentence) in IMPOSSIBLE {
        let flags = flags.replace("OTHER", OTHER).replace("ME", me.trim());
        let args: Vec<&str> = ["up", "--key-file", key].into_iter().chain(flags.split(' ')).collect();
        let output = run_expecting(dir.path(), 78, &args);
        let said = text(&output.stderr);
        assert!(said.contains(sentence), "{flags}: {said:?} does not say {sentence:?}");
        assert_eq!(said.lines().count(), 1, "{flags}: {said}");
        assert!(output.stdout.is_empty(), "{flags}");
    }
}

#[test]
fn a_control_socket_that_cannot_be_is_78_with_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("/tmp/{}", "x".repeat(120));
    let said = text(&run_expecting(dir.path(), 78, &["up", "--control", &long]).stderr);
    assert!(said.contains("125 bytes exceeds 107"), "{said}");
}

#[test]
fn unusual_settings_that_hold_together_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let key = key.to_str().unwrap();
    let me = text(&run_expecting(dir.path(), 0, &["key", "generate", key]).stdout);
    let cases = [
        "--max-connections 1",
        "--max-connections 5000",
        "--idle-timeout 5m",
        "--known ME --known OTHER --access known",
        "--deny OTHER --deny OTHER",
        "--listen 127.0.0.1,max-connections=2 --listen 127.0.0.1,max-connections=2",
        "--limit inbound_max=8 --limit known_reserve=0 --limit relay_connections_max=0",
        "--memory-budget 64MiB --count-loopback",
    ];
    for flags in cases {
        let flags = flags.replace("OTHER", OTHER).replace("ME", me.trim());
        let args: Vec<&str> = ["--key-file", key].into_iter().chain(flags.split(' ')).collect();
        let up = Up::json(dir.path(), &args);
        up.ask(&["limits"]);
        up.ask(&["stop"]);
        up.wait_expecting(0);
    }
}
