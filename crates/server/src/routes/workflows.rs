//! Workflows: submit, look, analyse, tell, cancel, run again, end steps by hand.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use recache_api::{
    Because, CompleteStep, GraphAnalysis, ResolveStep, RetryMode, RetryWorkflow, SendSignal, SubmitWorkflow,
    TimelineStep, Workflow, WorkflowChange, WorkflowDetails, WorkflowList, WorkflowStepList,
    WorkflowTimeline,
};
use recache_model::ids::{BatchId, WorkflowId};
use recache_model::time::Timestamp;
use recache_model::workflow::WorkflowState;
use recache_store::{SignalKind, SignalRecord, WorkflowFilter, WorkflowRecord};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use super::batches::of_foreign_batch;
use super::drawn::StepsForm;
use super::page::{Page, PageParams};
use super::templates::{stored, template_of};
use super::{Routes, drawn, reason_or};
use crate::access::{Action, Caller, Permission};
use crate::audited::{Deed, audited};
use crate::documents;
use crate::frame::{RequestId, Seed, Trace, Turn};
use crate::input::{Accepted, Id, Input, Params, Segments, Wait, read_id};
use crate::refusal::{Code, Refusal};
use crate::state::App;

const READ: Permission = Permission::new("workflows", Action::Read);
const WRITE: Permission = Permission::new("workflows", Action::Write);
const OPERATE: Permission = Permission::new("workflows", Action::Operate);

/// Steps whose passed limits are answered.
const LIMITS_MAX: u32 = 1_000;

pub(super) fn routes() -> Routes {
    Routes::new()
        .write_once(WRITE, routes!(submit))
        .read(READ, routes!(list))
        .read(READ, routes!(show))
        .read(READ, routes!(steps))
        .read(READ, routes!(graph))
        .read(READ, routes!(timeline))
        .write_once(OPERATE, routes!(cancel))
        .write_once(OPERATE, routes!(retry))
        .write_once(WRITE, routes!(signal))
        .write_once(OPERATE, routes!(approve))
        .write_once(OPERATE, routes!(complete))
        .write_once(OPERATE, routes!(resolve))
}

/// Submit a workflow of a stored template
///
/// With `Prefer: wait=SECONDS` the answer comes when it no longer runs, or after that time; `workflow` says how it stands then.
#[utoipa::path(post, path = "/v1/workflows", tag = "workflows", operation_id = "submit_workflow",
    params(("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    request_body = SubmitWorkflow,
    responses((status = 201, description = "It is stored with all its steps", body = WorkflowChange)))]
async fn submit(
    State(app): State<App>,
    caller: Caller,
    Seed(seed): Seed,
    Wait(wait): Wait,
    turn: Turn,
    trace: Trace,
    Input(asked): Input<SubmitWorkflow>,
) -> Result<Response, Refusal> {
    caller.check_namespace(&asked.namespace)?;
    let not_an_id = |_| Refusal::field(Code::Invalid, "/batch_id", "is no id of a batch");
    let batch: Option<BatchId> =
        asked.batch_id.as_deref().map(|text| text.parse().map_err(not_an_id)).transpose()?;
    let record = stored(&app, &asked.namespace, &asked.template, asked.version.as_deref()).await?;
    let template = template_of(&record)?;
    let input = value(asked.input.text())?;
    // In a repetition the store finds the workflow of the first time by this id.
    let id = WorkflowId::from_uuid(seed);
    let environment = asked.environment.as_deref();
    let trace = trace.text();
    match batch {
        None => {
            app.engine().submit_workflow_traced(id, &template, environment, &input, trace).await?;
        }
        Some(batch) => {
            let engine = app.engine();
            let added = engine.submit_workflow_to(batch, id, &template, environment, &input, trace).await;
            if let Err(error) = added {
                return Err(of_foreign_batch(&app, Some(batch), &asked.namespace, error.into()).await);
            }
        }
    }
    let location = format!("/v1/workflows/{id}");
    let mut document = WorkflowChange::new(id.to_string(), "submitted", None, 1);
    if let Some(wait) = wait {
        // It is stored: whatever keeps us from waiting, the answer is not that it failed.
        let record = match app.wait(&turn, wait, app.engine().wait_for_workflow(id)).await {
            Ok(Some(ended)) => Some(ended),
            Ok(None) | Err(_) => app.store().workflow_get(id).await.ok(),
        };
        document.workflow = record.map(documents::workflow);
    }
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(document)).into_response())
}

