//! The suite over PostgreSQL, and what only PostgreSQL offers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test says what it expects")]

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::job::JobState;
use recache_model::retry::RetryPolicy;
use recache_model::view::ViewPolicy;
use recache_store::conformance::{Subject, postgres_database};
use recache_store::{
    CacheMark, ClaimRequest, JobFilter, NewJob, NewView, OpenOptions, Outcome, Signal, open,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, Row as _};

recache_store::conformance_suite!(recache_store::conformance::postgres_database);

/// As an application would have it, with a search path of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_raise_of_an_application_lives_and_dies_with_its_transaction() {
    let Some(database) = postgres_database().await else { return };
    let url = database.url().to_owned();
    let subject = Subject::new(database).await;
    let mut application = PgConnection::connect(&url).await.unwrap();
    let before = subject.store.cache_epochs_read("p", CacheMark::default()).await.unwrap().unwrap().mark;

    application.execute("BEGIN; SELECT recache.cache_raise('p', '{7}'); ROLLBACK").await.unwrap();
    assert_eq!(subject.store.cache_epochs_read("p", before).await.unwrap(), None);

    let mut hints = subject.store.subscribe();
    let heard = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let raise = "SELECT recache.cache_raise(prefix => 'p', slots => '{7, 9, 7}') AS version";
            let version: i64 = application.fetch_one(raise).await.unwrap().try_get("version").unwrap();
            // The store may not listen yet.
            let soon = tokio::time::timeout(Duration::from_millis(200), hints.recv()).await;
            if let Ok(Ok(Signal::CacheRaised(prefix, mark))) = soon {
                assert_eq!((prefix.as_str(), mark.incarnation), ("p", before.incarnation));
                return version;
            }
        }
    });
    let version = u64::try_from(heard.await.unwrap()).unwrap();
    let after = subject.store.cache_epochs_read("p", before).await.unwrap().unwrap();
    assert_eq!(after.mark.version, version);
    assert_eq!(after.epochs, [(7, version), (9, version)]);

    application.execute("SELECT recache.cache_raise('new', '{1}')").await.unwrap();
    let new = subject.store.cache_epochs_read("new", CacheMark::default()).await.unwrap().unwrap();
    assert_eq!((new.mark.version, new.epochs), (1, vec![(1, 1)]));
    assert!(new.mark.incarnation > 0);
    subject.store.close().await;
}

/// A connection that has lived for long is closed when it comes back, and another one is opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_that_is_too_old_is_replaced_and_its_age_is_told() {
    let Some(database) = postgres_database().await else { return };
    let life = Duration::from_millis(50);
    let options = OpenOptions { connection_life_max: life, ..OpenOptions::new(database.url()) };
    let store = open(&options).await.unwrap();
    let replaced = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            store.now().await.unwrap();
            let pool = store.measured().pool.unwrap();
            if pool.opened > u64::from(pool.state.max) && pool.age_max > life / 2 {
                return pool;
            }
        }
    });
    let pool = replaced.await.unwrap();
    assert!(pool.state.size <= pool.state.max, "{pool:?}");
    store.close().await;
}

/// As where every notification is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_does_not_listen_hears_nothing_of_others_and_is_heard() {
    let Some(database) = postgres_database().await else { return };
    let options = OpenOptions::new(database.url());
    let hearing = open(&options).await.unwrap();
    let deaf = open(&OpenOptions { listens: false, ..options.clone() }).await.unwrap();
    let (mut heard, mut missed) = (hearing.subscribe(), deaf.subscribe());
    let speakers = [open(&options).await.unwrap(), deaf.clone()];
    for speaker in &speakers {
        let said = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                speaker.jobs_submit(vec![NewJob::new("work", "null")]).await.unwrap();
                // The store may not listen yet.
                let soon = tokio::time::timeout(Duration::from_millis(200), heard.recv()).await;
                if let Ok(Ok(Signal::Queued(_))) = soon {
                    return missed.try_recv().is_ok();
                }
            }
        });
        let is_own = std::ptr::addr_eq(Arc::as_ptr(speaker), Arc::as_ptr(&deaf));
        assert_eq!(said.await.unwrap(), is_own, "it hears itself, and nobody else");
    }
    for store in [&hearing, &deaf, &speakers[0]] {
        store.close().await;
    }
}

