//! Cases: events, subscribers, deliveries.

use std::collections::BTreeSet;
use std::time::Duration;

use recache_model::event::{At, DeliveryState, EventFilter, StepEvent, delivery_policy};
use recache_model::ids::{EventId, JobId, WorkflowId};
use recache_model::job::{ErrorKind, JobError};
use recache_model::lifecycle::TimeLimits;
use recache_model::retry::RetryPolicy;
use recache_model::webhook::Secret;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Subject, views, work};
use crate::error::Error;
use crate::events::{
    ClaimedDeliveries, DeliveryEnd, DeliveryFilter, DeliveryOutcome, DeliveryPlace, EventQuery, EventRecord,
    NewSubscriber, SubscriberKind, SubscriberRecord, SubscriberState,
};
use crate::maintenance::Leadership;
use crate::queues::Word;
use crate::records::{NewJob, NewStep, NewWorkflow, Outcome, Settled, TemplateRecord, Touch};

const LEASE: Duration = Duration::from_secs(10);

fn declared(events: &[(&str, At, Option<Value>)]) -> String {
    let events: Vec<StepEvent> = events
        .iter()
        .map(|(name, at, schema)| StepEvent {
            name: (*name).to_owned(),
            at: *at,
            schema: schema.clone(),
            durable: true,
            live: false,
            publisher: None,
        })
        .collect();
    serde_json::to_string(&events).expect("events are JSON")
}

/// A workflow of one step that publishes.
async fn publishing(subject: &Subject, events: &[(&str, At, Option<Value>)]) -> (WorkflowId, JobId) {
    publishing_as(subject, declared(events), "{}").await
}

/// The same with events as jobs keep them.
pub(super) async fn publishing_as(subject: &Subject, publishes: String, input: &str) -> (WorkflowId, JobId) {
    let retry = RetryPolicy { attempts_max: 2, ..RetryPolicy::default() };
    let job = NewJob { publishes: Some(publishes), retry, ..work() };
    let step = NewStep::new("only", job, vec![]);
    let id = step.job.id;
    let workflow = NewWorkflow {
        environment: None,
        limits: TimeLimits::default(),
        takes_over: None,
        id: WorkflowId::make(),
        template: TemplateRecord {
            digest: "events".to_owned(),
            namespace: "default".to_owned(),
            name: "events".to_owned(),
            version: "1.0.0".to_owned(),
            content: "{}".to_owned(),
        },
        template_raise: None,
        input: input.to_owned(),
        correlation_id: "c".to_owned(),
        steps: vec![step],
    };
    let workflow_id = workflow.id;
    assert!(subject.store.workflow_submit(workflow).await.expect("stored"));
    (workflow_id, id)
}

pub(super) fn completed(output: &str) -> Outcome {
    Outcome::Completed { output: output.to_owned() }
}

pub(super) fn failed(kind: ErrorKind) -> JobError {
    JobError::new(kind, "no luck")
}

pub(super) async fn listed(subject: &Subject) -> Vec<EventRecord> {
    let mut events = subject.store.events().events_list(EventQuery::default(), 1_000).await.expect("listed");
    events.reverse();
    events
}

async fn names(subject: &Subject) -> Vec<String> {
    listed(subject).await.into_iter().map(|event| event.name).collect()
}

pub(super) fn handler(name: &str, types: &[&str]) -> NewSubscriber {
    NewSubscriber {
        name: name.to_owned(),
        kind: SubscriberKind::Handler,
        filter: EventFilter::of(types.iter().copied()),
        retry: RetryPolicy { attempts_max: 2, ..delivery_policy() },
        timeout: Duration::from_secs(5),
    }
}

fn webhook(name: &str, types: &[&str]) -> NewSubscriber {
    let kind =
        SubscriberKind::Webhook { url: "https://example.com/hook".to_owned(), secret: Secret::new([1; 32]) };
    NewSubscriber { kind, ..handler(name, types) }
}

pub(super) async fn put(subject: &Subject, new: NewSubscriber) -> SubscriberRecord {
    subject.store.events().subscriber_put(new).await.expect("kept")
}

/// A step that completes and publishes `order.placed` with this number.
pub(super) async fn happen(subject: &Subject, number: u32) {
    publishing(subject, &[("order.placed", At::Success, None)]).await;
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    assert_eq!(subject.settle(&job, completed(&number.to_string())).await, Settled::Accepted);
}

