//! Deliveries: claimed, sent by somebody else, settled.

use std::collections::HashSet;
use std::time::Duration;

use recache_model::event::DeliveryState;
use recache_model::ids::{EventId, SubscriberId};
use recache_model::time::{Timestamp, micros};
use recache_model::webhook::Secret;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row, bulk, ids};
use super::effects::Effects;
use super::{events, jobs, subscribers};
use crate::error::{Error, Result};
use crate::events::{
    ClaimedDeliveries, ClaimedDelivery, DELIVERY_ERROR_BYTES_MAX, DeliveryAttempt, DeliveryEnd,
    DeliveryFilter, DeliveryOutcome, DeliveryRecord, DeliveryToken, DueSubscriber, SubscriberState,
};
use crate::queues::Word;

pub(super) async fn due(db: &mut Connection, now: Timestamp) -> Result<Vec<DueSubscriber>> {
    let rows = sqlx::query(
        "SELECT id, name, kind, rest_until, (SELECT MIN(due_at) FROM deliveries d WHERE d.subscriber_id = subscribers.id \
         AND d.state = 'pending') AS due_at FROM subscribers WHERE state = 'active' ORDER BY id",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let rest_until: i64 = row.try_get("rest_until")?;
            let due_at: Option<i64> = row.try_get("due_at")?;
            Ok(DueSubscriber {
                id: SubscriberId::from_uuid(row.try_get("id")?),
                name: row.try_get("name")?,
                is_webhook: row.try_get::<String, _>("kind")? == "webhook",
                wait: due_at.map(|due_at| Timestamp::from_micros(due_at.max(rest_until)).since(now)),
            })
        })
        .collect()
}

pub(super) async fn claim(
    db: &mut Connection,
    now: Timestamp,
    subscriber: SubscriberId,
    lease: Duration,
    rows_max: u32,
) -> Result<Option<ClaimedDeliveries>> {
    let row = sqlx::query(concat!(
        "SELECT url, secret, old_secret, old_secret_until, retry, timeout_ms, failures FROM subscribers \
         WHERE id = $1 AND state = 'active' AND rest_until <= $2",
        for_update!()
    ))
    .bind(subscriber.uuid())
    .bind(now.micros())
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    give_up(db, now, subscriber, rows_max).await?;
    let failures = jobs::count(&row, "failures")?;
    // A subscriber that failed is tried with one, and until that has ended by nobody else.
    let rows_max = if failures > 0 { 1 } else { rows_max };
    let rows = sqlx::query(concat!(
        "SELECT event_id, attempt, attempts_max, attempts_each FROM deliveries WHERE subscriber_id = $1 AND state = 'pending' AND due_at <= $2 \
         ORDER BY due_at, event_id LIMIT $3",
        for_update_skip_locked!()
    ))
    .bind(subscriber.uuid())
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let claim = Uuid::new_v4();
    let wanted = rows.iter().map(|row| Ok(row.try_get("event_id")?)).collect::<Result<Vec<Uuid>>>()?;
    sqlx::query(concat!(
        "UPDATE deliveries SET claim = $2, due_at = $3, attempt = attempt + 1 WHERE subscriber_id = $1 AND event_id ",
        in_ids!("$4")
    ))
    .bind(subscriber.uuid())
    .bind(claim)
    .bind(now.plus(lease).micros())
    .bind(ids(&wanted))
    .execute(&mut *db)
    .await?;
    if failures > 0 {
        sqlx::query("UPDATE subscribers SET rest_until = $2 WHERE id = $1")
            .bind(subscriber.uuid())
            .bind(now.plus(lease).micros())
            .execute(&mut *db)
            .await?;
    }
    let mut found = events::by_id(db, &wanted).await?;
    let mut deliveries = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = EventId::from_uuid(row.try_get("event_id")?);
        let event = found.remove(&id).ok_or_else(|| Error::broken(format!("{id} is not there")))?;
        let (tried, max, each) = (
            jobs::count(row, "attempt")?,
            jobs::count(row, "attempts_max")?,
            jobs::count(row, "attempts_each")?,
        );
        deliveries.push(ClaimedDelivery {
            token: DeliveryToken { subscriber, event: id, claim },
            attempt: (tried + 1).saturating_sub(max.saturating_sub(each)),
            is_last: tried + 1 >= max,
            event,
        });
    }
    Ok(Some(ClaimedDeliveries {
        claim,
        url: row.try_get("url")?,
        secrets: secrets(&row, now)?,
        retry: jobs::json("retry", row.try_get("retry")?)?,
        timeout: jobs::milliseconds(&row, "timeout_ms")?.unwrap_or_default(),
        failures,
        deliveries,
    }))
}

