//! Figures over what has run.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use recache_model::analysis::{StepFacts, analyze};
use recache_model::figures::{
    Active, By, Ended, Filter, Gathered, Kind, MINUTE_US, Minute, MinuteTotals, Series, Totals,
};
use recache_model::ids::WorkflowId;
use recache_model::job::{JobError, JobState};
use recache_model::template::graph::Graph;
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row};
use super::{jobs, maintenance};
use crate::error::{Error, Result};
use crate::figures::{COUNTED_ROWS_MAX, Figures, FoldLimits, MinutesAsked, StepFigure, StepFigures};
use crate::maintenance::Leadership;

/// Versions of a template whose workflows are looked at.
const VERSIONS_MAX: i64 = 4;
/// Until when the last attempt of job `j` ran. `started_at` stays when a job goes back to the queue, and `finished_at` is when it ended, which
/// may be long after: called off while it waits for its next attempt, completed by hand, resolved. Where the row says that it ended
/// as it ran (it was due before it began, and not again since), that is enough; otherwise its history tells when it last left
/// `running`. The engine's own steps wait and block between turns, and of them the row says nothing.
macro_rules! ran_until {
    () => {
        "CASE WHEN j.started_at IS NULL THEN NULL \
         WHEN j.state IN ('completed', 'failed') AND j.due_at <= j.started_at AND j.handler <> 'recache.flow' THEN j.finished_at \
         ELSE (SELECT MAX(h.at) FROM job_history h WHERE h.job_id = j.id AND h.from_state = 'running' AND h.at >= j.started_at) END"
    };
}

/// Workflows of one minute whose critical path is looked at: the first ones that completed in it.
const PATHS_MAX: usize = 20;
/// Active work is counted up to here.
const ACTIVE_MAX: i64 = 1_000_000;

#[async_trait]
impl Figures for Driver {
    async fn step_figures(
        &self,
        namespace: &str,
        name: &str,
        digest: &str,
        workflows_max: u32,
    ) -> Result<StepFigures> {
        let (namespace, name, digest) = (namespace.to_owned(), name.to_owned(), digest.to_owned());
        self.read(look!([namespace, name, digest] db, now => {
            step_figures(db, &namespace, &name, &digest, workflows_max).await
        }))
        .await
    }

    async fn workflow_mark(&self, workflow: WorkflowId) -> Result<String> {
        self.read(look!([] db, now => workflow_mark(db, workflow).await)).await
    }

    async fn workflows_ended(&self, digest: &str, count_max: u32) -> Result<u32> {
        let digest = digest.to_owned();
        self.read(look!([digest] db, now => workflows_ended(db, &digest, count_max).await)).await
    }

    async fn folded(&self) -> Result<Option<Minute>> {
        self.read(look!([] db, now => folded(db).await)).await
    }

    async fn fold(
        &self,
        leadership: &Leadership,
        last: Minute,
        again: u32,
        limits: FoldLimits,
    ) -> Result<Option<Minute>> {
        // Counted beside the writers, and only then written: nobody's settling waits for it.
        let next = self.read(look!([] db, now => to_fold(db, last, again, limits).await)).await?;
        let Some(fold) = next else {
            return self.folded().await;
        };
        let (lead, other) = (leadership.clone(), fold.other);
        let folded = self
            .write(work!([lead, fold] db, now, effects => {
                maintenance::check_lead(db, &lead).await?;
                write_fold(db, &fold).await
            }))
            .await?;
        if other > 0 {
            tracing::warn!(
                ends = other,
                series_max = limits.series,
                "a minute has more handlers, steps or queues than are told apart in figures"
            );
            self.figures_other.fetch_add(other, Ordering::Relaxed);
        }
        Ok(folded)
    }

    async fn minutes(&self, asked: &MinutesAsked) -> Result<Vec<MinuteTotals>> {
        let asked = asked.clone();
        self.read(look!([asked] db, now => minutes(db, &asked).await)).await
    }

