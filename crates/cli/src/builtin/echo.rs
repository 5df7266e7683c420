//! `echo`: gives back what it was given.

use recache_worker::{Context, Failure};
use serde_json::{Value, json};

/// Returns the workflow's input, the results of the steps that it waited for by their names, and its settings.
pub(super) async fn run(context: Context, input: Value) -> Result<Value, Failure> {
    context.checkpoint().await?;
    let facts = context.facts();
    let settings = if facts.settings.is_null() { json!({}) } else { facts.settings.clone() };
    Ok(json!({ "input": input, "results": facts.results, "settings": settings }))
}