/// By a role that may do nothing else, from a trigger, in bulk and by pattern.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn touch_of_an_application_lives_and_dies_with_its_transaction() {
    let Some(database) = postgres_database().await else { return };
    let url = database.url().to_owned();
    let subject = Subject::new(database).await;
    for (namespace, key) in
        [("shop", "alliance/1"), ("shop", "alliance/2"), ("shop", "allianceX"), ("other", "alliance/1")]
    {
        let view = NewView {
            namespace: namespace.to_owned(),
            key: key.to_owned(),
            handler: "build".to_owned(),
            queue: "default".to_owned(),
            policy: ViewPolicy::default(),
            retry: RetryPolicy::once(),
            timeout: None,
            rules: recache_model::item_rules::ItemRules::default(),
            options: recache_model::view_options::ViewOptions::default(),
        };
        subject.store.view_define(view).await.unwrap();
    }
    let role = format!("app_{}", uuid::Uuid::new_v4().simple());
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let grants = format!(
        "CREATE ROLE {role}; GRANT USAGE ON SCHEMA recache TO {role}; GRANT EXECUTE ON FUNCTION \
         recache.touch(TEXT, TEXT, TEXT[]), recache.touch_many(TEXT, TEXT[], TEXT[]), \
         recache.touch_matching(TEXT, TEXT, TEXT[]) TO {role}; CREATE SCHEMA app AUTHORIZATION {role}"
    );
    owner.execute(AssertSqlSafe(grants)).await.unwrap();
    let mut application = PgConnection::connect(&url).await.unwrap();
    application.execute(AssertSqlSafe(format!("SET ROLE {role}"))).await.unwrap();
    for forbidden in [
        "SELECT * FROM recache.views",
        "INSERT INTO recache.touch_requests (namespace, key) VALUES ('shop', 'x')",
    ] {
        assert!(application.execute(forbidden).await.is_err(), "{forbidden}");
    }
    let wanted = async |namespace: &str, key: &str| {
        subject.store.views_reconcile(10).await.unwrap();
        subject.store.view_get(namespace, key).await.unwrap().versions.wanted
    };

    application.execute("BEGIN; SELECT recache.touch('shop', 'alliance/1'); ROLLBACK").await.unwrap();
    assert_eq!(wanted("shop", "alliance/1").await, 0);
    application
        .execute(
            "CREATE TABLE app.prices (sku TEXT, price INT); CREATE FUNCTION app.changed() RETURNS trigger LANGUAGE plpgsql AS $$ \
             BEGIN PERFORM recache.touch('shop', 'alliance/1', ARRAY[NEW.sku]); RETURN NEW; END $$; \
             CREATE TRIGGER changed AFTER INSERT ON app.prices FOR EACH ROW EXECUTE FUNCTION app.changed()",
        )
        .await
        .unwrap();
    let mut hints = subject.store.subscribe();
    let heard = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            application.execute("INSERT INTO app.prices VALUES ('a', 1), ('b', 2)").await.unwrap();
            // The store may not listen yet.
            let soon = tokio::time::timeout(Duration::from_millis(200), hints.recv()).await;
            if let Ok(Ok(Signal::TouchesAsked)) = soon {
                return;
            }
        }
    });
    heard.await.unwrap();
    assert_eq!(wanted("shop", "alliance/1").await, 1, "one touch for all rows");

    let many =
        application.fetch_one("SELECT recache.touch_many('shop', '{alliance/2, alliance/2}') AS views").await;
    assert_eq!(many.unwrap().try_get::<i64, _>("views").unwrap(), 1);
    let matching =
        application.fetch_one("SELECT recache.touch_matching('shop', 'alliance/*') AS views").await;
    assert_eq!(matching.unwrap().try_get::<i64, _>("views").unwrap(), 2);
    let nothing = application.fetch_one("SELECT recache.touch_matching('shop', 'a%_*') AS views").await;
    assert_eq!(nothing.unwrap().try_get::<i64, _>("views").unwrap(), 0, "only `*` is special");
    assert_eq!((wanted("shop", "alliance/1").await, wanted("shop", "alliance/2").await), (2, 1));
    assert_eq!((wanted("shop", "allianceX").await, wanted("other", "alliance/1").await), (0, 0));
    for refused in [
        "SELECT recache.touch('shop', 'gone')",
        "SELECT recache.touch('shop', NULL)",
        "SELECT recache.touch('shop', 'alliance/1', '{\"\"}')",
        "SELECT recache.touch_many('shop', '{alliance/1, gone}')",
    ] {
        assert!(application.execute(refused).await.is_err(), "{refused}");
    }
    assert_eq!(wanted("shop", "alliance/1").await, 2, "a call that was refused touched nothing");
    application.close().await.unwrap();
    owner.execute(AssertSqlSafe(format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))).await.unwrap();
    subject.store.close().await;
}

