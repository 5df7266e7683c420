//! Submitting jobs that have keys or belong to a batch: what was submitted before is found rather than stored twice.
//!
//! Both kinds of key are held by the database: an idempotency key by its table's primary key, a unique key by a partial
//! unique index over the jobs it still stands for. A submit that meets another one of the same key waits for it to
//! commit, and then sees what it stored.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use recache_model::ids::JobId;
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use recache_model::unique::{IDEMPOTENCY_KEEP, OnDuplicate};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, bulk, ids, texts};
use super::batches::{Admission, tally};
use super::effects::Effects;
use super::jobs;
use crate::error::{Error, Result};
use crate::records::{NewJob, Submitted};

/// A job that held a unique key may end between the insert that met it and the look at it; then it is tried again.
const TRIES_MAX: usize = 5;

/// The columns of a job's unique key.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct UniqueColumns {
    pub(in super::super) key: Option<String>,
    pub(in super::super) ended: i64,
}

impl UniqueColumns {
    pub(in super::super) fn of(job: &NewJob, now: Timestamp) -> Self {
        job.unique.as_ref().map_or_else(Self::default, |rule| Self {
            key: Some(rule.identity(&job.namespace, &job.handler, &job.input, now)),
            ended: rule.ended_bits(),
        })
    }
}

/// One row of an idempotency key to be.
#[derive(Debug)]
pub(in super::super) struct KeyRow<'a> {
    pub(in super::super) namespace: &'a str,
    pub(in super::super) key: &'a str,
    pub(in super::super) job: Uuid,
    pub(in super::super) body: String,
    pub(in super::super) expires_at: i64,
}

pub(in super::super) async fn submit(
    db: &mut Connection,
    now: Timestamp,
    new: &[NewJob],
    effects: &mut Effects,
) -> Result<Vec<Submitted>> {
    jobs::check_alone(new)?;
    let mut admission = Admission::default();
    for batch in new.iter().filter_map(|job| job.batch).collect::<BTreeSet<_>>() {
        admission.lock(db, batch).await?;
    }
    let mut answers: Vec<Option<Submitted>> = vec![None; new.len()];
    find_repeated(db, now, new, &mut answers).await?;
    for _ in 0..TRIES_MAX {
        let places: Vec<usize> = (0..new.len()).filter(|place| answers[*place].is_none()).collect();
        if places.is_empty() {
            break;
        }
        insert(db, now, new, &places, &mut answers, effects).await?;
    }
    let answers: Vec<Submitted> = answers.into_iter().flatten().collect();
    if answers.len() < new.len() {
        return Err(Error::unavailable("jobs of the same unique key come and go: try again"));
    }
    point_keys(db, new, &answers).await?;
    let fresh = new.iter().zip(&answers).filter(|(_, answer)| !answer.existed);
    let members = fresh.filter_map(|(job, _)| Some((job.batch?, job.namespace.as_str())));
    for ((batch, namespace), count) in tally(members) {
        admission.admit(db, now, batch, namespace, count, effects).await?;
    }
    Ok(answers)
}

/// Answers the jobs whose idempotency key was used before, and keeps the other keys.
async fn find_repeated(
    db: &mut Connection,
    now: Timestamp,
    new: &[NewJob],
    answers: &mut [Option<Submitted>],
) -> Result<()> {
    // In one order, so that two submits of overlapping keys wait for each other in one direction.
    let mut first: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (place, job) in new.iter().enumerate() {
        let Some(key) = job.idempotency_key.as_deref() else { continue };
        let former = *first.entry((&job.namespace, key)).or_insert(place);
        if former != place {
            same_body(&new[former].body_digest(), job, key)?;
            answers[place] = Some(Submitted { id: new[former].id, existed: true, replaced: false });
        }
    }
    if first.is_empty() {
        return Ok(());
    }
    let expires_at = now.plus(IDEMPOTENCY_KEEP).micros();
    let rows: Vec<KeyRow<'_>> = first
        .iter()
        .map(|((namespace, key), place)| KeyRow {
            namespace,
            key,
            job: new[*place].id.uuid(),
            body: new[*place].body_digest(),
            expires_at,
        })
        .collect();
    bulk::idempotency_keys_keep(db, now, &rows).await?;
    for row in bulk::idempotency_keys_read(db, &rows).await? {
        let (namespace, key): (&str, &str) = (row.try_get("namespace")?, row.try_get("key")?);
        let Some(place) = first.get(&(namespace, key)) else { continue };
        let id: Uuid = row.try_get("job_id")?;
        let job = &new[*place];
        same_body(row.try_get("body")?, job, key)?;
        if id != job.id.uuid() {
            answers[*place] = Some(Submitted { id: JobId::from_uuid(id), existed: true, replaced: false });
        }
    }
    // Whoever repeated a key within this call gets what its first use gets.
    for (place, job) in new.iter().enumerate() {
        let Some(key) = job.idempotency_key.as_deref() else { continue };
        let Some(former) = first.get(&(job.namespace.as_str(), key)).copied() else { continue };
        if former != place && answers[former].is_some() {
            answers[place] = answers[former];
        }
    }
    Ok(())
}

