//! Durable state of Recache: one contract ([`Store`]), two drivers.
//!
//! * [`sqlite`]: bundled, one file (or memory), nothing to install. One writer, grouped commits, `synchronous = FULL`.
//! * [`postgres`]: many processes, `FOR UPDATE SKIP LOCKED`, `LISTEN/NOTIFY`.
//!
//! [`open`] takes a URL and gives whichever it names. Both pass the same conformance suite (module `conformance`, behind the feature of
//! that name).
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use recache_store::{NewJob, OpenOptions, Store, open};
//!
//! let store = open(&OpenOptions::new("sqlite::memory:")).await?;
//! let submitted = store.jobs_submit(vec![NewJob::new("hello", "{}")]).await?;
//! assert_eq!(store.job_get(submitted[0].id).await?.handler, "hello");
//! # store.close().await;
//! # Ok::<(), recache_store::Error>(()) }).unwrap();
//! ```

#[macro_use]
mod work;

pub mod api_keys;
pub mod attempts;
pub mod audit;
pub mod batches;
pub mod build_workflows;
pub mod bulk_jobs;
pub mod chains;
mod contract;
mod error;
pub mod event_drafts;
pub mod event_stream;
pub mod events;
#[cfg_attr(not(feature = "fail-points"), doc(hidden))]
pub mod fail;
pub mod job_changes;
mod open;
mod records;
pub mod request_keys;
mod schemas;
mod signal;
mod slow_plans;
mod writer_use;

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod figures;
pub mod flights;
pub mod flow;
pub mod handler_offers;
pub mod held_items;
pub mod known_items;
pub mod letters;
pub mod maintenance;
pub mod measured;
pub mod postgres;
pub mod queues;
pub mod remote_workers;
pub mod schedules;
pub mod snapshot;
pub mod sqlite;
pub mod traces;
pub mod tracked;
pub mod view_control;
pub mod view_patterns;

pub use api_keys::{ApiKeyRecord, ApiKeys, NewApiKey};
pub use attempts::{Attempts, LogLine};
pub use audit::{AuditFilter, AuditOutcome, AuditRecord, Audits, NewAudit};
pub use batches::{
    BatchDifference, BatchDue, BatchFilter, BatchMember, BatchRecord, Batches, BatchesCompared,
    BatchesSettled, MemberKind, NewBatch,
};
pub use build_workflows::{
    BuildSituation, BuildWorkflows, Gathered, KEEP_ITEMS_MAX, Keep, PREVIOUS_BYTES_MAX, PREVIOUS_ITEMS_MAX,
    PartStart,
};
pub use bulk_jobs::{BulkJobChange, BulkJobs};
pub use chains::{Chains, Neighbours, TOUCHES_COUNTED_MAX, ViewName};
pub use contract::Store;
pub use error::{Error, Result};
pub use event_drafts::{
    ClaimedDraft, DraftEnd, DraftOutcome, DraftToken, DraftsSettled, DuePublisher, EventDrafts, WaitingDrafts,
};
pub use event_stream::{EventStream, PlacedEvent, StreamExtent};
pub use events::{
    ClaimedDeliveries, ClaimedDelivery, DeliveryAttempt, DeliveryEnd, DeliveryFilter, DeliveryOutcome,
    DeliveryPlace, DeliveryRecord, DeliveryToken, DueSubscriber, EventQuery, EventRecord, Events,
    NewSubscriber, Routed, SubscriberKind, SubscriberRecord, SubscriberState,
};
pub use figures::{COUNTED_ROWS_MAX, Figures, FoldLimits, MinutesAsked, StepFigure, StepFigures};
pub use flights::{FlightStore, FlightTotals, Leg};
pub use flow::{
    Child, ChildEnd, Children, Ending, FLOW, Flows, HandOver, LimitsRecord, RESULT_INLINE_BYTES_MAX, Region,
    RegionStep, SIGNAL_BYTES_MAX, SignalKind, SignalRecord, StepSituation, Waiting, WorkflowFilter,
};
pub use handler_offers::HandlerOffers;
pub use held_items::{HELD_ITEMS_MAX, HeldItem, HeldItems, HeldPlace, HeldView, item_digest};
pub use job_changes::JobChanges;
pub use known_items::{KNOWN_PAGE_ROWS, KnownItems, KnownPages, KnownPlace, KnownStarts};
pub use letters::{BatchDone, FailedAttempt, Letter, LetterFilter, LetterNote, Letters};
pub use maintenance::{
    Compared, CountDifference, HistoryRule, HistoryTended, Leader, Leadership, LimitsJudged, Maintenance,
    SessionsSeen,
};
pub use measured::{Measured, PoolFigures, StatementFigures};
pub use open::{DatabaseUrl, OpenOptions, Synchronous, newest_schema, open, open_with_flights};
pub use queues::COUNTED_MAX as QUEUED_COUNTED_MAX;
pub use queues::{LimitRecord, LimitScope, Pause, QueueRecord, Queues, Word};
pub use records::{
    Beat, BuildStart, CacheMark, CacheRaise, CacheRecord, ClaimRequest, ClaimedJob, Dispatched, Due,
    GENERATIONS_TOLD_MAX, GenerationRecord, GenerationsRemoved, HistoryRow, ItemMark, JOBS_LOOKED_AT_MAX,
    JobFilter, JobPage, JobRecord, LeaseToken, NewJob, NewStep, NewView, NewWorkflow, Outcome, Publication,
    Published, Reconciled, Revoked, SessionRecord, Settled, Settlement, StagedItem, StepCall, StepInputs,
    StepRecord, Submitted, Swept, TOUCH_TRACES_MAX, TakeOver, TemplateFilter, TemplatePlace, TemplateRecord,
    TemplateSummary, Touch, TouchOutcome, TouchSource, TouchedItems, ViewRead, ViewRecord, WorkflowRecord,
};
pub use remote_workers::{
    BuildSum, HeldJob, NewRemoteWorker, RemoteBeat, RemoteHandler, RemoteWorker, RemoteWorkers,
};
pub use request_keys::{Begun, KeptAnswer, NewRequest, RequestKeys};
pub use schedules::{Fired, NewSchedule, ScheduleRecord, Schedules};
pub use signal::Signal;
pub use traces::Traced;
pub use tracked::{NewTrackedJob, Tracked, TrackedContext, TrackedFilter, TrackedJob, TrackedJobs};
pub use view_control::{ItemChange, Restoration, Restored, ViewControl, ViewPause};
pub use view_patterns::{PatternRecord, TouchedMatching, ViewPatterns};
pub use writer_use::WriterFigures;