/// What was written first and is committed last has a place after what was read meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_that_is_committed_late_is_not_lost_to_whoever_reads_on() {
    let Some(database) = postgres_database().await else { return };
    let url = database.url().to_owned();
    let subject = Subject::new(database).await;
    let stream = subject.store.event_stream();
    let mut slow = PgConnection::connect(&url).await.unwrap();
    let mut quick = PgConnection::connect(&url).await.unwrap();
    let write =
        "INSERT INTO recache.events (id, namespace, type, at, data) VALUES (gen_random_uuid(), 'default', ";
    slow.execute("BEGIN").await.unwrap();
    slow.execute(AssertSqlSafe(format!("{write} 'order.first', 1, '1')"))).await.unwrap();
    quick.execute(AssertSqlSafe(format!("{write} 'order.second', 2, '2')"))).await.unwrap();
    subject.store.events().events_route(10).await.unwrap();
    let read = stream.stream_read(0, 10).await.unwrap();
    assert_eq!(read.iter().map(|placed| placed.event.name.as_str()).collect::<Vec<_>>(), ["order.second"]);
    slow.execute("COMMIT").await.unwrap();
    subject.store.events().events_route(10).await.unwrap();
    let late = stream.stream_read(read[0].place, 10).await.unwrap();
    assert_eq!(late.iter().map(|placed| placed.event.name.as_str()).collect::<Vec<_>>(), ["order.first"]);
    subject.store.close().await;
}

/// A change whose trigger ran before somebody began to listen, and which is committed after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_begins_to_listen_waits_for_changes_that_are_under_way() {
    let Some(database) = postgres_database().await else { return };
    let url = database.url().to_owned();
    let subject = Subject::new(database).await;
    let stream = subject.store.event_stream();
    let keep = Duration::from_mins(10);
    // The trigger is there, for another type.
    stream.stream_listen("a", vec!["job.failed".to_owned()], keep).await.unwrap();
    let mut hand = PgConnection::connect(&url).await.unwrap();
    hand.execute("BEGIN; LOCK TABLE recache.job_history IN ROW EXCLUSIVE MODE").await.unwrap();
    let listening = stream.stream_listen("b", vec!["job.completed".to_owned()], keep);
    let mut listening = std::pin::pin!(listening);
    let soon = tokio::time::timeout(Duration::from_millis(300), &mut listening).await;
    assert!(soon.is_err(), "a writer is in the middle of something");
    hand.execute("COMMIT").await.unwrap();
    listening.await.unwrap();
    subject.store.close().await;
}

/// Statistics from a moment in which nothing ran say that what runs is quickly read: a settlement must not take that for its way to a job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settling_reads_what_is_settled_and_not_all_that_runs() {
    const RUNNING: i64 = 400;
    let Some(database) = postgres_database().await else { return };
    let url = database.url().to_owned();
    let subject = Subject::new(database).await;
    let new = (0..2_000).map(|_| NewJob::new("work", "1".to_owned())).collect();
    subject.store.jobs_submit(new).await.unwrap();
    let mut observer = PgConnection::connect(&url).await.unwrap();
    observer.execute("ANALYZE recache.jobs").await.unwrap();

    let claim = ClaimRequest {
        session: subject.session().await,
        queues: vec!["default".to_owned()],
        handlers: vec!["work".to_owned()],
        rows_max: usize::try_from(RUNNING).unwrap(),
    };
    let mut claimed = subject.store.jobs_dispatch(Vec::new(), Some(claim)).await.unwrap().claimed;
    assert_eq!(claimed.len(), usize::try_from(RUNNING).unwrap());
    // One at a time. What a connection has read is told to others a second later, at the end of its next statement.
    let mut looked_up = 0;
    while looked_up < 3 * RUNNING {
        match claimed.pop() {
            Some(job) => {
                subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
            }
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        let _ = subject.store.job_get(JobId::make()).await;
        let seen = "SELECT (SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'jobs_pkey') AS looked_up";
        looked_up = observer.fetch_one(seen).await.unwrap().try_get("looked_up").unwrap();
    }
    let seen = "SELECT (SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'jobs_running') \
                + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'jobs') AS read";
    let read: i64 = observer.fetch_one(seen).await.unwrap().try_get("read").unwrap();
    assert!(read < 20 * RUNNING, "{read} rows were read besides those that were settled");
    subject.store.close().await;
}

