//! Jobs that are to stop: cancelled, too long, superseded.

use std::time::Duration;

use recache_engine::remote::{End, Settled};
use recache_model::job::{ErrorKind, JobState};
use recache_store::conformance::TestDatabase;
use recache_store::{NewJob, Revoked, StagedItem};
use recache_worker::Stop;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::on_both_databases;
use crate::support::{at_once, quick, retries, touch, until, view};
use crate::world::{Worker, deaf_polls, done, start};

on_both_databases!(
    cancel_reaches_a_waiting_worker_at_once,
    cancel_that_nobody_waited_for_is_told_at_the_next_call,
    attempt_that_runs_too_long_is_ended,
    superseded_build_is_stopped_and_its_successor_keeps_what_stays,
);

async fn cancel_reaches_a_waiting_worker_at_once(database: TestDatabase) {
    let engine = start(&database, deaf_polls()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    let mut waits = Vec::new();
    for _ in 0..20 {
        let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
        let token = worker.claim(1).await[0].token;
        let call = worker.claiming(1, Duration::from_secs(20), &[token]);
        let waiting = {
            let worker = worker.clone();
            tokio::spawn(async move { (worker.call(call).await, Instant::now()) })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        let began = Instant::now();
        engine.cancel_job(job, "no longer wanted").await.unwrap();
        let (answer, at) = waiting.await.unwrap();
        assert_eq!(answer.stops, [(token, Stop::Cancelled)]);
        waits.push(at.duration_since(began));
        assert_eq!(worker.settle(token, done(1)).await, Settled::Refused(Revoked::Cancelled));
        assert_eq!(engine.job(job).await.unwrap().state, JobState::Cancelled);
    }
    waits.sort_unstable();
    eprintln!("cancel to a waiting worker, in the process: p50 {:?}, most {:?}", waits[10], waits[19]);
    assert!(waits[19] < Duration::from_secs(10));
    engine.shut_down().await;
}

async fn cancel_that_nobody_waited_for_is_told_at_the_next_call(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let other = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    let token = worker.claim(1).await[0].token;
    other.cancel_job(job, "no longer wanted").await.unwrap();
    let elsewhere = worker.at(&other);
    assert_eq!(elsewhere.beat(&[token]).await.stops, [(token, Stop::Cancelled)]);
    let told = until("the first engine hears of it", async || {
        let stops = worker.beat(&[token]).await.stops;
        (!stops.is_empty()).then_some(stops)
    });
    assert_eq!(told.await, [(token, Stop::Cancelled)]);
    engine.shut_down().await;
    other.shut_down().await;
}

async fn attempt_that_runs_too_long_is_ended(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    // Long enough for the worker's next call to come before: one that comes after is told that the lease is lost.
    let timeout = Some(Duration::from_secs(1));
    let job = NewJob { timeout, retry: retries(1, 0), ..NewJob::new("work", "1") };
    let job = engine.submit(job).await.unwrap();
    let offer = worker.claim(1).await.remove(0);
    assert_eq!(offer.timeout, timeout);
    let call = worker.claiming(1, Duration::from_secs(20), &[offer.token]);
    let answer = worker.call(call).await;
    assert_eq!(answer.stops, [(offer.token, Stop::Timeout)]);
    let record = engine.job(job).await.unwrap();
    assert_eq!((record.state, record.error.unwrap().kind), (JobState::Failed, ErrorKind::Timeout));
    assert_eq!(worker.settle(offer.token, done(1)).await, Settled::Refused(Revoked::Finished));
    engine.shut_down().await;
}

async fn superseded_build_is_stopped_and_its_successor_keeps_what_stays(database: TestDatabase) {
    let engine = start(&database, deaf_polls()).await;
    let mut worker = Worker::of(&engine, &["build"]).await;
    let (session, secret) = (worker.opened.session, worker.opened.secret.clone());
    engine.define_view(view("prices", "build", at_once())).await.unwrap();
    let item = |key: &str, value: Option<&str>| StagedItem {
        item: key.to_owned(),
        fingerprint: Some(format!("f-{key}")),
        value: value.map(str::to_owned),
    };
    engine.touch(touch("prices", &[])).await.unwrap();
    let first = worker.claim(1).await.remove(0);
    assert!(first.is_build);
    let remote = worker.remote.clone();
    let begun = remote.build_begin(session, &secret, first.token).await.unwrap().unwrap().unwrap();
    assert_eq!(begun.version, 1);
    for _ in 0..2 {
        let items = vec![item("a", Some("1")), item("b", Some("2"))];
        assert_eq!(remote.build_put(session, &secret, first.token, items).await.unwrap(), Some(None));
    }
    let call = worker.claiming(1, Duration::from_secs(20), &[first.token]);
    let waiting = {
        let worker = worker.clone();
        tokio::spawn(async move { worker.call(call).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    engine.touch(touch("prices", &[])).await.unwrap();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.stops, [(first.token, Stop::Superseded)]);
    let late = remote.build_put(session, &secret, first.token, vec![item("z", Some("9"))]).await.unwrap();
    assert_eq!(late, Some(Some(Revoked::Superseded)));
    let end = End::Built { version: 1, kept: Vec::new(), taken_over: 0 };
    assert_eq!(worker.settle(first.token, end).await, Settled::Refused(Revoked::Superseded));

    // What was made is taken over, not made again.
    let second = worker.claim(1).await.remove(0);
    let begun = remote.build_begin(session, &secret, second.token).await.unwrap().unwrap().unwrap();
    assert_eq!((begun.version, begun.staged.len(), begun.live.len()), (2, 2, 0));
    let items = vec![item("a", None), item("b", None), item("c", Some("3"))];
    assert_eq!(remote.build_put(session, &secret, second.token, items).await.unwrap(), Some(None));
    let end = End::Built { version: 2, kept: Vec::new(), taken_over: 2 };
    for _ in 0..2 {
        assert_eq!(worker.settle(second.token, end.clone()).await, Settled::Accepted, "repeated too");
    }
    let output = engine.job(second.token.job).await.unwrap().output.unwrap();
    let output: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(output, json!({ "version": 2, "items": 3, "computed": 1, "reused": 2, "removed": 0 }));

    // Live items that are kept cost no write; what is neither kept nor put is gone.
    engine.touch(touch("prices", &[])).await.unwrap();
    let third = worker.claim(1).await.remove(0);
    let begun = remote.build_begin(session, &secret, third.token).await.unwrap().unwrap().unwrap();
    assert_eq!(begun.live.len(), 3);
    let kept = vec!["a".to_owned(), "c".to_owned()];
    let end = End::Built { version: 3, kept, taken_over: 0 };
    assert_eq!(worker.settle(third.token, end).await, Settled::Accepted);
    let read = engine.store().view_read("n", "prices", None).await.unwrap();
    let items: Vec<_> = read.items.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!((read.version, items), (3, vec![("a", "1"), ("c", "3")]));

    // An end that would lose items by mistake fails instead.
    engine.touch(touch("prices", &[])).await.unwrap();
    let fourth = worker.claim(1).await.remove(0);
    remote.build_begin(session, &secret, fourth.token).await.unwrap().unwrap().unwrap();
    let end = End::Built { version: 4, kept: vec!["nothing".to_owned()], taken_over: 0 };
    assert_eq!(worker.settle(fourth.token, end).await, Settled::Accepted);
    let error = engine.job(fourth.token.job).await.unwrap().error.unwrap();
    assert_eq!(error.code.as_deref(), Some("bad_build"));
    engine.shut_down().await;
}
