//! Looking at jobs.
//!
//! A list is a walk from the newest job to the oldest, along the index that holds the fewest others. What the index does not know is looked
//! up in the rows, and one page looks at [`JOBS_LOOKED_AT_MAX`] of them at most: it may end before it is full, and says where the next one
//! goes on. So a page costs the same in a table of a thousand jobs and of ten million, whatever it asks for.

use recache_model::ids::{JobId, SessionId};
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Engine};
use super::jobs::{count, job_columns, record, state};
use crate::error::{Error, Result};
use crate::records::{HistoryRow, JOBS_LOOKED_AT_MAX, JobFilter, JobPage, JobRecord};

/// Rows that the first stretch of a walk looks at. Each further one is [`STRETCH_FACTOR`] times as long.
const STRETCH: u32 = 1_000;
const STRETCH_FACTOR: u32 = 4;

type Query<'q> = sqlx::query::Query<'q, Engine, <Engine as sqlx::Database>::Arguments>;

pub(in super::super) async fn get(db: &mut Connection, job: JobId) -> Result<JobRecord> {
    let row = sqlx::query(concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1"))
        .bind(job.uuid())
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::not_found("job", job))?;
    record(&row)
}

/// The way of a walk: along which index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All jobs.
    All,
    /// Those in a state that few are in.
    InState(JobState),
    /// Those that run: as many as there are slots.
    Running,
    /// The members of a batch, in one state or in all.
    OfBatch(Uuid, Option<JobState>),
}

/// The rows of a stretch. $1 and $2 are the ids between which it lies, $3 is how many are wanted, $4 what the way goes by.
///
/// What is compared with `|| ''` is in no index but `jobs_by_state`: none but the way's is taken, whatever the database counted when it last
/// did.
macro_rules! rows {
    ($of_way:literal) => {
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM jobs WHERE ",
            $of_way,
            " AND id < $1 AND id >= $2 \
             AND (CAST($5 AS TEXT) IS NULL OR state || '' = $5) AND (CAST($6 AS TEXT) IS NULL OR namespace || '' = $6) \
             AND (CAST($7 AS TEXT) IS NULL OR queue || '' = $7) AND (CAST($8 AS TEXT) IS NULL OR handler || '' = $8) \
             AND (CAST($9 AS TEXT) IS NULL OR correlation_id || '' = $9) ORDER BY id DESC LIMIT $3"
        )
    };
}

/// The row of the way after $3 others.
macro_rules! row_after {
    ($of_way:literal) => {
        concat!(
            "SELECT id FROM jobs WHERE ",
            $of_way,
            " AND id < $1 AND id >= $2 ORDER BY id DESC LIMIT 1 OFFSET $3"
        )
    };
}

impl Way {
    /// The one that passes the fewest others.
    fn of(filter: &JobFilter) -> Self {
        match (filter.batch, filter.state) {
            (Some(batch), state) => Self::OfBatch(batch.uuid(), state),
            (None, Some(JobState::Running)) => Self::Running,
            (None, Some(JobState::Completed) | None) => Self::All,
            (None, Some(state)) => Self::InState(state),
        }
    }