pub(super) async fn route(subject: &Subject) -> u64 {
    subject.store.events().events_route(1_000).await.expect("routed").deliveries
}

async fn claim(subject: &Subject, of: &SubscriberRecord, rows_max: u32) -> Option<ClaimedDeliveries> {
    subject.store.events().deliveries_claim(of.id, LEASE, rows_max).await.expect("answered")
}

async fn claimed(subject: &Subject, of: &SubscriberRecord, rows_max: u32) -> ClaimedDeliveries {
    claim(subject, of, rows_max).await.expect("something is due")
}

fn ends(claimed: &ClaimedDeliveries, outcome: DeliveryOutcome) -> Vec<DeliveryEnd> {
    let end = |token| DeliveryEnd {
        token,
        took: Duration::from_millis(7),
        status: Some(if outcome == DeliveryOutcome::Delivered { 204 } else { 500 }),
        error: (outcome != DeliveryOutcome::Delivered).then(|| "it answered 500".to_owned()),
        outcome,
    };
    claimed.deliveries.iter().map(|delivery| end(delivery.token)).collect()
}

async fn settle(subject: &Subject, claimed: &ClaimedDeliveries, outcome: DeliveryOutcome) -> u64 {
    subject.store.events().deliveries_settle(ends(claimed, outcome)).await.expect("settled")
}

fn again(seconds: u64) -> DeliveryOutcome {
    DeliveryOutcome::Retry { after: Duration::from_secs(seconds), rest: Duration::from_secs(1) }
}

pub(super) async fn lead(subject: &Subject) -> Leadership {
    let taken =
        subject.store.maintenance().leader_take("m", Uuid::from_u128(1), Duration::from_hours(9_999)).await;
    taken.expect("answered").expect("the lead is free")
}

async fn now(subject: &Subject, name: &str) -> SubscriberRecord {
    subject.store.events().subscriber_get(name).await.expect("it is there")
}

/// Each end of a step publishes what its conditions say, with what came of it, in the settlement's own transaction.
pub async fn step_publishes_what_its_end_says(subject: &Subject) {
    let all = [
        ("good", At::Success, None),
        ("bad", At::Failure, None),
        ("again", At::RetryableFailure, None),
        ("hopeless", At::PermanentFailure, None),
        ("any", At::Always, None),
    ];
    let session = subject.session().await;
    let (workflow, id) = publishing(subject, &all).await;
    let job = subject.claim_one(session).await;
    let after = Duration::from_secs(1);
    subject.settle(&job, Outcome::Retry { error: failed(ErrorKind::Retryable), after }).await;
    assert_eq!(BTreeSet::from_iter(names(subject).await), BTreeSet::from(["again".into(), "any".into()]));
    subject.advance(Duration::from_secs(2));
    let job = subject.claim_one(session).await;
    assert_eq!(subject.settle(&job, completed("{\"id\":7}")).await, Settled::Accepted);
    let events = listed(subject).await;
    let good: Vec<_> = events.iter().filter(|event| event.name == "good").collect();
    assert_eq!((events.len(), good.len()), (4, 1));
    assert_eq!(
        (good[0].job, good[0].workflow, good[0].step.as_deref()),
        (Some(id), Some(workflow), Some("only"))
    );
    assert_eq!(
        (good[0].data.as_str(), good[0].attempt, good[0].outcome.as_deref()),
        ("{\"id\":7}", Some(2), Some("completed"))
    );
    assert_eq!(good[0].correlation_id, subject.store.job_get(id).await.expect("there").correlation_id.into());
    // Settled again with the same token: the same answer, and nothing happened twice.
    assert_eq!(subject.settle(&job, completed("{\"id\":7}")).await, Settled::Accepted);
    assert_eq!(listed(subject).await.len(), 4);

    publishing(subject, &all).await;
    let job = subject.claim_one(session).await;
    subject.settle(&job, Outcome::Failed { error: failed(ErrorKind::Permanent) }).await;
    let found: Vec<_> = listed(subject).await.split_off(4);
    let told: BTreeSet<&str> = found.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(told, BTreeSet::from(["any", "bad", "hopeless"]));
    let data: Value = serde_json::from_str(&found[0].data).expect("JSON");
    assert_eq!((&data["kind"], &data["message"]), (&json!("permanent"), &json!("no luck")));
}

