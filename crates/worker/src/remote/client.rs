//! One request after the other until it is answered: pauses that grow, with chance, and the next server when one is silent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recache_api::{Problem, WorkerSession};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{RemoteError, ServerOptions};

/// The first pause; doubles up to [`Patience::pause_max`].
const PAUSE: Duration = Duration::from_millis(50);

/// How long a call waits for what may never come. All of it is a part of the lease: a worker that waits for a server that is frozen, or
/// between two tries, is not heard of meanwhile, and must not lose its session by waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Patience {
    /// Between two tries, whatever the server asks for.
    pause_max: Duration,
    /// For an answer, beyond the time that the server was asked to wait. Doubles with every try that had none in time, up to
    /// [`Patience::ANSWER_WITHIN_MAX`]: what takes a busy server longer must come to its end, too.
    answer_within: Duration,
}

impl Patience {
    const ANSWER_WITHIN_MAX: Duration = Duration::from_secs(30);

    fn of_lease(lease: Duration) -> Self {
        let part = lease / 3;
        Self {
            pause_max: part.clamp(PAUSE, Duration::from_secs(2)),
            answer_within: part.clamp(Duration::from_millis(500), Duration::from_secs(5)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    servers: Vec<String>,
    token: Option<String>,
    patience: Patience,
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
    /// No answer came in time.
    Silence,
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
        Ok(Self {
            http,
            servers,
            token: options.token.clone(),
            patience: Patience::of_lease(options.lease),
            place: AtomicUsize::new(0),
        })
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
        let Patience { pause_max, mut answer_within } = self.patience;
        let mut pause = PAUSE.min(pause_max);
        loop {
            let asked = match self.try_send(method.clone(), path, session, body, wait + answer_within).await {
                Tried::Answered(answer) => return Ok(answer),
                Tried::Refused(error) => return Err(error),
                Tried::Later(asked) => asked,
                Tried::Silence => {
                    answer_within = (answer_within * 2).min(Patience::ANSWER_WITHIN_MAX);
                    None
                }
            };
            self.place.fetch_add(1, Ordering::Relaxed);
            let by_chance = pause.mul_f64(0.5 + rand::random::<f64>());
            tokio::time::sleep(asked.unwrap_or(by_chance).min(pause_max)).await;
            pause = (pause * 2).min(pause_max);
        }
    }

    async fn try_send<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        session: Option<&Session>,
        body: &B,
        within: Duration,
    ) -> Tried<T> {
        let place = self.place.load(Ordering::Relaxed) % self.servers.len();
        let url = format!("{}{path}", self.servers[place]);
        let mut request = self.http.request(method, url).timeout(within).json(body);
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
                return if error.is_timeout() && !error.is_connect() {
                    Tried::Silence
                } else {
                    Tried::Later(None)
                };
            }
        };
        let status = answer.status();
        let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
        let text = match answer.bytes().await {
            Ok(text) => text,
            Err(error) if error.is_timeout() => return Tried::Silence,
            Err(_) => return Tried::Later(None),
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_with_two_silent_servers_is_heard_of_within_its_lease() {
        for lease_ms in [1_500, 3_000, 10_000, 60_000] {
            let lease = Duration::from_millis(lease_ms);
            let Patience { pause_max, answer_within } = Patience::of_lease(lease);
            // A call that waits a third of the lease, its silence, and the pause after it.
            let unheard = answer_within + pause_max.min(PAUSE.mul_f64(1.5));
            assert!(unheard <= lease / 2, "{lease:?}: {unheard:?}");
            assert!(pause_max <= lease / 3);
        }
        assert_eq!(Patience::of_lease(Duration::from_mins(10)).pause_max, Duration::from_secs(2));
    }
}
