//! How the value of a setting is read from words, from TOML, and shown again. `[pure]`
//!
//! The words themselves are read in `names.rs`.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::ValueEnum;
use perennial::{Limits, Listen};
use serde_json::Value as Json;
use toml::{Spanned, de::DeValue};
use tracing_subscriber::EnvFilter;

use crate::{
    cli::AccessName,
    names::{
        self, PeerName, RelayName, TopicName,
        limits::{Capped, LimitSetting},
    },
    telemetry::{LogFormat, settings::Protocol},
};

/// What is wrong with a value of the file, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) at: usize,
    pub(crate) sentence: String,
}

/// Something a setting can be.
pub(crate) trait Value: Sized {
    /// Whether a variable may hold several, with white space between them.
    const IS_LIST: bool = false;

    /// From a flag or a variable. There is at least one word.
    fn from_words(words: &[String]) -> Result<Self, String>;

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong>;

    /// As people and programs are shown it; null where nothing is set.
    fn shown(&self) -> Json;
}

/// Something that is one word in every layer.
pub(crate) trait Word: Sized {
    /// What would be right, for whoever wrote something that is no text.
    const WANTED: &'static str;

    fn read(text: &str) -> Result<Self, String>;

    fn write(&self) -> String;
}

impl<T: Word> Value for T {
    fn from_words(words: &[String]) -> Result<Self, String> {
        T::read(words.last().map(String::as_str).unwrap_or_default())
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let Some(text) = value.get_ref().as_str() else { return Err(wrong_type(value, T::WANTED)) };
        T::read(text).map_err(|sentence| Wrong { at: value.span().start, sentence })
    }

    fn shown(&self) -> Json {
        Json::from(self.write())
    }
}

impl<T: Word> Value for Option<T> {
    fn from_words(words: &[String]) -> Result<Self, String> {
        T::from_words(words).map(Some)
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        T::from_toml(value).map(Some)
    }

    fn shown(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::shown)
    }
}

impl<T: Word> Value for Vec<T> {
    const IS_LIST: bool = true;

    fn from_words(words: &[String]) -> Result<Self, String> {
        words.iter().map(|word| T::read(word)).collect()
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let Some(values) = value.get_ref().as_array() else {
            return Err(wrong_type(value, &format!("a list such as [{}]", T::WANTED)));
        };
        values.iter().map(T::from_toml).collect()
    }

    fn shown(&self) -> Json {
        self.iter().map(T::shown).collect()
    }
}

impl Value for bool {
    fn from_words(words: &[String]) -> Result<Self, String> {
        match words.last().map(String::as_str) {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            other => Err(format!("`{}` is neither true nor false", other.unwrap_or_default())),
        }
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        value.get_ref().as_bool().ok_or_else(|| wrong_type(value, "true or false, without quotes,"))
    }

    fn shown(&self) -> Json {
        Json::from(*self)
    }
}

/// How many connections: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) usize);

impl Count {
    fn of(number: u64) -> Result<Self, String> {
        match usize::try_from(number) {
            Ok(0) | Err(_) => Err(format!("{number} is no number of connections; expected 1 or more, such as 128")),
            Ok(number) => Ok(Self(number)),
        }
    }
}

impl Value for Count {
    fn from_words(words: &[String]) -> Result<Self, String> {
        let text = words.last().map(String::as_str).unwrap_or_default();
        let wrong = || format!("`{text}` is no number of connections; expected a whole number such as 128");
        Self::of(text.parse().map_err(|_| wrong())?)
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        Self::of(whole_number(value)?).map_err(|sentence| Wrong { at: value.span().start, sentence })
    }

    fn shown(&self) -> Json {
        Json::from(self.0)
    }
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl Word for Size {
    const WANTED: &'static str = "a text such as \"512MiB\"";

    fn read(text: &str) -> Result<Self, String> {
        names::limits::size(text).map(Self)
    }

    /// In the largest unit that leaves nothing out.
    fn write(&self) -> String {
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let unit = units.into_iter().find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift);
        unit.map_or_else(|| format!("{}B", self.0), |(unit, shift)| format!("{}{unit}", self.0 >> shift))
    }
}

impl Word for Duration {
    const WANTED: &'static str = "a text such as \"5s\" or \"500ms\"";

    fn read(text: &str) -> Result<Self, String> {
        names::duration(text)
    }

    fn write(&self) -> String {
        match self.subsec_millis() {
            0 => format!("{}s", self.as_secs()),
            _ => format!("{}ms", self.as_millis()),
        }
    }
}

/// What is logged, as tracing directives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFilter(String);

/// iroh warns several times of every remote that does not negotiate its extensions of QUIC, so that strangers could fill the
/// log of a node whose door keeps them out: ten lines for each was measured.
pub(crate) const LOG: &str = "warn,iroh::socket::remote_map=error,perennial=info";

impl Default for LogFilter {
    fn default() -> Self {
        Self(LOG.into())
    }
}

