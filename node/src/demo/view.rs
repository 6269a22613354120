//! What the demo shows while it runs, on stderr: one line per step, a spinner where there is a terminal.

use std::{
    io,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{output::say, telemetry::is_colour_wanted};

/// Sentences are padded to this width, so that the times line up.
const SENTENCE_WIDTH: usize = 58;

const GREEN: &str = "32";
const RED: &str = "31";
const DIM: &str = "2";
const BOLD: &str = "1";

/// The screen.
#[derive(Debug)]
pub(crate) struct View {
    colour: bool,
    is_terminal: bool,
}

impl View {
    pub(crate) fn new() -> Self {
        use io::IsTerminal;
        Self { colour: is_colour_wanted(&io::stderr()), is_terminal: io::stderr().is_terminal() }
    }

    pub(crate) fn title(&self, sentence: &str) {
        say(format_args!("{} {}", self.paint(BOLD, "perennial demo"), self.paint(DIM, sentence)));
    }

    /// Begins a step. It shows a spinner until it is done or dropped.
    pub(crate) fn step(&self, doing: &str) -> Step<'_> {
        let spinner = self.is_terminal.then(|| {
            let style = ProgressStyle::with_template("  {spinner:.cyan} {msg}").expect("the template is constant");
            let spinner = ProgressBar::new_spinner().with_style(style).with_message(doing.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(80));
            spinner
        });
        Step { view: self, spinner, doing: doing.to_owned(), begun: Instant::now() }
    }

    pub(crate) fn fail(&self, sentence: &str) {
        say(format_args!("  {} {sentence}", self.paint(RED, "✗")));
    }

    pub(crate) fn summary(&self, sentence: &str) {
        say(format_args!("{} {sentence}", self.paint(GREEN, "passed:")));
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One step of the demo.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    view: &'a View,
    spinner: Option<ProgressBar>,
    doing: String,
    begun: Instant,
}

impl Step<'_> {
    /// Shows how far the step is. Only a terminal can take it back again, so only a terminal sees it.
    pub(crate) fn update(&self, progress: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{} · {progress}", self.doing));
        }
    }

    /// Ends the step with what came of it.
    pub(crate) fn done(self, outcome: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        let took = format!("{:.1} s", self.begun.elapsed().as_secs_f64());
        let padded = format!("{outcome:<SENTENCE_WIDTH$}");
        say(format_args!("  {} {padded} {}", self.view.paint(GREEN, "✓"), self.view.paint(DIM, &format!("{took:>7}"))));
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
