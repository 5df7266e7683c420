//! Tests of handlers without a server, an engine or a database.
//!
//! A [`TestJob`] is a job as a handler finds it. Running it answers how the attempt [ended](Ended) and everything that was
//! [reported](Reported) meanwhile: progress, lines, checkpoints, items. Time is tokio's: in a test with
//! `#[tokio::test(start_paused = true)]` nothing is waited for.
//!
//! ```
//! use recache_worker::testing::{Settlement, TestJob};
//! use recache_worker::{Context, Failure, Handlers};
//! use serde_json::json;
//!
//! let mut handlers = Handlers::new();
//! handlers.job("import", async |context: Context, rows: Vec<String>| {
//!     let begin = context.saved::<usize>()?.unwrap_or(0);
//!     for (row, text) in rows.iter().enumerate().skip(begin) {
//!         let number: u32 = text.parse().map_err(Failure::retryable)?;
//!         context.log(&format!("row {row}: {number}")).await?;
//!         context.save(&(row + 1)).await?;
//!     }
//!     Ok(rows.len())
//! })?;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let job = TestJob::new("import").input(&["1", "2", "three"]);
//! let ended = job.run(&handlers).await;
//! assert!(matches!(ended.settlement, Settlement::Retrying { .. }));
//! assert_eq!(ended.reported.log, ["row 0: 1", "row 1: 2"]);
//!
//! // The next attempt begins with what this one kept.
//! let next = ended.next_attempt().expect("attempts are left").input(&["1", "2", "3"]);
//! let ended = next.run(&handlers).await;
//! assert_eq!(ended.settlement, Settlement::Completed(json!(3)));
//! assert_eq!(ended.reported.log, ["row 2: 3"]);
//! # });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A job is cancelled, or its build superseded, when the handler has reported something ([`TestJob::stop_when`]), or whenever the test
//! likes ([`Running::stop`]):
//!
//! ```
//! use recache_worker::testing::{Settlement, TestJob};
//! use recache_worker::{Context, Handlers, Stop};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let mut handlers = Handlers::new();
//! handlers.job("count", async |context: Context, to: u64| {
//!     for number in 0..to {
//!         context.progress(number as f64 / to as f64, None).await?;
//!     }
//!     Ok(to)
//! })?;
//! let job = TestJob::new("count").input(&1_000);
//! let ended = job.stop_when(Stop::Cancelled, |said| said.progress.len() == 3).run(&handlers).await;
//! assert_eq!(ended.settlement, Settlement::Stopped(Stop::Cancelled));
//! assert_eq!(ended.reported.progress.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A builder begins with what is live, and with what earlier builds have left:
//!
//! ```
//! use recache_worker::testing::{Settlement, TestJob};
//! use recache_worker::{BuildContext, Handlers};
//! use serde_json::json;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let mut handlers = Handlers::new();
//! handlers.view("prices", async |build: BuildContext| {
//!     for (item, cents) in [("tea", 250), ("coffee", 310)] {
//!         if !build.reuse(item, &cents.to_string()).await? {
//!             build.put(item, Some(&cents.to_string()), &cents).await?;
//!         }
//!     }
//!     Ok(())
//! })?;
//! let job = TestJob::new("prices")
//!     .view("price-list")
//!     .live("tea", Some("250"), &250)
//!     .live("milk", Some("120"), &120);
//! let ended = job.run(&handlers).await;
//! let Settlement::Built(built) = ended.settlement else { panic!("{:?}", ended.settlement) };
//! assert_eq!(json!(built.items), json!({ "coffee": 310, "tea": 250 }));
//! assert_eq!((built.summary.computed, built.summary.reused), (1, 1));
//! assert_eq!(built.summary.removed, ["milk"]);
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What an engine adds (retries in their time, workflows, views that are read) is tested with one: `recache::testing` has one in memory whose
//! time is moved.

mod ended;
mod job;
mod link;
mod reported;
mod running;

pub use ended::{Built, Ended, Settlement};
pub use job::{DocumentError, TestJob};
pub use reported::{PutItem, Reported};
pub use running::Running;
