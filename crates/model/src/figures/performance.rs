//! How work went in a window.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::request::PerformanceRequest;
use super::sketch::Sketch;
use super::totals::{Kind, Totals};
use super::{MINUTE_US, Minute, MinuteTotals, float};
use crate::time::Timestamp;

/// Parts of the window of which the trend is told.
const BUCKETS: i64 = 24;
/// Microseconds of an hour.
const HOUR_US: f64 = 3_600_000_000.0;

/// Work that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Active {
    /// Workflows, and jobs that are no steps.
    pub tasks: u64,
    /// Those of them that were submitted in the window.
    #[serde(default)]
    pub submitted: u64,
}

/// Mean and quantiles of durations; `None` where there are none. The mean is exact, quantiles are off by at most
/// [`Sketch::ERROR`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Distribution {
    /// How many durations.
    pub count: u64,
    /// All of them together.
    #[serde(default)]
    pub sum: Duration,
    /// Their mean.
    pub mean: Option<Duration>,
    /// Half of them are no longer.
    pub p50: Option<Duration>,
    /// Nine in ten are no longer.
    pub p90: Option<Duration>,
    /// 99 in a hundred are no longer.
    pub p99: Option<Duration>,
}

impl Distribution {
    pub(crate) fn of(sum_us: u64, sketch: &Sketch) -> Self {
        let count = sketch.count();
        Self {
            count,
            sum: Duration::from_micros(sum_us),
            mean: sum_us.checked_div(count).map(Duration::from_micros),
            p50: sketch.quantile(0.5),
            p90: sketch.quantile(0.9),
            p99: sketch.quantile(0.99),
        }
    }
}

/// A part of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bucket {
    /// Where it begins.
    pub start: Timestamp,
    /// Tasks that ended well.
    pub completed: u64,
    /// Tasks that failed.
    pub failed: u64,
    /// Steps and jobs that a handler ran, and that ended.
    pub steps: u64,
}

/// A part of the health score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthPart {
    /// What it is about.
    pub name: String,
    /// From 0, bad, to 1: `good` by `whole`, and 1 where that is 0.
    pub score: f64,
    /// What part of the whole it makes.
    pub weight: f64,
    /// Tasks or steps that ended well, or the seconds that nine in ten steps run at most.
    #[serde(default)]
    pub good: f64,
    /// Those, and those that failed, or the seconds that nine in ten wait at most.
    #[serde(default)]
    pub whole: f64,
}

impl HealthPart {
    fn of(name: &str, weight: f64, good: f64, whole: f64) -> Self {
        let score = if whole > 0.0 { good / whole } else { 1.0 };
        Self { name: name.to_owned(), score, weight, good, whole }
    }
}

/// How work went in a window. A *task* is a workflow or a job that is no step; a *step* is anything that a handler ran: a step of a
/// workflow, or such a job. What ended before it began is none, and what the engine does itself neither.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Performance {
    /// Where the window begins: at a full minute.
    pub start: Timestamp,
    /// Where it ends.
    pub end: Timestamp,
    /// Tasks that ended in the window, and those that have not ended.
    pub total_tasks: u64,
    /// Tasks that have not ended, whenever they were submitted.
    pub active_tasks: u64,
    /// Those of them that were submitted in the window.
    #[serde(default)]
    pub active_tasks_submitted: u64,
    /// Tasks that ended well in the window.
    pub completed_tasks: u64,
    /// Tasks that failed.
    pub failed_tasks: u64,
    /// Tasks that were called off.
    pub cancelled_tasks: u64,
    /// Tasks that a newer version made pointless.
    pub superseded_tasks: u64,
    /// Of the tasks that ended in the window, the fraction that ended well; `None` where none ended.
    pub completion_rate: Option<f64>,
    /// Of all tasks, those that have not ended too, the fraction that ended well.
    pub completion_rate_of_total: Option<f64>,
    /// Of the tasks that ended, the fraction that failed.
    pub error_rate: Option<f64>,
    /// From submit to end, of tasks.
    pub task_duration: Distribution,
    /// From the start of the last attempt to the end, of steps.
    pub step_duration: Distribution,
    /// From when that attempt was due to its start.
    pub queue_wait: Distribution,
    /// Tasks that ended in the window, or were submitted in it and have not ended, by the hours from `start` to `end`. Those that were
    /// there before and have not ended say nothing of the window, however many they are.
    pub tasks_per_hour: f64,
    /// Tasks that ended, by the hours from `start` to `end`.
    pub tasks_ended_per_hour: f64,
    /// Steps that ended, by the hours from `start` to `end`.
    pub steps_per_hour: f64,
    /// The window in 24 parts.
    pub trend: Vec<Bucket>,
    /// From 0, bad, to 1: the weighed mean of its parts; `None` where nothing ended.
    pub health_score: Option<f64>,
    /// What it is made of.
    pub health_parts: Vec<HealthPart>,
}

