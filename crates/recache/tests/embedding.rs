//! The facade as a program's author uses it, and the examples as programs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache::model::ids::WorkflowId;
use recache::model::job::JobState;
use recache::store::NewSchedule;
use recache::testing::TestEngine;
use recache::{
    BuildContext, Context, Event, Failure, Handlers, NewView, Options, RetryPolicy, Subscribers, Template,
};
use recache::{ItemRules, Touch, ViewPolicy};
use serde_json::{Value, json};

fn handlers() -> Handlers {
    let mut handlers = Handlers::new();
    handlers.job("double", async |_: Context, n: i64| Ok(n * 2)).unwrap();
    let never = async |_: Context, _: Value| Err::<(), _>(Failure::permanent("never", "it never works"));
    handlers.job("never", never).unwrap();
    handlers.view("prices", async |build: BuildContext| build.put("tea", None, &250).await).unwrap();
    handlers
}

#[tokio::test]
async fn app_submits_waits_and_says_why_there_is_no_result() {
    let app = recache::app("sqlite::memory:").handlers(handlers()).start().await.unwrap();
    assert_eq!(app.run::<i64>("double", &21).await.unwrap(), 42);
    let why = app.run::<i64>("never", &1).await.unwrap_err().to_string();
    assert!(why.contains("failed") && why.contains("it never works"), "{why}");
    assert!(app.run::<String>("double", &21).await.unwrap_err().to_string().contains("does not fit"));
    app.shut_down().await;
}

#[tokio::test]
async fn nothing_happens_in_a_test_but_what_is_due_when_it_is_asked_for() {
    let test = TestEngine::start(handlers()).await.unwrap();
    let job = test.submit("double", &4).await.unwrap();
    assert_eq!(test.engine().job(job).await.unwrap().state, JobState::Queued);
    assert_eq!(test.run_due().await.unwrap().attempts, 1);
    assert_eq!(test.output(job).await.unwrap(), Some(json!(8)));
    assert_eq!(test.run_due().await.unwrap().attempts, 0);
    test.assert_submitted("double", &json!(4)).await;
    test.assert_nothing_submitted("never").await;
    // A year passes in no time.
    let hourly = NewSchedule { input: "7".to_owned(), ..NewSchedule::new("hourly", "0 * * * *", "double") };
    test.engine().store().schedules().schedule_put(hourly).await.unwrap();
    for _ in 0..3 {
        test.advance(Duration::from_hours(1));
        assert_eq!(test.run_due().await.unwrap().scheduled, 1);
    }
    assert_eq!(test.jobs("double").await.unwrap().len(), 4);
    assert_eq!(test.waiting().await.unwrap(), 0);
}

#[tokio::test]
#[should_panic(expected = "no job of `double` was submitted with 5; there are 1:\n  4")]
async fn assertion_says_what_was_submitted_instead() {
    let test = TestEngine::start(handlers()).await.unwrap();
    test.submit("double", &4).await.unwrap();
    test.assert_submitted("double", &json!(5)).await;
}

