//! Publishers: what makes the payloads of events, seen from outside, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache_engine::{Engine, Live, Options};
use recache_model::ids::WorkflowId;
use recache_model::template::Template;
use recache_model::workflow::WorkflowState;
use recache_store::conformance::TestDatabase;
use recache_store::{EventQuery, EventRecord};
use recache_worker::{Context, Event, Failure, Handlers, PublishContext, StepEnd, Subscribers};
use serde::Deserialize;
use serde_json::{Value, json};
use support::{quick, soon, store_of, until};
use tokio::sync::Notify;

on_both_databases!(
    subscriber_is_told_what_the_publisher_makes_of_the_end,
    event_waits_for_a_process_that_has_its_publisher,
    publisher_that_fails_leaves_the_step_alone_and_holds_up_no_other,
    engine_that_stops_hands_back_what_it_was_making,
    by_hand_payloads_are_made_before_they_are_told,
);

/// A step that ends as its input says, and publishes these.
fn template(events: &Value) -> Template {
    let source = json!({
        "name": "order", "version": "1.0.0",
        "domain_events": [{ "name": "order.placed", "schema": { "type": "object", "required": ["order"] } }],
        "steps": [{
            "name": "place", "handler": { "callable": "place" }, "publishes_events": events,
            "retry": { "max_attempts": 2, "backoff_base_ms": 1, "jitter": 0.0 },
        }],
    });
    Template::parse(&source.to_string(), "t.json").unwrap()
}

fn handlers() -> Handlers {
    let mut handlers = Handlers::new();
    let place = async |_: Context, input: Value| match input["fails"].as_str() {
        Some("once more") => Err(Failure::retryable("not today")),
        Some(code) => Err(Failure::permanent(code, "none left")),
        None => Ok(input),
    };
    handlers.job("place", place).unwrap();
    handlers
}

#[derive(Debug, Deserialize)]
struct Placed {
    id: u32,
}

/// Says what it was given, typed.
fn publishing(mut handlers: Handlers) -> Handlers {
    let make = async |context: PublishContext, end: StepEnd<Placed>| {
        let made = match end {
            StepEnd::Completed { result } => json!({ "order": result.id }),
            StepEnd::Retrying { error } => json!({ "order": null, "again": error.message }),
            StepEnd::Failed { error } => json!({ "order": null, "why": error.code }),
        };
        let about = (context.step, context.attempt, context.workflow_input.is_some());
        assert_eq!(about.0.as_deref(), Some("place"));
        assert!(about.1.is_some() && about.2, "{about:?}");
        Ok::<_, Failure>(made)
    };
    handlers.publisher("order_payload", make).unwrap();
    handlers
}

async fn run(engine: &Engine, template: &Template, input: Value) -> WorkflowState {
    let id = engine.submit_workflow(WorkflowId::make(), template, &input).await.unwrap();
    soon(engine.wait_for_workflow(id)).await.unwrap().state
}

async fn events(engine: &Engine, query: EventQuery) -> Vec<EventRecord> {
    engine.store().events().events_list(query, 100).await.unwrap()
}

fn waiting() -> EventQuery {
    EventQuery { waiting: true, ..EventQuery::default() }
}

fn refused() -> EventQuery {
    EventQuery { refused: true, ..EventQuery::default() }
}

type Heard = Arc<Mutex<Vec<Event>>>;

fn subscribers(heard: &Heard) -> Subscribers {
    let (mut subscribers, heard) = (Subscribers::new(), Arc::clone(heard));
    let hear = move |event| {
        heard.lock().unwrap().push(event);
        std::future::ready(Ok(()))
    };
    subscribers.on("ear", &["*"], hear).unwrap();
    subscribers
}

async fn heard_all(heard: &Heard, count: usize) -> Vec<Event> {
    until("all are told", async || (heard.lock().unwrap().len() >= count).then_some(())).await;
    heard.lock().unwrap().clone()
}

