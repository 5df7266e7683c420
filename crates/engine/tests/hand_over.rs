//! How long it takes until what a dead worker held runs elsewhere, with the settings that everybody has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::ids::SessionId;
use recache_model::retry::{Backoff, RetryPolicy};
use recache_store::conformance::TestDatabase;
use recache_store::{ClaimRequest, NewJob};
use recache_worker::{Context, Handlers};
use support::{soon, store_of, until};
use tokio::task::JoinSet;
use tokio::time::Instant;

on_both_databases!(jobs_of_dead_workers_run_elsewhere_within_the_lease);

/// Workers that die, one after the other, so that looks at fixed times would not happen to fit all of them.
const WORKERS: u32 = 9;
const BETWEEN: Duration = Duration::from_millis(130);
/// What a busy machine adds to the middle one of them: less than looks every half second add on average.
const SLACK: Duration = Duration::from_millis(240);
/// The promise for the last of them.
const AT_MOST: Duration = Duration::from_secs(5);

async fn jobs_of_dead_workers_run_elsewhere_within_the_lease(database: TestDatabase) {
    let store = store_of(&database).await;
    let options = Options::default();
    let lease = options.lease;
    let mut sessions = Vec::new();
    for number in 0..WORKERS {
        let retry = RetryPolicy { attempts_max: 3, backoff: Backoff::None, ..RetryPolicy::once() };
        store.jobs_submit(vec![NewJob { retry, ..NewJob::new("work", number.to_string()) }]).await.unwrap();
        let session = SessionId::make();
        store.session_open(session, "dies", lease).await.unwrap();
        let claim = ClaimRequest {
            session,
            queues: vec!["default".to_owned()],
            handlers: vec!["work".to_owned()],
            rows_max: 1,
        };
        let claimed = store.jobs_dispatch(Vec::new(), Some(claim)).await.unwrap().claimed;
        assert_eq!(claimed.len(), 1);
        sessions.push((number, session));
    }
    let ran: Arc<Mutex<HashMap<u32, Instant>>> = Arc::default();
    let mut handlers = Handlers::new();
    let noting = Arc::clone(&ran);
    handlers
        .job("work", move |_: Context, number: u32| {
            noting.lock().unwrap().insert(number, Instant::now());
            async move { Ok(number) }
        })
        .unwrap();
    let engine =
        Engine::builder(Arc::clone(&store)).options(options).handlers(handlers).start().await.unwrap();
    // They live until the engine has been there for long enough to judge others.
    let first = Instant::now() + lease + Duration::from_millis(600);
    let mut living = JoinSet::new();
    for (number, session) in sessions {
        let (store, dies) = (Arc::clone(&store), first + BETWEEN * number);
        living.spawn(async move {
            loop {
                let sent = Instant::now();
                assert!(store.session_beat(session, lease, Vec::new()).await.unwrap().known);
                if sent >= dies {
                    return (number, sent);
                }
                tokio::time::sleep((dies - sent).min(Duration::from_millis(300))).await;
            }
        });
    }
    let died: HashMap<u32, Instant> = soon(living.join_all()).await.into_iter().collect();
    until("all run elsewhere", async || (ran.lock().unwrap().len() == died.len()).then_some(())).await;
    let ran = ran.lock().unwrap().clone();
    let mut took: Vec<Duration> =
        died.iter().map(|(number, died)| ran[number].duration_since(*died)).collect();
    took.sort_unstable();
    println!("from the last sign of life to the next attempt: {took:?}");
    assert!(took[0] + Duration::from_millis(50) >= lease, "nobody is robbed before his lease ends: {took:?}");
    assert!(took[took.len() / 2] <= lease + SLACK, "{took:?}");
    assert!(took[took.len() - 1] <= AT_MOST, "{took:?}");
    engine.shut_down().await;
    store.close().await;
}
