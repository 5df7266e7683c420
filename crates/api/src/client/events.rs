//! Events that are kept, and who is told of them.

use super::call::Call;
use super::{Client, EventsQuery, Result};
use crate::event::{Event, EventList, Subscriber, SubscriberList};
use crate::webhook_request::SubscriberChange;

impl Client {
    /// The newest events that are kept.
    pub async fn events(&self, query: &EventsQuery) -> Result<EventList> {
        self.call(Call::get(&["v1", "events", "kept"]).query(query)?).await
    }

    /// Who is told of events.
    pub async fn subscribers(&self, namespace: Option<&str>) -> Result<SubscriberList> {
        let query = serde_json::json!({ "namespace": namespace });
        self.call(Call::get(&["v1", "subscribers"]).query(&query)?).await
    }

    /// One of them.
    pub async fn subscriber(&self, name: &str) -> Result<Subscriber> {
        self.call(Call::get(&["v1", "subscribers", name])).await
    }

    /// Forgets a program's subscriber with what waits for it.
    pub async fn forget_subscriber(&self, name: &str) -> Result<SubscriberChange> {
        self.call(Call::delete(&["v1", "subscribers", name])).await
    }

    /// An event.
    pub async fn event(&self, id: &str) -> Result<Event> {
        self.call(Call::get(&["v1", "events", "kept", id])).await
    }
}
