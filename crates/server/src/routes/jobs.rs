//! Jobs: submit, look, wait, cancel, run again, move in time and order.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use recache_api::{
    Because, FieldProblem, IfThere, Instant, JobChange, JobDetails, JobList, JobState, JobSubmitted,
    JobUpdated, JobsSubmitted, Prioritize, Reschedule, SubmitJob, SubmitJobs, SubmitRetry, SubmitUnique,
};
use recache_model::ids::{InvalidId, JobId};
use recache_model::retry::{Backoff, RetryPolicy};
use recache_model::time::Timestamp;
use recache_model::unique::{KEY_BYTES_MAX, OnDuplicate, UniqueRule};
use recache_store::{Due, JobFilter, JobRecord, NewJob, Submitted};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::batches::of_foreign_batches;
use super::page::{Page, PageParams};
use super::{Routes, reason_or, wrong};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::{Key, RequestId, Trace, Turn};
use crate::input::{Id, Input, Params, Wait};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("jobs", Action::Read);
const WRITE: Permission = Permission::new("jobs", Action::Write);
const OPERATE: Permission = Permission::new("jobs", Action::Operate);

/// Lines of a job's log that are answered: all that are kept.
const LOG_LINES_MAX: u32 = 1_000;

pub(super) fn routes() -> Routes {
    Routes::new()
        .write_keyed(WRITE, routes!(submit))
        .write_keyed(WRITE, routes!(submit_many))
        .read(READ, routes!(list))
        .read(READ, routes!(show))
        .write_once(OPERATE, routes!(cancel))
        .write_once(OPERATE, routes!(retry))
        .write_once(OPERATE, routes!(reschedule))
        .write_once(OPERATE, routes!(prioritize))
}

/// Submit a job
///
/// When this is answered, the job survives any crash. With an `Idempotency-Key` it is safe to repeat; the key is kept with the job, in
/// the same transaction. With `Prefer: wait=SECONDS` the answer comes when the job has ended, or after that time; `job` says how it stands then.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", operation_id = "submit_job", request_body = SubmitJob,
    params(("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")), responses(
    (status = 201, description = "It is stored", body = JobSubmitted),
    (status = 200, description = "It was there before, by its idempotency key or its unique key", body = JobSubmitted)))]
async fn submit(
    State(app): State<App>,
    caller: Caller,
    Key(key): Key,
    Wait(wait): Wait,
    turn: Turn,
    trace: Trace,
    Input(asked): Input<SubmitJob>,
) -> Result<Response, Refusal> {
    caller.check_namespace(&asked.namespace)?;
    if asked.idempotency_key.is_some() && key.is_some() && asked.idempotency_key != key {
        let message = "differs from the header `Idempotency-Key`";
        return Err(Refusal::field(Code::Invalid, "/idempotency_key", message));
    }
    let job = new_job(asked, key, trace).map_err(|problems| wrong(&problems))?;
    let submitted = store_jobs(&app, vec![job]).await?;
    let submitted = submitted.first().ok_or_else(Refusal::internal)?;
    let status = if submitted.existed { StatusCode::OK } else { StatusCode::CREATED };
    let location = format!("/v1/jobs/{}", submitted.id);
    let mut document = JobSubmitted::new(submitted.id.to_string(), submitted.existed, submitted.replaced);
    if let Some(wait) = wait {
        // It is stored: whatever keeps us from waiting, the answer is not that it failed.
        let record = match app.wait(&turn, wait, app.engine().wait_for_job(submitted.id)).await {
            Ok(Some(ended)) => Some(ended),
            Ok(None) | Err(_) => app.engine().job(submitted.id).await.ok(),
        };
        document.job = record.map(documents::job);
    }
    Ok((status, [(header::LOCATION, location)], Json(document)).into_response())
}

/// Stores jobs, all or none. A batch of another namespace than theirs does not exist for them.
async fn store_jobs(app: &App, jobs: Vec<NewJob>) -> Result<Vec<Submitted>, Refusal> {
    let members: BTreeSet<_> =
        jobs.iter().filter_map(|job| Some((job.batch?, job.namespace.clone()))).collect();
    match app.engine().submit_many(jobs).await {
        Ok(submitted) => Ok(submitted),
        Err(error) => Err(of_foreign_batches(app, members, error.into()).await),
    }
}

