//! Limits of how many jobs run at once and how many start in a while, and the choice of jobs that keeps them.
//!
//! How many run is counted over the rows of running jobs, never kept beside them: a job whose worker died ceases to count
//! when its lease is taken away, and no slot can leak.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::JobId;
use crate::time::{Timestamp, micros};

/// Jobs of one concurrency key that may run at once where no limit says otherwise.
pub const KEY_RUNNING_MAX: u64 = 1;
/// A rate's starts are remembered in at most so many sums.
const SUMS_A_PERIOD: i64 = 60;
/// Shortest and longest period of a rate.
const PERIOD_MIN: Duration = Duration::from_millis(1);
const PERIOD_MAX: Duration = Duration::from_hours(31 * 24);

/// At most so many starts in any stretch of time of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Starts at most; at least 1.
    pub starts_max: u32,
    /// 1 ms to 31 days.
    pub period: Duration,
}

/// What a queue, a handler or a concurrency key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limit {
    /// Jobs that may run at once, over all processes; 0 lets none begin.
    pub running_max: Option<u32>,
    /// Starts, over all processes.
    pub rate: Option<Rate>,
}

impl Limit {
    /// It limits nothing.
    pub fn is_none(&self) -> bool {
        self.running_max.is_none() && self.rate.is_none()
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(rate) = self.rate {
            if rate.starts_max == 0 {
                problems.push(
                    "a rate must allow at least 1 start; to let none begin, pause the queue".to_owned(),
                );
            }
            if !(PERIOD_MIN..=PERIOD_MAX).contains(&rate.period) {
                problems.push(format!(
                    "a rate's period must be 1 ms to 31 days, and is {} s",
                    rate.period.as_secs_f64()
                ));
            }
        }
        problems
    }
}

/// The recent starts that a rate counts. Starts within a sixtieth of the period are summed up and count as if all of them had been
/// at the time of the last: the rate is never exceeded, and what is kept stays small.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Starts(Vec<(i64, u64)>);

impl Starts {
    /// How many more may start now.
    pub fn free(&self, rate: Rate, now: Timestamp) -> u64 {
        let counted: u64 = self.counted(rate, now).map(|(_, count)| count).sum();
        u64::from(rate.starts_max).saturating_sub(counted)
    }

    /// How long until more may start; zero when they may now.
    pub fn next_free(&self, rate: Rate, now: Timestamp) -> Duration {
        if self.free(rate, now) > 0 {
            return Duration::ZERO;
        }
        let first = self.counted(rate, now).map(|(at, _)| at).min();
        first.map_or(Duration::ZERO, |at| Timestamp::from_micros(at).plus(rate.period).since(now))
    }

    /// Remembers that so many started now, and forgets what no longer counts.
    pub fn add(&mut self, rate: Rate, now: Timestamp, count: u64) {
        let kept: Vec<_> = self.counted(rate, now).collect();
        self.0 = kept;
        if count == 0 {
            return;
        }
        let width = (micros(rate.period) / SUMS_A_PERIOD).max(1);
        // Another process's clock may be ahead of this one's.
        let at = self.0.last().map_or(now.micros(), |(at, _)| now.micros().max(*at));
        match self.0.last_mut() {
            Some((last, sum)) if last.div_euclid(width) == at.div_euclid(width) => {
                *last = at;
                *sum += count;
            }
            _ => self.0.push((at, count)),
        }
    }

    fn counted(&self, rate: Rate, now: Timestamp) -> impl Iterator<Item = (i64, u64)> + '_ {
        let from = now.minus(rate.period).micros();
        self.0.iter().copied().filter(move |(at, _)| *at > from)
    }
}

/// A concurrency key belongs to a namespace.
pub type NamespacedKey = (String, String);

/// A job that could be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The job.
    pub id: JobId,
    /// Where it waits.
    pub queue: String,
    /// What does it.
    pub handler: String,
    /// With which others it may not run.
    pub key: Option<NamespacedKey>,
    /// Larger first.
    pub priority: i64,
    /// Earlier first.
    pub due_at: Timestamp,
}

/// How many more may begin: of each queue, each handler and each key that is limited. What is not named here is not limited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Room {
    /// By queue.
    pub queues: HashMap<String, u64>,
    /// By handler.
    pub handlers: HashMap<String, u64>,
    /// By concurrency key; here every key must be named, else none of its jobs may begin.
    pub keys: HashMap<NamespacedKey, u64>,
}

