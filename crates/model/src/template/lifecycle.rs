//! How long a workflow or a step may take over its phases, and whether its times can be kept at all.

use std::time::Duration;

use super::step::RetrySpec;
use super::words::words;
use crate::lifecycle::{Limit, TimeLimits};

/// How long a workflow, or one step of it, may take over its phases. No limit is given unless it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifecycle {
    /// From its submission to its end.
    pub max_duration_minutes: Option<u32>,
    /// Waiting for other steps.
    pub max_waiting_for_dependencies_minutes: Option<u32>,
    /// Waiting for the next attempt.
    pub max_waiting_for_retry_minutes: Option<u32>,
    /// With a step at work.
    pub max_steps_in_process_minutes: Option<u32>,
    /// What happens when one of them has passed; by default a dead letter.
    pub staleness_action: StalenessAction,
    /// It fails, whatever the action; by default false.
    pub auto_fail_on_timeout: bool,
    /// It has a dead letter, whatever the action; by default false.
    pub auto_dlq_on_timeout: bool,
}

impl Lifecycle {
    fn limit(&self, minutes: Option<u32>) -> Option<Limit> {
        Some(Limit {
            minutes: minutes?,
            fails: self.auto_fail_on_timeout || self.staleness_action == StalenessAction::Error,
            letter: self.auto_dlq_on_timeout || self.staleness_action == StalenessAction::Dlq,
        })
    }

    /// The limits of the workflow itself; those of phases are its steps'.
    pub fn of_workflow(&self) -> TimeLimits {
        TimeLimits { duration: self.limit(self.max_duration_minutes), ..TimeLimits::default() }
    }
}

/// The limits of a step: its own, and its workflow's for the phases of steps; the shorter one holds, with what its side says
/// about its passing.
pub fn limits_of_step(own: Option<&Lifecycle>, whole: Option<&Lifecycle>) -> TimeLimits {
    let shorter = |pick: fn(&Lifecycle) -> Option<u32>| {
        let limits = [own, whole].into_iter().flatten().filter_map(|one| one.limit(pick(one)));
        limits.min_by_key(|limit| limit.minutes)
    };
    TimeLimits {
        duration: own.and_then(|own| own.limit(own.max_duration_minutes)),
        dependencies: shorter(|one| one.max_waiting_for_dependencies_minutes),
        retry: shorter(|one| one.max_waiting_for_retry_minutes),
        process: shorter(|one| one.max_steps_in_process_minutes),
        stall_minutes: None,
    }
}

words! {
    /// What happens to what has taken too long.
    #[derive(Default)]
    StalenessAction {
        /// It has a dead letter, and goes on.
        #[default]
        Dlq = "dlq",
        /// It fails, without a dead letter.
        Error = "error",
        /// It is only counted and shown, and goes on.
        None = "none",
    }
}

/// A time that cannot be kept: which field says so, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Impossible {
    /// The step's field, as a path below the step.
    pub(super) field: &'static [&'static str],
    pub(super) message: String,
    pub(super) suggestion: &'static str,
}

/// The times of one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times<'a> {
    pub(super) timeout: Option<Duration>,
    pub(super) retry: &'a RetrySpec,
    pub(super) wait: Option<Duration>,
    pub(super) own: Option<&'a Lifecycle>,
    /// The whole template's.
    pub(super) whole: Option<&'a Lifecycle>,
}

