//! The graph of a template or of a workflow, with what is known of its steps, analysed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use recache_cache::{Key, Space, Usage};
use recache_model::analysis::{Analysis, Drawing, Spread, StepFacts, StepHistory, analyze};
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{JobError, JobState};
use recache_model::template::Template;
use recache_model::template::graph::Graph;
use recache_model::time::Timestamp;
use recache_model::workflow::StepKind;
use recache_store::{JobRecord, StepFigures, StepRecord, Store, WorkflowRecord};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::adaptive;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// Workflows of a template whose steps tell how long its steps run.
pub const HISTORY_WORKFLOWS_MAX: u32 = 100;
/// Edges between what a step waited for and what it was split into; beyond them a child waits only for the last of the former, so that
/// all stays linear in the number of steps.
const FAN_EDGES_MAX: usize = 100_000;
/// Steps that are read for that at most: of large templates fewer workflows are looked at.
const HISTORY_STEPS_MAX: usize = 20_000;

/// A graph of steps and what was found in it.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphAnalysis {
    /// What it is called: namespace, name and version of the template, or the workflow's id.
    pub title: String,
    /// When it was looked at, by the store's clock.
    pub calculated_at: Timestamp,
    /// The workflow; `None` for a template.
    pub workflow: Option<WorkflowRecord>,
    /// How the steps hang together.
    pub graph: Graph,
    /// Their names, by number.
    pub names: Vec<String>,
    /// Their states, by number; `None` in a template.
    pub states: Vec<Option<JobState>>,
    /// Their last errors, by number.
    pub errors: Vec<Option<JobError>>,
    /// Earlier workflows that told how long steps run.
    pub history_workflows: u64,
    /// What was found.
    pub analysis: Analysis,
}

impl GraphAnalysis {
    /// As [`recache_model::analysis`] draws it.
    pub fn drawing(&self) -> Drawing<'_> {
        Drawing {
            title: &self.title,
            graph: &self.graph,
            names: &self.names,
            states: &self.states,
            measure: self.analysis.measure,
            steps: &self.analysis.steps,
            critical_path: &self.analysis.critical_path.steps,
        }
    }
}

/// Analyses a template. With a store, its earlier workflows tell how long its steps run; without, or where there are
/// none, each step counts as one.
pub async fn analyze_template(store: Option<&dyn Store>, template: &Template) -> Result<GraphAnalysis> {
    let (figures, now) = match store {
        Some(store) => {
            let digest = template.digest().to_string();
            let name = (template.namespace(), template.name());
            (history(store, name, &digest, template.steps().len()).await?, store.now().await?)
        }
        None => (StepFigures::default(), Timestamp::default()),
    };
    let known = histories(&figures);
    let names: Vec<String> = template.steps().iter().map(|step| step.name.clone()).collect();
    let facts: Vec<StepFacts> = names
        .iter()
        .map(|name| StepFacts { history: known.get(name.as_str()).copied(), ..StepFacts::default() })
        .collect();
    Ok(GraphAnalysis {
        title: format!("{}/{} {}", template.namespace(), template.name(), template.version()),
        calculated_at: now,
        workflow: None,
        analysis: analyze(template.graph(), &facts, now),
        graph: template.graph().clone(),
        states: vec![None; names.len()],
        errors: vec![None; names.len()],
        names,
        history_workflows: figures.workflows,
    })
}

/// Analyses a workflow as it stands.
pub async fn analyze_workflow(store: &dyn Store, workflow: WorkflowId) -> Result<GraphAnalysis> {
    let record = store.workflow_get(workflow).await?;
    let steps = store.workflow_steps(workflow).await?;
    // After the steps: what they say happened is then in the past.
    let now = store.now().await?;
    let name = (record.namespace.as_str(), record.template_name.as_str());
    let figures = history(store, name, &record.template_digest, steps.len()).await?;
    let known = histories(&figures);

    let names: Vec<String> = steps.iter().map(|step| step.job.step.clone().unwrap_or_default()).collect();
    let graph = Graph::new(dependencies(&steps)).map_err(|error| {
        Error::Store(recache_store::Error::Broken {
            message: format!("workflow {workflow}: {error}"),
            source: None,
        })
    })?;
    let facts: Vec<StepFacts> = steps
        .iter()
        .zip(&names)
        .map(|(step, name)| StepFacts {
            state: Some(state_for_others(&step.job)),
            started_at: step.job.started_at,
            finished_at: step.job.finished_at,
            due_at: Some(step.job.due_at),
            attempt: step.job.attempt,
            attempts_max: step.job.attempts_max,
            history: known.get(name.as_str()).copied(),
        })
        .collect();
    Ok(GraphAnalysis {
        title: workflow.to_string(),
        calculated_at: now,
        workflow: Some(record),
        analysis: analyze(&graph, &facts, now),
        graph,
        states: steps.iter().map(|step| Some(step.job.state)).collect(),
        errors: steps.into_iter().map(|step| step.job.error).collect(),
        names,
        history_workflows: figures.workflows,
    })
}

