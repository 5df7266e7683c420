//! Tracked jobs: created, reported, given up.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use recache_model::batch::MemberEnd;
use recache_model::ids::{BatchId, JobId};
use recache_model::time::{Timestamp, micros};
use recache_model::tracked::{
    Course, Report, STALE, STALE_AFTER_MAX, TrackedState, follow, json_problem, name_problem,
};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row, bulk_tracked, ids};
use super::batches::{Admission, member_moved, tally};
use super::effects::Effects;
use super::jobs::instant;
use super::maintenance::check_lead;
use crate::error::{Error, Result};
use crate::maintenance::Leadership;
use crate::tracked::{
    NewTrackedJob, STALE_GRACE, TRACKED_ROWS_MAX, Tracked, TrackedContext, TrackedFilter, TrackedJob,
    TrackedJobs,
};

#[async_trait]
impl TrackedJobs for Driver {
    async fn tracked_create(&self, jobs: Vec<NewTrackedJob>) -> Result<Vec<Tracked>> {
        check_count(jobs.len())?;
        check_new(&jobs)?;
        self.write(work!([jobs] db, now, effects => create(db, now, &jobs, effects).await)).await
    }

    async fn tracked_report(&self, reports: Vec<(JobId, Report)>) -> Result<Vec<Tracked>> {
        check_count(reports.len())?;
        check_reports(&reports)?;
        self.write(work!([reports] db, now, effects => report(db, now, &reports, effects).await)).await
    }

    async fn tracked_heartbeat(&self, job: JobId) -> Result<TrackedJob> {
        self.write(work!([] db, now, effects => heartbeat(db, now, job).await)).await
    }

    async fn tracked_acknowledge(&self, job: JobId, actor: &str) -> Result<Tracked> {
        if let Some(problem) = name_problem("actor", actor) {
            return Err(Error::Invalid(problem));
        }
        let actor = actor.to_owned();
        self.write(work!([actor] db, now, effects => acknowledge(db, now, job, &actor).await)).await
    }

    async fn tracked_get(&self, job: JobId) -> Result<TrackedJob> {
        self.read(look!([] db, now => get(db, job).await)).await
    }

    async fn tracked_list(&self, filter: TrackedFilter) -> Result<Vec<TrackedJob>> {
        if filter.context.is_some() && filter.namespace.is_none() {
            return Err(Error::Invalid("a context belongs to a namespace: name that too".to_owned()));
        }
        self.read(look!([filter] db, now => list(db, &filter).await)).await
    }

    async fn tracked_fail_stale(
        &self,
        leadership: &Leadership,
        up_for: Duration,
        rows_max: u32,
    ) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            fail_stale(db, now, up_for, rows_max, effects).await
        }))
        .await
    }

    async fn tracked_remove(
        &self,
        leadership: &Leadership,
        state: TrackedState,
        keep: Duration,
        rows_max: u32,
    ) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            remove(db, state, now.minus(keep), rows_max).await
        }))
        .await
    }
}

/// The columns of [`record`].
macro_rules! tracked_columns {
    () => {
        "id, namespace, action, context_type, context_id, context_field, owner, metadata, state, message, code, data, \
         progress, items_done, items_total, revision, stale_after_us, stale_at, created_at, heard_at, started_at, \
         finished_at, acknowledged_at, acknowledged_by, batch_id"
    };
}

fn record(row: &Row) -> Result<TrackedJob> {
    let state: String = row.try_get("state")?;
    let context_kind: Option<String> = row.try_get("context_type")?;
    let context_id: Option<String> = row.try_get("context_id")?;
    let field: Option<String> = row.try_get("context_field")?;
    let stale_after_us: i64 = row.try_get("stale_after_us")?;
    let acknowledged_by: Option<String> = row.try_get("acknowledged_by")?;
    Ok(TrackedJob {
        definition: NewTrackedJob {
            id: JobId::from_uuid(row.try_get("id")?),
            namespace: row.try_get("namespace")?,
            action: row.try_get("action")?,
            context: context_kind.zip(context_id).map(|(kind, id)| TrackedContext { kind, id, field }),
            batch: row.try_get::<Option<Uuid>, _>("batch_id")?.map(BatchId::from_uuid),
            owner: row.try_get("owner")?,
            metadata: row.try_get("metadata")?,
            stale_after: Duration::from_micros(u64::try_from(stale_after_us).unwrap_or(0)),
        },
        course: Course {
            state: state.parse().map_err(|error| Error::broken(format!("state: {error}")))?,
            message: row.try_get("message")?,
            code: row.try_get("code")?,
            data: row.try_get("data")?,
            progress: row.try_get("progress")?,
            items_done: row.try_get("items_done")?,
            items_total: row.try_get("items_total")?,
        },
        revision: row.try_get("revision")?,
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
        heard_at: Timestamp::from_micros(row.try_get("heard_at")?),
        stale_at: instant(row, "stale_at")?,
        started_at: instant(row, "started_at")?,
        finished_at: instant(row, "finished_at")?,
        acknowledged: instant(row, "acknowledged_at")?.zip(acknowledged_by),
    })
}

