//! Every setting of `up`, and where its value came from: flag, else environment variable, else file, else default. `[pure]`
//!
//! How a value is read and shown is in `settings/value.rs`, the text of the file in `settings/file.rs`, what contradicts
//! what in `settings/check.rs`, how all of it is shown in `settings/show.rs`. Nothing is looked up here: `config.rs` finds the
//! file and reads it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use perennial::{Limits, Listen};

use crate::{
    cli::AccessName,
    exit::{Exit, Failure},
    names::{PeerName, RelayName, TopicName, limits::Capped},
    telemetry::{LogFormat, settings::Protocol},
};

pub(crate) mod check;
pub(crate) mod difference;
pub(crate) mod file;
pub(crate) mod show;
pub(crate) mod value;

use file::File;
use value::{CollectorUrl, Count, LogFilter, Size, Value};

/// How the variable of every setting begins.
pub(crate) const VARIABLE_PREFIX: &str = "PERENNIAL_";

/// The flag that sets one limit by name, and the table of the file that sets them all.
pub(crate) const LIMIT_FLAG: &str = "limit";
pub(crate) const LIMIT_TABLE: &str = "limits";

/// A failed probe is repeated this often; three of them fit into the half minute after which a service manager should act.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// A value and where it came from. Reads as the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) source: Source,
}

impl<T> Deref for Setting<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Setting<T> {
    /// Whether somebody has set it.
    pub(crate) fn is_set(&self) -> bool {
        self.source != Source::Default
    }
}

/// Which of the four layers had the last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File(Place),
    Variable,
    Flag,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: Arc<Path>,
    pub(crate) line: usize,
}

impl Source {
    /// The values of a list: a flag is repeated, a variable has white space between them.
    fn split(&self, words: &[String]) -> Vec<String> {
        match self {
            Source::Variable => words.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect(),
            Source::Default | Source::File(_) | Source::Flag => words.to_vec(),
        }
    }

    /// What the user calls the setting `name` that came from here.
    pub(crate) fn calls(&self, name: &str) -> String {
        match self {
            Source::Default => name.to_owned(),
            Source::File(Place { path, line }) => format!("{name} ({}:{line})", path.display()),
            Source::Variable => variable(name),
            Source::Flag => format!("--{}", name.replace('_', "-")),
        }
    }

    /// The same for the limit `name`, with its value.
    pub(crate) fn calls_limit(&self, name: &str, value: u64) -> String {
        match self {
            Source::Default => format!("{name}={value}"),
            Source::File(Place { path, line }) => {
                format!("{LIMIT_TABLE}.{name} = {value} ({}:{line})", path.display())
            }
            Source::Variable => format!("{name}={value} in {}", variable(LIMIT_FLAG)),
            Source::Flag => format!("--{LIMIT_FLAG} {name}={value}"),
        }
    }
}

/// The variable of the setting `name`.
pub(crate) fn variable(name: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", name.to_uppercase())
}

/// What is wrong with one setting, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) exit: Exit,
    pub(crate) sentence: String,
}

impl Problem {
    /// A value that cannot be read. On the command line that is a matter of usage.
    fn of(source: &Source, sentence: String) -> Self {
        let exit = if *source == Source::Flag { Exit::Usage } else { Exit::Config };
        Self { exit, sentence }
    }

    /// Settings that contradict each other, and names that are none.
    fn config(sentence: impl Into<String>) -> Self {
        Self { exit: Exit::Config, sentence: sentence.into() }
    }
}

/// All of them on one page, each on its own line.
pub(crate) fn failure(problems: &[Problem]) -> Failure {
    let is_config = problems.iter().any(|problem| problem.exit == Exit::Config);
    let sentences: Vec<&str> = problems.iter().map(|problem| problem.sentence.as_str()).collect();
    Failure::new(if is_config { Exit::Config } else { Exit::Usage }, sentences.join("\n"))
}

/// What one layer says, setting by setting, in words.
pub(crate) type Words = BTreeMap<&'static str, Vec<String>>;

/// What was said, in the order of precedence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layers<'a> {
    pub(crate) flags: &'a Words,
    pub(crate) variables: &'a Words,
    pub(crate) file: Option<&'a File<'a>>,
}

