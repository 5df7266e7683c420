//! How tracked jobs stand, through the cache: for pages that ask again and again.
//!
//! The store stays the truth. Nothing is written through the cache, and no report waits for it: a reader names the revision that it knows of
//! (the answer to a report has it), and a cached standing that is older is passed over. So who reported reads its own report, through whatever
//! process, with no invalidation that could be lost.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::{Cache, Policy, Space, Usage};
use recache_model::ids::JobId;
use recache_model::time::Timestamp;
use recache_model::tracked::TrackedState;
use recache_store::TrackedJob;
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::Result;

/// A standing that is read without a revision may be this old.
pub const STANDING_FRESH: Duration = Duration::from_secs(1);

/// How a tracked job stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Where it stands.
    pub state: TrackedState,
    /// How often it has changed.
    pub revision: i64,
    /// 0 to 1.
    pub progress: Option<f64>,
    /// Things done.
    pub items_done: Option<i64>,
    /// Things to do.
    pub items_total: Option<i64>,
    /// What its owner last said; of a failed job, why it failed.
    pub message: Option<String>,
    /// A stable word for why it failed.
    pub code: Option<String>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Standing {
    fn of(job: TrackedJob) -> Self {
        Self {
            state: job.course.state,
            revision: job.revision,
            progress: job.course.progress,
            items_done: job.course.items_done,
            items_total: job.course.items_total,
            message: job.course.message,
            code: job.course.code,
            finished_at: job.finished_at,
        }
    }
}

/// A standing as it lies in the cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cached {
    state: String,
    revision: i64,
    progress: Option<f64>,
    items_done: Option<i64>,
    items_total: Option<i64>,
    message: Option<String>,
    code: Option<String>,
    finished_at_us: Option<i64>,
}

impl From<Standing> for Cached {
    fn from(standing: Standing) -> Self {
        Self {
            state: standing.state.to_string(),
            revision: standing.revision,
            progress: standing.progress,
            items_done: standing.items_done,
            items_total: standing.items_total,
            message: standing.message,
            code: standing.code,
            finished_at_us: standing.finished_at.map(Timestamp::micros),
        }
    }
}

impl Cached {
    /// `None`: it was written by somebody who knows other states.
    fn standing(&self) -> Option<Standing> {
        Some(Standing {
            state: self.state.parse().ok()?,
            revision: self.revision,
            progress: self.progress,
            items_done: self.items_done,
            items_total: self.items_total,
            message: self.message.clone(),
            code: self.code.clone(),
            finished_at: self.finished_at_us.map(Timestamp::from_micros),
        })
    }
}

/// The cache as standings use it.
#[derive(Debug)]
pub(crate) struct Standings {
    cache: Cache,
    space: Space,
}

impl Standings {
    pub(crate) fn new(cache: &Cache) -> Self {
        Self { cache: cache.for_usage(&Usage::JobState), space: cache.keys().space("job_state") }
    }
}

impl Engine {
    /// How a tracked job stands, through the cache: no older than [`STANDING_FRESH`], and never of an earlier revision than
    /// `min_revision`; 0 asks for no more than that. With no cache, or one that is down, full or wrong, the store answers in the same
    /// call.
    pub async fn standing(&self, job: JobId, min_revision: i64) -> Result<Standing> {
        let Standings { cache, space } = &self.shared.standings;
        let key = space.key([job.uuid().to_string()]);
        let policy = Policy::new(STANDING_FRESH);
        let tracked = self.shared.store.tracked_jobs();
        let load = || async move {
            let standing = Standing::of(tracked.tracked_get(job).await?);
            Ok::<_, recache_store::Error>(Some(Cached::from(standing)))
        };
        let cached: Option<Arc<Cached>> = cache.get_or_load(&key, &policy, load).await.unwrap_or_default();
        if let Some(standing) = cached.and_then(|cached| cached.standing())
            && standing.revision >= min_revision
        {
            return Ok(standing);
        }
        // Also where the load failed: what the store says now is the answer, and its error is the caller's.
        // It is not put into the cache: by then it may be older than what lies there.
        Ok(Standing::of(tracked.tracked_get(job).await?))
    }
}
