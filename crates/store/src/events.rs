//! Events as a store keeps them: what happened, who is told, and what became of telling them.

use std::fmt::{self, Debug};
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::event::{DeliveryState, EventFilter};
use recache_model::ids::{EventId, JobId, SubscriberId, WorkflowId};
use recache_model::retry::RetryPolicy;
use recache_model::time::Timestamp;
use recache_model::webhook::Secret;
use uuid::Uuid;

use crate::error::Result;
use crate::maintenance::Leadership;
use crate::queues::Word;

/// Subscribers that there may be.
pub const SUBSCRIBERS_MAX: u32 = 1_000;
/// Longest address of a webhook, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;
/// Longest error that is kept of a try to deliver, in bytes.
pub const DELIVERY_ERROR_BYTES_MAX: usize = 2_048;
/// The longest that one try to deliver may be allowed to take.
pub const DELIVERY_TIMEOUT_MAX: Duration = Duration::from_mins(5);

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// The same however often it is told.
    pub id: EventId,
    /// Whose it is.
    pub namespace: String,
    /// What happened: the name from the template, or a change of state.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// The job that it is about.
    pub job: Option<JobId>,
    /// Its workflow.
    pub workflow: Option<WorkflowId>,
    /// Its step there.
    pub step: Option<String>,
    /// The attempt that ended.
    pub attempt: Option<u32>,
    /// `completed`, `retrying` or `failed`: how the attempt of a step ended that published it.
    pub outcome: Option<String>,
    /// Ties what belongs together.
    pub correlation_id: Option<String>,
    /// The payload, as JSON.
    pub data: String,
    /// Why the payload was refused; then nobody is told. While it is not made yet: what went wrong at the last try.
    pub problem: Option<String>,
    /// The publisher that has yet to make the payload. Nobody has been told.
    pub waits_for: Option<String>,
}

/// Which events to list; newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only with this name.
    pub name: Option<String>,
    /// Only those whose payload was refused.
    pub refused: bool,
    /// Only those whose payload is yet to be made.
    pub waiting: bool,
    /// Only older than this one, the last of the page before: when it was, and its id. It need not be there any more.
    pub before: Option<(Timestamp, EventId)>,
}

impl EventQuery {
    /// What all that is listed is before, in the order of the list.
    pub(crate) fn end(&self) -> (i64, Uuid) {
        self.before.map_or((i64::MAX, Uuid::max()), |(at, id)| (at.micros(), id.uuid()))
    }
}

/// What handing events to subscribers did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Routed {
    /// Events that were looked at.
    pub events: u64,
    /// Deliveries that they led to.
    pub deliveries: u64,
}

/// Who is to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct NewSubscriber {
    /// Unique among all subscribers.
    pub name: String,
    /// How it is told.
    pub kind: SubscriberKind,
    /// Of what.
    pub filter: EventFilter,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// How long one try may take.
    pub timeout: Duration,
}

/// How a subscriber is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriberKind {
    /// By a function that some process has registered under the subscriber's name.
    Handler,
    /// By a signed HTTP request.
    Webhook {
        /// Where to.
        url: String,
        /// Signs it.
        secret: Secret,
    },
}

/// Whether a subscriber is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubscriberState {
    /// It is.
    Active,
    /// Its deliveries wait.
    Paused,
    /// It wants nothing any more, for good.
    Gone,
}

impl SubscriberState {
    /// The name in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for SubscriberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no state of a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no state of a subscriber: expected active, paused or gone")]
pub struct UnknownSubscriberState(String);

impl FromStr for SubscriberState {
    type Err = UnknownSubscriberState;

    fn from_str(text: &str) -> std::result::Result<Self, UnknownSubscriberState> {
        [Self::Active, Self::Paused, Self::Gone]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownSubscriberState(text.to_owned()))
    }
}

/// A subscriber as it stands; never with its secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscriberRecord {
    /// Its id.
    pub id: SubscriberId,
    /// Its name.
    pub name: String,
    /// Where it is told; `None`: it is a function in some process.
    pub url: Option<String>,
    /// Of what it is told.
    pub filter: EventFilter,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// How long one try may take.
    pub timeout: Duration,
    /// Whether it is told.
    pub state: SubscriberState,
    /// Since when.
    pub state_at: Timestamp,
    /// Who said so, and why.
    pub word: Word,
    /// Tries in a row that failed.
    pub failures: u32,
    /// It is left alone until then.
    pub rest_until: Option<Timestamp>,
    /// Until then a former secret signs too.
    pub old_secret_until: Option<Timestamp>,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// Deliveries that wait; counted up to 100,000.
    pub waiting: u64,
    /// Deliveries that were given up; counted up to 100,000.
    pub dead: u64,
}

