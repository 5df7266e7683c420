//! Tracked jobs: some other system runs them and says here how they go.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use recache_api::{
    FieldProblem, JobContext, ReportJob, TrackJob, TrackJobs, TrackReported, TrackedJob as Document,
    TrackedJobAnswer, TrackedJobKept, TrackedJobList, TrackedJobsKept, TrackedState as StateDocument,
};
use recache_model::ids::{BatchId, JobId};
use recache_model::tracked::{Report, TrackedState};
use recache_store::{NewTrackedJob, Tracked, TrackedContext, TrackedFilter, TrackedJob};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;
use uuid::Uuid;

use super::batches::{of_foreign_batch, of_foreign_batches};
use super::page::{Page, PageParams};
use super::{Routes, wrong};
use crate::access::{Action, Caller, Permission};
use crate::documents;
use crate::frame::Seed;
use crate::input::{Id, Input, Params};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("tracked_jobs", Action::Read);
const WRITE: Permission = Permission::new("tracked_jobs", Action::Write);

pub(super) fn routes() -> Routes {
    Routes::new()
        .write_once(WRITE, routes!(create))
        .write_often(WRITE, routes!(create_many))
        .read(READ, routes!(list))
        .read(READ, routes!(show))
        .write_often(WRITE, routes!(report))
        .write_often(WRITE, routes!(heartbeat))
        .write_once(WRITE, routes!(acknowledge))
}

/// Keep a job that some other system runs
///
/// No worker gets it: its owner reports how it goes. After `stale_after_ms` without a word it is failed, with the code `stale`.
#[utoipa::path(post, path = "/v1/tracked-jobs", tag = "tracked jobs", operation_id = "track_job",
    request_body = TrackJob,
    responses((status = 201, description = "It is stored", body = TrackedJobAnswer),
        (status = 200, description = "It was there before, and is answered as it stands", body = TrackedJobAnswer)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Seed(seed): Seed,
    Input(asked): Input<TrackJob>,
) -> Result<Response, Refusal> {
    caller.check_namespace(&asked.namespace)?;
    let new = new_job(asked, seed).map_err(|problems| wrong(&problems))?;
    let (batch, namespace) = (new.batch, new.namespace.clone());
    let created = app.store().tracked_jobs().tracked_create(vec![new]).await.map_err(Refusal::from);
    let created = match created {
        Ok(created) => only(created)?,
        Err(refusal) => return Err(of_foreign_batch(&app, batch, &namespace, refusal).await),
    };
    let status = if created.changed { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/v1/tracked-jobs/{}", created.job.definition.id);
    Ok((status, [(header::LOCATION, location)], Json(answer(created))).into_response())
}

/// Keep up to 1,000 jobs that some other system runs or ran, with what is reported of them
///
/// All of them are kept or none. Then all reports are, or none: when that is refused the jobs stand, and the call can be repeated.
#[utoipa::path(post, path = "/v1/tracked-jobs/bulk", tag = "tracked jobs", operation_id = "track_jobs",
    request_body = TrackJobs,
    responses((status = 200, description = "All are stored; which of them were there before", body = TrackedJobsKept)))]
async fn create_many(
    State(app): State<App>,
    caller: Caller,
    Input(asked): Input<TrackJobs>,
) -> Result<Json<TrackedJobsKept>, Refusal> {
    let (mut jobs, mut reports, mut problems) =
        (Vec::with_capacity(asked.jobs.len()), Vec::new(), Vec::new());
    for (place, TrackReported { job, report }) in asked.jobs.into_iter().enumerate() {
        caller.check_namespace(&job.namespace)?;
        if job.id.is_none() {
            let message = "must be given: it makes the call safe to repeat".to_owned();
            problems.push(FieldProblem { pointer: format!("/jobs/{place}/job/id"), message });
            continue;
        }
        match new_job(job, Uuid::nil()) {
            Ok(job) => {
                reports.extend(report.map(|report| (job.id, report_of(report))));
                jobs.push(job);
            }
            Err(found) => problems.extend(found.into_iter().map(|problem| FieldProblem {
                pointer: format!("/jobs/{place}/job{}", problem.pointer),
                ..problem
            })),
        }
    }
    if !problems.is_empty() {
        return Err(wrong(&problems));
    }
    let members: BTreeSet<_> =
        jobs.iter().filter_map(|job| Some((job.batch?, job.namespace.clone()))).collect();
    let tracked = app.store().tracked_jobs();
    let made = match tracked.tracked_create(jobs).await {
        Ok(made) => made,
        Err(error) => return Err(of_foreign_batches(&app, members, error.into()).await),
    };
    if !reports.is_empty() {
        tracked.tracked_report(reports).await?;
    }
    let kept = made
        .into_iter()
        .map(|made| TrackedJobKept { id: made.job.definition.id.to_string(), is_new: made.changed });
    Ok(Json(TrackedJobsKept::new(kept.collect())))
}

