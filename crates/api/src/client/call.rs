//! One call: sent, repeated while that is safe and may help, and read.

use std::time::Duration;

use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::{Client, Error, Result};
use crate::problem::Problem;

/// The first pause before a call is repeated; doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What one try brought.
pub(super) enum Tried {
    Answered(Vec<u8>),
    /// It may go better later; not before so long.
    Later(Error, Option<Duration>),
    Failed(Error),
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    segments: Vec<String>,
    query: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    /// Of the body.
    kind: &'static str,
    key: Option<String>,
    is_keyless: bool,
    /// A document with status 503 is an answer, which says no.
    is_verdict: bool,
    wait: Option<Duration>,
}

impl Call {
    fn new(method: Method, segments: &[&str]) -> Self {
        let segments = segments.iter().map(|&segment| segment.to_owned()).collect();
        Self {
            method,
            segments,
            query: Vec::new(),
            body: None,
            kind: "application/json",
            key: None,
            is_keyless: false,
            is_verdict: false,
            wait: None,
        }
    }

    pub(super) fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    pub(super) fn post(segments: &[&str], body: &impl Serialize) -> Result<Self> {
        Self::new(Method::POST, segments).with_body(body)
    }

    pub(super) fn put(segments: &[&str], body: &impl Serialize) -> Result<Self> {
        Self::new(Method::PUT, segments).with_body(body)
    }

    /// With a text as it is.
    pub(super) fn put_text(segments: &[&str], kind: &'static str, text: &str) -> Self {
        Self { body: Some(text.as_bytes().to_vec()), kind, ..Self::new(Method::PUT, segments) }
    }

    /// The same as a question.
    pub(super) fn post_text(segments: &[&str], kind: &'static str, text: &str) -> Self {
        Self { body: Some(text.as_bytes().to_vec()), kind, ..Self::new(Method::POST, segments) }
    }

    pub(super) fn delete(segments: &[&str]) -> Self {
        Self::new(Method::DELETE, segments)
    }

    /// Without a body, for what needs none.
    pub(super) fn post_empty(segments: &[&str]) -> Self {
        Self::new(Method::POST, segments)
    }

    fn with_body(mut self, body: &impl Serialize) -> Result<Self> {
        let text = serde_json::to_vec(body).map_err(|error| Error::Invalid(error.to_string()))?;
        self.body = Some(text);
        Ok(self)
    }

    /// With the fields of a flat document as parameters; those that are `null` are left out.
    pub(super) fn query(mut self, query: &impl Serialize) -> Result<Self> {
        let value = serde_json::to_value(query).map_err(|error| Error::Invalid(error.to_string()))?;
        for (name, value) in value.as_object().into_iter().flatten() {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            self.query.push((name.clone(), text));
        }
        Ok(self)
    }

