//! What the engine decided about a step, carried out in the transaction of the settlement; and what it needs to know for that.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::expansion::{Fate, Known, choice_of, fates};
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{JobEvent, JobState};
use recache_model::limits::{Rate, Starts};
use recache_model::time::Timestamp;
use recache_model::workflow::StepCounts;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver};
use super::effects::Effects;
use super::jobs::{self, Change, Locked};
use super::steps::{self, StepRow};
use super::workflows::{self, Above, OfBuild};
use super::{build_workflows, given, lifecycles, signals};
use crate::error::{Error, Result};
use crate::flow::{
    ChildEnd, Ending, FLOW, Flows, HandOver, LimitsRecord, Region, SignalRecord, StepSituation, Waiting,
    WorkflowFilter,
};
use crate::queues::Word;
use crate::records::WorkflowRecord;

/// A step that waits without an end is looked at again after this long, whether or not anybody woke it.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

#[async_trait]
impl Flows for Driver {
    async fn step_situation(&self, job: JobId) -> Result<StepSituation> {
        self.read(look!([] db, now => situation(db, now, job).await)).await
    }

    async fn children_read(&self, job: JobId, bytes_max: u64) -> Result<Option<Vec<ChildEnd>>> {
        self.read(look!([] db, now => children(db, job, bytes_max).await)).await
    }

    async fn workflow_results(
        &self,
        workflow: WorkflowId,
        bytes_max: u64,
    ) -> Result<Option<Vec<(String, String)>>> {
        self.read(look!([] db, now => results(db, workflow, bytes_max).await)).await
    }

    async fn signal_send(&self, workflow: WorkflowId, signal: SignalRecord) -> Result<bool> {
        self.write(
            work!([signal] db, now, effects => signals::send(db, now, workflow, &signal, effects).await),
        )
        .await
    }

    async fn signals_list(&self, workflow: WorkflowId) -> Result<Vec<SignalRecord>> {
        self.read(look!([] db, now => signals::list(db, workflow).await)).await
    }

    async fn workflows_list(&self, filter: WorkflowFilter) -> Result<Vec<WorkflowRecord>> {
        self.read(look!([filter] db, now => workflows::list(db, &filter).await)).await
    }

    async fn workflow_retry_failed(&self, workflow: WorkflowId, word: Word) -> Result<u64> {
        self.write(work!([word] db, now, effects => retry_failed(db, now, workflow, &word, effects).await))
            .await
    }

    async fn step_end(
        &self,
        job: JobId,
        ending: Ending,
        region: Option<Region>,
        word: Word,
    ) -> Result<JobState> {
        self.write(work!(
            [ending, region, word] db, now, effects => {
                end(db, now, job, &ending, (*region).as_ref(), &word, effects).await
            }
        ))
        .await
    }

    async fn limits_list(
        &self,
        workflow: WorkflowId,
        found_only: bool,
        rows_max: u32,
    ) -> Result<Vec<LimitsRecord>> {
        self.read(look!([] db, now => lifecycles::list(db, workflow, found_only, rows_max).await)).await
    }

    async fn step_find(&self, workflow: WorkflowId, step: &str) -> Result<JobId> {
        let step = step.to_owned();
        self.read(look!([step] db, now => find(db, workflow, &step).await)).await
    }
}

async fn find(db: &mut Connection, workflow: WorkflowId, step: &str) -> Result<JobId> {
    let row = sqlx::query("SELECT id FROM jobs WHERE workflow_id = $1 AND step = $2")
        .bind(workflow.uuid())
        .bind(step)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::not_found("step", format!("{step} of {workflow}")))?;
    Ok(JobId::from_uuid(row.try_get("id")?))
}

