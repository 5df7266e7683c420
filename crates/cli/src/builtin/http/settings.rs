//! The settings of an `http` step.

use std::time::Duration;

use recache_model::template::SettingProblem;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::{Map, Value};

use super::super::settings::Reader;
use crate::outbound::address::check_literal;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// The longest that a whole exchange may be allowed to take.
const TIMEOUT_SECONDS_MAX: f64 = 3_600.0;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Set by the connection itself; a template's own would contradict it.
const HEADERS_REFUSED: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "upgrade"];

/// What to send.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<String>,
    /// For the whole exchange, redirects and body included.
    pub(super) timeout: Duration,
}

/// Reads the settings.
pub(super) fn read(
    settings: &Map<String, Value>,
    allow_private_addresses: bool,
) -> Result<Request, Vec<SettingProblem>> {
    let known = &["url", "method", "headers", "body", "timeout_seconds"];
    let mut reader = Reader::new("http", settings, known);
    let url = read_url(&mut reader, allow_private_addresses);
    let method = read_method(&mut reader);
    let mut headers = read_headers(&mut reader);
    let body = reader.get("body").map(|body| match body {
        Value::String(text) => text.clone(),
        other => {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
            other.to_string()
        }
    });
    let timeout = match reader.number("timeout_seconds", TIMEOUT_SECONDS_MAX) {
        None => Some(TIMEOUT_DEFAULT),
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero()),
    };
    if timeout.is_none() {
        reader.refuse("timeout_seconds", "it must be more than 0", None);
    }
    let request = match (url, method, timeout) {
        (Some(url), Some(method), Some(timeout)) => Some(Request { url, method, headers, body, timeout }),
        _ => None,
    };
    reader.finish(request)
}

fn read_url(reader: &mut Reader<'_>, allow_private_addresses: bool) -> Option<Url> {
    if reader.get("url").is_none() {
        reader.refuse_all("lacks `url`", Some("give the address, such as https://example.com/prices"));
        return None;
    }
    let text = reader.text("url")?;
    // A refusal does not repeat the URL: it may hold a secret.
    let mut refuse = |why: String, help: &str| {
        reader.refuse_unseen("url", &format!("cannot use its `url`: {why}"), Some(help));
        None
    };
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => return refuse(error.to_string(), "write it whole, such as https://example.com/prices"),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse(format!("its scheme is `{}`", url.scheme()), "use http or https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(
            "it holds a user name or password".to_owned(),
            "send an `authorization` header instead",
        );
    }
    if !allow_private_addresses && let Err(refused) = check_literal(&url) {
        return refuse(refused.to_string(), "name a public address");
    }
    Some(url)
}

fn read_method(reader: &mut Reader<'_>) -> Option<Method> {
    if reader.get("method").is_none() {
        return Some(Method::GET);
    }
    let word = reader.text("method")?.to_ascii_uppercase();
    let method = METHODS.contains(&word.as_str()).then(|| Method::from_bytes(word.as_bytes()).ok()).flatten();
    if method.is_none() {
        reader.refuse("method", "there is no such method here", Some(&format!("use {}", METHODS.join(", "))));
    }
    method
}

fn read_headers(reader: &mut Reader<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(given) = reader.get("headers") else { return headers };
    let Some(given) = given.as_object() else {
        reader.refuse_unseen("headers", "cannot use its `headers`: they must map names to text", None);
        return headers;
    };
    for (name, value) in given {
        // The value may be a secret, so it is never repeated.
        let mut refuse = |why: &str| {
            reader.refuse_unseen("headers", &format!("cannot send header {name:?}: {why}"), None);
        };
        let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
            refuse("it is not a header's name");
            continue;
        };
        if HEADERS_REFUSED.contains(&parsed.as_str()) {
            refuse("it is set by the connection");
            continue;
        }
        match value.as_str().map(HeaderValue::from_str) {
            Some(Ok(value)) => {
                headers.insert(parsed, value);
            }
            Some(Err(_)) => refuse("its value holds characters that no header may have"),
            None => refuse("its value must be text"),
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(settings: &Value) -> Result<Request, String> {
        read(settings.as_object().unwrap(), false)
            .map_err(|problems| problems.into_iter().map(|one| one.message + "\n").collect())
    }

    #[test]
    fn settings_become_a_request() {
        let request = told(&json!({
            "url": "https://example.com/a?b=c", "method": "post", "headers": { "x-a": "1" },
            "body": { "n": 1 }, "timeout_seconds": 0.5,
        }))
        .unwrap();
        assert_eq!((request.method, request.timeout), (Method::POST, Duration::from_millis(500)));
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.body.as_deref(), Some("{\"n\":1}"));
        let plain = told(&json!({ "url": "http://example.com", "body": "as it is" })).unwrap();
        assert_eq!((plain.method, plain.body.as_deref()), (Method::GET, Some("as it is")));
        assert!(plain.headers.is_empty());
    }

    #[test]
    fn wrong_settings_are_told_without_their_secrets() {
        for (settings, part) in [
            (json!({}), "lacks `url`"),
            (json!({ "url": "example.com/hunter2" }), "relative URL"),
            (json!({ "url": "ftp://example.com/hunter2" }), "scheme is `ftp`"),
            (json!({ "url": "file:///etc/passwd" }), "scheme is `file`"),
            (json!({ "url": "http://u:hunter2@example.com/" }), "user name or password"),
            (json!({ "url": "http://10.0.0.1/?k=hunter2" }), "not a public address"),
            (json!({ "url": "http://example.com/", "method": "TRACE" }), "no such method"),
            (json!({ "url": "http://example.com/", "headers": { "a b": "hunter2" } }), "not a header's name"),
            (json!({ "url": "http://example.com/", "headers": { "a": "hunter2\n" } }), "characters"),
            (
                json!({ "url": "http://example.com/", "headers": { "Host": "hunter2" } }),
                "set by the connection",
            ),
            (json!({ "url": "http://example.com/", "timeout_seconds": 0 }), "more than 0"),
        ] {
            let said = told(&settings).unwrap_err();
            assert!(said.contains(part) && !said.contains("hunter2"), "{settings}: {said}");
        }
    }
}