    /// The answer may wait so long for what it is about.
    pub(super) fn wait(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// With this idempotency key rather than one that is made.
    pub(super) fn key(mut self, key: Option<String>) -> Self {
        self.key = key;
        self
    }

    /// Without an idempotency key: repeating it asks for the same once more, and keeping its answer would cost more than it does.
    pub(super) fn without_key(mut self) -> Self {
        self.is_keyless = true;
        self
    }

    /// It asks for a verdict: "no" is an answer too.
    pub(super) fn verdict(mut self) -> Self {
        self.is_verdict = true;
        self
    }

    pub(super) fn url(&self, server: &Url) -> Result<Url> {
        let mut url = server.clone();
        if let Some(odd) = self.segments.iter().find(|segment| matches!(segment.as_str(), "" | "." | "..")) {
            // Parsers of URLs resolve these: they would name something else.
            return Err(Error::Invalid(format!("`{odd}` cannot be named in a path")));
        }
        url.path_segments_mut()
            .map_err(|()| Error::Invalid(format!("`{server}` is no URL of a server")))?
            .pop_if_empty()
            .extend(&self.segments);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

impl Client {
    /// Sends the call until it is answered, or the patience ends.
    pub(super) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T> {
        let body = self.bytes(call).await?;
        serde_json::from_slice(&body).map_err(|error| self.unreadable(&error.to_string()))
    }

    /// The same for an answer that is text.
    pub(super) async fn text(&self, call: Call) -> Result<String> {
        let body = self.bytes(call).await?;
        String::from_utf8(body).map_err(|error| self.unreadable(&error.to_string()))
    }

    /// The same, as it came.
    async fn bytes(&self, mut call: Call) -> Result<Vec<u8>> {
        let url = call.url(&self.server)?;
        if call.method != Method::GET && call.key.is_none() && !call.is_keyless {
            call.key = Some((self.options.make_key)());
        }
        let (deadline, mut pause) = (Instant::now() + self.options.patience, PAUSE);
        loop {
            let (error, after) = match self.try_call(&call, &url).await {
                Tried::Answered(answer) => return Ok(answer),
                Tried::Failed(error) => return Err(error),
                Tried::Later(error, after) => (error, after),
            };
            let pausing = after.unwrap_or(pause).min(PAUSE_MAX);
            if Instant::now() + pausing >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pausing).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_call(&self, call: &Call, url: &Url) -> Tried {
        let within = self.options.answer_within + call.wait.unwrap_or_default();
        let mut request = self.http.request(call.method.clone(), url.clone()).timeout(within);
        if let Some(token) = &self.options.token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = &call.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(wait) = call.wait {
            // Rounded up: whoever would wait a little waits a second rather than not at all.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            request = request.header("prefer", format!("wait={}", seconds.min(u64::from(u32::MAX))));
        }
        if let Some(body) = &call.body {
            request = request.header("content-type", call.kind).body(body.clone());
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_builder() => return Tried::Failed(Error::Invalid(error.to_string())),
            Err(error) => return Tried::Later(self.unreachable(&error), None),
        };
        let status = answer.status();
        let after = retry_after(&answer);
        let kind = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default().to_owned();
        let body = match answer.bytes().await {
            Ok(body) => body,
            Err(error) => return Tried::Later(self.unreachable(&error), None),
        };
        if status.is_success() {
            return Tried::Answered(body.into());
        }
        let is_verdict = call.is_verdict && kind.starts_with("application/json");
        if is_verdict && status == StatusCode::SERVICE_UNAVAILABLE {
            return Tried::Answered(body.into());
        }
        self.refused(status, after, &body)
    }

    /// What an answer that is none says, and whether it helps to ask again.
    pub(super) fn refused(&self, status: StatusCode, after: Option<u64>, body: &[u8]) -> Tried {
        let Ok(problem) = serde_json::from_slice::<Problem>(body) else {
            let error = self.unreadable(&format!("it has status {status} and is no problem document"));
            // What stands between may have no server behind it just now.
            return if is_passing(status) { Tried::Later(error, None) } else { Tried::Failed(error) };
        };
        // Done within its time, which was long: once more would take as long.
        let is_passing = is_passing(status) && problem.code != "timed_out" || problem.code == "in_progress";
        let error = Error::Refused(Box::new(problem));
        if is_passing { Tried::Later(error, after.map(Duration::from_secs)) } else { Tried::Failed(error) }
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> Error {
        Error::Unreachable { server: self.server.to_string(), reason: root_of(error) }
    }

    pub(super) fn unreadable(&self, reason: &str) -> Error {
        Error::Unreadable { server: self.server.to_string(), reason: reason.to_owned() }
    }
}

/// After how many seconds to come again, where the server says so.
pub(super) fn retry_after(answer: &Response) -> Option<u64> {
    answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok())
}

/// It may be otherwise in a moment.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The innermost reason, which is the one that says something.
fn root_of(error: &reqwest::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    if error.is_timeout() { "it took too long".to_owned() } else { source.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(call: &Call, server: &str) -> String {
        call.url(&Url::parse(server).unwrap()).unwrap().to_string()
    }

    #[test]
    fn names_are_one_segment_each_whatever_they_hold() {
        let call = Call::get(&["v1", "views", "a b", "x/y?z%#é"]);
        assert_eq!(url(&call, "http://h:1"), "http://h:1/v1/views/a%20b/x%2Fy%3Fz%25%23%C3%A9");
        assert_eq!(url(&call, "http://h/below/"), "http://h/below/v1/views/a%20b/x%2Fy%3Fz%25%23%C3%A9");
        for odd in ["", ".", ".."] {
            assert!(Call::get(&["v1", odd]).url(&Url::parse("http://h").unwrap()).is_err(), "{odd}");
        }
    }

    #[test]
    fn fields_without_a_value_are_no_parameters() {
        let query =
            serde_json::json!({ "state": "failed", "limit": 7, "namespace": null, "unfinished": true });
        let call = Call::get(&["v1", "jobs"]).query(&query).unwrap();
        assert_eq!(url(&call, "http://h"), "http://h/v1/jobs?limit=7&state=failed&unfinished=true");
    }
}
