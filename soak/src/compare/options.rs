//! The command line of `compare`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::rows::Course;

const HELP: &str = "\
Every figure is of the kind where less is better, and the first subject is held against the second within
pairs of runs that share their seed. Times are measured first and alone, in the order A B B A A B, so that
neither always has the warmer machine. Counts and sizes mostly wait, and wait side by side, both subjects of
a pair at the same time.
A ratio is claimed only if its whole interval (order statistics of the sign test, no assumption on how
figures are spread) is on one side of 1. Five pairs reach 93.75 %, six 96.875 %; fewer than five show nothing.

ROW is one of the table below or the beginning of several, such as P3 for P3-same and P3-fresh.

Exit codes: 0 nothing wrong, 1 --a violates something exact, 2 unknown, 3 worse than --max-ratio allows,
64 usage, 69 a program is missing, 70 the harness itself failed, 130/143 by signal

Examples:
  cargo build --release -p perennial-node -p perennial-soak --features perennial-node/soak
  target/release/perennial-soak compare --pairs 5 --out runs/compare
  target/release/perennial-soak compare --a target/release/perennial --b old/perennial P1 P2 --max-ratio P2=1.1
  target/release/perennial-soak compare --quick --pairs 1";

/// Options of `compare`.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct Options {
    /// The rows to measure [default: all]
    #[arg(value_name = "ROW", value_parser = row)]
    pub rows: Vec<String>,
    /// The first subject [default: `perennial` beside this program]
    #[arg(long, value_name = "BIN")]
    pub a: Option<PathBuf>,
    /// The second, which it is held against [default: `perennial-soak-stock` beside this program]
    #[arg(long, value_name = "BIN")]
    pub b: Option<PathBuf>,
    /// Pairs of runs for every row
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub pairs: u16,
    /// Pairs that count or weigh, and do not time, at one moment: each is up to a hundred processes and 2 GB
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub parallel: u8,
    /// Everything random comes from here [default: random, printed first]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Smaller meshes, fewer events, shorter rests: the shape of the table in minutes. Goals are then not judged
    #[arg(long)]
    pub quick: bool,
    /// The most the first may have of what the second has, such as P2=1.1; shown to be more, it is exit 3. May be repeated
    #[arg(long, value_name = "ROW=R", value_parser = allowance)]
    pub max_ratio: Vec<(String, f64)>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write compare.json, measurements.csv, one plot per claim and compare.html here
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

impl Options {
    /// Whether a row was asked for.
    pub(crate) fn wants(&self, id: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|asked| names(asked, id))
    }

    /// The ratio allowed for a row.
    pub(crate) fn allowed(&self, id: &str) -> Option<f64> {
        self.max_ratio.iter().find(|(row, _)| row == id).map(|(_, most)| *most)
    }

    /// What clap cannot see: a limit for a row that is not measured would never be held.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.max_ratio.iter().find(|(row, _)| !self.wants(row)) {
            Some((row, _)) => Err(format!("--max-ratio names {row}, which is not among the rows to measure")),
            None => Ok(()),
        }
    }
}

/// The program asked for, or `name` beside `beside`; an error says how to get it.
pub(crate) fn find(asked: Option<&Path>, beside: &Path, name: &str, package: &str) -> Result<PathBuf, String> {
    let found = match asked {
        Some(path) => path.to_owned(),
        None => beside.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX)),
    };
    if !found.is_file() {
        let path = found.display();
        return Err(format!("no program at {path}; build {name} with `cargo build --release -p {package}`"));
    }
    found.canonicalize().map_err(|error| format!("cannot open {}: {error}", found.display()))
}

/// Whether `asked` is `id` or the part of it before a dash.
fn names(asked: &str, id: &str) -> bool {
    let rest = id.get(..asked.len()).filter(|start| start.eq_ignore_ascii_case(asked)).map(|_| &id[asked.len()..]);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn ids() -> impl Iterator<Item = &'static str> {
    Course::ALL.into_iter().flat_map(|course| course.about().rows).map(|row| row.id)
}

fn row(text: &str) -> Result<String, String> {
    if ids().any(|id| names(text, id)) {
        return Ok(text.to_owned());
    }
    Err(format!("there is no row `{text}`; there are {}", ids().collect::<Vec<_>>().join(", ")))
}

fn allowance(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("`{text}` is no limit; write it as P2=1.1");
    let (name, most) = text.split_once('=').ok_or_else(wrong)?;
    let most: f64 = most.parse().ok().filter(|most: &f64| most.is_finite() && *most > 0.0).ok_or_else(wrong)?;
    let id = ids().find(|id| id.eq_ignore_ascii_case(name));
    let id =
        id.ok_or_else(|| format!("there is no row `{name}`; there are {}", ids().collect::<Vec<_>>().join(", ")))?;
    Ok((id.to_owned(), most))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let all: Vec<&str> = ids().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    }

    #[test]
    fn a_row_is_named_whole_or_up_to_its_dash() {
        assert!(names("P3", "P3-same") && names("p3-SAME", "P3-same") && names("P2", "P2"));
        assert!(!names("P", "P2") && !names("P2", "P20") && !names("P3-", "P3-same") && !names("P20", "P2"));
        assert!(row("P1").is_ok());
        assert!(row("P99").unwrap_err().contains("P1, P2"));
    }

    #[test]
    fn a_limit_names_a_row_and_a_ratio() {
        assert_eq!(allowance("p2=1.1"), Ok(("P2".into(), 1.1)));
        for wrong in ["P2", "P2=", "P2=much", "P2=-1", "P2=0", "P99=1", "P2=inf"] {
            assert!(allowance(wrong).is_err(), "{wrong}");
        }
    }
}
