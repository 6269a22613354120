//! The rules for one source file. Each has a name, the reason it exists, a check, a planted violation it must notice
//! and innocent text it must leave alone. Rules between packages are in `crates.rs`.

use crate::sources::SourceFile;

/// One rule.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// What the rule protects from; printed with every violation.
    pub(crate) why: &'static str,
    check: fn(&SourceFile) -> Vec<Finding>,
    pub(crate) planted: &'static [Sample],
    pub(crate) innocent: &'static [Sample],
}

/// A line and what is wrong there.
type Finding = (usize, String);

/// A text for a rule's self-test, with the path it pretends to have.
pub(crate) struct Sample {
    pub(crate) path: &'static str,
    pub(crate) text: &'static str,
}

const fn sample(path: &'static str, text: &'static str) -> Sample {
    Sample { path, text }
}

/// A file that may break a rule, with the reason.
struct Exception {
    path: &'static str,
    /// The most it may have of what is limited; may only shrink.
    max: usize,
    why: &'static str,
}

/// Files that start tasks themselves. Everybody else asks them.
const MAY_SPAWN: &[Exception] = &[
    Exception { path: "actors/src/supervisor.rs", max: 1, why: "the one place that makes a task a child" },
    Exception { path: "node/src/main.rs", max: 1, why: "wakes the threads for blocking work, before anything runs" },
];

/// The one file that opens spans. Everybody else says what happened in events and counters.
const MAY_OPEN_SPANS: &str = "actors/src/operation.rs";

/// Files longer than [`FILE_LINES_MAX`]. Only ever shorter, and one day empty.
const LONG_FILES: &[Exception] = &[];

/// Functions longer than [`FUNCTION_LINES_MAX`], as `path::name`. Only ever shorter, and one day empty.
const LONG_FUNCTIONS: &[Exception] = &[];

/// What fits a reader's head in one sitting. Tests at the end of a file are not counted.
const FILE_LINES_MAX: usize = 500;

/// About a screen and a half.
const FUNCTION_LINES_MAX: usize = 70;

