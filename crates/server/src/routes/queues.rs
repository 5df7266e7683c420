//! Queues and limits: look, pause, drain, resume, limit.
//!
//! A queue belongs to no namespace, and neither does a limit: jobs of all namespaces wait in the one and count for the other.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use recache_api::{
    Because, FieldProblem, Limit as LimitDocument, LimitList, LimitOf, PauseQueue, QueueAnswer, QueueList,
    SetLimit,
};
use recache_model::limits::{Limit, Rate};
use recache_model::time::Timestamp;
use recache_model::unique::key_problem;
use recache_store::{Due, LimitScope, QueueRecord};
use serde_json::{Value, json};
use utoipa_axum::routes;

use super::{Routes, health, reason_or, wrong};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::{RequestId, Turn};
use crate::input::{Input, Segments, Wait};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::global("queues", Action::Read);
const OPERATE: Permission = Permission::global("queues", Action::Operate);

/// Between two looks at a queue that is drained.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn routes() -> Routes {
    Routes::new()
        .read(READ, routes!(list))
        .read(READ, routes!(show))
        .write_once(OPERATE, routes!(pause))
        .write_once(OPERATE, routes!(drain))
        .write_once(OPERATE, routes!(resume))
        .read(READ, routes!(limits))
        .write_once(OPERATE, routes!(limit))
}

/// Queues that hold jobs, are paused or are limited, by name; at most 1,000
#[utoipa::path(get, path = "/v1/queues", tag = "queues", operation_id = "list_queues",
    responses((status = 200, description = "All of them", body = QueueList)))]
async fn list(State(app): State<App>) -> Result<Json<QueueList>, Refusal> {
    let found = app.store().queues().queues_list().await?;
    Ok(Json(QueueList::new(found.into_iter().map(documents::queue).collect())))
}

/// The queue that the path names.
fn named(Segments(name): Segments<String>) -> Result<String, Refusal> {
    match key_problem("the queue", &name) {
        Some(problem) => Err(Refusal::new(Code::InvalidParameter, problem)),
        None => Ok(name),
    }
}

/// A queue; one that nobody has used is empty
#[utoipa::path(get, path = "/v1/queues/{queue}", tag = "queues", operation_id = "show_queue",
    params(("queue" = String, Path, description = "Its name")),
    responses((status = 200, description = "The queue", body = QueueAnswer)))]
async fn show(State(app): State<App>, name: Segments<String>) -> Result<Json<QueueAnswer>, Refusal> {
    let queue = named(name)?;
    answer(&app, &queue, false).await.map(Json)
}

async fn answer(app: &App, queue: &str, changed: bool) -> Result<QueueAnswer, Refusal> {
    let record = app.store().queues().queue_get(queue).await?;
    Ok(QueueAnswer::new(documents::queue(record), changed))
}

/// Let nothing of a queue begin; what runs goes on
///
/// Pausing again changes the end and the reason.
#[utoipa::path(post, path = "/v1/queues/{queue}/pause", tag = "queues", operation_id = "pause_queue",
    params(("queue" = String, Path, description = "Its name")), request_body = PauseQueue,
    responses((status = 200, description = "It is paused", body = QueueAnswer)))]
async fn pause(
    State(app): State<App>,
    caller: Caller,
    name: Segments<String>,
    request: RequestId,
    Input(asked): Input<PauseQueue>,
) -> Result<Json<QueueAnswer>, Refusal> {
    let queue = named(name)?;
    pause_now(&app, &caller, &queue, "queues.pause", &request, asked).await?;
    answer(&app, &queue, true).await.map(Json)
}

/// Let nothing of a queue begin, and wait until nothing of it runs
///
/// With `Prefer: wait=SECONDS` the answer comes when nothing of it runs any more, or after that time: `running` says how many still do. It stays
/// paused either way.
#[utoipa::path(post, path = "/v1/queues/{queue}/drain", tag = "queues", operation_id = "drain_queue",
    params(("queue" = String, Path, description = "Its name"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    request_body = PauseQueue,
    responses((status = 200, description = "It is paused; `running` is 0 when it is drained", body = QueueAnswer)))]
async fn drain(
    State(app): State<App>,
    caller: Caller,
    name: Segments<String>,
    request: RequestId,
    Wait(wait): Wait,
    turn: Turn,
    Input(asked): Input<PauseQueue>,
) -> Result<Json<QueueAnswer>, Refusal> {
    let queue = named(name)?;
    pause_now(&app, &caller, &queue, "queues.drain", &request, asked).await?;
    if let Some(wait) = wait
        && let Some(drained) = app.wait(&turn, wait, drained(&app, &queue)).await?
    {
        return Ok(Json(QueueAnswer::new(documents::queue(drained), true)));
    }
    answer(&app, &queue, true).await.map(Json)
}

