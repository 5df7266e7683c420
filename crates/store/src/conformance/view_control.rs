//! Cases: views in an operator's hands.

use std::time::Duration;

use recache_model::ids::SessionId;
use recache_model::job::JobState;
use recache_model::view::ViewStatus;

use super::Subject;
use super::views::{
    begin, build, defined, definition, item, pairs, publication, publish, publish_items, put, read, touch,
    touch_of, view,
};
use crate::view_control::ItemChange::{Added, Changed, Removed};
use crate::{Error, Published, Revoked, StagedItem, Touch, TouchedItems, ViewControl, ViewName, Word};

fn prices() -> ViewName {
    ViewName::new("shop", "prices")
}

fn word() -> Word {
    Word::new("ada", "wrong prices")
}

fn control(subject: &Subject) -> &dyn ViewControl {
    subject.store.view_control()
}

async fn due_builds(subject: &Subject) -> usize {
    subject.store.views_reconcile(10).await.expect("reconciled").builds.len()
}

/// Versions 1 and 2 of a view whose items differ in each way.
async fn two_generations(subject: &Subject) -> SessionId {
    let session = defined(subject).await;
    publish_items(subject, session, &[("a", "1", "old"), ("b", "1", "gone"), ("same", "1", "x")]).await;
    let (job, start) = build(subject, session).await;
    let items = [("a", "2", "new"), ("c", "1", "more"), ("same", "1", "x")];
    put(subject, &job, items.iter().map(|(key, mark, value)| item(key, mark, value)).collect()).await;
    let publication = crate::Publication { removed: vec!["b".to_owned()], ..publication(start.version) };
    publish(subject, &job, publication).await;
    session
}

/// Neither created nor told as due; and at once when it goes on.
pub async fn no_build_begins_while_a_view_is_paused(subject: &Subject) {
    defined(subject).await;
    touch(subject).await;
    assert!(control(subject).view_pause(prices(), word()).await.expect("paused"));
    assert!(!control(subject).view_pause(prices(), Word::new("bob", "me too")).await.expect("answered"));
    subject.advance(Duration::from_secs(60));
    let reconciled = subject.store.views_reconcile(10).await.expect("reconciled");
    assert_eq!((reconciled.builds.len(), reconciled.next_due), (0, None));
    let paused = view(subject).await;
    assert_eq!(paused.pause.map(|pause| pause.word), Some(word()), "the first word stays");
    assert_eq!((paused.versions.status, paused.versions.wanted), (ViewStatus::Pending, 1));
    assert!(control(subject).view_resume(prices()).await.expect("resumed"));
    assert!(!control(subject).view_resume(prices()).await.expect("answered"));
    assert_eq!(due_builds(subject).await, 1);
    assert_eq!(view(subject).await.pause, None);
    let nobody = control(subject).view_pause(ViewName::new("shop", "none"), word()).await;
    assert!(matches!(nobody, Err(Error::NotFound { .. })));
    let silent = control(subject).view_pause(prices(), Word::new("ada", "")).await;
    assert!(matches!(silent, Err(Error::Invalid(_))));
}

/// The one that runs is the last that readers get for a while, whatever touches come.
pub async fn build_that_waits_is_called_off_by_a_pause_and_one_that_runs_is_not(subject: &Subject) {
    let session = defined(subject).await;
    touch(subject).await;
    subject.advance(Duration::from_secs(1));
    assert_eq!(due_builds(subject).await, 1);
    let queued = view(subject).await.build.expect("it is queued");
    control(subject).view_pause(prices(), word()).await.expect("paused");
    assert_eq!(subject.store.job_get(queued).await.expect("there").state, JobState::Cancelled);
    assert_eq!(view(subject).await.build, None);
    control(subject).view_resume(prices()).await.expect("resumed");

    let (job, start) = begin(subject, session).await;
    control(subject).view_pause(prices(), word()).await.expect("paused");
    assert_eq!(touch(subject).await, None, "it is not superseded");
    put(subject, &job, vec![item("a", "1", "x")]).await;
    publish(subject, &job, publication(start.version)).await;
    assert_eq!(read(subject).await, (1, pairs(&[("a", "x")])));
    subject.advance(Duration::from_secs(60));
    assert_eq!(due_builds(subject).await, 0);
    subject.assert_sound().await;
}