/// A state of a workflow
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StateParam {
    Running,
    Completed,
    Failed,
    Cancelled,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct ListParams {
    /// Only of this namespace
    #[param(min_length = 1, max_length = 256)]
    namespace: Option<String>,
    /// Only in this state
    #[param(inline)]
    state: Option<StateParam>,
    /// Only of templates of this name
    #[param(min_length = 1, max_length = 256)]
    template: Option<String>,
    /// At most so many
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only older than this workflow, `wf_…`; not together with `cursor`
    #[param(min_length = 1, max_length = 2048)]
    before: Option<String>,
    /// `next` of the page before
    cursor: Option<String>,
}

/// List workflows, newest first
#[utoipa::path(get, path = "/v1/workflows", tag = "workflows", operation_id = "list_workflows",
    params(ListParams), responses((status = 200, description = "A page", body = WorkflowList)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(asked): Params<ListParams>,
) -> Result<Json<WorkflowList>, Refusal> {
    let filter = WorkflowFilter {
        namespace: caller.list_namespace(asked.namespace)?,
        state: asked.state.map(|state| match state {
            StateParam::Running => WorkflowState::Running,
            StateParam::Completed => WorkflowState::Completed,
            StateParam::Failed => WorkflowState::Failed,
            StateParam::Cancelled => WorkflowState::Cancelled,
        }),
        template: asked.template,
        before: None,
        rows_max: 0,
    };
    let page = Page::new("workflows", &filter, PageParams { limit: asked.limit, cursor: asked.cursor })?;
    let filter = WorkflowFilter {
        before: page.before_or("before", asked.before)?,
        rows_max: page.rows_max(),
        ..filter
    };
    let found = app.store().flows().workflows_list(filter).await?;
    let workflows: Vec<Workflow> = found.into_iter().map(documents::workflow).collect();
    let (workflows, next) = page.cut(workflows, |workflow| &workflow.id);
    Ok(Json(WorkflowList::new(workflows, next)))
}

/// A workflow with its steps and what it was told
///
/// With `Prefer: wait=SECONDS` the answer comes when it no longer runs, or after that time as it stands then.
#[utoipa::path(get, path = "/v1/workflows/{id}", tag = "workflows", operation_id = "show_workflow",
    params(("id" = String, Path, description = "`wf_…`"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 200, description = "The workflow", body = WorkflowDetails)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Wait(wait): Wait,
    turn: Turn,
) -> Result<Json<WorkflowDetails>, Refusal> {
    let mut record = visible(&app, &caller, id).await?;
    if let Some(wait) = wait.filter(|_| record.state == WorkflowState::Running) {
        record = match app.wait(&turn, wait, app.engine().wait_for_workflow(id)).await? {
            Some(ended) => ended,
            None => app.store().workflow_get(id).await?,
        };
    }
    let steps = app.store().workflow_steps(id).await?.into_iter().map(documents::workflow_step).collect();
    let signals = app.store().flows().signals_list(id).await?;
    let signals = signals.into_iter().map(documents::workflow_signal).collect();
    let limits = app.store().flows().limits_list(id, true, LIMITS_MAX).await?;
    let limits = limits.iter().flat_map(documents::passed_limits).collect();
    let input = documents::json_text(&record.input);
    let details = WorkflowDetails::new(documents::workflow(record), input, steps, signals);
    Ok(Json(details.with_limits(limits)))
}

/// The steps of a workflow
#[utoipa::path(get, path = "/v1/workflows/{id}/steps", tag = "workflows", operation_id = "list_workflow_steps",
    params(("id" = String, Path, description = "`wf_…`")),
    responses((status = 200, description = "In the order in which they were created", body = WorkflowStepList)))]
