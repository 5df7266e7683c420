//! The stream of all events that were handed on, in one order, for those who read on from where they were.
//!
//! An event gets its place when it is handed on, by one transaction after the other: whoever has seen a place will never find a
//! new event before it. Ids and times do not have that: what was begun first may be committed last.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::events::EventRecord;

/// Listeners that there may be.
pub const LISTENERS_MAX: u32 = 1_000;

/// An event with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedEvent {
    /// Counted from 1; places may be left out.
    pub place: i64,
    /// What happened.
    pub event: EventRecord,
}

/// How far the stream is, and what of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamExtent {
    /// The place that was given last.
    pub last: i64,
    /// Whoever has not come this far may miss events that were removed because their time was over.
    pub removed_through: i64,
    /// Whoever has not come this far may miss changes of state, of the types that were asked about, that were not written because
    /// nobody wanted them. `None`: they are not written now.
    pub unwritten_through: Option<i64>,
}

/// The stream.
#[async_trait]
pub trait EventStream: Send + Sync + Debug {
    /// How far it is. `types` are patterns as a subscriber has them.
    async fn stream_extent(&self, types: Vec<String>) -> Result<StreamExtent>;

    /// Events after a place, in their order.
    async fn stream_read(&self, after: i64, rows_max: u32) -> Result<Vec<PlacedEvent>>;

    /// Has the changes of state of these types written for `keep` from now on; what this listener wanted before is
    /// forgotten. When this returns, every change that is committed later is written.
    async fn stream_listen(&self, listener: &str, types: Vec<String>, keep: Duration) -> Result<()>;
}