/// Those that sign now, the newest first.
fn secrets(row: &Row, now: Timestamp) -> Result<Vec<Secret>> {
    let (newest, former): (Option<String>, Option<String>) =
        (row.try_get("secret")?, row.try_get("old_secret")?);
    let is_good =
        row.try_get::<Option<i64>, _>("old_secret_until")?.is_some_and(|until| until > now.micros());
    newest
        .into_iter()
        .chain(former.filter(|_| is_good))
        // Never with the text itself.
        .map(|text| text.parse().map_err(|error| Error::broken(format!("a subscriber's secret: {error}"))))
        .collect()
}

/// Tries that ended without a word, because their senders died, may have used up all there are.
async fn give_up(db: &mut Connection, now: Timestamp, subscriber: SubscriberId, rows_max: u32) -> Result<()> {
    sqlx::query(
        "UPDATE deliveries SET state = 'dead', ended_at = $2, claim = NULL, \
         error = COALESCE(error, 'its last try ended without a word') WHERE subscriber_id = $1 AND event_id IN \
         (SELECT event_id FROM deliveries WHERE subscriber_id = $1 AND state = 'pending' AND due_at <= $2 \
         AND attempt >= attempts_max ORDER BY due_at LIMIT $3)",
    )
    .bind(subscriber.uuid())
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn extend(
    db: &mut Connection,
    now: Timestamp,
    subscriber: SubscriberId,
    claim: Uuid,
    lease: Duration,
) -> Result<()> {
    sqlx::query(
        "UPDATE deliveries SET due_at = $3 WHERE subscriber_id = $1 AND claim = $2 AND state = 'pending'",
    )
    .bind(subscriber.uuid())
    .bind(claim)
    .bind(now.plus(lease).micros())
    .execute(&mut *db)
    .await?;
    // The rest that a claim of a failing subscriber began lasts as long as the claim.
    sqlx::query("UPDATE subscribers SET rest_until = $2 WHERE id = $1 AND failures > 0 AND rest_until < $2")
        .bind(subscriber.uuid())
        .bind(now.plus(lease).micros())
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn settle(db: &mut Connection, now: Timestamp, ends: &[DeliveryEnd]) -> Result<u64> {
    let Some(subscriber) = ends.first().map(|end| end.token.subscriber) else { return Ok(0) };
    // Before its deliveries, as a claim does it.
    sqlx::query(concat!("SELECT id FROM subscribers WHERE id = $1", for_update!()))
        .bind(subscriber.uuid())
        .fetch_optional(&mut *db)
        .await?;
    let (mut settled, mut rest, mut delivered, mut is_gone) = (0, None, false, false);
    let rows: Vec<DeliveryRow<'_>> = ends.iter().map(|end| row_of(now, end)).collect();
    let accepted = bulk::deliveries_settle(db, now, subscriber.uuid(), &rows).await?;
    let accepted =
        accepted.iter().map(|row| Ok(row.try_get("event_id")?)).collect::<Result<HashSet<Uuid>>>()?;
    for end in ends {
        if !accepted.contains(&end.token.event.uuid()) {
            continue;
        }
        settled += 1;
        match end.outcome {
            DeliveryOutcome::Delivered => delivered = true,
            DeliveryOutcome::Retry { rest: asked, .. } | DeliveryOutcome::Dead { rest: Some(asked) } => {
                rest = rest.max(Some(asked));
            }
            DeliveryOutcome::Gone => is_gone = true,
            DeliveryOutcome::Snoozed { .. }
            | DeliveryOutcome::Dead { rest: None }
            | DeliveryOutcome::Released => {}
        }
    }
    let after = match rest {
        Some(rest) => {
            sqlx::query("UPDATE subscribers SET failures = failures + 1, rest_until = $2 WHERE id = $1")
                .bind(subscriber.uuid())
                .bind(now.plus(rest).micros())
                .execute(&mut *db)
                .await?;
            None
        }
        None if delivered => Some(
            "UPDATE subscribers SET failures = 0, rest_until = 0 WHERE id = $1 AND (failures > 0 OR rest_until > 0)",
        ),
        // It answered, or was not asked: the next one need not wait for the end of this claim.
        None if settled > 0 => Some("UPDATE subscribers SET rest_until = 0 WHERE id = $1 AND rest_until > 0"),
        None => None,
    };
    if let Some(text) = after {
        sqlx::query(text).bind(subscriber.uuid()).execute(&mut *db).await?;
    }
    if is_gone {
        let word = Word::new("receiver", "it answered 410: it wants nothing any more");
        subscribers::set_state(db, now, subscriber.uuid(), SubscriberState::Gone, &word).await?;
        subscribers::watch(db, now).await?;
    }
    Ok(settled)
}

/// A delivery's end, as it is kept.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct DeliveryRow<'a> {
    pub(in super::super) event: Uuid,
    pub(in super::super) claim: Uuid,
    pub(in super::super) state: &'static str,
    /// Due again then.
    pub(in super::super) due_at: Option<i64>,
    /// 1 when the try does not count.
    pub(in super::super) uncount: i64,
    pub(in super::super) status: Option<i64>,
    pub(in super::super) error: Option<&'a str>,
    pub(in super::super) took_us: i64,
}

fn row_of(now: Timestamp, end: &DeliveryEnd) -> DeliveryRow<'_> {
    let (state, due_at, uncount) = match end.outcome {
        DeliveryOutcome::Delivered => (DeliveryState::Delivered, None, 0),
        DeliveryOutcome::Dead { .. } | DeliveryOutcome::Gone => (DeliveryState::Dead, None, 0),
        DeliveryOutcome::Retry { after, .. } => (DeliveryState::Pending, Some(now.plus(after)), 0),
        DeliveryOutcome::Snoozed { after } => (DeliveryState::Pending, Some(now.plus(after)), 1),
        DeliveryOutcome::Released => (DeliveryState::Pending, Some(now), 1),
    };
    DeliveryRow {
        event: end.token.event.uuid(),
        claim: end.token.claim,
        state: state.as_str(),
        due_at: due_at.map(Timestamp::micros),
        uncount,
        status: end.status.map(i64::from),
        error: end.error.as_deref().map(bounded),
        took_us: micros(end.took),
    }
}

