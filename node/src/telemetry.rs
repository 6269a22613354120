//! Logs to stderr. What is logged is decided where it happens; how much of it is shown, by `--log`, also while the node
//! runs.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::{
    exit::{Exit, Failure},
    settings::value::LogFilter,
};

/// Changes what is logged. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogControl {
    /// Logs by `filter` from here on.
    pub(crate) fn set(&self, filter: &LogFilter) -> Result<(), Failure> {
        let changed = self.filter.reload(filter.to_filter());
        changed.map_err(|error| Failure::new(Exit::Failed, format!("cannot change the log filter: {error}")))
    }
}

/// Installs the subscriber for this process.
pub(crate) fn install(filter: &LogFilter) -> Result<LogControl, Failure> {
    let (layer, handle) = reload::Layer::new(filter.to_filter());
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(is_colour_wanted(&io::stderr()));
    let installed = tracing_subscriber::registry().with(layer).with(lines).try_init();
    installed.map_err(|error| Failure::new(Exit::Failed, format!("cannot log: {error}")))?;
    Ok(LogControl { filter: handle })
}

/// Colour is for terminals, and not for those who set `NO_COLOR`.
pub(crate) fn is_colour_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
