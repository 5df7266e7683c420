//! `Idempotency-Key`: a write that is repeated with its key is carried out once, and answered as the first time.
//!
//! The key and what was asked for are in the store before the handler runs, its answer after it. Between the two the process may die:
//! the repetition is then carried out again with the *seed* of the first time, from which the handler makes its ids, so that the store
//! finds what is there. A process holds a request only for a moment, and says again and again that it is still at it: a repetition
//! need not wait long for one that died. A refusal that changed nothing is forgotten: the repetition is a new try. A caller that hangs up does not stop
//! a request that has a key; nor one that leaves a row in the audit, which says what became of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, Limited};
use recache_model::unique::key_problem;
use recache_store::request_keys::ANSWER_BYTES_MAX;
use recache_store::{Begun, KeptAnswer, NewRequest};
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::access::Caller;
use crate::input::read_body;
use crate::refusal::{Code, Refusal};
use crate::state::App;

const NAME: &str = "idempotency-key";
/// After so long without a word of the process that carries it out a request may be carried out by another one.
const HOLD: Duration = Duration::from_secs(5);
/// How often that word is given: two may be lost.
const HOLD_AGAIN: Duration = Duration::from_millis(1_600);
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The key, as far as it can be shown.
pub(super) fn key_text(headers: &HeaderMap) -> Option<String> {
    headers.get(NAME).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The request's key, for handlers that make their repetition safe by themselves.
#[derive(Debug, Clone)]
pub(crate) struct Key(pub(crate) Option<String>);

impl FromRequestParts<App> for Key {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        read(&parts.headers).map(Self)
    }
}

/// What a handler makes new ids from: the same in every repetition of a request with a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed(pub(crate) Uuid);

impl FromRequestParts<App> for Seed {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_else(|| Self(Uuid::now_v7())))
    }
}

/// An answer that is not kept for a repetition, because it holds what may be shown only once: the repetition is carried out again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotKept<T>(pub(crate) T);

/// In the extensions of such an answer.
#[derive(Debug, Clone, Copy)]
struct ShownOnce;

impl<T: axum::response::IntoResponse> axum::response::IntoResponse for NotKept<T> {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        response.extensions_mut().insert(ShownOnce);
        response
    }
}

fn read(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let wrong = |message: String| Err(Refusal::field(Code::InvalidParameter, "Idempotency-Key", message));
    let mut given = headers.get_all(NAME).iter();
    let Some(first) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return wrong("is given more than once".to_owned());
    }
    let Ok(key) = first.to_str() else { return wrong("must be plain ASCII".to_owned()) };
    match key_problem("the key", key) {
        Some(problem) => wrong(problem),
        None => Ok(Some(key.to_owned())),
    }
}

/// Around the handler of a write: once it has begun it goes on to its end, whether or not somebody still waits for the answer.
pub(crate) async fn once(request: Request, next: Next) -> Response {
    match read(request.headers()) {
        Ok(Some(key)) => with_key(key, request, next).await,
        Ok(None) => match tokio::spawn(next.run(request).in_current_span()).await {
            Ok(response) => response,
            // The frame says what of it is to be said.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Refusal::unknown().into_response(),
            },
        },
        Err(refusal) => refusal.into_response(),
    }
}

