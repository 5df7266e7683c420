//! `[engine]`: how work is claimed, kept, handed back and swept up.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde_json::Value;

use super::schema::{ConfigOption, Kind, Refusal};

/// The rhythm of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineConfig {
    /// How many jobs run at once in this process. Default: twice the number of cores.
    pub(crate) slots: u32,
    /// The queues that `recache serve` works on. Default `default`.
    pub(crate) queues: Vec<String>,
    /// Whether fewer run while they slow each other down or wait for connections. Default false.
    pub(crate) adaptive_limit: bool,
    /// How long a worker may be silent before its jobs go to others. Default 2 s.
    pub(crate) lease: Duration,
    /// How often a worker says that it lives; at most a third of `lease`, so that two lost beats cost nothing.
    /// Default 500 ms.
    pub(crate) beat: Duration,
    /// How often jobs of dead workers are looked for. Default 500 ms.
    pub(crate) sweep: Duration,
    /// How often the queue is looked at when no notification comes. Default 1 s.
    pub(crate) poll: Duration,
    /// The most jobs that one claim takes. Default 500.
    pub(crate) claim_rows_max: u32,
    /// How long running jobs may finish after the process was told to stop. Default 30 s.
    pub(crate) drain: Duration,
    /// How long a replaced generation of a view stays readable. Default 60 s.
    pub(crate) generation_keep: Duration,
    /// How long completed, cancelled and skipped jobs and workflows are kept. Default 7 days.
    pub(crate) keep_done: Duration,
    /// How long failed and resolved ones are kept, and dead letters that were dealt with. Default 30 days.
    pub(crate) keep_failed: Duration,
    /// A larger result fails its job, in bytes. Default 8 MiB.
    pub(crate) result_bytes_max: u32,
    /// How long an event waits for its publisher; then it is kept back. Default 24 h.
    pub(crate) publisher_wait: Duration,
    /// How long a publisher may take for one payload. Default 30 s.
    pub(crate) publisher_timeout: Duration,
}

impl EngineConfig {
    /// The defaults on a machine with so many cores.
    pub(crate) fn defaults(cores: NonZeroUsize) -> Self {
        let slots = u32::try_from(cores.get()).unwrap_or(SLOTS_MAX).saturating_mul(2).min(SLOTS_MAX);
        Self {
            slots,
            queues: vec!["default".to_owned()],
            adaptive_limit: false,
            lease: Duration::from_secs(2),
            beat: Duration::from_millis(500),
            sweep: Duration::from_millis(500),
            poll: Duration::from_secs(1),
            claim_rows_max: 500,
            drain: Duration::from_secs(30),
            generation_keep: Duration::from_mins(1),
            keep_done: Duration::from_hours(7 * 24),
            keep_failed: Duration::from_hours(30 * 24),
            result_bytes_max: 8 * 1024 * 1024,
            publisher_wait: Duration::from_hours(24),
            publisher_timeout: Duration::from_secs(30),
        }
    }

    /// The longest beat that this lease allows.
    pub(super) fn beat_max(&self) -> Duration {
        self.lease / 3
    }
}

const SLOTS_MAX: u32 = 10_000;
const LEASE_MS_MAX: u32 = 600_000;
/// Queues that one process works on.
const QUEUES_MAX: usize = 64;
const QUEUE_NAME_BYTES_MAX: usize = 256;

/// Ten years.
const KEEP_HOURS_MAX: u32 = 10 * 365 * 24;

fn hours(count: u32) -> Duration {
    Duration::from_hours(u64::from(count))
}

fn millis(count: u32) -> Duration {
    Duration::from_millis(u64::from(count))
}

fn queues(text: &str) -> Result<Vec<String>, Refusal> {
    let remedy = "write them with commas between, such as default, mail";
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    let is_name = |name: &String| !name.is_empty() && name.len() <= QUEUE_NAME_BYTES_MAX;
    if !names.iter().all(is_name) {
        let why = format!("names a queue of no bytes, or of more than {QUEUE_NAME_BYTES_MAX}");
        return Err(Refusal::new(why, remedy));
    }
    if names.iter().enumerate().any(|(place, name)| names[..place].contains(name)) {
        return Err(Refusal::new("names a queue twice", remedy));
    }
    if names.len() > QUEUES_MAX {
        return Err(Refusal::new(format!("names {} queues, more than {QUEUES_MAX}", names.len()), remedy));
    }
    Ok(names)
}