async fn steps(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
) -> Result<Json<WorkflowStepList>, Refusal> {
    visible(&app, &caller, id).await?;
    let steps = app.store().workflow_steps(id).await?.into_iter().map(documents::workflow_step).collect();
    Ok(Json(WorkflowStepList::new(id.to_string(), steps)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct GraphParams {
    /// As data or drawn; without it as `Accept` says
    #[param(inline)]
    format: Option<StepsForm>,
}

/// A workflow's graph, its critical path, what holds it up, and when it ends
///
/// As data, or drawn (of at most 5,000 steps and 20,000 lines): `format` or `Accept` says how.
#[utoipa::path(get, path = "/v1/workflows/{id}/graph", tag = "workflows", operation_id = "analyze_workflow",
    params(("id" = String, Path, description = "`wf_…`"), GraphParams),
    responses((status = 200, description = "As it stands; where no step has changed since, as of 90 seconds ago at most",
        content((GraphAnalysis = "application/json"), (String = "text/plain"), (String = "text/vnd.mermaid"),
            (String = "image/svg+xml"))),
        (status = 409, description = "It is too large to be drawn")))]
async fn graph(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Params(asked): Params<GraphParams>,
    accepted: Accepted,
) -> Result<Response, Refusal> {
    visible(&app, &caller, id).await?;
    let found = app.engine().workflow_analysis(id, documents::analysis).await?;
    drawn::analysis(std::sync::Arc::unwrap_or_clone(found), asked.format, &accepted)
}

/// How the steps of a workflow went over time
#[utoipa::path(get, path = "/v1/workflows/{id}/timeline", tag = "workflows", operation_id = "workflow_timeline",
    params(("id" = String, Path, description = "`wf_…`")),
    responses((status = 200, description = "By when their last attempts began", body = WorkflowTimeline)))]
async fn timeline(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
) -> Result<Json<WorkflowTimeline>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let mut steps = app.store().workflow_steps(id).await?;
    let now = app.store().now().await?;
    steps.sort_by_key(|step| (step.job.started_at.is_none(), step.job.started_at, step.job.id));
    let steps = steps.into_iter().map(|step| {
        let job = step.job;
        TimelineStep {
            waited_ms: job.started_at.map(|started| documents::ms(started.since(job.due_at))),
            ran_ms: job
                .started_at
                .map(|started| documents::ms(job.finished_at.unwrap_or(now).since(started))),
            name: job.step.unwrap_or_default(),
            job_id: job.id.to_string(),
            state: documents::job_state(job.state),
            attempt: job.attempt,
            due_at: documents::instant(job.due_at),
            started_at: job.started_at.map(documents::instant),
            finished_at: job.finished_at.map(documents::instant),
        }
    });
    Ok(Json(WorkflowTimeline {
        schema: WorkflowTimeline::SCHEMA.to_owned(),
        workflow_id: id.to_string(),
        state: record.state.as_str().to_owned(),
        created_at: documents::instant(record.created_at),
        finished_at: record.finished_at.map(documents::instant),
        steps: steps.collect(),
    }))
}

/// Cancel a workflow, with the workflows that do its steps
#[utoipa::path(post, path = "/v1/workflows/{id}/cancel", tag = "workflows", operation_id = "cancel_workflow",
    params(("id" = String, Path, description = "`wf_…`")), request_body = Because,
    responses((status = 200, description = "`count` steps were cancelled", body = WorkflowChange)))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    request: RequestId,
    Input(asked): Input<Because>,
) -> Result<Json<WorkflowChange>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let reason = reason_or(asked.reason, "cancelled over HTTP");
    audited(
        app.store(),
        &caller,
        deed("workflows.cancel", &record, &reason, &request),
        &state(&record),
        async {
            app.engine().cancel_workflow(id, &reason).await?;
            let after = app.store().workflow_get(id).await?;
            let count = u64::try_from(after.counts.cancelled - record.counts.cancelled).unwrap_or(0);
            Ok((Json(WorkflowChange::new(id.to_string(), "cancelled", None, count)), state(&after)))
        },
    )
    .await
}

