//! Schedules: keep, look, fire.

use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::JobId;
use recache_model::job::{ErrorKind, JobError, JobEvent};
use recache_model::schedule::{CronSpec, Decision, LATE_MAX, Overlap, decide};
use recache_model::time::Timestamp;
use recache_model::unique::key_problem;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row};
use super::effects::Effects;
use super::jobs::{self, Change};
use super::maintenance::check_lead;
use crate::error::{Error, Result};
use crate::fail::fail_point;
use crate::maintenance::Leadership;
use crate::queues::Word;
use crate::records::NewJob;
use crate::schedules::{Fired, NewSchedule, ScheduleRecord, Schedules, trace_of_tick};

#[async_trait]
impl Schedules for Driver {
    async fn schedule_put(&self, schedule: NewSchedule) -> Result<ScheduleRecord> {
        self.write(work!([schedule] db, now, effects => put(db, now, &schedule).await)).await
    }

    async fn schedule_get(&self, namespace: &str, name: &str) -> Result<ScheduleRecord> {
        let key = (namespace.to_owned(), name.to_owned());
        self.read(look!([key] db, now => Ok(find(db, &key.0, &key.1).await?.record))).await
    }

    async fn schedules_list(
        &self,
        namespace: Option<&str>,
        after: Option<(String, String)>,
        rows_max: u32,
    ) -> Result<Vec<ScheduleRecord>> {
        let namespace = namespace.map(str::to_owned);
        self.read(look!([namespace, after] db, now => {
            list(db, namespace.as_deref(), after.as_ref(), rows_max).await
        }))
        .await
    }

    async fn schedule_pause(&self, namespace: &str, name: &str, word: Word) -> Result<()> {
        let key = (namespace.to_owned(), name.to_owned());
        self.write(work!([key, word] db, now, effects => pause(db, now, &key, &word).await)).await
    }

    async fn schedule_resume(&self, namespace: &str, name: &str) -> Result<bool> {
        let key = (namespace.to_owned(), name.to_owned());
        self.write(work!([key] db, now, effects => resume(db, now, &key).await)).await
    }

    async fn schedule_run(&self, namespace: &str, name: &str, job: JobId) -> Result<()> {
        let key = (namespace.to_owned(), name.to_owned());
        self.write(work!([key] db, now, effects => run(db, now, &key, job, effects).await)).await
    }

    async fn schedule_delete(&self, namespace: &str, name: &str) -> Result<()> {
        let key = (namespace.to_owned(), name.to_owned());
        self.write(work!([key] db, now, effects => {
            let schedule = lock(db, &key.0, &key.1).await?;
            sqlx::query("DELETE FROM schedules WHERE id = $1").bind(schedule.id).execute(db).await?;
            Ok(())
        }))
        .await
    }

    async fn schedules_next(&self) -> Result<Option<Duration>> {
        let now = self.database_time().await?;
        self.read(look!([] db, read_at => {
            let row = sqlx::query(
                "SELECT MIN(next_at) AS next_at FROM schedules WHERE next_at IS NOT NULL AND paused_at IS NULL",
            )
            .fetch_one(db)
            .await?;
            Ok(jobs::instant(&row, "next_at")?.map(|next| next.since(now)))
        }))
        .await
    }

    async fn schedules_fire(
        &self,
        leadership: &Leadership,
        rows_max: u32,
        traces_per_mille: u32,
    ) -> Result<Fired> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            let fired = fire(db, now, rows_max, traces_per_mille, effects).await?;
            if !fired.jobs.is_empty() {
                fail_point!("cron.before_commit");
            }
            Ok(fired)
        }))
        .await
    }

    async fn ticks_remove(&self, leadership: &Leadership, keep: Duration, rows_max: u32) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            let gone = sqlx::query(
                "DELETE FROM schedule_ticks WHERE (schedule_id, tick_at) IN (SELECT schedule_id, tick_at \
                 FROM schedule_ticks WHERE tick_at <= $1 ORDER BY tick_at LIMIT $2)",
            )
            .bind(now.minus(keep).micros())
            .bind(i64::from(rows_max))
            .execute(db)
            .await?;
            Ok(gone.rows_affected())
        }))
        .await
    }
}

