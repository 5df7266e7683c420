//! Events: as they happen, and those that are kept.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use recache_api::{Event, EventList};
use recache_model::event::EventFilter;
use recache_model::ids::EventId;
use recache_model::time::Timestamp;
use recache_store::{EventQuery, EventRecord};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::Routes;
use super::page::{Page, PageParams};
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
    /// Only older than this event; not together with `cursor`
    before: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// Events that are kept, newest first
#[utoipa::path(get, path = "/v1/events/kept", tag = "events", operation_id = "list_events", params(ListParams),
    responses((status = 200, description = "A page", body = EventList)))]
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
    let namespace = caller.list_namespace(asked.namespace)?;
    let filter = (&namespace, &asked.name, refused, waiting);
    let page = Page::new("events", &filter, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let before = page.before_or::<EventPlace>("before", asked.before)?;
    let before = match before {
        Some(EventPlace(at, id)) => Some((event_at(&app, &caller, at, id).await?, id)),
        None => None,
    };
    let query = EventQuery { namespace, name: asked.name, refused, waiting, before };
    let found = app.store().events().events_list(query, page.rows_max()).await?;
    let placed = |event: EventRecord| {
        let place = format!("{}/{}", event.at.micros(), event.id);
        (place, documents::event(event))
    };
    let (events, next) = page.cut_placed(found.into_iter().map(placed));
    Ok(Json(EventList::new(events, next)))
}

/// Where an event stands in the list: when it was, as a cursor has it, and its id, by which a caller names it.
struct EventPlace(Option<Timestamp>, EventId);

impl FromStr for EventPlace {
    type Err = <EventId as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place = text.split_once('/').and_then(|(at, id)| Some((at.parse().ok()?, id)));
        match place {
            Some((at, id)) => id.parse().map(|id| Self(Some(Timestamp::from_micros(at)), id)),
            None => text.parse().map(|id| Self(None, id)),
        }
    }
}

async fn event_at(
    app: &App,
    caller: &Caller,
    at: Option<Timestamp>,
    id: EventId,
) -> Result<Timestamp, Refusal> {
    if let Some(at) = at {
        return Ok(at);
    }
    let missing =
        || Refusal::field(Code::InvalidParameter, "?before", format!("names `{id}`, which does not exist"));
    match app.store().events().event_get(id).await {
        Ok(event) => {
            caller.check_found(&event.namespace, "event", &id.to_string()).map_err(|_| missing())?;
            Ok(event.at)
        }
        Err(recache_store::Error::NotFound { .. }) => Err(missing()),
        Err(error) => Err(error.into()),
    }
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
