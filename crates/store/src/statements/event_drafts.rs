//! Events that wait for their publishers: claimed, made by somebody else, turned into events.

use std::time::Duration;

use async_trait::async_trait;
use recache_model::event::{PAYLOAD_BYTES_MAX, Payload, checked, publisher_policy};
use recache_model::ids::{EventId, JobId, WorkflowId};
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row, bulk, ids};
use super::effects::Effects;
use super::jobs;
use super::maintenance::check_lead;
use crate::error::{Error, Result};
use crate::event_drafts::{
    ClaimedDraft, DRAFTS_COUNTED_MAX, DraftEnd, DraftOutcome, DraftToken, DraftsSettled, DuePublisher,
    EventDrafts, PUBLISHERS_LISTED_MAX, WaitingDrafts,
};
use crate::events::{DELIVERY_ERROR_BYTES_MAX, EventQuery, EventRecord};
use crate::fail::fail_point;
use crate::maintenance::Leadership;
use crate::schemas;

/// Rows that one statement inserts.
const ROWS_MAX: usize = 1_000;

#[async_trait]
impl EventDrafts for Driver {
    async fn drafts_due(&self, publishers: Vec<String>) -> Result<Vec<DuePublisher>> {
        // By the database's clock, which readers do not ask.
        self.write(work!([publishers] db, now, effects => due(db, now, &publishers).await)).await
    }

    async fn drafts_claim(
        &self,
        publisher: &str,
        lease: Duration,
        rows_max: u32,
    ) -> Result<Vec<ClaimedDraft>> {
        let publisher = publisher.to_owned();
        self.write(
            work!([publisher] db, now, effects => claim(db, now, &publisher, lease, rows_max, effects).await),
        )
        .await
    }

    async fn drafts_extend(&self, claim: Uuid, lease: Duration) -> Result<()> {
        self.write(work!([] db, now, effects => extend(db, now, claim, lease).await)).await
    }

    async fn drafts_settle(&self, ends: Vec<DraftEnd>) -> Result<DraftsSettled> {
        self.write(work!([ends] db, now, effects => {
            let settled = settle(db, now, &ends, effects).await?;
            if settled.made > 0 {
                fail_point!("draft.before_commit");
            }
            Ok(settled)
        }))
        .await
    }

    async fn drafts_waiting(&self) -> Result<Vec<WaitingDrafts>> {
        self.read(look!([] db, now => waiting(db).await)).await
    }

    async fn drafts_expire(&self, leadership: &Leadership, wait: Duration, rows_max: u32) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            expire(db, now, wait, rows_max, effects).await
        }))
        .await
    }
}

/// An event that is written without its payload.
#[derive(Debug, Clone)]
pub(in super::super) struct NewDraft {
    /// Its `data` is what came of the step's end.
    pub(in super::super) event: EventRecord,
    pub(in super::super) publisher: String,
    /// How it travels, as templates say it.
    pub(in super::super) mode: &'static str,
    pub(in super::super) schema: Option<String>,
}

impl NewDraft {
    /// What is kept with it of the step's end; a large result stays where it is.
    pub(in super::super) fn ended(&self) -> Option<&str> {
        let is_small = self.event.data.len() <= PAYLOAD_BYTES_MAX;
        (is_small || self.event.outcome.as_deref() != Some("completed")).then_some(self.event.data.as_str())
    }
}

/// How an event travels, in one word.
pub(super) const fn mode(is_durable: bool, is_live: bool) -> &'static str {
    match (is_durable, is_live) {
        (true, true) => "broadcast",
        (true, false) => "durable",
        (false, _) => "fast",
    }
}

/// Writes the drafts that the transaction gathered.
pub(super) async fn flush(db: &mut Connection, now: Timestamp, effects: &mut Effects) -> Result<()> {
    let drafts = effects.take_drafts();
    if drafts.is_empty() {
        return Ok(());
    }
    for drafts in drafts.chunks(ROWS_MAX) {
        bulk::drafts_insert(db, now, drafts).await?;
    }
    effects.drafts_written();
    Ok(())
}

/// The columns of [`record`].
macro_rules! draft_columns {
    () => {
        "id, namespace, type, at, job_id, workflow_id, step, attempt, outcome, correlation_id, publisher, problem"
    };
}

/// As an event that has no payload yet.
fn record(row: &Row) -> Result<EventRecord> {
    Ok(EventRecord {
        id: EventId::from_uuid(row.try_get("id")?),
        namespace: row.try_get("namespace")?,
        name: row.try_get("type")?,
        at: Timestamp::from_micros(row.try_get("at")?),
        job: Some(JobId::from_uuid(row.try_get("job_id")?)),
        workflow: row.try_get::<Option<Uuid>, _>("workflow_id")?.map(WorkflowId::from_uuid),
        step: row.try_get("step")?,
        attempt: Some(jobs::count(row, "attempt")?),
        outcome: Some(row.try_get("outcome")?),
        correlation_id: Some(row.try_get("correlation_id")?),
        data: "null".to_owned(),
        problem: row.try_get("problem")?,
        waits_for: Some(row.try_get("publisher")?),
    })
}

