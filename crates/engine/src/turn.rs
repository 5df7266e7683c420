//! The engine's turn with a step: before its handler runs, or in its stead.
//!
//! What is known of the step's situation is looked at afresh each time, in one order: was what it depends on skipped, have its children or
//! its workflow ended, is its condition met, has what it waits for come, is it to be split, and only then its handler. So
//! a turn that was cut off by a crash is simply taken again: what an earlier one did is in the situation.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::WorkflowId;
use recache_model::job::{JobError, JobState};
use recache_model::limits::Rate;
use recache_model::template::FailureStrategy;
use recache_model::template::limits::SUB_WORKFLOW_DEPTH_MAX;
use recache_model::template::{
    Awaited, Expression, OnTimeout, Scope, Step, StepType, Template, Version, VersionReq, batches,
};
use recache_model::unique::key_problem;
use recache_model::workflow::{StepKind, WorkflowState};
use recache_store::{
    Child, ChildEnd, Children, ClaimedJob, HandOver, NewJob, Outcome, SignalKind, StepSituation,
    TemplateFilter, Waiting,
};
use recache_worker::Failure;
use serde_json::{Map, Value, json};

use crate::engine::Shared;
use crate::error::Error;
use crate::origin::Origin;
use crate::plan::{self, as_turn, run_needs_turn};
use crate::rules::{Rules, cached};
use crate::stats::one;
use crate::step_job::{ready_job, ready_run};

/// When the store cannot be reached, a turn is taken again after this long.
const STORE_PAUSE: Duration = Duration::from_millis(200);
/// Versions of a template among which the newest that will do is looked for.
const VERSIONS_MAX: u32 = 1_000;

/// Takes the turn. A failure is told by its code, like a handler's.
pub(crate) async fn take(shared: &Arc<Shared>, job: &ClaimedJob) -> Result<Outcome, Failure> {
    let (Some(workflow), Some(_)) = (job.workflow, &job.step) else {
        return Err(Failure::permanent("not_a_step", "the handler is the engine's own and does steps only"));
    };
    let situation = match shared.store.flows().step_situation(job.token.job).await {
        Ok(situation) => situation,
        Err(error) if error.is_retryable() => return Ok(Outcome::Snoozed { after: STORE_PAUSE }),
        Err(error) => return Err(Failure::permanent("no_situation", error)),
    };
    let rules = match Rules::of(shared, job, &situation.inputs).await {
        Ok(rules) => rules,
        Err(Failure::Retryable { .. }) => return Ok(Outcome::Snoozed { after: STORE_PAUSE }),
        Err(failure) => return Err(failure),
    };
    let turn = Turn { shared, job, workflow, situation: &situation, rules: &rules };
    if situation.inputs.item.is_some() { turn.of_run().await } else { turn.of_step().await }
}

struct Turn<'a> {
    shared: &'a Arc<Shared>,
    job: &'a ClaimedJob,
    workflow: WorkflowId,
    situation: &'a StepSituation,
    rules: &'a Rules,
}

