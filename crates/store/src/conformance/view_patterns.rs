//! Cases: what items must be, definitions of many views, touches of many.

use recache_model::item_rules::ItemRules;
use recache_model::view::ViewStatus;
use serde_json::json;

use super::Subject;
use super::views::{build, definition, item, publication, publish, put, read, touch_of};
use crate::records::{NewView, StagedItem, Touch};
use crate::{Error, ViewName, Word};

fn rules() -> ItemRules {
    ItemRules {
        key_schema: Some(json!({ "pattern": "^[a-z]+$" })),
        value_schema: Some(json!({ "type": "object", "required": ["price"],
            "properties": { "price": { "type": "integer" }, "tags": { "items": { "type": "string" } } } })),
    }
}

fn valued(key: &str, value: &serde_json::Value) -> StagedItem {
    StagedItem { value: Some(value.to_string()), ..item(key, "f", "") }
}

/// Nothing of a call is kept that holds a wrong one; everything that is wrong is told.
pub async fn item_that_does_not_fit_is_refused_with_every_reason(subject: &Subject) {
    let session = subject.session().await;
    subject.store.view_define(NewView { rules: rules(), ..definition("prices") }).await.expect("defined");
    let (job, start) = build(subject, session).await;
    let good = valued("tea", &json!({ "price": 250 }));
    let bad = [
        good.clone(),
        valued("Tea 2", &json!({ "price": 1 })),
        valued("milk", &json!({ "price": "dear", "tags": ["a", 7] })),
    ];
    let answer = subject.store.build_put(job.token, bad.to_vec()).await;
    let Err(Error::Invalid(told)) = answer else { panic!("{answer:?}") };
    for part in ["`Tea 2`: its key", "`milk`: its value", "/price", "/tags/1"] {
        assert!(told.contains(part), "{told}");
    }
    assert!(!told.contains("dear"), "a value may be a secret: {told}");
    put(subject, &job, vec![good]).await;
    publish(subject, &job, publication(start.version)).await;
    assert_eq!(read(subject).await.1, [("tea".to_owned(), json!({ "price": 250 }).to_string())]);
}

/// At the door, and not by the first build.
pub async fn schema_that_cannot_be_used_is_refused(subject: &Subject) {
    let wrong =
        ItemRules { key_schema: Some(json!({ "type": 5 })), value_schema: Some(json!({ "pattern": "(" })) };
    let answer = subject.store.view_define(NewView { rules: wrong.clone(), ..definition("prices") }).await;
    let Err(Error::Invalid(told)) = answer else { panic!("{answer:?}") };
    assert!(told.contains("item_key_schema") && told.contains("item_value_schema"), "{told}");
    let answer =
        subject.store.view_patterns().pattern_define(NewView { rules: wrong, ..definition("p*") }).await;
    assert!(matches!(answer, Err(Error::Invalid(_))), "{answer:?}");
}

/// By whichever way the touch comes.
pub async fn pattern_covers_every_key_and_the_first_touch_makes_the_view(subject: &Subject) {
    let store = &subject.store;
    let patterns = store.view_patterns();
    patterns.pattern_define(NewView { rules: rules(), ..definition("alliance/*") }).await.expect("defined");
    patterns
        .pattern_define(NewView { handler: "work".to_owned(), ..definition("alliance/9*") })
        .await
        .expect("defined");
    assert!(matches!(store.view_get("shop", "alliance/1").await, Err(Error::NotFound { .. })));
    let touched = store.views_touch(vec![touch_of("alliance/1")]).await.expect("touched");
    assert_eq!(touched[0].version, 1);
    let many =
        store.views_touch(vec![touch_of("alliance/1"), touch_of("alliance/9")]).await.expect("touched");
    assert_eq!(many.iter().map(|touched| touched.version).collect::<Vec<_>>(), [2, 1]);
    subject.tamper("INSERT INTO touch_requests (namespace, key) VALUES ('shop', 'alliance/2')").await;
    store.views_reconcile(10).await.expect("reconciled");
    for (key, handler, pattern) in [
        ("alliance/1", "build", "alliance/*"),
        ("alliance/2", "build", "alliance/*"),
        ("alliance/9", "work", "alliance/9*"),
    ] {
        let view = store.view_get("shop", key).await.expect("made");
        assert_eq!((view.definition.handler.as_str(), view.pattern.as_deref()), (handler, Some(pattern)));
        assert_eq!(view.versions.status, ViewStatus::Pending);
    }
    assert_eq!(store.view_get("shop", "alliance/1").await.expect("made").definition.rules, rules());
    for (namespace, key) in [("shop", "guild/1"), ("other", "alliance/1")] {
        let touch = Touch { namespace: namespace.to_owned(), ..touch_of(key) };
        let answer = store.views_touch(vec![touch]).await;
        assert!(matches!(answer, Err(Error::NotFound { .. })), "{namespace}/{key}: {answer:?}");
    }
    // A key that no view can have is one that no view has, also for a request that came by SQL.
    subject.tamper("INSERT INTO touch_requests (namespace, key) VALUES ('shop', 'alliance/\u{1}')").await;
    store.views_reconcile(10).await.expect("it keeps no other waiting");
    // A view made by a touch that fails with others is not made.
    let answer = store.views_touch(vec![touch_of("alliance/3"), touch_of("guild/1")]).await;
    assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
    assert!(matches!(store.view_get("shop", "alliance/3").await, Err(Error::NotFound { .. })));
}

