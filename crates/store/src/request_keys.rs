//! Requests that may be repeated: each is carried out once for its key, and its answer kept for
//! [`IDEMPOTENCY_KEEP`](recache_model::unique::IDEMPOTENCY_KEEP).
//!
//! A process may die between an action and the note of its answer. The request is then carried out again with the *seed* of the first
//! time: what it makes has the same ids, so that the store finds what is there.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::error::Result;

/// Longest answer that is kept, in bytes.
pub const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// A request that names a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRequest {
    /// Whose key it is: those of different callers have nothing to do with each other.
    pub caller: String,
    /// The key.
    pub key: String,
    /// Of all that was asked for.
    pub fingerprint: String,
    /// What new things are made from, if this is the first time.
    pub seed: Uuid,
    /// Nobody else carries it out for this long.
    pub hold: Duration,
}

/// The answer that is given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// HTTP status.
    pub status: u16,
    /// The document.
    pub body: String,
    /// Where what was made can be found.
    pub location: Option<String>,
}

/// What a request finds under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is to be carried out, with this seed.
    Now(Uuid),
    /// Somebody is carrying it out.
    Running,
    /// It was carried out.
    Done(KeptAnswer),
    /// The key was used for something else.
    Different,
}

/// Keys of requests.
#[async_trait]
pub trait RequestKeys: Send + Sync + Debug {
    /// Takes a request up, or says what came of it.
    async fn request_begin(&self, request: NewRequest) -> Result<Begun>;

    /// Nobody else carries it out for this long from now: whoever is at it says so again before the time is over. False: it is no longer
    /// that one's, or has its answer.
    async fn request_hold(&self, caller: &str, key: &str, seed: Uuid, hold: Duration) -> Result<bool>;

    /// Keeps its answer.
    async fn request_end(&self, caller: &str, key: &str, seed: Uuid, answer: KeptAnswer) -> Result<()>;

    /// Lets go of it: `is_undone` says that nothing was changed, and it is forgotten; else it may be carried out again at once with the
    /// same seed.
    async fn request_release(&self, caller: &str, key: &str, seed: Uuid, is_undone: bool) -> Result<()>;
}
