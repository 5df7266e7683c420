//! Connections to PostgreSQL are cut before and after `COMMIT`, and now and then anywhere: nothing is doubled, nothing is lost, and
//! every answer is that of the row. `RECACHE_LOST_COMMITS=1000` makes it the long form.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use recache_faultproxy::{Chance, Cut, Ending, Lane, Plan, Proxy};
use recache_model::ids::{SessionId, WorkflowId};
use recache_model::job::JobState;
use recache_model::lifecycle::TimeLimits;
use recache_model::workflow::WorkflowState;
use recache_store::conformance::{TestDatabase, postgres_database};
use recache_store::{
    ClaimRequest, ClaimedJob, Error, JobFilter, NewJob, NewStep, NewWorkflow, OpenOptions, Outcome, Settled,
    Settlement, Store, TemplateRecord, open,
};

/// Rounds of submit, claim and settle, without another word.
const ROUNDS: u32 = 40;
/// How long anything is tried again.
const PATIENCE: Duration = Duration::from_secs(60);

fn rounds() -> u32 {
    std::env::var("RECACHE_LOST_COMMITS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// The same database through the proxy.
fn through(database: &TestDatabase, proxy: &Proxy, upstream: &str) -> String {
    database.url().replacen(upstream, &proxy.address().to_string(), 1)
}

/// `host:port` of a URL.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").expect("a URL").1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

/// What went wrong on the way.
#[derive(Debug, Default)]
struct Seen {
    unknown: AtomicU32,
    refused: AtomicU32,
}

impl Seen {
    /// Says it until it is answered.
    async fn until_answered<T>(
        &self,
        what: &str,
        mut call: impl AsyncFnMut() -> recache_store::Result<T>,
    ) -> T {
        let tries = async {
            loop {
                match call().await {
                    Ok(answer) => return answer,
                    Err(Error::Unknown { .. }) => self.unknown.fetch_add(1, Ordering::Relaxed),
                    Err(Error::Unavailable { .. }) => self.refused.fetch_add(1, Ordering::Relaxed),
                    Err(other) => panic!("{what}: {other:?}"),
                };
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, tries).await.unwrap_or_else(|_| panic!("{what}: never answered"))
    }
}

fn chain() -> NewWorkflow {
    NewWorkflow {
        id: WorkflowId::make(),
        template: TemplateRecord {
            digest: "d".to_owned(),
            namespace: "default".to_owned(),
            name: "chain".to_owned(),
            version: "1.0.0".to_owned(),
            content: "{}".to_owned(),
        },
        template_raise: None,
        environment: None,
        limits: TimeLimits::default(),
        takes_over: None,
        input: "{}".to_owned(),
        correlation_id: "c".to_owned(),
        steps: vec![
            NewStep::new("a", NewJob::new("work", "{}"), Vec::new()),
            NewStep::new("b", NewJob::new("work", "{}"), vec![0]),
            NewStep::new("c", NewJob::new("work", "{}"), vec![0]),
            NewStep::new("d", NewJob::new("work", "{}"), vec![1, 2]),
        ],
    }
}

/// Jobs that this session gets; a claim whose answer was lost is handed back first.
async fn claim(store: &dyn Store, session: SessionId, seen: &Seen) -> Vec<ClaimedJob> {
    loop {
        seen.until_answered("reclaim", async || store.session_reclaim(session, Vec::new()).await).await;
        let request = ClaimRequest {
            session,
            queues: vec!["default".to_owned()],
            handlers: vec!["work".to_owned()],
            rows_max: 10,
        };
        match store.jobs_dispatch(Vec::new(), Some(request)).await {
            Ok(answer) => return answer.claimed,
            Err(Error::Unknown { .. }) => seen.unknown.fetch_add(1, Ordering::Relaxed),
            Err(Error::Unavailable { .. }) => seen.refused.fetch_add(1, Ordering::Relaxed),
            Err(other) => panic!("claim: {other:?}"),
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_whose_answer_is_lost_doubles_and_loses_nothing() {
    let Some(database) = postgres_database().await else { return };
    let upstream = host_of(database.url()).to_owned();
    let proxy = Arc::new(Proxy::start(upstream.parse().expect("an address")).unwrap());
    let straight = open(&OpenOptions::new(database.url())).await.unwrap();
    let store = open(&OpenOptions::new(through(&database, &proxy, &upstream))).await.unwrap();
    // The message ends with a zero byte: after it the server carries the commit out, and its answer goes nowhere.
    let cut = Cut::around(*b"COMMIT\0").by_reset().with_chance(Chance::percent(25));
    proxy.set(Plan::default().to_server(Lane::default().cut(cut))).await;
    // A lone statement is its own commit: those are cut at any time.
    let (cutter, is_over) = (Arc::clone(&proxy), tokio_util::sync::CancellationToken::new());
    let over = is_over.clone();
    let cutting = tokio::spawn(async move {
        while !over.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(7)).await;
            cutter.end_some(Chance::percent(10), Ending::Reset);
        }
    });

    let (rounds, seen, session) = (rounds(), Seen::default(), SessionId::make());
    let lease = Duration::from_hours(1);
    seen.until_answered("session", async || store.session_open(session, "test", lease).await).await;
    let (mut workflows, mut keyed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let new = chain();
        seen.until_answered("workflow", async || store.workflow_submit(new.clone()).await).await;
        workflows.push(new.id);
        // Each try brings another id, as a caller would who has lost the first one.
        let job = seen
            .until_answered("job", async || {
                let key = Some(format!("key {round}"));
                let job =
                    NewJob { idempotency_key: key, ..NewJob::new("work", format!("{{\"round\":{round}}}")) };
                Ok(store.jobs_submit(vec![job]).await?.remove(0).id)
            })
            .await;
        keyed.push(job);
        loop {
            let claimed = claim(&*store, session, &seen).await;
            if claimed.is_empty() {
                // The database may still be at work at a claim whose connection is gone: an engine asks again and again.
                let running =
                    JobFilter { state: Some(JobState::Running), rows_max: 1, ..JobFilter::default() };
                if straight.jobs_list(running).await.unwrap().jobs.is_empty() {
                    break;
                }
                continue;
            }
            let output = |job: &ClaimedJob| format!("\"{}\"", job.token.claim);
            let settlements: Vec<Settlement> = claimed
                .iter()
                .map(|job| Settlement::of(job, Outcome::Completed { output: output(job) }))
                .collect();
            let answer = seen
                .until_answered("settle", async || store.jobs_dispatch(settlements.clone(), None).await)
                .await;
            for (job, settled) in claimed.iter().zip(answer.settled) {
                assert_eq!(settled, Settled::Accepted, "nobody else has it");
                let row = straight.job_get(job.token.job).await.unwrap();
                assert_eq!(
                    (row.state, row.output),
                    (JobState::Completed, Some(output(job))),
                    "the answer is the row's"
                );
            }
        }
    }
    is_over.cancel();
    cutting.await.unwrap();
    proxy.heal().await;

    let jobs =
        straight.jobs_list(JobFilter { rows_max: 100_000, ..JobFilter::default() }).await.unwrap().jobs;
    assert_eq!(jobs.len(), usize::try_from(rounds * 5).unwrap(), "each is there once");
    for job in &jobs {
        let history = straight.job_history(job.id).await.unwrap();
        let seqs: Vec<i64> = history.iter().map(|row| row.seq).collect();
        assert_eq!(seqs, (1..=job.transitions).collect::<Vec<_>>(), "history of {} is dense", job.id);
        let ends = history.iter().filter(|row| row.to == JobState::Completed).count();
        assert_eq!((job.state, ends, job.attempt), (JobState::Completed, 1, 1), "{}", job.id);
    }
    for id in workflows {
        assert_eq!(straight.workflow_get(id).await.unwrap().state, WorkflowState::Completed);
    }
    keyed.sort();
    keyed.dedup();
    assert_eq!(keyed.len(), usize::try_from(rounds).unwrap());
    let compared = straight.maintenance().counts_compare(None, 100_000).await.unwrap();
    assert!(compared.differences.is_empty(), "{:?}", compared.differences);
    let (unknown, refused) = (seen.unknown.into_inner(), seen.refused.into_inner());
    eprintln!("{rounds} rounds: {unknown} answers unknown, {refused} calls refused, {:?}", proxy.counts());
    assert!(unknown > rounds / 20, "the faults were felt: {unknown} unknown, {refused} refused");
    store.close().await;
    straight.close().await;
}