/// Run the failed steps of a workflow again, these with all that stands behind them as a new workflow, or all of it as one
#[utoipa::path(post, path = "/v1/workflows/{id}/retry", tag = "workflows", operation_id = "retry_workflow",
    params(("id" = String, Path, description = "`wf_…`")), request_body = RetryWorkflow,
    responses((status = 200, description = "`count` steps are queued; of a new workflow, its id", body = WorkflowChange)))]
async fn retry(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Seed(seed): Seed,
    request: RequestId,
    Input(asked): Input<RetryWorkflow>,
) -> Result<Json<WorkflowChange>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let reason = reason_or(asked.reason, "retried over HTTP");
    audited(
        app.store(),
        &caller,
        deed("workflows.retry", &record, &reason, &request),
        &state(&record),
        async {
            let change = match asked.mode {
                RetryMode::Failed => {
                    let count = app.engine().retry_failed_steps(id, caller.word(&reason)).await?;
                    WorkflowChange::new(id.to_string(), "retried", None, count)
                }
                RetryMode::Downstream => {
                    let new = app.engine().run_failed_again_as(id, WorkflowId::from_uuid(seed)).await?;
                    WorkflowChange::new(new.to_string(), "run_failed_again", None, 1)
                }
                RetryMode::All => {
                    let new = app.engine().run_again_as(id, WorkflowId::from_uuid(seed)).await?;
                    WorkflowChange::new(new.to_string(), "run_again", None, 1)
                }
            };
            let after = json!({ "id": change.id, "count": change.count });
            Ok((Json(change), after))
        },
    )
    .await
}

/// Tell a workflow something that a step of it waits for, now or later
#[utoipa::path(post, path = "/v1/workflows/{id}/signals", tag = "workflows", operation_id = "signal_workflow",
    params(("id" = String, Path, description = "`wf_…`")), request_body = SendSignal,
    responses((status = 200, description = "`count` is 0 when it was told before", body = WorkflowChange)))]
async fn signal(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    Input(asked): Input<SendSignal>,
) -> Result<Json<WorkflowChange>, Refusal> {
    visible(&app, &caller, id).await?;
    tell(&app, &caller, id, SignalKind::Signal, asked).await.map(Json)
}

/// Give an approval that a step of a workflow waits for, now or later
#[utoipa::path(post, path = "/v1/workflows/{id}/approvals", tag = "workflows", operation_id = "approve_workflow",
    params(("id" = String, Path, description = "`wf_…`")), request_body = SendSignal,
    responses((status = 200, description = "`count` is 0 when it was given before", body = WorkflowChange)))]
async fn approve(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<WorkflowId>,
    request: RequestId,
    Input(asked): Input<SendSignal>,
) -> Result<Json<WorkflowChange>, Refusal> {
    let record = visible(&app, &caller, id).await?;
    let reason = format!("approval `{}`", asked.name);
    audited(
        app.store(),
        &caller,
        deed("workflows.approve", &record, &reason, &request),
        &state(&record),
        async {
            let change = tell(&app, &caller, id, SignalKind::Approval, asked).await?;
            let after = json!({ "count": change.count });
            Ok((Json(change), after))
        },
    )
    .await
}

async fn tell(
    app: &App,
    caller: &Caller,
    id: WorkflowId,
    kind: SignalKind,
    asked: SendSignal,
) -> Result<WorkflowChange, Refusal> {
    let signal = SignalRecord {
        kind,
        name: asked.name,
        payload: asked.payload.text().to_owned(),
        actor: caller.actor().to_owned(),
        received_at: Timestamp::from_micros(0),
    };
    let is_new = app.engine().signal(id, signal).await?;
    Ok(WorkflowChange::new(id.to_string(), "told", None, u64::from(is_new)))
}

