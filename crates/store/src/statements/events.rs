//! Events: written with what happened, handed to those who asked, removed when their time is over.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use recache_model::event::{DeliveryState, EventFilter, Payload, StepEnd, StepEvent, at_end, facts, payload};
use recache_model::ids::{EventId, JobId, SubscriberId, WorkflowId};
use recache_model::job::JobError;
use recache_model::retry::RetryPolicy;
use recache_model::time::Timestamp;
use recache_model::webhook::Secret;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row, bulk, ids};
use super::effects::Effects;
use super::event_drafts::NewDraft;
use super::maintenance::check_lead;
use super::{deliveries, event_drafts, event_stream, jobs, subscribers};
use crate::error::{Error, Result};
use crate::event_stream::PlacedEvent;
use crate::events::{
    ClaimedDeliveries, DeliveryAttempt, DeliveryEnd, DeliveryFilter, DeliveryRecord, DueSubscriber,
    EventQuery, EventRecord, Events, NewSubscriber, Routed, SubscriberRecord,
};
use crate::fail::fail_point;
use crate::maintenance::Leadership;
use crate::queues::Word;
use crate::schemas;

/// Rows that one statement inserts.
const ROWS_MAX: usize = 1_000;

#[async_trait]
impl Events for Driver {
    async fn events_list(&self, query: EventQuery, rows_max: u32) -> Result<Vec<EventRecord>> {
        self.read(look!([query] db, now => all(db, &query, rows_max).await)).await
    }

    async fn event_get(&self, event: EventId) -> Result<EventRecord> {
        self.read(look!([] db, now => {
            // In this order: one that is made meanwhile is found.
            let draft = event_drafts::get(db, event).await?;
            let found = read(db, &[event.uuid()]).await?.pop().or(draft);
            found.ok_or_else(|| Error::not_found("event", event))
        }))
        .await
    }

    async fn events_route(&self, rows_max: u32) -> Result<Routed> {
        self.write(work!([] db, now, effects => {
            let routed = route(db, now, rows_max).await?;
            if routed.deliveries > 0 {
                fail_point!("outbox.routed");
            }
            Ok(routed)
        }))
        .await
    }

    async fn subscriber_put(&self, subscriber: NewSubscriber) -> Result<SubscriberRecord> {
        self.write(work!([subscriber] db, now, effects => subscribers::put(db, now, &subscriber).await)).await
    }

    async fn subscriber_get(&self, name: &str) -> Result<SubscriberRecord> {
        let name = name.to_owned();
        self.read(look!([name] db, now => subscribers::get(db, &name).await)).await
    }

    async fn subscribers_list(&self) -> Result<Vec<SubscriberRecord>> {
        self.read(look!([] db, now => subscribers::list(db).await)).await
    }

    async fn subscriber_pause(&self, name: &str, word: Word) -> Result<()> {
        let name = name.to_owned();
        self.write(work!([name, word] db, now, effects => subscribers::pause(db, now, &name, &word).await))
            .await
    }

    async fn subscriber_resume(&self, name: &str, actor: &str) -> Result<bool> {
        let (name, word) = (name.to_owned(), Word::new(actor, "resumed"));
        self.write(
            work!([name, word] db, now, effects => subscribers::resume(db, now, &name, &word, effects).await),
        )
        .await
    }

    async fn subscriber_rotate(
        &self,
        name: &str,
        secret: Secret,
        overlap: Duration,
    ) -> Result<SubscriberRecord> {
        let name = name.to_owned();
        self.write(work!(
            [name, secret] db, now, effects => subscribers::rotate(db, now, &name, &secret, overlap).await
        ))
        .await
    }

    async fn subscriber_remove(&self, name: &str, rows_max: u32) -> Result<bool> {
        let name = name.to_owned();
        self.write(work!([name] db, now, effects => subscribers::remove(db, now, &name, rows_max).await))
            .await
    }

    async fn events_watch(&self) -> Result<()> {
        self.write(work!([] db, now, effects => subscribers::watch(db, now).await)).await
    }

    async fn deliveries_due(&self) -> Result<Vec<DueSubscriber>> {
        // By the database's clock, which readers do not ask.
        self.write(work!([] db, now, effects => deliveries::due(db, now).await)).await
    }

