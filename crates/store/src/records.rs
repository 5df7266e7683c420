//! What goes into the store and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::{BatchId, JobId, SessionId, ViewId, WorkflowId};
use recache_model::item_rules::ItemRules;
use recache_model::job::{JobError, JobState};
use recache_model::lifecycle::TimeLimits;
use recache_model::retry::RetryPolicy;
use recache_model::time::Timestamp;
use recache_model::unique::{PartsHash, UniqueRule, key_problem};
use recache_model::view::{Versions, ViewPolicy};
use recache_model::view_options::{BuildWorkflow, ViewOptions};
use recache_model::view_pattern::{ANY, is_pattern};
use recache_model::workflow::{StepCounts, StepKind, WorkflowState};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chains::ViewName;
use crate::error::{Error, Result};
use crate::flow::{Children, FLOW, HandOver, RESULT_INLINE_BYTES_MAX, Region, Waiting};
use crate::queues::Word;
use crate::traces::Traced;
use crate::view_control::{Restoration, ViewPause};

/// When a job may first run, by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Due {
    /// At once.
    #[default]
    Now,
    /// This long after the submit.
    In(Duration),
    /// At this instant.
    At(Timestamp),
}

/// A job to be submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Chosen by the caller; submitting the same id again finds the job that is there.
    pub id: JobId,
    /// Who it belongs to.
    pub namespace: String,
    /// Where it waits.
    pub queue: String,
    /// What does it.
    pub handler: String,
    /// JSON for the handler.
    pub input: String,
    /// Larger is more urgent. Default 0.
    pub priority: i64,
    /// When it may first run.
    pub due: Due,
    /// What follows a failure.
    pub retry: RetryPolicy,
    /// How long one attempt may run; `None`: as long as it likes.
    pub timeout: Option<Duration>,
    /// Ties what belongs together across logs, history and processes.
    pub correlation_id: String,
    /// W3C `traceparent` of the submit.
    pub trace_context: Option<String>,
    /// Makes this submit safe to repeat: with the same key and body it finds the job of the first one, whatever id it brings.
    pub idempotency_key: Option<String>,
    /// No second one of the same job.
    pub unique: Option<UniqueRule>,
    /// It is a member of this batch. A job that was there before and stands for this submit stays where it is.
    pub batch: Option<BatchId>,
    /// Of the jobs of one namespace with the same key, only so many run at once as the key's limit says: one, unless set otherwise.
    pub concurrency_key: Option<String>,
    /// Of a step: what it calls, where `handler` does not say it all, because a method is asked for or a resolver.
    pub call: Option<StepCall>,
    /// What it publishes at its ends: a JSON list of [`StepEvent`](recache_model::event::StepEvent). Only steps of workflows
    /// publish; a job that stands alone and has this is refused.
    pub publishes: Option<String>,
    /// Of a step: how long its phases may take.
    pub limits: TimeLimits,
}

impl NewJob {
    /// A job with defaults: namespace and queue `default`, priority 0, due now, the default retry policy.
    pub fn new(handler: impl Into<String>, input: impl Into<String>) -> Self {
        let id = JobId::make();
        Self {
            id,
            namespace: "default".to_owned(),
            queue: "default".to_owned(),
            handler: handler.into(),
            input: input.into(),
            priority: 0,
            due: Due::Now,
            retry: RetryPolicy::default(),
            timeout: None,
            correlation_id: id.uuid().to_string(),
            trace_context: None,
            idempotency_key: None,
            unique: None,
            batch: None,
            concurrency_key: None,
            call: None,
            publishes: None,
            limits: TimeLimits::default(),
        }
    }

    /// Submitting it asks for more than to insert a row.
    pub(crate) fn has_ties(&self) -> bool {
        self.has_keys() || self.batch.is_some()
    }

    /// What was submitted before may stand for it.
    pub(crate) fn has_keys(&self) -> bool {
        self.idempotency_key.is_some() || self.unique.is_some()
    }

