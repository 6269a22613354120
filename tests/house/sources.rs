//! Finds the repository's sources and takes them apart: lines of code without comments and strings, where the tests
//! begin, how long functions are. No judgement here.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One source file.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Path from the repository's root, with forward slashes.
    pub(crate) path: String,
    /// The text as it is.
    pub(crate) text: String,
    /// The text with comments and the insides of string and character literals blanked out, line for line.
    pub(crate) code: String,
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live one level below the root").to_owned()
}

/// Every Rust file of the repository, build output excepted.
pub(crate) fn rust_files() -> Vec<SourceFile> {
    let root = root();
    let mut files = Vec::new();
    for room in ["actors", "node", "soak", "profiles", "tests"] {
        collect(&root.join(room), &root, &mut files);
    }
    files.sort_by(|a: &SourceFile, b| a.path.cmp(&b.path));
    files
}

/// Path and text of every other file people read or machines run: manifests, pages, scripts.
pub(crate) fn text_files() -> Vec<(String, String)> {
    let root = root();
    let mut paths = Vec::new();
    for room in ["", ".ci", ".github", "actors", "node", "soak", "profiles", "tests"] {
        let Ok(entries) = fs::read_dir(root.join(room)) else { continue };
        paths.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    // A file that is no text has no lines to judge; a lock file names only what the manifests named.
    let readable = paths.into_iter().filter(|path| path.extension().is_none_or(|extension| extension != "lock"));
    readable
        .filter_map(|path| {
            Some((path.strip_prefix(&root).ok()?.display().to_string(), fs::read_to_string(&path).ok()?))
        })
        .filter(|(path, _)| path != ".git")
        .collect()
}

fn collect(folder: &Path, root: &Path, files: &mut Vec<SourceFile>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder can be listed to its end").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, root, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path = path.strip_prefix(root).expect("found below the root").to_string_lossy().replace('\\', "/");
            files.push(SourceFile::new(path, text));
        }
    }
}

impl SourceFile {
    fn new(path: String, text: String) -> Self {
        let code = blank_comments_and_literals(&text);
        Self { path, text, code }
    }

    /// A file that exists only in a rule's self-test.
    pub(crate) fn planted(path: &str, text: &str) -> Self {
        Self::new(path.into(), text.into())
    }

    /// The first paragraph of the opening `//!` comment.
    pub(crate) fn opening(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
        lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Whether the opening says that the file only thinks.
    pub(crate) fn is_pure(&self) -> bool {
        self.opening().contains("[pure]")
    }

    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }

    /// The code above the file's own test module, with the number of each line. Tests come last in a file.
    pub(crate) fn code_before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.code.lines().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(usize::MAX);
        self.numbered_code().take(end)
    }

    /// Every line of code with its number.
    pub(crate) fn numbered_code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Name, first line and number of lines of every function with a body.
    pub(crate) fn functions(&self) -> Vec<(String, usize, usize)> {
        let lines: Vec<&str> = self.code.lines().collect();
        let mut functions = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else { continue };
            let indent = line.len() - line.trim_start().len();
            // rustfmt closes a body at the indent it was opened at; a signature alone ends in a semicolon before that.
            let close = format!("{}}}", " ".repeat(indent));
            for (length, inner) in lines[index..].iter().enumerate() {
                let is_one_line = length == 0 && inner.trim_end().ends_with('}');
                if is_one_line || inner.trim_end() == close || inner.starts_with(&close) && length > 0 {
                    functions.push((name.clone(), index + 1, length + 1));
                    break;
                }
                if inner.trim_end().ends_with(';') && !lines[index..=index + length].iter().any(|l| l.contains('{')) {
                    break;
                }
            }
        }
        functions
    }
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.trim_start().split(' ');
    loop {
        match words.next()? {
            "fn" => break,
            word if word.starts_with("pub") || ["async", "const", "unsafe", "extern"].contains(&word) => {}
            _ => return None,
        }
    }
    let name = words.next()?;
    Some(name.split(['(', '<']).next().unwrap_or(name).to_owned())
}