/// Newest first.
pub(super) async fn list(db: &mut Connection, query: &EventQuery, rows_max: u32) -> Result<Vec<EventRecord>> {
    let (at, id) = query.end();
    let rows = sqlx::query(concat!(
        "SELECT ",
        draft_columns!(),
        " FROM event_drafts WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) \
         AND (CAST($2 AS TEXT) IS NULL OR type = $2) AND (at, id) < ($3, $4) ORDER BY at DESC, id DESC LIMIT $5"
    ))
    .bind(&query.namespace)
    .bind(&query.name)
    .bind(at)
    .bind(id)
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(record).collect()
}

pub(super) async fn get(db: &mut Connection, event: EventId) -> Result<Option<EventRecord>> {
    let row = sqlx::query(concat!("SELECT ", draft_columns!(), " FROM event_drafts WHERE id = $1"))
        .bind(event.uuid())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(record).transpose()
}

async fn due(db: &mut Connection, now: Timestamp, publishers: &[String]) -> Result<Vec<DuePublisher>> {
    let mut found = Vec::new();
    for publisher in publishers {
        // One end of an index, however much waits.
        let row = sqlx::query("SELECT MIN(due_at) AS due_at FROM event_drafts WHERE publisher = $1")
            .bind(publisher)
            .fetch_one(&mut *db)
            .await?;
        if let Some(due_at) = jobs::instant(&row, "due_at")? {
            found.push(DuePublisher { publisher: publisher.clone(), wait: due_at.since(now) });
        }
    }
    Ok(found)
}

async fn claim(
    db: &mut Connection,
    now: Timestamp,
    publisher: &str,
    lease: Duration,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<Vec<ClaimedDraft>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        draft_columns!(),
        ", tries, COALESCE(ended, (SELECT COALESCE(j.output, (SELECT r.output FROM job_results r WHERE r.job_id = j.id)) \
         FROM jobs j WHERE j.id = event_drafts.job_id)) AS ended, (SELECT w.input FROM workflows w \
         WHERE w.id = event_drafts.workflow_id) AS workflow_input FROM event_drafts WHERE publisher = $1 AND due_at <= $2 \
         ORDER BY due_at, id LIMIT $3",
        for_update_skip_locked!()
    ))
    .bind(publisher)
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let tries_max = publisher_policy().attempts_max;
    let claim = Uuid::new_v4();
    let (mut claimed, mut lost) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        let mut event = record(row)?;
        let tries = jobs::count(row, "tries")?;
        let why = match row.try_get::<Option<String>, _>("ended")? {
            _ if tries >= tries_max => {
                let last = event.problem.as_deref().unwrap_or("its last try ended without a word");
                format!("publisher `{publisher}` did not make it in {tries} tries: {last}")
            }
            None => "the step's result is no longer kept, and its publisher had not made a payload of it"
                .to_owned(),
            Some(ended) => {
                event.problem = None;
                claimed.push(ClaimedDraft {
                    token: DraftToken { event: event.id, claim },
                    event,
                    attempt: tries + 1,
                    ended,
                    workflow_input: row.try_get("workflow_input")?,
                });
                continue;
            }
        };
        lost.push((event, why));
    }
    let ends: Vec<Uuid> = lost.iter().map(|(event, _)| event.id.uuid()).collect();
    remove(db, &ends).await?;
    for (event, why) in lost {
        keep_back(event, why, effects);
    }
    let taken: Vec<Uuid> = claimed.iter().map(|draft| draft.event.id.uuid()).collect();
    if !taken.is_empty() {
        sqlx::query(concat!(
            "UPDATE event_drafts SET claim = $1, due_at = $2, tries = tries + 1 WHERE id ",
            in_ids!("$3")
        ))
        .bind(claim)
        .bind(now.plus(lease).micros())
        .bind(ids(&taken))
        .execute(db)
        .await?;
    }
    Ok(claimed)
}

async fn remove(db: &mut Connection, drafts: &[Uuid]) -> Result<()> {
    if !drafts.is_empty() {
        sqlx::query(concat!("DELETE FROM event_drafts WHERE id ", in_ids!("$1")))
            .bind(ids(drafts))
            .execute(db)
            .await?;
    }
    Ok(())
}

/// It becomes an event that is told to nobody.
fn keep_back(event: EventRecord, why: String, effects: &mut Effects) {
    let payload = Payload::refused(why);
    tracing::warn!(
        event = event.name,
        event_id = %event.id,
        job_id = event.job.map(tracing::field::display),
        problem = payload.problem,
        "an event's payload could not be made; nobody is told"
    );
    effects.event(EventRecord { data: payload.data, problem: payload.problem, waits_for: None, ..event });
}

async fn extend(db: &mut Connection, now: Timestamp, claim: Uuid, lease: Duration) -> Result<()> {
    sqlx::query("UPDATE event_drafts SET due_at = $2 WHERE claim = $1")
        .bind(claim)
        .bind(now.plus(lease).micros())
        .execute(db)
        .await?;
    Ok(())
}

