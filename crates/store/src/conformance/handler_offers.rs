//! Cases: what workers can do, and what is done by whom.

use std::time::Duration;

use recache_model::handlers::{HandlerOffer, HandlerUsers};
use recache_model::ids::SessionId;
use serde_json::json;

use super::Subject;
use super::views::definition;
use crate::remote_workers::{NewRemoteWorker, RemoteHandler};
use crate::{NewSchedule, TemplateRecord};

fn offer(name: &str, version: Option<&str>) -> HandlerOffer {
    HandlerOffer { name: name.to_owned(), version: version.map(str::to_owned), input_schema: None }
}

async fn offers(subject: &Subject, session: SessionId, handlers: Vec<HandlerOffer>) -> bool {
    let queues = vec!["default".to_owned(), "it's".to_owned()];
    subject.store.handler_offers().handlers_offer(session, queues, 3, handlers).await.expect("answered")
}

/// Nobody is told of a worker that is gone, and its offer comes too late when its session was swept.
pub async fn offer_of_a_worker_goes_with_its_session(subject: &Subject) {
    let registry = subject.store.handler_offers();
    let session = subject.session().await;
    assert_eq!(registry.handlers_workers(10).await.expect("read"), [], "a session alone offers nothing");
    let schema = json!({ "type": "object", "title": "it's" });
    let handlers = vec![
        HandlerOffer { input_schema: Some(schema), ..offer("send", Some("1.2.0")) },
        offer("orders.*", None),
    ];
    assert!(offers(subject, session, handlers.clone()).await);
    let found = registry.handlers_workers(10).await.expect("read");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].session, &found[0].handlers), (session, &handlers));
    assert_eq!((found[0].name.as_str(), found[0].slots, found[0].is_remote), ("test", 3, false));
    assert_eq!(found[0].queues, ["default", "it's"]);
    assert_eq!(found[0].namespaces, None);
    subject.advance(Duration::from_secs(11));
    subject.store.sessions_sweep(10).await.expect("swept");
    assert_eq!(registry.handlers_workers(10).await.expect("read"), []);
    assert!(!offers(subject, session, handlers).await, "the session has ended");
    assert_eq!(registry.handlers_workers(10).await.expect("read"), []);
}

/// Also when the same is said twice: an answer may be lost.
pub async fn later_offer_takes_the_place_of_the_former(subject: &Subject) {
    let session = subject.session().await;
    for handlers in [vec![offer("a", None)], vec![offer("b", Some("2"))], vec![offer("b", Some("2"))]] {
        assert!(offers(subject, session, handlers).await);
    }
    let later = subject.session().await;
    assert!(offers(subject, later, vec![offer("c", None)]).await);
    let registry = subject.store.handler_offers();
    let found = registry.handlers_workers(10).await.expect("read");
    let names: Vec<(SessionId, &str)> =
        found.iter().map(|worker| (worker.session, worker.handlers[0].name.as_str())).collect();
    assert_eq!(names, [(later, "c"), (session, "b")], "the newest first");
    let found = registry.handlers_workers(1).await.expect("read");
    assert_eq!(found.iter().map(|worker| worker.session).collect::<Vec<_>>(), [later]);
}

/// Whichever way a worker comes, it is in the same list.
pub async fn remote_workers_are_among_the_workers(subject: &Subject) {
    let local = subject.session().await;
    assert!(offers(subject, local, vec![offer("work", None)]).await);
    let handler = RemoteHandler {
        name: "work".to_owned(),
        version: Some("0.10.0".to_owned()),
        input_schema: Some(json!(true)),
    };
    let worker = NewRemoteWorker {
        session: SessionId::make(),
        name: "till-7".to_owned(),
        secret_digest: "d".to_owned(),
        handlers: vec![handler],
        queues: vec!["mail".to_owned()],
        namespaces: Some(vec!["shop".to_owned()]),
        slots: 7,
        lease: Duration::from_secs(10),
    };
    subject.store.remote_workers().remote_open(worker.clone()).await.expect("opened");
    let found = subject.store.handler_offers().handlers_workers(10).await.expect("read");
    assert_eq!(found.len(), 2);
    let remote = found.iter().find(|one| one.session == worker.session).expect("there");
    assert!(remote.is_remote && remote.serves("shop") && !remote.serves("other"));
    assert_eq!((remote.name.as_str(), remote.slots), ("till-7", 7));
    assert_eq!(remote.handlers[0].input_schema, Some(json!(true)));
    let local = found.iter().find(|one| one.session == local).expect("there");
    assert!(!local.is_remote && local.serves("other"));
}

/// What asks for a handler without a template.
pub async fn views_and_schedules_are_counted_by_handler(subject: &Subject) {
    let registry = subject.store.handler_offers();
    assert_eq!(registry.handlers_users().await.expect("read"), []);
    let mut marks = vec![registry.handlers_mark().await.expect("read")];
    for key in ["one", "two"] {
        subject.store.view_define(definition(key)).await.expect("defined");
        marks.push(registry.handlers_mark().await.expect("read"));
    }
    // The same once more changes nothing that a registry shows.
    subject.store.view_define(definition("two")).await.expect("defined");
    assert_eq!(registry.handlers_mark().await.expect("read"), marks[2]);
    let schedule = NewSchedule::new("nightly", "0 3 * * *", "work");
    subject.store.schedules().schedule_put(schedule.clone()).await.expect("put");
    marks.push(registry.handlers_mark().await.expect("read"));
    let text = |text: &str| text.to_owned();
    let template = TemplateRecord {
        digest: text("d"),
        namespace: text("n"),
        name: text("t"),
        version: text("1.0.0"),
        content: text("{}"),
    };
    subject.store.template_put(template, None).await.expect("put");
    marks.push(registry.handlers_mark().await.expect("read"));
    let session = subject.session().await;
    assert_eq!(&registry.handlers_mark().await.expect("read"), &marks[4], "it offers nothing");
    assert!(offers(subject, session, vec![offer("work", None)]).await);
    marks.push(registry.handlers_mark().await.expect("read"));
    subject.store.session_close(session).await.expect("closed");
    let gone = registry.handlers_mark().await.expect("read");
    assert_eq!(gone, marks[4], "all is as it was");
    let different: std::collections::BTreeSet<_> = marks.iter().collect();
    assert_eq!(different.len(), marks.len(), "{marks:?}");
    let view = definition("one");
    let found = registry.handlers_users().await.expect("read");
    let count = |namespace: &str, handler: &str, of: fn(&HandlerUsers) -> u64| {
        let one = found.iter().find(|one| one.namespace == namespace && one.handler == handler);
        one.map_or(0, of)
    };
    assert_eq!(count(&view.namespace, &view.handler, |one| one.views), 2);
    assert_eq!(count(&schedule.namespace, &schedule.handler, |one| one.schedules), 1);
    assert_eq!(found.iter().map(|one| one.views + one.schedules).sum::<u64>(), 3);
}
