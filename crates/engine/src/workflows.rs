//! Workflows as callers see them: submit, tell, retry, end a step by hand.

use std::collections::BTreeSet;

use recache_model::ids::{BatchId, JobId, WorkflowId};
use recache_model::job::JobState;
use recache_model::template::{StepType, Template};
use recache_model::workflow::WorkflowState;
use recache_store::{Ending, FLOW, Outcome, SignalRecord, TakeOver, Word};
use recache_worker::Failure;
use serde_json::Value;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::origin::Origin;
use crate::plan;
use crate::rules::Rules;

impl Engine {
    /// Stores a workflow of this template with all its steps; the template's content is pinned by its digest.
    ///
    /// Refused is input that does not fit the template's `input_schema`, and a template that asks for what this version
    /// does not run: see [`Template::unsupported`].
    pub async fn submit_workflow(
        &self,
        id: WorkflowId,
        template: &Template,
        input: &Value,
    ) -> Result<WorkflowId> {
        self.submit_workflow_in(id, template, None, input).await
    }

    /// The same, with the overlays of one of the template's environments applied to its steps. What is pinned is the
    /// template as it was written.
    pub async fn submit_workflow_in(
        &self,
        id: WorkflowId,
        template: &Template,
        environment: Option<&str>,
        input: &Value,
    ) -> Result<WorkflowId> {
        self.submit_workflow_traced(id, template, environment, input, None).await
    }

    /// The same as a part of a trace: all its steps keep this `traceparent` (W3C Trace Context), those too that are made later.
    pub async fn submit_workflow_traced(
        &self,
        id: WorkflowId,
        template: &Template,
        environment: Option<&str>,
        input: &Value,
        traceparent: Option<String>,
    ) -> Result<WorkflowId> {
        let correlation_id = id.uuid().to_string();
        let origin = Origin { correlation_id: &correlation_id, traceparent: traceparent.as_deref() };
        let mut new = plan::new_workflow(id, template, environment, input, origin)?;
        new.template_raise = Some(self.shared.templates.raise(&new.template));
        self.shared.store.workflow_submit(new).await?;
        Ok(id)
    }

    /// The same, in a trace if one is given, as a member of a batch of the template's namespace. True when it is new.
    pub async fn submit_workflow_to(
        &self,
        batch: BatchId,
        id: WorkflowId,
        template: &Template,
        environment: Option<&str>,
        input: &Value,
        traceparent: Option<String>,
    ) -> Result<bool> {
        let correlation_id = id.uuid().to_string();
        let origin = Origin { correlation_id: &correlation_id, traceparent: traceparent.as_deref() };
        let mut new = plan::new_workflow(id, template, environment, input, origin)?;
        new.template_raise = Some(self.shared.templates.raise(&new.template));
        Ok(self.shared.store.batches().batch_add_workflow(batch, new).await?)
    }

    /// Tells a workflow something that a step of it waits for, now or later. Telling it again is harmless: false then.
    pub async fn signal(&self, workflow: WorkflowId, signal: SignalRecord) -> Result<bool> {
        Ok(self.shared.store.flows().signal_send(workflow, signal).await?)
    }

    /// Runs all failed steps of a workflow again, with new attempts; what they held up follows. Answers how many there were.
    pub async fn retry_failed_steps(&self, workflow: WorkflowId, word: Word) -> Result<u64> {
        Ok(self.shared.store.flows().workflow_retry_failed(workflow, word).await?)
    }

    /// Runs a workflow from its beginning: a new one of the same pinned template, environment and input. The old one stays as it is.
    pub async fn run_again(&self, workflow: WorkflowId) -> Result<WorkflowId> {
        self.run_again_as(workflow, WorkflowId::make()).await
    }

    /// The same, as the workflow of this id: harmless to repeat.
    pub async fn run_again_as(&self, workflow: WorkflowId, id: WorkflowId) -> Result<WorkflowId> {
        let old = self.shared.store.workflow_get(workflow).await?;
        let record = self.template_by_digest(&old.template_digest).await?;
        let template = Template::from_canonical_json(&record.content)
            .map_err(|problems| Error::Invalid(problems.to_string()))?;
        let input = serde_json::from_str(&old.input).map_err(|error| {
            Error::Invalid(format!("the input of workflow {workflow} is not JSON: {error}"))
        })?;
        self.submit_workflow_in(id, &template, old.environment.as_deref(), &input).await
    }

    /// Runs a workflow's failed steps and all that stands behind them again: in a new workflow of the same pinned template, environment
    /// and input, whose other steps end with the results that they have. The old one stays as it is. A workflow that still runs, or in which nothing
    /// failed, is a conflict.
    pub async fn run_failed_again(&self, workflow: WorkflowId) -> Result<WorkflowId> {
        self.run_failed_again_as(workflow, WorkflowId::make()).await
    }

