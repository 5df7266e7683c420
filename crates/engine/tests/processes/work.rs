//! What the processes work on. Every result follows from its input, so that anybody can say what is right.

use std::time::Duration;

use rand::Rng as _;
use recache_engine::Options;
use recache_model::retry::{Backoff, RetryPolicy};
use recache_model::view::ViewPolicy;
use recache_store::{NewJob, NewView};
use recache_worker::{BuildContext, Context, Failure, Handlers, PublishContext, StepEnd};
use serde_json::{Value, json};

use crate::{around, support};

pub(crate) const VIEWS: [&str; 3] = ["v0", "v1", "v2"];
const ITEMS: i64 = 24;

/// One workflow of four steps; what it gives follows from `start`.
pub(crate) const DIAMOND: &str = "
name: diamond
namespace: n
version: 1.0.0
steps:
  - name: a
    handler: { callable: add, initialization: { own: 1 } }
    retry: { max_attempts: 100, backoff_base_ms: 1 }
  - name: b
    handler: { callable: add, initialization: { own: 10 } }
    depends_on: [a]
    retry: { max_attempts: 100, backoff_base_ms: 1 }
  - name: c
    handler: { callable: add, initialization: { own: 100 } }
    depends_on: [a]
    retry: { max_attempts: 100, backoff_base_ms: 1 }
  - name: d
    handler: { callable: add, initialization: { own: 1000 } }
    depends_on: [b, c]
    retry: { max_attempts: 100, backoff_base_ms: 1 }
    publishes_events: [{ name: summed, publisher: sum }]
";

/// What the end of step `d` of a diamond publishes; its payload is the result in an object.
pub(crate) const SUMMED: &str = "summed";

/// What step `d` of a diamond gives.
pub(crate) fn diamond_output(start: i64) -> i64 {
    let a = start + 1;
    (a + start + 10) + (a + start + 100) + start + 1000
}

/// A short lease, so that what a dead process held soon runs again.
pub(crate) fn options() -> Options {
    Options {
        slots: 8,
        lease: Duration::from_millis(400),
        beat: Duration::from_millis(100),
        sweep: Duration::from_millis(50),
        poll: Duration::from_millis(100),
        grace: Duration::from_millis(200),
        generation_keep: Duration::from_millis(200),
        ..support::quick()
    }
}

/// A view whose builds a crash cannot use up.
pub(crate) fn view(key: &str) -> NewView {
    // Touches come faster than builds end where the machine is busy: now and then one is let through.
    let policy = ViewPolicy {
        debounce_quiet_ms: 5,
        debounce_max_ms: 20,
        max_staleness_ms: Some(1_000),
        ..ViewPolicy::default()
    };
    let retry = RetryPolicy { attempts_max: 1_000, backoff: Backoff::None, ..RetryPolicy::default() };
    NewView { retry, ..support::view(key, "ramp", policy) }
}

/// Most items of two versions that follow each other are the same.
pub(crate) fn items(version: i64) -> Vec<(String, i64)> {
    let mut items: Vec<_> =
        (0..ITEMS).map(|place| (format!("item-{place:02}"), (version + place) / 8)).collect();
    items.push((format!("only-{}", version % 3), version));
    items.sort();
    items
}

/// Plain jobs: some have one attempt, some fail a few times before they succeed, some always fail.
pub(crate) fn job(random: &mut impl rand::Rng) -> NewJob {
    let number: i64 = random.random_range(0..1_000);
    let (handler, attempts_max) = match random.random_range(0..10) {
        0..4 => ("next", 20),
        4..6 => ("next", 1),
        6..9 => ("flaky", 20),
        _ => ("hopeless", 2),
    };
    NewJob { retry: support::retries(attempts_max, 1), ..NewJob::new(handler, number.to_string()) }
}

/// What a job gives if it succeeds.
pub(crate) fn job_output(input: &str) -> String {
    (input.parse::<i64>().unwrap() + 1).to_string()
}

/// Handlers that take a little while, and say when they begin.
pub(crate) fn handlers(begins: impl Fn(&Context) + Clone + Send + Sync + 'static) -> Handlers {
    async fn work() {
        let pause = Duration::from_micros(rand::rng().random_range(0..8_000));
        tokio::time::sleep(pause).await;
    }
    let mut handlers = Handlers::new();
    let say = begins.clone();
    handlers
        .job("next", move |context: Context, n: i64| {
            say(&context);
            async move {
                work().await;
                Ok(n + 1)
            }
        })
        .unwrap();
    let say = begins.clone();
    handlers
        .job("flaky", move |context: Context, n: i64| {
            say(&context);
            async move {
                work().await;
                if context.facts().attempt <= 2 {
                    return Err(Failure::retryable("not yet"));
                }
                Ok(n + 1)
            }
        })
        .unwrap();
    let say = begins.clone();
    handlers
        .job("hopeless", move |context: Context, _: i64| {
            say(&context);
            async move { Err::<(), _>(Failure::retryable("never")) }
        })
        .unwrap();
    let say = begins.clone();
    handlers
        .job("add", move |context: Context, input: Value| {
            say(&context);
            async move {
                work().await;
                let facts = context.facts();
                let before: i64 = facts.results.values().filter_map(Value::as_i64).sum();
                Ok(before + facts.settings["own"].as_i64().unwrap() + input["start"].as_i64().unwrap())
            }
        })
        .unwrap();
    handlers
        .job(around::NOTE, {
            let say = begins.clone();
            move |context: Context, _: Value| {
                say(&context);
                async { Ok(()) }
            }
        })
        .unwrap();
    handlers
        .publisher("sum", async |_: PublishContext, end: StepEnd<i64>| {
            work().await;
            Ok::<_, Failure>(match end {
                StepEnd::Completed { result } => json!({ "sum": result }),
                other => json!(format!("{other:?}")),
            })
        })
        .unwrap();
    handlers
        .view("ramp", move |build: BuildContext| {
            begins(build.context());
            async move {
                for (place, (item, value)) in items(build.version()).into_iter().enumerate() {
                    build.checkpoint().await?;
                    let fingerprint = value.to_string();
                    if !build.reuse(&item, &fingerprint).await? {
                        build.put(&item, Some(&fingerprint), &value).await?;
                    }
                    if place % 8 == 7 {
                        build.flush().await?;
                        work().await;
                    }
                }
                Ok(())
            }
        })
        .unwrap();
    handlers
}