/// Submit up to 1,000 jobs, all or none
///
/// With an `Idempotency-Key` each job that has no key of its own is given one from it and from its place in the list.
#[utoipa::path(post, path = "/v1/jobs/bulk", tag = "jobs", operation_id = "submit_jobs", request_body = SubmitJobs, responses(
    (status = 200, description = "All are stored; which of them were there before", body = JobsSubmitted)))]
async fn submit_many(
    State(app): State<App>,
    caller: Caller,
    Key(key): Key,
    trace: Trace,
    Input(asked): Input<SubmitJobs>,
) -> Result<Json<JobsSubmitted>, Refusal> {
    let mut jobs = Vec::with_capacity(asked.jobs.len());
    let mut problems = Vec::new();
    for (place, job) in asked.jobs.into_iter().enumerate() {
        caller.check_namespace(&job.namespace)?;
        let key = key.as_ref().map(|key| key_at(key, place));
        match new_job(job, key, trace) {
            Ok(job) => jobs.push(job),
            Err(found) => problems.extend(found.into_iter().map(|problem| FieldProblem {
                pointer: format!("/jobs/{place}{}", problem.pointer),
                message: problem.message,
            })),
        }
    }
    if !problems.is_empty() {
        return Err(wrong(&problems));
    }
    let submitted = store_jobs(&app, jobs).await?;
    let document = |one: &Submitted| JobSubmitted::new(one.id.to_string(), one.existed, one.replaced);
    Ok(Json(JobsSubmitted::new(submitted.iter().map(document).collect())))
}

/// The key of one job of a list. A key that leaves no room for the place is hashed first.
fn key_at(key: &str, place: usize) -> String {
    const PLACE_BYTES_MAX: usize = 21;
    if key.len() + PLACE_BYTES_MAX <= KEY_BYTES_MAX {
        format!("{key}/{place}")
    } else {
        format!("{}/{place}", blake3::hash(key.as_bytes()).to_hex())
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only in this state
    #[param(inline)]
    state: Option<JobState>,
    /// Only of this queue
    #[param(min_length = 1, max_length = 256)]
    queue: Option<String>,
    /// Only of this handler
    #[param(min_length = 1, max_length = 256)]
    handler: Option<String>,
    /// Only members of this batch, `batch_…`
    #[param(min_length = 1, max_length = 256)]
    batch: Option<String>,
    /// Only of what was asked for under this correlation id
    #[param(min_length = 1, max_length = 256)]
    correlation_id: Option<String>,
    /// Only submitted at this instant or later, by the millisecond in their ids
    #[param(inline)]
    created_from: Option<Instant>,
    /// Only submitted before this instant, likewise
    #[param(inline)]
    created_before: Option<Instant>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only older than this job, `job_…`; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    before: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// List jobs, newest first
///
/// A page looks at 50,000 jobs at most for those of its filter. It may hold fewer than `limit`, even none, and still have a `next`: the
/// list goes on there. Only a page without `next` is the last.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", operation_id = "list_jobs", params(ListParams),
    responses((status = 200, description = "A page", body = JobList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<JobList>, Refusal> {
    let not_a_batch = |error: InvalidId| Refusal::field(Code::InvalidParameter, "?batch", error.to_string());
    let filter = JobFilter {
        namespace: caller.list_namespace(asked.namespace)?,
        state: asked.state.map(state_of),
        queue: asked.queue,
        handler: asked.handler,
        batch: asked.batch.map(|batch| batch.parse().map_err(not_a_batch)).transpose()?,
        correlation_id: asked.correlation_id,
        created_from: asked.created_from.map(timestamp),
        created_before: asked.created_before.map(timestamp),
        ..JobFilter::default()
    };
    let page = Page::new("jobs", &filter, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let filter =
        JobFilter { before: page.before_or("before", asked.before)?, rows_max: page.limit(), ..filter };
    let found = app.store().jobs_list(filter).await?;
    let next = found.next.map(|job| page.after(&job.to_string()));
    Ok(Json(JobList::new(found.jobs.into_iter().map(documents::job).collect(), next)))
}

fn timestamp(at: Instant) -> Timestamp {
    Timestamp::from_micros(at.micros())
}

/// A job with its attempts, its history and what its handler said
///
/// With `Prefer: wait=SECONDS` the answer comes when the job has ended, or after that time as it stands then.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "show_job",
    params(("id" = String, Path, description = "`job_…`"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 200, description = "The job", body = JobDetails)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    Wait(wait): Wait,
    turn: Turn,
) -> Result<Json<JobDetails>, Refusal> {
    let mut record = visible(&app, &caller, id).await?;
    if let Some(wait) = wait.filter(|_| !record.state.is_terminal()) {
        record = match app.wait(&turn, wait, app.engine().wait_for_job(id)).await? {
            Some(ended) => ended,
            None => app.engine().job(id).await?,
        };
    }
    let history = documents::history(record.created_at, app.store().job_history(id).await?);
    let log = documents::log(app.store().attempts().log_read(id, LOG_LINES_MAX).await?);
    let attempts = documents::attempts(&history);
    Ok(Json(JobDetails::new(documents::job(record), history, attempts, log)))
}

/// Cancel a job that has not ended; a running handler is told
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job",
    params(("id" = String, Path, description = "`job_…`")), request_body = Because,
    responses((status = 200, description = "It is cancelled, by this call or before", body = JobChange)))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<JobChange>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let reason = reason_or(asked.reason, "cancelled over HTTP");
    let deed = deed("jobs.cancel", &record, &reason, &request);
    let before = json!({ "state": record.state.as_str() });
    audited(app.store(), &caller, deed, &before, async {
        let (now, changed) = app.engine().cancel_job(id, &reason).await?;
        if !changed && now != recache_model::job::JobState::Cancelled {
            let detail = format!("job `{id}` is {now}; only a job that has not ended can be cancelled");
            return Err(Refusal::new(Code::Conflict, detail));
        }
        let document = JobChange::new(id.to_string(), documents::job_state(now), changed);
        Ok((Json(document), json!({ "state": now.as_str() })))
    })
    .await
}

/// Run a failed job again, with its attempts renewed
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job",
    params(("id" = String, Path, description = "`job_…`")), request_body = Because,
    responses((status = 200, description = "It is queued", body = JobChange)))]
async fn retry(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<JobChange>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let reason = reason_or(asked.reason, "retried over HTTP");
    let deed = deed("jobs.retry", &record, &reason, &request);
    let before = json!({ "state": record.state.as_str(), "attempt": record.attempt });
    audited(app.store(), &caller, deed, &before, async {
        app.engine().retry_job(id).await?;
        // Queued by this call; a worker may have it by now, which is not this answer's news.
        let document = JobChange::new(id.to_string(), JobState::Queued, true);
        Ok((Json(document), json!({ "state": "queued" })))
    })
    .await
}

/// Say when a queued job may run
#[utoipa::path(post, path = "/v1/jobs/{id}/reschedule", tag = "jobs", operation_id = "reschedule_job",
    params(("id" = String, Path, description = "`job_…`")), request_body = Reschedule,
    responses((status = 200, description = "The job as it stands now", body = JobUpdated)))]
