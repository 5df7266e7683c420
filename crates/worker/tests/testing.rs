//! Handlers under test: what they find, what they say, and how they end.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what it expects")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use recache_worker::testing::{Settlement, TestJob};
use recache_worker::{
    BuildContext, Call, Context, Failure, Handler, Handlers, Keep, Resolver, Stop, Touched,
};
use serde_json::{Value, json};

fn handlers() -> Handlers {
    let mut handlers = Handlers::new();
    handlers
        .job("facts", async |context: Context, input: Value| {
            let facts = context.facts();
            Ok(json!({
                "input": input, "handler": facts.handler, "namespace": facts.namespace, "step": facts.step,
                "attempt": [facts.attempt, facts.attempts_max], "token": facts.attempt_token, "results": facts.results,
                "item": [facts.item, facts.index], "signal": facts.signal, "settings": facts.settings,
                "saved": context.saved::<Value>()?, "correlation": facts.correlation_id, "id": facts.id,
            }))
        })
        .unwrap();
    handlers
        .job("talk", async |context: Context, (): ()| {
            context.progress(0.5, Some("half")).await?;
            context.log("a line").await?;
            context.save(&json!({ "row": 1 })).await?;
            context.save(&json!({ "row": 2 })).await?;
            context.progress(1.0, None).await
        })
        .unwrap();
    handlers
        .job("fail", async |_: Context, kind: String| {
            Err::<(), _>(match kind.as_str() {
                "retryable" => Failure::retryable_after("later", Duration::from_secs(7)),
                "permanent" => Failure::permanent("broken", "it is broken"),
                "snooze" => Failure::snooze(Duration::from_secs(9)),
                "stopped" => Failure::Stopped(Stop::Cancelled),
                _ => panic!("it fell over"),
            })
        })
        .unwrap();
    handlers
        .job("deaf", async |_: Context, (): ()| {
            std::future::pending::<()>().await;
            Ok(())
        })
        .unwrap();
    handlers.job("at-once", async |_: Context, (): ()| Ok(())).unwrap();
    handlers
}

#[tokio::test]
async fn handler_finds_what_the_test_says_and_defaults_of_a_new_job() {
    let handlers = handlers();
    let plain = TestJob::new("facts").run(&handlers).await;
    let found = plain.output().unwrap();
    assert_eq!((&found["input"], &found["attempt"]), (&Value::Null, &json!([1, 3])));
    assert_eq!((&found["namespace"], &found["step"]), (&json!("default"), &Value::Null));
    let job = TestJob::new("facts")
        .input(&json!({ "order": 7 }))
        .namespace("shop")
        .attempt(2, 5)
        .checkpoint(&"row 9")
        .step("pay")
        .result("check", &true)
        .item(&"tea", 3)
        .signal(&json!({ "by": "ada" }))
        .settings(&json!({ "region": "eu" }))
        .facts(|facts| facts.correlation_id = "order-7".to_owned());
    let ended = job.run(&handlers).await;
    let expected = json!({
        "input": { "order": 7 }, "handler": "facts", "namespace": "shop", "step": "pay", "attempt": [2, 5],
        "token": "test-2", "results": { "check": true }, "item": ["tea", 3], "signal": { "by": "ada" },
        "settings": { "region": "eu" }, "saved": "row 9", "correlation": "order-7",
        "id": "00000000-0000-0000-0000-000000000001",
    });
    assert_eq!(ended.settlement, Settlement::Completed(expected));
}