impl Turn<'_> {
    fn step(&self) -> &Step {
        self.rules.step()
    }

    fn template(&self) -> &Template {
        &self.rules.template
    }

    async fn of_step(&self) -> Result<Outcome, Failure> {
        let step = self.step();
        let skipped = self.situation.dependencies.iter().find(|(_, state)| *state == JobState::Skipped);
        if let (Some((name, _)), false) = (skipped, step.step_type == StepType::DeferredConvergence) {
            return self.skipped(recache_model::expansion::skipped_with(name));
        }
        if let Some(given) = &self.situation.given {
            return self.given(given);
        }
        if self.situation.children.is_some() {
            return self.gathered().await;
        }
        if self.situation.sub_workflow.is_none() {
            if let Some(when) = &step.when
                && !self.evaluate("when", |scope| when.is_met(scope))?
            {
                return self.skipped(format!("its condition is not met: {}", when.source()));
            }
            if let Some(outcome) = self.wait()? {
                return Ok(outcome);
            }
            if let Some(for_each) = &step.for_each {
                return self.for_each(&for_each.items, for_each.limit);
            }
            if step.step_type == StepType::BatchWorker {
                return self.batches();
            }
        }
        self.of_run().await
    }

    /// The end with the result of an earlier run, which was judged when it was made.
    fn given(&self, given: &str) -> Result<Outcome, Failure> {
        let result = parsed(given);
        if self.step().step_type == StepType::Decision {
            return self.rules.concluded(self.shared, &result);
        }
        crate::rules::completed(self.shared, &result)
    }

    /// The turn of a step that is not split, or of one of the runs of a step that is.
    async fn of_run(&self) -> Result<Outcome, Failure> {
        let step = self.step();
        if step.workflow.is_some() {
            return self.sub_workflow().await;
        }
        if step.handler.is_none() {
            return self.rules.concluded(self.shared, &self.signal().unwrap_or(Value::Null));
        }
        if let Some(result) = cached(self.shared, self.rules).await? {
            one(&self.shared.counters.reused);
            return self.rules.concluded(self.shared, &result);
        }
        let ready = ready_job(self.template(), step, Origin::of(self.job)).map_err(no_job)?;
        let concurrency = match &step.concurrency_key {
            None => None,
            Some(concurrency) => Some((self.key("concurrency_key", &concurrency.key)?, concurrency.limit)),
        };
        let rate = match &step.rate_limit {
            None => None,
            Some(limit) => {
                let own = limit.key.as_ref().map(|key| self.key("rate_limit.key", key)).transpose()?;
                let key = json!([self.template().name(), step.name, own]).to_string();
                Some((key, Rate { starts_max: limit.limit, period: limit.per }))
            }
        };
        let to = HandOver { queue: ready.queue, handler: ready.handler, concurrency, rate };
        Ok(Outcome::HandedOver(Arc::new(to)))
    }

    fn skipped(&self, reason: String) -> Result<Outcome, Failure> {
        let is_decision = self.step().step_type == StepType::Decision;
        let region = is_decision
            .then(|| plan::region(self.template(), self.rules.index, None, Origin::of(self.job)))
            .transpose()
            .map_err(no_job)?;
        Ok(Outcome::Skipped { reason, region: region.map(Arc::new) })
    }

    fn evaluate<T>(
        &self,
        field: &str,
        evaluate: impl FnOnce(&Scope<'_>) -> Result<T, recache_model::template::ExpressionError>,
    ) -> Result<T, Failure> {
        self.rules.evaluate(field, evaluate)
    }

    /// A key: text or a number, and short enough to be kept.
    fn key(&self, field: &str, key: &Expression) -> Result<String, Failure> {
        let key = match self.evaluate(field, |scope| key.evaluate(scope))? {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            _ => {
                return Err(Failure::permanent(
                    "bad_key",
                    format!("`{field}` gives neither text nor a number"),
                ));
            }
        };
        match key_problem("key", &key) {
            None => Ok(key),
            Some(problem) => Err(Failure::permanent("bad_key", format!("`{field}`: {problem}"))),
        }
    }

    // --- waiting ------------------------------------------------------------------------------------------

    fn signal(&self) -> Option<Value> {
        let wait = self.step().wait_for.as_ref()?;
        let (kind, name) = awaited(&wait.awaited);
        let told = self.situation.signals.iter().find(|one| one.kind == kind && one.name == name)?;
        Some(serde_json::from_str(&told.payload).unwrap_or(Value::Null))
    }

    /// What follows from waiting; `None` when the step may go on.
    fn wait(&self) -> Result<Option<Outcome>, Failure> {
        let Some(wait) = &self.step().wait_for else { return Ok(None) };
        if self.signal().is_some() {
            return Ok(None);
        }
        let (kind, name) = awaited(&wait.awaited);
        let has_passed = self.situation.wait_until.is_some_and(|until| until <= self.situation.now);
        if !has_passed {
            let name = name.to_owned();
            return Ok(Some(Outcome::Waits(Waiting::Signal { kind, name, timeout: wait.timeout })));
        }
        let why = format!("the {} `{name}` did not come in time", kind.as_str());
        match wait.on_timeout {
            OnTimeout::Proceed => Ok(None),
            OnTimeout::Skip => self.skipped(why).map(Some),
            OnTimeout::Fail => Err(Failure::permanent("wait_timed_out", why)),
        }
    }

    // --- splitting ----------------------------------------------------------------------------------------

    fn for_each(&self, items: &Expression, limit: u32) -> Result<Outcome, Failure> {
        let Value::Array(items) = self.evaluate("for_each", |scope| items.evaluate(scope))? else {
            return Err(Failure::permanent("not_a_list", "`for_each` gives no list"));
        };
        let count = items.len();
        if u32::try_from(count).is_ok_and(|count| count <= limit) {
            return self.split(StepKind::Child, None, None, items);
        }
        let why = format!("`for_each` gives {count} elements, the limit is {limit}");
        Err(Failure::permanent("too_many_children", why))
    }

    fn batches(&self) -> Result<Outcome, Failure> {
        let (worker, template) = (self.step(), self.template());
        let before =
            |step: &&Step| step.step_type == StepType::Batchable && worker.dependencies.contains(&step.name);
        let names_it = |step: &&Step| {
            let config = step.batch_config.as_ref();
            config.and_then(|config| config.worker_template.as_ref()) == Some(&worker.name)
        };
        let all = || template.steps().iter().filter(before);
        let batchable = all().find(names_it).or_else(|| all().next());
        let batchable =
            batchable.ok_or_else(|| Failure::permanent("no_batchable", "no step splits its rows"))?;
        let result = self.rules.results.get(&batchable.name).ok_or_else(|| {
            Failure::permanent(
                "invalid_batches",
                format!("the batchable step `{}` has no result", batchable.name),
            )
        })?;
        let batches = batches(batchable, worker, result)
            .map_err(|error| Failure::permanent(error.code, error.message))?;
        let config = batchable.batch_config.as_ref().or(worker.batch_config.as_ref());
        let stall_minutes = config.and_then(|config| config.checkpoint_stall_minutes);
        let kind = match config.map(|config| config.failure_strategy).unwrap_or_default() {
            FailureStrategy::ContinueOnFailure => StepKind::TolerantChild,
            FailureStrategy::FailFast => StepKind::FailFastChild,
            FailureStrategy::Isolate => StepKind::Child,
        };
        self.split(kind, Some(batches.parallelism), stall_minutes, batches.items)
    }

    fn split(
        &self,
        kind: StepKind,
        parallelism: Option<usize>,
        stall_minutes: Option<u32>,
        items: Vec<Value>,
    ) -> Result<Outcome, Failure> {
        if items.is_empty() {
            let nothing = if self.step().step_type == StepType::BatchWorker {
                batch_result(Vec::new())
            } else {
                json!([])
            };
            return Ok(Outcome::Completed { output: nothing.to_string() });
        }
        let (template, step) = (self.template(), self.step());
        let ready = ready_run(template, step, stall_minutes, Origin::of(self.job)).map_err(no_job)?;
        let ready = if run_needs_turn(step) { as_turn(ready) } else { ready };
        let jobs = items.into_iter().map(|item| Child {
            job: NewJob { id: recache_model::ids::JobId::make(), ..ready.clone() },
            item: item.to_string(),
            has_rules: plan::has_rules(step),
        });
        Ok(Outcome::Split(Arc::new(Children { kind, parallelism, jobs: jobs.collect() })))
    }

    /// The result of a step whose children have all ended.
    async fn gathered(&self) -> Result<Outcome, Failure> {
        let bytes_max = self.shared.options.result_bytes_max;
        let ends = match self.shared.store.flows().children_read(self.job.token.job, bytes_max).await {
            Ok(Some(ends)) => ends,
            Ok(None) => {
                let why = format!("the results of its children come to more than {bytes_max} bytes");
                return Err(Failure::permanent("result_too_large", why));
            }
            Err(error) if error.is_retryable() => return Ok(Outcome::Snoozed { after: STORE_PAUSE }),
            Err(error) => return Err(Failure::permanent("no_situation", error)),
        };
        let result = if self.step().step_type == StepType::BatchWorker {
            batch_result(ends)
        } else {
            let result = |end: ChildEnd| end.output.map_or(Value::Null, |text| parsed(&text));
            Value::Array(ends.into_iter().map(result).collect())
        };
        crate::rules::completed(self.shared, &result)
    }

    // --- sub-workflows ------------------------------------------------------------------------------------

    async fn sub_workflow(&self) -> Result<Outcome, Failure> {
        let Some((id, state)) = self.situation.sub_workflow else { return self.begin_workflow().await };
        let why = match state {
            WorkflowState::Running => return Ok(Outcome::Waits(Waiting::Workflow)),
            WorkflowState::Failed => "failed",
            WorkflowState::Cancelled => "was cancelled",
            WorkflowState::Completed => {
                let bytes_max = self.shared.options.result_bytes_max;
                let results = match self.shared.store.flows().workflow_results(id, bytes_max).await {
                    Ok(Some(results)) => results,
                    Ok(None) => {
                        let why = format!("the results of workflow {id} come to more than {bytes_max} bytes");
                        return Err(Failure::permanent("result_too_large", why));
                    }
                    Err(error) if error.is_retryable() => return Ok(Outcome::Snoozed { after: STORE_PAUSE }),
                    Err(error) => return Err(Failure::permanent("no_situation", error)),
                };
                let results = results.into_iter().map(|(step, text)| (step, parsed(&text)));
                return self.rules.concluded(self.shared, &Value::Object(results.collect::<Map<_, _>>()));
            }
        };
        Err(Failure::permanent("sub_workflow", format!("workflow {id}, which does this step, {why}")))
    }

    async fn begin_workflow(&self) -> Result<Outcome, Failure> {
        let Some(sub) = &self.step().workflow else {
            return Err(Failure::permanent("no_workflow", "the step names no workflow"));
        };
        if self.situation.depth >= SUB_WORKFLOW_DEPTH_MAX {
            let why =
                format!("{SUB_WORKFLOW_DEPTH_MAX} workflows stand above each other, which is the limit");
            return Err(Failure::permanent("sub_workflow_too_deep", why));
        }
        let namespace = sub.namespace.as_deref().unwrap_or_else(|| self.template().namespace());
        let found = newest_template(self.shared, namespace, &sub.name, sub.version.as_ref()).await?;
        let Some(template) = found else { return Ok(Outcome::Snoozed { after: STORE_PAUSE }) };
        let input = match &sub.input {
            None => self.rules.input.clone(),
            Some(input) => self.evaluate("workflow.input", |scope| input.evaluate(scope))?,
        };
        let environment = self.situation.inputs.environment.as_deref();
        let environment = environment.filter(|name| template.environments().contains_key(*name));
        let id = WorkflowId::make();
        let new = plan::new_workflow(id, &template, environment, &input, Origin::of(self.job))
            .map_err(|error| Failure::permanent("invalid_workflow", error))?;
        tracing::debug!(workflow_id = %self.workflow, sub_workflow_id = %id, "a workflow does a step");
        Ok(Outcome::Waits(Waiting::NewWorkflow(Arc::new(new))))
    }
}