async fn situation(db: &mut Connection, now: Timestamp, job: JobId) -> Result<StepSituation> {
    let inputs = workflows::step_inputs(db, job).await?;
    let row = sqlx::query(
        "SELECT j.workflow_id, j.wait_until, j.sub_workflow_id, w.depth, s.state AS sub_state, \
         (SELECT CAST(count(*) AS BIGINT) FROM jobs c WHERE c.parent_id = j.id) AS children, \
         (SELECT g.output FROM given_results g WHERE g.workflow_id = j.workflow_id AND g.step = j.step) AS given \
         FROM jobs j JOIN workflows w ON w.id = j.workflow_id LEFT JOIN workflows s ON s.id = j.sub_workflow_id \
         WHERE j.id = $1",
    )
    .bind(job.uuid())
    .fetch_optional(&mut *db)
    .await?
    .ok_or_else(|| Error::not_found("step", job))?;
    let dependencies = sqlx::query(
        "SELECT p.step, p.state FROM job_edges e JOIN jobs p ON p.id = e.parent_id WHERE e.child_id = $1 ORDER BY p.step",
    )
    .bind(job.uuid())
    .fetch_all(&mut *db)
    .await?;
    let dependencies = dependencies
        .iter()
        .map(|row| Ok((row.try_get("step")?, jobs::state(row, "state")?)))
        .collect::<Result<Vec<_>>>()?;
    let sub_workflow = match (row.try_get("sub_workflow_id")?, row.try_get::<Option<String>, _>("sub_state")?)
    {
        (Some(id), Some(state)) => {
            let state = state.parse().map_err(|error| Error::broken(format!("sub_state: {error}")))?;
            Some((WorkflowId::from_uuid(id), state))
        }
        _ => None,
    };
    let children: i64 = row.try_get("children")?;
    let workflow = WorkflowId::from_uuid(row.try_get("workflow_id")?);
    Ok(StepSituation {
        inputs,
        dependencies,
        children: u64::try_from(children).ok().filter(|children| *children > 0),
        wait_until: jobs::instant(&row, "wait_until")?,
        now,
        sub_workflow,
        given: row.try_get("given")?,
        depth: jobs::count(&row, "depth")?,
        signals: signals::list(db, workflow).await?,
    })
}

async fn children(db: &mut Connection, job: JobId, bytes_max: u64) -> Result<Option<Vec<ChildEnd>>> {
    // Measured before it is read: ten thousand large results must not meet in one process.
    let total = sqlx::query(
        "SELECT CAST(COALESCE(SUM(COALESCE(OCTET_LENGTH(output), (SELECT OCTET_LENGTH(r.output) FROM job_results r \
         WHERE r.job_id = jobs.id), 0)), 0) AS BIGINT) AS bytes FROM jobs WHERE parent_id = $1",
    )
    .bind(job.uuid())
    .fetch_one(&mut *db)
    .await?;
    if u64::try_from(total.try_get::<i64, _>("bytes")?).unwrap_or(u64::MAX) > bytes_max {
        return Ok(None);
    }
    let rows = sqlx::query(
        "SELECT state, error, COALESCE(output, (SELECT r.output FROM job_results r WHERE r.job_id = jobs.id)) AS output \
         FROM jobs WHERE parent_id = $1 ORDER BY item_index",
    )
    .bind(job.uuid())
    .fetch_all(db)
    .await?;
    let ends = rows.iter().map(|row| {
        let error: Option<String> = row.try_get("error")?;
        Ok(ChildEnd {
            state: jobs::state(row, "state")?,
            output: row.try_get("output")?,
            error: error.map(|text| jobs::json("error", &text)).transpose()?,
        })
    });
    ends.collect::<Result<Vec<_>>>().map(Some)
}

/// The last steps of a workflow that have a result, each with it.
macro_rules! last_results {
    () => {
        "(SELECT step, COALESCE(output, (SELECT r.output FROM job_results r WHERE r.job_id = jobs.id)) AS output FROM jobs \
         WHERE workflow_id = $1 AND parent_id IS NULL \
         AND NOT EXISTS (SELECT 1 FROM job_edges e WHERE e.parent_id = jobs.id)) AS ends WHERE output IS NOT NULL"
    };
}

