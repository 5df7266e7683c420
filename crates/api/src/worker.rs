//! The worker protocol: what workers in any language say and are answered. `docs/reference/worker-protocol.md` tells it as a whole.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::job::ErrorKind;
use crate::json::Json;
use crate::view::ViewItem;

fn default_queues() -> Vec<String> {
    vec!["default".to_owned()]
}

fn default_slots() -> u32 {
    1
}

/// A handler of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkerHandler {
    /// As jobs name it.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub name: String,
    /// Which version of it, for people.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub version: Option<String>,
    /// What it takes, as JSON Schema of at most 16 KiB; for people and tools, in the registry of handlers. Missing where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub input_schema: Option<Json>,
}

/// A worker that wants to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegisterWorker {
    /// What it calls itself, for people.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub name: String,
    /// What it can do.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub handlers: Vec<WorkerHandler>,
    /// From which queues it takes jobs.
    #[serde(default = "default_queues")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub queues: Vec<String>,
    /// Of whose jobs it may have. Without it, of all that its key may serve.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub namespaces: Option<Vec<String>>,
    /// How many jobs it runs at once, for people.
    #[serde(default = "default_slots")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10_000))]
    pub slots: u32,
    /// How long it may be silent before its jobs go to others; 3,000 unless said.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 500, maximum = 600_000))]
    pub lease_ms: Option<u64>,
}

/// A session that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerSession {
    /// [`WorkerSession::SCHEMA`]
    pub schema: String,
    /// `ses_…`: part of the path of every call.
    pub session: String,
    /// Goes with every call in the header `Recache-Session-Secret`; it is not shown again.
    pub secret: String,
    /// How long the worker may be silent.
    pub lease_ms: u64,
    /// It should be heard of at least so often: a third of the lease.
    pub beat_ms: u64,
}

impl WorkerSession {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.worker-session.v1";
    /// The header that carries the session's secret.
    pub const SECRET_HEADER: &'static str = "recache-session-secret";

    /// A session.
    pub fn new(session: String, secret: String, lease_ms: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), session, secret, lease_ms, beat_ms: (lease_ms / 3).max(1) }
    }
}

/// One call of a worker: any of its parts, and a sign of life by itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkerCall {
    /// Tokens of all jobs that the worker holds, but for those in `settle`. A claim needs it.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 10_000))]
    pub held: Option<Vec<String>>,
    /// Ends of attempts.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub settle: Vec<WorkerEnd>,
    /// What running handlers say.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub reports: Vec<WorkerReport>,
    /// How much it can take.
    #[serde(default)]
    pub claim: Option<WorkerClaim>,
    /// The answer may come so much later, if there is nothing to say before.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 60_000))]
    pub wait_ms: u64,
}

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkerClaim {
    /// At most so many jobs.
    #[cfg_attr(feature = "openapi", schema(maximum = 10_000))]
    pub max: u32,
    /// Counts the session's claims from 1; the same again when no answer came. Saves the server a look.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub number: Option<u64>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerOutcome {
    /// It succeeded with `output`.
    Completed,
    /// A build is done: what it put, and `kept`, is published as `version`.
    Built,
    /// It failed with `error`.
    Failed,
    /// Not yet: it comes back after `after_ms`, and the attempt does not count.
    Snoozed,
    /// It was not done: it goes to others, and the attempt does not count.
    Released,
}

/// The end of one attempt. A field that does not belong to its outcome is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkerEnd {
    /// The right to say so.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub token: String,
    /// How it ended.
    pub outcome: WorkerOutcome,
    /// Of `completed`: the result; `null` unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub output: Option<Json>,
    /// Of `failed`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WorkerError>,
    /// Of `snoozed`: for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(maximum = 315_360_000_000_i64))]
    pub after_ms: Option<u64>,
    /// Of `built`: the version that the build began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Of `built`: live items that stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Vec<String>>,
    /// Of `built`: how many items were taken over from `staged`; only counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_over: Option<u64>,
}

impl WorkerEnd {
    /// An end that says nothing but its outcome.
    pub fn new(token: String, outcome: WorkerOutcome) -> Self {
        Self {
            token,
            outcome,
            output: None,
            error: None,
            after_ms: None,
            version: None,
            kept: None,
            taken_over: None,
        }
    }
}

/// Which kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerErrorKind {
    /// May succeed when tried again: it is, while attempts are left.
    #[default]
    Retryable,
    /// Will not succeed however often it is tried.
    Permanent,
    /// It ran longer than it may; tried again like `retryable`.
    Timeout,
    /// The handler broke; tried again like `retryable`.
    Panic,
}