/// The answer to a call about one job.
fn only(answers: Vec<Tracked>) -> Result<Tracked, Refusal> {
    answers.into_iter().next().ok_or_else(Refusal::internal)
}

fn answer(tracked: Tracked) -> TrackedJobAnswer {
    TrackedJobAnswer::new(documents::tracked(tracked.job), tracked.changed)
}

fn new_job(asked: TrackJob, seed: Uuid) -> Result<NewTrackedJob, Vec<FieldProblem>> {
    let mut problems = Vec::new();
    let mut problem = |pointer: &str, message: &str| {
        problems.push(FieldProblem { pointer: pointer.to_owned(), message: message.to_owned() });
    };
    let id = asked.id.as_deref().map_or(Ok(JobId::from_uuid(seed)), str::parse).unwrap_or_else(|_| {
        problem("/id", "is no id of a job");
        JobId::from_uuid(seed)
    });
    let batch: Option<BatchId> = asked.batch_id.as_deref().map(str::parse).transpose().unwrap_or_else(|_| {
        problem("/batch_id", "is no id of a batch");
        None
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    let new = NewTrackedJob::new(asked.action);
    let context = |JobContext { kind, id, field }: JobContext| TrackedContext { kind, id, field };
    Ok(NewTrackedJob {
        id,
        namespace: asked.namespace,
        context: asked.context.map(context),
        batch,
        owner: asked.owner,
        metadata: asked.metadata.text().to_owned(),
        stale_after: asked.stale_after_ms.map_or(new.stale_after, Duration::from_millis),
        ..new
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only about things of this type; with `context_id`
    #[param(min_length = 1, max_length = 256)]
    context_type: Option<String>,
    /// Only about this one; with `context_type` and `namespace`
    #[param(min_length = 1, max_length = 256)]
    context_id: Option<String>,
    /// Only about this part of it; with `context_id`
    #[param(min_length = 1, max_length = 256)]
    context_field: Option<String>,
    /// Only in this state
    #[param(inline)]
    state: Option<StateDocument>,
    /// Only of this action
    #[param(min_length = 1, max_length = 256)]
    action: Option<String>,
    /// Only of this owner
    #[param(min_length = 1, max_length = 256)]
    owner: Option<String>,
    /// Only those that nobody has acknowledged
    unacknowledged: Option<bool>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only older than this job, `job_…`; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    before: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// List tracked jobs, newest first
///
/// By what they are about a page finds its jobs again.
#[utoipa::path(get, path = "/v1/tracked-jobs", tag = "tracked jobs", operation_id = "list_tracked_jobs",
    params(ListParams), responses((status = 200, description = "A page", body = TrackedJobList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<TrackedJobList>, Refusal> {
    let missing = |name: &str, message: &str| Err(Refusal::field(Code::InvalidParameter, name, message));
    let context = match (asked.context_type, asked.context_id, asked.context_field) {
        (Some(kind), Some(id), field) => Some(TrackedContext { kind, id, field }),
        (None, None, None) => None,
        (None, _, _) => return missing("?context_type", "must be given with the rest of the context"),
        (_, None, _) => return missing("?context_id", "must be given with the rest of the context"),
    };
    let namespace = caller.list_namespace(asked.namespace)?;
    if context.is_some() && namespace.is_none() {
        return missing("?namespace", "must be given: a context belongs to a namespace");
    }
    let filter = TrackedFilter {
        namespace,
        context,
        state: asked.state.map(state_of),
        action: asked.action,
        owner: asked.owner,
        unacknowledged: asked.unacknowledged.unwrap_or(false),
        before: None,
        rows_max: 0,
    };
    let page = Page::new("tracked jobs", &filter, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let filter = TrackedFilter {
        before: page.before_or("before", asked.before)?,
        rows_max: page.rows_max(),
        ..filter
    };
    let found = app.store().tracked_jobs().tracked_list(filter).await?;
    let jobs: Vec<Document> = found.into_iter().map(documents::tracked).collect();
    let (jobs, next) = page.cut(jobs, |job| &job.id);
    Ok(Json(TrackedJobList::new(jobs, next)))
}

/// A tracked job as it stands
#[utoipa::path(get, path = "/v1/tracked-jobs/{id}", tag = "tracked jobs", operation_id = "show_tracked_job",
    params(("id" = String, Path, description = "`job_…`")),
    responses((status = 200, description = "The job", body = TrackedJobAnswer)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
) -> Result<Json<TrackedJobAnswer>, Refusal> {
    let job = visible(&app, &caller, id).await?;
    Ok(Json(answer(Tracked { job, changed: false })))
}

/// Say how a tracked job goes
///
/// States only move forward. A report that is late or repeated changes nothing, and is answered with what stands.
#[utoipa::path(post, path = "/v1/tracked-jobs/{id}/report", tag = "tracked jobs", operation_id = "report_tracked_job",
    params(("id" = String, Path, description = "`job_…`")), request_body = ReportJob,
    responses((status = 200, description = "As it stands now", body = TrackedJobAnswer)))]
async fn report(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
    Input(asked): Input<ReportJob>,
) -> Result<Json<TrackedJobAnswer>, Refusal> {
    visible(&app, &caller, id).await?;
    let answers = app.store().tracked_jobs().tracked_report(vec![(id, report_of(asked))]).await?;
    Ok(Json(answer(only(answers)?)))
}

fn report_of(asked: ReportJob) -> Report {
    Report {
        state: asked.state.map(state_of),
        message: asked.message,
        code: asked.code,
        data: asked.data.map(|data| data.text().to_owned()),
        progress: asked.progress,
        items_done: asked.items_done,
        items_total: asked.items_total,
    }
}

/// Say that the owner of a tracked job lives
///
/// `changed` is false when the job has ended: it was cancelled, or given up.
#[utoipa::path(post, path = "/v1/tracked-jobs/{id}/heartbeat", tag = "tracked jobs",
    operation_id = "heartbeat_tracked_job",
    params(("id" = String, Path, description = "`job_…`")),
    responses((status = 200, description = "As it stands now", body = TrackedJobAnswer)))]
async fn heartbeat(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
) -> Result<Json<TrackedJobAnswer>, Refusal> {
    visible(&app, &caller, id).await?;
    let job = app.store().tracked_jobs().tracked_heartbeat(id).await?;
    let changed = job.finished_at.is_none();
    Ok(Json(answer(Tracked { job, changed })))
}

/// Take note of the end of a tracked job; the first to do so stands
#[utoipa::path(post, path = "/v1/tracked-jobs/{id}/acknowledge", tag = "tracked jobs",
    operation_id = "acknowledge_tracked_job",
    params(("id" = String, Path, description = "`job_…`")),
    responses((status = 200, description = "As it stands now", body = TrackedJobAnswer)))]
async fn acknowledge(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<JobId>,
) -> Result<Json<TrackedJobAnswer>, Refusal> {
    visible(&app, &caller, id).await?;
    Ok(Json(answer(app.store().tracked_jobs().tracked_acknowledge(id, caller.actor()).await?)))
}

/// The job, if it exists for the caller.
async fn visible(app: &App, caller: &Caller, id: JobId) -> Result<TrackedJob, Refusal> {
    let job = app.store().tracked_jobs().tracked_get(id).await?;
    caller.check_found(&job.definition.namespace, "tracked job", &id.to_string())?;
    Ok(job)
}

fn state_of(state: StateDocument) -> TrackedState {
    match state {
        StateDocument::Queued => TrackedState::Queued,
        StateDocument::Processing => TrackedState::Processing,
        StateDocument::Completed => TrackedState::Completed,
        StateDocument::Failed => TrackedState::Failed,
        StateDocument::Cancelled => TrackedState::Cancelled,
    }
}
