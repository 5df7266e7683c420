//! Cases: the epochs of caches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::WorkflowId;
use recache_model::lifecycle::TimeLimits;

use super::{Subject, work};
use crate::records::{CacheMark, CacheRaise, CacheRecord, NewStep, NewWorkflow, TemplateRecord};
use crate::{Error, Signal, Store};

const UNKNOWN: CacheMark = CacheMark { incarnation: 0, version: 0 };
const RAISERS: u16 = 8;
const RAISES: u16 = 10;

fn raise(prefix: &str, slots: &[u16]) -> CacheRaise {
    CacheRaise { prefix: prefix.to_owned(), slots: slots.to_vec() }
}

async fn whole(store: &dyn Store, prefix: &str) -> CacheRecord {
    let record = store.cache_epochs_read(prefix, UNKNOWN).await.expect("it can be read");
    record.expect("nobody knows incarnation 0")
}

async fn raised(store: &dyn Store, prefix: &str, slots: &[u16]) -> CacheRecord {
    store.cache_epochs_raise(raise(prefix, slots), UNKNOWN).await.expect("it can be raised")
}

fn epochs(record: &CacheRecord) -> BTreeMap<u16, u64> {
    record.epochs.iter().copied().collect()
}

/// However many ask first, there is one incarnation.
pub async fn record_is_made_once(subject: &Subject) {
    let second = subject.second().await;
    let mut askers = Vec::new();
    for number in 0..RAISERS {
        let store = Arc::clone(if number % 2 == 0 { &subject.store } else { &second });
        askers.push(tokio::spawn(async move { whole(&*store, "p").await }));
    }
    let mut incarnations = BTreeSet::new();
    for asker in askers {
        let record = asker.await.expect("it ends");
        assert!(record.epochs.is_empty());
        incarnations.insert(record.mark.incarnation);
    }
    assert_eq!(incarnations.len(), 1);
    assert!(!incarnations.contains(&0));
    second.close().await;
}

/// Whoever knows the record learns that in one row.
pub async fn unchanged_record_is_not_given_again(subject: &Subject) {
    let store = &*subject.store;
    let before = whole(store, "p").await;
    assert_eq!(store.cache_epochs_read("p", before.mark).await.expect("read"), None);
    let after = raised(store, "p", &[3]).await;
    assert_eq!(after.mark.incarnation, before.mark.incarnation);
    assert!(after.mark.version > before.mark.version);
    let seen = store.cache_epochs_read("p", before.mark).await.expect("read").expect("it has changed");
    assert_eq!(seen, after);
    assert_eq!(store.cache_epochs_read("p", after.mark).await.expect("read"), None);
    let elsewhere = CacheMark { incarnation: after.mark.incarnation ^ 1, ..after.mark };
    assert!(store.cache_epochs_read("p", elsewhere).await.expect("read").is_some(), "another incarnation's");
}

/// Not the slots that he knows; and all of them where he knows nothing.
pub async fn reader_gets_what_was_raised_since_he_looked(subject: &Subject) {
    let store = &*subject.store;
    let first = raised(store, "p", &[1, 300]).await;
    let second = store.cache_epochs_raise(raise("p", &[300, 2_000, 300]), first.mark).await.expect("raised");
    assert_eq!(epochs(&second).into_keys().collect::<Vec<_>>(), [300, 2_000]);
    let all = epochs(&whole(store, "p").await);
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), [1, 300, 2_000]);
    assert_eq!(all[&1], epochs(&first)[&1], "what was not raised stays");
    assert!(all[&300] > epochs(&first)[&300]);
    let third = raised(store, "p", &[]).await;
    assert_eq!(epochs(&third), all, "nothing but the version rises");
}

/// A raise is atomic: no two get the same version, and each sees its own.
pub async fn raises_at_once_are_all_counted(subject: &Subject) {
    let second = subject.second().await;
    let before = whole(&*subject.store, "p").await.mark;
    let mut raisers = Vec::new();
    for number in 0..RAISERS {
        let store = Arc::clone(if number % 2 == 0 { &subject.store } else { &second });
        raisers.push(tokio::spawn(async move {
            let mut last = (0, 0);
            let mut versions = Vec::new();
            for _ in 0..RAISES {
                let record = raised(&*store, "p", &[5, 100 + number]).await;
                let epochs = epochs(&record);
                let now = (epochs[&5], epochs[&(100 + number)]);
                assert!(now.0 > last.0 && now.1 > last.1, "a raise sees itself");
                last = now;
                versions.push(record.mark.version);
            }
            versions
        }));
    }
    let mut versions = BTreeSet::new();
    for raiser in raisers {
        versions.extend(raiser.await.expect("it ends"));
    }
    let expected: BTreeSet<u64> =
        (1..=u64::from(RAISERS * RAISES)).map(|step| before.version + step).collect();
    assert_eq!(versions, expected);
    assert_eq!(whole(&*subject.store, "p").await.mark.version, before.version + u64::from(RAISERS * RAISES));
    second.close().await;
}

/// Two deployments may share a database.
pub async fn records_of_prefixes_are_apart(subject: &Subject) {
    let store = &*subject.store;
    let (one, other) = (raised(store, "p", &[1]).await, raised(store, "p2", &[2]).await);
    assert_ne!(one.mark.incarnation, other.mark.incarnation);
    raised(store, "p2", &[1]).await;
    assert_eq!(store.cache_epochs_read("p", one.mark).await.expect("read"), None);
    assert_eq!(epochs(&whole(store, "p").await), epochs(&one));
}