fn check_count(count: usize) -> Result<()> {
    if count <= TRACKED_ROWS_MAX {
        return Ok(());
    }
    Err(Error::Invalid(format!("{count} tracked jobs in one call; at most {TRACKED_ROWS_MAX} are taken")))
}

/// Refuses what cannot be, with every reason.
fn check_new(jobs: &[NewTrackedJob]) -> Result<()> {
    let mut problems = Vec::new();
    for job in jobs {
        let mut found = Vec::new();
        found.extend(name_problem("namespace", &job.namespace));
        found.extend(name_problem("action", &job.action));
        found.extend(job.owner.as_deref().and_then(|owner| name_problem("owner", owner)));
        if let Some(context) = &job.context {
            found.extend(name_problem("context type", &context.kind));
            found.extend(name_problem("context id", &context.id));
            found.extend(context.field.as_deref().and_then(|field| name_problem("context field", field)));
        }
        found.extend(json_problem("metadata", &job.metadata));
        if job.stale_after < Duration::from_millis(1) || job.stale_after > STALE_AFTER_MAX {
            found.push(format!(
                "stale_after is {} s; it must be from 1 ms to {} days",
                job.stale_after.as_secs_f64(),
                STALE_AFTER_MAX.as_secs() / 86_400
            ));
        }
        problems.extend(found.into_iter().map(|problem| format!("tracked job {}: {problem}", job.id)));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
}

fn check_reports(reports: &[(JobId, Report)]) -> Result<()> {
    let found = reports.iter().flat_map(|(job, report)| {
        report.problems().into_iter().map(move |problem| format!("tracked job {job}: {problem}"))
    });
    let problems: Vec<String> = found.collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
}

async fn create(
    db: &mut Connection,
    now: Timestamp,
    jobs: &[NewTrackedJob],
    effects: &mut Effects,
) -> Result<Vec<Tracked>> {
    let mut admission = Admission::default();
    for batch in jobs.iter().filter_map(|job| job.batch).collect::<BTreeSet<_>>() {
        admission.lock(db, batch).await?;
    }
    // In one order, so that two calls with the same ids wait for each other in one direction.
    let mut order: Vec<&NewTrackedJob> = jobs.iter().collect();
    order.sort_by_key(|job| job.id);
    let made_ids =
        if order.is_empty() { HashSet::new() } else { bulk_tracked::tracked_insert(db, now, &order).await? };
    let mut made: HashMap<JobId, &NewTrackedJob> =
        order.into_iter().filter(|job| made_ids.contains(&job.id.uuid())).map(|job| (job.id, job)).collect();
    let members = made.values().filter_map(|job| Some((job.batch?, job.namespace.as_str())));
    for ((batch, namespace), count) in tally(members) {
        admission.admit(db, now, batch, namespace, count, effects).await?;
    }
    let stored = read(db, jobs.iter().map(|job| job.id)).await?;
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        let standing = stored
            .get(&job.id)
            .ok_or_else(|| Error::broken(format!("tracked job {} went while it was stored", job.id)))?;
        let definition = &standing.definition;
        let is_same = definition.namespace == job.namespace
            && definition.action == job.action
            && definition.context == job.context
            && definition.batch == job.batch;
        if !is_same {
            return Err(Error::Conflict(format!(
                "tracked job `{}` is there already with another namespace, action, context or batch",
                job.id
            )));
        }
        answers.push(Tracked { job: standing.clone(), changed: made.remove(&job.id).is_some() });
    }
    Ok(answers)
}

async fn read(
    db: &mut Connection,
    wanted: impl Iterator<Item = JobId>,
) -> Result<HashMap<JobId, TrackedJob>> {
    let wanted: Vec<Uuid> = wanted.map(JobId::uuid).collect();
    let rows =
        sqlx::query(concat!("SELECT ", tracked_columns!(), " FROM tracked_jobs WHERE id ", in_ids!("$1")))
            .bind(ids(&wanted))
            .fetch_all(db)
            .await?;
    rows.iter().map(|row| record(row).map(|job| (job.definition.id, job))).collect()
}

