//! Cron schedules: when they tick in their time zone, and what a tick that is due leads to.
//!
//! Where a clock is put forward, a time of day that does not exist is taken at the first instant after the gap; where it is put back, a
//! time of day that comes twice is taken once, the first time. Schedules of a rhythm (`*/15 * * * *`) tick in the
//! rhythm through both.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;

use crate::time::Timestamp;

/// Longest cron expression, in bytes.
pub const CRON_BYTES_MAX: usize = 256;
/// A tick that is seen later than this was missed: the catch-up policy says what becomes of it.
pub const LATE_MAX: Duration = Duration::from_secs(60);

/// What happens when a tick comes while the job of an earlier one has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overlap {
    /// The tick is skipped.
    #[default]
    Skip,
    /// Both run.
    Allow,
    /// The earlier one is cancelled.
    Replace,
}

/// What becomes of ticks that nobody saw in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CatchUp {
    /// They are gone.
    #[default]
    Skip,
    /// One job stands for all of them.
    Once,
}

macro_rules! words {
    ($name:ident, $what:literal, $unknown:ident, $($variant:ident = $word:literal),*) => {
        impl $name {
            /// The name in the store and on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        #[doc = concat!("The text names no ", $what, ".")]
        #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
        #[error("`{0}` is no {what}: expected one of {words}", what = $what, words = [$($word),*].join(", "))]
        pub struct $unknown(String);

        impl std::str::FromStr for $name {
            type Err = $unknown;

            fn from_str(text: &str) -> Result<Self, $unknown> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err($unknown(text.to_owned())),
                }
            }
        }
    };
}
words!(Overlap, "overlap policy", UnknownOverlap, Skip = "skip", Allow = "allow", Replace = "replace");
words!(CatchUp, "catch-up policy", UnknownCatchUp, Skip = "skip", Once = "once");

/// A cron expression in a time zone: five fields (minute, hour, day of month, month, day of week), or six with the second before them.
#[derive(Clone)]
pub struct CronSpec {
    cron: Cron,
    zone: TimeZone,
}

impl fmt::Debug for CronSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.cron.as_str(), self.zone.iana_name())
    }
}

/// Why a schedule cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleProblem {
    /// Not five or six fields, or one that makes no sense.
    #[error("`{expression}` is no cron expression: {why}; such as `30 2 * * MON-FRI`")]
    Expression {
        /// What was given.
        expression: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such time zone.
    #[error("`{0}` is no time zone: give a name of the IANA database, such as Europe/Berlin, or UTC")]
    Zone(String),
    /// There is no such time.
    #[error("`{0}` never ticks")]
    Never(String),
}

impl CronSpec {
    /// Reads both.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, ScheduleProblem> {
        let wrong = |why: String| ScheduleProblem::Expression { expression: expression.to_owned(), why };
        if expression.len() > CRON_BYTES_MAX {
            return Err(wrong(format!("it is longer than {CRON_BYTES_MAX} bytes")));
        }
        let cron = Cron::from_str(expression).map_err(|error| wrong(error.to_string()))?;
        let zone = TimeZone::get(zone).map_err(|_| ScheduleProblem::Zone(zone.to_owned()))?;
        Ok(Self { cron, zone })
    }

    /// The first tick after `after`; `None` when there is none any more.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.tick(after, |from| self.cron.find_next_occurrence(from, false).ok())
    }

    /// The last tick that is not after `until`.
    pub fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        self.tick(until, |from| self.cron.find_previous_occurrence(from, true).ok())
    }

    /// The next `count` ticks.
    pub fn next_ticks(&self, after: Timestamp, count: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after), |tick| self.next_after(*tick)).take(count).collect()
    }

    fn tick(&self, from: Timestamp, find: impl Fn(&jiff::Zoned) -> Option<jiff::Zoned>) -> Option<Timestamp> {
        let from = jiff::Timestamp::from_microsecond(from.micros()).ok()?.to_zoned(self.zone.clone());
        Some(Timestamp::from_micros(find(&from)?.timestamp().as_microsecond()))
    }
}

/// What is to be done about a schedule now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The tick for which a job shall run.
    pub fire: Option<Timestamp>,
    /// The tick to wait for next; `None` when there is none any more.
    pub next: Option<Timestamp>,
}

