//! Who may speak on the TCP address: whoever has the token where there is one, and no web page. `[pure]`
//!
//! A page in a browser of this machine can reach a loopback address under a name of its own (DNS rebinding), so a request
//! must name the address or `localhost` as its host, and must not come from another origin.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};

use super::refusal::Refusal;
use crate::exit::Exit;

/// What is demanded of every request.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// Of an address that other machines reach, nobody here knows the names.
    is_loopback: bool,
    /// The hash of the token: comparing hashes takes the same time whatever is wrong.
    token: Option<blake3::Hash>,
}

impl Guard {
    /// The guard of a listener on `address`, with the token it demands, if any.
    pub(crate) fn new(address: SocketAddr, token: Option<&str>) -> Self {
        let token = token.map(|token| blake3::hash(token.as_bytes()));
        Self { is_loopback: address.ip().is_loopback(), token }
    }

    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, &header::HOST);
        if self.is_loopback
            && let Some(host) = host
            && !is_loopback_name(host)
        {
            return Err(foreign(format!(
                "host `{host}` is not this machine; ask by address, such as http://127.0.0.1, or as localhost"
            )));
        }
        if let Some(origin) = text(headers, &header::ORIGIN)
            && origin.strip_prefix("http://").is_none_or(|origin| Some(origin) != host)
        {
            return Err(foreign(format!("requests of web pages are refused; this one is from `{origin}`")));
        }
        self.check_token(headers)
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = self.token else { return Ok(()) };
        let given = text(headers, &header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        match given {
            Some(given) if blake3::hash(given.trim().as_bytes()) == token => Ok(()),
            Some(_) => Err(unauthorized("the token is not the one of this node's --http-token-file")),
            None => Err(unauthorized("a token is needed: send `Authorization: Bearer TOKEN`")),
        }
    }
}

/// A header that is no text is like a header of nonsense.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"))
}

fn is_loopback_name(host: &str) -> bool {
    let Ok(uri) = host.parse::<Uri>() else { return false };
    let Some(name) = uri.host() else { return false };
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

fn foreign(sentence: String) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, Exit::Permission, sentence)
}

fn unauthorized(sentence: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, Exit::Permission, sentence)
}

#[cfg(test)]
mod tests {
    use axum::{http::HeaderValue, response::IntoResponse};

    use super::*;

    #[test]
    fn a_loopback_address_answers_under_its_own_names_only() {
        for host in ["127.0.0.1:8080", "127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:8080"] {
            assert_eq!(loopback(None, &[("host", host)]), Ok(()), "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "", "\u{e9}"]
        {
            assert_eq!(loopback(None, &[("host", host)]), Err(403), "{host}");
        }
        assert_eq!(loopback(None, &[]), Ok(()), "whoever sends none is no browser");
    }

    #[test]
    fn a_page_of_another_origin_is_refused_even_with_the_token() {
        let host = ("host", "127.0.0.1:8080");
        assert_eq!(loopback(None, &[host, ("origin", "http://127.0.0.1:8080")]), Ok(()));
        for origin in ["http://evil.example", "https://127.0.0.1:8080", "http://127.0.0.1:9", "null"] {
            assert_eq!(loopback(None, &[host, ("origin", origin)]), Err(403), "{origin}");
            let with_token = [host, ("origin", origin), ("authorization", "Bearer secret")];
            assert_eq!(loopback(Some("secret"), &with_token), Err(403), "{origin}");
        }
    }

    #[test]
    fn a_token_is_enforced_where_there_is_one() {
        assert_eq!(loopback(Some("secret"), &[]), Err(401));
        assert_eq!(loopback(Some("secret"), &[("authorization", "Bearer wrong")]), Err(401));
        assert_eq!(loopback(Some("secret"), &[("authorization", "Basic secret")]), Err(401));
        assert_eq!(loopback(Some("secret"), &[("authorization", "Bearer secret")]), Ok(()));
    }

    #[test]
    fn an_address_for_other_machines_may_have_any_name() {
        let headers = [("host", "node.example"), ("authorization", "Bearer secret")];
        assert_eq!(check("192.0.2.1:80", Some("secret"), &headers), Ok(()));
    }

    fn loopback(token: Option<&str>, headers: &[(&'static str, &str)]) -> Result<(), u16> {
        check("127.0.0.1:8080", token, headers)
    }

    fn check(address: &str, token: Option<&str>, headers: &[(&'static str, &str)]) -> Result<(), u16> {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        let headers = headers.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect();
        let checked = Guard::new(address.parse().unwrap(), token).check(&headers);
        checked.map_err(|refusal| refusal.into_response().status().as_u16())
    }
}