    async fn deliveries_claim(
        &self,
        subscriber: SubscriberId,
        lease: Duration,
        rows_max: u32,
    ) -> Result<Option<ClaimedDeliveries>> {
        self.write(work!(
            [] db, now, effects => deliveries::claim(db, now, subscriber, lease, rows_max).await
        ))
        .await
    }

    async fn deliveries_extend(&self, subscriber: SubscriberId, claim: Uuid, lease: Duration) -> Result<()> {
        self.write(work!([] db, now, effects => deliveries::extend(db, now, subscriber, claim, lease).await))
            .await
    }

    async fn deliveries_settle(&self, ends: Vec<DeliveryEnd>) -> Result<u64> {
        self.write(work!([ends] db, now, effects => {
            let settled = deliveries::settle(db, now, &ends).await?;
            if settled > 0 {
                fail_point!("outbox.before_commit");
            }
            Ok(settled)
        }))
        .await
    }

    async fn deliveries_list(&self, filter: DeliveryFilter, rows_max: u32) -> Result<Vec<DeliveryRecord>> {
        self.read(look!([filter] db, now => deliveries::list(db, &filter, rows_max).await)).await
    }

    async fn delivery_attempts(&self, subscriber: &str, event: EventId) -> Result<Vec<DeliveryAttempt>> {
        let subscriber = subscriber.to_owned();
        self.read(look!([subscriber] db, now => deliveries::attempts(db, &subscriber, event).await)).await
    }

    async fn deliveries_redrive(&self, filter: DeliveryFilter, rows_max: u32) -> Result<u64> {
        self.write(work!(
            [filter] db, now, effects => deliveries::redrive(db, now, &filter, rows_max, effects).await
        ))
        .await
    }

    async fn deliveries_expire(&self, leadership: &Leadership, age: Duration, rows_max: u32) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            deliveries::expire(db, now, age, rows_max).await
        }))
        .await
    }

    async fn deliveries_remove(
        &self,
        leadership: &Leadership,
        state: DeliveryState,
        keep: Duration,
        rows_max: u32,
    ) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            deliveries::remove_ended(db, state, now.minus(keep), rows_max).await
        }))
        .await
    }

    async fn events_remove(&self, leadership: &Leadership, keep: Duration, rows_max: u32) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            remove_old(db, now.minus(keep), rows_max).await
        }))
        .await
    }
}

/// How an attempt of a step ended, for [`publish`].
#[derive(Debug)]
pub(super) struct Ended<'a> {
    pub(super) end: StepEnd,
    pub(super) attempt: u32,
    /// Its result; `None`: the one that the job has.
    pub(super) output: Option<&'a str>,
    pub(super) error: Option<&'a JobError>,
}

/// Whose end it is.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) job: JobId,
    pub(super) namespace: String,
    pub(super) workflow: Option<WorkflowId>,
    pub(super) step: Option<String>,
    pub(super) correlation_id: String,
}

/// Gathers what a step's end publishes. `declared` is the job's own column.
pub(super) async fn publish(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    declared: &str,
    ended: &Ended<'_>,
    effects: &mut Effects,
) -> Result<()> {
    let row = sqlx::query(
        "SELECT namespace, workflow_id, step, correlation_id, COALESCE(output, (SELECT r.output FROM job_results r \
         WHERE r.job_id = jobs.id)) AS output FROM jobs WHERE id = $1",
    )
    .bind(job.uuid())
    .fetch_one(&mut *db)
    .await?;
    let kept: Option<String> = row.try_get("output")?;
    let who = Publisher {
        job,
        namespace: row.try_get("namespace")?,
        workflow: row.try_get::<Option<Uuid>, _>("workflow_id")?.map(WorkflowId::from_uuid),
        step: row.try_get("step")?,
        correlation_id: row.try_get("correlation_id")?,
    };
    let ended = Ended {
        end: ended.end,
        attempt: ended.attempt,
        output: ended.output.or(kept.as_deref()),
        error: ended.error,
    };
    gather(now, &who, declared, &ended, effects)
}

