//! Runs and durably tracks jobs, workflows and views. Embeds without HTTP.
//!
//! An [`Engine`] is a handle to a store with, if handlers were given, a worker in the same process: one session,
//! one *pump* that settles and claims in batches, as many running handlers as there are slots, a beat that keeps the lease, a
//! sweep that returns what dead workers held, and a reconciler that starts builds. Every task may be
//! killed at any moment: what they do is committed before it counts, and what was lost is found again by looking at
//! the store.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use recache_engine::Engine;
//! use recache_store::{NewJob, OpenOptions, open};
//! use recache_worker::{Context, Handlers};
//!
//! let mut handlers = Handlers::new();
//! handlers.job("double", async |_: Context, n: i64| Ok(n * 2))?;
//!
//! let store = open(&OpenOptions::new("sqlite::memory:")).await?;
//! let engine = Engine::builder(store).handlers(handlers).start().await?;
//! let job = engine.submit(NewJob::new("double", "21")).await?;
//! let done = engine.wait_for_job(job).await?;
//! assert_eq!(done.output.as_deref(), Some("42"));
//! engine.shut_down().await;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```

pub mod adaptive;
pub mod analysis;
mod batches;
mod builder;
mod by_hand;
mod deliver;
mod dispatch;
mod engine;
mod epochs;
mod error;
mod execute;
pub mod figures;
mod fleet;
mod held;
mod held_values;
mod kept;
mod limit;
mod link;
mod maintain;
mod options;
mod origin;
mod plan;
mod prefetch;
mod publishers;
mod pump;
mod reconcile;
pub mod registry;
pub mod remote;
mod rules;
mod schedule;
mod session;
mod signals;
mod standings;
mod stats;
mod step_job;
mod templates;
mod touches;
mod tracker;
mod turn;
mod view_turn;
mod views;
mod waiters;
mod workflows;

pub use builder::Builder;
pub use by_hand::{ByHand, Ran};
pub use deliver::{Courier, Live, LiveEvents, Posting, Reply};
pub use engine::{Engine, TOUCHED_A_STEP};
pub use epochs::StoreEpochs;
pub use error::{Error, Result};
pub use held_values::{HeldRead, HeldValues};
pub use limit::ClaimLimit;
pub use maintain::ROLE as MAINTENANCE;
pub use options::Options;
pub use standings::{STANDING_FRESH, Standing};
pub use stats::Stats;
pub use templates::template_raise;
pub use views::{ViewItem, ViewItems, ViewPage};
