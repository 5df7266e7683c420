//! The documents that only the server answers: their shape is a promise.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test says what it expects")]

use recache_api::{
    ApiKey, ApiKeyCreated, ApiKeyRevoked, AuditList, AuditRow, Health, HealthStatus, Instant, JobState,
    JobSubmitted, JobsSubmitted, Json, SubmitJob, SubmitWorkflow, TimelineStep, WorkflowStepList,
    WorkflowTimeline,
};
use serde::Serialize;

fn text(document: &impl Serialize) -> String {
    serde_json::to_string(document).unwrap()
}

fn epoch() -> Instant {
    Instant::from_micros(0).unwrap()
}

#[test]
fn request_with_only_what_must_be_said_has_the_documented_defaults() {
    let job: SubmitJob = serde_json::from_str(r#"{"handler":"echo"}"#).unwrap();
    assert_eq!(
        text(&job),
        r#"{"handler":"echo","namespace":"default","queue":"default","input":null,"priority":0,"delay_ms":null,"due_at":null,"retry":null,"timeout_ms":null,"correlation_id":null,"trace_context":null,"idempotency_key":null,"unique":null,"concurrency_key":null,"batch_id":null}"#
    );
    let workflow: SubmitWorkflow = serde_json::from_str(r#"{"template":"order"}"#).unwrap();
    assert_eq!(
        text(&workflow),
        r#"{"template":"order","namespace":"default","version":null,"environment":null,"input":{},"batch_id":null}"#
    );
    assert!(serde_json::from_str::<SubmitJob>(r#"{"handler":"echo","quue":"x"}"#).is_err());
}

#[test]
fn answers_keep_their_shape() {
    let submitted = JobsSubmitted::new(vec![JobSubmitted::new("job_1".to_owned(), false, false)]);
    assert_eq!(
        text(&submitted),
        r#"{"schema":"recache.jobs-submitted.v1","jobs":[{"schema":"recache.job-submitted.v1","id":"job_1","existed":false,"replaced":false,"job":null}]}"#
    );
    assert_eq!(
        text(&WorkflowStepList::new("wf_1".to_owned(), Vec::new())),
        r#"{"schema":"recache.workflow-steps.v1","workflow_id":"wf_1","steps":[]}"#
    );
    let timeline = WorkflowTimeline {
        schema: WorkflowTimeline::SCHEMA.to_owned(),
        workflow_id: "wf_1".to_owned(),
        state: "running".to_owned(),
        created_at: epoch(),
        finished_at: None,
        steps: vec![TimelineStep {
            name: "fetch".to_owned(),
            job_id: "job_1".to_owned(),
            state: JobState::Queued,
            attempt: 0,
            due_at: epoch(),
            started_at: None,
            finished_at: None,
            waited_ms: None,
            ran_ms: None,
        }],
    };
    assert_eq!(
        text(&timeline),
        r#"{"schema":"recache.workflow-timeline.v1","workflow_id":"wf_1","state":"running","created_at":"1970-01-01T00:00:00.000000Z","finished_at":null,"steps":[{"name":"fetch","job_id":"job_1","state":"queued","attempt":0,"due_at":"1970-01-01T00:00:00.000000Z","started_at":null,"finished_at":null,"waited_ms":null,"ran_ms":null}]}"#
    );
    let health = Health {
        schema: Health::SCHEMA.to_owned(),
        status: HealthStatus::NotReady,
        reasons: vec!["why".to_owned()],
        degraded: Vec::new(),
        version: "0.1.0".to_owned(),
        store: "sqlite".to_owned(),
        checked_at: epoch(),
    };
    assert_eq!(
        text(&health),
        r#"{"schema":"recache.health.v1","status":"not_ready","reasons":["why"],"degraded":[],"version":"0.1.0","store":"sqlite","checked_at":"1970-01-01T00:00:00.000000Z"}"#
    );
}

#[test]
fn keys_and_audit_keep_their_shape_and_no_token_is_in_debug() {
    let key = ApiKey {
        id: "0a".to_owned(),
        name: "deploy".to_owned(),
        scopes: vec!["*:read".to_owned()],
        created_at: epoch(),
        created_by: "ops".to_owned(),
        expires_at: None,
        last_used_at: None,
        revoked_at: None,
        revoked_by: None,
        revoke_reason: None,
    };
    let created = ApiKeyCreated::new(key, "rck_0a_hunter2".to_owned());
    assert_eq!(
        text(&created),
        r#"{"schema":"recache.api-key-created.v1","key":{"id":"0a","name":"deploy","scopes":["*:read"],"created_at":"1970-01-01T00:00:00.000000Z","created_by":"ops","expires_at":null,"last_used_at":null,"revoked_at":null,"revoked_by":null,"revoke_reason":null},"token":"rck_0a_hunter2"}"#
    );
    assert!(!format!("{created:?}").contains("hunter2"));
    assert_eq!(
        text(&ApiKeyRevoked::new("deploy".to_owned(), true)),
        r#"{"schema":"recache.api-key-revoked.v1","key":"deploy","changed":true}"#
    );
    let row = AuditRow {
        id: "1".to_owned(),
        at: epoch(),
        actor: "key:deploy".to_owned(),
        action: "jobs.cancel".to_owned(),
        namespace: Some("shop".to_owned()),
        target: "job_1".to_owned(),
        reason: "wrong".to_owned(),
        outcome: "done".to_owned(),
        before: Some(Json::from_text("{}").unwrap()),
        after: None,
        request_id: None,
    };
    assert_eq!(
        text(&AuditList::new(vec![row], None)),
        r#"{"schema":"recache.audit.v1","rows":[{"id":"1","at":"1970-01-01T00:00:00.000000Z","actor":"key:deploy","action":"jobs.cancel","namespace":"shop","target":"job_1","reason":"wrong","outcome":"done","before":{},"after":null,"request_id":null}],"next":null}"#
    );
}
