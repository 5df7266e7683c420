//! Claiming where limits or concurrency keys have a say.
//!
//! One statement cannot do it: the count of what runs must be read after the lock that keeps others from adding to it, and a
//! statement sees what was committed before it began. So a claim that a limit concerns is a short transaction: lock
//! the rows of the limits, count, look at candidates, choose ([`recache_model::limits::choose`]), take. Claims of
//! other queues and handlers do not meet it; claims of other keys meet only by chance (keys share
//! a few locks). Slots are counted over running rows: what a dead worker held is free when its lease is taken away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::limits::{Candidate, KEY_RUNNING_MAX, Limit, NamespacedKey, Rate, Room, Starts, choose};
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row, bulk, ids, texts};
use super::{jobs, sessions};
use crate::error::Result;
use crate::records::{ClaimRequest, ClaimedJob};

/// Waiting jobs of keys that a claim looks at in order of urgency.
const WINDOW_ROWS: i64 = 1_000;
/// Keys that a claim looks at one after the other when the window was full of jobs that may not begin.
const KEYS_MAX: i64 = 200;

/// Where the last look at keys one after the other ended, by queue: the next one goes on from there, so that every key has its turn.
#[derive(Debug, Default)]
pub(in super::super) struct KeyCursor(Mutex<HashMap<String, NamespacedKey>>);

impl KeyCursor {
    fn of(&self, queue: &str) -> NamespacedKey {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(queue).cloned().unwrap_or_default()
    }

    fn set(&self, queue: &str, key: NamespacedKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(queue.to_owned(), key);
    }
}

/// What a claim under limits brought.
#[derive(Debug, Default)]
pub(in super::super) struct LimitedClaim {
    pub(in super::super) jobs: Vec<ClaimedJob>,
    /// A rate lets more begin after this long.
    pub(in super::super) look_again: Option<Duration>,
}

/// A limit of a queue or a handler, locked.
struct LockedLimit {
    is_queue: bool,
    name: String,
    limit: Limit,
    starts: Starts,
}

pub(in super::super) async fn claim(
    db: &mut Connection,
    now: Timestamp,
    request: &ClaimRequest,
    cursor: &KeyCursor,
) -> Result<LimitedClaim> {
    let Some(scope) = scope(db, now, request).await? else { return Ok(LimitedClaim::default()) };
    let mut limits = lock_limits(db, request).await?;
    let mut room = room(db, now, &limits).await?;
    let paused = paused(db, now, &request.queues).await?;
    let queues: Vec<&String> = request
        .queues
        .iter()
        .filter(|queue| !paused.contains(*queue) && room.queues.get(*queue) != Some(&0))
        .collect();
    let handlers: Vec<String> =
        request.handlers.iter().filter(|handler| room.handlers.get(*handler) != Some(&0)).cloned().collect();
    let mut candidates = Vec::new();
    if !handlers.is_empty() {
        for queue in &queues {
            candidates.extend(without_key(db, now, queue, &handlers, &scope, request.rows_max).await?);
        }
        let keyed = with_key(db, now, &queues, &handlers, &scope, request.rows_max, cursor).await?;
        room.keys = keyed.1;
        candidates.extend(keyed.0);
    }
    let chosen = choose(candidates, room, request.rows_max);
    let jobs = take(db, now, request, &chosen).await?;
    let mut look_again = None;
    for locked in &mut limits {
        let Some(rate) = locked.limit.rate else { continue };
        let name = |job: &ClaimedJob| {
            if locked.is_queue { job.queue == locked.name } else { job.handler == locked.name }
        };
        let started = u64::try_from(jobs.iter().filter(|job| name(job)).count()).unwrap_or(u64::MAX);
        if started > 0 {
            locked.starts.add(rate, now, started);
            remember_starts(db, locked).await?;
        }
        let pause = locked.starts.next_free(rate, now);
        if !pause.is_zero() {
            look_again = Some(look_again.map_or(pause, |other: Duration| other.min(pause)));
        }
    }
    Ok(LimitedClaim { jobs, look_again })
}

/// Of whose jobs a session may have.
#[derive(Debug)]
struct Scope(Option<Vec<String>>);

impl Scope {
    fn has(&self, namespace: &str) -> bool {
        self.0.as_ref().is_none_or(|namespaces| namespaces.iter().any(|one| one == namespace))
    }
}

/// `None`: the session is not alive.
async fn scope(db: &mut Connection, now: Timestamp, request: &ClaimRequest) -> Result<Option<Scope>> {
    let row = sqlx::query("SELECT namespaces FROM sessions WHERE id = $1 AND expires_at > $2")
        .bind(request.session.uuid())
        .bind(now.micros())
        .fetch_optional(db)
        .await?;
    row.map(|row| Ok(Scope(sessions::namespaces(&row)?))).transpose()
}