/// Which part of a window a minute belongs to, from 0.
pub(super) fn part(minute: Minute, start: Timestamp, end: Timestamp) -> i64 {
    let at = minute.saturating_mul(MINUTE_US);
    ((at - start.micros()) / part_us(start, end)).clamp(0, BUCKETS - 1)
}

/// How long a part of a window is.
fn part_us(start: Timestamp, end: Timestamp) -> i64 {
    ((end.micros() - start.micros()).max(1) / BUCKETS).max(1)
}

/// What minutes of a window come to. `minutes` are of the window; what the filter leaves out does not count.
pub fn performance(
    request: &PerformanceRequest,
    start: Timestamp,
    end: Timestamp,
    minutes: &[MinuteTotals],
    active: Active,
) -> Performance {
    let mut tasks = Totals::default();
    let mut steps = Totals::default();
    let mut trend: BTreeMap<i64, Bucket> = BTreeMap::new();
    let span_us = (end.micros() - start.micros()).max(1);
    let bucket_us = part_us(start, end);
    for bucket in 0..BUCKETS {
        let start = Timestamp::from_micros(start.micros() + bucket * bucket_us);
        trend.insert(bucket, Bucket { start, ..Bucket::default() });
    }
    for one in minutes.iter().filter(|one| request.filter.takes(&one.series)) {
        let bucket = trend.entry(part(one.minute, start, end)).or_default();
        if one.series.kind != Kind::Step {
            tasks.merge(&one.totals);
            bucket.completed += one.totals.completed;
            bucket.failed += one.totals.failed;
        }
        if one.series.is_of_handlers() {
            steps.merge(&one.totals);
            bucket.steps += one.totals.executed();
        }
    }
    let ended = tasks.ended();
    let total = ended.saturating_add(active.tasks);
    let share = |count: u64| (ended > 0).then(|| float(count) / float(ended));
    // Of the window as it is, not as it was asked for: it begins with a full minute.
    let hours = float(u64::try_from(span_us).unwrap_or(1)) / HOUR_US;
    let queue_wait = Distribution::of(steps.waited_us, &steps.waited);
    let step_duration = Distribution::of(steps.ran_us, &steps.ran);
    let (health_score, health_parts) = health(&tasks, &steps, &step_duration, &queue_wait);
    Performance {
        start,
        end,
        total_tasks: total,
        active_tasks: active.tasks,
        active_tasks_submitted: active.submitted,
        completed_tasks: tasks.completed,
        failed_tasks: tasks.failed,
        cancelled_tasks: tasks.cancelled,
        superseded_tasks: tasks.superseded,
        completion_rate: share(tasks.completed),
        completion_rate_of_total: (total > 0).then(|| float(tasks.completed) / float(total)),
        error_rate: share(tasks.failed),
        task_duration: Distribution::of(tasks.lasted_us, &tasks.lasted),
        step_duration,
        queue_wait,
        tasks_per_hour: float(ended.saturating_add(active.submitted)) / hours,
        tasks_ended_per_hour: float(ended) / hours,
        steps_per_hour: float(steps.executed()) / hours,
        trend: trend.into_values().collect(),
        health_score,
        health_parts,
    }
}

/// Half of it is how few tasks fail; a quarter how few steps do; a quarter how short steps wait beside how long they run: a half
/// where the waits of nine in ten are as long as nine in ten run.
fn health(
    tasks: &Totals,
    steps: &Totals,
    ran: &Distribution,
    waited: &Distribution,
) -> (Option<f64>, Vec<HealthPart>) {
    let mut parts = Vec::new();
    for (name, weight, totals) in [("tasks_succeed", 0.5, tasks), ("steps_succeed", 0.25, steps)] {
        let (good, failed) = (float(totals.completed), float(totals.failed));
        if good + failed > 0.0 {
            parts.push(HealthPart::of(name, weight, good, good + failed));
        }
    }
    if let (Some(ran), Some(waited)) = (ran.p90, waited.p90) {
        let (ran, waited) = (ran.as_secs_f64(), waited.as_secs_f64());
        parts.push(HealthPart::of("steps_wait_little", 0.25, ran, ran + waited));
    }
    let weight: f64 = parts.iter().map(|part| part.weight).sum();
    let score = parts.iter().map(|part| part.score * part.weight).sum::<f64>();
    ((weight > 0.0).then(|| score / weight), parts)
}