/// A subscriber that may have something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSubscriber {
    /// Which.
    pub id: SubscriberId,
    /// Its name.
    pub name: String,
    /// It is a webhook.
    pub is_webhook: bool,
    /// How long until its next delivery is due; `None`: nothing waits.
    pub wait: Option<Duration>,
}

/// The right to say what became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryToken {
    /// To whom.
    pub subscriber: SubscriberId,
    /// Of what.
    pub event: EventId,
    /// Drawn for the claim.
    pub claim: Uuid,
}

/// Deliveries of one subscriber that a process has just taken.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedDeliveries {
    /// Drawn for this claim.
    pub claim: Uuid,
    /// Where to; `None`: to a function.
    pub url: Option<String>,
    /// Those that sign now, the newest first.
    pub secrets: Vec<Secret>,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// How long one try may take.
    pub timeout: Duration,
    /// Tries in a row that failed before.
    pub failures: u32,
    /// In the order in which they became due.
    pub deliveries: Vec<ClaimedDelivery>,
}

/// A delivery that a process has just taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedDelivery {
    /// The right to it.
    pub token: DeliveryToken,
    /// This try, counted from 1 since it was made or made once more.
    pub attempt: u32,
    /// There is none after it.
    pub is_last: bool,
    /// What is to be told.
    pub event: EventRecord,
}

/// What became of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryEnd {
    /// The right to say so.
    pub token: DeliveryToken,
    /// How long it took.
    pub took: Duration,
    /// The status of HTTP.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// What follows.
    pub outcome: DeliveryOutcome,
}

/// What follows a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// Nothing: it is delivered.
    Delivered,
    /// Another try after a while; until `rest` has passed the subscriber is told nothing.
    Retry {
        /// Until this delivery's next try.
        after: Duration,
        /// Until any.
        rest: Duration,
    },
    /// It comes back after a while, and this try does not count.
    Snoozed {
        /// Until then.
        after: Duration,
    },
    /// It is given up.
    Dead {
        /// Because it failed too often: until this has passed the subscriber is told nothing. `None`: the subscriber said so.
        rest: Option<Duration>,
    },
    /// It is given up, and so is its subscriber.
    Gone,
    /// There was no try; it does not count.
    Released,
}

/// A delivery as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// The subscriber's name.
    pub subscriber: String,
    /// The event.
    pub event: EventId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// Tries so far.
    pub attempt: u32,
    /// Tries allowed.
    pub attempts_max: u32,
    /// Since when.
    pub created_at: Timestamp,
    /// When it is tried next, or, while it is being tried, again.
    pub due_at: Timestamp,
    /// When it was delivered or given up.
    pub ended_at: Option<Timestamp>,
    /// The last status of HTTP.
    pub status: Option<u16>,
    /// What went wrong last.
    pub error: Option<String>,
}

impl DeliveryRecord {
    /// Where it stands in the list.
    pub fn place(&self) -> DeliveryPlace {
        DeliveryPlace { created_at: self.created_at, event: self.event, subscriber: self.subscriber.clone() }
    }
}

/// One try, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// Counted from 1.
    pub attempt: u32,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// The status of HTTP.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Which deliveries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryFilter {
    /// Only to this one.
    pub subscriber: Option<String>,
    /// Only to those that are told of events of this namespace alone.
    pub namespace: Option<String>,
    /// Only of this event.
    pub event: Option<EventId>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// Only behind this one, the last of the page before. It need not be there any more.
    pub before: Option<DeliveryPlace>,
}

/// Where a delivery stands in the list of them, which is ordered by this, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPlace {
    /// Since when it is there.
    pub created_at: Timestamp,
    /// Its event.
    pub event: EventId,
    /// Its subscriber.
    pub subscriber: String,
}

impl fmt::Display for DeliveryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.created_at.micros(), self.event, self.subscriber)
    }
}

impl FromStr for DeliveryPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let mut parts = text.splitn(3, '/');
        let mut read = || {
            let created_at = Timestamp::from_micros(parts.next()?.parse().ok()?);
            let event = parts.next()?.parse().ok()?;
            Some(Self { created_at, event, subscriber: parts.next()?.to_owned() })
        };
        read().ok_or("it is no place in a list of deliveries")
    }
}