#[tokio::test]
async fn everything_reported_is_kept_in_its_order_until_the_job_is_taken_away() {
    let handlers = handlers();
    let ended = TestJob::new("talk").run(&handlers).await;
    assert_eq!(ended.settlement, Settlement::Completed(Value::Null));
    assert_eq!(ended.reported.progress, [(0.5, Some("half".to_owned())), (1.0, None)]);
    assert_eq!(ended.reported.log, ["a line"]);
    assert_eq!(ended.reported.checkpoints, [json!({ "row": 1 }), json!({ "row": 2 })]);

    let job = TestJob::new("talk").stop_when(Stop::LeaseLost, |said| said.checkpoints.len() == 1);
    let ended = job.run(&handlers).await;
    assert_eq!(ended.settlement, Settlement::Stopped(Stop::LeaseLost));
    assert_eq!((ended.reported.progress.len(), ended.reported.checkpoints.len()), (1, 1));
    let next = ended.next_attempt().unwrap().run(&handlers).await;
    assert_eq!(
        next.settlement,
        Settlement::Completed(Value::Null),
        "what stopped one does not stop the next"
    );

    // Stopped before it begins, it has no result, even if it never looks.
    let ended = TestJob::new("at-once").stop_when(Stop::Cancelled, |_| true).run(&handlers).await;
    assert_eq!(ended.settlement, Settlement::Stopped(Stop::Cancelled));
    assert!(ended.next_attempt().is_none());
}

#[tokio::test]
async fn failures_are_settled_by_their_kind_and_the_attempts_that_are_left() {
    let handlers = handlers();
    let run = async |kind: &str, attempt: u32| {
        TestJob::new("fail").input(kind).attempt(attempt, 2).run(&handlers).await
    };
    let after = Some(Duration::from_secs(7));
    let (first, last) = (run("retryable", 1).await, run("retryable", 2).await);
    assert_eq!(first.settlement, Settlement::Retrying { code: None, message: "later".to_owned(), after });
    assert_eq!(first.next_attempt().unwrap().run(&handlers).await.settlement, last.settlement);
    assert_eq!(last.settlement, Settlement::Failed { code: None, message: "later".to_owned() });
    assert!(last.next_attempt().is_none());
    let permanent = run("permanent", 1).await;
    assert_eq!(permanent.code(), Some("broken"));
    assert!(matches!(permanent.settlement, Settlement::Failed { .. }));
    let snoozed = run("snooze", 2).await;
    assert_eq!(snoozed.settlement, Settlement::Snoozed { after: Duration::from_secs(9) });
    assert!(snoozed.next_attempt().is_some(), "it does not count");
    let panicked = run("panic", 1).await;
    let message = "it fell over".to_owned();
    let code = Some("panic".to_owned());
    assert_eq!(panicked.settlement, Settlement::Retrying { code, message, after: None });
    assert!(matches!(run("stopped", 1).await.settlement, Settlement::Retrying { .. }), "nobody had asked");
    // Input that does not fit is the handler's to refuse, a value that is no JSON the test's.
    assert_eq!(TestJob::new("fail").input(&7).run(&handlers).await.code(), Some("invalid_input"));
    let no_json = std::collections::BTreeMap::from([([1], 1)]);
    assert_eq!(TestJob::new("fail").input(&no_json).run(&handlers).await.code(), Some("invalid_test"));
}

#[tokio::test(start_paused = true)]
async fn attempt_that_takes_too_long_is_stopped_and_dropped_after_its_grace() {
    let handlers = handlers();
    let began = tokio::time::Instant::now();
    let job = TestJob::new("deaf").timeout(Duration::from_secs(60)).grace(Duration::from_secs(3));
    let ended = job.run(&handlers).await;
    assert_eq!(ended.settlement, Settlement::Stopped(Stop::Timeout));
    assert_eq!(began.elapsed(), Duration::from_secs(63));
    assert!(ended.next_attempt().is_some());
    let last = TestJob::new("deaf").timeout(Duration::from_secs(1)).attempt(3, 3).run(&handlers).await;
    assert!(last.next_attempt().is_none());
}