fn bounded(text: &str) -> &str {
    let mut end = text.len().min(DELIVERY_ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn status(row: &Row) -> Result<Option<u16>> {
    Ok(row.try_get::<Option<i64>, _>("status")?.and_then(|status| u16::try_from(status).ok()))
}

pub(super) async fn list(
    db: &mut Connection,
    filter: &DeliveryFilter,
    rows_max: u32,
) -> Result<Vec<DeliveryRecord>> {
    let before = filter.before.as_ref();
    let rows = sqlx::query(
        "SELECT s.name AS subscriber, d.event_id, e.type, d.state, d.attempt, d.attempts_max, d.created_at, d.due_at, \
         d.ended_at, d.status, d.error FROM deliveries d JOIN subscribers s ON s.id = d.subscriber_id \
         JOIN events e ON e.id = d.event_id WHERE (CAST($1 AS TEXT) IS NULL OR s.name = $1) \
         AND (NOT $2 OR d.event_id = $3) AND (CAST($4 AS TEXT) IS NULL OR d.state = $4) \
         AND (CAST($5 AS TEXT) IS NULL OR s.namespace = $5) AND (d.created_at, d.event_id, s.name) < ($6, $7, $8) \
         ORDER BY d.created_at DESC, d.event_id DESC, s.name DESC LIMIT $9",
    )
    .bind(&filter.subscriber)
    .bind(filter.event.is_some())
    .bind(filter.event.map_or(Uuid::nil(), EventId::uuid))
    .bind(filter.state.map(DeliveryState::as_str))
    .bind(&filter.namespace)
    .bind(before.map_or(i64::MAX, |place| place.created_at.micros()))
    .bind(before.map_or(Uuid::max(), |place| place.event.uuid()))
    .bind(before.map_or("", |place| place.subscriber.as_str()))
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let state: String = row.try_get("state")?;
            Ok(DeliveryRecord {
                subscriber: row.try_get("subscriber")?,
                event: EventId::from_uuid(row.try_get("event_id")?),
                name: row.try_get("type")?,
                state: state.parse().map_err(|error| Error::broken(format!("state: {error}")))?,
                attempt: jobs::count(row, "attempt")?,
                attempts_max: jobs::count(row, "attempts_max")?,
                created_at: Timestamp::from_micros(row.try_get("created_at")?),
                due_at: Timestamp::from_micros(row.try_get("due_at")?),
                ended_at: jobs::instant(row, "ended_at")?,
                status: status(row)?,
                error: row.try_get("error")?,
            })
        })
        .collect()
}