    fn rows(self) -> &'static str {
        match self {
            Self::All => rows!("CAST($4 AS TEXT) IS NULL"),
            // As the indexes `jobs_by_state` and `jobs_running` say it.
            Self::InState(_) => rows!("(state || '') = $4 AND (state || '') NOT IN ('completed', 'running')"),
            Self::Running => rows!("CAST($4 AS TEXT) IS NULL AND session_id IS NOT NULL"),
            Self::OfBatch(_, Some(_)) => rows!("batch_id = $4 AND state = $5"),
            Self::OfBatch(_, None) => rows!(
                "batch_id = $4 AND state IN ('blocked', 'queued', 'running', 'completed', 'failed', 'cancelled', \
                 'superseded', 'skipped', 'resolved')"
            ),
        }
    }

    fn row_after(self) -> &'static str {
        match self {
            Self::All => row_after!("CAST($4 AS TEXT) IS NULL"),
            Self::InState(_) => {
                row_after!("(state || '') = $4 AND (state || '') NOT IN ('completed', 'running')")
            }
            Self::Running => row_after!("CAST($4 AS TEXT) IS NULL AND session_id IS NOT NULL"),
            Self::OfBatch(..) => row_after!("batch_id = $4 AND state = $5"),
        }
    }

    fn bind(self, query: Query<'_>) -> Query<'_> {
        match self {
            Self::All | Self::Running => query.bind(None::<&str>),
            Self::InState(state) => query.bind(state.as_str()),
            Self::OfBatch(batch, _) => query.bind(batch),
        }
    }

    /// Whether its index holds the filter's jobs alone, by their ids, or few others.
    fn leads_straight(self, filter: &JobFilter) -> bool {
        let is_plain = [&filter.namespace, &filter.queue, &filter.handler, &filter.correlation_id]
            .into_iter()
            .all(Option::is_none);
        match self {
            Self::All => is_plain && filter.state.is_none(),
            Self::InState(_) | Self::OfBatch(_, Some(_)) => is_plain,
            Self::Running => true,
            Self::OfBatch(_, None) => false,
        }
    }

    /// Where a stretch ends in which there are `rows` of each state; `None` where there are not more.
    async fn end(self, db: &mut Connection, between: [Uuid; 2], rows: u32) -> Result<Option<Uuid>> {
        let Self::OfBatch(_, state) = self else { return self.end_in(db, between, rows, None).await };
        let states = state.as_ref().map_or(JobState::ALL.as_slice(), std::slice::from_ref);
        let mut newest = None;
        for state in states {
            newest = newest.max(self.end_in(db, between, rows, Some(*state)).await?);
        }
        Ok(newest)
    }

    async fn end_in(
        self,
        db: &mut Connection,
        [before, from]: [Uuid; 2],
        rows: u32,
        state: Option<JobState>,
    ) -> Result<Option<Uuid>> {
        let query = sqlx::query(self.row_after()).bind(before).bind(from).bind(i64::from(rows) - 1);
        let mut query = self.bind(query);
        if let Some(state) = state {
            query = query.bind(state.as_str());
        }
        let row = query.fetch_optional(db).await?;
        Ok(row.map(|row| row.try_get("id")).transpose()?)
    }

    async fn find(
        self,
        db: &mut Connection,
        filter: &JobFilter,
        [before, from]: [Uuid; 2],
        rows_max: usize,
    ) -> Result<Vec<JobRecord>> {
        let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let query = sqlx::query(self.rows()).bind(before).bind(from).bind(rows_max);
        let rows = self
            .bind(query)
            .bind(filter.state.map(JobState::as_str))
            .bind(&filter.namespace)
            .bind(&filter.queue)
            .bind(&filter.handler)
            .bind(&filter.correlation_id)
            .fetch_all(db)
            .await?;
        rows.iter().map(record).collect()
    }
}

pub(in super::super) async fn list(db: &mut Connection, filter: &JobFilter) -> Result<JobPage> {
    let way = Way::of(filter);
    let [mut before, from] = between(filter);
    // One more than the page holds tells whether there is another one.
    let rows_max = usize::try_from(filter.rows_max).unwrap_or(usize::MAX).saturating_add(1);
    let mut jobs: Vec<JobRecord> = Vec::new();
    let mut stretch = STRETCH;
    let mut looks_left = JOBS_LOOKED_AT_MAX;
    loop {
        stretch = stretch.min(looks_left);
        looks_left -= stretch;
        let end =
            if way.leads_straight(filter) { None } else { way.end(db, [before, from], stretch).await? };
        jobs.extend(way.find(db, filter, [before, end.unwrap_or(from)], rows_max - jobs.len()).await?);
        if jobs.len() == rows_max {
            jobs.pop();
            let next = jobs.last().map(|job| job.id);
            return Ok(JobPage { jobs, next });
        }
        match end {
            None => return Ok(JobPage { jobs, next: None }),
            Some(end) if looks_left == 0 => return Ok(JobPage { jobs, next: Some(JobId::from_uuid(end)) }),
            Some(end) => before = end,
        }
        stretch = stretch.saturating_mul(STRETCH_FACTOR);
    }
}

/// Between which ids the jobs of a filter lie: below the first, and at the second or above.
pub(super) fn between(filter: &JobFilter) -> [Uuid; 2] {
    let before = [filter.before.map(JobId::uuid), filter.created_before.map(first_id)];
    [
        before.into_iter().flatten().min().unwrap_or(Uuid::max()),
        filter.created_from.map_or(Uuid::nil(), first_id),
    ]
}

/// The least id of those that are made at a time or later: with the millisecond an id begins.
fn first_id(at: Timestamp) -> Uuid {
    let ms = u64::try_from(at.micros()).unwrap_or(0).div_ceil(1_000);
    Uuid::from_u128(u128::from(ms) << 80)
}

/// Of a job that is gone there may be history that nobody is to see.
pub(in super::super) async fn history(db: &mut Connection, job: JobId) -> Result<Vec<HistoryRow>> {
    let rows = sqlx::query(
        "SELECT seq, at, from_state, to_state, attempt, epoch, session_id, detail FROM job_history \
         WHERE job_id = $1 AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = $1) ORDER BY seq",
    )
    .bind(job.uuid())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(HistoryRow {
                seq: row.try_get("seq")?,
                at: Timestamp::from_micros(row.try_get("at")?),
                from: state(row, "from_state")?,
                to: state(row, "to_state")?,
                attempt: count(row, "attempt")?,
                epoch: row.try_get("epoch")?,
                session: row.try_get::<Option<Uuid>, _>("session_id")?.map(SessionId::from_uuid),
                detail: row.try_get("detail")?,
            })
        })
        .collect()
}