    /// What is wrong with its keys.
    pub(crate) fn key_problems(&self) -> Vec<String> {
        let mut problems = self.unique.as_ref().map(UniqueRule::problems).unwrap_or_default();
        problems.extend(self.concurrency_key.as_deref().and_then(|key| key_problem("concurrency key", key)));
        problems.extend(self.idempotency_key.as_deref().and_then(|key| key_problem("idempotency key", key)));
        problems
    }

    /// What must be the same when an idempotency key is used again: all that was asked for, but not the id, and not what
    /// only ties the call to others.
    pub(crate) fn body_digest(&self) -> String {
        let mut hash = PartsHash::default();
        hash.part(&self.queue);
        hash.part(&self.handler);
        hash.part(&self.input);
        hash.part(&format!("{} {:?} {:?} {:?}", self.priority, self.due, self.timeout, self.retry));
        hash.part(&format!("{:?} {:?}", self.unique, self.concurrency_key));
        if let Some(batch) = self.batch {
            // Only then: the digests of others are kept by databases that knew no batches.
            hash.part(&batch.to_string());
        }
        hash.hex(64)
    }
}

/// What a step calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepCall {
    /// The handler's name, as the template writes it.
    pub callable: String,
    /// Which of its methods; `None`: its main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// What became of a submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// The job.
    pub id: JobId,
    /// It was there before; nothing was stored.
    pub existed: bool,
    /// It was there before, and waits now with what this submit said.
    pub replaced: bool,
}

/// A worker's proof that a job is its own: counter plus a random number drawn for each claim, so that a
/// database that lost its last commits cannot issue the same one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseToken {
    /// The job.
    pub job: JobId,
    /// Raised at every claim and whenever the job is taken away.
    pub epoch: i64,
    /// Drawn for the claim.
    pub claim: Uuid,
}

/// A job that a worker session has just taken.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedJob {
    /// The right to it.
    pub token: LeaseToken,
    /// Who it belongs to.
    pub namespace: String,
    /// Where it waited.
    pub queue: String,
    /// What does it.
    pub handler: String,
    /// JSON for the handler.
    pub input: String,
    /// This attempt, counted from 1.
    pub attempt: u32,
    /// What follows a failure.
    pub retry: RetryPolicy,
    /// How many attempts there may be.
    pub attempts_max: u32,
    /// How long this attempt may run.
    pub timeout: Option<Duration>,
    /// Ties what belongs together.
    pub correlation_id: String,
    /// W3C `traceparent` of the submit.
    pub trace_context: Option<String>,
    /// It is a step of this workflow.
    pub workflow: Option<WorkflowId>,
    /// Its name in the workflow.
    pub step: Option<String>,
    /// It builds this view.
    pub view: Option<ViewId>,
    /// JSON that an earlier attempt kept for this one.
    pub checkpoint: Option<String>,
    /// How long it had been due.
    pub waited: Duration,
    /// Limits had a say in its claim: its end may let another one begin.
    pub is_limited: bool,
}

impl ClaimedJob {
    /// Its settlement changes more than the job itself: a workflow or a view.
    pub fn is_linked(&self) -> bool {
        self.workflow.is_some() || self.view.is_some()
    }
}

/// How an attempt ended. Cancel and supersede are not here: they end a job at once, whatever its worker does.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It succeeded with this JSON.
    Completed {
        /// The result.
        output: String,
    },
    /// It failed and runs again after a while.
    Retry {
        /// Why it failed.
        error: JobError,
        /// Due after this long.
        after: Duration,
    },
    /// It failed for good.
    Failed {
        /// Why.
        error: JobError,
    },
    /// Its handler puts it off; the attempt does not count.
    Snoozed {
        /// Due after this long.
        after: Duration,
    },
    /// It was never started; the attempt does not count.
    Released,
    /// A decision succeeded: what it chose is created with it.
    Decided {
        /// The result.
        output: String,
        /// What stands behind it.
        region: Arc<Region>,
    },
    /// The step is not needed.
    Skipped {
        /// Why, for people.
        reason: String,
        /// What stands behind it, if it is a decision.
        region: Option<Arc<Region>>,
    },
    /// The engine's turn is over, a handler's begins; the attempt does not count.
    HandedOver(Arc<HandOver>),
    /// The step goes on when these have ended; the attempt does not count.
    Split(Arc<Children>),
    /// The step goes on when this has come; the attempt does not count.
    Waits(Waiting),
}

