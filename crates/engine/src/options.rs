//! How an engine runs.

use std::num::NonZero;
use std::time::Duration;

use recache_model::event::{PUBLISHER_TIMEOUT, PUBLISHER_WAIT};
use recache_model::retention::Retention;

use crate::error::{Error, Result};

/// No pause of the engine's own is longer: a day without a look is a mistake.
const PAUSE_MAX: Duration = Duration::from_hours(24);

/// No result may be larger, whatever is configured: databases keep it as one value.
const RESULT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The longest that an event may be let wait for its publisher.
const PUBLISHER_WAIT_MAX: Duration = Duration::from_hours(30 * 24);
/// The longest that a publisher may be let take for one payload.
const PUBLISHER_TIMEOUT_MAX: Duration = Duration::from_hours(1);

/// Settings of an engine; the defaults give throughput and latency alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Handlers that may run at once. Default: four times the number of cores.
    pub slots: usize,
    /// Whether fewer of them run while jobs slow each other down or wait for connections of the database, by
    /// [`recache_model::limiter`]. Default: false, all slots are used.
    pub adaptive_limit: bool,
    /// Queues that the worker serves. Default: `default`.
    pub queues: Vec<String>,
    /// How long a session lives without a beat. Default 2 s.
    pub lease: Duration,
    /// Between two beats; at most a third of the lease. Default 500 ms.
    pub beat: Duration,
    /// Between two looks for dead sessions. Default 500 ms.
    pub sweep: Duration,
    /// Work is found at the latest after this long, whatever hints were lost. Default 1 s.
    pub poll: Duration,
    /// No claim asks for more jobs. Default 500.
    pub claim_rows_max: usize,
    /// At shutdown running handlers may go on this long before they are told to stop. Default 30 s.
    pub drain: Duration,
    /// A handler that was told to stop may go on this long before it is dropped. Default 5 s.
    pub grace: Duration,
    /// A replaced generation stays readable this long. Default 60 s.
    pub generation_keep: Duration,
    /// A reader may see the version before the live one for this long after another process published. Default 100 ms.
    pub view_head_fresh: Duration,
    /// Of more items than this, live or staged, a build in this process is told page by page, and it remembers no more keys of what it put. Default 20,000.
    pub build_items_listed_max: u32,
    /// How long what has ended is kept. Default: 7 days, and 30 for what failed.
    pub retention: Retention,
    /// Between two looks for what can be removed. Default 10 s.
    pub maintain: Duration,
    /// Between two comparisons of kept counts with rows. Default 1 h.
    pub compare: Duration,
    /// A larger result fails its job, in bytes. Default 8 MiB.
    pub result_bytes_max: u64,
    /// How long an event waits for its publisher; then it is kept back with the reason. Default 24 h.
    pub publisher_wait: Duration,
    /// How long a publisher may take for one payload. Default 30 s.
    pub publisher_timeout: Duration,
    /// Of a thousand ticks of schedules so many begin a trace that is kept; 0: none begins one. Default 0.
    pub traces_per_mille: u32,
    /// Says who this is, for people. Default: the process id.
    pub node: String,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
        Self {
            slots: cores * 4,
            adaptive_limit: false,
            queues: vec!["default".to_owned()],
            lease: Duration::from_secs(2),
            beat: Duration::from_millis(500),
            sweep: Duration::from_millis(500),
            poll: Duration::from_secs(1),
            claim_rows_max: 500,
            drain: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            generation_keep: Duration::from_secs(60),
            view_head_fresh: Duration::from_millis(100),
            build_items_listed_max: 20_000,
            retention: Retention::default(),
            maintain: Duration::from_secs(10),
            compare: Duration::from_hours(1),
            result_bytes_max: 8 * 1024 * 1024,
            publisher_wait: PUBLISHER_WAIT,
            publisher_timeout: PUBLISHER_TIMEOUT,
            traces_per_mille: 0,
            node: format!("pid {}", std::process::id()),
        }
    }
}

impl Options {
    /// Refuses what cannot work, with every reason.
    pub fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        if self.slots == 0 || self.slots > 10_000 {
            problems.push(format!("slots is {}; it must be 1 to 10000", self.slots));
        }
        if self.queues.is_empty() || self.queues.iter().any(String::is_empty) {
            problems.push("queues must name at least one queue, none of them empty".to_owned());
        }
        if self.beat.is_zero() || self.beat.saturating_mul(3) > self.lease {
            problems.push(format!(
                "beat is {} ms; it must be more than 0 and at most a third of the lease ({} ms)",
                self.beat.as_millis(),
                self.lease.as_millis()
            ));
        }
        for (name, value) in [
            ("sweep", self.sweep),
            ("poll", self.poll),
            ("lease", self.lease),
            ("maintain", self.maintain),
            ("compare", self.compare),
        ] {
            if value.is_zero() || value > PAUSE_MAX {
                problems.push(format!(
                    "{name} is {} s; it must be more than 0 and at most a day",
                    value.as_secs_f64()
                ));
            }
        }
        for (name, value, max) in [
            ("publisher_wait", self.publisher_wait, PUBLISHER_WAIT_MAX),
            ("publisher_timeout", self.publisher_timeout, PUBLISHER_TIMEOUT_MAX),
        ] {
            if value.is_zero() || value > max {
                problems.push(format!(
                    "{name} is {} s; it must be more than 0 and at most {} s",
                    value.as_secs_f64(),
                    max.as_secs()
                ));
            }
        }
        if self.result_bytes_max == 0 || self.result_bytes_max > RESULT_BYTES_MAX {
            problems.push(format!(
                "result_bytes_max is {}; it must be 1 to {RESULT_BYTES_MAX}",
                self.result_bytes_max
            ));
        }
        if self.claim_rows_max == 0 || self.claim_rows_max > 5_000 {
            problems.push(format!("claim_rows_max is {}; it must be 1 to 5000", self.claim_rows_max));
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_named_at_once() {
        let options = Options {
            slots: 0,
            queues: vec![],
            beat: Duration::from_secs(1),
            claim_rows_max: 0,
            result_bytes_max: 0,
            publisher_wait: Duration::from_hours(721),
            publisher_timeout: Duration::ZERO,
            ..Options::default()
        };
        let message = options.check().unwrap_err().to_string();
        for name in [
            "slots",
            "queues",
            "beat",
            "claim_rows_max",
            "result_bytes_max",
            "publisher_wait",
            "publisher_timeout",
        ] {
            assert!(message.contains(name), "{message}");
        }
        assert!(Options::default().check().is_ok());
    }
}
