//! Real processes for the tests: started, read line by line with deadlines, and killed when dropped.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Whatever a test waits for happens within this long, or it failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The program, in an environment of its own: no settings of the person who runs the tests.
pub(crate) fn perennial(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perennial"));
    for (variable, _) in std::env::vars_os() {
        if ["IROH_SECRET", "PERENNIAL_", "OTEL_", "NOTIFY_", "WATCHDOG_"]
            .iter()
            .any(|begins| starts_with(&variable, begins))
        {
            command.env_remove(variable);
        }
    }
    command.env("XDG_RUNTIME_DIR", directory).env("PERENNIAL_CONFIG", "/dev/null");
    command
}

fn starts_with(name: &std::ffi::OsStr, begins: &str) -> bool {
    name.as_encoded_bytes().starts_with(begins.as_bytes())
}

/// Runs the program to its end.
pub(crate) fn run(directory: &Path, args: &[&str]) -> Output {
    perennial(directory).args(args).stdin(Stdio::null()).output().expect("the program starts")
}

/// Runs the program, and expects this exit code.
pub(crate) fn run_expecting(directory: &Path, code: i32, args: &[&str]) -> Output {
    let output = run(directory, args);
    assert_eq!(
        output.status.code(),
        Some(code),
        "perennial {args:?}\nstdout: {}\nstderr: {}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running `perennial up`.
pub(crate) struct Up {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines,
    stderr: Lines,
    directory: PathBuf,
    /// The ready event; null without `--json`.
    pub(crate) ready: Value,
}

impl Up {
    /// Starts `perennial up --json` with `args` and waits until it is ready.
    pub(crate) fn json(directory: &Path, args: &[&str]) -> Self {
        Self::json_in(directory, &[], args)
    }

    /// The same with variables.
    pub(crate) fn json_in(directory: &Path, variables: &[(&str, &str)], args: &[&str]) -> Self {
        let mut up = Self::start(directory, variables, &[&["--json"], args].concat());
        up.ready = serde_json::from_str(&up.line()).expect("a JSON object");
        assert_eq!(up.ready["event"], "ready", "ready is the first line: {}", up.ready);
        up
    }

    /// Starts `perennial up` with `args`. Waits until it told how to join it.
    pub(crate) fn plain(directory: &Path, args: &[&str]) -> Self {
        let mut up = Self::start(directory, &[], args);
        up.told("perennial up --join");
        up
    }

    fn start(directory: &Path, variables: &[(&str, &str)], args: &[&str]) -> Self {
        let mut child = perennial(directory)
            .envs(variables.iter().copied())
            .arg("up")
            .args(args)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdin = child.stdin.take();
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        Self { child, stdin, stdout, stderr, directory: directory.to_owned(), ready: Value::Null }
    }

    pub(crate) fn id(&self) -> String {
        self.ready["id"].as_str().expect("ready has an id").to_owned()
    }

    pub(crate) fn ticket(&self) -> String {
        self.ready["ticket"].as_str().expect("ready has a ticket").to_owned()
    }

    pub(crate) fn control(&self) -> String {
        self.ready["control"].as_str().expect("ready has a control socket").to_owned()
    }

    /// Writes one line to its stdin.
    pub(crate) fn say(&mut self, line: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(line.as_ref()).and_then(|()| stdin.write_all(b"\n")).expect("the node reads its stdin");
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn close_stdout(&mut self) {
        self.stdout.close();
    }

    /// Waits for an event of this name that passes `wanted`; others are skipped.
    pub(crate) fn event(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        while let Some(line) = self.stdout.next(deadline) {
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
            assert_eq!(event["v"], 1, "{line}");
            if event["event"] == name && wanted(&event) {
                return event;
            }
            seen.push(line);
        }
        panic!("no {name} within {DEADLINE:?}; stdout: {seen:#?}; stderr: {:#?}", self.stderr.rest());
    }

    pub(crate) fn message(&mut self, text: &str) -> Value {
        self.event("message", |event| event["text"] == text)
    }

    /// The next line of stdout, as it is.
    pub(crate) fn line(&mut self) -> String {
        let line = self.stdout.next(Instant::now() + DEADLINE);
        line.unwrap_or_else(|| panic!("no line; stderr: {:#?}", self.stderr.rest()))
    }

    /// Waits for a line of stderr that contains `part`.
    pub(crate) fn told(&mut self, part: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = Vec::new();
        while let Some(line) = self.stderr.next(deadline) {
            if line.contains(part) {
                return line;
            }
            seen.push(line);
        }
        panic!("nobody said {part:?} within {DEADLINE:?}; stderr: {seen:#?}");
    }

    /// Runs a verb on this node.
    pub(crate) fn ask(&self, verb: &[&str]) -> Output {
        run_expecting(&self.directory, 0, &[verb, &["--control", &self.control()]].concat())
    }

    pub(crate) fn ask_json(&self, verb: &[&str]) -> Value {
        let output = self.ask(&[verb, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(sent.expect("sh is there").success());
    }

    /// Changes how many descriptors it may have from now on.
    pub(crate) fn limit_descriptors(&self, max: u64) {
        let (pid, limit) = (self.child.id().to_string(), format!("--nofile={max}:"));
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
        assert!(set.expect("util-linux is there").success());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for its end; what was left on stdout, and the exit status.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return (status, self.stdout.rest());
            }
            assert!(Instant::now() < deadline, "it does not end; stderr: {:#?}", self.stderr.rest());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end, which should have this code.
    pub(crate) fn wait_expecting(self, code: i32) -> Vec<String> {
        let (status, rest) = self.wait();
        assert_eq!(status.code(), Some(code), "{status}");
        rest
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of one stream, read by a thread of its own. Bytes that are no UTF-8 are replaced.
struct Lines {
    /// `None` once closed.
    lines: Option<Receiver<String>>,
}

impl Lines {
    fn of(source: impl Read + Send + 'static) -> Self {
        let (sender, lines) = sync_channel(4096);
        thread::spawn(move || {
            let mut reader = BufReader::new(source);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = text(line.strip_suffix(b"\n").unwrap_or(&line));
                line.clear();
                // Nobody listens any more: dropping the reader closes the pipe.
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Self { lines: Some(lines) }
    }

    fn next(&mut self, deadline: Instant) -> Option<String> {
        self.lines.as_ref()?.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    fn close(&mut self) {
        self.lines = None;
    }

    /// Everything up to the end of the stream, or up to now if it has not ended.
    fn rest(&mut self) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_millis(200);
        std::iter::from_fn(|| self.next(deadline)).collect()
    }
}

/// Waits until `holds`, asking again and again.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
