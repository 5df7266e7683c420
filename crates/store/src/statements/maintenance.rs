//! Keeping the tables small and true.

use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::JobState;
use recache_model::template::limits::RATE_PERIOD_MS_MAX;
use recache_model::time::Timestamp;
use recache_model::workflow::{StepCounts, WorkflowState};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, bulk, ids};
use super::lifecycles;
use super::workflows::counts;
use super::{audit, request_keys};
use crate::error::{Error, Result};
use crate::maintenance::{
    Compared, CountDifference, HistoryRule, HistoryTended, Leader, Leadership, LimitsJudged, Maintenance,
    SessionsSeen,
};

#[async_trait]
impl Maintenance for Driver {
    async fn leader_take(&self, role: &str, holder: Uuid, lease: Duration) -> Result<Option<Leadership>> {
        let role = role.to_owned();
        self.write(work!([role] db, now, effects => take_lead(db, now, &role, holder, lease).await)).await
    }

    async fn leader_say(&self, leadership: &Leadership, node: &str) -> Result<()> {
        let (lead, node) = (leadership.clone(), node.to_owned());
        self.write(work!([lead, node] db, now, effects => {
            sqlx::query(
                "UPDATE leaders SET said_token = token, node = $4, since = $5 WHERE role = $1 AND holder = $2 AND token = $3",
            )
            .bind(&lead.role)
            .bind(lead.holder)
            .bind(lead.token)
            .bind(&*node)
            .bind(now.micros())
            .execute(db)
            .await?;
            Ok(())
        }))
        .await
    }

    async fn leader_find(&self, role: &str) -> Result<Option<Leader>> {
        let role = role.to_owned();
        self.read(look!([role] db, now => leader(db, now, &role).await)).await
    }

    async fn sessions_seen(&self) -> Result<SessionsSeen> {
        self.read(look!([] db, now => sessions_seen(db, now).await)).await
    }

    async fn leader_release(&self, leadership: &Leadership) -> Result<()> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            sqlx::query("UPDATE leaders SET expires_at = $4 WHERE role = $1 AND holder = $2 AND token = $3")
                .bind(&lead.role)
                .bind(lead.holder)
                .bind(lead.token)
                .bind(now.micros())
                .execute(db)
                .await?;
            Ok(())
        }))
        .await
    }

    async fn idempotency_keys_expire(&self, leadership: &Leadership, rows_max: u32) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            let of_submits = idempotency_keys_expire(db, now, rows_max).await?;
            let of_requests = request_keys::expire(db, now, rows_max).await?;
            Ok(of_submits + of_requests + audit::expire(db, now, rows_max).await?)
        }))
        .await
    }

    async fn step_rates_expire(&self, leadership: &Leadership, rows_max: u32) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            step_rates_expire(db, now, rows_max).await
        }))
        .await
    }

    async fn lifecycles_judge(&self, leadership: &Leadership, rows_max: u32) -> Result<LimitsJudged> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            lifecycles::judge(db, now, rows_max, effects).await
        }))
        .await
    }

    async fn jobs_remove(
        &self,
        leadership: &Leadership,
        state: JobState,
        keep: Duration,
        rows_max: u32,
    ) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            jobs_remove(db, now, state, now.minus(keep), rows_max).await
        }))
        .await
    }

    async fn workflows_remove(
        &self,
        leadership: &Leadership,
        state: WorkflowState,
        keep: Duration,
        rows_max: u32,
    ) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            workflows_remove(db, now, state, now.minus(keep), rows_max).await
        }))
        .await
    }

    async fn letters_remove(&self, leadership: &Leadership, keep: Duration, rows_max: u32) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            letters_remove(db, now.minus(keep), rows_max).await
        }))
        .await
    }

    async fn history_tend(&self, leadership: &Leadership, rule: HistoryRule) -> Result<HistoryTended> {
        self.tend_history(leadership, rule).await
    }

    async fn statistics_refresh(&self, leadership: &Leadership) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            bulk::statistics_refresh(db).await
        }))
        .await
    }

    async fn counts_compare(&self, after: Option<WorkflowId>, rows_max: u32) -> Result<Compared> {
        self.read(look!([] db, now => counts_compare(db, after, rows_max).await)).await
    }
}

