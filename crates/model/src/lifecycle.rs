//! How long a step or a workflow may take over its phases, and what follows when it took longer.
//!
//! Nothing is written when a step changes its phase. Whoever watches looks at each limited step at the earliest moment at which
//! one of its limits can have passed ([`Verdict::look_at`]); what no limit concerns is never looked at.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitName {
    /// From the submission to the end.
    Duration,
    /// Waiting for other steps.
    Dependencies,
    /// Waiting for the next attempt.
    Retry,
    /// At work.
    Process,
}

impl LimitName {
    /// The field of a template that sets it.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Duration => "max_duration_minutes",
            Self::Dependencies => "max_waiting_for_dependencies_minutes",
            Self::Retry => "max_waiting_for_retry_minutes",
            Self::Process => "max_steps_in_process_minutes",
        }
    }

    /// The code of the error of what failed by it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Duration => "lifecycle_duration",
            Self::Dependencies => "lifecycle_dependencies",
            Self::Retry => "lifecycle_retry",
            Self::Process => "lifecycle_process",
        }
    }
}

/// Whether an error's code is that of a limit that has passed.
pub fn is_code(code: &str) -> bool {
    code.starts_with("lifecycle_") || code == STALLED
}

/// The code of the error of an attempt that was taken away because it kept no checkpoint for too long.
pub const STALLED: &str = "checkpoint_stalled";

/// One limit, and what follows when it has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// How long.
    pub minutes: u32,
    /// Whether what it concerns fails.
    pub fails: bool,
    /// Whether there will be a dead letter.
    pub letter: bool,
}

impl Limit {
    fn time(self) -> Duration {
        minutes(self.minutes)
    }
}

fn minutes(minutes: u32) -> Duration {
    Duration::from_secs(u64::from(minutes).saturating_mul(60))
}

/// The limits of a step or of a workflow, as the store keeps them (JSON).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimeLimits {
    /// Of [`LimitName::Duration`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Limit>,
    /// Of [`LimitName::Dependencies`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Limit>,
    /// Of [`LimitName::Retry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Limit>,
    /// Of [`LimitName::Process`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Limit>,
    /// A running attempt that has kept no checkpoint for so many minutes is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_minutes: Option<u32>,
}

/// Where a step is, as far as its limits are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It waits for other steps.
    Dependencies,
    /// An attempt failed, and the next one has not begun.
    Retry,
    /// It runs; when its attempt last kept a checkpoint, or began.
    Process {
        /// The last sign of progress.
        progress_at: Timestamp,
    },
    /// It waits for a worker, a signal, a sub-workflow or its children: only its duration is limited.
    Other,
}

/// What is known of a step, or of a workflow, when it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Since when its duration counts.
    pub counted_from: Timestamp,
    /// Where it is.
    pub phase: Phase,
    /// Since when it is there.
    pub since: Timestamp,
    /// Limits that were found to have passed before.
    pub found: &'a [LimitName],
}

/// A limit that has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Which.
    pub name: LimitName,
    /// What it says.
    pub limit: Limit,
    /// How long it has been.
    pub took: Duration,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.name {
            LimitName::Duration => "has taken",
            LimitName::Dependencies => "has waited for other steps for",
            LimitName::Retry => "has waited for its next attempt for",
            LimitName::Process => "has been at work for",
        };
        let took = self.took.as_secs() / 60;
        write!(f, "{what} {took} min, `{}` allows {} min", self.name.field(), self.limit.minutes)
    }
}

/// What a look comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Limits that have passed and were not found before; one that fails it stands first.
    pub passed: Vec<Passed>,
    /// So long no checkpoint was kept, which is too long.
    pub stalled: Option<Duration>,
    /// When to look again; `None`: no limit is left that could pass.
    pub look_at: Option<Timestamp>,
}

impl TimeLimits {
    /// Whether there is no limit at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The limit of that name.
    pub fn named(&self, name: LimitName) -> Option<Limit> {
        match name {
            LimitName::Duration => self.duration,
            LimitName::Dependencies => self.dependencies,
            LimitName::Retry => self.retry,
            LimitName::Process => self.process,
        }
    }

    fn all(&self) -> impl Iterator<Item = (LimitName, Limit)> {
        let names = [LimitName::Duration, LimitName::Dependencies, LimitName::Retry, LimitName::Process];
        names.into_iter().filter_map(|name| Some((name, self.named(name)?)))
    }

    /// When what was submitted at `now` must first be looked at.
    pub fn first_look(&self, now: Timestamp) -> Option<Timestamp> {
        let shortest = self.all().map(|(_, limit)| limit.minutes).chain(self.stall_minutes).min();
        shortest.map(|shortest| now.plus(minutes(shortest)))
    }

