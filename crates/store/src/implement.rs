//! The contract, carried out. Compiled once inside each engine, like `statements`; `super` is the engine.

use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, SessionId, ViewId, WorkflowId};
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use tokio::sync::broadcast;

use super::statements::{
    cache_epochs, items, jobs, lists, maintenance, sessions, templates, views, workflows,
};
use super::{Driver, KIND};
use crate::api_keys::ApiKeys;
use crate::attempts::Attempts;
use crate::audit::Audits;
use crate::batches::Batches;
use crate::build_workflows::BuildWorkflows;
use crate::bulk_jobs::BulkJobs;
use crate::chains::Chains;
use crate::contract::Store;
use crate::error::Result;
use crate::event_drafts::EventDrafts;
use crate::event_stream::EventStream;
use crate::events::Events;
use crate::fail::fail_point;
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

#[allow(unused_braces, reason = "a body of one call reads better in braces when it has a line of its own")]
#[async_trait]
impl Store for Driver {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn now(&self) -> Result<Timestamp> {
        self.database_time().await
    }

    async fn check_writable(&self) -> Result<()> {
        let id = SessionId::make();
        self.write(work!(
            [] db, now, effects => {
                sessions::open(db, now, id, "writability check", Duration::ZERO).await?;
                sessions::close(db, now, id, effects).await
            }
        ))
        .await
    }

    async fn schema_version(&self) -> Result<i64> {
        self.read(look!([] db, now => maintenance::schema_version(db).await)).await
    }

    fn maintenance(&self) -> &dyn Maintenance {
        self
    }

    fn queues(&self) -> &dyn Queues {
        self
    }

    fn events(&self) -> &dyn Events {
        self
    }

    fn event_drafts(&self) -> &dyn EventDrafts {
        self
    }

    fn event_stream(&self) -> &dyn EventStream {
        self
    }

    fn letters(&self) -> &dyn Letters {
        self
    }

    fn schedules(&self) -> &dyn Schedules {
        self
    }

    fn figures(&self) -> &dyn Figures {
        self
    }

    fn attempts(&self) -> &dyn Attempts {
        self
    }

    fn bulk_jobs(&self) -> &dyn BulkJobs {
        self
    }

    fn tracked_jobs(&self) -> &dyn TrackedJobs {
        self
    }

    fn chains(&self) -> &dyn Chains {
        self
    }

    fn remote_workers(&self) -> &dyn RemoteWorkers {
        self
    }

    fn handler_offers(&self) -> &dyn HandlerOffers {
        self
    }

    fn view_control(&self) -> &dyn ViewControl {
        self
    }

    fn view_patterns(&self) -> &dyn ViewPatterns {
        self
    }

    fn build_workflows(&self) -> &dyn BuildWorkflows {
        self
    }

    fn held_items(&self) -> &dyn HeldItems {
        self
    }

    fn known_items(&self) -> &dyn KnownItems {
        self
    }

    fn api_keys(&self) -> &dyn ApiKeys {
        self
    }

    fn audits(&self) -> &dyn Audits {
        self
    }

    fn request_keys(&self) -> &dyn RequestKeys {
        self
    }

    fn job_changes(&self) -> &dyn JobChanges {
        self
    }

    fn batches(&self) -> &dyn Batches {
        self
    }

    fn flows(&self) -> &dyn Flows {
        self
    }

    fn measured(&self) -> Measured {
        self.measure()
    }

    fn subscribe(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }

    async fn announce(&self, signals: Vec<Signal>) {
        self.tell(signals);
    }

    async fn close(&self) {
        self.shut_down().await;
    }

    async fn session_open(&self, session: SessionId, node: &str, lease: Duration) -> Result<()> {
        let node = node.to_owned();
        self.write(work!([node] db, now, effects => sessions::open(db, now, session, &node, lease).await))
            .await?;
        fail_point!("session.before_reply");
        Ok(())
    }

    async fn session_beat(&self, session: SessionId, lease: Duration, held: Vec<LeaseToken>) -> Result<Beat> {
        self.write(work!([held] db, now, effects => {
            let beat = sessions::beat(db, now, session, lease, &held).await?;
            fail_point!("beat.before_commit");
            Ok(beat)
        }))
        .await
    }

    async fn session_get(&self, session: SessionId) -> Result<Option<SessionRecord>> {
        self.read(look!([] db, now => sessions::get(db, session).await)).await
    }

    async fn session_close(&self, session: SessionId) -> Result<()> {
        self.write(work!([] db, now, effects => {
            sessions::close(db, now, session, effects).await?;
            fail_point!("drain.release");
            Ok(())
        }))
        .await
    }

    async fn session_reclaim(&self, session: SessionId, known: Vec<JobId>) -> Result<usize> {
        self.write(
            work!([known] db, now, effects => sessions::reclaim(db, now, session, &known, effects).await),
        )
        .await
    }