async fn results(
    db: &mut Connection,
    workflow: WorkflowId,
    bytes_max: u64,
) -> Result<Option<Vec<(String, String)>>> {
    // Measured before it is read, as with children.
    let total = sqlx::query(concat!(
        "SELECT CAST(COALESCE(SUM(OCTET_LENGTH(step) + OCTET_LENGTH(output)), 0) AS BIGINT) AS bytes FROM ",
        last_results!()
    ))
    .bind(workflow.uuid())
    .fetch_one(&mut *db)
    .await?;
    if u64::try_from(total.try_get::<i64, _>("bytes")?).unwrap_or(u64::MAX) > bytes_max {
        return Ok(None);
    }
    let rows = sqlx::query(concat!("SELECT step, output FROM ", last_results!(), " ORDER BY step"))
        .bind(workflow.uuid())
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok((row.try_get("step")?, row.try_get("output")?))).collect::<Result<_>>().map(Some)
}

/// The steps behind a decision that ends in this transaction: created or skipped, as far as no other decision is open. The
/// workflow's row is locked, so that of two decisions before one step the later sees the earlier.
pub(super) async fn open(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    region: &Region,
    effects: &mut Effects,
) -> Result<()> {
    let rows = sqlx::query(
        "SELECT id, step, state, CASE WHEN step_kind = 'decision' THEN COALESCE(output, (SELECT r.output \
         FROM job_results r WHERE r.job_id = jobs.id)) END AS choice FROM jobs WHERE workflow_id = $1 AND parent_id IS NULL",
    )
    .bind(workflow.uuid())
    .fetch_all(&mut *db)
    .await?;
    let mut known = Known::default();
    let mut ids = std::collections::HashMap::with_capacity(rows.len());
    let decisions: BTreeSet<&String> = region.steps.iter().flat_map(|step| &step.outline.decisions).collect();
    for row in rows {
        let (name, state): (String, JobState) = (row.try_get("step")?, jobs::state(&row, "state")?);
        if decisions.contains(&name) && matches!(state, JobState::Completed | JobState::Resolved) {
            let choice: Option<String> = row.try_get("choice")?;
            known.choices.insert(name.clone(), choice.map(|text| choice_of(&text)).unwrap_or_default());
        }
        ids.insert(name.clone(), row.try_get::<Uuid, _>("id")?);
        known.states.insert(name, state);
    }
    let outlines: Vec<_> = region.steps.iter().map(|step| step.outline.clone()).collect();
    let fates = fates(&outlines, &known, &region.decision, region.choice.as_ref());
    for (step, fate) in region.steps.iter().zip(&fates) {
        if *fate != Fate::Open {
            ids.insert(step.outline.name.clone(), step.job.id.uuid());
        }
    }
    let (mut new, mut edges, mut delta) = (Vec::new(), Vec::new(), StepCounts::default());
    for (step, fate) in region.steps.iter().zip(&fates) {
        let (waiting_on, skips, skipped) = match fate {
            Fate::Open => continue,
            Fate::Created { waiting_on, skips } => (*waiting_on, *skips, None),
            Fate::Skipped { reason } => (0, 0, Some(reason.as_str())),
        };
        for name in &step.outline.dependencies {
            let Some(parent) = ids.get(name) else {
                return Err(Error::broken(format!("`{name}`, before `{}`, is not there", step.outline.name)));
            };
            edges.push((*parent, step.job.id.uuid()));
        }
        let row = StepRow {
            waiting_on,
            skips: i64::try_from(skips).unwrap_or(i64::MAX),
            skipped,
            kind: step.outline.kind,
            has_rules: step.has_rules,
            ..StepRow::new(&step.job, &step.outline.name)
        };
        delta.add(row.state(), 1);
        new.push(row);
    }
    steps::insert(db, now, workflow, &new, effects).await?;
    steps::edges_insert(db, &edges).await?;
    given::make_turns(db, workflow, effects).await?;
    workflows::count(db, now, workflow, delta, effects).await
}

