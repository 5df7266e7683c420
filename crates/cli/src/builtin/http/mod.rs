//! `http`: one exchange with a server, with everything that it may do bounded.
//!
//! Returns `{"status", "headers", "body"}`: a few headers that are useful to later steps, and the body as JSON where
//! the server says that it is JSON (or says nothing, and it is), else as text. Answers from 400 up are failures with the
//! code `http_<status>` and the kind of [`recache_model::http_status`]; `Retry-After` is honoured in full.
//!
//! Requests to a host with which a secret is shared (`handlers.http_signing`) are signed as webhooks are; their id is the job's, the
//! same at every attempt.

mod publisher;
mod settings;

use std::fmt;
use std::sync::OnceLock;

use async_trait::async_trait;
use recache_model::http_status::error_kind;
use recache_model::job::ErrorKind;
use recache_model::template::SettingProblem;
use recache_model::time::{Clock as _, SystemClock};
use recache_model::webhook::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, signatures};
use recache_worker::{Context, Failure, Handler};
use reqwest::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT,
};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde_json::{Map, Value, json};

use super::Options;
use crate::outbound;
use crate::outbound::address::{AddressRefused, check_literal};
pub(super) use publisher::HttpPublisher;
use settings::Request;

/// Largest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// The headers of an answer that are kept.
const HEADERS_KEPT: [&str; 10] = [
    "cache-control",
    "content-length",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "link",
    "location",
    "x-request-id",
];
/// Longest value of a header that is kept, in bytes.
const HEADER_BYTES_MAX: usize = 2048;

/// Whether the settings can be used.
pub(super) fn check(settings: &Map<String, Value>, options: &Options) -> Result<(), Vec<SettingProblem>> {
    settings::read(settings, options.allow_private_addresses).map(drop)
}

/// The handler.
#[derive(Debug)]
pub(super) struct Http {
    options: Options,
    /// Made at the first request: loading the machine's certificates is not free.
    client: OnceLock<Result<Client, String>>,
}

impl Http {
    pub(super) fn new(options: Options) -> Self {
        Self { options, client: OnceLock::new() }
    }

    fn client(&self) -> Result<&Client, Failure> {
        let made = self.client.get_or_init(|| outbound::client(self.options.allow_private_addresses));
        made.as_ref().map_err(|error| Failure::permanent("http_client", error))
    }

    /// As webhooks are signed, with the secret that is shared with this host and no other. A host that expects these headers
    /// from us never gets what a template says of them.
    fn sign(&self, headers: &mut HeaderMap, url: &Url, id: &str, body: Option<&str>) {
        let secret = url.host_str().and_then(|host| self.options.handlers.http_signing.get(host));
        let Some(secret) = secret else { return };
        let now = SystemClock.now().micros().div_euclid(1_000_000);
        let signature = signatures([secret], id, now, body.unwrap_or_default().as_bytes());
        let signed =
            [(ID_HEADER, id.to_owned()), (TIMESTAMP_HEADER, now.to_string()), (SIGNATURE_HEADER, signature)];
        for (name, value) in signed {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }

    /// `id` names the request to whoever checks its signature, the same at every attempt.
    async fn exchange(&self, request: Request, id: &str) -> Result<Answer, Failure> {
        let client = self.client()?;
        let Request { mut url, mut method, mut headers, mut body, .. } = request;
        for _ in 0..=REDIRECTS_MAX {
            if !self.options.allow_private_addresses {
                check_literal(&url).map_err(|refused| refused_failure(&refused))?;
            }
            self.sign(&mut headers, &url, id, body.as_deref());
            let mut sending = client.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(body) = &body {
                sending = sending.body(body.clone());
            }
            let response = sending
                .send()
                .await
                .map_err(|error| failure(&error, &Named { method: &method, url: &url }))?;
            let Some(next) = redirect(&response, &url)? else {
                return answer(response, &Named { method: &method, url: &url }).await;
            };
            let status = response.status();
            if status == StatusCode::SEE_OTHER && method != Method::HEAD
                || method == Method::POST
                    && matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND)
            {
                method = Method::GET;
                body = None;
                headers.remove(CONTENT_TYPE);
            }
            if next.origin() != url.origin() {
                // Any of them may be a secret that was meant for the first server only.
                headers = harmless(&headers);
            }
            url = next;
        }
        let named = Named { method: &method, url: &url };
        Err(Failure::permanent("too_many_redirects", format!("{named}: more than {REDIRECTS_MAX} redirects")))
    }
}

