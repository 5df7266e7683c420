//! Payloads of events that are made over HTTP, by a program in any language.
//!
//! `POST` of what the step's end was, as JSON; the answer, which must be JSON, is the payload. Which addresses may be reached, redirects,
//! limits and signatures are those of `http`. The request's id is the event's, the same at every try.
//!
//! Only 422 says that there will be no payload. A wrong path, a refused address, a key that is not good are somebody's mistakes, which are
//! mended: tries have an end, and an event that is kept back is not made again.

use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, WorkflowId};
use recache_model::time::Timestamp;
use recache_worker::{Failure, PublishContext, Publisher, StepEnd};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::settings::Request;
use super::{Http, Named};
use crate::builtin::Options;

/// The code of an answer of 422.
const REFUSAL: &str = "http_422";

/// Makes payloads at one URL.
#[derive(Debug)]
pub(in crate::builtin) struct HttpPublisher {
    http: Http,
    url: Url,
}

impl HttpPublisher {
    pub(in crate::builtin) fn new(options: Options, url: Url) -> Self {
        Self { http: Http::new(options), url }
    }
}

#[async_trait]
impl Publisher for HttpPublisher {
    async fn payload(&self, context: PublishContext, end: StepEnd) -> Result<Value, Failure> {
        let json = HeaderValue::from_static("application/json");
        let request = Request {
            url: self.url.clone(),
            method: Method::POST,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, json.clone()), (ACCEPT, json)]),
            body: Some(body(&context, &end)?),
            // The engine holds a publisher to its time.
            timeout: Duration::MAX,
        };
        let answer = self.http.exchange(request, &context.event_id).await.map_err(may_be_mended)?;
        answer.json().ok_or_else(|| {
            let named = Named { method: &Method::POST, url: &self.url };
            Failure::permanent("invalid_payload", format!("{named} answered no JSON"))
        })
    }
}

fn may_be_mended(failure: Failure) -> Failure {
    match failure {
        Failure::Permanent { code, message } if code != REFUSAL => {
            Failure::Retryable { code: Some(code), message, after: None }
        }
        other => other,
    }
}

/// The event without its payload, as webhooks have it, and how the step ended.
fn body(context: &PublishContext, end: &StepEnd) -> Result<String, Failure> {
    let broken = |error: serde_json::Error| Failure::permanent("invalid_end", error);
    let mut about = json!({
        "type": context.event,
        "timestamp": Timestamp::from_micros(context.at_us).rfc3339(),
        "id": context.event_id,
        "publisher": context.publisher,
        "namespace": context.namespace,
        "job_id": context.job.map(|id| JobId::from_uuid(id).to_string()),
        "workflow_id": context.workflow.map(|id| WorkflowId::from_uuid(id).to_string()),
        "step": context.step,
        "attempt": context.attempt,
        "correlation_id": context.correlation_id,
        "workflow_input": context.workflow_input,
    });
    if let (Value::Object(about), Value::Object(end)) =
        (&mut about, serde_json::to_value(end).map_err(broken)?)
    {
        about.extend(end);
    }
    Ok(about.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_by_the_publisher_is_for_good() {
        let failed = |code: &str| may_be_mended(Failure::permanent(code, "x"));
        assert!(matches!(failed("http_422"), Failure::Permanent { .. }));
        for code in ["http_404", "http_401", "address_refused", "too_many_redirects", "http_client"] {
            assert!(matches!(failed(code), Failure::Retryable { .. }), "{code}");
        }
        let after = Some(Duration::from_secs(7));
        let busy = Failure::Retryable { code: None, message: "x".to_owned(), after };
        assert_eq!(may_be_mended(busy.clone()), busy);
    }
}
