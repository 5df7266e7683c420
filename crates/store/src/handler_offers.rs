//! Which worker can do what, and what is done by whom: what a registry of handlers is made of.
//!
//! A worker says what it can do when its session has been opened, and what it said goes with the session. Nothing is decided by it:
//! a claim names handlers by itself. It is kept so that people can look.

use std::fmt::Debug;

use async_trait::async_trait;
use recache_model::handlers::{HandlerOffer, HandlerUsers, Worker};
use recache_model::ids::SessionId;

use crate::error::Result;

/// Views and schedules that are read for one answer.
pub const USERS_ROWS_MAX: u32 = 100_000;

/// What workers can do.
#[async_trait]
pub trait HandlerOffers: Send + Sync + Debug {
    /// What the worker of a session can do, in place of what it said before. False: the session has ended, and nothing is kept.
    async fn handlers_offer(
        &self,
        session: SessionId,
        queues: Vec<String>,
        slots: u32,
        handlers: Vec<HandlerOffer>,
    ) -> Result<bool>;

    /// Workers whose sessions have not ended and who said what they can do, remote ones too; the newest first.
    async fn handlers_workers(&self, workers_max: u32) -> Result<Vec<Worker>>;

    /// Which views and schedules name which handlers, by namespace and handler; of [`USERS_ROWS_MAX`] views and schedules at most.
    async fn handlers_users(&self) -> Result<Vec<HandlerUsers>>;

    /// A short text that is another one as soon as workers came or went, a template was stored, or views and schedules name other handlers:
    /// as long as it is the same, so is the registry but for its figures. Costs what [`handlers_users`](Self::handlers_users) does.
    async fn handlers_mark(&self) -> Result<String>;
}
