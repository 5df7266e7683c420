//! Events that are kept.

use super::call::Call;
use super::{Client, EventsQuery, Result};
use crate::event::{Event, EventList};

impl Client {
    /// The newest events that are kept.
    pub async fn events(&self, query: &EventsQuery) -> Result<EventList> {
        self.call(Call::get(&["v1", "events", "kept"]).query(query)?).await
    }

    /// An event.
    pub async fn event(&self, id: &str) -> Result<Event> {
        self.call(Call::get(&["v1", "events", "kept", id])).await
    }
}
