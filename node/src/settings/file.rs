//! The text of a settings file: its keys, each with its line, and what is wrong with those that are none. `[pure]`

use std::{collections::BTreeMap, path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{LIMIT_TABLE, NAMES, Place, Problem, Setting, Source, value};
use crate::names::limits::unknown;

/// A settings file that is TOML. Whether its keys are settings is told by [`File::unknown_keys`].
#[derive(Debug)]
pub(crate) struct File<'a> {
    path: Arc<Path>,
    text: &'a str,
    table: DeTable<'a>,
}

impl<'a> File<'a> {
    /// Takes the text apart.
    ///
    /// # Errors
    ///
    /// Every place where it is no TOML.
    pub(crate) fn parse(path: &Path, text: &'a str) -> Result<Self, Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let file = Self { path: path.into(), text, table: table.into_inner() };
        if errors.is_empty() {
            return Ok(file);
        }
        let problem = |error: &toml::de::Error| {
            let line = line_at(text, error.span().map_or(0, |span| span.start));
            let message = error.message().replace('\n', ", ");
            Problem::config(format!("{}:{line}: no TOML: {message}", path.display()))
        };
        Err(errors.iter().map(problem).collect())
    }

    /// Where it says something of the setting `name`, and what.
    pub(super) fn get(&self, name: &str) -> Option<(Place, &Spanned<DeValue<'a>>)> {
        let (key, value) = self.table.get_key_value(name)?;
        Some((self.place(key.span().start), value))
    }

    /// The table of limits. What is no limit or no number goes to `problems`.
    pub(super) fn limits(&self, problems: &mut Vec<Problem>) -> BTreeMap<&'static str, Setting<u64>> {
        let mut limits = BTreeMap::new();
        let Some((place, table)) = self.get(LIMIT_TABLE) else { return limits };
        let Some(table) = table.get_ref().as_table() else {
            let kind = value::kind(table.get_ref());
            let sentence = format!("is {kind}; a table [{LIMIT_TABLE}] with one line for each would be right");
            problems.push(Problem::config(self.says_in_line(place.line, LIMIT_TABLE, &sentence)));
            return limits;
        };
        for (key, given) in table.iter() {
            let name = key.get_ref().as_ref();
            let place = self.place(key.span().start);
            let Some(known) = value::limit_name(name) else {
                let sentence = unknown("limit that can be set", name, perennial::Limits::CHANGEABLE);
                problems.push(self.problem(place.line, &sentence));
                continue;
            };
            match value::whole_number(given) {
                Ok(value) => drop(limits.insert(known, Setting { value, source: Source::File(place) })),
                Err(wrong) => {
                    let name = format!("{LIMIT_TABLE}.{name}");
                    problems.push(Problem::config(self.says(wrong.at, &name, &wrong.sentence)));
                }
            }
        }
        limits
    }

    /// A problem for every key that is no setting.
    pub(super) fn unknown_keys(&self) -> Vec<Problem> {
        let names = [NAMES, &[LIMIT_TABLE]].concat();
        let keys = self.table.keys().filter(|key| !names.contains(&key.get_ref().as_ref()));
        let problem = |key: &Spanned<toml::de::DeString<'_>>| {
            let place = self.place(key.span().start);
            self.problem(place.line, &unknown("setting", key.get_ref(), &names))
        };
        keys.map(problem).collect()
    }

    /// A sentence about the setting `name`, with the place it is about.
    pub(super) fn says(&self, at: usize, name: &str, sentence: &str) -> String {
        self.says_in_line(line_at(self.text, at), name, sentence)
    }

    fn says_in_line(&self, line: usize, name: &str, sentence: &str) -> String {
        // A sentence of its own begins with what was given; one about the kind of value goes on from the name.
        let colon = if sentence.starts_with("is ") { "" } else { ":" };
        format!("{}:{line}: {name}{colon} {sentence}", self.path.display())
    }

    fn problem(&self, line: usize, sentence: &str) -> Problem {
        Problem::config(format!("{}:{line}: {sentence}", self.path.display()))
    }

    fn place(&self, at: usize) -> Place {
        Place { path: self.path.clone(), line: line_at(self.text, at) }
    }
}

/// The line of a byte, counted from 1.
fn line_at(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}
