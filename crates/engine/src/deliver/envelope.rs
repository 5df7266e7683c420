//! An event as it travels.

use recache_model::ids::{JobId, WorkflowId};
use recache_model::time::Timestamp;
use recache_model::webhook::{Secret, signatures};
use recache_store::EventRecord;
use recache_worker::Event;
use serde_json::{Map, Value, json};

use super::courier::Posting;

/// As a function in this process is told.
pub(super) fn event(record: &EventRecord) -> Event {
    Event {
        id: record.id.to_string(),
        name: record.name.clone(),
        namespace: record.namespace.clone(),
        at_us: record.at.micros(),
        job: record.job.map(JobId::uuid),
        workflow: record.workflow.map(WorkflowId::uuid),
        step: record.step.clone(),
        attempt: record.attempt,
        outcome: record.outcome.clone(),
        correlation_id: record.correlation_id.clone(),
        data: serde_json::from_str(&record.data).unwrap_or(Value::Null),
    }
}

/// As a webhook is sent: `type`, `timestamp` and `data` as the Standard Webhooks specification recommends, and what the event is
/// about. The same event gives the same bytes at every try. The payload is copied as it is: its numbers keep all their digits.
pub(super) fn body(record: &EventRecord) -> String {
    let mut about = Map::new();
    about.insert("id".to_owned(), json!(record.id.to_string()));
    about.insert("namespace".to_owned(), json!(record.namespace));
    let facts = [
        ("job_id", record.job.map(|id| json!(id.to_string()))),
        ("workflow_id", record.workflow.map(|id| json!(id.to_string()))),
        ("step", record.step.as_ref().map(|step| json!(step))),
        ("attempt", record.attempt.map(|attempt| json!(attempt))),
        ("outcome", record.outcome.as_ref().map(|outcome| json!(outcome))),
        ("correlation_id", record.correlation_id.as_ref().map(|id| json!(id))),
    ];
    about.extend(facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let about = Value::Object(about).to_string();
    format!(
        "{{\"type\":{},\"timestamp\":{},\"data\":{},{}",
        json!(record.name),
        json!(record.at.rfc3339()),
        record.data,
        about.strip_prefix('{').unwrap_or("}")
    )
}

/// Signed, ready to be sent at `now`.
pub(super) fn posting(
    record: &EventRecord,
    url: &str,
    secrets: &[Secret],
    now: Timestamp,
    timeout: std::time::Duration,
) -> Posting {
    let (id, body) = (record.id.to_string(), body(record));
    let timestamp_seconds = now.micros().div_euclid(1_000_000);
    let signature = signatures(secrets, &id, timestamp_seconds, body.as_bytes());
    Posting { url: url.to_owned(), id, timestamp_seconds, signature, body, timeout }
}

#[cfg(test)]
mod tests {
    use recache_model::ids::EventId;

    use super::*;

    #[test]
    fn body_holds_the_payload_as_it_is_and_what_it_is_about() {
        let record = EventRecord {
            id: EventId::from_uuid(uuid::Uuid::from_u128(1)),
            namespace: "shop".to_owned(),
            name: "order.placed".to_owned(),
            at: Timestamp::from_micros(1_700_000_000_123_456),
            job: None,
            workflow: None,
            step: Some("take \"it\"".to_owned()),
            attempt: Some(2),
            outcome: Some("completed".to_owned()),
            correlation_id: None,
            data: "{\"n\":12345678901234567890123}".to_owned(),
            problem: None,
            waits_for: None,
        };
        let body = body(&record);
        let expected = "{\"type\":\"order.placed\",\"timestamp\":\"2023-11-14T22:13:20.123456Z\",\
            \"data\":{\"n\":12345678901234567890123},";
        assert!(body.starts_with(expected), "{body}");
        let read: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&read["step"], &read["attempt"]), (&json!("take \"it\""), &json!(2)));
        assert_eq!(read["id"], json!("evt_00000000-0000-0000-0000-000000000001"));
        let secret = Secret::new([1; 32]);
        let sent = posting(
            &record,
            "http://x/",
            std::slice::from_ref(&secret),
            record.at,
            std::time::Duration::ZERO,
        );
        let signed = recache_model::webhook::is_signed_by(
            &secret,
            &sent.signature,
            &sent.id,
            1_700_000_000,
            sent.body.as_bytes(),
        );
        assert!(signed && sent.timestamp_seconds == 1_700_000_000);
    }
}