/// In one order, so that claims wait for each other but never in a circle.
async fn lock_limits(db: &mut Connection, request: &ClaimRequest) -> Result<Vec<LockedLimit>> {
    let rows = sqlx::query(concat!(
        "SELECT scope, name, running_max, starts_max, period_us, starts FROM limits WHERE (scope = 'queue' AND name ",
        in_texts!("$1"),
        ") OR (scope = 'handler' AND name ",
        in_texts!("$2"),
        ") ORDER BY scope, name",
        for_update!()
    ))
    .bind(texts(&request.queues))
    .bind(texts(&request.handlers))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(LockedLimit {
                is_queue: row.try_get::<&str, _>("scope")? == "queue",
                name: row.try_get("name")?,
                limit: limit(row)?,
                starts: jobs::json("starts", row.try_get("starts")?)?,
            })
        })
        .collect()
}

/// The limit in a row.
pub(super) fn limit(row: &Row) -> Result<Limit> {
    let bounded = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    let starts_max: Option<i64> = row.try_get("starts_max")?;
    let period = jobs::duration(row.try_get("period_us")?);
    Ok(Limit {
        running_max: row.try_get::<Option<i64>, _>("running_max")?.map(bounded),
        rate: starts_max.zip(period).map(|(starts, period)| Rate { starts_max: bounded(starts), period }),
    })
}

/// What queues and handlers have room for, counted after their limits were locked.
async fn room(db: &mut Connection, now: Timestamp, limits: &[LockedLimit]) -> Result<Room> {
    let mut room = Room::default();
    let counts = limits.iter().any(|locked| locked.limit.running_max.is_some());
    let running = if counts { running(db).await? } else { Vec::new() };
    for locked in limits {
        let of_it = |(queue, handler, _): &&(String, String, i64)| {
            if locked.is_queue { *queue == locked.name } else { *handler == locked.name }
        };
        let sum: i64 = running.iter().filter(of_it).map(|(_, _, count)| count).sum();
        let by_count = locked
            .limit
            .running_max
            .map(|max| u64::from(max).saturating_sub(u64::try_from(sum).unwrap_or(0)));
        let by_rate = locked.limit.rate.map(|rate| locked.starts.free(rate, now));
        let Some(free) = by_count.into_iter().chain(by_rate).min() else { continue };
        let places = if locked.is_queue { &mut room.queues } else { &mut room.handlers };
        places.insert(locked.name.clone(), free);
    }
    Ok(room)
}

/// All that runs, by queue and handler. Running jobs are as many as all workers together hold, and have an index of their own.
async fn running(db: &mut Connection) -> Result<Vec<(String, String, i64)>> {
    let rows = sqlx::query(
        "SELECT queue, handler, CAST(count(*) AS BIGINT) AS running FROM jobs WHERE state = 'running' \
         AND session_id IS NOT NULL GROUP BY queue, handler",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("queue")?, row.try_get("handler")?, row.try_get("running")?)))
        .collect()
}

async fn paused(db: &mut Connection, now: Timestamp, queues: &[String]) -> Result<BTreeSet<String>> {
    let rows =
        sqlx::query(concat!("SELECT name FROM queues WHERE paused_until > $1 AND name ", in_texts!("$2")))
            .bind(now.micros())
            .bind(texts(queues))
            .fetch_all(db)
            .await?;
    rows.iter().map(|row| Ok(row.try_get("name")?)).collect()
}

async fn without_key(
    db: &mut Connection,
    now: Timestamp,
    queue: &str,
    handlers: &[String],
    scope: &Scope,
    rows_max: usize,
) -> Result<Vec<Candidate>> {
    let rows = sqlx::query(concat!(
        "SELECT id, queue, handler, namespace, concurrency_key, priority, due_at FROM jobs WHERE queue = $1 \
         AND state = 'queued' AND concurrency_key IS NULL AND due_at <= $2 AND attempt < attempts_max AND handler ",
        in_texts!("$3"),
        " AND ($6 OR namespace ",
        in_texts!("$5"),
        ") ORDER BY priority DESC, due_at, id LIMIT $4",
        for_update_skip_locked!()
    ))
    .bind(queue)
    .bind(now.micros())
    .bind(texts(handlers))
    .bind(i64::try_from(rows_max).unwrap_or(i64::MAX))
    .bind(texts(scope.0.as_deref().unwrap_or_default()))
    .bind(scope.0.is_none())
    .fetch_all(db)
    .await?;
    rows.iter().map(candidate).collect()
}

