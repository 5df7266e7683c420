//! Batches: create, look, close, call off, run again. Members name their batch where they are made.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use recache_api::{
    Batch, BatchAnswer, BatchList, BatchMemberList, Because, CallBack, CreateBatch, FieldProblem, RetryBatch,
};
use recache_model::batch::BatchCallback;
use recache_model::ids::{BatchId, JobId};
use recache_store::{BatchFilter, BatchRecord, NewBatch};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::routes;
use uuid::Uuid;

use super::page::{Page, PageParams};
use super::{BULK_TIME_MAX, Routes, reason_or, steps, wrong};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::{RequestId, Seed, Trace, Turn};
use crate::input::{Id, Input, Params, Wait, cursor};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("batches", Action::Read);
const WRITE: Permission = Permission::new("batches", Action::Write);
const OPERATE: Permission = Permission::new("batches", Action::Operate);

/// Members that one transaction calls off or runs again.
const MEMBERS_MAX: u32 = 500;
/// The list that the cursors of a retry belong to.
const RETRY: &str = "retried batch members";

pub(super) fn routes() -> Routes {
    Routes::new()
        .write_once(WRITE, routes!(create))
        .read(READ, routes!(list))
        .read(READ, routes!(show))
        .read(READ, routes!(members))
        .write_once(WRITE, routes!(close))
        .write_once(OPERATE, routes!(cancel))
        .write_once(OPERATE, routes!(retry))
}

