//! The engine's turn with a view that a workflow builds: begin the build and its workflow, wait for its end, publish.
//!
//! As in [`turn`](crate::turn), what is known of the build's situation is looked at afresh each time, so a turn that a crash cut off is simply
//! taken again.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::WorkflowId;
use recache_model::view_options::BuildWorkflow;
use recache_model::workflow::WorkflowState;
use recache_store::{
    BuildSituation, ClaimedJob, Gathered, HandOver, Outcome, PartStart, Revoked, TouchedItems, ViewName,
    Waiting,
};
use recache_worker::{BuildSummary, Failure};
use serde_json::{Value, json};

use crate::engine::Shared;
use crate::execute::{Finished, publish};
use crate::held::stop_for;
use crate::kept;
use crate::origin::Origin;
use crate::plan;
use crate::turn::newest_template;

/// When the store cannot be reached, a turn is taken again after this long.
const STORE_PAUSE: Duration = Duration::from_millis(200);
/// A workflow is told at most so many touched items; of more, that any may have changed.
const TOUCHED_MAX: usize = 1_000;
/// The code of a build whose workflow failed.
const FAILED: &str = "build_workflow";

/// Takes the turn.
pub(crate) async fn take(shared: &Arc<Shared>, job: &ClaimedJob) -> Result<Finished, Failure> {
    let builds = shared.store.build_workflows();
    let Some(situation) = answer(builds.build_situation(job.token).await)? else { return Ok(snoozed()) };
    let Some((id, state)) = situation.running else { return begin(shared, job, situation).await };
    match state {
        WorkflowState::Running => Ok(Finished::Concluded(Outcome::Waits(Waiting::Workflow))),
        WorkflowState::Completed => {
            let Some(gathered) = answer(builds.build_gather(job.token).await)? else { return Ok(snoozed()) };
            let Gathered { version, removed, total, computed, reused } = gathered;
            publish(shared, job.token, version, BuildSummary { removed, total, computed, reused }).await
        }
        WorkflowState::Failed => Err(Failure::Retryable {
            code: Some(FAILED.to_owned()),
            message: format!("workflow {id}, which did the build, failed: recache workflow show {id}"),
            after: None,
        }),
        WorkflowState::Cancelled => {
            Err(Failure::permanent(FAILED, format!("workflow {id}, which did the build, was cancelled")))
        }
    }
}

fn snoozed() -> Finished {
    Finished::Concluded(Outcome::Snoozed { after: STORE_PAUSE })
}

/// `None`: the store cannot be reached.
fn answer<T>(asked: recache_store::Result<std::result::Result<T, Revoked>>) -> Result<Option<T>, Failure> {
    match asked {
        Ok(Ok(found)) => Ok(Some(found)),
        Ok(Err(revoked)) => Err(Failure::Stopped(stop_for(revoked))),
        Err(error) if error.is_retryable() => Ok(None),
        Err(error) => Err(Failure::permanent("no_situation", error)),
    }
}

async fn begin(
    shared: &Arc<Shared>,
    job: &ClaimedJob,
    situation: BuildSituation,
) -> Result<Finished, Failure> {
    let Some(workflow) = situation.workflow else {
        // It was defined anew while this job waited.
        let to =
            HandOver { queue: situation.queue, handler: situation.handler, concurrency: None, rate: None };
        return Ok(Finished::Concluded(Outcome::HandedOver(Arc::new(to))));
    };
    let range = workflow.range().map_err(|error| Failure::permanent("unknown_workflow", error))?;
    let BuildWorkflow { name, namespace, .. } = workflow;
    let namespace = namespace.unwrap_or(situation.namespace);
    let Some(template) = newest_template(shared, &namespace, &name, range.as_ref()).await? else {
        return Ok(snoozed());
    };
    let taken = shared.store.build_workflows().build_take_version(job.token).await;
    let Some(start) = answer(taken)? else { return Ok(snoozed()) };
    let Some(start) = without_gone(shared, job, start).await? else { return Ok(snoozed()) };
    shared.heads.builds(start.view, &start.namespace, &start.key);
    let id = WorkflowId::make();
    let new = plan::new_workflow(id, &template, None, &input(&start), Origin::of(job))
        .map_err(|error| Failure::permanent("invalid_workflow", error))?;
    tracing::debug!(job_id = %job.token.job, workflow_id = %id, version = start.version, "a workflow builds a view");
    Ok(Finished::Concluded(Outcome::Waits(Waiting::NewWorkflow(Arc::new(new)))))
}

/// Where the cache alone keeps the values: the start without what is gone there. `None`: it cannot be asked now.
async fn without_gone(
    shared: &Shared,
    job: &ClaimedJob,
    start: PartStart,
) -> Result<Option<PartStart>, Failure> {
    if !start.is_held {
        return Ok(Some(start));
    }
    let name = ViewName::new(start.namespace.as_str(), start.key.as_str());
    match kept::check(shared, start.view, &name).await {
        Ok(0) => Ok(Some(start)),
        Ok(_) => answer(shared.store.build_workflows().build_take_version(job.token).await),
        Err(error) if error.is_retryable() => {
            tracing::warn!(job_id = %job.token.job, %error, "a build waits");
            Ok(None)
        }
        Err(error) => Err(Failure::permanent("cache_only", error)),
    }
}

/// What the workflow is told.
fn input(start: &PartStart) -> Value {
    let touched = match &start.touched {
        TouchedItems::Only(items) if items.len() <= TOUCHED_MAX => json!(items),
        _ => Value::Null,
    };
    json!({
        "namespace": start.namespace,
        "key": start.key,
        "version": start.version,
        "live_version": start.live_version,
        "touched": touched,
    })
}

#[cfg(test)]
mod tests {
    use recache_model::ids::ViewId;

    use super::*;

    #[test]
    fn many_touched_items_are_told_as_any() {
        let start = |count: usize| PartStart {
            view: ViewId::make(),
            namespace: "n".to_owned(),
            key: "k".to_owned(),
            version: 2,
            live_version: 1,
            touched: TouchedItems::Only((0..count).map(|item| item.to_string()).collect()),
            is_held: false,
        };
        assert_eq!(input(&start(2))["touched"], json!(["0", "1"]));
        assert_eq!(input(&start(TOUCHED_MAX + 1))["touched"], Value::Null);
        assert_eq!(input(&PartStart { touched: TouchedItems::All, ..start(0) })["touched"], Value::Null);
    }
}
