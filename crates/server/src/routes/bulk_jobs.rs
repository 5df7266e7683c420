//! Jobs by filter: cancel, run again, delete. With a preview, and in requests of bounded size.

use axum::Json;
use axum::extract::State;
use recache_api::{BulkChange, ChangeJobs};
use recache_model::ids::JobId;
use recache_store::{BulkJobChange, JobFilter};
use serde_json::json;
use utoipa_axum::routes;

use super::{Routes, reason_or, steps};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::frame::RequestId;
use crate::input::{Input, cursor};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const OPERATE: Permission = Permission::new("jobs", Action::Operate);

/// Jobs that one transaction changes.
const CHANGED_ROWS: u32 = 200;
/// No preview counts further.
const PREVIEW_MAX: u32 = 100_000;

pub(super) fn routes() -> Routes {
    Routes::new()
        .write_once(OPERATE, routes!(cancel))
        .write_once(OPERATE, routes!(retry))
        .write_once(OPERATE, routes!(delete))
}

/// A change as it is named.
#[derive(Debug, Clone, Copy)]
struct Named {
    change: BulkJobChange,
    /// In the audit.
    action: &'static str,
    /// The list that its cursors belong to, and what a log says of it.
    list: &'static str,
    /// Why, where the caller does not say.
    reason: &'static str,
}

/// Cancel the jobs of a filter that have not ended
///
/// One call goes through some thousands; `next` says that there may be more. With `dry_run` it only counts. Builds of views are left
/// to their views.
#[utoipa::path(post, path = "/v1/jobs/cancel", tag = "jobs", operation_id = "cancel_jobs", request_body = ChangeJobs,
    responses((status = 200, description = "How many were cancelled", body = BulkChange)))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    request: RequestId,
    Input(asked): Input<ChangeJobs>,
) -> Result<Json<BulkChange>, Refusal> {
    let named = Named {
        change: BulkJobChange::Cancel,
        action: "jobs.cancel_many",
        list: "cancelled jobs",
        reason: "cancelled over HTTP",
    };
    change(&app, &caller, &request, asked, named).await
}

/// Run the failed jobs of a filter again, with their attempts renewed
///
/// One call goes through some thousands; `next` says that there may be more. With `dry_run` it only counts.
#[utoipa::path(post, path = "/v1/jobs/retry", tag = "jobs", operation_id = "retry_jobs", request_body = ChangeJobs,
    responses((status = 200, description = "How many are queued again", body = BulkChange)))]
async fn retry(
    State(app): State<App>,
    caller: Caller,
    request: RequestId,
    Input(asked): Input<ChangeJobs>,
) -> Result<Json<BulkChange>, Refusal> {
    let named = Named {
        change: BulkJobChange::Retry,
        action: "jobs.retry_many",
        list: "retried jobs",
        reason: "retried over HTTP",
    };
    change(&app, &caller, &request, asked, named).await
}

/// Delete the ended jobs of a filter, with their history
///
/// Steps stay with their workflow, members with a batch that has not ended, and a failed job with its open dead letter. One call goes
/// through some thousands; `next` says that there may be more. With `dry_run` it only counts.
#[utoipa::path(post, path = "/v1/jobs/delete", tag = "jobs", operation_id = "delete_jobs", request_body = ChangeJobs,
    responses((status = 200, description = "How many are gone", body = BulkChange)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    request: RequestId,
    Input(asked): Input<ChangeJobs>,
) -> Result<Json<BulkChange>, Refusal> {
    let named = Named {
        change: BulkJobChange::Delete,
        action: "jobs.delete_many",
        list: "deleted jobs",
        reason: "deleted over HTTP",
    };
    change(&app, &caller, &request, asked, named).await
}

async fn change(
    app: &App,
    caller: &Caller,
    request: &RequestId,
    asked: ChangeJobs,
    named: Named,
) -> Result<Json<BulkChange>, Refusal> {
    let chooses = asked.namespace.is_some() || asked.queue.is_some() || asked.handler.is_some();
    if !chooses && !asked.all {
        return Err(Refusal::field(Code::Invalid, "/all", "must be true where no filter is given"));
    }
    let filter = JobFilter {
        namespace: caller.list_namespace(asked.namespace)?,
        queue: asked.queue,
        handler: asked.handler,
        rows_max: CHANGED_ROWS,
        ..JobFilter::default()
    };
    let jobs = app.store().bulk_jobs();
    if asked.dry_run {
        let counted = JobFilter { rows_max: PREVIEW_MAX, ..filter };
        return Ok(Json(BulkChange::preview(jobs.jobs_count(counted, named.change).await?)));
    }
    let before = asked.cursor.map(|text| from_cursor(named.list, &filter, &text)).transpose()?;
    let reason = reason_or(asked.reason, named.reason);
    let shown = json!({ "queue": filter.queue, "handler": filter.handler });
    let deed = Deed {
        action: named.action,
        namespace: filter.namespace.as_deref(),
        target: "jobs by filter".to_owned(),
        reason: &reason,
        request,
    };
    audited(app.store(), caller, deed, &shown, async {
        let step = |before| {
            jobs.jobs_change(JobFilter { before, ..filter.clone() }, named.change, caller.word(&reason))
        };
        let (sum, next) = steps::take(named.list, CHANGED_ROWS, before, step).await?;
        let next = next.map(|last| cursor::write(named.list, &filter, &last.to_string()));
        let after = json!({ "changed": sum.changed, "skipped": sum.skipped, "is_all": next.is_none() });
        Ok((Json(BulkChange { next, ..BulkChange::done(sum.changed, sum.skipped) }), after))
    })
    .await
}

fn from_cursor(list: &str, filter: &JobFilter, text: &str) -> Result<JobId, Refusal> {
    let not_ours =
        || Refusal::field(Code::Invalid, "/cursor", "is not a cursor of such a change with this filter");
    cursor::read(list, filter, text).ok().and_then(|place| place.parse().ok()).ok_or_else(not_ours)
}
