//! Cases: keys of those who ask, what operators did, requests that may be repeated, jobs that are moved.

use std::time::Duration;

use recache_model::job::JobState;
use uuid::Uuid;

use super::{Subject, work};
use crate::records::{Due, NewJob};
use crate::{AuditFilter, AuditOutcome, Begun, Error, KeptAnswer, NewApiKey, NewAudit, NewRequest, Word};

fn key(id: &str, name: &str) -> NewApiKey {
    NewApiKey {
        id: id.to_owned(),
        name: name.to_owned(),
        salt: [1; 32],
        digest: [2; 32],
        scopes: vec!["jobs:read".to_owned(), "*:*@shop".to_owned()],
        lifetime: None,
        created_by: "ops".to_owned(),
    }
}

/// One live key has a name; a revoked one stays and is good for nothing.
pub async fn api_key_is_kept_used_and_revoked(subject: &Subject) {
    let keys = subject.store.api_keys();
    let kept = keys.api_key_put(key("a1", "deploy")).await.expect("kept");
    assert_eq!(kept, keys.api_key_get("a1").await.expect("there"));
    assert_eq!((kept.salt, kept.digest, kept.scopes.len()), ([1; 32], [2; 32], 2));
    assert!(kept.is_good(subject.store.now().await.expect("answered")) && kept.last_used_at.is_none());
    for again in [key("a2", "deploy"), key("a1", "other")] {
        assert!(matches!(keys.api_key_put(again).await, Err(Error::Conflict(_))));
    }
    subject.advance(Duration::from_secs(60));
    keys.api_key_used("a1").await.expect("noted");
    let now = subject.store.now().await.expect("answered");
    assert_eq!(keys.api_key_get("a1").await.expect("there").last_used_at, Some(now));
    assert!(keys.api_key_revoke("deploy", Word::new("ops", "leaked")).await.expect("revoked"));
    assert!(
        !keys.api_key_revoke("a1", Word::new("ops", "leaked")).await.expect("answered"),
        "it was already"
    );
    let revoked = keys.api_key_get("a1").await.expect("there");
    assert_eq!(revoked.revoked.as_ref().map(|(at, word)| (*at, word.reason.as_str())), Some((now, "leaked")));
    assert!(!revoked.is_good(now));
    keys.api_key_put(key("a2", "deploy")).await.expect("the name is free again");
    assert_eq!(keys.api_keys_list().await.expect("listed").len(), 2);
    assert!(matches!(
        keys.api_key_revoke("nobody", Word::new("ops", "x")).await,
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(keys.api_key_get("nobody").await, Err(Error::NotFound { .. })));
}

/// A lifetime ends by the store's clock.
pub async fn api_key_is_good_until_it_expires(subject: &Subject) {
    let keys = subject.store.api_keys();
    let new = NewApiKey { lifetime: Some(Duration::from_secs(60)), ..key("b1", "short") };
    let kept = keys.api_key_put(new).await.expect("kept");
    assert!(kept.is_good(subject.store.now().await.expect("answered")));
    subject.advance(Duration::from_secs(60));
    assert!(!kept.is_good(subject.store.now().await.expect("answered")));
    let bare = NewApiKey { scopes: Vec::new(), ..key("b2", "bare") };
    assert!(matches!(keys.api_key_put(bare).await, Err(Error::Invalid(_))));
}

/// Begun, then completed; newest first, by filter and page.
pub async fn audit_tells_what_was_done_and_what_was_only_begun(subject: &Subject) {
    let audits = subject.store.audits();
    let row = |namespace: Option<&str>, target: &str| NewAudit {
        id: Uuid::now_v7(),
        word: Word::new("key:deploy", "mended"),
        action: "jobs.retry".to_owned(),
        namespace: namespace.map(str::to_owned),
        target: target.to_owned(),
        request_id: Some("r1".to_owned()),
        before: Some("{\"state\":\"failed\"}".to_owned()),
    };
    let rows = [row(Some("shop"), "job_1"), row(Some("shop"), "job_2"), row(None, "queue mail")];
    for row in &rows {
        audits.audit_begin(row.clone()).await.expect("written");
    }
    audits.audit_end(rows[0].id, AuditOutcome::Done, Some("{}".to_owned())).await.expect("written");
    let list = |filter: AuditFilter| async { audits.audits_list(filter).await.expect("listed") };
    let all = list(AuditFilter { rows_max: 10, ..AuditFilter::default() }).await;
    assert_eq!(
        all.iter().map(|one| one.new.clone()).collect::<Vec<_>>(),
        [rows[2].clone(), rows[1].clone(), rows[0].clone()]
    );
    assert_eq!(all[2].outcome, AuditOutcome::Done);
    assert_eq!(all[1].outcome, AuditOutcome::Begun);
    let shop = AuditFilter { namespace: Some("shop".to_owned()), rows_max: 1, ..AuditFilter::default() };
    let first = list(shop.clone()).await;
    let second = list(AuditFilter { before: Some(first[0].new.id), ..shop }).await;
    assert_eq!((first[0].new.id, second[0].new.id), (rows[1].id, rows[0].id));
    let other = AuditFilter { actor: Some("nobody".to_owned()), rows_max: 9, ..AuditFilter::default() };
    assert!(list(other).await.is_empty());
    // Rows are made by the wall clock; the subject's stands in an earlier year.
    subject.advance(Duration::from_hours(8 * 365 * 24) + crate::audit::AUDIT_KEEP);
    let lead = subject.store.maintenance().leader_take("m", Uuid::now_v7(), Duration::from_secs(60)).await;
    let lead = lead.expect("answered").expect("free");
    assert_eq!(subject.store.maintenance().idempotency_keys_expire(&lead, 2).await.expect("removed"), 2);
    assert_eq!(list(AuditFilter { rows_max: 10, ..AuditFilter::default() }).await.len(), 1);
    let nameless = NewAudit { word: Word::new("", ""), ..row(None, "x") };
    assert!(matches!(audits.audit_begin(nameless).await, Err(Error::Invalid(_))));
}

fn request(key: &str, fingerprint: &str) -> NewRequest {
    NewRequest {
        caller: "key:a".to_owned(),
        key: key.to_owned(),
        fingerprint: fingerprint.to_owned(),
        seed: Uuid::now_v7(),
        hold: Duration::from_secs(10),
    }
}

/// Once taken up, a request is nobody else's; once answered, its answer is given again; seven days later its key is free.
pub async fn request_with_a_key_is_carried_out_once(subject: &Subject) {
    let keys = subject.store.request_keys();
    let first = request("k", "f");
    assert_eq!(keys.request_begin(first.clone()).await.expect("answered"), Begun::Now(first.seed));
    assert_eq!(keys.request_begin(request("k", "f")).await.expect("answered"), Begun::Running);
    assert_eq!(keys.request_begin(request("k", "g")).await.expect("answered"), Begun::Different);
    let other = NewRequest { caller: "key:b".to_owned(), ..request("k", "g") };
    assert_eq!(keys.request_begin(other.clone()).await.expect("answered"), Begun::Now(other.seed));
    let answer = KeptAnswer { status: 201, body: "{}".to_owned(), location: Some("/x".to_owned()) };
    keys.request_end("key:a", "k", first.seed, answer.clone()).await.expect("kept");
    assert_eq!(keys.request_begin(request("k", "f")).await.expect("answered"), Begun::Done(answer));
    assert_eq!(keys.request_begin(request("k", "g")).await.expect("answered"), Begun::Different);
    keys.request_release("key:a", "k", first.seed, true).await.expect("answered");
    assert!(matches!(keys.request_begin(request("k", "f")).await, Ok(Begun::Done(_))), "an answer stays");
    subject.advance(recache_model::unique::IDEMPOTENCY_KEEP);
    let late = request("k", "g");
    assert_eq!(keys.request_begin(late.clone()).await.expect("answered"), Begun::Now(late.seed));
    let lead = subject.store.maintenance().leader_take("m", Uuid::now_v7(), Duration::from_secs(60)).await;
    let lead = lead.expect("answered").expect("free");
    subject.advance(recache_model::unique::IDEMPOTENCY_KEEP);
    let gone = subject.store.maintenance().idempotency_keys_expire(&lead, 10).await.expect("removed");
    assert_eq!(gone, 2);
}

/// Whoever carried it out died: the next one goes on with the same seed.
pub async fn request_of_a_dead_process_is_carried_out_again_with_its_seed(subject: &Subject) {
    let keys = subject.store.request_keys();
    let first = request("k", "f");
    keys.request_begin(first.clone()).await.expect("answered");
    subject.advance(Duration::from_secs(10));
    assert_eq!(keys.request_begin(request("k", "f")).await.expect("answered"), Begun::Now(first.seed));
    assert_eq!(
        keys.request_begin(request("k", "f")).await.expect("answered"),
        Begun::Running,
        "it is held again"
    );
    keys.request_release("key:a", "k", first.seed, false).await.expect("released");
    assert_eq!(keys.request_begin(request("k", "f")).await.expect("answered"), Begun::Now(first.seed));
    keys.request_release("key:a", "k", Uuid::now_v7(), true)
        .await
        .expect("another's release changes nothing");
    assert_eq!(keys.request_begin(request("k", "f")).await.expect("answered"), Begun::Running);
    keys.request_release("key:a", "k", first.seed, true).await.expect("forgotten");
    let anew = request("k", "g");
    assert_eq!(keys.request_begin(anew.clone()).await.expect("answered"), Begun::Now(anew.seed));
}

/// Whoever is at it for long says so, and keeps it to itself.
pub async fn request_that_is_held_again_stays_with_its_process(subject: &Subject) {
    let keys = subject.store.request_keys();
    let first = request("k", "f");
    keys.request_begin(first.clone()).await.expect("answered");
    for _ in 0..5 {
        subject.advance(Duration::from_secs(4));
        let hold = Duration::from_secs(5);
        assert!(keys.request_hold("key:a", "k", first.seed, hold).await.expect("held"));
        assert_eq!(keys.request_begin(request("k", "f")).await.expect("answered"), Begun::Running);
    }
    let hold = Duration::from_secs(60);
    assert!(!keys.request_hold("key:a", "k", Uuid::now_v7(), hold).await.expect("another's"));
    assert!(!keys.request_hold("key:b", "k", first.seed, hold).await.expect("another's"));
    subject.advance(Duration::from_secs(6));
    assert_eq!(keys.request_begin(request("k", "f")).await.expect("answered"), Begun::Now(first.seed));
    let answer = KeptAnswer { status: 200, body: "{}".to_owned(), location: None };
    keys.request_end("key:a", "k", first.seed, answer.clone()).await.expect("kept");
    assert!(!keys.request_hold("key:a", "k", first.seed, hold).await.expect("it is over"));
    assert_eq!(keys.request_begin(request("k", "f")).await.expect("answered"), Begun::Done(answer));
}

/// However many ask at once, one gets it.
pub async fn concurrent_requests_of_one_key_are_one(subject: &Subject) {
    let asked = (0..16).map(|_| subject.store.request_keys().request_begin(request("k", "f")));
    let answers = futures_util::future::join_all(asked).await;
    let now = answers.iter().filter(|answer| matches!(answer, Ok(Begun::Now(_)))).count();
    let running = answers.iter().filter(|answer| matches!(answer, Ok(Begun::Running))).count();
    assert_eq!((now, running), (1, 15), "{answers:?}");
}

/// A queued job's time and order are an operator's to say; nobody else's job is.
pub async fn queued_job_is_moved_in_time_and_order(subject: &Subject) {
    let session = subject.session().await;
    let (early, late) = (work(), NewJob { due: Due::In(Duration::from_secs(60)), ..work() });
    subject.store.jobs_submit(vec![early.clone(), late.clone()]).await.expect("stored");
    let changes = subject.store.job_changes();
    let (before, after) = changes.job_reschedule(late.id, Due::Now).await.expect("moved");
    assert!(before.due_at > after.due_at && after.state == JobState::Queued);
    let (before, after) = changes.job_prioritize(late.id, 5).await.expect("moved");
    assert_eq!((before.priority, after.priority), (0, 5));
    let claimed = subject.claim(session, 10).await;
    assert_eq!(claimed.iter().map(|job| job.token.job).collect::<Vec<_>>(), [late.id, early.id]);
    for refused in [
        changes.job_reschedule(late.id, Due::Now).await.err(),
        changes.job_prioritize(late.id, 1).await.err(),
    ] {
        assert!(matches!(refused, Some(Error::Conflict(_))), "{refused:?}");
    }
    let unknown = work().id;
    assert!(matches!(changes.job_prioritize(unknown, 1).await, Err(Error::NotFound { .. })));
    let keyed =
        NewJob { concurrency_key: Some("k".to_owned()), due: Due::In(Duration::from_secs(60)), ..work() };
    subject.store.jobs_submit(vec![keyed.clone()]).await.expect("stored");
    changes.job_reschedule(keyed.id, Due::Now).await.expect("moved");
    assert_eq!(subject.claim_one(session).await.token.job, keyed.id);
}
