//! Many jobs by filter: count, cancel, retry, delete.

use async_trait::async_trait;
use recache_model::ids::{BatchId, JobId};
use recache_model::job::{ErrorKind, JobError, JobEvent};
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, ids, texts};
use super::effects::Effects;
use super::jobs::{self, Change};
use super::letters::move_in_batch;
use super::lists::between;
use super::maintenance::remove;
use crate::bulk_jobs::{BulkJobChange, BulkJobs};
use crate::error::{Error, Result};
use crate::letters::BatchDone;
use crate::queues::Word;
use crate::records::JobFilter;

#[async_trait]
impl BulkJobs for Driver {
    async fn jobs_count(&self, filter: JobFilter, change: BulkJobChange) -> Result<u64> {
        self.read(look!([filter] db, now => {
            let found = find(db, &filter, change).await?;
            Ok(u64::try_from(found.len()).unwrap_or(u64::MAX))
        }))
        .await
    }

    async fn jobs_change(&self, filter: JobFilter, change: BulkJobChange, word: Word) -> Result<BatchDone> {
        self.write(work!([filter, word] db, now, effects => {
            change_all(db, now, &filter, change, &word, effects).await
        }))
        .await
    }
}

async fn find(db: &mut Connection, filter: &JobFilter, change: BulkJobChange) -> Result<Vec<Uuid>> {
    let states: Vec<String> = change
        .states()
        .into_iter()
        .filter(|state| filter.state.is_none_or(|wanted| wanted == *state))
        .map(|state| state.to_string())
        .collect();
    if states.is_empty() {
        let wanted = filter.state.map(|state| state.to_string()).unwrap_or_default();
        return Err(Error::Invalid(format!("this cannot be done to a job that is {wanted}")));
    }
    let [before, from] = between(filter);
    let rows = sqlx::query(concat!(
        "SELECT id FROM jobs WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR queue = $2) \
         AND (CAST($3 AS TEXT) IS NULL OR handler = $3) AND (CAST($9 AS TEXT) IS NULL OR correlation_id = $9) \
         AND ($10 OR batch_id = $11) AND id >= $4 AND id < $5 AND view_id IS NULL AND state ",
        in_texts!("$6"),
        " AND ($7 OR (workflow_id IS NULL AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE dead_letters.job_id = jobs.id \
         AND dead_letters.status IN ('pending', 'investigating')) AND (batch_id IS NULL OR NOT EXISTS (SELECT 1 FROM batches \
         WHERE batches.id = jobs.batch_id AND batches.finished_at IS NULL)))) ORDER BY id DESC LIMIT $8"
    ))
    .bind(&filter.namespace)
    .bind(&filter.queue)
    .bind(&filter.handler)
    .bind(from)
    .bind(before)
    .bind(texts(&states))
    .bind(change != BulkJobChange::Delete)
    .bind(i64::from(filter.rows_max))
    .bind(&filter.correlation_id)
    .bind(filter.batch.is_none())
    .bind(filter.batch.map_or(Uuid::nil(), BatchId::uuid))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

async fn change_all(
    db: &mut Connection,
    now: Timestamp,
    filter: &JobFilter,
    change: BulkJobChange,
    word: &Word,
    effects: &mut Effects,
) -> Result<BatchDone> {
    word.check()?;
    let found = find(db, filter, change).await?;
    let jobs: Vec<JobId> = found.iter().copied().map(JobId::from_uuid).collect();
    let mut done = BatchDone { last: jobs.last().copied(), ..BatchDone::default() };
    let looked_at = u64::try_from(jobs.len()).unwrap_or(u64::MAX);
    if change == BulkJobChange::Delete {
        let ended = lock_ended(db, &found).await?;
        done.changed = remove(db, &ended).await?;
        done.skipped = looked_at.saturating_sub(done.changed);
        return Ok(done);
    }
    jobs::lock_links(db, &jobs).await?;
    for job in jobs {
        let (event, what) = match change {
            BulkJobChange::Cancel => {
                let error = Some(JobError::new(ErrorKind::Cancelled, &word.reason));
                (JobEvent::Cancel, Change { error, ..Change::default() })
            }
            BulkJobChange::Retry | BulkJobChange::Delete => {
                let word = Some(word.clone());
                (JobEvent::OperatorRetry, Change { renew_attempts: true, word, ..Change::default() })
            }
        };
        if move_in_batch(db, now, job, event, what, effects).await? {
            done.changed += 1;
        } else {
            done.skipped += 1;
        }
    }
    Ok(done)
}

/// Those that have still ended: an operator may have retried one since it was found.
async fn lock_ended(db: &mut Connection, found: &[Uuid]) -> Result<Vec<Uuid>> {
    let rows = sqlx::query(concat!(
        "SELECT id FROM jobs WHERE finished_at IS NOT NULL AND id ",
        in_ids!("$1"),
        " ORDER BY id",
        for_update!()
    ))
    .bind(ids(found))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}