    async fn active(&self, filter: &Filter, since: Timestamp) -> Result<Active> {
        let filter = filter.clone();
        self.read(look!([filter] db, now => active(db, &filter, since).await)).await
    }

    async fn minutes_remove(&self, leadership: &Leadership, first: Minute, rows_max: u32) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            maintenance::check_lead(db, &lead).await?;
            let gone = sqlx::query(
                "DELETE FROM figures_minutes WHERE (minute, series) IN (SELECT minute, series FROM figures_minutes \
                 WHERE minute < $1 ORDER BY minute LIMIT $2)",
            )
            .bind(first)
            .bind(i64::from(rows_max))
            .execute(db)
            .await?;
            Ok(gone.rows_affected())
        }))
        .await
    }
}

async fn step_figures(
    db: &mut Connection,
    namespace: &str,
    name: &str,
    digest: &str,
    workflows_max: u32,
) -> Result<StepFigures> {
    let versions = sqlx::query(
        "SELECT digest FROM templates WHERE namespace = $1 AND name = $2 \
         ORDER BY CASE WHEN digest = $3 THEN 0 ELSE 1 END, created_at DESC LIMIT $4",
    )
    .bind(namespace)
    .bind(name)
    .bind(digest)
    .bind(VERSIONS_MAX)
    .fetch_all(&mut *db)
    .await?;
    let mut found = StepFigures::default();
    let mut steps: BTreeMap<String, StepFigure> = BTreeMap::new();
    for version in versions {
        let version: String = version.try_get("digest")?;
        let left = i64::from(workflows_max) - i64::try_from(found.workflows).unwrap_or(i64::MAX);
        if left <= 0 {
            break;
        }
        let row = sqlx::query(
            "SELECT CAST(count(*) AS BIGINT) AS workflows FROM (SELECT id FROM workflows WHERE template_digest = $1 \
             AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT $2) AS w",
        )
        .bind(&version)
        .bind(left)
        .fetch_one(&mut *db)
        .await?;
        found.workflows += u64::try_from(row.try_get::<i64, _>("workflows")?).unwrap_or(0);
        let rows = sqlx::query(
            concat!(
                "SELECT step, CAST(count(*) AS BIGINT) AS runs, SUM(run) AS run_sum, SUM(run * run) AS run_squares, \
                 SUM(wait) AS wait_sum, SUM(wait * wait) AS wait_squares FROM (SELECT j.step, CAST(",
                ran_until!(),
                " - j.started_at AS DOUBLE PRECISION) / 1000000 AS run, \
                 CAST(CASE WHEN j.started_at > j.due_at THEN j.started_at - j.due_at ELSE 0 END AS DOUBLE PRECISION) / 1000000 AS wait \
                 FROM jobs j WHERE j.state = 'completed' AND j.started_at IS NOT NULL AND j.parent_id IS NULL AND j.workflow_id IN \
                 (SELECT id FROM workflows WHERE template_digest = $1 AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT $2)) \
                 AS s WHERE run IS NOT NULL GROUP BY step",
            ),
        )
        .bind(&version)
        .bind(left)
        .fetch_all(&mut *db)
        .await?;
        for row in &rows {
            let step: String = row.try_get("step")?;
            let figure = steps.entry(step.clone()).or_default();
            figure.step = step;
            figure.count += u64::try_from(row.try_get::<i64, _>("runs")?).unwrap_or(0);
            figure.run_sum += row.try_get::<f64, _>("run_sum")?;
            figure.run_squares += row.try_get::<f64, _>("run_squares")?;
            figure.wait_sum += row.try_get::<f64, _>("wait_sum")?;
            figure.wait_squares += row.try_get::<f64, _>("wait_squares")?;
        }
    }
    found.steps = steps.into_values().collect();
    Ok(found)
}