/// Readers never go back to a version that they saw before.
pub async fn older_generation_is_live_again_as_a_newer_version(subject: &Subject) {
    two_generations(subject).await;
    let restored = control(subject).view_restore(prices(), 1, word()).await.expect("restored");
    assert_eq!((restored.version, restored.items_changed, restored.items_removed), (3, 2, 1));
    assert_eq!(read(subject).await, (3, pairs(&[("a", "old"), ("b", "gone"), ("same", "x")])));
    let view = view(subject).await;
    assert_eq!((view.versions.wanted, view.versions.status), (3, ViewStatus::Completed));
    assert_eq!(view.pause.map(|pause| pause.word), Some(word()));
    let kept = subject.store.generations_list(view.id, 10).await.expect("listed");
    let [newest, before, ..] = &kept[..] else { panic!("three generations, not {kept:?}") };
    assert_eq!((newest.version, newest.job, newest.items_total, newest.items_changed), (3, None, 3, 2));
    let restoration = newest.restored.clone().expect("it says so");
    assert_eq!((restoration.from, restoration.word), (1, word()));
    assert!(before.replaced_at.is_some() && newest.replaced_at.is_none());
    let page = subject.store.generation_page(view.id, 2, None, 10).await.expect("read").expect("kept");
    assert_eq!(page, pairs(&[("a", "new"), ("c", "more"), ("same", "x")]), "version 2 can still be read");
    // And back again.
    assert_eq!(control(subject).view_restore(prices(), 2, word()).await.expect("restored").version, 4);
    assert_eq!(read(subject).await, (4, pairs(&[("a", "new"), ("c", "more"), ("same", "x")])));
    subject.assert_sound().await;
}

/// A build that computes only what was touched must not keep what an operator brought back.
pub async fn what_was_restored_counts_as_touched_for_the_next_build(subject: &Subject) {
    let session = two_generations(subject).await;
    control(subject).view_restore(prices(), 1, word()).await.expect("restored");
    control(subject).view_resume(prices()).await.expect("resumed");
    subject.advance(Duration::from_secs(60));
    assert_eq!(due_builds(subject).await, 0, "nothing is wanted that is not live");
    let one = Touch { items: vec!["same".to_owned()], ..touch_of("prices") };
    subject.store.views_touch(vec![one]).await.expect("touched");
    let (_, start) = begin(subject, session).await;
    let named = ["a", "b", "c", "same"].map(str::to_owned).to_vec();
    assert_eq!((start.version, start.touched), (4, TouchedItems::Only(named)));
}

/// It is told by which version, and nothing of it becomes visible.
pub async fn restoring_ends_the_build_that_runs(subject: &Subject) {
    let session = two_generations(subject).await;
    let (job, start) = build(subject, session).await;
    let restored = control(subject).view_restore(prices(), 1, word()).await.expect("restored");
    assert_eq!((restored.version, restored.superseded), (start.version + 1, Some(job.token.job)));
    let ended = subject.store.job_get(job.token.job).await.expect("there");
    assert_eq!((ended.state, ended.superseded_by), (JobState::Superseded, Some(restored.version)));
    let late = subject.store.build_put(job.token, vec![item("a", "9", "late")]).await.expect("answered");
    assert_eq!(late, Some(Revoked::Superseded));
    let late = subject.store.build_publish(job.token, publication(start.version)).await.expect("answered");
    assert_eq!(late, Published::Refused(Revoked::Superseded));
    assert_eq!(read(subject).await.0, restored.version);
    subject.assert_sound().await;
}

