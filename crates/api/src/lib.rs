//! The wire contract of Recache: the JSON documents that programs read.
//!
//! `recache -o json` prints them, and the HTTP server answers with them. What holds for all of them:
//!
//! * Fields may be added; none changes its meaning or goes away. Whoever reads them ignores fields it does not know.
//! * The outermost document names its shape and the shape's version in `schema`, such as `recache.jobs.v1`. With
//!   `-o jsonl` each line is one element of a list, without an envelope.
//! * Ids are text with a prefix (`job_`, `wf_`, `batch_`, `view_`, `evt_`, `ses_`); instants are RFC 3339 in UTC with microseconds
//!   ([`Instant`]); durations are whole numbers that name their unit (`_ms`).
//! * A field without a value is `null`, never missing.
//! * What handlers wrote (input, output, items) stands there as they wrote it ([`Json`]).
//!
//! ```
//! use recache_api::{Instant, JobChange, JobState};
//!
//! let change = JobChange::new("job_0190…".to_owned(), JobState::Cancelled, true);
//! let text = serde_json::to_string(&change)?;
//! assert_eq!(text, r#"{"schema":"recache.job-change.v1","id":"job_0190…","state":"cancelled","changed":true}"#);
//! assert_eq!(Instant::from_micros(0)?.to_string(), "1970-01-01T00:00:00.000000Z");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "client")]
pub mod client;

mod analysis;
mod analytics;
mod audit;
mod batch;
mod batch_request;
mod cache;
mod cache_request;
mod defaults;
mod event;
mod handler;
mod health;
mod instant;
mod job;
mod job_request;
mod json;
mod letter;
mod letter_request;
mod operation;
mod problem;
mod queue;
mod queue_request;
mod schedule;
mod schedule_request;
mod template;
mod tracked;
mod tracked_request;
mod view;
mod view_request;
mod webhook_request;
mod worker;
mod workflow;
mod workflow_request;

pub use analysis::{
    AnalyzedStep, BlockedSteps, CompletionEstimate, CriticalPath, DurationBasis, GraphAnalysis,
    LengthMeasure, Parallelism, RootCause, StepRetry,
};
pub use analytics::{
    BottleneckReport, DurationSpread, ErrorHotSpot, FigureExplanation, FigureInput, HealthScorePart,
    PerformanceReport, RecommendationEntry, ResourceUseEntry, SlowStepEntry, SlowWorkflowEntry, TrendBucket,
};
pub use audit::{ApiKey, ApiKeyCreated, ApiKeyList, ApiKeyRevoked, AuditList, AuditRow};
pub use batch::{
    Batch, BatchAnswer, BatchCallback, BatchCounts, BatchList, BatchMember, BatchMemberList, BatchState,
};
pub use batch_request::{CallBack, CreateBatch, RetryBatch};
pub use cache::{
    CacheBench, CacheBenchRow, CacheBreaker, CacheCapability, CacheChange, CacheEntry, CacheExplanation,
    CacheFleet, CacheFleetUsage, CacheHealth, CacheOverview, CacheStats, CacheUsage, CacheValue, Changed,
    TtlClass, TtlExplanation, TtlSimulation, TtlSimulationRow,
};
pub use cache_request::InvalidateCache;
pub use event::{
    Delivery, DeliveryAttempt, DeliveryList, Event, EventList, StreamEnd, StreamGap, Subscriber,
    SubscriberList, WebhookSecret,
};
pub use handler::{
    Handler, HandlerDetails, HandlerEdge, HandlerFailure, HandlerGraph, HandlerList, HandlerNode,
    HandlerStep, HandlerVersion, HandlerWorker,
};
pub use health::{
    CacheTier, DatabaseHealth, Health, HealthDetails, HealthStatus, LeaderHealth, LimitHealth, PoolAdvice,
    PoolHealth, ServerCacheHealth, SweepHealth, WorkHealth, WorkersHealth, WriterHealth,
};
pub use instant::{Instant, OutOfRange};
pub use job::{
    ErrorKind, Job, JobAttempt, JobChange, JobDetails, JobError, JobHistoryRow, JobList, JobLogLine,
    JobState, JobSubmitted,
};
pub use job_request::{
    Because, ChangeJobs, IfThere, JobUpdated, JobsSubmitted, Prioritize, Reschedule, SubmitJob, SubmitJobs,
    SubmitRetry, SubmitUnique,
};
pub use json::Json;
pub use letter::{BulkChange, FailedAttempt, Letter, LetterDetails, LetterList, LetterNote, LetterStatus};
pub use letter_request::{LetterWord, NoteLetter, RedriveLetters};
pub use operation::{Check, CheckStatus, Diagnosis, Migration};
pub use problem::{FieldProblem, Problem};
pub use queue::{Limit, LimitList, Queue, QueueAnswer, QueueList, QueuePause};
pub use queue_request::{LimitOf, PauseQueue, SetLimit};
pub use schedule::{Schedule, ScheduleAnswer, ScheduleList, Ticks};
pub use schedule_request::{DefineSchedule, OnMissed, OnOverlap};
pub use template::{
    TemplateApplied, TemplateChange, TemplateCheck, TemplateChecks, TemplateDetails, TemplateDiff,
    TemplateFieldChange, TemplateGraph, TemplateList, TemplateProblem, TemplateStepChange, TemplateSummary,
    TemplatesApplied,
};
pub use tracked::{
    TrackedContext, TrackedImport, TrackedImportUnread, TrackedJob, TrackedJobAnswer, TrackedJobKept,
    TrackedJobList, TrackedJobsKept, TrackedState,
};
pub use tracked_request::{JobContext, ReportJob, TrackJob, TrackJobs, TrackReported};
pub use view::{
    Backoff, Generation, ItemChange, ItemDifference, ItemList, ItemRead, LastTouch, OnTouch, Restoration,
    RetryPolicy, Touched, TouchedViews, View, ViewBehind, ViewBuild, ViewChange, ViewDetails, ViewDiff,
    ViewExplanation, ViewHistory, ViewItem, ViewItems, ViewList, ViewPattern, ViewPatternList, ViewPause,
    ViewPolicy, ViewRestored, ViewSources, ViewStatus, ViewValue, ViewsMatching,
};
pub use view_request::{
    DefineView, DeriveView, ReadItems, RollBackView, TouchMatching, TouchOne, TouchView, TouchViews,
};
pub use webhook_request::{CreateWebhook, Redeliver, Redelivered, RotateWebhook, SubscriberChange};
pub use worker::{
    BeginBuild, KeepItems, PutItem, PutItems, ReadPrevious, RegisterWorker, UnchangedItem, Worker,
    WorkerAnswer, WorkerBuild, WorkerCall, WorkerClaim, WorkerDone, WorkerEnd, WorkerError, WorkerErrorKind,
    WorkerHandler, WorkerJob, WorkerKept, WorkerKnownItem, WorkerList, WorkerLoss, WorkerOutcome, WorkerPart,
    WorkerPrevious, WorkerReport, WorkerResult, WorkerSession, WorkerShown, WorkerStop, WorkerStopReason,
    WorkerVerdict,
};
pub use workflow::{
    PassedLimit, StepCounts, Workflow, WorkflowChange, WorkflowDetails, WorkflowList, WorkflowSignal,
    WorkflowStep,
};
pub use workflow_request::{
    CompleteStep, ResolveStep, RetryMode, RetryWorkflow, SendSignal, SubmitWorkflow, TimelineStep,
    WorkflowStepList, WorkflowTimeline,
};