/// Complete a step that has not ended, in place of its handler, which is told to stop
#[utoipa::path(post, path = "/v1/workflows/{id}/steps/{step}/complete", tag = "workflows",
    operation_id = "complete_step",
    params(("id" = String, Path, description = "`wf_…`"), ("step" = String, Path, description = "Its name")),
    request_body = CompleteStep,
    responses((status = 200, description = "It is completed with this result", body = WorkflowChange)))]
async fn complete(
    State(app): State<App>,
    caller: Caller,
    Segments((id, step)): Segments<(String, String)>,
    request: RequestId,
    Input(asked): Input<CompleteStep>,
) -> Result<Json<WorkflowChange>, Refusal> {
    let id: WorkflowId = read_id(&id)?;
    let record = visible(&app, &caller, id).await?;
    let reason = reason_or(asked.reason, "completed over HTTP");
    let result = value(asked.result.text())?;
    let deed = step_deed("workflows.complete_step", &record, &step, &reason, &request);
    audited(app.store(), &caller, deed, &state(&record), async {
        let now = app.engine().complete_step(id, &step, &result, caller.word(&reason)).await?;
        let change = WorkflowChange::new(id.to_string(), "completed", Some(step.clone()), 1);
        Ok((Json(change), json!({ "step": step, "state": now.as_str() })))
    })
    .await
}

/// Declare a failed step settled, so that what waits for it goes on
#[utoipa::path(post, path = "/v1/workflows/{id}/steps/{step}/resolve", tag = "workflows",
    operation_id = "resolve_step",
    params(("id" = String, Path, description = "`wf_…`"), ("step" = String, Path, description = "Its name")),
    request_body = ResolveStep,
    responses((status = 200, description = "It is resolved", body = WorkflowChange)))]
async fn resolve(
    State(app): State<App>,
    caller: Caller,
    Segments((id, step)): Segments<(String, String)>,
    request: RequestId,
    Input(asked): Input<ResolveStep>,
) -> Result<Json<WorkflowChange>, Refusal> {
    let id: WorkflowId = read_id(&id)?;
    let record = visible(&app, &caller, id).await?;
    let reason = reason_or(asked.reason, "resolved over HTTP");
    let result = asked.result.map(|result| value(result.text())).transpose()?;
    let deed = step_deed("workflows.resolve_step", &record, &step, &reason, &request);
    audited(app.store(), &caller, deed, &state(&record), async {
        let now = app.engine().resolve_step(id, &step, result.as_ref(), caller.word(&reason)).await?;
        let change = WorkflowChange::new(id.to_string(), "resolved", Some(step.clone()), 1);
        Ok((Json(change), json!({ "step": step, "state": now.as_str() })))
    })
    .await
}

/// The workflow, if it exists for the caller.
async fn visible(app: &App, caller: &Caller, id: WorkflowId) -> Result<WorkflowRecord, Refusal> {
    let record = app.store().workflow_get(id).await?;
    caller.check_found(&record.namespace, "workflow", &id.to_string())?;
    Ok(record)
}

fn state(record: &WorkflowRecord) -> Value {
    json!({ "state": record.state.as_str(), "failed": record.counts.failed, "cancelled": record.counts.cancelled })
}

fn deed<'a>(
    action: &'a str,
    record: &'a WorkflowRecord,
    reason: &'a str,
    request: &'a RequestId,
) -> Deed<'a> {
    Deed { action, namespace: Some(&record.namespace), target: record.id.to_string(), reason, request }
}

fn step_deed<'a>(
    action: &'a str,
    record: &'a WorkflowRecord,
    step: &str,
    reason: &'a str,
    request: &'a RequestId,
) -> Deed<'a> {
    let target = format!("{}/{step}", record.id);
    Deed { target, ..deed(action, record, reason, request) }
}

/// JSON as the engine looks into it.
fn value(text: &str) -> Result<Value, Refusal> {
    serde_json::from_str(text)
        .map_err(|error| Refusal::new(Code::Malformed, format!("it is not JSON: {error}")))
}
