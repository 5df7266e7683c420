//! Cases: figures over what has run.

use std::time::Duration;

use super::Subject;
use super::workflows::{template, workflow};
use crate::figures::StepFigures;
use crate::records::{NewWorkflow, Outcome, TemplateRecord};

/// Runs a workflow of two steps, one after the other; each waits so many seconds and runs so many.
async fn run(subject: &Subject, template: &TemplateRecord, wait_s: u64, run_s: u64) {
    let new = NewWorkflow { template: template.clone(), ..workflow(&[("first", &[]), ("second", &[0])]) };
    assert!(subject.store.workflow_submit(new).await.expect("stored"));
    let session = subject.session().await;
    for _ in 0..2 {
        subject.advance(Duration::from_secs(wait_s));
        let job = subject.claim_one(session).await;
        subject.advance(Duration::from_secs(run_s));
        subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
    }
}

async fn figures(subject: &Subject, digest: &str, workflows_max: u32) -> StepFigures {
    subject.store.figures().step_figures("default", "example", digest, workflows_max).await.expect("answered")
}

fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-9, "{value}, not {expected}");
}

/// Run and wait apart, in seconds; what has not ended does not count.
pub async fn steps_of_ended_workflows_are_summed_up_by_name(subject: &Subject) {
    assert_eq!(figures(subject, "d1", 10).await, StepFigures::default());
    run(subject, &template(), 2, 3).await;
    run(subject, &template(), 1, 5).await;
    assert!(subject.store.workflow_submit(workflow(&[("first", &[])])).await.expect("stored"));
    let found = figures(subject, "d1", 10).await;
    assert_eq!(found.workflows, 2);
    assert_eq!(found.steps.iter().map(|step| step.step.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    for step in &found.steps {
        assert_eq!(step.count, 2);
        near(step.run_sum, 8.0);
        near(step.run_squares, 34.0);
        near(step.wait_sum, 3.0);
        near(step.wait_squares, 5.0);
    }
    let other = subject.store.figures().step_figures("other", "example", "d1", 10).await;
    assert_eq!(other.expect("answered"), StepFigures::default());
}

/// A new version starts with what its predecessors took, until it has workflows of its own.
pub async fn newest_workflows_of_the_asked_version_come_first(subject: &Subject) {
    let next = TemplateRecord { digest: "d2".to_owned(), version: "2.0.0".to_owned(), ..template() };
    run(subject, &template(), 0, 7).await;
    run(subject, &template(), 0, 1).await;
    run(subject, &next, 0, 2).await;
    let sum = async |digest, workflows_max| {
        let found = figures(subject, digest, workflows_max).await;
        (found.workflows, found.steps[0].run_sum)
    };
    assert_eq!(sum("d1", 1).await, (1, 1.0));
    assert_eq!(sum("d1", 2).await, (2, 8.0));
    assert_eq!(sum("d2", 1).await, (1, 2.0));
    assert_eq!(sum("d2", 2).await, (2, 3.0));
    assert_eq!(sum("not stored yet", 10).await, (3, 10.0));
    assert_eq!(figures(subject, "d1", 0).await, StepFigures::default());
}
