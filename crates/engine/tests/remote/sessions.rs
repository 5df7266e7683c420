//! Sessions: whose they are, and which are refused.

use std::time::Duration;

use recache_engine::Error;
use recache_engine::remote::{Call, Claim, LEASE_DEFAULT, NewWorker, Settle, Settled};
use recache_model::ids::JobId;
use recache_model::job::JobState;
use recache_store::NewJob;
use recache_store::conformance::TestDatabase;

use crate::on_both_databases;
use crate::support::quick;
use crate::world::{Worker, done, new_worker, start};

on_both_databases!(session_is_its_workers_own, worker_that_cannot_be_is_refused,);

async fn session_is_its_workers_own(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    engine.submit(NewJob::new("work", "1")).await.unwrap();
    let token = worker.claim(1).await[0].token;
    let call = Call { settle: vec![Settle { token, end: done(1) }], ..Call::default() };
    let stranger = worker.remote.call(worker.opened.session, "not it", call.clone()).await.unwrap_err();
    assert!(matches!(stranger, Error::Store(recache_store::Error::NotFound { .. })), "{stranger}");
    assert_eq!(engine.job(token.job).await.unwrap().state, JobState::Running);
    let unnamed = Call { claim: Some(Claim { max: 1, number: None }), ..Call::default() };
    let error = worker.remote.call(worker.opened.session, &worker.opened.secret, unnamed).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(why) if why.contains("held")));
    let twice = Call { settle: vec![call.settle[0].clone(), call.settle[0].clone()], ..Call::default() };
    let error = worker.remote.call(worker.opened.session, &worker.opened.secret, twice).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(why) if why.contains("twice")));
    assert_eq!(worker.call(call).await.settled, [Settled::Accepted]);
    let only_shop = NewWorker { namespaces: Some(vec!["shop".to_owned()]), ..new_worker(&["work"]) };
    let mut shop = Worker::open(&engine, only_shop).await;
    let foreign = engine.submit(NewJob::new("work", "1")).await.unwrap();
    let own =
        engine.submit(NewJob { namespace: "shop".to_owned(), ..NewJob::new("work", "1") }).await.unwrap();
    let offers = shop.claim(9).await;
    assert_eq!(offers.iter().map(|offer| offer.token.job).collect::<Vec<_>>(), [own]);
    assert_eq!(engine.job(foreign).await.unwrap().attempt, 0);
    engine.shut_down().await;
}

async fn worker_that_cannot_be_is_refused(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let lease = Duration::from_millis(1);
    let bad = NewWorker { lease, slots: 0, queues: Vec::new(), ..new_worker(&["recache.flow"]) };
    let error = engine.remote().open(bad).await.unwrap_err().to_string();
    for part in ["lease", "slots", "queues"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(LEASE_DEFAULT <= Duration::from_secs(3), "with the sweep: jobs of a dead worker run within 5 s");
    let unknown = JobId::make();
    assert!(engine.job(unknown).await.is_err());
    engine.shut_down().await;
}