/// The columns of [`stored`].
macro_rules! schedule_columns {
    () => {
        "id, namespace, name, cron, zone, overlap, catch_up, queue, handler, input, priority, retry, timeout_ms, \
         next_at, last_job_id, last_tick_at, ticks_skipped, paused_at, pause_reason, pause_actor"
    };
}

/// A schedule with its id, which nobody outside needs.
struct Stored {
    id: Uuid,
    record: ScheduleRecord,
}

fn stored(row: &Row) -> Result<Stored> {
    let word = |column| -> Result<String> { Ok(row.try_get(column)?) };
    let definition = NewSchedule {
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
        cron: row.try_get("cron")?,
        zone: row.try_get("zone")?,
        overlap: word("overlap")?.parse().map_err(|error| Error::broken(format!("overlap: {error}")))?,
        catch_up: word("catch_up")?.parse().map_err(|error| Error::broken(format!("catch_up: {error}")))?,
        queue: row.try_get("queue")?,
        handler: row.try_get("handler")?,
        input: row.try_get("input")?,
        priority: row.try_get("priority")?,
        retry: jobs::json("retry", row.try_get("retry")?)?,
        timeout: jobs::milliseconds(row, "timeout_ms")?,
    };
    let pause = match jobs::instant(row, "paused_at")? {
        Some(at) => Some((at, Word::new(word("pause_actor")?, word("pause_reason")?))),
        None => None,
    };
    Ok(Stored {
        id: row.try_get("id")?,
        record: ScheduleRecord {
            definition,
            next_at: jobs::instant(row, "next_at")?,
            last_job: row.try_get::<Option<Uuid>, _>("last_job_id")?.map(JobId::from_uuid),
            last_tick_at: jobs::instant(row, "last_tick_at")?,
            ticks_skipped: row.try_get("ticks_skipped")?,
            pause,
        },
    })
}

async fn find(db: &mut Connection, namespace: &str, name: &str) -> Result<Stored> {
    let row = sqlx::query(concat!(
        "SELECT ",
        schedule_columns!(),
        " FROM schedules WHERE namespace = $1 AND name = $2"
    ))
    .bind(namespace)
    .bind(name)
    .fetch_optional(db)
    .await?;
    stored(&row.ok_or_else(|| unknown(namespace, name))?)
}

async fn lock(db: &mut Connection, namespace: &str, name: &str) -> Result<Stored> {
    let row = sqlx::query(concat!(
        "SELECT ",
        schedule_columns!(),
        " FROM schedules WHERE namespace = $1 AND name = $2",
        for_update!()
    ))
    .bind(namespace)
    .bind(name)
    .fetch_optional(db)
    .await?;
    stored(&row.ok_or_else(|| unknown(namespace, name))?)
}

fn unknown(namespace: &str, name: &str) -> Error {
    Error::not_found("schedule", format!("{}/{}", namespace.escape_debug(), name.escape_debug()))
}

async fn list(
    db: &mut Connection,
    namespace: Option<&str>,
    after: Option<&(String, String)>,
    rows_max: u32,
) -> Result<Vec<ScheduleRecord>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        schedule_columns!(),
        " FROM schedules WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND ($2 OR (namespace, name) > ($3, $4)) \
         ORDER BY namespace, name LIMIT $5"
    ))
    .bind(namespace)
    .bind(after.is_none())
    .bind(after.map_or("", |after| &after.0))
    .bind(after.map_or("", |after| &after.1))
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(stored(row)?.record)).collect()
}

fn spec(definition: &NewSchedule) -> Result<CronSpec> {
    CronSpec::parse(&definition.cron, &definition.zone).map_err(|error| Error::Invalid(error.to_string()))
}

/// A job of the schedule.
fn job_of(definition: &NewSchedule) -> NewJob {
    NewJob {
        namespace: definition.namespace.clone(),
        queue: definition.queue.clone(),
        priority: definition.priority,
        retry: definition.retry,
        timeout: definition.timeout,
        ..NewJob::new(&definition.handler, &definition.input)
    }
}

