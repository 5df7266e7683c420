//! Queues: pause, resume, limit, look.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use recache_model::limits::Limit;
use recache_model::time::{Timestamp, micros};
use recache_model::unique::key_problem;
use sqlx::Row as _;

use super::super::{Connection, Driver, Row};
use super::effects::Effects;
use super::jobs;
use super::limited::limit;
use crate::error::{Error, Result};
use crate::queues::{COUNTED_MAX, LISTED_MAX, LimitRecord, LimitScope, Pause, QueueRecord, Queues, Word};
use crate::records::Due;

/// Where nobody said until when.
const FOR_GOOD: i64 = i64::MAX;

#[async_trait]
impl Queues for Driver {
    async fn queues_list(&self) -> Result<Vec<QueueRecord>> {
        self.read(look!([] db, now => list(db, now).await)).await
    }

    async fn queue_get(&self, queue: &str) -> Result<QueueRecord> {
        let queue = queue.to_owned();
        self.read(look!([queue] db, now => get(db, now, &queue).await)).await
    }

    async fn queue_pause(&self, queue: &str, until: Option<Due>, word: Word) -> Result<()> {
        let queue = queue.to_owned();
        self.write(work!([queue, word] db, now, effects => pause(db, now, &queue, until, &word).await)).await
    }

    async fn queue_resume(&self, queue: &str) -> Result<bool> {
        let queue = queue.to_owned();
        self.write(work!([queue] db, now, effects => resume(db, now, &queue, effects).await)).await
    }

    async fn limit_set(&self, scope: LimitScope, limit: Limit, actor: &str) -> Result<()> {
        let word = Word::new(actor, "a limit");
        self.write(work!([scope, word] db, now, effects => set(db, now, &scope, limit, &word, effects).await))
            .await
    }

    async fn limits_list(&self) -> Result<Vec<LimitRecord>> {
        self.read(look!([] db, now => limits(db).await)).await
    }
}

async fn list(db: &mut Connection, now: Timestamp) -> Result<Vec<QueueRecord>> {
    let rows = sqlx::query(
        "WITH RECURSIVE used (queue) AS (SELECT MIN(queue) FROM jobs WHERE state = 'queued' \
         AND concurrency_key IS NULL UNION ALL SELECT (SELECT MIN(j.queue) FROM jobs j WHERE j.state = 'queued' \
         AND j.concurrency_key IS NULL AND j.queue > used.queue) FROM used WHERE used.queue IS NOT NULL), \
         keyed (queue) AS (SELECT MIN(queue) FROM jobs WHERE state = 'queued' AND concurrency_key IS NOT NULL \
         UNION ALL SELECT (SELECT MIN(j.queue) FROM jobs j WHERE j.state = 'queued' \
         AND j.concurrency_key IS NOT NULL AND j.queue > keyed.queue) FROM keyed WHERE keyed.queue IS NOT NULL) \
         SELECT queue FROM used WHERE queue IS NOT NULL UNION SELECT queue FROM keyed WHERE queue IS NOT NULL \
         UNION SELECT queue FROM jobs WHERE state = 'running' AND session_id IS NOT NULL UNION SELECT name FROM queues WHERE paused_until > $1 \
         UNION SELECT name FROM limits WHERE scope = 'queue' ORDER BY queue LIMIT $2",
    )
    .bind(now.micros())
    .bind(LISTED_MAX)
    .fetch_all(&mut *db)
    .await?;
    let names = rows.iter().map(|row| Ok(row.try_get("queue")?)).collect::<Result<BTreeSet<String>>>()?;
    let mut queues = Vec::with_capacity(names.len());
    for name in names {
        queues.push(get(db, now, &name).await?);
    }
    Ok(queues)
}

async fn get(db: &mut Connection, now: Timestamp, queue: &str) -> Result<QueueRecord> {
    let paused = sqlx::query(
        "SELECT paused_at, paused_until, reason, actor FROM queues WHERE name = $1 AND paused_until > $2",
    )
    .bind(queue)
    .bind(now.micros())
    .fetch_optional(&mut *db)
    .await?;
    let limited = sqlx::query(
        "SELECT running_max, starts_max, period_us FROM limits WHERE scope = 'queue' AND namespace = '' AND name = $1",
    )
    .bind(queue)
    .fetch_optional(&mut *db)
    .await?;
    let counts = sqlx::query(
        "SELECT (SELECT CAST(count(*) AS BIGINT) FROM (SELECT 1 FROM jobs WHERE queue = $1 AND state = 'queued' \
         AND concurrency_key IS NULL LIMIT $2) AS a) + (SELECT CAST(count(*) AS BIGINT) FROM (SELECT 1 FROM jobs \
         WHERE queue = $1 AND state = 'queued' AND concurrency_key IS NOT NULL LIMIT $2) AS b) AS queued, \
         (SELECT CAST(count(*) AS BIGINT) FROM jobs WHERE state = 'running' AND session_id IS NOT NULL AND queue = $1) AS running",
    )
    .bind(queue)
    .bind(COUNTED_MAX)
    .fetch_one(&mut *db)
    .await?;
    let due = sqlx::query(
        "SELECT MIN(due_at) AS due_at FROM (SELECT * FROM (SELECT due_at FROM jobs WHERE queue = $1 \
         AND state = 'queued' AND concurrency_key IS NULL AND due_at <= $2 ORDER BY priority DESC, due_at LIMIT 1) \
         AS a UNION ALL SELECT * FROM (SELECT due_at FROM jobs WHERE queue = $1 AND state = 'queued' \
         AND concurrency_key IS NOT NULL AND due_at <= $2 ORDER BY priority DESC, due_at LIMIT 1) AS b) AS c",
    )
    .bind(queue)
    .bind(now.micros())
    .fetch_one(db)
    .await?;
    let queued: i64 = counts.try_get("queued")?;
    Ok(QueueRecord {
        name: queue.to_owned(),
        pause: paused.as_ref().map(pause_of).transpose()?,
        limit: limited.as_ref().map(limit).transpose()?.unwrap_or_default(),
        queued: queued.min(COUNTED_MAX),
        running: counts.try_get("running")?,
        due_since: jobs::instant(&due, "due_at")?,
    })
}

