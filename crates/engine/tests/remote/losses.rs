//! Workers, engines and answers that are lost.

use std::sync::Arc;
use std::time::Duration;

use recache_engine::remote::{Call, End, NewWorker, Report, Settle, Settled};
use recache_engine::{Error, Options};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_store::conformance::TestDatabase;
use recache_store::{LeaseToken, NewJob, Revoked};
use recache_worker::Stop;
use tokio::time::Instant;

use crate::on_both_databases;
use crate::support::{quick, retries, until};
use crate::world::{Worker, deaf_polls, done, new_worker, start};

on_both_databases!(
    answers_lost_for_longer_than_the_lease_cost_no_attempt,
    worker_that_is_heard_and_hears_nothing_keeps_no_job_from_others,
    late_word_of_a_silent_worker_changes_nothing,
    job_that_a_worker_forgot_runs_again,
    another_engine_serves_the_same_worker,
    engine_that_goes_away_gives_no_more,
);

/// What a worker never had it cannot have lost.
async fn answers_lost_for_longer_than_the_lease_cost_no_attempt(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    // Long beside what a busy machine may add to one call.
    let lease = Duration::from_secs(4);
    let mut worker = Worker::open(&engine, NewWorker { lease, ..new_worker(&["work"]) }).await;
    engine.submit(NewJob::new("work", "1")).await.unwrap();
    let token = until("it is claimed", async || Some(worker.claim(1).await.first()?.token)).await;
    let began = Instant::now();
    while began.elapsed() < lease.mul_f64(1.25) {
        worker.claims -= 1;
        let again = worker.claim(1).await;
        let tokens: Vec<LeaseToken> = again.iter().map(|offer| offer.token).collect();
        assert_eq!(tokens, [token], "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(worker.settle(token, done(1)).await, Settled::Accepted);
    let record = engine.job(token.job).await.unwrap();
    assert_eq!((record.state, record.attempt, record.transitions), (JobState::Completed, 1, 2));
    engine.shut_down().await;
}

/// Its network works one way only: what it claims must not wait as long as it lives, and was never tried.
async fn worker_that_is_heard_and_hears_nothing_keeps_no_job_from_others(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let lease = Duration::from_millis(500);
    let mut deaf = Worker::open(&engine, NewWorker { lease, ..new_worker(&["work"]) }).await;
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    let lost = deaf.claim(1).await[0].token;
    let mut other = Worker::of(&engine, &["work"]).await;
    let having = tokio::spawn(async move {
        let offers = other.claim(1).await;
        (other, offers)
    });
    until("another one has it", async || {
        deaf.claims -= 1;
        let call = deaf.claiming(1, Duration::ZERO, &[]);
        assert!(deaf.call(call).await.is_alive, "it is heard of");
        tokio::time::sleep(Duration::from_millis(50)).await;
        having.is_finished().then_some(())
    })
    .await;
    let (other, offers) = having.await.unwrap();
    assert_eq!((offers[0].token.job, offers[0].facts.attempt), (job, 1), "nobody tried it before");
    assert_eq!(deaf.settle(lost, done("late")).await, Settled::Refused(Revoked::TakenOver));
    assert_eq!(other.settle(offers[0].token, done(1)).await, Settled::Accepted);
    engine.shut_down().await;
}

async fn late_word_of_a_silent_worker_changes_nothing(database: TestDatabase) {
    let engine = start(&database, Options { lease: Duration::from_secs(1), ..quick() }).await;
    let lease = Duration::from_millis(500);
    let mut silent = Worker::open(&engine, NewWorker { lease, ..new_worker(&["work"]) }).await;
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    let token = silent.claim(1).await[0].token;
    let mut other = Worker::of(&engine, &["work"]).await;
    let again = other.claim(1).await;
    assert_eq!((again[0].token.job, again[0].facts.attempt), (job, 2));
    let report = Report {
        token,
        progress: Some((0.5, Some("late".to_owned()))),
        log: Some((1, vec!["late".to_owned()])),
        checkpoint: Some("1".to_owned()),
    };
    let settle = vec![Settle { token, end: done("late") }];
    let late = Call { settle, reports: vec![report], ..silent.claiming(1, Duration::ZERO, &[]) };
    let answer = silent.call(late).await;
    assert!(!answer.is_alive, "its session has ended");
    assert_eq!(answer.settled, [Settled::Refused(Revoked::TakenOver)]);
    assert_eq!(answer.jobs.len(), 0);
    let record = engine.job(job).await.unwrap();
    assert_eq!((record.state, record.message, record.progress), (JobState::Running, None, None));
    assert_eq!(engine.store().attempts().log_read(job, 10).await.unwrap(), []);
    assert_eq!(other.settle(again[0].token, done("good")).await, Settled::Accepted);
    assert_eq!(silent.settle(token, done("late")).await, Settled::Refused(Revoked::Finished));
    assert_eq!(other.settle(again[0].token, done("good")).await, Settled::Accepted);
    assert_eq!(engine.job(job).await.unwrap().output.as_deref(), Some("\"good\""));
    engine.shut_down().await;
}

/// However it came to lose it: a job that its worker does not name is in no state that nothing looks at.
async fn job_that_a_worker_forgot_runs_again(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let lease = Duration::from_millis(500);
    let mut forgetful = Worker::open(&engine, NewWorker { lease, ..new_worker(&["work"]) }).await;
    let job = engine.submit(NewJob { retry: retries(3, 0), ..NewJob::new("work", "1") }).await.unwrap();
    let token = forgetful.claim(1).await[0].token;
    let record = until("it is taken away", async || {
        assert!(forgetful.beat(&[]).await.is_alive);
        let record = engine.job(job).await.unwrap();
        (record.state == JobState::Queued).then_some(record)
    })
    .await;
    assert_eq!(record.error.unwrap().kind, ErrorKind::LeaseLost);
    assert_eq!(forgetful.settle(token, done(1)).await, Settled::Refused(Revoked::TakenOver));
    engine.shut_down().await;
}

/// As after the death of the first one: what is needed is in the store.
async fn another_engine_serves_the_same_worker(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let other = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    let timed = NewJob { timeout: Some(Duration::from_mins(1)), ..NewJob::new("work", "1") };
    let job = engine.submit(timed).await.unwrap();
    let token = worker.claim(1).await[0].token;
    let mut elsewhere = worker.at(&other);
    assert!(elsewhere.beat(&[token]).await.is_alive);
    // It is told there, too.
    let call = elsewhere.claiming(1, Duration::from_secs(20), &[token]);
    let waiting = {
        let elsewhere = elsewhere.clone();
        tokio::spawn(async move { elsewhere.call(call).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    other.cancel_job(job, "no").await.unwrap();
    assert_eq!(waiting.await.unwrap().stops, [(token, Stop::Cancelled)]);
    let second = engine.submit(NewJob { retry: retries(3, 0), ..NewJob::new("work", "2") }).await.unwrap();
    let token = elsewhere.claim(1).await[0].token;
    let error = JobError::new(ErrorKind::Retryable, "not yet");
    assert_eq!(worker.settle(token, End::Failed(error)).await, Settled::Accepted);
    let again = elsewhere.claim(1).await;
    assert_eq!((again[0].token.job, again[0].facts.attempt), (second, 2), "the policy is the job's");
    engine.shut_down().await;
    other.shut_down().await;
}

async fn engine_that_goes_away_gives_no_more(database: TestDatabase) {
    let engine = start(&database, deaf_polls()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    let token = worker.claim(1).await[0].token;
    let call = worker.claiming(1, Duration::from_secs(20), &[token]);
    let waiting = {
        let worker = worker.clone();
        tokio::spawn(async move { worker.call(call).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    let store = Arc::clone(engine.store());
    engine.remote().retire();
    let answer = waiting.await.unwrap();
    assert!(answer.is_alive && answer.is_draining, "{answer:?}");
    assert_eq!(worker.settle(token, done(1)).await, Settled::Accepted, "what ended is taken to the last");
    assert_eq!(store.job_get(job).await.unwrap().state, JobState::Completed);
    let next = engine.submit(NewJob::new("work", "1")).await.unwrap();
    let call = worker.claiming(1, Duration::from_secs(20), &[]);
    assert_eq!(worker.call(call).await.jobs.len(), 0);
    assert_eq!(store.job_get(next).await.unwrap().state, JobState::Queued);
    assert!(matches!(engine.remote().open(new_worker(&["work"])).await, Err(Error::ShuttingDown)));
    engine.shut_down().await;
    assert_eq!(worker.settle(token, done(1)).await, Settled::Accepted, "and answered after that");
    store.close().await;
}
