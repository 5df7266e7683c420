//! Subscribers: who is told, and whether.

use std::time::Duration;

use recache_model::event::{DELIVERY_AGE_MAX, EventFilter, STATE_CHANGES, state_changes_of};
use recache_model::ids::SubscriberId;
use recache_model::retry::RetryPolicy;
use recache_model::time::Timestamp;
use recache_model::unique::key_problem;
use recache_model::webhook::Secret;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row, watch};
use super::effects::Effects;
use super::{event_stream, jobs};
use crate::error::{Error, Result};
use crate::events::{
    DELIVERY_TIMEOUT_MAX, NewSubscriber, SUBSCRIBERS_MAX, SubscriberKind, SubscriberRecord, SubscriberState,
    URL_BYTES_MAX,
};
use crate::queues::{COUNTED_MAX, Word};

/// Without the secrets: what is not read cannot be shown.
macro_rules! subscriber_columns {
    () => {
        "id, name, url, namespace, types, retry, timeout_ms, state, state_at, state_actor, state_reason, failures, \
         rest_until, old_secret_until, created_at, (SELECT CAST(count(*) AS BIGINT) FROM (SELECT 1 FROM deliveries d \
         WHERE d.subscriber_id = subscribers.id AND d.state = 'pending' LIMIT $1) AS w) AS waiting, \
         (SELECT CAST(count(*) AS BIGINT) FROM (SELECT 1 FROM deliveries d WHERE d.subscriber_id = subscribers.id \
         AND d.state = 'dead' LIMIT $1) AS g) AS dead"
    };
}

fn record(row: &Row) -> Result<SubscriberRecord> {
    let state: String = row.try_get("state")?;
    let (rest_until, waiting, dead): (i64, i64, i64) =
        (row.try_get("rest_until")?, row.try_get("waiting")?, row.try_get("dead")?);
    Ok(SubscriberRecord {
        id: SubscriberId::from_uuid(row.try_get("id")?),
        name: row.try_get("name")?,
        url: row.try_get("url")?,
        filter: EventFilter {
            types: jobs::json("types", row.try_get("types")?)?,
            namespace: row.try_get("namespace")?,
        },
        retry: jobs::json("retry", row.try_get("retry")?)?,
        timeout: jobs::milliseconds(row, "timeout_ms")?.unwrap_or_default(),
        state: state.parse().map_err(|error| Error::broken(format!("state: {error}")))?,
        state_at: Timestamp::from_micros(row.try_get("state_at")?),
        word: Word { actor: row.try_get("state_actor")?, reason: row.try_get("state_reason")? },
        failures: jobs::count(row, "failures")?,
        rest_until: (rest_until > 0).then(|| Timestamp::from_micros(rest_until)),
        old_secret_until: jobs::instant(row, "old_secret_until")?,
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
        waiting: u64::try_from(waiting).unwrap_or(0),
        dead: u64::try_from(dead).unwrap_or(0),
    })
}

fn check(new: &NewSubscriber) -> Result<()> {
    let mut problems: Vec<String> = key_problem("name of a subscriber", &new.name).into_iter().collect();
    problems.extend(new.filter.check().err().map(|problem| problem.to_string()));
    problems.extend(new.filter.namespace.as_deref().and_then(|name| key_problem("namespace", name)));
    if let SubscriberKind::Webhook { url, .. } = &new.kind
        && (url.is_empty() || url.len() > URL_BYTES_MAX || url.contains('\0'))
    {
        problems.push(format!("an address has 1 to {URL_BYTES_MAX} bytes and no NUL, not {}", url.len()));
    }
    if new.timeout.is_zero() || new.timeout > DELIVERY_TIMEOUT_MAX {
        problems.push(format!(
            "a try may take up to {} s, and more than 0: not {} ms",
            DELIVERY_TIMEOUT_MAX.as_secs(),
            new.timeout.as_millis()
        ));
    }
    problems.extend(new.retry.problems());
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
}

