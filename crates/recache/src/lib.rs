//! Background work that keeps caches right: the library to embed.
//!
//! One door to the crates below: [`model`] (rules), [`store`] (durable state), [`cache`], [`worker`] (what handlers are
//! written against) and [`engine`]. What most programs need is re-exported here; [`app`] is one builder for all of it, and
//! [`testing`] is for their tests.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use recache::{BuildContext, Engine, Handlers, NewView, OpenOptions, Touch, ViewPolicy, open};
//! use std::time::Duration;
//!
//! let mut handlers = Handlers::new();
//! handlers.view("prices", async |build: BuildContext| {
//!     build.put("tea", None, &250).await?;
//!     build.put("coffee", None, &310).await
//! })?;
//!
//! let store = open(&OpenOptions::new("sqlite::memory:")).await?;
//! let engine = Engine::builder(store).handlers(handlers).start().await?;
//! engine.define_view(NewView {
//!     policy: ViewPolicy { debounce_quiet_ms: 5, ..ViewPolicy::default() },
//!     ..NewView::new("shop", "prices", "prices")
//! }).await?;
//!
//! // The inputs changed. Whoever caused it can read its own write: version or newer.
//! let touch = Touch { namespace: "shop".into(), key: "prices".into(), ..Touch::default() };
//! let version = engine.touch(touch).await?.version;
//! let items = engine
//!     .read_items_since("shop", "prices", &["tea", "cocoa"], version, Duration::from_secs(5))
//!     .await?;
//! assert_eq!(items.values[0].as_deref().map(String::as_str), Some("250"));
//! assert_eq!(items.values[1], None);
//! engine.shut_down().await;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```

mod app;
mod snapshots;
pub mod testing;

pub use recache_cache as cache;
pub use recache_engine as engine;
pub use recache_model as model;
pub use recache_store as store;
pub use recache_worker as worker;

pub use app::{App, AppBuilder, app};
pub use snapshots::SnapshotReads;

pub use recache_engine::{Courier, Engine, Live, LiveEvents, Options};
pub use recache_model::item_rules::ItemRules;
pub use recache_model::retry::RetryPolicy;
pub use recache_model::template::Template;
pub use recache_model::view::{OnTouch, ViewPolicy};
pub use recache_model::view_options::{BuildWorkflow, ViewOptions};
pub use recache_store::{Due, NewJob, NewView, OpenOptions, Store, Touch, open};
pub use recache_worker::{
    BuildContext, BuildPart, Context, Event, Failure, Handlers, PublishContext, StepEnd, Subscribers,
};
