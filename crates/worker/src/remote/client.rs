//! One request after the other until it is answered: pauses that grow, with chance, and the next server when one is silent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recache_api::{Problem, WorkerSession};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{RemoteError, ServerOptions};

/// The first pause; doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// An answer is waited for so much longer than the server was asked to wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    servers: Vec<String>,
    token: Option<String>,
    /// Which of them is asked.
    place: AtomicUsize,
}

/// A session's path and secret.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) path: String,
    pub(super) secret: String,
}

impl Session {
    pub(super) fn of(opened: &WorkerSession) -> Self {
        Self { path: format!("/v1/workers/{}", opened.session), secret: opened.secret.clone() }
    }
}

/// What one try brought.
enum Tried<T> {
    Answered(T),
    /// Try again, not before this.
    Later(Option<Duration>),
    Refused(RemoteError),
}

impl Client {
    pub(super) fn new(options: &ServerOptions) -> Result<Self, RemoteError> {
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            .connect_timeout(Duration::from_secs(2))
            .build()
            .map_err(|error| RemoteError::Invalid(error.to_string()))?;
        let servers: Vec<String> =
            options.servers.iter().map(|server| server.trim_end_matches('/').to_owned()).collect();
        Ok(Self { http, servers, token: options.token.clone(), place: AtomicUsize::new(0) })
    }

    /// Repeated until there is an answer, or a refusal that would be the same again.
    pub(super) async fn send<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        session: Option<&Session>,
        body: &B,
        wait: Duration,
    ) -> Result<T, RemoteError> {
        let mut pause = PAUSE;
        loop {
            match self.try_send(method.clone(), path, session, body, wait).await {
                Tried::Answered(answer) => return Ok(answer),
                Tried::Refused(error) => return Err(error),
                Tried::Later(asked) => {
                    self.place.fetch_add(1, Ordering::Relaxed);
                    let by_chance = pause.mul_f64(0.5 + rand::random::<f64>());
                    tokio::time::sleep(asked.map_or(by_chance, |asked| asked.min(PAUSE_MAX))).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn try_send<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        session: Option<&Session>,
        body: &B,
        wait: Duration,
    ) -> Tried<T> {
        let place = self.place.load(Ordering::Relaxed) % self.servers.len();
        let url = format!("{}{path}", self.servers[place]);
        let mut request = self.http.request(method, url).timeout(wait + ANSWER_WITHIN).json(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(session) = session {
            request = request.header(WorkerSession::SECRET_HEADER, &session.secret);
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "no answer from the server; the call is repeated");
                return Tried::Later(None);
            }
        };
        let status = answer.status();
        let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let Ok(text) = answer.bytes().await else { return Tried::Later(None) };
        if status.is_success() {
            return match serde_json::from_slice(&text) {
                Ok(answer) => Tried::Answered(answer),
                Err(error) => Tried::Refused(RemoteError::Refused {
                    status: status.as_u16(),
                    code: "unreadable".to_owned(),
                    detail: format!("the answer cannot be read: {error}"),
                }),
            };
        }
        if status.is_server_error() || status.as_u16() == 429 {
            tracing::warn!(%status, "the server cannot do it now; the call is repeated");
            return Tried::Later(after.map(Duration::from_secs));
        }
        let problem: Option<Problem> = serde_json::from_slice(&text).ok();
        Tried::Refused(RemoteError::Refused {
            status: status.as_u16(),
            code: problem.as_ref().map_or_else(|| "unknown".to_owned(), |problem| problem.code.clone()),
            detail: problem
                .map_or_else(|| String::from_utf8_lossy(&text).into_owned(), |problem| problem.detail),
        })
    }
}