fn pause_of(row: &Row) -> Result<Pause> {
    let until: i64 = row.try_get("paused_until")?;
    Ok(Pause {
        at: Timestamp::from_micros(row.try_get("paused_at")?),
        until: (until != FOR_GOOD).then(|| Timestamp::from_micros(until)),
        word: Word::new(row.try_get::<String, _>("actor")?, row.try_get::<String, _>("reason")?),
    })
}

async fn pause(
    db: &mut Connection,
    now: Timestamp,
    queue: &str,
    until: Option<Due>,
    word: &Word,
) -> Result<()> {
    word.check()?;
    if let Some(problem) = key_problem("queue", queue) {
        return Err(Error::Invalid(problem));
    }
    let until = until.map_or(FOR_GOOD, |due| jobs::due_micros(due, now));
    if until <= now.micros() {
        return Err(Error::Invalid("a pause must end in the future".to_owned()));
    }
    sqlx::query(
        "INSERT INTO queues (name, paused_at, paused_until, reason, actor) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO UPDATE SET paused_until = excluded.paused_until, reason = excluded.reason, \
         actor = excluded.actor, paused_at = CASE WHEN queues.paused_until > $2 THEN queues.paused_at \
         ELSE excluded.paused_at END",
    )
    .bind(queue)
    .bind(now.micros())
    .bind(until)
    .bind(&word.reason)
    .bind(&word.actor)
    .execute(db)
    .await?;
    Ok(())
}

async fn resume(db: &mut Connection, now: Timestamp, queue: &str, effects: &mut Effects) -> Result<bool> {
    let rows = sqlx::query("DELETE FROM queues WHERE name = $1 RETURNING paused_until")
        .bind(queue)
        .fetch_all(db)
        .await?;
    let mut was_paused = false;
    for row in rows {
        was_paused |= row.try_get::<i64, _>("paused_until")? > now.micros();
    }
    effects.queued(queue);
    Ok(was_paused)
}

pub(super) async fn set(
    db: &mut Connection,
    now: Timestamp,
    scope: &LimitScope,
    limit: Limit,
    word: &Word,
    effects: &mut Effects,
) -> Result<()> {
    word.check()?;
    let mut problems = limit.problems();
    let (kind, namespace, name) = match scope {
        LimitScope::Queue(name) => ("queue", "", name),
        LimitScope::Handler(name) => ("handler", "", name),
        LimitScope::Key { namespace, key } => ("key", namespace.as_str(), key),
    };
    problems.extend(key_problem(kind, name));
    if kind == "key" && limit.rate.is_some() {
        problems.push("a concurrency key has no rate: set one for its queue or its handler".to_owned());
    }
    if !problems.is_empty() {
        return Err(Error::Invalid(problems.join("; ")));
    }
    if let LimitScope::Queue(name) = scope {
        effects.queued(name);
    }
    if limit.is_none() {
        sqlx::query("DELETE FROM limits WHERE scope = $1 AND namespace = $2 AND name = $3")
            .bind(kind)
            .bind(namespace)
            .bind(name)
            .execute(db)
            .await?;
        return Ok(());
    }
    // What a rate remembers stays: a rate that is changed does not begin anew.
    sqlx::query(
        "INSERT INTO limits (scope, namespace, name, running_max, starts_max, period_us, actor, changed_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (scope, namespace, name) DO UPDATE SET \
         running_max = excluded.running_max, starts_max = excluded.starts_max, period_us = excluded.period_us, \
         actor = excluded.actor, changed_at = excluded.changed_at",
    )
    .bind(kind)
    .bind(namespace)
    .bind(name)
    .bind(limit.running_max.map(i64::from))
    .bind(limit.rate.map(|rate| i64::from(rate.starts_max)))
    .bind(limit.rate.map(|rate| micros(rate.period)))
    .bind(&word.actor)
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

async fn limits(db: &mut Connection) -> Result<Vec<LimitRecord>> {
    let rows = sqlx::query(
        "SELECT scope, namespace, name, running_max, starts_max, period_us, actor, changed_at FROM limits \
         ORDER BY scope, namespace, name",
    )
    .fetch_all(db)
    .await?;
    let mut limits = BTreeMap::new();
    for row in &rows {
        let (namespace, name) = (row.try_get("namespace")?, row.try_get("name")?);
        let scope = match row.try_get("scope")? {
            "queue" => LimitScope::Queue(name),
            "handler" => LimitScope::Handler(name),
            _ => LimitScope::Key { namespace, key: name },
        };
        let record = LimitRecord {
            scope: scope.clone(),
            limit: limit(row)?,
            actor: row.try_get("actor")?,
            changed_at: Timestamp::from_micros(row.try_get("changed_at")?),
        };
        limits.insert(scope, record);
    }
    Ok(limits.into_values().collect())
}