/// For each step those that it waits for. What a step was split into stands between what that one waited for and the step itself, which
/// waits for its children; no edges of theirs are stored.
fn dependencies(steps: &[StepRecord]) -> Vec<Vec<usize>> {
    let by_name: HashMap<&str, usize> = (steps.iter().enumerate())
        .filter_map(|(place, step)| Some((step.job.step.as_deref()?, place)))
        .collect();
    let by_id: HashMap<JobId, usize> =
        steps.iter().enumerate().map(|(place, step)| (step.job.id, place)).collect();
    let mut dependencies: Vec<Vec<usize>> = steps
        .iter()
        .map(|step| step.waits_for.iter().filter_map(|name| by_name.get(name.as_str()).copied()).collect())
        .collect();
    let mut children: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, step) in steps.iter().enumerate() {
        if let Some(parent) = step.job.parent.and_then(|parent| by_id.get(&parent)) {
            children.entry(*parent).or_default().push(place);
        }
    }
    for (parent, children) in children {
        let mut before = dependencies[parent].clone();
        if before.len().saturating_mul(children.len()) > FAN_EDGES_MAX {
            // All of them had ended before it was split: the last one is what its children began after.
            let last = before.iter().copied().max_by_key(|place| (steps[*place].job.finished_at, *place));
            before = last.into_iter().collect();
        }
        for child in &children {
            dependencies[*child].extend_from_slice(&before);
        }
        dependencies[parent].extend(children);
    }
    dependencies
}

/// Where a step stands, seen by those that wait for it: a child whose failure only counts as an end holds nothing up.
fn state_for_others(job: &JobRecord) -> JobState {
    match (job.kind, job.state) {
        (StepKind::TolerantChild, JobState::Failed) => JobState::Resolved,
        (_, state) => state,
    }
}

async fn history(
    store: &dyn Store,
    (namespace, name): (&str, &str),
    digest: &str,
    steps: usize,
) -> Result<StepFigures> {
    let workflows = u32::try_from(HISTORY_STEPS_MAX / steps.max(1)).unwrap_or(u32::MAX);
    let workflows = workflows.clamp(1, HISTORY_WORKFLOWS_MAX);
    Ok(store.figures().step_figures(namespace, name, digest, workflows).await?)
}

fn histories(figures: &StepFigures) -> HashMap<&str, StepHistory> {
    figures
        .steps
        .iter()
        .filter_map(|step| {
            let run = Spread::of_sums(step.count, step.run_sum, step.run_squares)?;
            let wait = Spread::of_sums(step.count, step.wait_sum, step.wait_squares)?;
            Some((step.step.as_str(), StepHistory { samples: step.count, run, wait }))
        })
        .collect()
}

impl Engine {
    /// Analyses a template, with what its earlier workflows tell.
    pub async fn analyze_template(&self, template: &Template) -> Result<GraphAnalysis> {
        analyze_template(Some(&*self.shared.store), template).await
    }

    /// Analyses a workflow as it stands.
    pub async fn analyze_workflow(&self, workflow: WorkflowId) -> Result<GraphAnalysis> {
        analyze_workflow(&*self.shared.store, workflow).await
    }

    /// What `make` makes of a template's analysis, through the cache: for 90 s at most, and no longer than until another of its workflows
    /// has ended, as long as there are fewer than [`HISTORY_WORKFLOWS_MAX`] that tell how long its steps run.
    ///
    /// All callers make the same of it: it lies under the template's name alone.
    pub async fn template_analysis<T>(
        &self,
        template: &Template,
        make: impl FnOnce(&GraphAnalysis) -> T,
    ) -> Result<Arc<T>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let digest = template.digest().to_string();
        let ended = self.shared.store.figures().workflows_ended(&digest, HISTORY_WORKFLOWS_MAX).await?;
        let key = self.analysis_space().key(["template", &digest, &ended.to_string()]);
        self.cached_analysis("analysis.template", &key, make, || self.analyze_template(template)).await
    }

    /// What `make` makes of a workflow's analysis, through the cache: for 90 s at most, and no longer than until any of its steps has
    /// changed its state. How long a running step has been running is then as old as the analysis, and `calculated_at` says so.
    ///
    /// The key names what the workflow's steps have come to, so that an entry that is outdated is not found rather than removed.
    pub async fn workflow_analysis<T>(
        &self,
        workflow: WorkflowId,
        make: impl FnOnce(&GraphAnalysis) -> T,
    ) -> Result<Arc<T>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let mark = self.shared.store.figures().workflow_mark(workflow).await?;
        let key = self.analysis_space().key(["workflow", &workflow.uuid().to_string(), &mark]);
        self.cached_analysis("analysis.workflow", &key, make, || self.analyze_workflow(workflow)).await
    }

    fn analysis_space(&self) -> Space {
        self.shared.cache.keys().space("analysis")
    }

    async fn cached_analysis<T, F>(
        &self,
        class: &str,
        key: &Key,
        make: impl FnOnce(&GraphAnalysis) -> T,
        analyze: impl FnOnce() -> F,
    ) -> Result<Arc<T>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Future<Output = Result<GraphAnalysis>>,
    {
        let load = || async move { Ok::<_, Error>(Some(make(&analyze().await?))) };
        adaptive::through(&self.shared, &Usage::GraphAnalysis, class, key, load).await
    }
}
