//! Schedules on the wire.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::json::Json;
use crate::view::RetryPolicy;

/// A schedule as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Schedule {
    /// Who it belongs to.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// When it ticks.
    pub cron: String,
    /// In which time zone.
    pub zone: String,
    /// `skip`, `allow` or `replace`: what happens when a tick comes while the former job has not ended.
    pub overlap: String,
    /// `skip` or `once`: what becomes of ticks that nobody saw in time.
    pub catch_up: String,
    /// What does its jobs.
    pub handler: String,
    /// Where they wait.
    pub queue: String,
    /// What their handler is given.
    pub input: Json,
    /// Larger is more urgent.
    pub priority: i64,
    /// What follows a failure.
    pub retry: RetryPolicy,
    /// How long one attempt may run.
    pub timeout_ms: Option<u64>,
    /// The tick that it waits for.
    pub next_at: Option<Instant>,
    /// The last tick that led to a job.
    pub last_tick_at: Option<Instant>,
    /// `job_…`: the last job that it made.
    pub last_job_id: Option<String>,
    /// Ticks that led to none because the former job had not ended.
    pub ticks_skipped: i64,
    /// Since when it is paused; `null` while it is not.
    pub paused_at: Option<Instant>,
    /// Who paused it.
    pub pause_actor: Option<String>,
    /// Why.
    pub pause_reason: Option<String>,
}

/// Schedules by namespace and name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleList {
    /// [`ScheduleList::SCHEMA`]
    pub schema: String,
    /// The page.
    pub schedules: Vec<Schedule>,
    /// Where the next page begins. `null` on the last page.
    pub next: Option<String>,
}

impl ScheduleList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.schedules.v1";

    /// A page.
    pub fn new(schedules: Vec<Schedule>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), schedules, next }
    }
}

/// One schedule, after a call about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleAnswer {
    /// [`ScheduleAnswer::SCHEMA`]
    pub schema: String,
    /// What stands now; of one that was deleted, what stood last.
    pub schedule: Schedule,
    /// Whether this call made it so.
    pub changed: bool,
}

impl ScheduleAnswer {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.schedule.v1";

    /// What stands.
    pub fn new(schedule: Schedule, changed: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), schedule, changed }
    }
}

/// When a schedule ticks next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ticks {
    /// [`Ticks::SCHEMA`]
    pub schema: String,
    /// In which time zone.
    pub zone: String,
    /// In order.
    pub ticks: Vec<Instant>,
}

impl Ticks {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.ticks.v1";

    /// Ticks in order.
    pub fn new(zone: String, ticks: Vec<Instant>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), zone, ticks }
    }
}
