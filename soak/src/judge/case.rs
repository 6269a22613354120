//! One recorded run on the judge's desk: which rows are judged, and whether a figure was told throughout. `[pure]`

use std::collections::BTreeMap;

use super::{Check, Outcome};
use crate::run_format::{Barrier, Happened, Record};

/// A record, its barriers sorted into warm-up and judged, by node.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub record: &'a Record,
    /// Judged barriers of every node that is not foreign, in the order of their epochs.
    pub by_node: BTreeMap<u32, Vec<&'a Barrier>>,
}

/// A figure over the judged barriers of one node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told<T> {
    /// At every barrier: the barrier's events and the figure.
    Always(Vec<(u64, T)>),
    /// At first, and then no more.
    Stopped {
        epoch: u32,
    },
    Never,
}

impl<'a> Case<'a> {
    pub(crate) fn new(record: &'a Record) -> Self {
        let mut by_node: BTreeMap<u32, Vec<&Barrier>> = BTreeMap::new();
        let is_judged =
            |row: &&Barrier| row.epoch > record.info.warm_up_epochs && !record.info.foreign.contains(&row.node);
        for row in record.barriers.iter().filter(is_judged) {
            by_node.entry(row.node).or_default().push(row);
        }
        by_node.values_mut().for_each(|rows| rows.sort_by_key(|row| row.epoch));
        Self { record, by_node }
    }

    /// Judged barriers of the node that no event touched.
    pub(crate) fn observer(&self) -> &[&'a Barrier] {
        self.by_node.get(&self.record.info.observer).map_or(&[], Vec::as_slice)
    }

    /// Every judged row.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &'a Barrier> + '_ {
        self.by_node.values().flatten().copied()
    }

    /// Other nodes alive at a barrier.
    pub(crate) fn remotes(&self) -> u64 {
        u64::from(self.record.info.nodes.saturating_sub(1))
    }

    /// Whether a node lived through the whole run, so that its counters may be followed.
    pub(crate) fn lived(&self, node: u32) -> bool {
        !self.record.plan.iter().any(|planned| planned.step.killed().contains(&(node as usize)))
    }

    /// Ends of processes that nobody ordered, in words, and whether the machine did it.
    pub(crate) fn exits(&self) -> impl Iterator<Item = (u32, &'a str, bool)> + '_ {
        self.record.events.iter().flatten().filter_map(|event| match &event.happened {
            Happened::Exited { commanded: false, killed_by_machine, how } => {
                Some((event.node, how.as_str(), *killed_by_machine))
            }
            Happened::Exited { .. }
            | Happened::Injected { .. }
            | Happened::Fault { .. }
            | Happened::Observed { .. } => None,
        })
    }

    /// What a figure must be answered with before it can be judged: `Err` is the answer when it cannot.
    ///
    /// A figure that stops is unknown. One that was never told is unknown where the subject's level promises it, and not
    /// judged where it does not.
    pub(crate) fn told<T>(
        &self,
        name: &'static str,
        level: u8,
        rows: &[&Barrier],
        what: &str,
        figure: impl Fn(&Barrier) -> Option<T>,
    ) -> Result<Vec<(u64, T)>, Check> {
        match told(rows, figure) {
            Told::Always(figures) => Ok(figures),
            Told::Stopped { epoch } => {
                Err(unknown(name, format!("the node stopped telling its {what} at epoch {epoch}")))
            }
            Told::Never if rows.is_empty() => Err(unknown(name, "no judged barrier".into())),
            Told::Never if self.record.info.level >= level => {
                Err(unknown(name, format!("the node does not tell its {what}")))
            }
            Told::Never => Err(not_judged(name, format!("the subject does not tell its {what}"))),
        }
    }
}

/// Those of `rows` at which nodes had only just come to rest: what is kept of others for minutes is there still.
pub(crate) fn ordinary<'a>(rows: &[&'a Barrier]) -> Vec<&'a Barrier> {
    rows.iter().copied().filter(|row| row.deep != Some(true)).collect()
}

/// Those at which every timer had run out.
pub(crate) fn deep<'a>(rows: &[&'a Barrier]) -> Vec<&'a Barrier> {
    rows.iter().copied().filter(|row| row.deep == Some(true)).collect()
}

/// How a figure was told over `rows`.
pub(crate) fn told<T>(rows: &[&Barrier], figure: impl Fn(&Barrier) -> Option<T>) -> Told<T> {
    let mut figures = Vec::new();
    let mut gap = None;
    for row in rows {
        match figure(row) {
            Some(value) => figures.push((row.events, value)),
            None => gap = gap.or(Some(row.epoch)),
        }
    }
    match gap {
        None if figures.is_empty() => Told::Never,
        None => Told::Always(figures),
        Some(_) if figures.is_empty() => Told::Never,
        Some(epoch) => Told::Stopped { epoch },
    }
}

pub(crate) fn pass(name: &'static str, detail: String) -> Check {
    Check { name, outcome: Outcome::Pass, detail }
}

pub(crate) fn fail(name: &'static str, detail: String) -> Check {
    Check { name, outcome: Outcome::Fail, detail }
}

pub(crate) fn unknown(name: &'static str, detail: String) -> Check {
    Check { name, outcome: Outcome::Unknown, detail }
}

pub(crate) fn not_judged(name: &'static str, detail: String) -> Check {
    Check { name, outcome: Outcome::NotJudged, detail }
}