#[tokio::test]
async fn whoever_keeps_the_job_can_be_out_of_reach_and_holds_its_limits() {
    let handlers = handlers();
    let ended = TestJob::new("talk").unreachable_when(|said| !said.log.is_empty()).run(&handlers).await;
    assert!(matches!(ended.settlement, Settlement::Retrying { .. }), "{:?}", ended.settlement);
    assert_eq!((ended.reported.log.len(), ended.reported.checkpoints.len()), (1, 0));
    let mut greedy = Handlers::new();
    greedy
        .job("save", async |context: Context, bytes: usize| context.save(&"x".repeat(bytes)).await)
        .unwrap();
    greedy.job("hurry", async |context: Context, to: f64| context.progress(to, None).await).unwrap();
    for (job, is_good) in [
        (TestJob::new("save").input(&65_534), true),
        (TestJob::new("save").input(&65_535), false),
        (TestJob::new("hurry").input(&1.0), true),
        (TestJob::new("hurry").input(&1.5), false),
    ] {
        let ended = job.run(&greedy).await;
        let code = (!is_good).then_some("refused");
        assert_eq!(ended.code(), code, "{ended:?}");
    }
}

struct Everything;

#[async_trait]
impl Handler for Everything {
    async fn run(&self, context: Context, _: Value) -> Result<Value, Failure> {
        Ok(json!(context.facts().handler))
    }
}

impl Resolver for Everything {
    fn resolve(&self, call: &Call) -> Option<Arc<dyn Handler>> {
        let found: Arc<dyn Handler> = Arc::new(Self);
        call.callable.starts_with("orders.").then_some(found)
    }
}

#[tokio::test]
async fn handler_is_found_as_a_step_would_find_it() {
    let mut handlers = handlers();
    let name = || async |context: Context, (): ()| Ok(context.facts().handler.clone());
    handlers.prefix("mail.", name()).unwrap();
    handlers.method("talk", "quietly", async |_: Context, (): ()| Ok("hush")).unwrap();
    handlers.resolver("registry", Arc::new(Everything)).unwrap();
    handlers.view("prices", async |_: BuildContext| Ok(())).unwrap();
    for (job, output) in [
        (TestJob::new("mail.send"), "mail.send"),
        (TestJob::new("talk").method("quietly"), "hush"),
        (TestJob::new("orders.pay").resolver("registry"), "orders.pay"),
    ] {
        assert_eq!(job.run(&handlers).await.settlement, Settlement::Completed(json!(output)));
    }
    for (job, code) in [
        (TestJob::new("nobody"), "unknown_handler"),
        (TestJob::new("talk").method("loudly"), "unknown_method"),
        (TestJob::new("bank.pay").resolver("registry"), "unknown_handler"),
        (TestJob::new("prices"), "not_a_view"),
    ] {
        assert_eq!(job.run(&handlers).await.code(), Some(code));
    }
}

#[tokio::test]
async fn superseded_build_leaves_its_items_to_the_next_one() {
    let mut handlers = Handlers::new();
    handlers
        .view("numbers", async |build: BuildContext| {
            for number in 0..4 {
                let item = number.to_string();
                if !build.reuse(&item, &item).await? {
                    build.context().log(&format!("computes {item}")).await?;
                    build.put(&item, Some(&item), &number).await?;
                    build.flush().await?;
                }
            }
            let before = build.previous::<i64>(&["0".to_owned(), "9".to_owned()]).await?;
            build.context().log(&format!("before: {before:?}")).await?;
            Ok(())
        })
        .unwrap();
    let job = TestJob::new("numbers")
        .view("n")
        .live("0", Some("0"), &0)
        .live("9", None, &9)
        .stop_when(Stop::Superseded, |said| said.items.len() == 2);
    let first = job.run(&handlers).await;
    assert_eq!(first.settlement, Settlement::Stopped(Stop::Superseded));
    assert_eq!(first.reported.log, ["computes 1", "computes 2"]);
    let second = first.next_attempt().unwrap().run(&handlers).await;
    assert_eq!(second.reported.log, ["computes 3", "before: [Some(0), Some(9)]"]);
    let Settlement::Built(built) = second.settlement else { panic!("{second:?}") };
    assert_eq!(json!(built.items), json!({ "0": 0, "1": 1, "2": 2, "3": 3 }));
    assert_eq!(built.summary.removed, ["9"]);
    assert_eq!((built.summary.computed, built.summary.reused, built.summary.total), (1, 3, 4));
}

