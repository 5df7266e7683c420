//! Events of steps and changes of state, and those who are told of them, seen from outside, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use recache_engine::{Courier, Engine, Live, Posting, Reply};
use recache_model::event::{DeliveryState, EventFilter, delivery_policy};
use recache_model::ids::WorkflowId;
use recache_model::template::Template;
use recache_model::webhook::{Secret, is_signed_by};
use recache_model::workflow::WorkflowState;
use recache_store::conformance::TestDatabase;
use recache_store::{DeliveryFilter, EventQuery, NewJob, NewSubscriber, SubscriberKind};
use recache_worker::{Context, Event, Failure, Handlers, Subscribers};
use serde_json::{Value, json};
use support::{quick, soon, store_of, until};

on_both_databases!(
    subscriber_is_told_of_what_a_step_publishes_until_it_takes_it,
    what_happens_while_nobody_listens_waits_for_its_subscriber,
    changes_of_state_reach_who_asked_for_them,
    webhook_is_signed_and_a_dead_one_holds_up_nobody,
    engines_share_the_deliveries_of_one_subscriber,
);

type Heard = Arc<Mutex<Vec<Event>>>;

fn template(events: &Value) -> Template {
    let source = json!({
        "name": "order", "version": "1.0.0",
        "domain_events": [{ "name": "order.placed", "schema": { "type": "object", "required": ["id"] } }],
        "steps": [{ "name": "place", "handler": { "callable": "place" }, "publishes_events": events }],
    });
    Template::parse(&source.to_string(), "t.json").unwrap()
}

fn handlers() -> Handlers {
    let mut handlers = Handlers::new();
    handlers.job("place", async |_: Context, input: Value| Ok(input)).unwrap();
    handlers
}

fn hears(heard: &Heard) -> impl Fn(Event) -> std::future::Ready<Result<(), Failure>> + Send + Sync + 'static {
    let heard = Arc::clone(heard);
    move |event| {
        heard.lock().unwrap().push(event);
        std::future::ready(Ok(()))
    }
}

async fn run(engine: &Engine, template: &Template, input: Value) -> WorkflowId {
    let id = engine.submit_workflow(WorkflowId::make(), template, &input).await.unwrap();
    let ended = soon(engine.wait_for_workflow(id)).await.unwrap();
    assert_eq!(ended.state, WorkflowState::Completed);
    id
}

async fn subscriber_is_told_of_what_a_step_publishes_until_it_takes_it(database: TestDatabase) {
    let heard = Heard::default();
    let mut subscribers = Subscribers::new();
    let (tries, kept) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&heard));
    let told = move |event: Event| {
        kept.lock().unwrap().push(event);
        let is_first = tries.fetch_add(1, Ordering::SeqCst) == 0;
        let again = || Failure::retryable_after("not yet", Duration::from_millis(1));
        std::future::ready(if is_first { Err(again()) } else { Ok(()) })
    };
    subscribers.on("mailer", &["order.*"], told).unwrap();
    subscribers.on("panics", &["*"], async |_| -> Result<(), Failure> { panic!("at every event") }).unwrap();
    let store = store_of(&database).await;
    let engine = Engine::builder(store).handlers(handlers()).subscribers(subscribers).options(quick());
    let engine = engine.start().await.unwrap();
    let mut live = engine.live_events();
    let events = json!(["order.placed", { "name": "order.seen", "delivery_mode": "fast" }]);
    let workflow = run(&engine, &template(&events), json!({ "id": 7 })).await;
    let Some(Live::Event(seen)) = soon(live.next()).await else { panic!("it is heard at once") };
    assert_eq!((seen.name.as_str(), &seen.data), ("order.seen", &json!({ "id": 7 })));

    // The retry waits for seconds by its policy: it is made once more by hand instead.
    let of_mailer = DeliveryFilter { subscriber: Some("mailer".to_owned()), ..DeliveryFilter::default() };
    until("the first try has failed", async || {
        let listed = engine.store().events().deliveries_list(of_mailer.clone(), 10).await.unwrap();
        listed.first().and_then(|delivery| delivery.error.clone())
    })
    .await;
    until("it is told again", async || (heard.lock().unwrap().len() >= 2).then_some(())).await;
    let done = until("it is done with", async || {
        let listed = engine.store().events().deliveries_list(of_mailer.clone(), 10).await.unwrap();
        listed.into_iter().find(|delivery| delivery.state == DeliveryState::Delivered)
    })
    .await;
    assert_eq!((done.attempt, done.error), (2, None));
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 2, "a fast event is told at once or never");
    assert_eq!((heard[0].id.as_str(), heard[0].name.as_str()), (heard[1].id.as_str(), "order.placed"));
    assert_eq!((heard[0].workflow, heard[0].step.as_deref()), (Some(workflow.uuid()), Some("place")));
    let panics = engine.store().events().subscriber_get("panics").await.unwrap();
    assert!(panics.failures > 0 && panics.waiting == 1, "{panics:?}");
    engine.shut_down().await;
}

