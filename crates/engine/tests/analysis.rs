//! The analysis of workflows as they stand: what a step was split into belongs to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects, and says loudly what it cannot run"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use recache_engine::analysis::{GraphAnalysis, analyze_workflow};
use recache_model::analysis::NoCompletion;
use recache_model::ids::WorkflowId;
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::workflow::StepKind;
use recache_store::conformance::{Subject, TestDatabase};
use recache_store::{Child, Children, ClaimedJob, NewJob, Outcome};
use support::chain;

on_both_databases!(runs_of_a_step_that_was_split_belong_to_it);

/// `before`, `split` and `after`, one after the other, of which the second is split into three runs of this kind, that take one, two
/// and three seconds. The first run fails.
async fn split(subject: &Subject, kind: StepKind) -> WorkflowId {
    let new = chain("split", &["before", "split", "after"]);
    let id = new.id;
    assert!(subject.store.workflow_submit(new).await.unwrap());
    let session = subject.session().await;
    let done = || Outcome::Completed { output: "1".to_owned() };
    let before = subject.claim_one(session).await;
    subject.advance(Duration::from_secs(5));
    subject.settle(&before, done()).await;
    let turn = subject.claim_one(session).await;
    let jobs = (0..3).map(|item: u32| Child {
        job: NewJob::new("work", "{}"),
        item: item.to_string(),
        has_rules: false,
    });
    let children = Children { kind, parallelism: None, jobs: jobs.collect() };
    subject.settle(&turn, Outcome::Split(Arc::new(children))).await;
    let mut runs: Vec<ClaimedJob> = subject.claim(session, 10).await;
    runs.sort_by_key(|run| run.step.clone());
    for (place, run) in runs.iter().enumerate() {
        subject.advance(Duration::from_secs(1));
        let failed = Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") };
        // With the last one the step would go on.
        if kind == StepKind::TolerantChild && place == 2 {
            break;
        }
        subject.settle(run, if place == 0 { failed } else { done() }).await;
    }
    id
}

fn place(found: &GraphAnalysis, name: &str) -> usize {
    found.names.iter().position(|one| one == name).unwrap()
}

fn names(found: &GraphAnalysis, places: &[usize]) -> Vec<String> {
    let mut names: Vec<String> = places.iter().map(|place| found.names[*place].clone()).collect();
    names.sort();
    names
}

async fn runs_of_a_step_that_was_split_belong_to_it(database: TestDatabase) {
    let subject = Subject::new(database).await;
    let found = analyze_workflow(&*subject.store, split(&subject, StepKind::Child).await).await.unwrap();
    let runs = ["split[0]", "split[1]", "split[2]"];
    assert_eq!(names(&found, &found.analysis.roots), ["before"]);
    assert_eq!(names(&found, &found.analysis.leaves), ["after"]);
    assert_eq!(
        names(&found, found.graph.dependencies(place(&found, "split"))),
        [&["before"][..], &runs].concat()
    );
    for run in runs {
        assert_eq!(names(&found, found.graph.dependencies(place(&found, run))), ["before"]);
    }
    // The failed run is what holds up the step and what is behind it.
    let blocked = &found.analysis.blocked;
    assert_eq!((blocked.waiting, blocked.stuck, blocked.root_causes_total), (2, 2, 1));
    let cause = &blocked.root_causes[0];
    assert_eq!(found.names[cause.step], "split[0]");
    assert_eq!((cause.frees, cause.blocks), (2, 2));
    assert_eq!(names(&found, &cause.chain), ["after", "split"]);
    assert_eq!(found.states[cause.step], Some(JobState::Failed));
    assert_eq!(found.analysis.completion, Err(NoCompletion::Stuck));
    // The longest run is on the critical path.
    let path: Vec<&str> =
        found.analysis.critical_path.steps.iter().map(|step| found.names[*step].as_str()).collect();
    assert_eq!(path, ["before", "split[2]", "split", "after"]);

    // A failure that only counts as an end holds nothing up, and is shown as what it is.
    let found =
        analyze_workflow(&*subject.store, split(&subject, StepKind::TolerantChild).await).await.unwrap();
    assert_eq!((found.analysis.blocked.stuck, found.analysis.blocked.root_causes_total), (0, 0));
    assert_eq!(found.states[place(&found, "split[0]")], Some(JobState::Failed));
    assert!(found.analysis.completion.is_ok(), "{:?}", found.analysis.completion);
    subject.store.close().await;
}
