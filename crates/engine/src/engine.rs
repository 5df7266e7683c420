//! The handle: submit, wait, cancel, touch, read.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use recache_cache::{Cache, FleetReads};
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use recache_model::view_options::ItemsKept;
use recache_model::workflow::WorkflowState;
use recache_store::{
    JobRecord, NewJob, NewView, Restored, Store, Submitted, Touch, TouchOutcome, ViewName, ViewRecord, Word,
    WorkflowRecord,
};
use recache_worker::{Handlers, Subscribers};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::adaptive::Adaptive;
use crate::batches::MovedBatches;
use crate::builder::Builder;
use crate::deliver::Courier;
use crate::error::{Error, Result};
use crate::held::HeldJobs;
use crate::limit::{ClaimLimit, Shown};
use crate::options::Options;
use crate::registry::{self, Registered};
use crate::rules::Compiled;
use crate::session::Lease;
use crate::standings::Standings;
use crate::stats::{Counters, Stats, add};
use crate::templates::Templates;
use crate::touches::Touches;
use crate::views::Heads;
use crate::waiters::Waiters;
use crate::{kept, prefetch, remote};

/// Views that one transaction touches of those that match a pattern.
pub const TOUCHED_A_STEP: u32 = 500;

/// How long tasks may take to end at a shutdown, and then how long the session may take to close: a store that hangs must not keep the
/// process.
const TASKS_END_WITHIN: Duration = Duration::from_secs(3);
const SESSION_CLOSES_WITHIN: Duration = Duration::from_secs(2);

/// What all parts of an engine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: Options,
    pub(crate) handlers: Handlers,
    pub(crate) cache: Cache,
    pub(crate) adaptive: Option<Adaptive>,
    pub(crate) fleet_reads: FleetReads,
    pub(crate) subscribers: Subscribers,
    pub(crate) courier: Option<Arc<dyn Courier>>,
    pub(crate) held: HeldJobs,
    pub(crate) lease: Lease,
    pub(crate) limit: Shown,
    pub(crate) remote: remote::Memory,
    pub(crate) counters: Counters,
    /// When dead workers were last looked for, in microseconds of the store's clock; 0: not yet.
    pub(crate) swept_at: AtomicI64,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) batches: MovedBatches,
    pub(crate) heads: Heads,
    /// Items whose values only the cache has.
    pub(crate) kept: kept::Kept,
    /// Generations that may have to be fetched ahead.
    pub(crate) published: prefetch::Published,
    pub(crate) templates: Templates,
    pub(crate) registry: Registered,
    pub(crate) standings: Standings,
    pub(crate) compiled: Compiled,
    /// There may be something to claim.
    pub(crate) work: Notify,
    /// Some view may be due earlier than planned.
    pub(crate) due: Notify,
    /// There may be events to hand on, or deliveries to make.
    pub(crate) events_due: Notify,
    /// There may be payloads of events to make.
    pub(crate) drafts_due: Notify,
    /// No new claims.
    pub(crate) draining: CancellationToken,
    /// Everything ends.
    pub(crate) ending: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// A handle to a running engine; cheap to clone. Dropping the last one does not stop it: [`Engine::shut_down`] does.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) touches: Touches,
}

impl Engine {
    /// Begins to describe an engine over `store`.
    pub fn builder(store: Arc<dyn Store>) -> Builder {
        Builder::new(store)
    }

    /// The store below.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// The cache that view items and templates are read through.
    pub fn cache(&self) -> &Cache {
        &self.shared.cache
    }

    /// What chooses the lives of cached values, where it was asked for: see [`Builder::adaptive_ttl`].
    pub fn adaptive(&self) -> Option<&Adaptive> {
        self.shared.adaptive.as_ref()
    }

    /// What the caches of all processes answered, over the same backend and key prefix. This process shares what it counted every five
    /// seconds and at its end.
    pub fn fleet_reads(&self) -> &FleetReads {
        &self.shared.fleet_reads
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }

    /// When this process last looked for dead workers, by the store's clock.
    pub fn last_sweep(&self) -> Option<Timestamp> {
        let micros = self.shared.swept_at.load(Ordering::Relaxed);
        (micros != 0).then(|| Timestamp::from_micros(micros))
    }

