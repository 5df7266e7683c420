//! How an engine calls the store to settle and to claim: one call for little, a second one beside it for much, and nothing missed between
//! them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::ids::WorkflowId;
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_model::workflow::WorkflowState;
use recache_store::conformance::TestDatabase;
use recache_store::{JobFilter, NewJob, Store};
use recache_worker::{Context, Handlers};
use serde_json::{Value, json};
use support::{Faulty, quick, soon, store_of, until};

on_both_databases!(
    much_to_do_has_a_second_call_beside_the_first,
    little_to_do_is_asked_for_in_one_call_after_the_other,
    job_that_comes_while_a_claim_is_under_way_is_not_missed,
    each_step_of_a_chain_is_claimed_with_the_end_of_the_one_before,
    claim_that_was_left_out_of_a_repeated_call_is_made_up_for,
);

/// Handlers that take a while, and count.
fn handlers(takes: Duration) -> (Handlers, Arc<AtomicUsize>) {
    let ran = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&ran);
    let mut handlers = Handlers::new();
    handlers
        .job("work", move |_: Context, input: Value| {
            let counting = Arc::clone(&counting);
            async move {
                if !takes.is_zero() {
                    tokio::time::sleep(takes).await;
                }
                counting.fetch_add(1, Ordering::SeqCst);
                Ok(input)
            }
        })
        .unwrap();
    (handlers, ran)
}

/// Runs so many jobs over a store whose answers take a while. How many calls were under way at once at most.
async fn most_calls(database: &TestDatabase, jobs: usize, takes: Duration) -> usize {
    let store = store_of(database).await;
    let faulty = Faulty::over(Arc::clone(&store));
    *faulty.dispatch_takes.lock().unwrap() = Duration::from_millis(30);
    for _ in 0..jobs.div_ceil(1_000) {
        let some = (0..jobs.min(1_000)).map(|_| NewJob::new("work", "1")).collect();
        store.jobs_submit(some).await.unwrap();
    }
    let (handlers, ran) = handlers(takes);
    let over: Arc<dyn Store> = faulty.clone();
    // Nobody looks again by the clock, whatever else is asked just then.
    let options = Options { poll: Duration::from_secs(600), ..quick() };
    let engine = Engine::builder(over).options(options).handlers(handlers).start().await.unwrap();
    until("all ran", async || (engine.stats().completed >= u64::try_from(jobs).unwrap()).then_some(())).await;
    engine.shut_down().await;
    assert_eq!(ran.load(Ordering::SeqCst), jobs, "each once");
    let open = JobFilter { state: Some(JobState::Running), rows_max: 1, ..JobFilter::default() };
    assert!(store.jobs_list(open).await.unwrap().jobs.is_empty(), "what ran is settled");
    faulty.dispatches.1.load(Ordering::SeqCst)
}

async fn much_to_do_has_a_second_call_beside_the_first(database: TestDatabase) {
    assert_eq!(most_calls(&database, 3_000, Duration::ZERO).await, 2);
}

async fn little_to_do_is_asked_for_in_one_call_after_the_other(database: TestDatabase) {
    assert_eq!(most_calls(&database, 40, Duration::from_millis(5)).await, 1);
}

async fn job_that_comes_while_a_claim_is_under_way_is_not_missed(database: TestDatabase) {
    let store = store_of(&database).await;
    let faulty = Faulty::over(Arc::clone(&store));
    *faulty.dispatch_takes.lock().unwrap() = Duration::from_millis(500);
    let (handlers, _) = handlers(Duration::ZERO);
    let over: Arc<dyn Store> = faulty.clone();
    // Nobody looks again by the clock.
    let options = Options { poll: Duration::from_secs(600), ..quick() };
    let engine = Engine::builder(over).options(options).handlers(handlers).start().await.unwrap();
    until("a claim has looked and found nothing", async || {
        (faulty.dispatches.0.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    soon(engine.wait_for_job(job)).await.unwrap();
    engine.shut_down().await;
}

const STEPS: usize = 6;

/// Steps one after the other.
fn chain() -> Template {
    let of = |step: usize| {
        let before = step.checked_sub(1).map_or_else(String::new, |before| format!("s{before}"));
        format!("  - {{ name: s{step}, dependencies: [{before}], handler: {{ callable: step }} }}\n")
    };
    let steps: String = (0..STEPS).map(of).collect();
    let yaml = format!("name: chain\nversion: 1.0.0\nsteps:\n{steps}");
    Template::parse(&yaml, "chain.yaml").unwrap()
}

fn steps() -> Handlers {
    let mut handlers = Handlers::new();
    handlers.job("step", async |_: Context, _: Value| Ok(())).unwrap();
    handlers
}

async fn each_step_of_a_chain_is_claimed_with_the_end_of_the_one_before(database: TestDatabase) {
    const WORKFLOWS: usize = 10;
    let store = store_of(&database).await;
    let faulty = Faulty::over(Arc::clone(&store));
    let over: Arc<dyn Store> = faulty.clone();
    // Nobody looks by the clock, and nobody asks once a lease what the store knows.
    let options = Options { poll: Duration::from_secs(600), lease: Duration::from_secs(600), ..quick() };
    let engine = Engine::builder(over).options(options).handlers(steps()).start().await.unwrap();
    let template = chain();
    let before = faulty.dispatch_calls.load(Ordering::SeqCst);
    for _ in 0..WORKFLOWS {
        let id = WorkflowId::make();
        engine.submit_workflow(id, &template, &json!({})).await.unwrap();
        assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
    }
    // One that claims the first step, one for each step's end. A hint that comes late may cost one in vain; a second call for each step
    // would be as many again.
    let most = STEPS + 1 + 3;
    let made = faulty.dispatch_calls.load(Ordering::SeqCst) - before;
    assert!((STEPS * WORKFLOWS..=most * WORKFLOWS).contains(&made), "{made} calls for {WORKFLOWS} workflows");
    engine.shut_down().await;
    store.close().await;
}

async fn claim_that_was_left_out_of_a_repeated_call_is_made_up_for(database: TestDatabase) {
    let store = store_of(&database).await;
    let faulty = Faulty::over(Arc::clone(&store));
    let reached = Arc::new(AtomicUsize::new(0));
    let (cut, at) = (Arc::clone(&faulty), Arc::clone(&reached));
    let mut handlers = Handlers::new();
    handlers
        .job("step", move |_: Context, _: Value| {
            // The call that settles the first step and claims the second one fails once.
            if at.fetch_add(1, Ordering::SeqCst) == 0 {
                cut.dispatch_fails.store(true, Ordering::SeqCst);
                let cut = Arc::clone(&cut);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    cut.dispatch_fails.store(false, Ordering::SeqCst);
                });
            }
            async { Ok(()) }
        })
        .unwrap();
    let over: Arc<dyn Store> = faulty.clone();
    let options = Options { poll: Duration::from_secs(600), ..quick() };
    let engine = Engine::builder(over).options(options).handlers(handlers).start().await.unwrap();
    let id = WorkflowId::make();
    engine.submit_workflow(id, &chain(), &json!({})).await.unwrap();
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
    assert_eq!(reached.load(Ordering::SeqCst), STEPS);
    engine.shut_down().await;
    store.close().await;
}
