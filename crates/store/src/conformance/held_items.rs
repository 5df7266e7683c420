//! Cases: items whose values are kept in the cache only.

use recache_model::held_value::{digest_of, standing_for};
use recache_model::ids::SessionId;
use recache_model::view_options::{ItemsKept, ViewOptions};

use super::Subject;
use super::views::{begin, build, definition, item, publication, publish, touch, view};
use crate::records::{BuildStart, ClaimedJob, NewView, StagedItem, TouchedItems};
use crate::{Error, HeldItem, HeldPlace, ViewName, item_digest};

fn held_definition() -> NewView {
    let options = ViewOptions { items: ItemsKept::CacheOnly, ..ViewOptions::default() };
    NewView { options, ..definition("prices") }
}

fn name() -> ViewName {
    ViewName::new("shop", "prices")
}

fn held(key: &str, value: &str) -> HeldItem {
    HeldItem { item: key.to_owned(), stands: standing_for(&item_digest(&format!("\"{value}\""))) }
}

async fn put(subject: &Subject, job: &ClaimedJob, items: Vec<StagedItem>) {
    assert_eq!(subject.store.held_items().build_put_held(job.token, items).await.expect("answered"), None);
}

async fn live(subject: &Subject, items: &[(&str, &str, &str)]) -> SessionId {
    subject.store.view_define(held_definition()).await.expect("defined");
    let session = subject.session().await;
    let (job, start) = build(subject, session).await;
    assert!(start.is_held);
    put(subject, &job, items.iter().map(|(key, print, value)| item(key, print, value)).collect()).await;
    publish(subject, &job, publication(start.version)).await;
    session
}

fn marks(start: &BuildStart) -> Vec<(&str, Option<&str>, bool)> {
    start.live.iter().map(|mark| (mark.item.as_str(), mark.fingerprint.as_deref(), mark.is_gone)).collect()
}

/// The store has digests, and counts by them; never a value.
pub async fn values_are_not_in_the_store_and_their_digests_are(subject: &Subject) {
    let session = live(subject, &[("a", "1", "x"), ("b", "1", "x")]).await;
    let read = subject.store.view_read("shop", "prices", None).await.expect("read");
    let stands: Vec<_> = read.items.iter().map(|(_, value)| digest_of(value)).collect();
    let digest = item_digest("\"x\"");
    assert_eq!(stands, [Some(digest.as_str()), Some(digest.as_str())]);
    // Other inputs and the same value: nothing changed.
    let (job, start) = build(subject, session).await;
    put(subject, &job, vec![item("a", "2", "x"), item("b", "2", "y")]).await;
    assert_eq!(publish(subject, &job, publication(start.version)).await, 1);
    let page =
        subject.store.held_items().held_page(read.view, HeldPlace::Live, None, 10).await.expect("read");
    assert_eq!(page, [held("a", "x"), held("b", "y")]);
    let before = HeldPlace::Version(1);
    let page = subject.store.held_items().held_page(read.view, before, Some("a".to_owned()), 10).await;
    assert_eq!(page.expect("read"), [held("b", "x")]);
}

/// However many readers tell of it, and however often.
pub async fn lost_value_touches_its_view_once_and_is_not_taken_over(subject: &Subject) {
    let session = live(subject, &[("a", "1", "x"), ("b", "1", "y"), ("c", "1", "z")]).await;
    let items = subject.store.held_items();
    let lost = vec![held("a", "x"), held("b", "another value by now"), held("none", "x")];
    assert_eq!(items.items_lost(name(), lost.clone()).await.expect("answered"), Some(2));
    assert_eq!(items.items_lost(name(), lost).await.expect("answered"), None);
    assert_eq!(view(subject).await.versions.wanted, 2);
    let (job, start) = begin(subject, session).await;
    assert_eq!(marks(&start), [("a", None, true), ("b", Some("1"), false), ("c", Some("1"), false)]);
    assert_eq!(start.touched, TouchedItems::Only(vec!["a".to_owned()]));
    // The build finds more by itself: what it began with is asked for again.
    assert_eq!(items.items_gone(start.view, vec![held("b", "y")]).await.expect("answered"), 1);
    let start = subject.store.build_begin(job.token).await.expect("answered").expect("good");
    assert_eq!(marks(&start), [("a", None, true), ("b", None, true), ("c", Some("1"), false)]);
    assert_eq!(start.touched, TouchedItems::Only(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(view(subject).await.versions.wanted, 2, "a build that looks supersedes nothing");
    // Made anew with the value that it had: it is there again.
    put(subject, &job, vec![item("a", "1", "x"), item("b", "1", "y")]).await;
    assert_eq!(publish(subject, &job, publication(start.version)).await, 0);
    let (_, start) = build(subject, session).await;
    assert_eq!(marks(&start), [("a", Some("1"), false), ("b", Some("1"), false), ("c", Some("1"), false)]);
}

/// What a superseded build put and the cache has lost is nothing to take over.
pub async fn staged_value_that_is_gone_is_staged_no_longer(subject: &Subject) {
    subject.store.view_define(held_definition()).await.expect("defined");
    let session = subject.session().await;
    let (job, _) = build(subject, session).await;
    put(subject, &job, vec![item("a", "1", "x"), item("b", "1", "y")]).await;
    touch(subject).await;
    let (_, start) = begin(subject, session).await;
    assert_eq!(start.staged.len(), 2);
    let items = subject.store.held_items();
    let page = items.held_page(start.view, HeldPlace::Staged, None, 10).await.expect("read");
    assert_eq!(page, [held("a", "x"), held("b", "y")]);
    let gone = vec![held("a", "x"), held("b", "another one")];
    assert_eq!(items.staged_gone(start.view, gone).await.expect("answered"), 1);
    let page = items.held_page(start.view, HeldPlace::Staged, None, 10).await.expect("read");
    assert_eq!(page, [held("b", "y")]);
}

/// A value that only the cache has cannot become the store's, and one that the store has is not dropped.
pub async fn where_values_are_kept_is_refused_or_followed(subject: &Subject) {
    let session = live(subject, &[("a", "1", "x")]).await;
    let answer = subject.store.view_define(definition("prices")).await;
    assert!(matches!(&answer, Err(Error::Conflict(told)) if told.contains("delete it first")), "{answer:?}");
    // Durable first: what was put stays in the store, and what is put from now on is not.
    subject.store.view_define(definition("stock")).await.expect("defined");
    subject.store.views_touch(vec![super::views::touch_of("stock")]).await.expect("touched");
    let (job, start) = begin(subject, session).await;
    assert!(!start.is_held);
    let answer = subject.store.held_items().build_put_held(job.token, vec![item("a", "1", "x")]).await;
    assert!(matches!(answer, Err(Error::Conflict(_))), "{answer:?}");
    assert_eq!(subject.store.held_items().build_holds(job.token).await.expect("answered"), None);
    let holding = NewView { key: "stock".to_owned(), ..held_definition() };
    subject.store.view_define(holding).await.expect("defined");
    let holds = subject.store.held_items().build_holds(job.token).await.expect("answered");
    assert_eq!(holds.map(|held| held.name), Some(ViewName::new("shop", "stock")));
    let patterns = subject.store.view_patterns();
    let pattern = |view: NewView| NewView { key: "p/*".to_owned(), ..view };
    patterns.pattern_define(pattern(held_definition())).await.expect("defined");
    subject.store.views_touch(vec![super::views::touch_of("p/1")]).await.expect("touched");
    let answer = patterns.pattern_define(pattern(definition("x"))).await;
    assert!(matches!(answer, Err(Error::Conflict(_))), "{answer:?}");
}
