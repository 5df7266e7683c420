//! Where the figures of the performance report come from.

use std::str::FromStr;

use recache_api::{FigureExplanation, FigureInput, PerformanceReport};

/// A figure of the performance report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Tasks that ended, and those that have not.
    TotalTasks,
    /// Tasks that have not ended.
    ActiveTasks,
    /// Tasks that ended well.
    CompletedTasks,
    /// Tasks that failed.
    FailedTasks,
    /// What part of those that ended did so well.
    CompletionRate,
    /// What part of those that ended failed.
    ErrorRate,
    /// From submit to end, of tasks.
    AverageTaskDurationSeconds,
    /// From start to end, of steps.
    AverageStepDurationSeconds,
    /// From when it was due to its start, of steps.
    QueueWaitSeconds,
    /// Tasks by the hours of the window.
    TasksPerHour,
    /// Steps by the hours of the window.
    StepsPerHour,
    /// The weighed mean of its parts.
    SystemHealthScore,
}

/// The text names no figure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no figure: expected one of {names}", names = Figure::ALL.map(Figure::name).join(", "))]
pub struct UnknownFigure(String);

impl Figure {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::TotalTasks,
        Self::ActiveTasks,
        Self::CompletedTasks,
        Self::FailedTasks,
        Self::CompletionRate,
        Self::ErrorRate,
        Self::AverageTaskDurationSeconds,
        Self::AverageStepDurationSeconds,
        Self::QueueWaitSeconds,
        Self::TasksPerHour,
        Self::StepsPerHour,
        Self::SystemHealthScore,
    ];

    /// The name in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TotalTasks => "total_tasks",
            Self::ActiveTasks => "active_tasks",
            Self::CompletedTasks => "completed_tasks",
            Self::FailedTasks => "failed_tasks",
            Self::CompletionRate => "completion_rate",
            Self::ErrorRate => "error_rate",
            Self::AverageTaskDurationSeconds => "average_task_duration_seconds",
            Self::AverageStepDurationSeconds => "average_step_duration_seconds",
            Self::QueueWaitSeconds => "queue_wait_seconds",
            Self::TasksPerHour => "tasks_per_hour",
            Self::StepsPerHour => "steps_per_hour",
            Self::SystemHealthScore => "system_health_score",
        }
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

/// Where a figure comes from: its formula, its inputs, and both as rolled up and as counted from all rows.
pub fn figure_explanation(
    figure: Figure,
    report: &PerformanceReport,
    exact: &PerformanceReport,
) -> FigureExplanation {
    let (formula, source, value, inputs) = figure.explained();
    let inputs = inputs.into_iter().map(|(name, input)| FigureInput {
        name: name.to_owned(),
        value: input(report),
        exact_value: input(exact),
    });
    FigureExplanation {
        schema: FigureExplanation::SCHEMA.to_owned(),
        figure: figure.name().to_owned(),
        formula: formula.to_owned(),
        source: source.to_owned(),
        value: value(report),
        exact_value: value(exact),
        inputs: inputs.collect(),
    }
}

/// Formula, source, the figure itself, what the formula names.
type Explained = (&'static str, &'static str, fn(&PerformanceReport) -> Option<f64>, Vec<Input>);

/// A number of a report by its name.
type Input = (&'static str, fn(&PerformanceReport) -> Option<f64>);

const COMPLETED: Input = ("completed_tasks", |report| Some(number(report.completed_tasks)));
const FAILED: Input = ("failed_tasks", |report| Some(number(report.failed_tasks)));
const CANCELLED: Input = ("cancelled_tasks", |report| Some(number(report.cancelled_tasks)));
const SUPERSEDED: Input = ("superseded_tasks", |report| Some(number(report.superseded_tasks)));
const ACTIVE: Input = ("active_tasks", |report| Some(number(report.active_tasks)));
const HOURS: Input = ("hours", |report| Some(f64::from(report.hours)));
const STEPS: Input = ("steps that began", |report| Some(number(report.step_duration_seconds.count)));
const TASKS: Input = ("tasks that ended", |report| Some(number(report.task_duration_seconds.count)));

const ENDED_SOURCE: &str = "jobs that are no steps and workflows, by finished_at: figures_minutes up to the last folded minute, \
                            after it the rows of jobs and workflows";
const STEP_SOURCE: &str = "jobs, steps or not, by finished_at: figures_minutes up to the last folded minute, after it the rows of jobs";

impl Figure {
    fn explained(self) -> Explained {
        match self {
            Self::TotalTasks => (
                "completed_tasks + failed_tasks + cancelled_tasks + superseded_tasks + active_tasks",
                ENDED_SOURCE,
                |report| Some(number(report.total_tasks)),
                vec![COMPLETED, FAILED, CANCELLED, SUPERSEDED, ACTIVE],
            ),
            Self::ActiveTasks => (
                "workflows with finished_at null + jobs that are no steps in state queued or running",
                "the rows of workflows and jobs, by their partial indexes",
                ACTIVE.1,
                vec![],
            ),
            Self::CompletedTasks => (
                "count of tasks that ended completed, skipped or resolved in the window",
                ENDED_SOURCE,
                COMPLETED.1,
                vec![],
            ),
            Self::FailedTasks => {
                ("count of tasks that ended failed in the window", ENDED_SOURCE, FAILED.1, vec![])
            }
            Self::CompletionRate => (
                "completed_tasks / (completed_tasks + failed_tasks + cancelled_tasks + superseded_tasks)",
                ENDED_SOURCE,
                |report| report.completion_rate,
                vec![COMPLETED, FAILED, CANCELLED, SUPERSEDED],
            ),
            Self::ErrorRate => (
                "failed_tasks / (completed_tasks + failed_tasks + cancelled_tasks + superseded_tasks)",
                ENDED_SOURCE,
                |report| report.error_rate,
                vec![COMPLETED, FAILED, CANCELLED, SUPERSEDED],
            ),
            Self::AverageTaskDurationSeconds => (
                "sum of finished_at - created_at / tasks that ended",
                ENDED_SOURCE,
                |report| report.average_task_duration_seconds,
                vec![TASKS],
            ),
            Self::AverageStepDurationSeconds => (
                "sum of finished_at - started_at of last attempts / steps that began",
                STEP_SOURCE,
                |report| report.average_step_duration_seconds,
                vec![STEPS],
            ),
            Self::QueueWaitSeconds => (
                "sum of started_at - due_at of last attempts / steps that began",
                STEP_SOURCE,
                |report| report.queue_wait_seconds.mean,
                vec![STEPS],
            ),
            Self::TasksPerHour => (
                "(completed_tasks + failed_tasks + cancelled_tasks + superseded_tasks + active_tasks) / hours",
                ENDED_SOURCE,
                |report| Some(report.tasks_per_hour),
                vec![COMPLETED, FAILED, CANCELLED, SUPERSEDED, ACTIVE, HOURS],
            ),
            Self::StepsPerHour => {
                ("steps that ended / hours", STEP_SOURCE, |report| Some(report.steps_per_hour), vec![HOURS])
            }
            Self::SystemHealthScore => (
                "0.5 tasks that did not fail + 0.25 steps that did not fail + 0.25 run p90 / (run p90 + wait p90)",
                STEP_SOURCE,
                |report| report.system_health_score,
                vec![
                    FAILED,
                    ("run p90", |report| report.step_duration_seconds.p90),
                    ("wait p90", |report| report.queue_wait_seconds.p90),
                ],
            ),
        }
    }
}

/// Exact up to 2^32, and more than anybody counts.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