/// Decides about a schedule whose next tick was to be `due`, at `now`. However many ticks went by, at most one fires: the last one, if it
/// is not late or if the policy says that what was missed is made up for.
pub fn decide(spec: &CronSpec, due: Timestamp, now: Timestamp, catch_up: CatchUp) -> Decision {
    if due > now {
        return Decision { fire: None, next: Some(due) };
    }
    let last = spec.last_until(now).filter(|last| *last >= due).unwrap_or(due);
    let is_late = now.since(last) > LATE_MAX;
    let fire = (!is_late || catch_up == CatchUp::Once).then_some(last);
    Decision { fire, next: spec.next_after(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn ticks(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let spec = CronSpec::parse(expression, zone).unwrap();
        let shown = |tick: Timestamp| jiff::Timestamp::from_microsecond(tick.micros()).unwrap().to_string();
        spec.next_ticks(at(after), count).into_iter().map(shown).collect()
    }

    #[test]
    fn ticks_follow_the_time_of_day_in_their_zone() {
        assert_eq!(
            ticks("30 2 * * MON-FRI", "UTC", "2026-01-02T12:00:00Z", 2),
            ["2026-01-05T02:30:00Z", "2026-01-06T02:30:00Z"]
        );
        assert_eq!(
            ticks("0 9 * * *", "America/New_York", "2026-01-02T12:00:00Z", 1),
            ["2026-01-02T14:00:00Z"]
        );
        assert_eq!(ticks("*/20 * * * * *", "UTC", "2026-01-02T12:00:30Z", 1), ["2026-01-02T12:00:40Z"]);
        assert_eq!(ticks("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
    }

    #[test]
    fn time_of_day_that_a_clock_put_forward_leaves_out_is_taken_after_the_gap() {
        // In Berlin 02:00 becomes 03:00 on 29 March 2026, which is 01:00 UTC.
        assert_eq!(
            ticks("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
    }

    #[test]
    fn time_of_day_that_comes_twice_is_taken_once() {
        // In Berlin 03:00 becomes 02:00 on 25 October 2026, which is 01:00 UTC.
        assert_eq!(
            ticks("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn rhythm_goes_on_through_a_change_of_the_clock() {
        assert_eq!(
            ticks("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15:00Z", 3),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
        );
        assert_eq!(
            ticks("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", 4),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_what_never_comes_ends_soon() {
        for expression in ["", "* * * *", "61 * * * *", "* * * * * * * *", &"1,".repeat(200)] {
            let problem = CronSpec::parse(expression, "UTC").unwrap_err();
            assert!(matches!(problem, ScheduleProblem::Expression { .. }), "{problem}");
        }
        for zone in ["", "Mars/Olympus", "+01:00:00:00"] {
            assert_eq!(
                CronSpec::parse("* * * * *", zone).unwrap_err(),
                ScheduleProblem::Zone(zone.to_owned())
            );
        }
        assert!(ticks("0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z", 1).is_empty());
    }

    #[test]
    fn tick_that_is_seen_in_time_fires_once() {
        let spec = CronSpec::parse("0 * * * *", "UTC").unwrap();
        let (due, next) = (at("2026-01-01T10:00:00Z"), at("2026-01-01T11:00:00Z"));
        for policy in [CatchUp::Skip, CatchUp::Once] {
            let early = decide(&spec, due, at("2026-01-01T09:59:59Z"), policy);
            assert_eq!(early, Decision { fire: None, next: Some(due) });
            for now in ["2026-01-01T10:00:00Z", "2026-01-01T10:01:00Z"] {
                assert_eq!(
                    decide(&spec, due, at(now), policy),
                    Decision { fire: Some(due), next: Some(next) }
                );
            }
        }
    }

    #[test]
    fn ticks_that_were_missed_are_skipped_or_made_up_for_once() {
        let spec = CronSpec::parse("0 * * * *", "UTC").unwrap();
        let (due, last) = (at("2026-01-01T10:00:00Z"), at("2026-01-01T15:00:00Z"));
        let (now, next) = (at("2026-01-01T15:30:00Z"), Some(at("2026-01-01T16:00:00Z")));
        assert_eq!(decide(&spec, due, now, CatchUp::Skip), Decision { fire: None, next });
        assert_eq!(decide(&spec, due, now, CatchUp::Once), Decision { fire: Some(last), next });
        // The last one is seen in time: it fires whatever was missed before.
        let now = at("2026-01-01T15:00:30Z");
        assert_eq!(decide(&spec, due, now, CatchUp::Skip), Decision { fire: Some(last), next });
    }

    #[test]
    fn policies_read_back_from_their_names() {
        for overlap in [Overlap::Skip, Overlap::Allow, Overlap::Replace] {
            assert_eq!(overlap.as_str().parse(), Ok(overlap));
        }
        for catch_up in [CatchUp::Skip, CatchUp::Once] {
            assert_eq!(catch_up.as_str().parse(), Ok(catch_up));
        }
        assert!("all".parse::<CatchUp>().unwrap_err().to_string().contains("skip, once"));
    }
}
