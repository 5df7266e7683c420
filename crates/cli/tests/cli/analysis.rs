//! Analysing graphs: of templates, and of workflows with a history.

use std::time::Duration;

use recache_model::ids::WorkflowId;
use recache_model::job::{ErrorKind, JobError};
use recache_store::conformance::{Subject, TestDatabase, postgres_database, sqlite_database};
use recache_store::{ClaimRequest, NewJob, NewStep, NewWorkflow, Outcome, Settlement, TemplateRecord};

use super::world::{Ran, World, recache, run};

const ORDER: &str = "
name: order
namespace: shop
version: 1.0.0
steps:
  - { name: fetch, handler: { callable: work } }
  - { name: tax, handler: { callable: work }, depends_on: [fetch] }
  - { name: bill, handler: { callable: work }, depends_on: [fetch] }
  - { name: ship, handler: { callable: work }, depends_on: [tax, bill] }
";

fn order() -> NewWorkflow {
    let template = recache_model::template::Template::parse(ORDER, "order.yaml").expect("a good template");
    let steps: [(&str, &[usize]); 4] = [("fetch", &[]), ("tax", &[0]), ("bill", &[0]), ("ship", &[1, 2])];
    NewWorkflow {
        id: WorkflowId::make(),
        template: TemplateRecord {
            digest: template.digest().to_string(),
            namespace: "shop".to_owned(),
            name: "order".to_owned(),
            version: "1.0.0".to_owned(),
            content: template.canonical_json().to_owned(),
        },
        template_raise: None,
        environment: None,
        limits: recache_model::lifecycle::TimeLimits::default(),
        takes_over: None,
        input: "{}".to_owned(),
        correlation_id: "c".to_owned(),
        steps: steps
            .map(|(name, waits_for)| {
                let job = NewJob { namespace: "shop".to_owned(), ..NewJob::new("work", "{}") };
                NewStep::new(name, job, waits_for.to_vec())
            })
            .to_vec(),
    }
}

/// Runs steps of the one workflow that is there, each for so many seconds, until none is left or one is to fail.
async fn play(subject: &Subject, seconds: impl Fn(&str) -> Option<u64>) {
    let session = subject.session().await;
    loop {
        subject.store.session_beat(session, Duration::from_secs(600), Vec::new()).await.expect("a beat");
        let request = ClaimRequest {
            session,
            queues: vec!["default".to_owned()],
            handlers: vec!["work".to_owned()],
            rows_max: 1,
        };
        let claimed = subject.store.jobs_dispatch(Vec::new(), Some(request)).await.expect("a claim").claimed;
        let Some(job) = claimed.into_iter().next() else { return };
        let outcome = match seconds(job.step.as_deref().expect("a step")) {
            Some(seconds) => {
                subject.advance(Duration::from_secs(seconds));
                Outcome::Completed { output: "1".to_owned() }
            }
            None => Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no such customer") },
        };
        let settlement = Settlement::of(&job, outcome);
        subject.store.jobs_dispatch(vec![settlement], None).await.expect("settled");
    }
}

#[test]
fn template_of_a_file_needs_no_database() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("order.yaml"), ORDER).expect("written");
    let analyze = |more: &[&str]| {
        let mut command = recache(folder.path());
        command.args(["template", "analyze", "order.yaml"]).args(more);
        run(&mut command)
    };
    insta::assert_snapshot!("template_analyze", analyze(&[]).expect(0));
    insta::assert_snapshot!("template_analyze_mermaid", analyze(&["--as", "mermaid"]).expect(0));
    assert!(analyze(&["--as", "svg"]).expect(0).starts_with("<svg "));
    let found = analyze(&["-o", "json"]).json();
    assert_eq!(found["measure"], "steps");
    assert_eq!(found["critical_path"]["steps"], serde_json::json!(["fetch", "tax", "ship"]));
    assert_eq!((&found["no_completion"], &found["workflow_id"]), (&"not_running".into(), &().into()));
    analyze(&["--as", "ascii"]).refused(2, &["text, mermaid, svg"]);

    let circle =
        ORDER.replace("depends_on: [fetch] }\n  - { name: bill", "depends_on: [ship] }\n  - { name: bill");
    std::fs::write(folder.path().join("order.yaml"), circle).expect("written");
    analyze(&[]).refused(1, &["ship", "tax"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflow_is_analyzed_over_sqlite() {
    analyzed(sqlite_database()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflow_is_analyzed_over_postgresql() {
    if let Some(database) = postgres_database().await {
        analyzed(database).await;
    }
}

async fn analyzed(database: TestDatabase) {
    let url = database.url().to_owned();
    let subject = Subject::new(database).await;
    let folder = tempfile::tempdir().expect("a folder");
    let recache = |arguments: &[&str]| -> Ran {
        let mut command = recache(folder.path());
        run(command.env("RECACHE_DATABASE", &url).args(arguments))
    };
    let long_bill = |step: &str| Some(if step == "bill" { 5 } else { 2 });
    for _ in 0..2 {
        assert!(subject.store.workflow_submit(order()).await.expect("stored"));
        play(&subject, long_bill).await;
    }
    let stuck = order();
    let id = stuck.id.to_string();
    assert!(subject.store.workflow_submit(stuck).await.expect("stored"));
    play(&subject, |step| (step != "bill").then_some(2)).await;

    let found = recache(&["workflow", "analyze", &id, "-o", "json"]).json();
    assert_eq!(found["workflow_id"], id.as_str());
    assert_eq!((&found["history_workflows"], &found["no_completion"]), (&3.into(), &"stuck".into()));
    let cause = &found["blocked"]["root_causes"][0];
    assert_eq!(
        (&cause["step"], &cause["frees_steps"], &cause["blocks_steps"]),
        (&"bill".into(), &1.into(), &1.into())
    );
    assert_eq!(cause["error"]["message"], "no such customer");
    assert_eq!(found["steps"][0]["duration_basis"], "measured");
    assert_eq!(found["steps"][3]["duration_basis"], "history");
    let text = recache(&["workflow", "analyze", &id]).expect(0);
    assert!(text.contains("bill  failed  1 steps, 2.000 s  1       ship   no such customer"), "{text}");
    assert!(text.contains("* ship (blocked, ~2.0 s) <- tax, bill"), "{text}");

    // What earlier workflows took is what the template's critical path goes by.
    let found = recache(&["template", "analyze", "shop/order", "-o", "json"]).json();
    assert_eq!(found["critical_path"]["steps"], serde_json::json!(["fetch", "bill", "ship"]));
    assert_eq!((&found["critical_path"]["length_ms"], &found["measure"]), (&9_000.into(), &"time".into()));
    std::fs::write(folder.path().join("order.yaml"), ORDER).expect("written");
    let found = recache(&["template", "analyze", "order.yaml", "--history", "-o", "json"]).json();
    assert_eq!(found["critical_path"]["length_ms"], 9_000);

    recache(&["workflow", "analyze", &WorkflowId::make().to_string()])
        .refused(3, &["E-NOT-FOUND", "check the id, and --database"]);
    recache(&["workflow", "analyze", "wf_1"]).refused(2, &["wf_1"]);
    subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn analysis_changes_nothing() {
    let world = World::sqlite().await;
    let before = world.rows().await;
    world.run(&["workflow", "analyze", &WorkflowId::make().to_string()]).refused(3, &["does not exist"]);
    world.run(&["template", "analyze", "shop/none"]).refused(3, &["does not exist"]);
    assert_eq!(world.rows().await, before);
}
