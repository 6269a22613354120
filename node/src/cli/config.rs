//! The options of `config`. `[pure]`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::up::Given;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Say everything that is wrong with a settings file; exit 78 if there is anything.
    Check {
        /// The file [default: the one that `up` would read]
        file: Option<PathBuf>,
    },
    /// Print the settings that `up` would have with the same options, and where each came from.
    Show(ShowArgs),
    /// Print a settings file with every setting, its default and what it does.
    Default,
}

/// Options of `config show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// How to print them.
    #[arg(long, value_enum, default_value = "toml")]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) given: Given,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// As a settings file, with the sources in comments.
    Toml,
    /// One JSON object.
    Json,
}