    async fn sessions_sweep(&self, rows_max: u32) -> Result<Swept> {
        self.write(work!([] db, now, effects => {
            let swept = sessions::sweep(db, now, rows_max, effects).await?;
            if swept.requeued + swept.failed > 0 {
                fail_point!("reap.before_commit");
            }
            Ok(swept)
        }))
        .await
    }

    async fn jobs_submit(&self, new: Vec<NewJob>) -> Result<Vec<Submitted>> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        fail_point!("submit.before_insert");
        let keys: Vec<String> = new.iter().filter_map(|job| job.idempotency_key.clone()).collect();
        let submitted = self.submit(new).await.map_err(|error| error.naming_keys(keys))?;
        fail_point!("submit.before_reply");
        Ok(submitted)
    }

    async fn jobs_dispatch(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<ClaimRequest>,
    ) -> Result<Dispatched> {
        let claim = claim.filter(|claim| claim.rows_max > 0);
        if settlements.is_empty() && claim.is_none() {
            return Ok(Dispatched::default());
        }
        let has_settlements = !settlements.is_empty();
        if has_settlements {
            fail_point!("settle.before_tx");
        }
        let answer = self.dispatch(settlements, claim).await?;
        if has_settlements {
            fail_point!("settle.before_reply");
        }
        if !answer.claimed.is_empty() {
            fail_point!("claim.before_reply");
        }
        Ok(answer)
    }

    async fn job_cancel(&self, job: JobId, reason: &str) -> Result<(JobState, bool)> {
        let reason = reason.to_owned();
        self.write(work!([reason] db, now, effects => {
            let answer = jobs::cancel(db, now, job, &reason, effects).await?;
            fail_point!("cancel.before_commit");
            Ok(answer)
        }))
        .await
    }

    async fn job_retry(&self, job: JobId) -> Result<()> {
        self.write(work!([] db, now, effects => jobs::retry(db, now, job, effects).await)).await
    }

    async fn job_progress(
        &self,
        token: LeaseToken,
        progress: f64,
        message: Option<String>,
    ) -> Result<Option<Revoked>> {
        self.write(work!(
            [message] db, now, effects => { jobs::progress(db, token, progress, (*message).as_deref()).await }
        ))
        .await
    }

    async fn job_revoked(&self, token: LeaseToken) -> Result<Option<Revoked>> {
        self.read(look!([] db, now => { Ok(jobs::revoked(db, &[token]).await?.pop().map(|(_, why)| why)) }))
            .await
    }

    async fn job_get(&self, job: JobId) -> Result<JobRecord> {
        self.read(look!([] db, now => lists::get(db, job).await)).await
    }

    async fn job_history(&self, job: JobId) -> Result<Vec<HistoryRow>> {
        self.read(look!([] db, now => lists::history(db, job).await)).await
    }

    async fn jobs_list(&self, filter: JobFilter) -> Result<JobPage> {
        self.read(look!([filter] db, now => lists::list(db, &filter).await)).await
    }

    async fn template_put(&self, template: TemplateRecord, raise: Option<CacheRaise>) -> Result<()> {
        self.write(work!(
            [template, raise] db, now, effects => {
                workflows::template_put(db, now, &template, (*raise).as_ref(), effects).await
            }
        ))
        .await
    }

    async fn template_get(&self, digest: &str) -> Result<TemplateRecord> {
        let digest = digest.to_owned();
        self.read(look!([digest] db, now => workflows::template_get(db, &digest).await)).await
    }

    async fn template_find(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<TemplateRecord> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let version = version.map(str::to_owned);
        self.read(look!([namespace, name, version] db, now => {
            templates::find(db, &namespace, &name, version.as_deref()).await
        }))
        .await
    }

    async fn templates_list(&self, filter: TemplateFilter) -> Result<Vec<TemplateSummary>> {
        self.read(look!([filter] db, now => templates::list(db, &filter).await)).await
    }

    async fn workflow_submit(&self, workflow: NewWorkflow) -> Result<bool> {
        let submitted = self
            .write(work!(
                [workflow] db, now, effects => {
                    let is_new = workflows::submit(db, now, &workflow, effects).await?;
                    fail_point!("workflow.before_commit");
                    Ok(is_new)
                }
            ))
            .await;
        let is_new = submitted?;
        fail_point!("workflow.before_reply");
        Ok(is_new)
    }

    async fn workflow_get(&self, workflow: WorkflowId) -> Result<WorkflowRecord> {
        self.read(look!([] db, now => workflows::get(db, workflow).await)).await
    }

    async fn workflow_steps(&self, workflow: WorkflowId) -> Result<Vec<StepRecord>> {
        self.read(look!([] db, now => workflows::steps(db, workflow).await)).await
    }

    async fn workflow_cancel(&self, workflow: WorkflowId, reason: &str) -> Result<Vec<JobId>> {
        let reason = reason.to_owned();
        self.write(work!([reason] db, now, effects => {
            let stopped = workflows::cancel(db, now, workflow, &reason, effects).await?;
            fail_point!("cancel.workflow");
            Ok(stopped)
        }))
        .await
    }

    async fn step_inputs(&self, job: JobId) -> Result<StepInputs> {
        self.read(look!([] db, now => workflows::step_inputs(db, job).await)).await
    }

    async fn view_define(&self, view: NewView) -> Result<ViewRecord> {
        self.write(work!([view] db, now, effects => views::define(db, now, &view).await)).await
    }

    async fn view_get(&self, namespace: &str, key: &str) -> Result<ViewRecord> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.read(look!([namespace, key] db, now => views::get(db, &namespace, &key).await)).await
    }

    async fn view_look(&self, namespace: &str, key: &str) -> Result<(ViewRecord, Timestamp)> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.read(look!([namespace, key] db, now => Ok((views::get(db, &namespace, &key).await?, now)))).await
    }

    async fn views_list(
        &self,
        namespace: Option<&str>,
        after: Option<(String, String)>,
        rows_max: u32,
    ) -> Result<Vec<ViewRecord>> {
        let namespace = namespace.map(str::to_owned);
        self.read(look!(
            [namespace, after] db, now => { views::list(db, namespace.as_deref(), after.as_ref(), rows_max).await }
        ))
        .await
    }

    async fn views_touch(&self, touches: Vec<Touch>) -> Result<Vec<TouchOutcome>> {
        self.write(work!([touches] db, now, effects => {
            let touched = views::touch(db, now, &touches, effects).await?;
            fail_point!("touch.before_commit");
            Ok(touched)
        }))
        .await
    }

    async fn views_reconcile(&self, rows_max: u32) -> Result<Reconciled> {
        self.write(work!([] db, now, effects => {
            let reconciled = views::reconcile(db, now, rows_max, effects).await?;
            if !reconciled.builds.is_empty() {
                fail_point!("reconcile.before_commit");
            }
            Ok(reconciled)
        }))
        .await
    }

    async fn build_begin(&self, token: LeaseToken) -> Result<std::result::Result<BuildStart, Revoked>> {
        self.write(work!([] db, now, effects => items::begin(db, now, token, None).await)).await
    }

    async fn build_put(&self, token: LeaseToken, staged: Vec<StagedItem>) -> Result<Option<Revoked>> {
        self.write(work!([staged] db, now, effects => items::put(db, token, &staged).await)).await
    }

    async fn build_publish(&self, token: LeaseToken, publication: Publication) -> Result<Published> {
        let published = self
            .write(work!(
                [publication] db, now, effects => {
                    let published = items::publish(db, now, token, &publication, effects).await?;
                    fail_point!("publish.before_commit");
                    Ok(published)
                }
            ))
            .await;
        let published = published?;
        fail_point!("publish.before_reply");
        Ok(published)
    }

    async fn view_read(&self, namespace: &str, key: &str, wanted: Option<Vec<String>>) -> Result<ViewRead> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.read(look!(
            [namespace, key, wanted] db, now => { items::read_live(db, now, &namespace, &key, wanted.as_deref()).await }
        ))
        .await
    }

    async fn generation_read(
        &self,
        view: ViewId,
        version: i64,
        wanted: Vec<String>,
    ) -> Result<Option<Vec<(String, String)>>> {
        self.read(look!([wanted] db, now => items::read_generation(db, view, version, &wanted).await)).await
    }

    async fn generation_page(
        &self,
        view: ViewId,
        version: i64,
        after: Option<String>,
        rows_max: u32,
    ) -> Result<Option<Vec<(String, String)>>> {
        self.read(look!([after] db, now => {
            items::page_generation(db, view, version, after.as_deref(), rows_max).await
        }))
        .await
    }

    async fn generation_get(&self, view: ViewId, version: i64) -> Result<Option<GenerationRecord>> {
        self.read(look!([] db, now => views::generation(db, view, version).await)).await
    }

    async fn generations_list(&self, view: ViewId, rows_max: u32) -> Result<Vec<GenerationRecord>> {
        self.read(look!([] db, now => views::generations(db, view, rows_max).await)).await
    }

    async fn generations_remove(&self, keep: Duration) -> Result<GenerationsRemoved> {
        self.write(work!([] db, now, effects => items::remove_old(db, now, keep).await)).await
    }

    async fn cache_epochs_read(&self, prefix: &str, known: CacheMark) -> Result<Option<CacheRecord>> {
        let prefix = prefix.to_owned();
        let seen = {
            let prefix = prefix.clone();
            self.read(look!([prefix] db, now => cache_epochs::read(db, &prefix, known).await)).await?
        };
        match seen {
            cache_epochs::Seen::Unchanged => Ok(None),
            cache_epochs::Seen::Changed(record) => Ok(Some(record)),
            cache_epochs::Seen::Lost => {
                let begun = self.write(work!(
                    [prefix] db, now, effects => cache_epochs::begin(db, &prefix, known, effects).await
                ));
                begun.await.map(Some)
            }
        }
    }

    async fn cache_epochs_raise(&self, raise: CacheRaise, known: CacheMark) -> Result<CacheRecord> {
        self.write(work!([raise] db, now, effects => cache_epochs::raise(db, &raise, known, effects).await))
            .await
    }
}
