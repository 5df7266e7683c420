//! Schedules: jobs that begin at the ticks of a clock.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::JobId;
use recache_model::retry::RetryPolicy;
use recache_model::schedule::{CatchUp, Overlap};
use recache_model::time::Timestamp;
use recache_model::trace::{TraceContext, is_kept};

use crate::error::Result;
use crate::maintenance::Leadership;
use crate::queues::Word;

/// A schedule to be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSchedule {
    /// Who it and its jobs belong to.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// When it ticks.
    pub cron: String,
    /// In which time zone: a name of the IANA database.
    pub zone: String,
    /// What happens when a tick comes while the former job has not ended.
    pub overlap: Overlap,
    /// What becomes of ticks that nobody saw in time.
    pub catch_up: CatchUp,
    /// Where its jobs wait.
    pub queue: String,
    /// What does them.
    pub handler: String,
    /// JSON for the handler.
    pub input: String,
    /// Larger is more urgent.
    pub priority: i64,
    /// What follows a failure.
    pub retry: RetryPolicy,
    /// How long one attempt may run.
    pub timeout: Option<Duration>,
}

impl NewSchedule {
    /// A schedule with defaults: namespace and queue `default`, time zone UTC, overlap and catch-up skipped, input `null`.
    pub fn new(name: impl Into<String>, cron: impl Into<String>, handler: impl Into<String>) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.into(),
            cron: cron.into(),
            zone: "UTC".to_owned(),
            overlap: Overlap::Skip,
            catch_up: CatchUp::Skip,
            queue: "default".to_owned(),
            handler: handler.into(),
            input: "null".to_owned(),
            priority: 0,
            retry: RetryPolicy::default(),
            timeout: None,
        }
    }
}

/// A schedule as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRecord {
    /// What it says.
    pub definition: NewSchedule,
    /// The tick that it waits for; while it is paused, the one that it waited for.
    pub next_at: Option<Timestamp>,
    /// The last job that it made.
    pub last_job: Option<JobId>,
    /// The last tick that led to a job.
    pub last_tick_at: Option<Timestamp>,
    /// Ticks that led to none because the former job had not ended.
    pub ticks_skipped: i64,
    /// Since when it is paused, by whom and why.
    pub pause: Option<(Timestamp, Word)>,
}

/// What the scheduler did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fired {
    /// Jobs that it made.
    pub jobs: Vec<JobId>,
    /// Ticks that led to none.
    pub skipped: u64,
}

/// The place of the tick that made this job in a trace of its own: whoever tells of the tick finds it by the job alone.
pub fn trace_of_tick(job: JobId, traces_per_mille: u32) -> TraceContext {
    let (trace, (_, span)) = (job.uuid().as_u128(), job.uuid().as_u64_pair());
    TraceContext::begin(trace, span, is_kept(trace, traces_per_mille))
}

/// Schedules by namespace and name.
#[async_trait]
pub trait Schedules: Send + Sync + Debug {
    /// Keeps a schedule, in place of one of the same name; a pause stays. Answers it with its first tick.
    async fn schedule_put(&self, schedule: NewSchedule) -> Result<ScheduleRecord>;

    /// One schedule.
    async fn schedule_get(&self, namespace: &str, name: &str) -> Result<ScheduleRecord>;

    /// Schedules by namespace and name; after `after`, if given.
    async fn schedules_list(
        &self,
        namespace: Option<&str>,
        after: Option<(String, String)>,
        rows_max: u32,
    ) -> Result<Vec<ScheduleRecord>>;

    /// Ticks lead to nothing until it is resumed. Pausing again changes the reason.
    async fn schedule_pause(&self, namespace: &str, name: &str, word: Word) -> Result<()>;

    /// Waits for the next tick from now on; those of the pause are gone. False when it was not paused.
    async fn schedule_resume(&self, namespace: &str, name: &str) -> Result<bool>;

    /// Makes a job of this id at once, besides the ticks; one that is there already was made by this call before. While the former job
    /// has not ended this does what the overlap policy says, and `skip` is a conflict.
    async fn schedule_run(&self, namespace: &str, name: &str, job: JobId) -> Result<()>;

    /// Removes a schedule; its jobs stay.
    async fn schedule_delete(&self, namespace: &str, name: &str) -> Result<()>;

    /// How long until the next tick of any schedule; zero when one is due, `None` when there is none.
    async fn schedules_next(&self) -> Result<Option<Duration>>;

    /// Makes the jobs of ticks that are due, of at most `rows_max` schedules. Of a thousand ticks so many begin a trace that is kept ([`trace_of_tick`]); with 0
    /// none begins one. Refused as a conflict when another process has taken the
    /// lead; and even then no tick leads to two jobs.
    async fn schedules_fire(
        &self,
        leadership: &Leadership,
        rows_max: u32,
        traces_per_mille: u32,
    ) -> Result<Fired>;

    /// Forgets ticks that are older than `keep`. Answers how many.
    async fn ticks_remove(&self, leadership: &Leadership, keep: Duration, rows_max: u32) -> Result<u64>;
}