/// What of a step's times no run could ever keep.
pub(super) fn impossible(times: Times<'_>) -> Vec<Impossible> {
    let mut found = Vec::new();
    let mut tell = |field, message, suggestion| found.push(Impossible { field, message, suggestion });
    let of = |pick: fn(&Lifecycle) -> Option<u32>, lifecycle: Option<&Lifecycle>| {
        lifecycle.and_then(pick).map(minutes)
    };
    let shortest = |pick: fn(&Lifecycle) -> Option<u32>| {
        let (own, whole) = (of(pick, times.own), of(pick, times.whole));
        own.into_iter().chain(whole).min()
    };
    let duration = shortest(|lifecycle| lifecycle.max_duration_minutes);
    let in_process = shortest(|lifecycle| lifecycle.max_steps_in_process_minutes);
    let waiting = shortest(|lifecycle| lifecycle.max_waiting_for_retry_minutes);
    let whole = of(|lifecycle| lifecycle.max_duration_minutes, times.whole);

    if let (Some(own), Some(whole)) = (of(|lifecycle| lifecycle.max_duration_minutes, times.own), whole)
        && own > whole
    {
        let message = format!("the step may take {}, its workflow only {}", text(own), text(whole));
        tell(&["lifecycle", "max_duration_minutes"], message, "raise the workflow's `max_duration_minutes`");
    }
    if let Some(timeout) = times.timeout {
        if let Some(limit) = duration
            && timeout > limit
        {
            let message = format!(
                "one attempt may run for {}, but `max_duration_minutes` ends it after {}",
                text(timeout),
                text(limit)
            );
            tell(&["timeout_seconds"], message, "lower `timeout_seconds`, or raise `max_duration_minutes`");
        } else if let Some(limit) = in_process
            && timeout > limit
        {
            let message = format!(
                "one attempt may run for {}, but `max_steps_in_process_minutes` ends it after {}",
                text(timeout),
                text(limit)
            );
            tell(
                &["timeout_seconds"],
                message,
                "lower `timeout_seconds`, or raise `max_steps_in_process_minutes`",
            );
        }
    }
    if let (Some(wait), Some(limit)) = (times.wait, duration)
        && wait > limit
    {
        let message = format!(
            "it may wait for {}, but `max_duration_minutes` ends it after {}",
            text(wait),
            text(limit)
        );
        tell(
            &["wait_for", "timeout_seconds"],
            message,
            "lower the wait's `timeout_seconds`, or raise `max_duration_minutes`",
        );
    }
    if let (Some(own), Some(limit)) = (times.own, duration) {
        let phases: [(Option<u32>, &'static [&'static str]); 3] = [
            (
                own.max_waiting_for_dependencies_minutes,
                &["lifecycle", "max_waiting_for_dependencies_minutes"],
            ),
            (own.max_waiting_for_retry_minutes, &["lifecycle", "max_waiting_for_retry_minutes"]),
            (own.max_steps_in_process_minutes, &["lifecycle", "max_steps_in_process_minutes"]),
        ];
        for (phase, field) in phases {
            if let Some(phase) = phase.map(minutes)
                && phase > limit
            {
                let message = format!(
                    "this phase may take {}, but `max_duration_minutes` ends it after {}",
                    text(phase),
                    text(limit)
                );
                tell(field, message, "lower this limit, or raise `max_duration_minutes`");
            }
        }
    }
    let (longest, total) = delays(times.retry);
    if let Some(limit) = waiting
        && longest > limit
    {
        let message = format!(
            "the longest delay between attempts is {}, but `max_waiting_for_retry_minutes` ends it after {}",
            text(longest),
            text(limit)
        );
        tell(&["retry"], message, "lower `max_backoff_ms`, or raise `max_waiting_for_retry_minutes`");
    } else if let Some(limit) = duration
        && total > limit
    {
        let message = format!(
            "the delays between its attempts come to {}, but `max_duration_minutes` ends it after {}",
            text(total),
            text(limit)
        );
        tell(&["retry"], message, "lower `max_attempts` or the delays, or raise `max_duration_minutes`");
    }
    found
}

/// The longest delay between attempts, and all of them together, as short as chance can make them.
fn delays(retry: &RetrySpec) -> (Duration, Duration) {
    let policy = retry.policy();
    let mut longest = Duration::ZERO;
    let mut total = Duration::ZERO;
    for attempt in 1..policy.attempts_max {
        let delay = policy.delay(attempt, 1.0);
        longest = longest.max(delay);
        total = total.saturating_add(delay);
    }
    (longest, total)
}

fn minutes(minutes: u32) -> Duration {
    Duration::from_secs(u64::from(minutes).saturating_mul(60))
}

