//! What a worker says in one call, and what it is answered.

use std::time::Duration;

use recache_model::job::JobError;
use recache_store::{LeaseToken, Revoked};
use recache_worker::Stop;

use super::Offer;
use crate::error::{Error, Result};

/// Ends, reports or names of one call.
const PARTS_MAX: usize = 1_000;
/// Jobs that one worker holds.
const HELD_MAX: usize = 10_000;
/// Lines of one report.
const LINES_MAX: usize = 1_000;
/// Longest message of a report, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Longest code of an error, in bytes.
const CODE_BYTES_MAX: usize = 128;

/// One call. Each part may be left out; an empty call is a sign of life.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Ends of attempts.
    pub settle: Vec<Settle>,
    /// What running handlers say.
    pub reports: Vec<Report>,
    /// All jobs that the worker holds, but for those that it settles here. `None`: not said.
    pub held: Option<Vec<LeaseToken>>,
    /// What it asks for.
    pub claim: Option<Claim>,
    /// The answer may come so much later, if there is nothing to say before.
    pub wait: Duration,
}

/// A claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claim {
    /// At most so many jobs.
    pub max: usize,
    /// Counts the session's claims from 1, and is repeated when no answer came. With it the engine need not look for
    /// what an earlier answer may have lost.
    pub number: Option<u64>,
}

/// The end of one attempt.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The right to say so.
    pub token: LeaseToken,
    /// How it ended.
    pub end: End,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It succeeded with this result, as JSON.
    Completed(String),
    /// The build is done: what it put and kept is published.
    Built {
        /// The version that it began with.
        version: i64,
        /// Live items that stay as they are.
        kept: Vec<String>,
        /// Items that it took over from an earlier build; only counted.
        taken_over: u64,
    },
    /// It failed. The kind is retryable, permanent, timeout or panic.
    Failed(JobError),
    /// Not yet: the attempt does not count.
    Snoozed(Duration),
    /// It was not done: the attempt does not count.
    Released,
}

/// What a running handler says.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Whose it is.
    pub token: LeaseToken,
    /// 0 to 1, and a message.
    pub progress: Option<(f64, Option<String>)>,
    /// The number of the first line in this attempt, from 1, and the lines.
    pub log: Option<(u64, Vec<String>)>,
    /// JSON for the job's next attempt.
    pub checkpoint: Option<String>,
}

/// What became of the end of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It stands, from now or from an earlier call.
    Accepted,
    /// The job is no longer the worker's; nothing changed.
    Refused(Revoked),
}

/// The answer to a call.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The session lives. If not, only ends of attempts were looked at, and the worker has to register again.
    pub is_alive: bool,
    /// The engine goes away: claim elsewhere.
    pub is_draining: bool,
    /// One for each end, in order.
    pub settled: Vec<Settled>,
    /// One for each report, in order; `None`: it is kept.
    pub reports: Vec<Option<Revoked>>,
    /// Handlers that are to stop, and why.
    pub stops: Vec<(LeaseToken, Stop)>,
    /// Jobs to do.
    pub jobs: Vec<Offer>,
}

impl Call {
    /// Refuses what cannot be meant, with every reason.
    pub(super) fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        for (what, count, count_max) in [
            ("ends", self.settle.len(), PARTS_MAX),
            ("reports", self.reports.len(), PARTS_MAX),
            ("held jobs", self.held.as_ref().map_or(0, Vec::len), HELD_MAX),
        ] {
            if count > count_max {
                problems.push(format!("{count} {what} in one call; the limit is {count_max}"));
            }
        }
        let mut jobs: Vec<_> = self.settle.iter().map(|settle| settle.token.job).collect();
        jobs.sort_unstable();
        if let Some([twice, _]) = jobs.array_windows().find(|[one, next]| one == next) {
            problems.push(format!("{twice} is settled twice in one call"));
        }
        for settle in &self.settle {
            if let End::Completed(output) = &settle.end
                && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(output)
            {
                problems.push(format!("{}: the result is not JSON: {error}", settle.token.job));
            }
            if let End::Failed(JobError { code: Some(code), .. }) = &settle.end
                && (code.is_empty() || code.len() > CODE_BYTES_MAX || code.chars().any(char::is_control))
            {
                problems.push(format!(
                    "{}: an error's code has 1 to {CODE_BYTES_MAX} bytes and no control characters",
                    settle.token.job
                ));
            }
        }
        for report in &self.reports {
            let job = report.token.job;
            if let Some((progress, _)) = report.progress
                && !(0.0..=1.0).contains(&progress)
            {
                problems.push(format!("{job}: progress is {progress}; it must be 0 to 1"));
            }
            if let Some((_, Some(message))) = &report.progress
                && (message.len() > MESSAGE_BYTES_MAX || message.contains('\0'))
            {
                problems.push(format!("{job}: a message has at most {MESSAGE_BYTES_MAX} bytes and no NUL"));
            }
            if let Some((first, lines)) = &report.log
                && (*first == 0 || lines.len() > LINES_MAX)
            {
                problems.push(format!("{job}: lines count from 1, at most {LINES_MAX} in one report"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
    }
}
