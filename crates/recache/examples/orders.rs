//! A program that embeds Recache: a workflow whose steps publish events, and a subscriber that is told of them.
//!
//! `cargo run -p recache --example orders`

use recache::model::ids::WorkflowId;
use recache::{Context, Event, Failure, Handlers, Subscribers, Template};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const TEMPLATE: &str = "
name: order
version: 1.0.0
domain_events:
  - { name: order.placed, schema: { type: object, required: [total] } }
steps:
  - { name: price, handler: { callable: price } }
  - { name: place, handler: { callable: place }, depends_on: [price], publishes_events: [order.placed] }
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut handlers = Handlers::new();
    handlers.job("price", async |_: Context, order: Value| {
        let items =
            order["items"].as_array().ok_or_else(|| Failure::permanent("no_items", "an order has items"))?;
        Ok(items.len() * 250)
    })?;
    handlers
        .job("place", async |context: Context, _: Value| Ok(json!({ "total": context.result("price") })))?;

    let (told, mut heard) = mpsc::unbounded_channel();
    let mut subscribers = Subscribers::new();
    subscribers.on("mailer", &["order.*"], move |event: Event| {
        let told = told.clone();
        async move { told.send(event).map_err(Failure::retryable) }
    })?;

    let app = recache::app("sqlite::memory:").handlers(handlers).subscribers(subscribers).start().await?;
    let template = Template::parse(TEMPLATE, "order.yaml")?;
    let id = WorkflowId::make();
    app.engine().submit_workflow(id, &template, &json!({ "items": ["tea", "coffee"] })).await?;
    let workflow = app.engine().wait_for_workflow(id).await?;
    let event = heard.recv().await.ok_or("the engine ended")?;
    let line = format!("{}: {} {}\n", workflow.state, event.name, event.data);
    std::io::Write::write_all(&mut std::io::stdout(), line.as_bytes())?;
    app.shut_down().await;
    Ok(())
}
