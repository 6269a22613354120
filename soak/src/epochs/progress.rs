//! What a run shows while it goes on: a line that moves on a terminal, and a line that stays per barrier.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    judge::counts::undrained,
    plan::OBSERVER,
    run_format::{Barrier, Record},
};

/// The line of one run.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// `plain` shows no moving line, as does an stderr that is no terminal.
    pub(super) fn new(record: &Record, plain: bool) -> Self {
        let info = &record.info;
        let template = "{prefix} {bar:30} {pos}/{len} events  {elapsed}, {eta} left  {msg}";
        let style = ProgressStyle::with_template(template).expect("the template is valid").progress_chars("=> ");
        let events = u64::from((info.warm_up_epochs + info.epochs) * info.events_per_epoch);
        let bar = ProgressBar::new(events).with_style(style).with_prefix(info.scenario.clone());
        if plain {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Self { bar }
    }

    /// What is going on.
    pub(super) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// One event more is done.
    pub(super) fn advance(&self) {
        self.bar.inc(1);
    }

    /// A line that stays.
    pub(super) fn print(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// The line of a barrier: what the observer holds, and who is not drained.
    pub(super) fn barrier(&self, elapsed: Duration, rows: &[Barrier], remotes: u64) {
        let Some(row) = rows.get(OBSERVER) else { return };
        let cell = |figure: Option<u64>| figure.map_or("-".into(), |figure| figure.to_string());
        let heap = row.heap_bytes.map_or("-".into(), |bytes| format!("{:.2} MB", bytes as f64 / 1e6));
        let late = rows.iter().find_map(|row| undrained(row, remotes).map(|why| format!("; node {}: {why}", row.node)));
        self.print(&format!(
            "{:6.1} s  epoch {:2}  {:4} events  {} connections  {} neighbours  {} tasks  heap {heap}  missed {}  calm after \
             {:.1} s{}",
            elapsed.as_secs_f64(),
            row.epoch,
            row.events,
            cell(row.connections),
            cell(row.neighbors),
            cell(row.tasks),
            cell(row.missed),
            row.waited_ms.unwrap_or(0) as f64 / 1e3,
            late.unwrap_or_default(),
        ));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