async fn reschedule(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    request: RequestId,
    Input(asked): Input<Reschedule>,
) -> Result<Json<JobUpdated>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let due = match (asked.delay_ms, asked.due_at) {
        (Some(delay_ms), None) => Due::In(Duration::from_millis(delay_ms)),
        (None, Some(due_at)) => Due::At(timestamp(due_at)),
        (None, None) => return Err(Refusal::field(Code::Invalid, "/due_at", "or `delay_ms` must be given")),
        (Some(_), Some(_)) => {
            return Err(Refusal::field(
                Code::Invalid,
                "/due_at",
                "must not be given together with `delay_ms`",
            ));
        }
    };
    let reason = reason_or(asked.reason, "rescheduled over HTTP");
    let deed = deed("jobs.reschedule", &record, &reason, &request);
    let before = json!({ "due_at": documents::instant(record.due_at) });
    audited(app.store(), &caller, deed, &before, async {
        let (_, after) = app.store().job_changes().job_reschedule(id, due).await?;
        let due_at = json!({ "due_at": documents::instant(after.due_at) });
        Ok((Json(JobUpdated::new(documents::job(after))), due_at))
    })
    .await
}

/// Say how urgent a queued job is
#[utoipa::path(post, path = "/v1/jobs/{id}/priority", tag = "jobs", operation_id = "prioritize_job",
    params(("id" = String, Path, description = "`job_…`")), request_body = Prioritize,
    responses((status = 200, description = "The job as it stands now", body = JobUpdated)))]