/// What is refused publishes nothing; a job that is put off or cancelled has not ended by itself.
pub async fn settlement_that_is_refused_publishes_nothing(subject: &Subject) {
    let session = subject.session().await;
    let (_, id) = publishing(subject, &[("any", At::Always, None)]).await;
    let job = subject.claim_one(session).await;
    subject.settle(&job, Outcome::Snoozed { after: Duration::ZERO }).await;
    let job = subject.claim_one(session).await;
    subject.store.job_cancel(id, "not wanted").await.expect("cancelled");
    assert!(matches!(subject.settle(&job, completed("1")).await, Settled::Refused(_)));
    assert_eq!(names(subject).await, Vec::<String>::new());
}

/// Whoever ends a step, its events are written: here the sweep, for a worker that died.
pub async fn step_of_a_dead_worker_publishes_too(subject: &Subject) {
    let session = subject.session().await;
    publishing(subject, &[("again", At::RetryableFailure, None), ("bad", At::Failure, None)]).await;
    subject.claim_one(session).await;
    subject.advance(Duration::from_secs(11));
    subject.store.sessions_sweep(10).await.expect("swept");
    assert_eq!(names(subject).await, ["again"]);
    let session = subject.session().await;
    subject.claim_one(session).await;
    subject.advance(Duration::from_secs(11));
    subject.store.sessions_sweep(10).await.expect("swept");
    let events = listed(subject).await;
    assert_eq!(events[1].name, "bad");
    assert!(events[1].data.contains("lease_lost"), "{}", events[1].data);
}

/// The step stands; whoever asks can see why nobody was told.
pub async fn payload_that_does_not_fit_is_kept_back(subject: &Subject) {
    put(subject, handler("all", &["*"])).await;
    let schema = json!({ "type": "object", "required": ["id"] });
    let session = subject.session().await;
    let (_, id) = publishing(subject, &[("placed", At::Success, Some(schema))]).await;
    let job = subject.claim_one(session).await;
    assert_eq!(subject.settle(&job, completed("{\"secret\":\"hunter2\"}")).await, Settled::Accepted);
    assert!(subject.store.job_get(id).await.expect("there").output.is_some(), "the step completed");
    assert_eq!(route(subject).await, 0);
    let refused = EventQuery { refused: true, ..EventQuery::default() };
    let events = subject.store.events().events_list(refused, 10).await.expect("listed");
    let why = events[0].problem.as_deref().expect("a reason");
    assert!(why.contains("\"id\" is a required property") && events[0].data == "null", "{events:?}");
}

/// Each subscriber gets what it asked for, once, however many processes hand events on.
pub async fn event_reaches_each_who_asked_for_it_once(subject: &Subject) {
    let orders = put(subject, handler("orders", &["order.*"])).await;
    let all = put(subject, handler("all", &["*"])).await;
    put(subject, handler("others", &["other", "job.failed"])).await;
    let elsewhere = EventFilter { namespace: Some("elsewhere".to_owned()), ..EventFilter::of(["*"]) };
    put(subject, NewSubscriber { filter: elsewhere, ..handler("elsewhere", &[]) }).await;
    for number in 0..3 {
        happen(subject, number).await;
    }
    let second = subject.second().await;
    let (one, other) = tokio::join!(subject.store.events().events_route(2), second.events().events_route(2));
    let routed = one.expect("routed").deliveries + other.expect("routed").deliveries + route(subject).await;
    second.close().await;
    assert_eq!((routed, route(subject).await), (6, 0));
    for subscriber in [orders, all] {
        let found = claimed(subject, &subscriber, 10).await;
        let events: BTreeSet<EventId> = found.deliveries.iter().map(|delivery| delivery.event.id).collect();
        assert_eq!((events.len(), found.deliveries[0].attempt), (3, 1), "{}", subscriber.name);
        assert_eq!(settle(subject, &found, DeliveryOutcome::Delivered).await, 3);
        assert!(claim(subject, &subscriber, 10).await.is_none());
    }
    assert_eq!(now(subject, "others").await.waiting, 0);
    // Who comes later hears of what happens later.
    put(subject, handler("late", &["*"])).await;
    assert_eq!(route(subject).await, 0);
}

