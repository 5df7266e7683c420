//! Cases: paused queues, limits of queues, handlers and concurrency keys, rates.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::SessionId;
use recache_model::limits::{Limit, Rate};

use super::{Subject, work};
use crate::records::{ClaimRequest, ClaimedJob, Dispatched, Due, NewJob, Outcome};
use crate::{Error, LimitScope, Signal, Store, Word};

fn word() -> Word {
    Word::new("ops", "the mail server moves")
}

fn in_queue(queue: &str) -> NewJob {
    NewJob { queue: queue.to_owned(), ..work() }
}

fn keyed(key: &str) -> NewJob {
    NewJob { concurrency_key: Some(key.to_owned()), ..work() }
}

fn running(max: u32) -> Limit {
    Limit { running_max: Some(max), rate: None }
}

async fn limit(subject: &Subject, scope: LimitScope, limit: Limit) {
    subject.store.queues().limit_set(scope, limit, "ops").await.expect("set");
}

async fn submit(subject: &Subject, jobs: Vec<NewJob>) {
    subject.store.jobs_submit(jobs).await.expect("stored");
}

async fn dispatch(store: &dyn Store, session: SessionId, queues: &[&str], rows_max: usize) -> Dispatched {
    let request = ClaimRequest {
        session,
        queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
        handlers: vec!["work".to_owned(), "build".to_owned()],
        rows_max,
    };
    store.jobs_dispatch(Vec::new(), Some(request)).await.expect("answered")
}

async fn finish(subject: &Subject, job: &ClaimedJob) {
    subject.settle(job, Outcome::Completed { output: "1".to_owned() }).await;
}

/// Other queues go on, and what runs goes on.
pub async fn paused_queue_gives_nothing_until_it_is_resumed(subject: &Subject) {
    submit(subject, vec![in_queue("mail"), in_queue("mail"), work()]).await;
    let session = subject.session().await;
    let first = dispatch(&*subject.store, session, &["mail"], 1).await.claimed.remove(0);
    let queues = subject.store.queues();
    queues.queue_pause("mail", None, word()).await.expect("paused");
    let claimed = dispatch(&*subject.store, session, &["mail", "default"], 10).await.claimed;
    assert_eq!(claimed.iter().map(|job| job.queue.as_str()).collect::<Vec<_>>(), ["default"]);
    finish(subject, &first).await;
    let pause = queues.queue_get("mail").await.expect("read").pause.expect("paused");
    assert_eq!((pause.word, pause.until), (word(), None));
    // Jobs with a key and jobs under a limit are paused too.
    submit(subject, vec![NewJob { concurrency_key: Some("k".to_owned()), ..in_queue("mail") }]).await;
    limit(subject, LimitScope::Queue("mail".to_owned()), running(5)).await;
    assert_eq!(dispatch(&*subject.store, session, &["mail"], 10).await.claimed.len(), 0);
    let mut hints = subject.store.subscribe();
    assert!(queues.queue_resume("mail").await.expect("resumed"));
    assert_eq!(hints.recv().await.expect("heard"), Signal::Queued("mail".to_owned()));
    assert!(!queues.queue_resume("mail").await.expect("answered"), "it was not paused any more");
    assert_eq!(dispatch(&*subject.store, session, &["mail"], 10).await.claimed.len(), 2);
}

/// By the store's clock.
pub async fn pause_ends_by_itself_at_its_time(subject: &Subject) {
    submit(subject, vec![work()]).await;
    let session = subject.session().await;
    let until = Some(Due::In(Duration::from_secs(5)));
    subject.store.queues().queue_pause("default", until, word()).await.expect("paused");
    subject.advance(Duration::from_secs(4));
    assert_eq!(subject.claim(session, 1).await.len(), 0);
    subject.advance(Duration::from_secs(1));
    assert_eq!(subject.store.queues().queue_get("default").await.expect("read").pause, None);
    assert_eq!(subject.claim(session, 1).await.len(), 1);
}

/// Every reason is named.
pub async fn pause_needs_a_word_and_an_end_in_the_future(subject: &Subject) {
    let queues = subject.store.queues();
    let Err(Error::Invalid(message)) = queues.queue_pause("q", None, Word::new("", "")).await else {
        panic!("refused")
    };
    assert!(message.contains("actor") && message.contains("reason"), "{message}");
    let past = Some(Due::In(Duration::ZERO));
    assert!(matches!(queues.queue_pause("q", past, word()).await, Err(Error::Invalid(_))));
    assert!(matches!(queues.queue_pause("", None, word()).await, Err(Error::Invalid(_))));
    assert!(queues.queues_list().await.expect("listed").is_empty());
}