/// As the file writes it. Every duration here is bounded far below where this could saturate.
fn shown(duration: Duration) -> Value {
    Value::from(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

pub(super) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        path: "engine.slots",
        meaning: "how many jobs run at once in this process; by default twice the number of cores",
        kind: Kind::Whole {
            unit: "jobs",
            min: 1,
            max: SLOTS_MAX,
            write: |config, _, count| config.engine.slots = count,
        },
        read: |config, _| Value::from(config.engine.slots),
    },
    ConfigOption {
        path: "engine.queues",
        meaning: "the queues that `recache serve` works on; in this order where fewer jobs run than could",
        kind: Kind::Text {
            form: "names of queues, with commas between",
            write: |config, _, text| {
                config.engine.queues = queues(text)?;
                Ok(())
            },
        },
        read: |config, _| Value::from(config.engine.queues.join(", ")),
    },
    ConfigOption {
        path: "engine.adaptive_limit",
        meaning: "whether fewer jobs run while they slow each other down or wait for connections of the database",
        kind: Kind::Boolean { write: |config, _, on| config.engine.adaptive_limit = on },
        read: |config, _| Value::from(config.engine.adaptive_limit),
    },
    ConfigOption {
        path: "engine.lease_ms",
        meaning: "how long a worker may be silent before its jobs go to others",
        kind: Kind::Whole {
            unit: "milliseconds",
            min: 200,
            max: LEASE_MS_MAX,
            write: |config, _, count| config.engine.lease = millis(count),
        },
        read: |config, _| shown(config.engine.lease),
    },
    ConfigOption {
        path: "engine.beat_ms",
        meaning: "how often a worker says that it lives; at most a third of lease_ms",
        kind: Kind::Whole {
            unit: "milliseconds",
            min: 10,
            max: LEASE_MS_MAX / 3,
            write: |config, _, count| config.engine.beat = millis(count),
        },
        read: |config, _| shown(config.engine.beat),
    },
    ConfigOption {
        path: "engine.sweep_ms",
        meaning: "how often the jobs of dead workers are looked for",
        kind: Kind::Whole {
            unit: "milliseconds",
            min: 10,
            max: 60_000,
            write: |config, _, count| config.engine.sweep = millis(count),
        },
        read: |config, _| shown(config.engine.sweep),
    },
    ConfigOption {
        path: "engine.poll_ms",
        meaning: "how often the queue is looked at when no notification comes",
        kind: Kind::Whole {
            unit: "milliseconds",
            min: 10,
            max: 60_000,
            write: |config, _, count| config.engine.poll = millis(count),
        },
        read: |config, _| shown(config.engine.poll),
    },
    ConfigOption {
        path: "engine.claim_rows_max",
        meaning: "the most jobs that one claim takes",
        kind: Kind::Whole {
            unit: "rows",
            min: 1,
            max: 5_000,
            write: |config, _, count| config.engine.claim_rows_max = count,
        },
        read: |config, _| Value::from(config.engine.claim_rows_max),
    },
    ConfigOption {
        path: "engine.drain_ms",
        meaning: "how long running jobs may finish after the process was told to stop",
        kind: Kind::Whole {
            unit: "milliseconds",
            min: 0,
            max: 3_600_000,
            write: |config, _, count| config.engine.drain = millis(count),
        },
        read: |config, _| shown(config.engine.drain),
    },
    ConfigOption {
        path: "engine.generation_keep_ms",
        meaning: "how long a replaced generation of a view stays readable",
        kind: Kind::Whole {
            unit: "milliseconds",
            min: 0,
            max: 86_400_000,
            write: |config, _, count| config.engine.generation_keep = millis(count),
        },
        read: |config, _| shown(config.engine.generation_keep),
    },
    ConfigOption {
        path: "engine.keep_done_hours",
        meaning: "how long completed, cancelled and skipped jobs and workflows are kept",
        kind: Kind::Whole {
            unit: "hours",
            min: 1,
            max: KEEP_HOURS_MAX,
            write: |config, _, count| config.engine.keep_done = hours(count),
        },
        read: |config, _| Value::from(config.engine.keep_done.as_secs() / 3600),
    },
    ConfigOption {
        path: "engine.keep_failed_hours",
        meaning: "how long failed jobs and workflows are kept, and dead letters that were dealt with",
        kind: Kind::Whole {
            unit: "hours",
            min: 1,
            max: KEEP_HOURS_MAX,
            write: |config, _, count| config.engine.keep_failed = hours(count),
        },
        read: |config, _| Value::from(config.engine.keep_failed.as_secs() / 3600),
    },
    ConfigOption {
        path: "engine.result_bytes_max",
        meaning: "a job whose result is larger fails",
        kind: Kind::Whole {
            unit: "bytes",
            min: 1_024,
            max: 256 * 1024 * 1024,
            write: |config, _, count| config.engine.result_bytes_max = count,
        },
        read: |config, _| Value::from(config.engine.result_bytes_max),
    },
    ConfigOption {
        path: "engine.publisher_wait_hours",
        meaning: "how long an event waits for its publisher; then it is kept back, and told to nobody",
        kind: Kind::Whole {
            unit: "hours",
            min: 1,
            max: 720,
            write: |config, _, count| config.engine.publisher_wait = hours(count),
        },
        read: |config, _| Value::from(config.engine.publisher_wait.as_secs() / 3600),
    },
    ConfigOption {
        path: "engine.publisher_timeout_seconds",
        meaning: "how long a publisher may take for one payload",
        kind: Kind::Whole {
            unit: "seconds",
            min: 1,
            max: 3_600,
            write: |config, _, count| {
                config.engine.publisher_timeout = Duration::from_secs(u64::from(count));
            },
        },
        read: |config, _| Value::from(config.engine.publisher_timeout.as_secs()),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_twice_the_cores_and_bounded() {
        let slots = |cores| EngineConfig::defaults(NonZeroUsize::new(cores).unwrap()).slots;
        assert_eq!(slots(1), 2);
        assert_eq!(slots(8), 16);
        assert_eq!(slots(usize::MAX), SLOTS_MAX);
    }

    #[test]
    fn queues_are_named_once_each() {
        assert_eq!(queues(" default,mail ").unwrap(), ["default", "mail"]);
        let many = (0..=QUEUES_MAX).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
        let long = "q".repeat(QUEUE_NAME_BYTES_MAX + 1);
        for bad in ["", "a,,b", "a, a", &many, &long] {
            assert!(queues(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn default_beat_fits_the_default_lease() {
        let defaults = EngineConfig::defaults(NonZeroUsize::MIN);
        assert!(defaults.beat <= defaults.beat_max());
    }
}
