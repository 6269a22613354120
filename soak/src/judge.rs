//! The judgement: a record in, a verdict out. `[pure]`
//!
//! This file owns [`Check`] and [`Verdict`]. Which rows are judged is `judge/case.rs`; the invariants are `counts`, `memory`
//! and `conduct`; `epochs` asks them all. Nothing is measured here. A figure that is missing makes a check unknown, never
//! passed; a planted leak must fail.

pub(crate) mod case;
mod conduct;
pub(crate) mod counts;
pub(crate) mod epochs;
pub(crate) mod flatness;
pub(crate) mod memory;

use serde::Serialize;

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    Pass,
    Fail,
    Unknown,
    /// Cannot be told from this run and was not asked for; does not count.
    NotJudged,
}

impl Outcome {
    /// As people read it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Unknown => "unknown",
            Outcome::NotJudged => "not judged",
        }
    }

    /// The exit code of a verdict that comes to this.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Outcome::Pass => 0,
            Outcome::Fail => 1,
            Outcome::Unknown | Outcome::NotJudged => 2,
        }
    }
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub name: &'static str,
    pub outcome: Outcome,
    /// The figures, in words.
    pub detail: String,
}

/// The answer to all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// `Fail` if any check failed, else `Unknown` if any is unknown, else `Pass`.
    pub outcome: Outcome,
    pub checks: Vec<Check>,
}

impl Verdict {
    /// The check that decided the outcome, for the headline: the first, but that a run which is unknown because a process
    /// ended names the process and not what it could no longer tell.
    pub(crate) fn reason(&self) -> Option<&Check> {
        let mut decided =
            self.checks.iter().filter(|check| check.outcome == self.outcome && self.outcome != Outcome::Pass);
        let first = decided.clone().next();
        match self.outcome {
            Outcome::Unknown => decided.find(|check| check.name == "I14").or(first),
            Outcome::Pass | Outcome::Fail | Outcome::NotJudged => first,
        }
    }
}
