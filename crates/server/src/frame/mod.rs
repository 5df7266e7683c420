//! What happens around every handler, in this order: the request gets its id, the caller is identified and held to its rate, the
//! request waits for its turn, web pages of others and whoever lacks the permission are kept out, and the handler does its work within its
//! time, whatever happens in it. Then the answer gets its headers, and a refusal its document.

mod admission;
mod answer;
mod once;
mod permit;
mod request_id;
mod trace;

use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

pub(crate) use admission::{Admission, Kind, Turn};
pub(crate) use once::{Key, NotKept, Seed, once, once_with_key};
pub(crate) use permit::permit;
pub(crate) use request_id::RequestId;
pub(crate) use trace::Trace;

use crate::access::Identity;
use crate::refusal::{Code, Refusal};
use crate::state::App;

/// Who sends the request, or why that is not known: only routes that are open to all do not care.
#[derive(Debug, Clone)]
pub(crate) struct Identified(pub(crate) Result<Identity, Refusal>);

/// Refuses what comes while the queue is full, before a route is looked for or anything else is done for it: what a refusal costs is taken
/// from those who are served.
pub(crate) fn shed<B>(app: &App, request: &axum::http::Request<B>) -> Option<Response> {
    let kind = Kind::of(request.method(), Some(request.uri().path()));
    let refusal = app.admission().check(kind).err()?;
    let started = tokio::time::Instant::now();
    app.metrics().shed(kind);
    let id = RequestId::of(request.headers());
    let key = once::key_text(request.headers());
    let ends_connection = request.headers().contains_key(axum::http::header::TRANSFER_ENCODING);
    let response = answer::finish(refusal.into_response(), &id, key.as_deref(), ends_connection);
    app.metrics().answered(request.method(), None, response.status(), started.elapsed());
    Some(response)
}

/// Carries out one request.
pub(crate) async fn frame(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = tokio::time::Instant::now();
    let id = RequestId::of(request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let key = once::key_text(request.headers());
    // A body whose length two readers could see differently ends its connection: nothing that follows it is read.
    let ends_connection = request.headers().contains_key(axum::http::header::TRANSFER_ENCODING);
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(app.clone());

    let trace = Trace::of(request.headers(), app.settings().traces_per_mille);
    request.extensions_mut().insert(trace);
    let span = tracing::info_span!(
        "request",
        request_id = %id,
        %method,
        route = route.as_deref().unwrap_or_default(),
        status = tracing::field::Empty,
        trace_id = tracing::field::Empty,
        span_id = tracing::field::Empty,
        parent_id = tracing::field::Empty,
        sampled = tracing::field::Empty,
    );
    if let Some(own) = trace.own.filter(|_| app.settings().traces_per_mille > 0) {
        span.record("trace_id", own.trace_id());
        span.record("span_id", own.span_id());
        span.record("sampled", own.is_sampled());
        if let Some(parent) = trace.parent {
            span.record("parent_id", parent.span_id());
        }
    }
    let kind = Kind::of(&method, route.as_deref());
    let answered = carry_out(&app, kind, request, next).instrument(span.clone()).await;
    let response = answered.unwrap_or_else(Refusal::into_response);
    span.record("status", response.status().as_u16());
    let response = answer::finish(response, &id, key.as_deref(), ends_connection);
    app.metrics().answered(&method, route, response.status(), started.elapsed());
    response
}

async fn carry_out(app: &App, kind: Kind, mut request: Request, next: Next) -> Result<Response, Refusal> {
    let shed = |refusal| {
        app.metrics().shed(kind);
        refusal
    };
    app.admission().check(kind).map_err(shed)?;
    let identified = app.gate().identify(request.headers()).await;
    if let Ok(identity) = &identified {
        app.rates().take(&identity.name, tokio::time::Instant::now()).map_err(|wait| {
            Refusal::new(Code::TooManyRequests, "more requests than the limit of this caller allows")
                .remedy("ask more slowly, or send several things in one request")
                .retry_after(wait)
        })?;
    }
    request.extensions_mut().insert(Identified(identified));
    let turn = app.admission().admit(kind).await.map_err(shed)?;
    request.extensions_mut().insert(turn.clone());

    let is_write = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let settings = app.settings();
    // A wait stands outside of a request's own time, a body that is slow to come has a limit of its own.
    let limit = settings.request_max + settings.wait_max + settings.body_wait_max;
    let running = AssertUnwindSafe(next.run(request)).catch_unwind();
    let answered = tokio::time::timeout(limit, running).await;
    drop(turn);
    match answered {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(panic)) => {
            let said = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(panic = %said, "a handler panicked");
            Err(Refusal::internal())
        }
        // The store may have committed by now.
        Err(_) if is_write => Err(Refusal::unknown()),
        Err(_) => {
            let detail = format!("it was not done within {} s", limit.as_secs());
            Err(Refusal::new(Code::TimedOut, detail))
        }
    }
}