/// The end of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The right to say so.
    pub token: LeaseToken,
    /// How it ended.
    pub outcome: Outcome,
    /// From [`ClaimedJob::is_linked`]; or its result is large. Such settlements are carried out one by one.
    pub linked: bool,
    /// From [`ClaimedJob::is_limited`]: its queue, where others wait for its end.
    pub limited_queue: Option<String>,
}

impl Settlement {
    /// That this attempt ended so.
    pub fn of(job: &ClaimedJob, outcome: Outcome) -> Self {
        let limited_queue = job.is_limited.then(|| job.queue.clone());
        let is_large =
            matches!(&outcome, Outcome::Completed { output } if output.len() > RESULT_INLINE_BYTES_MAX);
        Self { token: job.token, outcome, linked: job.is_linked() || is_large, limited_queue }
    }
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It stands; this call made it stand, or an earlier one with the same token did.
    Accepted,
    /// The job is no longer this token's; nothing changed.
    Refused(Revoked),
}

/// Why a token is no longer good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// Another session has it, or it is back in the queue.
    TakenOver,
    /// Somebody cancelled it.
    Cancelled,
    /// A newer version of its view is wanted.
    Superseded,
    /// It has ended otherwise.
    Finished,
    /// It does not exist.
    Gone,
}

impl Revoked {
    /// From the state in which the job was found.
    pub(crate) fn by_state(state: JobState) -> Self {
        match state {
            JobState::Blocked | JobState::Queued | JobState::Running => Self::TakenOver,
            JobState::Cancelled => Self::Cancelled,
            JobState::Superseded => Self::Superseded,
            JobState::Completed | JobState::Failed | JobState::Skipped | JobState::Resolved => Self::Finished,
        }
    }
}

/// What a worker session asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimRequest {
    /// The session that the jobs will belong to.
    pub session: SessionId,
    /// From these queues.
    pub queues: Vec<String>,
    /// For these handlers.
    pub handlers: Vec<String>,
    /// At most so many.
    pub rows_max: usize,
}

/// The answer to settlements and a claim in one call.
#[derive(Debug, Default)]
pub struct Dispatched {
    /// One for each settlement, in order.
    pub settled: Vec<Settled>,
    /// In the order in which they should start.
    pub claimed: Vec<ClaimedJob>,
    /// A rate held jobs back; it lets more begin after this long.
    pub look_again: Option<Duration>,
}

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// The session is known; if not, it was swept, and all its jobs are lost.
    pub known: bool,
    /// Jobs among those named that are no longer the session's.
    pub revoked: Vec<(JobId, Revoked)>,
}