/// Chooses at most `rows_max` candidates, by priority (larger first), then due time, then id, such that no queue, handler or key
/// gets more than it has room for. One that has no room is stepped over for the next.
pub fn choose(mut candidates: Vec<Candidate>, mut room: Room, rows_max: usize) -> Vec<Candidate> {
    candidates.sort_by_key(|job| (std::cmp::Reverse(job.priority), job.due_at, job.id));
    candidates.dedup_by_key(|job| job.id);
    let mut chosen = Vec::new();
    for job in candidates {
        if chosen.len() >= rows_max {
            break;
        }
        let queue = room.queues.get(&job.queue).copied();
        let handler = room.handlers.get(&job.handler).copied();
        let key = job.key.as_ref().map(|key| room.keys.get(key).copied().unwrap_or(0));
        if [queue, handler, key].contains(&Some(0)) {
            continue;
        }
        let places =
            [room.queues.get_mut(&job.queue), room.handlers.get_mut(&job.handler)].into_iter().flatten();
        for place in places.chain(job.key.as_ref().and_then(|key| room.keys.get_mut(key))) {
            *place -= 1;
        }
        chosen.push(job);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn per_minute(starts_max: u32) -> Rate {
        Rate { starts_max, period: Duration::from_secs(60) }
    }

    fn candidate(queue: &str, handler: &str, key: Option<&str>, priority: i64) -> Candidate {
        Candidate {
            id: JobId::make(),
            queue: queue.to_owned(),
            handler: handler.to_owned(),
            key: key.map(|key| ("n".to_owned(), key.to_owned())),
            priority,
            due_at: at(0),
        }
    }

    #[test]
    fn rate_frees_what_its_period_has_left_behind() {
        let mut starts = Starts::default();
        assert_eq!(starts.free(per_minute(10), at(0)), 10);
        starts.add(per_minute(10), at(0), 6);
        starts.add(per_minute(10), at(30), 4);
        assert_eq!(starts.free(per_minute(10), at(59)), 0);
        assert_eq!(starts.next_free(per_minute(10), at(45)), Duration::from_secs(15));
        assert_eq!(starts.free(per_minute(10), at(60)), 6);
        assert_eq!(starts.next_free(per_minute(10), at(60)), Duration::ZERO);
        assert_eq!(starts.free(per_minute(3), at(60)), 0, "a rate that was lowered holds at once");
    }

    #[test]
    fn room_of_queue_handler_and_key_is_kept_together() {
        let jobs = vec![
            candidate("q", "h", None, 9),
            candidate("q", "h", None, 8),
            candidate("q", "g", None, 7),
            candidate("r", "g", Some("a"), 6),
            candidate("r", "g", Some("a"), 5),
            candidate("r", "g", Some("b"), 4),
            candidate("r", "g", Some("unnamed"), 3),
        ];
        let room = Room {
            queues: HashMap::from([("q".to_owned(), 2)]),
            handlers: HashMap::from([("h".to_owned(), 1)]),
            keys: HashMap::from([
                (("n".to_owned(), "a".to_owned()), 1),
                (("n".to_owned(), "b".to_owned()), 1),
            ]),
        };
        let chosen = |rows_max| -> Vec<i64> {
            choose(jobs.clone(), room.clone(), rows_max).iter().map(|job| job.priority).collect()
        };
        assert_eq!(chosen(10), [9, 7, 6, 4], "8 is over h's room, 5 over a's; a key without room has none");
        assert_eq!(chosen(2), [9, 7]);
        assert!(chosen(0).is_empty());
    }

    #[test]
    fn limit_that_cannot_be_is_refused_with_every_reason() {
        let rate = Some(Rate { starts_max: 0, period: Duration::ZERO });
        assert_eq!(Limit { running_max: None, rate }.problems().len(), 2);
        assert!(Limit { running_max: Some(0), rate: Some(per_minute(1)) }.problems().is_empty());
    }

    proptest! {
        /// Whatever the pattern of starts, no stretch of a period's length holds more than the rate allows.
        #[test]
        fn no_stretch_of_time_holds_more_starts_than_allowed(
            pauses in prop::collection::vec((0i64..20_000_000, 1u64..8), 1..80), starts_max in 1u32..20,
        ) {
            let rate = Rate { starts_max, period: Duration::from_secs(10) };
            let (mut now, mut starts, mut log) = (0i64, Starts::default(), Vec::new());
            for (pause, wanted) in pauses {
                now += pause;
                let count = wanted.min(starts.free(rate, Timestamp::from_micros(now)));
                starts.add(rate, Timestamp::from_micros(now), count);
                log.push((now, count));
                prop_assert!(starts.0.len() <= 61, "{}", starts.0.len());
            }
            for (end, _) in &log {
                let within = log.iter().filter(|(at, _)| *at <= *end && *at > end - 10_000_000);
                prop_assert!(within.map(|(_, count)| count).sum::<u64>() <= u64::from(starts_max));
            }
        }
    }
}