/// The newest stored template of this name whose version will do; `None`: the store cannot be reached.
pub(crate) async fn newest_template(
    shared: &Shared,
    namespace: &str,
    name: &str,
    wanted: Option<&VersionReq>,
) -> Result<Option<Template>, Failure> {
    let unknown = |why: String| Failure::permanent("unknown_workflow", why);
    let version = match wanted {
        None => None,
        Some(wanted) => {
            let will_do =
                |version: &str| Version::parse(version).is_ok_and(|version| wanted.matches(&version));
            let filter = TemplateFilter {
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
                rows_max: VERSIONS_MAX,
                ..TemplateFilter::default()
            };
            let versions = match shared.store.templates_list(filter).await {
                Ok(versions) => versions,
                Err(error) if error.is_retryable() => return Ok(None),
                Err(error) => return Err(unknown(error.to_string())),
            };
            let found = versions.into_iter().map(|one| one.version).find(|version| will_do(version));
            Some(found.ok_or_else(|| {
                unknown(format!("no version of the template {namespace}/{name} matches {wanted}"))
            })?)
        }
    };
    match shared.store.template_find(namespace, name, version.as_deref()).await {
        Ok(record) => Template::from_canonical_json(&record.content)
            .map(Some)
            .map_err(|problems| Failure::permanent("unknown_workflow", problems)),
        Err(error) if error.is_retryable() => Ok(None),
        Err(error) => Err(unknown(error.to_string())),
    }
}

/// A step of which no job can be made.
pub(crate) fn no_job(error: Error) -> Failure {
    Failure::permanent("bad_template", error)
}

/// What is awaited, as it is kept.
pub(crate) fn awaited(awaited: &Awaited) -> (SignalKind, &str) {
    (if awaited.is_approval() { SignalKind::Approval } else { SignalKind::Signal }, awaited.name())
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// What a step whose rows were split into batches comes to: each batch with its end, so that a convergence sees which ones failed.
fn batch_result(ends: Vec<ChildEnd>) -> Value {
    let failed = ends.iter().filter(|end| end.state == JobState::Failed).count();
    let (count, mut batches) = (ends.len(), Vec::with_capacity(ends.len()));
    for end in ends {
        let mut batch = json!({ "state": end.state.as_str() });
        if let Some(fields) = batch.as_object_mut() {
            if let Some(output) = end.output {
                fields.insert("result".to_owned(), parsed(&output));
            }
            if let (Some(JobError { code, message, .. }), JobState::Failed) = (end.error, end.state) {
                fields.insert("error".to_owned(), json!({ "code": code, "message": message }));
            }
        }
        batches.push(batch);
    }
    json!({ "completed": count - failed, "failed": failed, "batches": batches })
}
