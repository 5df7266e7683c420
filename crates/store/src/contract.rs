//! The contract of a store: what the engine may ask of any database.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, SessionId, ViewId, WorkflowId};
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use tokio::sync::broadcast;

use crate::api_keys::ApiKeys;
use crate::attempts::Attempts;
use crate::audit::Audits;
use crate::batches::Batches;
use crate::build_workflows::BuildWorkflows;
use crate::bulk_jobs::BulkJobs;
use crate::chains::Chains;
use crate::error::Result;
use crate::event_drafts::EventDrafts;
use crate::event_stream::EventStream;
use crate::events::Events;
use crate::figures::Figures;
use crate::flow::Flows;
use crate::handler_offers::HandlerOffers;
use crate::held_items::HeldItems;
use crate::job_changes::JobChanges;
use crate::known_items::KnownItems;
use crate::letters::Letters;
use crate::maintenance::Maintenance;
use crate::measured::Measured;
use crate::queues::Queues;
use crate::records::{
    Beat, BuildStart, CacheMark, CacheRaise, CacheRecord, ClaimRequest, Dispatched, GenerationRecord,
    GenerationsRemoved, HistoryRow, JobFilter, JobPage, JobRecord, LeaseToken, NewJob, NewView, NewWorkflow,
    Publication, Published, Reconciled, Revoked, SessionRecord, Settlement, StagedItem, StepInputs,
    StepRecord, Submitted, Swept, TemplateFilter, TemplateRecord, TemplateSummary, Touch, TouchOutcome,
    ViewRead, ViewRecord, WorkflowRecord,
};
use crate::remote_workers::RemoteWorkers;
use crate::request_keys::RequestKeys;
use crate::schedules::Schedules;
use crate::signal::Signal;
use crate::tracked::TrackedJobs;
use crate::view_control::ViewControl;
use crate::view_patterns::ViewPatterns;

