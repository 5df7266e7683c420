//! `recache analytics explain`.

use clap::ValueEnum;
use recache_api::{FigureExplanation, FigureInput, PerformanceReport};
use recache_engine::figures::performance_of;
use recache_model::figures::PerformanceRequest;

use super::Which;
use crate::cli_error::ExitStatus;
use crate::commands::failure::of_engine;
use crate::commands::{Context, Outcome};
use crate::output::{self, Format};

/// Tell where a figure comes from, and check it against the rows themselves
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  recache analytics explain completion_rate
  recache analytics explain average_step_duration_seconds --hours 1

The figure is calculated twice: from roll-ups, and from all rows of the window.
They differ where jobs were removed, or run again, after their minute was
folded.")]
pub(super) struct Args {
    /// Which figure
    figure: Figure,
    #[command(flatten)]
    which: Which,
}

/// A figure of the performance report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Figure {
    TotalTasks,
    ActiveTasks,
    CompletedTasks,
    FailedTasks,
    CompletionRate,
    ErrorRate,
    AverageTaskDurationSeconds,
    AverageStepDurationSeconds,
    QueueWaitSeconds,
    TasksPerHour,
    StepsPerHour,
    SystemHealthScore,
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

impl Args {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Outcome {
        let request = PerformanceRequest { hours: self.which.hours, filter: self.which.filter() };
        let store = context.open().await?;
        let rolled_up = performance_of(&*store, &request, self.which.exact).await;
        let exact = performance_of(&*store, &request, true).await;
        store.close().await;
        let report = output::performance(&request, &rolled_up.map_err(|error| of_engine(&error))?);
        let exact = output::performance(&request, &exact.map_err(|error| of_engine(&error))?);
        let (formula, source, value, inputs) = self.figure.explained();
        let name = self.figure.to_possible_value().map(|value| value.get_name().to_owned());
        let explanation = FigureExplanation {
            schema: FigureExplanation::SCHEMA.to_owned(),
            figure: name.unwrap_or_default(),
            formula: formula.to_owned(),
            source: source.to_owned(),
            value: value(&report),
            exact_value: value(&exact),
            inputs: inputs
                .into_iter()
                .map(|(name, input)| FigureInput {
                    name: name.to_owned(),
                    value: input(&report),
                    exact_value: input(&exact),
                })
                .collect(),
        };
        match context.format() {
            Format::Json | Format::Jsonl => context.print(&explanation)?,
            Format::Table => {
                let mut table = context.table(["", ""]);
                table.row(["figure".to_owned(), explanation.figure.clone()]);
                table.row(["formula".to_owned(), explanation.formula.clone()]);
                table.row(["from".to_owned(), explanation.source.clone()]);
                let mut text = table.text();
                let mut table = context.table(["NUMBER", "ROLLED UP", "COUNTED"]);
                let shown = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
                for input in &explanation.inputs {
                    table.row([input.name.clone(), shown(input.value), shown(input.exact_value)]);
                }
                table.row([
                    explanation.figure.clone(),
                    shown(explanation.value),
                    shown(explanation.exact_value),
                ]);
                text.push('\n');
                text.push_str(&table.text());
                context.print_text(&text)?;
            }
        }
        Ok(ExitStatus::Ok)
    }
}

/// Exact up to 2^32, and more than anybody counts.
fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
