//! What a worker says of its job while and when it ends.

use std::time::Duration;

use recache_engine::remote::{Call, End, Offer, Report, Settled};
use recache_engine::{Engine, Error};
use recache_model::ids::WorkflowId;
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::template::Template;
use recache_model::workflow::WorkflowState;
use recache_store::conformance::TestDatabase;
use recache_store::{NewJob, Revoked};
use serde_json::{Value, json};

use crate::on_both_databases;
use crate::support::{quick, retries, soon};
use crate::world::{Worker, done, start};

on_both_databases!(
    failures_are_followed_like_local_ones,
    progress_lines_and_checkpoint_are_kept_once,
    decisions_and_batches_are_done_elsewhere,
    result_that_does_not_fit_is_judged_here,
);

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
