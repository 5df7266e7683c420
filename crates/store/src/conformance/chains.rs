//! Cases: views that are made from others.

use std::sync::Arc;
use std::time::Duration;

use recache_model::retry::RetryPolicy;
use recache_model::view::ViewPolicy;

use super::Subject;
use crate::{Error, NewView, Publication, Published, StagedItem, Touch, ViewName};

fn name(key: &str) -> ViewName {
    ViewName::new("shop", key)
}

async fn define(subject: &Subject, keys: &[&str]) {
    for key in keys {
        let view = NewView {
            namespace: "shop".to_owned(),
            key: (*key).to_owned(),
            handler: "build".to_owned(),
            queue: "default".to_owned(),
            policy: ViewPolicy { debounce_quiet_ms: 0, debounce_max_ms: 0, ..ViewPolicy::default() },
            retry: RetryPolicy::once(),
            timeout: None,
            rules: recache_model::item_rules::ItemRules::default(),
            options: recache_model::view_options::ViewOptions::default(),
        };
        subject.store.view_define(view).await.expect("defined");
    }
}

async fn derive(subject: &Subject, key: &str, from: &[&str]) -> crate::Result<bool> {
    subject.store.chains().view_derive(name(key), from.iter().map(|key| name(key)).collect()).await
}

/// Builds whatever is due, each view with one item of this value, until nothing is due. Answers the order.
async fn build_all(subject: &Subject, value: &str) -> Vec<String> {
    let session = subject.session().await;
    let mut built = Vec::new();
    loop {
        subject.store.views_reconcile(100).await.expect("reconciled");
        let jobs = subject.claim(session, 1).await;
        let Some(job) = jobs.first() else { return built };
        let start = subject.store.build_begin(job.token).await.expect("answered").expect("good");
        let item = StagedItem { item: "x".to_owned(), fingerprint: None, value: Some(value.to_owned()) };
        assert_eq!(subject.store.build_put(job.token, vec![item]).await.expect("answered"), None);
        let publication =
            Publication { version: start.version, output: "{}".to_owned(), ..Publication::default() };
        let published = subject.store.build_publish(job.token, publication).await.expect("answered");
        assert!(matches!(published, Published::Live { .. }));
        built.push(start.key);
    }
}

async fn touch(subject: &Subject, key: &str) {
    let touch = Touch { namespace: "shop".to_owned(), key: key.to_owned(), ..Touch::default() };
    subject.store.views_touch(vec![touch]).await.expect("touched");
}

/// From the top to the bottom; and not at all where nothing changed.
pub async fn publication_touches_the_views_below(subject: &Subject) {
    define(subject, &["raw", "sums", "page", "other"]).await;
    assert!(derive(subject, "sums", &["raw"]).await.expect("said"));
    assert!(derive(subject, "page", &["sums"]).await.expect("said"));
    assert!(!derive(subject, "page", &["sums", "sums"]).await.expect("answered"), "that is no news");
    build_all(subject, "1").await;
    touch(subject, "raw").await;
    assert_eq!(build_all(subject, "2").await, ["raw", "sums", "page"]);
    touch(subject, "raw").await;
    assert_eq!(build_all(subject, "2").await, ["raw"], "equal values end the chain");
    let neighbours = subject.store.chains().view_neighbours(name("sums")).await.expect("answered");
    assert_eq!((neighbours.above, neighbours.below), (vec![name("raw")], vec![name("page")]));
    assert!(derive(subject, "sums", &[]).await.expect("said"));
    build_all(subject, "2").await;
    touch(subject, "raw").await;
    assert_eq!(build_all(subject, "3").await, ["raw"], "it is made from it no more");
}

/// An item that is gone has changed what those below are made from.
pub async fn removed_item_touches_the_views_below(subject: &Subject) {
    define(subject, &["raw", "sums"]).await;
    derive(subject, "sums", &["raw"]).await.expect("said");
    touch(subject, "raw").await;
    build_all(subject, "1").await;
    touch(subject, "raw").await;
    subject.store.views_reconcile(10).await.expect("reconciled");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    let start = subject.store.build_begin(job.token).await.expect("answered").expect("good");
    let publication = Publication {
        version: start.version,
        output: "{}".to_owned(),
        removed: vec!["x".to_owned()],
        ..Publication::default()
    };
    subject.store.build_publish(job.token, publication).await.expect("published");
    assert_eq!(build_all(subject, "1").await, ["sums"]);
}

/// Of one, of three, and of two that are made at once.
pub async fn circle_of_views_is_refused(subject: &Subject) {
    define(subject, &["a", "b", "c", "d"]).await;
    derive(subject, "b", &["a"]).await.expect("said");
    derive(subject, "c", &["b"]).await.expect("said");
    for (key, from) in [("a", ["a", "d"]), ("a", ["c", "d"]), ("b", ["c", "d"])] {
        let refused = derive(subject, key, &from).await;
        assert!(matches!(refused, Err(Error::Conflict(_))), "{key}: {refused:?}");
    }
    let above = subject.store.chains().view_neighbours(name("a")).await.expect("answered").above;
    assert_eq!(above, [], "nothing of it was kept");
    assert!(matches!(derive(subject, "a", &["gone"]).await, Err(Error::NotFound { .. })));
    // d from c and a from d close one only together.
    let second = subject.second().await;
    let mut tasks = Vec::new();
    for (store, view, from) in [(Arc::clone(&subject.store), "d", "c"), (Arc::clone(&second), "a", "d")] {
        tasks.push(tokio::spawn(
            async move { store.chains().view_derive(name(view), vec![name(from)]).await },
        ));
    }
    let mut said = 0;
    for task in tasks {
        match task.await.expect("no task fails") {
            Ok(is_news) => said += i32::from(is_news),
            Err(error) => assert!(matches!(error, Error::Conflict(_)), "{error}"),
        }
    }
    assert_eq!(said, 1);
    subject.advance(Duration::from_secs(1));
    second.close().await;
}