/// The same for what is asked often and leaves no row in the audit: without a key it costs nothing.
pub(crate) async fn once_with_key(request: Request, next: Next) -> Response {
    match read(request.headers()) {
        Ok(Some(key)) => with_key(key, request, next).await,
        Ok(None) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn with_key(key: String, request: Request, next: Next) -> Response {
    // Without the frame around it nothing is carried out.
    let Some(app) = request.extensions().get::<App>().cloned() else {
        return Refusal::internal().into_response();
    };
    match tokio::spawn(carry_out(app, key, request, next).in_current_span()).await {
        Ok(answered) => answered.unwrap_or_else(Refusal::into_response),
        // It panicked, or the process ends: what was done before that is not known.
        Err(_) => Refusal::unknown().into_response(),
    }
}

async fn carry_out(app: App, key: String, request: Request, next: Next) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().map(|caller| caller.actor().to_owned());
    let caller = caller.ok_or_else(Refusal::internal)?;
    let bytes = read_body(body, app.settings()).await?;
    let asked = Instant::now();
    let new = NewRequest {
        caller: caller.clone(),
        key: key.clone(),
        fingerprint: fingerprint(&parts, &bytes),
        seed: Uuid::now_v7(),
        hold: HOLD,
    };
    let keys = app.store().request_keys();
    let seed = match keys.request_begin(new).await? {
        Begun::Now(seed) => seed,
        Begun::Done(answer) => return replay(answer),
        Begun::Running => {
            return Err(Refusal::new(
                Code::InProgress,
                format!("the request with key `{key}` is being carried out"),
            )
            .remedy("repeat it in a moment: the answer will be given then")
            .retry_after(Duration::from_secs(1)));
        }
        Begun::Different => {
            let detail = format!("idempotency key `{key}` was used within 7 days for another request");
            return Err(Refusal::new(Code::KeyReused, detail).remedy("use a new key for a new request"));
        }
    };
    parts.extensions.insert(Seed(seed));
    let held = Mutex::new(asked);
    let holding = async {
        loop {
            tokio::time::sleep(HOLD_AGAIN).await;
            let asked = Instant::now();
            if let Ok(true) = keys.request_hold(&caller, &key, seed, HOLD).await {
                *held.lock().unwrap_or_else(PoisonError::into_inner) = asked;
            }
        }
    };
    let response = tokio::select! {
        response = next.run(Request::from_parts(parts, Body::from(bytes))) => response,
        () = holding => return Err(Refusal::internal()),
    };
    // This process may have been frozen, and another one be at it by now: then what changed nothing here may change something there.
    let is_held = held.into_inner().unwrap_or_else(PoisonError::into_inner).elapsed() < HOLD;
    let (response, noted) = if response.status().is_success() {
        let (response, answer) = keep(response).await?;
        match answer {
            Some(answer) => (response, keys.request_end(&caller, &key, seed, answer).await),
            None => (response, keys.request_release(&caller, &key, seed, false).await),
        }
    } else {
        let is_undone = is_held
            && response.extensions().get::<Refusal>().is_some_and(|refusal| {
                !matches!(refusal.code(), Code::OutcomeUnknown | Code::Internal | Code::TimedOut)
            });
        let released = keys.request_release(&caller, &key, seed, is_undone).await;
        (response, released)
    };
    if let Err(error) = noted {
        // A repetition is then carried out once more, with the same seed.
        tracing::warn!(%error, "the answer to a request with a key was not kept");
    }
    Ok(response)
}

fn fingerprint(parts: &Parts, body: &[u8]) -> String {
    let mut hash = blake3::Hasher::new();
    for part in [parts.method.as_str().as_bytes(), parts.uri.to_string().as_bytes(), body] {
        hash.update(&part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().to_hex().to_string()
}

/// Takes a copy of an answer, unless it is too large to be kept.
async fn keep(response: Response) -> Result<(Response, Option<KeptAnswer>), Refusal> {
    if response.extensions().get::<ShownOnce>().is_some() {
        return Ok((response, None));
    }
    let (parts, body) = response.into_parts();
    // Handlers answer documents that are in memory already.
    let bytes = Limited::new(body, usize::MAX).collect().await.map_err(|_| Refusal::unknown())?.to_bytes();
    let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= ANSWER_BYTES_MAX);
    let answer = text.map(|text| KeptAnswer {
        status: parts.status.as_u16(),
        body: text.to_owned(),
        location: location.map(str::to_owned),
    });
    Ok((Response::from_parts(parts, Body::from(bytes)), answer))
}

fn replay(answer: KeptAnswer) -> Result<Response, Refusal> {
    let status = StatusCode::from_u16(answer.status).map_err(|_| Refusal::internal())?;
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], answer.body).into_response();
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Some(location) = answer.location.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}