fn candidate(row: &Row) -> Result<Candidate> {
    let key: Option<String> = row.try_get("concurrency_key")?;
    let namespace: String = row.try_get("namespace")?;
    Ok(Candidate {
        id: JobId::from_uuid(row.try_get("id")?),
        queue: row.try_get("queue")?,
        handler: row.try_get("handler")?,
        key: key.map(|key| (namespace, key)),
        priority: row.try_get("priority")?,
        due_at: Timestamp::from_micros(row.try_get("due_at")?),
    })
}

/// Candidates with a concurrency key, and the room of their keys.
async fn with_key(
    db: &mut Connection,
    now: Timestamp,
    queues: &[&String],
    handlers: &[String],
    scope: &Scope,
    rows_max: usize,
    cursor: &KeyCursor,
) -> Result<(Vec<Candidate>, HashMap<NamespacedKey, u64>)> {
    let mut keys: BTreeMap<&str, BTreeSet<NamespacedKey>> = BTreeMap::new();
    for queue in queues {
        let found = keys_to_look_at(db, now, queue, handlers, scope, rows_max, cursor).await?;
        if !found.is_empty() {
            keys.insert(queue, found);
        }
    }
    let all: BTreeSet<NamespacedKey> = keys.values().flatten().cloned().collect();
    if all.is_empty() {
        return Ok((Vec::new(), HashMap::new()));
    }
    bulk::keys_lock(db, &all).await?;
    let room = room_of_keys(db, &all).await?;
    let mut candidates = Vec::new();
    for (queue, keys) in keys {
        let free: Vec<(&NamespacedKey, u64)> = keys
            .iter()
            .filter_map(|key| room.get(key).map(|free| (key, *free)))
            .filter(|(_, free)| *free > 0)
            .collect();
        for row in bulk::keyed_candidates(db, now, queue, &free, handlers).await? {
            candidates.push(candidate(&row)?);
        }
    }
    Ok((candidates, room))
}

/// Keys of jobs that could begin, were it not for the others of their key: those of the most urgent jobs, and where these are too
/// few because one key fills the window, some more, one after the other.
async fn keys_to_look_at(
    db: &mut Connection,
    now: Timestamp,
    queue: &str,
    handlers: &[String],
    scope: &Scope,
    rows_max: usize,
    cursor: &KeyCursor,
) -> Result<BTreeSet<NamespacedKey>> {
    let rows = sqlx::query(concat!(
        "SELECT namespace, concurrency_key FROM jobs WHERE queue = $1 AND state = 'queued' \
         AND concurrency_key IS NOT NULL AND due_at <= $2 AND attempt < attempts_max AND handler ",
        in_texts!("$3"),
        " AND ($6 OR namespace ",
        in_texts!("$5"),
        ") ORDER BY priority DESC, due_at, id LIMIT $4"
    ))
    .bind(queue)
    .bind(now.micros())
    .bind(texts(handlers))
    .bind(WINDOW_ROWS)
    .bind(texts(scope.0.as_deref().unwrap_or_default()))
    .bind(scope.0.is_none())
    .fetch_all(&mut *db)
    .await?;
    let mut keys = rows.iter().map(key_of).collect::<Result<BTreeSet<_>>>()?;
    let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= WINDOW_ROWS;
    if is_full && keys.len() < rows_max {
        let from = cursor.of(queue);
        let mut more = keys_after(db, queue, &from).await?;
        let is_end = i64::try_from(more.len()).unwrap_or(i64::MAX) < KEYS_MAX;
        // At the end it begins again.
        cursor.set(queue, more.last().filter(|_| !is_end).cloned().unwrap_or_default());
        if is_end && from != NamespacedKey::default() {
            more.extend(keys_after(db, queue, &NamespacedKey::default()).await?);
        }
        keys.extend(more.into_iter().filter(|(namespace, _)| scope.has(namespace)));
    }
    Ok(keys)
}

fn key_of(row: &Row) -> Result<NamespacedKey> {
    Ok((row.try_get("namespace")?, row.try_get("concurrency_key")?))
}

/// Two probes of the index for each key, however many jobs it has.
async fn keys_after(db: &mut Connection, queue: &str, from: &NamespacedKey) -> Result<Vec<NamespacedKey>> {
    let rows = sqlx::query(
        "WITH RECURSIVE k (namespace, concurrency_key, place) AS ( \
         SELECT CAST($2 AS TEXT), CAST($3 AS TEXT), CAST(0 AS BIGINT) UNION ALL \
         SELECT (SELECT j.namespace FROM jobs j WHERE j.queue = $1 AND j.state = 'queued' \
         AND j.concurrency_key IS NOT NULL AND (j.namespace, j.concurrency_key) > (k.namespace, k.concurrency_key) \
         ORDER BY j.namespace, j.concurrency_key LIMIT 1), \
         (SELECT j.concurrency_key FROM jobs j WHERE j.queue = $1 AND j.state = 'queued' \
         AND j.concurrency_key IS NOT NULL AND (j.namespace, j.concurrency_key) > (k.namespace, k.concurrency_key) \
         ORDER BY j.namespace, j.concurrency_key LIMIT 1), k.place + 1 \
         FROM k WHERE k.namespace IS NOT NULL AND k.place < $4) \
         SELECT namespace, concurrency_key FROM k WHERE place > 0 AND namespace IS NOT NULL ORDER BY place",
    )
    .bind(queue)
    .bind(&from.0)
    .bind(&from.1)
    .bind(KEYS_MAX)
    .fetch_all(db)
    .await?;
    rows.iter().map(key_of).collect()
}