/// The step waits for its handler now, or still for its turn where its rate says so.
pub(super) async fn hand_over(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    to: &HandOver,
    effects: &mut Effects,
) -> Result<()> {
    let back = Change { uncount_attempt: true, ..Change::default() };
    if let Some((key, rate)) = &to.rate {
        let pause = take_start(db, now, &job.namespace, key, *rate).await?;
        if !pause.is_zero() {
            let change = Change { due_at: Some(now.plus(pause)), ..back };
            jobs::advance(db, now, job, JobEvent::Release, change, effects).await?;
            return Ok(());
        }
    }
    if let Some((key, running_max)) = &to.concurrency {
        sqlx::query(
            "INSERT INTO limits (scope, namespace, name, running_max, actor, changed_at) \
             VALUES ('key', $1, $2, $3, 'template', $4) ON CONFLICT (scope, namespace, name) DO UPDATE SET \
             running_max = excluded.running_max, changed_at = excluded.changed_at \
             WHERE limits.actor = 'template' AND limits.running_max <> excluded.running_max",
        )
        .bind(&job.namespace)
        .bind(key)
        .bind(i64::from(*running_max))
        .bind(now.micros())
        .execute(&mut *db)
        .await?;
    }
    sqlx::query("UPDATE jobs SET queue = $2, handler = $3, concurrency_key = $4 WHERE id = $1")
        .bind(job.id.uuid())
        .bind(&to.queue)
        .bind(&to.handler)
        .bind(to.concurrency.as_ref().map(|(key, _)| key))
        .execute(&mut *db)
        .await?;
    jobs::advance(db, now, job, JobEvent::Release, back, effects).await?;
    effects.queued(&to.queue);
    Ok(())
}

/// Counts a start of a rate's key, or says how long to wait for one.
async fn take_start(
    db: &mut Connection,
    now: Timestamp,
    namespace: &str,
    key: &str,
    rate: Rate,
) -> Result<Duration> {
    sqlx::query(
        "INSERT INTO step_rates (namespace, key, starts, changed_at) VALUES ($1, $2, '[]', $3) ON CONFLICT DO NOTHING",
    )
    .bind(namespace)
    .bind(key)
    .bind(now.micros())
    .execute(&mut *db)
    .await?;
    let row = sqlx::query(concat!(
        "SELECT starts FROM step_rates WHERE namespace = $1 AND key = $2",
        for_update!()
    ))
    .bind(namespace)
    .bind(key)
    .fetch_one(&mut *db)
    .await?;
    let mut starts: Starts = jobs::json("starts", row.try_get("starts")?)?;
    let pause = starts.next_free(rate, now);
    if pause.is_zero() {
        starts.add(rate, now, 1);
        sqlx::query("UPDATE step_rates SET starts = $3, changed_at = $4 WHERE namespace = $1 AND key = $2")
            .bind(namespace)
            .bind(key)
            .bind(jobs::to_json(&starts)?)
            .bind(now.micros())
            .execute(db)
            .await?;
    }
    Ok(pause)
}

/// The step waits without a lease; what it waits for may have come already.
pub(super) async fn wait(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    waiting: &Waiting,
    effects: &mut Effects,
) -> Result<()> {
    let Some(workflow) = job.workflow else {
        return build_workflows::wait(db, now, job, waiting, effects).await;
    };
    let mut due_at = now.plus(LOOK_AGAIN);
    match waiting {
        Waiting::Signal { kind, name, timeout } => {
            if let Some(timeout) = timeout {
                let row = sqlx::query(
                    "UPDATE jobs SET wait_until = COALESCE(wait_until, $2) WHERE id = $1 RETURNING wait_until",
                )
                .bind(job.id.uuid())
                .bind(now.plus(*timeout).micros())
                .fetch_one(&mut *db)
                .await?;
                due_at = due_at.min(Timestamp::from_micros(row.try_get("wait_until")?));
            }
            if signals::is_told(db, workflow, *kind, name).await? {
                due_at = now;
            }
        }
        Waiting::NewWorkflow(new) => {
            jobs::check(new.steps.iter().map(|step| &step.job))?;
            let row = sqlx::query("SELECT depth, build_job_id, build_epoch FROM workflows WHERE id = $1")
                .bind(workflow.uuid())
                .fetch_one(&mut *db)
                .await?;
            let build: Option<Uuid> = row.try_get("build_job_id")?;
            let build = build.zip(row.try_get("build_epoch")?);
            let above = Above {
                workflow: Some(workflow),
                step: job.id,
                depth: row.try_get::<i64, _>("depth")? + 1,
                build: build.map(|(job, lease_epoch)| OfBuild { job: JobId::from_uuid(job), lease_epoch }),
            };
            workflows::template_put(db, now, &new.template, new.template_raise.as_ref(), effects).await?;
            workflows::insert(db, now, new, Some(above), effects).await?;
            workflows::put_below(db, job.id, new.id).await?;
        }
        Waiting::Workflow => {
            if !workflows::is_below_running(db, job.id).await? {
                due_at = now;
            }
        }
    }
    let change = Change { due_at: Some(due_at), uncount_attempt: true, ..Change::default() };
    jobs::advance(db, now, job, JobEvent::Release, change, effects).await?;
    Ok(())
}