macro_rules! settings {
    ($($name:ident: $kind:ty = $default:expr,)+) => {
        /// Every setting.
        #[derive(Debug, Clone)]
        pub(crate) struct Settings {
            $(pub(crate) $name: Setting<$kind>,)+
            /// Only the limits that were set by name.
            pub(crate) limits: BTreeMap<&'static str, Setting<u64>>,
        }

        /// The names of all settings but the limits.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),+];

        impl Settings {
            /// What all layers together come to. A layer that cannot be understood is a problem even where another one
            /// would have had the last word.
            pub(crate) fn merge(layers: Layers<'_>) -> Result<Self, Vec<Problem>> {
                let mut problems = layers.file.map(File::unknown_keys).unwrap_or_default();
                let settings = Self {
                    $($name: layers.pick(stringify!($name), || $default, &mut problems),)+
                    limits: layers.limits(&mut problems),
                };
                if problems.is_empty() { Ok(settings) } else { Err(problems) }
            }

            /// Name, value and source of every setting but the limits.
            fn plain_entries(&self) -> Vec<show::Entry> {
                vec![$(show::Entry {
                    name: stringify!($name).to_owned(),
                    value: self.$name.value.shown(),
                    source: self.$name.source.clone(),
                }),+]
            }
        }
    };
}

settings! {
    listen: Vec<Listen> = vec![Listen::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))],
    topic: Vec<TopicName> = Vec::new(),
    join: Vec<PeerName> = Vec::new(),
    key_file: Option<PathBuf> = None,
    state_dir: Option<PathBuf> = None,
    control: Option<Capped<PathBuf>> = None,
    http: Option<Capped<SocketAddr>> = None,
    http_token_file: Option<PathBuf> = None,
    relay: RelayName = RelayName::Disabled,
    port_mapping: bool = false,
    known: Vec<PeerName> = Vec::new(),
    deny: Vec<PeerName> = Vec::new(),
    access: AccessName = AccessName::Open,
    max_connections: Count = Count(Limits::default().connections_max),
    memory_budget: Option<Size> = None,
    count_loopback: bool = false,
    idle_timeout: Duration = Limits::default().idle_timeout,
    probe_interval: Duration = PROBE_INTERVAL,
    log: LogFilter = LogFilter::default(),
    log_format: LogFormat = LogFormat::Text,
    otlp: Option<CollectorUrl> = None,
    otlp_protocol: Option<Protocol> = None,
}

impl Settings {
    /// What all of them are where nobody says anything.
    pub(crate) fn defaults() -> Self {
        let nothing = Words::new();
        let layers = Layers { flags: &nothing, variables: &nothing, file: None };
        Self::merge(layers).expect("nothing is wrong where nothing is said")
    }
}

impl Layers<'_> {
    /// The value of the uppermost layer that speaks of `name`.
    fn pick<T: Value>(self, name: &str, default: impl FnOnce() -> T, problems: &mut Vec<Problem>) -> Setting<T> {
        let mut picked = Setting { value: None, source: Source::Default };
        let mut take = |source: Source, read: Result<T, String>| match read {
            Ok(value) => picked = Setting { value: Some(value), source },
            Err(sentence) => problems.push(Problem::of(&source, sentence)),
        };
        if let Some(file) = self.file
            && let Some((place, value)) = file.get(name)
        {
            let read = T::from_toml(value).map_err(|wrong| file.says(wrong.at, name, &wrong.sentence));
            take(Source::File(place), read);
        }
        for (source, words) in [(Source::Variable, self.variables), (Source::Flag, self.flags)] {
            if let Some(words) = words.get(name) {
                let words = if T::IS_LIST { source.split(words) } else { words.clone() };
                let read = T::from_words(&words).map_err(|sentence| format!("{}: {sentence}", source.calls(name)));
                take(source, read);
            }
        }
        match picked.value {
            Some(value) => Setting { value, source: picked.source },
            None => Setting { value: default(), source: Source::Default },
        }
    }

    /// The limits that were set by name, each by its uppermost layer.
    fn limits(self, problems: &mut Vec<Problem>) -> BTreeMap<&'static str, Setting<u64>> {
        let mut limits = self.file.map(|file| file.limits(problems)).unwrap_or_default();
        for (source, words) in [(Source::Variable, self.variables), (Source::Flag, self.flags)] {
            let mut set = BTreeMap::new();
            for word in words.get(LIMIT_FLAG).map(|words| source.split(words)).unwrap_or_default() {
                match value::limit(&word) {
                    Ok((name, value)) => {
                        if let Some(earlier) = set.insert(name, value) {
                            problems.push(Problem::config(format!(
                                "{} {name} is given twice, with {earlier} and {value}",
                                source.calls(LIMIT_FLAG)
                            )));
                        }
                    }
                    Err(sentence) => {
                        problems.push(Problem::of(&source, format!("{}: {sentence}", source.calls(LIMIT_FLAG))));
                    }
                }
            }
            let set = set.into_iter().map(|(name, value)| (name, Setting { value, source: source.clone() }));
            limits.extend(set);
        }
        limits
    }
}

#[cfg(test)]
mod tests;
