//! Keeps web pages out of a server that asks nobody for credentials.
//!
//! A page from anywhere can make a browser on this machine send requests to loopback addresses, and can give its own name the address
//! 127.0.0.1. The browser says truly where such a request comes from (`Origin`) and what name it was sent to (`Host`): neither is ours.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

use crate::refusal::{Code, Refusal};

/// Refuses what a web page of somebody else's sends. CORS is closed: no answer ever permits another origin.
pub(crate) fn check_origin(headers: &HeaderMap, is_open: bool) -> Result<(), Refusal> {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if is_open && !is_loopback(host) {
        return Err(Refusal::new(Code::Misdirected, "without authentication only loopback names are served")
            .remedy("use 127.0.0.1, [::1] or localhost in the URL, or configure `[auth]`"));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let same = origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host));
    if same {
        return Ok(());
    }
    Err(Refusal::new(Code::Forbidden, "requests of web pages of other origins are refused"))
}

/// Whether `HOST[:PORT]` names this machine and nothing else.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
            _ => return false,
        },
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>, is_open: bool) -> Result<(), Code> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check_origin(&headers, is_open).map_err(|refusal| refusal.code())
    }

    #[test]
    fn open_server_answers_to_loopback_names_only() {
        for host in ["127.0.0.1:7878", "localhost", "LOCALHOST:1", "[::1]:7878", "127.9.9.9"] {
            assert_eq!(check(host, None, true), Ok(()), "{host}");
        }
        for host in [
            "evil.example:7878",
            "",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::1",
            "[::1]x",
            "localhost.evil",
        ] {
            assert_eq!(check(host, None, true), Err(Code::Misdirected), "{host}");
        }
        assert_eq!(check("api.example.com", None, false), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let host = "127.0.0.1:7878";
        assert_eq!(check(host, Some("http://127.0.0.1:7878"), true), Ok(()));
        for origin in
            ["http://evil.example", "null", "http://127.0.0.1:1", "", "http://127.0.0.1:7878.evil.example"]
        {
            assert_eq!(check(host, Some(origin), true), Err(Code::Forbidden), "{origin}");
        }
    }
}