/// A database in which nothing waited when it last counted, and then 10,000 jobs came.
async fn suddenly_waiting(url: &str, subject: &Subject) {
    let many = || (0..2_000).map(|_| NewJob::new("work", "1".to_owned())).collect();
    subject.store.jobs_submit(many()).await.unwrap();
    let mut hand = PgConnection::connect(url).await.unwrap();
    let end =
        "UPDATE recache.jobs SET state = 'completed', started_at = created_at, finished_at = created_at";
    hand.execute(end).await.unwrap();
    hand.execute("ANALYZE recache.jobs").await.unwrap();
    hand.close().await.unwrap();
    for _ in 0..5 {
        subject.store.jobs_submit(many()).await.unwrap();
    }
}

/// Rows of jobs that were read, by what they were read. A connection tells it at its end: the store's are closed for that.
async fn rows_read(url: &str, subject: Subject, least: i64) -> (i64, String) {
    subject.store.close().await;
    let mut observer = PgConnection::connect(url).await.unwrap();
    let seen = "SELECT SUM(read)::bigint AS read, string_agg(name || ' ' || read, ', ') AS told FROM (\
                SELECT indexrelname AS name, idx_tup_read AS read FROM pg_stat_user_indexes WHERE relname = 'jobs' UNION ALL \
                SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'jobs') AS r WHERE read > 0";
    let mut tries = 100;
    loop {
        let row = observer.fetch_one(seen).await.unwrap();
        let (read, told) = (row.try_get::<Option<i64>, _>("read"), row.try_get::<Option<String>, _>("told"));
        let read = read.unwrap().unwrap_or(0);
        if read >= least {
            return (read, told.unwrap().unwrap_or_default());
        }
        tries -= 1;
        assert!(tries > 0, "not even {least} rows were read, but {read}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Statistics say that what waits is quickly sorted: a page of a list must not read all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_of_a_list_reads_what_it_shows_and_not_all_that_waits() {
    let Some(database) = postgres_database().await else { return };
    let url = database.url().to_owned();
    let subject = Subject::new(database).await;
    suddenly_waiting(&url, &subject).await;
    let queued = JobFilter { state: Some(JobState::Queued), ..JobFilter::default() };
    let lists = [
        JobFilter::default(),
        queued.clone(),
        JobFilter { queue: Some("default".to_owned()), ..queued },
        JobFilter {
            state: Some(JobState::Running),
            handler: Some("work".to_owned()),
            ..JobFilter::default()
        },
        JobFilter { handler: Some("work".to_owned()), ..JobFilter::default() },
    ];
    // More often than the database plans for the parameters of each call.
    for _ in 0..8 {
        for filter in &lists {
            subject.store.jobs_list(JobFilter { rows_max: 10, ..filter.clone() }).await.unwrap();
        }
    }
    // 2,000 by the hand. Two of the lists look for the end of a stretch of a thousand.
    let (read, told) = rows_read(&url, subject, 2_000 + 8 * 30).await;
    assert!(read < 2_000 + 8 * 3_000, "{read} rows were read for 40 pages of 10: {told}");
}

/// By the same statistics the index of the lists would be the quickest way to what waits: a claim must not read all of it and sort.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claim_reads_what_it_takes_and_not_all_that_waits() {
    const CLAIMS: i64 = 20;
    let Some(database) = postgres_database().await else { return };
    let url = database.url().to_owned();
    let subject = Subject::new(database).await;
    suddenly_waiting(&url, &subject).await;
    let session = subject.session().await;
    for _ in 0..CLAIMS {
        let claim = ClaimRequest {
            session,
            queues: vec!["default".to_owned()],
            handlers: vec!["work".to_owned()],
            rows_max: 10,
        };
        assert_eq!(subject.store.jobs_dispatch(Vec::new(), Some(claim)).await.unwrap().claimed.len(), 10);
    }
    // 2,000 by the hand; what was claimed before stands in the way until the database clears up, and is passed twice. The five first calls
    // are planned for their parameters: if those plans sorted, they alone would read 50,000.
    let (read, told) = rows_read(&url, subject, 2_000 + CLAIMS * 10).await;
    assert!(read < 25_000, "{read} rows were read for {CLAIMS} claims of 10: {told}");
}