async fn put(db: &mut Connection, now: Timestamp, schedule: &NewSchedule) -> Result<ScheduleRecord> {
    let mut problems: Vec<String> = Vec::new();
    problems.extend(key_problem("schedule", &schedule.name));
    if let Err(Error::Invalid(problem)) = jobs::check([&job_of(schedule)]) {
        problems.push(problem);
    }
    let spec = match CronSpec::parse(&schedule.cron, &schedule.zone) {
        Ok(spec) => Some(spec),
        Err(problem) => {
            problems.push(problem.to_string());
            None
        }
    };
    let next = spec.and_then(|spec| spec.next_after(now));
    if next.is_none() && problems.is_empty() {
        let never = recache_model::schedule::ScheduleProblem::Never(schedule.cron.clone());
        problems.push(never.to_string());
    }
    if !problems.is_empty() {
        return Err(Error::Invalid(problems.join("; ")));
    }
    sqlx::query(
        "INSERT INTO schedules (id, namespace, name, cron, zone, overlap, catch_up, queue, handler, input, priority, \
         retry, timeout_ms, created_at, next_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
         ON CONFLICT (namespace, name) DO UPDATE SET cron = excluded.cron, zone = excluded.zone, \
         overlap = excluded.overlap, catch_up = excluded.catch_up, queue = excluded.queue, handler = excluded.handler, \
         input = excluded.input, priority = excluded.priority, retry = excluded.retry, timeout_ms = excluded.timeout_ms, \
         next_at = excluded.next_at",
    )
    .bind(Uuid::new_v4())
    .bind(&schedule.namespace)
    .bind(&schedule.name)
    .bind(&schedule.cron)
    .bind(&schedule.zone)
    .bind(schedule.overlap.as_str())
    .bind(schedule.catch_up.as_str())
    .bind(&schedule.queue)
    .bind(&schedule.handler)
    .bind(&schedule.input)
    .bind(schedule.priority)
    .bind(jobs::to_json(&schedule.retry)?)
    .bind(jobs::timeout_ms(schedule.timeout))
    .bind(now.micros())
    .bind(next.map(Timestamp::micros))
    .execute(&mut *db)
    .await?;
    Ok(find(db, &schedule.namespace, &schedule.name).await?.record)
}

async fn pause(db: &mut Connection, now: Timestamp, key: &(String, String), word: &Word) -> Result<()> {
    word.check()?;
    let schedule = lock(db, &key.0, &key.1).await?;
    sqlx::query(
        "UPDATE schedules SET paused_at = COALESCE(paused_at, $2), pause_reason = $3, pause_actor = $4 WHERE id = $1",
    )
    .bind(schedule.id)
    .bind(now.micros())
    .bind(&word.reason)
    .bind(&word.actor)
    .execute(db)
    .await?;
    Ok(())
}

async fn resume(db: &mut Connection, now: Timestamp, key: &(String, String)) -> Result<bool> {
    let schedule = lock(db, &key.0, &key.1).await?;
    if schedule.record.pause.is_none() {
        return Ok(false);
    }
    let next = spec(&schedule.record.definition)?.next_after(now);
    sqlx::query(
        "UPDATE schedules SET paused_at = NULL, pause_reason = NULL, pause_actor = NULL, next_at = $2 WHERE id = $1",
    )
    .bind(schedule.id)
    .bind(next.map(Timestamp::micros))
    .execute(db)
    .await?;
    Ok(true)
}

async fn run(
    db: &mut Connection,
    now: Timestamp,
    key: &(String, String),
    job: JobId,
    effects: &mut Effects,
) -> Result<()> {
    // Under the schedule's lock nobody else makes it meanwhile.
    let schedule = lock(db, &key.0, &key.1).await?;
    let made =
        sqlx::query("SELECT id FROM jobs WHERE id = $1").bind(job.uuid()).fetch_optional(&mut *db).await?;
    if made.is_some() {
        return Ok(());
    }
    if !make_job(db, now, &schedule, job, None, effects).await? {
        let last = schedule.record.last_job.map(|job| job.to_string()).unwrap_or_default();
        return Err(Error::Conflict(format!(
            "the former job `{last}` of schedule `{}` has not ended, and its overlap policy is skip",
            key.1.escape_debug()
        )));
    }
    sqlx::query("UPDATE schedules SET last_job_id = $2 WHERE id = $1")
        .bind(schedule.id)
        .bind(job.uuid())
        .execute(db)
        .await?;
    Ok(())
}

