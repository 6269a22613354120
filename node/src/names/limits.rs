//! What users type about limits: listeners with their caps, `NAME=N`, sizes. `[pure]`
//!
//! Says what would be right. Whether the values hold together is for the library to say.

use std::{fmt, net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr};

use perennial::{Limits, Listen};

use super::listen_addr;

/// The only key a listener has.
const LISTEN_KEYS: [&str; 1] = ["max-connections"];

/// How a changeable limit of one listener begins.
const LISTENER: &str = "listener:";

/// Parses `ADDR[,max-connections=N]`.
pub(crate) fn listen(text: &str) -> Result<Listen, String> {
    let (addr, connections_max) = capped(text)?;
    Ok(Listen { addr: listen_addr(addr)?, connections_max })
}

/// A path or an address at which this node is asked, and how many may ask at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capped<T> {
    pub(crate) at: T,
    pub(crate) clients_max: Option<NonZeroUsize>,
}

impl<T> Capped<T> {
    /// As it can be parsed, with the place as it is `shown`.
    pub(crate) fn show(&self, shown: &dyn fmt::Display) -> String {
        self.clients_max.map_or_else(|| shown.to_string(), |max| format!("{shown},{}={max}", LISTEN_KEYS[0]))
    }
}

/// Parses `PATH[,max-connections=N]`.
pub(crate) fn control(text: &str) -> Result<Capped<PathBuf>, String> {
    match capped(text)? {
        ("", _) => Err("a control socket is a path, not nothing".into()),
        (path, clients_max) => Ok(Capped { at: path.into(), clients_max }),
    }
}

/// Parses the same for whoever asks the node, to whom the cap is nothing.
pub(crate) fn control_path(text: &str) -> Result<PathBuf, String> {
    control(text).map(|control| control.at)
}

/// Parses `IP:PORT[,max-connections=N]`.
pub(crate) fn http(text: &str) -> Result<Capped<SocketAddr>, String> {
    let (addr, clients_max) = capped(text)?;
    let at =
        addr.parse().map_err(|_| format!("`{addr}` is not an address; expected IP:PORT, such as 127.0.0.1:8080"))?;
    Ok(Capped { at, clients_max })
}

/// Takes `X[,max-connections=N]` apart.
fn capped<N: FromStr>(text: &str) -> Result<(&str, Option<N>), String> {
    let mut words = text.split(',');
    let at = words.next().unwrap_or_default();
    let mut connections_max = None;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if !LISTEN_KEYS.contains(&key) {
            return Err(unknown("key of a listener", key, &LISTEN_KEYS));
        }
        let cap = value
            .parse()
            .map_err(|_| format!("`{value}` is not a number of connections; expected {key}=N, such as {key}=32"))?;
        if connections_max.replace(cap).is_some() {
            return Err(format!("`{key}` is given twice for {at}"));
        }
    }
    Ok((at, connections_max))
}

/// `NAME=N`: a limit to set when the node starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitSetting {
    pub(crate) name: String,
    pub(crate) value: u64,
}

impl FromStr for LimitSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` sets nothing; expected NAME=N, such as {}=32", Limits::CHANGEABLE[0]))?;
        if !Limits::CHANGEABLE.contains(&name) {
            return Err(unknown("limit that can be set", name, Limits::CHANGEABLE));
        }
        Ok(Self { name: name.to_owned(), value: number(name, value)? })
    }
}

impl fmt::Display for LimitSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// Parses what can be set while the node runs: `NAME=N`, or `listener:ADDR=N`. Which listeners there are, the node knows.
pub(crate) fn running_limit(text: &str) -> Result<LimitSetting, String> {
    match text.strip_prefix(LISTENER).and_then(|rest| rest.split_once('=')) {
        Some((listener, value)) => {
            let name = format!("{LISTENER}{listener}");
            let value = number(&name, value)?;
            Ok(LimitSetting { name, value })
        }
        None => text.parse(),
    }
}

fn number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("`{value}` is not a number; expected {name}=N with a whole N"))
}

/// Parses a size in bytes: `536870912`, `512MiB`, `1GiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let wrong =
        || format!("`{text}` is not a size; expected bytes, or a whole number of KiB, MiB or GiB, such as 512MiB");
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is more than any machine has"))
}