pub(super) async fn put(
    db: &mut Connection,
    now: Timestamp,
    new: &NewSubscriber,
) -> Result<SubscriberRecord> {
    check(new)?;
    let types = jobs::to_json(&new.filter.types)?;
    match (find(db, &new.name).await?, &new.kind) {
        (None, kind) => {
            let count = sqlx::query("SELECT CAST(count(*) AS BIGINT) AS count FROM subscribers")
                .fetch_one(&mut *db)
                .await?
                .try_get::<i64, _>("count")?;
            if count >= i64::from(SUBSCRIBERS_MAX) {
                return Err(Error::Conflict(format!(
                    "there are {count} subscribers; the limit is {SUBSCRIBERS_MAX}"
                )));
            }
            insert(db, now, new, kind, &types).await?;
        }
        (Some((_, true, _)), SubscriberKind::Webhook { .. }) => {
            return Err(Error::Conflict(format!("there is a webhook `{}` already", new.name)));
        }
        (Some((_, is_webhook, _)), kind) if is_webhook != matches!(kind, SubscriberKind::Webhook { .. }) => {
            return Err(Error::Conflict(format!(
                "there is another kind of subscriber called `{}`",
                new.name
            )));
        }
        (Some((id, ..)), _) => {
            sqlx::query(
                "UPDATE subscribers SET types = $2, namespace = $3, retry = $4, timeout_ms = $5 WHERE id = $1 \
                 AND (types <> $2 OR COALESCE(namespace, '') <> COALESCE($3, '') OR retry <> $4 OR timeout_ms <> $5)",
            )
            .bind(id)
            .bind(&types)
            .bind(&new.filter.namespace)
            .bind(jobs::to_json(&new.retry)?)
            .bind(jobs::timeout_ms(Some(new.timeout)))
            .execute(&mut *db)
            .await?;
        }
    }
    watch(db, now).await?;
    get(db, &new.name).await
}