async fn settle(
    db: &mut Connection,
    now: Timestamp,
    ends: &[DraftEnd],
    effects: &mut Effects,
) -> Result<DraftsSettled> {
    let mut settled = DraftsSettled::default();
    for end in ends {
        let (after, uncount, error) = match &end.outcome {
            DraftOutcome::Made { data } => {
                if let Some((event, row)) = taken_away(db, end.token).await? {
                    let is_made = made(event, &row, data, effects)?;
                    if is_made { settled.made += 1 } else { settled.refused += 1 }
                }
                continue;
            }
            DraftOutcome::Refused { error } => {
                if let Some((event, _)) = taken_away(db, end.token).await? {
                    let publisher = event.waits_for.clone().unwrap_or_default();
                    keep_back(event, format!("publisher `{publisher}` made no payload: {error}"), effects);
                    settled.refused += 1;
                }
                continue;
            }
            DraftOutcome::Retry { after, error } => (*after, 0, Some(bounded(error))),
            DraftOutcome::Snoozed { after } => (*after, 1, None),
            DraftOutcome::Released => (Duration::ZERO, 1, None),
        };
        let changed = sqlx::query(
            "UPDATE event_drafts SET claim = NULL, due_at = $3, tries = tries - $4, problem = COALESCE($5, problem) \
             WHERE id = $1 AND claim = $2",
        )
        .bind(end.token.event.uuid())
        .bind(end.token.claim)
        .bind(now.plus(after).micros())
        .bind(i64::from(uncount))
        .bind(error)
        .execute(&mut *db)
        .await?;
        if error.is_some() {
            settled.retried += changed.rows_affected();
        }
    }
    Ok(settled)
}

/// A draft whose claim is good; it is there no longer.
async fn taken_away(db: &mut Connection, token: DraftToken) -> Result<Option<(EventRecord, Row)>> {
    let row = sqlx::query(concat!(
        "DELETE FROM event_drafts WHERE id = $1 AND claim = $2 RETURNING ",
        draft_columns!(),
        ", mode, payload_schema"
    ))
    .bind(token.event.uuid())
    .bind(token.claim)
    .fetch_optional(db)
    .await?;
    row.map(|row| Ok((record(&row)?, row))).transpose()
}

/// The event with its payload; false where that is refused.
fn made(event: EventRecord, row: &Row, data: &str, effects: &mut Effects) -> Result<bool> {
    let schema: Option<serde_json::Value> = row
        .try_get::<Option<String>, _>("payload_schema")?
        .map(|text| jobs::json("payload_schema", &text))
        .transpose()?;
    let schema = schema.as_ref().map(schemas::compiled);
    let schema = schema.as_deref().map(|schema| schema.as_ref().map_err(String::as_str));
    let payload = checked(data.to_owned(), schema);
    if let Some(problem) = payload.problem {
        keep_back(event, problem, effects);
        return Ok(false);
    }
    let event = EventRecord { data: payload.data, problem: None, waits_for: None, ..event };
    let (is_durable, is_live) = match row.try_get::<String, _>("mode")?.as_str() {
        "durable" => (true, false),
        "fast" => (false, true),
        "broadcast" => (true, true),
        other => return Err(Error::broken(format!("mode is {other}"))),
    };
    if is_durable {
        effects.event(event.clone());
    }
    if is_live {
        effects.happened(event);
    }
    Ok(true)
}

fn bounded(text: &str) -> &str {
    let mut end = text.len().min(DELIVERY_ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

async fn waiting(db: &mut Connection) -> Result<Vec<WaitingDrafts>> {
    let rows = sqlx::query(
        "SELECT publisher, CAST(count(*) AS BIGINT) AS count, MIN(at) AS oldest_at FROM \
         (SELECT publisher, at FROM event_drafts ORDER BY at, id LIMIT $1) AS d GROUP BY publisher ORDER BY publisher LIMIT $2",
    )
    .bind(i64::from(DRAFTS_COUNTED_MAX))
    .bind(i64::from(PUBLISHERS_LISTED_MAX))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(WaitingDrafts {
                publisher: row.try_get("publisher")?,
                count: u64::try_from(row.try_get::<i64, _>("count")?).unwrap_or(0),
                oldest_at: Timestamp::from_micros(row.try_get("oldest_at")?),
            })
        })
        .collect()
}

async fn expire(
    db: &mut Connection,
    now: Timestamp,
    wait: Duration,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<u64> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        draft_columns!(),
        " FROM event_drafts WHERE at <= $1 AND (claim IS NULL OR due_at <= $2) ORDER BY at, id LIMIT $3",
        for_update_skip_locked!()
    ))
    .bind(now.minus(wait).micros())
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let mut late = Vec::with_capacity(rows.len());
    for row in &rows {
        late.push(record(row)?);
    }
    let gone: Vec<Uuid> = late.iter().map(|event| event.id.uuid()).collect();
    remove(db, &gone).await?;
    for event in late {
        let publisher = event.waits_for.as_deref().unwrap_or_default();
        let last = event.problem.as_deref().unwrap_or("no process that has it came to it");
        let why = format!("publisher `{publisher}` did not make it within {} s: {last}", wait.as_secs());
        keep_back(event, why, effects);
    }
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}
