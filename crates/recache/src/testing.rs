//! Tests of programs that use Recache: in memory, with time that is moved, without a server, a network or a pause. For one attempt of one handler,
//! [`worker::testing`](crate::worker::testing) needs no engine either.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::time::Duration;
//!
//! use recache::testing::TestEngine;
//! use recache::{Context, Due, Failure, Handlers, NewJob};
//! use serde_json::json;
//!
//! let mut handlers = Handlers::new();
//! handlers.job("greet", async |context: Context, name: String| {
//!     if context.facts().attempt == 1 {
//!         return Err(Failure::retryable_after("not yet", Duration::from_secs(60)));
//!     }
//!     Ok(format!("hello {name}"))
//! })?;
//!
//! let test = TestEngine::start(handlers).await?;
//! let job = test.submit("greet", &"Ada").await?;
//! test.engine().submit(NewJob { due: Due::In(Duration::from_hours(1)), ..NewJob::new("greet", "\"Bob\"") }).await?;
//! test.assert_submitted("greet", &json!("Ada")).await;
//!
//! test.run_due().await?; // the first attempt fails
//! assert_eq!(test.output(job).await?, None);
//! test.advance(Duration::from_secs(90));
//! test.run_due().await?; // its retry is due, Bob's job is not
//! assert_eq!(test.output(job).await?, Some(json!("hello Ada")));
//! assert_eq!(test.waiting().await?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use recache_engine::{ByHand, Engine, Error, Options, Ran, Result};
use recache_model::ids::JobId;
use recache_model::time::{Clock as _, ManualClock, Timestamp};
use recache_store::{JobFilter, JobRecord, NewJob, OpenOptions, open};
use recache_worker::{Handlers, Subscribers};
use serde::Serialize;
use serde_json::Value;

/// Jobs that the questions here look at.
const LOOKED_AT_MAX: u32 = 10_000;
/// When time begins: 2026-01-01T00:00:00Z. Always the same, so that tests are.
const BEGIN: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// An engine over a database in memory that goes away with it. Nothing runs by itself: [`run_due`](Self::run_due) does what is due, and
/// [`advance`](Self::advance) makes more due.
#[derive(Debug)]
pub struct TestEngine {
    by_hand: ByHand,
    clock: ManualClock,
}

impl TestEngine {
    /// With these handlers, which serve the queue `default`.
    pub async fn start(handlers: Handlers) -> Result<Self> {
        Self::start_with(handlers, Subscribers::new(), Options::default()).await
    }

    /// With subscribers and options too.
    pub async fn start_with(handlers: Handlers, subscribers: Subscribers, options: Options) -> Result<Self> {
        let clock = ManualClock::at(BEGIN);
        let memory =
            OpenOptions { clock: Some(Arc::new(clock.clone())), ..OpenOptions::new("sqlite::memory:") };
        let store = open(&memory).await?;
        let builder = Engine::builder(store).handlers(handlers).subscribers(subscribers).options(options);
        Ok(Self { by_hand: builder.start_by_hand().await?, clock })
    }

    /// To submit workflows, touch views, read.
    pub fn engine(&self) -> &Engine {
        self.by_hand.engine()
    }

    /// Submits a job.
    pub async fn submit<I: Serialize + Sync>(&self, handler: &str, input: &I) -> Result<JobId> {
        let input = serde_json::to_string(input)
            .map_err(|error| Error::Invalid(format!("the input is not JSON: {error}")))?;
        self.engine().submit(NewJob::new(handler, input)).await
    }

    /// Does all that is due, and what becomes due by that, until nothing is.
    pub async fn run_due(&self) -> Result<Ran> {
        self.by_hand.run_due().await
    }

    /// Moves time. Nothing happens by that alone.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The result of a job; `None` if it has none.
    pub async fn output(&self, job: JobId) -> Result<Option<Value>> {
        let record = self.engine().job(job).await?;
        Ok(record.output.as_deref().and_then(|text| serde_json::from_str(text).ok()))
    }

    /// Jobs of a handler, in the order of their submits, whatever became of them.
    pub async fn jobs(&self, handler: &str) -> Result<Vec<JobRecord>> {
        let filter = JobFilter { handler: Some(handler.to_owned()), ..JobFilter::default() };
        let mut jobs = self.list(filter).await?;
        jobs.reverse();
        Ok(jobs)
    }

    /// Jobs that have not ended.
    pub async fn waiting(&self) -> Result<usize> {
        let jobs = self.list(JobFilter::default()).await?;
        Ok(jobs.iter().filter(|job| !job.state.is_terminal()).count())
    }

    /// The newest [`LOOKED_AT_MAX`] of a filter.
    async fn list(&self, mut filter: JobFilter) -> Result<Vec<JobRecord>> {
        let mut jobs = Vec::new();
        filter.rows_max = LOOKED_AT_MAX;
        loop {
            let page = self.engine().store().jobs_list(filter.clone()).await?;
            filter.rows_max =
                filter.rows_max.saturating_sub(u32::try_from(page.jobs.len()).unwrap_or(u32::MAX));
            jobs.extend(page.jobs);
            match page.next {
                Some(next) if filter.rows_max > 0 => filter.before = Some(next),
                _ => return Ok(jobs),
            }
        }
    }

    /// Panics unless a job of this handler was submitted with this input; says which ones were.
    #[expect(clippy::panic, reason = "an assertion of a test ends the test")]
    pub async fn assert_submitted(&self, handler: &str, input: &Value) {
        let jobs = match self.jobs(handler).await {
            Ok(jobs) => jobs,
            Err(error) => panic!("the jobs of `{handler}` cannot be listed: {error}"),
        };
        let is_it =
            |job: &JobRecord| serde_json::from_str::<Value>(&job.input).is_ok_and(|found| found == *input);
        if jobs.iter().any(is_it) {
            return;
        }
        let mut found = String::new();
        for job in &jobs {
            let _ = write!(found, "\n  {}", job.input);
        }
        panic!("no job of `{handler}` was submitted with {input}; there are {}:{found}", jobs.len());
    }

    /// Panics if a job of this handler was submitted.
    #[expect(clippy::panic, reason = "an assertion of a test ends the test")]
    pub async fn assert_nothing_submitted(&self, handler: &str) {
        match self.jobs(handler).await {
            Ok(jobs) if jobs.is_empty() => {}
            Ok(jobs) => {
                panic!("{} jobs of `{handler}` were submitted; the first with {}", jobs.len(), jobs[0].input)
            }
            Err(error) => panic!("the jobs of `{handler}` cannot be listed: {error}"),
        }
    }
}