/// Locks jobs in the order of their ids. An unknown one is an error.
async fn lock(db: &mut Connection, wanted: &[JobId]) -> Result<HashMap<JobId, TrackedJob>> {
    let list: Vec<Uuid> = wanted.iter().map(|job| job.uuid()).collect();
    let rows = sqlx::query(concat!(
        "SELECT ",
        tracked_columns!(),
        " FROM tracked_jobs WHERE id ",
        in_ids!("$1"),
        " ORDER BY id",
        for_update!()
    ))
    .bind(ids(&list))
    .fetch_all(db)
    .await?;
    let found: HashMap<JobId, TrackedJob> =
        rows.iter().map(|row| record(row).map(|job| (job.definition.id, job))).collect::<Result<_>>()?;
    match wanted.iter().find(|job| !found.contains_key(job)) {
        Some(unknown) => Err(Error::not_found("tracked job", unknown)),
        None => Ok(found),
    }
}

pub(super) async fn report(
    db: &mut Connection,
    now: Timestamp,
    reports: &[(JobId, Report)],
    effects: &mut Effects,
) -> Result<Vec<Tracked>> {
    let wanted: Vec<JobId> = reports.iter().map(|(job, _)| *job).collect();
    let mut jobs = lock(db, &wanted).await?;
    let mut moved = BTreeSet::new();
    let mut answers = Vec::with_capacity(reports.len());
    for (id, report) in reports {
        let job = jobs.get_mut(id).ok_or_else(|| Error::not_found("tracked job", id))?;
        let next = follow(&job.course, report);
        let changed = next.is_some();
        if let Some(course) = next {
            let (from, to) = (MemberEnd::of_tracked(job.course.state), MemberEnd::of_tracked(course.state));
            move_on(job, course, now);
            moved.insert(*id);
            if let Some(batch) = job.definition.batch {
                member_moved(db, now, batch, from, to, effects).await?;
            }
        }
        answers.push(Tracked { job: job.clone(), changed });
    }
    // One statement, however many there are, and however often one is reported.
    let moved: Vec<&TrackedJob> = moved.iter().filter_map(|id| jobs.get(id)).collect();
    if !moved.is_empty() {
        bulk_tracked::tracked_store(db, &moved).await?;
    }
    Ok(answers)
}

/// What follows from a new course.
fn move_on(job: &mut TrackedJob, course: Course, now: Timestamp) {
    // The clock was read before the row was locked.
    let now = now.max(job.heard_at);
    let has_ended = course.state.is_terminal();
    if course.state == TrackedState::Processing && job.started_at.is_none() {
        job.started_at = Some(now);
    }
    job.course = course;
    job.revision += 1;
    job.heard_at = now;
    job.finished_at = has_ended.then_some(now);
    job.stale_at = (!has_ended).then(|| now.plus(job.definition.stale_after));
}

async fn heartbeat(db: &mut Connection, now: Timestamp, job: JobId) -> Result<TrackedJob> {
    let beaten = sqlx::query(concat!(
        "UPDATE tracked_jobs SET heard_at = CASE WHEN heard_at > $2 THEN heard_at ELSE $2 END, \
         stale_at = CASE WHEN heard_at > $2 THEN stale_at ELSE $2 + stale_after_us END \
         WHERE id = $1 AND finished_at IS NULL RETURNING ",
        tracked_columns!()
    ))
    .bind(job.uuid())
    .bind(now.micros())
    .fetch_optional(&mut *db)
    .await?;
    match beaten {
        Some(row) => record(&row),
        None => get(db, job).await,
    }
}

async fn acknowledge(db: &mut Connection, now: Timestamp, job: JobId, actor: &str) -> Result<Tracked> {
    let mut found = lock(db, &[job]).await?;
    let mut standing = found.remove(&job).ok_or_else(|| Error::not_found("tracked job", job))?;
    if standing.acknowledged.is_some() {
        return Ok(Tracked { job: standing, changed: false });
    }
    if standing.finished_at.is_none() {
        return Err(Error::Conflict(format!(
            "tracked job `{job}` is {}: only the end of a job can be acknowledged",
            standing.course.state
        )));
    }
    standing.revision += 1;
    standing.acknowledged = Some((now, actor.to_owned()));
    sqlx::query(
        "UPDATE tracked_jobs SET acknowledged_at = $2, acknowledged_by = $3, revision = $4 WHERE id = $1",
    )
    .bind(job.uuid())
    .bind(now.micros())
    .bind(actor)
    .bind(standing.revision)
    .execute(db)
    .await?;
    Ok(Tracked { job: standing, changed: true })
}

