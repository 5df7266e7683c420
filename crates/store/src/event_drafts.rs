//! Events whose payload a publisher makes: written as drafts with the end of the step, made afterwards by any process that has
//! the publisher.
//!
//! A draft is claimed for a time, like a delivery: one whose maker died is made again. The transaction that ends the claim
//! turns it into the event, under the id that it has had from the beginning, so there is one event however often it was made.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::EventId;
use recache_model::time::Timestamp;
use uuid::Uuid;

use crate::error::Result;
use crate::events::EventRecord;
use crate::maintenance::Leadership;

/// Publishers that [`EventDrafts::drafts_waiting`] names.
pub const PUBLISHERS_LISTED_MAX: u32 = 1_000;
/// Drafts that are counted of one publisher.
pub const DRAFTS_COUNTED_MAX: u32 = 100_000;

/// The right to say what became of making a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DraftToken {
    /// Of which event.
    pub event: EventId,
    /// Drawn for the claim.
    pub claim: Uuid,
}

/// A draft that a process has just taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedDraft {
    /// The right to it.
    pub token: DraftToken,
    /// What is to be told. It has no payload yet.
    pub event: EventRecord,
    /// This try, counted from 1.
    pub attempt: u32,
    /// The result of the step that completed, or the error of one that did not; JSON.
    pub ended: String,
    /// What its workflow began with; `None` where that is no longer kept.
    pub workflow_input: Option<String>,
}

/// What became of one try to make a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftEnd {
    /// The right to say so.
    pub token: DraftToken,
    /// What follows.
    pub outcome: DraftOutcome,
}

/// What follows a try to make a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DraftOutcome {
    /// The event is written with this payload, or, where it is too large or does not fit the event's schema, kept back.
    Made {
        /// JSON.
        data: String,
    },
    /// Another try after a while.
    Retry {
        /// Until then.
        after: Duration,
        /// What went wrong.
        error: String,
    },
    /// It comes back after a while, and this try does not count.
    Snoozed {
        /// Until then.
        after: Duration,
    },
    /// There will be no payload: the event is kept back.
    Refused {
        /// Why.
        error: String,
    },
    /// There was no try; it does not count.
    Released,
}

/// What settling did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DraftsSettled {
    /// Events that have their payloads.
    pub made: u64,
    /// Events that were kept back.
    pub refused: u64,
    /// Tries that failed, with others to follow.
    pub retried: u64,
}

/// A publisher that has something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePublisher {
    /// Its name.
    pub publisher: String,
    /// How long until it has.
    pub wait: Duration,
}

/// What waits for a publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDrafts {
    /// Its name.
    pub publisher: String,
    /// How many events; counted up to [`DRAFTS_COUNTED_MAX`].
    pub count: u64,
    /// Since when the oldest one waits.
    pub oldest_at: Timestamp,
}

/// Events that wait for their payloads.
#[async_trait]
pub trait EventDrafts: Send + Sync + Debug {
    /// Those of these publishers for which something waits, and how long until it may be taken.
    async fn drafts_due(&self, publishers: Vec<String>) -> Result<Vec<DuePublisher>>;

    /// Takes drafts of a publisher that are due, for `lease`; they are due again after that. What cannot be made any more, because its
    /// tries are used up or its step's result is no longer kept, is kept back on the way.
    async fn drafts_claim(
        &self,
        publisher: &str,
        lease: Duration,
        rows_max: u32,
    ) -> Result<Vec<ClaimedDraft>>;

    /// Keeps those of a claim that have not ended for `lease` from now.
    async fn drafts_extend(&self, claim: Uuid, lease: Duration) -> Result<()>;

    /// Says what became of drafts. One whose claim is no longer good is left as it is.
    async fn drafts_settle(&self, ends: Vec<DraftEnd>) -> Result<DraftsSettled>;

    /// Which publishers are waited for, by name.
    async fn drafts_waiting(&self) -> Result<Vec<WaitingDrafts>>;

    /// Keeps back what has waited for longer than `wait` and nobody is making. Answers how many.
    async fn drafts_expire(&self, leadership: &Leadership, wait: Duration, rows_max: u32) -> Result<u64>;
}
