//! What a figure may be: `budgets.toml`, and the verdict on a measured figure. `[pure]`
//!
//! Budgets have two sides. Worse fails; better by more than [`LOOSE_SHARE`] fails as well, so that a saving is written down
//! and cannot be lost again in silence.

use std::fmt::{self, Display, Formatter};

use serde::Deserialize;

/// A budget is loose from here on.
pub(crate) const LOOSE_SHARE: f64 = 0.15;

/// Bytes and blocks, also of a difference or a share.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Amount {
    pub(crate) bytes: f64,
    pub(crate) blocks: f64,
}

/// One budget, with where it comes from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) figure: String,
    pub(crate) bytes: i64,
    pub(crate) blocks: f64,
    /// How far two runs of one program are apart.
    pub(crate) noise_bytes: u64,
    pub(crate) noise_blocks: f64,
    pub(crate) why: String,
    /// What was measured when it was set, by the program of which commit, and when.
    pub(crate) measured_bytes: f64,
    pub(crate) measured_blocks: f64,
    pub(crate) commit: String,
    pub(crate) date: String,
}

/// All budgets, and the build they hold for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    /// Futures and inlined frames differ between builds, so bytes do.
    pub(crate) build: String,
    pub(crate) budget: Vec<Budget>,
}

/// What a budget says to a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Within,
    /// Worse than allowed.
    Over,
    /// Better than the budget by more than [`LOOSE_SHARE`]; it should be this.
    Loose(Amount),
    /// Nobody has said what it may be.
    Unknown,
}

impl Budgets {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    pub(crate) fn of(&self, figure: &str) -> Option<&Budget> {
        self.budget.iter().find(|budget| budget.figure == figure)
    }

    pub(crate) fn judge(&self, figure: &str, measured: Amount) -> Verdict {
        self.of(figure).map_or(Verdict::Unknown, |budget| budget.judge(measured))
    }

    /// Takes `measured` as the budget of `figure` from here on. What is known of its noise is kept.
    pub(crate) fn set(&mut self, figure: &str, measured: Amount, why: &str, commit: &str, date: &str) {
        let before = self.of(figure);
        let share = |amount: f64, least: f64| (amount.abs() * NOISE_SHARE).max(least).ceil();
        let budget = Budget {
            figure: figure.to_owned(),
            bytes: measured.bytes.round() as i64,
            blocks: (measured.blocks * 100.0).round() / 100.0,
            noise_bytes: before.map_or(share(measured.bytes, NOISE_BYTES_MIN) as u64, |before| before.noise_bytes),
            noise_blocks: before.map_or(share(measured.blocks, 1.0), |before| before.noise_blocks),
            why: why.to_owned(),
            measured_bytes: measured.bytes,
            measured_blocks: measured.blocks,
            commit: commit.to_owned(),
            date: date.to_owned(),
        };
        match self.budget.iter_mut().find(|budget| budget.figure == figure) {
            Some(place) => *place = budget,
            None => self.budget.push(budget),
        }
    }
}

/// Firefox alerts on two percent of a heap; nothing here is steadier.
const NOISE_SHARE: f64 = 0.02;

/// A figure per round trip is a few bytes; one table that doubled in one run and not in the other is as much.
const NOISE_BYTES_MIN: f64 = 64.0;

impl Budget {
    fn judge(&self, measured: Amount) -> Verdict {
        let sides = [
            Side { measured: measured.bytes, allowed: self.bytes as f64, noise: self.noise_bytes as f64 },
            Side { measured: measured.blocks, allowed: self.blocks, noise: self.noise_blocks },
        ];
        if sides.iter().any(Side::is_over) {
            Verdict::Over
        } else if sides.iter().any(Side::is_loose) {
            Verdict::Loose(measured)
        } else {
            Verdict::Within
        }
    }
}

/// Bytes or blocks of one figure.
struct Side {
    measured: f64,
    allowed: f64,
    noise: f64,
}

impl Side {
    fn is_over(&self) -> bool {
        self.measured > self.allowed + self.noise
    }

    fn is_loose(&self) -> bool {
        self.measured < self.allowed - self.allowed.abs() * LOOSE_SHARE - self.noise
    }
}