/// Changes of state are events of their own, in the transaction of the change, and only while somebody asks for them.
pub async fn state_changes_are_written_while_somebody_asks(subject: &Subject) {
    let session = subject.session().await;
    let events = subject.store.events();
    let run = async || {
        let plain = subject.store.jobs_submit(vec![work()]).await.expect("stored")[0].id;
        let job = subject.claim_one(session).await;
        subject.settle(&job, completed("1")).await;
        plain
    };
    run().await;
    assert_eq!(names(subject).await, Vec::<String>::new(), "nobody asked");
    put(subject, handler("states", &["job.completed", "job.cancelled", "workflow.*", "view.*"])).await;
    let job = run().await;
    let told = listed(subject).await;
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].name.as_str(), told[0].job, told[0].attempt), ("job.completed", Some(job), Some(1)));
    let data: Value = serde_json::from_str(&told[0].data).expect("JSON");
    assert_eq!(
        (&data["from"], &data["to"], &data["handler"]),
        (&json!("running"), &json!("completed"), &json!("work"))
    );

    let waiting = subject.store.jobs_submit(vec![work()]).await.expect("stored")[0].id;
    subject.store.job_cancel(waiting, "not wanted").await.expect("cancelled");
    let (workflow, _) = publishing(subject, &[]).await;
    let step = subject.claim_one(session).await;
    subject.settle(&step, completed("1")).await;
    let view = subject.store.view_define(views::definition("k")).await.expect("defined").id;
    let touch = Touch { namespace: "shop".into(), key: "k".into(), at_once: true, ..Touch::default() };
    subject.store.views_touch(vec![touch]).await.expect("touched");
    let told = listed(subject).await;
    let found: BTreeSet<&str> = told.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(told.len(), 5, "{told:#?}");
    let expected = ["job.cancelled", "job.completed", "view.touched", "workflow.completed"];
    assert_eq!(found, BTreeSet::from(expected), "{told:#?}");
    let of = |name: &str| told.iter().find(|event| event.name == name).expect("told");
    assert_eq!(of("workflow.completed").workflow, Some(workflow));
    let data: Value = serde_json::from_str(&of("view.touched").data).expect("JSON");
    assert_eq!((&data["key"], &data["recache_version"]), (&json!("k"), &json!(1)));
    assert_eq!(data["view_id"], json!(view.uuid().to_string()));

    events.events_watch().await.expect("nothing to mend");
    assert!(events.subscriber_remove("states", 100).await.expect("removed"));
    let count = listed(subject).await.len();
    run().await;
    assert_eq!(listed(subject).await.len(), count, "nobody asks any more");
}

/// A delivery whose sender died is made again with the same id; what the dead one says late changes nothing.
pub async fn delivery_of_a_dead_sender_is_made_again(subject: &Subject) {
    let subscriber = put(subject, handler("s", &["*"])).await;
    happen(subject, 1).await;
    route(subject).await;
    let first = claimed(subject, &subscriber, 10).await;
    assert!(claim(subject, &subscriber, 10).await.is_none(), "it is being delivered");
    subject.advance(Duration::from_secs(6));
    subject.store.events().deliveries_extend(subscriber.id, first.claim, LEASE).await.expect("extended");
    subject.advance(Duration::from_secs(6));
    assert!(claim(subject, &subscriber, 10).await.is_none(), "its sender lives");
    subject.advance(Duration::from_secs(6));
    let second = claimed(subject, &subscriber, 10).await;
    assert_eq!(first.deliveries[0].event, second.deliveries[0].event);
    assert_eq!((second.deliveries[0].attempt, second.deliveries[0].is_last), (2, true));
    assert_eq!(settle(subject, &first, DeliveryOutcome::Delivered).await, 0, "the claim is another's");
    assert_eq!(settle(subject, &second, DeliveryOutcome::Delivered).await, 1);
    assert_eq!(settle(subject, &second, again(1)).await, 0, "it has ended");
    // A sender that dies at the last try leaves it dead, not waiting for ever.
    happen(subject, 2).await;
    route(subject).await;
    for _ in 0..2 {
        claimed(subject, &subscriber, 10).await;
        subject.advance(Duration::from_secs(11));
    }
    assert!(claim(subject, &subscriber, 10).await.is_none());
    assert_eq!((now(subject, "s").await.waiting, now(subject, "s").await.dead), (0, 1));
}

