//! What is shown while something takes longer than a moment: one line on stderr, if that is a terminal, and gone afterwards.

use std::{
    borrow::Cow,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// A line with a spinner. Dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
    doing: &'static str,
}

impl Progress {
    pub(crate) fn begin(doing: &'static str) -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is constant");
            let spinner = ProgressBar::new_spinner().with_style(style).with_message(doing);
            spinner.enable_steady_tick(Duration::from_millis(80));
            spinner
        });
        Self { spinner, doing }
    }

    pub(crate) fn update(&self, how_far: impl Into<Cow<'static, str>>) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{} · {}", self.doing, how_far.into()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