async fn subscriber_is_told_what_the_publisher_makes_of_the_end(database: TestDatabase) {
    let heard = Heard::default();
    let engine = Engine::builder(store_of(&database).await).handlers(publishing(handlers()));
    let engine = engine.subscribers(subscribers(&heard)).options(quick()).start().await.unwrap();
    let mut live = engine.live_events();
    let template = template(&json!([
        { "name": "order.placed", "publisher": "order_payload", "condition": "always" },
        { "name": "order.plain" },
        { "name": "order.now", "publisher": "order_payload", "delivery_mode": "fast" },
    ]));
    assert_eq!(run(&engine, &template, json!({ "id": 7 })).await, WorkflowState::Completed);
    let Some(Live::Event(now)) = soon(live.next()).await else { panic!("it is heard") };
    assert_eq!((now.name.as_str(), &now.data), ("order.now", &json!({ "order": 7 })));
    let told = heard_all(&heard, 2).await;
    let of = |name: &str| told.iter().find(|event| event.name == name).unwrap();
    assert_eq!(of("order.placed").data, json!({ "order": 7 }), "what was made");
    assert_eq!(of("order.plain").data, json!({ "id": 7 }), "the result");
    assert_eq!(of("order.placed").outcome.as_deref(), Some("completed"));

    let again = json!({ "fails": "once more" });
    assert_eq!(run(&engine, &template, again).await, WorkflowState::Failed);
    assert_eq!(run(&engine, &template, json!({ "fails": "no_stock" })).await, WorkflowState::Failed);
    let mut told: Vec<String> = heard_all(&heard, 5).await[2..]
        .iter()
        .map(|event| format!("{} {}", event.outcome.as_deref().unwrap(), event.data))
        .collect();
    told.sort();
    let expected = [
        "failed {\"order\":null,\"why\":\"no_stock\"}",
        "failed {\"order\":null,\"why\":null}",
        "retrying {\"again\":\"not today\",\"order\":null}",
    ];
    assert_eq!(told, expected);
    assert_eq!(heard.lock().unwrap().len(), 5, "each once, and the fast one to no subscriber");
    // A result that does not fit the publisher's type is no good for it, and nobody is told.
    assert_eq!(run(&engine, &template, json!({ "id": "seven" })).await, WorkflowState::Completed);
    let kept = until("both are kept back", async || {
        let kept = events(&engine, refused()).await;
        (kept.len() == 2).then_some(kept)
    })
    .await;
    let why = kept[0].problem.as_deref().unwrap();
    assert!(why.contains("`order_payload` made no payload") && why.contains("invalid_result"), "{why}");
    engine.shut_down().await;
}

async fn event_waits_for_a_process_that_has_its_publisher(database: TestDatabase) {
    let heard = Heard::default();
    let without = Engine::builder(store_of(&database).await).handlers(handlers());
    let without = without.subscribers(subscribers(&heard)).options(quick()).start().await.unwrap();
    let template = template(&json!([{ "name": "order.placed", "publisher": "order_payload" }]));
    // As with a handler that nobody has: the submit is taken.
    assert_eq!(run(&without, &template, json!({ "id": 7 })).await, WorkflowState::Completed);
    let found = events(&without, waiting()).await;
    assert_eq!((found.len(), found[0].waits_for.as_deref()), (1, Some("order_payload")));
    without.route_events().await.unwrap();
    assert!(heard.lock().unwrap().is_empty(), "nobody is told before it is made");

    // It needs no handlers of its own.
    let with = Engine::builder(store_of(&database).await).handlers(publishing(Handlers::new()));
    let with = with.options(quick()).start().await.unwrap();
    let told = heard_all(&heard, 1).await;
    assert_eq!((told[0].id.clone(), &told[0].data), (found[0].id.to_string(), &json!({ "order": 7 })));
    assert_eq!((with.stats().payloads_made, without.stats().payloads_made), (1, 0));
    with.shut_down().await;
    without.shut_down().await;
}