async fn workflow_mark(db: &mut Connection, workflow: WorkflowId) -> Result<String> {
    // Each change of state counts a transition up, and none is ever taken back. When a step is due changes without one; of those
    // instants a remainder is added up, since their sum would be too large.
    let row = sqlx::query(
        "SELECT CAST(count(*) AS BIGINT) AS steps, CAST(COALESCE(SUM(transitions), 0) AS BIGINT) AS changes, \
         CAST(COALESCE(SUM(due_at % 1000000007), 0) AS BIGINT) AS dues FROM jobs WHERE workflow_id = $1",
    )
    .bind(workflow.uuid())
    .fetch_one(db)
    .await?;
    let (steps, changes, dues): (i64, i64, i64) =
        (row.try_get("steps")?, row.try_get("changes")?, row.try_get("dues")?);
    Ok(format!("{steps}-{changes}-{dues}"))
}

async fn workflows_ended(db: &mut Connection, digest: &str, count_max: u32) -> Result<u32> {
    let row = sqlx::query(
        "SELECT CAST(count(*) AS BIGINT) AS ended FROM (SELECT id FROM workflows WHERE template_digest = $1 \
         AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT $2) AS w",
    )
    .bind(digest)
    .bind(i64::from(count_max))
    .fetch_one(db)
    .await?;
    jobs::count(&row, "ended")
}

async fn folded(db: &mut Connection) -> Result<Option<Minute>> {
    let row = sqlx::query("SELECT minute FROM figures_watermark WHERE id = 1").fetch_optional(db).await?;
    row.map(|row| Ok(row.try_get("minute")?)).transpose()
}

/// Minutes that were counted and are to be written.
struct Fold {
    first: Minute,
    end: Minute,
    found: Vec<MinuteTotals>,
    /// Ends in minutes that were not folded before whose series are not told apart.
    other: u64,
}

/// The next minutes, as many as have no more rows than `limits` allow; `None` when there are none. One minute always goes through, however
/// much ended in it: nothing smaller could be tried the next time, and no later minute would ever be folded.
async fn to_fold(db: &mut Connection, last: Minute, again: u32, limits: FoldLimits) -> Result<Option<Fold>> {
    let folded = folded(db).await?;
    let next = match folded {
        Some(folded) => folded + 1,
        None => match first_ended(db).await? {
            Some(minute) => minute,
            None => return Ok(None),
        },
    };
    let mut end = (last + 1).min(next.saturating_add(i64::from(limits.minutes)));
    let first = if folded.is_some() { next - i64::from(again) } else { next };
    while end > next {
        let minutes = end - next;
        let rows_max = if minutes > 1 { limits.rows } else { u64::MAX };
        let mut found = Gathered::new(By::Minute, Filter::default(), limits.series);
        if ended(db, first, end, rows_max, &mut found).await? {
            let found = found.into_minutes();
            let others = found.iter().filter(|one| one.minute >= next && one.series.is_other());
            let other = others.map(|one| one.totals.ended()).sum();
            return Ok(Some(Fold { first, end, found, other }));
        }
        end = next + minutes / 2;
    }
    Ok(None)
}

async fn write_fold(db: &mut Connection, fold: &Fold) -> Result<Option<Minute>> {
    sqlx::query("DELETE FROM figures_minutes WHERE minute >= $1 AND minute < $2")
        .bind(fold.first)
        .bind(fold.end)
        .execute(&mut *db)
        .await?;
    for MinuteTotals { minute, series, totals } in &fold.found {
        sqlx::query("INSERT INTO figures_minutes (minute, series, totals) VALUES ($1, $2, $3)")
            .bind(minute)
            .bind(jobs::to_json(series)?)
            .bind(jobs::to_json(totals)?)
            .execute(&mut *db)
            .await?;
    }
    sqlx::query(
        "INSERT INTO figures_watermark (id, minute) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET minute = excluded.minute",
    )
    .bind(fold.end - 1)
    .execute(db)
    .await?;
    Ok(Some(fold.end - 1))
}