    /// The same, as the workflow of this id: harmless to repeat.
    pub async fn run_failed_again_as(&self, workflow: WorkflowId, id: WorkflowId) -> Result<WorkflowId> {
        let store = &self.shared.store;
        let old = store.workflow_get(workflow).await?;
        if old.state == WorkflowState::Running {
            return Err(conflict(format!(
                "workflow `{workflow}` is still running: cancel it, or wait for its end"
            )));
        }
        let mut failed = BTreeSet::new();
        for step in store.workflow_steps(workflow).await? {
            if matches!(step.job.state, JobState::Failed | JobState::Cancelled) {
                // A run of a step that was split is called `step[0]`, and the step runs again as a whole.
                let name = step.job.step.as_deref().unwrap_or_default();
                failed.insert(name.split('[').next().unwrap_or_default().to_owned());
            }
        }
        if failed.is_empty() {
            return Err(conflict(format!("no step of workflow `{workflow}` has failed")));
        }
        let record = self.template_by_digest(&old.template_digest).await?;
        let template = Template::from_canonical_json(&record.content)
            .map_err(|problems| Error::Invalid(problems.to_string()))?;
        let input = serde_json::from_str(&old.input).map_err(|error| {
            Error::Invalid(format!("the input of workflow {workflow} is not JSON: {error}"))
        })?;
        let environment = old.environment.as_deref();
        let correlation_id = id.uuid().to_string();
        let origin = Origin::new(&correlation_id);
        let mut new = plan::new_workflow(id, &template, environment, &input, origin)?;
        let steps = plan::unharmed(&template, &failed).into_iter().map(str::to_owned).collect();
        new.takes_over = Some(TakeOver { from: workflow, steps });
        store.workflow_submit(new).await?;
        Ok(id)
    }

    /// Completes a step that has not ended with this result, in place of its handler, which is told to stop. The result is judged
    /// as the handler's would be.
    pub async fn complete_step(
        &self,
        workflow: WorkflowId,
        step: &str,
        result: &Value,
        word: Word,
    ) -> Result<JobState> {
        let job = self.shared.store.flows().step_find(workflow, step).await?;
        let (output, region) = self.judged(job, step, result).await?;
        let ending = Ending::Complete { output };
        let state = self.shared.store.flows().step_end(job, ending, region, word).await?;
        self.shared.waiters.wake(workflow.uuid());
        Ok(state)
    }

    /// Declares a failed step settled, which counts as done for what waits for it; with a result, if its dependents need one. A
    /// decision that is resolved without a result has chosen nothing.
    pub async fn resolve_step(
        &self,
        workflow: WorkflowId,
        step: &str,
        result: Option<&Value>,
        word: Word,
    ) -> Result<JobState> {
        let job = self.shared.store.flows().step_find(workflow, step).await?;
        let nothing = Value::Array(Vec::new());
        let is_decision =
            self.shared.store.job_get(job).await?.kind == recache_model::workflow::StepKind::Decision;
        let result = result.or_else(|| is_decision.then_some(&nothing));
        let (output, region) = match result {
            Some(result) => {
                let (output, region) = self.judged(job, step, result).await?;
                (Some(output), region)
            }
            None => (None, None),
        };
        let ending = Ending::Resolve { output };
        let state = self.shared.store.flows().step_end(job, ending, region, word).await?;
        self.shared.waiters.wake(workflow.uuid());
        Ok(state)
    }

    /// A result that somebody gives in a handler's place, as the store takes it.
    async fn judged(
        &self,
        job: JobId,
        step: &str,
        result: &Value,
    ) -> Result<(String, Option<recache_store::Region>)> {
        let refused = |failure: Failure| Error::Invalid(failure.to_string());
        let inputs = self.shared.store.step_inputs(job).await?;
        let record = self.shared.store.job_get(job).await?;
        let origin =
            Origin { correlation_id: &record.correlation_id, traceparent: record.trace_context.as_deref() };
        let rules = Rules::of_step(&self.shared, step, origin, &inputs).await.map_err(refused)?;
        let is_whole = inputs.item.is_none()
            && (rules.step().for_each.is_some() || rules.step().step_type == StepType::BatchWorker);
        // The schema is about the single runs of a step that is split.
        let outcome = if is_whole {
            crate::rules::completed(&self.shared, result)
        } else {
            rules.concluded(&self.shared, result)
        };
        match outcome.map_err(refused)? {
            Outcome::Completed { output } => Ok((output, None)),
            Outcome::Decided { output, region } => {
                Ok((output, Some(std::sync::Arc::unwrap_or_clone(region))))
            }
            other => Err(Error::Invalid(format!("{FLOW}: a result led to {other:?}"))),
        }
    }
}

fn conflict(message: String) -> Error {
    recache_store::Error::Conflict(message).into()
}
