//! Logs to stderr. What is logged is decided where it happens; how much of it is shown, by `--log`, also while the node
//! runs.

use std::{
    fmt,
    io::{self, IsTerminal},
    sync::Arc,
};

use tracing_subscriber::util::SubscriberInitExt;

use crate::{
    exit::{Exit, Failure},
    settings::value::LogFilter,
};

/// Changes what is logged. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogControl {
    change: Arc<dyn Fn(&LogFilter) -> Result<(), String> + Send + Sync>,
}

impl LogControl {
    /// Logs by `filter` from here on.
    pub(crate) fn set(&self, filter: &LogFilter) -> Result<(), Failure> {
        (self.change)(filter)
            .map_err(|error| Failure::new(Exit::Failed, format!("cannot change the log filter: {error}")))
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").finish_non_exhaustive()
    }
}

/// Installs the subscriber for this process.
pub(crate) fn install(filter: &LogFilter) -> Result<LogControl, Failure> {
    let colour = is_colour_wanted(&io::stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter.to_filter())
        .with_writer(io::stderr)
        .with_ansi(colour)
        .with_filter_reloading();
    let handle = subscriber.reload_handle();
    let installed = subscriber.finish().try_init();
    installed.map_err(|error| Failure::new(Exit::Failed, format!("cannot log: {error}")))?;
    let change = move |filter: &LogFilter| {
        handle.reload(filter.to_filter()).map_err(|error: tracing_subscriber::reload::Error| error.to_string())
    };
    Ok(LogControl { change: Arc::new(change) })
}

/// Colour is for terminals, and not for those who set `NO_COLOR`.
pub(crate) fn is_colour_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