/// One definition, many views; one that was defined by its own name goes its own way.
pub async fn changed_pattern_changes_the_views_made_from_it(subject: &Subject) {
    let store = &subject.store;
    let patterns = store.view_patterns();
    assert_eq!(patterns.pattern_define(definition("a/*")).await.expect("defined"), 0);
    for key in ["a/1", "a/2", "a/3"] {
        store.views_touch(vec![touch_of(key)]).await.expect("touched");
    }
    store.view_define(definition("a/3")).await.expect("defined by name");
    let changed = NewView { handler: "work".to_owned(), ..definition("a/*") };
    assert_eq!(patterns.pattern_define(changed).await.expect("changed"), 2);
    let handler = async |key: &str| store.view_get("shop", key).await.expect("there").definition.handler;
    assert_eq!([handler("a/1").await, handler("a/2").await, handler("a/3").await], ["work", "work", "build"]);
    assert_eq!(store.view_get("shop", "a/1").await.expect("there").versions.wanted, 1, "versions stay");
    let listed = patterns.patterns_list(Some("shop"), None, 10).await.expect("listed");
    assert_eq!(listed.iter().map(|one| one.definition.key.as_str()).collect::<Vec<_>>(), ["a/*"]);
    patterns.pattern_delete("shop", "a/*").await.expect("deleted");
    assert!(matches!(patterns.pattern_delete("shop", "a/*").await, Err(Error::NotFound { .. })));
    assert_eq!(handler("a/1").await, "work", "the views stay");
    assert!(store.views_touch(vec![touch_of("a/4")]).await.is_err(), "and no new one is made");
    // A deleted view's name is free, and the pattern makes it anew.
    patterns.pattern_define(definition("a/*")).await.expect("defined");
    let word = Word { actor: "ada".to_owned(), reason: "tidy".to_owned() };
    store.view_control().view_delete(ViewName::new("shop", "a/1"), word).await.expect("deleted");
    assert_eq!(store.views_touch(vec![touch_of("a/1")]).await.expect("touched")[0].version, 1);
}

/// In steps, each of which is bounded.
pub async fn touch_by_pattern_touches_every_view_that_matches(subject: &Subject) {
    let store = &subject.store;
    for key in ["a/1", "a/2", "a/3", "a_x", "b", "a/Z/9"] {
        store.view_define(definition(key)).await.expect("defined");
    }
    let mut after = None;
    let mut steps = Vec::new();
    loop {
        let step = store
            .view_patterns()
            .views_touch_matching("shop", "a/*", vec!["x".to_owned()], None, after, 2)
            .await
            .expect("touched");
        steps.push(step.touched);
        match step.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(steps.iter().sum::<u64>(), 4);
    assert!(steps.len() > 1 && steps.iter().all(|touched| *touched <= 2), "{steps:?}");
    for (key, wanted) in [("a/1", 1), ("a/3", 1), ("a/Z/9", 1), ("a_x", 0), ("b", 0)] {
        assert_eq!(store.view_get("shop", key).await.expect("there").versions.wanted, wanted, "{key}");
    }
    let none = store
        .view_patterns()
        .views_touch_matching("shop", "nothing*", Vec::new(), None, None, 2)
        .await
        .expect("nothing to do");
    assert_eq!((none.touched, none.next), (0, None));
}

/// Keys and patterns cannot be taken for each other.
pub async fn key_with_a_star_is_a_pattern(subject: &Subject) {
    let answer = subject.store.view_define(definition("a*")).await;
    assert!(matches!(answer, Err(Error::Invalid(_))), "{answer:?}");
    let answer = subject.store.view_patterns().pattern_define(definition("a")).await;
    assert!(matches!(answer, Err(Error::Invalid(_))), "{answer:?}");
    subject.store.view_patterns().pattern_define(definition("*")).await.expect("defined");
    let answer = subject.store.views_touch(vec![touch_of("a*")]).await;
    assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
}