/// Names of things that touch the world: none of them in a file that says `[pure]`.
const IMPURE: &[&str] = &[
    "tokio::",
    "use tokio",
    "Instant::now",
    "SystemTime",
    "rand::rng(",
    "rand::random",
    "std::fs",
    "std::env",
    "std::process",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "thread::sleep",
];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "files open with a sentence",
        why: "the first line says what lives here and what does not",
        check: |file| find_if(!file.text.starts_with("//! "), 1, "the first line is no `//!` comment"),
        planted: &[sample("actors/src/a.rs", "use a;\n"), sample("actors/src/a.rs", "// Not a doc comment.\n")],
        innocent: &[sample("actors/src/a.rs", "//! What lives here.\n")],
    },
    Rule {
        name: "no refutable pattern in a select arm",
        why: "a pattern that fails disables its arm in silence, and the loop outlives its last sender",
        check: refutable_arms,
        planted: &[
            sample("actors/src/a.rs", "    Some(frame) = outbox.recv() => send(frame),\n"),
            sample("actors/src/a.rs", "select! { Some((a, b)) = frames.next() => {} }\n"),
            sample("tests/a.rs", "    Ok(stream) = connection.accept_uni() => {}\n"),
            sample("node/src/a.rs", "    Some(_) =\n        outbox.recv() => {}\n"),
        ],
        innocent: &[
            sample(
                "actors/src/a.rs",
                "while let Some(frame) = outbox.recv().await {}\nlet Ok(a) = b else { return };\n",
            ),
            sample(
                "actors/src/a.rs",
                "if a && let Some(b) = c && d {}\nSome(first) => self.on(first),\nSome(a) == b;\n",
            ),
            sample("actors/src/a.rs", "// Some(x) = rx.recv() is banned\n\"Some(x) = rx.recv()\";\n"),
        ],
    },
    Rule {
        name: "no join of halves",
        why: "joined halves wait for each other: one that ended keeps a dead connection open",
        check: |file| in_rooms(file, &["actors/src/"], |line| line.contains("join!(") || line.contains("join! {")),
        planted: &[
            sample("actors/src/a.rs", "let (a, b) = tokio::join!(send, receive);\n"),
            sample("actors/src/a.rs", "try_join!(a, b)\n"),
        ],
        innocent: &[sample("actors/src/a.rs", "path.join(name); // never join!(a, b)\n")],
    },
    Rule {
        name: "every task is somebody's child",
        why: "a task without an owner is in no ledger and outlives its purpose",
        check: |file| in_rooms(file, &["actors/src/", "node/src/"], is_bare_spawn),
        planted: &[
            sample("actors/src/a.rs", "tokio::spawn(run());\n"),
            sample("node/src/a.rs", "tokio::task::spawn(run());\n"),
            sample("actors/src/a.rs", "Handle::current().spawn(run());\n"),
            sample("node/src/a.rs", "use tokio::{spawn, time};\n"),
        ],
        innocent: &[
            sample(
                "actors/src/a.rs",
                "children.spawn(Kind::Dial, run());\n#[cfg(test)]\nmod tests { tokio::spawn(a); }\n",
            ),
            sample("tests/src/a.rs", "tokio::spawn(pump());\n"),
        ],
    },
    Rule {
        name: "no span outlives one operation",
        why: "a span that is entered is inherited by tasks that live on, and who exports spans keeps all they say",
        check: |file| {
            let is_judged = file.path != MAY_OPEN_SPANS;
            in_rooms(file, &["actors/src/", "node/src/"], opens_a_span).into_iter().filter(|_| is_judged).collect()
        },
        planted: &[
            sample("actors/src/a.rs", "let span = tracing::info_span!(\"peer\");\n"),
            sample("actors/src/a.rs", "loop_of(peer).instrument(span).await;\n"),
            sample("node/src/a.rs", "#[tracing::instrument(skip_all)]\n"),
            sample("node/src/a.rs", "let _guard = span.entered();\n"),
            sample("actors/src/a.rs", "tracing::info!(parent: &self.span, \"up\");\n"),
        ],
        innocent: &[
            sample("actors/src/operation.rs", "Self::begin(info_span!(\"dial\"))\n"),
            sample("actors/src/a.rs", "let entry = ledger.enter(kind); // no span!\nboard.add_instrument(family);\n"),
            sample("actors/src/a.rs", "#[cfg(test)]\nmod tests { use tracing::Instrument; }\n"),
        ],
    },
    Rule {
        name: "every queue is bounded",
        why: "a queue without a bound is a leak that waits for a slow reader",
        check: |file| {
            let names = ["unbounded_channel", "mpsc::unbounded", "UnboundedSender", "UnboundedReceiver", "unbounded("];
            lines_where(file.numbered_code(), |line| names.iter().any(|name| line.contains(name)))
        },
        planted: &[
            sample("actors/src/a.rs", "let (a, b) = mpsc::unbounded_channel();\n"),
            sample("soak/src/a.rs", "inbox: UnboundedReceiver<Frame>,\n"),
            sample("tests/a.rs", "let (a, b) = flume::unbounded();\n"),
        ],
        innocent: &[sample("actors/src/a.rs", "// unbounded_channel is banned\nlet is_unbounded = false;\n")],
    },
    Rule {
        name: "pure files only think",
        why: "a rule that needs a clock, a socket or a dice to test sits on the wrong side",
        check: |file| {
            let code = file.code_before_tests().filter(|_| file.is_pure());
            lines_where(code, |line| IMPURE.iter().any(|name| line.contains(name)))
        },
        planted: &[
            sample("actors/src/a.rs", "//! Thinks. [pure]\nuse tokio::sync::mpsc;\n"),
            sample(
                "actors/src/a.rs",
                "//! Thinks for\n//! long. [pure]\n//!\n//! More.\nlet now = std::time::Instant::now();\n",
            ),
            sample("actors/src/a.rs", "//! Thinks. [pure]\nlet socket: std::net::UdpSocket;\n"),
        ],
        innocent: &[
            sample("actors/src/a.rs", "//! Waits.\n//!\n//! Others are [pure].\nuse tokio::sync::mpsc;\n"),
            sample(
                "actors/src/a.rs",
                "//! Thinks. [pure]\nuse std::net::SocketAddr;\n#[cfg(test)]\nmod tests { use tokio::time; }\n",
            ),
        ],
    },
    Rule {
        name: "nothing is left for later",
        why: "what is not done is an issue, and what is printed for debugging is noise",
        check: |file| {
            let words = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X:"), concat!("db", "g!(")];
            lines_where(numbered(&file.text), |line| words.iter().any(|word| line.contains(word)))
        },
        planted: &[
            sample("actors/src/a.rs", concat!("// TO", "DO: later\n")),
            sample("tests/a.rs", concat!("db", "g!(a);\n")),
        ],
        innocent: &[sample("actors/src/a.rs", "// to do so is fine\n")],
    },
    Rule {
        name: "files fit a reader's head",
        why: "split what has to be scrolled to be believed",
        check: long_file,
        planted: &[],
        innocent: &[sample("actors/src/a.rs", "//! Short.\n")],
    },
    Rule {
        name: "functions fit a screen",
        why: "one method per arm, one thought per function",
        check: long_functions,
        planted: &[],
        innocent: &[sample("actors/src/a.rs", "fn a() {\n}\n")],
    },
    Rule {
        name: "no path of one machine",
        why: "a fresh clone has none of our folders",
        check: |file| lines_where(numbered(&file.text), names_a_machine),
        planted: &[
            sample("actors/src/a.rs", concat!("\"/wo", "rk/main\"\n")),
            sample("tests/a.rs", concat!("// see /ho", "me/somebody/notes\n")),
        ],
        innocent: &[sample("actors/src/a.rs", "// the network/worker split\n\"/tmp/a\"\n")],
    },
];

