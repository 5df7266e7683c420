//! Workers in other processes, as an engine serves them, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use recache_engine::remote::{
    Answer, Call, Claim, End, LEASE_DEFAULT, NewWorker, Offer, Opened, Remote, Report, Settle, Settled,
};
use recache_engine::{Engine, Error, Options};
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::template::Template;
use recache_model::workflow::WorkflowState;
use recache_store::conformance::TestDatabase;
use recache_store::{LeaseToken, NewJob, RemoteHandler, Revoked, StagedItem};
use recache_worker::{Handlers, Stop};
use serde_json::{Value, json};
use support::{LIMIT, at_once, quick, retries, soon, store_of, touch, until, view};
use tokio::time::Instant;

on_both_databases!(
    job_is_done_elsewhere,
    waiting_worker_gets_a_job_at_once,
    one_of_many_waiting_workers_is_woken_for_a_job,
    repeated_call_gets_the_same_answer,
    claim_whose_answer_was_lost_is_answered_again,
    answers_lost_for_longer_than_the_lease_cost_no_attempt,
    worker_that_is_heard_and_hears_nothing_keeps_no_job_from_others,
    caller_who_hangs_up_costs_no_attempt,
    cancel_reaches_a_waiting_worker_at_once,
    cancel_that_nobody_waited_for_is_told_at_the_next_call,
    late_word_of_a_silent_worker_changes_nothing,
    job_that_a_worker_forgot_runs_again,
    another_engine_serves_the_same_worker,
    attempt_that_runs_too_long_is_ended,
    failures_are_followed_like_local_ones,
    progress_lines_and_checkpoint_are_kept_once,
    decisions_and_batches_are_done_elsewhere,
    result_that_does_not_fit_is_judged_here,
    superseded_build_is_stopped_and_its_successor_keeps_what_stays,
    session_is_its_workers_own,
    engine_that_goes_away_gives_no_more,
    worker_that_cannot_be_is_refused,
);

/// Looks so seldom that what a case waits for must come by a hint.
fn deaf_polls() -> Options {
    Options { poll: Duration::from_secs(60), ..quick() }
}

async fn start(database: &TestDatabase, options: Options) -> Engine {
    Engine::builder(store_of(database).await)
        .handlers(Handlers::new())
        .options(options)
        .start()
        .await
        .unwrap()
}

fn new_worker(handlers: &[&str]) -> NewWorker {
    NewWorker {
        name: "elsewhere".to_owned(),
        handlers: handlers
            .iter()
            .map(|name| RemoteHandler { name: (*name).to_owned(), version: None, input_schema: None })
            .collect(),
        queues: vec!["default".to_owned()],
        namespaces: None,
        slots: 4,
        lease: LIMIT,
    }
}

/// A worker that counts its claims as the protocol asks.
#[derive(Clone)]
struct Worker {
    remote: Remote,
    opened: Opened,
    claims: u64,
}

impl Worker {
    async fn open(engine: &Engine, worker: NewWorker) -> Self {
        let remote = engine.remote();
        let opened = remote.open(worker).await.unwrap();
        Self { remote, opened, claims: 0 }
    }

    async fn of(engine: &Engine, handlers: &[&str]) -> Self {
        Self::open(engine, new_worker(handlers)).await
    }

    /// The same worker, served by another engine.
    fn at(&self, engine: &Engine) -> Self {
        Self { remote: engine.remote(), ..self.clone() }
    }

    async fn call(&self, call: Call) -> Answer {
        soon(self.remote.call(self.opened.session, &self.opened.secret, call)).await.unwrap()
    }

    fn claiming(&mut self, max: usize, wait: Duration, held: &[LeaseToken]) -> Call {
        self.claims += 1;
        let claim = Some(Claim { max, number: Some(self.claims) });
        Call { claim, wait, held: Some(held.to_vec()), ..Call::default() }
    }

    async fn claim(&mut self, max: usize) -> Vec<Offer> {
        let call = self.claiming(max, Duration::from_secs(20), &[]);
        let answer = self.call(call).await;
        assert!(answer.is_alive);
        answer.jobs
    }