/// The file as [`Budgets::read`] takes it.
impl Display for Budgets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}\nbuild = {:?}", self.build)?;
        for Budget { figure, bytes, blocks, noise_bytes, noise_blocks, why, .. } in &self.budget {
            writeln!(f, "\n[[budget]]\nfigure = {figure:?}\nbytes = {bytes}\nblocks = {blocks:?}")?;
            writeln!(f, "noise_bytes = {noise_bytes}\nnoise_blocks = {noise_blocks:?}\nwhy = {why:?}")?;
            let Budget { measured_bytes, measured_blocks, commit, date, .. } =
                self.of(figure).expect("it is one of them");
            writeln!(f, "measured_bytes = {measured_bytes:.1}\nmeasured_blocks = {measured_blocks:.2}")?;
            writeln!(f, "commit = {commit:?}\ndate = {date:?}")?;
        }
        Ok(())
    }
}

const HEAD: &str = "\
# What each figure may be. More than `bytes` or `blocks` by more than the noise fails; less by more than 15 % and the noise
# fails as well: tighten it, by hand or with `perennial-profiles bless --why TEXT`. `scenario.rs` says how a figure is made.
# The noise is how far runs of one program were apart. The figures are those of this build: what is asked for depends on the
# size of futures, which an optimiser changes. `dev` is what `cargo test` builds, so that is what is held.";

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: i64, blocks: f64, noise_bytes: u64) -> Budgets {
        let mut budgets = Budgets { build: "dev".into(), budget: Vec::new() };
        let measured = Amount { bytes: bytes as f64, blocks };
        budgets.set("connection", measured, "it is so", "abc", "2026-01-02");
        budgets.budget[0].noise_bytes = noise_bytes;
        budgets.budget[0].noise_blocks = 0.0;
        budgets
    }

    fn judge(budgets: &Budgets, bytes: f64, blocks: f64) -> Verdict {
        budgets.judge("connection", Amount { bytes, blocks })
    }

    #[test]
    fn worse_is_over_and_much_better_is_loose() {
        let budgets = budget(1000, 10.0, 50);
        assert_eq!(judge(&budgets, 1000.0, 10.0), Verdict::Within);
        assert_eq!(judge(&budgets, 1050.0, 10.0), Verdict::Within);
        assert_eq!(judge(&budgets, 1051.0, 10.0), Verdict::Over);
        assert_eq!(judge(&budgets, 1000.0, 10.5), Verdict::Over, "blocks are judged as well");
        assert_eq!(judge(&budgets, 800.0, 10.0), Verdict::Within);
        let better = Amount { bytes: 799.0, blocks: 10.0 };
        assert_eq!(judge(&budgets, better.bytes, better.blocks), Verdict::Loose(better));
        assert_eq!(judge(&budgets, 1100.0, 5.0), Verdict::Over, "fewer blocks excuse no bytes");
        assert_eq!(budgets.judge("dial", better), Verdict::Unknown);
    }

    #[test]
    fn a_budget_of_nothing_has_two_sides_too() {
        let budgets = budget(0, 0.0, 64);
        assert_eq!(judge(&budgets, 64.0, 0.0), Verdict::Within);
        assert_eq!(judge(&budgets, 65.0, 0.0), Verdict::Over);
        assert!(
            matches!(judge(&budgets, -65.0, 0.0), Verdict::Loose(_)),
            "something is freed that was not ours to free"
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut budgets = budget(117_500, 301.25, 2048);
        budgets.set("close", Amount { bytes: -3.25, blocks: 0.5 }, "a \"quoted\" reason", "abc", "2026-01-02");
        let read = Budgets::read(&budgets.to_string()).unwrap();
        assert_eq!(read.of("connection"), budgets.of("connection"));
        assert_eq!(read.of("close").unwrap().why, "a \"quoted\" reason");
    }

    #[test]
    fn a_blessing_keeps_what_is_known_of_the_noise() {
        let mut budgets = budget(1000, 10.0, 50);
        budgets.set("connection", Amount { bytes: 700.0, blocks: 7.0 }, "one queue fewer", "def", "2026-01-03");
        let blessed = budgets.of("connection").unwrap();
        assert_eq!((blessed.bytes, blessed.noise_bytes, blessed.commit.as_str()), (700, 50, "def"));
        assert_eq!(budgets.budget.len(), 1);
    }
}