impl Rule {
    /// Sentences about every place where `file` breaks this rule.
    pub(crate) fn violations(&self, file: &SourceFile) -> Vec<String> {
        let sentence = |(line, what): Finding| format!("{}:{line}: {}: {what} ({})", file.path, self.name, self.why);
        (self.check)(file).into_iter().map(sentence).collect()
    }
}

/// Whether this line of any text names a folder that exists on one machine only.
pub(crate) fn names_a_machine(line: &str) -> bool {
    let folders = [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Use", "rs/")];
    let begins_a_path = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-".contains(c));
    folders.iter().any(|folder| line.match_indices(folder).any(|(at, _)| begins_a_path(at)))
}

/// Exceptions that are broader than what they excuse: gone, fixed, or shorter than they were.
pub(crate) fn stale_exceptions(files: &[SourceFile]) -> Vec<String> {
    let mut stale = Vec::new();
    for exception in MAY_SPAWN {
        // A file that is not there starts nothing and excuses nothing.
        let Some(file) = files.iter().find(|file| file.path == exception.path) else { continue };
        let spawns = file.code_before_tests().filter(|(_, line)| is_bare_spawn(line)).count();
        if spawns != exception.max {
            stale.push(format!(
                "{} starts tasks in {spawns} places, not {} ({})",
                exception.path, exception.max, exception.why
            ));
        }
    }
    for exception in LONG_FILES {
        let lines = files.iter().find(|file| file.path == exception.path).map_or(0, counted_lines);
        if lines < exception.max {
            stale.push(format!("{} has {lines} lines, {} are allowed", exception.path, exception.max));
        }
    }
    for exception in LONG_FUNCTIONS {
        let lines = files.iter().flat_map(named_functions).find(|(name, ..)| name == exception.path);
        let lines = lines.map_or(0, |(_, _, lines)| lines);
        if lines < exception.max {
            stale.push(format!("{} has {lines} lines, {} are allowed", exception.path, exception.max));
        }
    }
    stale
}

/// An enum pattern followed by a single `=`, without a `let` before it: only a select arm looks like that.
fn refutable_arms(file: &SourceFile) -> Vec<Finding> {
    let code = &file.code;
    let mut findings = Vec::new();
    for pattern in ["Some(", "Ok(", "Err("] {
        for (at, _) in code.match_indices(pattern) {
            let before = code[..at].trim_end();
            let is_word_inside = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            let is_let = before.ends_with("let") || before.ends_with('|');
            let after = after_parenthesis(&code[at + pattern.len()..]).trim_start();
            let is_binding = after.starts_with('=') && !after.starts_with("==") && !after.starts_with("=>");
            if is_binding && !is_let && !is_word_inside {
                let line = code[..at].matches('\n').count() + 1;
                findings.push((line, format!("`{pattern}…) = …` hides the other variants")));
            }
        }
    }
    findings
}

/// The text after the parenthesis that closes the one already open.
fn after_parenthesis(text: &str) -> &str {
    let mut open = 1;
    for (at, c) in text.char_indices() {
        match c {
            '(' => open += 1,
            ')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return &text[at + 1..];
        }
    }
    ""
}

fn is_bare_spawn(line: &str) -> bool {
    let calls =
        ["tokio::spawn", "task::spawn", "spawn_local(", "spawn_blocking(", "thread::spawn", "Handle::current().spawn("];
    let imports = line.trim_start().starts_with("use tokio")
        && line.split(['{', '}', ',', ';', ' ', ':']).any(|word| word == "spawn");
    imports || calls.iter().any(|call| line.contains(call))
}

fn opens_a_span(line: &str) -> bool {
    let ways =
        ["span!(", ".instrument(", "#[instrument", "tracing::instrument", ".entered()", ".in_scope(", "parent: &"];
    ways.iter().any(|way| line.contains(way))
}

fn in_rooms(file: &SourceFile, rooms: &[&str], is_wrong: fn(&str) -> bool) -> Vec<Finding> {
    let is_judged = rooms.iter().any(|room| file.path.starts_with(room))
        && !MAY_SPAWN.iter().any(|exception| exception.path == file.path);
    lines_where(file.code_before_tests().filter(|_| is_judged && !file.is_test()), is_wrong)
}

fn long_file(file: &SourceFile) -> Vec<Finding> {
    let max = LONG_FILES.iter().find(|long| long.path == file.path).map_or(FILE_LINES_MAX, |long| long.max);
    let lines = counted_lines(file);
    find_if(lines > max, lines, &format!("{lines} lines, at most {max}"))
}

fn counted_lines(file: &SourceFile) -> usize {
    file.code_before_tests().count()
}

fn long_functions(file: &SourceFile) -> Vec<Finding> {
    named_functions(file)
        .into_iter()
        .filter_map(|(name, line, lines)| {
            let max = LONG_FUNCTIONS.iter().find(|long| long.path == name).map_or(FUNCTION_LINES_MAX, |long| long.max);
            (lines > max).then(|| (line, format!("{name} has {lines} lines, at most {max}")))
        })
        .collect()
}

fn named_functions(file: &SourceFile) -> Vec<(String, usize, usize)> {
    let name = |(name, line, lines)| (format!("{}::{name}", file.path), line, lines);
    file.functions().into_iter().map(name).collect()
}

fn lines_where<'a>(lines: impl Iterator<Item = (usize, &'a str)>, is_wrong: impl Fn(&str) -> bool) -> Vec<Finding> {
    lines.filter(|(_, line)| is_wrong(line)).map(|(number, line)| (number, format!("`{}`", line.trim()))).collect()
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn find_if(is_wrong: bool, line: usize, what: &str) -> Vec<Finding> {
    if is_wrong { vec![(line, what.to_owned())] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratchets_count_lines() {
        let long = "//! Long.\n".to_owned() + &"a();\n".repeat(FILE_LINES_MAX);
        assert_eq!(long_file(&SourceFile::planted("actors/src/a.rs", &long)).len(), 1);
        let tested = long.replacen("a();\n", "#[cfg(test)]\n", 1);
        assert_eq!(long_file(&SourceFile::planted("actors/src/a.rs", &tested)), []);
        let body = "    a();\n".repeat(FUNCTION_LINES_MAX);
        let file = SourceFile::planted("actors/src/a.rs", &format!("fn a() {{\n{body}}}\nfn b() {{}}\n"));
        assert_eq!(long_functions(&file), [(1, "actors/src/a.rs::a has 72 lines, at most 70".to_owned())]);
    }
}