/// Nothing is changed by a refusal.
pub async fn only_a_kept_generation_that_is_not_live_is_restored(subject: &Subject) {
    let session = two_generations(subject).await;
    publish_items(subject, session, &[("a", "3", "newest")]).await;
    subject.advance(Duration::from_secs(100));
    publish_items(subject, session, &[("a", "4", "last")]).await;
    subject.store.generations_remove(Duration::from_secs(50)).await.expect("removed");
    let before = view(subject).await;
    for version in [0, 1, 4, 5, -1] {
        let refused = control(subject).view_restore(prices(), version, word()).await;
        assert!(matches!(refused, Err(Error::Conflict(_))), "version {version}: {refused:?}");
    }
    assert_eq!(view(subject).await, before);
}

/// In both directions.
pub async fn generations_are_compared_item_by_item_and_page_by_page(subject: &Subject) {
    two_generations(subject).await;
    let id = view(subject).await.id;
    let diff = async |from, to, after: Option<&str>, rows_max| {
        control(subject)
            .generations_diff(id, from, to, after.map(str::to_owned), rows_max)
            .await
            .expect("answered")
    };
    let owned = |changes: &[(&str, _)]| {
        Some(changes.iter().map(|(item, change)| ((*item).to_owned(), *change)).collect::<Vec<_>>())
    };
    assert_eq!(diff(1, 2, None, 9).await, owned(&[("a", Changed), ("b", Removed), ("c", Added)]));
    assert_eq!(diff(2, 1, None, 9).await, owned(&[("a", Changed), ("b", Added), ("c", Removed)]));
    assert_eq!(diff(1, 2, None, 2).await, owned(&[("a", Changed), ("b", Removed)]));
    assert_eq!(diff(1, 2, Some("b"), 2).await, owned(&[("c", Added)]));
    assert_eq!(diff(2, 2, None, 9).await, owned(&[]));
    assert_eq!(diff(1, 3, None, 9).await, None, "3 was never published");
    // An item that went and came back as it was is no difference.
    control(subject).view_restore(prices(), 1, word()).await.expect("restored");
    assert_eq!(diff(1, 3, None, 9).await, owned(&[]));
}

/// With those that were superseded.
pub async fn builds_of_a_view_are_listed_newest_first(subject: &Subject) {
    let session = two_generations(subject).await;
    let (running, _) = build(subject, session).await;
    touch(subject).await;
    let id = view(subject).await.id;
    let builds = control(subject).view_builds(id, None, 10).await.expect("listed");
    let states: Vec<_> = builds.iter().map(|build| (build.state, build.superseded_by)).collect();
    assert_eq!(
        states,
        [(JobState::Superseded, Some(4)), (JobState::Completed, None), (JobState::Completed, None)]
    );
    assert_eq!(builds[0].id, running.token.job);
    let page = control(subject).view_builds(id, Some(builds[0].id), 1).await.expect("listed");
    assert_eq!(page.iter().map(|build| build.id).collect::<Vec<_>>(), [builds[1].id]);
}

/// Whoever took it over in between, and whatever else the generation has from the one before.
pub async fn what_is_used_of_a_superseded_build_is_what_it_made_itself(subject: &Subject) {
    let session = two_generations(subject).await;
    let id = view(subject).await.id;
    let reuse =
        |name: &str| StagedItem { item: name.to_owned(), fingerprint: Some("f".to_owned()), value: None };
    let (first, _) = build(subject, session).await;
    put(subject, &first, vec![item("x", "f", "one"), item("y", "f", "two"), item("z", "f", "three")]).await;
    touch(subject).await;
    let (second, _) = begin(subject, session).await;
    // It takes `x` over, makes `z` anew, and leaves `y` alone.
    put(subject, &second, vec![reuse("x"), item("z", "f", "four"), item("w", "f", "five")]).await;
    touch(subject).await;
    let used = async || {
        let mut builds = control(subject).view_builds(id, None, 10).await.expect("listed");
        builds.truncate(3);
        let asked = builds.iter().map(|build| build.id).collect();
        let mut used = control(subject).builds_used(id, asked).await.expect("answered");
        used.sort_unstable();
        used
    };
    assert_eq!(used().await, [], "nobody has published since");
    let (third, start) = begin(subject, session).await;
    put(subject, &third, vec![reuse("x"), reuse("y"), reuse("z"), reuse("w"), item("v", "f", "six")]).await;
    publish(subject, &third, publication(start.version)).await;
    assert_eq!(used().await, [(first.token.job, 2), (second.token.job, 2)], "x and y, z and w");
    control(subject).view_delete(prices(), word()).await.expect("deleted");
    while subject.store.view_control().views_remove_deleted(100).await.expect("removed") > 0 {}
    assert_eq!(used().await, [], "it goes with its view");
}