/// That `given` is none of `names`, with the nearest one, or all if none is near.
pub(crate) fn unknown(what: &str, given: &str, names: &[&str]) -> String {
    let nearest = names.iter().min_by_key(|name| strsim::damerau_levenshtein(given, name));
    // A third of the letters wrong is still a typing error; more is another word.
    let is_near = |name: &str| strsim::damerau_levenshtein(given, name) * 3 <= name.len();
    match nearest {
        Some(name) if is_near(name) => format!("`{given}` is no {what}; did you mean `{name}`?"),
        Some(_) | None => format!("`{given}` is no {what}; there are: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_may_have_a_cap() {
        let parsed = listen("127.0.0.2:7,max-connections=3").unwrap();
        assert_eq!((parsed.addr.to_string().as_str(), parsed.connections_max), ("127.0.0.2:7", Some(3)));
        let bare = listen("::1").unwrap();
        assert_eq!((bare.addr.to_string().as_str(), bare.connections_max), ("[::1]:0", None));
    }

    #[test]
    fn a_wrong_listener_says_what_would_be_right() {
        let wrong = |text: &str| listen(text).unwrap_err();
        assert_eq!(
            wrong("127.0.0.1,max-conections=3"),
            "`max-conections` is no key of a listener; did you mean `max-connections`?"
        );
        assert_eq!(wrong("127.0.0.1,cap=3"), "`cap` is no key of a listener; there are: max-connections");
        assert!(wrong("127.0.0.1,max-connections=many").starts_with("`many` is not a number of connections"));
        assert!(wrong("127.0.0.1,max-connections").contains("such as max-connections=32"));
        assert_eq!(
            wrong("127.0.0.1:7,max-connections=3,max-connections=3"),
            "`max-connections` is given twice for 127.0.0.1:7"
        );
        assert!(wrong("localhost,max-connections=3").contains("expected IP:PORT"));
    }

    #[test]
    fn who_may_ask_may_have_a_cap() {
        let socket = control("/run/a node.sock,max-connections=3").unwrap();
        assert_eq!((socket.at, socket.clients_max), ("/run/a node.sock".into(), NonZeroUsize::new(3)));
        assert_eq!(control("node.sock").unwrap().clients_max, None);
        assert_eq!(http("[::1]:80,max-connections=1").unwrap().clients_max, Some(NonZeroUsize::MIN));
        assert!(control(",max-connections=3").unwrap_err().contains("not nothing"));
        for text in ["node.sock,max-connections=0", "node.sock,max-connections=-1"] {
            assert!(control(text).unwrap_err().contains("such as max-connections=32"), "{text}");
        }
        assert!(http("localhost:80").unwrap_err().contains("such as 127.0.0.1:8080"));
        assert!(http("127.0.0.1").is_err(), "a port is part of it");
    }

    #[test]
    fn a_limit_is_set_by_a_name_that_exists() {
        let set: LimitSetting = "inbound_max=7".parse().unwrap();
        assert_eq!(set.to_string(), "inbound_max=7");
        let wrong = |text: &str| text.parse::<LimitSetting>().unwrap_err();
        assert_eq!(wrong("inbuond_max=7"), "`inbuond_max` is no limit that can be set; did you mean `inbound_max`?");
        assert!(wrong("idle_timeout=7").contains("there are: connections_max, inbound_max"));
        assert!(wrong("inbound_max").contains("expected NAME=N"));
        assert!(wrong("inbound_max=-1").contains("`-1` is not a number"));
        assert!(wrong("listener:127.0.0.1:7=3").contains("no limit"), "only of a node that runs");
        let listener = running_limit("listener:[::1]:7=3").unwrap();
        assert_eq!((listener.name.as_str(), listener.value), ("listener:[::1]:7", 3));
        assert_eq!(running_limit("dials_max=1").unwrap().name, "dials_max");
        assert!(running_limit("listener:127.0.0.1:7=x").unwrap_err().contains("`x` is not a number"));
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(["1024", "1KiB", "1B"].map(|text| size(text).unwrap()), [1024, 1024, 1]);
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        for text in ["", "MiB", "512MB", "1.5GiB", "-1"] {
            assert!(size(text).unwrap_err().contains("such as 512MiB"), "{text}");
        }
        assert!(size("99999999999GiB").unwrap_err().contains("more than any machine"));
    }
}
