//! Engines on one database whose caches, one in each, agree by the epochs in its store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use recache_cache::provider::Moka;
use recache_cache::{Cache, Coherence, Condition, Key, Policy, SystemClock, Usage};
use recache_engine::{Engine, Error, StoreEpochs, template_raise};
use recache_model::ids::WorkflowId;
use recache_model::template::Template;
use recache_store::conformance::TestDatabase;
use recache_store::{Store, TemplateRecord};
use serde_json::json;
use support::{Faulty, LIMIT, quick, soon, store_of, until};
use tokio::time::Instant;

on_both_databases!(
    strict_reader_never_gets_what_another_node_invalidated,
    change_and_raise_in_one_transaction_leave_no_moment_for_an_old_answer,
    eventual_reader_follows_the_hint_long_before_the_beat,
    eventual_reader_follows_within_the_beat_when_hints_are_cut,
    new_template_is_there_on_every_node_at_once,
    default_cache_serves_templates,
    store_that_cannot_be_reached_fails_nobody,
    what_was_invalidated_while_cut_off_is_told_afterwards,
);

/// Longer than any test.
const NEVER: Duration = Duration::from_mins(10);

fn keep() -> Policy {
    Policy::new(NEVER)
}

/// A cache in this process alone; patient, so that a busy machine costs no answer.
fn cache(store: &Arc<dyn Store>, beat: Duration, patience: Duration) -> Cache {
    let clock = Arc::new(SystemClock);
    let moka = Moka::new(1_000, 1 << 20, clock.clone());
    let builder = Cache::builder(Arc::new(moka), clock).beat(beat).lag_max(NEVER).operation_timeout(patience);
    let prefix = recache_cache::KeyPrefix::new("recache");
    builder.epochs(Arc::new(StoreEpochs::new(Arc::clone(store), &prefix))).build()
}

async fn node(store: &Arc<dyn Store>, beat: Duration) -> Engine {
    let cache = cache(store, beat, LIMIT);
    Engine::builder(Arc::clone(store)).options(quick()).cache(cache).start().await.unwrap()
}

async fn close(engines: &[&Engine]) {
    for engine in engines {
        engine.shut_down().await;
    }
    for engine in engines {
        engine.store().close().await;
    }
}

fn strict(engine: &Engine) -> Cache {
    let cache = engine.cache().for_usage(&Usage::user("test", Coherence::Strict));
    assert!(cache.is_on(), "a cache in each process serves strict usages");
    cache
}

fn eventual(engine: &Engine) -> Cache {
    engine.cache().for_usage(&Usage::user("test", Coherence::Eventual))
}

/// Reads through the cache what `truth` says; counts the looks at it.
async fn read(cache: &Cache, key: &Key, truth: &AtomicU64, looks: &AtomicU32) -> u64 {
    let loader = || async {
        looks.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Infallible>(Some(truth.load(Ordering::SeqCst)))
    };
    *soon(cache.get_or_load(key, &keep(), loader)).await.unwrap().unwrap()
}

async fn strict_reader_never_gets_what_another_node_invalidated(database: TestDatabase) {
    const ROUNDS: u32 = 20;
    let (here, there) = (store_of(&database).await, store_of(&database).await);
    let (writer, reader) = (node(&here, NEVER).await, node(&there, NEVER).await);
    let (cache, key) = (strict(&reader), reader.cache().keys().space("s").key(["k"]));
    let (truth, looks) = (AtomicU64::new(0), AtomicU32::new(0));
    assert_eq!(read(&cache, &key, &truth, &looks).await, 0);
    looks.store(0, Ordering::SeqCst);
    for round in 1..=ROUNDS {
        truth.store(u64::from(round), Ordering::SeqCst);
        assert!(writer.cache().invalidate(&key).await.is_confirmed());
        for _ in 0..3 {
            assert_eq!(read(&cache, &key, &truth, &looks).await, u64::from(round));
        }
    }
    // While a beat pays what an invalidation is just paying, one raise is sent twice.
    let looks = looks.load(Ordering::SeqCst);
    assert!((ROUNDS..ROUNDS + 5).contains(&looks), "{looks}: the others were answered by the cache");
    close(&[&writer, &reader]).await;
}

fn template(version: &str) -> Template {
    let source = format!(
        "name: billing\nnamespace: shop\nversion: {version}\nsteps:\n  - name: a\n    handler: {{ callable: echo }}\n"
    );
    Template::parse(&source, "billing.yaml").unwrap()
}

