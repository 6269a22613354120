//! Logs to stderr. What is logged is decided where it happens; how much of it is shown, by `--log`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::exit::{Exit, Failure};

/// Installs the subscriber for this process.
pub(crate) fn install(filter: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(Exit::Usage, format!("`{filter}` is not a log filter: {error}")))?;
    let colour = is_colour_wanted(&io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour).init();
    Ok(())
}

/// Colour is for terminals, and not for those who set `NO_COLOR`.
pub(crate) fn is_colour_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