/// After a failure a subscriber rests; then a single delivery tries whether it is well again.
pub async fn failing_subscriber_rests_and_is_tried_with_one(subject: &Subject) {
    let subscriber = put(subject, NewSubscriber { retry: delivery_policy(), ..handler("s", &["*"]) }).await;
    for number in 0..4 {
        happen(subject, number).await;
    }
    route(subject).await;
    let first = claimed(subject, &subscriber, 2).await;
    assert_eq!(settle(subject, &first, again(30)).await, 2);
    assert!(claim(subject, &subscriber, 10).await.is_none(), "it rests");
    let due = subject.store.events().deliveries_due().await.expect("answered");
    assert_eq!(due[0].wait, Some(Duration::from_secs(1)));
    subject.advance(Duration::from_secs(1));
    let probe = claimed(subject, &subscriber, 10).await;
    assert_eq!((probe.deliveries.len(), probe.failures), (1, 1));
    assert!(claim(subject, &subscriber, 10).await.is_none(), "one at a time");
    assert_eq!(settle(subject, &probe, DeliveryOutcome::Delivered).await, 1);
    let rest = claimed(subject, &subscriber, 10).await;
    assert_eq!((rest.deliveries.len(), rest.failures), (1, 0), "the other two wait for their next try");
    assert_eq!(settle(subject, &rest, DeliveryOutcome::Released).await, 1);
    let same = claimed(subject, &subscriber, 10).await;
    assert_eq!(
        (same.deliveries[0].attempt, same.deliveries.len()),
        (1, 1),
        "what was not tried does not count"
    );
}