/// What a sweep found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Jobs of dead sessions that went back to the queue.
    pub requeued: usize,
    /// Jobs of dead sessions that had no attempt left.
    pub failed: usize,
    /// Dead sessions that were removed.
    pub sessions: usize,
    /// In how long the lease of the next session ends, if that does not beat until then; `None` where there is none.
    pub next_in: Option<Duration>,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Who it belongs to.
    pub namespace: String,
    /// Where it waits or waited.
    pub queue: String,
    /// What does it.
    pub handler: String,
    /// Where it stands.
    pub state: JobState,
    /// Larger is more urgent.
    pub priority: i64,
    /// When it may run.
    pub due_at: Timestamp,
    /// JSON for the handler.
    pub input: String,
    /// The result, as JSON.
    pub output: Option<String>,
    /// The last attempt's error.
    pub error: Option<JobError>,
    /// Attempts made.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts_max: u32,
    /// How long one attempt may run.
    pub timeout: Option<Duration>,
    /// Raised at every claim and take-away.
    pub epoch: i64,
    /// Who runs it.
    pub session: Option<SessionId>,
    /// How many history rows it has.
    pub transitions: i64,
    /// Ties what belongs together.
    pub correlation_id: String,
    /// W3C `traceparent` of the submit.
    pub trace_context: Option<String>,
    /// With which others it may not run.
    pub concurrency_key: Option<String>,
    /// Of a step: what it calls, where `handler` does not say it all.
    pub call: Option<StepCall>,
    /// What it publishes at its ends.
    pub publishes: Option<String>,
    /// The batch that it is a member of.
    pub batch: Option<BatchId>,
    /// Its workflow.
    pub workflow: Option<WorkflowId>,
    /// Its name there.
    pub step: Option<String>,
    /// What it is to the other steps.
    pub kind: StepKind,
    /// The step that was split into it and others.
    pub parent: Option<JobId>,
    /// The workflow that does it.
    pub sub_workflow: Option<WorkflowId>,
    /// The view that it builds.
    pub view: Option<ViewId>,
    /// The version that it builds.
    pub view_version: Option<i64>,
    /// The version for whose sake it was ended.
    pub superseded_by: Option<i64>,
    /// 0 to 1, as its handler reported.
    pub progress: Option<f64>,
    /// What its handler last said.
    pub message: Option<String>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// One transition of a job. Numbers are dense from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    /// Its number.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// From where.
    pub from: JobState,
    /// To where.
    pub to: JobState,
    /// The attempt at that time.
    pub attempt: u32,
    /// The epoch after it.
    pub epoch: i64,
    /// The session that had it, before or after.
    pub session: Option<SessionId>,
    /// The error or the reason.
    pub detail: Option<String>,
}

/// Which jobs to list; newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobFilter {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only in this state.
    pub state: Option<JobState>,
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only of this handler.
    pub handler: Option<String>,
    /// Only members of this batch.
    pub batch: Option<BatchId>,
    /// Only of what was asked for under this id.
    pub correlation_id: Option<String>,
    /// Only made at this time or later, by the millisecond that its id begins with.
    pub created_from: Option<Timestamp>,
    /// Only made before this time, likewise.
    pub created_before: Option<Timestamp>,
    /// Only older than this one: [`next`](JobPage::next) of the page before.
    pub before: Option<JobId>,
    /// At most so many.
    pub rows_max: u32,
}

/// Jobs that one page of a list looks at, at most, while it looks for those of its filter.
pub const JOBS_LOOKED_AT_MAX: u32 = 50_000;

/// A page of a list of jobs.
#[derive(Debug, Clone, PartialEq)]
pub struct JobPage {
    /// Newest first. Fewer than were asked for where [`JOBS_LOOKED_AT_MAX`] others were passed, even none: then there is a `next`.
    pub jobs: Vec<JobRecord>,
    /// [`before`](JobFilter::before) of the page that follows; `None` where this one is the last.
    pub next: Option<JobId>,
}

/// Slots of a cache's epochs that a change raises, in its own transaction; see the cache's `Slot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRaise {
    /// With what the cache's keys begin, escaped.
    pub prefix: String,
    /// By number, below 32,768.
    pub slots: Vec<u16>,
}

/// Which state of a record of epochs somebody knows. The default is: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheMark {
    /// Another one when the record was lost or has gone back in time. Never 0 for a record.
    pub incarnation: u64,
    /// Rises with every raise.
    pub version: u64,
}

/// The epochs of the caches with one key prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecord {
    /// Which state it is.
    pub mark: CacheMark,
    /// Slot and epoch: those raised since the version that the caller knows, or all when he knows another incarnation.
    pub epochs: Vec<(u16, u64)>,
}

/// A template as it is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRecord {
    /// Of the canonical content.
    pub digest: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Canonical JSON.
    pub content: String,
}

/// A stored template without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSummary {
    /// Of the canonical content.
    pub digest: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// Which templates to list: by namespace, name, and version, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TemplateFilter {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this name: its versions.
    pub name: Option<String>,
    /// Only those behind this one: the last of the page before. It need not be there any more.
    pub after: Option<TemplatePlace>,
    /// At most so many.
    pub rows_max: u32,
}