async fn prioritize(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    request: RequestId,
    Input(asked): Input<Prioritize>,
) -> Result<Json<JobUpdated>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let reason = reason_or(asked.reason, "prioritized over HTTP");
    let deed = deed("jobs.prioritize", &record, &reason, &request);
    let before = json!({ "priority": record.priority });
    audited(app.store(), &caller, deed, &before, async {
        let (_, after) = app.store().job_changes().job_prioritize(id, asked.priority).await?;
        let priority = json!({ "priority": after.priority });
        Ok((Json(JobUpdated::new(documents::job(after))), priority))
    })
    .await
}

/// The job, if it exists for the caller.
async fn visible(app: &App, caller: &Caller, id: JobId) -> Result<JobRecord, Refusal> {
    let record = app.engine().job(id).await?;
    caller.check_found(&record.namespace, "job", &id.to_string())?;
    Ok(record)
}

fn deed<'a>(action: &'a str, record: &'a JobRecord, reason: &'a str, request: &'a RequestId) -> Deed<'a> {
    Deed { action, namespace: Some(&record.namespace), target: record.id.to_string(), reason, request }
}

/// From what was asked to what is stored, with `key` where it names none of its own; or everything that is wrong.
fn new_job(asked: SubmitJob, key: Option<String>, trace: Trace) -> Result<NewJob, Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut problem = |pointer: &str, message: &str| {
        problems.push(FieldProblem { pointer: pointer.to_owned(), message: message.to_owned() });
    };
    let due = match (asked.delay_ms, asked.due_at) {
        (None, None) => Due::Now,
        (Some(delay_ms), None) => Due::In(Duration::from_millis(delay_ms)),
        (None, Some(due_at)) => Due::At(timestamp(due_at)),
        (Some(_), Some(_)) => {
            problem("/due_at", "must not be given together with `delay_ms`");
            Due::Now
        }
    };
    let batch = asked.batch_id.map(|id| id.parse()).transpose().unwrap_or_else(|_| {
        problem("/batch_id", "is no id of a batch");
        None
    });
    let new = NewJob::new(asked.handler, asked.input.text());
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(NewJob {
        namespace: asked.namespace,
        queue: asked.queue,
        priority: asked.priority,
        due,
        retry: asked.retry.as_ref().map(retry_of).unwrap_or_default(),
        timeout: asked.timeout_ms.map(Duration::from_millis),
        correlation_id: asked.correlation_id.unwrap_or_else(|| new.correlation_id.clone()),
        trace_context: asked.trace_context.or_else(|| trace.text()),
        idempotency_key: asked.idempotency_key.or(key),
        unique: asked.unique.map(unique_of),
        batch,
        concurrency_key: asked.concurrency_key,
        ..new
    })
}

pub(super) fn retry_of(asked: &SubmitRetry) -> RetryPolicy {
    let default = RetryPolicy::default();
    RetryPolicy {
        attempts_max: asked.attempts_max.unwrap_or(default.attempts_max),
        backoff: asked.backoff.map_or(default.backoff, |backoff| match backoff {
            recache_api::Backoff::None => Backoff::None,
            recache_api::Backoff::Linear => Backoff::Linear,
            recache_api::Backoff::Exponential => Backoff::Exponential,
            recache_api::Backoff::Fibonacci => Backoff::Fibonacci,
        }),
        base_ms: asked.base_ms.unwrap_or(default.base_ms),
        cap_ms: asked.cap_ms.unwrap_or(default.cap_ms),
        jitter: asked.jitter.unwrap_or(default.jitter),
    }
}

fn unique_of(asked: SubmitUnique) -> UniqueRule {
    UniqueRule {
        key: asked.key,
        by_arguments: asked.by_input,
        period: asked.per_ms.map(Duration::from_millis),
        also_ended: asked.also_ended.into_iter().map(state_of).collect(),
        on_duplicate: match asked.if_there {
            IfThere::Return => OnDuplicate::Return,
            IfThere::Reject => OnDuplicate::Reject,
            IfThere::Replace => OnDuplicate::Replace,
        },
    }
}

fn state_of(state: JobState) -> recache_model::job::JobState {
    use recache_model::job::JobState as Model;
    match state {
        JobState::Blocked => Model::Blocked,
        JobState::Queued => Model::Queued,
        JobState::Running => Model::Running,
        JobState::Completed => Model::Completed,
        JobState::Failed => Model::Failed,
        JobState::Cancelled => Model::Cancelled,
        JobState::Superseded => Model::Superseded,
        JobState::Skipped => Model::Skipped,
        JobState::Resolved => Model::Resolved,
    }
}