/// Readers on another node look all the time for templates that are just being put.
async fn change_and_raise_in_one_transaction_leave_no_moment_for_an_old_answer(database: TestDatabase) {
    const VERSIONS: u64 = 30;
    let (here, there) = (store_of(&database).await, store_of(&database).await);
    let (writer, reader) = (node(&here, NEVER).await, node(&there, NEVER).await);
    let put = Arc::new(AtomicU64::new(0));
    let mut readers = Vec::new();
    for _ in 0..2 {
        let (reader, put) = (reader.clone(), Arc::clone(&put));
        readers.push(tokio::spawn(async move {
            let (mut before_put, mut reads) = (0_u32, 0_u32);
            loop {
                let is_there = put.load(Ordering::SeqCst);
                let wanted = (is_there + 1).min(VERSIONS);
                match reader.template("shop", "billing", &format!("1.0.{wanted}")).await {
                    Ok(_) => {}
                    Err(Error::Store(recache_store::Error::NotFound { .. })) => before_put += 1,
                    Err(error) => panic!("{error}"),
                }
                if is_there > 0 {
                    let known = reader.template("shop", "billing", &format!("1.0.{is_there}")).await;
                    assert_eq!(known.unwrap().version, format!("1.0.{is_there}"));
                }
                reads += 1;
                if is_there == VERSIONS {
                    return (before_put, reads);
                }
            }
        }));
    }
    for version in 1..=VERSIONS {
        tokio::time::sleep(Duration::from_millis(5)).await;
        writer.put_template(&template(&format!("1.0.{version}"))).await.unwrap();
        put.store(version, Ordering::SeqCst);
    }
    for reader in readers {
        let (before_put, reads) = soon(reader).await.unwrap();
        assert!(before_put > 0 && reads > 1, "{before_put} of {reads}: the answer to be outdated was there");
    }
    close(&[&writer, &reader]).await;
}

async fn eventual_reader_follows_the_hint_long_before_the_beat(database: TestDatabase) {
    let here = store_of(&database).await;
    // Between processes on one SQLite file nobody carries hints: there the engines share their process's store.
    let there = if here.kind() == "sqlite" { Arc::clone(&here) } else { store_of(&database).await };
    let (writer, reader) = (node(&here, NEVER).await, node(&there, NEVER).await);
    let (cache, key) = (eventual(&reader), reader.cache().keys().space("s").key(["k"]));
    let (truth, looks) = (AtomicU64::new(0), AtomicU32::new(0));
    assert_eq!(read(&cache, &key, &truth, &looks).await, 0);
    let mut round = 0;
    // The listening connection may not be there yet: invalidates until it is heard once.
    until("the hint reaches the other node's cache", async || {
        round += 1;
        truth.store(round, Ordering::SeqCst);
        assert!(writer.cache().invalidate(&key).await.is_confirmed());
        tokio::time::sleep(Duration::from_millis(20)).await;
        (read(&cache, &key, &truth, &looks).await > 0).then_some(())
    })
    .await;
    close(&[&writer, &reader]).await;
}

async fn eventual_reader_follows_within_the_beat_when_hints_are_cut(database: TestDatabase) {
    const BEAT: Duration = Duration::from_millis(100);
    let here = store_of(&database).await;
    let there: Arc<dyn Store> = Faulty::deaf(store_of(&database).await);
    let (writer, reader) = (node(&here, NEVER).await, node(&there, BEAT).await);
    let (cache, key) = (eventual(&reader), reader.cache().keys().space("s").key(["k"]));
    let (truth, looks) = (AtomicU64::new(0), AtomicU32::new(0));
    assert_eq!(read(&cache, &key, &truth, &looks).await, 0);
    truth.store(1, Ordering::SeqCst);
    assert!(writer.cache().invalidate(&key).await.is_confirmed());
    let told = Instant::now();
    until("the beat reaches the cache", async || {
        (read(&cache, &key, &truth, &looks).await == 1).then_some(())
    })
    .await;
    // A beat is not slow; this machine may be.
    assert!(told.elapsed() < BEAT * 50, "{:?}", told.elapsed());
    close(&[&writer, &reader]).await;
}

async fn new_template_is_there_on_every_node_at_once(database: TestDatabase) {
    let faulty = Faulty::over(store_of(&database).await);
    let (here, there): (_, Arc<dyn Store>) = (store_of(&database).await, faulty.clone());
    let (writer, reader) = (node(&here, NEVER).await, node(&there, NEVER).await);
    let looks = || faulty.template_looks.load(Ordering::SeqCst);
    let known = template("1.0.0");
    let digest = known.digest().to_string();
    for _ in 0..3 {
        for absent in
            [reader.template("shop", "billing", "1.0.0").await, reader.template_by_digest(&digest).await]
        {
            assert!(matches!(absent, Err(Error::Store(recache_store::Error::NotFound { .. }))));
        }
    }
    assert_eq!(looks(), 2, "that there is none is remembered");
    writer.put_template(&known).await.unwrap();
    for _ in 0..3 {
        let by_name = reader.template("shop", "billing", "1.0.0").await.unwrap();
        assert_eq!((by_name.digest.as_str(), by_name.content.as_str()), (&*digest, known.canonical_json()));
        assert_eq!(reader.template_by_digest(&digest).await.unwrap(), by_name);
    }
    assert_eq!(looks(), 4, "and what it is, too");
    writer.put_template(&known).await.unwrap();
    reader.template("shop", "billing", "1.0.0").await.unwrap();
    assert_eq!(looks(), 4, "what changes nothing outdates nothing");

    let newer = template("1.1.0");
    assert!(reader.template("shop", "billing", "1.1.0").await.is_err());
    writer.submit_workflow(WorkflowId::make(), &newer, &json!({})).await.unwrap();
    assert_eq!(reader.template("shop", "billing", "1.1.0").await.unwrap().version, "1.1.0");

    // Who goes to the store himself says it likewise.
    let record = TemplateRecord {
        digest: "d".to_owned(),
        version: "1.2.0".to_owned(),
        ..TemplateRecord::clone(&*reader.template("shop", "billing", "1.1.0").await.unwrap())
    };
    assert!(reader.template("shop", "billing", "1.2.0").await.is_err());
    let raise = template_raise(reader.cache().keys(), &record);
    here.template_put(record, Some(raise)).await.unwrap();
    assert_eq!(reader.template("shop", "billing", "1.2.0").await.unwrap().digest, "d");
    close(&[&writer, &reader]).await;
}