/// A template by its name and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplatePlace {
    /// Who it belongs to.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One step of a new workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct NewStep {
    /// Its name, unique in the workflow.
    pub name: String,
    /// The job that does it.
    pub job: NewJob,
    /// Places of the steps that it waits for, in the list of steps.
    pub waits_for: Vec<usize>,
    /// What it is to the others.
    pub kind: StepKind,
    /// Its template is looked at when it ends.
    pub has_rules: bool,
}

impl NewStep {
    /// A plain step.
    pub fn new(name: impl Into<String>, job: NewJob, waits_for: Vec<usize>) -> Self {
        Self { name: name.into(), job, waits_for, kind: StepKind::Plain, has_rules: false }
    }
}

/// A workflow to be submitted: all of it is stored, or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct NewWorkflow {
    /// Chosen by the caller; submitting the same id again finds what is there.
    pub id: WorkflowId,
    /// What it runs; stored with it if it is not there yet.
    pub template: TemplateRecord,
    /// What of a cache's epochs is raised when the template is new.
    pub template_raise: Option<CacheRaise>,
    /// JSON for its steps.
    pub input: String,
    /// Ties what belongs together.
    pub correlation_id: String,
    /// The environment of the template whose overlays its steps have.
    pub environment: Option<String>,
    /// How long it may take.
    pub limits: TimeLimits,
    /// Results of another workflow's steps that this one's steps of these names end with, in place of their handlers.
    pub takes_over: Option<TakeOver>,
    /// In any order.
    pub steps: Vec<NewStep>,
}

/// Which results a workflow takes over from one that ran before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeOver {
    /// The workflow that has them.
    pub from: WorkflowId,
    /// Names of its steps.
    pub steps: Vec<String>,
}

/// A workflow as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowRecord {
    /// Its id.
    pub id: WorkflowId,
    /// Who it belongs to.
    pub namespace: String,
    /// Name of the pinned template.
    pub template_name: String,
    /// Version of the pinned template.
    pub template_version: String,
    /// Digest of the pinned template.
    pub template_digest: String,
    /// Where it stands.
    pub state: WorkflowState,
    /// JSON for its steps.
    pub input: String,
    /// Ties what belongs together.
    pub correlation_id: String,
    /// The environment whose overlays its steps have.
    pub environment: Option<String>,
    /// The step of another workflow that it does.
    pub parent_step: Option<JobId>,
    /// Steps by where they stand.
    pub counts: StepCounts,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A step's job and what it waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRecord {
    /// The job.
    pub job: JobRecord,
    /// The names of the steps that it waits for.
    pub waits_for: Vec<String>,
}

/// What a step starts from besides its own job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInputs {
    /// JSON that the workflow was submitted with.
    pub workflow_input: String,
    /// Name and JSON output of the steps that it waited for.
    pub results: Vec<(String, String)>,
    /// What it calls, where its handler's name does not say it all.
    pub call: Option<StepCall>,
    /// Digest of the workflow's template.
    pub template_digest: String,
    /// The environment whose overlays its steps have.
    pub environment: Option<String>,
    /// Its template is looked at when it ends.
    pub has_rules: bool,
    /// JSON of the element or batch that it is for, and its place, where a step was split.
    pub item: Option<(String, u64)>,
}

/// A view's definition.
#[derive(Debug, Clone, PartialEq)]
pub struct NewView {
    /// Who it belongs to.
    pub namespace: String,
    /// Its key there.
    pub key: String,
    /// What builds it.
    pub handler: String,
    /// Where its builds wait.
    pub queue: String,
    /// When to build and when to give a build up.
    pub policy: ViewPolicy,
    /// What follows a failed build.
    pub retry: RetryPolicy,
    /// How long a build may run.
    pub timeout: Option<Duration>,
    /// What its items must be.
    pub rules: ItemRules,
    /// How it is made, beyond that. Where a workflow builds it, [`FLOW`] is its handler and its queue.
    pub options: ViewOptions,
}

