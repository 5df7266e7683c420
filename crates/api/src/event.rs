//! Events, who is told of them, and what became of telling them, on the wire.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::json::Json;
use crate::view::RetryPolicy;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// `evt_…`: the same however often it is told.
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub name: String,
    /// Whose it is.
    pub namespace: String,
    /// When.
    pub at: Instant,
    /// `job_…`: the job that it is about.
    pub job_id: Option<String>,
    /// `wf_…`: its workflow.
    pub workflow_id: Option<String>,
    /// Its step there.
    pub step: Option<String>,
    /// The attempt that ended.
    pub attempt: Option<u32>,
    /// `completed`, `retrying` or `failed`, of an event that a step publishes.
    pub outcome: Option<String>,
    /// Ties what belongs together.
    pub correlation_id: Option<String>,
    /// The payload.
    pub data: Json,
    /// Why the payload was refused; then nobody is told. While it is not made yet: what went wrong at the last try.
    pub problem: Option<String>,
    /// The publisher that has yet to make the payload. Nobody has been told.
    pub waits_for: Option<String>,
}

/// Events, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventList {
    /// [`EventList::SCHEMA`]
    pub schema: String,
    /// As many as were asked for.
    pub events: Vec<Event>,
    /// Where the next page begins. `null` on the last page.
    pub next: Option<String>,
}

impl EventList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.events.v1";

    /// A list.
    pub fn new(events: Vec<Event>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), events, next }
    }
}

/// In a stream of events, under `event: gap`: something may be missing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamGap {
    /// The id after which it is.
    pub after: i64,
    /// The id up to which it is.
    pub through: i64,
    /// `removed`, `unwritten` or `unknown`.
    pub reason: String,
    /// In a sentence.
    pub detail: String,
}

/// In a stream of events, under `event: end`: why nothing follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamEnd {
    /// `over`, `draining`, `slow`, `revoked` or `failed`.
    pub reason: String,
    /// In a sentence.
    pub detail: String,
}

/// Who is told of events; a webhook where it has an address. Never with its secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Subscriber {
    /// Its name.
    pub name: String,
    /// `handler` or `webhook`.
    pub kind: String,
    /// Where it is told, without the query.
    pub url: Option<String>,
    /// Of which types.
    pub types: Vec<String>,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// `active`, `paused` or `gone`.
    pub state: String,
    /// Since when.
    pub state_at: Instant,
    /// Who said so.
    pub state_actor: String,
    /// Why.
    pub state_reason: String,
    /// Tries in a row that failed.
    pub failures: u32,
    /// It is left alone until then.
    pub rest_until: Option<Instant>,
    /// Until then a former secret signs too.
    pub old_secret_until: Option<Instant>,
    /// How long one try may take.
    pub timeout_ms: u64,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// Deliveries that wait, counted up to 100,000.
    pub waiting: u64,
    /// Deliveries that were given up, counted up to 100,000.
    pub dead: u64,
    /// Since when it is there.
    pub created_at: Instant,
}

/// Subscribers by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubscriberList {
    /// [`SubscriberList::SCHEMA`]
    pub schema: String,
    /// All of them, at most 1,000.
    pub subscribers: Vec<Subscriber>,
}

impl SubscriberList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.subscribers.v1";

    /// A list.
    pub fn new(subscribers: Vec<Subscriber>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), subscribers }
    }
}

/// A webhook's new secret: shown here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebhookSecret {
    /// [`WebhookSecret::SCHEMA`]
    pub schema: String,
    /// The webhook's name.
    pub name: String,
    /// `whsec_…`, for whoever receives.
    pub secret: String,
    /// Until then the former secret signs too.
    pub old_secret_until: Option<Instant>,
}

impl WebhookSecret {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.webhook-secret.v1";

    /// A secret to be shown once.
    pub fn new(name: String, secret: String, old_secret_until: Option<Instant>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), name, secret, old_secret_until }
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("WebhookSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A delivery of one event to one subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Delivery {
    /// The subscriber.
    pub subscriber: String,
    /// `evt_…`: the event.
    pub event_id: String,
    /// The event's type.
    #[serde(rename = "type")]
    pub name: String,
    /// `pending`, `delivered` or `dead`.
    pub state: String,
    /// Tries so far.
    pub attempt: u32,
    /// Tries allowed.
    pub attempts_max: u32,
    /// Since when.
    pub created_at: Instant,
    /// When it is tried next; `null` once it has ended.
    pub due_at: Option<Instant>,
    /// When it was delivered or given up.
    pub ended_at: Option<Instant>,
    /// The last status of HTTP.
    pub status: Option<u16>,
    /// What went wrong last.
    pub error: Option<String>,
    /// Each try, oldest first, where one delivery was asked for.
    pub attempts: Vec<DeliveryAttempt>,
}

/// One try to deliver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeliveryAttempt {
    /// Counted from 1.
    pub attempt: u32,
    /// When it ended.
    pub at: Instant,
    /// How long it took.
    pub took_ms: u64,
    /// The status of HTTP.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Deliveries, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeliveryList {
    /// [`DeliveryList::SCHEMA`]
    pub schema: String,
    /// As many as were asked for.
    pub deliveries: Vec<Delivery>,
    /// Where the next page begins. `null` on the last page.
    pub next: Option<String>,
}

impl DeliveryList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.deliveries.v1";

    /// A list.
    pub fn new(deliveries: Vec<Delivery>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), deliveries, next }
    }
}