async fn what_happens_while_nobody_listens_waits_for_its_subscriber(database: TestDatabase) {
    let heard = Heard::default();
    let subscribers = || {
        let mut subscribers = Subscribers::new();
        subscribers.on("mailer", &["*"], hears(&heard)).unwrap();
        subscribers
    };
    let events = json!(["order.placed", { "name": "order.odd", "schema": { "type": "array" } }]);
    let with = Engine::builder(store_of(&database).await).subscribers(subscribers()).options(quick());
    with.start().await.unwrap().shut_down().await;
    let without = Engine::builder(store_of(&database).await).handlers(handlers()).options(quick());
    let without = without.start().await.unwrap();
    run(&without, &template(&events), json!({ "id": 1 })).await;
    let refused = EventQuery { refused: true, ..EventQuery::default() };
    let refused = without.store().events().events_list(refused, 10).await.unwrap();
    assert_eq!(
        (refused.len(), refused[0].name.as_str()),
        (1, "order.odd"),
        "the step completed all the same"
    );
    without.shut_down().await;
    let with = Engine::builder(store_of(&database).await).subscribers(subscribers()).options(quick());
    let with = with.start().await.unwrap();
    until("it is told", async || (!heard.lock().unwrap().is_empty()).then_some(())).await;
    with.shut_down().await;
    let names: Vec<String> = heard.lock().unwrap().iter().map(|event| event.name.clone()).collect();
    assert_eq!(names, ["order.placed"], "what does not fit its schema is told to nobody");
}

async fn changes_of_state_reach_who_asked_for_them(database: TestDatabase) {
    let heard = Heard::default();
    let mut subscribers = Subscribers::new();
    subscribers.on("states", &["job.completed", "workflow.*"], hears(&heard)).unwrap();
    let engine = Engine::builder(store_of(&database).await).handlers(handlers()).subscribers(subscribers);
    let engine = engine.options(quick()).start().await.unwrap();
    let job = engine.submit(NewJob::new("place", "1")).await.unwrap();
    soon(engine.wait_for_job(job)).await.unwrap();
    let workflow = run(&engine, &template(&json!([])), json!({ "id": 1 })).await;
    until("all are told", async || (heard.lock().unwrap().len() >= 3).then_some(())).await;
    engine.shut_down().await;
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 3, "{heard:#?}");
    let of = |name: &str| heard.iter().filter(|event| event.name == name).collect::<Vec<_>>();
    assert_eq!(of("workflow.completed")[0].workflow, Some(workflow.uuid()));
    assert!(of("job.completed").iter().any(|event| event.job == Some(job.uuid())));
}

/// Answers as its address says, and keeps what it was given.
#[derive(Debug, Default)]
struct TestCourier {
    sent: Mutex<Vec<Posting>>,
}

#[async_trait]
impl Courier for TestCourier {
    fn refuses(&self, _: &str, _: bool) -> Option<String> {
        None
    }

