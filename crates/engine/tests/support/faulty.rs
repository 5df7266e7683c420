//! A store between the engine and a real one that can be told to fail, to lose an answer, to give no hint.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, SessionId, ViewId, WorkflowId};
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use recache_store::{
    Attempts, Batches, Beat, BuildStart, BulkJobs, CacheMark, CacheRaise, CacheRecord, Chains, ClaimRequest,
    Dispatched, Error, Events, Figures, Flows, GenerationRecord, GenerationsRemoved, HandlerOffers,
    HistoryRow, JobFilter, JobPage, JobRecord, LeaseToken, Letters, Maintenance, Measured, NewJob, NewView,
    NewWorkflow, Publication, Published, Queues, Reconciled, RemoteWorkers, Result, Revoked, Schedules,
    SessionRecord, Settlement, Signal, StagedItem, StepInputs, StepRecord, Store, Submitted, Swept,
    TemplateFilter, TemplateRecord, TemplateSummary, Touch, TouchOutcome, TrackedJobs, ViewControl,
    ViewPatterns, ViewRead, ViewRecord, WorkflowRecord,
};
use tokio::sync::{broadcast, oneshot};

/// Passes everything on, except what it was told not to.
#[derive(Debug)]
pub(crate) struct Faulty {
    store: Arc<dyn Store>,
    silence: broadcast::Sender<Signal>,
    hears: bool,
    /// Beats do not reach the database.
    pub(crate) beats_fail: AtomicBool,
    /// Settlements and claims do not reach the database.
    pub(crate) dispatch_fails: AtomicBool,
    /// So much later than they are there, answers to settlements and claims arrive.
    pub(crate) dispatch_takes: Mutex<Duration>,
    /// Calls that settle or claim: those under way, and the most that there were at once.
    pub(crate) dispatches: (AtomicUsize, AtomicUsize),
    /// How many there were.
    pub(crate) dispatch_calls: AtomicUsize,
    /// The next claim that finds a job is made, and its answer is lost.
    pub(crate) lose_claim: AtomicBool,
    /// The next touch of several views is made, and its answer is lost.
    pub(crate) lose_touch: AtomicBool,
    /// The next touch waits for this.
    pub(crate) touch_gate: Mutex<Option<oneshot::Receiver<()>>>,
    /// The next listing of templates waits for this.
    pub(crate) templates_gate: Mutex<Option<oneshot::Receiver<()>>>,
    /// Epochs of caches can be neither read nor raised.
    pub(crate) epochs_fail: AtomicBool,
    /// Who asks for epochs of caches gets no answer at all.
    pub(crate) epochs_hang: AtomicBool,
    /// No call about time, sessions and their beats is ever answered.
    pub(crate) hangs: AtomicBool,
    /// Calls that hang.
    pub(crate) hung: AtomicU32,
    /// Every generation that is asked for by its number was removed just before.
    pub(crate) generations_are_gone: AtomicBool,
    /// How often items were asked for by the number of their generation.
    pub(crate) generation_reads: AtomicU32,
    /// How often pages of items were asked for.
    pub(crate) generation_pages: AtomicU32,
    /// How often templates were looked for.
    pub(crate) template_looks: AtomicU32,
    /// What was claimed and how it was settled, as far as it does not differ by chance.
    pub(crate) turns: Mutex<Vec<String>>,
    /// Every session that was opened.
    pub(crate) sessions: Mutex<Vec<SessionId>>,
}