#[tokio::test]
async fn step_has_its_part_of_a_build() {
    let mut handlers = Handlers::new();
    handlers
        .job("part", async |context: Context, (): ()| {
            let part = context.build_part().await?;
            assert_eq!((part.key(), part.version(), part.live_version()), ("prices", 6, 5));
            assert_eq!(part.touched(), &Touched::Only(vec!["tea".to_owned()]));
            let known = part
                .reuse(&[("tea".to_owned(), "1".to_owned()), ("milk".to_owned(), "1".to_owned())])
                .await?;
            part.put("tea", Some("2"), &260).await?;
            part.keep_rest().await?;
            Ok(known)
        })
        .unwrap();
    let job = TestJob::new("part").step("put").view("prices").version(6, 5).touched(&["tea"]);
    let ended = job.live("milk", Some("1"), &120).live("tea", Some("0"), &250).run(&handlers).await;
    assert_eq!(ended.settlement, Settlement::Completed(json!([false, true])));
    let put = &ended.reported.items[0];
    assert_eq!((put.item.as_str(), put.value.as_ref()), ("tea", Some(&json!(260))));
    assert_eq!(ended.reported.kept.last(), Some(&Keep::Rest));
    let without = TestJob::new("part").step("put").run(&handlers).await;
    assert_eq!(without.code(), Some("refused"));
}

#[tokio::test]
async fn document_that_is_no_job_is_refused_with_its_place() {
    for (document, why) in [
        (r#"{ "input": 1 }"#, "handler"),
        (r#"{ "handler": "a", "inputs": 1 }"#, "inputs"),
        (r#"{ "handler": "a", "id": "job_7" }"#, "`job_7` is no id of a job"),
        (r#"{ "handler": "a", "attempt": -1 }"#, "line 1"),
    ] {
        let said = TestJob::from_document(document).unwrap_err().to_string();
        assert!(said.starts_with("this is no job: ") && said.contains(why), "{said}");
    }
}

#[cfg(feature = "remote")]
#[tokio::test]
async fn job_of_the_protocol_is_found_whole() {
    use recache_api::{Json, WorkerJob};
    let json = |text: &str| Json::from_text(text).unwrap();
    let job = WorkerJob {
        token: "1.2.3".to_owned(),
        id: "job_0199d6c5-7a30-7000-8000-000000000001".to_owned(),
        handler: "facts".to_owned(),
        claimed_as: "facts".to_owned(),
        method: None,
        namespace: "shop".to_owned(),
        queue: "mail".to_owned(),
        attempt: 2,
        attempts_max: 4,
        correlation_id: "order-7".to_owned(),
        trace_context: None,
        timeout_ms: Some(60_000),
        input: json(r#"{"order":7}"#),
        checkpoint: Some(json("9")),
        build: false,
        again: true,
        step: Some("pay".to_owned()),
        settings: Some(json(r#"{"region":"eu"}"#)),
        results: [("check".to_owned(), json("true"))].into(),
        item: Some(json(r#""tea""#)),
        index: Some(3),
        signal: Some(json("null")),
    };
    let document = serde_json::to_string(&job).unwrap();
    let ended = TestJob::from_document(&document).unwrap().run(&handlers()).await;
    let expected = json!({
        "input": { "order": 7 }, "handler": "facts", "namespace": "shop", "step": "pay", "attempt": [2, 4],
        "token": "1.2.3", "results": { "check": true }, "item": ["tea", 3], "signal": null,
        "settings": { "region": "eu" }, "saved": 9, "correlation": "order-7",
        "id": "0199d6c5-7a30-7000-8000-000000000001",
    });
    assert_eq!(ended.settlement, Settlement::Completed(expected));
}