fn same_body(body: &str, job: &NewJob, key: &str) -> Result<()> {
    if body == job.body_digest() {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "idempotency key `{}` of namespace `{}` was used for another job: the same key must come with the same body",
        key.escape_debug(),
        job.namespace.escape_debug()
    )))
}

/// Inserts what can be, and answers what could not by what stood in the way.
async fn insert(
    db: &mut Connection,
    now: Timestamp,
    new: &[NewJob],
    places: &[usize],
    answers: &mut [Option<Submitted>],
    effects: &mut Effects,
) -> Result<()> {
    let jobs: Vec<&NewJob> = places.iter().map(|place| &new[*place]).collect();
    let uniques: Vec<UniqueColumns> = jobs.iter().map(|job| UniqueColumns::of(job, now)).collect();
    let mut fresh = bulk::jobs_insert(db, Some(now), &jobs, &uniques).await?;
    bulk::history_forget(db, now, fresh.iter().copied()).await?;
    let mut met = Vec::new();
    for (at, place) in places.iter().enumerate() {
        let job = &new[*place];
        if fresh.remove(&job.id.uuid()) {
            effects.queued(&job.queue);
            answers[*place] = Some(Submitted { id: job.id, existed: false, replaced: false });
        } else {
            met.push((*place, uniques[at].key.clone()));
        }
    }
    if met.is_empty() {
        return Ok(());
    }
    let there = existing(db, &met.iter().map(|(place, _)| new[*place].id.uuid()).collect::<Vec<_>>()).await?;
    let keys: Vec<String> = met.iter().filter_map(|(_, key)| key.clone()).collect();
    let holders = if keys.is_empty() { HashMap::new() } else { holders(db, &keys).await? };
    for (place, key) in met {
        let job = &new[place];
        if there.contains(&job.id.uuid()) {
            answers[place] = Some(Submitted { id: job.id, existed: true, replaced: false });
        } else if let Some(key) = key
            && let Some(holder) = holders.get(&key)
        {
            answers[place] = meet(db, now, job, &key, *holder, effects).await?;
        }
    }
    Ok(())
}

async fn existing(db: &mut Connection, wanted: &[Uuid]) -> Result<HashSet<Uuid>> {
    let rows = sqlx::query(concat!("SELECT id FROM jobs WHERE id ", in_ids!("$1")))
        .bind(ids(wanted))
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// Who stands for these unique keys.
async fn holders(db: &mut Connection, keys: &[String]) -> Result<HashMap<String, JobId>> {
    let rows = sqlx::query(concat!(
        "SELECT id, unique_key FROM jobs WHERE unique_key ",
        in_texts!("$1"),
        " AND unique_key IS NOT NULL AND (state IN ('blocked', 'queued', 'running') OR (unique_ended & CASE state \
         WHEN 'completed' THEN 1 WHEN 'failed' THEN 2 WHEN 'cancelled' THEN 4 WHEN 'superseded' THEN 8 \
         WHEN 'skipped' THEN 16 WHEN 'resolved' THEN 32 ELSE 0 END) <> 0)"
    ))
    .bind(texts(keys))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("unique_key")?, JobId::from_uuid(row.try_get("id")?)))).collect()
}

/// What a submit does about the job that stands for its unique key. `None`: that one has just ended.
async fn meet(
    db: &mut Connection,
    now: Timestamp,
    job: &NewJob,
    key: &str,
    holder: JobId,
    effects: &mut Effects,
) -> Result<Option<Submitted>> {
    match job.unique.as_ref().map(|rule| rule.on_duplicate).unwrap_or_default() {
        OnDuplicate::Return => Ok(Some(Submitted { id: holder, existed: true, replaced: false })),
        OnDuplicate::Reject => Err(Error::Conflict(format!(
            "job `{holder}` of handler `{}` is there already, and its unique key allows no second one",
            job.handler.escape_debug()
        ))),
        OnDuplicate::Replace => {
            let Some(locked) = jobs::lock(db, holder).await? else { return Ok(None) };
            if locked.state == JobState::Queued {
                jobs::replace(db, now, &locked, job, effects).await?;
                return Ok(Some(Submitted { id: holder, existed: true, replaced: true }));
            }
            if locked.state.is_terminal() && !holders(db, &[key.to_owned()]).await?.contains_key(key) {
                return Ok(None);
            }
            Err(Error::Conflict(format!(
                "job `{holder}` of the same unique key is {}: only a queued one can be replaced",
                locked.state
            )))
        }
    }
}

/// An idempotency key whose job met another of the same unique key stands for that one.
async fn point_keys(db: &mut Connection, new: &[NewJob], answers: &[Submitted]) -> Result<()> {
    for (job, answer) in new.iter().zip(answers) {
        let Some(key) = job.idempotency_key.as_deref() else { continue };
        if job.unique.is_none() || answer.id == job.id {
            continue;
        }
        sqlx::query(
            "UPDATE idempotency_keys SET job_id = $3 WHERE namespace = $1 AND key = $2 AND job_id <> $3",
        )
        .bind(&job.namespace)
        .bind(key)
        .bind(answer.id.uuid())
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}