impl Faulty {
    pub(crate) fn over(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self::new(store, true))
    }

    /// No hint ever arrives.
    pub(crate) fn deaf(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self::new(store, false))
    }

    fn new(store: Arc<dyn Store>, hears: bool) -> Self {
        Self {
            store,
            silence: broadcast::channel(1).0,
            hears,
            beats_fail: AtomicBool::new(false),
            dispatch_fails: AtomicBool::new(false),
            dispatch_takes: Mutex::default(),
            dispatches: (AtomicUsize::new(0), AtomicUsize::new(0)),
            dispatch_calls: AtomicUsize::new(0),
            lose_claim: AtomicBool::new(false),
            lose_touch: AtomicBool::new(false),
            touch_gate: Mutex::default(),
            templates_gate: Mutex::default(),
            epochs_fail: AtomicBool::new(false),
            epochs_hang: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            hung: AtomicU32::new(0),
            generations_are_gone: AtomicBool::new(false),
            generation_reads: AtomicU32::new(0),
            generation_pages: AtomicU32::new(0),
            template_looks: AtomicU32::new(0),
            turns: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    fn fail_if(switch: &AtomicBool) -> Result<()> {
        if switch.load(Ordering::SeqCst) {
            return Err(Error::Unavailable { message: "cut off by the test".to_owned(), source: None });
        }
        Ok(())
    }

    async fn epochs_reached(&self) -> Result<()> {
        if self.epochs_hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Self::fail_if(&self.epochs_fail)
    }

    async fn hang_if_told(&self) {
        if self.hangs.load(Ordering::SeqCst) {
            self.hung.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }

    fn take_gate(&self) -> Option<oneshot::Receiver<()>> {
        self.touch_gate.lock().unwrap().take()
    }
}

#[async_trait]
impl Store for Faulty {
    fn kind(&self) -> &'static str {
        self.store.kind()
    }

    async fn now(&self) -> Result<Timestamp> {
        self.hang_if_told().await;
        self.store.now().await
    }

    async fn check_writable(&self) -> Result<()> {
        self.store.check_writable().await
    }

    async fn schema_version(&self) -> Result<i64> {
        self.store.schema_version().await
    }

    fn maintenance(&self) -> &dyn Maintenance {
        self.store.maintenance()
    }

    fn queues(&self) -> &dyn Queues {
        self.store.queues()
    }

    fn events(&self) -> &dyn Events {
        self.store.events()
    }

    fn letters(&self) -> &dyn Letters {
        self.store.letters()
    }

    fn schedules(&self) -> &dyn Schedules {
        self.store.schedules()
    }

    fn view_control(&self) -> &dyn ViewControl {
        self.store.view_control()
    }

    fn view_patterns(&self) -> &dyn ViewPatterns {
        self.store.view_patterns()
    }

    fn build_workflows(&self) -> &dyn recache_store::BuildWorkflows {
        self.store.build_workflows()
    }

    fn held_items(&self) -> &dyn recache_store::HeldItems {
        self.store.held_items()
    }

    fn known_items(&self) -> &dyn recache_store::KnownItems {
        self.store.known_items()
    }

    fn chains(&self) -> &dyn Chains {
        self.store.chains()
    }

    fn figures(&self) -> &dyn Figures {
        self.store.figures()
    }

    fn api_keys(&self) -> &dyn recache_store::ApiKeys {
        self.store.api_keys()
    }

    fn event_drafts(&self) -> &dyn recache_store::EventDrafts {
        self.store.event_drafts()
    }

    fn event_stream(&self) -> &dyn recache_store::EventStream {
        self.store.event_stream()
    }

    fn audits(&self) -> &dyn recache_store::Audits {
        self.store.audits()
    }

    fn request_keys(&self) -> &dyn recache_store::RequestKeys {
        self.store.request_keys()
    }

    fn job_changes(&self) -> &dyn recache_store::JobChanges {
        self.store.job_changes()
    }

    fn batches(&self) -> &dyn Batches {
        self.store.batches()
    }

    fn tracked_jobs(&self) -> &dyn TrackedJobs {
        self.store.tracked_jobs()
    }

    fn attempts(&self) -> &dyn Attempts {
        self.store.attempts()
    }

    fn remote_workers(&self) -> &dyn RemoteWorkers {
        self.store.remote_workers()
    }

    fn handler_offers(&self) -> &dyn HandlerOffers {
        self.store.handler_offers()
    }

    fn bulk_jobs(&self) -> &dyn BulkJobs {
        self.store.bulk_jobs()
    }

    fn flows(&self) -> &dyn Flows {
        self.store.flows()
    }

    fn measured(&self) -> Measured {
        self.store.measured()
    }

    fn subscribe(&self) -> broadcast::Receiver<Signal> {
        if self.hears { self.store.subscribe() } else { self.silence.subscribe() }
    }

    async fn announce(&self, signals: Vec<Signal>) {
        self.store.announce(signals).await;
    }

    async fn close(&self) {
        self.store.close().await;
    }

    async fn session_open(&self, session: SessionId, node: &str, lease: Duration) -> Result<()> {
        self.sessions.lock().unwrap().push(session);
        self.store.session_open(session, node, lease).await
    }

    async fn session_beat(&self, session: SessionId, lease: Duration, held: Vec<LeaseToken>) -> Result<Beat> {
        self.hang_if_told().await;
        Self::fail_if(&self.beats_fail)?;
        self.store.session_beat(session, lease, held).await
    }

    async fn session_get(&self, session: SessionId) -> Result<Option<SessionRecord>> {
        self.store.session_get(session).await
    }

    async fn session_close(&self, session: SessionId) -> Result<()> {
        self.hang_if_told().await;
        self.store.session_close(session).await
    }

    async fn session_reclaim(&self, session: SessionId, known: Vec<JobId>) -> Result<usize> {
        self.store.session_reclaim(session, known).await
    }

    async fn sessions_sweep(&self, rows_max: u32) -> Result<Swept> {
        self.store.sessions_sweep(rows_max).await
    }

    async fn jobs_submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        self.store.jobs_submit(jobs).await
    }

    async fn jobs_dispatch(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<ClaimRequest>,
    ) -> Result<Dispatched> {
        Self::fail_if(&self.dispatch_fails)?;
        self.dispatch_calls.fetch_add(1, Ordering::SeqCst);
        let (now, most) = &self.dispatches;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let claims = claim.is_some();
        let outcomes: Vec<_> = settlements.iter().map(|one| format!("{:?}", one.outcome)).collect();
        let answer = self.store.jobs_dispatch(settlements, claim).await;
        let takes = *self.dispatch_takes.lock().unwrap();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        now.fetch_sub(1, Ordering::SeqCst);
        let answer = answer?;
        let claimed = answer.claimed.iter().map(|job| {
            format!(
                "{:?} {} {} {} {} {:?} {:?}",
                job.step, job.namespace, job.queue, job.handler, job.input, job.retry, job.timeout
            )
        });
        self.turns.lock().unwrap().extend(outcomes.into_iter().chain(claimed));
        if claims && !answer.claimed.is_empty() && self.lose_claim.swap(false, Ordering::SeqCst) {
            return Err(Error::Unknown { message: "the answer was lost".to_owned(), source: None });
        }
        Ok(answer)
    }

    async fn job_cancel(&self, job: JobId, reason: &str) -> Result<(JobState, bool)> {
        self.store.job_cancel(job, reason).await
    }

    async fn job_retry(&self, job: JobId) -> Result<()> {
        self.store.job_retry(job).await
    }

    async fn job_progress(
        &self,
        token: LeaseToken,
        progress: f64,
        message: Option<String>,
    ) -> Result<Option<Revoked>> {
        self.store.job_progress(token, progress, message).await
    }

    async fn job_revoked(&self, token: LeaseToken) -> Result<Option<Revoked>> {
        self.store.job_revoked(token).await
    }

    async fn job_get(&self, job: JobId) -> Result<JobRecord> {
        self.store.job_get(job).await
    }

    async fn job_history(&self, job: JobId) -> Result<Vec<HistoryRow>> {
        self.store.job_history(job).await
    }

    async fn jobs_list(&self, filter: JobFilter) -> Result<JobPage> {
        self.store.jobs_list(filter).await
    }

    async fn template_put(&self, template: TemplateRecord, raise: Option<CacheRaise>) -> Result<()> {
        self.store.template_put(template, raise).await
    }

    async fn template_get(&self, digest: &str) -> Result<TemplateRecord> {
        self.template_looks.fetch_add(1, Ordering::SeqCst);
        self.store.template_get(digest).await
    }

    async fn template_find(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<TemplateRecord> {
        self.template_looks.fetch_add(1, Ordering::SeqCst);
        self.store.template_find(namespace, name, version).await
    }

    async fn templates_list(&self, filter: TemplateFilter) -> Result<Vec<TemplateSummary>> {
        let gate = self.templates_gate.lock().unwrap().take();
        if let Some(gate) = gate {
            let _ = gate.await;
        }
        self.store.templates_list(filter).await
    }

    async fn workflow_submit(&self, workflow: NewWorkflow) -> Result<bool> {
        self.store.workflow_submit(workflow).await
    }

    async fn workflow_get(&self, workflow: WorkflowId) -> Result<WorkflowRecord> {
        self.store.workflow_get(workflow).await
    }

    async fn workflow_steps(&self, workflow: WorkflowId) -> Result<Vec<StepRecord>> {
        self.store.workflow_steps(workflow).await
    }

    async fn workflow_cancel(&self, workflow: WorkflowId, reason: &str) -> Result<Vec<JobId>> {
        self.store.workflow_cancel(workflow, reason).await
    }

    async fn step_inputs(&self, job: JobId) -> Result<StepInputs> {
        self.store.step_inputs(job).await
    }

    async fn view_define(&self, view: NewView) -> Result<ViewRecord> {
        self.store.view_define(view).await
    }

    async fn view_get(&self, namespace: &str, key: &str) -> Result<ViewRecord> {
        self.store.view_get(namespace, key).await
    }

    async fn view_look(&self, namespace: &str, key: &str) -> Result<(ViewRecord, Timestamp)> {
        self.store.view_look(namespace, key).await
    }

    async fn views_list(
        &self,
        namespace: Option<&str>,
        after: Option<(String, String)>,
        rows_max: u32,
    ) -> Result<Vec<ViewRecord>> {
        self.store.views_list(namespace, after, rows_max).await
    }

    async fn views_touch(&self, touches: Vec<Touch>) -> Result<Vec<TouchOutcome>> {
        if let Some(gate) = self.take_gate() {
            let _ = gate.await;
        }
        let touched = self.store.views_touch(touches).await?;
        if touched.len() > 1 && self.lose_touch.swap(false, Ordering::SeqCst) {
            return Err(Error::Unknown { message: "the answer was lost".to_owned(), source: None });
        }
        Ok(touched)
    }

    async fn views_reconcile(&self, rows_max: u32) -> Result<Reconciled> {
        self.store.views_reconcile(rows_max).await
    }

    async fn build_begin(&self, token: LeaseToken) -> Result<std::result::Result<BuildStart, Revoked>> {
        self.store.build_begin(token).await
    }

    async fn build_put(&self, token: LeaseToken, items: Vec<StagedItem>) -> Result<Option<Revoked>> {
        self.store.build_put(token, items).await
    }

    async fn build_publish(&self, token: LeaseToken, publication: Publication) -> Result<Published> {
        self.store.build_publish(token, publication).await
    }

    async fn view_read(&self, namespace: &str, key: &str, items: Option<Vec<String>>) -> Result<ViewRead> {
        self.store.view_read(namespace, key, items).await
    }

    async fn generation_read(
        &self,
        view: ViewId,
        version: i64,
        items: Vec<String>,
    ) -> Result<Option<Vec<(String, String)>>> {
        self.generation_reads.fetch_add(1, Ordering::SeqCst);
        if self.generations_are_gone.load(Ordering::SeqCst) {
            // What a reader finds who slept longer than a replaced generation is kept.
            return Ok(None);
        }
        self.store.generation_read(view, version, items).await
    }

    async fn generation_page(
        &self,
        view: ViewId,
        version: i64,
        after: Option<String>,
        rows_max: u32,
    ) -> Result<Option<Vec<(String, String)>>> {
        self.generation_pages.fetch_add(1, Ordering::SeqCst);
        self.store.generation_page(view, version, after, rows_max).await
    }

    async fn generation_get(&self, view: ViewId, version: i64) -> Result<Option<GenerationRecord>> {
        self.store.generation_get(view, version).await
    }

    async fn generations_list(&self, view: ViewId, rows_max: u32) -> Result<Vec<GenerationRecord>> {
        self.store.generations_list(view, rows_max).await
    }

    async fn generations_remove(&self, keep: Duration) -> Result<GenerationsRemoved> {
        self.store.generations_remove(keep).await
    }

    async fn cache_epochs_read(&self, prefix: &str, known: CacheMark) -> Result<Option<CacheRecord>> {
        self.epochs_reached().await?;
        self.store.cache_epochs_read(prefix, known).await
    }

    async fn cache_epochs_raise(&self, raise: CacheRaise, known: CacheMark) -> Result<CacheRecord> {
        self.epochs_reached().await?;
        self.store.cache_epochs_raise(raise, known).await
    }
}