/// Tries are kept; what used them up is dead until somebody has it made once more.
pub async fn dead_delivery_is_made_once_more_when_asked(subject: &Subject) {
    let events = subject.store.events();
    let subscriber = put(subject, handler("s", &["*"])).await;
    happen(subject, 1).await;
    route(subject).await;
    let first = claimed(subject, &subscriber, 10).await;
    settle(subject, &first, again(1)).await;
    subject.advance(Duration::from_secs(1));
    let last = claimed(subject, &subscriber, 10).await;
    assert!(last.deliveries[0].is_last);
    settle(subject, &last, DeliveryOutcome::Dead { rest: None }).await;
    let dead = DeliveryFilter { state: Some(DeliveryState::Dead), ..DeliveryFilter::default() };
    let found = events.deliveries_list(dead.clone(), 10).await.expect("listed");
    assert_eq!((found.len(), found[0].attempt, found[0].status), (1, 2, Some(500)));
    assert_eq!((found[0].subscriber.as_str(), found[0].name.as_str()), ("s", "order.placed"));
    let attempts = events.delivery_attempts("s", found[0].event).await.expect("listed");
    assert_eq!(attempts.iter().map(|one| one.attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((attempts[0].status, attempts[0].took), (Some(500), Duration::from_millis(7)));
    assert_eq!(events.deliveries_redrive(dead.clone(), 10).await.expect("redriven"), 1);
    assert_eq!(events.deliveries_redrive(dead, 10).await.expect("redriven"), 0);
    let once_more = claimed(subject, &subscriber, 10).await;
    assert_eq!((once_more.deliveries[0].attempt, once_more.deliveries[0].is_last), (1, false));
    assert_eq!(once_more.deliveries[0].event, first.deliveries[0].event);
    settle(subject, &once_more, DeliveryOutcome::Delivered).await;
    let attempts = events.delivery_attempts("s", first.deliveries[0].event.id).await.expect("listed");
    assert_eq!(attempts.iter().map(|one| one.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    let pending = DeliveryFilter { state: Some(DeliveryState::Pending), ..DeliveryFilter::default() };
    assert!(matches!(events.deliveries_redrive(pending, 10).await, Err(Error::Invalid(_))));
}

/// Pages follow each other whatever they hold, also behind what is gone, and where many happened in one moment.
pub async fn events_and_deliveries_are_listed_page_by_page(subject: &Subject) {
    for name in ["a", "b", "c"] {
        put(subject, handler(name, &["*"])).await;
    }
    for number in 0..5 {
        happen(subject, number).await;
        if number % 2 == 1 {
            subject.advance(Duration::from_secs(1));
        }
    }
    assert_eq!(route(subject).await, 15);
    let events = subject.store.events();
    let all = events.events_list(EventQuery::default(), 100).await.expect("listed");
    assert_eq!(all.len(), 5);
    for rows_max in 1..=5 {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let query = EventQuery { before, ..EventQuery::default() };
            let page = events.events_list(query, rows_max).await.expect("listed");
            let Some(last) = page.last() else { break };
            before = Some((last.at, last.id));
            found.extend(page);
        }
        assert_eq!(found, all, "by {rows_max}");
    }
    let gone =
        EventQuery { before: Some((all[1].at, EventId::from_uuid(Uuid::max()))), ..EventQuery::default() };
    let behind = events.events_list(gone, 100).await.expect("listed");
    assert!(all.ends_with(&behind) && behind.contains(&all[1]), "{behind:?}");

    let deliveries = async |before, rows_max| {
        let filter = DeliveryFilter { before, ..DeliveryFilter::default() };
        events.deliveries_list(filter, rows_max).await.expect("listed")
    };
    let all = deliveries(None, 100).await;
    assert_eq!(all.len(), 15);
    for rows_max in [1, 2, 4, 15] {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let page = deliveries(before, rows_max).await;
            let Some(last) = page.last() else { break };
            // As text, in which it goes to callers and comes back.
            before = Some(last.place().to_string().parse().expect("a place"));
            found.extend(page);
        }
        assert_eq!(found, all, "by {rows_max}");
    }
    for text in ["", "1", "1/evt_1", "x/y/z"] {
        assert!(text.parse::<DeliveryPlace>().is_err(), "{text}");
    }
}

/// 410 is the last word: nothing is sent any more, and what waits is given up.
pub async fn subscriber_that_is_gone_stays_gone(subject: &Subject) {
    let events = subject.store.events();
    let subscriber = put(subject, webhook("w", &["*", "job.failed"])).await;
    for number in 0..2 {
        happen(subject, number).await;
    }
    route(subject).await;
    let first = claimed(subject, &subscriber, 1).await;
    assert_eq!(settle(subject, &first, DeliveryOutcome::Gone).await, 1);
    assert_eq!(now(subject, "w").await.state, SubscriberState::Gone);
    subject.advance(Duration::from_secs(60));
    assert!(claim(subject, &subscriber, 10).await.is_none());
    happen(subject, 3).await;
    assert_eq!(route(subject).await, 0);
    assert!(matches!(events.subscriber_resume("w", "ops").await, Err(Error::Conflict(_))));
    assert!(matches!(events.subscriber_pause("w", Word::new("ops", "x")).await, Err(Error::Conflict(_))));
    let dead = DeliveryFilter { subscriber: Some("w".to_owned()), ..DeliveryFilter::default() };
    assert!(matches!(events.deliveries_redrive(dead, 10).await, Err(Error::Conflict(_))));
    let lead = lead(subject).await;
    assert_eq!(events.deliveries_expire(&lead, Duration::from_hours(1), 10).await.expect("given up"), 1);
    assert_eq!((now(subject, "w").await.waiting, now(subject, "w").await.dead), (0, 2));
}

/// A pause loses nothing.
pub async fn what_is_for_a_paused_subscriber_waits(subject: &Subject) {
    let events = subject.store.events();
    let subscriber = put(subject, handler("s", &["*"])).await;
    events.subscriber_pause("s", Word::new("ops", "maintenance")).await.expect("paused");
    happen(subject, 1).await;
    assert_eq!(route(subject).await, 1);
    assert!(claim(subject, &subscriber, 10).await.is_none());
    assert!(events.deliveries_due().await.expect("answered").is_empty());
    let paused = now(subject, "s").await;
    assert_eq!(
        (paused.state, paused.waiting, paused.word.reason.as_str()),
        (SubscriberState::Paused, 1, "maintenance")
    );
    assert!(events.subscriber_resume("s", "ops").await.expect("resumed"));
    assert!(!events.subscriber_resume("s", "ops").await.expect("resumed"));
    assert_eq!(claimed(subject, &subscriber, 10).await.deliveries.len(), 1);
    // Registering again, as every start of a program does, changes neither state nor what waits.
    events.subscriber_pause("s", Word::new("ops", "again")).await.expect("paused");
    let again = put(subject, handler("s", &["order.*"])).await;
    assert_eq!((again.state, again.id), (SubscriberState::Paused, subscriber.id));
    assert_eq!(again.filter.types, ["order.*"]);
}

/// For a while two secrets sign; then only the new one.
pub async fn rotated_secret_signs_beside_the_former_for_a_time(subject: &Subject) {
    let events = subject.store.events();
    let subscriber = put(subject, webhook("w", &["*"])).await;
    for number in 0..3 {
        happen(subject, number).await;
    }
    route(subject).await;
    let secrets = async || claimed(subject, &subscriber, 1).await.secrets;
    assert_eq!(secrets().await, [Secret::new([1; 32])]);
    let rotated = events.subscriber_rotate("w", Secret::new([2; 32]), Duration::from_hours(1)).await;
    assert!(rotated.expect("rotated").old_secret_until.is_some());
    assert_eq!(secrets().await, [Secret::new([2; 32]), Secret::new([1; 32])]);
    subject.advance(Duration::from_hours(1));
    assert_eq!(secrets().await, [Secret::new([2; 32])]);
    let shown = format!("{:?}", now(subject, "w").await);
    assert!(!shown.contains(&Secret::new([2; 32]).reveal()), "{shown}");
    put(subject, handler("h", &["*"])).await;
    let of_handler = events.subscriber_rotate("h", Secret::new([3; 32]), Duration::ZERO).await;
    assert!(matches!(of_handler, Err(Error::Conflict(_))));
}

/// What ended is removed when its time is over; an event stays while a delivery of it is left.
pub async fn old_events_and_deliveries_are_removed(subject: &Subject) {
    let events = subject.store.events();
    let (fast, dead) =
        (put(subject, handler("fast", &["*"])).await, put(subject, handler("dead", &["*"])).await);
    happen(subject, 1).await;
    route(subject).await;
    let delivered = claimed(subject, &fast, 10).await;
    settle(subject, &delivered, DeliveryOutcome::Delivered).await;
    let lead = lead(subject).await;
    let (hour, day) = (Duration::from_hours(1), Duration::from_hours(24));
    subject.advance(hour * 2);
    assert_eq!(events.deliveries_remove(&lead, DeliveryState::Dead, hour, 10).await.expect("removed"), 0);
    assert_eq!(
        events.deliveries_remove(&lead, DeliveryState::Delivered, hour, 10).await.expect("removed"),
        1
    );
    assert_eq!(events.events_remove(&lead, hour, 10).await.expect("removed"), 0, "one delivery waits");
    assert!(claim(subject, &dead, 10).await.is_some());
    subject.advance(day);
    assert_eq!(events.deliveries_expire(&lead, day, 10).await.expect("given up"), 1);
    let given_up = events.deliveries_list(DeliveryFilter::default(), 10).await.expect("listed");
    assert_eq!(given_up[0].error.as_deref(), Some("not delivered in time"));
    subject.advance(hour);
    assert_eq!(events.deliveries_remove(&lead, DeliveryState::Dead, hour, 10).await.expect("removed"), 1);
    assert_eq!(events.events_remove(&lead, hour, 10).await.expect("removed"), 1);
    assert!(listed(subject).await.is_empty());
}

/// In batches, whatever waits for it.
pub async fn subscriber_is_removed_with_its_deliveries(subject: &Subject) {
    let events = subject.store.events();
    let subscriber = put(subject, handler("s", &["*"])).await;
    for number in 0..3 {
        happen(subject, number).await;
    }
    route(subject).await;
    let first = claimed(subject, &subscriber, 1).await;
    settle(subject, &first, again(1)).await;
    assert!(!events.subscriber_remove("s", 2).await.expect("begun"));
    assert!(events.subscriber_remove("s", 2).await.expect("ended"));
    assert!(matches!(events.subscriber_get("s").await, Err(Error::NotFound { .. })));
    assert!(matches!(events.subscriber_remove("s", 2).await, Err(Error::NotFound { .. })));
    put(subject, webhook("s", &["*"])).await;
}

/// With every reason, and nothing is changed.
pub async fn subscriber_that_cannot_be_is_refused(subject: &Subject) {
    let events = subject.store.events();
    let wrong = NewSubscriber { timeout: Duration::ZERO, ..webhook("", &["a*", "job.done"]) };
    let why = events.subscriber_put(wrong).await.expect_err("refused").to_string();
    for part in ["name of a subscriber", "`a*`", "`job.done`", "more than 0"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    put(subject, webhook("w", &["*"])).await;
    for taken in [webhook("w", &["*"]), handler("w", &["*"])] {
        assert!(matches!(events.subscriber_put(taken).await, Err(Error::Conflict(_))));
    }
    assert_eq!(events.subscribers_list().await.expect("listed").len(), 1);
    let alone = NewJob { publishes: Some(declared(&[])), ..work() };
    assert!(matches!(subject.store.jobs_submit(vec![alone]).await, Err(Error::Invalid(_))));
}
