//! What users type and what the mesh understands: topics, peers, listen addresses, relays. `[pure]`
//!
//! Caps, sizes and the names of limits are in `names/limits.rs`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use iroh::{EndpointAddr, EndpointId, RelayMode, RelayUrl};
use iroh_tickets::endpoint::EndpointTicket;
use perennial::TopicId;

pub(crate) mod limits;

/// A topic as the user named it: a name, or the raw id of any iroh-gossip application's topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicName {
    pub(crate) id: TopicId,
    /// The name, where one was given. An id cannot be turned back into it.
    pub(crate) name: Option<String>,
}

impl FromStr for TopicName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a topic is a name or 64 hex digits, not nothing".into());
        }
        if text.len() == 64
            && let Ok(bytes) = HEXLOWER_PERMISSIVE.decode(text.as_bytes())
        {
            let bytes: [u8; 32] = bytes.try_into().expect("64 hex digits are 32 bytes");
            return Ok(Self { id: TopicId::from_bytes(bytes), name: None });
        }
        Ok(Self { id: TopicId::from_bytes(*blake3::hash(text.as_bytes()).as_bytes()), name: Some(text.to_owned()) })
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => f.write_str(&topic_hex(self.id)),
        }
    }
}

/// A topic's id as 64 hex digits, the form every interface uses.
pub(crate) fn topic_hex(topic: TopicId) -> String {
    HEXLOWER.encode(topic.as_bytes())
}

/// A remote: a ticket, `ID@IP:PORT[,IP:PORT]`, or a bare id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerName(pub(crate) EndpointAddr);

impl FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((id, addrs)) = text.split_once('@') {
            let mut peer = EndpointAddr::new(endpoint_id(id)?);
            for addr in addrs.split(',') {
                let addr: SocketAddr =
                    addr.parse().map_err(|_| format!("`{addr}` is not an address; expected IP:PORT"))?;
                if addr.port() == 0 {
                    return Err(format!("`{addr}` has port 0, which nobody listens on"));
                }
                peer = peer.with_ip_addr(addr);
            }
            return Ok(Self(peer));
        }
        if let Ok(ticket) = EndpointTicket::from_str(text) {
            return Ok(Self(ticket.endpoint_addr().clone()));
        }
        match endpoint_id(text) {
            Ok(id) => Ok(Self(EndpointAddr::new(id))),
            Err(_) => Err(format!("`{text}` is neither a ticket, nor ID@IP:PORT, nor an id of 64 hex digits")),
        }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", EndpointTicket::new(self.0.clone()))
    }
}

fn endpoint_id(text: &str) -> Result<EndpointId, String> {
    EndpointId::from_str(text).map_err(|_| format!("`{text}` is not an id; expected 64 hex digits"))
}

/// The first ten hex digits of an id: enough to recognise a node on a screen.
pub(crate) fn short(id: impl fmt::Display) -> String {
    let mut text = id.to_string();
    text.truncate(10);
    text
}

/// Parses the address of a listener. A bare IP means a free port.
fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = SocketAddr::from_str(text) {
        return Ok(addr);
    }
    IpAddr::from_str(text)
        .map(|ip| SocketAddr::new(ip, 0))
        .map_err(|_| format!("`{text}` is not an address; expected IP:PORT such as 0.0.0.0:4433, or an IP"))
}

/// Which relays to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RelayName {
    Default,
    Disabled,
    Url(RelayUrl),
}

impl RelayName {
    pub(crate) fn mode(&self) -> RelayMode {
        match self {
            RelayName::Default => RelayMode::Default,
            RelayName::Disabled => RelayMode::Disabled,
            RelayName::Url(url) => RelayMode::custom([url.clone()]),
        }
    }
}

impl FromStr for RelayName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(RelayName::Default),
            "disabled" => Ok(RelayName::Disabled),
            url if url.starts_with("http://") || url.starts_with("https://") => {
                RelayUrl::from_str(url).map(RelayName::Url).map_err(|error| format!("`{url}` is not a URL: {error}"))
            }
            other => Err(format!("`{other}` is not a relay; expected default, disabled, or a URL with https://")),
        }
    }
}

/// Parses `5s`, `500ms`, `2m` or plain seconds.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    use std::time::Duration;
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let wrong = || format!("`{text}` is not a duration; expected a number with ms, s or m, such as 5s");
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    // An hour is more than anybody waits for a command; beyond it a typo is likelier.
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(wrong()),
    };
    if duration > Duration::from_secs(3600) {
        return Err(format!("`{text}` is more than an hour"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ID: &str = "ae58ff8833241ac82d6ff7611046ed67b5072d142c588d0063e942d9a75502b6";

    #[test]
    fn a_topic_name_is_hashed_and_an_id_is_taken_as_it_is() {
        let named: TopicName = "chat".parse().unwrap();
        assert_eq!(named.id.as_bytes(), blake3::hash(b"chat").as_bytes());
        assert_eq!(named.to_string(), "chat");

        let raw: TopicName = ID.to_uppercase().parse().unwrap();
        assert_eq!((topic_hex(raw.id).as_str(), raw.name), (ID, None));
        assert_eq!(topic_hex(named.id).parse::<TopicName>().unwrap().id, named.id);
    }

    #[test]
    fn sixty_four_letters_that_are_not_hex_are_a_name() {
        let text = "z".repeat(64);
        assert_eq!(text.parse::<TopicName>().unwrap().name, Some(text));
        assert!("".parse::<TopicName>().is_err());
    }

    #[test]
    fn a_peer_may_be_a_ticket_an_id_with_addresses_or_an_id() {
        let full: PeerName = format!("{ID}@127.0.0.1:4433,[::1]:4434").parse().unwrap();
        assert_eq!(full.0.ip_addrs().count(), 2);
        assert_eq!(full.to_string().parse::<PeerName>().unwrap(), full, "through a ticket and back");
        let bare: PeerName = ID.parse().unwrap();
        assert_eq!((bare.0.id, bare.0.is_empty()), (full.0.id, true));
    }

    #[test]
    fn a_wrong_peer_says_what_would_be_right() {
        let wrong = |text: &str| text.parse::<PeerName>().unwrap_err();
        assert_eq!(wrong("hello"), "`hello` is neither a ticket, nor ID@IP:PORT, nor an id of 64 hex digits");
        assert_eq!(wrong("hello@1.2.3.4:5"), "`hello` is not an id; expected 64 hex digits");
        assert_eq!(wrong(&format!("{ID}@localhost:5")), "`localhost:5` is not an address; expected IP:PORT");
        assert!(wrong(&format!("{ID}@127.0.0.1:0")).contains("port 0"));
    }

    #[test]
    fn listen_addresses_relays_and_durations() {
        assert_eq!(listen_addr("127.0.0.1").unwrap().port(), 0);
        assert_eq!(listen_addr("[::]:7").unwrap().port(), 7);
        assert!(listen_addr(":7").is_err());
        assert_eq!("disabled".parse(), Ok(RelayName::Disabled));
        assert!(matches!("https://relay.example".parse(), Ok(RelayName::Url(_))));
        assert!("relay.example".parse::<RelayName>().unwrap_err().contains("https://"));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5"), duration("5s"));
        assert!(duration("5h").is_err() && duration("99999999999999999999").is_err() && duration("61m").is_err());
    }
}
