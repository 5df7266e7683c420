//! The rules of Recache, pure: no I/O, no clock, no randomness of its own.
//!
//! Everything that decides lives here, as functions over values: which state a job may enter
//! ([`job`]), when a failed attempt runs again ([`retry`]), what a touch does to a running build
//! ([`view`]), what a workflow's state is ([`workflow`]), what becomes of the
//! steps behind a decision ([`expansion`]), how much a worker may claim
//! ([`dispatch`]). The engine carries the decisions out; the drivers of the store obey.
//!
//! ```
//! use recache_model::job::{JobEvent, JobState};
//!
//! assert_eq!(JobState::Running.after(JobEvent::Complete), Some(JobState::Completed));
//! // A finished job stays finished: there is no way on.
//! assert_eq!(JobState::Completed.after(JobEvent::Claim), None);
//! ```

pub mod analysis;
pub mod batch;
pub mod dispatch;
pub mod event;
pub mod expansion;
pub mod figures;
pub mod handlers;
pub mod held_value;
pub mod http_status;
pub mod ids;
pub mod item_rules;
pub mod job;
pub mod letter;
pub mod lifecycle;
pub mod limiter;
pub mod limits;
pub mod pool;
pub mod retention;
pub mod retry;
pub mod schedule;
pub mod template;
pub mod time;
pub mod trace;
pub mod tracked;
pub mod ttl;
pub mod unique;
pub mod view;
pub mod view_options;
pub mod view_pattern;
pub mod view_wait;
pub mod webhook;
pub mod workflow;