/// Somebody remembers more than the database does: it was restored.
pub async fn record_that_went_back_becomes_another_incarnation(subject: &Subject) {
    let store = &*subject.store;
    let before = raised(store, "p", &[1]).await;
    let ahead = CacheMark { version: before.mark.version + 5, ..before.mark };
    let after = store.cache_epochs_read("p", ahead).await.expect("read").expect("it is another one");
    assert_ne!(after.mark.incarnation, before.mark.incarnation);
    assert_eq!(epochs(&after), epochs(&before), "of another incarnation all is given");
    let again = store.cache_epochs_read("p", ahead).await.expect("read").expect("it is another one");
    assert_eq!(again, after, "once is enough");
    let ahead = CacheMark { version: after.mark.version + 5, ..after.mark };
    let raised = store.cache_epochs_raise(raise("p", &[2]), ahead).await.expect("raised");
    assert_ne!(raised.mark.incarnation, after.mark.incarnation);
    assert_eq!(epochs(&raised).into_keys().collect::<Vec<_>>(), [1, 2]);
}

/// In the same process always; in others where the database carries hints.
pub async fn raise_is_heard_where_the_database_carries_hints(subject: &Subject) {
    let second = subject.second().await;
    let mut here = subject.store.subscribe();
    let mut there = second.subscribe();
    // Whether the second one listens already cannot be asked: raises until it hears one.
    let carries = subject.store.kind() == "postgresql";
    let limit = Duration::from_secs(20);
    let heard = tokio::time::timeout(limit, async {
        loop {
            let mark = raised(&*subject.store, "p", &[1]).await.mark;
            loop {
                if let Signal::CacheRaised(prefix, heard) = here.recv().await.expect("the store is open") {
                    assert_eq!((prefix.as_str(), heard), ("p", mark));
                    break;
                }
            }
            if !carries {
                return;
            }
            let soon = tokio::time::timeout(Duration::from_millis(200), there.recv()).await;
            if let Ok(Ok(Signal::CacheRaised(prefix, heard))) = soon {
                assert_eq!((prefix.as_str(), heard.incarnation), ("p", mark.incarnation));
                return;
            }
        }
    });
    heard.await.expect("it is heard in time");
    second.close().await;
}

fn template(digest: &str, version: &str) -> TemplateRecord {
    TemplateRecord {
        digest: digest.to_owned(),
        namespace: "default".to_owned(),
        name: "example".to_owned(),
        version: version.to_owned(),
        content: "{}".to_owned(),
    }
}

/// What changes nothing raises nothing.
pub async fn new_template_raises_in_its_own_transaction(subject: &Subject) {
    let store = &*subject.store;
    let put = async |digest, version, slot| {
        store.template_put(template(digest, version), Some(raise("p", &[slot]))).await
    };
    let slots = async || epochs(&whole(store, "p").await).into_keys().collect::<Vec<_>>();
    put("d1", "1.0.0", 1).await.expect("kept");
    assert_eq!(slots().await, [1]);
    put("d1", "1.0.0", 2).await.expect("the same again is fine");
    assert!(matches!(put("d2", "1.0.0", 3).await, Err(Error::Conflict(_))));
    assert_eq!(slots().await, [1]);
    assert_eq!(
        store.template_find("default", "example", Some("1.0.0")).await.expect("there"),
        template("d1", "1.0.0")
    );
    let unknown = store.template_find("default", "example", Some("1.0.1")).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })));
    // What cannot be raised is not stored either.
    let refused = put("d3", "1.0.3", u16::MAX).await;
    assert!(matches!(refused, Err(Error::Invalid(_))));
    assert!(matches!(store.template_get("d3").await, Err(Error::NotFound { .. })));
    let new = NewWorkflow {
        id: WorkflowId::make(),
        template: template("d4", "1.0.4"),
        template_raise: Some(raise("p", &[4])),
        input: "{}".to_owned(),
        correlation_id: "c".to_owned(),
        environment: None,
        limits: TimeLimits::default(),
        takes_over: None,
        steps: vec![NewStep::new("a", work(), vec![])],
    };
    assert!(store.workflow_submit(new.clone()).await.expect("stored"));
    assert_eq!(slots().await, [1, 4]);
    let mark = whole(store, "p").await.mark;
    assert!(!store.workflow_submit(new).await.expect("found"));
    assert_eq!(whole(store, "p").await.mark, mark);
}

/// An error of the caller, and nothing is changed.
pub async fn what_is_no_slot_or_prefix_is_refused(subject: &Subject) {
    let store = &*subject.store;
    let refused = store.cache_epochs_raise(raise("p", &[1, 32_768]), UNKNOWN).await;
    assert!(matches!(refused, Err(Error::Invalid(_))));
    let long = "p".repeat(201);
    assert!(matches!(store.cache_epochs_raise(raise(&long, &[1]), UNKNOWN).await, Err(Error::Invalid(_))));
    assert!(matches!(store.cache_epochs_read(&long, UNKNOWN).await, Err(Error::Invalid(_))));
    assert!(whole(store, "p").await.epochs.is_empty());
    raised(store, "p", &[32_767]).await;
}