#[tokio::test]
async fn views_workflows_and_events_come_to_rest_in_a_test() {
    let heard: Arc<Mutex<Vec<Event>>> = Arc::default();
    let kept = Arc::clone(&heard);
    let mut subscribers = Subscribers::new();
    let told = move |event| {
        kept.lock().unwrap().push(event);
        std::future::ready(Ok(()))
    };
    subscribers.on("all", &["*", "view.published"], told).unwrap();
    let test = TestEngine::start_with(handlers(), subscribers, Options::default()).await.unwrap();
    let source = json!({ "name": "w", "version": "1.0.0", "steps": [
        { "name": "a", "handler": { "callable": "double" }, "publishes_events": ["doubled"] },
        { "name": "b", "handler": { "callable": "double" }, "depends_on": ["a"] },
    ] });
    let template = Template::parse(&source.to_string(), "w.json").unwrap();
    let id = WorkflowId::make();
    test.engine().submit_workflow(id, &template, &json!(3)).await.unwrap();
    let view = NewView {
        namespace: "shop".into(),
        key: "prices".into(),
        handler: "prices".into(),
        queue: "default".into(),
        policy: ViewPolicy::default(),
        retry: RetryPolicy::default(),
        timeout: None,
        rules: ItemRules::default(),
        options: recache_model::view_options::ViewOptions::default(),
    };
    test.engine().define_view(view).await.unwrap();
    let touch = Touch { namespace: "shop".into(), key: "prices".into(), items: vec![], ..Touch::default() };
    test.engine().touch(touch).await.unwrap();
    assert_eq!(test.run_due().await.unwrap().attempts, 2, "the view waits for its debounce");
    test.advance(Duration::from_secs(10));
    let ran = test.run_due().await.unwrap();
    assert_eq!((ran.builds, ran.attempts), (1, 1));
    let heard: Vec<String> = heard.lock().unwrap().iter().map(|event| event.name.clone()).collect();
    assert_eq!(heard, ["doubled", "view.published"]);
}

#[tokio::test]
async fn steps_that_are_decided_split_and_limited_find_their_methods_and_publish() {
    let heard: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let kept = Arc::clone(&heard);
    let mut subscribers = Subscribers::new();
    let told = move |event: Event| {
        kept.lock().unwrap().push((event.name, event.data));
        std::future::ready(Ok(()))
    };
    subscribers.on("all", &["*"], told).unwrap();
    let mut handlers = handlers();
    handlers.method("double", "choose", async |_: Context, _: Value| Ok(["chosen"])).unwrap();
    handlers
        .method("double", "item", async |context: Context, _: Value| Ok(context.facts().item.clone()))
        .unwrap();
    let test = TestEngine::start_with(handlers, subscribers, Options::default()).await.unwrap();
    let of = |method: &str| json!({ "callable": "double", "method": method });
    let all = |name: &str| json!([{ "name": name, "condition": "always" }]);
    let source = json!({ "name": "w", "version": "1.0.0", "steps": [
        { "name": "decides", "type": "decision", "handler": of("choose"), "publishes_events": all("decided") },
        { "name": "chosen", "handler": of("item"), "depends_on": ["decides"], "publishes_events": all("ran") },
        { "name": "other", "handler": of("item"), "depends_on": ["decides"], "publishes_events": all("no") },
        { "name": "each", "for_each": "input.list", "handler": of("item"), "publishes_events": all("split") },
        { "name": "rated", "rate_limit": { "limit": 9 }, "handler": of("item"), "publishes_events": all("rated") },
        { "name": "skipped", "when": "false", "handler": of("item"), "publishes_events": all("no") },
    ] });
    let template = Template::parse(&source.to_string(), "w.json").unwrap();
    let id = WorkflowId::make();
    test.engine().submit_workflow(id, &template, &json!({ "list": [7, 8] })).await.unwrap();
    let ran = test.run_due().await.unwrap();
    assert_eq!(ran.attempts, 5, "decides, chosen, rated, and each twice: {ran:?}");
    assert!(ran.turns >= 4, "{ran:?}");
    let workflow = test.engine().store().workflow_get(id).await.unwrap();
    assert_eq!(workflow.state.as_str(), "completed");
    let mut heard = heard.lock().unwrap().clone();
    heard.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("decided", json!(["chosen"])),
        ("ran", Value::Null),
        ("rated", Value::Null),
        ("split", json!([7, 8])),
    ];
    assert_eq!(heard, expected.map(|(name, data)| (name.to_owned(), data)));
}

#[test]
fn examples_run_to_their_end() {
    // Built beside the tests by whoever builds those.
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples");
    let output = Command::new(folder.join("orders")).output().expect("the example is built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "completed: order.placed {\"total\":500}\n");
}