/// Counted after the keys were locked.
async fn room_of_keys(
    db: &mut Connection,
    keys: &BTreeSet<NamespacedKey>,
) -> Result<HashMap<NamespacedKey, u64>> {
    let names: Vec<String> = keys.iter().map(|(_, key)| key.clone()).collect();
    let mut room: HashMap<NamespacedKey, u64> =
        keys.iter().map(|key| (key.clone(), KEY_RUNNING_MAX)).collect();
    let limits = sqlx::query(concat!(
        "SELECT namespace, name AS concurrency_key, running_max FROM limits WHERE scope = 'key' \
         AND running_max IS NOT NULL AND name ",
        in_texts!("$1")
    ))
    .bind(texts(&names))
    .fetch_all(&mut *db)
    .await?;
    for row in &limits {
        if let Some(free) = room.get_mut(&key_of(row)?) {
            *free = u64::try_from(row.try_get::<i64, _>("running_max")?).unwrap_or(0);
        }
    }
    let running = sqlx::query(concat!(
        "SELECT namespace, concurrency_key, CAST(count(*) AS BIGINT) AS running FROM jobs WHERE state = 'running' \
         AND concurrency_key IS NOT NULL AND concurrency_key ",
        in_texts!("$1"),
        " GROUP BY namespace, concurrency_key"
    ))
    .bind(texts(&names))
    .fetch_all(db)
    .await?;
    for row in &running {
        if let Some(free) = room.get_mut(&key_of(row)?) {
            *free = free.saturating_sub(u64::try_from(row.try_get::<i64, _>("running")?).unwrap_or(0));
        }
    }
    Ok(room)
}

/// Takes the chosen ones, which are locked.
async fn take(
    db: &mut Connection,
    now: Timestamp,
    request: &ClaimRequest,
    chosen: &[Candidate],
) -> Result<Vec<ClaimedJob>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let claim = Uuid::new_v4();
    let wanted: Vec<Uuid> = chosen.iter().map(|job| job.id.uuid()).collect();
    let rows = sqlx::query(concat!(
        "UPDATE jobs SET state = 'running', epoch = epoch + 1, claim = $2, session_id = $3, attempt = attempt + 1, \
         started_at = $4, transitions = transitions + 1, progress = NULL, message = NULL WHERE state = 'queued' AND id ",
        in_ids!("$1"),
        " RETURNING id, namespace, queue, handler, input, attempt, retry, attempts_max, timeout_ms, correlation_id, \
         trace_context, workflow_id, step, view_id, epoch, due_at, checkpoint"
    ))
    .bind(ids(&wanted))
    .bind(claim)
    .bind(request.session.uuid())
    .bind(now.micros())
    .fetch_all(&mut *db)
    .await?;
    sqlx::query(concat!(
        "INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
         SELECT id, transitions, $3, 'queued', 'running', attempt, epoch, session_id, NULL FROM jobs \
         WHERE claim = $2 AND id ",
        in_ids!("$1")
    ))
    .bind(ids(&wanted))
    .bind(claim)
    .bind(now.micros())
    .execute(db)
    .await?;
    let places: HashMap<JobId, usize> =
        chosen.iter().enumerate().map(|(place, job)| (job.id, place)).collect();
    let mut taken = rows
        .iter()
        .map(|row| Ok(ClaimedJob { is_limited: true, ..jobs::claimed(row, claim, now)? }))
        .collect::<Result<Vec<_>>>()?;
    taken.sort_by_key(|job| places.get(&job.token.job).copied());
    Ok(taken)
}

async fn remember_starts(db: &mut Connection, locked: &LockedLimit) -> Result<()> {
    sqlx::query("UPDATE limits SET starts = $3 WHERE scope = $1 AND namespace = '' AND name = $2")
        .bind(if locked.is_queue { "queue" } else { "handler" })
        .bind(&locked.name)
        .bind(jobs::to_json(&locked.starts)?)
        .execute(db)
        .await?;
    Ok(())
}
