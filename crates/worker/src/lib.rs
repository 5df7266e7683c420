//! What handlers are written against.
//!
//! A *handler* does a job: it gets a [`Context`] and its input, and returns a result or a [`Failure`] whose kind
//! says what shall happen next. A *builder* makes a view's next version: it gets a [`BuildContext`] and puts items.
//! Both are registered by name in [`Handlers`]; whoever runs them (the embedded engine, or a remote worker's runtime) gives
//! the contexts their [`Link`].
//!
//! ```
//! use recache_worker::{BuildContext, Context, Failure, Handlers};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Order { net: f64 }
//! #[derive(Serialize)]
//! struct Total { gross: f64 }
//!
//! let mut handlers = Handlers::new();
//! handlers.job("total", async |context: Context, order: Order| {
//!     context.checkpoint().await?; // ends here if the job was cancelled
//!     if order.net < 0.0 {
//!         return Err(Failure::permanent("negative_net", "an order cannot cost less than nothing"));
//!     }
//!     Ok(Total { gross: order.net * 1.19 })
//! })?;
//! handlers.view("price-list", async |build: BuildContext| {
//!     for (item, cents) in [("tea", 250), ("coffee", 310)] {
//!         // Same fingerprint as before: nothing is computed, nothing is written.
//!         if !build.reuse(item, &format!("{cents}")).await? {
//!             build.put(item, Some(&format!("{cents}")), &cents).await?;
//!         }
//!     }
//!     Ok(())
//! })?;
//! # Ok::<(), recache_worker::RegisterError>(())
//! ```
//!
//! [`testing`] runs handlers without any of those.

mod build;
mod build_part;
mod context;
mod event;
mod failure;
mod handlers;
mod known;
mod limits;
mod link;
mod publisher;
#[cfg(feature = "remote")]
pub mod remote;
mod stop;
pub mod testing;

pub use build::{BuildContext, BuildSource, BuildSummary, ITEM_KEY_BYTES_MAX, ITEM_VALUE_BYTES_MAX, Touched};
pub use build_part::BuildPart;
pub use context::{Context, JobFacts};
pub use event::{Event, Subscriber, Subscribers, Subscription};
pub use failure::Failure;
pub use handlers::{
    Builder, Call, Description, Handler, Handlers, INPUT_SCHEMA_BYTES_MAX, NotFound, RegisterError,
    Registered, Resolver,
};
pub use known::{KnownItem, KnownPlace, KnownSource, Pages};
pub use link::{Item, Keep, Link, LinkError, PartSource};
pub use publisher::{PublishContext, Publisher, StepEnd, StepError};
pub use stop::{Stop, StopSignal};