/// Makes this job of a locked schedule; false when the former one has not ended and the policy is to skip.
async fn make_job(
    db: &mut Connection,
    now: Timestamp,
    schedule: &Stored,
    id: JobId,
    trace_context: Option<String>,
    effects: &mut Effects,
) -> Result<bool> {
    let definition = &schedule.record.definition;
    if let (Some(last), Overlap::Skip | Overlap::Replace) = (schedule.record.last_job, definition.overlap)
        && let Some(last) = jobs::lock(db, last).await?
        && !last.state.is_terminal()
    {
        if definition.overlap == Overlap::Skip {
            return Ok(false);
        }
        let error = JobError::new(ErrorKind::Cancelled, "the next run of its schedule takes its place");
        let change = Change { error: Some(error), ..Change::default() };
        jobs::advance(db, now, &last, JobEvent::Cancel, change, effects).await?;
    }
    let job = NewJob { id, trace_context, ..job_of(definition) };
    jobs::insert(db, now, &job, None).await?;
    effects.queued(&job.queue);
    Ok(true)
}

async fn fire(
    db: &mut Connection,
    now: Timestamp,
    rows_max: u32,
    traces_per_mille: u32,
    effects: &mut Effects,
) -> Result<Fired> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        schedule_columns!(),
        " FROM schedules WHERE next_at IS NOT NULL AND paused_at IS NULL AND next_at <= $1 ORDER BY next_at LIMIT $2",
        for_update_skip_locked!()
    ))
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let mut fired = Fired::default();
    for row in &rows {
        let schedule = stored(row)?;
        let definition = &schedule.record.definition;
        let Some(due) = schedule.record.next_at else { continue };
        let decision = match spec(definition) {
            Ok(spec) => decide(&spec, due, now, definition.catch_up),
            Err(error) => {
                // It was read when it was kept; this machine may know fewer time zones. The others must not wait for it.
                tracing::error!(%error, schedule = definition.name, "a schedule cannot be read here");
                Decision { fire: None, next: Some(now.plus(LATE_MAX)) }
            }
        };
        let mut job = None;
        let mut skipped = 0;
        if let Some(tick) = decision.fire
            && !was_fired(db, schedule.id, tick).await?
        {
            let id = JobId::make();
            let trace = (traces_per_mille > 0).then(|| trace_of_tick(id, traces_per_mille).to_string());
            job = make_job(db, now, &schedule, id, trace, effects).await?.then_some(id);
            match job {
                Some(job) => {
                    // The primary key refuses a tick that was fired, and with it the whole transaction.
                    sqlx::query(
                        "INSERT INTO schedule_ticks (schedule_id, tick_at, job_id) VALUES ($1, $2, $3)",
                    )
                    .bind(schedule.id)
                    .bind(tick.micros())
                    .bind(job.uuid())
                    .execute(&mut *db)
                    .await?;
                    fired.jobs.push(job);
                }
                None => skipped = 1,
            }
        }
        fired.skipped += u64::try_from(skipped).unwrap_or(0);
        sqlx::query(
            "UPDATE schedules SET next_at = $2, last_job_id = COALESCE($3, last_job_id), \
             last_tick_at = COALESCE($4, last_tick_at), \
             ticks_skipped = ticks_skipped + $5 WHERE id = $1",
        )
        .bind(schedule.id)
        .bind(decision.next.map(Timestamp::micros))
        .bind(job.map(JobId::uuid))
        .bind(decision.fire.filter(|_| job.is_some()).map(Timestamp::micros))
        .bind::<i64>(skipped)
        .execute(&mut *db)
        .await?;
    }
    Ok(fired)
}

async fn was_fired(db: &mut Connection, schedule: Uuid, tick: Timestamp) -> Result<bool> {
    let row = sqlx::query("SELECT 1 FROM schedule_ticks WHERE schedule_id = $1 AND tick_at = $2")
        .bind(schedule)
        .bind(tick.micros())
        .fetch_optional(db)
        .await?;
    Ok(row.is_some())
}