/// Longest namespace, handler and queue of a view, in bytes.
const VIEW_WORD_BYTES_MAX: usize = 256;
/// Longest key of a view, in bytes.
pub(crate) const VIEW_KEY_BYTES_MAX: usize = 1024;

impl NewView {
    /// A view that a handler builds, in the queue `default`, with default policies.
    pub fn new(namespace: impl Into<String>, key: impl Into<String>, handler: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            key: key.into(),
            handler: handler.into(),
            queue: "default".to_owned(),
            policy: ViewPolicy::default(),
            retry: RetryPolicy::default(),
            timeout: None,
            rules: ItemRules::default(),
            options: ViewOptions::default(),
        }
    }

    /// A view that a workflow builds, with default policies.
    pub fn by_workflow(
        namespace: impl Into<String>,
        key: impl Into<String>,
        workflow: BuildWorkflow,
    ) -> Self {
        Self {
            queue: FLOW.to_owned(),
            options: ViewOptions { workflow: Some(workflow), ..ViewOptions::default() },
            ..Self::new(namespace, key, FLOW)
        }
    }

    /// Refuses what can be no view, with every reason.
    pub fn check(&self) -> Result<()> {
        let mut problems = self.problems();
        if is_pattern(&self.key) {
            problems.push(format!(
                "view {}/{}: its key must not hold a `{ANY}`, which makes a pattern of it",
                self.namespace.escape_debug(),
                self.key.escape_debug()
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
    }

    /// Refuses what can be no pattern of views, with every reason.
    pub fn check_pattern(&self) -> Result<()> {
        let mut problems = self.problems();
        if !is_pattern(&self.key) {
            problems.push(format!(
                "pattern {}/{}: it must hold a `{ANY}`, which stands for any text",
                self.namespace.escape_debug(),
                self.key.escape_debug()
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
    }

    fn problems(&self) -> Vec<String> {
        let view = format!("{}/{}", self.namespace.escape_debug(), self.key.escape_debug());
        let mut problems = Vec::new();
        for (what, text, bytes_max) in [
            ("namespace", &self.namespace, VIEW_WORD_BYTES_MAX),
            ("key", &self.key, VIEW_KEY_BYTES_MAX),
            ("handler", &self.handler, VIEW_WORD_BYTES_MAX),
            ("queue", &self.queue, VIEW_WORD_BYTES_MAX),
        ] {
            if text.is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
                problems.push(format!(
                    "view {view}: its {what} must have 1 to {bytes_max} bytes and no control characters, and has {} bytes",
                    text.len()
                ));
            }
        }
        if self.namespace.contains('/') {
            problems.push(format!(
                "view {view}: its namespace must not hold a `/`, which ends it where a view is named"
            ));
        }
        problems.extend(self.retry.problems().into_iter().map(|problem| format!("view {view}: {problem}")));
        problems.extend(self.rules.problems().into_iter().map(|problem| format!("view {view}: {problem}")));
        problems.extend(self.options.problems().into_iter().map(|problem| format!("view {view}: {problem}")));
        if self.options.workflow.is_none() && (self.handler == FLOW || self.queue == FLOW) {
            problems.push(format!(
                "view {view}: the handler and the queue `{FLOW}` are the engine's own, for views that a workflow builds"
            ));
        }
        if self.options.workflow.is_some() && (self.handler != FLOW || self.queue != FLOW) {
            problems.push(format!(
                "view {view}: a workflow builds it, so its handler and its queue are `{FLOW}`; the template says what its steps call"
            ));
        }
        if self.options.workflow.is_some() && self.timeout.is_some() {
            problems.push(format!(
                "view {view}: a workflow builds it, and so no `timeout` is kept: give the template a `lifecycle`"
            ));
        }
        problems
    }
}

/// A view as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewRecord {
    /// Its id.
    pub id: ViewId,
    /// Its definition.
    pub definition: NewView,
    /// Its numbers.
    pub versions: Versions,
    /// The live build job.
    pub build: Option<JobId>,
    /// When the live version was published.
    pub last_recached_at: Option<Timestamp>,
    /// Why the newest version could not be built.
    pub last_error: Option<String>,
    /// Whether somebody keeps its builds from beginning.
    pub pause: Option<ViewPause>,
    /// Who touched it last, and why, where that was said.
    pub touched_by: Option<Word>,
    /// By which way that touch came.
    pub touch_source: TouchSource,
    /// The pattern that it was made from; `None` for one that was defined by name.
    pub pattern: Option<String>,
    /// Drawn with the publication of the live version. Caches keep items under it: after a backup was put back a number is given a second
    /// time, a stamp is not.
    pub live_stamp: Option<Uuid>,
}

/// Says that a view's inputs changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Touch {
    /// Of which namespace.
    pub namespace: String,
    /// Which view.
    pub key: String,
    /// The items that are affected; empty: any may be.
    pub items: Vec<String>,
    /// Build at once, without debounce.
    pub at_once: bool,
    /// Who says so, and why; kept with the view until its next touch.
    pub word: Option<Word>,
    /// The places in traces of the calls that say so (W3C `traceparent`): the build that answers them belongs to them. Kept are
    /// [`TOUCH_TRACES_MAX`] of one view.
    pub traces: Vec<String>,
}

/// By which way a view was touched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum TouchSource {
    /// By a call of the library, over HTTP, from the command line.
    #[default]
    Call,
    /// In a transaction of an application's own, in SQL.
    Sql,
    /// What it is made from was said anew.
    Sources,
    /// A view that it is made from was published.
    View(ViewName),
}

impl TouchSource {
    /// As the store keeps it; `None` stands for a call.
    pub(crate) fn kept(&self) -> Option<String> {
        match self {
            Self::Call => None,
            Self::Sql => Some("sql".to_owned()),
            Self::Sources => Some("sources".to_owned()),
            Self::View(view) => Some(format!("view {view}")),
        }
    }

    /// What is kept; text that is none of ours says only that it was asked for in SQL.
    pub(crate) fn from_kept(text: Option<&str>) -> Self {
        match text {
            None => Self::Call,
            Some("sources") => Self::Sources,
            Some(text) => text
                .strip_prefix("view ")
                .and_then(|view| view.split_once('/'))
                .map_or(Self::Sql, |(namespace, key)| Self::View(ViewName::new(namespace, key))),
        }
    }
}

/// Traces of touches that one build belongs to; of more, the first.
pub const TOUCH_TRACES_MAX: u16 = 32;

/// Longest key of an item that a touch may name, in bytes.
const TOUCHED_ITEM_BYTES_MAX: usize = 1024;

impl Touch {
    /// Refuses what can name nothing, with every reason.
    pub fn check(&self) -> Result<()> {
        let view = format!("{}/{}", self.namespace.escape_debug(), self.key.escape_debug());
        let mut problems = Vec::new();
        if self.namespace.contains('\0') || self.key.contains('\0') {
            problems.push(format!("touch of {view}: no view's name holds a NUL"));
        }
        for item in &self.items {
            if item.is_empty() || item.len() > TOUCHED_ITEM_BYTES_MAX || item.contains('\0') {
                problems.push(format!(
                    "touch of {view}: an item's key must have 1 to {TOUCHED_ITEM_BYTES_MAX} bytes and no NUL, and has {}",
                    item.len()
                ));
            }
        }
        if let Some(Err(error)) = self.word.as_ref().map(Word::check) {
            problems.push(format!("touch of {view}: {error}"));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
    }
}

/// What a touch did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TouchOutcome {
    /// The view.
    pub view: ViewId,
    /// The version that it asks for.
    pub version: i64,
    /// The build job that it ended.
    pub superseded: Option<JobId>,
}

/// What reconciling found to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reconciled {
    /// Build jobs that were created, with their queues.
    pub builds: Vec<(JobId, String)>,
    /// Those of them that belong to a trace.
    pub traced: Vec<Traced>,
    /// How long until the next view is due, if one is waiting.
    pub next_due: Option<Duration>,
}