/// Create a batch
///
/// Its counts are exact at every moment; each callback is a job that is made once.
#[utoipa::path(post, path = "/v1/batches", tag = "batches", operation_id = "create_batch", request_body = CreateBatch,
    responses((status = 201, description = "It is stored", body = BatchAnswer),
        (status = 200, description = "The same batch was there before", body = BatchAnswer)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Seed(seed): Seed,
    trace: Trace,
    Input(asked): Input<CreateBatch>,
) -> Result<Response, Refusal> {
    caller.check_namespace(&asked.namespace)?;
    let new = new_batch(asked, seed, trace).map_err(|problems| wrong(&problems))?;
    let (parent, namespace) = (new.parent, new.namespace.clone());
    let created = app.engine().create_batch(new).await.map_err(Refusal::from);
    let (record, is_new) = match created {
        Ok(created) => created,
        Err(refusal) => return Err(of_foreign_batch(&app, parent, &namespace, refusal).await),
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/v1/batches/{}", record.definition.id);
    let document = BatchAnswer::new(documents::batch(record), u64::from(is_new));
    Ok((status, [(header::LOCATION, location)], Json(document)).into_response())
}

/// Why something could not be added to a batch: of another namespace's, what is said of one that does not exist.
pub(super) async fn of_foreign_batch(
    app: &App,
    batch: Option<BatchId>,
    namespace: &str,
    refusal: Refusal,
) -> Refusal {
    let Some(batch) = batch else { return refusal };
    match app.engine().batch(batch).await {
        Ok(record) if record.definition.namespace != namespace => {
            Refusal::not_found("batch", &batch.to_string())
        }
        _ => refusal,
    }
}

/// The same for several batches, each with the namespace of what should have been added.
pub(super) async fn of_foreign_batches(
    app: &App,
    members: impl IntoIterator<Item = (BatchId, String)>,
    mut refusal: Refusal,
) -> Refusal {
    for (batch, namespace) in members {
        refusal = of_foreign_batch(app, Some(batch), &namespace, refusal).await;
        if refusal.code() == Code::NotFound {
            break;
        }
    }
    refusal
}

fn new_batch(asked: CreateBatch, seed: Uuid, trace: Trace) -> Result<NewBatch, Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut id = |pointer: &str, text: Option<&String>| -> Option<BatchId> {
        let read = text.map(|text| text.parse());
        read.and_then(|read| {
            read.map_err(|_| {
                let message = "is no id of a batch".to_owned();
                problems.push(FieldProblem { pointer: pointer.to_owned(), message });
            })
            .ok()
        })
    };
    let given = id("/id", asked.id.as_ref());
    let parent = id("/parent_id", asked.parent_id.as_ref());
    if !problems.is_empty() {
        return Err(problems);
    }
    let callback = |asked: Option<CallBack>| {
        asked.map(|asked| BatchCallback {
            handler: asked.handler,
            queue: asked.queue,
            input: asked.input.text().to_owned(),
        })
    };
    Ok(NewBatch {
        id: given.unwrap_or_else(|| BatchId::from_uuid(seed)),
        namespace: asked.namespace,
        action: asked.action,
        metadata: asked.metadata.text().to_owned(),
        parent,
        expected: asked.expected,
        on_success: callback(asked.on_success),
        on_finish: callback(asked.on_finish),
        on_first_failure: callback(asked.on_first_failure),
        trace_context: trace.text(),
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only of this action
    #[param(min_length = 1, max_length = 256)]
    action: Option<String>,
    /// Only those within this batch, `batch_…`
    #[param(min_length = 1, max_length = 64)]
    parent: Option<String>,
    /// Only those that have not ended
    unfinished: Option<bool>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only older than this batch, `batch_…`; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    before: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// List batches, newest first
#[utoipa::path(get, path = "/v1/batches", tag = "batches", operation_id = "list_batches", params(ListParams),
    responses((status = 200, description = "A page", body = BatchList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<BatchList>, Refusal> {
    let not_an_id = |_| Refusal::field(Code::InvalidParameter, "?parent", "is no id of a batch");
    let filter = BatchFilter {
        namespace: caller.list_namespace(asked.namespace)?,
        action: asked.action,
        parent: asked.parent.map(|text| text.parse().map_err(not_an_id)).transpose()?,
        unfinished: asked.unfinished.unwrap_or(false),
        before: None,
        rows_max: 0,
    };
    let page = Page::new("batches", &filter, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let filter =
        BatchFilter { before: page.before_or("before", asked.before)?, rows_max: page.rows_max(), ..filter };
    let found = app.engine().batches(filter).await?;
    let batches: Vec<Batch> = found.into_iter().map(documents::batch).collect();
    let (batches, next) = page.cut(batches, |batch| &batch.id);
    Ok(Json(BatchList::new(batches, next)))
}

/// A batch: its counts and its state at one moment
///
/// With `Prefer: wait=SECONDS` the answer comes when it has ended and its callbacks are made, or after that time as it stands then.
#[utoipa::path(get, path = "/v1/batches/{id}", tag = "batches", operation_id = "show_batch",
    params(("id" = String, Path, description = "`batch_…`"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 200, description = "The batch", body = BatchAnswer)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<BatchId>,
    Wait(wait): Wait,
    turn: Turn,
) -> Result<Json<BatchAnswer>, Refusal> {
    let mut record = visible(&app, &caller, id).await?;
    if let Some(wait) = wait.filter(|_| record.finished_at.is_none()) {
        // The engine waits longer than it is waited for: whoever gives up is answered with what stands.
        let ending = app.engine().wait_for_batch(id, app.settings().wait_max.saturating_mul(2));
        record = match app.wait(&turn, wait, ending).await? {
            Some(ended) => ended,
            None => app.engine().batch(id).await?,
        };
    }
    Ok(Json(BatchAnswer::new(documents::batch(record), 0)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct MembersParams {
    /// Only those that failed, with their errors
    failed: Option<bool>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only those after this one; not together with `cursor`
    #[param(min_length = 1, max_length = 64)]
    after: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// The members of a batch in the order of their ids, with the errors of those that failed
#[utoipa::path(get, path = "/v1/batches/{id}/members", tag = "batches", operation_id = "list_batch_members",
    params(("id" = String, Path, description = "`batch_…`"), MembersParams),
    responses((status = 200, description = "A page", body = BatchMemberList)))]
async fn members(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<BatchId>,
    Params(asked): Params<MembersParams>,
) -> Result<Json<BatchMemberList>, Refusal> {
    visible(&app, &caller, id).await?;
    let failed = asked.failed.unwrap_or(false);
    let page = PageParams { limit: asked.limit, cursor: asked.cursor };
    let page = Page::new("batch members", &(id, failed), page)?;
    // Of whatever kind the last one was: the bare id is what counts.
    let named = asked.after.map(|id| id.rsplit_once('_').map_or(id.clone(), |(_, bare)| bare.to_owned()));
    let after: Option<Uuid> = page.before_or("after", named)?;
    let found = app.engine().batch_members(id, failed, after, page.rows_max()).await?;
    let members = found.into_iter().map(|one| (one.id.to_string(), documents::batch_member(one))).collect();
    let (members, next) = page.cut(members, |(id, _)| id);
    Ok(Json(BatchMemberList::new(members.into_iter().map(|(_, member)| member).collect(), next)))
}

/// Let nothing more be added to a batch
#[utoipa::path(post, path = "/v1/batches/{id}/close", tag = "batches", operation_id = "close_batch",
    params(("id" = String, Path, description = "`batch_…`")),
    responses((status = 200, description = "It is closed; `changed` is 0 when it was closed before", body = BatchAnswer)))]
async fn close(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<BatchId>,
) -> Result<Json<BatchAnswer>, Refusal> {
    visible(&app, &caller, id).await?;
    let closed = app.engine().close_batch(id).await?;
    Ok(Json(answer(&app, id, u64::from(closed)).await?))
}

/// Call off a batch with all that is in it
///
/// No member can be added any more. Of a large batch some members may still stand when this is answered: the engine calls them off
/// soon after.
#[utoipa::path(post, path = "/v1/batches/{id}/cancel", tag = "batches", operation_id = "cancel_batch",
    params(("id" = String, Path, description = "`batch_…`")), request_body = Because,
    responses((status = 200, description = "`changed` members were called off so far", body = BatchAnswer)))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<BatchId>,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<BatchAnswer>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let reason = reason_or(asked.reason, "cancelled over HTTP");
    audited(
        app.store(),
        &caller,
        deed("batches.cancel", &record, &reason, &request),
        &state(&record),
        async {
            let (began, mut cancelled) = (Instant::now(), 0);
            loop {
                let some = match app.store().batches().batch_cancel(id, &reason, MEMBERS_MAX).await {
                    Ok(some) => some,
                    // The batch is cancelled, and the engine goes on with its members.
                    Err(error) if cancelled > 0 => {
                        tracing::warn!(%error, batch_id = %id, "a batch is not called off whole yet");
                        0
                    }
                    Err(error) => return Err(error.into()),
                };
                cancelled += some;
                if some == 0 || began.elapsed() >= BULK_TIME_MAX {
                    break;
                }
            }
            let document = answer(&app, id, cancelled).await?;
            let after =
                json!({ "state": document.batch.state, "cancelled": document.batch.counts.cancelled });
            Ok((Json(document), after))
        },
    )
    .await
}

/// Run the failed jobs of a batch again
///
/// Also those of its workflows and of the batches within it. Tracked jobs stay failed: only their owners can run them. One call goes through
/// some thousands; `next` says that there may be more.
#[utoipa::path(post, path = "/v1/batches/{id}/retry", tag = "batches", operation_id = "retry_batch",
    params(("id" = String, Path, description = "`batch_…`")), request_body = RetryBatch,
    responses((status = 200, description = "`changed` jobs are queued", body = BatchAnswer)))]
async fn retry(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<BatchId>,
    request: RequestId,
    Input(asked): Input<RetryBatch>,
) -> Result<Json<BatchAnswer>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let reason = reason_or(asked.reason, "retried over HTTP");
    let after = asked.cursor.map(|text| from_cursor(id, &text)).transpose()?;
    audited(app.store(), &caller, deed("batches.retry", &record, &reason, &request), &state(&record), async {
        let retry = |after| app.store().batches().batch_retry(id, caller.word(&reason), after, MEMBERS_MAX);
        let (sum, last) = steps::take("retry of a batch", MEMBERS_MAX, after, retry).await?;
        let mut document = answer(&app, id, sum.changed).await?;
        document.next = last.map(|last| cursor::write(RETRY, &id, &last.to_string()));
        let after = json!({ "changed": sum.changed, "skipped": sum.skipped, "is_all": last.is_none() });
        Ok((Json(document), after))
    })
    .await
}

fn from_cursor(id: BatchId, text: &str) -> Result<JobId, Refusal> {
    let not_ours = || Refusal::field(Code::Invalid, "/cursor", "is not a cursor of a retry of this batch");
    cursor::read(RETRY, &id, text).ok().and_then(|place| place.parse().ok()).ok_or_else(not_ours)
}

/// The batch, if it exists for the caller.
async fn visible(app: &App, caller: &Caller, id: BatchId) -> Result<BatchRecord, Refusal> {
    let record = app.engine().batch(id).await?;
    caller.check_found(&record.definition.namespace, "batch", &id.to_string())?;
    Ok(record)
}

async fn answer(app: &App, id: BatchId, changed: u64) -> Result<BatchAnswer, Refusal> {
    Ok(BatchAnswer::new(documents::batch(app.engine().batch(id).await?), changed))
}

fn state(record: &BatchRecord) -> Value {
    json!({
        "state": record.state.as_str(),
        "total": record.counts.total,
        "failed": record.counts.failed,
        "cancelled": record.counts.cancelled,
    })
}

fn deed<'a>(action: &'a str, record: &'a BatchRecord, reason: &'a str, request: &'a RequestId) -> Deed<'a> {
    let definition = &record.definition;
    Deed {
        action,
        namespace: Some(&definition.namespace),
        target: definition.id.to_string(),
        reason,
        request,
    }
}
