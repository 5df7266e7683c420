//! OTLP in JSON (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>): ids in hexadecimal, numbers of 64 bits as text.

use serde_json::{Value, json};
use uuid::Uuid;

/// Who sends.
#[derive(Debug, Clone)]
pub(super) struct Resource(Value);

impl Resource {
    /// This process.
    pub(super) fn new(service: &str, role: &str) -> Self {
        Self(json!({ "attributes": [
            attribute("service.name", &json!(service)),
            attribute("service.version", &json!(env!("CARGO_PKG_VERSION"))),
            attribute("service.instance.id", &json!(Uuid::new_v4().to_string())),
            attribute("process.pid", &json!(std::process::id())),
            attribute("recache.role", &json!(role)),
        ] }))
    }

    /// The body of one request: `traces`, `logs` or `metrics`.
    pub(super) fn body(&self, signal: Signal, items: &[Value]) -> Value {
        let (resources, scopes, list) = signal.names();
        let scope = json!({ "name": "recache", "version": env!("CARGO_PKG_VERSION") });
        json!({ resources: [{ "resource": self.0, scopes: [{ "scope": scope, list: items }] }] })
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Traces,
    Logs,
    Metrics,
}

impl Signal {
    pub(super) const ALL: [Self; 3] = [Self::Traces, Self::Logs, Self::Metrics];

    /// Where it is taken, below the endpoint.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Logs => "v1/logs",
            Self::Metrics => "v1/metrics",
        }
    }

    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Traces => ("resourceSpans", "scopeSpans", "spans"),
            Self::Logs => ("resourceLogs", "scopeLogs", "logRecords"),
            Self::Metrics => ("resourceMetrics", "scopeMetrics", "metrics"),
        }
    }
}

/// One attribute; a number, a truth value or a text.
pub(super) fn attribute(key: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": key, "value": value })
}

/// Microseconds since 1970 as OTLP has times.
pub(super) fn nanos(micros: i64) -> String {
    i128::from(micros).saturating_mul(1_000).max(0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_specification_says() {
        for (value, written) in [
            (json!(7), json!({ "intValue": "7" })),
            (json!(1.5), json!({ "doubleValue": 1.5 })),
            (json!(true), json!({ "boolValue": true })),
            (json!("x"), json!({ "stringValue": "x" })),
        ] {
            assert_eq!(attribute("k", &value), json!({ "key": "k", "value": written }));
        }
        assert_eq!(nanos(1_700_000_000_123_456), "1700000000123456000");
    }
}