impl LogFilter {
    pub(crate) fn to_filter(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

impl Word for LogFilter {
    const WANTED: &'static str = "a text such as \"warn,perennial=debug\"";

    fn read(text: &str) -> Result<Self, String> {
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => {
                Err(format!("`{text}` is not a log filter: {error}; expected one such as warn,perennial=debug"))
            }
        }
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

impl Word for LogFormat {
    const WANTED: &'static str = "\"text\", \"json\" or \"logfmt\"";

    fn read(text: &str) -> Result<Self, String> {
        choice(text, "a form of lines")
    }

    fn write(&self) -> String {
        chosen(self)
    }
}

/// Where spans and metrics are sent. Whether it can be one is said by `telemetry/settings.rs`, with the variables around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CollectorUrl(pub(crate) String);

impl Word for CollectorUrl {
    const WANTED: &'static str = "a text such as \"http://127.0.0.1:4317\"";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("the URL of a collector is not nothing".into()) } else { Ok(Self(text.to_owned())) }
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

impl Word for Protocol {
    const WANTED: &'static str = "\"grpc\" or \"http/protobuf\"";

    fn read(text: &str) -> Result<Self, String> {
        choice(text, "a way to speak to a collector")
    }

    fn write(&self) -> String {
        chosen(self)
    }
}

/// One of the values that have names.
fn choice<T: ValueEnum>(text: &str, what: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let names: Vec<String> = T::value_variants().iter().map(chosen).collect();
        format!("`{text}` is not {what}; expected {}", names.join(" or "))
    })
}

fn chosen<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Word for PathBuf {
    const WANTED: &'static str = "a text that is a path";

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path is not nothing".into()) } else { Ok(PathBuf::from(text)) }
    }

    fn write(&self) -> String {
        self.display().to_string()
    }
}

impl Word for Listen {
    const WANTED: &'static str = "\"0.0.0.0:4433\"";

    fn read(text: &str) -> Result<Self, String> {
        names::limits::listen(text)
    }

    fn write(&self) -> String {
        let addr = if self.addr.port() == 0 { self.addr.ip().to_string() } else { self.addr.to_string() };
        self.connections_max.map_or_else(|| addr.clone(), |max| format!("{addr},max-connections={max}"))
    }
}

impl Word for Capped<PathBuf> {
    const WANTED: &'static str = "a text that is a path, as in \"/run/perennial/control.sock,max-connections=16\"";

    fn read(text: &str) -> Result<Self, String> {
        names::limits::control(text)
    }

    fn write(&self) -> String {
        self.show(&self.at.display())
    }
}

impl Word for Capped<SocketAddr> {
    const WANTED: &'static str = "a text such as \"127.0.0.1:8080\"";

    fn read(text: &str) -> Result<Self, String> {
        names::limits::http(text)
    }

    fn write(&self) -> String {
        self.show(&self.at)
    }
}

impl Word for PeerName {
    const WANTED: &'static str = "\"ID@192.0.2.1:4433\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }

    /// As it can be read by people: a ticket hides whom it is about.
    fn write(&self) -> String {
        let addrs: Vec<String> = self.0.ip_addrs().map(ToString::to_string).collect();
        let has_others = self.0.addrs.len() > addrs.len();
        match (has_others, addrs.is_empty()) {
            (true, _) => self.to_string(),
            (false, true) => self.0.id.to_string(),
            (false, false) => format!("{}@{}", self.0.id, addrs.join(",")),
        }
    }
}

impl Word for TopicName {
    const WANTED: &'static str = "\"chat\"";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Word for RelayName {
    const WANTED: &'static str = "\"default\", \"disabled\" or a URL";

    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn write(&self) -> String {
        match self {
            RelayName::Default => "default".into(),
            RelayName::Disabled => "disabled".into(),
            RelayName::Url(url) => url.to_string(),
        }
    }
}

impl Word for AccessName {
    const WANTED: &'static str = "\"open\" or \"known\"";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(AccessName::Open),
            "known" => Ok(AccessName::Known),
            other => Err(format!("`{other}` is not who may connect; expected open or known")),
        }
    }

    fn write(&self) -> String {
        match self {
            AccessName::Open => "open".into(),
            AccessName::Known => "known".into(),
        }
    }
}

/// One limit from a flag or a variable, with the name as the table of limits has it.
pub(super) fn limit(word: &str) -> Result<(&'static str, u64), String> {
    let LimitSetting { name, value } = LimitSetting::from_str(word)?;
    Ok((limit_name(&name).expect("it was read by that table"), value))
}

pub(super) fn limit_name(name: &str) -> Option<&'static str> {
    Limits::CHANGEABLE.iter().copied().find(|known| *known == name)
}

pub(super) fn whole_number(value: &Spanned<DeValue<'_>>) -> Result<u64, Wrong> {
    let wanted = "a whole number such as 128";
    let Some(number) = value.get_ref().as_integer() else { return Err(wrong_type(value, wanted)) };
    let text = number.as_str();
    u64::from_str_radix(text, number.radix())
        .map_err(|_| Wrong { at: value.span().start, sentence: format!("`{text}` cannot be; {wanted} would be right") })
}

fn wrong_type(value: &Spanned<DeValue<'_>>, wanted: &str) -> Wrong {
    let sentence = format!("is {}; {wanted} would be right", kind(value.get_ref()));
    Wrong { at: value.span().start, sentence }
}

/// What people call it.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