    async fn post(&self, posting: Posting) -> Result<Reply, String> {
        let url = posting.url.clone();
        if url.ends_with("/hangs") {
            std::future::pending::<()>().await;
        }
        self.sent.lock().unwrap().push(posting);
        Ok(Reply { status: 204, retry_after: None })
    }
}

fn webhook(name: &str, path: &str, timeout: Duration) -> NewSubscriber {
    NewSubscriber {
        name: name.to_owned(),
        kind: SubscriberKind::Webhook {
            url: format!("http://example.com/{path}"),
            secret: Secret::new([7; 32]),
        },
        filter: EventFilter::of(["*"]),
        retry: delivery_policy(),
        timeout,
    }
}

/// 10,000 events: 100 steps that publish 100 each. One subscriber hangs at every try, the other one has them all all the same.
async fn webhook_is_signed_and_a_dead_one_holds_up_nobody(database: TestDatabase) {
    const STEPS: usize = 100;
    const EACH: usize = 100;
    let store = store_of(&database).await;
    let hour = Duration::from_secs(60);
    store.events().subscriber_put(webhook("dead", "hangs", hour)).await.unwrap();
    store.events().subscriber_put(webhook("well", "well", hour)).await.unwrap();
    let courier = Arc::new(TestCourier::default());
    let engine = Engine::builder(store).handlers(handlers()).courier(courier.clone()).options(quick());
    let engine = engine.start().await.unwrap();
    let events: Vec<String> = (0..EACH).map(|number| format!("e{number}")).collect();
    let steps: Vec<Value> = (0..STEPS)
        .map(|number| {
            json!({ "name": format!("s{number}"), "handler": { "callable": "place" }, "publishes_events": events })
        })
        .collect();
    let source = json!({ "name": "many", "version": "1.0.0", "steps": steps });
    let template = Template::parse(&source.to_string(), "t.json").unwrap();
    run(&engine, &template, json!({ "id": 1 })).await;
    until("the well one has them all", async || {
        (courier.sent.lock().unwrap().len() >= STEPS * EACH).then_some(())
    })
    .await;
    let sent = courier.sent.lock().unwrap().clone();
    let ids: BTreeSet<&str> = sent.iter().map(|posting| posting.id.as_str()).collect();
    assert_eq!((sent.len(), ids.len()), (STEPS * EACH, STEPS * EACH), "each once, each by its own id");
    for posting in &sent {
        let secret = Secret::new([7; 32]);
        let (id, at) = (&posting.id, posting.timestamp_seconds);
        assert!(is_signed_by(&secret, &posting.signature, id, at, posting.body.as_bytes()));
    }
    let dead = engine.store().events().subscriber_get("dead").await.unwrap();
    assert_eq!(dead.waiting, 10_000, "nothing that waits for it is lost");
    until("all are settled", async || {
        let well = engine.store().events().subscriber_get("well").await.unwrap();
        (well.waiting == 0 && well.failures == 0).then_some(())
    })
    .await;
    let options = quick();
    assert!(options.drain >= Duration::from_secs(1));
    soon(engine.shut_down()).await;
}

async fn engines_share_the_deliveries_of_one_subscriber(database: TestDatabase) {
    let heard: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let mut engines = Vec::new();
    for _ in 0..2 {
        let mut subscribers = Subscribers::new();
        let kept = Arc::clone(&heard);
        let told = move |event: Event| {
            *kept.lock().unwrap().entry(event.id).or_default() += 1;
            std::future::ready(Ok(()))
        };
        subscribers.on("one", &["*"], told).unwrap();
        let engine = Engine::builder(store_of(&database).await).handlers(handlers()).subscribers(subscribers);
        engines.push(engine.options(quick()).start().await.unwrap());
    }
    let template = template(&json!(["order.placed"]));
    for number in 0..50 {
        run(&engines[number % 2], &template, json!({ "id": number })).await;
    }
    until("all are told", async || (heard.lock().unwrap().len() >= 50).then_some(())).await;
    for engine in engines {
        engine.shut_down().await;
    }
    let heard = heard.lock().unwrap().clone();
    assert!(heard.values().all(|times| *times == 1), "no crash, no second time: {heard:?}");
}