pub(super) async fn attempts(
    db: &mut Connection,
    subscriber: &str,
    event: EventId,
) -> Result<Vec<DeliveryAttempt>> {
    let rows = sqlx::query(
        "SELECT a.attempt, a.at, a.took_us, a.status, a.error FROM delivery_attempts a \
         JOIN subscribers s ON s.id = a.subscriber_id WHERE s.name = $1 AND a.event_id = $2 ORDER BY a.attempt",
    )
    .bind(subscriber)
    .bind(event.uuid())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(DeliveryAttempt {
                attempt: jobs::count(row, "attempt")?,
                at: Timestamp::from_micros(row.try_get("at")?),
                took: jobs::duration(row.try_get("took_us")?).unwrap_or_default(),
                status: status(row)?,
                error: row.try_get("error")?,
            })
        })
        .collect()
}

pub(super) async fn redrive(
    db: &mut Connection,
    now: Timestamp,
    filter: &DeliveryFilter,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<u64> {
    if filter.state == Some(DeliveryState::Pending) {
        return Err(Error::Invalid(
            "what is pending is being delivered: name delivered or dead ones".to_owned(),
        ));
    }
    if let Some(name) = &filter.subscriber
        && subscribers::get(db, name).await?.state == SubscriberState::Gone
    {
        let why = format!("subscriber `{name}` is gone for good: remove it, and add another one");
        return Err(Error::Conflict(why));
    }
    // Numbers of tries go on, so that the former ones stay.
    let redriven = sqlx::query(
        "UPDATE deliveries SET state = 'pending', due_at = $1, created_at = $1, ended_at = NULL, claim = NULL, \
         attempts_max = attempt + attempts_each WHERE (subscriber_id, event_id) IN (SELECT d.subscriber_id, d.event_id FROM deliveries d \
         JOIN subscribers s ON s.id = d.subscriber_id WHERE s.state <> 'gone' AND d.state <> 'pending' \
         AND (CAST($2 AS TEXT) IS NULL OR s.name = $2) AND (NOT $3 OR d.event_id = $4) \
         AND (CAST($5 AS TEXT) IS NULL OR d.state = $5) AND (CAST($6 AS TEXT) IS NULL OR s.namespace = $6) \
         ORDER BY d.created_at, d.event_id LIMIT $7)",
    )
    .bind(now.micros())
    .bind(&filter.subscriber)
    .bind(filter.event.is_some())
    .bind(filter.event.map_or(Uuid::nil(), EventId::uuid))
    .bind(filter.state.map(DeliveryState::as_str))
    .bind(&filter.namespace)
    .bind(i64::from(rows_max))
    .execute(db)
    .await?
    .rows_affected();
    effects.events_written();
    Ok(redriven)
}

pub(super) async fn expire(db: &mut Connection, now: Timestamp, age: Duration, rows_max: u32) -> Result<u64> {
    let old = sqlx::query(
        "UPDATE deliveries SET state = 'dead', ended_at = $1, claim = NULL, error = CASE WHEN created_at <= $2 \
         THEN 'not delivered in time' ELSE 'its subscriber is gone' END || COALESCE('; last: ' || error, '') \
         WHERE (subscriber_id, event_id) IN (SELECT d.subscriber_id, d.event_id FROM deliveries d \
         JOIN subscribers s ON s.id = d.subscriber_id WHERE d.state = 'pending' \
         AND (d.created_at <= $2 OR s.state = 'gone') AND d.due_at <= $1 LIMIT $3)",
    )
    .bind(now.micros())
    .bind(now.minus(age).micros())
    .bind(i64::from(rows_max))
    .execute(db)
    .await?;
    Ok(old.rows_affected())
}

pub(super) async fn remove_ended(
    db: &mut Connection,
    state: DeliveryState,
    ended_before: Timestamp,
    rows_max: u32,
) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM deliveries WHERE (subscriber_id, event_id) IN (SELECT subscriber_id, event_id FROM deliveries \
         WHERE state = $1 AND ended_at IS NOT NULL AND ended_at <= $2 ORDER BY ended_at LIMIT $3)",
    )
    .bind(state.as_str())
    .bind(ended_before.micros())
    .bind(i64::from(rows_max))
    .execute(db)
    .await?;
    Ok(gone.rows_affected())
}
