//! When a failed attempt runs again: one rule per job.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the delay grows from attempt to attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// At once.
    None,
    /// `base * n` before attempt `n + 1`.
    Linear,
    /// `base * 2^(n-1)`.
    #[default]
    Exponential,
    /// `base * fib(n)`: 1, 1, 2, 3, 5, …
    Fibonacci,
}

/// The rule of a job. Stored with it as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, lost leases included; at least 1. Default 3.
    pub attempts_max: u32,
    /// How the delay grows. Default exponential.
    pub backoff: Backoff,
    /// The first delay, in milliseconds. Default 1,000.
    pub base_ms: u64,
    /// No delay is longer, in milliseconds; what a server asks for by `retry_after` is not cut. Default 300,000.
    pub cap_ms: u64,
    /// The fraction of a delay, 0 to 1, that chance may take away, so that jobs that failed together do not
    /// return together. Default 0.1.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts_max: 3, backoff: Backoff::Exponential, base_ms: 1_000, cap_ms: 300_000, jitter: 0.1 }
    }
}

impl RetryPolicy {
    /// One attempt and no more.
    pub fn once() -> Self {
        Self { attempts_max: 1, ..Self::default() }
    }

    /// Attempts that a policy may allow.
    pub const ATTEMPTS_MAX: u32 = 10_000;
    /// The longest delay that it may name, in milliseconds: ten years.
    pub const DELAY_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;

    /// What is wrong with it, field by field.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.attempts_max == 0 || self.attempts_max > Self::ATTEMPTS_MAX {
            problems.push(format!(
                "`attempts_max` must be 1 to {}, and is {}",
                Self::ATTEMPTS_MAX,
                self.attempts_max
            ));
        }
        for (name, ms) in [("base_ms", self.base_ms), ("cap_ms", self.cap_ms)] {
            if ms > Self::DELAY_MS_MAX {
                problems.push(format!(
                    "`{name}` must be at most {} (ten years), and is {ms}",
                    Self::DELAY_MS_MAX
                ));
            }
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            problems.push(format!("`jitter` must be 0 to 1, and is {}", self.jitter));
        }
        problems
    }

    /// How long to wait after the `attempt`-th attempt failed (counted from 1). `chance` is in `0.0..1.0`.
    pub fn delay(&self, attempt: u32, chance: f64) -> Duration {
        let factor = match self.backoff {
            Backoff::None => 0,
            Backoff::Linear => u64::from(attempt),
            Backoff::Exponential => 1u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX),
            Backoff::Fibonacci => fibonacci(attempt),
        };
        let whole = Duration::from_millis(self.base_ms.saturating_mul(factor).min(self.cap_ms));
        let kept = 1.0 - self.jitter.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0);
        whole.mul_f64(kept)
    }
}

fn fibonacci(n: u32) -> u64 {
    let (mut current, mut next) = (0u64, 1u64);
    for _ in 0..n.min(94) {
        (current, next) = (next, current.saturating_add(next));
    }
    current
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delays_ms(backoff: Backoff) -> Vec<u128> {
        let policy =
            RetryPolicy { backoff, base_ms: 100, cap_ms: 1_000, jitter: 0.0, ..RetryPolicy::default() };
        (1..=6).map(|attempt| policy.delay(attempt, 0.5).as_millis()).collect()
    }

    #[test]
    fn delay_grows_as_its_backoff_says_up_to_the_cap() {
        assert_eq!(delays_ms(Backoff::None), [0, 0, 0, 0, 0, 0]);
        assert_eq!(delays_ms(Backoff::Linear), [100, 200, 300, 400, 500, 600]);
        assert_eq!(delays_ms(Backoff::Exponential), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(delays_ms(Backoff::Fibonacci), [100, 100, 200, 300, 500, 800]);
    }

    #[test]
    fn all_that_no_policy_can_say_is_told_at_once() {
        assert!(RetryPolicy::default().problems().is_empty() && RetryPolicy::once().problems().is_empty());
        let wrong = RetryPolicy {
            attempts_max: 0,
            base_ms: u64::MAX,
            cap_ms: u64::MAX,
            jitter: f64::NAN,
            ..RetryPolicy::default()
        };
        let problems = wrong.problems().join("; ");
        for field in ["attempts_max", "base_ms", "cap_ms", "jitter"] {
            assert!(problems.contains(field), "{problems}");
        }
        for jitter in [-0.1, 1.1, f64::INFINITY] {
            assert_eq!(RetryPolicy { jitter, ..RetryPolicy::default() }.problems().len(), 1, "{jitter}");
        }
        let many = RetryPolicy { attempts_max: RetryPolicy::ATTEMPTS_MAX + 1, ..RetryPolicy::default() };
        assert_eq!(many.problems().len(), 1);
    }

    proptest! {
        #[test]
        fn delay_stays_between_its_jitter_and_the_cap(
            attempt in 1u32.., base in 0u64.., cap in 0u64..1_000_000, jitter in 0.0..=1.0, chance in 0.0..1.0,
        ) {
            for backoff in [Backoff::None, Backoff::Linear, Backoff::Exponential, Backoff::Fibonacci] {
                let policy = RetryPolicy { attempts_max: 3, backoff, base_ms: base, cap_ms: cap, jitter };
                let whole = RetryPolicy { jitter: 0.0, ..policy }.delay(attempt, chance);
                let delay = policy.delay(attempt, chance);
                prop_assert!(delay <= whole && whole <= Duration::from_millis(cap));
                prop_assert!(delay >= whole.mul_f64((1.0 - jitter).max(0.0)).saturating_sub(Duration::from_micros(1)));
            }
        }
    }
}