/// Where the scanner stands.
enum At {
    Code,
    LineComment,
    BlockComment(usize),
    String { hashes: Option<usize> },
}

/// Blanks everything that is not code, and keeps line breaks, so that line numbers stay true.
fn blank_comments_and_literals(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = At::Code;
    let mut index = 0;
    while index < chars.len() {
        let rest = &chars[index..];
        let (taken, next) = match at {
            At::Code => step_in_code(rest, chars[..index].last().copied()),
            At::LineComment if rest[0] == '\n' => (1, At::Code),
            At::LineComment => (1, At::LineComment),
            At::BlockComment(depth) => step_in_block_comment(rest, depth),
            At::String { hashes } => step_in_string(rest, hashes),
        };
        let is_code = matches!((&at, &next), (At::Code, At::Code)) && (taken == 1 || rest[0] != '\'');
        for &c in &rest[..taken] {
            out.push(if c == '\n' || is_code { c } else { ' ' });
        }
        at = next;
        index += taken;
    }
    out
}

fn step_in_code(rest: &[char], before: Option<char>) -> (usize, At) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    match rest {
        ['/', '/', ..] => (2, At::LineComment),
        ['/', '*', ..] => (2, At::BlockComment(1)),
        ['"', ..] => (1, At::String { hashes: None }),
        ['r', tail @ ..] if !before.is_some_and(is_word) || before == Some('b') => {
            let hashes = tail.iter().take_while(|&&c| c == '#').count();
            match tail.get(hashes) {
                Some('"') => (hashes + 2, At::String { hashes: Some(hashes) }),
                _ => (1, At::Code),
            }
        }
        ['\'', '\\', _, tail @ ..] => {
            let end = tail.iter().take(10).position(|&c| c == '\'').unwrap_or(0);
            (3 + end + 1, At::Code)
        }
        ['\'', _, '\'', ..] => (3, At::Code),
        _ => (1, At::Code),
    }
}

fn step_in_block_comment(rest: &[char], depth: usize) -> (usize, At) {
    match rest {
        ['/', '*', ..] => (2, At::BlockComment(depth + 1)),
        ['*', '/', ..] if depth == 1 => (2, At::Code),
        ['*', '/', ..] => (2, At::BlockComment(depth - 1)),
        _ => (1, At::BlockComment(depth)),
    }
}

fn step_in_string(rest: &[char], hashes: Option<usize>) -> (usize, At) {
    match (rest, hashes) {
        (['\\', _, ..], None) => (2, At::String { hashes }),
        (['"', ..], None) => (1, At::Code),
        (['"', tail @ ..], Some(count)) if tail.len() >= count && tail[..count].iter().all(|&c| c == '#') => {
            (1 + count, At::Code)
        }
        _ => (1, At::String { hashes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "a(); // b\n\"c \\\" d\"; /* e\nf */ g('h', '\\n', r#\"i \" j\"#, 'k);";
        let code = blank_comments_and_literals(text);
        assert_eq!(code.lines().count(), text.lines().count());
        let words: String = code.split_whitespace().collect();
        assert_eq!(words, "a();;g(,,,'k);");
    }

    #[test]
    fn functions_are_measured_from_signature_to_closing_brace() {
        let file = SourceFile::planted(
            "x.rs",
            "impl A {\n    pub async fn one(\n        a: u8,\n    ) {\n        b;\n    }\n\n    fn two() {}\n    fn three();\n}\nfn four() {\n}\n",
        );
        let expected = [("one", 2, 5), ("two", 8, 1), ("four", 11, 2)];
        let expected: Vec<_> = expected.map(|(name, line, length)| (name.to_owned(), line, length)).into();
        assert_eq!(file.functions(), expected);
    }
}