/// The first minute in which anything ended.
async fn first_ended(db: &mut Connection) -> Result<Option<Minute>> {
    let row = sqlx::query(
        "SELECT MIN(at) AS at FROM (SELECT MIN(finished_at) AS at FROM jobs WHERE finished_at IS NOT NULL AND workflow_id IS NOT NULL \
         UNION ALL SELECT MIN(finished_at) FROM jobs WHERE finished_at IS NOT NULL AND workflow_id IS NULL \
         UNION ALL SELECT MIN(finished_at) FROM workflows WHERE finished_at IS NOT NULL) AS ends",
    )
    .fetch_one(db)
    .await?;
    Ok(row.try_get::<Option<i64>, _>("at")?.map(|at| at.div_euclid(MINUTE_US)))
}

async fn minutes(db: &mut Connection, asked: &MinutesAsked) -> Result<Vec<MinuteTotals>> {
    let &MinutesAsked { first, end, exact, by, series_max, .. } = asked;
    let folded = if exact { None } else { folded(db).await? };
    let counted_from = folded.map_or(first, |folded| (folded + 1).clamp(first, end));
    let mut found = Gathered::new(by, asked.filter.clone(), series_max);
    {
        let mut rows = sqlx::query(
            "SELECT minute, series, totals FROM figures_minutes WHERE minute >= $1 AND minute < $2 ORDER BY minute, series",
        )
        .bind(first)
        .bind(counted_from)
        .fetch(&mut *db);
        while let Some(row) = rows.try_next().await? {
            let (series, totals): (&str, &str) = (row.try_get("series")?, row.try_get("totals")?);
            let series: Series = jobs::json("series", series)?;
            if found.takes(&series) {
                let totals: Totals = jobs::json("totals", totals)?;
                found.merge(row.try_get("minute")?, series, &totals);
            }
        }
    }
    if !ended(db, counted_from, end, COUNTED_ROWS_MAX, &mut found).await? {
        return Err(Error::unavailable(format!(
            "more than {COUNTED_ROWS_MAX} jobs and workflows ended in minutes that are not folded yet: an engine that runs folds \
             them; until then ask for fewer hours"
        )));
    }
    Ok(found.into_minutes())
}