/// What is known of an item without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemMark {
    /// Its key.
    pub item: String,
    /// Of the inputs that it was computed from.
    pub fingerprint: Option<String>,
    /// Of its value.
    pub digest: String,
    /// Its value, which only the cache had, is gone: it is not to be kept, but made anew.
    pub is_gone: bool,
}

/// What changed since the live version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TouchedItems {
    /// Some touch named no items: any may have.
    All,
    /// Only these.
    Only(Vec<String>),
}

/// What a build starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildStart {
    /// The view.
    pub view: ViewId,
    /// Its namespace.
    pub namespace: String,
    /// Its key.
    pub key: String,
    /// The version to make.
    pub version: i64,
    /// What readers see now; 0 for nothing.
    pub live_version: i64,
    /// What changed since then.
    pub touched: TouchedItems,
    /// The values of its items are kept in the cache only.
    pub is_held: bool,
    /// The live items.
    pub live: Vec<ItemMark>,
    /// What superseded or failed builds have made since.
    pub staged: Vec<ItemMark>,
    /// There are more than were asked for, and none is listed: see [`KnownItems`](crate::KnownItems).
    pub is_large: bool,
}

/// An item that a build puts where no reader looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedItem {
    /// Its key.
    pub item: String,
    /// Of its inputs.
    pub fingerprint: Option<String>,
    /// The value as JSON, or `None` to take over what is staged already.
    pub value: Option<String>,
}