async fn retry_failed(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    word: &Word,
    effects: &mut Effects,
) -> Result<u64> {
    word.check()?;
    sqlx::query(concat!("SELECT id FROM workflows WHERE id = $1", for_update!()))
        .bind(workflow.uuid())
        .fetch_optional(&mut *db)
        .await?
        .ok_or_else(|| Error::not_found("workflow", workflow))?;
    build_workflows::check_goes_on(db, workflow).await?;
    let rows = sqlx::query("SELECT id FROM jobs WHERE workflow_id = $1 AND state = 'failed' ORDER BY id")
        .bind(workflow.uuid())
        .fetch_all(&mut *db)
        .await?;
    let mut retried = 0;
    for row in rows {
        let Some(job) = jobs::lock(db, JobId::from_uuid(row.try_get("id")?)).await? else { continue };
        let change = Change { renew_attempts: true, word: Some(word.clone()), ..Change::default() };
        if jobs::advance(db, now, &job, JobEvent::OperatorRetry, change, effects).await?.is_some() {
            retried += 1;
        }
    }
    Ok(retried)
}

async fn end(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    ending: &Ending,
    region: Option<&Region>,
    word: &Word,
    effects: &mut Effects,
) -> Result<JobState> {
    word.check()?;
    jobs::lock_links(db, &[job]).await?;
    let locked = jobs::lock(db, job).await?.ok_or_else(|| Error::not_found("job", job))?;
    let Some(workflow) = locked.workflow else {
        return Err(Error::Conflict(format!("job `{job}` is no step of a workflow")));
    };
    let (event, output, what) = match ending {
        Ending::Complete { output } => {
            (JobEvent::OperatorComplete, Some(output.clone()), "a step that has not ended can be completed")
        }
        Ending::Resolve { output } => {
            (JobEvent::OperatorResolve, output.clone(), "a failed step can be resolved")
        }
    };
    if locked.state.after(event).is_none() {
        return Err(Error::Conflict(format!("step `{job}` is {}; only {what}", locked.state)));
    }
    let open = sqlx::query(
        "SELECT 1 FROM jobs WHERE parent_id = $1 AND state IN ('blocked', 'queued', 'running') LIMIT 1",
    )
    .bind(job.uuid())
    .fetch_optional(&mut *db)
    .await?;
    if open.is_some() {
        return Err(Error::Conflict(format!(
            "children of step `{job}` have not ended: end or cancel them first"
        )));
    }
    if let Some(region) = region {
        self::open(db, now, workflow, region, effects).await?;
    }
    if let Some(sub_workflow) = locked.sub_workflow {
        let reason = format!("{} ended the step that it does: {}", word.actor, word.reason);
        workflows::cancel(db, now, sub_workflow, &reason, effects).await?;
    }
    let change = Change { output, word: Some(word.clone()), ..Change::default() };
    let state = jobs::advance(db, now, &locked, event, change, effects).await?;
    state.ok_or_else(|| Error::broken("a transition that was allowed did not happen"))
}

/// A turn that failed leaves its workflow behind: the next one, if there is one, begins another.
pub(super) async fn forget_sub_workflow(db: &mut Connection, job: &Locked) -> Result<()> {
    if job.handler == FLOW && job.sub_workflow.is_some() {
        sqlx::query("UPDATE jobs SET sub_workflow_id = NULL WHERE id = $1")
            .bind(job.id.uuid())
            .execute(db)
            .await?;
    }
    Ok(())
}