async fn publisher_that_fails_leaves_the_step_alone_and_holds_up_no_other(database: TestDatabase) {
    let mut handlers = publishing(handlers());
    handlers
        .publisher("panics", async |_: PublishContext, _: StepEnd| -> Result<(), Failure> {
            panic!("at every end")
        })
        .unwrap();
    let hangs = async |_: PublishContext, _: StepEnd| {
        std::future::pending::<()>().await;
        Ok::<_, Failure>(())
    };
    handlers.publisher("hangs", hangs).unwrap();
    let refuses =
        async |_: PublishContext, _: StepEnd| Err::<(), _>(Failure::permanent("not_mine", "whose is it"));
    handlers.publisher("refuses", refuses).unwrap();
    let later = |context: PublishContext, _: StepEnd| async move {
        // The second try is not far off.
        if context.tried == 1 { Err(Failure::retryable("in a moment")) } else { Ok(context.tried) }
    };
    handlers.publisher("later", later).unwrap();
    let options = Options { publisher_timeout: Duration::from_millis(50), ..quick() };
    let engine = Engine::builder(store_of(&database).await).handlers(handlers).options(options);
    let engine = engine.start().await.unwrap();
    let names = ["panics", "hangs", "refuses", "later", "order_payload"];
    let all: Vec<Value> =
        names.iter().map(|name| json!({ "name": format!("by.{name}"), "publisher": name })).collect();
    assert_eq!(run(&engine, &template(&json!(all)), json!({ "id": 7 })).await, WorkflowState::Completed);

    let made = until("those that can be made are", async || {
        let mut found = events(&engine, EventQuery::default()).await;
        found.retain(|event| event.waits_for.is_none() && event.problem.is_none());
        found.sort_by(|one, other| one.name.cmp(&other.name));
        (found.len() == 2).then_some(found)
    })
    .await;
    assert_eq!((made[0].name.as_str(), made[0].data.as_str()), ("by.later", "2"));
    assert_eq!((made[1].name.as_str(), made[1].data.as_str()), ("by.order_payload", "{\"order\":7}"));
    let kept = events(&engine, refused()).await;
    let why = "publisher `refuses` made no payload: whose is it (not_mine)";
    assert_eq!((kept.len(), kept[0].problem.as_deref()), (1, Some(why)));
    let rest = until("the others have been tried", async || {
        let mut found = events(&engine, waiting()).await;
        found.sort_by(|one, other| one.name.cmp(&other.name));
        (found.len() == 2 && found.iter().all(|event| event.problem.is_some())).then_some(found)
    })
    .await;
    assert_eq!(rest[0].problem.as_deref(), Some("no payload within 50 ms"));
    assert_eq!(rest[1].problem.as_deref(), Some("the publisher panicked: at every end"));
    engine.shut_down().await;
}

/// What was under way is begun again elsewhere, at once and without having cost a try.
async fn engine_that_stops_hands_back_what_it_was_making(database: TestDatabase) {
    let begun = Arc::new(Notify::new());
    let mut hanging = handlers();
    let tell = Arc::clone(&begun);
    hanging
        .publisher("order_payload", move |_: PublishContext, _: StepEnd| {
            tell.notify_one();
            async {
                std::future::pending::<()>().await;
                Ok::<_, Failure>(())
            }
        })
        .unwrap();
    let first = Engine::builder(store_of(&database).await).handlers(hanging).options(quick());
    let first = first.start().await.unwrap();
    let template = template(&json!([{ "name": "order.placed", "publisher": "order_payload" }]));
    run(&first, &template, json!({ "id": 7 })).await;
    soon(begun.notified()).await;
    soon(first.shut_down()).await;
    let mut handlers = Handlers::new();
    let tries =
        async |context: PublishContext, _: StepEnd| Ok::<_, Failure>(json!({ "order": context.tried }));
    handlers.publisher("order_payload", tries).unwrap();
    let second = Engine::builder(store_of(&database).await).handlers(handlers).options(quick());
    let second = second.start().await.unwrap();
    let made = until("it is made", async || {
        let found = events(&second, EventQuery::default()).await;
        found.into_iter().find(|event| event.waits_for.is_none())
    })
    .await;
    assert_eq!(made.data, "{\"order\":1}");
    second.shut_down().await;
}

async fn by_hand_payloads_are_made_before_they_are_told(database: TestDatabase) {
    let heard = Heard::default();
    let engine = Engine::builder(store_of(&database).await).handlers(publishing(handlers()));
    let by_hand = engine.subscribers(subscribers(&heard)).start_by_hand().await.unwrap();
    let template = template(&json!([{ "name": "order.placed", "publisher": "order_payload" }]));
    let input = json!({ "id": 7 });
    by_hand.engine().submit_workflow(WorkflowId::make(), &template, &input).await.unwrap();
    let ran = by_hand.run_due().await.unwrap();
    assert_eq!((ran.attempts, ran.payloads, ran.deliveries), (1, 1, 1));
    assert_eq!(heard.lock().unwrap()[0].data, json!({ "order": 7 }));
}
