//! All settings on one page, for people and for programs, each with its source. `[pure]`

use perennial::Limits;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::{LIMIT_FLAG, LIMIT_TABLE, Place, Settings, Source, variable};
use crate::lines::VERSION;

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// As in the file; a limit as `limits.NAME`.
    pub(crate) name: String,
    /// Null where nothing is set.
    pub(crate) value: Json,
    pub(crate) source: Source,
}

/// `config show --format json`.
#[derive(Debug, Serialize)]
struct Page {
    v: u8,
    settings: Map<String, Json>,
}

impl Settings {
    /// Every setting, the limits last. `limits` are those in force.
    pub(crate) fn entries(&self, limits: &Limits) -> Vec<Entry> {
        let mut entries = self.plain_entries();
        for name in Limits::CHANGEABLE {
            let source = self.limits.get(name).map_or(Source::Default, |limit| limit.source.clone());
            let value = limits.get(name).expect("every changeable limit has a value");
            entries.push(Entry { name: format!("{LIMIT_TABLE}.{name}"), value: value.into(), source });
        }
        entries
    }
}

impl Entry {
    /// Flag, variable or line it came from.
    pub(crate) fn came_from(&self) -> String {
        let name = match self.name.split_once('.') {
            Some((_, _limit)) => LIMIT_FLAG,
            None => &self.name,
        };
        match &self.source {
            Source::Default => "default".into(),
            Source::File(Place { path, line }) => format!("{}:{line}", path.display()),
            Source::Variable => variable(name),
            Source::Flag => self.source.calls(name),
        }
    }
}

/// A settings file with the values in force, where each came from in a comment. Defaults are commented out, so that what
/// follows from another setting goes on doing so.
pub(crate) fn to_toml(entries: &[Entry]) -> String {
    let mut text = String::new();
    let mut is_in_table = false;
    for entry in entries {
        let name = match entry.name.split_once('.') {
            Some((table, name)) => {
                if !is_in_table {
                    text += &format!("\n[{table}]\n");
                }
                is_in_table = true;
                name
            }
            None => &entry.name,
        };
        let mark = if entry.source == Source::Default { "#" } else { "" };
        match &entry.value {
            Json::Null => text += &format!("#{name} =  # not set\n"),
            // Texts, numbers and lists of texts are written alike in JSON and in TOML.
            value => text += &format!("{mark}{name} = {value}  # {}\n", entry.came_from()),
        }
    }
    text.truncate(text.trim_end().len());
    text
}

/// The same for programs.
pub(crate) fn to_json(entries: &[Entry]) -> String {
    let source = |entry: &Entry| match entry.source {
        Source::Default => "default",
        Source::File(_) => "file",
        Source::Variable => "variable",
        Source::Flag => "flag",
    };
    let row = |entry: &Entry| {
        let row = serde_json::json!({ "value": entry.value, "source": source(entry), "from": entry.came_from() });
        (entry.name.clone(), row)
    };
    let page = Page { v: VERSION, settings: entries.iter().map(row).collect() };
    serde_json::to_string(&page).expect("strings, numbers and lists of them always serialise")
}