/// Adds the totals of what ended, from the rows of jobs and workflows themselves; false when there are more than `rows_max` of them.
async fn ended(
    db: &mut Connection,
    first: Minute,
    end: Minute,
    rows_max: u64,
    counted: &mut Gathered,
) -> Result<bool> {
    let (from, to) = (first.saturating_mul(MINUTE_US), end.saturating_mul(MINUTE_US));
    let mut rows_left = rows_max;
    if first >= end {
        return Ok(true);
    }
    let mut paths: BTreeMap<Minute, Vec<Path>> = BTreeMap::new();
    {
        // By state, because that is how the index goes.
        let mut rows = sqlx::query(
            "SELECT w.id, w.namespace, w.state, w.created_at, w.finished_at, t.name AS template FROM workflows w \
             JOIN templates t ON t.digest = w.template_digest WHERE w.state IN ('completed', 'failed', 'cancelled') \
             AND w.finished_at IS NOT NULL AND w.finished_at >= $1 AND w.finished_at < $2 ORDER BY w.finished_at, w.id",
        )
        .bind(from)
        .bind(to)
        .fetch(&mut *db);
        while let Some(row) = rows.try_next().await? {
            let Some(left) = rows_left.checked_sub(1) else { return Ok(false) };
            rows_left = left;
            let minute = minute_of(&row)?;
            let series = Series {
                kind: Kind::Workflow,
                namespace: row.try_get("namespace")?,
                template: row.try_get("template")?,
                step: String::new(),
                handler: String::new(),
                queue: String::new(),
            };
            let ended = Ended {
                state: jobs::state(&row, "state")?,
                lasted: between(&row, "created_at", "finished_at")?.unwrap_or_default(),
                ran: None,
                waited: None,
                code: None,
            };
            let looked_at = paths.entry(minute).or_default();
            if ended.state == JobState::Completed && looked_at.len() < PATHS_MAX {
                looked_at.push(Path { workflow: row.try_get("id")?, template: series.template.clone() });
            }
            counted.add(minute, series, &ended);
        }
    }
    {
        let mut rows = sqlx::query(
            concat!(
                "SELECT j.namespace, j.queue, j.handler, j.state, j.error, j.created_at, j.due_at, j.started_at, j.finished_at, ",
                ran_until!(),
                " AS ran_until FROM jobs j WHERE j.state IN ('completed', 'failed', 'cancelled', 'superseded', 'skipped', 'resolved') \
                 AND j.finished_at IS NOT NULL AND j.workflow_id IS NULL AND j.finished_at >= $1 AND j.finished_at < $2",
            ),
        )
        .bind(from)
        .bind(to)
        .fetch(&mut *db);
        while let Some(row) = rows.try_next().await? {
            let Some(left) = rows_left.checked_sub(1) else { return Ok(false) };
            rows_left = left;
            let series = series_of(&row, Kind::Job, String::new(), String::new())?;
            counted.add(minute_of(&row)?, series, &ended_of(&row)?);
        }
    }
    {
        // Children of a step count under its name: there may be thousands of them.
        let mut rows = sqlx::query(
            concat!(
                "SELECT j.namespace, j.queue, j.handler, COALESCE(p.step, j.step) AS step, j.state, j.error, j.created_at, j.due_at, \
                 j.started_at, j.finished_at, t.name AS template, ",
                ran_until!(),
                " AS ran_until FROM jobs j JOIN workflows w ON w.id = j.workflow_id \
                 JOIN templates t ON t.digest = w.template_digest LEFT JOIN jobs p ON p.id = j.parent_id \
                 WHERE j.finished_at IS NOT NULL AND j.workflow_id IS NOT NULL AND j.finished_at >= $1 AND j.finished_at < $2",
            ),
        )
        .bind(from)
        .bind(to)
        .fetch(&mut *db);
        while let Some(row) = rows.try_next().await? {
            let Some(left) = rows_left.checked_sub(1) else { return Ok(false) };
            rows_left = left;
            let series = series_of(&row, Kind::Step, row.try_get("template")?, row.try_get("step")?)?;
            let ended = ended_of(&row)?;
            // Steps are what handlers ran. One that failed before it began is an error all the same.
            if !series.is_of_handlers() || (ended.ran.is_none() && ended.state != JobState::Failed) {
                continue;
            }
            counted.add(minute_of(&row)?, series, &ended);
        }
    }
    for (minute, looked_at) in paths {
        for path in looked_at {
            follow(db, minute, &path, counted).await?;
        }
    }
    Ok(true)
}

/// A workflow whose critical path is looked at.
struct Path {
    workflow: Uuid,
    template: String,
}

