//! Events, subscribers and deliveries as documents.

use recache_api as api;
use recache_model::event::DeliveryState;
use recache_store::{DeliveryAttempt, DeliveryRecord, EventRecord, SubscriberRecord};

use super::records::{instant, json, ms, retry_policy};

/// An event.
pub fn event(record: EventRecord) -> api::Event {
    api::Event {
        id: record.id.to_string(),
        name: record.name,
        namespace: record.namespace,
        at: instant(record.at),
        job_id: record.job.map(|id| id.to_string()),
        workflow_id: record.workflow.map(|id| id.to_string()),
        step: record.step,
        attempt: record.attempt,
        outcome: record.outcome,
        correlation_id: record.correlation_id,
        data: json(&record.data),
        problem: record.problem,
        waits_for: record.waits_for,
    }
}

/// A subscriber.
pub fn subscriber(record: SubscriberRecord) -> api::Subscriber {
    api::Subscriber {
        name: record.name,
        kind: if record.url.is_some() { "webhook" } else { "handler" }.to_owned(),
        url: record.url.as_deref().map(address_shown),
        types: record.filter.types,
        namespace: record.filter.namespace,
        state: record.state.to_string(),
        state_at: instant(record.state_at),
        state_actor: record.word.actor,
        state_reason: record.word.reason,
        failures: record.failures,
        rest_until: record.rest_until.map(instant),
        old_secret_until: record.old_secret_until.map(instant),
        timeout_ms: ms(record.timeout),
        retry: retry_policy(record.retry),
        waiting: record.waiting,
        dead: record.dead,
        created_at: instant(record.created_at),
    }
}

/// A delivery with its tries.
pub fn delivery(record: DeliveryRecord, attempts: Vec<DeliveryAttempt>) -> api::Delivery {
    let attempts = attempts.into_iter().map(|attempt| api::DeliveryAttempt {
        attempt: attempt.attempt,
        at: instant(attempt.at),
        took_ms: ms(attempt.took),
        status: attempt.status,
        error: attempt.error,
    });
    api::Delivery {
        subscriber: record.subscriber,
        event_id: record.event.to_string(),
        name: record.name,
        state: record.state.to_string(),
        attempt: record.attempt,
        attempts_max: record.attempts_max,
        created_at: instant(record.created_at),
        due_at: (record.state == DeliveryState::Pending).then(|| instant(record.due_at)),
        ended_at: record.ended_at.map(instant),
        status: record.status,
        error: record.error,
        attempts: attempts.collect(),
    }
}

/// An address as it may be shown: its query may hold a secret.
pub fn address_shown(text: &str) -> String {
    match text.split_once(['?', '#']) {
        Some((address, _)) => format!("{address}?***"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_of_an_address_is_not_shown() {
        assert_eq!(address_shown("https://example.com/a?token=hunter2#x"), "https://example.com/a?***");
        assert_eq!(address_shown("https://example.com/a"), "https://example.com/a");
    }
}
