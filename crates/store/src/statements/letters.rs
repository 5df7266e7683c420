//! Dead letters: written when a job fails for good, and what is done about them.

use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{JobError, JobEvent, JobState};
use recache_model::letter::LetterStatus;
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row};
use super::effects::Effects;
use super::jobs::{self, Change};
use crate::error::{Error, Result};
use crate::letters::{
    ATTEMPTS_KEPT_MAX, BatchDone, FailedAttempt, KeptAttempt, Letter, LetterFilter, LetterNote, Letters,
    NOTES_MAX,
};
use crate::queues::Word;

#[async_trait]
impl Letters for Driver {
    async fn letters_list(&self, filter: LetterFilter, rows_max: u32) -> Result<Vec<Letter>> {
        self.read(look!([filter] db, now => list(db, now, &filter, rows_max).await)).await
    }

    async fn letters_count(&self, filter: LetterFilter, count_max: u32) -> Result<u64> {
        self.read(look!([filter] db, now => {
            let found = jobs_of(db, now, &filter, count_max).await?;
            Ok(u64::try_from(found.len()).unwrap_or(u64::MAX))
        }))
        .await
    }

    async fn letter_get(&self, job: JobId) -> Result<(Letter, Vec<LetterNote>)> {
        self.read(look!([] db, now => get(db, job).await)).await
    }

    async fn letter_mark(&self, job: JobId, status: LetterStatus, word: Word) -> Result<()> {
        self.write(work!([word] db, now, effects => mark(db, now, job, status, &word).await)).await
    }

    async fn letter_note(&self, job: JobId, word: Word) -> Result<()> {
        self.write(work!([word] db, now, effects => {
            word.check()?;
            let letter = newest(db, job).await?;
            note(db, now, (job, letter.seq), letter.status, &word).await
        }))
        .await
    }

    async fn letters_redrive(&self, filter: LetterFilter, rows_max: u32, word: Word) -> Result<BatchDone> {
        self.write(work!([filter, word] db, now, effects => {
            redrive(db, now, &filter, rows_max, &word, effects).await
        }))
        .await
    }

    async fn job_resolve(&self, job: JobId, word: Word) -> Result<()> {
        self.write(work!([word] db, now, effects => resolve(db, now, job, &word, effects).await)).await
    }
}

/// The columns of [`letter`].
macro_rules! letter_columns {
    () => {
        "job_id, seq, namespace, queue, handler, status, error, attempts, input, priority, attempt, attempts_max, \
         correlation_id, workflow_id, step, submitted_at, failed_at, status_at"
    };
}

