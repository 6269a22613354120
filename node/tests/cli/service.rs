//! What a service manager hears of a node, and the node's probes of itself.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::Path,
    time::{Duration, Instant},
};

use crate::process::{DEADLINE, Up, eventually, text};

#[test]
fn the_service_manager_hears_of_every_step_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::new(dir.path());
    let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "900000")];
    let file = dir.path().join("node.toml");
    fs::write(&file, "topic = [\"chat\"]\n").unwrap();
    let up = Up::json_in(dir.path(), &variables, &["--config", file.to_str().unwrap()]);
    let ready = manager.hear("READY=1");
    assert!(ready.contains("STATUS=ready"), "{ready}");
    // Fed every 300 ms by a probe that came through.
    for _ in 0..3 {
        manager.hear("WATCHDOG=1");
    }
    assert!(up.ask_json(&["status"])["self_probe"]["succeeded"].as_u64() >= Some(3));
    up.signal("HUP");
    let reloading = manager.hear("RELOADING=1");
    let stamp =
        reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("the time of the reload");
    assert!(stamp.parse::<u64>().unwrap() > 0);
    manager.hear("READY=1");
    manager.hear("WATCHDOG=1");
    fs::write(&file, "lisen = []\n").unwrap();
    up.signal("HUP");
    manager.hear("RELOADING=1");
    let refused = manager.hear("READY=1");
    assert!(refused.contains("reload was refused") && refused.contains("did you mean `listen`?"), "{refused}");
    up.signal("TERM");
    manager.hear("STOPPING=1");
    up.wait_expecting(0);
    assert!(!manager.rest().contains("READY=1"), "nothing is ready after the end");
}

#[test]
fn the_watchdog_is_fed_even_where_probes_are_off() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::new(dir.path());
    let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "300000")];
    let up = Up::json_in(dir.path(), &variables, &["--probe-interval", "0s"]);
    manager.hear("READY=1");
    manager.hear("WATCHDOG=1");
    assert_eq!(up.ask_json(&["status"])["self_probe"]["succeeded"], 0);
}

#[test]
fn a_full_node_goes_on_probing_itself_and_accounts_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let one = Up::json(dir.path(), &["--topic", "chat", "--max-connections", "1", "--probe-interval", "50ms"]);
    let mut two = Up::json(dir.path(), &["--topic", "chat", "--join", &one.ticket()]);
    two.event("neighbor_up", |_| true);
    let probes = || one.ask_json(&["status"])["self_probe"].clone();
    let before = probes()["succeeded"].as_u64().unwrap();
    eventually("twenty more probes", || probes()["succeeded"].as_u64() >= Some(before + 20));
    let status = one.ask_json(&["status"]);
    assert_eq!((&status["connections"], &status["connections_high_water"]), (&1.into(), &1.into()), "{status}");
    assert_eq!(
        (&status["self_probe"]["failed"], &status["self_probe"]["ready"]),
        (&0.into(), &true.into()),
        "{status}"
    );
    one.ask(&["ledger", "--settle", "10s"]);
    let ready = one.ask_json(&["ready"]);
    assert_eq!((&ready["ready"], &ready["checks"][1]["name"]), (&true.into(), &"self-probe".into()), "{ready}");
    assert!(text(&one.ask(&["ready"]).stdout).contains("ok   self-probe: the node reaches itself"));
}

#[test]
fn a_node_that_cannot_be_reached_says_where_and_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::new(dir.path());
    let variables = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "600000")];
    let mut one = Up::json_in(dir.path(), &variables, &["--probe-interval", "100ms"]);
    manager.hear("READY=1");
    manager.hear("WATCHDOG=1");
    // With no descriptor left there is no socket for a probe.
    one.limit_descriptors(8);
    one.told("not ready: the node did not reach itself 3 times in a row: bind at 127.0.0.1:");
    while manager.next(Duration::from_millis(400)).is_some_and(|heard| heard == "WATCHDOG=1\n") {}
    assert!(manager.next(Duration::from_millis(700)).is_none_or(|heard| heard != "WATCHDOG=1\n"), "it is not fed");
    one.limit_descriptors(256);
    one.told("probes come through again");
    manager.hear("WATCHDOG=1");
    one.ask(&["ready"]);
}

#[test]
fn without_a_manager_nothing_is_told_and_nothing_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone.sock");
    let mut up = Up::json_in(dir.path(), &[("NOTIFY_SOCKET", gone.to_str().unwrap())], &[]);
    up.told("the service manager could not be told");
    up.signal("TERM");
    up.wait_expecting(0);
}

/// A service manager that only listens.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new(directory: &Path) -> Self {
        let path = directory.join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, path: path.to_str().unwrap().to_owned() }
    }

    /// Waits for a message with this line. What comes before it may only be food for the watchdog and words for people.
    fn hear(&self, line: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.next(left).unwrap_or_else(|| panic!("no {line} within {DEADLINE:?}"));
            if message.lines().any(|heard| heard == line) {
                return message;
            }
            let is_aside = |heard: &str| heard == "WATCHDOG=1" || heard.starts_with("STATUS=");
            assert!(message.lines().all(is_aside), "{message:?} before {line}");
        }
    }

    fn rest(&self) -> String {
        std::iter::from_fn(|| self.next(Duration::from_millis(100))).collect()
    }

    fn next(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }
}