impl From<WorkerErrorKind> for ErrorKind {
    fn from(kind: WorkerErrorKind) -> Self {
        match kind {
            WorkerErrorKind::Retryable => Self::Retryable,
            WorkerErrorKind::Permanent => Self::Permanent,
            WorkerErrorKind::Timeout => Self::Timeout,
            WorkerErrorKind::Panic => Self::Panic,
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkerError {
    /// Which kind of failure it was.
    #[serde(default)]
    pub kind: WorkerErrorKind,
    /// A stable word for programs.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub code: Option<String>,
    /// What happened, for people.
    pub message: String,
    /// How long the other side asked to wait; honoured in full.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 315_360_000_000_i64))]
    pub retry_after_ms: Option<u64>,
}

/// What a running handler says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WorkerReport {
    /// Whose it is.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub token: String,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub progress: Option<f64>,
    /// Goes with `progress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Lines to keep with the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub lines: Option<Vec<String>>,
    /// The number of the first of `lines` in this attempt, counted from 1: a repeated call adds none twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub first_line: Option<u64>,
    /// Kept for the job's next attempt in place of what was kept before; at most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub checkpoint: Option<Json>,
}

impl WorkerReport {
    /// A report that says nothing yet.
    pub fn new(token: String) -> Self {
        Self { token, progress: None, message: None, lines: None, first_line: None, checkpoint: None }
    }
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerAnswer {
    /// [`WorkerAnswer::SCHEMA`]
    pub schema: String,
    /// False: the session has ended. All its jobs are with others; only `settled` says anything. Register again.
    pub alive: bool,
    /// The server goes away and gives no more jobs: claim from another one, or from the next.
    pub draining: bool,
    /// One for each of `settle`, in order.
    pub settled: Vec<WorkerVerdict>,
    /// One for each of `reports`, in order.
    pub reported: Vec<WorkerVerdict>,
    /// Jobs whose handlers are to stop: they are no longer the worker's.
    pub stop: Vec<WorkerStop>,
    /// Jobs to do.
    pub jobs: Vec<WorkerJob>,
}

impl WorkerAnswer {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.worker-answer.v1";
}

/// Whether what was said about a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerResult {
    /// It stands, by this call or by an earlier one.
    Accepted,
    /// The job is no longer the worker's; nothing changed.
    LeaseLost,
}

/// Why a job is no longer the worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerLoss {
    /// Another one has it, or it is back in the queue.
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

/// What became of an end or a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerVerdict {
    /// Whose.
    pub token: String,
    /// Whether it stands.
    pub result: WorkerResult,
    /// Of `lease_lost`: why.
    pub reason: Option<WorkerLoss>,
}

/// Why a handler is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum WorkerStopReason {
    /// Somebody cancelled the job.
    Cancelled,
    /// A newer version of the view is wanted.
    Superseded,
    /// The job is with others.
    LeaseLost,
    /// It ran longer than it may.
    Timeout,
}

/// A handler that is to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerStop {
    /// Whose.
    pub token: String,
    /// Why.
    pub reason: WorkerStopReason,
}

/// A job for a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerJob {
    /// The right to it, for this attempt only. Hand it to other systems as their idempotency key.
    pub token: String,
    /// `job_…`
    pub id: String,
    /// What is to be done.
    pub handler: String,
    /// The name under which the worker registered what does it: another one than `handler` for `order.*` and `@NAME`.
    pub claimed_as: String,
    /// Which of the handler's methods a step asks for.
    pub method: Option<String>,
    /// Who it belongs to.
    pub namespace: String,
    /// Where it waited.
    pub queue: String,
    /// Counted from 1.
    pub attempt: u32,
    /// How many there may be.
    pub attempts_max: u32,
    /// Ties what belongs together across logs and processes.
    pub correlation_id: String,
    /// W3C `traceparent` of the submit.
    pub trace_context: Option<String>,
    /// How long the attempt may run; the server ends it then.
    pub timeout_ms: Option<u64>,
    /// For the handler. In a workflow: what that was submitted with.
    pub input: Json,
    /// What an earlier attempt kept.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub checkpoint: Option<Json>,
    /// It builds a view: begin with `…/build`, end with `built`.
    pub build: bool,
    /// It was given before, in an answer that seems to have been lost.
    pub again: bool,
    /// In a workflow: the step's name.
    pub step: Option<String>,
    /// In a workflow: the step's `handler.initialization`.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub settings: Option<Json>,
    /// In a workflow: what the steps returned that this one waited for.
    pub results: BTreeMap<String, Json>,
    /// Where a step is split: the element or the batch that this run is for.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub item: Option<Json>,
    /// And its place, from 0.
    pub index: Option<u64>,
    /// The payload of the signal or approval that the step waited for.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub signal: Option<Json>,
}

/// Asks for what a build starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BeginBuild {
    /// Of the job that builds.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub token: String,
}