/// Durable state.
///
/// What every implementation promises:
/// * A call that returns `Ok` is committed and survives a crash of any process and of the database. A call that returns
///   an error changed nothing, unless the error is [`crate::Error::Unknown`].
/// * A state change is one conditional statement, in one transaction with its history row; history numbers are
///   dense from 1.
/// * A call with a token that is no longer good changes nothing and says why.
/// * Deadlines are set and judged by the store's clock.
/// * Calls may be cancelled by dropping them; whether the change is made is then unknown.
///
/// What the caller guarantees: ids are unique; input and output are valid JSON; settlements in one call are of
/// different jobs.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// For people and logs: `postgresql` or `sqlite`.
    fn kind(&self) -> &'static str;

    /// The store's clock; also tells whether it can be reached.
    async fn now(&self) -> Result<Timestamp>;

    /// Makes sure that a write would be accepted and committed.
    async fn check_writable(&self) -> Result<()>;

    /// The version of the tables that the database has; 0 when it has none. Changes nothing.
    async fn schema_version(&self) -> Result<i64>;

    /// What keeps the tables small and true.
    fn maintenance(&self) -> &dyn Maintenance;

    /// Pausing and limiting queues.
    fn queues(&self) -> &dyn Queues;

    /// Changing many jobs by filter.
    fn bulk_jobs(&self) -> &dyn BulkJobs;

    /// The running of workflows.
    fn flows(&self) -> &dyn Flows;

    /// What handlers keep and say.
    fn attempts(&self) -> &dyn Attempts;

    /// Events, and who is told of them.
    fn events(&self) -> &dyn Events;

    /// Events whose payloads are yet to be made.
    fn event_drafts(&self) -> &dyn EventDrafts;

    /// Events in one order, for those who read on from where they were.
    fn event_stream(&self) -> &dyn EventStream;

    /// Jobs that failed for good.
    fn letters(&self) -> &dyn Letters;

    /// Figures over what has run.
    fn figures(&self) -> &dyn Figures;

    /// Jobs that begin at the ticks of a clock.
    fn schedules(&self) -> &dyn Schedules;

    /// Jobs that some other system runs.
    fn tracked_jobs(&self) -> &dyn TrackedJobs;

    /// Views that are made from others.
    fn chains(&self) -> &dyn Chains;

    /// Workers that reach the store only through a node.
    fn remote_workers(&self) -> &dyn RemoteWorkers;

    /// What workers can do.
    fn handler_offers(&self) -> &dyn HandlerOffers;

    /// Views in an operator's hands.
    fn view_control(&self) -> &dyn ViewControl;

    /// Views by pattern.
    fn view_patterns(&self) -> &dyn ViewPatterns;

    /// Builds that a workflow does.
    fn build_workflows(&self) -> &dyn BuildWorkflows;

    /// Items whose values are kept in the cache only.
    fn held_items(&self) -> &dyn HeldItems;

    /// Items that exist while a build goes on, page by page.
    fn known_items(&self) -> &dyn KnownItems;

    /// Keys of those who ask over HTTP.
    fn api_keys(&self) -> &dyn ApiKeys;

    /// What operators did.
    fn audits(&self) -> &dyn Audits;

    /// Requests that may be repeated.
    fn request_keys(&self) -> &dyn RequestKeys;

    /// Changing jobs that wait.
    fn job_changes(&self) -> &dyn JobChanges;

    /// What is watched together.
    fn batches(&self) -> &dyn Batches;

    /// What this driver measured of itself since it was opened. Asks nothing of the database.
    fn measured(&self) -> Measured;

    /// Hints from this process and, where the database can, from others.
    fn subscribe(&self) -> broadcast::Receiver<Signal>;

    /// Sends hints to this process at once and to others as the database can. Never fails, never blocks for long.
    async fn announce(&self, signals: Vec<Signal>);

    /// Ends background tasks and closes connections.
    async fn close(&self);

    // --- sessions -----------------------------------------------------------------------------------------

    /// Opens a worker session that is alive for `lease` unless it beats.
    async fn session_open(&self, session: SessionId, node: &str, lease: Duration) -> Result<()>;

    /// Extends the session by `lease` from now, and tells which of the held tokens are no longer good.
    async fn session_beat(&self, session: SessionId, lease: Duration, held: Vec<LeaseToken>) -> Result<Beat>;

    /// A session that has not ended; one whose time is over is still there until it is swept.
    async fn session_get(&self, session: SessionId) -> Result<Option<SessionRecord>>;

    /// Ends the session; jobs that it still holds go back to the queue at once.
    async fn session_close(&self, session: SessionId) -> Result<()>;

    /// Hands back what the session holds without knowing it: jobs of a claim whose answer was lost. `known` are
    /// the jobs that it does know of. Answers how many went back.
    async fn session_reclaim(&self, session: SessionId, known: Vec<JobId>) -> Result<usize>;

    /// Takes the jobs of dead sessions away, at most `rows_max`: back to the queue, or failed when no attempt is
    /// left. Their tokens are void afterwards.
    async fn sessions_sweep(&self, rows_max: u32) -> Result<Swept>;

    // --- jobs ---------------------------------------------------------------------------------------------

    /// Stores jobs; all or none.
    ///
    /// An idempotency key that was used within [`IDEMPOTENCY_KEEP`](recache_model::unique::IDEMPOTENCY_KEEP) answers the
    /// job of its first use if the body is the same, and is a conflict otherwise. A unique key does what its rule
    /// says; both hold over all processes.
    async fn jobs_submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>>;

    /// Settles attempts and claims more, in one transaction where the database gains by it. Claimed are jobs that
    /// are due, by priority (larger first), then due time, then id; no job is given to two sessions. A session that
    /// is not alive gets none. A paused queue gives none, and no queue, handler or concurrency key more than its limits
    /// allow over all processes; between jobs of different concurrency keys order may give way to taking turns.
    async fn jobs_dispatch(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<ClaimRequest>,
    ) -> Result<Dispatched>;

    /// Cancels a job that has not ended; its worker's token is void. Answers the state in which it is now and
    /// whether this call changed it.
    async fn job_cancel(&self, job: JobId, reason: &str) -> Result<(JobState, bool)>;

    /// Puts a failed job back to the queue with its attempts renewed. A job in another state is a conflict.
    async fn job_retry(&self, job: JobId) -> Result<()>;

    /// Keeps a running job's progress (0 to 1) and message. `None` when the token is good.
    async fn job_progress(
        &self,
        token: LeaseToken,
        progress: f64,
        message: Option<String>,
    ) -> Result<Option<Revoked>>;

    /// Whether a token is still good: `None`, or why not.
    async fn job_revoked(&self, token: LeaseToken) -> Result<Option<Revoked>>;

    /// A job.
    async fn job_get(&self, job: JobId) -> Result<JobRecord>;

    /// Its transitions, oldest first.
    async fn job_history(&self, job: JobId) -> Result<Vec<HistoryRow>>;

    /// Jobs, newest first. A page may end before it is full: see [`JobPage`].
    async fn jobs_list(&self, filter: JobFilter) -> Result<JobPage>;

    // --- templates and workflows --------------------------------------------------------------------------

    /// Keeps a template; when it is new, raises `raise` in the same transaction. The same version with another
    /// content is a conflict.
    async fn template_put(&self, template: TemplateRecord, raise: Option<CacheRaise>) -> Result<()>;

    /// A template by its digest.
    async fn template_get(&self, digest: &str) -> Result<TemplateRecord>;

    /// A template by its name: of this version, or the newest, by the precedence of versions and not by their text. A
    /// pre-release is newest only where there is no release.
    async fn template_find(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<TemplateRecord>;

    /// Templates without their content: by namespace, name, and version, the newest first.
    async fn templates_list(&self, filter: TemplateFilter) -> Result<Vec<TemplateSummary>>;

    /// Stores a workflow with its template, steps and edges. True when it is new.
    async fn workflow_submit(&self, workflow: NewWorkflow) -> Result<bool>;

    /// A workflow.
    async fn workflow_get(&self, workflow: WorkflowId) -> Result<WorkflowRecord>;

    /// Its steps in the order of their submission.
    async fn workflow_steps(&self, workflow: WorkflowId) -> Result<Vec<StepRecord>>;

    /// Cancels every step that has not ended, in one transaction. Answers the jobs that were running.
    async fn workflow_cancel(&self, workflow: WorkflowId, reason: &str) -> Result<Vec<JobId>>;

    /// What a step starts from.
    async fn step_inputs(&self, job: JobId) -> Result<StepInputs>;

    // --- views --------------------------------------------------------------------------------------------

    /// Creates a view or changes its definition; its versions stay.
    async fn view_define(&self, view: NewView) -> Result<ViewRecord>;

    /// A view.
    async fn view_get(&self, namespace: &str, key: &str) -> Result<ViewRecord>;

    /// A view, and what the store's clock showed when it was looked at: how old it is and how far behind follow from both.
    async fn view_look(&self, namespace: &str, key: &str) -> Result<(ViewRecord, Timestamp)>;

    /// Views by namespace and key; after `after`, if given.
    async fn views_list(
        &self,
        namespace: Option<&str>,
        after: Option<(String, String)>,
        rows_max: u32,
    ) -> Result<Vec<ViewRecord>>;

    /// Touches views; all or none.
    async fn views_touch(&self, touches: Vec<Touch>) -> Result<Vec<TouchOutcome>>;

    /// Carries out touches that were asked for from SQL (table `touch_requests`), and creates the build jobs that are due.
    async fn views_reconcile(&self, rows_max: u32) -> Result<Reconciled>;

    /// A worker begins the build that it claimed: takes the newest version wanted.
    async fn build_begin(&self, token: LeaseToken) -> Result<std::result::Result<BuildStart, Revoked>>;

    /// Puts items where no reader looks. `None` when the token is good.
    async fn build_put(&self, token: LeaseToken, items: Vec<StagedItem>) -> Result<Option<Revoked>>;

    /// Makes what the build put the live generation and completes its job, in one transaction.
    async fn build_publish(&self, token: LeaseToken, publication: Publication) -> Result<Published>;

    /// Reads one generation of a view: the live one. `items`: only these; `None`: all.
    async fn view_read(&self, namespace: &str, key: &str, items: Option<Vec<String>>) -> Result<ViewRead>;

    /// Reads items of a given generation. `None` when that generation is no longer kept.
    async fn generation_read(
        &self,
        view: ViewId,
        version: i64,
        items: Vec<String>,
    ) -> Result<Option<Vec<(String, String)>>>;

    /// Items of a given generation in the order of their keys: those after `after`, at most `rows_max`. `None` when that generation is
    /// no longer kept.
    async fn generation_page(
        &self,
        view: ViewId,
        version: i64,
        after: Option<String>,
        rows_max: u32,
    ) -> Result<Option<Vec<(String, String)>>>;

    /// What is told of a generation; `None` when it is too old, or never was.
    async fn generation_get(&self, view: ViewId, version: i64) -> Result<Option<GenerationRecord>>;

    /// Published generations, newest first.
    async fn generations_list(&self, view: ViewId, rows_max: u32) -> Result<Vec<GenerationRecord>>;

    /// Removes what only generations replaced more than `keep` ago could see (or as long ago as their view's definition says), and what is said of generations beyond the newest
    /// [`GENERATIONS_TOLD_MAX`](crate::GENERATIONS_TOLD_MAX) of a view that nobody can read any more.
    async fn generations_remove(&self, keep: Duration) -> Result<GenerationsRemoved>;

    // --- epochs of caches -----------------------------------------------------------------------------------

    /// The record of the caches under `prefix`, if it is another one than `known`. It is made when there is none. When
    /// it is older than `known`, because the database went back in time, it becomes another incarnation first. Costs
    /// one indexed row when nothing has changed.
    async fn cache_epochs_read(&self, prefix: &str, known: CacheMark) -> Result<Option<CacheRecord>>;

    /// Raises the epochs of slots; the record's version rises with them. Answers the record as it is then, as seen by
    /// who knows `known`. Makes the record as [`cache_epochs_read`](Self::cache_epochs_read) does.
    async fn cache_epochs_raise(&self, raise: CacheRaise, known: CacheMark) -> Result<CacheRecord>;
}