/// The same for whoever knows all that an event says. They are written at the end of the transaction, in one statement.
pub(super) fn gather(
    now: Timestamp,
    who: &Publisher,
    declared: &str,
    ended: &Ended<'_>,
    effects: &mut Effects,
) -> Result<()> {
    let declared: Vec<StepEvent> = jobs::json("publishes", declared)?;
    for event in at_end(&declared, ended.end) {
        let payload = if event.publisher.is_some() {
            Payload { data: facts(ended.end, ended.output, ended.error), problem: None }
        } else {
            let schema = event.schema.as_ref().map(schemas::compiled);
            let schema = schema.as_deref().map(|schema| schema.as_ref().map_err(String::as_str));
            payload(ended.end, ended.output, ended.error, schema)
        };
        let record = EventRecord {
            id: EventId::make(),
            namespace: who.namespace.clone(),
            name: event.name.clone(),
            at: now,
            job: Some(who.job),
            workflow: who.workflow,
            step: who.step.clone(),
            attempt: Some(ended.attempt),
            outcome: Some(ended.end.word().to_owned()),
            correlation_id: Some(who.correlation_id.clone()),
            data: payload.data,
            problem: payload.problem,
            waits_for: None,
        };
        if let Some(publisher) = &event.publisher {
            effects.draft(NewDraft {
                event: record,
                publisher: publisher.clone(),
                mode: event_drafts::mode(event.durable, event.live),
                schema: event.schema.as_ref().map(ToString::to_string),
            });
            continue;
        }
        if let Some(problem) = &record.problem {
            tracing::warn!(event = record.name, job_id = %who.job, problem, "an event's payload was refused; nobody is told");
        }
        let is_live = event.live && record.problem.is_none();
        // One that only lives for the moment leaves no trace, unless somebody must learn why nobody heard of it.
        if event.durable || record.problem.is_some() {
            effects.event(record.clone());
        }
        if is_live {
            effects.happened(record);
        }
    }
    Ok(())
}

