//! `[log]`: how much is logged, and in which form.

use serde_json::Value;

use super::schema::{ConfigOption, Kind};

/// What goes to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogConfig {
    /// The least important level that is still logged. Default [`LogLevel::Info`].
    pub(crate) level: LogLevel,
    /// How a line looks. Default [`LogFormat::Text`].
    pub(crate) format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

/// How important a line must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// What went wrong.
    Error,
    /// And what is odd.
    Warn,
    /// And what changed.
    Info,
    /// And what was decided.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    const ALL: &[Self] = &[Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name, as the file and the log filter write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

pub(super) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        path: "log.level",
        meaning: "the least important level that is still logged",
        kind: Kind::Choice {
            allowed: &["error", "warn", "info", "debug", "trace"],
            write: |config, _, name| {
                if let Some(level) = LogLevel::ALL.iter().find(|level| level.name() == name) {
                    config.log.level = *level;
                }
            },
        },
        read: |config, _| Value::from(config.log.level.name()),
    },
    ConfigOption {
        path: "log.format",
        meaning: "how a log line looks: for people, or one JSON object a line",
        kind: Kind::Choice {
            allowed: &["text", "json"],
            write: |config, _, name| {
                config.log.format = if name == "json" { LogFormat::Json } else { LogFormat::Text };
            },
        },
        read: |config, _| {
            Value::from(match config.log.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            })
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_allowed_level_is_a_level() {
        let Kind::Choice { allowed, .. } = OPTIONS[0].kind else { panic!("log.level is a choice") };
        assert_eq!(LogLevel::ALL.iter().map(|level| level.name()).collect::<Vec<_>>(), allowed);
    }
}
