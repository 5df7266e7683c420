//! What follows from a subscriber's answer.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::whole_ms;
use crate::retry::{Backoff, RetryPolicy};

/// What is not delivered after this long is given up.
pub const DELIVERY_AGE_MAX: Duration = Duration::from_hours(7 * 24);
/// The longest that a subscriber rests on our own account after failures in a row.
const REST_MAX: Duration = Duration::from_mins(5);

/// How often a delivery is tried and when, unless its subscriber says otherwise: 20 times over two and a half days, from
/// 5 seconds to 8 hours apart.
pub fn delivery_policy() -> RetryPolicy {
    RetryPolicy {
        attempts_max: 20,
        backoff: Backoff::Exponential,
        base_ms: 5_000,
        cap_ms: whole_ms(Duration::from_hours(8)),
        jitter: 0.2,
    }
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Not yet delivered.
    Pending,
    /// The subscriber has it.
    Delivered,
    /// Given up; an operator may have it delivered again.
    Dead,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// The name in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no state of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no state of a delivery: expected pending, delivered or dead")]
pub struct UnknownDeliveryState(String);

impl FromStr for DeliveryState {
    type Err = UnknownDeliveryState;

    fn from_str(text: &str) -> Result<Self, UnknownDeliveryState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownDeliveryState(text.to_owned()))
    }
}

/// What became of one try to tell a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// It has the event.
    Taken,
    /// Not this time.
    Failed {
        /// How long it asked to be left alone; honoured in full, up to [`DELIVERY_AGE_MAX`].
        after: Option<Duration>,
    },
    /// Never: it will not take this event.
    Refused,
    /// It wants nothing any more.
    Gone,
}

/// What a status of HTTP means for a webhook, by the Standard Webhooks specification: 2xx is success, 410 the end of all
/// deliveries, everything else a failure that is tried again. Redirects are not followed.
impl Answered {
    /// From a status and what `Retry-After` says.
    pub fn by_status(status: u16, after: Option<Duration>) -> Self {
        match status {
            200..=299 => Self::Taken,
            410 => Self::Gone,
            _ => Self::Failed { after },
        }
    }
}

/// What follows a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterTry {
    /// Nothing: it is delivered.
    Done,
    /// Another try after this long.
    Again(Duration),
    /// No other try.
    GiveUp,
}

/// What follows the `attempt`-th try (counted from 1).
pub fn after_answer(policy: &RetryPolicy, attempt: u32, answered: &Answered, chance: f64) -> AfterTry {
    match answered {
        Answered::Taken => AfterTry::Done,
        Answered::Refused | Answered::Gone => AfterTry::GiveUp,
        Answered::Failed { .. } if attempt >= policy.attempts_max => AfterTry::GiveUp,
        Answered::Failed { after } => {
            let asked = after.unwrap_or_default().min(DELIVERY_AGE_MAX);
            AfterTry::Again(policy.delay(attempt, chance).max(asked))
        }
    }
}

/// How long a subscriber is left alone after so many failures in a row, counted from 1: from a second, doubling, up to
/// five minutes; longer where it asked for it. A dead subscriber so costs little, however much waits for it.
pub fn rest_after(failures: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    let own = Duration::from_secs(doubled).min(REST_MAX).mul_f64(1.0 - 0.2 * chance.clamp(0.0, 1.0));
    own.max(asked.unwrap_or_default().min(DELIVERY_AGE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_decides_as_the_specification_says() {
        for status in [200, 201, 204, 299] {
            assert_eq!(Answered::by_status(status, None), Answered::Taken, "{status}");
        }
        assert_eq!(Answered::by_status(410, None), Answered::Gone);
        for status in [301, 302, 307, 400, 404, 408, 429, 500, 502, 503, 504] {
            let after = Some(Duration::from_secs(7));
            assert_eq!(Answered::by_status(status, after), Answered::Failed { after }, "{status}");
        }
    }

    #[test]
    fn delivery_is_tried_until_its_attempts_are_used_up() {
        let policy = RetryPolicy { attempts_max: 2, jitter: 0.0, ..delivery_policy() };
        let failed = Answered::Failed { after: None };
        assert_eq!(after_answer(&policy, 1, &failed, 0.5), AfterTry::Again(Duration::from_secs(5)));
        assert_eq!(after_answer(&policy, 2, &failed, 0.5), AfterTry::GiveUp);
        assert_eq!(after_answer(&policy, 9, &Answered::Taken, 0.5), AfterTry::Done);
        assert_eq!(after_answer(&policy, 1, &Answered::Gone, 0.5), AfterTry::GiveUp);
    }

    #[test]
    fn retry_after_is_a_lower_bound_of_delay_and_rest() {
        let asked = Some(Duration::from_hours(10));
        let failed = Answered::Failed { after: asked };
        assert_eq!(
            after_answer(&delivery_policy(), 1, &failed, 0.0),
            AfterTry::Again(Duration::from_hours(10))
        );
        assert_eq!(rest_after(1, asked, 1.0), Duration::from_hours(10));
        let endless = Answered::Failed { after: Some(Duration::MAX) };
        assert_eq!(after_answer(&delivery_policy(), 1, &endless, 0.0), AfterTry::Again(DELIVERY_AGE_MAX));
    }

    #[test]
    fn dead_subscriber_rests_longer_and_longer() {
        let seconds: Vec<u64> = (1..=12).map(|failures| rest_after(failures, None, 0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert!(rest_after(u32::MAX, None, 1.0) >= Duration::from_mins(4));
    }

    #[test]
    fn default_tries_span_days() {
        let policy = delivery_policy();
        let whole: Duration = (1..policy.attempts_max).map(|attempt| policy.delay(attempt, 0.0)).sum();
        assert!(whole > Duration::from_hours(48) && whole < DELIVERY_AGE_MAX, "{whole:?}");
    }
}