/// Writes the events that the transaction gathered, those without payloads too.
pub(in super::super) async fn flush(
    db: &mut Connection,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<()> {
    event_drafts::flush(db, now, effects).await?;
    let events = effects.take_events();
    if events.is_empty() {
        return Ok(());
    }
    for events in events.chunks(ROWS_MAX) {
        bulk::events_insert(db, now, events).await?;
    }
    effects.events_written();
    Ok(())
}

/// The columns of [`record`].
macro_rules! event_columns {
    () => {
        "id, namespace, type, at, job_id, workflow_id, step, attempt, outcome, correlation_id, data, problem"
    };
}

fn record(row: &Row) -> Result<EventRecord> {
    let attempt: Option<i64> = row.try_get("attempt")?;
    Ok(EventRecord {
        id: EventId::from_uuid(row.try_get("id")?),
        namespace: row.try_get("namespace")?,
        name: row.try_get("type")?,
        at: Timestamp::from_micros(row.try_get("at")?),
        job: row.try_get::<Option<Uuid>, _>("job_id")?.map(JobId::from_uuid),
        workflow: row.try_get::<Option<Uuid>, _>("workflow_id")?.map(WorkflowId::from_uuid),
        step: row.try_get("step")?,
        attempt: attempt.and_then(|attempt| u32::try_from(attempt).ok()),
        outcome: row.try_get("outcome")?,
        correlation_id: row.try_get("correlation_id")?,
        data: row.try_get("data")?,
        problem: row.try_get("problem")?,
        waits_for: None,
    })
}

/// In no particular order.
pub(super) async fn read(db: &mut Connection, events: &[Uuid]) -> Result<Vec<EventRecord>> {
    let rows = sqlx::query(concat!("SELECT ", event_columns!(), " FROM events WHERE id ", in_ids!("$1")))
        .bind(ids(events))
        .fetch_all(db)
        .await?;
    rows.iter().map(record).collect()
}

/// Events that have payloads, or will never have one, and events that wait for one.
async fn all(db: &mut Connection, query: &EventQuery, rows_max: u32) -> Result<Vec<EventRecord>> {
    // Drafts first: one that is made meanwhile is found twice rather than not at all.
    let drafts = if query.refused { Vec::new() } else { event_drafts::list(db, query, rows_max).await? };
    let mut found = if query.waiting { Vec::new() } else { list(db, query, rows_max).await? };
    if drafts.is_empty() {
        return Ok(found);
    }
    let known: HashSet<EventId> = found.iter().map(|event| event.id).collect();
    found.extend(drafts.into_iter().filter(|draft| !known.contains(&draft.id)));
    found.sort_by_key(|event| std::cmp::Reverse((event.at.micros(), event.id.uuid())));
    found.truncate(usize::try_from(rows_max).unwrap_or(usize::MAX));
    Ok(found)
}

async fn list(db: &mut Connection, query: &EventQuery, rows_max: u32) -> Result<Vec<EventRecord>> {
    let (at, id) = query.end();
    let rows = sqlx::query(concat!(
        "SELECT ",
        event_columns!(),
        " FROM events WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR type = $2) \
         AND (NOT $3 OR problem IS NOT NULL) AND (at, id) < ($4, $5) ORDER BY at DESC, id DESC LIMIT $6"
    ))
    .bind(&query.namespace)
    .bind(&query.name)
    .bind(query.refused)
    .bind(at)
    .bind(id)
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(record).collect()
}

/// One row for each event and each subscriber that asked for it.
async fn route(db: &mut Connection, now: Timestamp, rows_max: u32) -> Result<Routed> {
    let rows = sqlx::query(concat!(
        "SELECT id, namespace, type FROM events WHERE routed_at IS NULL ORDER BY at, id LIMIT $1",
        for_update_skip_locked!()
    ))
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    if rows.is_empty() {
        return Ok(Routed::default());
    }
    let mut events: Vec<(Uuid, String, String)> = Vec::with_capacity(rows.len());
    for row in &rows {
        events.push((row.try_get("id")?, row.try_get("namespace")?, row.try_get("type")?));
    }
    let mut routed = Routed { events: u64::try_from(events.len()).unwrap_or(u64::MAX), deliveries: 0 };
    for (subscriber, filter, retry) in asking(db).await? {
        let wanted: Vec<Uuid> = events
            .iter()
            .filter(|(_, namespace, name)| filter.matches(namespace, name))
            .map(|(id, ..)| *id)
            .collect();
        if wanted.is_empty() {
            continue;
        }
        routed.deliveries += sqlx::query(concat!(
            "INSERT INTO deliveries (subscriber_id, event_id, due_at, attempts_max, attempts_each, created_at) \
             SELECT $1, id, $2, $3, $3, $2 FROM events WHERE id ",
            in_ids!("$4"),
            " ON CONFLICT DO NOTHING"
        ))
        .bind(subscriber)
        .bind(now.micros())
        .bind(i64::from(retry.attempts_max))
        .bind(ids(&wanted))
        .execute(&mut *db)
        .await?
        .rows_affected();
    }
    let all: Vec<Uuid> = events.iter().map(|(id, ..)| *id).collect();
    event_stream::place(db, now, &all).await?;
    Ok(routed)
}

/// Those that are told, or will be when their pause ends. Locked against being removed meanwhile.
async fn asking(db: &mut Connection) -> Result<Vec<(Uuid, EventFilter, RetryPolicy)>> {
    let rows = sqlx::query(
        "SELECT id, namespace, types, retry FROM subscribers WHERE state IN ('active', 'paused') ORDER BY id",
    )
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            let filter = EventFilter {
                types: jobs::json("types", row.try_get("types")?)?,
                namespace: row.try_get("namespace")?,
            };
            Ok((row.try_get("id")?, filter, jobs::json("retry", row.try_get("retry")?)?))
        })
        .collect()
}

async fn remove_old(db: &mut Connection, before: Timestamp, rows_max: u32) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at <= $1 AND routed_at IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.event_id = events.id) ORDER BY at, id LIMIT $2) \
         RETURNING place",
    )
    .bind(before.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let mut through = 0;
    for row in &gone {
        through = through.max(row.try_get::<Option<i64>, _>("place")?.unwrap_or(0));
    }
    if through > 0 {
        event_stream::removed(db, through).await?;
    }
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

/// Events of the stream after a place, in their order.
pub(super) async fn placed(db: &mut Connection, after: i64, rows_max: u32) -> Result<Vec<PlacedEvent>> {
    let rows = sqlx::query(concat!(
        "SELECT place, ",
        event_columns!(),
        " FROM events WHERE place > $1 ORDER BY place LIMIT $2"
    ))
    .bind(after)
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(PlacedEvent { place: row.try_get("place")?, event: record(row)? })).collect()
}

/// By id, for those who need them in an order of their own.
pub(super) async fn by_id(db: &mut Connection, events: &[Uuid]) -> Result<HashMap<EventId, EventRecord>> {
    Ok(read(db, events).await?.into_iter().map(|event| (event.id, event)).collect())
}