async fn take_lead(
    db: &mut Connection,
    now: Timestamp,
    role: &str,
    holder: Uuid,
    lease: Duration,
) -> Result<Option<Leadership>> {
    let row = sqlx::query(
        "INSERT INTO leaders (role, holder, token, expires_at) VALUES ($1, $2, 1, $4) ON CONFLICT (role) DO UPDATE \
         SET token = leaders.token + CASE WHEN leaders.holder = excluded.holder THEN 0 ELSE 1 END, \
         holder = excluded.holder, expires_at = excluded.expires_at \
         WHERE leaders.holder = excluded.holder OR leaders.expires_at <= $3 RETURNING token",
    )
    .bind(role)
    .bind(holder)
    .bind(now.micros())
    .bind(now.plus(lease).micros())
    .fetch_optional(db)
    .await?;
    row.map(|row| Ok(Leadership { role: role.to_owned(), holder, token: row.try_get("token")? })).transpose()
}

async fn leader(db: &mut Connection, now: Timestamp, role: &str) -> Result<Option<Leader>> {
    let row = sqlx::query(
        "SELECT said_token = token AS is_said, node, since, expires_at FROM leaders WHERE role = $1 AND expires_at > $2",
    )
    .bind(role)
    .bind(now.micros())
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let is_said = row.try_get::<Option<bool>, _>("is_said")? == Some(true);
        let since: Option<i64> = row.try_get("since")?;
        Ok(Leader {
            node: row.try_get::<Option<String>, _>("node")?.filter(|_| is_said),
            since: since.filter(|_| is_said).map(Timestamp::from_micros),
            expires_at: Timestamp::from_micros(row.try_get("expires_at")?),
        })
    })
    .transpose()
}

async fn sessions_seen(db: &mut Connection, now: Timestamp) -> Result<SessionsSeen> {
    let rows = sqlx::query(
        "SELECT w.session_id IS NOT NULL AS is_remote, count(*) AS seen, min(s.beat_at) AS heard, \
         count(CASE WHEN s.expires_at <= $1 THEN 1 END) AS overdue \
         FROM sessions s LEFT JOIN remote_workers w ON w.session_id = s.id GROUP BY 1",
    )
    .bind(now.micros())
    .fetch_all(db)
    .await?;
    let mut found = SessionsSeen::default();
    for row in &rows {
        let seen = u64::try_from(row.try_get::<i64, _>("seen")?).unwrap_or_default();
        let heard = row.try_get::<Option<i64>, _>("heard")?.map(Timestamp::from_micros);
        found.overdue += u64::try_from(row.try_get::<i64, _>("overdue")?).unwrap_or_default();
        if row.try_get("is_remote")? {
            (found.remote, found.remote_heard) = (seen, heard);
        } else {
            (found.nodes, found.nodes_heard) = (seen, heard);
        }
    }
    Ok(found)
}

/// Locked until the transaction ends: nobody takes the lead in the middle of it.
pub(in super::super) async fn check_lead(db: &mut Connection, lead: &Leadership) -> Result<()> {
    let row = sqlx::query(concat!(
        "SELECT token FROM leaders WHERE role = $1 AND holder = $2 AND token = $3",
        for_update!()
    ))
    .bind(&lead.role)
    .bind(lead.holder)
    .bind(lead.token)
    .fetch_optional(db)
    .await?;
    match row {
        Some(_) => Ok(()),
        None => Err(Error::Conflict(format!("another process leads {} now", lead.role))),
    }
}

async fn idempotency_keys_expire(db: &mut Connection, now: Timestamp, rows_max: u32) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM idempotency_keys WHERE (namespace, key) IN (SELECT namespace, key FROM idempotency_keys \
         WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
    )
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .execute(db)
    .await?;
    Ok(gone.rows_affected())
}

async fn step_rates_expire(db: &mut Connection, now: Timestamp, rows_max: u32) -> Result<u64> {
    let unused_since = now.minus(Duration::from_millis(RATE_PERIOD_MS_MAX));
    let gone = sqlx::query(
        "DELETE FROM step_rates WHERE (namespace, key) IN (SELECT namespace, key FROM step_rates \
         WHERE changed_at < $1 ORDER BY changed_at LIMIT $2)",
    )
    .bind(unused_since.micros())
    .bind(i64::from(rows_max))
    .execute(db)
    .await?;
    Ok(gone.rows_affected())
}

