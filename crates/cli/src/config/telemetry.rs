//! `[telemetry]`: what is sent to a collector of OpenTelemetry.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::schema::{ConfigOption, Kind, Refusal};

/// Where traces, figures and log lines are sent. Default: nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TelemetryConfig {
    /// Where OTLP over HTTP is taken: `http://127.0.0.1:4318`. Empty: nothing is sent. Default empty.
    pub(crate) otlp_endpoint: String,
    /// The header `Authorization` of what is sent. Default none.
    pub(crate) authorization: Secret,
    /// The name of the service. Default `recache`.
    pub(crate) service_name: String,
    /// Of a thousand traces that begin here so many are kept. Default 1,000.
    pub(crate) traces_per_mille: u32,
    /// Log lines are sent too. Default true.
    pub(crate) logs: bool,
    /// How often figures are sent. Default 15 s.
    pub(crate) figures_every: Duration,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl TelemetryConfig {
    /// Whether anything is sent.
    pub(crate) fn is_on(&self) -> bool {
        !self.otlp_endpoint.is_empty()
    }

    /// Of a thousand traces that would begin here, so many do and are kept; none where nothing is sent.
    pub(crate) fn traces_begun_per_mille(&self) -> u32 {
        if self.is_on() { self.traces_per_mille } else { 0 }
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            authorization: Secret::default(),
            service_name: "recache".to_owned(),
            traces_per_mille: 1_000,
            logs: true,
            figures_every: Duration::from_secs(15),
        }
    }
}

fn endpoint(text: &str) -> Result<String, Refusal> {
    let address = text.trim_end_matches('/');
    let is_plain = |url: reqwest::Url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
    };
    if address.is_empty() || reqwest::Url::parse(address).is_ok_and(is_plain) {
        return Ok(address.to_owned());
    }
    Err(Refusal::new(
        "is no address of a collector",
        "write http://127.0.0.1:4318; credentials belong into telemetry.authorization",
    ))
}

pub(super) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        path: "telemetry.otlp_endpoint",
        meaning: "where traces, figures and log lines are sent by OTLP over HTTP; empty: nowhere",
        kind: Kind::Text {
            form: "a URL without a query",
            write: |config, _, text| {
                config.telemetry.otlp_endpoint = endpoint(text)?;
                Ok(())
            },
        },
        read: |config, _| Value::from(config.telemetry.otlp_endpoint.clone()),
    },
    ConfigOption {
        path: "telemetry.authorization",
        meaning: "the header `Authorization` of what is sent, better from a variable: \"${OTLP_AUTHORIZATION}\"",
        kind: Kind::Text {
            form: "the value of the header",
            write: |config, _, text| {
                if text.parse::<reqwest::header::HeaderValue>().is_err() {
                    return Err(Refusal::new("is no value of a header", "use visible ASCII only"));
                }
                config.telemetry.authorization = Secret(text.to_owned());
                Ok(())
            },
        },
        read: |config, _| Value::from(if config.telemetry.authorization.0.is_empty() { "" } else { "***" }),
    },
    ConfigOption {
        path: "telemetry.service_name",
        meaning: "under which name the collector knows this process",
        kind: Kind::Text {
            form: "a name",
            write: |config, _, text| {
                if text.is_empty() {
                    return Err(Refusal::new("is empty", "write a name, such as recache"));
                }
                text.clone_into(&mut config.telemetry.service_name);
                Ok(())
            },
        },
        read: |config, _| Value::from(config.telemetry.service_name.clone()),
    },
    ConfigOption {
        path: "telemetry.traces_per_mille",
        meaning: "of a thousand traces that begin here so many are kept; a caller decides for its own",
        kind: Kind::Whole {
            unit: "traces",
            min: 1,
            max: 1_000,
            write: |config, _, count| config.telemetry.traces_per_mille = count,
        },
        read: |config, _| Value::from(config.telemetry.traces_per_mille),
    },
    ConfigOption {
        path: "telemetry.logs",
        meaning: "log lines are sent too",
        kind: Kind::Boolean { write: |config, _, on| config.telemetry.logs = on },
        read: |config, _| Value::from(config.telemetry.logs),
    },
    ConfigOption {
        path: "telemetry.figures_every_seconds",
        meaning: "how often figures are sent",
        kind: Kind::Whole {
            unit: "seconds",
            min: 1,
            max: 3_600,
            write: |config, _, count| {
                config.telemetry.figures_every = Duration::from_secs(count.into());
            },
        },
        read: |config, _| Value::from(config.telemetry.figures_every.as_secs()),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_a_collector_is_a_plain_url() {
        for (text, read) in [
            ("", ""),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318"),
            ("https://c/otlp", "https://c/otlp"),
        ] {
            assert_eq!(endpoint(text).unwrap(), read);
        }
        for text in ["127.0.0.1:4318", "grpc://c", "http://u:p@c", "http://c/?token=x", "x"] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }
}