/// Its build is told, what it held goes bit by bit, and the last row with its last job.
pub async fn deleted_view_is_gone_and_its_name_is_free(subject: &Subject) {
    let session = two_generations(subject).await;
    let (job, start) = build(subject, session).await;
    control(subject).view_delete(prices(), word()).await.expect("deleted");
    let gone = subject.store.view_get("shop", "prices").await;
    assert!(matches!(gone, Err(Error::NotFound { .. })));
    assert!(subject.store.views_list(None, None, 10).await.expect("listed").is_empty());
    assert_eq!(subject.store.job_get(job.token.job).await.expect("there").state, JobState::Cancelled);
    let late = subject.store.build_publish(job.token, publication(start.version)).await.expect("answered");
    assert_eq!(late, Published::Refused(Revoked::Cancelled));
    let again = subject.store.views_touch(vec![touch_of("prices")]).await;
    assert!(matches!(again, Err(Error::NotFound { .. })));

    subject.store.view_define(definition("prices")).await.expect("the name is free");
    assert_eq!((view(subject).await.versions.live, read(subject).await), (0, (0, Vec::new())));
    let mut removed = 0;
    loop {
        let some = control(subject).views_remove_deleted(2).await.expect("removed");
        assert!(some <= 2, "bounded");
        removed += some;
        if some == 0 {
            break;
        }
    }
    assert!(removed >= 6, "three live items, two dead ones, two generations: {removed}");
    assert_eq!(subject.store.views_list(None, None, 10).await.expect("listed").len(), 1);
    subject.assert_sound().await;
}

/// Their makers would look for it in vain.
pub async fn view_that_others_are_made_from_is_not_deleted(subject: &Subject) {
    defined(subject).await;
    subject.store.view_define(definition("stock")).await.expect("defined");
    let stock = ViewName::new("shop", "stock");
    subject.store.chains().view_derive(stock.clone(), vec![prices()]).await.expect("derived");
    let refused = control(subject).view_delete(prices(), word()).await;
    let Err(Error::Conflict(why)) = refused else { panic!("not refused: {refused:?}") };
    assert!(why.contains("shop/stock"), "{why}");
    control(subject).view_delete(stock, word()).await.expect("deleted");
    control(subject).view_delete(prices(), word()).await.expect("deleted");
}

/// And a touch without a word does not stand under another one's name.
pub async fn last_touch_says_who_and_why(subject: &Subject) {
    defined(subject).await;
    let said = Touch { word: Some(word()), ..touch_of("prices") };
    subject.store.views_touch(vec![said.clone()]).await.expect("touched");
    assert_eq!(view(subject).await.touched_by, Some(word()));
    touch(subject).await;
    assert_eq!(view(subject).await.touched_by, None);
    let empty = Touch { word: Some(Word::new("", "x")), ..said };
    assert!(matches!(subject.store.views_touch(vec![empty]).await, Err(Error::Invalid(_))));
}

/// All that is wrong at once, and nothing is stored.
pub async fn view_without_a_proper_name_is_refused(subject: &Subject) {
    let nonsense = crate::NewView {
        namespace: String::new(),
        key: "a\nb".to_owned(),
        handler: "x".repeat(257),
        ..definition("k")
    };
    let refused = subject.store.view_define(nonsense).await;
    let Err(Error::Invalid(why)) = refused else { panic!("not refused: {refused:?}") };
    for part in ["namespace", "key", "handler"] {
        assert!(why.contains(&format!("its {part} must")), "{part}: {why}");
    }
    let split = crate::NewView { namespace: "a/b".to_owned(), ..definition("k") };
    assert!(matches!(subject.store.view_define(split).await, Err(Error::Invalid(_))));
    assert!(subject.store.views_list(None, None, 10).await.expect("listed").is_empty());
}
