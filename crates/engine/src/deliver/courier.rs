//! Whoever carries webhooks out of the process: the engine itself knows no HTTP.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

/// A signed request to be sent by `POST`, with `content-type: application/json` and the three headers of the Standard Webhooks
/// specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// Where to.
    pub url: String,
    /// `webhook-id`: the event's id.
    pub id: String,
    /// `webhook-timestamp`: seconds since 1970 UTC.
    pub timestamp_seconds: i64,
    /// `webhook-signature`.
    pub signature: String,
    /// JSON; these very bytes are signed.
    pub body: String,
    /// For the whole exchange.
    pub timeout: Duration,
}

/// What the other side answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The status of HTTP.
    pub status: u16,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

/// Sends webhooks. It guards which addresses may be reached, follows no redirect, and reads no more of an answer than it
/// must.
#[async_trait]
pub trait Courier: Send + Sync + Debug {
    /// Why it would not send there, before a webhook is kept; `allow_plain`: not even without TLS.
    fn refuses(&self, url: &str, allow_plain: bool) -> Option<String>;

    /// One exchange; `Err` says what went wrong, without any secret and without the address' query.
    async fn post(&self, posting: Posting) -> Result<Reply, String>;
}
