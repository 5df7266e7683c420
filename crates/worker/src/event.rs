//! Events, and what is written to be told of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use crate::failure::Failure;
use crate::handlers::RegisterError;

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `evt_…`: the same however often it is told. Keep it to know that you were told before.
    pub id: String,
    /// What happened.
    pub name: String,
    /// Whose it is.
    pub namespace: String,
    /// When, in microseconds since 1970 UTC.
    pub at_us: i64,
    /// The job that it is about.
    pub job: Option<Uuid>,
    /// Its workflow.
    pub workflow: Option<Uuid>,
    /// Its step there.
    pub step: Option<String>,
    /// The attempt that ended.
    pub attempt: Option<u32>,
    /// `completed`, `retrying` or `failed`, of an event that a step publishes.
    pub outcome: Option<String>,
    /// Ties what belongs together.
    pub correlation_id: Option<String>,
    /// The payload.
    pub data: Value,
}

/// Is told of events, each at least once.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// One event. `Ok`: it is done with. A retryable failure is told again later, a permanent one is given up and kept for an operator;
    /// snoozing puts it off without counting.
    async fn told(&self, event: Event) -> Result<(), Failure>;
}

/// A subscriber and what it asks for.
#[derive(Clone)]
pub struct Subscription {
    /// Whole names, or `order.*`, or `*` for every event of a template; changes of state by name, or `job.*`.
    pub types: Vec<String>,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// How long being told once may take. Default 30 s.
    pub timeout: Duration,
    /// Who is told.
    pub subscriber: Arc<dyn Subscriber>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("types", &self.types).finish_non_exhaustive()
    }
}

/// How long being told once may take, unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Subscribers by name. The name is what the engine keeps: what happens while no process has the subscriber waits for it, and
/// processes that have it share the work.
#[derive(Debug, Clone, Default)]
pub struct Subscribers {
    by_name: BTreeMap<String, Subscription>,
}

impl Subscribers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has an async function told of events of these types, of any namespace.
    pub fn on<F, R>(&mut self, name: &str, types: &[&str], function: F) -> Result<(), RegisterError>
    where
        F: Fn(Event) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let types = types.iter().map(|name| (*name).to_owned()).collect();
        let subscriber = Arc::new(SubscriberFunction(function));
        self.register(name, Subscription { types, namespace: None, timeout: TIMEOUT, subscriber })
    }

    /// Registers anything under a name.
    pub fn register(&mut self, name: &str, subscription: Subscription) -> Result<(), RegisterError> {
        if self.by_name.contains_key(name) {
            return Err(RegisterError::Duplicate(name.to_owned()));
        }
        self.by_name.insert(name.to_owned(), subscription);
        Ok(())
    }

    /// Who is registered under a name.
    pub fn get(&self, name: &str) -> Option<&Subscription> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Subscription)> {
        self.by_name.iter().map(|(name, subscription)| (name.as_str(), subscription))
    }

    /// Nobody.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

struct SubscriberFunction<F>(F);

#[async_trait]
impl<F, R> Subscriber for SubscriberFunction<F>
where
    F: Fn(Event) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Failure>> + Send + 'static,
{
    async fn told(&self, event: Event) -> Result<(), Failure> {
        (self.0)(event).await
    }
}
