//! Events: as they happen, and those that are kept.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use recache_api::{Event, EventList};
use recache_model::event::EventFilter;
use recache_model::ids::EventId;
use recache_store::EventQuery;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::Routes;
use crate::access::{Action, Caller, Permission};
use crate::connection::HangUp;
use crate::documents;
use crate::input::{Id, Params};
use crate::refusal::{Code, Refusal};
use crate::state::App;
use crate::stream::{Feed, Opening, StreamFilter};

const READ: Permission = Permission::new("events", Action::Read);
const LAST_EVENT_ID: &str = "last-event-id";
/// Where a client asks for no types: everything.
const ALL_TYPES: [&str; 4] = ["*", "job.*", "workflow.*", "view.*"];
/// Rows of a list where the caller does not say how many.
const ROWS_DEFAULT: u32 = 50;

pub(super) fn routes() -> Routes {
    Routes::new().read(READ, routes!(stream)).read(READ, routes!(list)).read(READ, routes!(show))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct StreamParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only of these types, apart by commas: a whole name, `order.*`, `*` for all events of templates, `job.*`, `workflow.*`, `view.*`;
    /// without it all of them
    #[param(min_length = 1, max_length = 4096)]
    types: Option<String>,
    /// Only of this job
    job: Option<String>,
    /// Only of this workflow and its steps
    workflow: Option<String>,
    /// Only of this view, `namespace/key`
    #[param(min_length = 3, max_length = 1024)]
    view: Option<String>,
    /// Only changes of jobs in this queue
    #[param(min_length = 1, max_length = 256)]
    queue: Option<String>,
    /// Only changes of jobs of this handler
    #[param(min_length = 1, max_length = 256)]
    handler: Option<String>,
    /// Only of what belongs together under this id
    #[param(min_length = 1, max_length = 256)]
    correlation_id: Option<String>,
    /// Go on after this id; the header `Last-Event-ID` counts before it
    #[param(minimum = 0)]
    after: Option<i64>,
    /// End after so many seconds; 0: with what has happened so far
    #[param(minimum = 0, maximum = 86400)]
    seconds: Option<u32>,
}

/// A block of the stream; a comment has none of it
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what the stream writes")]
struct StreamBlock {
    /// Its place in the stream
    id: Option<String>,
    /// What kind of block it is
    event: Option<String>,
    /// A document, as JSON text
    data: Option<String>,
    /// After how many milliseconds to come back when the connection is lost
    retry: Option<u64>,
}

/// Events as they happen, as server-sent events
///
/// Each has the place in the stream as its `id` and the document `Event` as its `data`. Whoever comes back with `Last-Event-ID` goes on
/// after it: nothing is lost or told twice. `event: open` comes first; `event: gap` says where something may be missing, and why;
/// `event: end` says why nothing follows. Comments show that the stream lives.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "stream_events",
    params(StreamParams, ("Last-Event-ID" = Option<String>, Header, description = "The last `id` that was received")),
    responses((status = 200, description = "The stream", body = StreamBlock, content_type = "text/event-stream")))]
async fn stream(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<StreamParams>,
    HangUp(hang_up): HangUp,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let last = last_event_id(&headers)?.or(asked.after);
    let within = asked.seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let filter = filter(&caller, asked)?;
    let credentials = headers.get(header::AUTHORIZATION).map(|value| (header::AUTHORIZATION, value.clone()));
    let headers = credentials.into_iter().collect();
    let opening = Opening { filter, last, within, headers, caller, hang_up };
    let taken = Feed::open(&app, opening).await?;
    let body = futures_util::stream::unfold(taken, async |mut taken| {
        let block = taken.recv().await?;
        Some((Ok::<_, Infallible>(block), taken))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        // A proxy that gathers answers would keep the events to itself.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Refusal> {
    let Some(given) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let read = given.to_str().ok().and_then(|text| text.trim().parse::<i64>().ok()).filter(|id| *id >= 0);
    read.map(Some).ok_or_else(|| {
        let message = "is no id of this stream: send the `id` of the last event that was received";
        Refusal::field(Code::InvalidParameter, "Last-Event-ID", message)
    })
}

fn filter(caller: &Caller, asked: StreamParams) -> Result<StreamFilter, Refusal> {
    let wrong = |name: &str, message: String| Refusal::field(Code::InvalidParameter, name, message);
    let (mut namespace, mut view) = (asked.namespace, None);
    if let Some(text) = asked.view {
        let parts = text.split_once('/').filter(|(namespace, key)| !namespace.is_empty() && !key.is_empty());
        let (of, key) =
            parts.ok_or_else(|| wrong("?view", "is no view: expected `namespace/key`".to_owned()))?;
        if namespace.as_deref().is_some_and(|namespace| namespace != of) {
            return Err(wrong("?view", "is not in the namespace that was given".to_owned()));
        }
        namespace = Some(of.to_owned());
        view = Some(key.to_owned());
    }
    let types: Vec<String> = match &asked.types {
        Some(types) => types.split(',').map(|one| one.trim().to_owned()).collect(),
        None => ALL_TYPES.map(str::to_owned).into(),
    };
    let types = EventFilter { types, namespace: caller.list_namespace(namespace)? };
    types.check().map_err(|problem| wrong("?types", problem.to_string()))?;
    let job = asked.job.map(|id| id.parse()).transpose();
    let workflow = asked.workflow.map(|id| id.parse()).transpose();
    Ok(StreamFilter {
        types,
        job: job.map_err(|_| wrong("?job", "is no id of a job".to_owned()))?,
        workflow: workflow.map_err(|_| wrong("?workflow", "is no id of a workflow".to_owned()))?,
        queue: asked.queue,
        handler: asked.handler,
        view,
        correlation_id: asked.correlation_id,
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only of this type
    #[param(rename = "type", min_length = 1, max_length = 256)]
    #[serde(rename = "type")]
    name: Option<String>,
    /// Only those whose payload was refused
    refused: Option<bool>,
    /// Only those whose payload is yet to be made; not together with `refused`
    waiting: Option<bool>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// The newest events that are kept
#[utoipa::path(get, path = "/v1/events/kept", tag = "events", operation_id = "list_events", params(ListParams),
    responses((status = 200, description = "The newest first", body = EventList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<EventList>, Refusal> {
    let (refused, waiting) = (asked.refused.unwrap_or(false), asked.waiting.unwrap_or(false));
    if refused && waiting {
        let message = "goes without `refused`: what was refused waits for nothing";
        return Err(Refusal::field(Code::InvalidParameter, "?waiting", message));
    }
    let query =
        EventQuery { namespace: caller.list_namespace(asked.namespace)?, name: asked.name, refused, waiting };
    let found = app.store().events().events_list(query, asked.limit.unwrap_or(ROWS_DEFAULT)).await?;
    Ok(Json(EventList::new(found.into_iter().map(documents::event).collect())))
}

/// One event
#[utoipa::path(get, path = "/v1/events/kept/{id}", tag = "events", operation_id = "get_event",
    params(("id" = String, Path, description = "`evt_…`")),
    responses((status = 200, description = "It", body = Event)))]
async fn show(State(app): State<App>, caller: Caller, Id(id): Id<EventId>) -> Result<Json<Event>, Refusal> {
    let record = app.store().events().event_get(id).await?;
    caller.check_found(&record.namespace, "event", &id.to_string())?;
    Ok(Json(documents::event(record)))
}
