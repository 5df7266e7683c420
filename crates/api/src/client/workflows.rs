//! Workflows.

use std::time::Duration;

use super::call::Call;
use super::{Client, Result, WorkflowsQuery};
use crate::analysis::GraphAnalysis;
use crate::job_request::Because;
use crate::workflow::{WorkflowChange, WorkflowDetails, WorkflowList};
use crate::workflow_request::{
    CompleteStep, ResolveStep, RetryWorkflow, SendSignal, SubmitWorkflow, WorkflowStepList, WorkflowTimeline,
};

impl Client {
    /// Submits a workflow of a stored template. With `wait` the answer comes when it no longer runs, or after that time.
    pub async fn submit_workflow(
        &self,
        workflow: &SubmitWorkflow,
        wait: Option<Duration>,
    ) -> Result<WorkflowChange> {
        self.call(Call::post(&["v1", "workflows"], workflow)?.wait(wait)).await
    }

    /// A page of workflows, newest first.
    pub async fn workflows(&self, query: &WorkflowsQuery) -> Result<WorkflowList> {
        self.call(Call::get(&["v1", "workflows"]).query(query)?).await
    }

    /// A workflow with its steps. With `wait` the answer comes when it no longer runs, or after that time.
    pub async fn workflow(&self, id: &str, wait: Option<Duration>) -> Result<WorkflowDetails> {
        self.call(Call::get(&["v1", "workflows", id]).wait(wait)).await
    }

    /// The steps of a workflow, in the order of its template.
    pub async fn workflow_steps(&self, id: &str) -> Result<WorkflowStepList> {
        self.call(Call::get(&["v1", "workflows", id, "steps"])).await
    }

    /// How the steps of a workflow went over time.
    pub async fn workflow_timeline(&self, id: &str) -> Result<WorkflowTimeline> {
        self.call(Call::get(&["v1", "workflows", id, "timeline"])).await
    }

    /// A workflow's graph, its critical path, what holds it up, and when it ends.
    pub async fn analyze_workflow(&self, id: &str) -> Result<GraphAnalysis> {
        self.call(Call::get(&["v1", "workflows", id, "graph"])).await
    }

    /// Cancels a workflow, with the workflows that do its steps.
    pub async fn cancel_workflow(&self, id: &str, because: &Because) -> Result<WorkflowChange> {
        self.call(Call::post(&["v1", "workflows", id, "cancel"], because)?).await
    }

    /// Runs a workflow again, or part of it.
    pub async fn retry_workflow(&self, id: &str, retry: &RetryWorkflow) -> Result<WorkflowChange> {
        self.call(Call::post(&["v1", "workflows", id, "retry"], retry)?).await
    }

    /// Tells a workflow something that a step of it waits for.
    pub async fn signal_workflow(&self, id: &str, signal: &SendSignal) -> Result<WorkflowChange> {
        self.call(Call::post(&["v1", "workflows", id, "signals"], signal)?).await
    }

    /// Gives an approval that a step of it waits for.
    pub async fn approve_workflow(&self, id: &str, approval: &SendSignal) -> Result<WorkflowChange> {
        self.call(Call::post(&["v1", "workflows", id, "approvals"], approval)?).await
    }

    /// Completes a step in place of its handler.
    pub async fn complete_step(&self, id: &str, step: &str, result: &CompleteStep) -> Result<WorkflowChange> {
        self.call(Call::post(&["v1", "workflows", id, "steps", step, "complete"], result)?).await
    }

    /// Declares a failed step settled.
    pub async fn resolve_step(&self, id: &str, step: &str, word: &ResolveStep) -> Result<WorkflowChange> {
        self.call(Call::post(&["v1", "workflows", id, "steps", step, "resolve"], word)?).await
    }
}