/// Writes the letter of a job that has just failed, with its history up to that. One that a limit of time had left before says from
/// now on what this one would.
pub(in super::super) async fn deposit(db: &mut Connection, now: Timestamp, job: JobId) -> Result<()> {
    sqlx::query(
        "INSERT INTO dead_letters (job_id, seq, namespace, queue, handler, status, error, attempts, input, priority, \
         retry, attempt, attempts_max, timeout_ms, correlation_id, workflow_id, step, submitted_at, failed_at, status_at) \
         SELECT j.id, j.transitions, j.namespace, j.queue, j.handler, 'pending', j.error, '[' || COALESCE((SELECT \
         string_agg('{\"attempt\":' || h.attempt || ',\"at\":' || h.at || ',\"error\":' || h.detail || '}', ',' ORDER BY h.seq) \
         FROM (SELECT seq, attempt, at, detail FROM job_history WHERE job_id = $1 AND from_state = 'running' \
         AND detail IS NOT NULL ORDER BY seq DESC LIMIT $3) AS h), '') || ']', j.input, j.priority, j.retry, j.attempt, \
         j.attempts_max, j.timeout_ms, j.correlation_id, j.workflow_id, j.step, j.created_at, $2, $2 \
         FROM jobs j WHERE j.id = $1 AND j.error IS NOT NULL \
         ON CONFLICT (job_id) WHERE status IN ('pending', 'investigating') DO UPDATE SET error = excluded.error, \
         attempts = excluded.attempts, attempt = excluded.attempt, attempts_max = excluded.attempts_max, \
         failed_at = excluded.failed_at",
    )
    .bind(job.uuid())
    .bind(now.micros())
    .bind(ATTEMPTS_KEPT_MAX)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes the letter of a job that has not failed, but needs somebody's look. False when it has an open one.
pub(super) async fn deposit_stale(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    error: &JobError,
) -> Result<bool> {
    let written = sqlx::query(
        "INSERT INTO dead_letters (job_id, seq, namespace, queue, handler, status, error, attempts, input, priority, \
         retry, attempt, attempts_max, timeout_ms, correlation_id, workflow_id, step, submitted_at, failed_at, status_at) \
         SELECT j.id, j.transitions, j.namespace, j.queue, j.handler, 'pending', $3, '[' || COALESCE((SELECT \
         string_agg('{\"attempt\":' || h.attempt || ',\"at\":' || h.at || ',\"error\":' || h.detail || '}', ',' ORDER BY h.seq) \
         FROM (SELECT seq, attempt, at, detail FROM job_history WHERE job_id = $1 AND from_state = 'running' \
         AND detail IS NOT NULL ORDER BY seq DESC LIMIT $4) AS h), '') || ']', j.input, j.priority, j.retry, j.attempt, \
         j.attempts_max, j.timeout_ms, j.correlation_id, j.workflow_id, j.step, j.created_at, $2, $2 \
         FROM jobs j WHERE j.id = $1 ON CONFLICT DO NOTHING",
    )
    .bind(job.uuid())
    .bind(now.micros())
    .bind(jobs::to_json(error)?)
    .bind(ATTEMPTS_KEPT_MAX)
    .execute(db)
    .await?;
    Ok(written.rows_affected() > 0)
}

/// The open letter of a job, if it has one, is done with.
pub(super) async fn close(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    status: LetterStatus,
    word: &Word,
) -> Result<()> {
    let closed = sqlx::query(
        "UPDATE dead_letters SET status = $2, status_at = $3 WHERE job_id = $1 \
         AND status IN ('pending', 'investigating') RETURNING seq",
    )
    .bind(job.uuid())
    .bind(status.as_str())
    .bind(now.micros())
    .fetch_optional(&mut *db)
    .await?;
    match closed {
        Some(row) => note(db, now, (job, row.try_get("seq")?), status, word).await,
        None => Ok(()),
    }
}

fn letter(row: &Row) -> Result<Letter> {
    let attempts: Vec<KeptAttempt> = jobs::json("attempts", row.try_get("attempts")?)?;
    Ok(Letter {
        job: JobId::from_uuid(row.try_get("job_id")?),
        seq: row.try_get("seq")?,
        namespace: row.try_get("namespace")?,
        queue: row.try_get("queue")?,
        handler: row.try_get("handler")?,
        status: status(row)?,
        error: jobs::json("error", row.try_get("error")?)?,
        attempts: attempts
            .into_iter()
            .map(|kept| FailedAttempt {
                attempt: kept.attempt,
                at: Timestamp::from_micros(kept.at),
                error: kept.error,
            })
            .collect(),
        input: row.try_get("input")?,
        priority: row.try_get("priority")?,
        attempt: jobs::count(row, "attempt")?,
        attempts_max: jobs::count(row, "attempts_max")?,
        correlation_id: row.try_get("correlation_id")?,
        workflow: row.try_get::<Option<Uuid>, _>("workflow_id")?.map(WorkflowId::from_uuid),
        step: row.try_get("step")?,
        submitted_at: Timestamp::from_micros(row.try_get("submitted_at")?),
        failed_at: Timestamp::from_micros(row.try_get("failed_at")?),
        status_at: Timestamp::from_micros(row.try_get("status_at")?),
    })
}

fn status(row: &Row) -> Result<LetterStatus> {
    let text: String = row.try_get("status")?;
    text.parse().map_err(|error| Error::broken(format!("status: {error}")))
}

/// What [`LetterFilter`] asks for, over `$1` to `$10`.
macro_rules! letter_filter {
    () => {
        " WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR queue = $2) \
         AND (CAST($3 AS TEXT) IS NULL OR handler = $3) AND ((CAST($4 AS TEXT) IS NULL \
         AND status IN ('pending', 'investigating')) OR status = $4) AND status_at <= $5 AND ($6 OR job_id < $7) \
         AND ($8 OR job_id = $9) ORDER BY job_id DESC, seq DESC LIMIT $10"
    };
}

/// Binds them.
macro_rules! bind_filter {
    ($query:expr, $filter:expr, $now:expr, $rows_max:expr) => {
        $query
            .bind(&$filter.namespace)
            .bind(&$filter.queue)
            .bind(&$filter.handler)
            .bind($filter.status.map(LetterStatus::as_str))
            .bind($now.minus($filter.stale_for.unwrap_or(Duration::ZERO)).micros())
            .bind($filter.before.is_none())
            .bind($filter.before.map_or(Uuid::nil(), JobId::uuid))
            .bind($filter.job.is_none())
            .bind($filter.job.map_or(Uuid::nil(), JobId::uuid))
            .bind(i64::from($rows_max))
    };
}

async fn list(
    db: &mut Connection,
    now: Timestamp,
    filter: &LetterFilter,
    rows_max: u32,
) -> Result<Vec<Letter>> {
    let query = sqlx::query(concat!("SELECT ", letter_columns!(), " FROM dead_letters", letter_filter!()));
    let rows = bind_filter!(query, filter, now, rows_max).fetch_all(db).await?;
    rows.iter().map(letter).collect()
}

async fn jobs_of(
    db: &mut Connection,
    now: Timestamp,
    filter: &LetterFilter,
    rows_max: u32,
) -> Result<Vec<JobId>> {
    let query = sqlx::query(concat!("SELECT job_id FROM dead_letters", letter_filter!()));
    let rows = bind_filter!(query, filter, now, rows_max).fetch_all(db).await?;
    rows.iter().map(|row| Ok(JobId::from_uuid(row.try_get("job_id")?))).collect()
}

/// The newest letter of a job, locked.
async fn newest(db: &mut Connection, job: JobId) -> Result<Letter> {
    let row = sqlx::query(concat!(
        "SELECT ",
        letter_columns!(),
        " FROM dead_letters WHERE job_id = $1 ORDER BY seq DESC LIMIT 1",
        for_update!()
    ))
    .bind(job.uuid())
    .fetch_optional(db)
    .await?;
    letter(&row.ok_or_else(|| Error::not_found("dead letter", job))?)
}

async fn get(db: &mut Connection, job: JobId) -> Result<(Letter, Vec<LetterNote>)> {
    let row = sqlx::query(concat!(
        "SELECT ",
        letter_columns!(),
        " FROM dead_letters WHERE job_id = $1 ORDER BY seq DESC LIMIT 1"
    ))
    .bind(job.uuid())
    .fetch_optional(&mut *db)
    .await?;
    let letter = letter(&row.ok_or_else(|| Error::not_found("dead letter", job))?)?;
    let rows = sqlx::query(
        "SELECT at, actor, status, text FROM dead_letter_notes WHERE job_id = $1 AND seq = $2 ORDER BY place",
    )
    .bind(job.uuid())
    .bind(letter.seq)
    .fetch_all(db)
    .await?;
    let notes = rows
        .iter()
        .map(|row| {
            Ok(LetterNote {
                at: Timestamp::from_micros(row.try_get("at")?),
                status: status(row)?,
                word: Word::new(row.try_get::<String, _>("actor")?, row.try_get::<String, _>("text")?),
            })
        })
        .collect::<Result<_>>()?;
    Ok((letter, notes))
}

async fn note(
    db: &mut Connection,
    now: Timestamp,
    (job, seq): (JobId, i64),
    status: LetterStatus,
    word: &Word,
) -> Result<()> {
    let added = sqlx::query(
        "INSERT INTO dead_letter_notes (job_id, seq, place, at, actor, status, text) \
         SELECT $1, $2, COALESCE(MAX(place), 0) + 1, $3, $4, $5, $6 FROM dead_letter_notes \
         WHERE job_id = $1 AND seq = $2 HAVING count(*) < $7",
    )
    .bind(job.uuid())
    .bind(seq)
    .bind(now.micros())
    .bind(&word.actor)
    .bind(status.as_str())
    .bind(&word.reason)
    .bind(NOTES_MAX)
    .execute(db)
    .await?
    .rows_affected();
    if added == 1 {
        Ok(())
    } else {
        Err(Error::Conflict(format!("a dead letter has at most {NOTES_MAX} notes")))
    }
}

async fn mark(db: &mut Connection, now: Timestamp, job: JobId, to: LetterStatus, word: &Word) -> Result<()> {
    word.check()?;
    if !matches!(to, LetterStatus::Investigating | LetterStatus::Discarded) {
        return Err(Error::Invalid(format!(
            "a dead letter is not marked {to}: redrive or resolve its job, and it is"
        )));
    }
    let letter = newest(db, job).await?;
    if !letter.status.may_become(to) {
        return Err(Error::Conflict(format!("the dead letter of job `{job}` is {}", letter.status)));
    }
    sqlx::query("UPDATE dead_letters SET status = $3, status_at = $4 WHERE job_id = $1 AND seq = $2")
        .bind(job.uuid())
        .bind(letter.seq)
        .bind(to.as_str())
        .bind(now.micros())
        .execute(&mut *db)
        .await?;
    note(db, now, (job, letter.seq), to, word).await
}

async fn redrive(
    db: &mut Connection,
    now: Timestamp,
    filter: &LetterFilter,
    rows_max: u32,
    word: &Word,
    effects: &mut Effects,
) -> Result<BatchDone> {
    word.check()?;
    if filter.status.is_some_and(|status| !status.is_open()) {
        return Err(Error::Invalid("only open dead letters can be redriven".to_owned()));
    }
    let found = jobs_of(db, now, filter, rows_max).await?;
    jobs::lock_links(db, &found).await?;
    let mut done = BatchDone { last: found.last().copied(), ..BatchDone::default() };
    for job in found {
        let change = Change { renew_attempts: true, word: Some(word.clone()), ..Change::default() };
        if move_in_batch(db, now, job, JobEvent::OperatorRetry, change, effects).await? {
            done.changed += 1;
        } else {
            done.skipped += 1;
        }
    }
    Ok(done)
}

/// One job of a batch: another one's unique key must not undo the others. False: it was left as it is.
pub(super) async fn move_in_batch(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    event: JobEvent,
    change: Change,
    effects: &mut Effects,
) -> Result<bool> {
    let Some(locked) = jobs::lock(db, job).await? else { return Ok(false) };
    if locked.view.is_some() {
        return Ok(false);
    }
    sqlx::query("SAVEPOINT one_of_batch").execute(&mut *db).await?;
    let moved = match jobs::advance(db, now, &locked, event, change, effects).await {
        Ok(moved) => moved.is_some(),
        Err(error) if error.is_unique_violation() => {
            sqlx::query("ROLLBACK TO SAVEPOINT one_of_batch").execute(&mut *db).await?;
            false
        }
        Err(error) => return Err(error),
    };
    sqlx::query("RELEASE SAVEPOINT one_of_batch").execute(db).await?;
    Ok(moved)
}

async fn resolve(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    word: &Word,
    effects: &mut Effects,
) -> Result<()> {
    word.check()?;
    jobs::lock_links(db, &[job]).await?;
    let locked = jobs::lock(db, job).await?.ok_or_else(|| Error::not_found("job", job))?;
    if locked.view.is_some() {
        return Err(Error::Conflict(format!("job `{job}` builds a view: touch or rebuild the view instead")));
    }
    if locked.state != JobState::Failed {
        return Err(Error::Conflict(format!(
            "job `{job}` is {}; only a failed job can be resolved",
            locked.state
        )));
    }
    let change = Change { word: Some(word.clone()), ..Change::default() };
    match jobs::advance(db, now, &locked, JobEvent::OperatorResolve, change, effects).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_unique_violation() => Err(Error::Conflict(format!(
            "another job of the unique key of `{job}` is there, and a resolved one would stand in its way"
        ))),
        Err(error) => Err(error),
    }
}