    /// Judges what is seen at `now`.
    ///
    /// A limit is found once. A phase that it is not in cannot begin before `now`, so the look after the next is never too late
    /// for one.
    pub fn judge(&self, now: Timestamp, standing: &Standing<'_>) -> Verdict {
        let mut verdict = Verdict::default();
        let mut looks: Vec<Timestamp> = Vec::new();
        for (name, limit) in self.all() {
            if standing.found.contains(&name) {
                continue;
            }
            let since = match (name, standing.phase) {
                (LimitName::Duration, _) => Some(standing.counted_from),
                (LimitName::Dependencies, Phase::Dependencies)
                | (LimitName::Retry, Phase::Retry)
                | (LimitName::Process, Phase::Process { .. }) => Some(standing.since),
                _ => None,
            };
            let end = since.unwrap_or(now).plus(limit.time());
            if since.is_some() && end <= now {
                verdict.passed.push(Passed { name, limit, took: now.since(since.unwrap_or(now)) });
            } else {
                looks.push(end);
            }
        }
        if let Some(stall) = self.stall_minutes {
            let since = match standing.phase {
                Phase::Process { progress_at } => progress_at,
                _ => now,
            };
            let end = since.plus(minutes(stall));
            if end <= now {
                verdict.stalled = Some(now.since(since));
                looks.push(now.plus(minutes(stall)));
            } else {
                looks.push(end);
            }
        }
        verdict.passed.sort_by_key(|passed| !passed.limit.fails);
        verdict.look_at = looks.into_iter().min();
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_micros(0).plus(Duration::from_secs(minutes * 60))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the fields have it")]
    fn limit(minutes: u32) -> Option<Limit> {
        Some(Limit { minutes, fails: true, letter: true })
    }

    fn standing(phase: Phase, since: u64) -> Standing<'static> {
        Standing { counted_from: at(0), phase, since: at(since), found: &[] }
    }

    fn names(verdict: &Verdict) -> Vec<LimitName> {
        verdict.passed.iter().map(|passed| passed.name).collect()
    }

    #[test]
    fn limit_passes_in_its_own_phase_only_and_at_its_end() {
        let limits = TimeLimits { retry: limit(5), process: limit(9), ..TimeLimits::default() };
        let early = limits.judge(at(14), &standing(Phase::Retry, 10));
        assert_eq!((names(&early), early.look_at), (vec![], Some(at(15))));
        let late = limits.judge(at(15), &standing(Phase::Retry, 10));
        assert_eq!((names(&late), late.look_at), (vec![LimitName::Retry], Some(at(24))));
        assert_eq!(late.passed[0].took, Duration::from_mins(5));
        let elsewhere = limits.judge(at(90), &standing(Phase::Other, 10));
        assert_eq!((names(&elsewhere), elsewhere.look_at), (vec![], Some(at(95))));
    }

    #[test]
    fn duration_counts_in_every_phase_and_is_found_once() {
        let limits = TimeLimits { duration: limit(5), ..TimeLimits::default() };
        for phase in [Phase::Dependencies, Phase::Retry, Phase::Process { progress_at: at(5) }, Phase::Other]
        {
            let first = standing(phase, 4);
            assert_eq!(names(&limits.judge(at(5), &first)), [LimitName::Duration]);
            let again = limits.judge(at(6), &Standing { found: &[LimitName::Duration], ..first });
            assert_eq!(again, Verdict::default(), "nothing is left to look at");
        }
    }

    #[test]
    fn stall_is_counted_from_the_last_checkpoint_and_each_time() {
        let limits = TimeLimits { stall_minutes: Some(2), ..TimeLimits::default() };
        let seen = standing(Phase::Process { progress_at: at(7) }, 1);
        assert_eq!(limits.judge(at(8), &seen).stalled, None);
        let stalled = limits.judge(at(9), &seen);
        assert_eq!((stalled.stalled, stalled.look_at), (Some(Duration::from_mins(2)), Some(at(11))));
        assert_eq!(limits.judge(at(9), &standing(Phase::Retry, 1)).stalled, None);
    }

    #[test]
    fn limit_that_fails_comes_before_one_that_only_tells() {
        let told = Some(Limit { minutes: 1, fails: false, letter: true });
        let limits = TimeLimits { duration: told, process: limit(1), ..TimeLimits::default() };
        let verdict = limits.judge(at(3), &standing(Phase::Process { progress_at: at(0) }, 0));
        assert_eq!(names(&verdict), [LimitName::Process, LimitName::Duration]);
        let said = verdict.passed[0].to_string();
        assert_eq!(said, "has been at work for 3 min, `max_steps_in_process_minutes` allows 1 min");
    }

    /// However phases follow each other, looking only when asked to finds a limit no later than at its end.
    #[test]
    fn no_look_is_too_late() {
        let limits = TimeLimits {
            dependencies: limit(7),
            retry: limit(3),
            process: limit(4),
            ..TimeLimits::default()
        };
        for change in 1..40 {
            let phase_at = |minute: u64| {
                if minute < change { (Phase::Other, 0) } else { (Phase::Retry, change) }
            };
            let mut look = limits.first_look(at(0)).expect("there are limits");
            loop {
                let minute = u64::try_from(look.micros() / 60_000_000).expect("after the start");
                let (phase, since) = phase_at(minute);
                let verdict = limits.judge(look, &standing(phase, since));
                if let Some(passed) = verdict.passed.first() {
                    assert_eq!((passed.name, look), (LimitName::Retry, at(change + 3)));
                    break;
                }
                look = verdict.look_at.expect("a limit is left");
            }
        }
    }
}