#[async_trait]
impl Handler for Http {
    async fn run(&self, context: Context, input: Value) -> Result<Value, Failure> {
        let settings = super::settings_of(&context, &input)?;
        let request = settings::read(&settings, self.options.allow_private_addresses)
            .map_err(|problems| super::invalid(&problems))?;
        context.checkpoint().await?;
        let timeout = request.timeout;
        let id = format!("job_{}", context.facts().id);
        tokio::select! {
            why = context.stopped() => Err(Failure::Stopped(why)),
            answer = self.exchange(request, &id) => Ok(answer?.value()),
            () = tokio::time::sleep(timeout) => Err(Failure::Retryable {
                code: Some("http_timeout".to_owned()),
                message: format!("no whole answer within {} ms", timeout.as_millis()),
                after: None,
            }),
        }
    }
}

/// A request as a message names it: without query, which may hold a secret.
struct Named<'a> {
    method: &'a Method,
    url: &'a Url,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}{}", self.method, self.url.origin().ascii_serialization(), self.url.path())
    }
}

fn refused_failure(refused: &AddressRefused) -> Failure {
    Failure::permanent("address_refused", refused)
}

/// What a failed call means.
fn failure(error: &reqwest::Error, named: &Named<'_>) -> Failure {
    let cause = match outbound::cause(error) {
        Ok(cause) => cause,
        Err(refused) => return refused_failure(&refused),
    };
    let message = format!("{named}: {cause}");
    if error.is_builder() {
        return Failure::permanent("http_request", message);
    }
    let code = if error.is_connect() { "http_connect" } else { "http_connection" };
    Failure::Retryable { code: Some(code.to_owned()), message, after: None }
}

/// Where the answer sends the request, if anywhere.
fn redirect(response: &Response, from: &Url) -> Result<Option<Url>, Failure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let refuse = |why: &str| Err(Failure::permanent("redirect_refused", format!("redirect refused: {why}")));
    let Ok(Ok(next)) = location.to_str().map(|location| from.join(location)) else {
        return refuse("its location is not a URL");
    };
    if !matches!(next.scheme(), "http" | "https") {
        return refuse(&format!("its scheme is `{}`", next.scheme()));
    }
    if !next.username().is_empty() || next.password().is_some() {
        return refuse("it holds a user name or password");
    }
    Ok(Some(next))
}

/// The headers that another server may see.
fn harmless(headers: &HeaderMap) -> HeaderMap {
    let kept = [ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT];
    kept.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

/// An answer that is no failure.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: Map<String, Value>,
    /// The server says so, or says nothing.
    may_be_json: bool,
    body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, where it is.
    fn json(&self) -> Option<Value> {
        if self.may_be_json { serde_json::from_slice(&self.body).ok() } else { None }
    }

    /// What the handler returns.
    fn value(&self) -> Value {
        let body =
            self.json().unwrap_or_else(|| Value::String(String::from_utf8_lossy(&self.body).into_owned()));
        json!({ "status": self.status.as_u16(), "headers": self.headers, "body": body })
    }
}

async fn answer(response: Response, named: &Named<'_>) -> Result<Answer, Failure> {
    let status = response.status();
    if let Some(kind) = error_kind(status.as_u16()) {
        return Err(refusal(&response, kind, named));
    }
    let headers = kept_headers(response.headers());
    let content_type = response.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let may_be_json = content_type.is_none_or(is_json);
    let body = read_body(response, named).await?;
    Ok(Answer { status, headers, may_be_json, body })
}

fn refusal(response: &Response, kind: ErrorKind, named: &Named<'_>) -> Failure {
    let status = response.status();
    let code = format!("http_{}", status.as_u16());
    let message = format!("{named} answered {status}");
    if kind == ErrorKind::Permanent {
        return Failure::permanent(code, message);
    }
    Failure::Retryable { code: Some(code), message, after: outbound::asked_to_wait(response) }
}

fn kept_headers(headers: &HeaderMap) -> Map<String, Value> {
    HEADERS_KEPT
        .iter()
        .filter_map(|name| {
            let value = headers.get(*name)?.to_str().ok().filter(|value| value.len() <= HEADER_BYTES_MAX)?;
            Some(((*name).to_owned(), Value::from(value)))
        })
        .collect()
}

/// `application/json`, or a type built on it, such as `application/problem+json`.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