    /// Stores a job. When this returns, it survives any crash. Submitting the same id again is harmless. Answers the job that the submit
    /// stands for: another one than its own where its idempotency key or its unique key says so.
    pub async fn submit(&self, job: NewJob) -> Result<JobId> {
        let id = job.id;
        Ok(self.submit_many(vec![job]).await?.first().map_or(id, |submitted| submitted.id))
    }

    /// Stores jobs; all or none.
    pub async fn submit_many(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        for job in &jobs {
            if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&job.input) {
                return Err(Error::Invalid(format!("job {}: input is not JSON: {error}", job.id)));
            }
        }
        Ok(self.shared.store.jobs_submit(jobs).await?)
    }

    /// A job as it stands.
    pub async fn job(&self, job: JobId) -> Result<JobRecord> {
        Ok(self.shared.store.job_get(job).await?)
    }

    /// Waits until a job has ended, however long that takes.
    pub async fn wait_for_job(&self, job: JobId) -> Result<JobRecord> {
        let watch = self.shared.waiters.watch(job.uuid());
        loop {
            let changed = watch.changed();
            let record = self.shared.store.job_get(job).await?;
            if record.state.is_terminal() {
                return Ok(record);
            }
            self.pause(changed).await?;
        }
    }

    /// Waits until a workflow no longer runs.
    pub async fn wait_for_workflow(&self, workflow: WorkflowId) -> Result<WorkflowRecord> {
        let watch = self.shared.waiters.watch(workflow.uuid());
        loop {
            let changed = watch.changed();
            let record = self.shared.store.workflow_get(workflow).await?;
            if record.state != WorkflowState::Running {
                return Ok(record);
            }
            self.pause(changed).await?;
        }
    }

    /// Until woken, or until it is time to look again; an end of the engine is an error.
    pub(crate) async fn pause(&self, changed: impl Future<Output = ()>) -> Result<()> {
        tokio::select! {
            () = changed => Ok(()),
            () = tokio::time::sleep(self.shared.options.poll) => Ok(()),
            () = self.shared.ending.cancelled() => Err(Error::ShuttingDown),
        }
    }

    /// Cancels a job that has not ended; a running handler is told. The state it is in now, and whether this
    /// call changed it.
    pub async fn cancel_job(&self, job: JobId, reason: &str) -> Result<(JobState, bool)> {
        let answer = self.shared.store.job_cancel(job, reason).await?;
        self.shared.waiters.wake(job.uuid());
        Ok(answer)
    }

    /// Runs a failed job again with new attempts.
    pub async fn retry_job(&self, job: JobId) -> Result<()> {
        Ok(self.shared.store.job_retry(job).await?)
    }

    /// Cancels every step that has not ended.
    pub async fn cancel_workflow(&self, workflow: WorkflowId, reason: &str) -> Result<Vec<JobId>> {
        let stopped = self.shared.store.workflow_cancel(workflow, reason).await?;
        self.shared.waiters.wake(workflow.uuid());
        Ok(stopped)
    }

    /// Creates a view or changes its definition.
    ///
    /// A workflow that builds it need not be stored yet: a build that finds none fails, and says so.
    /// Items that only the cache keeps are refused where this process's cache is not shared with others.
    pub async fn define_view(&self, view: NewView) -> Result<ViewRecord> {
        self.check_kept(&view)?;
        let record = self.shared.store.view_define(view).await?;
        registry::changed(&self.shared);
        Ok(record)
    }

    /// Says that a view's inputs changed. When this returns, the version it answers will be built, or a newer
    /// one. Touches of one view that come at the same time share one statement and one version.
    pub async fn touch(&self, touch: Touch) -> Result<TouchOutcome> {
        add(&self.shared.counters.touches, 1);
        self.touches.touch(touch).await
    }

    /// Creates or changes a definition that covers every view whose key matches the pattern `pattern.key` (`alliance/*`); the first touch of such a
    /// view makes it. Answers how many views that were made from it before were changed with it.
    pub async fn define_view_pattern(&self, pattern: NewView) -> Result<u64> {
        self.check_kept(&pattern)?;
        let views = self.shared.store.view_patterns().pattern_define(pattern).await?;
        registry::changed(&self.shared);
        Ok(views)
    }

    fn check_kept(&self, view: &NewView) -> Result<()> {
        if view.options.items == ItemsKept::CacheOnly
            && let Some(why) = self.shared.kept.values().refusal()
        {
            return Err(Error::Invalid(format!("view {}/{}: {why}", view.namespace, view.key)));
        }
        Ok(())
    }

    /// Makes the content of an older generation live again, and pauses the view; see [`ViewControl::view_restore`](recache_store::ViewControl::view_restore). A
    /// generation of whose values, which only the cache had, some are gone, is a conflict.
    pub async fn restore_view(&self, view: ViewName, version: i64, word: Word) -> Result<Restored> {
        let record = self.shared.store.view_get(&view.namespace, &view.key).await?;
        if record.definition.options.items == ItemsKept::CacheOnly {
            let gone =
                self.shared.kept.values().gone_of(&*self.shared.store, record.id, &view, version).await?;
            if gone > 0 {
                let what = format!(
                    "{gone} values of version {version} of view {view} are gone from the cache, which alone had them: rebuild the view instead"
                );
                return Err(recache_store::Error::Conflict(what).into());
            }
        }
        Ok(self.shared.store.view_control().view_restore(view, version, word).await?)
    }

    /// Touches every view that is there and whose key the pattern covers, in steps of [`TOUCHED_A_STEP`]: each a transaction of its own.
    /// Answers how many. After an error some may be touched; repeating it is safe, and touches them again.
    pub async fn touch_matching(
        &self,
        namespace: &str,
        pattern: &str,
        items: Vec<String>,
        word: Option<Word>,
    ) -> Result<u64> {
        let patterns = self.shared.store.view_patterns();
        let (mut after, mut touched) = (None, 0);
        loop {
            let step = patterns
                .views_touch_matching(namespace, pattern, items.clone(), word.clone(), after, TOUCHED_A_STEP)
                .await?;
            touched += step.touched;
            after = step.next;
            if after.is_none() {
                add(&self.shared.counters.touches, usize::try_from(touched).unwrap_or(usize::MAX));
                return Ok(touched);
            }
        }
    }

    /// How many jobs may run in this process at once, and why.
    pub fn claim_limit(&self) -> ClaimLimit {
        self.shared.limit.read()
    }

    /// Jobs that this process holds now, running or about to.
    pub fn held_count(&self) -> usize {
        self.shared.held.count()
    }

    /// Takes no more work, hands back at once what was not started, lets running handlers go on for
    /// [`Options::drain`], hands back what is left then, and ends all tasks. The store stays open. A store that does not answer holds this
    /// up for five seconds at most; what it was not told it finds out when the session's lease has passed.
    pub async fn shut_down(&self) {
        let shared = &self.shared;
        shared.draining.cancel();
        shared.work.notify_one();
        let deadline = deadline(shared.options.drain);
        while shared.held.count() > 0 && tokio::time::Instant::now() < deadline {
            let look_again = deadline.min(tokio::time::Instant::now() + Duration::from_millis(20));
            tokio::time::sleep_until(look_again).await;
        }
        shared.held.stop_all(recache_worker::Stop::Shutdown);
        let deadline = self::deadline(shared.options.grace.saturating_add(Duration::from_secs(1)));
        while shared.held.count() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shared.ending.cancel();
        shared.tasks.close();
        if tokio::time::timeout(TASKS_END_WITHIN, shared.tasks.wait()).await.is_err() {
            tracing::warn!(left = shared.tasks.len(), "tasks not ended: the store does not answer them");
        }
        if let Some(session) = shared.lease.current() {
            let closing = shared.store.session_close(session);
            let why = match tokio::time::timeout(SESSION_CLOSES_WITHIN, closing).await {
                Ok(closed) => closed.err().map(|error| error.to_string()),
                Err(_) => Some("the store did not answer in time".to_owned()),
            };
            if let Some(error) = why {
                tracing::warn!(error, "session not closed; its jobs go back when its lease has passed");
            }
        }
        registry::changed(shared);
    }
}

/// The instant this long from now; a wait too long for the clock ends in a generation's time.
pub(crate) fn deadline(wait: Duration) -> tokio::time::Instant {
    const FAR: Duration = Duration::from_hours(30 * 365 * 24);
    let now = tokio::time::Instant::now();
    now.checked_add(wait).unwrap_or_else(|| now + FAR)
}

/// The id that waiters of a job's workflow use.
pub(crate) fn workflow_key(workflow: Option<WorkflowId>) -> Option<Uuid> {
    workflow.map(WorkflowId::uuid)
}