async fn default_cache_serves_templates(database: TestDatabase) {
    let (here, there) = (store_of(&database).await, store_of(&database).await);
    let writer = Engine::builder(here).options(quick()).start().await.unwrap();
    let reader = Engine::builder(there).options(quick()).start().await.unwrap();
    assert!(reader.cache().for_usage(&Usage::Template).is_on());
    assert!(reader.template("shop", "billing", "1.0.0").await.is_err());
    writer.put_template(&template("1.0.0")).await.unwrap();
    assert_eq!(reader.template("shop", "billing", "1.0.0").await.unwrap().name, "billing");
    until("a template comes out of the cache", async || {
        reader.template("shop", "billing", "1.0.0").await.unwrap();
        (reader.cache().stats().hits > 0).then_some(())
    })
    .await;
    close(&[&writer, &reader]).await;
}

/// Neither one that says so at once nor one that never answers, nor one that is closed.
async fn store_that_cannot_be_reached_fails_nobody(database: TestDatabase) {
    let patience = Duration::from_millis(50);
    let faulty = Faulty::over(store_of(&database).await);
    let store: Arc<dyn Store> = faulty.clone();
    let cache = cache(&store, Duration::from_millis(100), patience);
    let engine = Engine::builder(Arc::clone(&store)).options(quick()).cache(cache).start().await.unwrap();
    engine.put_template(&template("1.0.0")).await.unwrap();
    let (cache, key) = (strict(&engine), engine.cache().keys().space("s").key(["k"]));
    let (truth, looks) = (AtomicU64::new(1), AtomicU32::new(0));
    for switch in [&faulty.epochs_fail, &faulty.epochs_hang] {
        switch.store(true, Ordering::SeqCst);
        let began = Instant::now();
        for value in 2..5 {
            truth.store(value, Ordering::SeqCst);
            assert_eq!(
                read(&cache, &key, &truth, &looks).await,
                value,
                "nothing is known, nothing is served"
            );
        }
        assert!(!cache.invalidate(&key).await.is_confirmed());
        cache.set(&key, 0_u64, &keep()).await;
        assert_eq!(cache.get::<u64>(&key).await, None);
        assert_eq!(engine.template("shop", "billing", "1.0.0").await.unwrap().version, "1.0.0");
        // Eight calls of the cache, each at most four times the patience.
        assert!(began.elapsed() < patience * 32 + Duration::from_secs(5), "{:?}", began.elapsed());
        let health = cache.health().await;
        assert_eq!(health.condition, Condition::Degraded);
        assert!(
            !format!("{:?}", health.reasons).contains("cut off by the test"),
            "the database's words stay out"
        );
        switch.store(false, Ordering::SeqCst);
    }
    until("the cache serves again", async || {
        read(&cache, &key, &truth, &looks).await;
        let before = looks.load(Ordering::SeqCst);
        read(&cache, &key, &truth, &looks).await;
        (looks.load(Ordering::SeqCst) == before).then_some(())
    })
    .await;
    close(&[&engine]).await;
    truth.store(9, Ordering::SeqCst);
    assert_eq!(read(&cache, &key, &truth, &looks).await, 9);
}

async fn what_was_invalidated_while_cut_off_is_told_afterwards(database: TestDatabase) {
    let faulty = Faulty::over(store_of(&database).await);
    let (here, there): (Arc<dyn Store>, _) = (faulty.clone(), store_of(&database).await);
    let (writer, reader) = (node(&here, Duration::from_millis(50)).await, node(&there, NEVER).await);
    let (cache, key) = (strict(&reader), reader.cache().keys().space("s").key(["k"]));
    let (truth, looks) = (AtomicU64::new(0), AtomicU32::new(0));
    assert_eq!(read(&cache, &key, &truth, &looks).await, 0);
    faulty.epochs_fail.store(true, Ordering::SeqCst);
    truth.store(1, Ordering::SeqCst);
    assert!(!writer.cache().invalidate(&key).await.is_confirmed());
    assert_eq!(read(&strict(&writer), &key, &truth, &looks).await, 1);
    assert_eq!(read(&cache, &key, &truth, &looks).await, 0, "nobody could be told");
    faulty.epochs_fail.store(false, Ordering::SeqCst);
    until("what is owed is sent", async || (read(&cache, &key, &truth, &looks).await == 1).then_some(()))
        .await;
    close(&[&writer, &reader]).await;
}