/// What a finished build says about its generation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publication {
    /// The version that was built.
    pub version: i64,
    /// Live items that this build did not put: they are gone after it.
    pub removed: Vec<String>,
    /// Items of the generation.
    pub items_total: u64,
    /// Items whose value this build computed.
    pub items_computed: u64,
    /// Items taken over, from the live generation or from an earlier build.
    pub items_reused: u64,
    /// The result of the build job, as JSON.
    pub output: String,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is live; so many items changed.
    Live {
        /// Items whose value is new.
        changed: u64,
    },
    /// The build is no longer this token's; nothing that anybody sees has changed.
    Refused(Revoked),
}

/// A session of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// What its process calls itself.
    pub node: String,
    /// When it was last heard of.
    pub beat_at: Timestamp,
    /// When its jobs may be taken away, unless it is heard of.
    pub expires_at: Timestamp,
}

/// What a read of a view found: one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewRead {
    /// The view.
    pub view: ViewId,
    /// The generation that was read; 0 when none was published yet.
    pub version: i64,
    /// The newest version that is wanted.
    pub wanted: i64,
    /// When the generation was published.
    pub published_at: Option<Timestamp>,
    /// How long ago that was.
    pub age: Option<Duration>,
    /// For how long an input has been known to have changed since it was made; zero when none has.
    pub staleness: Duration,
    /// Drawn with its publication: see [`ViewRecord::live_stamp`].
    pub stamp: Option<Uuid>,
    /// The items that were asked for and exist, ordered by key, with their values as JSON.
    pub items: Vec<(String, String)>,
}

/// Of a view, what is said of so many generations stays, beside those that can still be read: as many as a history goes back.
pub const GENERATIONS_TOLD_MAX: u32 = 1_000;

/// What a removal of old generations did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerationsRemoved {
    /// Rows that are gone: of items, and of generations.
    pub rows: u64,
    /// One call removes no more; there may be more.
    pub is_more: bool,
}

/// A published generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationRecord {
    /// Its version.
    pub version: i64,
    /// The build job that made it; `None` when it was restored.
    pub job: Option<JobId>,
    /// When readers began to see it.
    pub published_at: Timestamp,
    /// When readers ceased to.
    pub replaced_at: Option<Timestamp>,
    /// Items in it.
    pub items_total: i64,
    /// Items whose value was new.
    pub items_changed: i64,
    /// Items that were gone.
    pub items_removed: i64,
    /// Items that the build computed.
    pub items_computed: i64,
    /// Items that the build took over.
    pub items_reused: i64,
    /// How long the build took.
    pub build: Duration,
    /// Where its content is from when no build made it.
    pub restored: Option<Restoration>,
}
