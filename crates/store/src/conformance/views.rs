//! Cases: versions, builds, generations.

use std::time::Duration;

use recache_model::ids::{JobId, SessionId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::retry::RetryPolicy;
use recache_model::time::Timestamp;
use recache_model::view::{OnTouch, ViewPolicy, ViewStatus};
use recache_model::view_options::ViewOptions;

use super::Subject;
use crate::Error;
use crate::records::{
    BuildStart, ClaimedJob, JobFilter, NewView, Outcome, Publication, Published, Revoked, Settled,
    StagedItem, Touch, TouchSource, TouchedItems, ViewRecord,
};
use crate::{GENERATIONS_TOLD_MAX, GenerationsRemoved, ViewName, Word};

pub(super) const QUIET: Duration = Duration::from_secs(1);

pub(super) fn definition(key: &str) -> NewView {
    NewView {
        namespace: "shop".to_owned(),
        key: key.to_owned(),
        handler: "build".to_owned(),
        queue: "default".to_owned(),
        policy: ViewPolicy::default(),
        retry: RetryPolicy { jitter: 0.0, ..RetryPolicy::default() },
        timeout: None,
        rules: recache_model::item_rules::ItemRules::default(),
        options: ViewOptions::default(),
    }
}

pub(super) fn touch_of(key: &str) -> Touch {
    Touch { namespace: "shop".to_owned(), key: key.to_owned(), ..Touch::default() }
}

pub(super) fn item(item: &str, fingerprint: &str, value: &str) -> StagedItem {
    StagedItem {
        item: item.to_owned(),
        fingerprint: Some(fingerprint.to_owned()),
        value: Some(format!("\"{value}\"")),
    }
}

pub(super) fn publication(version: i64) -> Publication {
    Publication { version, output: "{}".to_owned(), ..Publication::default() }
}

pub(super) async fn view(subject: &Subject) -> ViewRecord {
    subject.store.view_get("shop", "prices").await.expect("the view is there")
}

pub(super) async fn touch(subject: &Subject) -> Option<JobId> {
    subject.store.views_touch(vec![touch_of("prices")]).await.expect("touched")[0].superseded
}

/// Touches, waits for the debounce, and begins the build.
pub(super) async fn build(subject: &Subject, session: SessionId) -> (ClaimedJob, BuildStart) {
    touch(subject).await;
    begin(subject, session).await
}

pub(super) async fn begin(subject: &Subject, session: SessionId) -> (ClaimedJob, BuildStart) {
    subject.advance(QUIET);
    assert_eq!(subject.store.views_reconcile(10).await.expect("reconciled").builds.len(), 1);
    let job = subject.claim_one(session).await;
    let start = subject.store.build_begin(job.token).await.expect("answered").expect("the token is good");
    (job, start)
}

pub(super) async fn put(subject: &Subject, job: &ClaimedJob, items: Vec<StagedItem>) {
    assert_eq!(subject.store.build_put(job.token, items).await.expect("answered"), None);
}

pub(super) async fn publish(subject: &Subject, job: &ClaimedJob, publication: Publication) -> u64 {
    match subject.store.build_publish(job.token, publication).await.expect("answered") {
        Published::Live { changed } => changed,
        refused @ Published::Refused(_) => panic!("not published: {refused:?}"),
    }
}

/// One whole build of these items.
pub(super) async fn publish_items(
    subject: &Subject,
    session: SessionId,
    items: &[(&str, &str, &str)],
) -> i64 {
    let (job, start) = build(subject, session).await;
    put(subject, &job, items.iter().map(|(key, fingerprint, value)| item(key, fingerprint, value)).collect())
        .await;
    publish(subject, &job, publication(start.version)).await;
    start.version
}

pub(super) async fn read(subject: &Subject) -> (i64, Vec<(String, String)>) {
    let read = subject.store.view_read("shop", "prices", None).await.expect("read");
    (read.version, read.items)
}

pub(super) fn pairs(items: &[(&str, &str)]) -> Vec<(String, String)> {
    items.iter().map(|(key, value)| ((*key).to_owned(), format!("\"{value}\""))).collect()
}

pub(super) async fn defined(subject: &Subject) -> SessionId {
    subject.store.view_define(definition("prices")).await.expect("defined");
    subject.session().await
}

/// Each touch answers its own version; the build waits for quiet.
pub async fn touch_raises_the_version_and_waits_for_the_debounce(subject: &Subject) {
    defined(subject).await;
    assert_eq!(view(subject).await.versions.status, ViewStatus::Idle);
    let versions: Vec<i64> = subject
        .store
        .views_touch(vec![touch_of("prices"), touch_of("prices")])
        .await
        .expect("touched")
        .iter()
        .map(|outcome| outcome.version)
        .collect();
    assert_eq!(versions, [1, 2]);
    let reconciled = subject.store.views_reconcile(10).await.expect("reconciled");
    assert_eq!((reconciled.builds.len(), reconciled.next_due), (0, Some(QUIET)));
    subject.advance(QUIET);
    let reconciled = subject.store.views_reconcile(10).await.expect("reconciled");
    assert_eq!((reconciled.builds.len(), reconciled.next_due), (1, None));
    assert_eq!(view(subject).await.versions.status, ViewStatus::Pending);
}

/// All or none.
pub async fn unknown_view_is_an_error_and_changes_nothing(subject: &Subject) {
    defined(subject).await;
    let answer = subject.store.views_touch(vec![touch_of("prices"), touch_of("nonsense")]).await;
    assert!(matches!(answer, Err(Error::NotFound { what: "view", .. })), "{answer:?}");
    assert_eq!(view(subject).await.versions.wanted, 0);
    assert!(matches!(subject.store.view_read("shop", "nonsense", None).await, Err(Error::NotFound { .. })));
}

/// No queue fills up with stale requests.
pub async fn touches_of_a_queued_build_make_no_second_one(subject: &Subject) {
    let session = defined(subject).await;
    touch(subject).await;
    subject.advance(QUIET);
    subject.store.views_reconcile(10).await.expect("reconciled");
    for _ in 0..50 {
        assert_eq!(touch(subject).await, None);
        subject.advance(QUIET);
        assert!(subject.store.views_reconcile(10).await.expect("reconciled").builds.is_empty());
    }
    let job = subject.claim_one(session).await;
    let start = subject.store.build_begin(job.token).await.expect("answered").expect("good");
    assert_eq!(start.version, 51, "it takes the newest version when it begins");
}

/// In the transaction of the touch.
pub async fn touch_supersedes_the_running_build_at_once(subject: &Subject) {
    let session = defined(subject).await;
    let (job, _) = build(subject, session).await;
    assert_eq!(touch(subject).await, Some(job.token.job));
    let record = subject.store.job_get(job.token.job).await.expect("there");
    assert_eq!((record.state, record.superseded_by), (JobState::Superseded, Some(2)));
    assert_eq!(subject.store.job_revoked(job.token).await.expect("answered"), Some(Revoked::Superseded));
    let view = view(subject).await;
    assert_eq!((view.versions.processing, view.build), (None, None));
    let (_, start) = begin(subject, session).await;
    assert_eq!(start.version, 2);
}

/// A late writer changes nothing that anybody sees, nor what the next build starts from.
pub async fn late_items_and_publication_of_a_superseded_build_are_refused(subject: &Subject) {
    let session = defined(subject).await;
    publish_items(subject, session, &[("a", "f1", "one")]).await;
    let (late, start) = build(subject, session).await;
    touch(subject).await;
    let store = &subject.store;
    let refused = Some(Revoked::Superseded);
    assert_eq!(store.build_put(late.token, vec![item("a", "f2", "late")]).await.expect("answered"), refused);
    let answer = store.build_publish(late.token, publication(start.version)).await.expect("answered");
    assert_eq!(answer, Published::Refused(Revoked::Superseded));
    assert_eq!(read(subject).await, (1, pairs(&[("a", "one")])));
    let (_, next) = begin(subject, session).await;
    assert!(next.staged.is_empty());
    assert_eq!(store.build_put(late.token, vec![item("a", "f3", "late")]).await.expect("answered"), refused);
    assert_eq!(
        subject.settle(&late, Outcome::Completed { output: "1".to_owned() }).await,
        Settled::Refused(Revoked::Superseded)
    );
}

/// Nothing of it is visible before, all of it after.
pub async fn published_generation_is_what_the_build_put(subject: &Subject) {
    let session = defined(subject).await;
    assert_eq!(read(subject).await, (0, vec![]));
    let (job, start) = build(subject, session).await;
    assert_eq!((start.version, start.live_version, start.touched), (1, 0, TouchedItems::All));
    put(subject, &job, vec![item("b", "f", "two")]).await;
    put(subject, &job, vec![item("a", "f", "one")]).await;
    assert_eq!(read(subject).await, (0, vec![]));
    subject.advance(Duration::from_secs(5));
    let counts = Publication { items_total: 2, items_computed: 2, ..publication(1) };
    assert_eq!(publish(subject, &job, counts).await, 2);
    assert_eq!(read(subject).await, (1, pairs(&[("a", "one"), ("b", "two")])));
    let record = view(subject).await;
    assert_eq!(record.versions.status, ViewStatus::Completed);
    assert_eq!(record.versions.last_build, Some(Duration::from_secs(5)));
    assert_eq!(subject.store.job_get(job.token.job).await.expect("there").state, JobState::Completed);
    let generation = subject.store.generations_list(record.id, 10).await.expect("listed").remove(0);
    assert_eq!((generation.version, generation.job, generation.items_changed), (1, Some(job.token.job), 2));
    let one = subject.store.view_read("shop", "prices", Some(vec!["b".to_owned(), "x".to_owned()])).await;
    assert_eq!(one.expect("read").items, pairs(&[("b", "two")]));
}

/// What did not change is not written again; what was not put is gone.
pub async fn unchanged_items_cost_no_row_and_removed_ones_disappear(subject: &Subject) {
    let session = defined(subject).await;
    publish_items(subject, session, &[("a", "f1", "one"), ("b", "f1", "two"), ("c", "f1", "three")]).await;
    let (job, start) = build(subject, session).await;
    let marks: Vec<&str> = start.live.iter().map(|mark| mark.item.as_str()).collect();
    assert_eq!(marks, ["a", "b", "c"]);
    // `a` is not put because its fingerprint is the same; `b` is computed again to an equal value; `c` is gone.
    put(subject, &job, vec![item("b", "f2", "two")]).await;
    let removed = Publication { removed: vec!["c".to_owned()], ..publication(2) };
    assert_eq!(publish(subject, &job, removed).await, 0, "an equal value is no change");
    assert_eq!(read(subject).await, (2, pairs(&[("a", "one"), ("b", "two")])));
    let (_, start) = build(subject, session).await;
    let fingerprints: Vec<_> = start.live.iter().map(|mark| mark.fingerprint.as_deref()).collect();
    assert_eq!(fingerprints, [Some("f1"), Some("f2")], "the new fingerprint is kept all the same");
}

/// An aborted build's work is not lost.
pub async fn what_a_superseded_build_made_is_offered_to_its_successor(subject: &Subject) {
    let session = defined(subject).await;
    let (job, _) = build(subject, session).await;
    put(subject, &job, vec![item("a", "f1", "one"), item("b", "f1", "two")]).await;
    touch(subject).await;
    let (_, start) = begin(subject, session).await;
    let offered: Vec<_> =
        start.staged.iter().map(|mark| (mark.item.as_str(), mark.fingerprint.as_deref())).collect();
    assert_eq!(offered, [("a", Some("f1")), ("b", Some("f1"))]);
}

/// Only what this build put or took over becomes live.
pub async fn reused_items_are_published_and_forgotten_ones_are_not(subject: &Subject) {
    let session = defined(subject).await;
    let (first, _) = build(subject, session).await;
    put(subject, &first, vec![item("a", "f1", "one"), item("b", "f1", "two")]).await;
    touch(subject).await;
    let (second, start) = begin(subject, session).await;
    let reuse = StagedItem { item: "a".to_owned(), fingerprint: Some("f1".to_owned()), value: None };
    put(subject, &second, vec![reuse, item("c", "f1", "three")]).await;
    let unknown = StagedItem { item: "never".to_owned(), fingerprint: None, value: None };
    assert!(matches!(subject.store.build_put(second.token, vec![unknown]).await, Err(Error::Conflict(_))));
    assert_eq!(publish(subject, &second, publication(start.version)).await, 2);
    assert_eq!(read(subject).await, (2, pairs(&[("a", "one"), ("c", "three")])));
    let (_, start) = build(subject, session).await;
    assert!(start.staged.is_empty(), "publication clears what nobody took");
}

/// A generation stays whole for those who read it, until it is removed; then they are told.
pub async fn readers_stay_on_their_generation_until_it_is_removed(subject: &Subject) {
    let session = defined(subject).await;
    publish_items(subject, session, &[("a", "f1", "one"), ("b", "f1", "two")]).await;
    publish_items(subject, session, &[("a", "f2", "uno")]).await;
    let id = view(subject).await.id;
    let items = || vec!["a".to_owned(), "b".to_owned()];
    let store = &subject.store;
    let old = store.generation_read(id, 1, items()).await.expect("read");
    assert_eq!(old, Some(pairs(&[("a", "one"), ("b", "two")])));
    assert_eq!(store.generation_read(id, 3, items()).await.expect("read"), None, "not yet published");
    let keep = Duration::from_secs(60);
    assert_eq!(store.generations_remove(keep).await.expect("removed").rows, 0);
    assert!(store.generation_read(id, 1, items()).await.expect("read").is_some());
    subject.advance(keep);
    let removed = store.generations_remove(keep).await.expect("removed");
    assert_eq!(removed.rows, 1, "the one row that nobody can see");
    assert_eq!(store.generation_read(id, 1, items()).await.expect("read"), None);
    let live = store.generation_read(id, 2, items()).await.expect("read");
    assert_eq!(live, Some(pairs(&[("a", "uno"), ("b", "two")])));
    assert_eq!(store.generations_remove(keep).await.expect("removed").rows, 0);
}

/// A view that is published for years has no more history than one can look at; what can be read and taken back stays whatever its number.
pub async fn history_of_generations_is_bounded_and_what_is_kept_can_be_taken_back(subject: &Subject) {
    let session = defined(subject).await;
    publish_items(subject, session, &[("a", "f1", "one")]).await;
    publish_items(subject, session, &[("a", "f2", "two")]).await;
    let (store, id) = (&subject.store, view(subject).await.id);
    let name = ViewName::new("shop", "prices");
    let restore = async |version: i64| {
        store.view_control().view_restore(name.clone(), version, Word::new("ann", "again")).await
    };
    let told = async || store.generations_list(id, 10_000).await.expect("listed");
    let count = i64::from(GENERATIONS_TOLD_MAX) + 20;
    while view(subject).await.versions.live < count {
        restore(1).await.expect("kept");
    }
    let keep = Duration::from_secs(60);
    assert_eq!(store.generations_remove(keep).await.expect("removed").rows, 0);
    assert_eq!(told().await.len(), usize::try_from(count).expect("few"), "all of them can be read");
    subject.advance(keep / 2);
    restore(2).await.expect("kept");
    restore(1).await.expect("kept");
    subject.advance(keep / 2);
    let mut rows = 0;
    loop {
        let removed = store.generations_remove(keep).await.expect("removed");
        rows += removed.rows;
        if !removed.is_more {
            break;
        }
    }
    assert!(rows >= 22, "{rows}");
    let left = told().await;
    assert_eq!(left.len(), usize::try_from(GENERATIONS_TOLD_MAX).expect("few"));
    assert_eq!(left.first().map(|newest| newest.version), Some(count + 2), "the newest stay");
    assert!(matches!(restore(count - 1).await, Err(Error::Conflict(_))), "it is told of, and not kept");
    restore(count + 1).await.expect("kept");
    assert_eq!(read(subject).await.1, pairs(&[("a", "two")]));
    assert_eq!(store.generations_remove(keep).await.expect("removed"), GenerationsRemoved::default());
}

/// Stale but served, and visibly so.
pub async fn failed_build_leaves_the_live_version(subject: &Subject) {
    let session = defined(subject).await;
    publish_items(subject, session, &[("a", "f1", "one")]).await;
    let (job, _) = build(subject, session).await;
    put(subject, &job, vec![item("a", "f2", "half")]).await;
    subject.settle(&job, Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no source") }).await;
    let record = view(subject).await;
    assert_eq!(
        (record.versions.status, record.last_error.as_deref()),
        (ViewStatus::Failed, Some("no source"))
    );
    subject.advance(Duration::from_secs(7));
    let found = subject.store.view_read("shop", "prices", None).await.expect("read");
    assert_eq!((found.version, found.wanted, found.items), (1, 2, pairs(&[("a", "one")])));
    assert_eq!(found.staleness, Duration::from_secs(8));
    assert!(subject.store.views_reconcile(10).await.expect("reconciled").builds.is_empty());
    let (_, start) = build(subject, session).await;
    assert_eq!(start.version, 3, "the next touch tries again");
}

/// A dead builder's job runs elsewhere, and what it staged is still offered.
pub async fn lost_build_is_built_again(subject: &Subject) {
    let session = defined(subject).await;
    let (job, _) = build(subject, session).await;
    put(subject, &job, vec![item("a", "f1", "one")]).await;
    subject.advance(Duration::from_secs(60));
    assert_eq!(subject.store.sessions_sweep(10).await.expect("swept").requeued, 1);
    let other = subject.session().await;
    let again = subject.claim_one(other).await;
    let start = subject.store.build_begin(again.token).await.expect("answered").expect("good");
    assert_eq!((start.version, start.staged.len()), (1, 1));
    assert_eq!(
        subject.store.build_put(job.token, vec![item("a", "f9", "late")]).await.expect("answered"),
        Some(Revoked::TakenOver)
    );
    assert_eq!(
        subject.store.build_publish(job.token, publication(1)).await.expect("answered"),
        Published::Refused(Revoked::TakenOver)
    );
    // The second builder puts only `b`: the first one's `a` must not slip into its generation.
    put(subject, &again, vec![item("b", "f1", "two")]).await;
    publish(subject, &again, publication(1)).await;
    assert_eq!(read(subject).await, (1, pairs(&[("b", "two")])));
}

/// An older version may be published while a newer one is wanted; then the newer one is built.
pub async fn policy_finish_publishes_then_builds_again(subject: &Subject) {
    let policy = ViewPolicy { on_touch: OnTouch::Finish, ..ViewPolicy::default() };
    subject.store.view_define(NewView { policy, ..definition("prices") }).await.expect("defined");
    let session = subject.session().await;
    let (job, _) = build(subject, session).await;
    assert_eq!(touch(subject).await, None);
    put(subject, &job, vec![item("a", "f1", "one")]).await;
    publish(subject, &job, publication(1)).await;
    let record = view(subject).await;
    assert_eq!((record.versions.live, record.versions.wanted), (1, 2));
    let (_, start) = begin(subject, session).await;
    assert_eq!(start.version, 2);
}

/// Named items are kept until a generation shows them; a touch without names means all.
pub async fn touched_items_reach_the_build(subject: &Subject) {
    let session = defined(subject).await;
    publish_items(subject, session, &[("a", "f1", "one")]).await;
    let named = |items: &[&str]| Touch {
        items: items.iter().map(|item| (*item).to_owned()).collect(),
        ..touch_of("prices")
    };
    subject.store.views_touch(vec![named(&["b"]), named(&["a", "b"])]).await.expect("touched");
    let (job, start) = begin(subject, session).await;
    assert_eq!(start.touched, TouchedItems::Only(vec!["a".to_owned(), "b".to_owned()]));
    publish(subject, &job, publication(start.version)).await;
    subject.store.views_touch(vec![named(&["c"])]).await.expect("touched");
    let (_, start) = begin(subject, session).await;
    assert_eq!(start.touched, TouchedItems::Only(vec!["c".to_owned()]));
    let (_, start) = build(subject, session).await;
    assert_eq!(start.touched, TouchedItems::All);
}

/// A publication whose answer was lost can be sent again.
pub async fn repeated_publication_gets_the_same_answer(subject: &Subject) {
    let session = defined(subject).await;
    let (job, _) = build(subject, session).await;
    put(subject, &job, vec![item("a", "f1", "one")]).await;
    for _ in 0..2 {
        assert_eq!(publish(subject, &job, publication(1)).await, 1);
    }
    assert_eq!(subject.store.generations_list(view(subject).await.id, 10).await.expect("listed").len(), 1);
    let other = subject.store.build_publish(job.token, publication(2)).await.expect("answered");
    assert_eq!(other, Published::Refused(Revoked::Finished));
}

/// However often and from wherever it is asked for.
pub async fn two_live_builds_of_a_view_cannot_exist(subject: &Subject) {
    defined(subject).await;
    let second = subject.second().await;
    touch(subject).await;
    subject.advance(QUIET);
    let mut asked = Vec::new();
    for n in 0..8 {
        let store = if n % 2 == 0 { subject.store.clone() } else { second.clone() };
        asked.push(tokio::spawn(
            async move { store.views_reconcile(10).await.expect("reconciled").builds.len() },
        ));
    }
    let mut created = 0;
    for answer in asked {
        created += answer.await.expect("no reconciler fails");
    }
    assert_eq!(created, 1);
    let jobs = subject
        .store
        .jobs_list(JobFilter { rows_max: 10, ..JobFilter::default() })
        .await
        .expect("listed")
        .jobs;
    assert_eq!(jobs.len(), 1);
    second.close().await;
}

/// An operator's cancel ends the build, not the view.
pub async fn cancelled_build_is_visible_and_the_view_recovers(subject: &Subject) {
    let session = defined(subject).await;
    let (job, _) = build(subject, session).await;
    subject.store.job_cancel(job.token.job, "maintenance").await.expect("cancelled");
    let record = view(subject).await;
    assert_eq!(record.versions.status, ViewStatus::Failed);
    assert!(record.last_error.is_some_and(|error| error.contains("maintenance")));
    assert!(matches!(subject.store.job_retry(job.token.job).await, Err(Error::Conflict(_))));
    let (_, start) = build(subject, session).await;
    assert_eq!(start.version, 2);
}

/// Changing how a view is built does not forget what it is.
pub async fn redefined_view_keeps_its_versions(subject: &Subject) {
    let session = defined(subject).await;
    publish_items(subject, session, &[("a", "f1", "one")]).await;
    let before = view(subject).await;
    let changed = NewView { handler: "work".to_owned(), ..definition("prices") };
    let after = subject.store.view_define(changed.clone()).await.expect("defined");
    assert_eq!(after.id, before.id);
    let (looked, at) = store_look(subject).await;
    assert_eq!((looked.id, looked.versions), (after.id, after.versions));
    subject.advance(QUIET);
    assert_eq!(store_look(subject).await.1.since(at), QUIET, "with the time of the look");
    assert_eq!((after.versions, after.definition), (before.versions, changed));
}

/// Whether it waits for its first attempt or for another one; by name and by pattern. What has begun goes on as it began.
pub async fn waiting_build_is_made_as_its_view_is_defined_now(subject: &Subject) {
    let store = &subject.store;
    let session = defined(subject).await;
    store.view_patterns().pattern_define(definition("p/*")).await.expect("defined");
    store.views_touch(vec![touch_of("prices"), touch_of("p/1")]).await.expect("touched");
    subject.advance(QUIET);
    assert_eq!(store.views_reconcile(10).await.expect("reconciled").builds.len(), 2);
    let retry = RetryPolicy { attempts_max: 7, base_ms: 4_321, jitter: 0.0, ..RetryPolicy::default() };
    let changed = |key: &str| NewView { retry, timeout: Some(Duration::from_secs(9)), ..definition(key) };
    store.view_define(changed("prices")).await.expect("defined");
    assert_eq!(store.view_patterns().pattern_define(changed("p/*")).await.expect("defined"), 1);
    let claimed = subject.claim(session, 2).await;
    assert_eq!(claimed.len(), 2);
    for job in &claimed {
        assert_eq!((job.retry, job.timeout), (retry, Some(Duration::from_secs(9))));
        let record = store.job_get(job.token.job).await.expect("there");
        assert_eq!((record.attempt, record.attempts_max), (1, 7));
        let outcome = Outcome::Retry { error: failure(), after: Duration::from_secs(5) };
        assert_eq!(subject.settle(job, outcome).await, Settled::Accepted);
    }
    let once = |key: &str| NewView { retry: RetryPolicy::once(), ..definition(key) };
    store.view_define(once("prices")).await.expect("defined");
    store.view_patterns().pattern_define(once("p/*")).await.expect("defined");
    subject.advance(Duration::from_secs(5));
    let again = subject.claim(session, 2).await;
    assert_eq!(again.len(), 2, "the attempt that is queued is made");
    for job in &again {
        assert_eq!((job.retry, job.timeout), (RetryPolicy::once(), None));
        let record = store.job_get(job.token.job).await.expect("there");
        assert_eq!((record.attempt, record.attempts_max), (2, 2));
        store.view_define(changed("prices")).await.expect("defined");
        let running = store.job_get(job.token.job).await.expect("there");
        assert_eq!((running.timeout, running.attempts_max), (None, 2), "what has begun goes on as it began");
    }
}

fn kept(key: &str, ms: Option<u64>) -> NewView {
    let options = ViewOptions { generation_keep_ms: ms, ..ViewOptions::default() };
    NewView { options, ..definition(key) }
}

/// Longer or shorter than everybody else, by name and by pattern; a new definition counts for what is still there.
pub async fn generations_are_kept_as_long_as_their_view_says(subject: &Subject) {
    const DEFAULT: Duration = Duration::from_mins(1);
    let store = &subject.store;
    store.view_define(kept("prices", Some(3_600_000))).await.expect("defined");
    let session = subject.session().await;
    publish_items(subject, session, &[("a", "1", "one")]).await;
    publish_items(subject, session, &[("a", "2", "two")]).await;
    let id = view(subject).await.id;
    let is_kept = async || {
        store.generations_remove(DEFAULT).await.expect("removed");
        store.generation_page(id, 1, None, 9).await.expect("answered").is_some()
    };
    subject.advance(Duration::from_mins(59));
    assert!(is_kept().await, "longer than others");
    store.view_define(kept("prices", Some(7_200_000))).await.expect("defined");
    subject.advance(Duration::from_mins(60));
    assert!(is_kept().await, "the new definition counts for what is there");
    subject.advance(Duration::from_mins(2));
    assert!(!is_kept().await, "it is over");

    store.view_define(kept("prices", None)).await.expect("defined");
    publish_items(subject, session, &[("a", "3", "three")]).await;
    subject.advance(Duration::from_secs(5));
    let second = async || {
        store.generations_remove(DEFAULT).await.expect("removed");
        store.generation_page(id, 2, None, 9).await.expect("answered").is_some()
    };
    assert!(second().await, "as everybody's");
    store.view_define(kept("prices", Some(5_000))).await.expect("defined");
    assert!(!second().await, "shorter than others");
    for wrong in [kept("prices", Some(999)), kept("p/*", Some(2_592_000_001))] {
        let is_pattern = wrong.key.contains('*');
        let refused = if is_pattern {
            store.view_patterns().pattern_define(wrong).await.map(|_| ())
        } else {
            store.view_define(wrong).await.map(|_| ())
        };
        assert!(
            matches!(&refused, Err(Error::Invalid(why)) if why.contains("generation_keep_ms")),
            "{refused:?}"
        );
    }
}

/// Longer than its worker's lease, and for the build alone.
pub async fn build_of_a_silent_worker_is_left_alone_as_long_as_its_view_says(subject: &Subject) {
    let store = &subject.store;
    let options = ViewOptions { lease_ms: Some(60_000), ..ViewOptions::default() };
    store.view_define(NewView { options: options.clone(), ..definition("prices") }).await.expect("defined");
    store.view_patterns().pattern_define(NewView { options, ..definition("p/*") }).await.expect("defined");
    store.view_define(definition("other")).await.expect("defined");
    let session = subject.session().await;
    let touches = ["prices", "p/1", "other"].map(touch_of).to_vec();
    store.views_touch(touches).await.expect("touched");
    subject.advance(QUIET);
    store.views_reconcile(10).await.expect("reconciled");
    let jobs = subject.claim(session, 3).await;
    assert_eq!(jobs.len(), 3);
    for job in &jobs {
        store.build_begin(job.token).await.expect("answered").expect("good");
    }
    let lives = store.session_get(session).await.expect("answered").expect("it is there");
    assert_eq!(
        (lives.node.as_str(), lives.expires_at.since(lives.beat_at)),
        ("test", Duration::from_secs(10))
    );
    assert_eq!(store.session_get(SessionId::make()).await.expect("answered"), None);
    // The session's own lease is 10 s.
    subject.advance(Duration::from_secs(59));
    let swept = store.sessions_sweep(10).await.expect("swept");
    assert_eq!((swept.requeued, swept.failed), (1, 0), "that of the view that says nothing");
    let is_held = async |job: &ClaimedJob| store.job_revoked(job.token).await.expect("answered").is_none();
    let mut held = 0;
    for job in &jobs {
        held += usize::from(is_held(job).await);
    }
    assert_eq!(held, 2);
    // It beats again, and goes on.
    store.session_beat(session, Duration::from_secs(10), Vec::new()).await.expect("beaten");
    subject.advance(Duration::from_secs(59));
    assert_eq!(store.sessions_sweep(10).await.expect("swept").requeued, 0);
    subject.advance(Duration::from_secs(2));
    assert_eq!(store.sessions_sweep(10).await.expect("swept").requeued, 2, "a minute is over");
    let wrong = ViewOptions { lease_ms: Some(0), ..ViewOptions::default() };
    let refused = store.view_define(NewView { options: wrong, ..definition("prices") }).await;
    assert!(matches!(&refused, Err(Error::Invalid(why)) if why.contains("lease_ms")), "{refused:?}");
}

/// A change counts for those that wait; a view by itself is refused.
pub async fn views_of_a_pattern_are_built_so_many_at_once(subject: &Subject) {
    let store = &subject.store;
    let limited = |key: &str, concurrency| {
        let options = ViewOptions { concurrency, ..ViewOptions::default() };
        NewView { options, ..definition(key) }
    };
    let patterns = store.view_patterns();
    patterns.pattern_define(limited("p/*", Some(2))).await.expect("defined");
    let session = subject.session().await;
    let touches = ["p/1", "p/2", "p/3", "p/4", "p/5"].map(touch_of).to_vec();
    store.views_touch(touches).await.expect("touched");
    subject.advance(QUIET);
    assert_eq!(store.views_reconcile(10).await.expect("reconciled").builds.len(), 5);
    let first = subject.claim(session, 9).await;
    assert_eq!(first.len(), 2);
    assert!(subject.claim(session, 9).await.is_empty(), "as many run as may");
    subject.settle(&first[0], Outcome::Failed { error: failure() }).await;
    let second = subject.claim(session, 9).await;
    assert_eq!(second.len(), 1, "one ended, one begins");
    assert_eq!(patterns.pattern_define(limited("p/*", Some(3))).await.expect("defined"), 5);
    assert_eq!(subject.claim(session, 9).await.len(), 1, "three may run now");
    patterns.pattern_define(limited("p/*", None)).await.expect("defined");
    assert_eq!(subject.claim(session, 9).await.len(), 1, "there is no limit any more");
    assert!(store.queues().limits_list().await.expect("listed").is_empty(), "and none is left behind");
    for (wrong, why) in [(limited("v", Some(1)), "of a pattern"), (limited("v", Some(0)), "1 to 1000")] {
        let refused = store.view_define(wrong).await;
        assert!(matches!(&refused, Err(Error::Invalid(text)) if text.contains(why)), "{refused:?}");
    }
    patterns.pattern_define(limited("p/*", Some(1))).await.expect("defined");
    patterns.pattern_delete("shop", "p/*").await.expect("deleted");
    assert!(store.queues().limits_list().await.expect("listed").is_empty());
}

/// Twins: one of each pair is touched together with the others, one by itself. Views that run, that wait, that nobody touched, and one that a pattern makes.
pub async fn many_touches_together_do_what_they_would_one_by_one(subject: &Subject) {
    let store = &subject.store;
    let session = subject.session().await;
    for twin in ["1", "2"] {
        for kind in ["idle", "waits", "runs", "finishes"] {
            let on_touch = if kind == "finishes" { OnTouch::Finish } else { OnTouch::Abort };
            let policy = ViewPolicy { on_touch, ..ViewPolicy::default() };
            let view = NewView { policy, ..definition(&format!("{kind}{twin}")) };
            store.view_define(view).await.expect("defined");
        }
    }
    store.view_patterns().pattern_define(definition("made*")).await.expect("defined");
    for key in ["waits1", "waits2", "runs1", "runs2", "finishes1", "finishes2"] {
        store.views_touch(vec![touch_of(key)]).await.expect("touched");
    }
    subject.advance(QUIET);
    assert_eq!(store.views_reconcile(10).await.expect("reconciled").builds.len(), 6);
    for job in subject.claim(session, 6).await {
        let key = job.input.clone();
        if !key.contains("waits") {
            store.build_begin(job.token).await.expect("answered").expect("good");
        }
    }
    subject.advance(Duration::from_secs(1));
    let word = |reason: &str| Some(Word::new("ada", reason));
    let touches = |twin: &str| -> Vec<Touch> {
        let touch = |kind: &str, items: &[&str]| Touch {
            items: items.iter().map(|item| (*item).to_owned()).collect(),
            ..touch_of(&format!("{kind}{twin}"))
        };
        vec![
            Touch { word: word("first"), ..touch("runs", &["a", "b"]) },
            touch("finishes", &[]),
            touch("idle", &["x", "x"]),
            Touch { word: word("second"), ..touch("runs", &["b", "c"]) },
            Touch { at_once: true, ..touch("waits", &["y"]) },
            touch("made", &["z"]),
            touch("idle", &["x", "w"]),
        ]
    };
    let together = store.views_touch(touches("1")).await.expect("touched");
    let mut alone = Vec::new();
    for touch in touches("2") {
        alone.extend(store.views_touch(vec![touch]).await.expect("touched"));
    }
    assert_eq!(together.len(), alone.len());
    for (one, other) in together.iter().zip(&alone) {
        assert_eq!((one.version, one.superseded.is_some()), (other.version, other.superseded.is_some()));
    }
    assert!(together[0].superseded.is_some() && together[3].superseded.is_none(), "it is ended once");
    for kind in ["idle", "waits", "runs", "finishes", "made"] {
        let one = store.view_get("shop", &format!("{kind}1")).await.expect("there");
        let other = store.view_get("shop", &format!("{kind}2")).await.expect("there");
        assert_eq!(one.versions, other.versions, "{kind}");
        assert_eq!(one.touched_by, other.touched_by, "{kind}");
        assert_eq!(one.build.is_some(), other.build.is_some(), "{kind}");
    }
    // What the builds are told.
    subject.advance(Duration::from_mins(1));
    store.views_reconcile(20).await.expect("reconciled");
    let mut told = std::collections::BTreeMap::new();
    for job in subject.claim(session, 20).await {
        let start = store.build_begin(job.token).await.expect("answered").expect("good");
        told.insert(start.key, (start.version, start.touched));
    }
    for kind in ["idle", "runs", "made"] {
        assert_eq!(told[&format!("{kind}1")], told[&format!("{kind}2")], "{kind}");
    }
    // All or none.
    let before = store.view_get("shop", "idle1").await.expect("there");
    let answer = store.views_touch(vec![touch_of("idle1"), touch_of("nonsense"), touch_of("made9")]).await;
    assert!(matches!(answer, Err(Error::NotFound { what: "view", .. })), "{answer:?}");
    assert_eq!(store.view_get("shop", "idle1").await.expect("there"), before);
    assert!(store.view_get("shop", "made9").await.is_err());
}

fn failure() -> JobError {
    JobError::new(ErrorKind::Retryable, "not now")
}

async fn store_look(subject: &Subject) -> (ViewRecord, Timestamp) {
    subject.store.view_look("shop", "prices").await.expect("looked")
}

/// In order of namespace and key, page by page.
pub async fn views_are_listed_by_page(subject: &Subject) {
    for key in ["c", "a", "b"] {
        subject.store.view_define(definition(key)).await.expect("defined");
    }
    subject
        .store
        .view_define(NewView { namespace: "other".to_owned(), ..definition("z") })
        .await
        .expect("defined");
    let keys = |views: Vec<ViewRecord>| {
        views.into_iter().map(|view| view.definition.key).collect::<Vec<_>>().join(" ")
    };
    let store = &subject.store;
    assert_eq!(keys(store.views_list(None, None, 10).await.expect("listed")), "z a b c");
    assert_eq!(keys(store.views_list(Some("shop"), None, 2).await.expect("listed")), "a b");
    let after = Some(("shop".to_owned(), "b".to_owned()));
    assert_eq!(keys(store.views_list(Some("shop"), after, 2).await.expect("listed")), "c");
}

/// In order, all of one view in one touch, with the items that were named; and the running build is superseded.
pub async fn touches_asked_for_from_sql_are_carried_out(subject: &Subject) {
    subject.store.view_define(definition("prices")).await.expect("defined");
    subject.store.view_define(definition("stock")).await.expect("defined");
    let session = subject.session().await;
    let (job, _) = build(subject, session).await;
    publish(subject, &job, publication(1)).await;
    subject
        .tamper(
            "INSERT INTO touch_requests (namespace, key, items) VALUES ('shop', 'prices', '[\"a\", \"b\"]'), \
             ('shop', 'stock', NULL), ('shop', 'prices', '[\"c\"]')",
        )
        .await;
    assert_eq!(
        subject.store.views_reconcile(10).await.expect("reconciled").builds.len(),
        0,
        "it is too early"
    );
    assert_eq!(view(subject).await.versions.wanted, 2, "two requests, one touch of it");
    assert_eq!(subject.store.view_get("shop", "stock").await.expect("there").versions.wanted, 1);
    subject.advance(QUIET);
    assert_eq!(subject.store.views_reconcile(10).await.expect("reconciled").builds.len(), 2);
    assert_eq!(view(subject).await.touch_source, TouchSource::Sql);
    let mut touched = Vec::new();
    for job in subject.claim(session, 2).await {
        touched.push(subject.store.build_begin(job.token).await.expect("answered").expect("good").touched);
    }
    let named = ["a", "b", "c"].map(str::to_owned).to_vec();
    assert!(touched.contains(&TouchedItems::Only(named)), "{touched:?}");
    assert!(touched.contains(&TouchedItems::All), "{touched:?}");
    let before = view(subject).await.build.expect("a build runs");
    subject.tamper("INSERT INTO touch_requests (namespace, key) VALUES ('shop', 'prices')").await;
    subject.store.views_reconcile(10).await.expect("reconciled");
    assert_eq!(subject.store.job_get(before).await.expect("there").state, JobState::Superseded);
    assert_eq!(view(subject).await.versions.wanted, 3);
    subject.store.views_reconcile(10).await.expect("reconciled");
    assert_eq!(view(subject).await.versions.wanted, 3, "each request once");
}

/// For a view that is not there, or with items that cannot be read.
pub async fn request_that_makes_no_sense_keeps_no_other_waiting(subject: &Subject) {
    subject.store.view_define(definition("prices")).await.expect("defined");
    subject
        .tamper(
            "INSERT INTO touch_requests (namespace, key, items) VALUES ('shop', 'gone', NULL), \
             ('shop', 'prices', 'no list'), ('shop', 'prices', '[\"\"]')",
        )
        .await;
    subject.store.views_reconcile(10).await.expect("reconciled");
    assert_eq!(view(subject).await.versions.wanted, 1);
    let session = subject.session().await;
    let (_, start) = begin(subject, session).await;
    assert_eq!(start.touched, TouchedItems::All, "rather than nothing");
}

/// Whatever is published meanwhile, until that generation is removed.
pub async fn items_are_listed_page_by_page_on_one_generation(subject: &Subject) {
    subject.store.view_define(definition("prices")).await.expect("defined");
    let session = subject.session().await;
    let (job, start) = build(subject, session).await;
    put(subject, &job, ["b", "a", "d", "c"].map(|name| item(name, "1", "old")).to_vec()).await;
    publish(subject, &job, publication(1)).await;
    let store = &subject.store;
    let page = async |after: Option<&str>| {
        store.generation_page(start.view, 1, after.map(str::to_owned), 3).await.expect("answered")
    };
    let old = |names: &[&str]| {
        Some(names.iter().map(|name| ((*name).to_owned(), "\"old\"".to_owned())).collect::<Vec<_>>())
    };
    assert_eq!(page(None).await, old(&["a", "b", "c"]));
    let (job, _) = build(subject, session).await;
    put(subject, &job, vec![item("a", "2", "new"), item("e", "2", "new")]).await;
    publish(subject, &job, publication(2)).await;
    assert_eq!(page(Some("c")).await, old(&["d"]), "it goes on where it began");
    let told = async |version| store.generation_get(start.view, version).await.expect("answered");
    let (first, second) = (told(1).await.expect("told"), told(2).await.expect("told"));
    assert_eq!((first.version, first.replaced_at), (1, Some(second.published_at)));
    assert_eq!((second.job, second.replaced_at), (Some(job.token.job), None));
    assert_eq!(told(3).await, None, "there is none yet");
    assert_eq!(page(Some("d")).await, old(&[]));
    assert_eq!(
        store.generation_page(start.view, 3, None, 3).await.expect("answered"),
        None,
        "there is none yet"
    );
    subject.advance(Duration::from_mins(1));
    store.generations_remove(Duration::from_secs(1)).await.expect("removed");
    assert_eq!(page(None).await, None, "it is no longer kept");
}