async fn insert(
    db: &mut Connection,
    now: Timestamp,
    new: &NewSubscriber,
    kind: &SubscriberKind,
    types: &str,
) -> Result<()> {
    let (word, url, secret) = match kind {
        SubscriberKind::Handler => ("handler", None, None),
        SubscriberKind::Webhook { url, secret } => ("webhook", Some(url.as_str()), Some(secret.reveal())),
    };
    // Another process may be registering the same handler: whoever comes second finds it.
    sqlx::query(
        "INSERT INTO subscribers (id, name, kind, namespace, types, url, secret, retry, timeout_ms, state_at, state_actor, \
         state_reason, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'recache', 'added', $10) \
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(SubscriberId::make().uuid())
    .bind(&new.name)
    .bind(word)
    .bind(&new.filter.namespace)
    .bind(types)
    .bind(url)
    .bind(secret)
    .bind(jobs::to_json::<RetryPolicy>(&new.retry)?)
    .bind(jobs::timeout_ms(Some(new.timeout)))
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

/// Its id, whether it is a webhook, and its state; locked.
async fn find(db: &mut Connection, name: &str) -> Result<Option<(Uuid, bool, SubscriberState)>> {
    let row = sqlx::query(concat!("SELECT id, kind, state FROM subscribers WHERE name = $1", for_update!()))
        .bind(name)
        .fetch_optional(db)
        .await?;
    row.map(|row| {
        let state: String = row.try_get("state")?;
        let state = state.parse().map_err(|error| Error::broken(format!("state: {error}")))?;
        Ok((row.try_get("id")?, row.try_get::<String, _>("kind")? == "webhook", state))
    })
    .transpose()
}

async fn found(db: &mut Connection, name: &str) -> Result<(Uuid, bool, SubscriberState)> {
    find(db, name).await?.ok_or_else(|| Error::not_found("subscriber", name))
}

/// The same, of one that is still told, or will be.
async fn found_alive(db: &mut Connection, name: &str) -> Result<(Uuid, bool, SubscriberState)> {
    let found = found(db, name).await?;
    if found.2 == SubscriberState::Gone {
        let why = format!("subscriber `{name}` is gone for good: remove it, and add another one");
        return Err(Error::Conflict(why));
    }
    Ok(found)
}

pub(super) async fn get(db: &mut Connection, name: &str) -> Result<SubscriberRecord> {
    let row = sqlx::query(concat!("SELECT ", subscriber_columns!(), " FROM subscribers WHERE name = $2"))
        .bind(COUNTED_MAX)
        .bind(name)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::not_found("subscriber", name))?;
    record(&row)
}

pub(super) async fn list(db: &mut Connection) -> Result<Vec<SubscriberRecord>> {
    let rows =
        sqlx::query(concat!("SELECT ", subscriber_columns!(), " FROM subscribers ORDER BY name LIMIT $2"))
            .bind(COUNTED_MAX)
            .bind(i64::from(SUBSCRIBERS_MAX))
            .fetch_all(db)
            .await?;
    rows.iter().map(record).collect()
}

pub(super) async fn pause(db: &mut Connection, now: Timestamp, name: &str, word: &Word) -> Result<()> {
    word.check()?;
    let (id, ..) = found_alive(db, name).await?;
    set_state(db, now, id, SubscriberState::Paused, word).await
}

pub(super) async fn resume(
    db: &mut Connection,
    now: Timestamp,
    name: &str,
    word: &Word,
    effects: &mut Effects,
) -> Result<bool> {
    let (id, _, state) = found_alive(db, name).await?;
    sqlx::query("UPDATE subscribers SET failures = 0, rest_until = 0 WHERE id = $1")
        .bind(id)
        .execute(&mut *db)
        .await?;
    effects.events_written();
    if state != SubscriberState::Paused {
        return Ok(false);
    }
    set_state(db, now, id, SubscriberState::Active, word).await?;
    Ok(true)
}

pub(super) async fn set_state(
    db: &mut Connection,
    now: Timestamp,
    id: Uuid,
    state: SubscriberState,
    word: &Word,
) -> Result<()> {
    sqlx::query(
        "UPDATE subscribers SET state = $2, state_at = $3, state_actor = $4, state_reason = $5 WHERE id = $1",
    )
    .bind(id)
    .bind(state.as_str())
    .bind(now.micros())
    .bind(&word.actor)
    .bind(&word.reason)
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn rotate(
    db: &mut Connection,
    now: Timestamp,
    name: &str,
    secret: &Secret,
    overlap: Duration,
) -> Result<SubscriberRecord> {
    let (id, is_webhook, _) = found_alive(db, name).await?;
    if !is_webhook {
        return Err(Error::Conflict(format!("subscriber `{name}` is no webhook and has no secret")));
    }
    if overlap > DELIVERY_AGE_MAX {
        let max = DELIVERY_AGE_MAX.as_secs() / 3600;
        return Err(Error::Invalid(format!("two secrets may be good at once for {max} h, not longer")));
    }
    sqlx::query(
        "UPDATE subscribers SET old_secret = CASE WHEN $3 THEN secret END, old_secret_until = CASE WHEN $3 THEN $4 END, \
         secret = $2 WHERE id = $1",
    )
    .bind(id)
    .bind(secret.reveal())
    .bind(!overlap.is_zero())
    .bind(now.plus(overlap).micros())
    .execute(&mut *db)
    .await?;
    get(db, name).await
}

pub(super) async fn remove(db: &mut Connection, now: Timestamp, name: &str, rows_max: u32) -> Result<bool> {
    let (id, _, state) = found(db, name).await?;
    if state != SubscriberState::Gone {
        // Nothing more is handed to it while its deliveries are removed, however many calls that takes.
        set_state(db, now, id, SubscriberState::Gone, &Word::new("operator", "it is being removed")).await?;
    }
    let removed = sqlx::query(
        "DELETE FROM deliveries WHERE subscriber_id = $1 AND event_id IN (SELECT event_id FROM deliveries \
         WHERE subscriber_id = $1 LIMIT $2)",
    )
    .bind(id)
    .bind(i64::from(rows_max))
    .execute(&mut *db)
    .await?
    .rows_affected();
    let is_last = removed < u64::from(rows_max);
    if is_last {
        sqlx::query("DELETE FROM subscribers WHERE id = $1").bind(id).execute(&mut *db).await?;
    }
    watch(db, now).await?;
    Ok(is_last)
}

/// Changes of state are written while somebody asks for them, and cost nothing otherwise.
pub(super) async fn watch(db: &mut Connection, now: Timestamp) -> Result<()> {
    event_stream::lock(db).await?;
    let mut patterns = event_stream::listened(db, now).await?;
    let rows = sqlx::query("SELECT types FROM subscribers WHERE state <> 'gone'").fetch_all(&mut *db).await?;
    for row in &rows {
        patterns.extend(jobs::json::<Vec<String>>("types", row.try_get("types")?)?);
    }
    let wanted = state_changes_of(patterns.iter().map(String::as_str));
    let known = sqlx::query("SELECT type FROM events_wanted").fetch_all(&mut *db).await?;
    let known = known.iter().map(|row| Ok(row.try_get("type")?)).collect::<Result<Vec<String>>>()?;
    let added: Vec<&str> =
        wanted.iter().copied().filter(|name| !known.iter().any(|known| known == name)).collect();
    if !added.is_empty() {
        // Nobody's place: whoever has seen a later one was there when these began.
        let since = event_stream::advance(db, 1).await?;
        for name in &added {
            sqlx::query(
                "INSERT INTO events_wanted (type, since_place) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            )
            .bind(*name)
            .bind(since)
            .execute(&mut *db)
            .await?;
        }
    }
    for name in STATE_CHANGES {
        if !wanted.contains(&name) && known.iter().any(|known| known == name) {
            sqlx::query("DELETE FROM events_wanted WHERE type = $1").bind(name).execute(&mut *db).await?;
        }
    }
    let need = |beginning: &str| watch::Need {
        is_wanted: wanted.iter().any(|name| name.starts_with(beginning)),
        has_more: added.iter().any(|name| name.starts_with(beginning)),
    };
    watch::set(db, [need("job."), need("workflow."), need("view.")]).await
}