/// However large the claim; and whoever ends makes room for one.
pub async fn queue_gives_no_more_than_may_run_at_once(subject: &Subject) {
    limit(subject, LimitScope::Queue("default".to_owned()), running(3)).await;
    submit(subject, (0..10).map(|_| work()).collect()).await;
    let session = subject.session().await;
    let claimed = subject.claim(session, 10).await;
    assert_eq!(claimed.len(), 3);
    assert_eq!(subject.claim(session, 10).await.len(), 0);
    let mut hints = subject.store.subscribe();
    finish(subject, &claimed[0]).await;
    assert_eq!(
        hints.recv().await.expect("heard"),
        Signal::Queued("default".to_owned()),
        "others wait for its end"
    );
    assert_eq!(subject.claim(session, 10).await.len(), 1);
    // A limit that is lowered takes nothing away, one that is raised or gone holds at once.
    limit(subject, LimitScope::Queue("default".to_owned()), running(1)).await;
    finish(subject, &claimed[1]).await;
    assert_eq!(subject.claim(session, 10).await.len(), 0);
    limit(subject, LimitScope::Queue("default".to_owned()), Limit::default()).await;
    assert_eq!(subject.claim(session, 10).await.len(), 6);
}

/// In whatever queue; other handlers are stepped over to.
pub async fn handler_gives_no_more_than_may_run_at_once(subject: &Subject) {
    limit(subject, LimitScope::Handler("work".to_owned()), running(2)).await;
    let mut jobs: Vec<NewJob> =
        (0..4).map(|n| NewJob { priority: 9, ..in_queue(["a", "b"][n % 2]) }).collect();
    jobs.extend((0..3).map(|_| NewJob { handler: "build".to_owned(), ..in_queue("a") }));
    submit(subject, jobs).await;
    let session = subject.session().await;
    let claimed = dispatch(&*subject.store, session, &["a", "b"], 10).await.claimed;
    let handlers: Vec<&str> = claimed.iter().map(|job| job.handler.as_str()).collect();
    assert_eq!(handlers, ["work", "work", "build", "build", "build"]);
    assert_eq!(dispatch(&*subject.store, session, &["a", "b"], 10).await.claimed.len(), 0);
}

/// The most urgent one; the same key of another namespace is another key.
pub async fn one_job_of_a_concurrency_key_runs_at_a_time(subject: &Subject) {
    let elsewhere = NewJob { namespace: "other".to_owned(), ..keyed("a") };
    let urgent = NewJob { priority: 5, ..keyed("a") };
    submit(subject, vec![keyed("a"), urgent.clone(), keyed("b"), keyed("b"), elsewhere, work()]).await;
    let session = subject.session().await;
    let claimed = subject.claim(session, 10).await;
    assert_eq!(claimed.len(), 4);
    assert_eq!(claimed[0].token.job, urgent.id);
    assert_eq!(subject.store.job_get(urgent.id).await.expect("there").concurrency_key.as_deref(), Some("a"));
    assert_eq!(subject.claim(session, 10).await.len(), 0);
    finish(subject, &claimed[0]).await;
    let next = subject.claim(session, 10).await;
    assert_eq!(next.len(), 1);
    // One that waits for its next attempt holds no slot.
    let error = recache_model::job::JobError::new(recache_model::job::ErrorKind::Retryable, "no");
    let later = NewJob { priority: 1, ..keyed("a") };
    submit(subject, vec![later.clone()]).await;
    subject.settle(&next[0], Outcome::Retry { error, after: Duration::from_hours(1) }).await;
    assert_eq!(subject.claim(session, 10).await[0].token.job, later.id);
}

/// Where somebody says so.
pub async fn concurrency_key_may_be_allowed_more(subject: &Subject) {
    let scope = LimitScope::Key { namespace: "default".to_owned(), key: "a".to_owned() };
    limit(subject, scope, running(3)).await;
    submit(subject, (0..5).flat_map(|_| [keyed("a"), keyed("b")]).collect()).await;
    let session = subject.session().await;
    assert_eq!(subject.claim(session, 10).await.len(), 4);
    assert_eq!(subject.claim(session, 10).await.len(), 0);
}