async fn jobs_remove(
    db: &mut Connection,
    now: Timestamp,
    state: JobState,
    ended_before: Timestamp,
    rows_max: u32,
) -> Result<u64> {
    let rows = sqlx::query(concat!(
        "SELECT id FROM jobs WHERE state = $1 AND finished_at IS NOT NULL AND workflow_id IS NULL \
         AND finished_at <= $2 AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.job_id = jobs.id \
         AND dead_letters.status IN ('pending', 'investigating')) AND (batch_id IS NULL OR NOT EXISTS \
         (SELECT 1 FROM batches WHERE batches.id = jobs.batch_id AND batches.finished_at IS NULL)) ORDER BY finished_at LIMIT $3",
        for_update_skip_locked!()
    ))
    .bind(state.as_str())
    .bind(ended_before.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let jobs = rows.iter().map(|row| Ok(row.try_get("id")?)).collect::<Result<Vec<Uuid>>>()?;
    remove_in_time(db, now, &jobs).await
}

/// Removes jobs that nothing refers to, with their history; they are locked.
pub(super) async fn remove(db: &mut Connection, jobs: &[Uuid]) -> Result<u64> {
    bulk::history_remove(db, jobs).await?;
    remove_rows(db, jobs).await
}

/// The same of jobs whose time is over. Their history may stay for a while where it will go as a whole; nobody sees it any more.
async fn remove_in_time(db: &mut Connection, now: Timestamp, jobs: &[Uuid]) -> Result<u64> {
    let outliving = bulk::history_outliving(db, now, jobs).await?;
    bulk::history_remove(db, &outliving).await?;
    remove_rows(db, jobs).await
}

async fn remove_rows(db: &mut Connection, jobs: &[Uuid]) -> Result<u64> {
    if jobs.is_empty() {
        return Ok(0);
    }
    sqlx::query(concat!("DELETE FROM job_logs WHERE job_id ", in_ids!("$1")))
        .bind(ids(jobs))
        .execute(&mut *db)
        .await?;
    sqlx::query(concat!("DELETE FROM job_results WHERE job_id ", in_ids!("$1")))
        .bind(ids(jobs))
        .execute(&mut *db)
        .await?;
    let removed =
        sqlx::query(concat!("DELETE FROM jobs WHERE id ", in_ids!("$1"))).bind(ids(jobs)).execute(db).await?;
    Ok(removed.rows_affected())
}

async fn workflows_remove(
    db: &mut Connection,
    now: Timestamp,
    state: WorkflowState,
    ended_before: Timestamp,
    rows_max: u32,
) -> Result<u64> {
    let rows = sqlx::query(concat!(
        "SELECT id FROM workflows WHERE state = $1 AND finished_at IS NOT NULL AND finished_at <= $2 \
         AND NOT EXISTS (SELECT 1 FROM jobs JOIN dead_letters ON dead_letters.job_id = jobs.id \
         WHERE jobs.workflow_id = workflows.id AND dead_letters.status IN ('pending', 'investigating')) \
         AND (batch_id IS NULL OR NOT EXISTS (SELECT 1 FROM batches WHERE batches.id = workflows.batch_id \
         AND batches.finished_at IS NULL)) \
         ORDER BY finished_at LIMIT $3",
        for_update_skip_locked!()
    ))
    .bind(state.as_str())
    .bind(ended_before.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let mut removed = 0;
    for row in rows {
        let workflow: Uuid = row.try_get("id")?;
        let steps = sqlx::query("SELECT id FROM jobs WHERE workflow_id = $1")
            .bind(workflow)
            .fetch_all(&mut *db)
            .await?;
        let steps = steps.iter().map(|row| Ok(row.try_get("id")?)).collect::<Result<Vec<Uuid>>>()?;
        sqlx::query(concat!("DELETE FROM job_edges WHERE parent_id ", in_ids!("$1")))
            .bind(ids(&steps))
            .execute(&mut *db)
            .await?;
        remove_in_time(db, now, &steps).await?;
        lifecycles::remove(db, workflow).await?;
        sqlx::query("DELETE FROM given_results WHERE workflow_id = $1")
            .bind(workflow)
            .execute(&mut *db)
            .await?;
        sqlx::query("DELETE FROM workflow_signals WHERE workflow_id = $1")
            .bind(workflow)
            .execute(&mut *db)
            .await?;
        removed += sqlx::query("DELETE FROM workflows WHERE id = $1")
            .bind(workflow)
            .execute(&mut *db)
            .await?
            .rows_affected();
    }
    Ok(removed)
}

async fn letters_remove(db: &mut Connection, dealt_with_before: Timestamp, rows_max: u32) -> Result<u64> {
    let rows = sqlx::query(
        "SELECT job_id, seq FROM dead_letters WHERE status IN ('redriven', 'resolved', 'discarded') \
         AND status_at <= $1 ORDER BY status_at LIMIT $2",
    )
    .bind(dealt_with_before.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let mut removed = 0;
    for row in rows {
        let (job, seq) = (JobId::from_uuid(row.try_get("job_id")?), row.try_get::<i64, _>("seq")?);
        sqlx::query("DELETE FROM dead_letter_notes WHERE job_id = $1 AND seq = $2")
            .bind(job.uuid())
            .bind(seq)
            .execute(&mut *db)
            .await?;
        removed += sqlx::query("DELETE FROM dead_letters WHERE job_id = $1 AND seq = $2")
            .bind(job.uuid())
            .bind(seq)
            .execute(&mut *db)
            .await?
            .rows_affected();
    }
    Ok(removed)
}

/// One statement, and so one moment: a step moves and is counted in one transaction.
async fn counts_compare(db: &mut Connection, after: Option<WorkflowId>, rows_max: u32) -> Result<Compared> {
    let rows = sqlx::query(
        "SELECT w.id, w.steps_blocked, w.steps_active, w.steps_done, w.steps_failed, w.steps_cancelled, j.state, \
         j.steps FROM (SELECT * FROM workflows WHERE $1 OR id > $2 ORDER BY id LIMIT $3) AS w LEFT JOIN \
         (SELECT workflow_id, CASE WHEN state = 'failed' AND step_kind = 'tolerant_child' THEN 'resolved' ELSE state END AS state, \
         CAST(count(*) AS BIGINT) AS steps FROM jobs WHERE workflow_id IN \
         (SELECT id FROM workflows WHERE $1 OR id > $2 ORDER BY id LIMIT $3) GROUP BY 1, 2) AS j \
         ON j.workflow_id = w.id ORDER BY w.id",
    )
    .bind(after.is_none())
    .bind(after.map_or(Uuid::nil(), WorkflowId::uuid))
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    let mut compared = Compared::default();
    let mut found: Vec<CountDifference> = Vec::new();
    for row in &rows {
        let workflow = WorkflowId::from_uuid(row.try_get("id")?);
        if found.last().is_none_or(|last| last.workflow != workflow) {
            found.push(CountDifference { workflow, kept: counts(row)?, counted: StepCounts::default() });
        }
        let state: Option<String> = row.try_get("state")?;
        if let (Some(state), Some(last)) = (state, found.last_mut()) {
            let state = state.parse().map_err(|error| Error::broken(format!("state: {error}")))?;
            last.counted.add(state, row.try_get("steps")?);
        }
    }
    compared.workflows = u64::try_from(found.len()).unwrap_or(u64::MAX);
    compared.last = found.last().map(|last| last.workflow);
    compared.differences = found.into_iter().filter(|one| one.kept != one.counted).collect();
    Ok(compared)
}

/// 0 where nobody has migrated yet.
pub(in super::super) async fn schema_version(db: &mut Connection) -> Result<i64> {
    let found = sqlx::query("SELECT MAX(version) AS version FROM _sqlx_migrations WHERE success")
        .fetch_one(db)
        .await
        .map_err(Error::from);
    match found {
        Ok(row) => Ok(row.try_get::<Option<i64>, _>("version")?.unwrap_or(0)),
        Err(error) if error.is_missing_table() => Ok(0),
        Err(error) => Err(error),
    }
}