async fn read_body(mut response: Response, named: &Named<'_>) -> Result<Vec<u8>, Failure> {
    let too_large = || {
        let message = format!("{named}: the answer is larger than {BODY_BYTES_MAX} bytes");
        Err(Failure::permanent("http_body_too_large", message))
    };
    if response
        .content_length()
        .is_some_and(|bytes| usize::try_from(bytes).map_or(true, |bytes| bytes > BODY_BYTES_MAX))
    {
        return too_large();
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error, named))? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return too_large();
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;

    use recache_worker::testing::{Settlement, TestJob};
    use recache_worker::{Handlers, Registered};

    use super::*;
    use crate::outbound::rebinding::Rebound;

    #[test]
    fn json_is_known_by_its_type() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert!(is_json(json), "{json}");
        }
        for text in ["text/plain", "application/jsonl", "text/html; a=application/json", ""] {
            assert!(!is_json(text), "{text}");
        }
    }

    /// A public server, as far as the handler can know, sends it to this machine.
    #[tokio::test]
    async fn redirect_to_a_private_address_is_refused_by_number_and_by_name() {
        for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "169.254.169.254", "localhost"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: http://{host}:{}/\r\ncontent-length: 0\r\n\r\n",
                address.port()
            );
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            });
            let client = Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .dns_resolver(crate::outbound::address::PublicOnly::of_machine())
                .resolve("public.example", address)
                .build()
                .unwrap();
            let http = Http { options: Options::default(), client: OnceLock::from(Ok(client)) };
            let settings = json!({ "url": format!("http://public.example:{}/", address.port()) });
            let request = settings::read(settings.as_object().unwrap(), false).unwrap();
            match http.exchange(request, "job_1").await {
                Err(Failure::Permanent { code, .. }) => assert_eq!(code, "address_refused", "{host}"),
                other => panic!("{host}: {other:?}"),
            }
            server.join().unwrap();
        }
    }

    /// Judged and used are one look: what it says afterwards gains nothing.
    #[tokio::test]
    async fn name_that_is_rebound_never_leads_inside() {
        let rebound = Rebound::start().await;
        let http = Http { options: Options::default(), client: OnceLock::from(Ok(rebound.client())) };
        let mut handlers = Handlers::new();
        handlers.register("http", Registered::Job(Arc::new(http))).unwrap();
        let settings = json!({ "url": rebound.url(), "timeout_seconds": 1 });
        let first = TestJob::new("http").input(&settings).run(&handlers).await;
        assert!(matches!(first.settlement, Settlement::Retrying { .. }), "{:?}", first.settlement);
        let again = first.next_attempt().unwrap().run(&handlers).await;
        assert_eq!(again.code(), Some("address_refused"), "{:?}", again.settlement);
        rebound.assert_untouched(2).await;
    }

    /// Answers each request with the next answer; hands out what it was sent.
    fn server(listener: TcpListener, answers: Vec<String>) -> std::thread::JoinHandle<Vec<String>> {
        std::thread::spawn(move || {
            answers
                .into_iter()
                .map(|answer| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut bytes = [0; 4096];
                    let read = stream.read(&mut bytes).unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                    String::from_utf8_lossy(&bytes[..read]).into_owned()
                })
                .collect()
        })
    }

    #[tokio::test]
    async fn the_host_that_shares_a_secret_gets_a_signature_and_no_other_does() {
        let (ours, other) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (at, other_at) = (ours.local_addr().unwrap(), other.local_addr().unwrap());
        let moved = format!(
            "HTTP/1.1 307 Moved\r\nlocation: http://other.example:{}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            other_at.port()
        );
        let fine = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned();
        let (ours, other) = (server(ours, vec![moved]), server(other, vec![fine]));
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .resolve("billing.example", at)
            .resolve("other.example", other_at)
            .build()
            .unwrap();
        let secret: recache_model::webhook::Secret =
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let handlers = crate::config::HandlersConfig {
            http_signing: [("billing.example".to_owned(), secret.clone())].into(),
            ..crate::config::HandlersConfig::default()
        };
        let options = Options { handlers: std::sync::Arc::new(handlers), ..Options::default() };
        let http = Http { options, client: OnceLock::from(Ok(client)) };
        let settings = json!({
            "url": format!("http://billing.example:{}/charge", at.port()), "method": "POST", "body": { "n": 1 },
            "headers": { "webhook-id": "forged", "webhook-signature": "v1,forged" },
        });
        let request = settings::read(settings.as_object().unwrap(), false).unwrap();
        http.exchange(request, "job_7").await.unwrap();
        let sent = ours.join().unwrap().remove(0);
        let header = |name: &str| {
            let lines = sent.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(header(ID_HEADER), ["job_7"]);
        let at: i64 = header(TIMESTAMP_HEADER)[0].parse().unwrap();
        let signature = header(SIGNATURE_HEADER);
        assert!(signature.len() == 1 && !sent.contains("forged"), "{sent}");
        let body = b"{\"n\":1}";
        assert!(recache_model::webhook::is_signed_by(&secret, &signature[0], "job_7", at, body), "{sent}");
        let sent = other.join().unwrap().remove(0);
        assert!(!sent.contains("webhook-"), "{sent}");
    }
}