/// Nor does it cost them anything: what may not begin is not looked at one by one.
pub async fn backlog_of_one_key_does_not_hide_the_others(subject: &Subject) {
    let mut jobs: Vec<NewJob> = (0..1_500).map(|_| NewJob { priority: 9, ..keyed("hot") }).collect();
    jobs.extend((0..250).map(|n| keyed(&format!("cold-{n:03}"))));
    submit(subject, jobs).await;
    let session = subject.session().await;
    let mut seen = HashSet::new();
    for _ in 0..5 {
        for job in subject.claim(session, 100).await {
            let record = subject.store.job_get(job.token.job).await.expect("there");
            assert!(seen.insert(record.concurrency_key.expect("a key")), "two of one key run at once");
        }
    }
    assert_eq!(seen.len(), 251, "every key had its turn");
}

/// And the answer says when to look again.
pub async fn rate_holds_over_any_stretch_of_time(subject: &Subject) {
    let rate = Rate { starts_max: 4, period: Duration::from_secs(60) };
    limit(subject, LimitScope::Queue("default".to_owned()), Limit { running_max: None, rate: Some(rate) })
        .await;
    submit(subject, (0..20).map(|_| work()).collect()).await;
    let session = subject.session().await;
    assert_eq!(subject.claim(session, 3).await.len(), 3);
    subject.advance(Duration::from_secs(30));
    assert_eq!(subject.claim(session, 10).await.len(), 1);
    let waits = dispatch(&*subject.store, session, &["default"], 10).await;
    assert_eq!((waits.claimed.len(), waits.look_again), (0, Some(Duration::from_secs(30))));
    subject.advance(Duration::from_secs(30));
    assert_eq!(subject.claim(session, 10).await.len(), 3);
    subject.advance(Duration::from_secs(29));
    assert_eq!(subject.claim(session, 10).await.len(), 0);
    subject.advance(Duration::from_secs(1));
    assert_eq!(subject.claim(session, 10).await.len(), 1);
}

/// When the sweep has taken away what it held.
pub async fn slot_of_a_dead_worker_is_free_again(subject: &Subject) {
    limit(subject, LimitScope::Queue("default".to_owned()), running(1)).await;
    submit(subject, vec![work(), keyed("k"), keyed("k")]).await;
    let dead = subject.session().await;
    assert_eq!(subject.claim(dead, 10).await.len(), 1);
    subject.advance(Duration::from_secs(11));
    let session = subject.session().await;
    assert_eq!(
        subject.claim(session, 10).await.len(),
        0,
        "its lease has passed, but nobody has taken it away"
    );
    subject.store.sessions_sweep(10).await.expect("swept");
    assert_eq!(subject.claim(session, 10).await.len(), 1);
}

/// From two processes at once: queue, handler, keys and a rate.
pub async fn concurrent_claims_keep_every_limit(subject: &Subject) {
    limit(subject, LimitScope::Queue("few".to_owned()), running(3)).await;
    let rate = Some(Rate { starts_max: 7, period: Duration::from_secs(60) });
    limit(subject, LimitScope::Queue("slow".to_owned()), Limit { running_max: None, rate }).await;
    let mut jobs: Vec<NewJob> = (0..30).flat_map(|_| [in_queue("few"), in_queue("slow")]).collect();
    jobs.extend((0..60).map(|n| keyed(&format!("key-{}", n % 6))));
    jobs.extend((0..20).map(|_| in_queue("free")));
    submit(subject, jobs).await;
    let second = subject.second().await;
    let mut claimers = Vec::new();
    for n in 0..8 {
        let store: Arc<dyn Store> = if n % 2 == 0 { Arc::clone(&subject.store) } else { Arc::clone(&second) };
        let session = subject.session().await;
        claimers.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            for _ in 0..4 {
                let queues = ["few", "slow", "default", "free"];
                mine.extend(dispatch(&*store, session, &queues, 5).await.claimed);
            }
            mine
        }));
    }
    let (mut ids, mut queues) = (HashSet::new(), HashMap::new());
    for claimer in claimers {
        for job in claimer.await.expect("no claimer fails") {
            assert!(ids.insert(job.token.job), "given twice");
            *queues.entry(job.queue).or_insert(0) += 1;
        }
    }
    let expected = [("few", 3), ("slow", 7), ("default", 6), ("free", 20)];
    assert_eq!(queues, expected.map(|(queue, count)| (queue.to_owned(), count)).into());
    second.close().await;
}

