//! Where the figures of the reports come from: for each of their fields the formula, the rows that it is counted from, and its inputs.

use std::str::FromStr;

use recache_api::{
    BottleneckReport, FigureExplanation, FigureInput, HealthScorePart, PerformanceReport, SlowStepEntry,
};

/// A report that has figures.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// How work went.
    Performance(Box<PerformanceReport>),
    /// What is slow and what fails.
    Bottlenecks(Box<BottleneckReport>),
}

/// A figure of one of the reports, by the name of its field.
#[derive(Debug, Clone, Copy)]
pub struct Figure(&'static Row);

impl PartialEq for Figure {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Figure {}

/// The text names no figure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no figure: expected one of {names}", names = Figure::ALL.map(Figure::name).join(", "))]
pub struct UnknownFigure(String);

impl Figure {
    /// All of them.
    pub const ALL: [Self; ROWS.len()] = {
        let mut all = [Self(&ROWS[0]); ROWS.len()];
        let mut place = 0;
        while place < ROWS.len() {
            all[place] = Self(&ROWS[place]);
            place += 1;
        }
        all
    };

    /// The name in the report.
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether it is one of the bottlenecks' report; otherwise of the performance report.
    pub const fn is_of_bottlenecks(self) -> bool {
        self.0.is_of_bottlenecks
    }
}

impl FromStr for Figure {
    type Err = UnknownFigure;

    fn from_str(text: &str) -> Result<Self, UnknownFigure> {
        Self::ALL
            .into_iter()
            .find(|figure| figure.name() == text)
            .ok_or_else(|| UnknownFigure(text.chars().take(100).collect()))
    }
}

/// Where a figure comes from: its formula, its inputs, and both as rolled up and as counted from all rows. Both reports are of the
/// figure's kind.
pub fn figure_explanation(figure: Figure, report: &Report, exact: &Report) -> FigureExplanation {
    let Row { name, formula, source, value, inputs, .. } = figure.0;
    let inputs = inputs.iter().map(|(name, input)| FigureInput {
        name: (*name).to_owned(),
        value: input(report),
        exact_value: input(exact),
    });
    FigureExplanation {
        schema: FigureExplanation::SCHEMA.to_owned(),
        figure: (*name).to_owned(),
        formula: (*formula).to_owned(),
        source: (*source).to_owned(),
        value: value(report),
        exact_value: value(exact),
        inputs: inputs.collect(),
    }
}

/// A number of a report.
type Value = fn(&Report) -> Option<f64>;
/// A number of a report by its name.
type Input = (&'static str, Value);

#[derive(Debug)]
struct Row {
    name: &'static str,
    is_of_bottlenecks: bool,
    formula: &'static str,
    source: &'static str,
    value: Value,
    inputs: &'static [Input],
}

const ENDED_SOURCE: &str = "jobs that are no steps (workflow_id is null) and workflows, by finished_at in the window: figures_minutes up to \
                            figures_watermark, after it the rows of jobs and workflows";
const STEP_SOURCE: &str = "jobs, steps or not, by finished_at in the window: figures_minutes up to figures_watermark, after it the rows of jobs";
const ACTIVE_SOURCE: &str = "the rows of workflows and jobs, by their partial indexes";
const PATH_SOURCE: &str = "steps of the first 20 workflows that completed in each minute, whose critical path was found when the minute was folded";

const COMPLETED: Input = ("completed_tasks", |report| report.task(|one| one.completed_tasks));
const FAILED: Input = ("failed_tasks", |report| report.task(|one| one.failed_tasks));
const CANCELLED: Input = ("cancelled_tasks", |report| report.task(|one| one.cancelled_tasks));
const SUPERSEDED: Input = ("superseded_tasks", |report| report.task(|one| one.superseded_tasks));
const ACTIVE: Input = ("active_tasks", |report| report.task(|one| one.active_tasks));
const SUBMITTED: Input = ("active_tasks_submitted", |report| report.task(|one| one.active_tasks_submitted));
const TOTAL: Input = ("total_tasks", |report| report.task(|one| one.total_tasks));
/// The window begins with a full minute: it is up to a minute longer than was asked for.
const HOURS: Input = ("hours from analysis_period_start to calculated_at", |report| {
    report.performance().map(|one| {
        let micros = one.calculated_at.micros().saturating_sub(one.analysis_period_start.micros());
        micros_as_hours(micros)
    })
});

/// What the mean of durations is of, its sum in seconds first.
macro_rules! mean {
    ($sum:literal, $count:literal, $field:ident) => {
        &[
            ($sum, |report| report.performance().map(|one| one.$field.sum)),
            ($count, |report| report.task(|one| one.$field.count)),
        ]
    };
}

macro_rules! quantiles {
    ($field:ident) => {
        &[
            ("sum", |report| report.performance().map(|one| one.$field.sum)),
            ("count", |report| report.task(|one| one.$field.count)),
            ("mean", |report| report.performance().and_then(|one| one.$field.mean)),
            ("p50", |report| report.performance().and_then(|one| one.$field.p50)),
            ("p90", |report| report.performance().and_then(|one| one.$field.p90)),
            ("p99", |report| report.performance().and_then(|one| one.$field.p99)),
        ]
    };
}

/// A part of the health score: its weight, and what its score is of.
macro_rules! health_part {
    ($name:literal) => {
        [
            (concat!($name, " weight"), |report| report.health_part($name).map(|part| part.weight)),
            (concat!($name, " good"), |report| report.health_part($name).map(|part| part.good)),
            (concat!($name, " whole"), |report| report.health_part($name).map(|part| part.whole)),
            (concat!($name, " score"), |report| report.health_part($name).map(|part| part.score)),
        ]
    };
}

const TASKS_SUCCEED: [Input; 4] = health_part!("tasks_succeed");
const STEPS_SUCCEED: [Input; 4] = health_part!("steps_succeed");
const STEPS_WAIT_LITTLE: [Input; 4] = health_part!("steps_wait_little");
const HEALTH_PARTS: [Input; 12] = {
    let [a, b, c, d] = TASKS_SUCCEED;
    let [e, f, g, h] = STEPS_SUCCEED;
    let [i, j, k, l] = STEPS_WAIT_LITTLE;
    [a, b, c, d, e, f, g, h, i, j, k, l]
};

/// Of the first entry of a list of steps.
macro_rules! first_step {
    ($list:ident) => {
        &[
            ("executions of the first", |report| {
                report.first(|one| one.$list.first()).map(|step| number(step.executions))
            }),
            ("its mean run", |report| {
                report.first(|one| one.$list.first()).and_then(|step| step.run_seconds.mean)
            }),
            ("its mean wait", |report| {
                report.first(|one| one.$list.first()).and_then(|step| step.wait_seconds.mean)
            }),
            ("its critical share", |report| {
                report.first(|one| one.$list.first()).and_then(|step| step.critical_share)
            }),
        ]
    };
}

const fn of_performance(
    name: &'static str,
    formula: &'static str,
    source: &'static str,
    value: Value,
    inputs: &'static [Input],
) -> Row {
    Row { name, is_of_bottlenecks: false, formula, source, value, inputs }
}

const fn of_bottlenecks(
    name: &'static str,
    formula: &'static str,
    source: &'static str,
    value: Value,
    inputs: &'static [Input],
) -> Row {
    Row { name, is_of_bottlenecks: true, formula, source, value, inputs }
}

static ROWS: [Row; 29] = [
    of_performance(
        "total_tasks",
        "completed_tasks + failed_tasks + cancelled_tasks + superseded_tasks + active_tasks",
        ENDED_SOURCE,
        TOTAL.1,
        &[COMPLETED, FAILED, CANCELLED, SUPERSEDED, ACTIVE],
    ),
    of_performance(
        "active_tasks",
        "workflows with finished_at null + jobs that are no steps in state queued or running",
        ACTIVE_SOURCE,
        ACTIVE.1,
        &[],
    ),
    of_performance(
        "active_tasks_submitted",
        "those of active_tasks with created_at in the window",
        ACTIVE_SOURCE,
        SUBMITTED.1,
        &[],
    ),
    of_performance(
        "completed_tasks",
        "count of tasks that ended completed, skipped or resolved in the window",
        ENDED_SOURCE,
        COMPLETED.1,
        &[],
    ),
    of_performance(
        "failed_tasks",
        "count of tasks that ended failed in the window",
        ENDED_SOURCE,
        FAILED.1,
        &[],
    ),
    of_performance(
        "cancelled_tasks",
        "count of tasks that ended cancelled in the window",
        ENDED_SOURCE,
        CANCELLED.1,
        &[],
    ),
    of_performance(
        "superseded_tasks",
        "count of builds that ended superseded in the window: a newer version was wanted",
        ENDED_SOURCE,
        SUPERSEDED.1,
        &[],
    ),
    of_performance(
        "completion_rate",
        "completed_tasks / (completed_tasks + failed_tasks + cancelled_tasks + superseded_tasks)",
        ENDED_SOURCE,
        |report| report.performance().and_then(|one| one.completion_rate),
        &[COMPLETED, FAILED, CANCELLED, SUPERSEDED],
    ),
    of_performance(
        "completion_rate_of_total",
        "completed_tasks / total_tasks",
        ENDED_SOURCE,
        |report| report.performance().and_then(|one| one.completion_rate_of_total),
        &[COMPLETED, TOTAL],
    ),
    of_performance(
        "error_rate",
        "failed_tasks / (completed_tasks + failed_tasks + cancelled_tasks + superseded_tasks)",
        ENDED_SOURCE,
        |report| report.performance().and_then(|one| one.error_rate),
        &[COMPLETED, FAILED, CANCELLED, SUPERSEDED],
    ),
    of_performance(
        "average_task_duration_seconds",
        "sum of finished_at - created_at / tasks that ended",
        ENDED_SOURCE,
        |report| report.performance().and_then(|one| one.average_task_duration_seconds),
        mean!("sum of finished_at - created_at", "tasks that ended", task_duration_seconds),
    ),
    of_performance(
        "average_step_duration_seconds",
        "sum of finished_at - started_at of last attempts / steps that began",
        STEP_SOURCE,
        |report| report.performance().and_then(|one| one.average_step_duration_seconds),
        mean!("sum of finished_at - started_at", "steps that began", step_duration_seconds),
    ),
    of_performance(
        "task_duration_seconds",
        "count, mean and quantiles of finished_at - created_at; the value is the mean, sum / count; quantiles are of a sketch and off by at \
         most 1 %",
        ENDED_SOURCE,
        |report| report.performance().and_then(|one| one.task_duration_seconds.mean),
        quantiles!(task_duration_seconds),
    ),
    of_performance(
        "step_duration_seconds",
        "count, mean and quantiles of finished_at - started_at of last attempts; the value is the mean, sum / count; quantiles are of a \
         sketch and off by at most 1 %",
        STEP_SOURCE,
        |report| report.performance().and_then(|one| one.step_duration_seconds.mean),
        quantiles!(step_duration_seconds),
    ),
    of_performance(
        "queue_wait_seconds",
        "count, mean and quantiles of started_at - due_at of last attempts; the value is the mean, sum / count; quantiles are of a sketch \
         and off by at most 1 %",
        STEP_SOURCE,
        |report| report.performance().and_then(|one| one.queue_wait_seconds.mean),
        quantiles!(queue_wait_seconds),
    ),
    of_performance(
        "tasks_per_hour",
        "(completed_tasks + failed_tasks + cancelled_tasks + superseded_tasks + active_tasks_submitted) / hours of the window",
        ENDED_SOURCE,
        |report| report.performance().map(|one| one.tasks_per_hour),
        &[COMPLETED, FAILED, CANCELLED, SUPERSEDED, SUBMITTED, HOURS],
    ),
    of_performance(
        "tasks_ended_per_hour",
        "(completed_tasks + failed_tasks + cancelled_tasks + superseded_tasks) / hours of the window",
        ENDED_SOURCE,
        |report| report.performance().map(|one| one.tasks_ended_per_hour),
        &[COMPLETED, FAILED, CANCELLED, SUPERSEDED, HOURS],
    ),
    of_performance(
        "steps_per_hour",
        "steps that ran and ended / hours of the window",
        STEP_SOURCE,
        |report| report.performance().map(|one| one.steps_per_hour),
        &[
            ("steps that ran and ended", |report| {
                report.task(|one| one.trend.iter().fold(0, |sum, bucket| sum + bucket.steps))
            }),
            HOURS,
        ],
    ),
    of_performance(
        "system_health_score",
        "sum of weight * score / sum of weight, of the parts that are known; score = good / whole. tasks_succeed and steps_succeed: completed \
         / (completed + failed); steps_wait_little: run p90 / (run p90 + wait p90), in seconds",
        STEP_SOURCE,
        |report| report.performance().and_then(|one| one.system_health_score),
        &HEALTH_PARTS,
    ),
    of_performance(
        "health_parts",
        "each part of the health score with its weight; score = good / whole. tasks_succeed and steps_succeed: completed / (completed + \
         failed); steps_wait_little: run p90 / (run p90 + wait p90), in seconds; the value is the sum of the weights that are known",
        STEP_SOURCE,
        |report| {
            let parts = &report.performance()?.health_parts;
            (!parts.is_empty()).then(|| parts.iter().map(|part| part.weight).sum())
        },
        &HEALTH_PARTS,
    ),
    of_performance(
        "trend",
        "completed and failed tasks and ended steps of each of 24 equal parts of the window; the value is the sum of completed tasks",
        ENDED_SOURCE,
        |report| report.task(|one| one.trend.iter().fold(0, |sum, bucket| sum + bucket.completed_tasks)),
        &[COMPLETED],
    ),
    of_bottlenecks(
        "executions",
        "count of steps and jobs that a handler ran and that ended in the window, without the engine's own",
        STEP_SOURCE,
        |report| report.bottlenecks().map(|one| number(one.executions)),
        &[],
    ),
    of_bottlenecks(
        "slowest_steps_by_run",
        "steps with at least min_executions, by the mean of finished_at - started_at; the value is that of the first",
        STEP_SOURCE,
        |report| report.first(|one| one.slowest_steps_by_run.first()).and_then(|step| step.run_seconds.mean),
        first_step!(slowest_steps_by_run),
    ),
    of_bottlenecks(
        "slowest_steps_by_wait",
        "steps with at least min_executions, by the mean of started_at - due_at; the value is that of the first",
        STEP_SOURCE,
        |report| {
            report.first(|one| one.slowest_steps_by_wait.first()).and_then(|step| step.wait_seconds.mean)
        },
        first_step!(slowest_steps_by_wait),
    ),
    of_bottlenecks(
        "slowest_steps_by_critical_share",
        "run time on the critical path / length of the critical paths, of steps with at least min_executions; the value is that of the first",
        PATH_SOURCE,
        |report| {
            report
                .first(|one| one.slowest_steps_by_critical_share.first())
                .and_then(|step| step.critical_share)
        },
        first_step!(slowest_steps_by_critical_share),
    ),
    of_bottlenecks(
        "slowest_workflows",
        "templates with at least min_executions, by the mean of finished_at - created_at; the value is that of the first",
        ENDED_SOURCE,
        |report| report.bottlenecks()?.slowest_workflows.first()?.duration_seconds.mean,
        &[("executions of the first", |report| {
            report.bottlenecks()?.slowest_workflows.first().map(|one| number(one.executions))
        })],
    ),
    of_bottlenecks(
        "error_hot_spots",
        "failures with one code / all that the handler ended, of handlers with at least min_executions, by number; the value is the share \
         of the first",
        STEP_SOURCE,
        |report| report.bottlenecks()?.error_hot_spots.first().map(|spot| spot.share),
        &[("failures of the first", |report| {
            report.bottlenecks()?.error_hot_spots.first().map(|spot| number(spot.failures))
        })],
    ),
    of_bottlenecks(
        "resource_use",
        "sum of finished_at - started_at of a handler / the same of all, of handlers with at least min_executions; the value is the share \
         of the first",
        STEP_SOURCE,
        |report| report.bottlenecks()?.resource_use.first().map(|one| one.share),
        &[
            ("seconds that the first ran", |report| {
                report.bottlenecks()?.resource_use.first().map(|one| one.busy_seconds)
            }),
            ("of it at once on average", |report| {
                report.bottlenecks()?.resource_use.first().map(|one| one.running_mean)
            }),
        ],
    ),
    of_bottlenecks(
        "recommendations",
        "add_workers where the mean wait is at least a second and longer than the mean run; shorten_step from a critical share of 0.5 on; fix_error from a share \
         of 0.05 on; each names what was measured; the value is how many there are",
        STEP_SOURCE,
        |report| {
            report
                .bottlenecks()
                .map(|one| number(u64::try_from(one.recommendations.len()).unwrap_or(u64::MAX)))
        },
        &[],
    ),
];

impl Report {
    fn performance(&self) -> Option<&PerformanceReport> {
        match self {
            Self::Performance(report) => Some(report),
            Self::Bottlenecks(_) => None,
        }
    }

    fn bottlenecks(&self) -> Option<&BottleneckReport> {
        match self {
            Self::Bottlenecks(report) => Some(report),
            Self::Performance(_) => None,
        }
    }

    fn task(&self, of: fn(&PerformanceReport) -> u64) -> Option<f64> {
        self.performance().map(|report| number(of(report)))
    }

    fn health_part(&self, name: &str) -> Option<&HealthScorePart> {
        self.performance()?.health_parts.iter().find(|part| part.name == name)
    }

    fn first(&self, of: fn(&BottleneckReport) -> Option<&SlowStepEntry>) -> Option<&SlowStepEntry> {
        self.bottlenecks().and_then(of)
    }
}

/// A count as a number: exact up to 2^53.
fn number(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

fn micros_as_hours(micros: i64) -> f64 {
    std::time::Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64() / 3_600.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use recache_engine::figures::FoundBottlenecks;
    use recache_model::figures::{
        Active, BottlenecksRequest, Ended, Kind, MinuteTotals, PerformanceRequest, Series, Totals,
        performance,
    };
    use recache_model::job::JobState;
    use recache_model::time::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::documents;

    /// What is no figure: what was asked, and when it was calculated.
    const ASKED: [&str; 6] =
        ["schema", "hours", "analysis_period_start", "calculated_at", "limit", "min_executions"];

    fn fields(document: &impl serde::Serialize) -> BTreeSet<String> {
        let Value::Object(fields) = serde_json::to_value(document).unwrap() else { panic!("a document") };
        fields.into_iter().map(|(name, _)| name).filter(|name| !ASKED.contains(&name.as_str())).collect()
    }

    #[test]
    fn every_figure_of_the_reports_has_an_explanation_and_nothing_else_has() {
        let request = PerformanceRequest::default();
        let end = Timestamp::from_micros(3_600_000_000);
        let found = performance(&request, Timestamp::default(), end, &[], Active { tasks: 8, submitted: 3 });
        let report = documents::performance(&request, &found);
        let found = FoundBottlenecks {
            start: Timestamp::default(),
            end,
            bottlenecks: recache_model::figures::Bottlenecks::default(),
        };
        let slow = documents::bottlenecks(&BottlenecksRequest::default(), &found);
        let explained = |is_of_bottlenecks: bool| -> BTreeSet<String> {
            let figures = Figure::ALL.into_iter().filter(|one| one.is_of_bottlenecks() == is_of_bottlenecks);
            figures.map(|figure| figure.name().to_owned()).collect()
        };
        assert_eq!(fields(&report), explained(false));
        assert_eq!(fields(&slow), explained(true));
        let (report, slow) = (Report::Performance(Box::new(report)), Report::Bottlenecks(Box::new(slow)));
        for figure in Figure::ALL {
            let of = if figure.is_of_bottlenecks() { &slow } else { &report };
            let told = figure_explanation(figure, of, of);
            assert!(!told.formula.is_empty() && !told.source.is_empty(), "{}", told.figure);
            assert_eq!(told.value.map(f64::to_bits), told.exact_value.map(f64::to_bits));
        }
        let told = figure_explanation("tasks_per_hour".parse().unwrap(), &report, &report);
        assert_eq!(told.value, Some(3.0));
        let hours = told.inputs.last().unwrap();
        assert_eq!(
            (hours.name.as_str(), hours.value),
            ("hours from analysis_period_start to calculated_at", Some(1.0))
        );
    }

    #[test]
    fn counts_are_told_as_they_are_also_beyond_32_bits() {
        for (count, told) in [
            (0, 0.0),
            (4_294_967_295, 4_294_967_295.0),
            (4_294_967_296, 4_294_967_296.0),
            (1_000_000_000_000_000, 1e15),
            (1 << 53, 9_007_199_254_740_992.0),
        ] {
            assert_eq!(number(count).to_bits(), f64::to_bits(told));
        }
    }

    /// Work of which each part of the score is another: 3 of 4 tasks, 6 of 8 steps, runs of 3 s after waits of 1 s.
    fn some_work() -> PerformanceReport {
        let totals = |completed: u64, is_step: bool| {
            let mut totals = Totals::default();
            for place in 0..completed + completed / 3 {
                let seconds = |seconds| is_step.then(|| Duration::from_secs(seconds));
                totals.add(&Ended {
                    state: if place < completed { JobState::Completed } else { JobState::Failed },
                    lasted: Duration::from_secs(5 + place),
                    ran: seconds(3),
                    waited: seconds(1),
                    code: None,
                });
            }
            totals
        };
        let of = |kind, handler: &str, totals| {
            let none = String::new;
            let series = Series {
                kind,
                namespace: "shop".to_owned(),
                template: none(),
                step: none(),
                handler: handler.to_owned(),
                queue: none(),
            };
            MinuteTotals { minute: 1, series, totals }
        };
        let minutes = [of(Kind::Workflow, "", totals(3, false)), of(Kind::Step, "charge", totals(6, true))];
        let request = PerformanceRequest::default();
        let end = Timestamp::from_micros(3_600_000_000);
        documents::performance(
            &request,
            &performance(&request, Timestamp::default(), end, &minutes, Active::default()),
        )
    }

    /// What is printed is enough to calculate the figure by its formula.
    #[test]
    fn averages_and_the_health_score_follow_from_the_inputs_that_are_told() {
        let report = Report::Performance(Box::new(some_work()));
        let told = |figure: &str| figure_explanation(figure.parse().unwrap(), &report, &report);
        let input = |of: &FigureExplanation, name: &str| -> f64 {
            let found = of.inputs.iter().find(|input| input.name == name);
            found.and_then(|input| input.value).unwrap_or_else(|| panic!("{name} in {of:?}"))
        };
        for (figure, sum, count, by_hand) in [
            ("average_task_duration_seconds", "sum of finished_at - created_at", "tasks that ended", 6.5),
            ("average_step_duration_seconds", "sum of finished_at - started_at", "steps that began", 3.0),
            ("task_duration_seconds", "sum", "count", 6.5),
            ("step_duration_seconds", "sum", "count", 3.0),
            ("queue_wait_seconds", "sum", "count", 1.0),
        ] {
            let told = told(figure);
            let mean = input(&told, sum) / input(&told, count);
            assert!((mean - by_hand).abs() < 1e-6, "{figure}: {told:?}");
            assert!((told.value.unwrap() - by_hand).abs() < 1e-6, "{figure}: {told:?}");
        }
        let told = told("system_health_score");
        let (mut sum, mut weights) = (0.0, 0.0);
        for (part, good, whole) in
            [("tasks_succeed", 3.0, 4.0), ("steps_succeed", 6.0, 8.0), ("steps_wait_little", 3.0, 4.0)]
        {
            let of = |what: &str| input(&told, &format!("{part} {what}"));
            // Of the wait by quantiles, which are off by a hundredth at most.
            assert!((of("good") / good - 1.0).abs() < 0.02 && (of("whole") / whole - 1.0).abs() < 0.02);
            assert!((of("score") - of("good") / of("whole")).abs() < 1e-9);
            sum += of("weight") * of("score");
            weights += of("weight");
        }
        assert!((weights - 1.0).abs() < 1e-9, "all three are known");
        assert!((told.value.unwrap() - sum / weights).abs() < 1e-9, "{told:?}");
    }

    /// Of tasks alone that score is known: nothing else is told under its name.
    #[test]
    fn part_of_the_health_score_that_is_not_known_is_told_as_nothing() {
        let mut report = some_work();
        report.health_parts.retain(|part| part.name != "tasks_succeed");
        let report = Report::Performance(Box::new(report));
        let told = figure_explanation("health_parts".parse().unwrap(), &report, &report);
        let known: Vec<&str> = told
            .inputs
            .iter()
            .filter(|input| input.value.is_some())
            .filter_map(|input| input.name.strip_suffix(" score"))
            .collect();
        assert_eq!(known, ["steps_succeed", "steps_wait_little"]);
        assert_eq!(told.value, Some(0.5));
    }
}