/// Adds to each step of a workflow how long it was on the critical path, and how long that is. One that was split took as long as the
/// longest of its children, and that counts for those.
async fn follow(db: &mut Connection, minute: Minute, path: &Path, counted: &mut Gathered) -> Result<()> {
    let rows = sqlx::query(concat!(
        "SELECT j.id, j.namespace, j.queue, j.handler, j.step, j.state, j.started_at, ",
        ran_until!(),
        " AS ran_until FROM jobs j WHERE j.workflow_id = $1 AND j.parent_id IS NULL ORDER BY j.id",
    ))
    .bind(path.workflow)
    .fetch_all(&mut *db)
    .await?;
    let children = sqlx::query(
        concat!(
            "SELECT j.parent_id, j.namespace, j.queue, j.handler, j.started_at, ",
            ran_until!(),
            " AS ran_until FROM jobs j WHERE j.workflow_id = $1 AND j.parent_id IS NOT NULL AND j.started_at IS NOT NULL ORDER BY j.id",
        ),
    )
    .bind(path.workflow)
    .fetch_all(&mut *db)
    .await?;
    let mut longest: BTreeMap<Uuid, (Duration, &Row)> = BTreeMap::new();
    for child in &children {
        let Some(ran) = between(child, "started_at", "ran_until")? else { continue };
        let known = longest.entry(child.try_get("parent_id")?).or_insert((ran, child));
        if ran > known.0 {
            *known = (ran, child);
        }
    }
    let edges = sqlx::query(
        "SELECT e.parent_id, e.child_id FROM job_edges e JOIN jobs p ON p.id = e.parent_id WHERE p.workflow_id = $1",
    )
    .bind(path.workflow)
    .fetch_all(db)
    .await?;
    let mut places: BTreeMap<Uuid, usize> = BTreeMap::new();
    let mut facts = Vec::with_capacity(rows.len());
    for (place, row) in rows.iter().enumerate() {
        let id: Uuid = row.try_get("id")?;
        places.insert(id, place);
        let own = between(row, "started_at", "ran_until")?.unwrap_or_default();
        let ran = longest.get(&id).map_or(own, |(ran, _)| own.max(*ran));
        facts.push(StepFacts {
            state: Some(jobs::state(row, "state")?),
            started_at: Some(Timestamp::default()),
            finished_at: Some(Timestamp::default().plus(ran)),
            ..StepFacts::default()
        });
    }
    let mut dependencies = vec![Vec::new(); rows.len()];
    for edge in &edges {
        let (parent, child): (Uuid, Uuid) = (edge.try_get("parent_id")?, edge.try_get("child_id")?);
        if let (Some(parent), Some(child)) = (places.get(&parent), places.get(&child)) {
            dependencies[*child].push(*parent);
        }
    }
    let graph = Graph::new(dependencies)
        .map_err(|error| Error::broken(format!("workflow {}: {error}", path.workflow)))?;
    let analysis = analyze(&graph, &facts, Timestamp::default());
    let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    for (row, plan) in rows.iter().zip(&analysis.steps) {
        let done_by = longest.get(&row.try_get("id")?).map_or(row, |(_, child)| *child);
        let series = series_of(done_by, Kind::Step, path.template.clone(), row.try_get("step")?)?;
        if !series.is_of_handlers() {
            continue;
        }
        let on_path = Totals {
            paths_us: us(analysis.critical_path.length),
            critical_us: if plan.is_critical { us(plan.duration) } else { 0 },
            ..Totals::default()
        };
        counted.merge(minute, series, &on_path);
    }
    Ok(())
}

fn series_of(row: &Row, kind: Kind, template: String, step: String) -> Result<Series> {
    Ok(Series {
        kind,
        namespace: row.try_get("namespace")?,
        template,
        step,
        handler: row.try_get("handler")?,
        queue: row.try_get("queue")?,
    })
}

fn ended_of(row: &Row) -> Result<Ended> {
    let state = jobs::state(row, "state")?;
    let error: Option<&str> = row.try_get("error")?;
    let code = match error.filter(|_| state == JobState::Failed) {
        Some(error) => {
            let error: JobError = jobs::json("error", error)?;
            let kind = jobs::to_json(&error.kind)?;
            Some(error.code.unwrap_or_else(|| kind.trim_matches('"').to_owned()))
        }
        None => None,
    };
    Ok(Ended {
        state,
        lasted: between(row, "created_at", "finished_at")?.unwrap_or_default(),
        ran: between(row, "started_at", "ran_until")?,
        waited: waited(row)?,
        code,
    })
}

