//! Claims: jobs find their workers, and answers that were lost are given again.

use std::time::Duration;

use recache_engine::remote::{Call, Claim, Offer, Settle, Settled};
use recache_model::job::JobState;
use recache_store::conformance::TestDatabase;
use recache_store::{LeaseToken, NewJob, Revoked};
use tokio::time::Instant;

use crate::on_both_databases;
use crate::support::{quick, soon};
use crate::world::{Worker, deaf_polls, done, start};

on_both_databases!(
    job_is_done_elsewhere,
    waiting_worker_gets_a_job_at_once,
    one_of_many_waiting_workers_is_woken_for_a_job,
    repeated_call_gets_the_same_answer,
    claim_whose_answer_was_lost_is_answered_again,
    caller_who_hangs_up_costs_no_attempt,
);

async fn job_is_done_elsewhere(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["double"]).await;
    let job = engine.submit(NewJob::new("double", "21")).await.unwrap();
    let other = engine.submit(NewJob::new("other", "21")).await.unwrap();
    let offers = worker.claim(10).await;
    assert_eq!(offers.len(), 1, "only what it can do");
    assert_eq!((offers[0].input.as_str(), offers[0].facts.id), ("21", job.uuid()));
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.wait_for_job(job).await }
    });
    assert_eq!(worker.settle(offers[0].token, done(42)).await, Settled::Accepted);
    let record = soon(waiting).await.unwrap().unwrap();
    assert_eq!((record.state, record.output.as_deref()), (JobState::Completed, Some("42")));
    assert_eq!(engine.job(other).await.unwrap().attempt, 0);
    let find = async || engine.store().remote_workers().remote_find(worker.opened.session).await.unwrap();
    assert!(find().await.is_some());
    assert!(worker.remote.close(worker.opened.session, &worker.opened.secret).await.unwrap());
    assert!(!worker.remote.close(worker.opened.session, &worker.opened.secret).await.unwrap());
    assert_eq!(find().await, None);
    engine.shut_down().await;
}

async fn waiting_worker_gets_a_job_at_once(database: TestDatabase) {
    let engine = start(&database, deaf_polls()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    let waiting = tokio::spawn(async move { worker.claim(1).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    let began = Instant::now();
    let offers = waiting.await.unwrap();
    assert_eq!(offers[0].token.job, job);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    engine.shut_down().await;
}

async fn one_of_many_waiting_workers_is_woken_for_a_job(database: TestDatabase) {
    let engine = start(&database, deaf_polls()).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut worker = Worker::of(&engine, &["work"]).await;
        waiting.push(tokio::spawn(async move { worker.claim(1).await }));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    // One hint for all of them: who took one wakes the next.
    engine.submit_many((0..20).map(|_| NewJob::new("work", "1")).collect()).await.unwrap();
    let mut jobs = Vec::new();
    for waiting in waiting {
        jobs.extend(waiting.await.unwrap().into_iter().map(|offer| offer.token.job));
    }
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!(jobs.len(), 20, "each has one of its own");
    engine.shut_down().await;
}

async fn repeated_call_gets_the_same_answer(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    engine.submit_many((0..3).map(|n| NewJob::new("work", n.to_string())).collect()).await.unwrap();
    let first = worker.claim(1).await;
    let settle = vec![Settle { token: first[0].token, end: done("a") }];
    let call = Call { settle, ..worker.claiming(1, Duration::ZERO, &[]) };
    let answers = [worker.call(call.clone()).await, worker.call(call.clone()).await, worker.call(call).await];
    for answer in &answers {
        assert_eq!(answer.settled, [Settled::Accepted]);
        assert_eq!(answer.jobs.len(), 1);
        assert_eq!(answer.jobs[0].token, answers[0].jobs[0].token, "the same job, under the same token");
    }
    assert_eq!(answers.each_ref().map(|answer| answer.jobs[0].is_again), [false, true, true]);
    let record = engine.job(first[0].token.job).await.unwrap();
    assert_eq!(
        (record.state, record.transitions, record.output.as_deref()),
        (JobState::Completed, 2, Some("\"a\""))
    );
    // With another result too: the first one stands.
    assert_eq!(worker.settle(first[0].token, done("b")).await, Settled::Accepted);
    assert_eq!(engine.job(first[0].token.job).await.unwrap().output.as_deref(), Some("\"a\""));
    let foreign = LeaseToken { epoch: 7, ..first[0].token };
    assert_eq!(worker.settle(foreign, done("c")).await, Settled::Refused(Revoked::Finished));
    engine.shut_down().await;
}

/// Whoever serves the next call: the one that made the claim, or another one.
async fn claim_whose_answer_was_lost_is_answered_again(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let other = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    engine.submit_many((0..4).map(|n| NewJob::new("work", n.to_string())).collect()).await.unwrap();
    let lost = worker.claim(2).await;
    let tokens = |offers: &[Offer]| {
        let mut tokens: Vec<LeaseToken> = offers.iter().map(|offer| offer.token).collect();
        tokens.sort_by_key(|token| token.job);
        tokens
    };
    worker.claims -= 1;
    let again = worker.claim(2).await;
    assert_eq!(tokens(&again), tokens(&lost));
    assert!(again.iter().all(|offer| offer.is_again && offer.facts.attempt == 1));
    worker.claims -= 1;
    let mut elsewhere = worker.at(&other);
    assert_eq!(tokens(&elsewhere.claim(2).await), tokens(&lost));
    // One that has less room now gets the rest later.
    let first = worker.claim(1).await;
    let call = worker.claiming(1, Duration::ZERO, &tokens(&first));
    let second = worker.call(call).await.jobs;
    assert!(second[0].is_again);
    let both = [first[0].clone(), second[0].clone()];
    assert_eq!(tokens(&both), tokens(&lost));
    // What the worker names it has.
    let held = tokens(&lost);
    let call = elsewhere.claiming(9, Duration::ZERO, &held);
    let rest = elsewhere.call(call).await.jobs;
    assert_eq!(rest.len(), 2);
    assert!(rest.iter().all(|offer| !offer.is_again));
    // A worker that counts nothing is answered right, too.
    let claim = Some(Claim { max: 9, number: None });
    let call = Call { claim, held: Some(held), ..Call::default() };
    assert_eq!(tokens(&worker.call(call).await.jobs), tokens(&rest));
    engine.shut_down().await;
    other.shut_down().await;
}

async fn caller_who_hangs_up_costs_no_attempt(database: TestDatabase) {
    let engine = start(&database, deaf_polls()).await;
    let mut gone = Worker::of(&engine, &["work"]).await;
    let call = gone.claiming(1, Duration::from_secs(20), &[]);
    let hung_up = tokio::spawn(async move { gone.call(call).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    hung_up.abort();
    let _ = hung_up.await;
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    let mut worker = Worker::of(&engine, &["work"]).await;
    let offers = worker.claim(1).await;
    assert_eq!((offers[0].token.job, offers[0].facts.attempt), (job, 1));
    engine.shut_down().await;
}
