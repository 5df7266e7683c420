//! The registry of handlers.

use serde_json::{Value, json};

use super::call::Call;
use super::{Client, Result};
use crate::handler::{HandlerDetails, HandlerGraph, HandlerList};

impl Client {
    /// All handlers, or those of a namespace.
    pub async fn handlers(&self, namespace: Option<&str>) -> Result<HandlerList> {
        self.call(Call::get(&["v1", "handlers"]).query(&of(namespace))?).await
    }

    /// A handler of a namespace.
    pub async fn handler(&self, namespace: &str, name: &str) -> Result<HandlerDetails> {
        self.call(Call::get(&["v1", "handlers", namespace, name])).await
    }

    /// How handlers hang together.
    pub async fn handler_graph(&self, namespace: Option<&str>) -> Result<HandlerGraph> {
        self.call(Call::get(&["v1", "handlers", "graph"]).query(&of(namespace))?).await
    }
}

fn of(namespace: Option<&str>) -> Value {
    json!({ "namespace": namespace })
}