    async fn settle(&self, token: LeaseToken, end: End) -> Settled {
        let answer = self.call(Call { settle: vec![Settle { token, end }], ..Call::default() }).await;
        answer.settled[0]
    }

    async fn beat(&self, held: &[LeaseToken]) -> Answer {
        self.call(Call { held: Some(held.to_vec()), ..Call::default() }).await
    }
}

fn done(value: impl Into<Value>) -> End {
    End::Completed(Value::to_string(&value.into()))
}

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
    assert_eq!(engine.remote().list().await.unwrap().len(), 1);
    assert!(worker.remote.close(worker.opened.session, &worker.opened.secret).await.unwrap());
    assert!(!worker.remote.close(worker.opened.session, &worker.opened.secret).await.unwrap());
    assert_eq!(engine.remote().list().await.unwrap(), []);
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

async fn attempt_that_runs_too_long_is_ended(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    let timeout = Some(Duration::from_millis(200));
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

async fn failures_are_followed_like_local_ones(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    let job = engine.submit(NewJob { retry: retries(2, 0), ..NewJob::new("work", "1") }).await.unwrap();
    let mut end = async |end: End| {
        let offer = worker.claim(1).await.remove(0);
        assert_eq!(worker.settle(offer.token, end).await, Settled::Accepted);
        offer.facts.attempt
    };
    assert_eq!(end(End::Released).await, 1);
    assert_eq!(end(End::Snoozed(Duration::ZERO)).await, 1, "it was not done, and does not count");
    let error = JobError { code: Some("busy".to_owned()), ..JobError::new(ErrorKind::Retryable, "busy") };
    assert_eq!(end(End::Failed(error.clone())).await, 1);
    assert_eq!(end(End::Failed(error.clone())).await, 2);
    let record = engine.job(job).await.unwrap();
    assert_eq!((record.state, record.error), (JobState::Failed, Some(error)));
    let job = engine.submit(NewJob { retry: retries(9, 0), ..NewJob::new("work", "1") }).await.unwrap();
    assert_eq!(end(End::Failed(JobError::new(ErrorKind::Permanent, "never"))).await, 1);
    assert_eq!(engine.job(job).await.unwrap().state, JobState::Failed);
    let too_large = "x".repeat(9 * 1024 * 1024);
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    end(done(too_large)).await;
    assert_eq!(engine.job(job).await.unwrap().error.unwrap().code.as_deref(), Some("result_too_large"));
    engine.shut_down().await;
}

async fn progress_lines_and_checkpoint_are_kept_once(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let mut worker = Worker::of(&engine, &["work"]).await;
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    let token = worker.claim(1).await[0].token;
    let report = Report {
        token,
        progress: Some((0.5, Some("half".to_owned()))),
        log: Some((1, vec!["one".to_owned(), "two".to_owned()])),
        checkpoint: Some("{\"page\":7}".to_owned()),
    };
    let call = Call { reports: vec![report], held: Some(vec![token]), ..Call::default() };
    for _ in 0..2 {
        assert_eq!(worker.call(call.clone()).await.reports, [None]);
    }
    let record = engine.job(job).await.unwrap();
    assert_eq!((record.progress, record.message.as_deref()), (Some(0.5), Some("half")));
    assert_eq!(engine.store().attempts().log_read(job, 10).await.unwrap().len(), 2);
    worker.settle(token, End::Released).await;
    let again = worker.claim(1).await;
    assert_eq!(again[0].facts.checkpoint.as_deref(), Some("{\"page\":7}"));
    let refused = worker.call(call).await.reports;
    assert_eq!(refused, [Some(Revoked::TakenOver)]);
    let bad = Report { token, progress: Some((7.0, None)), log: Some((0, vec![])), checkpoint: None };
    let call = Call { reports: vec![bad], ..Call::default() };
    let error = worker.remote.call(worker.opened.session, &worker.opened.secret, call).await.unwrap_err();
    assert!(
        matches!(&error, Error::Invalid(why) if why.contains("progress") && why.contains("lines")),
        "{error}"
    );
    engine.shut_down().await;
}

/// Does whatever comes, until it is stopped; `work` says with which result.
async fn serve(mut worker: Worker, work: impl Fn(&Offer) -> End) {
    loop {
        for offer in worker.claim(10).await {
            let end = work(&offer);
            assert_eq!(worker.settle(offer.token, end).await, Settled::Accepted);
        }
    }
}

async fn run(engine: &Engine, source: &str, input: Value) -> (WorkflowState, Vec<(String, JobState, Value)>) {
    let template = Template::parse(source, "t.yaml").unwrap();
    let id = engine.submit_workflow(WorkflowId::make(), &template, &input).await.unwrap();
    let state = soon(engine.wait_for_workflow(id)).await.unwrap().state;
    let mut steps: Vec<_> = engine
        .store()
        .workflow_steps(id)
        .await
        .unwrap()
        .into_iter()
        .map(|step| {
            let output = step.job.output.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
            (step.job.step.unwrap(), step.job.state, output)
        })
        .collect();
    steps.sort_by(|a, b| a.0.cmp(&b.0));
    (state, steps)
}

async fn decisions_and_batches_are_done_elsewhere(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let worker = Worker::of(&engine, &["choose", "echo", "split", "work"]).await;
    let serving = tokio::spawn(serve(worker, |offer| match offer.facts.handler.as_str() {
        "choose" => End::Completed(offer.input.clone()),
        "work" => done(
            json!({ "cursor": offer.facts.item.as_ref().unwrap()["cursor"], "index": offer.facts.index }),
        ),
        "split" => done(json!({ "rows": 10 })),
        _ => done(json!([offer.facts.settings, offer.facts.results])),
    }));
    let source = "
name: t
version: 1.0.0
steps:
  - { name: d, type: decision, handler: { callable: choose } }
  - { name: a, handler: { callable: echo, initialization: { x: 1 } }, depends_on: [d] }
  - { name: b, handler: { callable: echo }, depends_on: [d] }
";
    let (state, steps) = run(&engine, source, json!(["a"])).await;
    assert_eq!(state, WorkflowState::Completed);
    assert_eq!(steps[0].2, json!([{ "x": 1 }, { "d": ["a"] }]));
    assert_eq!(steps[1].1, JobState::Skipped);
    let (state, steps) = run(&engine, source, json!(["nobody"])).await;
    assert_eq!((state, steps[0].1), (WorkflowState::Failed, JobState::Failed), "what it names must be there");
    let source = "
name: batched
version: 1.0.0
steps:
  - name: split
    type: batchable
    handler: { callable: split }
    batch_config: { batch_size: 5, parallelism: 2, failure_strategy: isolate }
  - { name: work, type: batch_worker, handler: { callable: work }, depends_on: [split] }
";
    let (state, steps) = run(&engine, source, json!({})).await;
    assert_eq!(state, WorkflowState::Completed, "{steps:?}");
    let work = &steps.iter().find(|step| step.0 == "work").unwrap().2;
    assert_eq!(
        work["batches"][1]["result"],
        json!({ "cursor": { "start": 5, "end": 10 }, "index": 1 }),
        "{work}"
    );
    serving.abort();
    engine.shut_down().await;
}

async fn result_that_does_not_fit_is_judged_here(database: TestDatabase) {
    let engine = start(&database, quick()).await;
    let worker = Worker::of(&engine, &["input"]).await;
    let serving = tokio::spawn(serve(worker, |offer| End::Completed(offer.input.clone())));
    let source = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: input }, result_schema: { type: object, required: [n] } }
";
    let (state, _) = run(&engine, source, json!({ "n": 1 })).await;
    assert_eq!(state, WorkflowState::Completed);
    let (state, steps) = run(&engine, source, json!({ "m": 1 })).await;
    assert_eq!((state, steps[0].1), (WorkflowState::Failed, JobState::Failed));
    serving.abort();
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