/// From two processes at once, where no limit's row makes them wait for each other.
pub async fn concurrent_claims_run_one_job_of_a_key(subject: &Subject) {
    submit(subject, (0..90).map(|n| keyed(&format!("key-{}", n % 3))).collect()).await;
    let second = subject.second().await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(subject.session().await);
    }
    for round in 0..15 {
        let mut claimers = Vec::new();
        for (n, session) in sessions.iter().enumerate() {
            let store: Arc<dyn Store> =
                if n % 2 == 0 { Arc::clone(&subject.store) } else { Arc::clone(&second) };
            let session = *session;
            claimers
                .push(tokio::spawn(async move { dispatch(&*store, session, &["default"], 5).await.claimed }));
        }
        let mut claimed = Vec::new();
        for claimer in claimers {
            claimed.extend(claimer.await.expect("no claimer fails"));
        }
        assert_eq!(claimed.len(), 3, "round {round}: one of each key");
        for job in &claimed {
            finish(subject, job).await;
        }
    }
    second.close().await;
}

/// Priority, then due time, then id, whether limits concern a job or not.
pub async fn limits_leave_other_work_in_order(subject: &Subject) {
    limit(subject, LimitScope::Queue("limited".to_owned()), running(100)).await;
    let priorities = [3, 9, 1, 7, 5, 8, 2, 6, 4];
    let jobs = priorities.iter().enumerate().map(|(n, priority)| {
        let job = match n % 3 {
            0 => work(),
            1 => in_queue("limited"),
            _ => keyed(&format!("key-{n}")),
        };
        NewJob { priority: *priority, ..job }
    });
    submit(subject, jobs.collect()).await;
    let session = subject.session().await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        for job in dispatch(&*subject.store, session, &["default", "limited"], 4).await.claimed {
            seen.push(subject.store.job_get(job.token.job).await.expect("there").priority);
        }
    }
    assert_eq!(seen, [9, 8, 7, 6, 5, 4, 3, 2, 1]);
}

/// By name, with what is in them.
pub async fn queues_and_limits_are_listed(subject: &Subject) {
    let queues = subject.store.queues();
    submit(
        subject,
        vec![
            work(),
            keyed("k"),
            in_queue("mail"),
            NewJob { due: Due::In(Duration::from_secs(9)), ..in_queue("later") },
        ],
    )
    .await;
    queues.queue_pause("idle", None, word()).await.expect("paused");
    limit(subject, LimitScope::Queue("mail".to_owned()), running(2)).await;
    let key = LimitScope::Key { namespace: "n".to_owned(), key: "k".to_owned() };
    limit(subject, key.clone(), running(2)).await;
    limit(subject, LimitScope::Handler("work".to_owned()), running(7)).await;
    let session = subject.session().await;
    assert_eq!(dispatch(&*subject.store, session, &["mail"], 1).await.claimed.len(), 1);
    subject.advance(Duration::from_secs(2));
    let listed = queues.queues_list().await.expect("listed");
    let rows: Vec<_> = listed
        .iter()
        .map(|queue| {
            (
                queue.name.as_str(),
                queue.queued,
                queue.running,
                queue.pause.is_some(),
                queue.due_since.is_some(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("default", 2, 0, false, true),
            ("idle", 0, 0, true, false),
            ("later", 1, 0, false, false),
            ("mail", 0, 1, false, false)
        ]
    );
    assert_eq!(listed[3].limit, running(2));
    let limits = queues.limits_list().await.expect("listed");
    let scopes: Vec<_> = limits.iter().map(|limit| limit.scope.clone()).collect();
    let queue = LimitScope::Queue("mail".to_owned());
    assert_eq!(scopes, [queue, LimitScope::Handler("work".to_owned()), key]);
    assert_eq!((limits[1].limit, limits[1].actor.as_str()), (running(7), "ops"));
}

/// And nothing is kept.
pub async fn limit_that_cannot_be_is_refused(subject: &Subject) {
    let queues = subject.store.queues();
    let rate = Some(Rate { starts_max: 0, period: Duration::ZERO });
    let never = Limit { running_max: Some(1), rate };
    for scope in [LimitScope::Queue(String::new()), LimitScope::Handler("h".to_owned())] {
        assert!(matches!(queues.limit_set(scope, never, "ops").await, Err(Error::Invalid(_))));
    }
    let rate = Some(Rate { starts_max: 1, period: Duration::from_secs(1) });
    let key = LimitScope::Key { namespace: "n".to_owned(), key: "k".to_owned() };
    let refused = queues.limit_set(key, Limit { running_max: None, rate }, "ops").await;
    assert!(matches!(&refused, Err(Error::Invalid(message)) if message.contains("no rate")), "{refused:?}");
    let nobody = queues.limit_set(LimitScope::Queue("q".to_owned()), running(1), "").await;
    assert!(matches!(nobody, Err(Error::Invalid(_))));
    assert!(queues.limits_list().await.expect("listed").is_empty());
}