async fn get(db: &mut Connection, job: JobId) -> Result<TrackedJob> {
    let row = sqlx::query(concat!("SELECT ", tracked_columns!(), " FROM tracked_jobs WHERE id = $1"))
        .bind(job.uuid())
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::not_found("tracked job", job))?;
    record(&row)
}

async fn list(db: &mut Connection, filter: &TrackedFilter) -> Result<Vec<TrackedJob>> {
    let context = filter.context.as_ref();
    // A context has a text of its own, which the index of contexts serves; without one its terms would hide it.
    let rows = match context {
        Some(context) => {
            sqlx::query(concat!(
                "SELECT ",
                tracked_columns!(),
                " FROM tracked_jobs WHERE namespace = $1 \
                 AND (CAST($2 AS TEXT) IS NULL OR state = $2) AND (CAST($3 AS TEXT) IS NULL OR action = $3) \
                 AND (CAST($4 AS TEXT) IS NULL OR owner = $4) AND (NOT $5 OR acknowledged_at IS NULL) AND ($6 OR id < $7) \
                 AND context_type = $9 AND context_id = $10 AND (CAST($11 AS TEXT) IS NULL OR context_field = $11) \
                 ORDER BY id DESC LIMIT $8"
            ))
            .bind(&filter.namespace)
            .bind(filter.state.map(TrackedState::as_str))
            .bind(&filter.action)
            .bind(&filter.owner)
            .bind(filter.unacknowledged)
            .bind(filter.before.is_none())
            .bind(filter.before.map_or(Uuid::nil(), JobId::uuid))
            .bind(i64::from(filter.rows_max))
            .bind(&context.kind)
            .bind(&context.id)
            .bind(&context.field)
            .fetch_all(db)
            .await?
        }
        None => {
            sqlx::query(concat!(
                "SELECT ",
                tracked_columns!(),
                " FROM tracked_jobs WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) \
                 AND (CAST($2 AS TEXT) IS NULL OR state = $2) AND (CAST($3 AS TEXT) IS NULL OR action = $3) \
                 AND (CAST($4 AS TEXT) IS NULL OR owner = $4) AND (NOT $5 OR acknowledged_at IS NULL) AND ($6 OR id < $7) \
                 ORDER BY id DESC LIMIT $8"
            ))
            .bind(&filter.namespace)
            .bind(filter.state.map(TrackedState::as_str))
            .bind(&filter.action)
            .bind(&filter.owner)
            .bind(filter.unacknowledged)
            .bind(filter.before.is_none())
            .bind(filter.before.map_or(Uuid::nil(), JobId::uuid))
            .bind(i64::from(filter.rows_max))
            .fetch_all(db)
            .await?
        }
    };
    rows.iter().map(record).collect()
}

async fn fail_stale(
    db: &mut Connection,
    now: Timestamp,
    up_for: Duration,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<u64> {
    let is_past_grace = up_for >= STALE_GRACE;
    let failed = sqlx::query(concat!(
        "UPDATE tracked_jobs SET state = 'failed', code = $5, revision = revision + 1, finished_at = $1, stale_at = NULL, \
         message = 'nothing was heard of it for ' || (stale_after_us / 1000) || ' ms: its owner is taken for dead' \
         WHERE id IN (SELECT id FROM tracked_jobs WHERE stale_at IS NOT NULL AND stale_at <= $1 \
         AND ($3 OR stale_after_us <= $4) ORDER BY stale_at LIMIT $2",
        for_update_skip_locked!(),
        ") RETURNING batch_id"
    ))
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .bind(is_past_grace)
    .bind(micros(up_for))
    .bind(STALE)
    .fetch_all(db)
    .await?;
    for row in &failed {
        if let Some(batch) = row.try_get::<Option<Uuid>, _>("batch_id")? {
            effects.batch_moved(BatchId::from_uuid(batch), None, Some(MemberEnd::Failed));
        }
    }
    Ok(u64::try_from(failed.len()).unwrap_or(u64::MAX))
}

async fn remove(
    db: &mut Connection,
    state: TrackedState,
    ended_before: Timestamp,
    rows_max: u32,
) -> Result<u64> {
    let removed = sqlx::query(concat!(
        "DELETE FROM tracked_jobs WHERE id IN (SELECT id FROM tracked_jobs WHERE state = $1 AND finished_at IS NOT NULL \
         AND finished_at <= $2 AND (batch_id IS NULL OR NOT EXISTS (SELECT 1 FROM batches \
         WHERE batches.id = tracked_jobs.batch_id AND batches.finished_at IS NULL)) ORDER BY finished_at LIMIT $3",
        for_update_skip_locked!(),
        ")"
    ))
    .bind(state.as_str())
    .bind(ended_before.micros())
    .bind(i64::from(rows_max))
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}