async fn drained(app: &App, queue: &str) -> recache_engine::Result<QueueRecord> {
    loop {
        let record = app.store().queues().queue_get(queue).await?;
        if record.running == 0 {
            return Ok(record);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn pause_now(
    app: &App,
    caller: &Caller,
    queue: &str,
    action: &str,
    request: &RequestId,
    asked: PauseQueue,
) -> Result<(), Refusal> {
    let until = match (asked.for_ms, asked.until) {
        (None, None) => None,
        (Some(for_ms), None) => Some(Due::In(Duration::from_millis(for_ms))),
        (None, Some(until)) => Some(Due::At(Timestamp::from_micros(until.micros()))),
        (Some(_), Some(_)) => {
            return Err(Refusal::field(Code::Invalid, "/until", "must not be given together with `for_ms`"));
        }
    };
    let before = state(&app.store().queues().queue_get(queue).await?);
    audited(app.store(), caller, deed(action, queue, &asked.reason, request), &before, async {
        app.store().queues().queue_pause(queue, until, caller.word(&asked.reason)).await?;
        health::detail_changed(app).await;
        Ok(((), state(&app.store().queues().queue_get(queue).await?)))
    })
    .await
}

/// End a pause
#[utoipa::path(post, path = "/v1/queues/{queue}/resume", tag = "queues", operation_id = "resume_queue",
    params(("queue" = String, Path, description = "Its name")), request_body = Because,
    responses((status = 200, description = "It is open; `changed` is false when it was not paused", body = QueueAnswer)))]
async fn resume(
    State(app): State<App>,
    caller: Caller,
    name: Segments<String>,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<QueueAnswer>, Refusal> {
    let queue = named(name)?;
    let reason = reason_or(asked.reason, "resumed over HTTP");
    let before = state(&app.store().queues().queue_get(&queue).await?);
    audited(app.store(), &caller, deed("queues.resume", &queue, &reason, &request), &before, async {
        let changed = app.store().queues().queue_resume(&queue).await?;
        health::detail_changed(&app).await;
        Ok((Json(answer(&app, &queue, changed).await?), json!({ "paused_until": null })))
    })
    .await
}

fn state(record: &QueueRecord) -> Value {
    let until = record.pause.as_ref().map(|pause| match pause.until {
        Some(until) => json!(documents::instant(until)),
        None => json!("resumed"),
    });
    json!({ "paused_until": until, "reason": record.pause.as_ref().map(|pause| &pause.word.reason) })
}

fn deed<'a>(action: &'a str, queue: &str, reason: &'a str, request: &'a RequestId) -> Deed<'a> {
    Deed { action, namespace: None, target: queue.to_owned(), reason, request }
}

/// The limits of queues, handlers and concurrency keys
#[utoipa::path(get, path = "/v1/limits", tag = "queues", operation_id = "list_limits",
    responses((status = 200, description = "All of them, by scope and name", body = LimitList)))]
async fn limits(State(app): State<App>) -> Result<Json<LimitList>, Refusal> {
    Ok(Json(LimitList::new(all_limits(&app).await?)))
}

async fn all_limits(app: &App) -> Result<Vec<LimitDocument>, Refusal> {
    Ok(app.store().queues().limits_list().await?.into_iter().map(documents::limit).collect())
}

/// Limit what runs at once and what starts in a while, over all processes
///
/// The limit is set as a whole, in place of the former one. Of a concurrency key one job may run at once unless a limit says otherwise.
#[utoipa::path(put, path = "/v1/limits", tag = "queues", operation_id = "set_limit", request_body = SetLimit,
    responses((status = 200, description = "All limits as they stand now", body = LimitList)))]
async fn limit(
    State(app): State<App>,
    caller: Caller,
    request: RequestId,
    Input(asked): Input<SetLimit>,
) -> Result<Json<LimitList>, Refusal> {
    let limit = limit_of(&asked).map_err(|problems| wrong(&problems))?;
    let (scope, word) = scope_of(&asked);
    let reason = reason_or(asked.reason.clone(), "set over HTTP");
    let namespace = (asked.scope == LimitOf::Key).then(|| asked.namespace.as_deref().unwrap_or(NAMESPACE));
    let is_it = |one: &&LimitDocument| {
        one.scope == word && one.name == asked.name && one.namespace.as_deref() == namespace
    };
    let before = all_limits(&app).await?;
    let before = before.iter().find(is_it);
    let target = format!("{word}/{}", asked.name);
    let deed = Deed { action: "queues.limit", namespace, target, reason: &reason, request: &request };
    audited(app.store(), &caller, deed, &before, async {
        app.store().queues().limit_set(scope, limit, caller.actor()).await?;
        let now = all_limits(&app).await?;
        let after = now.iter().find(is_it).cloned();
        Ok((Json(LimitList::new(now)), after))
    })
    .await
}

/// Of a concurrency key, where none is named.
const NAMESPACE: &str = "default";

fn scope_of(asked: &SetLimit) -> (LimitScope, &'static str) {
    let name = asked.name.clone();
    match asked.scope {
        LimitOf::Queue => (LimitScope::Queue(name), "queue"),
        LimitOf::Handler => (LimitScope::Handler(name), "handler"),
        LimitOf::Key => {
            let namespace = asked.namespace.clone().unwrap_or_else(|| NAMESPACE.to_owned());
            (LimitScope::Key { namespace, key: name }, "key")
        }
    }
}

/// The limit that is asked for, or everything that is wrong with it.
fn limit_of(asked: &SetLimit) -> Result<Limit, Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut problem = |pointer: &str, message: &str| {
        problems.push(FieldProblem { pointer: pointer.to_owned(), message: message.to_owned() });
    };
    if asked.namespace.is_some() && asked.scope != LimitOf::Key {
        problem("/namespace", "is only for the scope `key`");
    }
    let rate = match (asked.starts_max, asked.period_ms) {
        (None, None) => None,
        (Some(starts_max), Some(period_ms)) => {
            Some(Rate { starts_max, period: Duration::from_millis(period_ms) })
        }
        (Some(_), None) => {
            problem("/period_ms", "must be given together with `starts_max`");
            None
        }
        (None, Some(_)) => {
            problem("/starts_max", "must be given together with `period_ms`");
            None
        }
    };
    let says_something =
        asked.running_max.is_some() || asked.starts_max.is_some() || asked.period_ms.is_some();
    if asked.off && says_something {
        problem("/off", "must not be given together with a limit");
    }
    if !asked.off && !says_something {
        problem("/running_max", "or `starts_max` with `period_ms` must be given, or `off`");
    }
    if problems.is_empty() { Ok(Limit { running_max: asked.running_max, rate }) } else { Err(problems) }
}