/// A time as people read it, to the millisecond.
fn text(time: Duration) -> String {
    let (seconds, millis) = (time.as_secs(), time.subsec_millis());
    if millis > 0 {
        format!("{seconds}.{millis:03} s")
    } else if seconds % 60 == 0 && seconds > 0 {
        format!("{} min", seconds / 60)
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::BackoffSpec;

    fn fields(times: Times<'_>) -> Vec<String> {
        impossible(times).into_iter().map(|found| found.field.join("/")).collect()
    }

    #[test]
    fn shorter_limit_holds_with_its_own_consequence() {
        let own = Lifecycle {
            max_duration_minutes: Some(9),
            max_waiting_for_retry_minutes: Some(2),
            max_steps_in_process_minutes: Some(8),
            staleness_action: StalenessAction::Error,
            ..Lifecycle::default()
        };
        let whole = Lifecycle {
            max_duration_minutes: Some(30),
            max_waiting_for_dependencies_minutes: Some(5),
            max_waiting_for_retry_minutes: Some(3),
            max_steps_in_process_minutes: Some(4),
            ..Lifecycle::default()
        };
        let (fails, told) = (
            |minutes| Some(Limit { minutes, fails: true, letter: false }),
            |minutes| Some(Limit { minutes, fails: false, letter: true }),
        );
        let limits = TimeLimits {
            duration: fails(9),
            dependencies: told(5),
            retry: fails(2),
            process: told(4),
            stall_minutes: None,
        };
        assert_eq!(limits_of_step(Some(&own), Some(&whole)), limits);
        assert_eq!(whole.of_workflow(), TimeLimits { duration: told(30), ..TimeLimits::default() });
        assert!(limits_of_step(None, None).is_empty());
        let both = Lifecycle { auto_dlq_on_timeout: true, ..own };
        assert_eq!(
            limits_of_step(Some(&both), None).duration,
            Some(Limit { minutes: 9, fails: true, letter: true })
        );
        let shown = Lifecycle { staleness_action: StalenessAction::None, ..whole };
        assert_eq!(shown.of_workflow().duration, Some(Limit { minutes: 30, fails: false, letter: false }));
    }

    #[test]
    fn times_that_fit_are_no_problem() {
        let retry = RetrySpec::default();
        let lifecycle = Lifecycle {
            max_duration_minutes: Some(1),
            max_waiting_for_retry_minutes: Some(1),
            max_steps_in_process_minutes: Some(1),
            ..Lifecycle::default()
        };
        let minute = Some(Duration::from_secs(60));
        let times = Times {
            timeout: minute,
            retry: &retry,
            wait: minute,
            own: Some(&lifecycle),
            whole: Some(&lifecycle),
        };
        assert_eq!(impossible(times), []);
        let none = Times { own: None, whole: None, timeout: Some(Duration::MAX), ..times };
        assert_eq!(impossible(none), []);
    }

    #[test]
    fn each_limit_is_held_against_what_it_ends() {
        let retry = RetrySpec::default();
        let long = Some(Duration::from_millis(60_001));
        let short = |change: fn(&mut Lifecycle)| {
            let mut lifecycle = Lifecycle::default();
            change(&mut lifecycle);
            lifecycle
        };
        let duration = short(|one| one.max_duration_minutes = Some(1));
        let process = short(|one| one.max_steps_in_process_minutes = Some(1));
        let waiting = short(|one| one.max_waiting_for_retry_minutes = Some(1));
        let longer = short(|one| one.max_duration_minutes = Some(2));
        let times = Times { timeout: None, retry: &retry, wait: None, own: None, whole: None };
        for whole in [&duration, &process] {
            assert_eq!(fields(Times { timeout: long, whole: Some(whole), ..times }), ["timeout_seconds"]);
            assert_eq!(fields(Times { timeout: long, own: Some(whole), ..times }), ["timeout_seconds"]);
        }
        assert_eq!(
            fields(Times { wait: long, whole: Some(&duration), ..times }),
            ["wait_for/timeout_seconds"]
        );
        assert_eq!(
            fields(Times { own: Some(&longer), whole: Some(&duration), ..times }),
            ["lifecycle/max_duration_minutes"]
        );
        for phase in [
            "max_waiting_for_dependencies_minutes",
            "max_waiting_for_retry_minutes",
            "max_steps_in_process_minutes",
        ] {
            let mut own = duration.clone();
            match phase {
                "max_waiting_for_dependencies_minutes" => own.max_waiting_for_dependencies_minutes = Some(2),
                "max_waiting_for_retry_minutes" => own.max_waiting_for_retry_minutes = Some(2),
                _ => own.max_steps_in_process_minutes = Some(2),
            }
            assert_eq!(fields(Times { own: Some(&own), ..times }), [format!("lifecycle/{phase}")]);
        }
        let slow = RetrySpec { backoff_base_ms: 80_000, jitter: 0.1, ..RetrySpec::default() };
        assert_eq!(fields(Times { retry: &slow, own: Some(&waiting), ..times }), ["retry"]);
        assert_eq!(fields(Times { retry: &slow, own: Some(&duration), ..times }), ["retry"]);
        let once = RetrySpec { retryable: false, ..slow.clone() };
        assert_eq!(fields(Times { retry: &once, own: Some(&waiting), ..times }), Vec::<String>::new());
        let lucky =
            RetrySpec { backoff_base_ms: 65_000, backoff: BackoffSpec::Linear, max_attempts: 2, ..slow };
        assert_eq!(fields(Times { retry: &lucky, own: Some(&waiting), ..times }), Vec::<String>::new());
    }
}