/// How long it was due before its last attempt; `None` when that is not known any more, because it is due anew since.
fn waited(row: &Row) -> Result<Option<Duration>> {
    let due_and_started = jobs::instant(row, "due_at")?.zip(jobs::instant(row, "started_at")?);
    Ok(due_and_started.filter(|(due, started)| due <= started).map(|(due, started)| started.since(due)))
}

fn between(row: &Row, from: &str, to: &str) -> Result<Option<Duration>> {
    Ok(jobs::instant(row, from)?.zip(jobs::instant(row, to)?).map(|(from, to)| to.since(from)))
}

fn minute_of(row: &Row) -> Result<Minute> {
    Ok(row.try_get::<i64, _>("finished_at")?.div_euclid(MINUTE_US))
}

async fn active(db: &mut Connection, filter: &Filter, since: Timestamp) -> Result<Active> {
    let (mut tasks, mut submitted) = (0, 0);
    let mut add = |row: &Row| -> Result<()> {
        tasks += row.try_get::<i64, _>("active")?;
        submitted += row.try_get::<i64, _>("submitted")?;
        Ok(())
    };
    if filter.handler.is_none() && filter.queue.is_none() {
        let row = sqlx::query(
            "SELECT CAST(count(*) AS BIGINT) AS active, CAST(COALESCE(SUM(CASE WHEN created_at >= $4 THEN 1 ELSE 0 END), 0) AS BIGINT) \
             AS submitted FROM (SELECT w.created_at FROM workflows w WHERE w.finished_at IS NULL \
             AND (CAST($1 AS TEXT) IS NULL OR w.namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR EXISTS (SELECT 1 FROM templates t \
             WHERE t.digest = w.template_digest AND t.name = $2)) LIMIT $3) AS a",
        )
        .bind(&filter.namespace)
        .bind(&filter.template)
        .bind(ACTIVE_MAX)
        .bind(since.micros())
        .fetch_one(&mut *db)
        .await?;
        add(&row)?;
    }
    if filter.template.is_none() {
        // One look for each of the indexes of what is queued and what runs.
        for is_active in [
            "SELECT CAST(count(*) AS BIGINT) AS active, CAST(COALESCE(SUM(CASE WHEN created_at >= $5 THEN 1 ELSE 0 END), 0) AS BIGINT) \
             AS submitted FROM (SELECT created_at FROM jobs WHERE state = 'queued' AND concurrency_key IS NULL \
             AND workflow_id IS NULL AND (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR handler = $2) \
             AND (CAST($3 AS TEXT) IS NULL OR queue = $3) LIMIT $4) AS a",
            "SELECT CAST(count(*) AS BIGINT) AS active, CAST(COALESCE(SUM(CASE WHEN created_at >= $5 THEN 1 ELSE 0 END), 0) AS BIGINT) \
             AS submitted FROM (SELECT created_at FROM jobs WHERE state = 'queued' AND concurrency_key IS NOT NULL \
             AND workflow_id IS NULL AND (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR handler = $2) \
             AND (CAST($3 AS TEXT) IS NULL OR queue = $3) LIMIT $4) AS a",
            "SELECT CAST(count(*) AS BIGINT) AS active, CAST(COALESCE(SUM(CASE WHEN created_at >= $5 THEN 1 ELSE 0 END), 0) AS BIGINT) \
             AS submitted FROM (SELECT created_at FROM jobs WHERE state = 'running' \
             AND session_id IS NOT NULL AND workflow_id IS NULL AND (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR handler = $2) \
             AND (CAST($3 AS TEXT) IS NULL OR queue = $3) LIMIT $4) AS a",
        ] {
            let row = sqlx::query(is_active)
                .bind(&filter.namespace)
                .bind(&filter.handler)
                .bind(&filter.queue)
                .bind(ACTIVE_MAX)
                .bind(since.micros())
                .fetch_one(&mut *db)
                .await?;
            add(&row)?;
        }
    }
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    Ok(Active { tasks: count(tasks), submitted: count(submitted) })
}