/// An item that exists already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerKnownItem {
    /// Its key.
    pub item: String,
    /// Of the inputs that it was computed from.
    pub fingerprint: Option<String>,
    /// Its value, which only the cache had, is gone: to be put anew, and neither kept nor taken over. Left out where it is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// What a build starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerBuild {
    /// [`WorkerBuild::SCHEMA`]
    pub schema: String,
    /// The view's namespace.
    pub namespace: String,
    /// The view's key.
    pub key: String,
    /// The version to make: goes back with `built`.
    pub version: i64,
    /// What readers see meanwhile; 0 for nothing.
    pub live_version: i64,
    /// The items that changed since then; `null`: any may have.
    pub touched: Option<Vec<String>>,
    /// The live items: what stays as it is goes into `kept`.
    pub live: Vec<WorkerKnownItem>,
    /// What superseded or failed builds have made since: put without a value to take over.
    pub staged: Vec<WorkerKnownItem>,
}

impl WorkerBuild {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.worker-build.v1";
}

/// Asks a build, or a step's part of one, for what items are live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadPrevious {
    /// Of the job that builds, or does the step.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub token: String,
    /// Their keys.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1_000))]
    pub items: Vec<String>,
}

/// Items of the live generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerPrevious {
    /// [`WorkerPrevious::SCHEMA`]
    pub schema: String,
    /// Those that there are, in no order.
    pub items: Vec<ViewItem>,
}

impl WorkerPrevious {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.worker-previous.v1";

    /// These.
    pub fn new(items: Vec<ViewItem>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), items }
    }
}

/// What a step's part of a build starts from, where a workflow builds a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerPart {
    /// [`WorkerPart::SCHEMA`]
    pub schema: String,
    /// The view's namespace.
    pub namespace: String,
    /// The view's key.
    pub key: String,
    /// The version to make.
    pub version: i64,
    /// What readers see meanwhile; 0 for nothing.
    pub live_version: i64,
    /// The items that changed since then; `null`: any may have.
    pub touched: Option<Vec<String>>,
}

impl WorkerPart {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.worker-part.v1";
}

/// What a step says about items that it does not put. One of the fields besides `token`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct KeepItems {
    /// Of the job that does the step.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub token: String,
    /// These stay where they were made from the same inputs, live or by a build that came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 10_000))]
    pub unchanged: Option<Vec<UnchangedItem>>,
    /// These live items stay, whatever they were made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 10_000))]
    pub live: Option<Vec<String>>,
    /// `true`: every live item stays that no step puts or drops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<bool>,
    /// These go, although the rest stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 10_000))]
    pub dropped: Option<Vec<String>>,
}

/// An item that may be there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UnchangedItem {
    /// Its key.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1024))]
    pub item: String,
    /// Of its inputs.
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub fingerprint: String,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerKept {
    /// [`WorkerKept::SCHEMA`]
    pub schema: String,
    /// For each item that was named, in order: whether it stays. One answer for `rest`.
    pub kept: Vec<bool>,
}

impl WorkerKept {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.worker-kept.v1";

    /// These answers.
    pub fn new(kept: Vec<bool>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), kept }
    }
}

/// An item that a build puts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PutItem {
    /// Its key.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1024))]
    pub item: String,
    /// Of its inputs: a later build can take it over.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 1024))]
    pub fingerprint: Option<String>,
    /// Its value; without it what is staged is taken over. A value that is `null` is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "Json::given")]
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub value: Option<Json>,
}

/// Items that a build puts where no reader looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PutItems {
    /// Of the job that builds.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 128))]
    pub token: String,
    /// The items, each once.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 10_000))]
    pub items: Vec<PutItem>,
}

/// That something about a session was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerDone {
    /// [`WorkerDone::SCHEMA`]
    pub schema: String,
    /// Whether this call changed something.
    pub changed: bool,
}

impl WorkerDone {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.worker-done.v1";

    /// It is done.
    pub fn new(changed: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), changed }
    }
}

/// A worker as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Worker {
    /// `ses_…`
    pub session: String,
    /// What it calls itself.
    pub name: String,
    /// It talks to a server; else it is a process at the database.
    #[serde(default = "is_remote")]
    pub is_remote: bool,
    /// What it can do.
    pub handlers: Vec<WorkerHandler>,
    /// From which queues it takes jobs.
    pub queues: Vec<String>,
    /// Of whose jobs it may have; `null`: of all.
    pub namespaces: Option<Vec<String>>,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// How long it may be silent.
    pub lease_ms: u64,
    /// When it registered.
    pub registered_at: Instant,
    /// When it was last heard of.
    pub heard_at: Instant,
    /// When its session ends unless it is heard of.
    pub expires_at: Instant,
}

/// Servers of before told of no others.
const fn is_remote() -> bool {
    true
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerShown {
    /// [`WorkerShown::SCHEMA`]
    pub schema: String,
    /// As it is known.
    pub worker: Worker,
}

impl WorkerShown {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.worker.v1";

    /// This one.
    pub fn new(worker: Worker) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), worker }
    }
}

/// Workers whose sessions have not ended, the newest first: remote ones, and processes at the database that have handlers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerList {
    /// [`WorkerList::SCHEMA`]
    pub schema: String,
    /// The workers.
    pub workers: Vec<Worker>,
}

impl WorkerList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.workers.v1";

    /// A list.
    pub fn new(workers: Vec<Worker>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), workers }
    }
}
