//! The shape of the documents about workflows, pinned.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test says what it expects")]

use recache_api::{
    Instant, JobState, Json, StepCounts, Workflow, WorkflowChange, WorkflowDetails, WorkflowList,
    WorkflowSignal, WorkflowStep,
};
use serde_json::json;

fn workflow() -> Workflow {
    Workflow {
        id: "wf_1".to_owned(),
        namespace: "shop".to_owned(),
        template: "order".to_owned(),
        version: "1.0.0".to_owned(),
        environment: None,
        state: "running".to_owned(),
        steps: StepCounts { blocked: 1, active: 2, done: 3, failed: 4, cancelled: 5 },
        parent_step: Some("job_1".to_owned()),
        created_at: Instant::from_micros(0).unwrap(),
        finished_at: None,
    }
}

#[test]
fn documents_about_workflows_keep_their_shape() {
    let of_workflow = json!({
        "id": "wf_1", "namespace": "shop", "template": "order", "version": "1.0.0", "environment": null,
        "state": "running", "steps": { "blocked": 1, "active": 2, "done": 3, "failed": 4, "cancelled": 5 },
        "parent_step": "job_1", "created_at": "1970-01-01T00:00:00.000000Z", "finished_at": null,
    });
    let list = WorkflowList::new(vec![workflow()], Some("wf_1".to_owned()));
    assert_eq!(
        serde_json::to_value(&list).unwrap(),
        json!({ "schema": "recache.workflows.v1", "workflows": [of_workflow], "next": "wf_1" })
    );
    let step = WorkflowStep {
        name: "a[0]".to_owned(),
        job_id: "job_2".to_owned(),
        state: JobState::Skipped,
        handler: "echo".to_owned(),
        attempt: 1,
        waits_for: vec!["b".to_owned()],
        message: Some("why".to_owned()),
        error: None,
        output: None,
        sub_workflow: None,
    };
    let signal = WorkflowSignal {
        kind: "approval".to_owned(),
        name: "boss".to_owned(),
        payload: Json::from_text("1.50").unwrap(),
        actor: "ann".to_owned(),
        received_at: Instant::from_micros(1).unwrap(),
    };
    let details = WorkflowDetails::new(workflow(), Json::from_text("{}").unwrap(), vec![step], vec![signal]);
    let text = serde_json::to_string(&details).unwrap();
    assert_eq!(serde_json::from_str::<WorkflowDetails>(&text).unwrap(), details);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value["steps"][0],
        json!({
            "name": "a[0]", "job_id": "job_2", "state": "skipped", "handler": "echo", "attempt": 1, "waits_for": ["b"],
            "message": "why", "error": null, "output": null, "sub_workflow": null,
        })
    );
    assert_eq!(
        value["signals"][0],
        json!({
            "kind": "approval", "name": "boss", "payload": 1.5, "actor": "ann",
            "received_at": "1970-01-01T00:00:00.000001Z",
        })
    );
    let change = WorkflowChange::new("wf_1".to_owned(), "told", None, 0);
    assert_eq!(
        serde_json::to_string(&change).unwrap(),
        r#"{"schema":"recache.workflow-change.v1","id":"wf_1","change":"told","step":null,"count":0,"workflow":null}"#
    );
}