/// Events, subscribers and deliveries.
#[async_trait]
pub trait Events: Send + Sync + Debug {
    /// Events, newest first; those that wait for their publishers too.
    async fn events_list(&self, query: EventQuery, rows_max: u32) -> Result<Vec<EventRecord>>;

    /// One event, also while it waits for its publisher.
    async fn event_get(&self, event: EventId) -> Result<EventRecord>;

    /// Hands at most `rows_max` new events to the subscribers that asked for them, each once. Any process may, at any time.
    async fn events_route(&self, rows_max: u32) -> Result<Routed>;

    /// Keeps a subscriber. A webhook of a name that is taken is a conflict; a handler takes over what the new one says, and
    /// keeps what waits for it.
    async fn subscriber_put(&self, subscriber: NewSubscriber) -> Result<SubscriberRecord>;

    /// One subscriber.
    async fn subscriber_get(&self, name: &str) -> Result<SubscriberRecord>;

    /// All of them, by name.
    async fn subscribers_list(&self) -> Result<Vec<SubscriberRecord>>;

    /// Lets what is for it wait. Pausing again changes the reason; one that is gone is a conflict.
    async fn subscriber_pause(&self, name: &str, word: Word) -> Result<()>;

    /// Goes on, at once: a rest is over too. False when it was not paused. One that is gone stays so: a conflict.
    async fn subscriber_resume(&self, name: &str, actor: &str) -> Result<bool>;

    /// Signs with `secret` from now on, and for `overlap` with the former one too.
    async fn subscriber_rotate(
        &self,
        name: &str,
        secret: Secret,
        overlap: Duration,
    ) -> Result<SubscriberRecord>;

    /// Removes a subscriber with at most `rows_max` of its deliveries. False: there are more, call again.
    async fn subscriber_remove(&self, name: &str, rows_max: u32) -> Result<bool>;

    /// Makes sure that the changes of state that are asked for are written, and no others.
    async fn events_watch(&self) -> Result<()>;

    /// Every active subscriber, and how long until it has something to do.
    async fn deliveries_due(&self) -> Result<Vec<DueSubscriber>>;

    /// Takes deliveries that are due, for `lease`; they are due again after that. One whose last try failed gets a single
    /// one, and nobody else any while that is under way. `None`: nothing to do.
    async fn deliveries_claim(
        &self,
        subscriber: SubscriberId,
        lease: Duration,
        rows_max: u32,
    ) -> Result<Option<ClaimedDeliveries>>;

    /// Keeps those of a claim that have not ended for `lease` from now.
    async fn deliveries_extend(&self, subscriber: SubscriberId, claim: Uuid, lease: Duration) -> Result<()>;

    /// Says what became of deliveries of one claim. One whose claim is no longer good is left as it is. Answers how
    /// many were.
    async fn deliveries_settle(&self, ends: Vec<DeliveryEnd>) -> Result<u64>;

    /// Deliveries, newest first.
    async fn deliveries_list(&self, filter: DeliveryFilter, rows_max: u32) -> Result<Vec<DeliveryRecord>>;

    /// The tries of one delivery, oldest first.
    async fn delivery_attempts(&self, subscriber: &str, event: EventId) -> Result<Vec<DeliveryAttempt>>;

    /// Has deliveries that ended made once more, with new tries; of at most `rows_max`. Answers how many. A subscriber that is gone is a
    /// conflict.
    async fn deliveries_redrive(&self, filter: DeliveryFilter, rows_max: u32) -> Result<u64>;

    /// Gives up what waits for longer than `age`, or for a subscriber that is gone. Answers how many.
    async fn deliveries_expire(&self, leadership: &Leadership, age: Duration, rows_max: u32) -> Result<u64>;

    /// Removes deliveries that ended in `state` at least `keep` ago, with their tries. Answers how many.
    async fn deliveries_remove(
        &self,
        leadership: &Leadership,
        state: DeliveryState,
        keep: Duration,
        rows_max: u32,
    ) -> Result<u64>;

    /// Removes events that are at least `keep` old and of which no delivery is left. Answers how many.
    async fn events_remove(&self, leadership: &Leadership, keep: Duration, rows_max: u32) -> Result<u64>;
}
